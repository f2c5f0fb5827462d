use super::class_numbers;
use crate::{CameraName, ClassFilter, Config};
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

impl Zone {
    /// [`classes`](Self::classes) as numbers of a model with these class names; empty for
    /// all.
    ///
    /// # Errors
    /// A sentence that names the zone and the class that the model does not have.
    pub fn class_numbers(&self, labels: &[String]) -> Result<Vec<u32>, String> {
        let Self { camera, name, .. } = self;
        class_numbers(&format!("zone[{camera}/{name}].classes"), &self.classes, labels)
    }
}

impl Line {
    /// As [`Zone::class_numbers`].
    ///
    /// # Errors
    /// A sentence that names the line and the class that the model does not have.
    pub fn class_numbers(&self, labels: &[String]) -> Result<Vec<u32>, String> {
        let Self { camera, name, .. } = self;
        class_numbers(&format!("line[{camera}/{name}].classes"), &self.classes, labels)
    }
}

impl Config {
    /// Whether a model with these class names has every class that is asked for, by the
    /// model's section, by zones and by lines.
    ///
    /// # Errors
    /// A sentence that names the first one that it does not have, and where.
    pub fn check_classes(&self, labels: &[String]) -> Result<(), String> {
        self.model.class_numbers(labels)?;
        self.zones.iter().try_for_each(|zone| zone.class_numbers(labels).map(drop))?;
        self.lines.iter().try_for_each(|line| line.class_numbers(labels).map(drop))
    }
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
