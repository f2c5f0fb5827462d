//! A model on a GPU: an engine and its lanes for each input.

use super::artifact::Kept;
use super::builder::Builder;
use super::context::TensorRtContext;
use super::here::Here;
use super::network::TensorRtNetwork;
use super::{NAME, failed, unavailable};
use crate::answer::{MAX_SCALES, anchors, whole};
use crate::api::{Context, Engine, EngineError, EngineInfo, Head, LoadOptions, Mode, Shape};
use crate::hand_out::HandOut;
use crate::plan::Plan;
use framebus_cuda::{BufferSet, Device, Element, Lane, Outputs, Scale, Spec};
use framebus_model::OutputLayout;
use framebus_tensorrt::{DataType, Io, Runtime, Tensor};
use std::ffi::CString;

/// Contexts that share a lane: the frames of one batch travel while the network works on
/// another one's.
const SETS: usize = 2;

/// A model on a GPU.
pub(super) struct TensorRtEngine {
    info: EngineInfo,
    plan: Plan,
    builder: Builder,
    options: LoadOptions,
    device: Device,
    runtime: Runtime,
    hand_out: HandOut,
}

impl TensorRtEngine {
    /// Loads the plan's base shape, makes its contexts and runs each.
    pub(super) fn load(
        plan: Plan,
        builder: Builder,
        here: &Here,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let name = plan.model.name();
        let device = Device::open(here.gpu.ordinal).map_err(|error| unavailable(&error))?;
        device.bind().map_err(|error| unavailable(&error))?;
        let runtime = here.library.runtime().map_err(|error| unavailable(&error))?;
        let contexts = match (options.contexts, options.mode) {
            (0, Mode::Latency) => SETS,
            (0, Mode::Throughput) => 2 * SETS,
            (contexts, _) => contexts,
        };
        let info = EngineInfo {
            backend: NAME,
            device: here.device(),
            version: here.version(),
            model: name.to_owned(),
            precision: builder.precision(),
            head: match plan.model.layout() {
                OutputLayout::Heads => Head::Cut,
                _ => Head::Whole,
            },
            shapes: plan.shapes,
            base: plan.base,
            mode: options.mode,
            contexts,
            max_batch: builder.max_batch(),
            labels: plan.model.labels().to_vec(),
            returns: false,
        };
        let hand_out = HandOut::new(info.base, Vec::new());
        let options = options.clone();
        let mut engine = Self { info, plan, builder, options, device, runtime, hand_out };
        let base = engine.info.base;
        engine.hand_out = HandOut::new(base, engine.make_contexts(base)?);
        // Inputs of other shapes come later, while this one runs.
        engine.builder.build_now();
        Ok(engine)
    }

    /// The contexts for `shape`; an engine out of the store that does not load, or answers
    /// wrongly, is built once more.
    fn make_contexts(&self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        // TensorRT works on the device of the context that is current, and this may be
        // another thread than the one before.
        self.device.bind().map_err(|error| unavailable(&error))?;
        let kept = self.builder.engine(shape)?;
        match self.contexts_of(shape, &kept) {
            Err(EngineError::Load { reason, .. }) if kept.was_kept => {
                tracing::warn!(file = %kept.file.display(), reason, "a kept TensorRT engine does not work");
                let kept = self.builder.engine_again(shape, &kept)?;
                self.contexts_of(shape, &kept)
            }
            done => done,
        }
    }

    /// [`EngineError::Load`] when the engine itself is bad, others for what is not its fault.
    fn contexts_of(&self, shape: Shape, kept: &Kept) -> Result<Vec<Box<dyn Context>>, EngineError> {
        let name = self.plan.model.name();
        let text = |error: framebus_tensorrt::Error| failed(name, error);
        let engine = self.runtime.deserialize(&kept.engine).map_err(text)?;
        let tensors = engine.tensors().map_err(text)?;
        let mut contexts: Vec<TensorRtContext> = Vec::with_capacity(self.info.contexts);
        while contexts.len() < self.info.contexts {
            // An engine that was read has contexts, unless there is no memory for them.
            let mut execution = engine.context().map_err(|error| unavailable(&error))?;
            let bound = Bound::new(self, shape, &tensors, &mut execution)
                .map_err(|reason| failed(name, reason))?;
            let network =
                TensorRtNetwork::new(execution, bound.input, bound.free, bound.output_names);
            let cuda = |error: framebus_cuda::CudaError| unavailable(&error);
            let lane = Lane::new(&self.device, network).map_err(cuda)?;
            let sets = SETS.min(self.info.contexts - contexts.len());
            for _ in 0..sets {
                let set = BufferSet::new(&self.device, &lane, bound.spec.clone()).map_err(cuda)?;
                let (most, clock) = (self.info.max_batch, self.options.clock);
                let context = TensorRtContext::new(set, shape, most, &self.plan.model, clock)
                    .map_err(|reason| failed(name, reason))?;
                contexts.push(context);
            }
        }
        // Twice: what one context of a lane sets up must not change the other's answers.
        for _ in 0..2 {
            for context in &mut contexts {
                context.self_check(kept.reference.as_ref()).map_err(|error| match error {
                    wrong @ EngineError::Run { stage: "self-check" | "decode", .. } => {
                        failed(name, format!("the self-check failed: {wrong}"))
                    }
                    gpu => unavailable(&gpu),
                })?;
            }
        }
        let boxed = |context| Box::new(context) as Box<dyn Context>;
        Ok(contexts.into_iter().map(boxed).collect())
    }
}

