//! Valid values → the model. Only called when there is no error.

use crate::model::{
    Anchor, Bus, Camera, Checks, Config, Decoder, Delivery, Line, Log, LogFormat, LogLevel, Mode,
    Model, Pace, PictureChecks, Precision, RtspTransport, TensorRt, Tracking, Triton,
    TritonTransport, Up, Zone,
};
use crate::parse::{Document, Entry};
use crate::spec::section;
use crate::value::Value;
use crate::{CameraName, InstanceName, NameError};
use std::path::{Path, PathBuf};

/// The value of a key, taken out of one variant of [`Value`]. Table and model are held together
/// by tests that build every key; a mismatch is a bug of this crate and no matter of the input.
macro_rules! get {
    ($entry:expr, $key:literal, $variant:ident) => {
        match $entry.value($key).into_owned() {
            Value::$variant(value) => value,
            other => unreachable!("{} is {other:?} in the table of keys", $key),
        }
    };
}

/// The same for a key without a default.
macro_rules! get_option {
    ($entry:expr, $key:literal, $variant:ident) => {
        match $entry.value($key).into_owned() {
            Value::$variant(value) => Some(value),
            Value::Absent => None,
            other => unreachable!("{} is {other:?} in the table of keys", $key),
        }
    };
}

/// A number in the width of its field, which holds the range of the table.
macro_rules! int {
    ($entry:expr, $key:literal) => {
        match get!($entry, $key, Int).try_into() {
            Ok(value) => value,
            Err(_) => unreachable!("{} is wider in the table of keys than in the model", $key),
        }
    };
}

/// The enum value of a word that the walk has accepted.
macro_rules! word {
    ($entry:expr, $key:literal, $type:ident) => {
        match $type::from_name(&get!($entry, $key, Text)) {
            Some(value) => value,
            None => unreachable!("{} has a word that the model lacks", $key),
        }
    };
}

// Below the macros, which it uses.
mod sink;

pub(crate) fn config(document: &Document, file: &Path) -> Config {
    Config {
        instance: one(document, "", |top| name::<InstanceName>(top, "instance")),
        bus: one(document, "bus", bus),
        log: one(document, "log", log),
        model: one(document, "model", model),
        triton: one(document, "triton", triton),
        tensorrt: one(document, "tensorrt", tensorrt),
        up: one(document, "up", up),
        cameras: document.entries("camera").map(camera).collect(),
        tracking: one(document, "tracking", tracking),
        zones: document.entries("zone").map(zone).collect(),
        lines: document.entries("line").map(line).collect(),
        sinks: document.entries("sink").map(sink::sink).collect(),
        file: file.to_owned(),
    }
}

/// A section that stands in the file at most once.
fn one<T>(document: &Document, name: &str, read: impl Fn(&Entry) -> T) -> T {
    match document.entries(name).next() {
        Some(entry) => read(entry),
        None => read(&Entry::new(section(name))),
    }
}

fn name<T>(entry: &Entry, key: &str) -> T
where
    T: for<'a> TryFrom<&'a str, Error = NameError>,
{
    match &*entry.value(key) {
        Value::Text(text) => match T::try_from(text) {
            Ok(name) => name,
            Err(_) => unreachable!("{key} is longer in the table of keys than in the model"),
        },
        other => unreachable!("{key} is {other:?} in the table of keys"),
    }
}

pub(crate) fn bus(entry: &Entry) -> Bus {
    Bus {
        root: get!(entry, "root", Path),
        frame_subscribers: int!(entry, "frame_subscribers"),
        result_subscribers: int!(entry, "result_subscribers"),
        result_buffer: int!(entry, "result_buffer"),
    }
}

pub(crate) fn log(entry: &Entry) -> Log {
    Log { level: word!(entry, "level", LogLevel), format: word!(entry, "format", LogFormat) }
}

pub(crate) fn up(entry: &Entry) -> Up {
    Up {
        restart_min_ms: int!(entry, "restart_min_ms"),
        restart_max_ms: int!(entry, "restart_max_ms"),
        breaker_s: get!(entry, "breaker_s", Float),
        hang_s: get!(entry, "hang_s", Float),
        drain_s: get!(entry, "drain_s", Float),
    }
}

fn model(entry: &Entry) -> Model {
    model_at(get!(entry, "path", Path), entry)
}

pub(crate) fn model_at(path: PathBuf, entry: &Entry) -> Model {
    Model {
        path,
        backend: get!(entry, "backend", Backends),
        input: get!(entry, "input", Input),
        precision: word!(entry, "precision", Precision),
        mode: word!(entry, "mode", Mode),
        contexts: int!(entry, "contexts"),
        threads: int!(entry, "threads"),
        cores: get!(entry, "cores", Cores),
        nice: int!(entry, "nice"),
        timeout_ms: int!(entry, "timeout_ms"),
        confidence: get!(entry, "confidence", Float) as f32,
        iou: get!(entry, "iou", Float) as f32,
        max_detections: int!(entry, "max_detections"),
        classes: get!(entry, "classes", Classes),
    }
}

fn triton(entry: &Entry) -> Triton {
    Triton {
        url: get!(entry, "url", Endpoint),
        model: get_option!(entry, "model", Text),
        version: get_option!(entry, "version", Text),
        transport: word!(entry, "transport", TritonTransport),
        timeout_ms: int!(entry, "timeout_ms"),
        max_batch: int!(entry, "max_batch"),
        token: get_option!(entry, "token", Secret),
        token_header: get!(entry, "token_header", Text),
        ca: get_option!(entry, "ca", Path),
        cert: get_option!(entry, "cert", Path),
        key: get_option!(entry, "key", Path),
    }
}

