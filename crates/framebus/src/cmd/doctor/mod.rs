//! `framebus doctor`: is everything here that an instance needs, and if not, what next?
//!
//! Order of reading: [`run`] → `finding` (what a check says) → one module per area:
//! `machine`, `limits`, `storage`, `engine`, `media`, `cameras`.

mod cameras;
mod engine;
mod finding;
pub(crate) mod limits;
mod machine;
mod media;
pub(crate) mod storage;

use super::check;
use crate::instance::DEFAULT_CONFIG;
use crate::{bounded, out, screen::Screen};
use finding::{Finding, Level};
use framebus_config::Config;
use framebus_service::{Failure, Kind};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Look for whatever keeps an instance from working, and say what to do about it
///
/// Drivers, OpenVINO, decoders, shared memory, limits, users, disks; then each camera is
/// watched for some seconds: codec, size, frame rate, key frames, jitter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus doctor                                    this machine alone
  framebus doctor --config framebus.toml             and this configuration's cameras
  framebus doctor --config framebus.toml --camera front
  framebus doctor --json > doctor.json

Each camera is connected to once more, beside an instance that runs; a device that
the instance uses is left alone. A camera that does not answer takes --timeout-s.

With --json, one object; a key keeps its name and meaning:
  ok, exit_code, instance, findings [{area, what, level, text, next}],
  cameras [{camera, source, ok, reason, codec, profile, width, height,
            fps_announced, fps_measured, frames, key_frames, key_frame_s,
            key_frame_frames, jitter_p95_ms, jitter_max_ms, bit_rate_kbps,
            decoder, latency_ms}]
level is ok, skipped, warning or problem. A figure that is not known is null.

Exit codes: 0 nothing keeps it from working (there may be warnings), 69 something
needed is unavailable, 78 the configuration or a file that it names is wrong.")]
pub(crate) struct Args {
    /// Configuration file [default: /etc/framebus/framebus.toml where it exists].
    #[arg(long, short, env = "FRAMEBUS_CONFIG")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Look at this camera only; may be given again.
    #[arg(long, value_name = "NAME")]
    camera: Vec<String>,
    /// Longest look at a camera, connecting included, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=600))]
    timeout_s: u16,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    super::init_log(&Screen::new(true));
    let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.exists());
    let file = args.config.clone().or_else(default);
    let (config, mut findings) = configuration(file.as_deref());
    if let Some(config) = &config
        && let Some(name) = args.camera.iter().find(|name| config.camera(name).is_none())
    {
        let names: Vec<&str> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
        return Err(Failure::message(
            Kind::Usage,
            format_args!("there is no camera {name:?}; there are {}", names.join(", ")),
        ));
    }
    let domain = config.as_ref().map(framebus_service::domain).transpose()?;
    findings.extend(machine::look());
    findings.extend(limits::look(config.as_ref()));
    findings.extend(storage::look(config.as_ref().zip(domain.as_ref())));
    findings.extend(engine::look(config.as_ref()));
    findings.extend(media::look());
    let mut probes = Vec::new();
    if let (Some(config), Some(domain)) = (&config, &domain) {
        let looked = cameras::look(config, domain.in_use(), &args.camera, args.timeout_s);
        findings.extend(looked.iter().map(|(finding, _)| finding.clone()));
        probes.extend(looked.into_iter().filter_map(|(_, probe)| probe));
    }
    let code = exit_code(&findings);
    if args.json {
        out::line(report(&findings, &probes, config.as_ref(), code))?;
    } else {
        out::line(finding::table(&findings))?;
        if !probes.is_empty() {
            out::line(format_args!("\n{}", cameras::table(&probes)))?;
        }
        out::line(format_args!("\n{}", finding::summary(&findings)))?;
    }
    Ok(ExitCode::from(code))
}

/// The configuration where there is one, and what is wrong with it.
fn configuration(file: Option<&Path>) -> (Option<Config>, Vec<Finding>) {
    const AREA: &str = "configuration";
    let Some(file) = file else {
        let text = "none was named: cameras, model and memory are not looked at";
        let next = "framebus doctor --config FILE";
        return (None, vec![Finding::new(AREA, "file", Level::Skipped, text).next(next)]);
    };
    let name = file.display().to_string();
    match framebus_config::load(file) {
        Err(errors) => {
            let findings = errors.into_iter().map(|error| {
                Finding::new(AREA, name.clone(), Level::Problem(Kind::Config), error.to_string())
                    .next("correct the file; `framebus check` tells all of it again")
            });
            (None, findings.collect())
        }
        Ok(config) => {
            let mut findings = vec![Finding::ok(AREA, name.clone(), "well formed")];
            // The model is a finding of its own, a device is one of its camera.
            let missing = check::missing(&config).files;
            let model = |key: &str| key == "model.path";
            findings.extend(missing.into_iter().filter(|error| !model(&error.key)).map(|error| {
                Finding::new(
                    AREA,
                    error.key.clone(),
                    Level::Problem(Kind::Config),
                    error.to_string(),
                )
                .next("make what is missing, or correct the path")
            }));
            (Some(config), findings)
        }
    }
}

/// That of the worst finding: what only an edit mends is worse than what may come back.
fn exit_code(findings: &[Finding]) -> u8 {
    let kinds = findings.iter().filter_map(|finding| match finding.level {
        Level::Problem(kind) => Some(kind.code()),
        _ => None,
    });
    kinds.max().unwrap_or(0)
}

fn report(findings: &[Finding], probes: &[Value], config: Option<&Config>, code: u8) -> Value {
    json!({
        "ok": code == 0,
        "exit_code": code,
        "instance": config.map(|config| config.instance.as_str()),
        "findings": findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        "cameras": probes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let of = |levels: &[Level]| {
            let findings: Vec<_> =
                levels.iter().map(|level| Finding::new("a", "b", *level, "c")).collect();
            exit_code(&findings)
        };
        assert_eq!(of(&[Level::Ok, Level::Skipped, Level::Warning]), 0);
        assert_eq!(of(&[Level::Problem(Kind::Unavailable), Level::Warning]), 69);
        assert_eq!(of(&[Level::Problem(Kind::Config), Level::Problem(Kind::Unavailable)]), 78);
    }

    #[test]
    fn without_a_configuration_it_says_how_to_name_one() {
        let (config, findings) = configuration(None);
        assert!(config.is_none());
        assert_eq!((findings.len(), findings[0].level), (1, Level::Skipped));
        let (_, findings) = configuration(Some(Path::new("/nonexistent.toml")));
        assert_eq!(findings[0].level, Level::Problem(Kind::Config));
        assert!(findings[0].text.contains("no such"), "{:?}", findings[0]);
    }
}
