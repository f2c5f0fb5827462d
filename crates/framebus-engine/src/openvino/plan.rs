//! What of a model is run, and on which inputs.
//!
//! An exported YOLO has its input's size baked into its tail, so the head is cut
//! off where that can be done: what is left takes any batch and any size, and the
//! rest is [`framebus_vision::Postprocess::run_heads`].

use super::NAME;
use crate::api::{EngineError, InputShape, LoadOptions, Shape, ShapePolicy};
use framebus_model::{Dim, Model, OutputLayout, Prepared};

/// Side of the input of a dynamic model whose metadata names none: what
/// Ultralytics trains and exports with by default.
const DEFAULT_SIDE: usize = 640;

/// Longest side accepted; an input of 16384x16384 would take 3 GiB.
const MAX_SIDE: usize = 8192;

/// What camera-shaped engines compile before they know the cameras: almost all
/// cameras are 16:9.
const USUAL_FRAME: (usize, usize) = (1920, 1080);

/// A model and its inputs.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What the library reads.
    pub(super) model: Model,
    pub(super) shapes: ShapePolicy,
    /// What is compiled first.
    pub(super) base: Shape,
}

/// The plans for `model`, best first; at least one, or the reason that it has none.
pub(super) fn plans(model: &Model, options: &LoadOptions) -> Result<Vec<Plan>, EngineError> {
    let own = model.size().or(model.image_size()).unwrap_or((DEFAULT_SIDE, DEFAULT_SIDE));
    let whole = model.layout() != OutputLayout::Heads;
    let cut = if whole && !options.as_is { cut(model, options) } else { None };
    let mut plans = Vec::with_capacity(2);
    if let Some(cut) = cut {
        // An input that a cut model does not take, no other does.
        plans.push(Plan::new(cut, own, options.input)?);
    }
    match Plan::new(model.clone(), own, options.input) {
        Ok(plan) => plans.push(plan),
        Err(error) if plans.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(plans)
}

/// The model without its head, where it can be cut.
fn cut(model: &Model, options: &LoadOptions) -> Option<Model> {
    match framebus_model::prepare(model, options.cache.as_deref()) {
        Prepared::Cut { model, cached } => {
            match cached {
                Ok(path) => tracing::debug!(path = %path.display(), "the prepared model is kept"),
                Err(reason) => tracing::debug!(reason, "the prepared model is not kept"),
            }
            Some(model)
        }
        Prepared::AsIs { reason } => {
            tracing::info!(
                model = model.name(),
                reason,
                "the model runs as it is, its head cannot be cut off"
            );
            None
        }
    }
}

impl Plan {
    /// `own` is the size that the model was exported for or names.
    fn new(model: Model, own: (usize, usize), wanted: InputShape) -> Result<Self, EngineError> {
        if let Some(batch) = model.batch().filter(|&batch| batch != 1) {
            return Err(refuse(
                &model,
                format!(
                    "it was exported for batches of {batch}; export it with batch=1 or \
                     dynamic=True"
                ),
            ));
        }
        let stride = model.stride();
        let (height, width) = own_size(&model, own);
        let shapes = match wanted {
            InputShape::Fixed(shape) => ShapePolicy::Fixed(shape),
            InputShape::Auto if fixed(&model, 2).or(fixed(&model, 3)).is_some() => {
                ShapePolicy::Fixed(Shape { height, width })
            }
            InputShape::Auto => {
                let side = height.max(width).checked_next_multiple_of(stride).unwrap_or(height);
                ShapePolicy::CameraShaped { side, stride }
            }
        };
        let base = shapes.shape_for(USUAL_FRAME.0, USUAL_FRAME.1);
        let plan = Self { model, shapes, base };
        plan.check(base, (height, width))?;
        Ok(plan)
    }

    /// Whether `shape` is one of this plan's inputs.
    pub(super) fn accepts(&self, shape: Shape) -> Result<(), EngineError> {
        match self.shapes {
            ShapePolicy::Fixed(only) if shape != only => Err(refuse(
                &self.model,
                format!("it was loaded for {only} (height x width), {shape} is wanted"),
            )),
            _ => self.check(shape, own_size(&self.model, (shape.height, shape.width))),
        }
    }

    fn check(&self, shape: Shape, own: (usize, usize)) -> Result<(), EngineError> {
        let model = &self.model;
        let Shape { height, width } = shape;
        let differs = |index, want| fixed(model, index).is_some_and(|have| have != want);
        if differs(2, height) || differs(3, width) {
            return Err(refuse(
                model,
                format!(
                    "it was exported for {}x{} (height x width), {shape} is wanted; export it \
                     with dynamic=True or use --input {}x{}",
                    own.0, own.1, own.0, own.1
                ),
            ));
        }
        let stride = model.stride();
        if height == 0 || width == 0 || height % stride != 0 || width % stride != 0 {
            return Err(refuse(
                model,
                format!(
                    "its input must be multiples of {stride} pixels, {shape} is not; the nearest \
                     is {}x{}",
                    nearest(height, stride),
                    nearest(width, stride)
                ),
            ));
        }
        if height > MAX_SIDE || width > MAX_SIDE {
            return Err(refuse(
                model,
                format!("an input of {shape} is too large; at most {MAX_SIDE} pixels a side"),
            ));
        }
        Ok(())
    }
}

/// Baked-in sides win over `own`.
fn own_size(model: &Model, own: (usize, usize)) -> (usize, usize) {
    (fixed(model, 2).unwrap_or(own.0), fixed(model, 3).unwrap_or(own.1))
}

fn fixed(model: &Model, index: usize) -> Option<usize> {
    model.input().shape.get(index).and_then(Dim::fixed)
}

fn nearest(side: usize, stride: usize) -> usize {
    ((side.saturating_add(stride / 2)) / stride * stride).max(stride)
}

fn refuse(model: &Model, reason: String) -> EngineError {
    EngineError::Unsupported { backend: NAME, model: model.name().to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_model::testing::{TinyDetector, tiny_detector};
    use std::path::Path;

    /// Policy and base of the model as it was exported.
    fn plan(bytes: Vec<u8>, input: InputShape) -> Result<(ShapePolicy, Shape), String> {
        let model = Model::from_bytes(Path::new("yolo.onnx"), bytes).unwrap();
        let options = LoadOptions { input, as_is: true, ..LoadOptions::new(|| 0) };
        let plans = plans(&model, &options).map_err(|error| error.to_string())?;
        assert_eq!(plans.len(), 1);
        Ok((plans[0].shapes, plans[0].base))
    }

    fn fixed(height: usize, width: usize) -> (ShapePolicy, Shape) {
        let shape = Shape { height, width };
        (ShapePolicy::Fixed(shape), shape)
    }

    #[test]
    fn static_models_keep_their_size() {
        let model = tiny_detector(1, Some((96, 128)));
        assert_eq!(plan(model.clone(), InputShape::Auto), Ok(fixed(96, 128)));
        let same = InputShape::Fixed(Shape { height: 96, width: 128 });
        assert_eq!(plan(model.clone(), same), Ok(fixed(96, 128)));
        let other = InputShape::Fixed(Shape { height: 128, width: 128 });
        assert_eq!(
            plan(model, other).unwrap_err(),
            "openvino cannot run model yolo: it was exported for 96x128 (height x width), 128x128 \
             is wanted; export it with dynamic=True or use --input 96x128"
        );
    }

    #[test]
    fn free_models_are_shaped_like_the_camera_at_their_own_scale() {
        let camera = |side, height| {
            (ShapePolicy::CameraShaped { side, stride: 32 }, Shape { height, width: side })
        };
        assert_eq!(plan(tiny_detector(1, None), InputShape::Auto), Ok(camera(640, 384)));
        for (imgsz, side, height) in [("[384, 640]", 640, 384), ("[1000, 960]", 1024, 576)] {
            let named = TinyDetector::new(1, None).with_metadata("imgsz", imgsz).build();
            assert_eq!(plan(named, InputShape::Auto), Ok(camera(side, height)));
        }
        let wanted = InputShape::Fixed(Shape { height: 64, width: 96 });
        assert_eq!(plan(tiny_detector(1, None), wanted), Ok(fixed(64, 96)));
    }

    #[test]
    fn sizes_must_be_multiples_of_the_stride() {
        let wanted = InputShape::Fixed(Shape { height: 360, width: 640 });
        let text = plan(tiny_detector(1, None), wanted).unwrap_err();
        assert!(text.contains("multiples of 32 pixels, 360x640 is not"), "{text}");
        assert!(text.contains("the nearest is 352x640"), "{text}");
        for (height, width) in [(0, 32), (usize::MAX - 31, 32), (32 * 1024, 32)] {
            assert!(
                plan(tiny_detector(1, None), InputShape::Fixed(Shape { height, width })).is_err()
            );
        }
        let vast = TinyDetector::new(1, None).with_metadata("imgsz", "[16384, 16384]").build();
        assert!(plan(vast, InputShape::Auto).unwrap_err().contains("too large"));
    }
}
