//! `framebus trace`: the file says of every frame what its result said.

use framebus_tests::{Collector, Exit, Row, World, asset, openvino, wait_until};
use framebus_types::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A slice of the time line; times in ns from its origin.
#[derive(Debug, Clone, PartialEq)]
struct Slice {
    row: (u64, u64),
    name: String,
    from_ns: u64,
    to_ns: u64,
    camera: String,
    sequence: u64,
}

/// A file that has been checked against the rules of its format.
struct Trace {
    /// Names of processes and rows by their numbers.
    processes: BTreeMap<u64, String>,
    rows: BTreeMap<(u64, u64), String>,
    slices: Vec<Slice>,
    /// The slices that each arrow passes.
    arrows: BTreeMap<u64, Vec<Slice>>,
    /// Waits by arrow: name, from, to.
    waits: BTreeMap<u64, Vec<(String, u64, u64)>>,
    about: Value,
}

fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// As Perfetto reads it: times 1000, the rest cut off.
fn ns(event: &Value, key: &str) -> u64 {
    let us = event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"));
    assert!(us >= 0.0, "{event}");
    (us * 1000.0) as u64
}

impl Trace {
    fn read(json: &str) -> Self {
        let file: Value = serde_json::from_str(json).expect("JSON");
        let mut trace = Self {
            processes: BTreeMap::new(),
            rows: BTreeMap::new(),
            slices: Vec::new(),
            arrows: BTreeMap::new(),
            waits: BTreeMap::new(),
            about: file["otherData"].clone(),
        };
        let events = file["traceEvents"].as_array().expect("a list of events");
        let mut flows = Vec::new();
        for event in events {
            let row = (number(event, "pid"), number(event, "tid"));
            let at_ns = ns(event, "ts");
            match text(&event["ph"]).as_str() {
                "M" => trace.named(row, event),
                "X" => trace.slices.push(Slice {
                    row,
                    name: text(&event["name"]),
                    from_ns: at_ns,
                    to_ns: at_ns + ns(event, "dur"),
                    camera: text(&event["args"]["camera"]),
                    sequence: event["args"]["sequence"].as_u64().unwrap_or(u64::MAX),
                }),
                "b" | "e" => trace.waited(event, at_ns),
                "s" | "t" | "f" => flows.push((event, row, at_ns)),
                "i" => assert_eq!(event["s"], "t", "{event}"),
                other => panic!("unknown phase {other}: {event}"),
            }
        }
        trace.check_rows();
        for (event, row, at_ns) in flows {
            let around = |s: &&Slice| s.row == row && (s.from_ns..s.to_ns).contains(&at_ns);
            let innermost = trace.slices.iter().filter(around).min_by_key(|s| s.to_ns - s.from_ns);
            let slice = innermost.unwrap_or_else(|| panic!("no slice around {event}")).clone();
            let arrow = trace.arrows.entry(number(event, "id")).or_default();
            assert_eq!(arrow.is_empty(), event["ph"] == "s", "{event}");
            arrow.push(slice);
        }
        for (id, wait) in &trace.waits {
            assert!(wait.iter().all(|(.., to)| *to != u64::MAX), "{id}: not ended: {wait:?}");
        }
        trace
    }

    fn named(&mut self, row: (u64, u64), event: &Value) {
        let name = text(&event["args"]["name"]);
        match text(&event["name"]).as_str() {
            "process_name" => assert_eq!(self.processes.insert(row.0, name), None, "{event}"),
            "thread_name" => assert_eq!(self.rows.insert(row, name), None, "{event}"),
            _ => assert!(event["args"]["sort_index"].is_u64(), "{event}"),
        }
    }

    fn waited(&mut self, event: &Value, at_ns: u64) {
        let wait = self.waits.entry(number(event, "id")).or_default();
        let name = text(&event["name"]);
        if event["ph"] == "b" {
            return wait.push((name, at_ns, u64::MAX));
        }
        // They nest: what began last ends first.
        let open = wait.iter_mut().rfind(|(.., to)| *to == u64::MAX);
        let open = open.unwrap_or_else(|| panic!("ends what has not begun: {event}"));
        assert!(open.0 == name && open.1 <= at_ns, "{event}");
        open.2 = at_ns;
    }

    /// Every row has its name, and slices of one row nest.
    fn check_rows(&self) {
        let mut rows: BTreeMap<(u64, u64), Vec<&Slice>> = BTreeMap::new();
        for slice in &self.slices {
            rows.entry(slice.row).or_default().push(slice);
        }
        for (row, mut slices) in rows {
            assert!(self.rows.contains_key(&row), "row {row:?} has no name");
            assert!(self.processes.contains_key(&row.0), "process {} has no name", row.0);
            slices.sort_by_key(|s| (s.from_ns, std::cmp::Reverse(s.to_ns)));
            let mut open: Vec<&Slice> = Vec::new();
            for slice in slices {
                open.retain(|outer| outer.to_ns > slice.from_ns);
                let crossed = open.iter().find(|outer| outer.to_ns < slice.to_ns);
                assert_eq!(crossed, None, "in {:?}: {slice:?}", self.rows[&row]);
                open.push(slice);
            }
        }
    }

