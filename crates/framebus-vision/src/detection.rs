//! The result of looking at a picture.

/// One found object.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Detection {
    /// Left, top, right, bottom in pixels of the source picture.
    pub bbox: [f32; 4],
    /// Confidence, 0..=1.
    pub score: f32,
    /// Class number.
    pub class: u32,
}
