//! The threads behind the taker: one worker per execution context, and the loader.

use crate::pixels::view;
use crate::pool::{Contexts, Gone, Load, Shared, Taken};
use crate::publish::{Answer, Arrival, Inferred};
use crate::scheduler::{Job, Left};
use crate::watch::InEngine;
use arrayvec::ArrayVec;
use framebus_bus::SegmentId;
use framebus_engine::{BatchOutput, Engine, EngineError, FrameRequest, MemoryId, Shape};
use framebus_service::clock;
use framebus_types::{Counter, Reason};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a waiting worker looks up.
const LOOK: Duration = Duration::from_millis(100);
/// Largest batch: one frame of each camera that a configuration can have.
pub(crate) const MAX_BATCH: usize = 64;

/// Why a batch has no answer.
#[derive(Debug)]
struct Failed {
    reason: Reason,
    message: String,
    /// The engine is not there any more.
    gone: bool,
}

impl Failed {
    fn new(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string(), gone: false }
    }
}

/// A worker's memory from batch to batch.
#[derive(Debug, Default)]
struct Desk {
    batch: Vec<Job<Taken>>,
    stale: Vec<Left<Taken>>,
    gone: Vec<Gone>,
    output: BatchOutput,
    answer: Answer,
    /// Camera and number of its answers that went out.
    sent: Vec<(usize, usize)>,
}

