//! From the configuration to the running pipeline.

use crate::analytics::Scenery;
use crate::backends::{Book, Kind as Fault, Returning};
use crate::build::{Background, Telling};
use crate::camera::camera_vitals;
use crate::engine::{self, Loaded};
use crate::ledger::{Ledger, Legacy};
use crate::pool::not_loaded_in_time;
use crate::publish::Results;
use crate::run::{End, Loads, Parts, Source, run};
use crate::scheduler::Policy;
use crate::watch::LOADING_MAX_NS;
use framebus_bus::Delivery;
use framebus_config::{Camera, Config, Diff, Source as CameraSource};
use framebus_engine::LoadOptions;
use framebus_service::{
    Failure, Kind, OrFail, Reporter, Service, Vitals, clock, domain, is_offline, priority,
};
use framebus_types::{Role, State};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a server that is not there yet is asked.
const SERVER_LOOK: Duration = Duration::from_secs(1);
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
    let cameras = RefCell::new(Cameras::new(config, service, process.clone()));
    let sources = cameras.borrow().sources()?;
    let all = cameras.borrow().all_vitals();
    // Reported from the start: compiling a model takes a while.
    let reporter = Reporter::start(service.bus(), all, service.progress_flag(), true)?;
    process.set_state(State::Starting, "loading the model");

    let folder = service.bus().domain().folder();
    let (ledger, legacy) = Ledger::open(&folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "no ledger of frames in work; frames that are in work when this process is killed will have no result");
        (Ledger::default(), Legacy::default())
    });
    let mut book = Book::open(&folder);
    let restarted = book.told(now_s()).map(str::to_owned);
    if let Some(reason) = &restarted {
        process.set_state(State::Starting, &format!("loading the model again: {reason}"));
    }
    note_orphans(&mut book, &legacy);
    let publisher = service.bus().result_publisher(service.shutdown().flag())?;
    let events = service.bus().event_publisher()?;
    let mut results = Results::new(publisher, events, ledger);
    if is_offline(config) {
        wait_for_sinks(service, &results, &process);
    }
    results.answer_orphans(&legacy, |name| {
        let known = sources.iter().find(|source| source.name == name);
        known.map_or_else(|| camera_vitals(name), |source| source.vitals.clone())
    });

    let names = framebus_engine::backends_of(config);
    let order = book.order(&names, now_s());
    let telling = Telling {
        process: process.clone(),
        shutdown: service.shutdown().clone(),
        turns: Arc::new(AtomicU64::new(0)),
    };
    let mut loaded = load_within(service, &order, &telling);
    // A server that is not there yet is waited for, where nothing else could answer. This
    // process is ready: it says what is missing, and that may take long.
    while let Ok(Err(failure)) = &loaded
        && failure.kind == Kind::Unavailable
        && waits_for_server(&names)
        && !is_offline(config)
    {
        process.set_state(State::Offline, &format!("waiting for the server: {failure}"));
        reporter.publish();
        service.ready();
        if service.shutdown().wait(SERVER_LOOK) {
            return Ok(());
        }
        if let Some(new) = service.reloaded() {
            cameras.borrow_mut().change(new)?;
            reporter.set(cameras.borrow().all_vitals());
        }
        loaded = load_within(service, &order, &telling);
    }
    if service.shutdown().requested() {
        // A build that was stopped is no failure.
        return Ok(());
    }
    let Loaded { engine, not_built } = match loaded {
        Ok(loaded) => loaded.inspect_err(|failure| {
            process.set_state(State::Offline, &failure.to_string());
        })?,
        Err(reason) => {
            process.set_state(State::Stalled, &reason);
            // Those that this build does not have did not hang.
            let here = order.iter().find(|name| framebus_engine::backend(name).is_ok());
            book.note(now_s(), here.map_or("", |name| name), Fault::Hung, &reason);
            reporter.publish();
            framebus_service::abandon("infer", &Failure::message(Kind::Unavailable, reason));
        }
    };
    let info = engine.info();
    let backend = info.backend;
    let thresholds = engine::thresholds(config, &info.labels)?;
    let sources = cameras.borrow_mut().loaded(&info.labels)?;
    process.set_size(info.base.width as u32, info.base.height as u32);
    tracing::info!(
        backend, device = info.device, model = info.model,
        input = %info.base, mode = ?info.mode, contexts = info.contexts, "engine ready"
    );
    results.loaded(info);
    let before = order.iter().take_while(|name| *name != backend);
    // What only has to be built has done nothing wrong.
    before.filter(|name| not_built != Some(name.as_str())).for_each(|name| {
        book.not_loaded(now_s(), name);
    });
    let options = LoadOptions::of(config, clock::monotonic_ns);
    let alone = names.len() == 1;
    let book = Arc::new(Mutex::new(book));
    let returning = Returning::default();
    let shapes = Arc::new(Mutex::new(vec![info.base]));
    // A run through recordings is not cut in two by a restart.
    let better = not_built.filter(|_| !is_offline(config));
    let build = better.and_then(|better| {
        let background = Background {
            backend: better,
            model: config.model.path.clone(),
            options: options.clone(),
            shapes: shapes.clone(),
            // The loader's turns are its own: a load that hangs must show.
            telling: Telling { turns: Arc::default(), ..telling.clone() },
            returning: returning.clone(),
        };
        background.start()
    });
    let watched: Vec<String> =
        names.iter().filter(|name| not_built != Some(name.as_str())).cloned().collect();
    crate::backends::watch_for_return(
        &book,
        (&watched, backend),
        options,
        service.shutdown().clone(),
        returning.clone(),
    );
    let parts = Parts {
        bus: service.bus(),
        engine,
        sources,
        results,
        thresholds,
        process,
        shutdown: service.shutdown().clone(),
        progress: service.progress_flag(),
        timeout: Duration::from_millis(config.model.timeout_ms),
        alone,
        loads: Loads { turns: telling.turns, ready: shapes },
        restarted,
        changed: Box::new(|| {
            if let Some(why) = returning.take() {
                return Some(Err(Failure::message(Kind::Changed, why)));
            }
            let changed = cameras.borrow_mut().change(service.reloaded()?);
            Some(changed.inspect(|_| reporter.set(cameras.borrow().all_vitals())))
        }),
    };
    let end = run(parts, || {
        reporter.publish();
        service.ready();
    });
    service.shutdown().request();
    if let Some(build) = build
        && !crate::build::ended(&build, || service.progress())
    {
        // Handlers that run at an ordinary exit would take the library away under it.
        framebus_service::leave("infer", &end.map(drop));
    }
    let end = end?;
    let note = |kind, reason: &str| {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        book.note(now_s(), backend, kind, reason);
        Failure::message(Kind::Unavailable, reason)
    };
    match &end {
        End::Asked => Ok(()),
        End::Failing(reason) => Err(note(Fault::Failed, reason)),
        End::Hung(reason) => {
            let failure = note(Fault::Hung, reason);
            reporter.publish();
            framebus_service::abandon("infer", &failure)
        }
    }
}

