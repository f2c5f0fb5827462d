//! `framebus record`: keeps frames and results in a file.

mod intake;
mod keep;

use crate::instance::Where;
use crate::out;
use crate::recording::{Compression, Pictures, Recording};
use crate::screen::Screen;
use framebus_bus::Domain;
use framebus_config::{CameraName, Config};
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use intake::{Intake, Taken};
use keep::{Keeper, Kept};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Record frames and results of a running instance into an MCAP file
///
/// Reads the instance as an observer, which holds nobody up: what this process or the
/// disk is too slow for is lost to the recording alone, and counted. Waits for the
/// instance when it does not run. Ctrl-C ends the recording; the file is complete then
/// too. Foxglove shows the pictures with their boxes; `framebus replay` puts the frames
/// through inference again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus record --config framebus.toml --seconds 60 -o street.mcap
  framebus record --camera front,yard --frames jpeg -o evening.mcap
  framebus record --frames none --compression none -o results.mcap

Raw pictures are what the network saw, 3.1 MB each at 1080p, of which lz4 leaves two
thirds or so. JPEG pictures take about an eighth, cost an encoder, and cannot be replayed.
docs/recording.md says what is in the file.

The file is readable by its owner alone. It grows until --seconds, Ctrl-C, the end of the
instance, or until --keep-free-mib are left on the disk. Of a recorder that was killed,
everything but the last 4 MiB can be read.

Exit codes: 0 recorded, 64 wrong arguments or the file exists, 69 the file could not be
written or the disk is full (what is in the file can be read).")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// Only these cameras, with commas.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = super::tap::camera)]
    camera: Vec<CameraName>,
    /// End after so many seconds.
    #[arg(long, value_name = "N", value_parser = super::up::seconds)]
    seconds: Option<Duration>,
    /// File to write; it must not exist.
    #[arg(long, short, value_name = "FILE", default_value = "recording.mcap")]
    output: PathBuf,
    /// What to keep of the pictures.
    #[arg(long, value_enum, default_value = "raw")]
    frames: Pictures,
    /// Compression of the file.
    #[arg(long, value_enum, default_value = "lz4")]
    compression: Compression,
    /// Frames that wait for the disk may take so much memory; beyond it they are lost.
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    buffer_mib: u64,
    /// End the recording when no more than this is free on the disk.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    keep_free_mib: u64,
    /// Print the account at the end as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (domain, config) = args.place.find()?;
    check_names(&args.camera, config.as_ref())?;
    writable(&args.output)?;
    super::init_log(&Screen::new(true));
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let Some((attached, results)) =
        super::tap::wait(&domain, "record", &shutdown, |bus| bus.join_results("record"))?
    else {
        return Err(Failure::message(
            Kind::Unavailable,
            "stopped before the recording began; nothing was written",
        ));
    };
    let mut recording = create(args)?;
    about(&mut recording, &domain, config.as_ref())
        .map_err(|error| unwritten(&args.output, &error))?;
    let keeper = Keeper::start(recording, args.buffer_mib << 20, args.keep_free_mib << 20)
        .map_err(|error| unwritten(&args.output, &error))?;
    let known: Vec<String> = match (&args.camera[..], &config) {
        ([], Some(config)) => config.enabled_cameras().map(|c| c.name.to_string()).collect(),
        (names, _) => names.iter().map(ToString::to_string).collect(),
    };
    let mut intake = Intake::new(attached, results, known, args.frames != Pictures::None);
    let taken = intake.run(&keeper, args.seconds, &shutdown);
    let kept = keeper.finish();
    drop(intake);
    let taken = taken?;
    account(args, &taken, &kept)?;
    match kept.trouble {
        Some(trouble) => Err(Failure::message(
            Kind::Unavailable,
            format_args!("{}: {trouble}", args.output.display()),
        )),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn check_names(wanted: &[CameraName], config: Option<&Config>) -> Result<(), Failure> {
    let Some(config) = config else { return Ok(()) };
    match wanted.iter().find(|name| config.camera(name.as_str()).is_none()) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<_> = config.enabled_cameras().map(|c| c.name.to_string()).collect();
            Err(Failure::message(
                Kind::Usage,
                format_args!(
                    "--camera: there is no {unknown} in {}; there is: {}",
                    config.file.display(),
                    names.join(", ")
                ),
            ))
        }
    }
}

fn unwritten(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::message(Kind::Unavailable, format_args!("cannot write {}: {error}", file.display()))
}

/// Says before the wait for the instance what would be wrong after it.
fn writable(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Err(exists(path));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    rustix::fs::access(folder.unwrap_or(Path::new(".")), rustix::fs::Access::WRITE_OK)
        .map_err(|error| unwritten(path, &io::Error::from(error)))
}

fn exists(path: &Path) -> Failure {
    Failure::message(
        Kind::Usage,
        format_args!("{} exists; remove it or name another --output", path.display()),
    )
}

/// The file, for its owner alone: it shows people. A recording is never written over.
fn create(args: &Args) -> Result<Recording, Failure> {
    let path = &args.output;
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritten(path, &error),
    })?;
    Recording::create(file, args.frames, args.compression).map_err(|error| unwritten(path, &error))
}

/// What a reader of the file wants to know of the instance.
fn about(
    recording: &mut Recording,
    domain: &Domain,
    config: Option<&Config>,
) -> Result<(), crate::recording::WriteError> {
    let mut values = BTreeMap::from([
        ("instance".to_owned(), domain.instance().to_owned()),
        ("framebus".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some(config) = config {
        let model = &config.model;
        let file = model.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut value = |name: &str, value: String| values.insert(name.to_owned(), value);
        value("model.path", file);
        value("model.backend", framebus_engine::backends_of(config).join(", "));
        value("model.input", format!("{:?}", model.input).to_lowercase());
        value("model.precision", format!("{:?}", model.precision).to_lowercase());
        value("model.confidence", model.confidence.to_string());
        value("model.iou", model.iou.to_string());
        value("model.max_detections", model.max_detections.to_string());
    }
    recording.note("framebus", values)
}

/// Says what was recorded and what was not.
fn account(args: &Args, taken: &Taken, kept: &Kept) -> Result<(), Failure> {
    let file = args.output.display();
    let (frames, results) = (kept.written.frames, kept.written.results);
    if args.json {
        return out::line(json!({
            "file": args.output,
            "seconds": taken.seconds,
            "cameras": taken.cameras,
            "frames": frames,
            "results": results,
            "bytes": kept.written.bytes,
            "lost": {
                "frames_not_taken": taken.frames_lost,
                "frames_not_written": kept.frames_lost,
                "results_not_taken": taken.results_lost,
                "results_not_written": kept.results_lost,
            },
            "trouble": kept.trouble,
        }));
    }
    out::line(format_args!(
        "{file}: {frames} frames and {results} results of {} in {:.1} s, {:.1} MB",
        match taken.cameras.len() {
            1 => "1 camera".to_owned(),
            cameras => format!("{cameras} cameras"),
        },
        taken.seconds,
        kept.written.bytes as f64 / 1e6
    ))?;
    out::line(format_args!(
        "lost: {} frames ({} not taken from the bus in time, {} not written in time), {} results",
        taken.frames_lost + kept.frames_lost,
        taken.frames_lost,
        kept.frames_lost,
        taken.results_lost + kept.results_lost,
    ))
}
