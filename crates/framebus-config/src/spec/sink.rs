//! Keys of `[[sink]]`: those of every kind, then those of each.

use super::{Default, Key, Kind, MS, S, Variant, key};
use crate::model::{Deliver, EVENT_KINDS, MqttProtocol, SnapshotStyle};

pub(super) static SINK: [Key; 4] = [
    key("name", Kind::Name { max_bytes: 31 }, Default::Required("name = \"results\""))
        .doc("Unique name.", "It appears in logs and in the status.")
        .also(&["id", "label"]),
    key("kind", Kind::Word(KINDS), Default::Required("kind = \"jsonl\""))
        .doc("What it does; the keys further down depend on it.", "")
        .also(&["type", "format", "sink"]),
    key("enabled", Kind::Bool, Default::Bool(true))
        .doc("false keeps the entry without running it.", "")
        .also(&["enable", "disabled", "active", "on"]),
    key("cameras", Kind::CameraNames, Default::EmptyList)
        .doc("Cameras that it serves, by name; [] means all.", "")
        .also(&["camera", "source", "sources"]),
];

const KINDS: &[&str] = &[
    "jsonl",
    "mqtt",
    "webhook",
    "zenoh",
    "prometheus",
    "web",
    "clips",
    "snapshots",
    "otlp",
    "history",
];

pub(super) static VARIANTS: [Variant; 10] = [
    Variant { word: "jsonl", doc: "writes one JSON object a line for each result", keys: &JSONL },
    Variant {
        word: "mqtt",
        doc: "publishes events and results to an MQTT broker, and waits on disk while it is away",
        keys: &MQTT,
    },
    Variant {
        word: "webhook",
        doc: "posts events and results to a URL, and waits on disk while it is away",
        keys: &WEBHOOK,
    },
    Variant {
        word: "zenoh",
        doc: "publishes events and results over Zenoh, answers with pictures, and waits on disk \
              while nobody listens",
        keys: &ZENOH,
    },
    Variant {
        word: "prometheus",
        doc: "answers GET /metrics with the figures of the whole instance",
        keys: &PROMETHEUS,
    },
    Variant {
        word: "web",
        doc: "serves a page with live pictures, states, events and an editor for zones",
        keys: &WEB,
    },
    Variant {
        word: "clips",
        doc: "keeps the camera's own compressed video around events as MP4 files",
        keys: &CLIPS,
    },
    Variant {
        word: "snapshots",
        doc: "keeps a picture of each event as a JPEG file",
        keys: &SNAPSHOTS,
    },
    Variant {
        word: "otlp",
        doc: "sends a trace of some frames to an OpenTelemetry collector",
        keys: &OTLP,
    },
    Variant {
        word: "history",
        doc: "keeps events and results in a SQLite file that other programs read",
        keys: &HISTORY,
    },
];

static JSONL: [Key; 3] = [
    key("path", Kind::JsonlPath, Default::Word("-"))
        .doc(
            "File that is written, or \"-\" for standard output.",
            "Standard output shows at once that things work.",
        )
        .also(&["file", "output", "filename", "target"]),
    key("rotate_mib", Kind::Int { min: 1, max: 10_240, unit: "MiB" }, Default::Int(100))
        .doc("A file of this size is set aside and a new one begun.", "It bounds one file.")
        .also(&["rotate", "max_size", "rotate_mb", "max_mib", "size_mib"]),
    key("keep", Kind::Int { min: 1, max: 1000, unit: "files" }, Default::Int(5))
        .doc("How many files that were set aside stay.", "It bounds the disk: keep x rotate_mib.")
        .also(&["keep_files", "max_files", "backups", "history"]),
];

const DELIVER: Key = key("deliver", Kind::Word(Deliver::NAMES), Default::Word("events"))
    .doc(
        "What is delivered.",
        "Events are few; the results of all frames are many, and seldom what somebody far away \
         wants.",
    )
    .also(&["send", "messages", "what", "content"]);

const SPOOL: Key = key(
    "spool",
    Kind::Path,
    Default::Absent("spool = \"spool/broker\"", "ROOT/INSTANCE.spool/NAME, with ROOT = bus.root"),
)
.doc(
    "Folder in which messages wait until the other side has taken them.",
    "bus.root is usually gone after a reboot: name a folder on disk, of this sink alone, where \
     that matters.",
)
.also(&["spool_dir", "spool_path", "queue_dir", "buffer_dir"]);

