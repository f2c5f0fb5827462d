//! The validated configuration. Every value is inside its range by the time one of these exists;
//! ranges and defaults stand in `spec`.

use crate::{CameraName, InstanceName, Secret, Source};
use std::fmt;
use std::path::PathBuf;

/// A whole, valid configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Separates installations (and tests) on one machine: each has its own bus.
    pub instance: InstanceName,
    /// The shared-memory bus.
    pub bus: Bus,
    /// What the processes log.
    pub log: Log,
    /// The detection model and how it runs.
    pub model: Model,
    /// The server of the `triton` backend, whether or not that is used.
    pub triton: Triton,
    /// The GPU of the `tensorrt` backend, whether or not that is used.
    pub tensorrt: TensorRt,
    /// How `framebus up` keeps the processes alive.
    pub up: Up,
    /// At least one camera; names are unique.
    pub cameras: Vec<Camera>,
    /// How objects are followed.
    pub tracking: Tracking,
    /// Parts of pictures, in the order of the file; a camera's n-th is bit n of
    /// a detection's zones.
    pub zones: Vec<Zone>,
    /// Lines in pictures.
    pub lines: Vec<Line>,
    /// Where results go; names are unique. May be empty.
    pub sinks: Vec<Sink>,
    /// The file it was read from.
    pub file: PathBuf,
}

impl Config {
    /// The camera of that name.
    pub fn camera(&self, name: &str) -> Option<&Camera> {
        self.cameras.iter().find(|camera| camera.name.as_str() == name)
    }

    /// The cameras that are switched on, in the order of the file.
    pub fn enabled_cameras(&self) -> impl Iterator<Item = &Camera> {
        self.cameras.iter().filter(|camera| camera.enabled)
    }

    /// The zones of a camera: the n-th is bit n of a detection's zones.
    pub fn zones_of<'a>(&'a self, camera: &'a str) -> impl Iterator<Item = &'a Zone> {
        self.zones.iter().filter(move |zone| zone.camera.as_str() == camera)
    }

    /// The lines of a camera.
    pub fn lines_of<'a>(&'a self, camera: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.camera.as_str() == camera)
    }

    /// The sinks that are switched on, in the order of the file.
    pub fn enabled_sinks(&self) -> impl Iterator<Item = &Sink> {
        self.sinks.iter().filter(|sink| sink.enabled)
    }
}

/// `[bus]`: sizes of the shared-memory bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bus {
    /// Folder of the bus files (service descriptions; the pixels lie in /dev/shm).
    pub root: PathBuf,
    /// How many processes may read one camera's frames at once, inference included.
    pub frame_subscribers: usize,
    /// How many processes may read the results at once, sinks included.
    pub result_subscribers: usize,
    /// Results a reader may lag behind before it loses the oldest.
    pub result_buffer: usize,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is printed.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// `[model]`: the network and how it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The ONNX file.
    pub path: PathBuf,
    /// Which inference backends are tried.
    pub backend: Backends,
    /// The size of the network's input.
    pub input: InputShape,
    /// Arithmetic of the network.
    pub precision: Precision,
    /// Whether one result soon or many results matter.
    pub mode: Mode,
    /// Batches in flight at once; 0 = the backend decides.
    pub contexts: usize,
    /// CPU threads of the backend; 0 = the backend decides.
    pub threads: usize,
    /// CPU numbers that inference may use; empty = all.
    pub cores: Vec<usize>,
    /// How far inference gives way when cores are short, 0 to 19.
    pub nice: u8,
    /// Longest time for a batch in the engine, ms; see the key's documentation.
    pub timeout_ms: u64,
    /// Least score of a detection, 0 to 1.
    pub confidence: f32,
    /// Overlap (intersection over union, 0 to 1) above which the weaker of two boxes of one class goes.
    pub iou: f32,
    /// Most detections of one frame.
    pub max_detections: usize,
    /// Classes that are reported; empty = all.
    pub classes: Vec<ClassFilter>,
}

/// `[up]`: the supervisor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Up {
    /// Wait before the first restart of a process that died, in milliseconds.
    pub restart_min_ms: u64,
    /// Longest wait between restarts, in milliseconds; never below `restart_min_ms`.
    pub restart_max_ms: u64,
    /// Time between attempts to start a process that keeps failing, in seconds.
    pub breaker_s: f64,
    /// A process without a sign of life or progress for so long is killed, in seconds; 0 = never.
    pub hang_s: f64,
    /// Time that processes have to finish after SIGTERM, in seconds.
    pub drain_s: f64,
}

