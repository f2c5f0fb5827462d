//! From a model to the engine for one input: out of the store, or built.

use super::artifact::{Kept, Key, Missing, Store};
use super::here::Here;
use super::reference::Reference;
use super::{NAME, failed, unavailable};
use crate::api::{EngineError, LoadOptions, Precision, Shape};
use crate::building::{Build, Built, Progress};
use crate::plan::Plan;
use framebus_cuda::Device;
use framebus_model::{Element, Model, OutputLayout, Typed, digest};
use framebus_tensorrt::{BuildRequest, Profile, ProfileInput};
use std::ffi::CString;
use std::time::Duration;

/// Largest batch that `max_batch = 0` stands for: beyond it frames wait longer for each
/// other than the GPU gains.
const MAX_BATCH: usize = 16;

/// Makes the engines of one model.
#[derive(Debug)]
pub(super) struct Builder {
    here: Here,
    options: LoadOptions,
    model: Model,
    /// What TensorRT is given.
    typed: Typed,
    digest: String,
    precision: Precision,
    max_batch: usize,
    store: Store,
}

impl Builder {
    pub(super) fn new(
        plan: &Plan,
        here: &Here,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let model = &plan.model;
        let (typed, precision) = typed(model, options.precision)?;
        let max_batch = match (model.batch(), options.tensorrt.max_batch) {
            (Some(batch), _) => batch,
            // Rounded up, so that one camera more does not need another engine.
            (None, 0) => options.cameras.clamp(1, MAX_BATCH).next_power_of_two(),
            (None, wanted) => wanted,
        };
        Ok(Self {
            digest: digest(&typed.bytes),
            here: here.clone(),
            options: options.clone(),
            model: model.clone(),
            typed,
            precision,
            max_batch,
            store: Store::open(options.cache.as_deref()),
        })
    }

    /// Arithmetic of the network's body; [`Precision::Auto`] where the model says it
    /// itself, layer by layer.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Largest batch of the engines.
    pub(super) fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// The engine for `shape`: kept, or built where the options allow it.
    pub(super) fn engine(&self, shape: Shape) -> Result<Kept, EngineError> {
        let key = self.key(shape);
        match self.store.read(&key) {
            Ok(kept) => Ok(kept),
            Err(missing) if self.options.build == Build::Later => {
                Err(self.not_built(shape, missing.reason()))
            }
            Err(missing) => {
                self.tell_damaged(&missing);
                self.build(&key, shape).map(|(kept, _)| kept)
            }
        }
    }

    /// A kept engine does not work, whatever its checksum says: another one in its place.
    pub(super) fn engine_again(&self, shape: Shape, bad: &Kept) -> Result<Kept, EngineError> {
        self.store.discard(bad);
        self.engine(shape)
    }

    /// From now on engines are built when they are needed: somebody waits for them who can.
    pub(super) fn build_now(&mut self) {
        self.options.build = Build::Now;
    }

    /// Sees to it that the engine for `shape` is kept.
    pub(super) fn ensure(&self, shape: Shape, again: bool) -> Result<Built, EngineError> {
        let key = self.key(shape);
        if !again {
            match self.store.read(&key) {
                Ok(Kept { engine, file, .. }) => {
                    return Ok(Built { shape, file: Ok(file), bytes: engine.len(), took: None });
                }
                Err(missing) => self.tell_damaged(&missing),
            }
        }
        let begin_ns = (self.options.clock)();
        let (kept, file) = self.build(&key, shape)?;
        let took = Duration::from_nanos((self.options.clock)().saturating_sub(begin_ns));
        Ok(Built { shape, file, bytes: kept.engine.len(), took: Some(took) })
    }

    fn key(&self, shape: Shape) -> Key {
        let model = (self.model.name(), &*self.digest);
        let (machine, settings) = (self.here.machine(), &self.options.tensorrt);
        Key::new(model, &machine, settings, self.precision, (shape, self.max_batch))
    }

    fn not_built(&self, shape: Shape, reason: &str) -> EngineError {
        EngineError::NotBuilt {
            backend: NAME,
            model: self.model.name().to_owned(),
            shape,
            reason: format!(
                "{reason}; `framebus models build --config FILE --shape {shape}` builds it ahead"
            ),
        }
    }

    fn tell_damaged(&self, missing: &Missing) {
        if let Missing::Damaged(reason) = missing {
            tracing::warn!(
                model = self.model.name(),
                reason,
                "a kept TensorRT engine is not used, it is built anew"
            );
        }
    }

