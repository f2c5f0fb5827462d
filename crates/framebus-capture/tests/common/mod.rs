//! A capture process under test, its own bus domain, and readers beside it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "each test binary uses a part; watchdogs need a clock and a pause"
)]

use framebus_bus::{Bus, Delivery, Domain, FrameSample, FrameSubscriber, HealthSubscriber};
use framebus_service::INFER_READER;
use framebus_types::{Counter, Health, State, text};
use gst::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bounds hangs; never a figure of merit.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// One camera named `cam` in an instance of its own.
pub struct Rig {
    pub bus: Option<Bus>,
    pub health: Option<HealthSubscriber>,
    pub dir: TempDir,
    domain: Domain,
    config: PathBuf,
    children: Vec<Child>,
    records: Vec<Health>,
}

impl Rig {
    /// `bus` and `camera` are lines of the configuration.
    pub fn new(bus: &str, camera: &str) -> Self {
        gst::init().expect("GStreamer");
        let dir = tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("temp dir");
        let config = dir.path().join("framebus.toml");
        let instance = dir.path().file_name().and_then(|name| name.to_str()).expect("name");
        let text = format!(
            "instance = \"{}\"\n[bus]\nroot = \"{}\"\n{bus}\n[model]\npath = \"m.onnx\"\n\
             [[camera]]\nname = \"cam\"\n{camera}\n",
            instance.to_lowercase().replace('.', "-"),
            dir.path().join("b").display()
        );
        std::fs::write(&config, text).expect("configuration written");
        let parsed = framebus_config::load(&config).expect("valid configuration");
        let domain = framebus_service::domain(&parsed).expect("domain");
        let bus = Bus::open(&domain, "test").expect("bus");
        let health = bus.health_subscriber().expect("health");
        Self {
            bus: Some(bus),
            health: Some(health),
            dir,
            domain,
            config,
            children: Vec::new(),
            records: Vec::new(),
        }
    }

    pub fn start(&mut self) {
        self.start_by(&mut Command::new(env!("CARGO_BIN_EXE_framebus-capture")));
    }

