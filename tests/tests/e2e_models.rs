//! Models of all kinds, and everything that can be wrong before the first
//! result: one clear message, the right exit code, nothing that hangs.

use framebus_model::testing::not_yolo;
use framebus_tests::{
    Collector, Exit, HealthWatch, Process, World, asset, binary, example, openvino, with_shm,
};
use framebus_types::{Outcome, Role, State, text};
use image::{Rgb, RgbImage};
use rustix::process::Signal;
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// 192x192: a red cell at (64, 32) and a green one at (128, 160), 32 wide.
fn picture(world: &World) -> PathBuf {
    let mut picture = RgbImage::new(192, 192);
    let cells = [(64, 32, Rgb([255, 0, 0])), (128, 160, Rgb([0, 255, 0]))];
    for (left, top, colour) in cells {
        for y in top..top + 32 {
            for x in left..left + 32 {
                picture.put_pixel(x, y, colour);
            }
        }
    }
    let path = world.path("cells.png");
    picture.save(&path).expect("the world's folder is writable");
    path
}

fn detect(world: &World, args: &[&str]) -> Exit {
    world.framebus("detect", &[&["detect", "--json"], args].concat()).wait(60)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Labels and boxes, rounded to pixels, ordered.
fn boxes(line: &str) -> Vec<(String, Vec<i64>)> {
    let value: Value = serde_json::from_str(line).expect("a JSON object");
    let mut boxes: Vec<_> = value["detections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| {
            let edges = found["box"].as_array().expect("four edges");
            let edges = edges.iter().map(|edge| edge.as_f64().expect("a number").round() as i64);
            (found["label"].as_str().expect("a label").to_owned(), edges.collect())
        })
        .collect();
    boxes.sort();
    boxes
}

#[test]
fn models_of_one_class_two_classes_and_free_size_find_their_cells() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let picture = shown(&picture(&world));
    let red = ("red".to_owned(), vec![64, 32, 96, 64]);
    let green = ("green".to_owned(), vec![128, 160, 160, 192]);
    for (classes, size, input, want) in [
        (1, Some((192, 192)), "auto", vec![red.clone()]),
        (2, Some((192, 192)), "auto", vec![green.clone(), red.clone()]),
        (2, None, "192x192", vec![green, red]),
    ] {
        let model = shown(&world.tiny_model(classes, size));
        let args = ["--model", &model, "--input", input, "--confidence", "0.5", &picture];
        let exit = detect(&world, &args);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert_eq!(boxes(exit.stdout.trim()), want, "{classes} classes, {size:?}");
    }
    world.assert_gone();
}

#[test]
fn a_dynamic_export_runs_under_up() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(3, None);
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "wide"
        source = "test:blue?width=640&height=360&frames=10"
        delivery = "every-frame"
        "#
    ));
    let results = Collector::start(&world.domain());
    let exit = world.up(&config).wait(60);
    world.assert_ended();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    assert_eq!(rows.len(), 10);
    for row in rows {
        assert_eq!(row.outcome, Outcome::Ok);
        assert!(!row.detections.is_empty(), "{row:?}");
        assert!(row.detections.iter().all(|found| found.label == "blue"), "{row:?}");
    }
}

/// Asserts a refusal: code, words on standard error, no panic, no results.
fn refused(exit: &Exit, code: i32, words: &[&str]) {
    assert_eq!(exit.code, Some(code), "{exit:#?}");
    for word in words {
        assert!(exit.stderr.contains(word), "{word:?} is not in: {}", exit.stderr);
    }
    for part in ["panicked", "RUST_BACKTRACE"] {
        assert!(!exit.stderr.contains(part), "{}", exit.stderr);
    }
    // `up` may print its closing table; no result is printed.
    assert!(!exit.stdout.contains("\"detections\""), "{}", exit.stdout);
}

