//! Frames in, results and events out: the one place where they are made and counted.

use crate::analytics::Analytics;
use crate::ledger::{Entry, Ledger, Legacy};
use framebus_bus::{BusError, EventPublisher, ResultPublisher};
use framebus_engine::{
    EngineInfo, FrameOutput, ServerTimes as EngineServerTimes, StageTimes as EngineTimes,
};
use framebus_service::{Vitals, clock};
use framebus_types::{
    Counter, Detection, Event, FrameHeader, Outcome, Reason, ResultHeader, ServerTimes, Stage,
    StageTimes, text,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Message of results whose frames died with their process.
const ORPHANED: &str = "the inference process ended while it had this frame";

/// Publishes results, counts them, and keeps the ledger of frames that have none yet.
#[derive(Debug)]
pub struct Results {
    publisher: Mutex<Numbered>,
    events: Mutex<NumberedEvents>,
    pub(crate) ledger: Ledger,
    epoch_ns: u64,
    sending_since_ns: AtomicU64,
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

/// The same for events, and the list that is being numbered.
#[derive(Debug)]
struct NumberedEvents {
    publisher: EventPublisher,
    next: u64,
    list: Vec<Event>,
}

/// When a frame passed the stages before the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// Taken from the bus, CLOCK_MONOTONIC ns.
    pub taken_ns: u64,
    /// Given to a worker; 0 when it was not.
    pub batched_ns: u64,
    /// Its place in the ledger.
    pub entry: Entry,
    /// [Time](frame_time_ns) of the last frame before it that the motion gate kept back; 0
    /// when there was none yet.
    pub still_ns: u64,
}

/// The time of a frame by which objects are followed: its capture time, or in a recording
/// the stream's own, so that the pace at which it is played changes nothing.
#[must_use]
pub fn frame_time_ns(recorded: bool, pts_ns: u64, capture_ns: u64) -> u64 {
    if recorded && pts_ns != u64::MAX { pts_ns } else { capture_ns }
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
    entry: Entry,
    still_ns: u64,
}

impl Answer {
    /// Follows what was found, when the frame was looked at; answers what happened.
    pub(crate) fn follow<'a>(
        &mut self,
        analytics: &'a mut Analytics,
        recorded: bool,
    ) -> &'a [Event] {
        let Self { header, detections, still_ns, .. } = self;
        if header.outcome != u32::from(Outcome::Ok) {
            return &[];
        }
        let time_ns = frame_time_ns(recorded, header.pts_ns, header.times.capture_ns);
        analytics.look(time_ns, *still_ns, header, detections)
    }

    /// Says which worker it comes from.
    pub(crate) fn set_context(&mut self, worker: usize) {
        self.header.context = worker as u32;
    }
}

impl Results {
    /// Makes results in nobody's name until an engine is [`loaded`](Self::loaded).
    #[must_use]
    pub fn new(publisher: ResultPublisher, events: EventPublisher, ledger: Ledger) -> Self {
        let list = Vec::new();
        Self {
            publisher: Mutex::new(Numbered { publisher, next: 0 }),
            events: Mutex::new(NumberedEvents { publisher: events, next: 0, list }),
            ledger,
            epoch_ns: clock::wall_ns(),
            sending_since_ns: AtomicU64::new(0),
            labels: Vec::new(),
            model: [0; 48],
            backend: [0; 16],
        }
    }

    /// Makes results in the name of the loaded engine from now on.
    pub fn loaded(&mut self, info: &EngineInfo) {
        self.labels = info.labels.iter().map(|label| text::pack(label)).collect();
        self.model = text::pack(&info.model);
        self.backend = text::pack(info.backend);
        self.ledger.loaded(info.backend, &info.model);
    }

