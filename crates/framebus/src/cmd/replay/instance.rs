//! The instance that recorded frames are replayed in.

use super::{Args, Pace};
use crate::private::Private;
use crate::recording::Overview;
use framebus_bus::{Delivery, Domain};
use framebus_config::{CameraName, Config};
use framebus_engine::{LoadOptions, Mode};
use framebus_service::{Failure, Kind, OrFail, clock, delivery};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// Keys of `[[camera]]` that inference goes by; the others belong to the source.
const INFERENCE_KEYS: [&str; 6] =
    ["max_age_ms", "weight", "stall_s", "motion_gate", "motion_force_s", "delivery"];

/// How the processes find their configuration, and what stands in it.
pub(super) struct Instance {
    pub(super) domain: Domain,
    /// `--config` and `--applied`.
    pub(super) common: [OsString; 4],
    pub(super) deliveries: BTreeMap<String, Delivery>,
    pub(super) sinks: Vec<String>,
}

impl Instance {
    /// Writes the configuration of `args`, changed for this purpose, into the private
    /// folder.
    pub(super) fn prepare(
        args: &Args,
        pace: Pace,
        overview: &Overview,
        private: &mut Private,
    ) -> Result<Self, Failure> {
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::message(Kind::Config, format_args!("{}: {what}", args.file.display()))
        };
        let unknown = overview.frames.keys().find(|name| CameraName::try_from(&***name).is_err());
        if let Some(name) = unknown {
            return Err(wrong(&format_args!("{name:?} is no camera's name")));
        }
        let original = crate::cmd::load(&args.config)?;
        let text = std::fs::read_to_string(&args.config).or_fail(Kind::Config)?;
        let file = std::path::absolute(&args.file).or_fail(Kind::Config)?;
        let file = file.to_str().ok_or_else(|| wrong(&"the path is not UTF-8; rename it"))?;
        let place = Place { name: private.instance(), root: private.folder() };
        let changes = Changes {
            mode: LoadOptions::of(&original, clock::monotonic_ns).mode,
            fast: pace == Pace::Fast,
            sinks: args.sinks,
            recording: file,
        };
        let text = changes.make(&text, &place, overview.frames.keys())?;
        let applied = private.write(&text)?;
        let config = framebus_config::load_applied(&args.config, &applied).or_fail(Kind::Config)?;
        let domain = framebus_service::domain(&config)?;
        private.adopt(domain.clone());
        let sinks = config.enabled_sinks().filter(|sink| !crate::unit::prints(&sink.kind));
        Ok(Self {
            domain,
            common: ["--config".into(), (&args.config).into(), "--applied".into(), applied.into()],
            deliveries: deliveries(&config),
            sinks: sinks.map(|sink| sink.name.to_string()).collect(),
        })
    }
}

fn deliveries(config: &Config) -> BTreeMap<String, Delivery> {
    let cameras = config.enabled_cameras();
    cameras.map(|camera| (camera.name.to_string(), delivery(camera.delivery))).collect()
}

/// Where the instance is.
struct Place<'a> {
    name: &'a str,
    root: &'a Path,
}

/// What is another one in a replay.
struct Changes<'a> {
    /// What `mode = "auto"` stands for: by the cameras, which change here.
    mode: Mode,
    fast: bool,
    sinks: bool,
    recording: &'a str,
}

