//! Letterbox tables, kept from frame to frame.

use crate::api::Shape;
use framebus_vision::{FrameView, ResampleError, Resampler};

/// Tables kept, one per kind of frame; the tables of a 4K source are about 100 KiB.
/// More kinds than this on one worker build them anew each time.
const MAX_RESAMPLERS: usize = 64;

/// The tables of one execution context.
#[derive(Debug, Default)]
pub(crate) struct Letterboxes {
    /// Most recently used last.
    resamplers: Vec<Resampler>,
}

impl Letterboxes {
    /// The tables for this kind of frame and an input of `shape`, built where they are
    /// not here.
    pub(crate) fn prepare(
        &mut self,
        view: &FrameView<'_>,
        shape: Shape,
    ) -> Result<&mut Resampler, ResampleError> {
        let known = self.resamplers.iter().rposition(|resampler| resampler.matches(view));
        let index = match known {
            Some(index) => {
                self.resamplers[index..].rotate_left(1);
                self.resamplers.len() - 1
            }
            None => {
                let new = Resampler::new(view, shape.width, shape.height)?;
                if self.resamplers.len() >= MAX_RESAMPLERS {
                    self.resamplers.remove(0);
                }
                self.resamplers.push(new);
                self.resamplers.len() - 1
            }
        };
        Ok(&mut self.resamplers[index])
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.resamplers.clear();
    }
}
