//! What is recorded can be read by others, and replayed it gives the same results.

use framebus_service::clock;
use framebus_tests::{
    Collector, Exit, Process, World, asset, binary, openvino, repository, skip, wait_until,
    with_tmpfs,
};
use framebus_types::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What Python's reader says of a recording; `None` after saying SKIPPED.
fn by_python(world: &World, file: &Path) -> Option<Value> {
    let program = repository().join(".framebus/python-client/bin/python");
    let probe = ["-c", "import mcap, mcap_ros2"];
    if !program.exists() || world.start("probe", &program, &probe).wait(30).code != Some(0) {
        skip(&format!(
            "{} is missing or has no mcap; `scripts/setup.sh --python-client` makes it",
            program.display()
        ));
        return None;
    }
    let script = repository().join("tests/recording.py");
    let exit = world.start("python", &program, &[script.as_os_str(), file.as_os_str()]).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    Some(json(&exit))
}

fn json(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn record(world: &World, config: &Path, file: &Path, args: &[&str]) -> Process {
    let mut all: Vec<&OsStr> = vec!["record".as_ref(), "--json".as_ref(), "--config".as_ref()];
    all.extend([config.as_os_str(), "-o".as_ref(), file.as_os_str()]);
    all.extend(args.iter().map(OsStr::new));
    world.framebus("record", &all)
}

fn replay(world: &World, config: &Path, file: &Path, args: &[&str]) -> Exit {
    let mut all: Vec<&OsStr> = vec!["replay".as_ref(), file.as_os_str(), "--json".as_ref()];
    all.extend(["--config".as_ref(), config.as_os_str()]);
    all.extend(args.iter().map(OsStr::new));
    world.framebus("replay", &all).wait(120)
}

/// Asserts that every frame of a recording gives its results again.
fn assert_identical(exit: &Exit, least: u64) {
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let compared = &json(exit)["compared"];
    assert_eq!(compared["different"], 0, "{compared}");
    assert!(number(&compared["identical"]) >= least, "{compared}");
}

fn end(mut up: Process, world: &World) {
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    world.assert_gone();
}

/// A live instance of two cameras with a tiny detector.
fn tiny(world: &World, size: &str) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "red"
        source = "test:red?{size}"
        [[camera]]
        name = "green"
        source = "test:green?{size}"
        "#
    ))
}

#[test]
fn a_recording_of_two_cameras_gives_the_same_results_again() {
    if !openvino() {
        return;
    }
    let (Some(model), Some(street), Some(bikes)) =
        (asset("models/yolov8n.onnx"), asset("media/street720.mp4"), asset("media/bikes.mp4"))
    else {
        return;
    };
    let world = World::new();
    let body = |confidence: f64| {
        format!(
            r#"
            [model]
            path = {model:?}
            confidence = {confidence}
            [[camera]]
            name = "street"
            source = "file:{}"
            loop = true
            fps = 4
            delivery = "every-frame"
            [[camera]]
            name = "bikes"
            source = "file:{}"
            loop = true
            fps = 4
            delivery = "every-frame"
            "#,
            street.display(),
            bikes.display()
        )
    };
    let config = world.config(&body(0.25));
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("street", 2, 60);
    results.wait_more("bikes", 2, 60);
    let file = world.path("street.mcap");
    let mut recorder = record(&world, &config, &file, &[]);
    wait_until("the recording's begin", 30, || file.exists().then_some(()));
    results.wait_more("street", 12, 60);
    results.wait_more("bikes", 6, 60);
    recorder.signal(Signal::INT);
    let exit = recorder.wait(20);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let account = json(&exit);
    let (frames, answers) = (number(&account["frames"]), number(&account["results"]));
    assert!(frames >= 16 && answers >= 16, "{account}");
    let rows = results.finish();
    end(up, &world);

    if let Some(read) = by_python(&world, &file) {
        let topics = &read["topics"];
        let sum = |topic: &str, what: &str| {
            ["street", "bikes"]
                .map(|camera| number(&topics[format!("/{camera}/{topic}")][what]))
                .iter()
                .sum::<u64>()
        };
        assert_eq!((sum("image", "messages"), sum("frame", "messages")), (frames, frames));
        assert_eq!(sum("result", "messages"), answers);
        assert_eq!(topics["/street/image"]["size"], serde_json::json!([1280, 720]));
        assert_eq!(topics["/street/image"]["schema"], "foxglove_msgs/msg/RawImage");
        assert_eq!(read["metadata"]["framebus"]["model.path"], "yolov8n.onnx");
        let boxes = sum("result", "boxes");
        assert!(boxes > 10 && boxes == sum("annotations", "boxes"), "{boxes} boxes");
    }

    // Another instance of the same name may run meanwhile: the replay has its own.
    let exit = replay(&world, &config, &file, &["--compare", "--output", "new.jsonl"]);
    assert_identical(&exit, 16);
    assert_eq!(json(&exit)["frames"], frames);
    // Results keep the names of their frames, and what was found then.
    let lines = std::fs::read_to_string(world.path("new.jsonl")).expect("written");
    assert_eq!(lines.lines().count() as u64, frames);
    let mut known = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let row = rows.iter().find(|row| {
            line["camera"] == row.camera.as_str()
                && line["epoch_ns"] == row.epoch_ns
                && line["sequence"] == row.sequence
        });
        let Some(row) = row.filter(|row| row.outcome == Outcome::Ok) else { continue };
        assert_eq!(line["detections"].as_array().map(Vec::len), Some(row.detections.len()));
        known += 1;
    }
    assert!(known >= 16, "{known}");

    // Another threshold finds something else, and is told.
    let config = world.config(&body(0.6));
    let exit = replay(&world, &config, &file, &["--compare"]);
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    let compared = &json(&exit)["compared"];
    assert!(number(&compared["different"]) > 0, "{compared}");
    assert!(compared["differences"][0].as_str().is_some_and(|d| d.contains("when recorded")));
    world.assert_gone();
}