impl Changes<'_> {
    /// `text` with the instance, the cameras and the mode replaced. Everything else stays,
    /// variables unexpanded: the processes read them in the same environment.
    fn make<'n>(
        &self,
        text: &str,
        place: &Place<'_>,
        names: impl Iterator<Item = &'n String>,
    ) -> Result<String, Failure> {
        let mut table: Table = text.parse().or_fail(Kind::Config)?;
        let root = place.root.to_str().ok_or_else(|| {
            Failure::message(Kind::Usage, "TMPDIR: the path is not UTF-8; set another one")
        })?;
        table.insert("instance".to_owned(), place.name.into());
        let section = |table: &mut Table, name: &str, key: &str, value: Value| {
            let section = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                section.insert(key.to_owned(), value);
            }
        };
        section(&mut table, "bus", "root", escaped(root));
        let mode = match self.mode {
            Mode::Latency => "latency",
            Mode::Throughput => "throughput",
        };
        section(&mut table, "model", "mode", mode.into());
        let known = table.remove("camera");
        let known = known.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let names: Vec<&String> = names.collect();
        let cameras = names.iter().map(|name| Value::Table(self.camera(name, known)));
        table.insert("camera".to_owned(), Value::Array(cameras.collect()));
        if !self.sinks {
            table.remove("sink");
        }
        // What belongs to a camera (zones, lines) goes with it.
        for (section, value) in table.iter_mut().filter(|(section, _)| *section != "camera") {
            let Some(entries) = value.as_array_mut() else { continue };
            entries.retain(|entry| {
                let camera = entry.get("camera").and_then(Value::as_str);
                section == "sink" || camera.is_none_or(|c| names.iter().any(|name| *name == c))
            });
        }
        toml::to_string(&table).or_fail(Kind::Bug)
    }

    fn camera(&self, name: &str, known: &[Value]) -> Table {
        let configured = known.iter().filter_map(Value::as_table);
        let mut configured =
            configured.filter(|camera| camera.get("name").and_then(Value::as_str) == Some(name));
        let mut camera = Table::new();
        camera.insert("name".to_owned(), name.into());
        // Its capture is this process: the source is never opened.
        camera.insert("source".to_owned(), escaped(&format!("file:{}", self.recording)));
        if let Some(configured) = configured.next() {
            for key in INFERENCE_KEYS {
                camera.extend(configured.get(key).map(|value| (key.to_owned(), value.clone())));
            }
        }
        if self.fast {
            camera.insert("pace".to_owned(), "fast".into());
            camera.insert("delivery".to_owned(), "every-frame".into());
        }
        camera
    }
}

/// Paths are no place for variables.
fn escaped(path: &str) -> Value {
    path.replace("${", "$${").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        instance = "site"
        [bus]
        root = "/run/site"
        result_buffer = 64
        [model]
        path = "a.onnx"
        confidence = 0.4
        [[camera]]
        name = "front"
        source = "rtsp://10.0.0.1/x"
        user = "admin"
        password = "${NOBODY_HAS_SET_THIS}"
        weight = 3
        motion_gate = true
        [[camera]]
        name = "yard"
        source = "v4l2:/dev/video0"
        [[sink]]
        name = "log"
        kind = "jsonl"
        path = "out.jsonl"
    "#;

    fn made(fast: bool, sinks: bool) -> Config {
        let changes =
            Changes { mode: Mode::Latency, fast, sinks, recording: "/data/a ${HOME} \"b\".mcap" };
        let names = ["front".to_owned(), "gone".to_owned()];
        let place = Place { name: "replay-1", root: Path::new("/tmp/x") };
        let text = changes.make(CONFIG, &place, names.iter()).expect("text");
        framebus_config::parse(&text, Path::new("/etc/site.toml"), &|_| None)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
    }

    #[test]
    fn the_model_stays_and_cameras_become_the_recording() {
        let config = made(true, false);
        assert_eq!(config.instance.as_str(), "replay-1");
        assert_eq!(config.bus.root, Path::new("/tmp/x"));
        assert_eq!((config.bus.result_buffer, config.model.confidence), (64, 0.4));
        assert_eq!(config.model.path, Path::new("/etc/a.onnx"), "from the file's folder");
        assert_eq!(config.model.mode, framebus_config::Mode::Latency);
        let names: Vec<&str> = config.cameras.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["front", "gone"], "those that were recorded");
        let front = &config.cameras[0];
        assert_eq!((front.weight, front.delivery), (3, framebus_config::Delivery::EveryFrame));
        let source = framebus_config::Source::File("/data/a ${HOME} \"b\".mcap".into());
        assert_eq!(front.source, source);
        assert!(framebus_service::is_offline(&config) && config.sinks.is_empty());
    }

    #[test]
    fn at_its_own_pace_frames_may_be_dropped_as_live_and_sinks_come_when_asked() {
        let config = made(false, true);
        assert!(!framebus_service::is_offline(&config));
        assert_eq!(config.sinks.len(), 1);
    }
}
