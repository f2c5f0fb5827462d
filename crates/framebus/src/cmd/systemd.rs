//! `framebus systemd`: what the packaged units call; see docs/deployment.md.

use crate::applied;
use framebus_config::{BackendName, Config, SinkKind};
use framebus_service::{CommonArgs, Failure, Kind, OrFail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// For the systemd units of the package
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write which cameras and sinks `framebus.target` wants: a systemd generator
    Generate(Generate),
    /// Validate the configuration and keep the copy that processes start from
    Apply(CommonArgs),
    /// Fail when a camera or sink is not, or no longer, in the configuration: an
    /// ExecCondition=, which keeps its unit from starting
    Wants(Wants),
    /// Free shared memory that processes which were killed have left
    Clean(CommonArgs),
}

#[derive(Debug, clap::Args)]
struct Generate {
    #[command(flatten)]
    common: CommonArgs,
    /// File with the variables that the units get, in the form of EnvironmentFile=.
    #[arg(long, default_value = ENVIRONMENT)]
    environment: PathBuf,
    /// Folder for units of normal priority.
    normal: PathBuf,
    /// Folders for units of other priorities, which stay empty.
    others: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Wants {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, conflicts_with = "sink")]
    camera: Option<String>,
    #[arg(long)]
    sink: Option<String>,
}

/// EnvironmentFile= of the units.
pub(crate) const ENVIRONMENT: &str = "/etc/framebus/framebus.env";
/// FRAMEBUS_APPLIED of the units.
pub(crate) const APPLIED: &str = "/var/lib/framebus/applied.toml";
/// Where the units are; systemd looks only at the names of the links.
const UNITS: &str = "/usr/lib/systemd/system";
const INFER: &str = "framebus-infer.service";
/// Inference has no network, but where a server runs the model. AF_NETLINK is for the
/// resolver, which asks the kernel which addresses there are.
const NETWORK: &str = "# model.backend of framebus.toml names triton.
[Service]
PrivateNetwork=no
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK
";

/// What an NVIDIA GPU needs beyond the unit: time for the first build where nothing else
/// serves meanwhile, memory for it, and a Jetson's devices (not tried on one).
const GPU: &str = "# model.backend of framebus.toml names tensorrt.
[Service]
TimeoutStartSec=60min
MemoryMax=infinity
DeviceAllow=char-nvhost* rw
DeviceAllow=char-nvgpu* rw
DeviceAllow=char-nvmap* rw
DeviceAllow=/dev/nvmap rw
";

