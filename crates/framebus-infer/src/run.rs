//! The pipeline: taker, workers and loader around a loaded engine.

use crate::analytics::Scenery;
use crate::camera::Camera;
use crate::pool::{Outside, Shared, is_hung};
use crate::publish::Results;
use crate::scheduler::{Bounds, Policy};
use crate::watch::Watch;
use crate::worker::{MAX_BATCH, contexts};
use framebus_bus::{Bus, BusError, Delivery, wake};
use framebus_engine::{Engine, Shape, Thresholds};
use framebus_service::{Failure, INFER_READER, Kind, OrFail, Shutdown, Vitals, clock};
use framebus_types::{Counter, State};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest sleep of the taker, and how often it looks at the engine.
const LOOK: Duration = Duration::from_millis(100);
/// How often the taker looks at every camera, whoever woke it, ns.
const LOOK_AT_ALL_NS: u64 = 500_000_000;
/// A result that waits so long for its readers is a stall, ns.
const BLOCKED_NS: u64 = 2_000_000_000;
/// How long the reason of a restart stays in the state, ns: so that whoever looks every
/// few seconds sees it.
const TOLD_NS: u64 = 5_000_000_000;
/// Time that the other workers have for their batches when one hangs, ns.
const GRACE_NS: u64 = 300_000_000;
/// How often the end of the threads is looked for.
const JOIN: Duration = Duration::from_millis(5);

/// A camera to be inferred.
#[derive(Debug)]
pub struct Source {
    /// Its name on the bus.
    pub name: String,
    /// Share, age, delivery.
    pub policy: Policy,
    /// No frame for so long is a stall, ns.
    pub stall_ns: u64,
    /// With a motion gate: still frames are skipped, for so long at most, ns.
    pub motion_force_ns: Option<u64>,
    /// What is followed in its picture; `None` for nothing.
    pub scenery: Option<Scenery>,
    /// Its counters.
    pub vitals: Arc<Vitals>,
}

/// How others see what the loader does.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    /// Begins and ends of loads: odd while the loader is in the engine. The engine may
    /// count it up by two to say that it goes on.
    pub turns: Arc<AtomicU64>,
    /// The inputs that are ready.
    pub ready: Arc<Mutex<Vec<Shape>>>,
}

/// What a pipeline is made of.
pub struct Parts<'a> {
    /// The bus; its limits say how many frames of a camera may be in inference.
    pub bus: &'a Bus,
    /// The loaded engine.
    pub engine: Box<dyn Engine>,
    /// The cameras.
    pub sources: Vec<Source>,
    /// Where results go; knows the same cameras in the same order.
    pub results: Results,
    /// Which boxes to keep.
    pub thresholds: Thresholds,
    /// The process's own vitals.
    pub process: Arc<Vitals>,
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// Set whenever work was done, for the watchdog.
    pub progress: Arc<AtomicBool>,
    /// An engine that does not answer within this, hangs.
    pub timeout: Duration,
    /// No other backend is configured that could take over.
    pub alone: bool,
    /// Seen by others too.
    pub loads: Loads,
    /// Why the engine ended the process before this one, when it did so just now.
    pub restarted: Option<String>,
    /// Asked at each look: the cameras from now on, when they are others, or why the
    /// process must end.
    pub changed: Box<dyn FnMut() -> Option<Result<Vec<Source>, Failure>> + 'a>,
}

/// How a pipeline ended that had no failure of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was asked to stop.
    Asked,
    /// The engine failed too often in a row; its last words.
    Failing(String),
    /// The engine did not answer; threads hang in it, which only the end of the process
    /// can end.
    Hung(String),
}