    /// Arrows of inferred frames by camera and sequence.
    fn frames(&self) -> BTreeMap<(String, u64), (u64, &[Slice])> {
        let frame = |(id, slices): (&u64, &'_ Vec<Slice>)| {
            let key = (slices[0].camera.clone(), slices[0].sequence);
            (key, *id)
        };
        let ids: BTreeMap<(String, u64), u64> = self.arrows.iter().map(frame).collect();
        assert_eq!(ids.len(), self.arrows.len(), "a frame has one arrow");
        ids.into_iter().map(|(key, id)| (key, (id, self.arrows[&id].as_slice()))).collect()
    }
}

/// What the trace says of a frame is what its result said.
fn check_frame(trace: &Trace, id: u64, arrow: &[Slice], row: &Row) {
    let times = &row.times;
    let took = |slice: &Slice| slice.to_ns - slice.from_ns;
    let names: Vec<&str> = arrow.iter().map(|slice| slice.name.as_str()).collect();
    let (first, last) = (&arrow[0], &arrow[arrow.len() - 1]);
    assert_eq!(took(first), times.publish_ns - times.capture_ns, "capture");
    assert_eq!((&last.camera, last.sequence), (&row.camera, row.sequence));
    assert_eq!(trace.processes[&first.row.0], format!("capture {}", row.camera));
    // Where the two clocks meet: everything else follows from this.
    let origin_ns = times.capture_ns - first.from_ns;
    assert_eq!(last.from_ns + origin_ns, times.result_ns, "the result was sent");
    let waits = &trace.waits[&id];
    let end_ns = if times.batched_ns > 0 { times.batched_ns } else { times.result_ns };
    let expected = [
        (format!("{} waits", row.camera), times.publish_ns, end_ns),
        ("wake".to_owned(), times.publish_ns, times.taken_ns),
        ("queue".to_owned(), times.taken_ns, end_ns),
    ];
    let expected = expected.map(|(name, from, to)| (name, from - origin_ns, to - origin_ns));
    assert_eq!(waits.as_slice(), expected);
    if row.outcome != Outcome::Ok {
        return assert_eq!(names, ["capture", "receive"], "{:?}", row.outcome);
    }
    assert_eq!(names, ["capture", "inference", "receive"]);
    assert_eq!(took(&arrow[1]), times.inference_end_ns - times.inference_start_ns, "inference");
    assert_eq!(arrow[1].from_ns + origin_ns, times.inference_start_ns);
    assert_eq!(trace.processes[&arrow[1].row.0], "infer");
    let context = &trace.rows[&arrow[1].row];
    assert!(context.starts_with("context "), "{context}");
    let inside = |name: &str, from_ns: u64, to_ns: u64| {
        let found = trace.slices.iter().any(|slice| {
            slice.name == name
                && slice.row == arrow[1].row
                && (slice.from_ns + origin_ns, slice.to_ns + origin_ns) == (from_ns, to_ns)
        });
        assert!(found, "no {name} of {} {}", row.camera, row.sequence);
    };
    inside("preprocess", times.batched_ns, times.preprocessed_ns);
    inside("decode", times.inference_end_ns, times.decoded_ns);
    let publish = trace.slices.iter().find(|slice| {
        slice.name == "publish" && (&slice.camera, slice.sequence) == (&row.camera, row.sequence)
    });
    assert_eq!(publish.map(|slice| slice.to_ns + origin_ns), Some(times.result_ns));
}

