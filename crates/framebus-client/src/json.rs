//! Results as JSON, the same everywhere framebus prints them.

use framebus_bus::ResultSample;
use framebus_types::{Detection, PICTURE_FAULTS, Stage, StageTimes};
use serde_json::{Map, Value, json};

/// One result as a JSON object.
#[must_use]
pub fn result(result: &ResultSample) -> Value {
    let header = result.header();
    let mut value = json!({
        "camera": result.camera(),
        "epoch_ns": header.epoch_ns,
        "sequence": header.sequence,
        "wall_ns": header.wall_ns,
        "pts_ns": (header.pts_ns != u64::MAX).then_some(header.pts_ns),
        "width": header.width,
        "height": header.height,
        "outcome": result.outcome().as_str(),
        "reason": result.reason().as_str(),
        "message": result.message(),
        "backend": header.backend(),
        "model": header.model(),
        "truncated": header.truncated,
        "detections": detections(result.detections()),
        "ms": stages(&header.times),
    });
    let faults = faults(header.flags);
    if let (Some(object), false) = (value.as_object_mut(), faults.is_empty()) {
        object.insert("faults".to_owned(), json!(faults));
    }
    value
}

/// Names of the picture faults among a frame's flags, such as `frozen`.
#[must_use]
pub fn faults(flags: u32) -> Vec<&'static str> {
    let names = PICTURE_FAULTS.iter().filter(|(flag, _)| flags & flag != 0);
    names.map(|(_, name)| *name).collect()
}

/// `[{"label","class","score","box":[x1,y1,x2,y2]}, …]`, boxes in source pixels.
#[must_use]
pub fn detections(detections: &[Detection]) -> Value {
    let one = |found: &Detection| {
        json!({
            "label": found.label(),
            "class": found.class,
            "score": round(f64::from(found.score), 1e4),
            "box": found.bbox.map(|edge| round(f64::from(edge), 1e2)),
        })
    };
    Value::Array(detections.iter().map(one).collect())
}

/// Milliseconds per stage; stages that the frame did not pass are left out.
#[must_use]
pub fn stages(times: &StageTimes) -> Value {
    let mut stages = Map::new();
    for (stage, duration) in Stage::ALL.iter().zip(times.durations_ns()) {
        if let Some(ns) = duration {
            stages.insert(stage.as_str().to_owned(), json!(round(ns as f64 / 1e6, 1e3)));
        }
    }
    Value::Object(stages)
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
