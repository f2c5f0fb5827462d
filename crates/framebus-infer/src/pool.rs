//! What the taker, the workers and the loader share.
//!
//! Lock order: `Shared::book` is held for bookkeeping and for taking a frame from
//! the bus; the engine runs, models load and results go out without it. Under a
//! camera's [`order`](crate::order) its [`analytics`](crate::analytics) are locked, and under
//! those only the publishers' own locks.

use crate::analytics::Analytics;
use crate::camera::Camera;
use crate::publish::{Answer, Arrival, Results};
use crate::run::{End, Loads, Source};
use crate::scheduler::{Bounds, Left, Scheduler};
use crate::shapes::{MAX_SHAPES, Place, Shapes};
use crate::watch::{LOADING_MAX_NS, Note, Wait, Watch};
use framebus_bus::{BusError, FrameSample, FrameSubscriber};
use framebus_engine::{Context, EngineInfo, Shape, Thresholds};
use framebus_service::{Shutdown, Vitals, clock};
use framebus_types::{Counter, FrameHeader, Reason, State};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// So many failed batches in a row, over so long at least, and the process ends and is
/// started again: an engine that fails this often does not come back by itself.
const FAILURES: u32 = 3;
/// See [`FAILURES`].
const FAILING_NS: u64 = 500_000_000;
/// So many are enough, however fast they come.
const FAILURES_MAX: u32 = 10;

/// A frame that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) frame: FrameSample,
    pub(crate) camera: Arc<Camera>,
    pub(crate) arrival: Arrival,
}

/// What is left of a frame that is not inferred. Its sample goes back while the
/// lock is held: the bus lends a camera's frames for those in inference, one that
/// waits and one being taken, and for no other.
#[derive(Debug)]
pub(crate) struct Gone {
    camera: Arc<Camera>,
    header: FrameHeader,
    arrival: Arrival,
}

impl From<Taken> for Gone {
    fn from(Taken { frame, camera, arrival }: Taken) -> Self {
        Self { camera, header: *frame.header(), arrival }
    }
}

impl From<Left<Taken>> for Gone {
    fn from(left: Left<Taken>) -> Self {
        left.frame.into()
    }
}

/// What the one lock guards.
#[derive(Debug)]
pub(crate) struct Book {
    /// By their numbers in the scheduler; `None` for one that was removed.
    cameras: Vec<Option<Arc<Camera>>>,
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
    /// No other backend could take over.
    pub(crate) alone: bool,
    /// What the loader does.
    pub(crate) loads: Loads,
}

/// What taker, workers and loader share.
pub(crate) struct Shared {
    bounds: Bounds,
    book: Mutex<Book>,
    pub(crate) work: Condvar,
    pub(crate) lanes: [OnceLock<Contexts>; MAX_SHAPES],
    /// What each worker has in the engine.
    pub(crate) notes: Vec<Note>,
    pub(crate) results: Results,
    pub(crate) outside: Outside,
    loads: Mutex<Option<SyncSender<Load>>>,
    pub(crate) info: EngineInfo,
    stopping: AtomicBool,
    failing: Mutex<Failing>,
    end: Mutex<Option<End>>,
}

/// Failed batches in a row.
#[derive(Debug, Default)]
struct Failing {
    batches: u32,
    since_ns: u64,
}

impl Shared {
    /// Also answers the orders for the loader: at most one per lane is on its way.
    pub(crate) fn new(
        bounds: Bounds,
        info: EngineInfo,
        results: Results,
        outside: Outside,
    ) -> (Self, Receiver<Load>) {
        let (loads, orders) = sync_channel(MAX_SHAPES);
        let (cameras, scheduler) = (Vec::new(), Scheduler::new(bounds));
        let shapes = Shapes::new(info.shapes, info.base);
        let shared = Self {
            bounds,
            book: Mutex::new(Book { cameras, scheduler, shapes }),
            work: Condvar::new(),
            lanes: Default::default(),
            notes: (0..bounds.workers).map(|_| Note::default()).collect(),
            results,
            outside,
            loads: Mutex::new(Some(loads)),
            info,
            stopping: AtomicBool::new(false),
            failing: Mutex::default(),
            end: Mutex::default(),
        };
        (shared, orders)
    }

    /// The cameras with their numbers.
    pub(crate) fn cameras(&self) -> Vec<(usize, Arc<Camera>)> {
        let book = self.book();
        let cameras = book.cameras.iter().enumerate();
        cameras.filter_map(|(number, camera)| Some((number, camera.clone()?))).collect()
    }

