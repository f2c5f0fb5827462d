//! What the taker, the workers and the loader share.
//!
//! Lock order: `Shared::book` is held for bookkeeping and for taking a frame from
//! the bus; the engine runs, models load and results go out without it. Under a
//! camera's line of [`Order`] only the results publisher's own lock is taken.

use crate::camera::Camera;
use crate::order::Order;
use crate::publish::{Answer, Arrival, Results};
use crate::scheduler::{Bounds, Left, Policy, Scheduler};
use crate::shapes::{MAX_SHAPES, Place, Shapes};
use framebus_bus::{BusError, FrameSample};
use framebus_engine::{Context, EngineInfo, Shape, Thresholds};
use framebus_service::{Shutdown, Vitals, clock};
use framebus_types::{Counter, FrameHeader, Reason, State};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Failed batches in a row after which the process gives up and is restarted:
/// an engine that fails this often does not come back by itself.
const FAILURES_MAX: u32 = 10;

/// A frame with the time it was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) frame: FrameSample,
    pub(crate) taken_ns: u64,
}

/// What is left of a frame that is not inferred. Its sample goes back while the
/// lock is held: the bus lends a camera's frames for those in inference, one that
/// waits and one being taken, and for no other.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) camera: usize,
    header: FrameHeader,
    taken_ns: u64,
}

impl From<Left<Taken>> for Gone {
    fn from(Left { camera, frame: Taken { frame, taken_ns } }: Left<Taken>) -> Self {
        Self { camera, header: *frame.header(), taken_ns }
    }
}

/// What the one lock guards.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) scheduler: Scheduler<Taken>,
    pub(crate) shapes: Shapes,
}

/// The contexts of a lane, one per worker; each is locked by its own worker alone.
pub(crate) type Contexts = Vec<Mutex<Box<dyn Context>>>;

/// A lane that is to be loaded, and its input.
pub(crate) type Load = (usize, Shape);

/// Everything around the shared state that the process brings along.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) thresholds: Thresholds,
    pub(crate) process: Arc<Vitals>,
    pub(crate) shutdown: Shutdown,
    pub(crate) progress: Arc<AtomicBool>,
}

/// What taker, workers and loader share.
pub(crate) struct Shared {
    cameras: Vec<Camera>,
    book: Mutex<Book>,
    pub(crate) work: Condvar,
    pub(crate) lanes: [OnceLock<Contexts>; MAX_SHAPES],
    pub(crate) order: Order<Answer>,
    pub(crate) results: Results,
    pub(crate) outside: Outside,
    loads: Mutex<Option<SyncSender<Load>>>,
    pub(crate) info: EngineInfo,
    stopping: AtomicBool,
    failures: AtomicU32,
    gave_up: AtomicBool,
}

impl Shared {
    /// Also answers the orders for the loader: at most one per lane is on its way.
    pub(crate) fn new(
        cameras: Vec<Camera>,
        policies: &[Policy],
        bounds: Bounds,
        info: EngineInfo,
        results: Results,
        outside: Outside,
    ) -> (Self, Receiver<Load>) {
        let (loads, orders) = sync_channel(MAX_SHAPES);
        let scheduler = Scheduler::new(policies, bounds);
        let shapes = Shapes::new(info.shapes, info.base);
        let shared = Self {
            order: Order::new(cameras.len(), bounds.unanswered),
            cameras,
            book: Mutex::new(Book { scheduler, shapes }),
            work: Condvar::new(),
            lanes: Default::default(),
            results,
            outside,
            loads: Mutex::new(Some(loads)),
            info,
            stopping: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            gave_up: AtomicBool::new(false),
        };
        (shared, orders)
    }

