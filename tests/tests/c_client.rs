//! The C client reads what readers in Rust read, and can hold nobody up.

use framebus_tests::{
    Collector, Process, Row, World, binary, openvino, repository, skip, wait_until,
};
use framebus_types::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn package() -> PathBuf {
    repository().join("crates/framebus-capi")
}

/// Runs a compiler with every warning an error; `false` after saying SKIPPED where there
/// is none.
fn compiler(program: &str, args: &[&str]) -> bool {
    let include = package().join("include");
    let mut command = Command::new(program);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(include).args(args);
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            skip(&format!("`{program}` cannot be run: {error}"));
            false
        }
    }
}

/// Compiles a C file of the package against the library; `None` without a compiler.
fn compiled(world: &World, source: &str) -> Option<PathBuf> {
    let library = binary("libframebus.so");
    let folder = library.parent().expect("a file lies in a folder").display().to_string();
    let source = package().join(source);
    let program = world.path(source.file_stem()?.to_str()?);
    let (from, to) = (source.display().to_string(), program.display().to_string());
    let rpath = format!("-Wl,-rpath,{folder}");
    let args = ["-std=gnu11", &*from, "-o", &*to, "-L", &*folder, &*rpath, "-lframebus"];
    compiler("cc", &args).then_some(program)
}

/// A live instance of two cameras, `red` and `green`, when its first results are there.
fn started(world: &World) -> (Collector, Process) {
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
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
    ));
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("red", 5, 60);
    results.wait_more("green", 5, 60);
    (results, up)
}

fn stop(mut up: Process, world: &World) {
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_gone();
}

fn assert_same(line: &Value, row: &Row) {
    assert_eq!(line["camera"], row.camera.as_str());
    assert_eq!(
        (&line["epoch_ns"], &line["sequence"]),
        (&row.epoch_ns.into(), &row.sequence.into())
    );
    assert_eq!(line["outcome"], u32::from(row.outcome));
    assert_eq!(line["reason"], row.reason.as_str());
    assert_eq!(line["backend"], row.backend.as_str());
    assert_eq!((&line["width"], &line["height"]), (&row.size.0.into(), &row.size.1.into()));
    assert_eq!(line["capture_ns"], row.times.capture_ns);
    assert_eq!(line["inference_end_ns"], row.times.inference_end_ns);
    assert_eq!(line["result_ns"], row.times.result_ns);
    let detections = line["detections"].as_array().expect("a list");
    assert_eq!(detections.len(), row.detections.len(), "{line}");
    for (one, found) in detections.iter().zip(&row.detections) {
        // Nine digits name every number of 32 bits.
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        let label = (&one["label"], &one["class"]);
        assert_eq!(label, (&found.label.as_str().into(), &found.class.into()));
        assert_eq!(number(&one["score"]), Some(found.score));
        for (edge, expected) in found.bbox.iter().enumerate() {
            assert_eq!(number(&one["box"][edge]), Some(*expected), "{line}");
        }
    }
}

#[test]
fn the_documentation_shows_the_examples_that_run() {
    let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
    let page = read(&repository().join("docs/consumers.md"));
    for (example, begin) in [
        ("crates/framebus-capi/examples/subscriber.c", "#include"),
        ("crates/framebus-capi/examples/pixels.c", "#include"),
        ("crates/framebus-client/examples/subscriber.rs", "use "),
        ("crates/framebus-client/examples/pixels.rs", "use "),
        ("crates/framebus-client/examples/asynchronous.rs", "use "),
    ] {
        let text = read(&repository().join(example));
        let code = &text[text.find(begin).expect("code")..];
        assert!(page.contains(code), "docs/consumers.md shows another {example}");
    }
}

#[test]
fn the_header_is_c_and_c_plus_plus() {
    let header = package().join("include/framebus.h").display().to_string();
    // As files that include it do: alone it would be a main file.
    let _ =
        compiler("cc", &["-std=c99", "-fsyntax-only", "-x", "c", "-include", &header, "/dev/null"]);
    let _ = compiler(
        "c++",
        &["-std=c++11", "-fsyntax-only", "-x", "c++", "-include", &header, "/dev/null"],
    );
}