    /// Takes frames of one more camera from now on.
    ///
    /// # Errors
    /// A zone or line that is none.
    pub(crate) fn add(&self, subscriber: FrameSubscriber, source: &Source) -> Result<(), String> {
        source.vitals.set_state(State::Starting, "no frame yet");
        let analytics = source.scenery.as_ref().map(Analytics::new).transpose()?;
        let unanswered = self.bounds.unanswered;
        let camera = Arc::new(Camera::new(subscriber, source, analytics, unanswered));
        let mut book = self.book();
        let number = book.scheduler.add(source.policy);
        if number == book.cameras.len() {
            book.cameras.push(None);
        }
        book.cameras[number] = Some(camera);
        Ok(())
    }

    /// Takes over what may change of a camera while it runs.
    pub(crate) fn set(&self, number: usize, source: &Source) {
        let mut book = self.book();
        book.scheduler.set(number, source.policy);
        if let Some(camera) = &book.cameras[number] {
            camera.set(source);
        }
    }

    /// Takes no more frames of a camera. What is in the engine is answered as ever.
    pub(crate) fn remove(&self, number: usize) {
        let mut book = self.book();
        let removed = book.cameras[number].take();
        let left = book.scheduler.remove(number).map(Gone::from);
        drop(book);
        if let Some(gone) = left {
            self.not_inferred(&gone, Reason::Stopping);
        }
        if let Some(camera) = removed {
            self.end_tracks(&camera);
        }
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
        loop {
            // Receiving under the lock, so that two threads cannot swap two frames.
            let mut book = self.book();
            // After `stop` has drained, nobody would answer it.
            if self.stopping() || !book.scheduler.wants(number) {
                return;
            }
            let Some(camera) = book.cameras[number].clone() else { return };
            let frame = match camera.subscriber().receive() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    camera.vitals().add(Counter::Errors, 1);
                    tracing::warn!(camera = camera.name(), %error, "frame not taken");
                    return;
                }
            };
            let header = *frame.header();
            let taken_ns = clock::monotonic_ns();
            camera.count(&header);
            let arrival = Arrival { taken_ns, still_ns: camera.still_ns(), ..Arrival::default() };
            let mut taken = Taken { frame, camera, arrival };
            if taken.camera.skips(&header) {
                let skipped = Gone::from(taken);
                drop(book);
                skipped.camera.came();
                self.not_inferred(&skipped, Reason::Motion);
                continue;
            }
            let (width, height) = (header.width as usize, header.height as usize);
            let place = book.shapes.place(width, height, taken_ns);
            let lane = match place {
                Place::Ready(lane) => {
                    taken.camera.came();
                    lane
                }
                Place::Loading(lane) | Place::Load(lane, _) => {
                    let reason = format!("preparing the model for {}", book.shapes.shape(lane));
                    taken.camera.vitals().set_state(State::Starting, &reason);
                    lane
                }
                Place::Failed(lane) => {
                    let (failed, reason) = (Gone::from(taken), no_lane(&book.shapes, lane));
                    drop(book);
                    self.fail_unqueued(&failed, &reason);
                    continue;
                }
            };
            if let Place::Load(lane, shape) = place {
                self.order_load((lane, shape));
            }
            taken.arrival.entry = self.results.ledger.enter(&header, taken_ns);
            let superseded = book.scheduler.offer(number, lane, taken, header.capture_ns, taken_ns);
            let superseded = superseded.map(Gone::from);
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
        let ready: Vec<Shape> = self.book().shapes.ready().collect();
        let shapes: Vec<String> = ready.iter().map(ToString::to_string).collect();
        *self.outside.loads.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
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
        let Gone { camera, header, arrival } = gone;
        if reason == Reason::Stale {
            camera.look_again();
        }
        note(camera, self.results.not_inferred(camera.vitals(), header, *arrival, reason));
    }

    /// Sends `failed` for a frame that never went to a worker.
    fn fail_unqueued(&self, gone: &Gone, message: &str) {
        let Gone { camera, header, arrival } = gone;
        camera.look_again();
        camera.vitals().set_state(State::Degraded, message);
        let mut answer = Answer::default();
        self.results.failed(header, *arrival, Reason::Engine, message, &mut answer);
        self.send(camera, &answer);
    }

    pub(crate) fn send(&self, camera: &Camera, answer: &Answer) {
        note(camera, self.results.send(camera.vitals(), answer));
    }

    /// A batch failed in the engine, which may be `gone`. Where another backend is
    /// configured, that one takes over at once; where not, one that returns by itself is
    /// waited for, and each frame says so meanwhile.
    pub(crate) fn engine_failed(&self, message: &str, gone: bool) {
        self.outside.process.add(Counter::Errors, 1);
        let waits = gone && self.outside.alone && self.info.returns;
        let state = if waits { State::Offline } else { State::Degraded };
        self.outside.process.set_state(state, message);
        let now_ns = clock::monotonic_ns();
        let mut failing = self.failing();
        if waits {
            // Its absence does not count; errors after it do, from the first on.
            *failing = Failing { batches: 1, since_ns: now_ns };
            return;
        }
        if failing.batches == 0 {
            failing.since_ns = now_ns;
        }
        failing.batches += 1;
        let long = now_ns.saturating_sub(failing.since_ns) >= FAILING_NS;
        let replaced = gone && !self.outside.alone;
        if replaced || failing.batches >= FAILURES_MAX || failing.batches >= FAILURES && long {
            // For good: another worker's batch may still go well.
            self.give_up(End::Failing(message.to_owned()));
        }
    }

    /// A batch went well.
    pub(crate) fn engine_answered(&self) {
        let mut failing = self.failing();
        if std::mem::take(&mut failing.batches) > 0 && !self.is_given_up() {
            self.outside.process.set_state(State::Live, "");
        }
    }

    /// Whether the last batch failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing().batches > 0
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine does not go on: so the process does not. The first reason stays, but
    /// for a thread that hangs: that decides how the process can end.
    fn give_up(&self, end: End) {
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() || (matches!(end, End::Hung(_)) && !is_hung(known.as_ref())) {
            tracing::error!("{}; giving up", end.reason());
            *known = Some(end);
        }
        drop(known);
        self.outside.shutdown.request();
    }

    /// Whether the engine does not go on.
    pub(crate) fn is_given_up(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why the engine does not go on, when it does not.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers batches that are in the engine for too long, and gives up when there are
    /// any. Says whether one takes longer than usual.
    pub(crate) fn look_at_engine(&self, watch: &mut Watch) -> bool {
        let mut long = false;
        for (worker, engine) in self.notes.iter().enumerate() {
            let Some((batch, lane)) = engine.batch() else { continue };
            let usual_ns = self.book().scheduler.expected_ns(lane);
            let since = match watch.batch(worker, batch, usual_ns) {
                Wait::Over(since) => since,
                wait => {
                    long |= wait == Wait::Long;
                    continue;
                }
            };
            let (backend, since_s) = (self.info.backend, since.as_secs_f64());
            let reason = format!("{backend} did not answer within {since_s:.1} s");
            self.hangs(&reason);
            self.fail_in_engine(worker, &reason);
            self.give_up(End::Hung(reason));
        }
        let turn = self.outside.loads.turns.load(Ordering::Relaxed);
        if turn % 2 == 1 && watch.is_loading_too_long(turn) && !is_hung(self.end().as_ref()) {
            let reason = not_loaded_in_time();
            self.hangs(&reason);
            self.give_up(End::Hung(reason));
        }
        long
    }

    fn hangs(&self, reason: &str) {
        self.outside.process.add(Counter::Errors, 1);
        self.outside.process.set_state(State::Stalled, reason);
    }

    /// Answers what a worker has in the engine; the worker will not.
    pub(crate) fn fail_in_engine(&self, worker: usize, message: &str) {
        let mut answer = Answer::default();
        for frame in self.notes[worker].take() {
            let camera = &frame.camera;
            camera.failed(message);
            self.results.failed(&frame.header, frame.arrival, Reason::Engine, message, &mut answer);
            answer.set_context(worker);
            camera.order.publish(frame.ticket, &mut answer, |answer| {
                self.send_in_turn(camera, answer);
            });
        }
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

/// A result that could not be sent is lost for its readers; all that is left is to say
/// so.
fn note(camera: &Camera, sent: Result<(), BusError>) {
    if let Err(error) = sent {
        camera.vitals().add(Counter::Errors, 1);
        tracing::error!(camera = camera.name(), %error, "result lost");
    }
}

/// Whether a thread hangs in the engine.
pub(crate) fn is_hung(end: Option<&End>) -> bool {
    matches!(end, Some(End::Hung(_)))
}

/// What is said of a backend that hangs while it loads the model.
pub(crate) fn not_loaded_in_time() -> String {
    format!("loading the model did not end within {} s", LOADING_MAX_NS / 1_000_000_000)
}

fn no_lane(shapes: &Shapes, lane: usize) -> String {
    format!("no model for {}: {}", shapes.shape(lane), shapes.reason(lane))
}
