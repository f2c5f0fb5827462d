//! Frames that a server answered, with and without its own trace.

use super::merge::Merged;
use super::server_trace::ServerTrace;
use super::summary::Summary;
use super::tests::{MS, ORIGIN, frame, keep, ns, ok, processes, row_of, slices, traced};
use super::timeline::Frame;
use framebus_types::{ResultHeader, ServerTimes};
use serde_json::Value;
use std::collections::HashSet;

/// [`ok`], whose 10 ms in the network were 1 ms of encoding, a request of 8 ms, of which
/// the server spends 4 on average, and 1 ms of decoding.
fn served(at: u64, request: u64) -> ResultHeader {
    let server = ServerTimes {
        request,
        serialise_us: 1000,
        receive_us: 1000,
        queue_us: 1000,
        compute_input_us: 500,
        compute_us: 2000,
        compute_output_us: 500,
        sent_bytes: 4_915_200,
        received_bytes: 2_822_400,
    };
    ResultHeader { server, ..ok(at) }
}

/// What the server writes of `request`, which reached it at `read` ns of its clock: 5 ms
/// later it answers.
fn trace_of(id: u64, request: u64, read: u64) -> String {
    let stamp = |name: &str, us: u64| {
        format!(r#"{{"id":{id},"timestamps":[{{"name":"{name}","ns":{}}}]}}"#, read + us * 1000)
    };
    let stamps = [
        ("GRPC_WAITREAD_END", 0),
        ("REQUEST_START", 100),
        ("QUEUE_START", 200),
        ("COMPUTE_START", 1200),
        ("COMPUTE_INPUT_END", 1500),
        ("COMPUTE_OUTPUT_START", 4500),
        ("COMPUTE_END", 4700),
        ("REQUEST_END", 5100),
        ("GRPC_SEND_START", 5000),
        ("GRPC_SEND_END", 5300),
    ];
    let stamps: Vec<String> = stamps.iter().map(|(name, us)| stamp(name, *us)).collect();
    format!(
        r#"{{"id":{id},"model_name":"yolo","model_version":1,"request_id":"{request}"}},{}"#,
        stamps.join(",")
    )
}

fn parsed(pieces: &[String], wanted: &[u64]) -> ServerTrace {
    let mut trace = ServerTrace::default();
    let text = format!("[{}]", pieces.join(","));
    trace.add(text.as_bytes(), &wanted.iter().copied().collect::<HashSet<u64>>());
    trace
}

/// From when, and how long, us since the origin.
fn at(event: &Value) -> (u64, u64) {
    (ns(event, "ts") / 1000, ns(event, "dur") / 1000)
}

fn only<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found = slices(events, name);
    assert_eq!(found.len(), 1, "{name}");
    found[0]
}

/// The names of all slices in `row`.
fn names(events: &[Value], row: &str) -> Vec<String> {
    let inside = events.iter().filter(|event| event["ph"] == "X" && row_of(events, event) == row);
    inside.map(|event| event["name"].as_str().unwrap_or("").to_owned()).collect()
}

const AVERAGES: [(&str, u64, u64); 6] = [
    ("send (estimated)", 10_000, 2000),
    ("server queue (average)", 12_000, 1000),
    ("server input (average)", 13_000, 500),
    ("server compute (average)", 13_500, 2000),
    ("server output (average)", 15_500, 500),
    ("answer (estimated)", 16_000, 2000),
];

#[test]
fn a_request_shows_its_parts_and_the_averages_of_the_server() {
    let (events, _) = traced(&[frame("a", keep(served(5, 7)))], &processes(), None);
    // The network runs from 9 to 19 ms after the origin.
    let inside = slices(&events, "receive");
    assert_eq!(inside.len(), 2, "of the answer, and this reader's");
    assert_eq!(
        (at(inside[0]), row_of(&events, inside[0])),
        ((18_000, 1000), "infer/context 0".into())
    );
    assert_eq!(inside[0]["args"]["bytes"], 2_822_400);
    let serialise = only(&events, "serialise");
    assert_eq!((at(serialise), &serialise["args"]["bytes"]), ((9000, 1000), &4_915_200.into()));
    let request = only(&events, "request");
    assert_eq!((at(request), &request["args"]["request"]), ((10_000, 8000), &7.into()));
    for (name, from, took) in AVERAGES {
        let slice = only(&events, name);
        assert_eq!(at(slice), (from, took), "{name}");
        assert_eq!(row_of(&events, slice), "infer/context 0", "{name}");
        assert_eq!(slice["args"]["request"], 7, "{name}");
    }
}