#[test]
fn c_reads_what_rust_reads_and_readers_that_hold_or_die_disturb_nobody() {
    let world = World::new();
    let Some(dump) = compiled(&world, "tests/dump.c") else { return };
    if !openvino() {
        return;
    }
    let (results, up) = started(&world);
    let root = world.root().display().to_string();
    let exit = world.start("dump", &dump, &["read", world.instance(), &root, "100"]).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut lines: Vec<Value> = exit
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let kept = lines.pop().expect("the last one, which was kept");
    let end = lines.pop().expect("the account");
    assert_eq!((&end["lost"], &end["bad_headers"]), (&0.into(), &0.into()), "{end}");
    assert!(end["lag_ns"].as_u64().is_some_and(|lag| lag > 0), "{end}");
    assert_eq!(lines.len(), 100);
    let number = |line: &Value| line["result_sequence"].as_u64().expect("a number");
    let (first, last) = (number(&lines[0]), number(&lines[99]));
    let rows = results.wait("what C has read", 20, |rows| {
        rows.last().is_some_and(|row| row.result_sequence >= number(&kept))
    });
    let of = |number: u64| rows.iter().find(|row| row.result_sequence == number).expect("a row");
    assert_eq!(last - first, 99, "one result is one result");
    for (line, number) in lines.iter().zip(first..) {
        assert_same(line, of(number));
    }
    assert_same(&kept, of(number(&kept)));
    let boxes = lines.iter().filter(|line| line["detections"] != Value::Array(Vec::new())).count();
    assert!(boxes > 50, "{boxes} of 100 results have boxes");

    let exit = world.start("nulls", &dump, &["nulls", world.instance(), &root]).wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    // Red in limited-range BT.601: Y = 16 + 219 x 0.299 = 81.5.
    let pair = exit.stdout.lines().next().unwrap_or_default();
    let luma = pair.ends_with("luma 81") || pair.ends_with("luma 82");
    assert!(pair.starts_with("red #1 of red: ") && luma, "{}", exit.stdout);
    assert!(exit.stdout.ends_with("refused everything\n"), "{}", exit.stdout);

    let args = ["hold", world.instance(), &*root, "red"];
    let mut holder = world.start("holder", &dump, &args);
    let _ = holder.wait_for_stdout("holding 4", 30);
    // More results than the holder's buffer has room for.
    let undisturbed = |count: usize, what: &str| {
        let before = results.rows().len();
        let rows = results.wait(what, 60, |rows| rows.len() >= before + count);
        let bad = rows[before..].iter().filter(|row| row.outcome != Outcome::Ok).count();
        assert!(bad * 10 < count, "{bad} of {count} were not inferred: {what}");
        let numbers: Vec<u64> = rows.iter().map(|row| row.result_sequence).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "lost: {numbers:?}");
    };
    undisturbed(150, "150 results beside the holder");
    world.kill(holder.pid());
    assert_eq!(holder.wait(10).signal, Some(9));
    let mut next = wait_until("a reader in the place of the one that was killed", 30, || {
        let mut next = world.start("next", &dump, &args);
        wait_until("its four frames or its end", 30, || {
            (next.stdout().contains("holding 4") || !next.is_running()).then_some(())
        });
        next.is_running().then_some(next)
    });
    undisturbed(50, "50 results after the kill");
    world.kill(next.pid());
    assert_eq!(next.wait(10).signal, Some(9));
    drop(results);
    stop(up, &world);
}

#[test]
fn the_c_examples_print_what_they_promise() {
    let world = World::in_default_root();
    let (Some(subscriber), Some(pixels)) =
        (compiled(&world, "examples/subscriber.c"), compiled(&world, "examples/pixels.c"))
    else {
        return;
    };
    if !openvino() {
        return;
    }
    let (results, up) = started(&world);
    let mut subscriber = world.start("subscriber", &subscriber, &[world.instance()]);
    let mut pixels = world.start("pixels", &pixels, &[world.instance(), "red"]);
    for expected in ["red red 1.00 [", "green green 1.00 ["] {
        let _ = subscriber.wait_for_stdout(expected, 20);
    }
    let printed = pixels.wait_for_stdout(" lost\n", 20);
    let line = printed.lines().next().expect("a line");
    let mean: f64 = line
        .split("mean ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    assert!(line.starts_with("red #") && (mean - 81.5).abs() < 1.5, "{line}");
    assert!(line.contains("[red"), "the frame's own result came with it: {line}");
    let exit = world.start("absent", &world.path("subscriber"), &["absent"]).wait(10);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("nothing publishes instance absent"), "{}", exit.stderr);
    drop((subscriber, pixels, results));
    stop(up, &world);
}