#[test]
fn models_that_cannot_be_used_are_refused_with_a_sentence() {
    let world = World::new();
    let picture = shown(&picture(&world));
    world.write("classifier.onnx", not_yolo());
    world.write("garbage.onnx", [0x5a; 4096]);
    let whole = std::fs::read(world.tiny_model(1, Some((64, 64)))).expect("written");
    world.write("half.onnx", &whole[..whole.len() / 2]);
    world.write("empty.onnx", b"");
    for (file, words) in [
        // The sentence says what was found.
        ("classifier.onnx", &["classifier.onnx is not a YOLO", "float32[1,10]"][..]),
        ("garbage.onnx", &["garbage.onnx"]),
        ("half.onnx", &["half.onnx"]),
        ("empty.onnx", &["empty.onnx"]),
        ("missing.onnx", &["missing.onnx"]),
    ] {
        let model = shown(&world.path(file));
        refused(&detect(&world, &["--model", &model, &picture]), 78, words);
        let config = world.config(&format!(
            "[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n"
        ));
        refused(&world.up(&config).wait(60), 78, words);
    }
    world.assert_gone();
}

#[test]
fn inputs_that_cannot_be_read_are_said_and_the_others_are_done() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = shown(&world.tiny_model(1, Some((192, 192))));
    let good = shown(&picture(&world));
    world.write("noise.mp4", [0x5a; 65536]);
    world.write("noise.jpg", [0x5a; 4096]);
    for file in ["noise.mp4", "noise.jpg", "missing.mp4"] {
        let input = shown(&world.path(file));
        let exit = detect(&world, &["--model", &model, &input]);
        refused(&exit, 69, &[file]);
        let exit = detect(&world, &["--model", &model, &input, &good]);
        assert_eq!(exit.code, Some(69), "{exit:#?}");
        assert!(exit.stderr.contains(file), "{}", exit.stderr);
        assert_eq!(exit.stdout.lines().count(), 1, "the readable one is done: {}", exit.stdout);
        assert_eq!(boxes(exit.stdout.trim()).len(), 1);
    }
    // The same as a camera: the video exists, but is none.
    let config = world.config(&format!(
        "[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = \"file:{}\"\n",
        shown(&world.path("noise.mp4"))
    ));
    refused(&world.up(&config).wait(60), 69, &["noise.mp4"]);
    world.assert_gone();
}

#[test]
fn without_openvino_the_places_searched_are_named() {
    let Some(model) = asset("models/yolov8n.onnx") else { return };
    let mut world = World::new();
    world.environment.push(("FRAMEBUS_OPENVINO_LIB".to_owned(), "/nonexistent".to_owned()));
    let picture = shown(&picture(&world));
    let exit = detect(&world, &["--model", &shown(&model), &picture]);
    refused(&exit, 69, &["openvino", "/nonexistent"]);
    let config = world.config(&format!(
        "[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n"
    ));
    refused(&world.up(&config).wait(60), 69, &["openvino", "/nonexistent"]);
    world.assert_gone();
}

#[test]
fn a_dev_shm_that_is_too_small_is_refused_before_anything_starts() {
    let world = World::new();
    let model = world.tiny_model(1, Some((96, 160)));
    // 1080p takes 71 MiB for its frames alone.
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "large"
        source = "test:red?width=1920&height=1080"
        "#
    ));
    for subcommand in ["up", "check"] {
        let Some(mut command) = with_shm(64 * 1024) else { return };
        command.arg(binary("framebus")).args([subcommand, "--config"]).arg(&config);
        let exit = Process::start(subcommand, world.folder(), command).wait(60);
        refused(&exit, 69, &["/dev/shm has 64.0 MiB free", "mount it larger"]);
    }
    world.assert_gone();
}

#[test]
fn a_camera_that_answers_401_is_offline_and_says_so() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(1, Some((96, 160)));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let port = free.port().to_string();
    let args = ["--port", &port, "--mount", "/cam", "test", "--user", "u", "--password", "right"];
    let mut server = world.start("rtsp", &example("rtsp_server"), &args);
    server.wait_for_stdout("listening", 20);
    let url = format!("rtsp://u:wrong@127.0.0.1:{port}/cam");
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "locked"
        source = "{url}"
        [[camera]]
        name = "open"
        source = "test:red?fps=10"
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    let record = health.wait_state(Role::Capture, "locked", State::Offline, 30);
    let reason = text::unpack(&record.reason).to_owned();
    assert!(reason.contains("401"), "{reason}");
    assert!(!reason.contains("wrong"), "the password is in the reason: {reason}");
    results.wait_more("open", 10, 30);
    drop((health, results));
    up.signal(Signal::TERM);
    let exit = up.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);

    let exit = detect(&world, &["--model", &shown(&model), &url]);
    refused(&exit, 69, &["401"]);
    drop(server);
    world.assert_gone();
}