/// `[[camera]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Unique name.
    pub name: CameraName,
    /// `false` keeps the entry without running it.
    pub enabled: bool,
    /// Where the frames come from.
    pub source: Source,
    /// File sources: at the file's own speed or as fast as it can be read.
    pub pace: Pace,
    /// File sources: begin again at the end (key `loop`).
    pub repeat: bool,
    /// Newest frame or every frame.
    pub delivery: Delivery,
    /// Upper limit of the frame rate; `None` = as the source gives them.
    pub fps: Option<f64>,
    /// Wider frames are scaled down to this width in pixels; `None` = never.
    pub max_width: Option<u32>,
    /// RTSP user, from the key or the URL.
    pub user: Option<String>,
    /// RTSP password, from the key or the URL.
    pub password: Option<Secret>,
    /// RTSP transport.
    pub transport: RtspTransport,
    /// RTSP jitter buffer in milliseconds.
    pub latency_ms: u32,
    /// No frame for so many seconds is a stall.
    pub stall_s: f64,
    /// Wait before the first reconnect, in milliseconds.
    pub reconnect_min_ms: u64,
    /// Longest wait between reconnects, in milliseconds; never below `reconnect_min_ms`.
    pub reconnect_max_ms: u64,
    /// Frames whose result would be older than this are dropped before inference, in
    /// milliseconds; 0 = no limit.
    /// Not applied with [`Delivery::EveryFrame`].
    pub max_age_ms: u64,
    /// Share of the inference when it is overloaded, relative to the other cameras.
    pub weight: u32,
    /// What decodes compressed video.
    pub decoder: Decoder,
    /// Threads of a software decoder; 0 = as the source needs it.
    pub decoder_threads: usize,
    /// CPU numbers that this camera's capture may use; empty = all.
    pub cores: Vec<usize>,
    /// How far this camera's capture gives way when cores are short, 0 to 19.
    pub nice: u8,
    /// Whether frames in which nothing moves are skipped by inference.
    pub motion_gate: bool,
    /// Share of the picture that must change to count as motion, 0 to 1.
    pub motion_threshold: f32,
    /// Change of brightness that counts, in steps of 8-bit luma.
    pub motion_step: u8,
    /// Parts of the picture in which motion does not count.
    pub motion_ignore: Vec<Area>,
    /// So long after motion frames still count as moving, in seconds.
    pub motion_hold_s: f64,
    /// Inference looks at a frame that often although nothing moves, in seconds.
    pub motion_force_s: f64,
    /// Whether compressed frames of an idle scene are kept from the decoder.
    pub idle_gate: bool,
    /// A frame is decoded that often at least while the scene is idle, in seconds.
    pub idle_max_s: f64,
    /// What of the pictures and their time stamps is checked; `None` = nothing.
    pub checks: Option<PictureChecks>,
}

/// When a picture is suspect. A limit of 0 switches its check off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureChecks {
    /// So long the same picture is a frozen one, in seconds.
    pub frozen_s: f64,
    /// A standard deviation of luma below this is no picture, in 8-bit steps.
    pub uniform_contrast: f32,
    /// Share of the picture that is the green of missing data, 0 to 1.
    pub corrupt_area: f32,
    /// Share of its usual detail that a blurred picture has lost, 0 to 1.
    pub blur_drop: f32,
    /// Time stamps that go back, or ahead of the clock, by so much have jumped, in seconds.
    pub time_jump_s: f64,
    /// Frames that come so much later than at best are late, in seconds.
    pub late_s: f64,
    /// A slow fault counts after so long, and a fault ends after so long without it, in seconds.
    pub fault_hold_s: f64,
}

/// A rectangle inside the picture, in fractions of its width and height; never empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left edge, 0 to 1.
    pub x: f64,
    /// Upper edge, 0 to 1.
    pub y: f64,
    /// Width, above 0 and at most 1.
    pub width: f64,
    /// Height, above 0 and at most 1.
    pub height: f64,
}

impl Model {
    /// [`classes`](Self::classes) as numbers of a model with these class names;
    /// empty for all.
    ///
    /// # Errors
    /// A sentence that names the class that the model does not have.
    pub fn class_numbers(&self, labels: &[String]) -> Result<Vec<u32>, String> {
        class_numbers("model.classes", &self.classes, labels)
    }
}