    /// Starts through another command, to which the arguments are appended.
    pub fn start_by(&mut self, command: &mut Command) {
        let log = std::fs::File::create(self.log_path()).expect("log");
        let child = command
            .args(["--camera", "cam", "--config"])
            .arg(&self.config)
            .stderr(log)
            .spawn()
            .expect("capture starts");
        self.children.push(child);
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn wait_for_log(&self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(begin.elapsed() < WATCHDOG, "no {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn reader(&self, delivery: Delivery) -> FrameSubscriber {
        let bus = self.bus.as_ref().expect("bus");
        bus.frame_subscriber("cam", delivery, INFER_READER).expect("subscriber")
    }

    /// The exit code, once the process has ended.
    pub fn exit(&mut self) -> i32 {
        let begin = Instant::now();
        loop {
            let child = self.children.last_mut().expect("started");
            if let Some(status) = child.try_wait().expect("waited") {
                return status.code().unwrap_or(-1);
            }
            assert!(begin.elapsed() < WATCHDOG, "capture does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn terminate(&mut self) -> i32 {
        let pid = self.children.last().expect("started").id();
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        self.exit()
    }

    /// All records so far.
    pub fn records(&mut self) -> &[Health] {
        let health = self.health.as_ref().expect("health");
        assert_eq!(health.receive_into(&mut self.records).expect("received"), 0);
        &self.records
    }

    /// Waits for a record that fits.
    pub fn wait_for(&mut self, what: &str, fits: impl Fn(&Health) -> bool) -> Health {
        let begin = Instant::now();
        loop {
            if let Some(record) = self.records().iter().find(|record| fits(record)) {
                return *record;
            }
            assert!(begin.elapsed() < WATCHDOG, "no {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_state(&mut self, state: State, reason: &str) -> Health {
        self.wait_for(&format!("{state} ({reason})"), |record| {
            record.state == u32::from(state) && text::unpack(&record.reason).contains(reason)
        })
    }

    /// Forgets earlier records.
    pub fn forget(&mut self) {
        self.records();
        self.records.clear();
    }

    /// The last record of a process that has ended.
    pub fn last(&mut self) -> Health {
        let last = *self.records().last().expect("a record");
        reconciles(&last);
        last
    }

    pub fn clip(&self, name: &str, pipeline: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        run(&format!("{pipeline} ! filesink location={}", path.display()));
        path
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.health = None;
        self.bus = None;
        if let Err(error) = self.domain.remove_leftovers() {
            eprintln!("leftovers: {error}");
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Frames are accounted for, each once.
pub fn reconciles(record: &Health) {
    let count = |counter| record.counter(counter);
    assert_eq!(
        count(Counter::Captured),
        count(Counter::Published)
            + count(Counter::LostRate)
            + count(Counter::LostMemory)
            + count(Counter::LostBad)
    );
    assert_eq!(count(Counter::Published), count(Counter::ZeroCopy) + count(Counter::Copied));
}

/// Receives frames until `enough` or the process has ended and nothing is left.
pub fn receive(
    rig: &mut Rig,
    reader: &FrameSubscriber,
    mut each: impl FnMut(&FrameSample),
    enough: usize,
) -> usize {
    let begin = Instant::now();
    let mut count = 0;
    while count < enough {
        let woken = reader.waker().wait(Duration::from_millis(100)).expect("waited");
        let before = count;
        while let Some(frame) = reader.receive().expect("received") {
            each(&frame);
            count += 1;
        }
        let ended =
            rig.records().last().is_some_and(|record| record.state == u32::from(State::Ended));
        if ended && !woken && count == before {
            break;
        }
        assert!(begin.elapsed() < WATCHDOG, "{count} of {enough} frames:\n{}", rig.log());
    }
    count
}

/// Runs a pipeline to its end.
pub fn run(description: &str) {
    let pipeline = gst::parse::launch(description).expect("a pipeline");
    play(&pipeline);
}

fn play(pipeline: &gst::Element) {
    pipeline.set_state(gst::State::Playing).expect("plays");
    let bus = pipeline.bus().expect("bus");
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(WATCHDOG.as_secs()),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).expect("stops");
    if let gst::MessageView::Error(error) = end.expect("an end").view() {
        panic!("{}", error.error());
    }
}

/// What GStreamer alone decodes from a clip: the rows of both planes of every
/// frame as NV12.
pub fn decode(path: &Path) -> Vec<Vec<u8>> {
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! decodebin ! videoconvertscale ! video/x-raw,format=NV12 ! \
         fakesink name=out sync=false",
        path.display()
    ))
    .expect("a pipeline")
    .downcast::<gst::Pipeline>()
    .expect("a pipeline");
    let frames = Arc::new(Mutex::new(Vec::new()));
    let seen = frames.clone();
    let pad = pipeline.by_name("out").and_then(|out| out.static_pad("sink")).expect("a pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps().expect("caps");
        let video = gst_video::VideoInfo::from_caps(&caps).expect("video");
        let buffer = info.buffer().expect("a buffer");
        let frame =
            gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &video).expect("readable");
        let (width, height) = (video.width() as usize, video.height() as usize);
        let mut bytes = Vec::new();
        for (plane, rows) in [(0_u32, height), (1, height / 2)] {
            use gst_video::VideoFrameExt;
            let stride = frame.plane_stride()[plane as usize] as usize;
            let data = frame.plane_data(plane).expect("a plane");
            for row in 0..rows {
                bytes.extend_from_slice(&data[row * stride..][..width]);
            }
        }
        seen.lock().expect("not poisoned").push(bytes);
        gst::PadProbeReturn::Ok
    });
    play(pipeline.upcast_ref());
    std::mem::take(&mut *frames.lock().expect("not poisoned"))
}

/// The rows of both planes of a received NV12 frame of even size.
pub fn pixels(frame: &FrameSample) -> Vec<u8> {
    let (width, height) = (frame.header().width as usize, frame.header().height as usize);
    let mut bytes = Vec::new();
    for (plane, rows) in [(0, height), (1, height / 2)] {
        let (data, stride) = frame.plane(plane);
        for row in 0..rows {
            bytes.extend_from_slice(&data[row * stride..][..width]);
        }
    }
    bytes
}