/// Whether nothing but a server can run the model: it may start later than we do.
fn waits_for_server(names: &[String]) -> bool {
    names.iter().all(|name| framebus_engine::is_remote(name))
}

fn now_s() -> u64 {
    clock::wall_ns() / 1_000_000_000
}

fn note_orphans(book: &mut Book, legacy: &Legacy) {
    let frames = legacy.orphans.len();
    if frames > 0 {
        tracing::warn!(frames, "the process before this one ended while it had frames");
        book.note(now_s(), &legacy.backend, Fault::Died, &format!("ended with {frames} frames"));
    }
}

/// Loads the engine on a thread of its own, because a backend can hang in it; the words
/// for that are the outer error.
fn load_within(
    service: &Service,
    order: &[String],
    telling: &Telling,
) -> Result<Result<Loaded, Failure>, String> {
    let (config, names) = (service.config().clone(), order.to_vec());
    let (send, loaded) = channel();
    let report = telling.report();
    let load = move || {
        let _ = send.send(engine::load(&config, &names, Some(report)));
    };
    let spawned = std::thread::Builder::new().name("load".to_owned()).spawn(load);
    if let Err(error) = spawned.or_fail(Kind::Unavailable) {
        return Ok(Err(error));
    }
    // A build that tells of its progress may take as long as it likes.
    let (mut seen, mut since_ns) = (0, clock::monotonic_ns());
    loop {
        match loaded.recv_timeout(LOOK) {
            Ok(engine) => return Ok(engine),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Err(Failure::message(Kind::Bug, "loading the model panicked")));
            }
            Err(RecvTimeoutError::Timeout) => service.progress(),
        }
        let turns = telling.turns.load(Ordering::Relaxed);
        if turns != seen {
            (seen, since_ns) = (turns, clock::monotonic_ns());
        }
        if clock::monotonic_ns() - since_ns > LOADING_MAX_NS {
            return Err(not_loaded_in_time());
        }
    }
}