impl End {
    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Asked => "asked to stop",
            Self::Failing(reason) | Self::Hung(reason) => reason,
        }
    }
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Takes frames and publishes results until asked to stop, or until the engine does not
/// go on. Calls `ready` once everything runs.
///
/// # Errors
/// [`Failure`] when the bus cannot be joined, the engine has no contexts, a thread cannot
/// be started, or what `changed` answered.
pub fn run(parts: Parts<'_>, ready: impl FnOnce()) -> Result<End, Failure> {
    let Parts { bus, mut engine, sources, results, thresholds, process, shutdown, .. } = parts;
    let info = engine.info().clone();
    let workers = info.contexts.max(1);
    // More than the workers can hold has no use.
    let in_flight = bus.domain().limits().in_flight.clamp(1, workers);
    let bounds = Bounds {
        workers,
        max_batch: info.max_batch.clamp(1, MAX_BATCH),
        in_flight,
        // As many again may wait for the one before them: a worker whose frame took
        // less time than its predecessor goes on meanwhile.
        unanswered: 2 * in_flight,
    };
    let Parts { progress, alone, loads, .. } = parts;
    let outside = Outside { thresholds, process, shutdown, progress, alone, loads };
    let (shared, orders) = Shared::new(bounds, info, results, outside);
    let shared = Arc::new(shared);
    replace(&shared, bus, &sources)?;
    let base = contexts(engine.as_mut(), shared.info.base)
        .map_err(|reason| Failure::message(Kind::Unavailable, reason))?;
    shared.loaded(0, Ok(base));
    let process = &shared.outside.process;
    match &parts.restarted {
        Some(reason) => process.set_state(State::Degraded, &format!("started again: {reason}")),
        None => process.set_state(State::Live, ""),
    }
    ready();
    let mut threads = Vec::with_capacity(workers + 1);
    let started = (0..workers).try_for_each(|number| {
        let shared = shared.clone();
        threads.push(spawn(format!("worker-{number}"), move || shared.work(number))?);
        Ok::<_, std::io::Error>(())
    });
    let started = started.and_then(|()| {
        let shared = shared.clone();
        let load = move || shared.load(engine.as_mut(), &orders);
        threads.push(spawn("loader".to_owned(), load)?);
        Ok(())
    });
    let mut taker = Taker {
        watch: Watch::new(parts.timeout, workers, clock::monotonic_ns()),
        told: parts.restarted.is_some(),
        looked_ns: 0,
        looked_at_all_ns: 0,
        changed: parts.changed,
    };
    let taken = started.or_fail(Kind::Unavailable).and_then(|()| taker.run(&shared, bus));
    if shared.end().is_none() {
        process.set_state(State::Stopping, "");
    }
    // Also after an error: a thread that waits for a sink goes on only when the process is
    // asked to stop.
    shared.outside.shutdown.request();
    shared.stop();
    let ended = join(&shared, threads, &mut taker.watch);
    shared.cameras().iter().for_each(|(_, camera)| shared.end_tracks(camera));
    if ended.as_ref().is_ok_and(|end| is_hung(Some(end))) {
        // Whatever else is wrong: the process cannot end in order.
        return ended;
    }
    taken?;
    ended
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(body)
}

/// Waits for the threads, but for those that hang in the engine.
fn join(shared: &Shared, threads: Vec<JoinHandle<()>>, watch: &mut Watch) -> Result<End, Failure> {
    let begin_ns = clock::monotonic_ns();
    while !threads.iter().all(JoinHandle::is_finished) {
        std::thread::park_timeout(JOIN);
        let now_ns = clock::monotonic_ns();
        watch.advance(now_ns);
        let _ = shared.look_at_engine(watch);
        shared.outside.progress.store(true, Ordering::Relaxed);
        if is_hung(shared.end().as_ref()) {
            // The loader, the last of the threads, has no frames.
            let mut workers = threads.iter().zip(&shared.notes);
            let busy = workers.any(|(thread, note)| !thread.is_finished() && !note.is_lost());
            if !busy || now_ns.saturating_sub(begin_ns) > GRACE_NS {
                break;
            }
        }
    }
    let end = shared.end();
    let message = end.as_ref().map_or("the worker that had this frame panicked", End::reason);
    (0..shared.notes.len()).for_each(|worker| shared.fail_in_engine(worker, message));
    if !is_hung(end.as_ref()) {
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        if panicked > 0 {
            return Err(Failure::message(Kind::Bug, "a worker panicked; its words are above"));
        }
    }
    Ok(end.unwrap_or(End::Asked))
}

/// Makes the cameras those of `sources`. One that stays keeps its subscription, its queue
/// and what waits in it.
fn replace(shared: &Shared, bus: &Bus, sources: &[Source]) -> Result<(), Failure> {
    let stays = |camera: &Camera, source: &Source| {
        camera.name() == source.name && camera.every_frame == source.policy.every_frame
    };
    let cameras = shared.cameras();
    for (number, camera) in &cameras {
        match sources.iter().find(|source| stays(camera, source)) {
            Some(source) => shared.set(*number, source),
            None => shared.remove(*number),
        }
    }
    for source in sources {
        if cameras.iter().any(|(_, camera)| stays(camera, source)) {
            continue;
        }
        let every_frame = source.policy.every_frame;
        let delivery = if every_frame { Delivery::EveryFrame } else { Delivery::Latest };
        let subscriber = bus.frame_subscriber(&source.name, delivery, INFER_READER)?;
        let failed = |reason| {
            let name = &source.name;
            Failure::message(Kind::Config, format_args!("camera[{name}]: {reason}"))
        };
        shared.add(subscriber, source).map_err(failed)?;
        // Joining takes a moment, and live cameras keep one frame only.
        cameras.iter().for_each(|(number, _)| shared.take(*number));
    }
    Ok(())
}

