//! `framebus bench`: the documented keys are there, the figures are figures, what is
//! counted adds up, and nothing is left behind. How large the figures are is no test's
//! business.

use framebus_tests::{World, asset, openvino};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;

/// Runs `framebus bench ARGS --json` and parses what it prints.
fn bench(world: &World, args: &[&str]) -> Value {
    let all: Vec<&str> = ["bench"].iter().chain(args).chain(&["--json"]).copied().collect();
    let exit = world.framebus("bench", &all).wait(240);
    assert_eq!(exit.code, Some(0), "{args:?}: {}", exit.stderr);
    let value: Value = serde_json::from_str(&exit.stdout).expect("one JSON object");
    for key in ["bench", "version", "cpus"] {
        assert!(!value[key].is_null(), "{args:?}: no {key}");
    }
    assert_nothing_left(world);
    value
}

/// No process of the world, no private instance of a benchmark.
fn assert_nothing_left(world: &World) {
    world.assert_ended();
    let left: Vec<String> = std::fs::read_dir("/dev/shm")
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            let Some((_, rest)) = name.split_once("_bench-") else { return false };
            // Others may be measuring at the same time.
            let pid = rest.split('.').next().unwrap_or_default();
            !Path::new("/proc").join(pid).exists()
        })
        .collect();
    assert!(left.is_empty(), "left in /dev/shm: {left:?}");
}

/// A number above 0.
fn positive(value: &Value, path: &str) -> f64 {
    let number = value.pointer(path).and_then(Value::as_f64);
    let number = number.unwrap_or_else(|| panic!("no number {path} in {value:#}"));
    assert!(number > 0.0, "{path} is {number}");
    number
}

/// Quantiles in their order.
fn quantiles(value: &Value, path: &str) {
    let found = ["min", "p50", "p90", "p99", "max"].map(|q| {
        let number = value.pointer(&format!("{path}/{q}")).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no number {path}/{q} in {value:#}"))
    });
    assert!(found.is_sorted(), "{path}: {found:?}");
}

/// Published frames and what became of them.
fn adds_up(value: &Value) {
    let count = |key: &str| value["frames"][key].as_u64().unwrap_or_else(|| panic!("no {key}"));
    let known = ["ok", "skipped", "superseded", "stale", "failed", "missed"].map(count);
    assert_eq!(known.iter().sum::<u64>(), count("published"), "{:#}", value["frames"]);
    assert_eq!(value["frames"]["reconciled"], true);
}

#[test]
fn hot_functions() {
    let world = World::new();
    let letterbox = bench(&world, &["letterbox", "--seconds", "0.3", "--size", "640x360"]);
    assert_eq!(letterbox["bench"], "letterbox");
    quantiles(&letterbox, "/ns");
    quantiles(&letterbox, "/copy_ns");
    positive(&letterbox, "/gb_per_s");
    positive(&letterbox, "/over_copy");
    let decode = bench(&world, &["decode", "--seconds", "0.3", "--objects", "50"]);
    quantiles(&decode, "/ns");
    assert_eq!(decode["detections"], 50, "every object is found, and once");
    assert!(positive(&decode, "/candidates") > 50.0, "each is seen by several cells");
    let none = bench(&world, &["decode", "--seconds", "0.2", "--objects", "0"]);
    assert_eq!(none["detections"], 0);
}

#[test]
fn bus_hands_over_frames() {
    let world = World::new();
    let args = ["bus", "--seconds", "1", "--size", "64x64,640x384", "--readers", "1"];
    let value = bench(&world, &args);
    positive(&value, "/size_ratio_p50");
    let sizes = value["sizes"].as_array().expect("a list");
    assert_eq!(sizes.len(), 2);
    for size in sizes {
        quantiles(size, "/blocking_us");
        quantiles(size, "/send_cpu_us");
        positive(size, "/wake_cpu_us");
        let (sent, received) = (positive(size, "/sent"), positive(size, "/received"));
        assert!(received <= sent, "{size:#}");
    }
}

#[test]
fn bare_engine() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let model = model.to_str().expect("UTF-8");
    let value = bench(&world, &["engine", "--model", model, "--seconds", "1"]);
    quantiles(&value, "/latency_ms");
    quantiles(&value, "/throughput_fps");
    for engine in ["latency_engine", "throughput_engine"] {
        assert_eq!(value[engine]["backend"], "openvino");
        assert_eq!(value[engine]["input"], "96x160");
    }
}

