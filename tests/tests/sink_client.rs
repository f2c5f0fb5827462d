//! Where results go: lines in files, lines on standard output, subscribers of
//! other people; and that none of them can hold anybody up.

use framebus_client::{BusError, Client};
use framebus_tests::{Collector, World, example, openvino, wait_until};
use framebus_types::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A hundred boxes a frame make lines of some ten kilobytes.
const LARGE: Option<(usize, usize)> = Some((320, 320));

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn the_file_is_rotated_by_size_and_no_line_is_cut() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(1, LARGE);
    let file = world.path("out/results.jsonl");
    std::fs::create_dir(world.path("out")).expect("writable");
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "red"
        source = "test:red?width=320&height=320&frames=600"
        delivery = "every-frame"
        [[camera]]
        name = "black"
        source = "test:black?width=320&height=320&frames=20"
        delivery = "every-frame"
        [[sink]]
        name = "file"
        kind = "jsonl"
        path = {file:?}
        rotate_mib = 1
        keep = 2
        cameras = ["red"]
        "#
    ));
    let exit = world.up(&config).wait(120);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut files: Vec<PathBuf> = std::fs::read_dir(world.path("out"))
        .expect("the folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    // results.jsonl is the newest, results.jsonl.1 the one before, and so on.
    files.sort();
    assert_eq!(files.len(), 3, "the file and the two that are kept: {files:?}");
    let mut sequences = Vec::new();
    for file in files.iter().rev() {
        let text = std::fs::read_to_string(file).expect("readable");
        assert!(text.ends_with('\n'), "{} ends in a cut line", file.display());
        let longest = text.lines().map(str::len).max().unwrap_or(0);
        assert!(text.len() <= (1 << 20) + longest + 1, "{}: {} B", file.display(), text.len());
        for line in json_lines(&text) {
            assert_eq!(line["camera"], "red", "only the cameras that were asked for");
            assert_eq!(line["detections"].as_array().map(Vec::len), Some(100));
            sequences.push(line["sequence"].as_u64().expect("a number"));
        }
    }
    assert_eq!(sequences.last(), Some(&599), "the newest is there");
    assert!(sequences[0] > 0, "so much that the oldest had to go");
    let unbroken: Vec<u64> = (sequences[0]..600).collect();
    assert_eq!(sequences, unbroken, "nothing is missing between the files");
    world.assert_gone();
}

#[test]
fn standard_output_carries_lines_and_nothing_else() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "green"
        source = "test:green?width=320&height=192&frames=25"
        delivery = "every-frame"
        [[sink]]
        name = "out"
        kind = "jsonl"
        "#
    ));
    let exit = world.up(&config).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let lines = json_lines(&exit.stdout);
    assert_eq!(lines.len(), 25, "{}", exit.stdout);
    for (number, line) in lines.iter().enumerate() {
        let keys: Vec<_> =
            line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "camera",
                "epoch_ns",
                "sequence",
                "result_epoch_ns",
                "result_sequence",
                "wall_ns",
                "pts_ns",
                "width",
                "height",
                "outcome",
                "reason",
                "message",
                "backend",
                "model",
                "truncated",
                "detections",
                "ms"
            ]
        );
        assert_eq!((&line["camera"], &line["outcome"]), (&"green".into(), &"ok".into()));
        assert_eq!(line["sequence"], number);
        assert_eq!(line["detections"][0]["label"], "green");
    }
}

/// A live instance of one camera in the default bus folder, where examples and
/// other people's programs look.
fn live(world: &World) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "cam"
        source = "test:red?width=320&height=192&fps=20"
        "#
    ))
}

#[test]
fn the_examples_of_the_client_print_what_they_promise() {
    if !openvino() {
        return;
    }
    let world = World::in_default_root();
    let config = live(&world);
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("cam", 5, 60);
    let mut subscriber = world.start("subscriber", &example("subscriber"), &[world.instance()]);
    let mut pixels = world.start("pixels", &example("pixels"), &[world.instance(), "cam"]);
    let mut asynchronous =
        world.start("asynchronous", &example("asynchronous"), &[world.instance()]);
    let printed = subscriber.wait_for_stdout("cam red 1.00 [", 20);
    assert!(printed.lines().next().is_some_and(|line| line.starts_with("cam red ")), "{printed}");
    // Red in limited-range BT.601: Y = 16 + 219 x 0.299 = 81.5.
    let printed = pixels.wait_for_stdout("], 0 lost", 20);
    let line = printed.lines().next().expect("a line");
    let mean: f64 = line
        .split("mean ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    assert!(line.starts_with("cam #") && (mean - 81.5).abs() < 1.5, "{line}");
    assert!(line.contains("[red"), "the frame's own result came with it: {line}");
    // Twenty frames a second, counted between two ticks of the same thread.
    let printed = asynchronous.wait_for_stdout(" behind\n", 20);
    assert!(printed.starts_with("{\"cam\": ") && printed.contains("}, 0 lost, "), "{printed}");
    drop((subscriber, pixels, asynchronous, results));
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_gone();
}

#[test]
fn subscribers_that_hold_everything_disturb_nobody() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = live(&world);
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("cam", 5, 60);
    let root = world.root().display().to_string();
    let holder = PathBuf::from(env!("CARGO_BIN_EXE_hold_sample"));
    let mut holder = world.start("holder", &holder, &[root.as_str(), world.instance()]);
    holder.wait_for_stdout("holding 4", 20);

    let client = Client::connect_in(world.instance(), &world.root()).expect("joins");
    let mut slow = client.results().expect("subscribes");
    let mut held = Vec::new();
    let refusal = wait_until("the limit of held results", 20, || {
        match slow.wait_for(Duration::from_millis(100)) {
            Ok(result) => {
                held.extend(result);
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(matches!(refusal, BusError::NoLoan { limit: 2, .. }), "{refusal:?}");
    let (first, second) = (held[0].header().sequence, held[1].header().sequence);

    // More results than the slow reader's buffer has room for.
    let before = results.rows().len();
    let rows = results.wait("150 results beside the holders", 60, |r| r.len() >= before + 150);
    let disturbed = rows[before..].iter().filter(|row| row.outcome != Outcome::Ok).count();
    assert!(disturbed < 15, "{disturbed} of 150 were not inferred beside the holders");
    let numbers: Vec<u64> = rows.iter().map(|row| row.result_sequence).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "another reader lost some");

    // What is held has not changed, and what was lost is counted.
    assert_eq!((held[0].header().sequence, held[1].header().sequence), (first, second));
    assert!(held.iter().all(|result| result.camera() == "cam" && !result.detections().is_empty()));
    held.clear();
    assert!(slow.poll().expect("free again").is_some());
    assert!(slow.lost() > 0, "a reader that slept through 150 results lost some");
    drop((slow, client, holder, results));
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_gone();
}
