//! Frames with made-up times, and what the file says of them.

use super::merge::Merged;
use super::server_trace::ServerTrace;
use super::summary::Summary;
use super::timeline::{Frame, Timeline};
use crate::stats::Collector;
use framebus_types::{Counter, Health, Outcome, Reason, ResultHeader, Role, StageTimes, text};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const ORIGIN: u64 = 1_000_000_000;
pub(super) const MS: u64 = 1_000_000;

/// An answered frame that was captured `at` ms after the origin, took a
/// millisecond per stage and 10 ms in the network.
pub(super) fn ok(at: u64) -> ResultHeader {
    let t = ORIGIN + at * MS;
    ResultHeader {
        sequence: at,
        epoch_ns: 1,
        result_epoch_ns: 1,
        batch_size: 1,
        count: 2,
        times: StageTimes {
            capture_ns: t,
            publish_ns: t + MS,
            taken_ns: t + 2 * MS,
            batched_ns: t + 3 * MS,
            preprocessed_ns: t + 4 * MS,
            inference_start_ns: t + 4 * MS,
            inference_end_ns: t + 14 * MS,
            decoded_ns: t + 15 * MS,
            result_ns: t + 16 * MS,
        },
        ..ResultHeader::default()
    }
}

pub(super) fn frame(camera: &'static str, header: &'static ResultHeader) -> Frame<'static> {
    let received_ns = header.times.result_ns + MS;
    Frame { camera, outcome: Outcome::Ok, reason: Reason::None, header, received_ns }
}

pub(super) fn keep(header: ResultHeader) -> &'static ResultHeader {
    Box::leak(Box::new(header))
}

fn health(role: Role, name: &str, pid: u32) -> Health {
    Health { role: role.into(), name: text::pack(name), pid, updated_ns: 1, ..Health::default() }
}

pub(super) fn processes() -> Collector {
    let mut collector = Collector::default();
    collector.add(&health(Role::Capture, "a", 101));
    collector.add(&health(Role::Capture, "b", 102));
    collector.add(&health(Role::Infer, "infer", 100));
    collector
}

fn events(frames: &[Frame<'_>], health: &Collector) -> Vec<Value> {
    traced(frames, health, None).0
}

/// With what a server says of them, when there is its trace.
pub(super) fn traced(
    frames: &[Frame<'_>],
    health: &Collector,
    server: Option<&ServerTrace>,
) -> (Vec<Value>, Merged) {
    let mut bytes = Vec::new();
    let mut timeline = Timeline::new(&mut bytes, ORIGIN, server.is_some()).expect("memory");
    for frame in frames {
        assert!(frame.is_in_order());
        timeline.add(frame, health).expect("memory");
    }
    let merged = server.map(|server| timeline.merge(&server.served).expect("memory"));
    timeline.finish(&Value::Null).expect("memory");
    let mut file: Value = serde_json::from_slice(&bytes).expect("JSON");
    let events = file["traceEvents"].take();
    let events = events.as_array().expect("a list").clone();
    assert_nested(&events);
    (events, merged.unwrap_or_default())
}

/// Times in whole ns, as Perfetto reads them.
pub(super) fn ns(event: &Value, key: &str) -> u64 {
    (event[key].as_f64().expect("a number") * 1000.0) as u64
}

/// Slices of one row nest or follow each other.
fn assert_nested(events: &[Value]) {
    let mut rows: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let row = (event["pid"].as_u64().expect("pid"), event["tid"].as_u64().expect("tid"));
        let from = ns(event, "ts");
        rows.entry(row).or_default().push((from, from + ns(event, "dur")));
    }
    for (row, mut spans) in rows {
        spans.sort_by_key(|(from, to)| (*from, std::cmp::Reverse(*to)));
        let mut open: Vec<u64> = Vec::new();
        for (from, to) in spans {
            open.retain(|end| *end > from);
            assert!(open.iter().all(|end| to <= *end), "{row:?}: {from}..{to} crosses {open:?}");
            open.push(to);
        }
    }
}

pub(super) fn slices<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == "X" && event["name"] == name).collect()
}

/// Names of rows (`process/row`) by process and row number.
fn rows(events: &[Value]) -> BTreeMap<(u64, u64), String> {
    let name = |what: &str, pid: &Value| {
        let named = events.iter().rev().find(|e| e["name"] == what && e["pid"] == *pid);
        named.and_then(|event| event["args"]["name"].as_str()).unwrap_or("?").to_owned()
    };
    let threads = events.iter().filter(|event| event["name"] == "thread_name");
    let row = |event: &Value| {
        let id = (event["pid"].as_u64().unwrap_or(0), event["tid"].as_u64().unwrap_or(0));
        let row = event["args"]["name"].as_str().unwrap_or("?");
        (id, format!("{}/{row}", name("process_name", &event["pid"])))
    };
    threads.map(row).collect()
}

