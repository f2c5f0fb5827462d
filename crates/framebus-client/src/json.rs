//! Results as JSON, the same everywhere framebus prints them.

use framebus_bus::ResultSample;
use framebus_types::{
    Detection, Direction, Event, EventKind, PICTURE_FAULTS, ServerTimes, Stage, StageTimes,
};
use serde_json::{Map, Value, json};

/// One result as a JSON object.
#[must_use]
pub fn result(result: &ResultSample) -> Value {
    let header = result.header();
    let mut value = json!({
        "camera": result.camera(),
        "epoch_ns": header.epoch_ns,
        "sequence": header.sequence,
        "result_epoch_ns": header.result_epoch_ns,
        "result_sequence": header.result_sequence,
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
    if let (Some(object), Some(server)) = (value.as_object_mut(), server(&header.server)) {
        object.insert("server".to_owned(), server);
    }
    value
}

/// Names of the picture faults among a frame's flags, such as `frozen`.
#[must_use]
pub fn faults(flags: u32) -> Vec<&'static str> {
    let names = PICTURE_FAULTS.iter().filter(|(flag, _)| flags & flag != 0);
    names.map(|(_, name)| *name).collect()
}

/// One event as a JSON object.
#[must_use]
pub fn event(event: &Event) -> Value {
    let kind = EventKind::try_from(event.kind).map_or("", EventKind::as_str);
    let direction = Direction::try_from(event.direction).map_or("", Direction::as_str);
    json!({
        "id": event.id(),
        "event": kind,
        "camera": event.camera(),
        "place": event.place(),
        "direction": direction,
        "track": event.track,
        "label": event.label(),
        "class": event.class,
        "score": round(f64::from(event.score), 1e4),
        "box": event.bbox.map(|edge| round(f64::from(edge), 1e2)),
        "age_s": round(event.age_ns as f64 / 1e9, 1e3),
        "wall_ns": event.wall_ns,
        "epoch_ns": event.epoch_ns,
        "sequence": event.sequence,
        "event_epoch_ns": event.event_epoch_ns,
        "event_sequence": event.event_sequence,
        "width": event.width,
        "height": event.height,
    })
}

/// `[{"label","class","score","box":[x1,y1,x2,y2],"track","zones"}, …]`, boxes in source
/// pixels; `track` and `zones` (numbers of the camera's zones, from 0) where there are any.
#[must_use]
pub fn detections(detections: &[Detection]) -> Value {
    let one = |found: &Detection| {
        let mut value = json!({
            "label": found.label(),
            "class": found.class,
            "score": round(f64::from(found.score), 1e4),
            "box": found.bbox.map(|edge| round(f64::from(edge), 1e2)),
        });
        if found.track != 0 {
            value["track"] = json!(found.track);
        }
        if found.zones != 0 {
            let is_in = |zone: &u32| found.zones >> zone & 1 == 1;
            value["zones"] = (0..u64::BITS).filter(is_in).collect();
        }
        value
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

/// What the server that ran the network said; `None` where the engine is in the inference
/// process. `ms` is of this request, `average_ms` of those of the server's last second and
/// left out while it has not said them.
#[must_use]
pub fn server(times: &ServerTimes) -> Option<Value> {
    let ms = |us: u32| round(f64::from(us) / 1e3, 1e3);
    let mut server = json!({
        "request": times.request,
        "ms": {"serialise": ms(times.serialise_us), "receive": ms(times.receive_us)},
        "sent_bytes": times.sent_bytes,
        "received_bytes": times.received_bytes,
    });
    if times.has_averages() {
        server["average_ms"] = json!({
            "queue": ms(times.queue_us),
            "compute_input": ms(times.compute_input_us),
            "compute": ms(times.compute_us),
            "compute_output": ms(times.compute_output_us),
        });
    }
    (times.request != 0).then_some(server)
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_spoken_of_where_one_was_asked() {
        assert_eq!(server(&ServerTimes::default()), None);
        let mut times = ServerTimes { request: 7, serialise_us: 1500, ..ServerTimes::default() };
        (times.sent_bytes, times.received_bytes) = (4_915_200, 2_822_400);
        let mut expected = json!({
            "request": 7,
            "ms": {"serialise": 1.5, "receive": 0.0},
            "sent_bytes": 4_915_200,
            "received_bytes": 2_822_400,
        });
        assert_eq!(server(&times), Some(expected.clone()), "no statistics yet");
        (times.queue_us, times.compute_us) = (12_345, 30_000);
        expected["average_ms"] =
            json!({"queue": 12.345, "compute_input": 0.0, "compute": 30.0, "compute_output": 0.0});
        assert_eq!(server(&times), Some(expected));
    }
}
