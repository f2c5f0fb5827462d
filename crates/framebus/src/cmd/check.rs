//! `framebus check`: is the configuration right, are its files there, does it fit?

mod places;
mod sinks;

use crate::out;
use crate::table::{mib, size, table};
use framebus_bus::memory::{self, Need};
use framebus_bus::{BusError, Delivery, Domain, services};
use framebus_config::{Camera, Config, ConfigError, Source};
use framebus_service::{CommonArgs, Failure, Kind, OrFail};
use image::ImageDecoder as _;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Size that is assumed for a camera whose size is not known before it runs.
const ASSUMED: (u32, u32) = (1920, 1080);
const MIB: f64 = 1024.0 * 1024.0;

/// Check a configuration: needs no camera and no accelerator
///
/// Prints everything that is wrong in the file at once, each with file, line, column and
/// what is allowed. Otherwise shows what would run and how much shared memory
/// it takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus check --config framebus.toml
  framebus check --schema > framebus.schema.json    for completion in editors
  framebus check --config framebus.toml --json

A camera device that is not plugged in is only a warning.

Exit codes: 0 all right, 78 the configuration is wrong or names files that are
missing, 69 /dev/shm is too small.")]
pub(crate) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Print the JSON Schema of the configuration file and end.
    #[arg(long)]
    schema: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Memory of one service.
