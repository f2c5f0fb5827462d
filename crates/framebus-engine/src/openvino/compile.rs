//! From a plan to contexts that have run once.

use super::context::OpenVinoContext;
use super::probe::Loaded;
use super::{NAME, describe, message};
use crate::api::{
    Context, Engine, EngineError, EngineInfo, Head, LoadOptions, Mode, Precision, Shape,
};
use crate::hand_out::HandOut;
use crate::plan::Plan;
use framebus_model::OutputLayout;
use openvino::{
    CompiledModel, Core, DeviceType, InferenceError, Model as Network, PartialShape, PropertyKey,
    RwPropertyKey,
};

/// A model on a device, compiled for one shape after the other.
pub(super) struct OpenVinoEngine {
    info: EngineInfo,
    plan: Plan,
    options: LoadOptions,
    device: DeviceType<'static>,
    /// Its own, so that properties of one model are not another's.
    core: Core,
    hand_out: HandOut,
}

impl OpenVinoEngine {
    /// Compiles the plan's base shape for `device`, makes its contexts and runs each.
    pub(super) fn load(
        plan: Plan,
        options: &LoadOptions,
        device: &DeviceType<'_>,
        loaded: &Loaded,
    ) -> Result<Self, EngineError> {
        let failed = |reason| failed(&plan, reason);
        let lib = |error: InferenceError| failed(message(&error));
        let mut core = Core::new().map_err(|error| failed(error.to_string()))?;
        set_properties(&mut core, device, options).map_err(lib)?;
        let mut compiled = compile(&mut core, &plan, plan.base, device)?;
        let contexts = context_count(&compiled, options);
        let ready = make_contexts(&mut compiled, &plan, plan.base, contexts, options)?;
        let info = EngineInfo {
            backend: NAME,
            device: describe(&core, device),
            version: release(&loaded.version).to_owned(),
            model: plan.model.name().to_owned(),
            precision: precision_in_use(&compiled, options.precision),
            head: match plan.model.layout() {
                OutputLayout::Heads => Head::Cut,
                _ => Head::Whole,
            },
            shapes: plan.shapes,
            base: plan.base,
            mode: options.mode,
            contexts,
            max_batch: 1,
            labels: plan.model.labels().to_vec(),
            returns: false,
        };
        if options.precision != Precision::Auto && options.precision != info.precision {
            tracing::warn!(
                wanted = ?options.precision,
                used = ?info.precision,
                device = info.device,
                "this device does not compute in the precision that was asked for"
            );
        }
        let hand_out = HandOut::new(info.base, ready);
        Ok(Self { info, plan, options: options.clone(), device: device.to_owned(), core, hand_out })
    }
}

impl Engine for OpenVinoEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        if let Some(ready) = self.hand_out.ready(shape) {
            return Ok(ready);
        }
        self.plan.accepts(shape)?;
        let mut compiled = compile(&mut self.core, &self.plan, shape, &self.device)?;
        let count = self.info.contexts;
        let contexts = make_contexts(&mut compiled, &self.plan, shape, count, &self.options)?;
        self.hand_out.made(shape);
        Ok(contexts)
    }
}

fn failed(plan: &Plan, reason: String) -> EngineError {
    EngineError::Load { backend: NAME, model: plan.model.name().to_owned(), reason }
}

/// Read anew for every shape: what reading takes (20 ms for YOLOv8n) is a small part
/// of compiling, and no second copy of the weights stays in memory.
fn read(core: &mut Core, plan: &Plan) -> Result<Network, EngineError> {
    if let Some(bytes) = plan.model.bytes() {
        return core
            .read_model_from_buffer(bytes, None)
            .map_err(|error| failed(plan, message(&error)));
    }
    // The library takes a C string of UTF-8.
    let path = plan.model.path().to_str().filter(|path| !path.contains('\0')).ok_or_else(|| {
        failed(plan, "its path is not UTF-8; rename the file or folder".to_owned())
    })?;
    core.read_model_from_file(path, "").map_err(|error| failed(plan, message(&error)))
}