/// A replay that goes on looks to others as its cameras did.
fn shown_as_live(world: &World, config: &Path, file: &Path) {
    let args = ["replay".as_ref(), file.as_os_str(), "--loop".as_ref(), "--config".as_ref()];
    let mut playing = world.framebus("replay", &[&args[..], &[config.as_os_str()]].concat());
    let attach = wait_until("how to watch it", 60, || {
        let said = playing.stderr();
        let (_, rest) = said.split_once("framebus top ")?;
        Some(rest.lines().next()?.to_owned())
    });
    let args: Vec<&str> = ["status", "--json"].into_iter().chain(attach.split(' ')).collect();
    let status = || world.framebus("status", &args).wait(20);
    let states = || {
        let status: Value = serde_json::from_str(&status().stdout).ok()?;
        let states = status["cameras"].as_array()?.iter().map(|camera| camera["state"].clone());
        Some(states.collect::<Vec<_>>())
    };
    wait_until("both cameras live", 30, || (states()? == ["live", "live"]).then_some(()));
    // What makes no progress for four seconds is shown as hanging.
    let end_ns = clock::monotonic_ns() + 5_000_000_000;
    while clock::monotonic_ns() < end_ns {
        assert_eq!(states(), Some(vec!["live".into(); 2]));
    }
    playing.signal(Signal::INT);
    assert_eq!(playing.wait(20).code, Some(0), "{}", playing.stderr());
}