/// The cameras as they are configured now.
struct Cameras<'a> {
    config: Config,
    service: &'a Service,
    process: Arc<Vitals>,
    vitals: Vec<Arc<Vitals>>,
    /// Class names of the model, once it is loaded.
    labels: Option<Vec<String>>,
}

impl<'a> Cameras<'a> {
    fn new(config: &Config, service: &'a Service, process: Arc<Vitals>) -> Self {
        let vitals = config.enabled_cameras().map(|c| camera_vitals(c.name.as_str())).collect();
        Self { config: config.clone(), service, process, vitals, labels: None }
    }

    /// The cameras; what is followed in them is known once the model is loaded.
    fn sources(&self) -> Result<Vec<Source>, Failure> {
        let all = self.config.enabled_cameras().zip(&self.vitals).map(|(camera, vitals)| {
            let scenery = self.labels.as_ref().map_or(Ok(None), |labels| {
                Scenery::of(&self.config, camera.name.as_str(), labels).map_err(|reason| {
                    let file = self.config.file.display();
                    Failure::message(Kind::Config, format_args!("{file}: {reason}"))
                })
            });
            Ok(source(camera, vitals, scenery?))
        });
        all.collect()
    }

    /// The model is loaded and has these classes.
    fn loaded(&mut self, labels: &[String]) -> Result<Vec<Source>, Failure> {
        self.labels = Some(labels.to_vec());
        self.sources()
    }

    fn all_vitals(&self) -> Vec<Arc<Vitals>> {
        std::iter::once(&self.process).chain(&self.vitals).cloned().collect()
    }

    /// Takes over another configuration. Whether `mode = "auto"` means latency or
    /// throughput stays as it was at the start: another one needs another engine, and the
    /// cameras that stay would lose frames.
    fn change(&mut self, new: Config) -> Result<Vec<Source>, Failure> {
        let diff = Diff::between(&self.config, &new);
        let sizes = domain(&new)?.limits() != self.service.bus().domain().limits();
        if diff.everything || diff.model || diff.scene || sizes {
            let what = match () {
                () if diff.model => "[model] changed",
                () if diff.scene => "tracking, a zone or a line changed",
                () => "the sizes of the bus changed",
            };
            return Err(Failure::message(Kind::Changed, what));
        }
        let kept = |name: &str| self.vitals.iter().find(|vitals| vitals.name() == name).cloned();
        let names = new.enabled_cameras().map(|camera| camera.name.as_str());
        self.vitals = names.map(|name| kept(name).unwrap_or_else(|| camera_vitals(name))).collect();
        self.config = new;
        tracing::info!(
            added = ?diff.cameras_added, removed = ?diff.cameras_removed,
            changed = ?diff.cameras_changed, "cameras taken over from the changed configuration"
        );
        self.sources()
    }
}

fn source(camera: &Camera, vitals: &Arc<Vitals>, scenery: Option<Scenery>) -> Source {
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
        scenery,
        vitals: vitals.clone(),
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
            stall_ns(&config.cameras[0]) / 1_000_000_000
        };
        let rtsp = "source = \"rtsp://host/a\"\nstall_s = 5.0\n";
        assert_eq!(stall_s(rtsp), 5);
        assert_eq!(stall_s(&format!("{rtsp}fps = 0.1")), 30);
        assert_eq!(stall_s(&format!("{rtsp}idle_gate = true\nidle_max_s = 10.0")), 15);
        assert_eq!(stall_s("source = \"test:ball?width=64&height=64&fps=0.25\""), 12);
    }
}