struct Line {
    service: String,
    what: String,
    need: Need,
    /// The frame size is a guess.
    assumed: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.schema {
        let schema = serde_json::to_string_pretty(&framebus_config::json_schema());
        out::line(schema.or_fail(Kind::Bug)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let problems = |errors: Vec<ConfigError>, ok: &str| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        if args.json {
            out::line(json!({"ok": false, "errors": lines}))?;
        } else {
            lines.iter().for_each(out::note);
            let plural = if lines.len() == 1 { "" } else { "s" };
            out::note(format_args!("{} error{plural}{ok}", lines.len()));
        }
        Ok(ExitCode::from(Kind::Config.code()))
    };
    let config = match framebus_config::load(&args.common.config) {
        Ok(config) => config,
        Err(errors) => return problems(errors.into_iter().collect(), ""),
    };
    let Missing { files, devices } = missing(&config);
    if !files.is_empty() {
        return problems(files, "; the configuration itself is well formed");
    }
    let model = open_model(&config)?;
    let idle = places::idle(&config, model.labels());
    let idle = idle.map_err(|reason| Failure::message(Kind::Config, reason))?;
    let devices = devices.iter().map(|device| format!("warning: {device}"));
    let warnings: Vec<String> =
        devices.chain(idle).chain(sinks::without_packets(&config)).collect();
    let domain = framebus_service::domain(&config)?;
    let lines = plan(&config, &domain);
    let needed = needed(&lines);
    let available = memory::available()?;
    if args.json {
        out::line(report_json(&config, &lines, &warnings, needed, available))?;
    } else {
        warnings.iter().for_each(out::note);
        print(&config, &model, &domain, &lines, needed, available)?;
    }
    enough(&lines, available)?;
    Ok(ExitCode::SUCCESS)
}

/// What a configuration names and the disk does not have.
pub(crate) struct Missing {
    pub(crate) files: Vec<ConfigError>,
    /// Devices may be plugged in later: their cameras are offline until then.
    pub(crate) devices: Vec<ConfigError>,
}

/// Looks for everything that a configuration names.
pub(crate) fn missing(config: &Config) -> Missing {
    let keys: Vec<String> = config
        .enabled_cameras()
        .filter(|camera| matches!(camera.source, Source::V4l2(_)))
        .map(|camera| format!("camera[{}].source", camera.name))
        .collect();
    let all = framebus_config::check_files(config);
    let (devices, files) = all.into_iter().partition(|error| keys.contains(&error.key));
    Missing { files, devices }
}

/// Refuses an instance that cannot fit, by what is known for certain; a camera
/// whose size is only guessed refuses by itself once it knows.
pub(crate) fn fits(config: &Config, domain: &Domain) -> Result<(), Failure> {
    let mut lines = plan(config, domain);
    lines.retain(|line| !line.assumed);
    enough(&lines, memory::available()?)
}

/// Bytes of /dev/shm that an instance takes, with what is left free for others.
pub(crate) fn bytes_needed(config: &Config, domain: &Domain) -> u64 {
    needed(&plan(config, domain))
}

/// Every publisher takes its memory when it starts, and leaves a margin: for the
/// last one to start, all of them and the margin must fit.
fn needed(lines: &[Line]) -> u64 {
    lines.iter().map(|line| line.need.total_bytes).sum::<u64>() + memory::MARGIN
}

fn enough(lines: &[Line], available: u64) -> Result<(), Failure> {
    let needed = needed(lines);
    if needed <= available {
        return Ok(());
    }
    // The frames of the largest camera: where there is most to gain.
    let largest = lines.iter().max_by_key(|line| line.need.total_bytes);
    let most = largest.map_or_else(String::new, |line| format!(", most of it {},", line.service));
    Err(BusError::Memory {
        what: format!("this configuration{most}"),
        needed_mib: needed as f64 / MIB,
        samples: largest.map_or(0, |line| line.need.samples),
        sample_mib: largest.map_or(0.0, |line| line.need.sample_bytes as f64 / MIB),
        available_mib: available as f64 / MIB,
    }
    .into())
}

fn plan(config: &Config, domain: &Domain) -> Vec<Line> {
    let limits = domain.limits();
    let mut lines = Vec::new();
    for camera in config.enabled_cameras() {
        let delivery = match camera.delivery {
            framebus_config::Delivery::Latest => Delivery::Latest,
            framebus_config::Delivery::EveryFrame => Delivery::EveryFrame,
        };
        let spec = services::frames(limits, camera.name.as_str(), delivery);
        let frame = frame(camera);
        let mut need = memory::frames(&spec, frame.bytes);
        if frame.grows {
            // Sized for the first picture, then for a larger one.
            let grown = memory::grown(need);
            need.total_bytes = need.total_bytes.max(grown.total_bytes);
        }
        let guess = if frame.assumed { ", assumed" } else { "" };
        let what = format!("{} {}{guess}", size(frame.width, frame.height), frame.format);
        lines.push(Line { service: spec.name, what, need, assumed: frame.assumed });
        if config.wants_packets(camera.name.as_str()) {
            let spec = services::packets(limits, camera.name.as_str());
            let what = format!("compressed video, parts of {} KiB", services::PACKET_PART >> 10);
            let need = memory::packets(&spec);
            lines.push(Line { service: spec.name, what, need, assumed: false });
        }
    }
    let spec = services::results(limits);
    let need = memory::results(&spec, limits.max_detections);
    let what = format!("{} detections", limits.max_detections);
    lines.push(Line { service: spec.name, what, need, assumed: false });
    let spec = services::events(limits);
    let need = memory::events(&spec);
    let what = format!("{} events a sample", services::EVENTS_OF_SAMPLE);
    lines.push(Line { service: spec.name, what, need, assumed: false });
    // Health: capture 1 record, sinks 1, inference 1 and 1 per camera, the
    // supervisor 1 per child.
    let spec = services::health(limits);
    let (cameras, sinks) = (config.enabled_cameras().count(), config.enabled_sinks().count());
    let publishers =
        std::iter::repeat_n(1, cameras + sinks).chain([1 + cameras, 1 + cameras + sinks]);
    let mut sum = Need { samples: 0, sample_bytes: 0, total_bytes: 0 };
    for records in publishers {
        let need = memory::health(&spec, records);
        sum.samples += need.samples;
        sum.sample_bytes = sum.sample_bytes.max(need.sample_bytes);
        sum.total_bytes += need.total_bytes;
    }
    let what = format!("{} processes", cameras + sinks + 2);
    lines.push(Line { service: spec.name, what, need: sum, assumed: false });
    lines
}

#[derive(Debug, PartialEq)]
struct Frame {
    width: u32,
    height: u32,
    bytes: usize,
    format: &'static str,
    assumed: bool,
    /// Frames of several sizes come; this is the largest.
    grows: bool,
}

/// The size of a camera's frames as far as it can be known without running it.
fn frame(camera: &Camera) -> Frame {
    let pictures = match &camera.source {
        Source::File(path) => pictures(path),
        _ => None,
    };
    if let Some(files) = pictures {
        let sizes = files.iter().filter_map(|file| picture_size(file));
        let sizes: BTreeSet<(u32, u32)> =
            sizes.map(|(width, height)| scaled(width, height, camera.max_width)).collect();
        // Packed rows, as capture lays them out.
        let bytes = |(width, height): (u32, u32)| width as usize * 3 * height as usize;
        let largest = sizes.iter().copied().max_by_key(|size| bytes(*size));
        let size = largest.unwrap_or_else(|| scaled(ASSUMED.0, ASSUMED.1, camera.max_width));
        return Frame {
            width: size.0,
            height: size.1,
            bytes: bytes(size),
            format: "RGB24",
            assumed: largest.is_none(),
            grows: sizes.len() > 1,
        };
    }
    let (width, height, assumed) = match &camera.source {
        Source::Test(test) => (test.width, test.height, false),
        _ => (ASSUMED.0, ASSUMED.1, true),
    };
    let (width, height) = scaled(width, height, camera.max_width);
    let bytes = memory::nv12_bytes(width as usize, height as usize);
    Frame { width, height, bytes, format: "NV12", assumed, grows: false }
}

/// The picture, or those of a folder; `None` for a video.
fn pictures(path: &Path) -> Option<Vec<PathBuf>> {
    if path.is_dir() {
        return Some(super::detect::pictures(path).unwrap_or_default());
    }
    super::detect::is_picture(path).then(|| vec![path.to_owned()])
}

/// Size of a picture the way up it is meant to be seen, from its header alone.
fn picture_size(path: &Path) -> Option<(u32, u32)> {
    use image::metadata::Orientation as Turn;
    let reader = image::ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    match decoder.orientation().ok()? {
        Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH => {
            Some((height, width))
        }
        _ => Some((width, height)),
    }
}

/// As capture scales: the same aspect, even sides, at most `max_width`.
fn scaled(width: u32, height: u32, max_width: Option<u32>) -> (u32, u32) {
    let Some(max) = max_width.filter(|max| width > *max) else { return (width, height) };
    let new_width = (max / 2 * 2).max(2);
    let new_height = f64::from(height) * f64::from(new_width) / f64::from(width);
    (new_width, ((new_height / 2.0).round() as u32 * 2).max(2))
}

fn print(
    config: &Config,
    model: &framebus_model::Model,
    domain: &Domain,
    lines: &[Line],
    needed: u64,
    available: u64,
) -> Result<(), Failure> {
    out::line(format_args!("{}: all right", config.file.display()))?;
    out::line(format_args!("\n{}", crate::instance::describe(domain)))?;
    out::line(format_args!(
        "model {}: {} classes, input {}",
        config.model.path.display(),
        model.classes(),
        super::models::input_text(model)
    ))?;
    let cameras = config.cameras.iter().map(|camera| {
        vec![
            camera.name.to_string(),
            camera.source.to_string(),
            camera.delivery.to_string(),
            camera.fps.map_or_else(|| "all".to_owned(), |fps| fps.to_string()),
            camera.password.as_ref().map_or("-", |_| "***").to_owned(),
            if camera.enabled { "yes" } else { "no" }.to_owned(),
        ]
    });
    let header = ["camera", "source", "delivery", ">fps", "password", "enabled"];
    out::line(format_args!("\n{}", table(&header, cameras.collect())))?;
    let places = places::all(config);
    if !places.is_empty() {
        let header = ["camera", "place", "kind", "classes", "anchor"];
        let rows = places.into_iter().map(|place| place.to_vec());
        out::line(format_args!("\n{}", table(&header, rows.collect())))?;
    }
    if !config.sinks.is_empty() {
        let sinks = config.sinks.iter().map(|sink| {
            let (kind, target) = sinks::target(&sink.kind);
            let cameras: Vec<&str> = sink.cameras.iter().map(AsRef::as_ref).collect();
            let cameras = if cameras.is_empty() { "all".to_owned() } else { cameras.join(", ") };
            let enabled = if sink.enabled { "yes" } else { "no" };
            vec![sink.name.to_string(), kind.to_owned(), target, cameras, enabled.to_owned()]
        });
        let header = ["sink", "kind", "target", "cameras", "enabled"];
        out::line(format_args!("\n{}", table(&header, sinks.collect())))?;
    }
    let rows = lines.iter().map(|line| {
        let samples = line.need.samples.to_string();
        vec![line.service.clone(), line.what.clone(), samples, mib(line.need.total_bytes)]
    });
    let header = ["shared memory", "for", ">samples", ">needed"];
    out::line(format_args!("\n{}", table(&header, rows.collect())))?;
    out::line(format_args!("needed {}, available in /dev/shm {}", mib(needed), mib(available)))?;
    if lines.iter().any(|line| line.assumed) {
        let (width, height) = ASSUMED;
        out::line(format_args!(
            "{width}x{height} is assumed where a camera's size is not known before it runs"
        ))?;
    }
    Ok(())
}

fn report_json(
    config: &Config,
    lines: &[Line],
    warnings: &[String],
    needed: u64,
    available: u64,
) -> serde_json::Value {
    let services: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "service": line.service,
                "for": line.what,
                "samples": line.need.samples,
                "bytes": line.need.total_bytes,
                "assumed": line.assumed,
            })
        })
        .collect();
    let cameras: Vec<_> = config
        .cameras
        .iter()
        .map(|camera| {
            json!({
                "name": camera.name.as_str(),
                "source": camera.source.to_string(),
                "enabled": camera.enabled,
            })
        })
        .collect();
    json!({
        "ok": needed <= available,
        "warnings": warnings,
        "instance": config.instance.as_str(),
        "cameras": cameras,
        "places": places::all(config).iter().map(|[camera, name, ..]| {
            json!({"camera": camera, "name": name})
        }).collect::<Vec<_>>(),
        "sinks": config.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(),
        "shared_memory": services,
        "needed_bytes": needed,
        "available_bytes": available,
    })
}