impl Engine for TensorRtEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        if let Some(ready) = self.hand_out.ready(shape) {
            return Ok(ready);
        }
        self.plan.accepts(shape)?;
        let contexts = self.make_contexts(shape)?;
        self.hand_out.made(shape);
        Ok(contexts)
    }
}

/// An engine's tensors, checked against the model.
struct Bound {
    input: CString,
    free: Option<[i64; 4]>,
    output_names: Vec<CString>,
    spec: Spec,
}

impl Bound {
    fn new(
        engine: &TensorRtEngine,
        shape: Shape,
        tensors: &[Tensor],
        execution: &mut framebus_tensorrt::ExecutionContext,
    ) -> Result<Self, String> {
        let model = &engine.plan.model;
        let max_batch = engine.info.max_batch;
        let find = |name: &str, io: Io| {
            let same =
                |tensor: &&Tensor| tensor.io == io && tensor.name.to_bytes() == name.as_bytes();
            tensors.iter().find(same).ok_or_else(|| format!("the engine has no tensor '{name}'"))
        };
        let input = find(&model.input().name, Io::Input)?;
        let sides = [max_batch as i64, 3, shape.height as i64, shape.width as i64];
        let fits = |&(have, want): &(i64, i64)| have == want || have == -1;
        let pairs: Vec<(i64, i64)> = input.shape.iter().copied().zip(sides).collect();
        if input.shape.len() != 4 || !pairs.iter().all(fits) {
            return Err(format!("the engine's input is {:?}, not {sides:?}", input.shape));
        }
        let free = input.shape.contains(&-1).then_some(sides);
        if free.is_some() {
            execution.set_input_shape(&input.name, &sides).map_err(|error| error.to_string())?;
        }
        let mut output_names = Vec::new();
        let mut bind = |name: &str| {
            let tensor = find(name, Io::Output)?;
            let shape = execution.tensor_shape(&tensor.name).map_err(|error| error.to_string())?;
            output_names.push(tensor.name.clone());
            Ok::<_, String>((shape, element(tensor)?))
        };
        let outputs = match whole(model.layout()) {
            None => {
                let scales = model.heads();
                if scales.len() > MAX_SCALES {
                    return Err(format!("the head has {} scales", scales.len()));
                }
                let (bins, classes) = (model.bins(), model.classes());
                let mut kinds = Vec::new();
                for head in scales {
                    let (h, w) = (shape.height / head.stride, shape.width / head.stride);
                    for (name, channels) in [(&head.boxes, 4 * bins), (&head.classes, classes)] {
                        let (found, element) = bind(name)?;
                        let expected = [max_batch, channels, h, w].map(|side| side as i64);
                        if found != expected {
                            return Err(format!("output '{name}' is {found:?}, not {expected:?}"));
                        }
                        kinds.push(element);
                    }
                }
                let &element = kinds.first().ok_or("the head has no scale")?;
                if kinds.iter().any(|&kind| kind != element) {
                    return Err("the outputs have several types".to_owned());
                }
                let scale = |head: &framebus_model::HeadScale| Scale {
                    height: shape.height / head.stride,
                    width: shape.width / head.stride,
                    stride: head.stride,
                };
                let scales = scales.iter().map(scale).collect();
                Outputs::Heads { scales, bins, classes, element }
            }
            Some(layout) => {
                let output = model.outputs().first().ok_or("the model has no output")?;
                let (found, element) = bind(&output.name)?;
                anchors(layout, model.classes(), max_batch, &found)?;
                let values = found.iter().skip(1).product::<i64>();
                let values = usize::try_from(values).map_err(|_| format!("{found:?}"))?;
                Outputs::Whole { values: vec![values], element }
            }
        };
        let spec = Spec {
            height: shape.height,
            width: shape.width,
            input: element(input)?,
            max_batch,
            outputs,
            graphs: engine.options.tensorrt.graphs,
        };
        Ok(Self { input: input.name.clone(), free, output_names, spec })
    }
}

fn element(tensor: &Tensor) -> Result<Element, String> {
    match tensor.data_type {
        DataType::F32 => Ok(Element::F32),
        DataType::F16 => Ok(Element::F16),
        other => {
            Err(format!("tensor '{}' is {other:?}, not f16 or f32", tensor.name.to_string_lossy()))
        }
    }
}