#[test]
fn averages_that_are_too_long_or_missing_are_not_made_up() {
    let mut long = served(5, 7);
    long.server.compute_us = 1_000_000;
    let mut unknown = served(50, 8);
    unknown.server = ServerTimes { request: 8, ..ServerTimes::default() };
    let mut lies = served(100, 9);
    (lies.server.serialise_us, lies.server.receive_us) = (u32::MAX, u32::MAX);
    let in_process = ok(150);
    let headers = [long, unknown, lies, in_process];
    let frames: Vec<Frame<'_>> = headers.iter().map(|h| frame("a", keep(*h))).collect();
    // Nothing crosses anything: `traced` looks at every row.
    let (events, _) = traced(&frames, &processes(), None);
    assert_eq!(slices(&events, "request").len(), 3, "none in the process itself");
    assert_eq!(slices(&events, "send (estimated)").len(), 0, "nothing is left for the way");
    let compute = only(&events, "server compute (average)");
    assert_eq!(compute["args"]["average ms of the server's last second"], 1000.0);
    let (from, took) = at(compute);
    assert!(from >= 10_000 && from + took <= 18_000, "{from} {took}");
    let lied: Vec<u64> = slices(&events, "request").iter().map(|slice| at(slice).1).collect();
    assert_eq!(lied, [8000, 10_000, 0]);
}

#[test]
fn the_servers_trace_takes_the_place_of_averages() {
    let frames = [frame("a", keep(served(5, 7))), frame("b", keep(served(50, 8)))];
    // Id 7 was used in the days before, too.
    let trace = parsed(
        &[
            trace_of(1, 7, ORIGIN / 2),
            trace_of(3, 7, ORIGIN + 12 * MS),
            trace_of(2, 9, ORIGIN + 57 * MS),
        ],
        &[7, 8],
    );
    let (events, merged) = traced(&frames, &processes(), Some(&trace));
    assert_eq!((merged.requests, merged.exact.len(), merged.is_aligned), (2, 1, false));
    assert_eq!(
        merged.text(3),
        "server trace: 1 of 2 requests, same clock; 3 damaged pieces skipped"
    );
    // The first one exactly, the second one by averages.
    for (name, from, took) in AVERAGES {
        assert_eq!(at(only(&events, name)), (from + 45_000, took), "{name}");
    }
    for (name, from, took) in
        [("send", 10_000, 2000), ("server", 12_000, 5000), ("answer", 17_000, 1000)]
    {
        let slice = only(&events, name);
        assert_eq!((at(slice), row_of(&events, slice)), ((from, took), "infer/context 0".into()));
    }
    let stages = [
        ("yolo", 12_000, 5000),
        ("accept", 12_000, 200),
        ("queue", 12_200, 1000),
        ("input", 13_200, 300),
        ("compute", 13_500, 3000),
        ("output", 16_500, 200),
        ("respond", 16_700, 300),
    ];
    for (name, from, took) in stages {
        let slice = only(&events, name);
        assert_eq!(
            (at(slice), row_of(&events, slice)),
            ((from, took), "triton server/yolo".into())
        );
    }
    let arrow: Vec<(&str, u64)> = events
        .iter()
        .filter(|event| event["cat"] == "request")
        .map(|event| (event["ph"].as_str().unwrap_or(""), ns(event, "ts") / 1000))
        .collect();
    assert_eq!(arrow, [("s", 11_000), ("t", 14_500), ("f", 17_500)]);
}

#[test]
fn another_clock_is_aligned_and_says_so() {
    let frames: Vec<Frame<'_>> =
        (0..3).map(|at| frame("a", keep(served(5 + at * 50, 7 + at)))).collect();
    // An hour later than ours, with what an earlier process had asked with the same ids.
    let hour = 3_600_000 * MS;
    let mut pieces: Vec<String> =
        (0..3).map(|at| trace_of(at, 7 + at, ORIGIN + (12 + at * 50) * MS + hour)).collect();
    pieces.extend((0..3).map(|at| trace_of(10 + at, 7 + at, ORIGIN + at * MS)));
    let trace = parsed(&pieces, &[7, 8, 9]);
    let (events, merged) = traced(&frames, &processes(), Some(&trace));
    assert_eq!((merged.exact.len(), merged.is_aligned), (3, true));
    assert!(merged.text(0).ends_with("3 of 3 requests, another clock (aligned)"));
    let send = slices(&events, "send (clock aligned)");
    assert_eq!(
        send.iter().map(|s| at(s)).collect::<Vec<_>>(),
        [(10_000, 1500), (60_000, 1500), (110_000, 1500)]
    );
    let compute = slices(&events, "compute (clock aligned)");
    assert_eq!(at(compute[0]), (13_000, 3000));
    assert_eq!(row_of(&events, compute[0]), "triton server (clock aligned)/yolo");
    assert!(!names(&events, "infer/context 0").iter().any(|name| name.ends_with("(average)")));

    // Longer than the request: not its span.
    let slow =
        trace_of(1, 7, hour).replace(&(hour + 5 * MS).to_string(), &(hour + 50 * MS).to_string());
    let (events, merged) = traced(&frames, &processes(), Some(&parsed(&[slow], &[7])));
    assert_eq!((merged.exact.len(), merged.is_aligned), (0, false));
    assert!(merged.text(0).contains("averages"), "{}", merged.text(0));
    assert_eq!(slices(&events, "server compute (average)").len(), 3);
}

