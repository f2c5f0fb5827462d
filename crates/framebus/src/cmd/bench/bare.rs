//! The engine alone: what everything else is set against.

use super::numbers::rate;
use framebus_engine::{
    BatchOutput, Context, Engine, EngineError, EngineInfo, FrameRequest, InputShape, LoadOptions,
    Mode, Precision, Shape, Thresholds, load_first,
};
use framebus_model::Model;
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_vision::{Colour, FrameView, Planes};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Calls at the start of a block that are not counted: threads and caches come to life.
const SETTLE_NS: u64 = 100_000_000;

/// Which network, and how it is run.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ModelArgs {
    /// ONNX file of a YOLO detector [default: the one of `framebus models fetch`].
    #[arg(long, value_name = "FILE")]
    pub(super) model: Option<PathBuf>,
    /// Size of the network's input: auto (fits the frames' shape) or HEIGHTxWIDTH.
    #[arg(long, value_name = "auto|HxW", default_value = "auto", value_parser = crate::cmd::detect::shape)]
    pub(super) input: String,
    /// Arithmetic of the network; auto is the fastest that the device does well.
    #[arg(long, default_value = "auto", value_parser = clap::builder::PossibleValuesParser::new(framebus_config::Precision::NAMES))]
    pub(super) precision: String,
    /// What runs the network: auto, openvino or tensorrt.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = ["auto", "openvino", "tensorrt"])]
    pub(super) backend: String,
    /// Batches in work at once; 0 = the backend decides.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub(super) contexts: u8,
    /// CPU threads of the engine; 0 = the backend decides.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(super) threads: u16,
}

impl ModelArgs {
    /// The model's file, absolute.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        let model = match &self.model {
            Some(model) => model.clone(),
            None => crate::cmd::models::default_model()?,
        };
        Ok(std::path::absolute(&model).unwrap_or(model))
    }

    /// The backend as `model.backend` has it.
    pub(super) fn backend_toml(&self) -> String {
        match self.backend.as_str() {
            "auto" => "\"auto\"".to_owned(),
            name => format!("[\"{name}\"]"),
        }
    }

    pub(super) fn options(&self, mode: Mode, as_is: bool) -> LoadOptions {
        let side = |text: &str| text.parse().ok();
        let fixed = self.input.split_once('x').and_then(|(height, width)| {
            Some(InputShape::Fixed(Shape { height: side(height)?, width: side(width)? }))
        });
        LoadOptions {
            precision: match self.precision.as_str() {
                "f32" => Precision::F32,
                "bf16" => Precision::Bf16,
                "f16" => Precision::F16,
                _ => Precision::Auto,
            },
            input: fixed.unwrap_or_default(),
            mode,
            contexts: self.contexts.into(),
            threads: self.threads.into(),
            as_is,
            cache: framebus_model::cache_folder(),
            ..LoadOptions::new(clock::monotonic_ns)
        }
    }
}

/// Name of a precision as in the configuration.
pub(super) fn precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Auto => "auto",
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::F16 => "f16",
    }
}

/// Name of a mode as in the configuration.
pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Latency => "latency",
        Mode::Throughput => "throughput",
    }
}

/// A loaded network whose contexts are called with nothing around them.
pub(super) struct Bare {
    pub(super) info: EngineInfo,
    pub(super) shape: Shape,
    contexts: Vec<Box<dyn Context>>,
    /// Behind the contexts, which are its own.
    _engine: Box<dyn Engine>,
}

