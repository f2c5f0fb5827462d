//! `framebus bench triton`: what a server costs, beside the same network in process.

mod agree;
mod beside;
mod measure;
mod report;
mod server;
mod ways;

use super::bare::ModelArgs;
use super::{Common, picture};
use beside::Beside;
use framebus_config::Endpoint;
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use framebus_vision::{Colour, FrameView, Planes};
use measure::Length;
use std::path::PathBuf;

/// A Triton server beside the same network in process: latency, CPU, bytes
///
/// The same frames go through the network in process, through the server by system shared
/// memory, and through it by gRPC, call by call in turns; then again in blocks of twenty
/// calls, for the CPU time of this process and of the server. In process runs what the
/// server says that it runs: the same input size, and the head cut off where the server's
/// model has none. Its precision is the server's own business: give its model the one of
/// --precision.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bench triton --url 127.0.0.1:8001
  framebus bench triton --url 127.0.0.1:8001 --triton-model detector --model yolov8n.onnx
  framebus bench triton --pictures media --precision f32 --calls 200 --json

JSON keys, beside those of every benchmark:
  url, triton_model, server_pid, server_program (null: not on this machine, or not found)
  model, input, head (whole, cut, or suppressed: the server drops overlapping boxes too)
  size, frames (different ones), turns, block_calls, blocks
  ways [{client, transport (in-process, system-shared-memory, grpc), refused (the reason
    that there are no figures, else null), engine {backend,device,version,precision},
    frame_ms {…}                letterbox to boxes; {…} is {min,p50,p90,p99,max}
    network_ms {…}              from the input's pixels to raw outputs, as the client sees it
    frame_ratio, network_ratio  median over the median in process
    frames_per_s                one call after the other, in the blocks
    cpu_ms_per_frame {client,server,total}
    bytes_per_frame {sent,received}   encoded messages, medians
    agreement {boxes,missing,box_px,score}}]   boxes on all frames; of those in process,
                                missing on either side; largest differences of the others
  beside [{client, transport,   framebus over the other client of --beside:
    network_ratios {p50,min,max,pairs}   within each turn
    network_p99_ratio, cpu_ratio}]
Figures that could not be measured are null.

--beside COMMAND lets another client take turns, such as scripts/triton/python_client.py;
docs/bench.md says how it is talked to.")]
pub(super) struct Args {
    /// The server's gRPC address.
    #[arg(long, default_value_t = Endpoint::default())]
    url: Endpoint,
    /// Model name in the server's repository [default: the name of the model's file].
    #[arg(long, value_name = "NAME")]
    triton_model: Option<String>,
    /// ONNX file of the same detector [default: the one of `framebus models fetch`].
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Size of the network's input: auto (what the server's model has, else fits the
    /// frames' shape) or HEIGHTxWIDTH.
    #[arg(long, value_name = "auto|HxW", default_value = "auto", value_parser = crate::cmd::detect::shape)]
    input: String,
    /// Arithmetic of the network in process; auto is the fastest that the device does well.
    #[arg(long, default_value = "auto", value_parser = clap::builder::PossibleValuesParser::new(framebus_config::Precision::NAMES))]
    precision: String,
    /// CPU threads of the network in process; 0 = the backend decides.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: u16,
    /// Size of the frames.
    #[arg(long, value_name = "WxH", default_value = "1920x1080", value_parser = super::size)]
    size: (usize, usize),
    /// Picture, or folder of pictures, instead of noise, which has no boxes.
    #[arg(long, value_name = "PATH")]
    pictures: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Turns to measure, instead of --seconds; blocks make up as many calls again.
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: Option<u32>,
    /// Process whose CPU time, with its children's, is the server's [default: who listens
    /// on the port].
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Command of another client that takes turns.
    #[arg(long, value_name = "COMMAND")]
    beside: Option<String>,
}

impl Args {
    fn network(&self) -> ModelArgs {
        ModelArgs {
            backend: "auto".to_owned(),
            model: self.model.clone(),
            input: self.input.clone(),
            precision: self.precision.clone(),
            contexts: 1,
            threads: self.threads,
        }
    }
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let network = args.network();
    let model = Model::open(&network.path()?).or_fail(Kind::Config)?;
    let server = server::find(args)?;
    let (width, height) = args.size;
    let pictures = picture::load(args.pictures.as_deref(), width, height)?;
    let frames: Vec<FrameView<'_>> = pictures
        .iter()
        .map(|picture| {
            let (y, uv) = picture.split_at(width * height);
            let planes = Planes::Nv12 { y, y_stride: width, uv, uv_stride: width };
            FrameView::new(width, height, planes, Colour::default()).or_fail(Kind::Bug)
        })
        .collect::<Result<_, _>>()?;
    let (mut ways, ran) = ways::load(args, &model, &network)?;
    if let Some(command) = &args.beside {
        ways.extend(Beside::start(command)?);
    }
    let length = match args.calls {
        Some(calls) => Length::Calls(calls),
        None => Length::Seconds(args.common.seconds),
    };
    let agreements = measure::warm_up(&mut ways, &frames, shutdown)?;
    let turns = measure::turns(&mut ways, &frames, length, shutdown)?;
    let costs = measure::blocks(&mut ways, &frames, length, server.as_ref(), shutdown)?;
    let report = report::Report {
        args,
        model: model.name(),
        ran,
        server: server.as_ref(),
        frames: frames.len(),
        ways: &ways,
        agreements,
        turns,
        costs,
    };
    report.print()
}
