//! `framebus bench`: how fast is this machine, and what does framebus add?
//!
//! Machines change their speed within seconds (turbo, neighbours on the same host), so
//! whatever is compared is compared inside one run, in short blocks that take turns;
//! ratios are taken between neighbouring blocks, and their median is shown.

mod bare;
mod bus;
mod clip;
mod engine;
mod hot;
mod meters;
mod numbers;
mod picture;
mod pipeline;
mod reader;
mod source;
mod triton;

use crate::out;
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Length of a block: long enough for a hundred inferences, short beside the seconds
/// within which machines change their speed.
const BLOCK: Duration = Duration::from_millis(1000);

/// Measure this machine: bare engine, whole pipeline, bus, hot functions
///
/// Without a subcommand this is `framebus bench pipeline`.
// Flattened arguments make a group of their type's name, and two types are `Args` here.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  framebus bench engine                                 the network alone
  framebus bench pipeline --cameras 8 --fps max         all processes over shared memory
  framebus bench --cameras auto --latency 100ms         how many cameras fit?
  framebus bench bus --size 640x384,3840x2160           hand-over of a frame
  framebus bench letterbox                              pixels into the network's input
  framebus bench decode                                 the network's output into boxes
  framebus bench clip street.mp4                        a real clip, decoding included
  framebus bench triton --url 127.0.0.1:8001            in process beside a Triton server

With --json each prints one object. Keys of every benchmark: bench (its name), version
(of framebus), cpus (cores that it may use); the others are listed in the help of each
subcommand, and are stable: they are added to, not renamed. Times are in ms or µs or ns as
their names say, null where nothing was measured.

Exit codes: 0 measured, 64 wrong arguments, 69 something needed is unavailable or nothing
could be measured, 78 no model, no detector or no clip."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    pipeline: pipeline::Args,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Engine(engine::Args),
    Pipeline(pipeline::Args),
    Bus(bus::Args),
    Letterbox(hot::LetterboxArgs),
    Decode(hot::DecodeArgs),
    Clip(clip::Args),
    Triton(triton::Args),
    #[command(hide = true)]
    Source(source::Args),
    #[command(hide = true)]
    Reader(reader::Args),
}

/// Options of every benchmark.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Measured time, seconds; what it is compared with takes as long again.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Common {
    /// Blocks within the measured time.
    fn blocks(&self) -> usize {
        ((self.seconds / BLOCK.as_secs_f64()).round() as usize).max(1)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.1..=86_400.0).contains(s));
    seconds.ok_or_else(|| "must be a number of seconds from 0.1 to 86400".to_owned())
}

/// `1920x1080`: even sides, as 4:2:0 has them.
fn size(text: &str) -> Result<(usize, usize), String> {
    let side = |text: &str| {
        text.parse().ok().filter(|n: &usize| (32..=8192).contains(n) && n.is_multiple_of(2))
    };
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| {
        "must be WIDTHxHEIGHT such as 1920x1080, each even and from 32 to 8192".to_owned()
    })
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    super::init_log(&crate::screen::Screen::new(true));
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    match args.what {
        None => pipeline::run(&args.pipeline, &shutdown)?,
        Some(What::Pipeline(args)) => pipeline::run(&args, &shutdown)?,
        Some(What::Engine(args)) => engine::run(&args, &shutdown)?,
        Some(What::Bus(args)) => bus::run(&args, &shutdown)?,
        Some(What::Letterbox(args)) => hot::letterbox(&args, &shutdown)?,
        Some(What::Decode(args)) => hot::decode(&args, &shutdown)?,
        Some(What::Clip(args)) => clip::run(&args, &shutdown)?,
        Some(What::Triton(args)) => triton::run(&args, &shutdown)?,
        Some(What::Source(args)) => source::run(&args, &shutdown)?,
        Some(What::Reader(args)) => reader::run(&args, &shutdown)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the object of a benchmark: what all have, then its own keys.
fn print_json(bench: &str, own: Value) -> Result<(), Failure> {
    let mut object = json!({
        "bench": bench,
        "version": env!("CARGO_PKG_VERSION"),
        "cpus": meters::cpus(),
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut object, own) {
        all.extend(own);
    }
    out::line(object)
}

fn say(text: &str) -> Result<(), Failure> {
    out::line(text)
}

/// Ends a benchmark that was asked to stop before it had measured anything.
fn interrupted() -> Failure {
    Failure::message(Kind::Unavailable, "stopped before anything was measured")
}

/// Ends a benchmark without a figure: because the user wanted to stop, or because no
/// frame was answered.
fn unmeasured(stopping: bool) -> Failure {
    if stopping {
        return interrupted();
    }
    Failure::message(
        Kind::Unavailable,
        "nothing was measured, because no frame was answered within the measured time: \
         choose longer --seconds, fewer cameras or frames, or a larger age limit",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_seconds_are_checked() {
        assert_eq!(size("1920x1080"), Ok((1920, 1080)));
        for bad in ["1920", "1921x1080", "16x16", "x", "99999x32", "1920X1080"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("2"), Ok(2.0));
        for bad in ["0", "-1", "NaN", "1e9", "s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