impl Shared {
    /// Runs worker `number` until the process stops.
    pub(crate) fn work(&self, number: usize) {
        let mut desk = Desk::default();
        while let Some(lane) = self.next_batch(&mut desk) {
            for gone in desk.gone.drain(..) {
                self.not_inferred(&gone, Reason::Stale);
            }
            let Some(lane) = lane else { continue };
            let started_ns = clock::monotonic_ns();
            // Their places are free: the next frames can wait there while
            // these are in inference.
            for job in &desk.batch {
                if job.frame.camera.every_frame {
                    self.take(job.camera);
                }
            }
            // Where the engine took too long, the frames are answered already and the
            // process ends.
            let Some(inferred) = self.infer(lane, number, started_ns, &mut desk) else { return };
            let cameras = || desk.sent.iter().map(|&(camera, _)| camera);
            // Gives the samples back, before others are taken in their place.
            desk.batch.clear();
            let took_ns = inferred.then(|| clock::monotonic_ns().saturating_sub(started_ns));
            let mut book = self.book();
            book.scheduler.finished(lane, took_ns, cameras());
            for &(camera, answers) in &desk.sent {
                book.scheduler.answered(camera, answers);
            }
            drop(book);
            self.outside.progress.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for work and answers its lane; `Some(None)` when there are only stale
    /// frames, `None` when the process stops.
    fn next_batch(&self, desk: &mut Desk) -> Option<Option<usize>> {
        let mut book = self.book();
        loop {
            // Where the engine was given up, it is not asked again while the process ends.
            if self.stopping() || self.is_given_up() {
                return None;
            }
            let now_ns = clock::monotonic_ns();
            let lane = book.scheduler.next(now_ns, &mut desk.batch, &mut desk.stale);
            desk.gone.extend(desk.stale.drain(..).map(Gone::from));
            if lane.is_some() || !desk.gone.is_empty() {
                // Whoever offers a frame wakes one worker; if there is more, the
                // woken one wakes the next.
                if lane.is_some() && book.scheduler.has_more(now_ns) {
                    self.work.notify_one();
                }
                return Some(lane);
            }
            let (guard, _) =
                self.work.wait_timeout(book, LOOK).unwrap_or_else(PoisonError::into_inner);
            book = guard;
        }
    }

    /// Runs a batch and sends its answers; says whether the engine answered, `None` when
    /// it took so long that somebody else has sent them.
    fn infer(&self, lane: usize, worker: usize, batched_ns: u64, desk: &mut Desk) -> Option<bool> {
        let Desk { batch, output, answer, sent, .. } = desk;
        sent.clear();
        let in_engine = |job: &Job<Taken>| InEngine {
            camera: job.frame.camera.clone(),
            header: *job.frame.frame.header(),
            ticket: job.ticket,
            arrival: Arrival { batched_ns, ..job.frame.arrival },
        };
        self.notes[worker].begin(lane, batch.iter().map(in_engine));
        let result = self.run(lane, worker, batch, output);
        if !self.notes[worker].end() {
            return None;
        }
        match &result {
            Ok(()) => {
                self.outside.process.add(Counter::Batches, 1);
                self.engine_answered();
            }
            Err(Failed { reason: Reason::Engine, message, gone }) => {
                self.engine_failed(message, *gone);
            }
            Err(Failed { message, .. }) => {
                tracing::error!(message, "a frame is no picture after all");
            }
        }
        for (index, job) in batch.iter().enumerate() {
            let Taken { frame, camera, arrival } = &job.frame;
            let arrival = Arrival { batched_ns, ..*arrival };
            match &result {
                Ok(()) => {
                    let inferred = Inferred {
                        output: &output.frames[index],
                        times: &output.times,
                        batch_size: batch.len(),
                        context: worker,
                    };
                    camera.answered();
                    self.results.ok(frame.header(), arrival, &inferred, answer);
                }
                Err(Failed { reason, message, .. }) => {
                    camera.look_again();
                    camera.failed(message);
                    self.results.failed(frame.header(), arrival, *reason, message, answer);
                    answer.set_context(worker);
                }
            }
            let send = |answer: &mut Answer| self.send_in_turn(camera, answer);
            sent.push((job.camera, camera.order.publish(job.ticket, answer, send)));
        }
        Some(result.is_ok())
    }

    fn run(
        &self,
        lane: usize,
        worker: usize,
        batch: &[Job<Taken>],
        output: &mut BatchOutput,
    ) -> Result<(), Failed> {
        let mut requests: ArrayVec<FrameRequest<'_>, MAX_BATCH> = ArrayVec::new();
        for job in batch {
            // Headers were checked when the frames were received: one that is no
            // picture after all is a bug, and fails its batch.
            let view =
                view(&job.frame.frame).map_err(|error| Failed::new(Reason::BadFrame, error))?;
            let memory = job.frame.frame.memory();
            let memory =
                memory.map(|SegmentId { publisher, segment }| MemoryId { publisher, segment });
            let thresholds = &self.outside.thresholds;
            requests.push(FrameRequest { view, thresholds, memory });
        }
        let bug = |message: &str| Failed::new(Reason::Engine, message);
        let contexts = self.lanes[lane].get().ok_or_else(|| bug("the input is not loaded"))?;
        let mut context = contexts[worker].lock().unwrap_or_else(PoisonError::into_inner);
        context.run(&requests, output).map_err(|error| Failed {
            gone: matches!(error, EngineError::Gone { .. }),
            ..Failed::new(Reason::Engine, error)
        })?;
        if output.frames.len() < batch.len() {
            return Err(bug("the engine answered fewer frames than it was asked"));
        }
        Ok(())
    }

    /// Loads the inputs that cameras turn out to need, until the process stops.
    /// Engines compile for seconds; meanwhile everybody else goes on.
    pub(crate) fn load(&self, engine: &mut dyn Engine, orders: &Receiver<Load>) {
        for (lane, shape) in orders {
            // Orders that were given before the stop are still here.
            if self.stopping() {
                return;
            }
            tracing::info!(input = %shape, "preparing the model");
            self.outside.loads.turns.fetch_add(1, Ordering::Relaxed);
            let result = contexts(engine, shape);
            self.outside.loads.turns.fetch_add(1, Ordering::Relaxed);
            match &result {
                Ok(_) => tracing::info!(input = %shape, "model prepared"),
                Err(error) => tracing::error!(input = %shape, error, "model not prepared"),
            }
            self.loaded(lane, result);
        }
    }
}

/// One context per worker.
pub(crate) fn contexts(engine: &mut dyn Engine, shape: Shape) -> Result<Contexts, String> {
    let wanted = engine.info().contexts.max(1);
    let contexts = engine.contexts(shape).map_err(|error| error.to_string())?;
    if contexts.len() != wanted {
        let found = contexts.len();
        return Err(format!("the engine answered {found} execution contexts, not {wanted}"));
    }
    Ok(contexts.into_iter().map(Mutex::new).collect())
}
