//! From a model file to contexts that have run once.

use super::context::{Decode, OpenVinoContext};
use super::probe::Loaded;
use super::{NAME, OpenVinoEngine, describe, message};
use crate::api::{
    BatchOutput, Context, EngineError, EngineInfo, FrameRequest, InputShape, LoadOptions, Mode,
    Precision, Shape, ShapePolicy, Thresholds,
};
use framebus_model::{Dim, Model};
use framebus_vision::{Colour, FrameView, Planes};
use openvino::{
    CompiledModel, Core, DeviceType, InferenceError, PartialShape, PropertyKey, RwPropertyKey,
};

/// Side of the input of a dynamic model whose metadata names none: what
/// Ultralytics trains and exports with by default.
const DEFAULT_SIDE: usize = 640;

/// Longest side accepted; an input of 16384x16384 would take 3 GiB.
const MAX_SIDE: usize = 8192;

/// Grey of the warm-up picture, as the letterbox pads with.
const GREY: u8 = 114;

/// Height and width that the network will have.
pub(super) fn input_size(model: &Model, wanted: InputShape) -> Result<(usize, usize), EngineError> {
    let refuse =
        |reason| EngineError::Unsupported { backend: NAME, model: model.name().to_owned(), reason };
    if let Some(batch) = model.batch().filter(|&batch| batch != 1) {
        return Err(refuse(format!(
            "it was exported for batches of {batch}; export it with batch=1 or dynamic=True"
        )));
    }
    let fixed = |index: usize| model.input().shape.get(index).and_then(Dim::fixed);
    let free = model.image_size().unwrap_or((DEFAULT_SIDE, DEFAULT_SIDE));
    let own = (fixed(2).unwrap_or(free.0), fixed(3).unwrap_or(free.1));
    let (height, width) = match wanted {
        InputShape::Auto => own,
        InputShape::Fixed(shape) => (shape.height, shape.width),
    };
    let differs = |have: Option<usize>, want: usize| have.is_some_and(|have| have != want);
    if differs(fixed(2), height) || differs(fixed(3), width) {
        return Err(refuse(format!(
            "it was exported for {}x{} (height x width), {height}x{width} is wanted; export it \
             with dynamic=True or use --input {}x{}",
            own.0, own.1, own.0, own.1
        )));
    }
    let stride = model.stride();
    if height == 0 || width == 0 || height % stride != 0 || width % stride != 0 {
        return Err(refuse(format!(
            "its input must be multiples of {stride} pixels, {height}x{width} is not; the nearest \
             is {}x{}",
            nearest(height, stride),
            nearest(width, stride)
        )));
    }
    if height > MAX_SIDE || width > MAX_SIDE {
        return Err(refuse(format!(
            "an input of {height}x{width} is too large; at most {MAX_SIDE} pixels a side"
        )));
    }
    Ok((height, width))
}

fn nearest(side: usize, stride: usize) -> usize {
    ((side.saturating_add(stride / 2)) / stride * stride).max(stride)
}

/// Compiles for one device, makes the contexts and runs each once.
pub(super) fn load(
    model: &Model,
    options: &LoadOptions,
    (height, width): (usize, usize),
    device: &DeviceType<'_>,
    loaded: &Loaded,
) -> Result<OpenVinoEngine, EngineError> {
    let failed = |reason: String| EngineError::Load {
        backend: NAME,
        model: model.name().to_owned(),
        reason,
    };
    let lib = |error: InferenceError| failed(message(&error));
    // A core of its own, so that properties of one model are not another's.
    let mut core = Core::new().map_err(|error| failed(error.to_string()))?;
    set_properties(&mut core, device, options).map_err(lib)?;
    let mut compiled = compile(&mut core, model, (height, width), device, &failed)?;

    let decode = Decode::new(model, height, width);
    let wanted = context_count(&compiled, options);
    let mut contexts: Vec<OpenVinoContext> = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let request = compiled.create_infer_request().map_err(lib)?;
        contexts.push(OpenVinoContext::new(request, decode, options.clock).map_err(failed)?);
    }
    let mut warm: Vec<Box<dyn Context>> = Vec::with_capacity(wanted);
    for mut context in contexts {
        warm_up(&mut context, height, width)
            .map_err(|error| failed(format!("the self-check failed: {error}")))?;
        warm.push(Box::new(context));
    }
    let info = EngineInfo {
        backend: NAME,
        device: describe(&core, device),
        version: loaded.version.clone(),
        model: model.name().to_owned(),
        precision: precision_in_use(&compiled, options.precision),
        shapes: ShapePolicy::Fixed(Shape { height, width }),
        base: Shape { height, width },
        mode: options.mode,
        contexts: wanted,
        max_batch: 1,
        labels: model.labels().to_vec(),
    };
    if options.precision != Precision::Auto && options.precision != info.precision {
        tracing::warn!(
            wanted = ?options.precision,
            used = ?info.precision,
            device = info.device,
            "this device does not compute in the precision that was asked for"
        );
    }
    Ok(OpenVinoEngine { info, contexts: warm })
}

