//! From configuration to a loaded engine.

use framebus_config::Config;
use framebus_engine::{self as engine, Engine, EngineError, LoadOptions, Report, Thresholds};
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, clock};

/// A loaded engine.
pub struct Loaded {
    /// It.
    pub engine: Box<dyn Engine>,
    /// The best backend before it that could not be taken only because its engine must
    /// be built first.
    pub not_built: Option<&'static str>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("not_built", &self.not_built).finish_non_exhaustive()
    }
}

/// Opens the model and loads it into the first backend of `order` that takes it, which may
/// have to build its engine: `report` is told.
///
/// # Errors
/// [`Kind::Config`] for a model that cannot be used, [`Kind::Unavailable`] when
/// no backend is there.
pub fn load(config: &Config, order: &[String], report: Option<Report>) -> Result<Loaded, Failure> {
    let settings = &config.model;
    let model = Model::open(&settings.path).or_fail(Kind::Config)?;
    let options = LoadOptions { report, ..LoadOptions::of(config, clock::monotonic_ns) };
    let (engine, skipped) =
        engine::load_first(order, &model, &options).map_err(|error| match error {
            EngineError::Unsupported { .. } => Failure::new(Kind::Config, error),
            other => Failure::new(Kind::Unavailable, other),
        })?;
    let mut not_built = None;
    for skipped in skipped {
        if let EngineError::NotBuilt { backend, .. } = skipped.reason {
            not_built = not_built.or(Some(backend));
        }
        tracing::info!(backend = skipped.backend, reason = %skipped.reason, "backend not used");
    }
    Ok(Loaded { engine, not_built })
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
