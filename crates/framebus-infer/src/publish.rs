//! Frames in, results out: the one place where results are made and counted.

use framebus_bus::{BusError, FrameSample, ResultPublisher};
use framebus_engine::{EngineInfo, FrameOutput, StageTimes as EngineTimes};
use framebus_service::{Vitals, clock};
use framebus_types::{Counter, Detection, Outcome, Reason, ResultHeader, Stage, StageTimes, text};
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
pub struct Answer<'a> {
    /// The boxes.
    pub output: &'a FrameOutput,
    /// Stage times of the batch.
    pub times: &'a EngineTimes,
    /// Frames in the batch.
    pub batch_size: usize,
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

    /// The frame was inferred. `scratch` is the caller's buffer, reused.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn ok(
        &self,
        camera: usize,
        frame: &FrameSample,
        arrival: Arrival,
        answer: &Answer<'_>,
        scratch: &mut Vec<Detection>,
    ) -> Result<(), BusError> {
        let Answer { output, times, batch_size } = *answer;
        scratch.clear();
        scratch.extend(output.detections.iter().map(|found| Detection {
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
        header.times.preprocessed_ns = times.preprocessed_ns;
        header.times.inference_start_ns = times.inference_start_ns;
        header.times.inference_end_ns = times.inference_end_ns;
        header.times.decoded_ns = times.decoded_ns;
        self.send(camera, header, scratch, Counter::Ok)
    }

    /// The frame was not inferred: `dropped` or `skipped`, by reason.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn not_inferred(
        &self,
        camera: usize,
        frame: &FrameSample,
        arrival: Arrival,
        reason: Reason,
    ) -> Result<(), BusError> {
        let (outcome, counter) = match reason {
            Reason::Stale => (Outcome::Dropped, Counter::Stale),
            Reason::Motion => (Outcome::Skipped, Counter::Skipped),
            _ => (Outcome::Dropped, Counter::Superseded),
        };
        let mut header = self.header(frame, arrival);
        header.outcome = outcome.into();
        header.reason = reason.into();
        self.send(camera, header, &[], counter)
    }

    /// Inference of the frame failed.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn failed(
        &self,
        camera: usize,
        frame: &FrameSample,
        arrival: Arrival,
        reason: Reason,
        message: &str,
    ) -> Result<(), BusError> {
        let mut header = self.header(frame, arrival);
        header.outcome = Outcome::Failed.into();
        header.reason = reason.into();
        header.message = text::pack(message);
        self.send(camera, header, &[], Counter::Failed)
    }

    fn header(&self, frame: &FrameSample, arrival: Arrival) -> ResultHeader {
        let frame = frame.header();
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

    fn send(
        &self,
        camera: usize,
        mut header: ResultHeader,
        detections: &[Detection],
        counter: Counter,
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