fn compile(
    core: &mut Core,
    model: &Model,
    (height, width): (usize, usize),
    device: &DeviceType<'_>,
    failed: &impl Fn(String) -> EngineError,
) -> Result<CompiledModel, EngineError> {
    let lib = |error: InferenceError| failed(message(&error));
    // The library takes a C string of UTF-8.
    let path = model
        .path()
        .to_str()
        .filter(|path| !path.contains('\0'))
        .ok_or_else(|| failed("its path is not UTF-8; rename the file or folder".to_owned()))?;
    let mut network = core.read_model_from_file(path, "").map_err(lib)?;
    if model.input().shape.iter().any(|dim| dim.fixed().is_none()) {
        let shape = [1, 3, height as i64, width as i64];
        let shape = PartialShape::new_static(4, &shape).map_err(lib)?;
        let name = model.input().name.as_str();
        if name.contains('\0') {
            return Err(failed("its input's name holds a NUL".to_owned()));
        }
        network.reshape_input_by_name(name, &shape).map_err(|error| EngineError::Unsupported {
            backend: NAME,
            model: model.name().to_owned(),
            reason: format!(
                "it says that its input is free but does not take {height}x{width} ({}); export it \
                 again with dynamic=True, or for this size",
                message(&error)
            ),
        })?;
    }
    core.compile_model(&network, device.to_owned()).map_err(lib)
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
    let is_cpu = *device == DeviceType::CPU;
    if options.threads > 0 && is_cpu {
        set(RwPropertyKey::InferenceNumThreads, &options.threads.to_string())?;
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

/// One picture through the whole path: memory is touched, kernels are built, and
/// an engine that answers NaN or another shape is refused before it goes live.
fn warm_up(context: &mut OpenVinoContext, height: usize, width: usize) -> Result<(), EngineError> {
    let pixels = vec![GREY; 3 * width * height];
    let planes = Planes::Rgb24 { data: &pixels, stride: 3 * width };
    let view = FrameView::new(width, height, planes, Colour::default()).map_err(|error| {
        EngineError::Run { backend: NAME, stage: "warm-up", reason: error.to_string() }
    })?;
    let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
    let request = FrameRequest { view, thresholds: &thresholds };
    context.run(&[request], &mut BatchOutput::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_model::testing::{TinyDetector, tiny_detector};
    use std::path::Path;

    fn size(bytes: Vec<u8>, wanted: InputShape) -> Result<(usize, usize), String> {
        let model = Model::from_bytes(Path::new("yolo.onnx"), bytes).unwrap();
        input_size(&model, wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn static_models_keep_their_size() {
        let model = tiny_detector(1, Some((96, 128)));
        assert_eq!(size(model.clone(), InputShape::Auto), Ok((96, 128)));
        let same = InputShape::Fixed(Shape { height: 96, width: 128 });
        assert_eq!(size(model.clone(), same), Ok((96, 128)));
        let other = InputShape::Fixed(Shape { height: 128, width: 128 });
        assert_eq!(
            size(model, other).unwrap_err(),
            "openvino cannot run model yolo: it was exported for 96x128 (height x width), 128x128 \
             is wanted; export it with dynamic=True or use --input 96x128"
        );
    }

    #[test]
    fn dynamic_models_take_the_metadata_or_640() {
        assert_eq!(size(tiny_detector(1, None), InputShape::Auto), Ok((640, 640)));
        let named = TinyDetector::new(1, None).with_metadata("imgsz", "[384, 640]").build();
        assert_eq!(size(named, InputShape::Auto), Ok((384, 640)));
        let wanted = InputShape::Fixed(Shape { height: 64, width: 96 });
        assert_eq!(size(tiny_detector(1, None), wanted), Ok((64, 96)));
    }

    #[test]
    fn sizes_must_be_multiples_of_the_stride() {
        let wanted = InputShape::Fixed(Shape { height: 360, width: 640 });
        let text = size(tiny_detector(1, None), wanted).unwrap_err();
        assert!(text.contains("multiples of 32 pixels, 360x640 is not"), "{text}");
        assert!(text.contains("the nearest is 352x640"), "{text}");
        for (height, width) in [(0, 32), (usize::MAX - 31, 32), (32 * 1024, 32)] {
            assert!(
                size(tiny_detector(1, None), InputShape::Fixed(Shape { height, width })).is_err()
            );
        }
    }
}
