//! The one table of keys. The loader, the JSON Schema and `configs/framebus.toml` follow it.
//!
//! To add a key: add it in a submodule, the field in `model`, read it in `build`, and run the
//! tests with `UPDATE_GOLDEN=1`.

mod camera;
mod model;
mod scene;
mod service;
mod sink;
mod tensorrt;
mod triton;

use crate::model::{BackendName, LogFormat, LogLevel};

/// Most cameras of one file: services, memory and the live table are sized for it.
pub(crate) const MAX_CAMERAS: usize = 64;
/// Most sinks of one file: each takes a subscriber slot on the results.
pub(crate) const MAX_SINKS: usize = 16;
/// CPU numbers end before this: what the kernel's affinity calls hold.
pub(crate) const MAX_CORES: usize = 1024;
/// Most rectangles of `motion_ignore`.
pub(crate) const MAX_AREAS: usize = 64;
/// Most zones of one camera: each is a bit of a detection.
pub(crate) const MAX_ZONES_OF_CAMERA: usize = 64;
/// Most zones of one file.
pub(crate) const MAX_ZONES: usize = 512;
/// Most lines of one file.
pub(crate) const MAX_LINES: usize = 512;
/// Most corners of a zone.
pub(crate) const MAX_CORNERS: usize = 64;

/// A section: a table, an array of tables, or (empty name) the top of the file.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) array: bool,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
    /// What the key `kind` chooses; empty where there is no such key.
    pub(crate) variants: &'static [Variant],
    /// Most entries of an array.
    pub(crate) max: usize,
    /// Other names that people try.
    pub(crate) also: &'static [&'static str],
}

/// The keys that one word of `kind` adds to a section.
pub(crate) struct Variant {
    pub(crate) word: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

/// A key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    /// What it is; full sentences, units included.
    pub(crate) doc: &'static str,
    /// Why the default is what it is, or when to change it.
    pub(crate) why: &'static str,
    /// Other names that people try.
    pub(crate) also: &'static [&'static str],
}

/// Type and range of a value.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Name {
        max_bytes: usize,
    },
    Word(&'static [&'static str]),
    Bool,
    Int {
        min: u64,
        max: u64,
        unit: &'static str,
    },
    Float {
        min: f64,
        max: f64,
        unit: &'static str,
    },
    Path,
    /// A path or `-`.
    JsonlPath,
    Source,
    /// `HOST:PORT` of a gRPC server, in which `${VARIABLES}` are replaced.
    Endpoint,
    /// A URL with one of these schemes, in which `${VARIABLES}` are replaced.
    Url(&'static [&'static str]),
    /// `IP:PORT` to listen on.
    Listen,
    /// A version number, as text.
    Version,
    /// Free text in which `${VARIABLES}` are replaced.
    Text,
    /// The same, never shown.
    Secret,
    Backends,
    Input,
    Classes,
    /// A list of CPU numbers.
    Cores,
    CameraNames,
    /// Rectangles `[x, y, width, height]` in fractions of the picture.
    Areas,
    /// A point `[x, y]` in fractions of the picture.
    Point,
    /// Corners of a polygon: points.
    Points,
    /// Words of a list.
    Words(&'static [&'static str]),
}

