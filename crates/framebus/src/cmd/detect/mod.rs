//! `framebus detect`: what is in these pictures and clips?
//!
//! Runs the same processes as `up` over an instance of its own, with a
//! configuration that is written for the purpose and removed afterwards.

mod inputs;
mod output;
mod session;

pub(super) use inputs::{is_picture, pictures};

use crate::screen::Screen;
use crate::{children, out};
use framebus_config::{BackendName, Precision};
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use std::path::PathBuf;
use std::process::ExitCode;

/// Inputs that one configuration can hold (cameras of one file).
const INPUTS_MAX: usize = 64;

/// Find objects in pictures, folders and clips
///
/// Prints one line per frame. Every frame of a file is inferred; of a live
/// source (rtsp://, v4l2:) the newest. Results of one input come in order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus detect bus.jpg
  framebus detect holiday/ clip.mp4 --confidence 0.5 --annotate out
  framebus detect --json --precision f32 --input 640x640 bus.jpg | jq '.detections[].label'
  framebus detect 'test:ball?width=640&height=480&frames=10'
  framebus detect --triton-url 127.0.0.1:8001 bus.jpg

With --json, one object a line:
  {\"source\",\"frame\",\"width\",\"height\",\"outcome\",\"backend\",\"model\",
   \"detections\":[{\"label\",\"class\",\"score\",\"box\":[x1,y1,x2,y2]}],\"ms\":{…}}
source is the input as given (for a folder, the picture's path), frame counts from
0, boxes are in pixels of the source, ms says how long each stage took. A frame that
failed has a \"message\".

Exit codes: 0 done, 69 an input could not be read or a frame failed (the others
are done), 78 no model or not a YOLO detector.")]
pub(crate) struct Args {
    /// Pictures, folders of pictures, clips, rtsp://, v4l2:, test: or gst: sources.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<String>,
    /// ONNX file of a YOLO detector [default: the one of `framebus models fetch`].
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Size of the network's input: auto (fits the pictures' shape) or HEIGHTxWIDTH.
    #[arg(long, value_name = "auto|HxW", default_value = "auto", value_parser = shape)]
    input: String,
    /// Arithmetic of the network; auto is the fastest that the device does well.
    #[arg(long, default_value = "auto", value_parser = clap::builder::PossibleValuesParser::new(Precision::NAMES))]
    precision: String,
    /// Least score of a detection, 0 to 1.
    #[arg(long, value_name = "SCORE", default_value_t = 0.25, value_parser = fraction)]
    confidence: f64,
    /// Of two boxes of one class that overlap by more than this, the weaker goes.
    #[arg(long, value_name = "IOU", default_value_t = 0.7, value_parser = fraction)]
    iou: f64,
    /// What runs the model: auto, or names in the order of preference, with commas.
    #[arg(long, value_name = "auto|NAME,…", default_value = "auto", value_parser = backends)]
    backend: String,
    /// Ask this Triton server (alone, unless --backend names others too): HOST:PORT of its
    /// gRPC port, grpcs:// before it for TLS.
    #[arg(long, value_name = "URL")]
    triton_url: Option<framebus_config::Endpoint>,
    /// The model's name there [default: the ONNX file's name without its extension].
    #[arg(long, value_name = "NAME", requires = "triton_url")]
    triton_model: Option<String>,
    /// Most detections of one frame.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_detections: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Save every frame with its boxes drawn into this folder.
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
}

fn fraction(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

pub(super) fn shape(text: &str) -> Result<String, String> {
    let side = |text: &str| {
        text.parse::<u32>().is_ok_and(|n| (32..=4096).contains(&n) && n.is_multiple_of(32))
    };
    if text == "auto" || text.split_once('x').is_some_and(|(h, w)| side(h) && side(w)) {
        return Ok(text.to_owned());
    }
    Err("must be auto or HEIGHTxWIDTH such as 384x640, each a multiple of 32 from 32 to 4096"
        .into())
}

fn backends(text: &str) -> Result<String, String> {
    if text == "auto" || text.split(',').all(|name| BackendName::NAMES.contains(&name)) {
        return Ok(text.to_owned());
    }
    Err(format!("must be auto, or out of {}", BackendName::NAMES.join(", ")))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let screen = Screen::new(true);
    super::init_log(&screen);
    let asks = args.backend == "auto" || args.backend.split(',').any(|name| name == "triton");
    if args.triton_url.is_some() && !asks {
        return Err(Failure::message(
            Kind::Usage,
            "--triton-url says where triton is, and --backend does not name it; remove one of the two",
        ));
    }
    let model = match &args.model {
        Some(model) => model.clone(),
        None => super::models::default_model()?,
    };
    framebus_model::Model::open(&model).or_fail(Kind::Config)?;
    let model = std::path::absolute(&model).unwrap_or(model);
    let programs = session::Programs {
        capture: children::find("framebus-capture")?,
        infer: children::find("framebus-infer")?,
    };
    if let Some(folder) = &args.annotate {
        std::fs::create_dir_all(folder).map_err(|error| Failure {
            kind: Kind::Unavailable,
            error: anyhow::Error::new(error)
                .context(format!("--annotate: cannot make folder {}", folder.display())),
        })?;
    }
    let (inputs, mut troubles) = inputs::plan(&args.inputs);
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let mut printer = output::Printer::new(args.json, args.annotate.clone());
    for inputs in inputs.chunks(INPUTS_MAX) {
        if shutdown.requested() {
            break;
        }
        let settings = session::Settings { args: &args, model: &model, programs: &programs };
        troubles += session::run(&settings, inputs, &mut printer, &shutdown)?;
    }
    troubles += printer.finish();
    Ok(ExitCode::from(if troubles > 0 { Kind::Unavailable.code() } else { 0 }))
}

/// Says what is wrong with one input; the others go on.
fn trouble(input: &str, reason: &str) {
    out::note(format_args!("framebus: {}: {}", out::plain(input), reason.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_before_anything_starts() {
        assert!(fraction("0.25").is_ok() && fraction("1").is_ok());
        for bad in ["1.5", "-0.1", "NaN", "x"] {
            assert!(fraction(bad).is_err(), "{bad}");
        }
        assert!(shape("auto").is_ok() && shape("384x640").is_ok());
        for bad in ["640", "640x", "100x100", "0x32", "8192x32", "384X640"] {
            assert!(shape(bad).is_err(), "{bad}");
        }
        assert!(backends("openvino,triton").is_ok() && backends("auto").is_ok());
        assert!(backends("openvino,").is_err() && backends("cuda").is_err());
    }
}
