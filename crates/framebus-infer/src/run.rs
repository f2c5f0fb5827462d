//! The pipeline: taker, workers and loader around a loaded engine.

use crate::camera::Camera;
use crate::pool::{Outside, Shared};
use crate::publish::Results;
use crate::scheduler::{Bounds, Policy};
use crate::worker::{MAX_BATCH, contexts};
use framebus_bus::{Bus, Delivery, wake};
use framebus_engine::{Engine, Thresholds};
use framebus_service::{Failure, INFER_READER, Kind, OrFail, Shutdown, Vitals, clock};
use framebus_types::{Counter, State};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest sleep of the taker.
const LOOK: Duration = Duration::from_millis(100);
/// How often the taker looks at every camera, whoever woke it, ns.
const LOOK_AT_ALL_NS: u64 = 500_000_000;
/// A result that waits so long for its readers is a stall, ns.
const BLOCKED_NS: u64 = 2_000_000_000;

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
    /// Its counters.
    pub vitals: Arc<Vitals>,
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
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Takes frames and publishes results until asked to stop. Calls `ready` once
/// everything runs.
///
/// # Errors
/// [`Failure`] when the bus cannot be joined, the engine has no contexts or fails
/// for good, or a thread cannot be started.
pub fn run(parts: Parts<'_>, ready: impl FnOnce()) -> Result<(), Failure> {
    let Parts { bus, mut engine, sources, results, thresholds, process, shutdown, progress } =
        parts;
    let info = engine.info().clone();
    let mut cameras = Vec::with_capacity(sources.len());
    for source in &sources {
        let every_frame = source.policy.every_frame;
        let delivery = if every_frame { Delivery::EveryFrame } else { Delivery::Latest };
        let subscriber = bus.frame_subscriber(&source.name, delivery, INFER_READER)?;
        source.vitals.set_state(State::Starting, "no frame yet");
        let vitals = source.vitals.clone();
        cameras.push(Camera::new(subscriber, every_frame, source.motion_force_ns, vitals));
    }
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
    let policies: Vec<Policy> = sources.iter().map(|source| source.policy).collect();
    let outside = Outside { thresholds, process, shutdown, progress };
    let (shared, orders) = Shared::new(cameras, &policies, bounds, info, results, outside);
    let base = contexts(engine.as_mut(), shared.info.base)
        .map_err(|reason| Failure::message(Kind::Unavailable, reason))?;
    shared.loaded(0, Ok(base));
    let process = &shared.outside.process;
    process.set_state(State::Live, "");
    ready();
    std::thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers + 1);
        let named = |name: String| std::thread::Builder::new().name(name);
        let shared = &shared;
        let started = (0..workers).try_for_each(|number| {
            let work = move || shared.work(number);
            threads.push(named(format!("worker-{number}")).spawn_scoped(scope, work)?);
            Ok::<_, std::io::Error>(())
        });
        let started = started.and_then(|()| {
            let load = move || shared.load(engine.as_mut(), &orders);
            threads.push(named("loader".to_owned()).spawn_scoped(scope, load)?);
            Ok(())
        });
        let taken = started.or_fail(Kind::Unavailable).and_then(|()| take(shared, &sources));
        process.set_state(State::Stopping, "");
        // Also after an error: the scope waits for the threads, and one that waits for a
        // sink goes on only when the process is asked to stop.
        shared.outside.shutdown.request();
        shared.stop();
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        if panicked > 0 {
            return Err(Failure::message(Kind::Bug, "a worker panicked; its words are above"));
        }
        taken
    })?;
    if shared.gave_up() {
        return Err(Failure::message(Kind::Unavailable, "the engine failed too often in a row"));
    }
    Ok(())
}

/// The taker's loop.
fn take(shared: &Shared, sources: &[Source]) -> Result<(), Failure> {
    let wakers: Vec<_> =
        shared.cameras().iter().map(|camera| camera.subscriber().waker()).collect();
    let mut looked_ns = 0;
    let mut seen = vec![(0, clock::monotonic_ns()); sources.len()];
    wake::run(&wakers, LOOK, |woken| {
        if shared.outside.shutdown.requested() {
            return ControlFlow::Break(());
        }
        for &number in woken {
            shared.take(number);
        }
        // What was sent before this process listened woke nobody.
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(looked_ns) >= LOOK_AT_ALL_NS {
            looked_ns = now_ns;
            (0..sources.len()).for_each(|number| shared.take(number));
            watch(shared, sources, &mut seen, now_ns);
        }
        shared.outside.progress.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Says which cameras have gone silent.
fn watch(shared: &Shared, sources: &[Source], seen: &mut [(u64, u64)], now_ns: u64) {
    let sending_since = shared.results.sending_since_ns();
    let blocked = sending_since != 0 && now_ns.saturating_sub(sending_since) > BLOCKED_NS;
    let process = &shared.outside.process;
    match (blocked, process.state()) {
        (true, _) => process.set_state(State::Stalled, "a sink takes no results"),
        (false, State::Stalled) => process.set_state(State::Live, ""),
        _ => {}
    }
    for (number, (source, seen)) in sources.iter().zip(seen).enumerate() {
        let taken = source.vitals.get(Counter::Taken);
        // A frame that waits here, for its model or for a sink, is no silence.
        if taken != seen.0 || shared.book().scheduler.is_working_on(number) {
            *seen = (taken, now_ns);
        } else if taken > 0 && now_ns - seen.1 > source.stall_ns {
            source.vitals.set_state(State::Stalled, "no frame comes");
        }
    }
}
