//! Contexts are handed out once for each input shape, by every backend alike.

use crate::api::{Context, Shape};

/// What of an engine's contexts was handed out.
pub(crate) struct HandOut {
    base: Shape,
    /// The contexts of the base shape, until they are handed out.
    ready: Vec<Box<dyn Context>>,
    done: Vec<Shape>,
}

impl HandOut {
    /// `ready` are the contexts for `base`.
    pub(crate) fn new(base: Shape, ready: Vec<Box<dyn Context>>) -> Self {
        Self { base, ready, done: Vec::new() }
    }

    /// The contexts for `shape` that need not be made: none where they were handed out
    /// before. `None`: they have to be made, and [`Self::made`] says that they were.
    pub(crate) fn ready(&mut self, shape: Shape) -> Option<Vec<Box<dyn Context>>> {
        if self.done.contains(&shape) {
            return Some(Vec::new());
        }
        (shape == self.base).then(|| {
            self.done.push(shape);
            std::mem::take(&mut self.ready)
        })
    }

    /// Contexts for `shape` were made and are handed out now.
    pub(crate) fn made(&mut self, shape: Shape) {
        self.done.push(shape);
    }
}
