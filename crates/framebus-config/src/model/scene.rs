use crate::{CameraName, ClassFilter};
use std::fmt;

/// `[tracking]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracking {
    /// Whether detections get track numbers.
    pub enabled: bool,
    /// From this score on detections are matched first, 0 to 1.
    pub high: f32,
    /// From this score on a detection begins a track, 0 to 1.
    pub new: f32,
    /// Frames in a row before an object has a number.
    pub min_frames: u32,
    /// Not seen for so long, it has disappeared, in seconds.
    pub lost_s: f64,
}

/// `[[zone]]`: a part of a camera's picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Camera that it belongs to.
    pub camera: CameraName,
    /// Unique among the zones and lines of the camera, 31 bytes at most.
    pub name: String,
    /// Three corners or more, in fractions of the picture.
    pub points: Vec<[f32; 2]>,
    /// Classes that count; empty = all.
    pub classes: Vec<ClassFilter>,
    /// A stay of so long is an event, in seconds; 0 = never.
    pub dwell_s: f64,
    /// Point of a box that counts.
    pub anchor: Anchor,
}

/// `[[line]]`: a line in a camera's picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Camera that it belongs to.
    pub camera: CameraName,
    /// Unique among the zones and lines of the camera, 31 bytes at most.
    pub name: String,
    /// One end, in fractions of the picture.
    pub from: [f32; 2],
    /// The other end.
    pub to: [f32; 2],
    /// Classes that count; empty = all.
    pub classes: Vec<ClassFilter>,
    /// Point of a box that counts.
    pub anchor: Anchor,
}

choice! {
    /// `zone.anchor`, `line.anchor`.
    Anchor {
        /// Middle of the lower edge.
        Bottom = "bottom",
        /// Centre.
        Center = "center",
    }
}
