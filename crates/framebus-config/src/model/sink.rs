use crate::{CameraName, Config, Listen, Secret, SinkName, Url};
use std::fmt;
use std::path::PathBuf;

/// `[[sink]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    /// Unique name.
    pub name: SinkName,
    /// `false` keeps the entry without running it.
    pub enabled: bool,
    /// What it does.
    pub kind: SinkKind,
    /// Cameras that it serves; empty = all.
    pub cameras: Vec<CameraName>,
}

/// What a sink does.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkKind {
    /// One JSON object a line.
    Jsonl(Jsonl),
    /// Messages to an MQTT broker.
    Mqtt(Mqtt),
    /// Messages posted to a URL.
    Webhook(Webhook),
    /// Messages and pictures over Zenoh.
    Zenoh(Zenoh),
    /// Figures for Prometheus.
    Prometheus(Prometheus),
    /// A page to look at.
    Web(Web),
    /// Compressed video around events.
    Clips(Clips),
    /// Pictures of events.
    Snapshots(Snapshots),
    /// Traces to an OpenTelemetry collector.
    Otlp(Otlp),
    /// Events and results in a SQLite file.
    History(History),
}

impl Sink {
    /// Whether it serves this camera.
    pub fn serves(&self, camera: &str) -> bool {
        self.cameras.is_empty() || self.cameras.iter().any(|name| name.as_str() == camera)
    }
}

impl Config {
    /// Whether a sink that is switched on wants this camera's video as it is compressed.
    pub fn wants_packets(&self, camera: &str) -> bool {
        self.enabled_sinks()
            .any(|sink| matches!(sink.kind, SinkKind::Clips(_)) && sink.serves(camera))
    }
}

impl SinkKind {
    /// The word of the configuration file.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Jsonl(_) => "jsonl",
            Self::Mqtt(_) => "mqtt",
            Self::Webhook(_) => "webhook",
            Self::Zenoh(_) => "zenoh",
            Self::Prometheus(_) => "prometheus",
            Self::Web(_) => "web",
            Self::Clips(_) => "clips",
            Self::Snapshots(_) => "snapshots",
            Self::Otlp(_) => "otlp",
            Self::History(_) => "history",
        }
    }
}

/// `kind = "jsonl"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jsonl {
    /// Where the lines go.
    pub path: JsonlPath,
    /// A file is rotated at this size, in MiB.
    pub rotate_mib: u64,
    /// Rotated files that are kept.
    pub keep: usize,
}

/// Where JSON lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonlPath {
    /// Standard output (`path = "-"`).
    Stdout,
    /// A file.
    File(PathBuf),
}

/// Disk on which messages wait for the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Folder; `None` = `ROOT/INSTANCE.spool/NAME` with `bus.root`.
    pub folder: Option<PathBuf>,
    /// Most disk, in MiB.
    pub max_mib: u64,
}

/// `kind = "mqtt"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// The broker.
    pub url: Url,
    /// Version of MQTT.
    pub protocol: MqttProtocol,
    /// What is delivered.
    pub deliver: Deliver,
    /// First part of every topic.
    pub topic: String,
    /// Name at the broker; `None` = `framebus-HOST-INSTANCE-NAME`.
    pub client_id: Option<String>,
    /// User at the broker.
    pub user: Option<String>,
    /// Password at the broker.
    pub password: Option<Secret>,
    /// Certificates that the broker's is checked against; `None` = the system's.
    pub ca: Option<PathBuf>,
    /// Certificate of this client; there together with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// A connection without traffic for so long is probed, in seconds.
    pub keep_alive_s: u16,
    /// Messages sent before the first is acknowledged.
    pub in_flight: u16,
    /// Whether Home Assistant is told.
    pub home_assistant: bool,
    /// Where Home Assistant looks.
    pub discovery_prefix: String,
    /// Where messages wait.
    pub spool: Spool,
}

