//! From the configuration to the running pipeline.

use crate::camera::camera_vitals;
use crate::engine;
use crate::publish::Results;
use crate::run::{Parts, Source, run};
use crate::scheduler::Policy;
use framebus_bus::Delivery;
use framebus_config::{Camera, Source as CameraSource};
use framebus_service::{Failure, Reporter, Service, Vitals, is_offline, priority};
use framebus_types::{Role, State};
use std::sync::Arc;
use std::time::Duration;

/// How often waiting looks up.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the inference process until it is asked to stop.
///
/// # Errors
/// [`Failure`] when the engine cannot be loaded, the bus not joined, or the
/// engine fails for good.
pub fn serve(service: &Service) -> Result<(), Failure> {
    let config = service.config();
    // First of all: the engine's threads inherit it.
    priority::apply(config.model.nice, &config.model.cores)?;
    let process = Vitals::new(Role::Infer, "infer");
    let sources: Vec<Source> = config.enabled_cameras().map(source).collect();
    let vitals: Vec<Arc<Vitals>> = sources.iter().map(|source| source.vitals.clone()).collect();
    let all = std::iter::once(&process).chain(&vitals).cloned().collect();
    // Reported from the start: compiling a model takes a while.
    let reporter = Reporter::start(service.bus(), all, service.progress_flag(), true)?;
    process.set_state(State::Starting, "loading the model");

    let engine = engine::load(config)?;
    let info = engine.info();
    let thresholds = engine::thresholds(config, &info.labels)?;
    process.set_size(info.base.width as u32, info.base.height as u32);
    tracing::info!(
        backend = info.backend, device = info.device, model = info.model,
        input = %info.base, mode = ?info.mode, contexts = info.contexts, "engine ready"
    );
    let publisher = service.bus().result_publisher(service.shutdown().flag())?;
    let results = Results::new(publisher, vitals, info);
    if is_offline(config) {
        wait_for_sinks(service, &results, &process);
    }
    let parts = Parts {
        bus: service.bus(),
        engine,
        sources,
        results,
        thresholds,
        process,
        shutdown: service.shutdown().clone(),
        progress: service.progress_flag(),
    };
    run(parts, || {
        reporter.publish();
        service.ready();
    })
}

fn source(camera: &Camera) -> Source {
    let every_frame = framebus_service::delivery(camera.delivery) == Delivery::EveryFrame;
    Source {
        name: camera.name.as_str().to_owned(),
        policy: Policy {
            weight: camera.weight,
            max_age_ns: camera.max_age_ms * 1_000_000,
            every_frame,
        },
        stall_ns: stall_ns(camera),
        motion_force_ns: camera.motion_gate.then_some((camera.motion_force_s * 1e9) as u64),
        vitals: camera_vitals(camera.name.as_str()),
    }
}

/// No frame for so long is a stall, ns. Frames may be further apart than `stall_s`: by a
/// rate limit, by a slow test pattern, or while the idle gate decodes key frames only.
fn stall_ns(camera: &Camera) -> u64 {
    let limit_s = camera.fps.map_or(0.0, |fps| 3.0 / fps);
    let test_s = match &camera.source {
        CameraSource::Test(test) => 3.0 / test.fps,
        _ => 0.0,
    };
    let idle_s = if camera.idle_gate { camera.idle_max_s } else { 0.0 };
    ((camera.stall_s.max(limit_s).max(test_s) + idle_s) * 1e9) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_meant_to_be_far_apart_are_no_stall() {
        let stall_s = |keys: &str| {
            let text = format!("[model]\npath = \"x.onnx\"\n[[camera]]\nname = \"a\"\n{keys}");
            let file = std::path::Path::new("x.toml");
            let config = framebus_config::parse(&text, file, &|_| None).expect("valid");
            source(&config.cameras[0]).stall_ns / 1_000_000_000
        };
        let rtsp = "source = \"rtsp://host/a\"\nstall_s = 5.0\n";
        assert_eq!(stall_s(rtsp), 5);
        assert_eq!(stall_s(&format!("{rtsp}fps = 0.1")), 30);
        assert_eq!(stall_s(&format!("{rtsp}idle_gate = true\nidle_max_s = 10.0")), 15);
        assert_eq!(stall_s("source = \"test:ball?width=64&height=64&fps=0.25\""), 12);
    }
}