const SPOOL_MIB: Key = key(
    "spool_mib",
    Kind::Int { min: 1, max: 102_400, unit: "MiB" },
    Default::Int(256),
)
.doc(
    "Most disk that waiting messages take; beyond it the oldest go and are counted as lost.",
    "About half a million events.",
)
.also(&["max_spool_mib", "queue_mib", "spool_size"]);

const CA: Key = key("ca", Kind::Path, Default::Absent("ca = \"ca.pem\"", "the system's"))
    .doc("Certificates in PEM that the other side's is checked against.", "")
    .also(&["ca_cert", "ca_file", "cafile", "tls_ca"]);

const FOLDER_KEEP: Key =
    key("keep_mib", Kind::Int { min: 1, max: 10_485_760, unit: "MiB" }, Default::Int(10_240))
        .doc("Most disk that its files take; beyond it the oldest go.", "")
        .also(&["max_mib", "quota_mib", "limit_mib"]);

const EVENTS: Key = key("events", Kind::Words(EVENT_KINDS), Default::EmptyList)
    .doc("Events that make one; [] means all.", "")
    .also(&["on", "kinds", "triggers"]);

const TOKEN: Key = key("token", Kind::Secret, Default::Required("token = \"${WEB_TOKEN}\""))
    .doc(
        "Word that a client must know, 16 characters or more.",
        "Anybody on this machine could read along otherwise.",
    )
    .also(&["password", "secret", "api_key", "bearer"]);

static MQTT: [Key; 16] = [
    key("url", Kind::Url(&["mqtt", "mqtts"]), Default::Required("url = \"mqtt://127.0.0.1:1883\""))
        .doc("The broker; mqtts:// encrypts and checks its certificate.", "")
        .also(&["host", "broker", "server", "address", "uri"]),
    key("protocol", Kind::Word(MqttProtocol::NAMES), Default::Word("5"))
        .doc("Version of MQTT.", "\"3.1.1\" is for old brokers.")
        .also(&["version", "mqtt_version"]),
    DELIVER,
    key("topic", Kind::Text, Default::Word("framebus"))
        .doc(
            "First part of every topic: TOPIC/CAMERA/event, TOPIC/CAMERA/result and, kept by the \
             broker, TOPIC/CAMERA/state and TOPIC/status.",
            "Another one for each sink and each machine at the same broker.",
        )
        .also(&["prefix", "topic_prefix", "base_topic"]),
    key(
        "client_id",
        Kind::Text,
        Default::Absent("client_id = \"framebus-shop\"", "framebus-HOST-INSTANCE-NAME"),
    )
    .doc("Name of this client at the broker, where it must be unique.", "")
    .also(&["id_client", "clientid"]),
    key("user", Kind::Text, Default::Absent("user = \"framebus\"", "no login"))
        .doc("User at the broker.", "")
        .also(&["username", "login"]),
    key(
        "password",
        Kind::Secret,
        Default::Absent("password = \"${MQTT_PASSWORD}\"", "no password"),
    )
    .doc("Password at the broker.", "")
    .also(&["pass", "passwd", "pw"]),
    CA,
    key("cert", Kind::Path, Default::Absent("cert = \"client.pem\"", "none"))
        .doc("Certificate of this client in PEM, for brokers that ask for one.", "")
        .also(&["client_cert", "certificate", "cert_file"]),
    key("key", Kind::Path, Default::Absent("key = \"client.key\"", "none"))
        .doc("The certificate's private key in PEM.", "")
        .also(&["client_key", "private_key", "key_file"]),
    key("keep_alive_s", Kind::Int { min: 5, max: 3600, unit: S }, Default::Int(15))
        .doc(
            "A connection without traffic for so long is probed.",
            "A dead link is found after two of them.",
        )
        .also(&["keepalive", "keep_alive"]),
    key("in_flight", Kind::Int { min: 1, max: 1000, unit: "messages" }, Default::Int(32))
        .doc("Messages that are sent before the broker has acknowledged the first.", "")
        .also(&["inflight", "max_inflight", "receive_maximum"]),
    key("home_assistant", Kind::Bool, Default::Bool(false))
        .doc("Whether cameras, zones and lines are announced to Home Assistant.", "")
        .also(&["hass", "ha", "discovery"]),
    key("discovery_prefix", Kind::Text, Default::Word("homeassistant"))
        .doc("Where Home Assistant looks for announcements.", "")
        .also(&["ha_prefix", "hass_prefix"]),
    SPOOL,
    SPOOL_MIB,
];