/// Classes as numbers of a model with these class names; `key` is where they are listed.
fn class_numbers(
    key: &str,
    classes: &[ClassFilter],
    labels: &[String],
) -> Result<Vec<u32>, String> {
    let number = |class: &ClassFilter| {
        let found = match class {
            ClassFilter::Number(number) => Some(*number as usize),
            ClassFilter::Name(name) => labels.iter().position(|label| label == name),
        };
        found.filter(|number| *number < labels.len()).map(|number| number as u32).ok_or_else(|| {
            let known = labels.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
            let more = if labels.len() > 12 { ", …" } else { "" };
            let count = labels.len();
            format!("{key}: the model has no class {class}; it has {count}: {known}{more}")
        })
    };
    classes.iter().map(number).collect()
}

/// `model.backend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backends {
    /// The best one that works on this machine.
    Auto,
    /// These, in this order; never empty, no name twice.
    Ordered(Vec<BackendName>),
}

impl Backends {
    /// Whether the list names `backend`; `auto` names none.
    #[must_use]
    pub fn names(&self, backend: BackendName) -> bool {
        matches!(self, Self::Ordered(names) if names.contains(&backend))
    }
}

/// `model.input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputShape {
    /// Shaped like each camera where the model allows it, else as exported.
    Auto,
    /// Fixed; both are multiples of 32 from 32 to 4096.
    Fixed {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// One entry of `model.classes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassFilter {
    /// A class name from the model's metadata, such as `person`.
    Name(String),
    /// A class number, from 0.
    Number(u32),
}

impl fmt::Display for ClassFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// An enum whose variants are words of the configuration file.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// The words of the configuration file, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($word),+];

            /// The word that stands for it in the configuration file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The value that a word of the configuration file stands for.
            pub fn from_name(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

// Below the macro, which they use.
mod scene;
mod sink;
mod tensorrt;
mod triton;
pub use scene::{Anchor, Line, Tracking, Zone};
pub use sink::{
    Clips, Deliver, EVENT_KINDS, History, Jsonl, JsonlPath, Mqtt, MqttProtocol, Otlp, Prometheus,
    Sink, SinkKind, SnapshotStyle, Snapshots, Spool, Web, Webhook, Zenoh,
};
pub use tensorrt::TensorRt;
pub use triton::{Triton, TritonTransport};

choice! {
    /// `log.level`.
    LogLevel {
        /// Something stopped working.
        Error = "error",
        /// Something is wrong and was worked around.
        Warn = "warn",
        /// What a person wants to know in the ordinary case.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Every frame.
        Trace = "trace",
    }
}

choice! {
    /// `log.format`.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// One readable line.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// An inference backend.
    BackendName {
        /// Intel OpenVINO: CPU and Intel GPU.
        OpenVino = "openvino",
        /// NVIDIA TensorRT.
        TensorRt = "tensorrt",
        /// A Triton inference server.
        Triton = "triton",
    }
}

choice! {
    /// `model.precision`.
    Precision {
        /// The fastest that the device does well.
        Auto = "auto",
        /// 32-bit floats.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
        /// 16-bit floats.
        F16 = "f16",
    }
}

choice! {
    /// `model.mode`.
    Mode {
        /// Latency for one live camera, throughput otherwise.
        Auto = "auto",
        /// One result as soon as possible.
        Latency = "latency",
        /// As many results as possible.
        Throughput = "throughput",
    }
}

choice! {
    /// `camera.pace`.
    Pace {
        /// At the source's own frame rate.
        Realtime = "realtime",
        /// As fast as it can be read.
        Fast = "fast",
    }
}

choice! {
    /// `camera.picture_checks`.
    Checks {
        /// For live sources.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

choice! {
    /// `camera.delivery`.
    Delivery {
        /// Inference takes the newest frame; older ones are dropped and counted.
        Latest = "latest",
        /// Nothing is dropped; the source waits.
        EveryFrame = "every-frame",
    }
}

choice! {
    /// `camera.transport`.
    RtspTransport {
        /// Interleaved in the RTSP connection: no lost packets.
        Tcp = "tcp",
        /// Datagrams: no waiting for lost packets.
        Udp = "udp",
        /// Datagrams first, TCP if none arrive.
        Auto = "auto",
    }
}

choice! {
    /// `camera.decoder`.
    Decoder {
        /// Hardware that GStreamer offers, else software.
        Auto = "auto",
        /// The processor.
        Software = "software",
        /// NVDEC: `nvcodec`, on Jetson `nvv4l2decoder`.
        Nvidia = "nvidia",
        /// VA-API: Intel and AMD.
        Va = "va",
        /// Decoders of the kernel: `v4l2codecs` and `v4l2`.
        V4l2 = "v4l2",
    }
}
