//! A frame's result as spans of OpenTelemetry, in OTLP's JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): ids in hexadecimal,
//! numbers of 64 bits as text.

use framebus_client::ResultSample;
use framebus_types::{Outcome, Reason, ResultHeader, Stage, StageTimes};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// `SPAN_KIND_INTERNAL` and `STATUS_CODE_ERROR`.
const INTERNAL: u32 = 1;
const ERROR: u32 = 2;

/// The names of a frame's trace and of its root span: parts of the SHA-256 of
/// `CAMERA-EPOCH-SEQUENCE` (the epoch in hexadecimal), which is the id of the frame's result
/// and the beginning of its events' ids. So everybody computes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId {
    trace: u128,
    root: u64,
}

impl TraceId {
    pub(super) fn of(camera: &str, epoch_ns: u64, sequence: u64) -> Self {
        let mut hash = HashText(Sha256::new());
        // A hash takes everything.
        let _ = write!(hash, "{camera}-{epoch_ns:x}-{sequence}");
        let hash: [u8; 32] = hash.0.finalize().into();
        let mut trace = [0; 16];
        let mut root = [0; 8];
        trace.copy_from_slice(&hash[..16]);
        root.copy_from_slice(&hash[16..24]);
        Self { trace: u128::from_be_bytes(trace), root: u64::from_be_bytes(root) }
    }

    /// The 56 bits that OpenTelemetry's samplers decide by, so that others that look at the
    /// same trace decide alike
    /// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).
    pub(super) fn randomness(self) -> u64 {
        self.trace as u64 & ((1 << 56) - 1)
    }