static WEBHOOK: [Key; 7] = [
    key(
        "url",
        Kind::Url(&["https", "http"]),
        Default::Required("url = \"https://example.org/framebus\""),
    )
    .doc("Where messages are posted, as a JSON object or, of several, a list.", "")
    .also(&["post", "endpoint", "target", "uri", "address"]),
    DELIVER,
    key("secret", Kind::Secret, Default::Absent("secret = \"${WEBHOOK_SECRET}\"", "not signed"))
        .doc(
            "Key of the signature: the header X-Framebus-Signature is sha256= and the \
             HMAC-SHA256 of time stamp, full stop and body, in hexadecimal.",
            "The receiver can tell that a message is ours and new.",
        )
        .also(&["hmac", "signing_key", "key"]),
    key("timeout_ms", Kind::Int { min: 100, max: 120_000, unit: MS }, Default::Int(10_000))
        .doc("Longest time for one request.", "")
        .also(&["timeout", "timeout_s"]),
    CA,
    SPOOL,
    SPOOL_MIB,
];

static ZENOH: [Key; 11] = [
    key("url", Kind::Url(&["tcp", "tls"]), Default::Required("url = \"tcp://127.0.0.1:7447\""))
        .doc(
            "The Zenoh node to connect to: a router, or a program that listens; tls:// encrypts \
             and checks its certificate.",
            "The sink itself never listens.",
        )
        .also(&["connect", "endpoint", "endpoints", "router", "locator", "listen"]),
    DELIVER,
    key(
        "prefix",
        Kind::Text,
        Default::Absent("prefix = \"framebus/shop\"", "framebus/HOST/INSTANCE"),
    )
    .doc(
        "First part of every key: PREFIX/CAMERA/event, PREFIX/CAMERA/result and \
         PREFIX/CAMERA/frame.",
        "Boxes whose cameras have the same names must differ in it.",
    )
    .also(&["topic", "key_prefix", "keyexpr", "namespace"]),
    key("ca", Kind::Path, Default::Absent("ca = \"ca.pem\"", "none; tls:// needs them"))
        .doc("Certificates in PEM that the other side's is checked against.", "")
        .also(&["ca_cert", "ca_file", "cafile", "tls_ca", "root_ca_certificate"]),
    key("cert", Kind::Path, Default::Absent("cert = \"client.pem\"", "none"))
        .doc("Certificate of this side in PEM, for nodes that ask for one.", "")
        .also(&["client_cert", "certificate", "cert_file", "connect_certificate"]),
    key("key", Kind::Path, Default::Absent("key = \"client.key\"", "none"))
        .doc("The certificate's private key in PEM.", "")
        .also(&["client_key", "private_key", "key_file", "connect_private_key"]),
    key("frames", Kind::Bool, Default::Bool(false))
        .doc(
            "Whether PREFIX/CAMERA/frame answers with the newest frame as a JPEG.",
            "Whoever reaches the node could look; nothing is encoded while nobody asks.",
        )
        .also(&["jpeg", "pictures", "images"]),
    key("width", Kind::Int { min: 160, max: 3840, unit: "pixels" }, Default::Int(1280))
        .doc("Most width of a picture.", "")
        .also(&["max_width", "size"]),
    key("quality", Kind::Int { min: 10, max: 95, unit: "" }, Default::Int(80))
        .doc("Most JPEG quality of a picture.", "")
        .also(&["jpeg_quality"]),
    SPOOL,
    SPOOL_MIB,
];

static PROMETHEUS: [Key; 2] = [
    key("listen", Kind::Listen, Default::Word("127.0.0.1:9464"))
        .doc("Address and port; every process reports, and this one answers for all.", "")
        .also(&["bind", "address", "port", "host"]),
    TOKEN,
];