#[test]
fn every_frame_of_the_time_is_in_the_file() {
    if !openvino() {
        return;
    }
    let Some(clip) = asset("media/bikes.mp4") else { return };
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "clip"
        source = "file:{}"
        loop = true
        pace = "realtime"
        [[camera]]
        name = "red"
        source = "test:red?width=320&height=192&fps=30"
        "#,
        clip.display()
    ));
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("red", 20, 60);
    results.wait_more("clip", 20, 30);
    let file = config.display().to_string();
    let run = |args: &[&str]| -> Exit {
        let args = [&["trace", "--config", &file], args].concat();
        world.framebus("trace", &args).wait(60)
    };

    let exit = run(&["--seconds", "3", "-o", "trace.json"]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    for word in ["inference", "receive", "total", "p99", "share", "clip", "red", "trace.json"] {
        assert!(exit.stdout.contains(word), "no {word}: {}", exit.stdout);
    }
    let json = std::fs::read_to_string(world.path("trace.json")).expect("the file is there");
    let trace = Trace::read(&json);
    for camera in ["clip", "red"] {
        let pid = world.pid_of(&["framebus-capture", camera]).expect("it runs");
        assert_eq!(trace.processes.get(&pid.into()), Some(&format!("capture {camera}")));
    }
    let pid = world.pid_of(&["framebus-infer"]).expect("it runs");
    assert_eq!(trace.processes.get(&pid.into()).map(String::as_str), Some("infer"));
    let frames = trace.frames();
    assert_eq!(trace.about["frames"], frames.len());
    let lost = trace.about["results_lost"].as_u64().expect("a number");
    assert!(frames.len() > 20, "{} frames in 3 s of 60 a second", frames.len());
    // Results are sent before this test asks for them, but may not have come.
    let newest = |camera: &str| frames.keys().rfind(|key| key.0 == camera).map(|key| key.1);
    let (clip_last, red_last) = (newest("clip"), newest("red"));
    let rows = results.wait("the traced results", 10, |rows| {
        let last = |camera: &str| {
            rows.iter().filter(|row| row.camera == camera).map(|row| row.sequence).max()
        };
        last("clip") >= clip_last && last("red") >= red_last
    });
    // A dropped frame's result overtakes those of frames that are in the engine: what was
    // sent after the last traced result is missing for good reason.
    let is_traced = |row: &&Row| frames.contains_key(&(row.camera.clone(), row.sequence));
    let end = rows.iter().filter(is_traced).map(|row| row.result_sequence).max();
    let mut missing = 0;
    for camera in ["clip", "red"] {
        let of = |key: &&(String, u64)| key.0 == camera;
        let traced: BTreeSet<u64> = frames.keys().filter(of).map(|key| key.1).collect();
        let (first, last) = (traced.first().expect("some"), traced.last().expect("some"));
        let between = |row: &&Row| row.camera == camera && (*first..=*last).contains(&row.sequence);
        for row in rows.iter().filter(between).filter(|row| Some(row.result_sequence) <= end) {
            match frames.get(&(camera.to_owned(), row.sequence)) {
                Some((id, arrow)) => check_frame(&trace, *id, arrow, row),
                None => missing += 1,
            }
        }
    }
    assert!(missing <= lost, "{missing} results are missing, {lost} are known as lost");

    let exit = run(&["--seconds", "1", "--cameras", "red", "-o", "-"]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert!(exit.stderr.contains("inference") && !exit.stderr.contains("clip"), "{exit:#?}");
    let trace = Trace::read(&exit.stdout);
    assert!(!trace.frames().is_empty() && trace.frames().keys().all(|key| key.0 == "red"));

    // A device is written to, never replaced.
    std::os::unix::fs::symlink("/dev/null", world.path("null")).expect("a link");
    let exit = run(&["--seconds", "0.2", "-o", "null", "--server-trace", "server.json"]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    for words in ["neither it nor server.json.0", "no frame was answered by a server"] {
        assert!(exit.stderr.contains(words), "no {words}: {}", exit.stderr);
    }
    assert!(world.path("null").is_symlink(), "the link is still there");
    let folder = world.folder().display().to_string();
    let exit = run(&["-o", &folder]);
    assert_eq!(exit.code, Some(69), "{exit:#?}");
    assert!(exit.stderr.contains("directory"), "{}", exit.stderr);

    // Asked to stop: what was recorded is complete.
    let before = std::fs::read_dir(world.folder()).expect("the world's folder").count();
    let args = ["trace", "--config", &file, "--seconds", "300", "-o", "stopped.json"];
    let mut recorder = world.framebus("stopped", &args);
    // Its two outputs, and the file that is to become the trace.
    wait_until("the recording to begin", 20, || {
        let now = std::fs::read_dir(world.folder()).expect("the world's folder").count();
        (now == before + 3).then_some(())
    });
    results.wait_more("red", 15, 20);
    assert!(!world.path("stopped.json").exists(), "it appears as a whole");
    recorder.signal(Signal::INT);
    assert_eq!(recorder.wait(20).code, Some(0));
    let json = std::fs::read_to_string(world.path("stopped.json")).expect("the file is there");
    assert!(!Trace::read(&json).frames().is_empty());

    let exit = run(&["--cameras", "red,blue", "-o", "never.json"]);
    assert_eq!(exit.code, Some(64), "{exit:#?}");
    assert!(exit.stderr.contains("blue") && exit.stderr.contains("clip, red"), "{}", exit.stderr);
    let exit = run(&["-o", "no/such/folder/trace.json"]);
    assert_eq!(exit.code, Some(69), "{exit:#?}");
    assert!(!world.path("never.json").exists());

    drop(results);
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0));
    world.assert_gone();
}