/// What holds when a key is absent.
#[derive(Clone, Copy)]
pub(crate) enum Default {
    /// The key must be there; the example is TOML.
    Required(&'static str),
    /// No value; an example in TOML and what "no value" means.
    Absent(&'static str, &'static str),
    Bool(bool),
    Int(u64),
    Float(f64),
    Word(&'static str),
    EmptyList,
    /// `/tmp/framebus-<uid>`.
    BusRoot,
}

impl Section {
    /// The key of this name, of whatever kind.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }

    /// Its keys, then those of each kind.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = &'static Key> + Clone + use<> {
        let variants = self.variants.iter().flat_map(|variant| variant.keys);
        self.keys.iter().chain(variants)
    }

    /// `[model]`, `[[camera]]`.
    pub(crate) fn header(&self) -> String {
        if self.array { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

impl Kind {
    /// What is allowed, as the end of a sentence: `must be …`.
    pub(crate) fn allowed(&self) -> String {
        let with = |unit: &str| {
            if unit.is_empty() { String::new() } else { format!(" {unit}") }
        };
        match *self {
            Self::Name { max_bytes } => crate::name::allowed(max_bytes),
            Self::Word(words) => format!("must be {}", one_of(words)),
            Self::Bool => "must be true or false".to_owned(),
            Self::Int { min, max, unit } => {
                format!("must be a whole number between {min} and {max}{}", with(unit))
            }
            Self::Float { min, max, unit } => {
                format!("must be between {min} and {max}{}", with(unit))
            }
            Self::Path => "must be a path in quotes".to_owned(),
            Self::JsonlPath => "must be a path in quotes, or \"-\" for standard output".to_owned(),
            Self::Source => crate::source_parse::FORMS.to_owned(),
            Self::Endpoint => crate::endpoint::FORMS.to_owned(),
            Self::Url(schemes) => format!("must be a URL such as \"{}://HOST:PORT\"", schemes[0]),
            Self::Listen => "must be \"IP:PORT\" such as \"127.0.0.1:8080\"".to_owned(),
            Self::Version => "must be a version number in quotes such as \"1\"".to_owned(),
            Self::Text | Self::Secret => "must be text in quotes".to_owned(),
            Self::Backends => format!(
                "must be \"auto\" or a list in the order of preference such as [\"triton\", \
                 \"openvino\"], out of {}",
                BackendName::NAMES.join(", ")
            ),
            Self::Input => "must be \"auto\" or \"HEIGHTxWIDTH\" such as \"384x640\", each a \
                            multiple of 32 from 32 to 4096"
                .to_owned(),
            Self::Classes => "must be a list of class names and numbers such as [\"person\", 2]; \
                              [] means all"
                .to_owned(),
            Self::Cores => "must be a list of CPU numbers such as [2, 3]; [] means all".to_owned(),
            Self::CameraNames => {
                "must be a list of camera names such as [\"front\"]; [] means all".to_owned()
            }
            Self::Areas => "must be a list of rectangles [x, y, width, height] in fractions of \
                            the picture, such as [[0.0, 0.0, 0.25, 0.1]]; [] means none"
                .to_owned(),
            Self::Point => "must be a point [x, y] in fractions of the picture, such as \
                            [0.5, 0.25]"
                .to_owned(),
            Self::Points => "must be a list of at least three points [x, y] in fractions of the \
                             picture, such as [[0.1, 0.5], [0.9, 0.5], [0.5, 1.0]]"
                .to_owned(),
            Self::Words(words) => {
                format!("must be a list out of {}; [] means all", quoted(words).join(", "))
            }
        }
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted = quoted(words);
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("\"{word}\"")).collect()
}

pub(crate) fn section(name: &str) -> &'static Section {
    SECTIONS.iter().find(|section| section.name == name).unwrap_or(&SECTIONS[0])
}

const fn key(name: &'static str, kind: Kind, default: Default) -> Key {
    Key { name, kind, default, doc: "", why: "", also: &[] }
}

impl Key {
    const fn doc(self, doc: &'static str, why: &'static str) -> Self {
        Self { doc, why, ..self }
    }

    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}

const MS: &str = "milliseconds";
const S: &str = "seconds";

/// In the order of `configs/framebus.toml`. The first is the top of the file.
pub(crate) static SECTIONS: [Section; 12] = [
    Section {
        name: "",
        array: false,
        max: 1,
        variants: &[],
        required: true,
        doc: "",
        also: &[],
        keys: &[key(
            "instance",
            Kind::Name { max_bytes: 24 },
            Default::Word("default"),
        )
        .doc(
            "Name of this installation. Two installations on one machine need two names.",
            "Each instance has its own bus, so that they never meet.",
        )
        .also(&["name", "id"])],
    },
    Section {
        name: "model",
        array: false,
        max: 1,
        variants: &[],
        required: true,
        doc: "The network that finds objects.",
        also: &["models", "engine", "detector", "inference", "network"],
        keys: &model::MODEL,
    },
    Section {
        name: "triton",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "The Triton inference server that the triton backend asks; used where model.backend \
              names \"triton\".",
        also: &["tritonserver", "triton_server", "trtis", "server", "grpc"],
        keys: &triton::TRITON,
    },
    Section {
        name: "tensorrt",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "The NVIDIA GPU that the tensorrt backend uses; used where model.backend names \
              \"tensorrt\".",
        also: &["trt", "nvidia", "cuda", "gpu"],
        keys: &tensorrt::TENSORRT,
    },
    Section {
        name: "camera",
        array: true,
        max: MAX_CAMERAS,
        variants: &[],
        required: true,
        doc: "A camera; one [[camera]] for each, 64 at most.",
        also: &[
            "cameras", "cam", "stream", "streams", "source", "sources", "input", "inputs",
        ],
        keys: &camera::CAMERA,
    },
    Section {
        name: "tracking",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "How objects are followed from frame to frame, so that each has a number that stays.",
        also: &["tracker", "track", "bytetrack"],
        keys: &scene::TRACKING,
    },
    Section {
        name: "zone",
        array: true,
        max: MAX_ZONES,
        variants: &[],
        required: false,
        doc: "A part of a camera's picture: who enters, leaves and stays in it is an event, and \
              every detection says in which zones it is. At most 64 for each camera.",
        also: &["zones", "polygon", "region", "roi", "area"],
        keys: &scene::ZONE,
    },
    Section {
        name: "line",
        array: true,
        max: MAX_LINES,
        variants: &[],
        required: false,
        doc: "A line in a camera's picture: who crosses it is an event, with the direction.",
        also: &["lines", "tripwire", "counter", "counting_line"],
        keys: &scene::LINE,
    },
    Section {
        name: "sink",
        array: true,
        max: MAX_SINKS,
        variants: &sink::VARIANTS,
        required: false,
        doc: "Where results go; one [[sink]] for each, 16 at most. Without a sink, results are \
              still on the bus for subscribers.",
        also: &["sinks", "output", "outputs"],
        keys: &sink::SINK,
    },
    Section {
        name: "bus",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "The shared-memory bus. Its memory is computed from these before the start.",
        also: &["shm", "memory", "iceoryx", "iceoryx2"],
        keys: &service::BUS,
    },
    Section {
        name: "log",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "What the processes log, on standard error.",
        also: &["logging", "logs"],
        keys: &[
            key("level", Kind::Word(LogLevel::NAMES), Default::Word("info"))
                .doc(
                    "Least severe level that is logged.",
                    "\"debug\" is for finding a fault.",
                )
                .also(&["verbosity", "log_level"]),
            key(
                "format",
                Kind::Word(LogFormat::NAMES),
                Default::Word("auto"),
            )
            .doc(
                "Form of a line.",
                "\"auto\" is text, in colour on a terminal and without time stamps under systemd, which \
                 adds its own.",
            )
            .also(&["style", "json"]),
        ],
    },
    Section {
        name: "up",
        array: false,
        max: 1,
        variants: &[],
        required: false,
        doc: "How `framebus up` keeps the processes alive.",
        also: &["supervisor", "restart"],
        keys: &service::UP,
    },
];
