//! The Python client reads what readers in Rust read, and can hold nobody up.

use framebus_client::json;
use framebus_tests::{
    Collector, EventLog, Process, Row, World, openvino, repository, skip, wait_until,
};
use framebus_types::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn package() -> PathBuf {
    repository().join("crates/framebus-python")
}

fn script(name: &str) -> String {
    package().join(name).display().to_string()
}

/// The interpreter that has the client's dependencies, with the package in its path;
/// `None` after saying SKIPPED.
fn python(world: &mut World) -> Option<PathBuf> {
    let program = repository().join(".framebus/python-client/bin/python");
    if !program.exists() {
        skip(&format!(
            "{} is missing; `scripts/setup.sh --python-client` makes it",
            program.display()
        ));
        return None;
    }
    let package = package().display().to_string();
    for (name, value) in [("PYTHONPATH", &*package), ("PYTHONDONTWRITEBYTECODE", "1")] {
        world.environment.push((name.to_owned(), value.to_owned()));
    }
    Some(program)
}

/// A live instance of two cameras, `red` and `green`.
fn live(world: &World) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "red"
        source = "test:red?width=320&height=192&fps=20"
        [[camera]]
        name = "green"
        source = "test:green?width=320&height=192&fps=20"
        "#
    ))
}

/// The live instance, when its first results are there.
fn started(world: &World) -> (Collector, Process) {
    let config = live(world);
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("red", 5, 60);
    (results, up)
}

/// Ends the instance, whose readers have ended, in order.
fn stop(mut up: Process, world: &World) {
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_gone();
}

fn assert_unbroken(rows: &[Row]) {
    let numbers: Vec<u64> = rows.iter().map(|row| row.result_sequence).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "lost some: {numbers:?}");
}

fn assert_same(line: &Value, row: &Row) {
    assert_eq!(line["camera"], row.camera.as_str());
    assert_eq!(line["epoch_ns"], row.epoch_ns);
    assert_eq!(line["sequence"], row.sequence);
    assert_eq!(line["outcome"], row.outcome.as_str());
    assert_eq!(line["reason"], row.reason.as_str());
    assert_eq!(line["backend"], row.backend.as_str());
    assert_eq!((&line["width"], &line["height"]), (&row.size.0.into(), &row.size.1.into()));
    let times = &line["times"];
    assert_eq!(times["capture_ns"], row.times.capture_ns);
    assert_eq!(times["inference_end_ns"], row.times.inference_end_ns);
    assert_eq!(times["result_ns"], row.times.result_ns);
    let detections = line["detections"].as_array().expect("a list");
    assert_eq!(detections.len(), row.detections.len(), "{line}");
    for (one, found) in detections.iter().zip(&row.detections) {
        // Through JSON and back a number may be off in its last bit of 64, not of 32.
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        assert_eq!(
            (&one["label"], &one["class_id"]),
            (&found.label.as_str().into(), &found.class.into())
        );
        assert_eq!(number(&one["score"]), Some(found.score));
        for (edge, expected) in found.bbox.iter().enumerate() {
            assert_eq!(number(&one["box"][edge]), Some(*expected), "{line}");
        }
    }
}

#[test]
fn the_packages_own_tests_pass() {
    let mut world = World::new();
    let Some(python) = python(&mut world) else { return };
    let folder = script("tests");
    let args = ["-m", "unittest", "discover", "-v", "-s", &*folder];
    let exit = world.start("unittest", &python, &args).wait(120);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("Ran 0 tests"), "{}", exit.stderr);
}

#[test]
fn the_documentation_shows_the_examples_that_run() {
    let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
    let page = read(&repository().join("docs/consumers.md"));
    for example in ["examples/subscriber.py", "examples/pixels.py"] {
        let text = read(&package().join(example));
        let code = text.split_once("\"\"\"\n\n").map_or(&*text, |(_, code)| code);
        assert!(page.contains(code), "docs/consumers.md shows another {example}");
    }
}

#[test]
fn python_reads_what_rust_reads() {
    let mut world = World::new();
    let Some(python) = python(&mut world) else { return };
    if !openvino() {
        return;
    }
    let (results, up) = started(&world);
    results.wait_more("green", 5, 60);
    let root = world.root().display().to_string();
    let args = [&*script("tests/dump.py"), world.instance(), &root, "200"];
    let exit = world.start("dump", &python, &args).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut lines: Vec<Value> = exit
        .stdout
        .lines()
        .skip_while(|line| *line == "subscribed")
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let end = lines.pop().expect("the account");
    assert_eq!((&end["lost"], &end["bad_headers"]), (&0.into(), &0.into()), "{end}");
    assert_eq!(lines.len(), 200);
    let number = |line: &Value| line["result_sequence"].as_u64().expect("a number");
    let (first, last) = (number(&lines[0]), number(&lines[199]));
    let rows = results.wait("what Python has read", 20, |rows| {
        rows.last().is_some_and(|row| row.result_sequence >= last)
    });
    let rows: Vec<&Row> =
        rows.iter().filter(|row| (first..=last).contains(&row.result_sequence)).collect();
    assert_eq!(rows.len(), 200, "one result is one result");
    for (line, row) in lines.iter().zip(&rows) {
        assert_same(line, row);
    }
    for camera in ["red", "green"] {
        let found = |row: &&&Row| row.camera == camera && !row.detections.is_empty();
        assert!(rows.iter().filter(found).count() > 50, "{camera} is among them, with boxes");
    }
    drop(results);
    stop(up, &world);
}