    /// Builds, and keeps where that can be; also answers the file, or why there is none.
    fn build(
        &self,
        key: &Key,
        shape: Shape,
    ) -> Result<(Kept, Result<std::path::PathBuf, String>), EngineError> {
        let Self { here, options, model, .. } = self;
        tracing::info!(
            model = model.name(), input = %shape, max_batch = self.max_batch,
            precision = ?self.precision, gpu = here.gpu.name,
            "building a TensorRT engine, which takes minutes"
        );
        // TensorRT builds for the device of the context that is current.
        let device = Device::open(here.gpu.ordinal).map_err(|error| unavailable(&error))?;
        device.bind().map_err(|error| unavailable(&error))?;
        let timings = self.store.timings(&here.machine());
        let profiles = self.profiles(shape)?;
        let capability = [here.gpu.capability];
        let rtx = here.library.abi() == framebus_tensorrt::Abi::Rtx1;
        let request = BuildRequest {
            onnx: &self.typed.bytes,
            profiles: &profiles,
            workspace_bytes: options
                .tensorrt
                .workspace_mib
                .and_then(|mib| usize::try_from(mib << 20).ok()),
            optimization_level: Some(options.tensorrt.optimization_level),
            timing_cache: timings.as_deref(),
            capabilities: if rtx { &capability } else { &[] },
        };
        let built = here
            .library
            .build(&request, &mut |progress| {
                options.report.as_ref().is_none_or(|report| {
                    report.tell(&Progress {
                        backend: NAME,
                        shape,
                        phase: progress.phase.clone(),
                        fraction: progress.fraction,
                    })
                })
            })
            .map_err(|error| match error {
                framebus_tensorrt::Error::Cancelled => EngineError::NotBuilt {
                    backend: NAME,
                    model: model.name().to_owned(),
                    shape,
                    reason: "building it was stopped".to_owned(),
                },
                error => failed(model.name(), error),
            })?;
        if let Some(timings) = built.timing_cache() {
            self.store.keep_timings(&here.machine(), &timings);
        }
        let reference = Reference::ask(model, shape, options);
        let engine = built.plan().to_vec();
        let file = self.store.write(key, &engine, reference.as_ref());
        match &file {
            Ok(file) => tracing::info!(file = %file.display(), "TensorRT engine built and kept"),
            Err(reason) => tracing::warn!(
                reason,
                "the TensorRT engine is not kept and will be built at each start"
            ),
        }
        let path = file.clone().unwrap_or_default();
        Ok((Kept { engine, reference, file: path, was_kept: false }, file))
    }

    /// What may vary of the input: the batch, where the model leaves it free.
    fn profiles(&self, shape: Shape) -> Result<Vec<Profile>, EngineError> {
        let input = self.model.input();
        if input.shape.iter().all(|dim| dim.fixed().is_some()) {
            return Ok(Vec::new());
        }
        let name = CString::new(input.name.as_str())
            .map_err(|_| failed(self.model.name(), "its input's name holds a NUL"))?;
        let of = |batch: usize| vec![batch as i64, 3, shape.height as i64, shape.width as i64];
        let least = self.model.batch().unwrap_or(1);
        let usual = least.max(self.max_batch.div_ceil(2));
        let input = ProfileInput { name, min: of(least), opt: of(usual), max: of(self.max_batch) };
        Ok(vec![Profile { inputs: vec![input] }])
    }
}

/// The model in the types that it is computed in. 16 bits are a GPU's best; a model that
/// says its types itself keeps them.
fn typed(model: &Model, wanted: Precision) -> Result<(Typed, Precision), EngineError> {
    let unsupported = |reason: String| EngineError::Unsupported {
        backend: NAME,
        model: model.name().to_owned(),
        reason,
    };
    let (element, precision) = match wanted {
        Precision::Auto | Precision::F16 => (Element::F16, Precision::F16),
        Precision::F32 => (Element::F32, Precision::F32),
        Precision::Bf16 => {
            return Err(unsupported(
                "it computes in f16 or f32; take \"auto\" for model.precision".to_owned(),
            ));
        }
    };
    let typed = match model.typed(element) {
        Ok(typed) => typed,
        Err(error) if wanted == Precision::Auto && element == Element::F16 => {
            tracing::warn!(
                model = model.name(),
                reason = %error,
                whole = model.layout() != OutputLayout::Heads,
                "the model runs in f32: it cannot be written with 16 bits"
            );
            let typed =
                model.typed(Element::F32).map_err(|error| unsupported(error.to_string()))?;
            return Ok((typed, Precision::F32));
        }
        Err(error) => return Err(unsupported(error.to_string())),
    };
    let precision = if typed.quantised { Precision::Auto } else { precision };
    Ok((typed, precision))
}
