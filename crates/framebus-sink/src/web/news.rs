//! What the page is told, as JSON. Numbers that a browser cannot hold exactly (ns since
//! 1970) are strings.

use super::hub::Hub;
use super::shelf::Shelf;
use axum::extract::ws::Utf8Bytes;
use framebus_client::health::{
    CAPTURE_DROPS, Collector, Counter, INFER_DROPS, Latency, Role, Stage, Track, camera_state,
};
use framebus_client::{Event, EventKind, ResultSample, json};
use framebus_config::{ClassFilter, Config, Web};
use framebus_types::text;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The first message: what stays as it is while the sink runs.
pub(crate) fn hello(config: &Config, web: &Web, hub: &Hub) -> Utf8Bytes {
    let cameras: Vec<Value> =
        hub.cameras.iter().map(|camera| places(config, &camera.name)).collect();
    let hello = json!({
        "type": "hello",
        "instance": config.instance.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "fps": web.fps,
        "cameras": cameras,
    });
    hello.to_string().into()
}

fn places(config: &Config, camera: &str) -> Value {
    let classes = |classes: &[ClassFilter]| -> Vec<String> {
        classes.iter().map(ToString::to_string).collect()
    };
    let zones: Vec<Value> = config
        .zones_of(camera)
        .map(|zone| {
            json!({
                "name": zone.name,
                "points": zone.points,
                "classes": classes(&zone.classes),
            })
        })
        .collect();
    let lines: Vec<Value> = config
        .lines_of(camera)
        .map(|line| {
            json!({
                "name": line.name,
                "from": line.from,
                "to": line.to,
                "classes": classes(&line.classes),
            })
        })
        .collect();
    json!({"name": camera, "zones": zones, "lines": lines})
}

/// A result, with the number of its camera.
pub(crate) fn result(camera: usize, result: &ResultSample) -> Utf8Bytes {
    let header = result.header();
    let total = header.times.durations_ns()[Stage::Total as usize];
    let message = json!({
        "type": "result",
        "camera": camera,
        "epoch": header.epoch_ns.to_string(),
        "sequence": header.sequence,
        "width": header.width,
        "height": header.height,
        "outcome": result.outcome().as_str(),
        "reason": result.reason().as_str(),
        "ms": total.map(|ns| ns as f64 / 1e6),
        "detections": json::detections(result.detections()),
    });
    message.to_string().into()
}

/// An event, and where its snapshot and clip are to be had, if a sink makes such.
pub(crate) fn event(event: &Event, shelf: &Shelf) -> Utf8Bytes {
    let wall_ms = event.wall_ns / 1_000_000;
    let kind = EventKind::try_from(event.kind).map_or("", EventKind::as_str);
    let path = |end: &str, what: String| {
        shelf
            .has(end, event.camera(), kind)
            .then(|| format!("/event/{}/{wall_ms}/{what}.{end}", event.camera()))
    };
    let message = json!({
        "type": "event",
        "at_ms": wall_ms,
        "snapshot": path("jpg", format!("{kind}-{}", event.track)),
        "clip": path("mp4", event.id()),
        "event": json::event(event),
    });
    message.to_string().into()
}

/// How all cameras and processes are.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) collector: Collector,
    /// Ages of pictures and times to encode them at the last state: sums and numbers.
    last: [u64; 4],
}

impl News {
    pub(crate) fn state(&mut self, hub: &Hub, (now_ns, wall_ns): (u64, u64)) -> Utf8Bytes {
        self.collector.forget_stopped(now_ns);
        let cameras: Vec<Value> =
            hub.cameras.iter().map(|camera| self.camera(&camera.name, now_ns)).collect();
        let message = json!({
            "type": "state",
            "at_ms": wall_ns / 1_000_000,
            "engine": self.engine(now_ns),
            "cameras": cameras,
            "sinks": self.sinks(now_ns),
            "video": self.video(hub),
        });
        message.to_string().into()
    }

    fn camera(&self, name: &str, now_ns: u64) -> Value {
        let (state, reason) = camera_state(&self.collector, name, now_ns);
        let capture = self.collector.track(Role::Capture, name);
        let infer = self.collector.track(Role::InferCamera, name);
        let latency = |stage| {
            let of = |track: &Track| track.latency(stage);
            let inferred = infer.map(of).filter(|latency| latency.max_ms().is_some());
            inferred.or_else(|| capture.map(of)).unwrap_or_default()
        };
        let ms = |latency: &Latency, quantile| latency.quantile_ms(quantile).map(round);
        let mut stages = Map::new();
        for stage in Stage::ALL {
            if let Some(median) = ms(&latency(stage), 0.5) {
                stages.insert(stage.as_str().to_owned(), json!(median));
            }
        }
        let mut drops = capture.map_or_else(Vec::new, |track| track.drops(&CAPTURE_DROPS));
        drops.extend(infer.map_or_else(Vec::new, |track| track.drops(&INFER_DROPS)));
        let total = latency(Stage::Total);
        json!({
            "name": name,
            "state": state.as_str(),
            "reason": reason.lines().next().unwrap_or_default(),
            "width": capture.map_or(0, |track| track.latest().width),
            "height": capture.map_or(0, |track| track.latest().height),
            "fps_in": capture.and_then(|track| track.rate(Counter::Published)).map(round),
            "fps_out": infer.and_then(|track| track.rate(Counter::Ok)).map(round),
            "p50_ms": ms(&total, 0.5),
            "p99_ms": ms(&total, 0.99),
            "stages": stages,
            "drops": drops,
        })
    }

    fn engine(&self, now_ns: u64) -> Value {
        let Some((state, reason)) = self.collector.process_state(Role::Infer, "infer", now_ns)
        else {
            return json!({"state": "offline", "reason": "never heard of", "detail": ""});
        };
        let track = self.collector.track(Role::Infer, "infer");
        let detail = track.map_or("", |track| text::unpack(&track.latest().detail));
        json!({"state": state.as_str(), "reason": reason, "detail": text::plain(detail)})
    }

    fn sinks(&self, now_ns: u64) -> Vec<Value> {
        let sinks = self.collector.tracks().filter(|(role, _, _)| *role == Role::Sink);
        sinks
            .map(|(role, name, track)| {
                let (state, reason) = self.collector.state_of(role, name, track, now_ns);
                json!({
                    "name": name,
                    "state": state.as_str(),
                    "reason": reason,
                    "detail": text::plain(text::unpack(&track.latest().detail)),
                })
            })
            .collect()
    }

    /// What the page itself costs; means are those since the last state.
    fn video(&mut self, hub: &Hub) -> Value {
        let counts = &hub.counts;
        let all = [&counts.age_ns, &counts.aged, &counts.encoding_ns, &counts.encoded];
        let now = all.map(|count| count.load(Relaxed));
        let since: [u64; 4] = std::array::from_fn(|i| now[i].wrapping_sub(self.last[i]));
        self.last = now;
        let mean =
            |sum: u64, count: u64| (count > 0).then(|| round(sum as f64 / count as f64 / 1e6));
        let load = |count: &AtomicU64| count.load(Relaxed);
        json!({
            "viewers": hub.viewers(),
            "filmed": hub.cameras.iter().filter(|camera| camera.filmed.load(Relaxed)).count(),
            "encoded": now[3],
            "sent": load(&counts.sent),
            "sent_bytes": load(&counts.sent_bytes),
            "dropped": load(&counts.dropped),
            "age_ms": mean(since[0], since[1]),
            "encode_ms": mean(since[2], since[3]),
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
