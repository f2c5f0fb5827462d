//! `framebus reload`: a changed configuration becomes that of the running instance.

use crate::changes::Changes;
use crate::control;
use crate::instance::{DEFAULT_CONFIG, applied_copy, describe};
use crate::out;
use framebus_config::Config;
use framebus_service::{CommonArgs, Failure, Kind, OrFail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Take over a changed configuration while the instance runs
///
/// The file is checked first: one with errors changes nothing. Then what changed is
/// started, stopped or started anew; cameras that did not change lose no frame, unless
/// [bus] or [log] changed, which concerns all. Inference takes cameras over in place,
/// and starts anew when [model], [triton], [tensorrt], [tracking], a zone or a line changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Says what is done and does not wait until it is: `framebus status` shows how processes
stop and start. `kill -HUP` of `framebus up` does the same and says so where that runs.
Without --config, and while framebus.target is active, the services of systemd are meant.
The name of the instance and bus.root cannot change while it runs.

With --json, one object: ok, code, and either error, or done [lines] and, except under
systemd, file, everything, inference, cameras and sinks {added, changed, removed}.

Exit codes: 0 taken over, 69 nothing runs, or somebody reads from a bus whose sizes
change, 78 the configuration is wrong.")]
pub(crate) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let said = match reload(args) {
        Ok(said) => said,
        Err(failure) if args.json => crate::changes::refusal(&failure),
        Err(failure) => return Err(failure),
    };
    if args.json {
        out::line(&said)?;
    } else if said["ok"] == true {
        for line in said["done"].as_array().into_iter().flatten() {
            out::line(line.as_str().unwrap_or_default())?;
        }
    } else {
        let error = said["error"].as_str().unwrap_or("framebus up refused without a reason");
        out::note(format_args!("framebus: {error}\nnothing was changed; what ran goes on"));
    }
    let code = said["code"].as_u64().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(Kind::Bug.code())))
}

fn reload(args: &Args) -> Result<Value, Failure> {
    // Its passwords may stand in the services' environment and not in this one.
    let packaged = args.common.config == Path::new(DEFAULT_CONFIG);
    if packaged && !args.dry_run && services_run() {
        return services();
    }
    let config = super::load(&args.common.config)?;
    let domain = framebus_service::domain(&config)?;
    if args.dry_run {
        return dry_run(args, &config);
    }
    if let Some(said) = control::ask(&domain)? {
        return Ok(said);
    }
    Err(Failure::message(
        Kind::Unavailable,
        format_args!(
            "nothing runs in {}; if instance or bus.root has just changed, stop `framebus up` and start it again",
            describe(&domain)
        ),
    ))
}

/// Compares with the copy that the instance runs from.
fn dry_run(args: &Args, config: &Config) -> Result<Value, Failure> {
    let own = applied_copy(&config.file, &framebus_service::domain(config)?);
    let applied = args.common.applied.clone().unwrap_or(own);
    if !applied.is_file() {
        return Err(Failure::message(
            Kind::Unavailable,
            format_args!("nothing to compare with: {} is not there", applied.display()),
        ));
    }
    let old = framebus_config::load_applied(&config.file, &applied).or_fail(Kind::Config)?;
    let changes = Changes::between(&old, config)?;
    super::up::acceptable(config)?;
    Ok(changes.to_json(config))
}

fn services_run() -> bool {
    // As sd_booted(3).
    Path::new("/run/systemd/system").is_dir()
        && systemctl(&["is-active", "--quiet", "framebus.target"]).is_ok()
}

/// Under systemd every process decides by itself what the change is to it.
fn services() -> Result<Value, Failure> {
    let wrong = |failure| {
        let why = "journalctl -u framebus-config.service says what is wrong with the configuration";
        Failure::message(Kind::Config, format_args!("{failure}; {why}"))
    };
    // A unit that has failed cannot be reloaded: it is started then.
    systemctl(&["reload-or-restart", "framebus-config.service"]).map_err(wrong)?;
    // New cameras and sinks get their units, old processes look, new ones start.
    systemctl(&["daemon-reload"])?;
    systemctl(&["kill", "--signal=HUP", "framebus-*.service"])?;
    systemctl(&["start", "framebus.target"])?;
    Ok(json!({
        "ok": true, "code": 0,
        "done": ["applied; each service takes over what changed for it: framebus status"],
    }))
}

fn systemctl(args: &[&str]) -> Result<(), Failure> {
    let shown = format!("systemctl {}", args.join(" "));
    let status = Command::new("systemctl").args(args).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::message(Kind::Unavailable, format_args!("{shown} failed: {status}")))
        }
        Err(error) => Err(Failure::message(Kind::Unavailable, format_args!("{shown}: {error}"))),
    }
}
