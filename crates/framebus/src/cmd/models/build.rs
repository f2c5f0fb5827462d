//! `framebus models build`: builds the GPU's engine ahead of its first use.

use super::default_model;
use crate::out;
use crate::table::{mib, table};
use framebus_engine::{Backend as _, Built, LoadOptions, Report, Shape, tensorrt};
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;

/// Steps of the progress bar.
const STEPS: u64 = 1000;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX file [default: the model of --config, else the one that `detect` uses].
    #[arg(value_name = "FILE")]
    model: Option<PathBuf>,
    /// Take model, precision, batch and [tensorrt] from this configuration.
    #[arg(long, short, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Also for this input, HEIGHTxWIDTH in pixels; may be given several times.
    #[arg(long, value_name = "HxW", value_parser = shape)]
    shape: Vec<Shape>,
    /// Build also what is there already.
    #[arg(long)]
    again: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn shape(text: &str) -> Result<Shape, String> {
    let sides = text.split_once('x').and_then(|(height, width)| {
        Some(Shape { height: height.parse().ok()?, width: width.parse().ok()? })
    });
    sides.ok_or_else(|| format!("'{text}' is not HEIGHTxWIDTH, such as 384x640"))
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (path, options) = match (&args.model, &args.config) {
        (_, Some(config)) => {
            let config = framebus_config::load(config).or_fail(Kind::Config)?;
            let options = LoadOptions::of(&config, clock::monotonic_ns);
            (config.model.path, options)
        }
        (Some(path), None) => (path.clone(), defaults()),
        (None, None) => (default_model()?, defaults()),
    };
    let model = Model::open(&path).or_fail(Kind::Config)?;
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let options = LoadOptions { report: Some(progress(&shutdown)), ..options };
    // Without --shape the one that `load` begins with; with it that one, too.
    let mut built = build(&model, &options, &[], args.again)?;
    let known = |shape: &&Shape| built.iter().any(|built| built.shape == **shape);
    let shapes: Vec<Shape> = args.shape.iter().filter(|shape| !known(shape)).copied().collect();
    if !shapes.is_empty() {
        built.extend(build(&model, &options, &shapes, args.again)?);
    }
    if args.json { as_json(&model, &built) } else { as_text(&model, &built) }
}

fn defaults() -> LoadOptions {
    let cache = framebus_model::cache_folder();
    LoadOptions { cache, ..LoadOptions::new(clock::monotonic_ns) }
}

fn build(
    model: &Model,
    options: &LoadOptions,
    shapes: &[Shape],
    again: bool,
) -> Result<Vec<Built>, Failure> {
    tensorrt::TensorRt.build(model, options, shapes, again).map_err(|error| {
        let kind = match error {
            framebus_engine::EngineError::Unsupported { .. } => Kind::Config,
            _ => Kind::Unavailable,
        };
        Failure::new(kind, error)
    })
}

/// A bar with the time that is left; a line at each tenth where nobody looks at a terminal.
fn progress(shutdown: &Shutdown) -> Report {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent} % {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let state = Mutex::new((None::<(Shape, ProgressBar)>, 0.0));
    let shutdown = shutdown.clone();
    Report::new(move |progress| {
        let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (current, told) = &mut *state;
        let bar = match current {
            Some((shape, bar)) if *shape == progress.shape => bar,
            _ => {
                let bar = ProgressBar::new(STEPS).with_style(style.clone());
                *told = 0.0;
                &mut current.insert((progress.shape, bar)).1
            }
        };
        if bar.is_hidden() {
            if progress.fraction >= *told {
                out::note(format_args!(
                    "building for {}: {:.0} %, {}",
                    progress.shape,
                    100.0 * progress.fraction,
                    progress.phase
                ));
                *told += 0.1;
            }
        } else {
            bar.set_message(format!("{}, {}", progress.shape, out::plain(&progress.phase)));
            bar.set_position((f64::from(progress.fraction) * STEPS as f64) as u64);
            if progress.fraction >= 1.0 {
                bar.finish_and_clear();
            }
        }
        !shutdown.requested()
    })
}

fn as_json(model: &Model, built: &[Built]) -> Result<(), Failure> {
    let engines: Vec<_> = built
        .iter()
        .map(|built| {
            json!({
                "input": built.shape.to_string(),
                "file": built.file.as_ref().ok().map(|file| file.display().to_string()),
                "not_kept": built.file.as_ref().err(),
                "bytes": built.bytes,
                "took_ms": built.took.map(|took| took.as_secs_f64() * 1e3),
            })
        })
        .collect();
    out::line(json!({"model": model.path().display().to_string(), "engines": engines}))
}

fn as_text(model: &Model, built: &[Built]) -> Result<(), Failure> {
    let rows = built.iter().map(|built| {
        let took = built
            .took
            .map_or_else(|| "was there".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        let file = match &built.file {
            Ok(file) => file.display().to_string(),
            Err(reason) => format!("not kept: {reason}"),
        };
        vec![built.shape.to_string(), mib(built.bytes as u64), took, file]
    });
    out::line(format_args!("{}", model.path().display()))?;
    out::line(table(&["input", ">size", ">built in", "engine"], rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_height_x_width() {
        assert_eq!(shape("384x640"), Ok(Shape { height: 384, width: 640 }));
        for wrong in ["", "384", "x", "384*640", "-1x2", "1x2x3"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }
}
