//! The network's outputs, from the request's memory to boxes.

use super::message;
use crate::answer::{MAX_SCALES, anchors, judge, largest, whole};
use framebus_model::Model;
use framebus_vision::{
    Counts, DenseOutput, Detection, HeadOutput, HeadScale, Layout, Letterbox, Postprocess,
    Thresholds,
};
use openvino::{ElementType, InferRequest, InferenceError, Tensor};

const NO_SCALE: HeadScale<'static> =
    HeadScale { boxes: &[], classes: &[], width: 0, height: 0, stride: 1 };

/// The outputs of one request.
pub(super) enum Outputs {
    /// Boxes and scores in one tensor.
    Whole(Whole),
    /// Raw maps, two a scale.
    Heads(Heads),
}

impl Outputs {
    /// Binds the outputs of a request whose input is `height` x `width`.
    pub(super) fn new(
        model: &Model,
        request: &InferRequest,
        (height, width): (usize, usize),
    ) -> Result<Self, String> {
        match whole(model.layout()) {
            Some(layout) => Ok(Self::Whole(Whole { layout, classes: model.classes() })),
            None => Heads::new(model, request, (height, width)).map(Self::Heads),
        }
    }

    /// Boxes of the last inference, and how many values were read.
    pub(super) fn decode(
        &self,
        request: &InferRequest,
        postprocess: &mut Postprocess,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
        out: &mut Vec<Detection>,
    ) -> Result<(Counts, usize), String> {
        match self {
            Self::Whole(whole) => whole.with(request, |values, anchors| {
                let dense = DenseOutput::new(values, whole.layout, whole.classes, anchors)?;
                Ok((postprocess.run(dense, thresholds, letterbox, out)?, values.len()))
            })?,
            Self::Heads(heads) => {
                let mut scales = [NO_SCALE; MAX_SCALES];
                for (slot, scale) in scales.iter_mut().zip(&heads.scales) {
                    *slot = scale.view().map_err(|error| message(&error))?;
                }
                let scales = &scales[..heads.scales.len()];
                HeadOutput::new(scales, heads.classes, heads.bins)
                    .and_then(|output| postprocess.run_heads(output, thresholds, letterbox, out))
                    .map(|counts| (counts, heads.values))
            }
        }
        .map_err(|error: framebus_vision::DecodeError| error.to_string())
    }

    /// What only shows after an inference: the outputs still lie where they were
    /// bound, and numbers were written there. The bindings clear them at first.
    pub(super) fn check(&self, request: &InferRequest) -> Result<(), String> {
        let (largest, suppresses) = match self {
            Self::Whole(whole) => {
                let largest = whole.with(request, |values, _| largest(values))?;
                (largest, whole.layout == Layout::EndToEnd)
            }
            Self::Heads(heads) => (heads.largest(request)?, false),
        };
        judge(largest, suppresses)
    }
}

/// A network that answers boxes.
pub(super) struct Whole {
    layout: Layout,
    classes: usize,
}

impl Whole {
    /// Hands the values and the number of boxes to `read`. Bound at every call: the
    /// outputs of a model that suppresses by itself may have another shape each time.
    fn with<T>(
        &self,
        request: &InferRequest,
        read: impl FnOnce(&[f32], usize) -> T,
    ) -> Result<T, String> {
        let failed = |error: InferenceError| message(&error);
        let tensor = request.get_output_tensor_by_index(0).map_err(failed)?;
        let shape = tensor.get_shape().map_err(failed)?;
        let anchors = anchors(self.layout, self.classes, 1, shape.get_dimensions())?;
        if tensor.get_element_type().map_err(failed)? != ElementType::F32 {
            return Err("the output is not float32".to_owned());
        }
        if anchors == 0 {
            // Nothing found; the library need not have memory for it.
            return Ok(read(&[], 0));
        }
        Ok(read(tensor.get_data::<f32>().map_err(failed)?, anchors))
    }
}

/// A network whose head was cut off. Its outputs are bound once: all shapes are
/// fixed, so that they stay where the request has them.
pub(super) struct Heads {
    scales: Vec<Scale>,
    classes: usize,
    bins: usize,
    /// Values of all outputs.
    values: usize,
}

struct Scale {
    names: [String; 2],
    boxes: Tensor,
    classes: Tensor,
    height: usize,
    width: usize,
    stride: usize,
}

impl Heads {
    fn new(
        model: &Model,
        request: &InferRequest,
        (height, width): (usize, usize),
    ) -> Result<Self, String> {
        let (classes, bins) = (model.classes(), model.bins());
        if model.heads().len() > MAX_SCALES {
            return Err(format!(
                "the head has {} scales, at most {MAX_SCALES} are read",
                model.heads().len()
            ));
        }
        let mut scales = Vec::with_capacity(model.heads().len());
        let mut values = 0;
        for head in model.heads() {
            let (h, w) = (height / head.stride, width / head.stride);
            scales.push(Scale {
                boxes: bind(request, &head.boxes, [1, 4 * bins, h, w])?,
                classes: bind(request, &head.classes, [1, classes, h, w])?,
                names: [head.boxes.clone(), head.classes.clone()],
                height: h,
                width: w,
                stride: head.stride,
            });
            values += (4 * bins + classes) * h * w;
        }
        Ok(Self { scales, classes, bins, values })
    }

    fn largest(&self, request: &InferRequest) -> Result<f32, String> {
        let failed = |error: InferenceError| message(&error);
        let mut max = 0.0;
        for scale in &self.scales {
            for (name, bound) in scale.names.iter().zip([&scale.boxes, &scale.classes]) {
                let now = request.get_tensor(name).map_err(failed)?;
                let bound = bound.get_data::<f32>().map_err(failed)?;
                if !std::ptr::eq(now.get_data::<f32>().map_err(failed)?, bound) {
                    return Err(format!("the library moved its output '{name}'"));
                }
                max = largest(&[max, largest(bound)]);
            }
        }
        Ok(max)
    }
}

impl Scale {
    fn view(&self) -> Result<HeadScale<'_>, InferenceError> {
        Ok(HeadScale {
            boxes: self.boxes.get_data()?,
            classes: self.classes.get_data()?,
            width: self.width,
            height: self.height,
            stride: self.stride,
        })
    }
}

/// The request's output of this name, if it has this shape.
fn bind(request: &InferRequest, name: &str, expected: [usize; 4]) -> Result<Tensor, String> {
    let failed = |error: InferenceError| message(&error);
    if name.contains('\0') {
        return Err("an output's name holds a NUL".to_owned());
    }
    let tensor = request.get_tensor(name).map_err(failed)?;
    let element = tensor.get_element_type().map_err(failed)?;
    let shape = tensor.get_shape().map_err(failed)?;
    let fits = shape.get_dimensions().iter().map(|&side| usize::try_from(side).ok());
    if element != ElementType::F32 || !fits.eq(expected.map(Some)) {
        return Err(format!(
            "output '{name}' is {element:?} {:?}, expected F32 {expected:?}",
            shape.get_dimensions()
        ));
    }
    Ok(tensor)
}