static WEB: [Key; 5] = [
    key("listen", Kind::Listen, Default::Word("127.0.0.1:8088"))
        .doc(
            "Address and port.",
            "Only this machine sees it; from elsewhere, come through SSH or a proxy with TLS.",
        )
        .also(&["bind", "address", "port", "host"]),
    TOKEN,
    key("fps", Kind::Int { min: 1, max: 30, unit: "frames a second" }, Default::Int(10))
        .doc("Most pictures a second of one camera; none are made while nobody looks.", "")
        .also(&["frame_rate", "max_fps"]),
    key("width", Kind::Int { min: 160, max: 1920, unit: "pixels" }, Default::Int(640))
        .doc("Most width of a picture.", "A wall of cameras needs no more.")
        .also(&["max_width", "size"]),
    key("quality", Kind::Int { min: 10, max: 95, unit: "" }, Default::Int(70))
        .doc("JPEG quality of the pictures.", "")
        .also(&["jpeg_quality"]),
];

static CLIPS: [Key; 6] = [
    key("folder", Kind::Path, Default::Required("folder = \"clips\""))
        .doc("Where the files go: FOLDER/CAMERA/DATE/TIME-EVENT-TRACK.mp4.", "")
        .also(&["path", "dir", "directory", "output"]),
    EVENTS,
    key("before_s", Kind::Float { min: 0.0, max: 60.0, unit: S }, Default::Float(5.0))
        .doc("Video from before the event, from the key frame before that on.", "")
        .also(&["pre_s", "pre_roll", "pre_capture"]),
    key("after_s", Kind::Float { min: 0.0, max: 600.0, unit: S }, Default::Float(10.0))
        .doc("Video from after the last event of the clip.", "")
        .also(&["post_s", "post_roll", "post_capture"]),
    key("longest_s", Kind::Float { min: 1.0, max: 3600.0, unit: S }, Default::Float(120.0))
        .doc("Events that go on make one clip, up to this length.", "")
        .also(&["max_s", "max_length_s"]),
    FOLDER_KEEP,
];

static SNAPSHOTS: [Key; 5] = [
    key("folder", Kind::Path, Default::Required("folder = \"snapshots\""))
        .doc("Where the files go: FOLDER/CAMERA/DATE/TIME-EVENT-TRACK.jpg.", "")
        .also(&["path", "dir", "directory", "output"]),
    EVENTS,
    key("style", Kind::Word(SnapshotStyle::NAMES), Default::Word("annotated"))
        .doc("The picture with the box drawn in, as it is, or the object alone.", "")
        .also(&["mode", "crop", "annotate"]),
    key("quality", Kind::Int { min: 10, max: 95, unit: "" }, Default::Int(85))
        .doc("JPEG quality.", "")
        .also(&["jpeg_quality"]),
    FOLDER_KEEP,
];

static OTLP: [Key; 4] = [
    key("url", Kind::Url(&["http", "https"]), Default::Word("http://127.0.0.1:4318"))
        .doc("The collector, by OTLP over HTTP; /v1/traces is appended.", "")
        .also(&["endpoint", "collector", "host", "address", "target"]),
    key("sample", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.01))
        .doc(
            "Part of the frames that have a trace. Frames that failed have one anyway, ten a \
             second at most.",
            "A trace is some 3 kB, and one frame in a hundred shows where the time goes.",
        )
        .also(&["ratio", "sampling", "sample_rate", "fraction", "probability"]),
    key("token", Kind::Secret, Default::Absent("token = \"${OTLP_TOKEN}\"", "no login"))
        .doc("Word that the collector wants to know (Authorization: Bearer).", "")
        .also(&["password", "secret", "api_key", "bearer", "authorization"]),
    CA,
];

static HISTORY: [Key; 4] = [
    key("path", Kind::Path, Default::Required("path = \"history.db\""))
        .doc("The file, on a disk of this machine; two more of SQLite's lie beside it.", "")
        .also(&["file", "database", "db", "filename"]),
    DELIVER,
    key("keep_days", Kind::Int { min: 1, max: 3650, unit: "days" }, Default::Int(30))
        .doc("What is older goes.", "")
        .also(&["days", "retention_days", "max_days", "keep"]),
    key("keep_mib", Kind::Int { min: 1, max: 1_048_576, unit: "MiB" }, Default::Int(1024))
        .doc("Most size of the file; beyond it the oldest go.", "About two million events.")
        .also(&["max_mib", "quota_mib", "limit_mib", "size_mib"]),
];