#[test]
fn pipeline_adds_up() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let model = model.to_str().expect("UTF-8");
    let small = ["--model", model, "--size", "320x192", "--seconds", "2"];
    let run = |own: &[&str]| {
        let args: Vec<&str> = ["pipeline"].iter().chain(&small).chain(own).copied().collect();
        let value = bench(&world, &args);
        for key in ["/latency_ms", "/age_ms", "/stages_ms/inference", "/stages_ms/total"] {
            quantiles(&value, key);
        }
        positive(&value, "/frames_per_s");
        positive(&value, "/latency_ratio_p50");
        positive(&value, "/memory_mib/pss");
        adds_up(&value);
        value
    };
    let lost_here = |value: &Value| value["frames"]["results_lost_here"].as_u64();
    let one = run(&["--fps", "60"]);
    assert_eq!(lost_here(&one), Some(0));
    assert_eq!((&one["cameras"], &one["mode"]), (&1.into(), &"latency".into()));
    positive(&one, "/latency_vs_bare_ratio");
    let most = run(&["--fps", "max", "--cameras", "3"]);
    assert_eq!((&most["mode"], &most["fps"]), (&"throughput".into(), &"max".into()));
    positive(&most, "/throughput_ratio");
    assert_eq!(lost_here(&most), Some(0), "results wait for their reader");
    let lost = ["superseded", "stale", "failed", "missed"].map(|key| &most["frames"][key]);
    assert!(lost.iter().all(|count| **count == 0), "the sources wait: {lost:?}");
    let mixed = run(&["--fps", "60,10x2", "--without-first"]);
    assert_eq!(mixed["fairness"]["cameras"].as_array().map(Vec::len), Some(2));
    positive(&mixed, "/fairness/worst_ratio");
    let load = run(&["--fps", "150%", "--cameras", "2", "--max-age-ms", "200"]);
    assert!(load["throughput_ratio"].is_null(), "nothing was compared");
}

#[test]
fn cameras_are_searched() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let model = model.to_str().expect("UTF-8");
    // 1 ms is less than any result takes on its way to this reader under this load.
    let args = ["--cameras", "auto", "--latency", "1ms", "--fps", "200", "--size", "640x384"];
    let args: Vec<&str> =
        args.iter().chain(&["--model", model, "--seconds", "1"]).copied().collect();
    let value = bench(&world, &args);
    assert_eq!(value["bench"], "cameras");
    let holds = value["cameras"].as_u64().expect("a number");
    assert!(holds < 64, "{value:#}");
    assert!(value["limited_by"].is_string(), "{value:#}");
    let probes = value["probes"].as_array().expect("a list");
    assert!(probes.iter().any(|probe| probe["holds"] == false), "{value:#}");
}

#[test]
fn a_clip_goes_through_whole() {
    let Some(clip) = asset("media/bikes.mp4") else { return };
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let model = model.to_str().expect("UTF-8");
    let clip = clip.to_str().expect("UTF-8");
    let value = bench(&world, &["clip", clip, "--model", model]);
    // What was decoded while the model was being loaded is not counted.
    let frames = positive(&value, "/frames");
    assert!((200.0..=250.0).contains(&frames), "{frames} of 250");
    assert_eq!(value["dropped"], 0);
    quantiles(&value, "/age_ms");
    for key in ["/frames_per_s", "/cpu_ms_per_frame", "/cpu_ms_per_frame_by/capture", "/pss_mib"] {
        positive(&value, key);
    }
    let live = ["clip", clip, "--model", model, "--realtime", "--cameras", "2", "--seconds", "2"];
    let value = bench(&world, &live);
    positive(&value, "/frames_per_s");
    assert_eq!(value["cameras"], 2);
}

#[test]
fn nothing_is_left_when_it_is_stopped_or_fails() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let model = model.to_str().expect("UTF-8");
    let args = ["bench", "pipeline", "--model", model, "--size", "320x192", "--seconds", "600"];
    let mut running = world.framebus("stopped", &args);
    framebus_tests::wait_until("a source that runs", 120, || {
        world.pid_of(&["bench", "source"]).map(|_| ())
    });
    running.signal(Signal::INT);
    let exit = running.wait(60);
    assert!(matches!(exit.code, Some(0 | 69)), "{:?} {}", exit.code, exit.stderr);
    assert_nothing_left(&world);

    // A source that is killed ends the run, which says so.
    let mut running = world.framebus("killed", &args);
    let source = framebus_tests::wait_until("a source that runs", 120, || {
        world.pid_of(&["bench", "source"])
    });
    world.kill(source);
    let exit = running.wait(60);
    assert_eq!(exit.code, Some(70), "{}", exit.stderr);
    assert!(exit.stderr.contains("c00 ended: killed by SIGKILL"), "{}", exit.stderr);
    assert_nothing_left(&world);
}

#[test]
fn nonsense_is_refused_before_anything_starts() {
    let world = World::new();
    for (args, code, words) in [
        (&["pipeline", "--fps", "0"][..], 64, "must be frames a second"),
        (&["pipeline", "--size", "15x15"], 64, "each even"),
        (&["pipeline", "--fps", "10x3", "--cameras", "2"], 64, "--fps speaks of 3 cameras"),
        (&["pipeline", "--without-first"], 64, "needs two cameras"),
        (&["--cameras", "auto", "--fps", "max"], 64, "--cameras auto needs"),
        (&["clip", "/nowhere.mp4"], 78, "there is no such file"),
        (&["pipeline", "--pictures", "/nowhere"], 64, "there is no file"),
    ] {
        let model = world.tiny_model(1, Some((32, 32)));
        let all: Vec<&str> = ["bench"].iter().chain(args).copied().collect();
        let with_model = ["--model", model.to_str().expect("UTF-8")];
        let all: Vec<&str> = all.iter().chain(&with_model).copied().collect();
        let exit = world.framebus("refused", &all).wait(60);
        assert_eq!(exit.code, Some(code), "{args:?}: {}", exit.stderr);
        assert!(exit.stderr.contains(words), "{args:?}: {}", exit.stderr);
    }
    assert_nothing_left(&world);
}