/// The main thread.
struct Taker<'a> {
    watch: Watch,
    /// The state tells of a restart.
    told: bool,
    looked_ns: u64,
    looked_at_all_ns: u64,
    changed: Box<dyn FnMut() -> Option<Result<Vec<Source>, Failure>> + 'a>,
}

/// A camera as the taker watches it.
struct Heard {
    number: usize,
    camera: Arc<Camera>,
    taken: u64,
    /// When that was last another number, by the watch.
    at_ns: u64,
}

impl Taker<'_> {
    fn run(&mut self, shared: &Shared, bus: &Bus) -> Result<(), Failure> {
        while let Some(sources) = self.take(shared)? {
            replace(shared, bus, &sources?)?;
        }
        Ok(())
    }

    /// Takes frames until the cameras are others (these), or the process shall stop.
    fn take(&mut self, shared: &Shared) -> Result<Option<Result<Vec<Source>, Failure>>, BusError> {
        let at_ns = self.watch.advance(clock::monotonic_ns());
        let heard = |(number, camera): (usize, Arc<Camera>)| {
            let taken = camera.vitals().get(Counter::Taken);
            Heard { number, camera, taken, at_ns }
        };
        let mut heard: Vec<Heard> = shared.cameras().into_iter().map(heard).collect();
        let cameras: Vec<(usize, Arc<Camera>)> =
            heard.iter().map(|heard| (heard.number, heard.camera.clone())).collect();
        let mut changed = None;
        let mut look = |woken: &[usize]| {
            if shared.outside.shutdown.requested() {
                return ControlFlow::Break(());
            }
            woken.iter().for_each(|&index| shared.take(cameras[index].0));
            self.look(shared, &mut heard);
            changed = (self.changed)();
            if changed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let wakers: Vec<_> =
            cameras.iter().map(|(_, camera)| camera.subscriber().waker()).collect();
        if wakers.is_empty() {
            // A wait set needs something to wait for.
            while look(&[]).is_continue() {
                let _ = shared.outside.shutdown.wait(LOOK);
            }
        } else {
            wake::run(&wakers, LOOK, look)?;
        }
        Ok(changed)
    }

    /// Looks at the engine, and at the cameras now and then.
    fn look(&mut self, shared: &Shared, heard: &mut [Heard]) {
        shared.outside.progress.store(true, Ordering::Relaxed);
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(self.looked_ns) < LOOK.as_nanos() as u64 {
            return;
        }
        self.looked_ns = now_ns;
        let awake_ns = self.watch.advance(now_ns);
        let long = shared.look_at_engine(&mut self.watch);
        if now_ns.saturating_sub(self.looked_at_all_ns) < LOOK_AT_ALL_NS {
            return;
        }
        self.looked_at_all_ns = now_ns;
        // What was sent before this process listened woke nobody.
        heard.iter().for_each(|heard| shared.take(heard.number));
        self.watch_process(shared, now_ns, awake_ns, long);
        heard.iter_mut().for_each(|heard| heard.look(shared, awake_ns));
    }

    /// Says whether the engine answers and results go out, and for a while that it was
    /// started again.
    fn watch_process(&mut self, shared: &Shared, now_ns: u64, awake_ns: u64, long: bool) {
        if shared.end().is_some() {
            return;
        }
        let process = &shared.outside.process;
        let sending_since = shared.results.sending_since_ns();
        let blocked = sending_since != 0 && now_ns.saturating_sub(sending_since) > BLOCKED_NS;
        if blocked {
            process.set_state(State::Stalled, "a sink takes no results");
        } else if long {
            let backend = shared.info.backend;
            process.set_state(State::Stalled, &format!("{backend} takes unusually long to answer"));
        } else if process.state() == State::Stalled {
            process.set_state(State::Live, "");
        }
        if self.told && awake_ns > TOLD_NS {
            self.told = false;
            if !shared.is_failing() && process.state() == State::Degraded {
                process.set_state(State::Live, "");
            }
        }
    }
}

impl Heard {
    /// Says whether the camera has gone silent.
    fn look(&mut self, shared: &Shared, awake_ns: u64) {
        let vitals = self.camera.vitals();
        let bad = self.camera.subscriber().bad_headers();
        let counted = vitals.get(Counter::BadHeaders);
        vitals.add(Counter::BadHeaders, bad.saturating_sub(counted));
        let taken = vitals.get(Counter::Taken);
        // A frame that waits here, for its model or for a sink, is no silence.
        if taken != self.taken || shared.book().scheduler.is_working_on(self.number) {
            (self.taken, self.at_ns) = (taken, awake_ns);
        } else if taken > 0 && awake_ns - self.at_ns > self.camera.stall_ns() {
            vitals.set_state(State::Stalled, "no frame comes");
            shared.silent(&self.camera, awake_ns - self.at_ns);
        }
    }
}