    /// The cameras, in the order of their numbers.
    pub(crate) fn cameras(&self) -> &[Camera] {
        &self.cameras
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Takes what is on the bus for `camera`, as far as it is wanted. Called by
    /// the taker when frames come, and by workers when a place became free.
    pub(crate) fn take(&self, number: usize) {
        let camera = &self.cameras[number];
        loop {
            // Receiving under the lock, so that two threads cannot swap two frames.
            let mut book = self.book();
            // After `stop` has drained, nobody would answer it.
            if self.stopping() || !book.scheduler.wants(number) {
                return;
            }
            let frame = match camera.subscriber().receive() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    camera.vitals().add(Counter::Errors, 1);
                    tracing::warn!(camera = camera.subscriber().camera(), %error, "frame not taken");
                    return;
                }
            };
            let taken = Taken { frame, taken_ns: clock::monotonic_ns() };
            let header = *taken.frame.header();
            camera.count(&header);
            let gone = |frame| Gone::from(Left { camera: number, frame });
            if camera.skips(&header) {
                let skipped = gone(taken);
                drop(book);
                camera.vitals().set_state(State::Live, "");
                self.not_inferred(&skipped, Reason::Motion);
                continue;
            }
            let (width, height) = (header.width as usize, header.height as usize);
            let place = book.shapes.place(width, height, taken.taken_ns);
            let lane = match place {
                Place::Ready(lane) => {
                    camera.vitals().set_state(State::Live, "");
                    lane
                }
                Place::Loading(lane) | Place::Load(lane, _) => {
                    let reason = format!("preparing the model for {}", book.shapes.shape(lane));
                    camera.vitals().set_state(State::Starting, &reason);
                    lane
                }
                Place::Failed(lane) => {
                    let (failed, reason) = (gone(taken), no_lane(&book.shapes, lane));
                    drop(book);
                    self.fail_unqueued(&failed, &reason);
                    continue;
                }
            };
            if let Place::Load(lane, shape) = place {
                self.order_load((lane, shape));
            }
            let (capture_ns, taken_ns) = (header.capture_ns, taken.taken_ns);
            let superseded = book.scheduler.offer(number, lane, taken, capture_ns, taken_ns);
            let superseded = superseded.map(gone);
            let idle = book.scheduler.has_idle_worker();
            drop(book);
            if idle {
                self.work.notify_one();
            }
            if let Some(old) = superseded {
                self.not_inferred(&old, Reason::Superseded);
            }
        }
    }

    fn order_load(&self, load: Load) {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        // There is room for every lane; without a loader the process is stopping
        // and what waits is answered by `stop`.
        if let Some(loads) = &*loads {
            let _ = loads.try_send(load);
        }
    }

    /// A lane's contexts are there, or will not come.
    pub(crate) fn loaded(&self, lane: usize, result: Result<Contexts, String>) {
        let now_ns = clock::monotonic_ns();
        let mut book = self.book();
        match result {
            Ok(contexts) => {
                // A lane is loaded once: nobody has set it.
                let _ = self.lanes[lane].set(contexts);
                book.shapes.loaded(lane, Ok(()), now_ns);
                book.scheduler.lane_ready(lane);
                drop(book);
                self.work.notify_all();
            }
            Err(reason) => {
                book.shapes.loaded(lane, Err(reason), now_ns);
                let left = book.scheduler.take_waiting_for(lane).into_iter().map(Gone::from);
                let left: Vec<Gone> = left.collect();
                let reason = no_lane(&book.shapes, lane);
                drop(book);
                left.iter().for_each(|gone| self.fail_unqueued(gone, &reason));
            }
        }
        self.describe();
    }

    /// Says what runs, the important first: readers cut it at 96 bytes.
    pub(crate) fn describe(&self) {
        let info = &self.info;
        let shapes: Vec<String> = self.book().shapes.ready().map(|s| s.to_string()).collect();
        let contexts = match info.contexts {
            1 => "1 context".to_owned(),
            contexts => format!("{contexts} contexts"),
        };
        self.outside.process.set_detail(&format!(
            "{}, {}, {contexts}, {}, {}, {} {} on {}",
            info.model,
            format!("{:?}", info.mode).to_lowercase(),
            format!("{:?}", info.precision).to_lowercase(),
            shapes.join(" "),
            info.backend,
            info.version,
            info.device,
        ));
    }

    /// Sends `skipped` or `dropped`.
    pub(crate) fn not_inferred(&self, gone: &Gone, reason: Reason) {
        if reason == Reason::Stale {
            self.cameras[gone.camera].look_again();
        }
        let arrival = Arrival { taken_ns: gone.taken_ns, batched_ns: 0 };
        let sent = self.results.not_inferred(gone.camera, &gone.header, arrival, reason);
        self.note(gone.camera, sent);
    }

    /// Sends `failed` for a frame that never went to a worker.
    fn fail_unqueued(&self, gone: &Gone, message: &str) {
        let camera = &self.cameras[gone.camera];
        camera.look_again();
        camera.vitals().set_state(State::Degraded, message);
        let arrival = Arrival { taken_ns: gone.taken_ns, batched_ns: 0 };
        let mut answer = Answer::default();
        self.results.failed(&gone.header, arrival, Reason::Engine, message, &mut answer);
        self.note(gone.camera, self.results.send(gone.camera, &answer));
    }

    /// A result that could not be sent is lost for its readers; all that is
    /// left is to say so.
    pub(crate) fn note(&self, camera: usize, sent: Result<(), BusError>) {
        if let Err(error) = sent {
            let camera = &self.cameras[camera];
            camera.vitals().add(Counter::Errors, 1);
            tracing::error!(camera = camera.subscriber().camera(), %error, "result lost");
        }
    }

    /// A batch failed in the engine.
    pub(crate) fn engine_failed(&self, message: &str) {
        self.outside.process.add(Counter::Errors, 1);
        self.outside.process.set_state(State::Degraded, message);
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            tracing::error!(failures = FAILURES_MAX, "the engine keeps failing; giving up");
            // For good: another worker's batch may still go well.
            self.gave_up.store(true, Ordering::Relaxed);
            self.outside.shutdown.request();
        }
    }

    /// A batch went well.
    pub(crate) fn engine_answered(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            self.outside.process.set_state(State::Live, "");
        }
    }

    /// Whether the engine has failed too often to go on.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Stops the workers after their current batch, the loader after its current
    /// lane, and answers the frames that wait with `dropped(stopping)`.
    pub(crate) fn stop(&self) {
        let left = {
            // Under the lock: a frame is taken either before, and drained here,
            // or not at all.
            let mut book = self.book();
            self.stopping.store(true, Ordering::Relaxed);
            book.scheduler.drain().into_iter().map(Gone::from).collect::<Vec<_>>()
        };
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.work.notify_all();
        left.iter().for_each(|gone| self.not_inferred(gone, Reason::Stopping));
    }
}

fn no_lane(shapes: &Shapes, lane: usize) -> String {
    format!("no model for {}: {}", shapes.shape(lane), shapes.reason(lane))
}
