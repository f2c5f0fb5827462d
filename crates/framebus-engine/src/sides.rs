//! Which input sizes a network takes, whoever runs it.

use crate::api::{EngineError, InputShape, Shape, ShapePolicy};

/// Side of the input of a dynamic model whose metadata names none: what
/// Ultralytics trains and exports with by default.
pub(crate) const DEFAULT_SIDE: usize = 640;

/// Longest side accepted; an input of 16384x16384 would take 3 GiB.
const MAX_SIDE: usize = 8192;

/// What camera-shaped engines load before they know the cameras: almost all
/// cameras are 16:9.
const USUAL_FRAME: (usize, usize) = (1920, 1080);

/// What is fixed of a network's input.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    /// Who says so in errors.
    pub(crate) backend: &'static str,
    /// Model name, for errors.
    pub(crate) model: String,
    /// Baked-in rows.
    pub(crate) height: Option<usize>,
    /// Baked-in columns.
    pub(crate) width: Option<usize>,
    /// Free sides are multiples of this, pixels.
    pub(crate) stride: usize,
}

impl Sides {
    /// Which input serves which frame, and the one to load first. `own` (height, width)
    /// is the size that the model names, where it is free.
    pub(crate) fn policy(
        &self,
        own: (usize, usize),
        wanted: InputShape,
    ) -> Result<(ShapePolicy, Shape), EngineError> {
        let (height, width) = self.own(own);
        let shapes = match wanted {
            InputShape::Fixed(shape) => ShapePolicy::Fixed(shape),
            InputShape::Auto if self.height.or(self.width).is_some() => {
                ShapePolicy::Fixed(Shape { height, width })
            }
            InputShape::Auto => {
                let stride = self.stride;
                let side = height.max(width).checked_next_multiple_of(stride).unwrap_or(height);
                ShapePolicy::CameraShaped { side, stride }
            }
        };
        let base = shapes.shape_for(USUAL_FRAME.0, USUAL_FRAME.1);
        self.check(base, (height, width))?;
        Ok((shapes, base))
    }

    /// Whether `shape` is one of the inputs of `shapes`.
    pub(crate) fn accepts(&self, shapes: ShapePolicy, shape: Shape) -> Result<(), EngineError> {
        match shapes {
            ShapePolicy::Fixed(only) if shape != only => Err(self
                .refuse(format!("it was loaded for {only} (height x width), {shape} is wanted"))),
            _ => self.check(shape, self.own((shape.height, shape.width))),
        }
    }

    fn check(&self, shape: Shape, own: (usize, usize)) -> Result<(), EngineError> {
        let Shape { height, width } = shape;
        let differs = |fixed: Option<usize>, want| fixed.is_some_and(|have| have != want);
        if differs(self.height, height) || differs(self.width, width) {
            return Err(self.refuse(format!(
                "it was exported for {}x{} (height x width), {shape} is wanted; export it with \
                 dynamic=True or use --input {}x{}",
                own.0, own.1, own.0, own.1
            )));
        }
        let stride = self.stride;
        if height == 0 || width == 0 || height % stride != 0 || width % stride != 0 {
            return Err(self.refuse(format!(
                "its input must be multiples of {stride} pixels, {shape} is not; the nearest is \
                 {}x{}",
                nearest(height, stride),
                nearest(width, stride)
            )));
        }
        if height > MAX_SIDE || width > MAX_SIDE {
            return Err(self.refuse(format!(
                "an input of {shape} is too large; at most {MAX_SIDE} pixels a side"
            )));
        }
        Ok(())
    }

    /// Baked-in sides win over `own`.
    fn own(&self, own: (usize, usize)) -> (usize, usize) {
        (self.height.unwrap_or(own.0), self.width.unwrap_or(own.1))
    }

    /// An error about this model.
    pub(crate) fn refuse(&self, reason: String) -> EngineError {
        EngineError::Unsupported { backend: self.backend, model: self.model.clone(), reason }
    }
}

fn nearest(side: usize, stride: usize) -> usize {
    ((side.saturating_add(stride / 2)) / stride * stride).max(stride)
}
