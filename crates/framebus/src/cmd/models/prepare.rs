//! `framebus models prepare`: cuts a model's head off, once.

use super::{default_model, failed, input_text};
use crate::table::{mib, table};
use crate::{annotate, out};
use framebus_model::{Model, Prepared};
use framebus_service::{Failure, Kind, OrFail, clock};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX file [default: the model of --config, else the one that `detect` uses].
    #[arg(value_name = "FILE")]
    model: Option<PathBuf>,
    /// Take the model that this configuration names.
    #[arg(long, short, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Write the prepared model here instead of into the cache.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let path = match (args.model, args.config) {
        (Some(path), _) => path,
        (None, Some(config)) => framebus_config::load(&config).or_fail(Kind::Config)?.model.path,
        (None, None) => default_model()?,
    };
    let model = Model::open(&path).or_fail(Kind::Config)?;
    let start = clock::monotonic_ns();
    let prepared = match &args.output {
        // Not through the cache: the file is for somebody else.
        Some(output) if std::fs::metadata(output).is_ok_and(|known| !known.is_file()) => {
            return Err(Failure::message(
                Kind::Usage,
                format_args!("--output {}: is there already and is no file", output.display()),
            ));
        }
        Some(output) => match model.cut() {
            Ok(cut) => {
                framebus_model::save(&cut, output).map_err(|error| {
                    failed(&format!("cannot write {}", output.display()), error)
                })?;
                annotate::readable(output);
                Prepared::Cut { model: cut, cached: Ok(output.clone()) }
            }
            Err(error) => Prepared::AsIs { reason: error.to_string() },
        },
        None => framebus_model::prepare(&model, framebus_model::cache_folder().as_deref()),
    };
    let took_ms = clock::monotonic_ns().saturating_sub(start) as f64 / 1e6;
    match prepared {
        Prepared::Cut { model: cut, cached } => {
            if args.json {
                cut_json(&model, &cut, &cached, took_ms)
            } else {
                cut_text(&model, &cut, &cached, took_ms)
            }
        }
        Prepared::AsIs { reason } if args.json => {
            out::line(json!({"model": shown(model.path()), "prepared": false, "reason": reason}))
        }
        Prepared::AsIs { reason } => out::line(format_args!(
            "{}: runs as it is, with input {}: {reason}",
            model.path().display(),
            input_text(&model)
        )),
    }
}

/// A path as text: JSON has no other, and names need not be UTF-8.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Size of the file, or of what is in memory.
fn bytes(model: &Model) -> u64 {
    let on_disk = || std::fs::metadata(model.path()).map_or(0, |metadata| metadata.len());
    model.bytes().map_or_else(on_disk, |bytes| bytes.len() as u64)
}

fn cut_json(
    model: &Model,
    cut: &Model,
    cached: &Result<PathBuf, String>,
    took_ms: f64,
) -> Result<(), Failure> {
    let scales: Vec<_> = cut
        .heads()
        .iter()
        .map(|head| json!({"stride": head.stride, "boxes": head.boxes, "classes": head.classes}))
        .collect();
    out::line(json!({
        "model": shown(model.path()),
        "prepared": true,
        "file": cached.as_ref().ok().map(|path| shown(path)),
        "not_kept": cached.as_ref().err(),
        "bins": cut.bins(),
        "classes": cut.classes(),
        "scales": scales,
        "free": ["batch", "height", "width"],
        "multiple_of": cut.stride(),
        "bytes_before": bytes(model),
        "bytes_after": bytes(cut),
        "took_ms": took_ms,
    }))
}

fn cut_text(
    model: &Model,
    cut: &Model,
    cached: &Result<PathBuf, String>,
    took_ms: f64,
) -> Result<(), Failure> {
    let head = match cut.bins() {
        1 => "distances".to_owned(),
        bins => format!("distances in {bins} bins (DFL)"),
    };
    let sizes = format!(
        "height and width any multiple of {}, batch any (before: {}, batch {})",
        cut.stride(),
        input_text(model),
        model.batch().map_or_else(|| "any".to_owned(), |batch| batch.to_string())
    );
    let kept = match cached {
        Ok(path) => path.display().to_string(),
        Err(reason) => format!("in memory only: {reason}"),
    };
    let rows = [
        ("model", model.path().display().to_string()),
        ("head", format!("{head}, {} classes, {} scales", cut.classes(), cut.heads().len())),
        ("input", sizes),
        ("size", format!("{} → {}", mib(bytes(model)), mib(bytes(cut)))),
        ("kept", kept),
        ("took", format!("{took_ms:.0} ms")),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]).to_vec();
    out::line(table(&["", ""], rows).trim_start())?;
    let scales = cut.heads().iter().map(|head| {
        vec![head.stride.to_string(), out::plain(&head.boxes), out::plain(&head.classes)]
    });
    out::line("")?;
    out::line(table(&[">stride", "boxes", "classes"], scales.collect()))
}