#[test]
fn stamps_that_are_missing_or_contradict_each_other_leave_whole_slices() {
    let frames = [frame("a", keep(served(5, 7)))];
    let whole = trace_of(1, 7, ORIGIN + 12 * MS);
    // An ensemble has no stages of its own.
    let pieces: Vec<&str> =
        whole.split("},{").filter(|p| !p.contains("COMPUTE") && !p.contains("QUEUE")).collect();
    let ensemble = pieces.join("},{");
    let (events, merged) = traced(&frames, &processes(), Some(&parsed(&[ensemble], &[7])));
    assert_eq!(merged.exact.len(), 1);
    assert_eq!(names(&events, "triton server/yolo"), ["yolo"]);
    let twisted = whole.replace("COMPUTE_INPUT_END", "COMPUTE_END_").replace(
        &format!("COMPUTE_START\",\"ns\":{}", ORIGIN + 13_200_000),
        &format!("COMPUTE_START\",\"ns\":{}", u64::MAX),
    );
    assert_ne!(twisted, whole);
    let (events, _) = traced(&frames, &processes(), Some(&parsed(&[twisted], &[7])));
    let stages = ["yolo", "accept", "queue"];
    assert_eq!(names(&events, "triton server/yolo"), stages, "nothing crosses");
    // The outputs are released after the answer has gone.
    let late = whole.replace(
        &format!("COMPUTE_END\",\"ns\":{}", ORIGIN + 16_700_000),
        &format!("COMPUTE_END\",\"ns\":{}", ORIGIN + 17_900_000),
    );
    assert_ne!(late, whole);
    let (events, _) = traced(&frames, &processes(), Some(&parsed(&[late], &[7])));
    assert_eq!(at(only(&events, "output")), (16_500, 500), "until the answer is sent");
    assert_eq!(slices(&events, "respond").len(), 0);
}

#[test]
fn the_summary_says_where_the_time_of_requests_went() {
    let collector = processes();
    let mut summary = Summary::new(&collector);
    let mut batch = served(0, 1);
    batch.batch_size = 2;
    let frames =
        [frame("a", keep(batch)), frame("b", keep(batch)), frame("a", keep(served(100, 2)))];
    for frame in &frames {
        summary.add(frame);
    }
    let rows = |summary: &Summary| -> Vec<(String, String, String)> {
        let text = summary.text(&collector, &["a".to_owned()], 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let within = text.lines().skip_while(|line| !line.starts_with("inference"));
        let cells = |line: &str| {
            let cells: Vec<&str> =
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            (cells[0].to_owned(), cells[4].to_owned(), cells[5].to_owned())
        };
        within.skip(1).take_while(|line| line.starts_with("  ")).map(cells).collect()
    };
    let row =
        |name: &str, max: &str, share: &str| (name.to_owned(), max.to_owned(), share.to_owned());
    let estimated = [
        row("serialise", "1.00", "5.9 %"),
        row("send (estimated)", "2.00", "11.8 %"),
        row("server queue (average)", "1.00", "5.9 %"),
        row("server input (average)", "0.50", "2.9 %"),
        row("server compute (average)", "2.00", "11.8 %"),
        row("server output (average)", "0.50", "2.9 %"),
        row("answer (estimated)", "2.00", "11.8 %"),
        row("receive", "1.00", "5.9 %"),
    ];
    assert_eq!(rows(&summary), estimated);

    // The trace speaks of the batch only: it stands for all.
    let trace = parsed(&[trace_of(1, 1, ORIGIN + 6 * MS)], &[1]);
    let (_, merged) = traced(&frames, &collector, Some(&trace));
    assert_eq!(merged.exact.iter().map(|(_, frames)| *frames).collect::<Vec<_>>(), [2]);
    summary.add_exact(&merged);
    let exact = [
        row("serialise", "1.00", "5.9 %"),
        row("send", "1.00", "5.9 %"),
        row("server queue", "1.00", "5.9 %"),
        row("server input", "0.30", "1.8 %"),
        row("server compute", "3.00", "17.6 %"),
        row("server output", "0.20", "1.2 %"),
        row("server, other", "0.50", "2.9 %"),
        row("answer", "2.00", "11.8 %"),
        row("receive", "1.00", "5.9 %"),
    ];
    assert_eq!(rows(&summary), exact);
    summary.add_exact(&Merged { is_aligned: true, ..Merged::default() });
    assert_eq!(rows(&summary)[1].0, "send (clock aligned)");

    let mut unknown = Summary::new(&collector);
    let mut header = served(0, 1);
    header.server = ServerTimes { request: 1, serialise_us: 4000, ..ServerTimes::default() };
    unknown.add(&frame("a", keep(header)));
    let names: Vec<String> = rows(&unknown).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["serialise", "request", "receive"]);
}
