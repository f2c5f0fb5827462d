//! What of a model is run, and on which inputs, whoever runs it in this process.
//!
//! An exported YOLO has its input's size baked into its tail, so the head is cut
//! off where that can be done: what is left takes any batch and any size, and the
//! rest is [`framebus_vision::Postprocess::run_heads`].

use crate::api::{EngineError, InputShape, LoadOptions, Shape, ShapePolicy};
use crate::sides::{DEFAULT_SIDE, Sides};
use framebus_model::{Dim, Model, OutputLayout, Prepared};

/// A model and its inputs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Who runs it.
    backend: &'static str,
    /// What the library reads.
    pub(crate) model: Model,
    pub(crate) shapes: ShapePolicy,
    /// What is compiled first.
    pub(crate) base: Shape,
}

/// The plans of `backend` for `model`, best first; at least one, or the reason that it has
/// none.
pub(crate) fn plans(
    backend: &'static str,
    model: &Model,
    options: &LoadOptions,
) -> Result<Vec<Plan>, EngineError> {
    let own = model.size().or(model.image_size()).unwrap_or((DEFAULT_SIDE, DEFAULT_SIDE));
    let whole = model.layout() != OutputLayout::Heads;
    let cut = if whole && !options.as_is { cut(model, options) } else { None };
    let mut plans = Vec::with_capacity(2);
    if let Some(cut) = cut {
        // An input that a cut model does not take, no other does.
        plans.push(Plan::new(backend, cut, own, options.input)?);
    }
    match Plan::new(backend, model.clone(), own, options.input) {
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
    fn new(
        backend: &'static str,
        model: Model,
        own: (usize, usize),
        wanted: InputShape,
    ) -> Result<Self, EngineError> {
        let sides = sides(backend, &model);
        if let Some(batch) = model.batch().filter(|&batch| batch != 1) {
            return Err(sides.refuse(format!(
                "it was exported for batches of {batch}; export it with batch=1 or dynamic=True"
            )));
        }
        let (shapes, base) = sides.policy(own, wanted)?;
        Ok(Self { backend, model, shapes, base })
    }

    /// Whether `shape` is one of this plan's inputs.
    pub(crate) fn accepts(&self, shape: Shape) -> Result<(), EngineError> {
        sides(self.backend, &self.model).accepts(self.shapes, shape)
    }
}

fn sides(backend: &'static str, model: &Model) -> Sides {
    let fixed = |index: usize| model.input().shape.get(index).and_then(Dim::fixed);
    Sides {
        backend,
        model: model.name().to_owned(),
        height: fixed(2),
        width: fixed(3),
        stride: model.stride(),
    }
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
        let plans = plans("openvino", &model, &options).map_err(|error| error.to_string())?;
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