/// The model, which must have the classes that are asked for.
pub(crate) fn open_model(config: &Config) -> Result<framebus_model::Model, Failure> {
    let model = framebus_model::Model::open(&config.model.path).or_fail(Kind::Config)?;
    config.check_classes(model.labels()).map_err(|reason| {
        Failure::message(Kind::Config, format_args!("{}: {reason}", config.file.display()))
    })?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::CameraName;

    fn camera(source: Source) -> Camera {
        Camera::new(CameraName::try_from("a").expect("name"), source)
    }

    #[test]
    fn pictures_take_packed_rgb_and_the_largest_of_a_folder_counts() {
        let folder = tempfile::tempdir().expect("temp dir");
        let save = |name: &str, width, height| {
            let path = folder.path().join(name);
            image::RgbImage::new(width, height).save(&path).expect("saved");
            path
        };
        let one = frame(&camera(Source::File(save("a.png", 33, 11))));
        assert_eq!(
            (one.bytes, one.format, one.assumed, one.grows),
            (33 * 11 * 3, "RGB24", false, false)
        );
        save("b.png", 41, 20);
        std::fs::write(folder.path().join("c.jpg"), b"no picture").expect("written");
        let mut camera = camera(Source::File(folder.path().to_owned()));
        let many = frame(&camera);
        assert_eq!(
            (many.bytes, many.format, many.assumed, many.grows),
            (41 * 20 * 3, "RGB24", false, true)
        );
        camera.max_width = Some(21);
        assert_eq!((frame(&camera).width, frame(&camera).height), (20, 10));
    }

    #[test]
    fn videos_are_nv12_of_an_assumed_size_scaled_as_capture_does() {
        let mut camera = camera(Source::File("/nowhere/clip.mp4".into()));
        camera.max_width = Some(641);
        let video = frame(&camera);
        assert_eq!(
            (video.width, video.height, video.format, video.assumed),
            (640, 360, "NV12", true)
        );
        assert_eq!(scaled(1000, 333, Some(500)), (500, 166));
        assert_eq!(scaled(8000, 16, Some(64)), (64, 2));
        assert_eq!(scaled(1921, 1081, None), (1921, 1081));
    }

    #[test]
    fn the_margin_of_the_last_publisher_belongs_to_what_is_needed() {
        let need = Need { samples: 2, sample_bytes: 1 << 20, total_bytes: 2 << 20 };
        let line = Line { service: "a".into(), what: String::new(), need, assumed: false };
        let lines = [line];
        let whole = (2 << 20) + memory::MARGIN;
        assert!(enough(&lines, whole).is_ok());
        let error = enough(&lines, whole - 1).expect_err("one byte short");
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.to_string().contains("needs 3.0 MiB"), "{error}");
    }

    #[test]
    fn a_missing_device_is_a_warning_and_a_missing_file_an_error() {
        let text = "[model]\npath = \"/nowhere/m.onnx\"\n\
                    [[camera]]\nname = \"a\"\nsource = \"v4l2:/dev/video99\"\n\
                    [[camera]]\nname = \"b\"\nsource = \"file:/nowhere/b.mp4\"\n";
        let config = framebus_config::parse(text, Path::new("x.toml"), &|_| None).expect("valid");
        let Missing { files, devices } = missing(&config);
        let keys = |errors: &[ConfigError]| {
            errors.iter().map(|error| error.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&files), ["model.path", "camera[b].source"]);
        assert_eq!(keys(&devices), ["camera[a].source"]);
    }
}
