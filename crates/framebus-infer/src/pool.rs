//! Workers: one thread per execution context.
//!
//! Lock order: only `Shared::scheduler` is a lock of this module; results are
//! published and the engine runs without it.

use crate::publish::{Answer, Arrival, Results};
use crate::scheduler::{Job, Scheduler};
use framebus_bus::{BusError, FrameSample, FrameSubscriber};
use framebus_engine::{BatchOutput, Context, EngineError, FrameRequest, Thresholds};
use framebus_service::{Shutdown, Vitals, clock};
use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Counter, Fourcc, Reason, Role, State};
use framebus_vision::{self as vision, FrameView, Planes};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Failed batches in a row after which the process gives up and is restarted:
/// an engine that fails this often does not come back by itself.
const FAILURES_MAX: u32 = 10;
/// How often a waiting worker looks up.
const LOOK: Duration = Duration::from_millis(100);

/// A frame with the time it was taken.
#[derive(Debug)]
pub struct Taken {
    frame: FrameSample,
    taken_ns: u64,
}

/// One camera as this process sees it.
#[derive(Debug)]
pub struct Camera {
    subscriber: FrameSubscriber,
    every_frame: bool,
    vitals: Arc<Vitals>,
    /// Epoch and sequence number of the last frame taken.
    last: Mutex<Option<(u64, u64)>>,
}

impl Camera {
    /// A camera that has not delivered yet.
    #[must_use]
    pub fn new(subscriber: FrameSubscriber, every_frame: bool, vitals: Arc<Vitals>) -> Self {
        Self { subscriber, every_frame, vitals, last: Mutex::new(None) }
    }

    /// Sleeps until a frame is there.
    #[must_use]
    pub fn subscriber(&self) -> &FrameSubscriber {
        &self.subscriber
    }

    /// Counters of the camera.
    #[must_use]
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Counts the frame and those missing before it.
    fn count(&self, frame: &FrameSample) {
        let header = frame.header();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = match *last {
            Some((epoch, sequence)) if epoch == header.epoch_ns => sequence + 1,
            // A restarted capture process counts from 0; what came before our
            // own start we did not miss.
            Some(_) => 0,
            None => header.sequence,
        };
        *last = Some((header.epoch_ns, header.sequence));
        drop(last);
        self.vitals.add(Counter::Taken, 1);
        self.vitals.add(Counter::Missed, header.sequence.saturating_sub(expected));
        self.vitals.set_state(State::Live, "");
    }
}

/// What taker and workers share.
#[derive(Debug)]
pub struct Shared {
    cameras: Vec<Camera>,
    scheduler: Mutex<Scheduler<Taken>>,
    work: Condvar,
    results: Results,
    thresholds: Thresholds,
    shutdown: Shutdown,
    stopping: AtomicBool,
    process: Arc<Vitals>,
    progress: Arc<AtomicBool>,
    failures: AtomicU32,
}

impl Shared {
    /// Everything that taker and workers need.
    #[must_use]
    pub fn new(
        cameras: Vec<Camera>,
        scheduler: Scheduler<Taken>,
        results: Results,
        thresholds: Thresholds,
        process: Arc<Vitals>,
        shutdown: Shutdown,
        progress: Arc<AtomicBool>,
    ) -> Self {
        Self {
            cameras,
            scheduler: Mutex::new(scheduler),
            work: Condvar::new(),
            results,
            thresholds,
            shutdown,
            stopping: AtomicBool::new(false),
            process,
            progress,
            failures: AtomicU32::new(0),
        }
    }

    /// The cameras, in the order of their numbers.
    #[must_use]
    pub fn cameras(&self) -> &[Camera] {
        &self.cameras
    }

