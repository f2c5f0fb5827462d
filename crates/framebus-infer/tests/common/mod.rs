//! A pipeline over the real bus around an engine that a test plays.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use framebus_bus::{
    Bus, Delivery, Domain, EventSubscriber, FramePublisher, Limits, ResultSubscriber,
};
use framebus_engine::{
    BatchOutput, Context, Engine, EngineError, EngineInfo, FrameOutput, FrameRequest, Head, Mode,
    Precision, ServerTimes, Shape, ShapePolicy, StageTimes, Thresholds,
};
use framebus_infer::camera::camera_vitals;
use framebus_infer::ledger::Ledger;
use framebus_infer::publish::Results;
use framebus_infer::scheduler::Policy;
use framebus_infer::{End, Loads, Parts, Source, run};
use framebus_service::{Failure, Shutdown, Vitals, clock};
use framebus_types::{Counter, Detection, Event, Fourcc, FrameHeader, Outcome, Reason, Role, text};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for anything: a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const WIDE: Shape = Shape { height: 384, width: 640 };
pub const LIVE: Policy = Policy { weight: 1, max_age_ns: 0, every_frame: false };
pub const CLIP: Policy = Policy { every_frame: true, ..LIVE };

/// What a call of the engine does; gets the context's number and input.
pub type Run = dyn Fn(usize, Shape, &[FrameRequest<'_>]) -> Result<(), String> + Send + Sync;
/// What loading an input does.
pub type Load = dyn Fn(Shape) -> Result<(), String> + Send + Sync;

/// What the engine finds in a frame that is filled with that number.
pub type Find = dyn Fn(u8, &mut Vec<framebus_vision::Detection>) + Send + Sync;

/// An engine without a network: answers the boxes it is told to and allocates nothing.
#[derive(Clone)]
pub struct Played {
    pub contexts: usize,
    pub max_batch: usize,
    /// One that takes longer hangs; its first batch may take ten times as long.
    pub timeout: Duration,
    pub run: Arc<Run>,
    pub load: Arc<Load>,
    pub find: Arc<Find>,
}

impl Played {
    pub fn new(
        run: impl Fn(usize, Shape, &[FrameRequest<'_>]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let load = Arc::new(|_| Ok(()));
        let (run, find) = (Arc::new(run), Arc::new(|_, _: &mut Vec<_>| {}));
        Self { contexts: 1, max_batch: 1, timeout: PATIENCE, run, load, find }
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            backend: "played",
            device: "none".to_owned(),
            version: "0".to_owned(),
            model: "played".to_owned(),
            precision: Precision::F32,
            head: Head::Whole,
            shapes: ShapePolicy::CameraShaped { side: 640, stride: 32 },
            base: WIDE,
            mode: Mode::Throughput,
            contexts: self.contexts,
            max_batch: self.max_batch,
            labels: vec!["thing".to_owned()],
            returns: false,
        }
    }
}

struct PlayedEngine(EngineInfo, Played);

impl Engine for PlayedEngine {
    fn info(&self) -> &EngineInfo {
        &self.0
    }

    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        (self.1.load)(shape).map_err(|reason| EngineError::Run {
            backend: "played",
            stage: "loading",
            reason,
        })?;
        let context = |number| -> Box<dyn Context> {
            let (run, find) = (self.1.run.clone(), self.1.find.clone());
            Box::new(PlayedContext { number, shape, run, find })
        };
        Ok((0..self.1.contexts).map(context).collect())
    }
}

struct PlayedContext {
    number: usize,
    shape: Shape,
    run: Arc<Run>,
    find: Arc<Find>,
}

impl Context for PlayedContext {
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError> {
        let start = clock::monotonic_ns();
        (self.run)(self.number, self.shape, batch).map_err(|reason| EngineError::Run {
            backend: "played",
            stage: "inference",
            reason,
        })?;
        if output.frames.len() < batch.len() {
            output.frames.resize_with(batch.len(), FrameOutput::default);
        }
        for (request, frame) in batch.iter().zip(&mut output.frames) {
            frame.detections.clear();
            (self.find)(number(request), &mut frame.detections);
        }
        let end = clock::monotonic_ns();
        output.times = StageTimes {
            preprocessed_ns: start,
            inference_start_ns: start,
            inference_end_ns: end,
            decoded_ns: end,
            server: said(number(&batch[0])),
        };
        Ok(())
    }

    fn infer_only(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What a server says of the batch whose first frame is filled with `number`.
pub fn said(number: u8) -> ServerTimes {
    ServerTimes {
        request: 1 << 40 | u64::from(number),
        serialise_us: 1,
        receive_us: 2,
        queue_us: 3,
        compute_input_us: 4,
        compute_us: 5,
        compute_output_us: 6,
        sent_bytes: 7,
        received_bytes: 8,
    }
}

/// The byte that a test frame is filled with: its sequence number, cut.
pub fn number(request: &FrameRequest<'_>) -> u8 {
    match request.view.planes() {
        framebus_vision::Planes::Nv12 { y, .. } => y[0],
        framebus_vision::Planes::Rgb24 { data, .. } => data[0],
    }
}

/// A domain of its own that leaves nothing behind.
pub struct World {
    domain: Domain,
    /// `None` in a process that has joined another one's world.
    root: Option<tempfile::TempDir>,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        let root = tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("temp dir");
        let name = root.path().file_name().expect("name").to_string_lossy().to_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let domain = Domain::new(&name, root.path(), limits).expect("valid");
        Self { domain, root: Some(root) }
    }

    /// The world of another process, by what [`World::name`] answers there.
    pub fn join(instance: &str, root: &Path, limits: Limits) -> Self {
        Self { domain: Domain::new(instance, root, limits).expect("valid"), root: None }
    }

    /// Instance and folder.
    pub fn name(&self) -> (String, PathBuf) {
        let folder = self.domain.folder();
        let root = folder.parent().expect("instances lie in a root");
        (self.domain.instance().to_owned(), root.to_owned())
    }

    pub fn bus(&self, name: &str) -> Bus {
        Bus::open(&self.domain, name).expect("bus opens")
    }

    /// Starts the pipeline on a thread of its own and waits until it runs.
    pub fn start(&self, engine: Played, cameras: &[(&str, Policy)]) -> Pipeline {
        let sources = cameras.iter().map(|&(name, policy)| source(name, policy)).collect();
        self.start_with(engine, sources)
    }

    pub fn start_with(&self, engine: Played, sources: Vec<Source>) -> Pipeline {
        let vitals: Vec<_> = sources.iter().map(|source| source.vitals.clone()).collect();
        let process = Vitals::new(Role::Infer, "infer");
        let shutdown = Shutdown::new();
        // Before the pipeline: what it publishes first is received, too.
        let reader = self.bus("reader");
        let results = reader.result_subscriber("reader").expect("results");
        let events = reader.event_subscriber("reader").expect("events");
        let (domain, stop, infer) = (self.domain.clone(), shutdown.clone(), process.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (change, changed) = std::sync::mpsc::channel();
        let body = move || -> Result<End, Failure> {
            let bus = Bus::open(&domain, "infer")?;
            let (info, timeout) = (engine.info(), engine.timeout);
            let publisher = bus.result_publisher(stop.flag())?;
            let (ledger, legacy) = Ledger::open(&domain.folder()).expect("a ledger");
            let events = bus.event_publisher()?;
            let mut results = Results::new(publisher, events, ledger);
            results.answer_orphans(&legacy, |name| {
                let known = sources.iter().find(|source| source.name == name);
                known.map_or_else(|| camera_vitals(name), |source| source.vitals.clone())
            });
            results.loaded(&info);
            run(
                Parts {
                    bus: &bus,
                    engine: Box::new(PlayedEngine(info.clone(), engine)),
                    results,
                    sources,
                    thresholds: Thresholds {
                        confidence: 0.25,
                        iou: 0.7,
                        max_detections: 300,
                        classes: None,
                    },
                    process: infer,
                    shutdown: stop,
                    progress: Arc::new(AtomicBool::new(false)),
                    timeout,
                    alone: true,
                    loads: Loads::default(),
                    restarted: None,
                    changed: Box::new(move || changed.try_recv().ok()),
                },
                move || ready.send(()).expect("the test waits"),
            )
        };
        let thread = std::thread::Builder::new().name("taker".to_owned()).spawn(body);
        let thread = thread.expect("a thread");
        is_ready.recv_timeout(PATIENCE).expect("the pipeline starts");
        Pipeline {
            thread: Some(thread),
            results,
            events,
            _reader: reader,
            process,
            vitals,
            shutdown,
            change,
        }
    }

    /// A camera's publisher for frames of `width` x `height`.
    pub fn camera(&self, name: &str, policy: Policy, width: u32, height: u32) -> Feeder {
        let delivery = if policy.every_frame { Delivery::EveryFrame } else { Delivery::Latest };
        let bus = self.bus(name);
        let bytes = (width * height * 3 / 2) as usize;
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = bus.frame_publisher(name, bytes, delivery, stop).expect("publisher");
        Feeder { publisher, _bus: bus, name: name.to_owned(), sequence: 0, width, height }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.root.is_some() {
            // Threads that hung in a played engine may still be on their way out.
            let patience = Shutdown::new();
            for _ in 0..200 {
                if !self.domain.in_use() {
                    break;
                }
                let _ = patience.wait(Duration::from_millis(10));
            }
            let _ = self.domain.remove_leftovers();
        }
    }
}

pub fn source(name: &str, policy: Policy) -> Source {
    Source {
        name: name.to_owned(),
        policy,
        stall_ns: 5_000_000_000,
        motion_force_ns: None,
        scenery: None,
        vitals: camera_vitals(name),
    }
}

/// A running pipeline and what it publishes.
pub struct Pipeline {
    thread: Option<JoinHandle<Result<End, Failure>>>,
    results: ResultSubscriber,
    events: EventSubscriber,
    _reader: Bus,
    pub process: Arc<Vitals>,
    pub vitals: Vec<Arc<Vitals>>,
    pub shutdown: Shutdown,
    /// Takes the cameras from now on.
    pub change: Sender<Result<Vec<Source>, Failure>>,
}

/// A result as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    pub camera: String,
    pub sequence: u64,
    pub outcome: Outcome,
    pub reason: Reason,
    pub message: String,
    pub context: u32,
    pub server: framebus_types::ServerTimes,
    pub detections: Vec<Detection>,
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = if self.reason == Reason::None { "" } else { self.reason.as_str() };
        let text = format!("{}{} {} {reason}", self.camera, self.sequence, self.outcome.as_str());
        f.write_str(text.trim_end())
    }
}

impl Pipeline {
    /// The next result.
    pub fn next(&self) -> Got {
        let waits = PATIENCE.as_millis() / 10;
        for _ in 0..waits {
            if let Some(got) = self.poll() {
                return got;
            }
            let _ = self.results.waker().wait(Duration::from_millis(10)).expect("waits");
        }
        panic!("no result came");
    }

    /// `camera sequence outcome reason` of the next `count` results.
    pub fn texts(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().to_string()).collect()
    }

    /// A result if one is there.
    pub fn poll(&self) -> Option<Got> {
        let result = self.results.receive().expect("receives")?;
        Some(Got {
            camera: result.camera().to_owned(),
            sequence: result.header().sequence,
            outcome: result.outcome(),
            reason: result.reason(),
            message: result.message().to_owned(),
            context: result.header().context,
            server: result.header().server,
            detections: result.detections().to_vec(),
        })
    }

    /// The next `count` events.
    pub fn next_events(&mut self, count: usize) -> Vec<Event> {
        let mut events = self.events();
        for _ in 0..PATIENCE.as_millis() / 10 {
            if events.len() >= count {
                return events;
            }
            let _ = self.events.waker().wait(Duration::from_millis(10)).expect("waits");
            events.extend(self.events());
        }
        panic!("{count} events did not come, only {events:?}");
    }

    /// The events that are there.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.receive().expect("receives")).collect()
    }

    /// Waits for its own end, `false` when it does not come within `limit`.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let looks = limit.as_millis() / 5;
        let patience = Shutdown::new();
        (0..looks).any(|_| {
            let _ = patience.wait(Duration::from_millis(5));
            self.thread.as_ref().is_some_and(JoinHandle::is_finished)
        })
    }

    /// Stops it and answers how it ended and what it published last.
    pub fn stop(mut self) -> (Result<End, Failure>, Vec<Got>) {
        self.shutdown.request();
        let ended = self.thread.take().expect("runs").join().expect("no panic");
        (ended, std::iter::from_fn(|| self.poll()).collect())
    }

    /// Every frame that was taken has one result.
    pub fn reconciles(&self, camera: usize) -> bool {
        let get = |counter| self.vitals[camera].get(counter);
        let results =
            [Counter::Ok, Counter::Skipped, Counter::Superseded, Counter::Stale, Counter::Failed];
        get(Counter::Taken) == results.into_iter().map(get).sum::<u64>()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A camera.
pub struct Feeder {
    publisher: FramePublisher,
    _bus: Bus,
    name: String,
    sequence: u64,
    width: u32,
    height: u32,
}

impl Feeder {
    /// Whether inference takes its frames.
    pub fn has_reader(&self) -> bool {
        self.publisher.has_reader(framebus_service::INFER_READER)
    }

    /// Sends a frame that was just captured.
    pub fn send(&mut self) {
        self.send_with(|_| {});
    }

    /// Sends a frame of another size.
    pub fn send_sized(&mut self, width: u32, height: u32) {
        (self.width, self.height) = (width, height);
        self.send();
    }

    /// Sends a frame whose header `change` has had its way with.
    pub fn send_with(&mut self, change: impl FnOnce(&mut FrameHeader)) {
        let (width, height) = (self.width, self.height);
        let now_ns = clock::monotonic_ns();
        let mut header = FrameHeader {
            camera: text::pack(&self.name),
            epoch_ns: 1,
            sequence: self.sequence,
            capture_ns: now_ns,
            publish_ns: now_ns,
            width,
            height,
            fourcc: Fourcc::Nv12.into(),
            strides: [width, width, 0, 0],
            offsets: [0, width * height, 0, 0],
            ..FrameHeader::default()
        };
        change(&mut header);
        let mut loan = self.publisher.loan((width * height * 3 / 2) as usize).expect("a loan");
        loan.payload_mut()[0] = self.sequence as u8;
        let recipients = self.publisher.publish(loan, &header).expect("sent");
        assert_eq!(recipients, 1);
        self.sequence += 1;
    }
}

/// Waits until `what` holds.
pub fn until(what: impl Fn() -> bool) {
    let patience = Shutdown::new();
    for _ in 0..PATIENCE.as_millis() {
        if what() {
            return;
        }
        let _ = patience.wait(Duration::from_millis(1));
    }
    panic!("waited in vain");
}