    fn trace(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The root for 0, stages from 1 on.
    fn span(self, number: u64) -> String {
        // Zero is no id.
        format!("{:016x}", self.root.wrapping_add(number).max(1))
    }
}

struct HashText(Sha256);

impl std::fmt::Write for HashText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

/// What says who speaks, in front of the spans.
pub(super) fn head(instance: &str) -> String {
    let resource = json!({"attributes": [
        text("service.name", "framebus"),
        text("service.instance.id", instance),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ]});
    format!(
        "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"scope\":{{\"name\":\"framebus\"}},\"spans\":["
    )
}

/// What closes a message.
pub(super) const TAIL: &str = "]}]}]}";

/// The spans of a frame, separated by commas; `None` when its times cannot be: what another
/// process wrote is not trusted.
pub(super) fn spans(id: TraceId, result: &ResultSample) -> Option<Vec<u8>> {
    let (header, times) = (result.header(), &result.header().times);
    if !is_in_order(times) {
        return None;
    }
    let wall = |ns: u64| (header.wall_ns.saturating_add(ns - times.capture_ns)).to_string();
    let span = |number: u64, name: &str, from_ns: u64, to_ns: u64| {
        json!({
            "traceId": id.trace(),
            "spanId": id.span(number),
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": wall(from_ns),
            "endTimeUnixNano": wall(to_ns),
        })
    };
    let mut root = span(0, "frame", times.capture_ns, times.result_ns);
    root["attributes"] = frame(result);
    if result.outcome() == Outcome::Failed {
        root["status"] = json!({"code": ERROR, "message": result.message()});
    }
    let mut spans = root.to_string();
    for (stage, from_ns, to_ns) in stages(times) {
        let mut child = span(stage as u64 + 1, stage.as_str(), from_ns, to_ns);
        child["parentSpanId"] = json!(id.span(0));
        if stage == Stage::Inference {
            child["attributes"] = engine(header);
        }
        let _ = write!(spans, ",{child}");
    }
    Some(spans.into_bytes())
}

/// Whether the stages that the frame reached follow each other, from the camera to the
/// result.
fn is_in_order(times: &StageTimes) -> bool {
    let mut last_ns = 0;
    let all = [
        times.capture_ns,
        times.publish_ns,
        times.taken_ns,
        times.batched_ns,
        times.preprocessed_ns,
        times.inference_start_ns,
        times.inference_end_ns,
        times.decoded_ns,
        times.result_ns,
    ];
    let mut reached = all.into_iter().filter(|ns| *ns > 0);
    times.capture_ns > 0
        && times.result_ns > 0
        && reached.all(|ns| std::mem::replace(&mut last_ns, ns) <= ns)
}

/// The stages that the frame reached; one that was never batched waited up to its end.
fn stages(times: &StageTimes) -> impl Iterator<Item = (Stage, u64, u64)> {
    let queued_ns = if times.batched_ns > 0 { times.batched_ns } else { times.result_ns };
    [
        (Stage::Capture, times.capture_ns, times.publish_ns),
        (Stage::Wake, times.publish_ns, times.taken_ns),
        (Stage::Queue, times.taken_ns, queued_ns),
        (Stage::Preprocess, times.batched_ns, times.preprocessed_ns),
        (Stage::Inference, times.inference_start_ns, times.inference_end_ns),
        (Stage::Decode, times.inference_end_ns, times.decoded_ns),
        (Stage::Publish, times.decoded_ns, times.result_ns),
    ]
    .into_iter()
    .filter(|(_, from_ns, to_ns)| *from_ns > 0 && *to_ns > 0)
}

fn frame(result: &ResultSample) -> Value {
    let header = result.header();
    let age_ns = header.times.result_ns.saturating_sub(header.times.capture_ns);
    let mut attributes = vec![
        text("framebus.camera", result.camera()),
        number("framebus.sequence", header.sequence),
        number("framebus.epoch_ns", header.epoch_ns),
        text("framebus.outcome", result.outcome().as_str()),
        number("framebus.detections", header.count.into()),
        json!({"key": "framebus.age_ms", "value": {"doubleValue": age_ns as f64 / 1e6}}),
        number("framebus.width", header.width.into()),
        number("framebus.height", header.height.into()),
    ];
    if result.reason() != Reason::None {
        attributes.push(text("framebus.reason", result.reason().as_str()));
    }
    Value::Array(attributes)
}

/// Who ran the network, and what a server said of it.
fn engine(header: &ResultHeader) -> Value {
    let mut attributes = vec![
        text("framebus.backend", header.backend()),
        text("framebus.model", header.model()),
        number("framebus.batch_size", header.batch_size.into()),
        number("framebus.context", header.context.into()),
    ];
    let server = &header.server;
    if server.request > 0 {
        attributes.extend([
            number("framebus.server.request", server.request),
            number("framebus.server.serialise_us", server.serialise_us.into()),
            number("framebus.server.receive_us", server.receive_us.into()),
        ]);
    }
    Value::Array(attributes)
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    // The attribute is signed.
    json!({"key": key, "value": {"intValue": value.min(i64::MAX as u64).to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_one_that_sha256sum_computes() {
        // printf gate-1f-7 | sha256sum
        let id = TraceId::of("gate", 31, 7);
        let hash = "01d394190de6ef76bafc6042cada75f6eea2b716ba1e0501b92936037b6a2864";
        assert_eq!(format!("{}{}", id.trace(), id.span(0)), hash[..48]);
        assert_eq!(format!("{:014x}", id.randomness()), hash[18..32]);
        assert_eq!(u64::from_str_radix(&id.span(3), 16).ok(), Some(id.root.wrapping_add(3)));
    }

    #[test]
    fn stages_follow_each_other_or_are_not_believed() {
        let whole = StageTimes {
            capture_ns: 1,
            publish_ns: 2,
            taken_ns: 3,
            batched_ns: 4,
            preprocessed_ns: 5,
            inference_start_ns: 6,
            inference_end_ns: 7,
            decoded_ns: 8,
            result_ns: 9,
        };
        assert!(is_in_order(&whole));
        assert_eq!(stages(&whole).count(), 7);
        for wrong in [
            StageTimes { capture_ns: 0, ..whole },
            StageTimes { result_ns: 0, ..whole },
            StageTimes { taken_ns: 5, ..whole },
            StageTimes { result_ns: 7, ..whole },
        ] {
            assert!(!is_in_order(&wrong), "{wrong:?}");
        }
        let dropped = StageTimes {
            capture_ns: 1,
            publish_ns: 2,
            taken_ns: 3,
            result_ns: 9,
            ..StageTimes::default()
        };
        assert!(is_in_order(&dropped));
        assert_eq!(stages(&dropped).last(), Some((Stage::Queue, 3, 9)));
    }
}