    /// Answers what an earlier process left `failed`, in its name. `vitals` knows the
    /// cameras, also those that are not in the configuration any more.
    pub fn answer_orphans(&self, legacy: &Legacy, vitals: impl Fn(&str) -> Arc<Vitals>) {
        let mut answer = Answer::default();
        for orphan in &legacy.orphans {
            let name = text::unpack(&orphan.header.camera);
            let (taken_ns, entry) = (orphan.taken_ns, orphan.entry);
            let arrival = Arrival { taken_ns, entry, ..Arrival::default() };
            self.failed(&orphan.header, arrival, Reason::Engine, ORPHANED, &mut answer);
            answer.header.model = text::pack(&legacy.model);
            answer.header.backend = text::pack(&legacy.backend);
            let vitals = vitals(name);
            match self.send(&vitals, &answer) {
                Ok(()) => vitals.add(Counter::Orphaned, 1),
                Err(error) => tracing::error!(camera = name, %error, "result lost"),
            }
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
            label: self.label(found.class),
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
        header.server = server_times(&times.server);
        answer.header = header;
        (answer.entry, answer.still_ns) = (arrival.entry, arrival.still_ns);
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
        answer.entry = arrival.entry;
    }

    /// The frame was not inferred: sends `dropped` or `skipped`, by reason.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn not_inferred(
        &self,
        vitals: &Vitals,
        frame: &FrameHeader,
        arrival: Arrival,
        reason: Reason,
    ) -> Result<(), BusError> {
        let skipped = reason == Reason::Motion;
        let mut header = self.header(frame, arrival);
        header.outcome = if skipped { Outcome::Skipped } else { Outcome::Dropped }.into();
        header.reason = reason.into();
        self.send_parts(vitals, header, &[], arrival.entry)
    }

    fn label(&self, class: u32) -> [u8; 40] {
        self.labels.get(class as usize).copied().unwrap_or([0; 40])
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

    /// Sends an answer and counts it for its camera.
    ///
    /// # Errors
    /// [`BusError`] when the result could not be sent.
    pub fn send(&self, vitals: &Vitals, answer: &Answer) -> Result<(), BusError> {
        self.send_parts(vitals, answer.header, &answer.detections, answer.entry)
    }

    /// Sends the events of a frame and counts them for its camera.
    ///
    /// # Errors
    /// [`BusError`] when they could not be sent; readers see a gap in their numbers.
    pub fn send_events(&self, vitals: &Vitals, events: &[Event]) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut numbered = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let NumberedEvents { publisher, next, list } = &mut *numbered;
        list.clear();
        list.extend((*next..).zip(events).map(|(event_sequence, event)| Event {
            event_sequence,
            event_epoch_ns: self.epoch_ns,
            label: self.label(event.class),
            ..*event
        }));
        *next += events.len() as u64;
        publisher.publish(list)?;
        vitals.add(Counter::Events, events.len() as u64);
        Ok(())
    }

    fn send_parts(
        &self,
        vitals: &Vitals,
        mut header: ResultHeader,
        detections: &[Detection],
        entry: Entry,
    ) -> Result<(), BusError> {
        let mut numbered = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        header.result_epoch_ns = self.epoch_ns;
        header.result_sequence = numbered.next;
        header.times.result_ns = clock::monotonic_ns();
        // Also when it fails: some readers may have it, the others see a gap.
        numbered.next += 1;
        self.sending_since_ns.store(header.times.result_ns, Ordering::Relaxed);
        let sent = numbered.publisher.send(&header, detections);
        self.sending_since_ns.store(0, Ordering::Relaxed);
        // Before anybody wakes up: killed in between, the frame would have two results.
        self.ledger.leave(entry);
        numbered.publisher.wake();
        drop(numbered);
        sent?;
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

/// The engine's words for shared memory; none is left out.
fn server_times(server: &EngineServerTimes) -> ServerTimes {
    let EngineServerTimes {
        request,
        serialise_us,
        receive_us,
        queue_us,
        compute_input_us,
        compute_us,
        compute_output_us,
        sent_bytes,
        received_bytes,
    } = *server;
    ServerTimes {
        request,
        serialise_us,
        receive_us,
        queue_us,
        compute_input_us,
        compute_us,
        compute_output_us,
        sent_bytes,
        received_bytes,
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