/// What a sink needs beyond the unit: a network where it delivers elsewhere or listens, and
/// the folder of its spool where that lies outside of the package's own. A folder that is
/// not there yet is no reason not to start (`-`); the sink says then that it cannot write.
fn sink_drop_in(kind: &SinkKind) -> Option<String> {
    let (folder, network) = match kind {
        SinkKind::Mqtt(mqtt) => (mqtt.spool.folder.as_deref(), true),
        SinkKind::Webhook(webhook) => (webhook.spool.folder.as_deref(), true),
        SinkKind::Zenoh(zenoh) => (zenoh.spool.folder.as_deref(), true),
        SinkKind::Prometheus(_) | SinkKind::Web(_) | SinkKind::Otlp(_) => (None, true),
        SinkKind::Clips(clips) => (Some(clips.folder.as_path()), false),
        SinkKind::Snapshots(snapshots) => (Some(snapshots.folder.as_path()), false),
        SinkKind::History(history) => (history.path.parent(), false),
        SinkKind::Jsonl(_) => return None,
    };
    let mut text = format!("# kind of the sink is {}.\n[Service]\n", kind.as_str());
    if network {
        text.push_str("PrivateNetwork=no\nRestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK\n");
    }
    if let Some(folder) = folder.and_then(Path::to_str).filter(|folder| folder.starts_with('/')) {
        // Quoted, with specifiers and escapes taken literally (systemd.syntax(7)).
        let folder = folder.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("ReadWritePaths=\"-{folder}\"\n"));
    }
    Some(text)
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Generate(args) => generate(args)?,
        Command::Apply(args) => {
            log();
            if let Err(failure) = apply(args) {
                tracing::error!("{failure}");
                if args.applied.as_ref().is_some_and(|applied| applied.exists()) {
                    tracing::warn!("the configuration that was applied last stays in use");
                }
                return Ok(failure.exit_code());
            }
        }
        Command::Wants(args) => {
            log();
            if !wanted(args) {
                tracing::info!("not started: framebus.toml does not have it, or not enabled");
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Clean(args) => {
            log();
            let removed = framebus_service::domain(&read(args)?)?.remove_leftovers();
            let removed = removed.or_fail(Kind::Unavailable)?.len();
            tracing::info!(removed, "freed what was left in /dev/shm");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log() {
    framebus_service::init_log(&framebus_config::Log::default());
}

/// The configuration that the services run with.
fn read(args: &CommonArgs) -> Result<Config, Failure> {
    let config = match &args.applied {
        Some(applied) if applied.is_file() => framebus_config::load_applied(&args.config, applied),
        _ => framebus_config::load(&args.config),
    };
    config.or_fail(Kind::Config)
}

/// What is wrong with a configuration is said by the process itself.
fn wanted(args: &Wants) -> bool {
    let Ok(config) = read(&args.common) else { return true };
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref() == Some(name);
    config.enabled_cameras().any(|camera| is(&args.camera, camera.name.as_str()))
        || config.enabled_sinks().any(|sink| is(&args.sink, sink.name.as_str()))
}

fn apply(args: &CommonArgs) -> Result<(), Failure> {
    let applied = args.applied.as_ref().ok_or_else(|| {
        Failure::message(Kind::Usage, "--applied or FRAMEBUS_APPLIED names the copy's file")
    })?;
    let config = applied::apply(&args.config, applied, bus_is_shared)?;
    // Only that camera, sink or model suffers, and says so in its own state.
    let super::check::Missing { files, devices } = super::check::missing(&config);
    for missing in files.iter().chain(&devices) {
        tracing::warn!("{missing}");
    }
    Ok(())
}

/// Each service has a /tmp of its own: there, they would never meet.
fn bus_is_shared(config: &Config) -> Result<(), Failure> {
    let root = &config.bus.root;
    if root.starts_with("/tmp") || root.starts_with("/var/tmp") {
        return Err(Failure::message(
            Kind::Config,
            format_args!(
                "{}: bus.root = {:?}: services have a private /tmp and would not find each other; \
                 write root = \"/run/framebus\" under [bus]",
                config.file.display(),
                root.display().to_string(),
            ),
        ));
    }
    Ok(())
}

/// Turns the configuration into links `framebus.target.wants/<unit>`. It runs early in
/// the boot: nothing but the files named is read, nothing but the folder given written.
fn generate(args: &Generate) -> Result<(), Failure> {
    let Some(config) = configured(args) else { return Ok(()) };
    let wants = args.normal.join("framebus.target.wants");
    fs::create_dir_all(&wants).or_fail(Kind::Unavailable)?;
    for (template, unit) in units(&config) {
        symlink(Path::new(UNITS).join(template), wants.join(unit)).or_fail(Kind::Unavailable)?;
    }
    let drop_ins = [
        (BackendName::Triton, "triton.conf", NETWORK),
        (BackendName::TensorRt, "tensorrt.conf", GPU),
    ];
    for (backend, name, text) in drop_ins {
        if config.model.backend.names(backend) {
            drop_in(&args.normal, INFER, name, text)?;
        }
    }
    for sink in config.enabled_sinks() {
        if let Some(text) = sink_drop_in(&sink.kind) {
            let unit = format!("framebus-sink@{}.service", sink.name);
            drop_in(&args.normal, &unit, "network.conf", &text)?;
        }
    }
    Ok(())
}

fn drop_in(units: &Path, unit: &str, name: &str, text: &str) -> Result<(), Failure> {
    let folder = units.join(format!("{unit}.d"));
    fs::create_dir_all(&folder).or_fail(Kind::Unavailable)?;
    fs::write(folder.join(name), text).or_fail(Kind::Unavailable)
}

/// The file if it is valid, otherwise the copy that was applied last; what is wrong is
/// said. `None` when there is no file, which is what a fresh installation may look like,
/// or nothing valid.
fn configured(args: &Generate) -> Option<Config> {
    let file = &args.common.config;
    if !file.is_file() {
        return None;
    }
    let environment = environment(&fs::read_to_string(&args.environment).unwrap_or_default());
    // Drop-ins may set variables, too; what a password is does not matter here.
    let look_up = |name: &str| Some(environment.get(name).map_or("unknown", |v| v).to_owned());
    let parse = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        framebus_config::parse(&text?, file, &look_up).map_err(|errors| errors.to_string())
    };
    let wrong = match parse(file) {
        Ok(config) => return Some(config),
        Err(wrong) => wrong,
    };
    say(&wrong);
    let applied = args.common.applied.as_deref().filter(|applied| applied.is_file());
    let config = applied.and_then(|applied| parse(applied).ok());
    say(match config {
        Some(_) => "the cameras and sinks that were applied last stay",
        None => "no camera and no sink is started",
    });
    config
}

/// Template and instance of everything that is switched on. Names of cameras and sinks
/// are made of letters that a unit name may have as they are: `%i` is the name.
fn units(config: &Config) -> Vec<(&'static str, String)> {
    let cameras = config.enabled_cameras().map(|camera| {
        ("framebus-capture@.service", format!("framebus-capture@{}.service", camera.name))
    });
    let sinks = config
        .enabled_sinks()
        .map(|sink| ("framebus-sink@.service", format!("framebus-sink@{}.service", sink.name)));
    let mut units: Vec<_> = cameras.collect();
    if !units.is_empty() {
        units.push((INFER, INFER.to_owned()));
        units.extend(sinks);
    }
    units
}

/// The variables of an EnvironmentFile: `NAME=value`, quoted or not, `#` and `;` begin
/// comments.
pub(crate) fn environment(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let unquoted = |value: &str| {
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|&quote| {
            value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote))
        });
        quoted.unwrap_or(value).to_owned()
    };
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value)))
        .collect()
}