fn compile(
    core: &mut Core,
    plan: &Plan,
    shape: Shape,
    device: &DeviceType<'_>,
) -> Result<CompiledModel, EngineError> {
    let lib = |error: InferenceError| failed(plan, message(&error));
    let mut network = read(core, plan)?;
    let input = plan.model.input();
    if input.shape.iter().any(|dim| dim.fixed().is_none()) {
        let sides = [1, 3, shape.height as i64, shape.width as i64];
        let sides = PartialShape::new_static(4, &sides).map_err(lib)?;
        if input.name.contains('\0') {
            return Err(failed(plan, "its input's name holds a NUL".to_owned()));
        }
        network.reshape_input_by_name(&input.name, &sides).map_err(|error| {
            EngineError::Unsupported {
                backend: NAME,
                model: plan.model.name().to_owned(),
                reason: format!(
                    "it says that its input is free but does not take {shape} ({}); export it \
                     again with dynamic=True, or for this size",
                    message(&error)
                ),
            }
        })?;
    }
    core.compile_model(&network, device.to_owned()).map_err(lib)
}

fn make_contexts(
    compiled: &mut CompiledModel,
    plan: &Plan,
    shape: Shape,
    count: usize,
    options: &LoadOptions,
) -> Result<Vec<Box<dyn Context>>, EngineError> {
    let failed = |reason| failed(plan, reason);
    let mut contexts: Vec<Box<dyn Context>> = Vec::with_capacity(count);
    for _ in 0..count {
        let request = compiled.create_infer_request().map_err(|error| failed(message(&error)))?;
        let mut context =
            OpenVinoContext::new(&plan.model, request, shape, (options.mode, options.clock))
                .map_err(failed)?;
        context.self_check().map_err(|error| failed(format!("the self-check failed: {error}")))?;
        contexts.push(Box::new(context));
    }
    Ok(contexts)
}

fn set_properties(
    core: &mut Core,
    device: &DeviceType<'_>,
    options: &LoadOptions,
) -> Result<(), InferenceError> {
    let mut set = |key: RwPropertyKey, value: &str| core.set_property(device, &key, value);
    let hint = match options.mode {
        Mode::Latency => "LATENCY",
        Mode::Throughput => "THROUGHPUT",
    };
    set(RwPropertyKey::HintPerformanceMode, hint)?;
    let precision = match options.precision {
        Precision::Auto => None,
        Precision::F32 => Some("f32"),
        Precision::Bf16 => Some("bf16"),
        Precision::F16 => Some("f16"),
    };
    if let Some(precision) = precision {
        set(RwPropertyKey::HintInferencePrecision, precision)?;
    }
    if *device == DeviceType::CPU {
        // With one stream all of its threads share each layer: one that is bound to a core
        // where something else runs, decoding for example, holds up the others (measured:
        // up to 1.4 times the time). Streams of their own only wait for themselves, and
        // stay in their caches when they are bound.
        let pin = if options.mode == Mode::Throughput { "YES" } else { "NO" };
        set(RwPropertyKey::HintEnableCpuPinning, pin)?;
        if options.threads > 0 {
            set(RwPropertyKey::InferenceNumThreads, &options.threads.to_string())?;
        }
    }
    if options.contexts > 0 && options.mode == Mode::Throughput {
        set(RwPropertyKey::NumStreams, &options.contexts.to_string())?;
    }
    Ok(())
}

fn context_count(compiled: &CompiledModel, options: &LoadOptions) -> usize {
    match (options.contexts, options.mode) {
        (0, Mode::Latency) => 1,
        (0, Mode::Throughput) => compiled
            .get_property(&PropertyKey::OptimalNumberOfInferRequests)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|&count| count > 0)
            .unwrap_or(1),
        (count, _) => count,
    }
}

fn precision_in_use(compiled: &CompiledModel, wanted: Precision) -> Precision {
    let key = PropertyKey::Rw(RwPropertyKey::HintInferencePrecision);
    match compiled.get_property(&key).as_deref().map(str::trim) {
        Ok("f32") => Precision::F32,
        Ok("bf16") => Precision::Bf16,
        Ok("f16") => Precision::F16,
        _ => wanted,
    }
}

/// `2026.4.1-22982-…` → `2026.4.1`.
fn release(version: &str) -> &str {
    version.split_once('-').map_or(version, |(release, _)| release)
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn versions_are_shown_by_their_release() {
        assert_eq!(release("2026.4.1-22982-0123abc-releases/2026/4"), "2026.4.1");
        assert_eq!(release("custom_build"), "custom_build");
    }
}
