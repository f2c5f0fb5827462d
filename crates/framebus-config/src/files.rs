//! What touches the disk: reading the file, and whether the files that it names exist.

use crate::error::{ConfigError, ConfigErrors};
use crate::model::{
    BackendName, Config, History, Jsonl, JsonlPath, Mqtt, Otlp, SinkKind, Webhook, Zenoh,
};
use crate::{InstanceName, Source, parse};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Reads, parses and validates a configuration file; `${NAME}` comes from the environment of
/// the process. The files that it names are not looked at; see [`check_files`].
///
/// # Errors
/// The reason why the file cannot be read, or everything that is wrong in it.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    load_applied(path, path)
}

/// Like [`load`] for the file at `path`, but the text comes from `applied`: the copy that
/// was validated last. Relative paths in it count from the folder of `path`, which errors
/// name too.
///
/// A running instance restarts its processes from such a copy, so that a file that is
/// being edited never reaches them half done.
///
/// # Errors
/// As [`load`].
pub fn load_applied(path: &Path, applied: &Path) -> Result<Config, ConfigErrors> {
    let whole_file = |message: String, position, source| ConfigError {
        file: path.to_owned(),
        position,
        key: String::new(),
        value: None,
        message,
        suggestion: None,
        source,
    };
    let bytes = std::fs::read(applied).map_err(|error| {
        let message = unreadable(&error, "configuration file");
        ConfigErrors::from(whole_file(message, None, Some(Arc::new(error))))
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let column =
            String::from_utf8_lossy(before).lines().last().map_or(0, |l| l.chars().count());
        let message = "not UTF-8 text; save the file as UTF-8".to_owned();
        ConfigErrors::from(whole_file(message, Some((line, column + 1)), None))
    })?;
    parse(text, path, &|name| std::env::var(name).ok())
}

/// `instance` and `bus.root` of a file that may have errors elsewhere: enough to find what
/// runs from it. Values that are absent are the defaults, `None` where one is no string or
/// no instance's name.
pub fn whereabouts(path: &Path) -> Option<(InstanceName, Option<PathBuf>)> {
    let text = std::fs::read_to_string(path).ok()?;
    let table = DeTable::parse_recoverable(&text).0.into_inner();
    let name = match table.get("instance") {
        Some(value) => value.get_ref().as_str()?,
        None => "default",
    };
    let root = match table.get("bus").and_then(|bus| bus.get_ref().get("root")) {
        Some(value) => Some(path.parent()?.join(value.get_ref().as_str()?)),
        None => None,
    };
    Some((InstanceName::try_from(name).ok()?, root))
}

fn unreadable(error: &io::Error, what: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such {what}"),
        io::ErrorKind::PermissionDenied => format!("no permission to read this {what}"),
        io::ErrorKind::IsADirectory => format!("is a folder, not a {what}"),
        _ => format!("cannot read this {what}"),
    }
}

/// Whether the files that a configuration names exist: the model, certificates for a
/// Triton server or sink that is used, TensorRT where it is named, file sources of enabled
/// cameras, and the folders that enabled sinks write to.
///
/// Kept out of [`parse`] because a configuration is often checked on another machine than the
/// one that runs it.
pub fn check_files(config: &Config) -> Vec<ConfigError> {
    // Read again only for the places; without it the errors have none.
    let text = std::fs::read_to_string(&config.file).unwrap_or_default();
    let places = Places::new(&text);
    let mut errors = Vec::new();
    let mut report = |section: &str, index: usize, name: &str, key: &str, problem: Problem| {
        let path = match name {
            "" => format!("{section}.{key}"),
            name => format!("{section}[{name}].{key}"),
        };
        errors.push(ConfigError {
            file: config.file.clone(),
            position: places.of(section, index, key),
            key: path,
            value: Some(format!("\"{}\"", problem.path.display())),
            message: problem.message,
            suggestion: None,
            source: problem.source,
        });
    };
    if let Some(problem) = missing(&config.model.path, "file") {
        let hint = format!("{}; framebus models fetch brings one", problem.message);
        report("model", 0, "", "path", Problem { message: hint, ..problem });
    } else if config.model.path.is_dir() {
        let message = "is a folder, not an ONNX file".to_owned();
        let path = &config.model.path;
        report("model", 0, "", "path", Problem { path, message, source: None });
    }
    if config.model.backend.names(BackendName::Triton) {
        let triton = &config.triton;
        for (key, path) in [("ca", &triton.ca), ("cert", &triton.cert), ("key", &triton.key)] {
            if let Some(problem) = path.as_ref().and_then(|path| missing(path, "file")) {
                report("triton", 0, "", key, problem);
            }
        }
    }
    if config.model.backend.names(BackendName::TensorRt)
        && let Some(problem) =
            config.tensorrt.library.as_ref().and_then(|path| missing(path, "file or folder"))
    {
        report("tensorrt", 0, "", "library", problem);
    }
    for (index, camera) in config.cameras.iter().enumerate().filter(|(_, c)| c.enabled) {
        let (path, what) = match &camera.source {
            Source::File(path) => (path, "file or folder"),
            Source::V4l2(path) => (path, "device"),
            Source::Rtsp(_) | Source::Test(_) | Source::Gst(_) => continue,
        };
        if let Some(problem) = missing(path, what) {
            report("camera", index, camera.name.as_str(), "source", problem);
        }
    }
    for (index, sink) in config.sinks.iter().enumerate().filter(|(_, s)| s.enabled) {
        let name = sink.name.as_str();
        for (key, path) in certificates(&sink.kind) {
            if let Some(problem) = path.and_then(|path| missing(path, "file")) {
                report("sink", index, name, key, problem);
            }
        }
        let (SinkKind::Jsonl(Jsonl { path: JsonlPath::File(path), .. })
        | SinkKind::History(History { path, .. })) = &sink.kind
        else {
            continue;
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(problem) = folder.and_then(|folder| missing(folder, "folder to write into")) {
            report("sink", index, name, "path", Problem { path, ..problem });
        }
    }
    errors
}

fn certificates(kind: &SinkKind) -> Vec<(&'static str, Option<&Path>)> {
    match kind {
        SinkKind::Mqtt(Mqtt { ca, cert, key, .. })
        | SinkKind::Zenoh(Zenoh { ca, cert, key, .. }) => {
            vec![("ca", ca.as_deref()), ("cert", cert.as_deref()), ("key", key.as_deref())]
        }
        SinkKind::Webhook(Webhook { ca, .. }) | SinkKind::Otlp(Otlp { ca, .. }) => {
            vec![("ca", ca.as_deref())]
        }
        _ => Vec::new(),
    }
}

struct Problem<'a> {
    path: &'a Path,
    message: String,
    source: Option<Arc<io::Error>>,
}

fn missing<'a>(path: &'a Path, what: &str) -> Option<Problem<'a>> {
    let error = std::fs::metadata(path).err()?;
    Some(Problem { path, message: unreadable(&error, what), source: Some(Arc::new(error)) })
}

/// Where the values of a file stand.
struct Places<'a> {
    text: &'a str,
    table: DeTable<'a>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, table: DeTable::parse_recoverable(text).0.into_inner() }
    }

    fn of(&self, section: &str, index: usize, key: &str) -> Option<(usize, usize)> {
        let section = self.table.get(section)?.get_ref();
        let table = match section {
            DeValue::Array(items) => items.get(index)?.get_ref().as_table()?,
            other => other.as_table()?,
        };
        let Range { start, .. } = table.get(key)?.span();
        let position = crate::syntax::position(self.text, start);
        Some(position)
    }
}