/// `kind = "webhook"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where messages are posted.
    pub url: Url,
    /// What is delivered.
    pub deliver: Deliver,
    /// Key of the signature.
    pub secret: Option<Secret>,
    /// Longest time for one request, in milliseconds.
    pub timeout_ms: u64,
    /// Certificates that the server's is checked against; `None` = the system's.
    pub ca: Option<PathBuf>,
    /// Where messages wait.
    pub spool: Spool,
}

/// `kind = "zenoh"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zenoh {
    /// The node to connect to.
    pub url: Url,
    /// What is delivered.
    pub deliver: Deliver,
    /// First part of every key; `None` = `framebus/HOST/INSTANCE`.
    pub prefix: Option<String>,
    /// Certificates that the node's is checked against; there with `tls://`.
    pub ca: Option<PathBuf>,
    /// Certificate of this side; there together with `key`.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// Whether pictures are given to who asks.
    pub frames: bool,
    /// Most width of a picture, in pixels.
    pub width: u32,
    /// Most JPEG quality, 10 to 95.
    pub quality: u8,
    /// Where messages wait.
    pub spool: Spool,
}

/// `kind = "prometheus"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Where it listens.
    pub listen: Listen,
    /// What a client must know.
    pub token: Secret,
}

/// `kind = "web"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Where it listens.
    pub listen: Listen,
    /// What a client must know.
    pub token: Secret,
    /// Most pictures a second of one camera.
    pub fps: u32,
    /// Most width of a picture, in pixels.
    pub width: u32,
    /// JPEG quality, 10 to 95.
    pub quality: u8,
}

/// `kind = "clips"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Clips {
    /// Where the files go.
    pub folder: PathBuf,
    /// Names of the events that make one; empty = all.
    pub events: Vec<&'static str>,
    /// Video from before the event, in seconds.
    pub before_s: f64,
    /// Video from after it, in seconds.
    pub after_s: f64,
    /// Most length of a clip, in seconds.
    pub longest_s: f64,
    /// Most disk, in MiB.
    pub keep_mib: u64,
}

/// `kind = "snapshots"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshots {
    /// Where the files go.
    pub folder: PathBuf,
    /// Names of the events that make one; empty = all.
    pub events: Vec<&'static str>,
    /// How the picture looks.
    pub style: SnapshotStyle,
    /// JPEG quality, 10 to 95.
    pub quality: u8,
    /// Most disk, in MiB.
    pub keep_mib: u64,
}

/// `kind = "otlp"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// The collector, without `/v1/traces`.
    pub url: Url,
    /// Part of the frames that have a trace, 0 to 1.
    pub sample: f64,
    /// What the collector must be told.
    pub token: Option<Secret>,
    /// Certificates that the collector's is checked against; `None` = the system's.
    pub ca: Option<PathBuf>,
}

/// `kind = "history"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The file.
    pub path: PathBuf,
    /// What is kept.
    pub deliver: Deliver,
    /// For how many days.
    pub keep_days: u64,
    /// Most size of the file, in MiB.
    pub keep_mib: u64,
}

/// Names of events, as in `framebus_types::EventKind`.
pub const EVENT_KINDS: &[&str] = &["appear", "disappear", "enter", "leave", "dwell", "cross"];

choice! {
    /// `sink.deliver`.
    Deliver {
        /// What happened: enter, leave, cross, …
        Events = "events",
        /// The result of every frame.
        Results = "results",
        /// Both.
        Both = "both",
    }
}

impl Deliver {
    /// Whether events are delivered.
    pub fn events(self) -> bool {
        self != Self::Results
    }

    /// Whether results are delivered.
    pub fn results(self) -> bool {
        self != Self::Events
    }
}

choice! {
    /// `sink.protocol` of an MQTT sink.
    MqttProtocol {
        /// MQTT 5.
        V5 = "5",
        /// MQTT 3.1.1.
        V311 = "3.1.1",
    }
}

choice! {
    /// `sink.style` of snapshots.
    SnapshotStyle {
        /// The whole picture with the box drawn in.
        Annotated = "annotated",
        /// The whole picture as it is.
        Plain = "plain",
        /// The object alone.
        Crop = "crop",
    }
}
