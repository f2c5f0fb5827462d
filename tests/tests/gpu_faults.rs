//! Inference on an NVIDIA GPU as processes, over the double (`tests/gpu-double`): what is
//! said where there is no GPU, the first build while another backend serves, and who
//! answers when the GPU fails.

use framebus_model::testing::TinyDetector;
use framebus_service::clock;
use framebus_tests::{
    Collector, GpuDouble, HealthWatch, Process, Row, World, asset, openvino, wait_until,
};
use framebus_types::{Outcome, Role, State};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::PathBuf;

const CAMERAS: [&str; 2] = ["a", "b"];

/// Two cameras of two shapes that always show something, on a model whose head can be cut
/// off.
fn config(world: &World, backend: &str) -> PathBuf {
    let model = world.write("tiny.onnx", TinyDetector::with_head(2, Some((96, 160))).build());
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        backend = {backend}
        timeout_ms = 1000
        [[camera]]
        name = "a"
        source = "test:red?width=320&height=192&fps=15"
        [[camera]]
        name = "b"
        source = "test:green?width=320&height=240&fps=15"
        "#
    ))
}

/// A world with the double, whose engines lie in the world's own cache.
fn double() -> Option<(World, GpuDouble)> {
    let mut world = World::new();
    let cache = world.path("cache").display().to_string();
    world.environment.push(("XDG_CACHE_HOME".to_owned(), cache));
    let double = openvino().then(|| GpuDouble::install(&mut world, ""))??;
    Some((world, double))
}

/// Ends the instance, the readers first, and answers what they have seen.
fn stop(mut up: Process, results: Collector) -> Vec<Row> {
    let rows = results.finish();
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for row in rows.iter().filter(|row| row.outcome == Outcome::Ok) {
        assert!(!row.detections.is_empty(), "an empty answer: {row:?}");
    }
    rows
}

/// When both cameras have an ok result by `backend` after `since_ns`, in seconds after it.
fn ok_after_s(results: &Collector, backend: &str, since_ns: u64, deadline_s: u64) -> f64 {
    wait_until(&format!("ok results by {backend}"), deadline_s, || {
        let rows = results.rows();
        let first = |camera: &str| {
            let ok = rows.iter().filter(|row| {
                row.camera == camera && row.outcome == Outcome::Ok && row.backend == backend
            });
            ok.map(|row| row.times.result_ns).filter(|ns| *ns > since_ns).min()
        };
        let last = CAMERAS.iter().map(|camera| first(camera)).collect::<Option<Vec<_>>>()?;
        Some((last.into_iter().max()? - since_ns) as f64 / 1e9)
    })
}

fn framebus(world: &World, name: &str, args: &[&str]) -> framebus_tests::Exit {
    world.framebus(name, args).wait(60)
}

/// Whether this machine has an NVIDIA driver; says SKIPPED then.
#[allow(clippy::print_stderr, reason = "the test's own output")]
fn has_driver() -> bool {
    let options = framebus_engine::LoadOptions::new(clock::monotonic_ns);
    let probed = framebus_engine::backend("tensorrt").and_then(|backend| backend.probe(&options));
    let there = !probed.is_err_and(|error| error.to_string().contains("no NVIDIA driver"));
    if there {
        eprintln!("SKIPPED: this machine has an NVIDIA driver");
    }
    there
}

#[test]
fn without_a_driver_the_next_backend_serves_and_alone_it_ends_with_one_sentence() {
    if !openvino() || has_driver() {
        return;
    }
    let world = World::new();
    let file = config(&world, "[\"tensorrt\", \"openvino\"]");
    let path = file.display().to_string();
    let results = Collector::start(&world.domain());
    let up = world.up(&file);
    results.wait_more("a", 5, 60);
    let doctor = framebus(&world, "doctor", &["doctor", "--config", &path]);
    let said = format!("{}{}", doctor.stdout, doctor.stderr);
    assert!(said.contains("no NVIDIA driver"), "{said}");
    assert!(said.contains("libcuda.so.1"), "{said}");
    let rows = stop(up, results);
    assert!(rows.iter().all(|row| row.outcome != Outcome::Ok || row.backend == "openvino"));
    world.assert_gone();

    config(&world, "[\"tensorrt\"]");
    let program = framebus_tests::binary("framebus-infer");
    let alone = world.start("infer", &program, &["--config", &path]).wait(30);
    assert_eq!(alone.code, Some(69), "{}", alone.stderr);
    let told: Vec<&str> = alone.stderr.lines().filter(|line| line.contains(" ERROR ")).collect();
    let [line] = told[..] else { panic!("{}", alone.stderr) };
    assert!(line.contains("no NVIDIA driver (libcuda.so.1"), "{line}");
    let build = framebus(&world, "build", &["models", "build", "--config", &path]);
    assert_eq!(build.code, Some(69), "{}", build.stderr);
    world.assert_ended();
}

