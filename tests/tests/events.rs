//! Something that moves through a zone and over a line: what a real instance tells of it,
//! to readers in Rust, at the command line and in results; twice the same.

use framebus_client::Event;
use framebus_tests::{EventLog, World, asset, openvino, wait_until};
use image::{Rgb, RgbImage, imageops};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Of the clip, at 10 frames/s.
const FRAMES: u32 = 40;

/// A clip of a bus that drives from the left out of the picture to the right.
fn clip(world: &World, picture: &Path) -> PathBuf {
    let bus = image::open(picture).expect("a picture").into_rgb8();
    // The vehicle of the well-known picture with some street around it.
    let bus = imageops::crop_imm(&bus, 0, 130, 810, 640).to_image();
    let bus = imageops::resize(&bus, 228, 180, imageops::FilterType::Triangle);
    for frame in 0..FRAMES {
        let mut scene = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([112, 116, 120]));
        let x = i64::from(frame) * 20 - 100;
        imageops::overlay(&mut scene, &bus, x, 90);
        scene.save(world.path(&format!("frame{frame:03}.png"))).expect("saved");
    }
    let clip = world.path("drive.avi");
    let pattern = world.path("frame%03d.png");
    let status = Command::new("gst-launch-1.0")
        .arg("-q")
        .args(["multifilesrc".into(), format!("location={}", pattern.display())])
        .args(["start-index=0".into(), format!("stop-index={}", FRAMES - 1)])
        .args(["caps=image/png,framerate=10/1", "!", "pngdec", "!", "videoconvert", "!"])
        .args(["jpegenc", "quality=95", "!", "avimux", "!", "filesink"])
        .arg(format!("location={}", clip.display()))
        .status()
        .expect("gst-launch-1.0 is part of gstreamer1.0-tools");
    assert!(status.success());
    clip
}

/// Writes the configuration; results go to `results.jsonl`.
fn config(world: &World, model: &Path, clip: &Path) -> PathBuf {
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        input = "192x320"
        classes = ["bus"]
        [[camera]]
        name = "street"
        source = "file:{}"
        pace = "fast"
        delivery = "every-frame"
        [[zone]]
        camera = "street"
        name = "stop"
        points = [[0.3, 0.0], [0.7, 0.0], [0.7, 1.0], [0.3, 1.0]]
        classes = ["bus"]
        dwell_s = 0.4
        [[zone]]
        camera = "street"
        name = "nowhere"
        points = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.2], [0.0, 0.2]]
        [[line]]
        camera = "street"
        name = "middle"
        from = [0.5, 1.0]
        to = [0.5, 0.0]
        [[sink]]
        name = "file"
        kind = "jsonl"
        path = {:?}
        "#,
        clip.display(),
        world.path("results.jsonl")
    ))
}

fn parsed(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// Sockets of readers that can be woken.
fn listeners(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => listeners(&entry.path()),
        Ok(kind) => usize::from(kind.is_socket()),
        Err(_) => 0,
    };
    entries.map(count).sum()
}

/// One run of the instance, from its start to the end of the clip: what a reader in Rust,
/// what `framebus tap` and what the results say.
struct Run {
    events: Vec<Event>,
    lines: Vec<Value>,
    /// Track and zones of the bus, by frame.
    found: BTreeMap<u64, (u64, Vec<u64>)>,
}