#[test]
fn the_python_examples_print_what_they_promise() {
    let mut world = World::in_default_root();
    let Some(python) = python(&mut world) else { return };
    if !openvino() {
        return;
    }
    let (results, up) = started(&world);
    let args = [&*script("examples/subscriber.py"), world.instance()];
    let mut subscriber = world.start("subscriber", &python, &args);
    let args = [&*script("examples/pixels.py"), world.instance(), "red"];
    let mut pixels = world.start("pixels", &python, &args);
    for expected in ["red red 1.00 [", "green green 1.00 ["] {
        let _ = subscriber.wait_for_stdout(expected, 20);
    }
    let printed = pixels.wait_for_stdout(" lost\n", 20);
    let line = printed.lines().next().expect("a line");
    // Red in limited-range BT.601: Y = 16 + 219 x 0.299 = 81.5.
    let mean: f64 = line
        .split("mean ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    assert!(line.starts_with("red #") && (mean - 81.5).abs() < 1.5, "{line}");
    assert!(line.contains("[red"), "the frame's own result came with it: {line}");
    drop((subscriber, pixels, results));
    stop(up, &world);
}

#[test]
fn python_readers_that_hold_everything_or_die_disturb_nobody() {
    let mut world = World::new();
    let Some(python) = python(&mut world) else { return };
    if !openvino() {
        return;
    }
    let (results, up) = started(&world);
    let root = world.root().display().to_string();
    let args = [&*script("tests/hold.py"), world.instance(), &root, "red"];
    let mut holder = world.start("holder", &python, &args);
    let _ = holder.wait_for_stdout("holding 4", 30);

    // More results than the holder's buffer has room for.
    let before = results.rows().len();
    let rows = results.wait("200 results beside the holder", 60, |r| r.len() >= before + 200);
    let disturbed = rows[before..].iter().filter(|row| row.outcome != Outcome::Ok).count();
    assert!(disturbed < 20, "{disturbed} of 200 were not inferred beside the holder");
    assert!(!holder.stdout().contains("changed"), "{}", holder.stdout());

    // Killed in the middle of it; its places are free for the next one.
    world.kill(holder.pid());
    assert_eq!(holder.wait(10).signal, Some(9));
    let mut next = wait_until("a reader in the place of the one that was killed", 30, || {
        let mut next = world.start("next", &python, &args);
        wait_until("its four frames or its end", 30, || {
            (next.stdout().contains("holding 4") || !next.is_running()).then_some(())
        });
        next.is_running().then_some(next)
    });
    let before = results.rows().len();
    let rows = results.wait("100 results after the kill", 60, |r| r.len() >= before + 100);
    let disturbed = rows[before..].iter().filter(|row| row.outcome != Outcome::Ok).count();
    assert!(disturbed < 10, "{disturbed} of 100 were not inferred after the kill");
    assert_unbroken(&rows);
    world.kill(next.pid());
    assert_eq!(next.wait(10).signal, Some(9));
    drop(results);
    stop(up, &world);
}

#[test]
fn python_reads_events_as_rust_does() {
    let mut world = World::new();
    let Some(python) = python(&mut world) else { return };
    if !openvino() {
        return;
    }
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "red"
        source = "test:red?width=320&height=192&frames=10"
        delivery = "every-frame"
        [[zone]]
        camera = "red"
        name = "left"
        points = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]
        anchor = "center"
        "#
    ));
    let domain = world.domain();
    let log = EventLog::start(&domain);
    let root = world.root().display().to_string();
    // The red cells: 15 objects appear, 6 of them in the zone, and all of them go.
    let args = [&*script("tests/dump.py"), world.instance(), &root, "42", "events"];
    let mut dump = world.start("dump", &python, &args);
    let _ = dump.wait_for_stdout("subscribed", 20);
    let exit = world.up(&config).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let dumped = dump.wait(20);
    assert_eq!(dumped.code, Some(0), "{}", dumped.stderr);
    let lines: Vec<Value> = dumped
        .stdout
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let events = log.finish();
    assert_eq!((events.len(), lines.len()), (42, 43));
    assert_eq!((&lines[42]["lost"], &lines[42]["bad_headers"]), (&0.into(), &0.into()));
    for (event, line) in events.iter().zip(&lines) {
        let told = json::event(event);
        assert_eq!(line["id"], told["id"]);
        let same = ["camera", "place", "direction", "track", "label", "sequence", "wall_ns"];
        for key in same {
            assert_eq!(line[key], told[key], "{key}");
        }
        assert_eq!((&line["kind"], &line["class_id"]), (&told["event"], &told["class"]));
        assert_eq!((&line["width"], &line["index"]), (&320.into(), &event.index.into()));
        assert_eq!(line["event_sequence"], event.event_sequence);
        assert_eq!(line["box"][2].as_f64().map(|edge| edge as f32), Some(event.bbox[2]));
    }
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!(["appear", "enter", "leave", "disappear"].map(of), [15, 6, 6, 15]);
    // The instance leaves alone what is still read.
    domain.remove_leftovers().expect("nobody is there");
    world.assert_gone();
}