#[test]
fn the_first_start_builds_while_the_next_backend_serves_and_the_second_is_warm() {
    let Some((world, double)) = double() else { return };
    double.fault("build-slow=4000");
    let file = config(&world, "[\"tensorrt\", \"openvino\"]");
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let begin_ns = clock::monotonic_ns();
    let up = world.up(&file);
    ok_after_s(&results, "openvino", begin_ns, 60);
    ok_after_s(&results, "tensorrt", begin_ns, 60);
    let told = health.states(Role::Infer, "infer").into_iter().any(|(state, reason)| {
        state == State::Live
            && reason.starts_with("building the tensorrt engine for 96x160: ")
            && reason.contains(" s left")
    });
    assert!(told, "{:?}", health.states(Role::Infer, "infer"));
    drop(health);
    let rows = stop(up, results);
    let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed).count();
    assert_eq!(failed, 0, "taking the better backend fails no frame");
    double.fault("");

    let results = Collector::start(&world.domain());
    let begin_ns = clock::monotonic_ns();
    let up = world.up(&file);
    let warm_s = ok_after_s(&results, "tensorrt", begin_ns, 60);
    let rows = stop(up, results);
    assert!(rows.iter().all(|row| row.outcome != Outcome::Ok || row.backend == "tensorrt"));
    show(&format!("warm start: {warm_s:.2} s from `framebus up` to results of both cameras"));
    world.assert_gone();
}

/// What cannot be kept would have to be built again after each restart: so there is none.
#[test]
fn an_engine_that_cannot_be_kept_is_not_switched_to() {
    let Some((world, _double)) = double() else { return };
    world.write("cache", "no folder");
    let file = config(&world, "[\"tensorrt\", \"openvino\"]");
    let results = Collector::start(&world.domain());
    let mut up = world.up(&file);
    let told = wait_until("the reason", 60, || {
        let log = up.stderr();
        log.lines().find(|line| line.contains("the engine cannot be built")).map(str::to_owned)
    });
    assert!(told.contains("it cannot be kept: ") && up.is_running(), "{told}");
    let pid = world.pid_of(&["framebus-infer"]).expect("inference runs");
    results.wait_more("a", 30, 30);
    assert_eq!(world.pid_of(&["framebus-infer"]), Some(pid), "it did not restart");
    let rows = stop(up, results);
    assert!(rows.iter().all(|row| row.outcome != Outcome::Ok || row.backend == "openvino"));
    world.assert_gone();
}

#[test]
fn a_stop_during_the_first_build_is_no_failure() {
    let Some((world, double)) = double() else { return };
    double.fault("build-slow=60000");
    for backend in ["[\"tensorrt\"]", "[\"tensorrt\", \"openvino\"]"] {
        let file = config(&world, backend);
        let mut up = world.up(&file);
        wait_until("the build", 60, || up.stderr().contains("building the tensorrt").then_some(()));
        up.signal(Signal::TERM);
        let exit = up.wait(30);
        assert_eq!(exit.code, Some(0), "{backend}: {}", exit.stderr);
        assert!(!exit.stderr.contains("ERROR infer:"), "{backend}: {}", exit.stderr);
        let builds = exit.stderr.matches("building a TensorRT engine").count();
        assert_eq!(builds, 1, "{backend}: {}", exit.stderr);
        world.assert_gone();
    }
}

#[allow(clippy::print_stdout, reason = "the figures are for whoever reads the test's output")]
fn show(text: &str) {
    println!("{text}");
}

/// Runs on the GPU, lets `fault` happen, and answers how long it takes until the CPU
/// answers; then the GPU is well again and shall be taken again.
fn fails_over(fault: &str) {
    let Some((world, double)) = double() else { return };
    let file = config(&world, "[\"tensorrt\", \"openvino\"]");
    let path = file.display().to_string();
    let built = framebus(&world, "build", &["models", "build", "--config", &path, "--json"]);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    let results = Collector::start(&world.domain());
    let up = world.up(&file);
    ok_after_s(&results, "tensorrt", 0, 60);
    results.wait_more("a", 20, 30);
    let begin_ns = clock::monotonic_ns();
    double.fault(fault);
    let left_s = ok_after_s(&results, "openvino", begin_ns, 30);
    double.fault("");
    let well_ns = clock::monotonic_ns();
    let back_s = ok_after_s(&results, "tensorrt", well_ns, 60);
    show(&format!(
        "{fault}: openvino answers {left_s:.2} s after it, tensorrt {back_s:.1} s after its end"
    ));
    let rows = stop(up, results);
    let who: BTreeSet<&str> =
        rows.iter().filter(|row| row.outcome == Outcome::Ok).map(|row| &*row.backend).collect();
    assert_eq!(who, BTreeSet::from(["openvino", "tensorrt"]));
    let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed).count();
    assert!(failed > 0, "what was in the GPU is told of");
    world.assert_gone();
}