pub(super) fn row_of(events: &[Value], event: &Value) -> String {
    let id = (event["pid"].as_u64().unwrap_or(0), event["tid"].as_u64().unwrap_or(0));
    rows(events).get(&id).cloned().unwrap_or_default()
}

#[test]
fn a_frame_passes_three_processes_and_an_arrow_goes_through() {
    let events = events(&[frame("a", keep(ok(5)))], &processes());
    let expected = [
        ("capture", 101, "capture a/a", 5, 1),
        ("a", 100, "infer/context 0", 8, 12),
        ("preprocess", 100, "infer/context 0", 8, 1),
        ("inference", 100, "infer/context 0", 9, 10),
        ("decode", 100, "infer/context 0", 19, 1),
        ("publish", 100, "infer/context 0", 20, 1),
        ("receive", u64::from(std::process::id()), "trace (this reader)/a", 21, 1),
    ];
    for (name, pid, row, from, took) in expected {
        let found = slices(&events, name);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0]["pid"], pid, "{name}");
        assert_eq!(row_of(&events, found[0]), row, "{name}");
        assert_eq!((ns(found[0], "ts"), ns(found[0], "dur")), (from * MS, took * MS), "{name}");
    }
    let flows: Vec<&Value> =
        events.iter().filter(|e| e["cat"] == "frame" && e["id"] == 1).collect();
    let bound: Vec<(&str, u64)> = flows
        .iter()
        .map(|flow| {
            let at = ns(flow, "ts");
            // The innermost slice around the point.
            let around = events.iter().rfind(|event| {
                event["ph"] == "X"
                    && event["tid"] == flow["tid"]
                    && (ns(event, "ts")..ns(event, "ts") + ns(event, "dur")).contains(&at)
            });
            (around.and_then(|event| event["name"].as_str()).unwrap_or("nothing"), at)
        })
        .collect();
    let names: Vec<&str> = bound.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["capture", "inference", "receive"]);
    assert!(bound.is_sorted_by_key(|(_, at)| *at));
    let phases: Vec<&Value> = flows.iter().map(|flow| &flow["ph"]).collect();
    assert_eq!(phases, ["s", "t", "f"]);
    let waits: Vec<(&str, &str, u64)> = events
        .iter()
        .filter(|event| event["cat"] == "waiting")
        .map(|e| {
            (e["ph"].as_str().unwrap_or(""), e["name"].as_str().unwrap_or(""), ns(e, "ts") / MS)
        })
        .collect();
    assert_eq!(
        waits,
        [
            ("b", "a waits", 6),
            ("b", "wake", 6),
            ("e", "wake", 7),
            ("b", "queue", 7),
            ("e", "queue", 8),
            ("e", "a waits", 8)
        ]
    );
}

#[test]
fn a_batch_is_drawn_once_and_its_results_follow_each_other() {
    let first = ok(5);
    let mut second = first;
    (second.batch_size, second.sequence) = (2, 6);
    second.times.result_ns += MS;
    let frames =
        [frame("a", keep(ResultHeader { batch_size: 2, ..first })), frame("b", keep(second))];
    let events = events(&frames, &processes());
    assert_eq!(slices(&events, "batch").len(), 1);
    assert_eq!(slices(&events, "inference").len(), 1);
    let publish = slices(&events, "publish");
    assert_eq!(publish.len(), 2);
    assert_eq!(ns(publish[1], "ts"), ns(publish[0], "ts") + ns(publish[0], "dur"));
    let steps = events.iter().filter(|event| event["ph"] == "t").count();
    assert_eq!(steps, 2, "both arrows go through the one batch");
}

#[test]
fn what_overlaps_has_rows_of_its_own() {
    // The results of one context overtake each other, and one waits for its turn
    // while the context does the next batch; captures overlap too.
    let mut waits = ok(0);
    waits.times.result_ns += 20 * MS;
    let next = ok(12);
    let mut other = ok(3);
    other.context = 1;
    let frames = [frame("b", keep(next)), frame("a", keep(waits)), frame("a", keep(other))];
    let found = events(&frames, &processes());
    let publish = slices(&found, "publish");
    let names: Vec<String> = publish.iter().map(|event| row_of(&found, event)).collect();
    assert_eq!(names, ["infer/context 0", "infer/context 0 (2)", "infer/context 1"]);
    let mut long = ok(30);
    long.times.publish_ns += MS - 1;
    let mut short = ok(31);
    short.context = 1;
    let found = events(&[frame("a", keep(long)), frame("a", keep(short))], &processes());
    let names: Vec<String> =
        slices(&found, "capture").iter().map(|event| row_of(&found, event)).collect();
    assert_eq!(names, ["capture a/a", "capture a/a (2)"]);
}