fn run(model: &Path, clip: &Path) -> Run {
    let world = World::new();
    let config = config(&world, model, clip);
    let domain = world.domain();
    // Makes the service: nothing is published before the readers are there.
    let log = EventLog::start(&domain);
    let before = listeners(&domain.folder());
    let tap = ["tap", "--events", "--json", "--config", &config.display().to_string()];
    let mut tap = world.framebus("tap", &tap);
    wait_until("tap reads", 20, || (listeners(&domain.folder()) > before).then_some(()));
    let exit = world.up(&config).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let events = log.finish();
    wait_until("tap has printed them", 20, || {
        (tap.stdout().lines().count() >= events.len()).then_some(())
    });
    tap.signal(Signal::TERM);
    let printed = tap.wait(20);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let mut found = BTreeMap::new();
    let results = std::fs::read_to_string(world.path("results.jsonl")).expect("results");
    for result in parsed(&results) {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        for bus in result["detections"].as_array().expect("a list") {
            let zones = bus["zones"].as_array().into_iter().flatten().map(number).collect();
            found.insert(number(&result["sequence"]), (number(&bus["track"]), zones));
        }
    }
    // The instance leaves alone what is still read.
    domain.remove_leftovers().expect("nobody is there");
    world.assert_gone();
    Run { events, lines: parsed(&printed.stdout), found }
}

#[test]
fn a_bus_that_drives_by_is_told_of_step_by_step_and_twice_the_same() {
    let (Some(model), Some(picture)) = (asset("models/yolov8n.onnx"), asset("media/bus.jpg"))
    else {
        return;
    };
    if !openvino() {
        return;
    }
    let world = World::new();
    let clip = clip(&world, &picture);
    let config = config(&world, &model, &clip);
    let args = ["check", "--config", &config.display().to_string()];
    let checked = world.framebus("check", &args).wait(20);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let row = checked.stdout.lines().find(|line| line.contains("stop")).expect("the zone");
    for word in ["street", "zone of 4 corners, dwell 0.4 s", "bus", "bottom"] {
        assert!(row.contains(word), "{row}");
    }

    let first = run(&model, &clip);
    let told: Vec<String> = first
        .lines
        .iter()
        .map(|line| {
            let words =
                ["event", "place", "direction"].map(|key| line[key].as_str().expect("text"));
            words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        told,
        ["appear", "enter stop", "dwell stop", "cross middle forward", "leave stop", "disappear"],
        "{:#?}",
        first.lines
    );
    assert_eq!(first.lines.len(), first.events.len());
    for (number, (event, line)) in first.events.iter().zip(&first.lines).enumerate() {
        assert_eq!(line["id"], event.id());
        assert_eq!((&line["camera"], &line["label"]), (&json!("street"), &json!("bus")));
        assert_eq!((&line["track"], &line["sequence"]), (&json!(1), &json!(event.sequence)));
        assert_eq!(event.event_sequence, number as u64);
    }
    // The results say the same: in the zone from the frame on that tells of it.
    let sequence = |number: usize| first.events[number].sequence;
    for (at, (track, zones)) in first.found.range(sequence(0)..) {
        let inside = (sequence(1)..sequence(4)).contains(at);
        assert_eq!((track, &zones[..]), (&1, &[0][..usize::from(inside)]), "frame {at}");
    }

    let again = run(&model, &clip);
    assert_ne!(again.events[0].epoch_ns, first.events[0].epoch_ns);
    let names = |run: &Run| {
        let name = |e: &Event| {
            let what = (e.kind, e.direction, e.place, e.track, e.age_ns);
            (what, e.sequence, e.index, e.bbox)
        };
        run.events.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&again), names(&first));
    assert_eq!(again.found, first.found);
}

#[test]
fn a_class_that_the_model_does_not_have_is_told_before_anything_runs() {
    let world = World::new();
    let model = world.tiny_model(2, None);
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "a"
        source = "test:red?width=320&height=192&frames=5"
        [[line]]
        camera = "a"
        name = "door"
        from = [0.0, 0.0]
        to = [1.0, 1.0]
        classes = ["person"]
        "#
    ));
    let args = ["check", "--config", &config.display().to_string()];
    let exit = world.framebus("check", &args).wait(20);
    assert_eq!(exit.code, Some(78), "{}", exit.stdout);
    let expected = "line[a/door].classes: the model has no class person; it has 2: red, green";
    assert!(exit.stderr.contains(expected), "{}", exit.stderr);
}