#[test]
fn a_failed_launch_ends_in_failed_results_and_the_next_backend() {
    fails_over("launch");
}

#[test]
fn a_lost_device_ends_in_failed_results_and_the_next_backend() {
    fails_over("lost");
}

#[test]
fn a_network_that_is_refused_ends_in_failed_results_and_the_next_backend() {
    fails_over("enqueue");
}

#[test]
fn a_gpu_that_hangs_ends_in_failed_results_and_the_next_backend() {
    fails_over("hang");
}

/// With nobody else to take over, the process starts again until the GPU is well.
#[test]
fn a_gpu_alone_is_tried_again_until_it_is_well() {
    let Some((world, double)) = double() else { return };
    let file = config(&world, "[\"tensorrt\"]");
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&file);
    // Nothing else could serve: it builds before it starts.
    ok_after_s(&results, "tensorrt", 0, 60);
    double.fault("launch");
    results
        .wait("failed results", 20, |rows| rows.iter().any(|row| row.outcome == Outcome::Failed));
    double.fault("");
    let well_ns = clock::monotonic_ns();
    let back_s = ok_after_s(&results, "tensorrt", well_ns, 60);
    show(&format!("alone: results again {back_s:.2} s after the GPU is well"));
    health.wait_state(Role::Infer, "infer", State::Live, 20);
    drop(health);
    stop(up, results);
    world.assert_gone();
}

/// The real model, with frames that lie in pinned shared memory.
#[test]
fn frames_of_the_real_model_are_read_out_of_memory_that_was_registered_once() {
    let (Some(model), Some(clip)) = (asset("models/yolov8n.onnx"), asset("media/street720.mp4"))
    else {
        return;
    };
    let Some((mut world, _double)) = double() else { return };
    let report = world.path("report-%p.json").display().to_string();
    world.environment.push(("GPU_DOUBLE_REPORT".to_owned(), report));
    let file = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        backend = ["tensorrt"]
        [[camera]]
        name = "a"
        source = "file:{}"
        pace = "fast"
        delivery = "every-frame"
        "#,
        clip.display()
    ));
    let results = Collector::start(&world.domain());
    let up = world.up(&file);
    results.wait_more("a", 30, 120);
    let rows = stop(up, results);
    let ok = rows.iter().filter(|row| row.outcome == Outcome::Ok);
    let (frames, boxes) = ok.fold((0, 0), |(n, m), row| (n + 1, m + row.detections.len()));
    assert!(frames >= 30 && boxes > frames, "{frames} frames, {boxes} boxes");
    let reports: Vec<serde_json::Value> = std::fs::read_dir(world.folder())
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("report-"))
        .filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok())
        .collect();
    let infer = reports
        .iter()
        .find(|report| report["enqueues"].as_u64() > Some(0))
        .unwrap_or_else(|| panic!("no report of inference: {reports:?}"));
    assert_eq!(infer["violations"].as_array().map(Vec::len), Some(0), "{infer}");
    for left in ["allocations", "pinned", "registered", "streams", "events", "graphs", "objects"] {
        assert_eq!(infer[left].as_u64(), Some(0), "{left}: {infer}");
    }
    // 720p NV12 is 1.38 MB; what comes back is 16 kB of candidates, and of the self-checks
    // of four contexts all cells.
    let back = infer["copies_d2h_bytes"].as_u64().unwrap_or(u64::MAX);
    let there = infer["copies_h2d_bytes"].as_u64().unwrap_or(0);
    assert!(back < there / 10, "{back} bytes come back for {there}");
    assert_eq!(infer["copies_pageable"].as_u64(), Some(0), "{infer}");
    // One camera, one segment; every frame's planes come straight out of it.
    assert_eq!(infer["registrations"].as_u64(), Some(1), "{infer}");
    let pinned = infer["copies_registered_bytes"].as_u64().unwrap_or(0);
    assert!(pinned >= frames as u64 * 1280 * 720 * 3 / 2, "{pinned} bytes of {frames} frames");
    show(&format!("{frames} frames: {there} bytes to the device, {back} back"));
    world.assert_gone();
}