/// Into the kernel's log, from where the journal takes it: while generators run, there is
/// no other. By hand, on standard error.
fn say(text: &str) {
    let system = std::env::var_os("SYSTEMD_SCOPE").is_some_and(|scope| scope == "system");
    let mut kmsg = fs::OpenOptions::new().write(true).open("/dev/kmsg").ok().filter(|_| system);
    for line in text.lines() {
        // One write is one entry, of 1 KiB at most.
        let entry =
            format!("<4>framebus-generator: {}\n", line.chars().take(200).collect::<String>());
        let written = kmsg.as_mut().is_some_and(|kmsg| kmsg.write_all(entry.as_bytes()).is_ok());
        if !written {
            crate::out::note(format_args!("framebus-generator: {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_are_read_as_systemd_does() {
        let found = environment("# A=1\n; B=2\nC = \"x y\"\nD='q'\nE=a=b\n\nF=\n");
        let pairs: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("C", "x y"), ("D", "q"), ("E", "a=b"), ("F", "")]);
    }

    #[test]
    fn a_bus_that_services_cannot_share_is_refused() {
        let with_root = |root: &str| {
            let text = format!(
                "[bus]\nroot = {root:?}\n[model]\npath = \"a.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n"
            );
            framebus_config::parse(&text, Path::new("/e/f.toml"), &|_| None).expect("valid")
        };
        assert!(bus_is_shared(&with_root("/run/framebus")).is_ok());
        let refused = bus_is_shared(&with_root("/tmp/b")).expect_err("private");
        assert!(refused.to_string().contains("/run/framebus"), "{refused}");
    }
}