impl Bare {
    /// Loads the model for frames of `width` x `height` pixels and runs each context
    /// once, so that its input holds a letterboxed picture. With `as_is` its head is not
    /// cut off.
    pub(super) fn load(
        model: &Path,
        args: &ModelArgs,
        (load_mode, as_is): (Mode, bool),
        (width, height): (usize, usize),
    ) -> Result<Self, Failure> {
        let model = Model::open(model).or_fail(Kind::Config)?;
        let order = [args.backend.clone()];
        let (mut engine, _) = load_first(&order, &model, &args.options(load_mode, as_is)).map_err(
            |error| match error {
                EngineError::Unsupported { .. } => Failure::new(Kind::Config, error),
                other => Failure::new(Kind::Unavailable, other),
            },
        )?;
        let info = engine.info().clone();
        let shape = info.shapes.shape_for(width, height);
        let mut contexts = engine.contexts(shape).or_fail(Kind::Unavailable)?;
        if contexts.is_empty() {
            return Err(Failure::message(Kind::Bug, "the engine has no execution context"));
        }
        let picture = super::picture::noise(width, height, 0);
        let (y, uv) = picture.split_at(width * height);
        let planes = Planes::Nv12 { y, y_stride: width, uv, uv_stride: width };
        let view = FrameView::new(width, height, planes, Colour::default()).or_fail(Kind::Bug)?;
        let thresholds =
            Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
        let request = FrameRequest { view, thresholds: &thresholds, memory: None };
        let mut output = BatchOutput::default();
        for context in &mut contexts {
            context.run(&[request], &mut output).or_fail(Kind::Unavailable)?;
        }
        Ok(Self { info, shape, contexts, _engine: engine })
    }

    /// Contexts in use.
    pub(super) fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// Frames a second with every context busy for `span`.
    pub(super) fn throughput(&mut self, span: Duration) -> Result<f64, Failure> {
        let start_ns = clock::monotonic_ns();
        let end_ns = start_ns + SETTLE_NS + span.as_nanos() as u64;
        let ends = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .contexts
                .iter_mut()
                .map(|context| {
                    scope.spawn(move || {
                        let mut ends = Vec::new();
                        loop {
                            context.infer_only()?;
                            let now_ns = clock::monotonic_ns();
                            if now_ns >= end_ns {
                                return Ok(ends);
                            }
                            if now_ns >= start_ns + SETTLE_NS {
                                ends.push(now_ns);
                            }
                        }
                    })
                })
                .collect();
            let mut all = Vec::new();
            for worker in workers {
                let ends: Result<Vec<u64>, EngineError> = worker
                    .join()
                    .map_err(|_| Failure::message(Kind::Bug, "an engine thread panicked"))?;
                all.extend(ends.or_fail(Kind::Unavailable)?);
            }
            Ok::<_, Failure>(all)
        });
        rate(&mut ends?).ok_or_else(|| {
            Failure::message(
                Kind::Unavailable,
                format_args!("no two inferences within {span:?}: choose longer --seconds"),
            )
        })
    }

    /// Latencies of one context, ms: one call after the other, or one each `period`.
    pub(super) fn latency(
        &mut self,
        span: Duration,
        period: Option<Duration>,
    ) -> Result<Vec<f64>, Failure> {
        let start_ns = clock::monotonic_ns();
        let end_ns = start_ns + SETTLE_NS + span.as_nanos() as u64;
        let mut next_ns = start_ns;
        let mut found = Vec::new();
        loop {
            let before_ns = clock::monotonic_ns();
            self.contexts[0].infer_only().or_fail(Kind::Unavailable)?;
            let after_ns = clock::monotonic_ns();
            if before_ns >= start_ns + SETTLE_NS {
                found.push((after_ns - before_ns) as f64 / 1e6);
            }
            if after_ns >= end_ns && !found.is_empty() {
                return Ok(found);
            }
            if let Some(period) = period {
                next_ns += period.as_nanos() as u64;
                let wait_ns = next_ns.saturating_sub(clock::monotonic_ns());
                let _ = Shutdown::new().wait(Duration::from_nanos(wait_ns));
            }
        }
    }

    /// What is measured, for the JSON of every benchmark.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "model": self.info.model, "backend": self.info.backend, "device": self.info.device,
            "version": self.info.version, "precision": precision(self.info.precision),
            "input": self.shape.to_string(), "mode": mode(self.info.mode),
            "contexts": self.contexts(),
        })
    }

    /// The same for people.
    pub(super) fn line(&self) -> String {
        let info = &self.info;
        format!(
            "{} {} {} on {} ({} {}), {} mode, {} contexts",
            info.model,
            self.shape,
            precision(info.precision),
            info.device,
            info.backend,
            info.version,
            mode(info.mode),
            self.contexts()
        )
    }
}