fn tensorrt(entry: &Entry) -> TensorRt {
    TensorRt {
        library: get_option!(entry, "library", Path),
        device: int!(entry, "device"),
        max_batch: int!(entry, "max_batch"),
        workspace_mib: get_option!(entry, "workspace_mib", Int),
        optimization_level: int!(entry, "optimization_level"),
        graphs: get!(entry, "graphs", Bool),
    }
}

fn camera(entry: &Entry) -> Camera {
    let parsed = get!(entry, "source", Source);
    let mut camera = camera_at(name(entry, "name"), parsed.source, entry);
    camera.user = camera.user.or(parsed.user);
    camera.password = camera.password.or(parsed.password);
    camera
}

pub(crate) fn camera_at(name: CameraName, source: crate::Source, entry: &Entry) -> Camera {
    let delivery = word!(entry, "delivery", Delivery);
    let checked = match word!(entry, "picture_checks", Checks) {
        Checks::On => true,
        Checks::Off => false,
        Checks::Auto => {
            let is_camera = source.is_live() || matches!(source, crate::Source::Gst(_));
            is_camera && delivery == Delivery::Latest
        }
    };
    Camera {
        name,
        enabled: get!(entry, "enabled", Bool),
        source,
        pace: word!(entry, "pace", Pace),
        repeat: get!(entry, "loop", Bool),
        delivery,
        fps: get_option!(entry, "fps", Float),
        max_width: get_option!(entry, "max_width", Int)
            .map(|width| u32::try_from(width).unwrap_or(u32::MAX)),
        user: get_option!(entry, "user", Text),
        password: get_option!(entry, "password", Secret),
        transport: word!(entry, "transport", RtspTransport),
        latency_ms: int!(entry, "latency_ms"),
        stall_s: get!(entry, "stall_s", Float),
        reconnect_min_ms: int!(entry, "reconnect_min_ms"),
        reconnect_max_ms: int!(entry, "reconnect_max_ms"),
        max_age_ms: int!(entry, "max_age_ms"),
        weight: int!(entry, "weight"),
        decoder: word!(entry, "decoder", Decoder),
        decoder_threads: int!(entry, "decoder_threads"),
        cores: get!(entry, "cores", Cores),
        nice: int!(entry, "nice"),
        motion_gate: get!(entry, "motion_gate", Bool),
        motion_threshold: get!(entry, "motion_threshold", Float) as f32,
        motion_step: int!(entry, "motion_step"),
        motion_ignore: get!(entry, "motion_ignore", Areas),
        motion_hold_s: get!(entry, "motion_hold_s", Float),
        motion_force_s: get!(entry, "motion_force_s", Float),
        idle_gate: get!(entry, "idle_gate", Bool),
        idle_max_s: get!(entry, "idle_max_s", Float),
        checks: checked.then(|| checks(entry)),
    }
}

fn checks(entry: &Entry) -> PictureChecks {
    PictureChecks {
        frozen_s: get!(entry, "frozen_s", Float),
        uniform_contrast: get!(entry, "uniform_contrast", Float) as f32,
        corrupt_area: get!(entry, "corrupt_area", Float) as f32,
        blur_drop: get!(entry, "blur_drop", Float) as f32,
        time_jump_s: get!(entry, "time_jump_s", Float),
        late_s: get!(entry, "late_s", Float),
        fault_hold_s: get!(entry, "fault_hold_s", Float),
    }
}

pub(crate) fn tracking(entry: &Entry) -> Tracking {
    Tracking {
        enabled: get!(entry, "enabled", Bool),
        high: get!(entry, "high", Float) as f32,
        new: get!(entry, "new", Float) as f32,
        min_frames: int!(entry, "min_frames"),
        lost_s: get!(entry, "lost_s", Float),
    }
}

fn zone(entry: &Entry) -> Zone {
    Zone {
        camera: name(entry, "camera"),
        name: get!(entry, "name", Text),
        points: get!(entry, "points", Points),
        classes: get!(entry, "classes", Classes),
        dwell_s: get!(entry, "dwell_s", Float),
        anchor: word!(entry, "anchor", Anchor),
    }
}

fn line(entry: &Entry) -> Line {
    Line {
        camera: name(entry, "camera"),
        name: get!(entry, "name", Text),
        from: get!(entry, "from", Point),
        to: get!(entry, "to", Point),
        classes: get!(entry, "classes", Classes),
        anchor: word!(entry, "anchor", Anchor),
    }
}

impl Default for Tracking {
    fn default() -> Self {
        tracking(&Entry::new(section("tracking")))
    }
}

impl Default for Bus {
    fn default() -> Self {
        bus(&Entry::new(section("bus")))
    }
}

impl Default for Log {
    fn default() -> Self {
        log(&Entry::new(section("log")))
    }
}

impl Default for Triton {
    fn default() -> Self {
        triton(&Entry::new(section("triton")))
    }
}

impl Default for TensorRt {
    fn default() -> Self {
        tensorrt(&Entry::new(section("tensorrt")))
    }
}

impl Default for Up {
    fn default() -> Self {
        up(&Entry::new(section("up")))
    }
}

impl Model {
    /// A model with the defaults of the configuration file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        model_at(path.into(), &Entry::new(section("model")))
    }
}

impl Camera {
    /// A camera with the defaults of the configuration file.
    pub fn new(name: CameraName, source: crate::Source) -> Self {
        camera_at(name, source, &Entry::new(section("camera")))
    }
}