#[test]
fn interrupted_and_killed_recordings_are_read() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = tiny(&world, "width=640&height=384&fps=15");
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("red", 2, 60);

    // JPEG, ended by Ctrl-C.
    let jpeg = world.path("jpeg.mcap");
    let mut recorder = record(&world, &config, &jpeg, &["--frames", "jpeg", "--camera", "red"]);
    results.wait_more("red", 30, 30);
    recorder.signal(Signal::INT);
    let exit = recorder.wait(20);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert_eq!(json(&exit)["cameras"], serde_json::json!(["red"]));
    let refused = record(&world, &config, &jpeg, &["--seconds", "1"]).wait(20);
    assert_eq!(refused.code, Some(64), "never written over: {refused:#?}");
    let unknown = record(&world, &config, &world.path("x"), &["--camera", "blue"]).wait(20);
    assert!(unknown.code == Some(64) && unknown.stderr.contains("there is: red, green"));

    // Raw and uncompressed, killed in the middle of it.
    let killed = world.path("killed.mcap");
    let mut recorder = record(&world, &config, &killed, &["--compression", "none"]);
    wait_until("some chunks in the file", 30, || {
        let length = std::fs::metadata(&killed).map_or(0, |meta| meta.len());
        (length > 12 << 20).then_some(())
    });
    world.kill(recorder.pid());
    assert_eq!(recorder.wait(10).signal, Some(9));
    // Nobody was disturbed, and the place of the dead recorder is free again.
    let before = results.rows().len();
    let rows = results.wait("results after the kill", 30, |rows| rows.len() >= before + 60);
    let dropped = rows[before..].iter().filter(|row| row.outcome != Outcome::Ok).count();
    assert!(dropped < 12, "{dropped} of 60 were not inferred");
    let nothing = world.path("nothing.mcap");
    let args = ["--frames", "none", "--seconds", "1"];
    let exit = record(&world, &config, &nothing, &args).wait(20);
    assert_eq!((exit.code, &json(&exit)["frames"]), (Some(0), &0.into()), "{exit:#?}");
    assert!(number(&json(&exit)["results"]) > 10, "{exit:#?}");
    drop(results);
    end(up, &world);
    // Said before an instance is waited for.
    let refused = record(&world, &config, &jpeg, &[]).wait(20);
    assert_eq!(refused.code, Some(64), "{refused:#?}");

    let exit = replay(&world, &config, &killed, &["--compare"]);
    assert_identical(&exit, 20);
    assert!(exit.stderr.contains("ends before its end"), "{}", exit.stderr);
    for (file, word) in [(&jpeg, "JPEG"), (&nothing, "no frames"), (&config, "no MCAP file")] {
        let exit = replay(&world, &config, file, &[]);
        assert_eq!(exit.code, Some(78), "{exit:#?}");
        assert!(exit.stderr.contains(word), "{}", exit.stderr);
    }
    if let Some(read) = by_python(&world, &jpeg) {
        let image = &read["topics"]["/red/image"];
        assert_eq!(image["schema"], "foxglove_msgs/msg/CompressedImage");
        assert!(number(&image["messages"]) >= 15, "{image}");
        assert!(read["topics"]["/green/image"].is_null());
    }
    // At its own pace, with everything in its place as live; what is too late is dropped.
    let exit = replay(&world, &config, &killed, &[]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let account = json(&exit);
    assert!(account["seconds"].as_f64().is_some_and(|seconds| seconds > 0.5), "{account}");
    shown_as_live(&world, &config, &killed);
    world.assert_gone();
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_it_readable() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = tiny(&world, "width=640&height=384&fps=15");
    let disk = world.path("disk");
    std::fs::create_dir(&disk).expect("a mount point");
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("red", 2, 60);
    for (keep_free, words) in [("0", "No space left"), ("8", "--keep-free-mib keeps 8")] {
        let Some(mut command) = with_tmpfs(&disk, 28 << 10) else { return };
        let copy = world.path(&format!("full{keep_free}.mcap"));
        let script = r#"cd "$DISK"; "$0" "$@"; code=$?; cp full.mcap "$COPY"; exit $code"#;
        command.args(["sh", "-c", script]).arg(binary("framebus"));
        command.args(["record", "--compression", "none", "-o", "full.mcap", "--keep-free-mib"]);
        command.args([keep_free, "--config"]).arg(&config).env("COPY", &copy).env("DISK", &disk);
        command.arg("--json").current_dir(world.folder());
        let inner = world.command(Path::new("x"), &[""]);
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        let exit = Process::start("full", world.folder(), command).wait(60);
        assert_eq!(exit.code, Some(69), "{exit:#?}");
        assert!(exit.stderr.contains(words), "{}", exit.stderr);
        let account = json(&exit);
        assert!(account["trouble"].as_str().is_some_and(|trouble| trouble.contains(words)));
        let exit = replay(&world, &config, &copy, &["--compare"]);
        assert_identical(&exit, 20);
        assert!(!exit.stderr.contains("ends before its end"), "closed in order: {}", exit.stderr);
    }
    drop(results);
    end(up, &world);
}
