//! When an object that is near an edge has changed sides.

/// An anchor that far from an edge, as a share of the object's size, is clear of it:
/// several standard deviations of how boxes of a standing object jitter.
const MARGIN: f32 = 0.1;
/// It has to be so for that many frames in a row: a single box that is wrong (half of an
/// object, a false one in its place) moves nobody.
const CLEAR_FRAMES: u32 = 2;
/// Nearer, it has to be on the other side for so long ...
const SETTLE_NS: u64 = 1_000_000_000;
/// ... and for so many frames in a row. Where the side of an object on the very edge is
/// as good as thrown, that is one run in a thousand.
const SETTLE_FRAMES: u32 = 10;

/// Margin in pixels for a box in pixels: its size is the side of a square of its area.
pub(super) fn margin(bbox: [f32; 4]) -> f32 {
    let [left, top, right, bottom] = bbox;
    MARGIN * ((right - left).max(0.0) * (bottom - top).max(0.0)).sqrt()
}

/// For how long an object has been on the other side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settle {
    ns: u64,
    frames: u32,
    clear_frames: u32,
}

impl Settle {
    /// Counts a frame in which it is there, clear of the edge or not; whether that is enough.
    pub(super) fn look(&mut self, elapsed_ns: u64, clear: bool) -> bool {
        // Time counts from the first such frame, not from the one before it.
        if self.frames > 0 {
            self.ns = self.ns.saturating_add(elapsed_ns);
        }
        self.frames = self.frames.saturating_add(1);
        self.clear_frames = if clear { self.clear_frames.saturating_add(1) } else { 0 };
        self.clear_frames >= CLEAR_FRAMES || (self.ns >= SETTLE_NS && self.frames >= SETTLE_FRAMES)
    }
}
