//! What places are, and what can happen there.

use super::geometry::Point;
use std::fmt;

/// Zones of a camera: one bit each.
pub const MAX_ZONES: usize = 64;
/// Lines of a camera.
pub const MAX_LINES: usize = 64;

/// The point of a box that says where the object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anchor {
    /// Middle of the lower edge: where a person stands, a car touches the road.
    #[default]
    Bottom,
    /// Middle of the box.
    Center,
}

impl Anchor {
    /// In fractions of the picture, half a pixel inside of it: boxes are cut off at its
    /// edges, and who is cut off stands in a zone that reaches there.
    pub(super) fn of(self, bbox: [f32; 4], size: (u32, u32)) -> Point {
        let [left, top, right, bottom] = bbox;
        let y = match self {
            Self::Bottom => bottom,
            Self::Center => f32::midpoint(top, bottom),
        };
        let inside = |at: f32, side: u32| at.min(side as f32 - 0.5).max(0.5) / side as f32;
        [inside(f32::midpoint(left, right), size.0), inside(y, size.1)]
    }
}

/// A part of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Corners in fractions of the picture, at least three; the last one is joined with
    /// the first. What a ring that crosses itself surrounds twice is outside.
    pub points: Vec<[f32; 2]>,
    /// Classes that count; empty for all.
    pub classes: Vec<u32>,
    /// Time in the zone after which [`What::Dwell`] happens, in nanoseconds; 0 for never.
    pub dwell_ns: u64,
    /// What of an object has to be inside.
    pub anchor: Anchor,
}

/// A line that is crossed. *Forward* is from its left to its right as somebody sees it who
/// walks from `from` to `to` in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Where it starts, in fractions of the picture.
    pub from: [f32; 2],
    /// Where it ends.
    pub to: [f32; 2],
    /// Classes that count; empty for all.
    pub classes: Vec<u32>,
    /// What of an object has to cross.
    pub anchor: Anchor,
}

/// Which way a line was crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From its left to its right.
    Forward,
    /// From its right to its left.
    Backward,
}

/// An object of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Its track; 0 where it has none: then nothing happens with it, and its zones are
    /// those in which its anchor is.
    pub track: u64,
    /// Left, top, right, bottom in pixels.
    pub bbox: [f32; 4],
    /// Class number.
    pub class: u32,
    /// Confidence, 0 to 1.
    pub score: f32,
}

/// What happened; zones and lines by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The track is new.
    Appear,
    /// The track ended.
    Disappear,
    /// It is now in that zone.
    Enter(usize),
    /// It is no longer in that zone, or its track ended there.
    Leave(usize),
    /// It has been in that zone for the zone's `dwell_ns`; once per stay.
    Dwell(usize),
    /// It crossed that line.
    Cross(usize, Direction),
}

/// Something that happened with a track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Happening {
    /// What it was.
    pub what: What,
    /// Whose.
    pub track: u64,
    /// Class of the object.
    pub class: u32,
    /// Its box in pixels, where it was last seen.
    pub bbox: [f32; 4],
    /// Score of that box.
    pub score: f32,
    /// `Leave`, `Dwell`: how long it has been in the zone. Otherwise since it appeared.
    /// In nanoseconds, up to when it was last seen.
    pub age_ns: u64,
}

/// Places that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceError {
    /// More than [`MAX_ZONES`] zones.
    TooManyZones(usize),
    /// More than [`MAX_LINES`] lines.
    TooManyLines(usize),
    /// The zone of that index has fewer than three points.
    FewPoints(usize),
    /// The zone of that index has a coordinate that is not finite.
    ZoneNotFinite(usize),
    /// The line of that index has a coordinate that is not finite.
    LineNotFinite(usize),
    /// The line of that index ends where it starts.
    NoLength(usize),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyZones(count) => write!(f, "{count} zones; at most {MAX_ZONES} per camera"),
            Self::TooManyLines(count) => write!(f, "{count} lines; at most {MAX_LINES} per camera"),
            Self::FewPoints(zone) => write!(f, "zone {zone} has fewer than three points"),
            Self::ZoneNotFinite(zone) => write!(f, "zone {zone} has a point that is no number"),
            Self::LineNotFinite(line) => write!(f, "line {line} has an end that is no number"),
            Self::NoLength(line) => write!(f, "line {line} ends where it starts"),
        }
    }
}

impl std::error::Error for PlaceError {}