#[test]
fn a_frame_that_was_not_inferred_is_an_instant_with_its_reason() {
    let mut header = ok(5);
    header.times.batched_ns = 0;
    header.times.preprocessed_ns = 0;
    (header.times.inference_start_ns, header.times.inference_end_ns) = (0, 0);
    header.times.decoded_ns = 0;
    let stale =
        Frame { outcome: Outcome::Dropped, reason: Reason::Stale, ..frame("a", keep(header)) };
    let mut failed = header;
    failed.times.batched_ns = header.times.taken_ns + MS;
    failed.message = text::pack("out of memory");
    let failed =
        Frame { outcome: Outcome::Failed, reason: Reason::Engine, ..frame("b", keep(failed)) };
    let found = events(&[stale, failed], &processes());
    let instants: Vec<&Value> = found.iter().filter(|event| event["ph"] == "i").collect();
    assert_eq!(instants[0]["name"], "dropped (stale)");
    assert_eq!(row_of(&found, instants[0]), "infer/a: not inferred");
    assert_eq!(instants[1]["args"]["message"], "out of memory");
    assert!(slices(&found, "inference").is_empty() && slices(&found, "publish").is_empty());
    assert_eq!(slices(&found, "b").len(), 1, "the context was busy with the one that failed");
    let starts = found.iter().filter(|event| event["ph"] == "s").count();
    assert_eq!((starts, found.iter().filter(|event| event["ph"] == "f").count()), (2, 2));
}

#[test]
fn a_restarted_process_is_another_one() {
    let mut restarted = ok(50);
    (restarted.epoch_ns, restarted.result_epoch_ns) = (2, 2);
    let mut again = ok(80);
    (again.epoch_ns, again.result_epoch_ns) = (2, 2);
    let frames = [frame("a", keep(ok(0))), frame("a", keep(restarted)), frame("a", keep(again))];
    // Nobody has heard of the new ones.
    let found = events(&frames, &processes());
    for name in ["capture", "inference"] {
        let pids: Vec<u64> =
            slices(&found, name).iter().map(|e| e["pid"].as_u64().expect("pid")).collect();
        assert!(pids[0] < 200 && pids[1] > 1 << 23 && pids[1] == pids[2], "{name}: {pids:?}");
    }
}

#[test]
fn times_that_contradict_each_other_are_found() {
    let good = ok(5);
    assert!(frame("a", keep(good)).is_in_order());
    let mut late = good;
    late.times.inference_start_ns = late.times.inference_end_ns + 1;
    let mut missing = good;
    missing.times.decoded_ns = 0;
    let mut future = good;
    future.times.capture_ns = u64::MAX;
    let mut never = good;
    never.times.taken_ns = 0;
    for bad in [late, missing, future, never] {
        let found = Frame { received_ns: ORIGIN + 1000 * MS, ..frame("a", keep(bad)) };
        assert!(!found.is_in_order(), "{:?}", bad.times);
    }
}

#[test]
fn the_summary_adds_up() {
    let mut collector = processes();
    let mut summary = Summary::new(&collector);
    for at in 0..10 {
        summary.add(&frame("a", keep(ok(at * 20))));
    }
    let dropped =
        Frame { outcome: Outcome::Dropped, reason: Reason::Stale, ..frame("a", keep(ok(500))) };
    summary.add(&dropped);
    let mut lost = health(Role::Capture, "b", 102);
    lost.updated_ns = 2;
    lost.counters[Counter::LostRate as usize] = 7;
    collector.add(&lost);
    assert_eq!(summary.frames(), 11);
    let text = summary.text(&collector, &["a".to_owned(), "b".to_owned()], 80);
    let cells = |start: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(start)).expect("a row");
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(cells("inference")[4..], ["10.0", "58.8 %"], "{text}");
    assert_eq!(cells("total")[4..], ["17.0", "100.0 %"], "{text}");
    assert_eq!(cells("a "), ["a", "10", "20", "dropped (stale) 1", "-"], "{text}");
    assert_eq!(cells("b "), ["b", "0", "0", "-", "rate 7"], "{text}");
    assert!(!text.contains("between"), "no time between the stages: {text}");
}
