//! From configuration to a loaded engine.

use framebus_config::Config;
use framebus_engine::{self as engine, Engine, EngineError, LoadOptions, Thresholds};
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, clock};

/// Opens the model and loads it into the first backend of `order` that takes it.
///
/// # Errors
/// [`Kind::Config`] for a model that cannot be used, [`Kind::Unavailable`] when
/// no backend is there.
pub fn load(config: &Config, order: &[String]) -> Result<Box<dyn Engine>, Failure> {
    let settings = &config.model;
    let model = Model::open(&settings.path).or_fail(Kind::Config)?;
    let options = LoadOptions::of(config, clock::monotonic_ns);
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
