//! Frames in, results out: the one place where results are made and counted.

use framebus_bus::{BusError, ResultPublisher};
use framebus_engine::{EngineInfo, FrameOutput, StageTimes as EngineTimes};
use framebus_service::{Vitals, clock};
use framebus_types::{
    Counter, Detection, FrameHeader, Outcome, Reason, ResultHeader, Stage, StageTimes, text,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Publishes results and keeps each camera's counters.
#[derive(Debug)]
pub struct Results {
    publisher: Mutex<Numbered>,
    epoch_ns: u64,
    sending_since_ns: AtomicU64,
    cameras: Vec<Arc<Vitals>>,
    labels: Vec<[u8; 40]>,
    model: [u8; 48],
    backend: [u8; 16],
}

/// The publisher and the number of the next result; numbers have no gaps.
#[derive(Debug)]
struct Numbered {
    publisher: ResultPublisher,
    next: u64,
}

/// When a frame passed the stages before the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// Taken from the bus, CLOCK_MONOTONIC ns.
    pub taken_ns: u64,
    /// Given to a worker; 0 when it was not.
    pub batched_ns: u64,
}

/// What the engine answered for a frame.
#[derive(Debug, Clone, Copy)]
pub struct Inferred<'a> {
    /// The boxes.
    pub output: &'a FrameOutput,
    /// Stage times of the batch.
    pub times: &'a EngineTimes,
    /// Frames in the batch.
    pub batch_size: usize,
    /// Execution context, from 0.
    pub context: usize,
}

/// A result that is ready to be sent. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct Answer {
    header: ResultHeader,
    detections: Vec<Detection>,
}

impl Answer {
    /// Says which worker it comes from.
    pub(crate) fn set_context(&mut self, worker: usize) {
        self.header.context = worker as u32;
    }
}

impl Results {
    /// Makes results in the name of the loaded engine.
    #[must_use]
    pub fn new(publisher: ResultPublisher, cameras: Vec<Arc<Vitals>>, info: &EngineInfo) -> Self {
        Self {
            publisher: Mutex::new(Numbered { publisher, next: 0 }),
            epoch_ns: clock::wall_ns(),
            sending_since_ns: AtomicU64::new(0),
            cameras,
            labels: info.labels.iter().map(|label| text::pack(label)).collect(),
            model: text::pack(&info.model),
            backend: text::pack(info.backend),
        }
    }

    /// The frame was inferred: writes its result into `answer`.
    pub fn ok(
        &self,
        frame: &FrameHeader,
        arrival: Arrival,
        inferred: &Inferred<'_>,
        answer: &mut Answer,
    ) {
        let Inferred { output, times, batch_size, context } = *inferred;
        answer.detections.clear();
        answer.detections.extend(output.detections.iter().map(|found| Detection {
            bbox: found.bbox,
            score: found.score,
            class: found.class,
            label: self.labels.get(found.class as usize).copied().unwrap_or([0; 40]),
            ..Detection::default()
        }));
        let mut header = self.header(frame, arrival);
        header.outcome = Outcome::Ok.into();
        header.truncated = output.truncated;
        header.batch_size = batch_size as u32;
        header.context = context as u32;
        header.times.preprocessed_ns = times.preprocessed_ns;
        header.times.inference_start_ns = times.inference_start_ns;
        header.times.inference_end_ns = times.inference_end_ns;
        header.times.decoded_ns = times.decoded_ns;
        answer.header = header;
    }

    /// Inference of the frame failed: writes its result into `answer`.
    pub fn failed(
        &self,
        frame: &FrameHeader,
        arrival: Arrival,
        reason: Reason,
        message: &str,
        answer: &mut Answer,
    ) {
        answer.detections.clear();
        answer.header = self.header(frame, arrival);
        answer.header.outcome = Outcome::Failed.into();
        answer.header.reason = reason.into();
        answer.header.message = text::pack(message);
    }

    /// The frame was not inferred: sends `dropped` or `skipped`, by reason.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn not_inferred(
        &self,
        camera: usize,
        frame: &FrameHeader,
        arrival: Arrival,
        reason: Reason,
    ) -> Result<(), BusError> {
        let skipped = reason == Reason::Motion;
        let mut header = self.header(frame, arrival);
        header.outcome = if skipped { Outcome::Skipped } else { Outcome::Dropped }.into();
        header.reason = reason.into();
        self.send_parts(camera, header, &[])
    }

    fn header(&self, frame: &FrameHeader, arrival: Arrival) -> ResultHeader {
        ResultHeader {
            camera: frame.camera,
            epoch_ns: frame.epoch_ns,
            sequence: frame.sequence,
            wall_ns: frame.wall_ns,
            pts_ns: frame.pts_ns,
            width: frame.width,
            height: frame.height,
            flags: frame.flags,
            model: self.model,
            backend: self.backend,
            times: StageTimes {
                capture_ns: frame.capture_ns,
                publish_ns: frame.publish_ns,
                taken_ns: arrival.taken_ns,
                batched_ns: arrival.batched_ns,
                ..StageTimes::default()
            },
            ..ResultHeader::default()
        }
    }

    /// Since when the last result has been waiting for its readers, CLOCK_MONOTONIC
    /// ns; 0 when none is.
    #[must_use]
    pub fn sending_since_ns(&self) -> u64 {
        self.sending_since_ns.load(Ordering::Relaxed)
    }

    /// Whether a reader of this name is there.
    #[must_use]
    pub fn has_reader(&self, reader: &str) -> bool {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).publisher.has_reader(reader)
    }

    /// Sends an answer of `camera`.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn send(&self, camera: usize, answer: &Answer) -> Result<(), BusError> {
        self.send_parts(camera, answer.header, &answer.detections)
    }

    fn send_parts(
        &self,
        camera: usize,
        mut header: ResultHeader,
        detections: &[Detection],
    ) -> Result<(), BusError> {
        let mut numbered = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        header.result_epoch_ns = self.epoch_ns;
        header.result_sequence = numbered.next;
        header.times.result_ns = clock::monotonic_ns();
        // Also when it fails: some readers may have it, the others see a gap.
        numbered.next += 1;
        self.sending_since_ns.store(header.times.result_ns, Ordering::Relaxed);
        let sent = numbered.publisher.publish(&header, detections);
        self.sending_since_ns.store(0, Ordering::Relaxed);
        drop(numbered);
        sent?;
        let vitals = &self.cameras[camera];
        let counter = counter(&header);
        vitals.add(counter, 1);
        vitals.add(Counter::Detections, detections.len() as u64);
        // Latencies are those of answers: a dropped frame passed few stages.
        if counter == Counter::Ok {
            for (stage, duration) in Stage::ALL.into_iter().zip(header.times.durations_ns()) {
                if let Some(ns) = duration {
                    vitals.record(stage, ns);
                }
            }
        }
        Ok(())
    }
}

/// Where a result is counted.
fn counter(header: &ResultHeader) -> Counter {
    let is = |outcome: Outcome| header.outcome == u32::from(outcome);
    if is(Outcome::Ok) {
        Counter::Ok
    } else if is(Outcome::Failed) {
        Counter::Failed
    } else if is(Outcome::Skipped) {
        Counter::Skipped
    } else if header.reason == u32::from(Reason::Stale) {
        Counter::Stale
    } else {
        Counter::Superseded
    }
}
