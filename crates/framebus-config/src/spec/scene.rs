//! Keys of `[tracking]`, `[[zone]]` and `[[line]]`.

use super::{Default, Key, Kind, S, key};
use crate::model::Anchor;

pub(super) static TRACKING: [Key; 5] = [
    key("enabled", Kind::Bool, Default::Bool(true))
        .doc(
            "Whether detections get track numbers. Zones, lines and events need it.",
            "It costs microseconds a frame.",
        )
        .also(&["enable", "on", "active"]),
    key("high", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.5))
        .doc(
            "Detections with this score or more are matched to tracks first; the weaker ones, \
             down to model.confidence, then only keep tracks alive.",
            "A half-hidden object scores low and is still itself.",
        )
        .also(&["track_high_thresh", "high_score"]),
    key("new", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.6))
        .doc(
            "A detection that matches no track begins one from this score on.",
            "Above high, so that a doubtful box begins nothing.",
        )
        .also(&["new_track_thresh", "det_thresh"]),
    key("min_frames", Kind::Int { min: 1, max: 100, unit: "frames" }, Default::Int(2))
        .doc(
            "Frames in a row in which an object must be found before it has a number.",
            "Two keep single false boxes from becoming events.",
        )
        .also(&["min_hits", "n_init"]),
    key("lost_s", Kind::Float { min: 0.0, max: 60.0, unit: S }, Default::Float(1.0))
        .doc(
            "An object that is not seen for so long has disappeared; before that it keeps its \
             number.",
            "Below motion_hold_s, so that who left has ended before the motion gate closes.",
        )
        .also(&["track_buffer", "max_age", "max_lost_s"]),
];

const CAMERA: Key =
    key("camera", Kind::Name { max_bytes: 31 }, Default::Required("camera = \"front\""))
        .doc("Name of the camera.", "")
        .also(&["cameras", "source"]);

const CLASSES: Key = key("classes", Kind::Classes, Default::EmptyList)
    .doc("Classes that count here, by name or number; [] means all.", "")
    .also(&["class", "labels", "objects", "filter"]);

const ANCHOR: Key = key("anchor", Kind::Word(Anchor::NAMES), Default::Word("bottom"))
    .doc(
        "Point of a box that counts: the middle of its lower edge or its centre.",
        "The lower edge is where an object stands on the ground.",
    )
    .also(&["point", "reference"]);

pub(super) static ZONE: [Key; 6] = [
    CAMERA,
    key("name", Kind::Name { max_bytes: 31 }, Default::Required("name = \"entrance\""))
        .doc("Name, unique among the zones and lines of a camera.", "It appears in events.")
        .also(&["id", "label"]),
    key(
        "points",
        Kind::Points,
        Default::Required("points = [[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]"),
    )
    .doc(
        "Corners of the zone in fractions of the picture, [0, 0] at the top left, in order.",
        "Fractions hold for every size of the picture.",
    )
    .also(&["polygon", "coordinates", "corners", "vertices"]),
    CLASSES,
    key("dwell_s", Kind::Float { min: 0.0, max: 86_400.0, unit: S }, Default::Float(0.0))
        .doc("An object that stays so long is an event of its own; 0 means never.", "")
        .also(&["dwell", "loitering_s", "loitering_time"]),
    ANCHOR,
];

pub(super) static LINE: [Key; 6] = [
    CAMERA,
    key("name", Kind::Name { max_bytes: 31 }, Default::Required("name = \"door\""))
        .doc("Name, unique among the zones and lines of a camera.", "It appears in events.")
        .also(&["id", "label"]),
    key("from", Kind::Point, Default::Required("from = [0.2, 0.6]"))
        .doc(
            "One end, in fractions of the picture, [0, 0] at the top left.",
            "Who looks from here to the other end sees \"forward\" go from left to right.",
        )
        .also(&["start", "a", "p1"]),
    key("to", Kind::Point, Default::Required("to = [0.8, 0.6]"))
        .doc("The other end.", "")
        .also(&["end", "b", "p2"]),
    CLASSES,
    ANCHOR,
];
