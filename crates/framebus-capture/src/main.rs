//! The capture process: one camera, file or pipeline becomes frames on the bus.

use clap::Parser;
use framebus_capture::probe;
use framebus_service::{CommonArgs, Failure, Kind, OrFail, exit_code, parse_args, run};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Puts the frames of one camera on the bus.
#[derive(Parser)]
#[command(name = "framebus-capture", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Name of the camera, as in the configuration.
    #[arg(long, required_unless_present = "decoders")]
    camera: Option<String>,
    /// Look at the camera for so many seconds at most, without a bus, and print one JSON
    /// object about it.
    #[arg(long, value_name = "SECONDS", requires = "camera",
          value_parser = clap::value_parser!(u16).range(1..=600))]
    probe_s: Option<u16>,
    /// Print GStreamer's version and decoders as one JSON object.
    #[arg(long, conflicts_with_all = ["camera", "probe_s"])]
    decoders: bool,
}

impl AsRef<CommonArgs> for Args {
    fn as_ref(&self) -> &CommonArgs {
        &self.common
    }
}

fn main() -> ExitCode {
    match parse_args::<Args>() {
        Ok(args) if args.decoders || args.probe_s.is_some() => {
            framebus_service::init_log(&framebus_config::Log::default());
            exit_code("probe", look(&args))
        }
        Ok(_) => run("capture", |args: Args, service| {
            framebus_capture::run(args.camera.as_deref().unwrap_or_default(), &service)
        }),
        Err(code) => code,
    }
}

/// Answers `framebus doctor`.
fn look(args: &Args) -> Result<(), Failure> {
    let answer = match (&args.camera, args.probe_s) {
        (Some(name), Some(seconds)) => {
            let config = framebus_config::load(&args.common.config).or_fail(Kind::Config)?;
            let camera = config.camera(name).ok_or_else(|| {
                Failure::message(Kind::Usage, format_args!("there is no camera {name:?}"))
            })?;
            probe::probe(camera, Duration::from_secs(seconds.into()))
        }
        _ => probe::decoders().or_fail(Kind::Unavailable)?,
    };
    writeln!(std::io::stdout(), "{answer}").or_fail(Kind::Unavailable)
}
