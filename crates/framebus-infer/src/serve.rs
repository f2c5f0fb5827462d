//! Wiring: engine, cameras, workers, the taker's loop.

use crate::engine;
use crate::pool::{Camera, Shared, camera_vitals};
use crate::publish::Results;
use crate::scheduler::{Policy, Scheduler};
use framebus_bus::{Delivery, wake};
use framebus_config::Config;
use framebus_engine::EngineInfo;
use framebus_service::{
    Failure, INFER_READER, Kind, OrFail, Reporter, Service, Vitals, clock, is_offline,
};
use framebus_types::{Role, State};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How often the taker looks up when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// A result that waits so long for its readers is a stall, ns.
const BLOCKED_NS: u64 = 2_000_000_000;

/// Runs the inference process until it is asked to stop.
///
/// # Errors
/// [`Failure`] when the engine cannot be loaded, the bus not joined, or the
/// engine fails for good.
pub fn serve(service: &Service) -> Result<(), Failure> {
    let config = service.config();
    let process = Vitals::new(Role::Infer, "infer");
    let enabled: Vec<_> = config.enabled_cameras().collect();
    let vitals: Vec<Arc<Vitals>> =
        enabled.iter().map(|camera| camera_vitals(camera.name.as_str())).collect();
    let all = std::iter::once(&process).chain(&vitals).cloned().collect();
    // Reported from the start: compiling a model takes a while.
    let reporter = Reporter::start(service.bus(), all, service.progress_flag(), true)?;
    process.set_state(State::Starting, "loading the model");

    let mut loaded = engine::load(config)?;
    let info = loaded.info().clone();
    let thresholds = engine::thresholds(config, &info.labels)?;
    describe(&process, &info);

    let publisher = service.bus().result_publisher(service.shutdown().flag())?;
    let results = Results::new(publisher, vitals.clone(), &info);
    if is_offline(config) {
        wait_for_sinks(service, &results, &process);
    }
    let mut cameras = Vec::with_capacity(enabled.len());
    for (camera, vitals) in enabled.iter().zip(&vitals) {
        let delivery = framebus_service::delivery(camera.delivery);
        let every_frame = delivery == Delivery::EveryFrame;
        let subscriber =
            service.bus().frame_subscriber(camera.name.as_str(), delivery, INFER_READER)?;
        vitals.set_state(State::Starting, "no frame yet");
        cameras.push(Camera::new(subscriber, every_frame, vitals.clone()));
    }
    let shared = Shared::new(
        cameras,
        Scheduler::new(&policies(config)),
        results,
        thresholds,
        process.clone(),
        service.shutdown().clone(),
        service.progress_flag(),
    );

    let contexts = loaded.contexts(info.base).or_fail(Kind::Unavailable)?;
    if contexts.is_empty() {
        return Err(Failure::message(Kind::Bug, "the engine has no execution context"));
    }
    tracing::info!(
        backend = info.backend, device = info.device, model = info.model,
        input = %info.base,
        contexts = contexts.len(), "engine ready"
    );
    process.set_state(State::Live, "");
    reporter.publish();
    service.ready();
    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(contexts.len());
        let started = contexts.into_iter().enumerate().try_for_each(|(number, mut context)| {
            let shared = &shared;
            let worker = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn_scoped(scope, move || shared.work(context.as_mut(), info.max_batch))?;
            workers.push(worker);
            Ok::<_, std::io::Error>(())
        });
        let taken =
            started.or_fail(Kind::Unavailable).and_then(|()| take(service, &shared, config));
        process.set_state(State::Stopping, "");
        // Also after an error: the scope waits for the workers.
        shared.stop();
        let panicked = workers.into_iter().filter_map(|worker| worker.join().err()).count();
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

/// Where nothing may be lost, the sources wait for inference and inference for
/// the sinks.
fn wait_for_sinks(service: &Service, results: &Results, process: &Vitals) {
    for sink in service.config().enabled_sinks() {
        while !results.has_reader(sink.name.as_str()) {
            process.set_state(State::Starting, &format!("waiting for sink {}", sink.name));
            service.progress();
            if service.shutdown().wait(LOOK) {
                return;
            }
        }
    }
}

/// The taker's loop.
fn take(service: &Service, shared: &Shared, config: &Config) -> Result<(), Failure> {
    let wakers: Vec<_> =
        shared.cameras().iter().map(|camera| camera.subscriber().waker()).collect();
    let stalls: Vec<u64> =
        config.enabled_cameras().map(|camera| (camera.stall_s * 1e9) as u64).collect();
    let mut seen = vec![(0, clock::monotonic_ns()); stalls.len()];
    wake::run(&wakers, LOOK, || {
        if service.shutdown().requested() {
            return ControlFlow::Break(());
        }
        for number in 0..shared.cameras().len() {
            shared.take(number);
        }
        watch(shared, &stalls, &mut seen);
        service.progress();
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Says which cameras have gone silent.
fn watch(shared: &Shared, stalls: &[u64], seen: &mut [(u64, u64)]) {
    let now = clock::monotonic_ns();
    let sending_since = shared.results().sending_since_ns();
    let blocked = sending_since != 0 && now.saturating_sub(sending_since) > BLOCKED_NS;
    match (blocked, shared.process().state()) {
        (true, _) => shared.process().set_state(State::Stalled, "a sink takes no results"),
        (false, State::Stalled) => shared.process().set_state(State::Live, ""),
        _ => {}
    }
    for ((camera, stall_ns), seen) in shared.cameras().iter().zip(stalls).zip(seen) {
        let taken = camera.vitals().get(framebus_types::Counter::Taken);
        if taken != seen.0 {
            *seen = (taken, now);
        } else if taken > 0 && now - seen.1 > *stall_ns {
            camera.vitals().set_state(State::Stalled, "no frame comes");
        }
    }
}

fn policies(config: &Config) -> Vec<Policy> {
    config
        .enabled_cameras()
        .map(|camera| Policy {
            weight: camera.weight,
            max_age_ns: camera.max_age_ms * 1_000_000,
            every_frame: framebus_service::delivery(camera.delivery) == Delivery::EveryFrame,
        })
        .collect()
}

fn describe(process: &Vitals, info: &EngineInfo) {
    process.set_size(info.base.width as u32, info.base.height as u32);
    process.set_detail(&format!(
        "{} on {} ({} {})",
        info.model, info.device, info.backend, info.version
    ));
}