    /// Takes what is on the bus for `camera`, as far as it is wanted. Called by
    /// the taker when frames come, and by workers when a place became free.
    pub fn take(&self, number: usize) {
        let camera = &self.cameras[number];
        loop {
            let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            // After `stop` has drained, nobody would answer it.
            if self.stopping.load(Ordering::Relaxed) || !scheduler.wants(number) {
                return;
            }
            // Under the lock, so that two threads cannot swap two frames.
            let frame = match camera.subscriber.receive() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    camera.vitals.add(Counter::Errors, 1);
                    tracing::warn!(camera = camera.subscriber.camera(), %error, "frame not taken");
                    return;
                }
            };
            let taken_ns = clock::monotonic_ns();
            let capture_ns = frame.header().capture_ns;
            camera.count(&frame);
            let superseded = scheduler.offer(number, Taken { frame, taken_ns }, capture_ns);
            drop(scheduler);
            self.work.notify_one();
            if let Some(old) = superseded {
                self.dropped(number, &old, 0, Reason::Superseded);
            }
        }
    }

    /// Runs one worker until the process stops.
    pub fn work(&self, context: &mut dyn Context, max_batch: usize) {
        let mut batch: Vec<Job<Taken>> = Vec::new();
        let mut stale = Vec::new();
        let mut output = BatchOutput::default();
        let mut scratch = Vec::new();
        while self.next_batch(max_batch, &mut batch, &mut stale) {
            let batched_ns = clock::monotonic_ns();
            for job in stale.drain(..) {
                self.dropped(job.camera, &job.frame, 0, Reason::Stale);
            }
            // Their places are free: the next frames can wait there while
            // these are in inference.
            for job in &batch {
                if self.cameras[job.camera].every_frame {
                    self.take(job.camera);
                }
            }
            self.infer(context, &batch, batched_ns, &mut output, &mut scratch);
            let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            for job in batch.drain(..) {
                scheduler.done(job.camera);
            }
            drop(scheduler);
            self.progress.store(true, Ordering::Relaxed);
            self.work.notify_all();
        }
    }

    /// Waits for work; `false` when the process stops. Stale frames may come
    /// without a batch.
    fn next_batch(
        &self,
        max_batch: usize,
        batch: &mut Vec<Job<Taken>>,
        stale: &mut Vec<Job<Taken>>,
    ) -> bool {
        let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return false;
            }
            scheduler.next(clock::monotonic_ns(), max_batch, batch, stale);
            if !batch.is_empty() || !stale.is_empty() {
                return true;
            }
            let (guard, _) =
                self.work.wait_timeout(scheduler, LOOK).unwrap_or_else(PoisonError::into_inner);
            scheduler = guard;
        }
    }

    fn infer(
        &self,
        context: &mut dyn Context,
        batch: &[Job<Taken>],
        batched_ns: u64,
        output: &mut BatchOutput,
        scratch: &mut Vec<framebus_types::Detection>,
    ) {
        if batch.is_empty() {
            return;
        }
        // Headers were checked when the frames were received: one that is no
        // picture after all is a bug, and fails its batch.
        let mut requests = Vec::with_capacity(batch.len());
        for job in batch {
            match view(&job.frame.frame) {
                Ok(view) => requests.push(FrameRequest { view, thresholds: &self.thresholds }),
                Err(error) => {
                    return self.fail(batch, batched_ns, Reason::BadFrame, &error.to_string());
                }
            }
        }
        match context.run(&requests, output) {
            Ok(()) => {
                if self.failures.swap(0, Ordering::Relaxed) > 0 {
                    self.process.set_state(State::Live, "");
                }
                for (job, frame_output) in batch.iter().zip(&output.frames) {
                    let arrival = Arrival { taken_ns: job.frame.taken_ns, batched_ns };
                    let answer = Answer {
                        output: frame_output,
                        times: &output.times,
                        batch_size: batch.len(),
                    };
                    let frame = &job.frame.frame;
                    let sent = self.results.ok(job.camera, frame, arrival, &answer, scratch);
                    self.note(job.camera, sent);
                }
            }
            Err(error) => self.engine_failed(batch, batched_ns, &error),
        }
    }

    fn engine_failed(&self, batch: &[Job<Taken>], batched_ns: u64, error: &EngineError) {
        let message = error.to_string();
        self.process.add(Counter::Errors, 1);
        self.process.set_state(State::Degraded, &message);
        self.fail(batch, batched_ns, Reason::Engine, &message);
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            tracing::error!(failures = FAILURES_MAX, "the engine keeps failing; giving up");
            self.shutdown.request();
        }
    }

    fn fail(&self, batch: &[Job<Taken>], batched_ns: u64, reason: Reason, message: &str) {
        for job in batch {
            let arrival = Arrival { taken_ns: job.frame.taken_ns, batched_ns };
            let sent = self.results.failed(job.camera, &job.frame.frame, arrival, reason, message);
            self.note(job.camera, sent);
        }
    }

    fn dropped(&self, camera: usize, taken: &Taken, batched_ns: u64, reason: Reason) {
        let arrival = Arrival { taken_ns: taken.taken_ns, batched_ns };
        let sent = self.results.not_inferred(camera, &taken.frame, arrival, reason);
        self.note(camera, sent);
    }

    /// A result that could not be sent is lost for its readers; all that is
    /// left is to say so.
    fn note(&self, camera: usize, sent: Result<(), BusError>) {
        if let Err(error) = sent {
            self.cameras[camera].vitals.add(Counter::Errors, 1);
            tracing::error!(camera = self.cameras[camera].subscriber.camera(), %error, "result lost");
        }
    }

    /// Whether the engine has failed too often to go on.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// Stops the workers after their current batch and answers the frames that
    /// wait with `dropped(stopping)`.
    pub fn stop(&self) {
        let left = {
            // Under the lock: a frame is taken either before, and drained here,
            // or not at all.
            let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            self.stopping.store(true, Ordering::Relaxed);
            scheduler.drain()
        };
        self.work.notify_all();
        for job in left {
            self.dropped(job.camera, &job.frame, 0, Reason::Stopping);
        }
    }

    /// What becomes of results.
    #[must_use]
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// The process's own vitals.
    #[must_use]
    pub fn process(&self) -> &Vitals {
        &self.process
    }
}

/// Vitals of one camera in this process.
#[must_use]
pub fn camera_vitals(name: &str) -> Arc<Vitals> {
    Vitals::new(Role::InferCamera, name)
}

/// The picture that a sample holds, borrowed.
fn view(frame: &FrameSample) -> Result<FrameView<'_>, vision::FrameError> {
    let header = frame.header();
    let planes = match frame.fourcc() {
        Fourcc::Nv12 => {
            let ((y, y_stride), (uv, uv_stride)) = (frame.plane(0), frame.plane(1));
            Planes::Nv12 { y, y_stride, uv, uv_stride }
        }
        Fourcc::Rgb24 => {
            let (data, stride) = frame.plane(0);
            Planes::Rgb24 { data, stride }
        }
    };
    let colour = vision::Colour {
        matrix: match frame.matrix() {
            ColourMatrix::Bt601 => vision::Matrix::Bt601,
            ColourMatrix::Bt709 => vision::Matrix::Bt709,
            ColourMatrix::Bt2020 => vision::Matrix::Bt2020,
        },
        range: match frame.range() {
            ColourRange::Limited => vision::Range::Limited,
            ColourRange::Full => vision::Range::Full,
        },
        site: match frame.chroma_site() {
            ChromaSite::Left => vision::ChromaSite::Left,
            ChromaSite::Center => vision::ChromaSite::Center,
        },
    };
    FrameView::new(header.width as usize, header.height as usize, planes, colour)
}
