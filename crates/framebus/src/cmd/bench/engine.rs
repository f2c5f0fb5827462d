//! `framebus bench engine`: the bare network.

use super::bare::{Bare, ModelArgs};
use super::numbers::{Summary, round};
use super::{Common, say};
use framebus_engine::Mode;
use framebus_service::{Failure, Shutdown};
use serde_json::json;
use std::time::Duration;

/// The bare engine: latency and best throughput of the network alone
///
/// No frames, no bus, no letterbox, no boxes: what `benchmark_app` or `trtexec` measure.
/// Blocks of both modes take turns.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bench engine
  framebus bench engine --input 384x640 --precision bf16 --seconds 20 --json

JSON keys, beside those of every benchmark: latency_ms {min,p50,p90,p99,max} of one
call in latency mode; throughput_fps {min,p50,p90,p99,max} frames a second of the blocks
in throughput mode; latency_engine and throughput_engine say what was loaded (model,
backend, device, version, precision, input, mode, contexts); blocks.")]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: Common,
    /// Measure in one mode only.
    #[arg(long, value_parser = ["both", "latency", "throughput"], default_value = "both")]
    mode: String,
    /// Run the model as it was exported: its head is not cut off.
    #[arg(long)]
    as_is: bool,
    /// Frames that an input of shape auto is fitted to.
    #[arg(long, value_name = "WxH", default_value = "1920x1080", value_parser = super::size)]
    size: (usize, usize),
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let model = args.model.path()?;
    let load = |mode: Mode, name: &str| {
        let wanted = args.mode == "both" || args.mode == name;
        wanted.then(|| Bare::load(&model, &args.model, (mode, args.as_is), args.size)).transpose()
    };
    let mut latency = load(Mode::Latency, "latency")?;
    let mut throughput = load(Mode::Throughput, "throughput")?;
    let (mut calls, mut rates) = (Vec::new(), Vec::new());
    let mut blocks = 0;
    for _ in 0..args.common.blocks() {
        if let Some(engine) = &mut latency {
            calls.extend(engine.latency(super::BLOCK, None)?);
        }
        if let Some(engine) = &mut throughput {
            rates.push(engine.throughput(super::BLOCK)?);
        }
        blocks += 1;
        if shutdown.wait(Duration::ZERO) {
            break;
        }
    }
    let (calls, rates_of) = (Summary::of(&mut calls), Summary::of(&mut rates));
    if args.common.json {
        return super::print_json(
            "engine",
            json!({
                "seconds": args.common.seconds,
                "blocks": blocks,
                "latency_ms": calls.map(Summary::json),
                "throughput_fps": rates_of.map(Summary::json),
                "latency_engine": latency.as_ref().map(Bare::json),
                "throughput_engine": throughput.as_ref().map(Bare::json),
            }),
        );
    }
    for engine in [&latency, &throughput].into_iter().flatten() {
        say(&engine.line())?;
    }
    if let Some(ms) = calls {
        say(&format!(
            "latency     p50 {} ms, p99 {} ms, min {} ms",
            round(ms.p50),
            round(ms.p99),
            round(ms.min)
        ))?;
    }
    if let Some(fps) = rates_of {
        say(&format!(
            "throughput  {} frames/s (median of {} blocks; {} to {})",
            round(fps.p50),
            rates.len(),
            round(fps.min),
            round(fps.max)
        ))?;
    }
    Ok(())
}
