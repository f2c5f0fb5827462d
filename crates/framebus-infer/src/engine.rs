//! From configuration to a loaded engine.

use framebus_config::{Backends, Config, InputShape, Mode, Pace, Precision};
use framebus_engine::{self as engine, Engine, EngineError, LoadOptions, Thresholds};
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, clock};

/// The configured backends, best first.
#[must_use]
pub fn backends(config: &Config) -> Vec<String> {
    engine::expand(&match &config.model.backend {
        Backends::Auto => Vec::new(),
        Backends::Ordered(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
    })
}

/// Opens the model and loads it into the first backend of `order` that takes it.
///
/// # Errors
/// [`Kind::Config`] for a model that cannot be used, [`Kind::Unavailable`] when
/// no backend is there.
pub fn load(config: &Config, order: &[String]) -> Result<Box<dyn Engine>, Failure> {
    let settings = &config.model;
    let model = Model::open(&settings.path).or_fail(Kind::Config)?;
    let options = LoadOptions {
        precision: match settings.precision {
            Precision::Auto => engine::Precision::Auto,
            Precision::F32 => engine::Precision::F32,
            Precision::Bf16 => engine::Precision::Bf16,
            Precision::F16 => engine::Precision::F16,
        },
        input: match settings.input {
            InputShape::Auto => engine::InputShape::Auto,
            InputShape::Fixed { height, width } => {
                engine::InputShape::Fixed(engine::Shape { height, width })
            }
        },
        mode: match settings.mode {
            Mode::Latency => engine::Mode::Latency,
            Mode::Throughput => engine::Mode::Throughput,
            Mode::Auto => auto_mode(config),
        },
        contexts: settings.contexts,
        threads: match settings.threads {
            // As many as the cores it was given; 0 again where it may use all.
            0 => settings.cores.len(),
            threads => threads,
        },
        cache: framebus_model::cache_folder(),
        ..LoadOptions::new(clock::monotonic_ns)
    };
    let (engine, skipped) =
        engine::load_first(order, &model, &options).map_err(|error| match error {
            EngineError::Unsupported { .. } => Failure::new(Kind::Config, error),
            other => Failure::new(Kind::Unavailable, other),
        })?;
    for skipped in skipped {
        tracing::info!(backend = skipped.backend, reason = %skipped.reason, "backend not used");
    }
    Ok(engine)
}

/// Latency for one live camera, whose next frame comes when this one is done;
/// throughput where frames wait for an engine: of several cameras, or of a file
/// that is read as fast as it goes.
fn auto_mode(config: &Config) -> engine::Mode {
    let mut cameras = config.enabled_cameras();
    match (cameras.next(), cameras.next()) {
        (Some(camera), None) if camera.pace != Pace::Fast => engine::Mode::Latency,
        _ => engine::Mode::Throughput,
    }
}

/// Thresholds with class names turned into numbers.
///
/// # Errors
/// [`Kind::Config`] for a class that the model does not have.
pub fn thresholds(config: &Config, labels: &[String]) -> Result<Thresholds, Failure> {
    let settings = &config.model;
    let classes = settings.class_numbers(labels).map_err(|reason| {
        Failure::message(Kind::Config, format!("{}: {reason}", config.file.display()))
    })?;
    Ok(Thresholds {
        confidence: settings.confidence,
        iou: settings.iou,
        max_detections: settings.max_detections,
        classes: (!classes.is_empty()).then_some(classes),
    })
}
