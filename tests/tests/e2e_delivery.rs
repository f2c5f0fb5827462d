//! Frames in, results out: how many, which, in what order, and the books.

use framebus_tests::{Collector, HealthWatch, Row, World, asset, openvino};
use framebus_types::{Counter, Health, Outcome, Reason, Role};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Frames that GStreamer's own tool decodes from a file.
fn decoded_frames(clip: &Path) -> usize {
    let output = Command::new("gst-launch-1.0")
        .args(["-v", "filesrc"])
        .arg(format!("location={}", clip.display()))
        .args(["!", "decodebin", "!", "video/x-raw", "!", "fakesink", "silent=false"])
        .output()
        .expect("gst-launch-1.0 is part of gstreamer1.0-tools");
    String::from_utf8_lossy(&output.stdout).matches("last-message = chain").count()
}

fn sequences(rows: &[Row], camera: &str) -> Vec<u64> {
    rows.iter().filter(|row| row.camera == camera).map(|row| row.sequence).collect()
}

/// Capture's books: every frame that left the decoder went one way.
fn check_capture(health: &Health) {
    let n = |counter| health.counter(counter);
    let ways = [Counter::Published, Counter::LostRate, Counter::LostMemory, Counter::LostBad];
    assert_eq!(n(Counter::Captured), ways.map(n).iter().sum::<u64>(), "captured");
    assert_eq!(n(Counter::Published), n(Counter::ZeroCopy) + n(Counter::Copied), "published");
}

/// Inference's books of one camera, after the end, against its results.
fn check_inference(health: &Health, rows: &[Row], camera: &str) {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.camera == camera).collect();
    let n = |counter| health.counter(counter);
    let ways =
        [Counter::Ok, Counter::Skipped, Counter::Superseded, Counter::Stale, Counter::Failed];
    assert_eq!(n(Counter::Taken), ways.map(n).iter().sum::<u64>(), "{camera}: taken");
    assert_eq!(n(Counter::Taken), rows.len() as u64, "{camera}: one result per frame taken");
    let unique: BTreeSet<(u64, u64)> = rows.iter().map(|r| (r.epoch_ns, r.sequence)).collect();
    assert_eq!(unique.len(), rows.len(), "{camera}: one result per frame");
    let count = |wanted: fn(&Row) -> bool| rows.iter().filter(|r| wanted(r)).count() as u64;
    assert_eq!(n(Counter::Ok), count(|r| r.outcome == Outcome::Ok), "{camera}: ok");
    assert_eq!(n(Counter::Failed), count(|r| r.outcome == Outcome::Failed), "{camera}: failed");
    assert_eq!(n(Counter::Stale), count(|r| r.reason == Reason::Stale), "{camera}: stale");
    let replaced = |r: &Row| matches!(r.reason, Reason::Superseded | Reason::Stopping);
    assert_eq!(n(Counter::Superseded), count(replaced), "{camera}: superseded");
    // What was published from the first frame seen to the last was taken or missed.
    let (first, last) = (unique.first().expect("frames"), unique.last().expect("frames"));
    assert_eq!(first.0, last.0, "{camera}: one capture process");
    let between = last.1 - first.1 + 1;
    assert_eq!(between, n(Counter::Taken) + n(Counter::Missed), "{camera}: taken + missed");
}

#[test]
fn every_frame_of_a_clip_gives_one_ok_result_in_order_without_a_copy() {
    let Some(clip) = asset("media/bikes.mp4") else { return };
    if !openvino() {
        return;
    }
    let frames = decoded_frames(&clip);
    assert_eq!(frames, 250, "the clip is the known one");
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "clip"
        source = "file:{}"
        pace = "fast"
        delivery = "every-frame"
        "#,
        clip.display()
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let exit = world.up(&config).wait(120);
    world.assert_ended();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    assert_eq!(sequences(&rows, "clip"), (0..frames as u64).collect::<Vec<_>>());
    for row in &rows {
        assert_eq!((row.outcome, row.reason), (Outcome::Ok, Reason::None), "{row:?}");
        assert_eq!((row.size, row.backend.as_str()), ((640, 272), "openvino"));
        assert_eq!(row.epoch_ns, rows[0].epoch_ns);
        let t = row.times;
        let order = [
            t.capture_ns,
            t.publish_ns,
            t.taken_ns,
            t.batched_ns,
            t.preprocessed_ns,
            t.inference_start_ns,
            t.inference_end_ns,
            t.decoded_ns,
            t.result_ns,
        ];
        assert!(order[0] > 0 && order.is_sorted(), "stage times run backwards: {t:?}");
    }
    let capture = health.newest(Role::Capture, "clip").expect("capture reported");
    check_capture(&capture);
    let n = |counter| capture.counter(counter);
    assert_eq!((n(Counter::Captured), n(Counter::ZeroCopy)), (250, 250), "zero-copy share");
    let inference = health.newest(Role::InferCamera, "clip").expect("inference reported");
    check_inference(&inference, &rows, "clip");
    assert_eq!(inference.counter(Counter::Missed), 0);
}

#[test]
fn under_overload_every_frame_that_was_taken_has_a_result_and_the_books_balance() {
    let Some(model) = asset("models/yolov8n.onnx") else { return };
    if !openvino() {
        return;
    }
    let world = World::new();
    // A hundred and sixty frames a second meet one context that takes some
    // 20 ms or more for each: most are overwritten or replaced by newer ones.
    // The second camera's results would come too late: its frames are dropped
    // before inference, but for one now and then that tries.
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        precision = "f32"
        input = "640x640"
        contexts = 1
        [[camera]]
        name = "fast"
        source = "test:ball?width=640&height=360&fps=120"
        [[camera]]
        name = "limited"
        source = "test:ball?width=320&height=240&fps=60"
        fps = 40
        max_age_ms = 15
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("fast", 40, 90);
    results.wait_more("limited", 3, 60);
    up.signal(rustix::process::Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0), "{}", up.stderr());
    let rows = results.finish();
    let numbers: Vec<u64> = rows.iter().map(|row| row.result_sequence).collect();
    assert_eq!(numbers, (0..rows.len() as u64).collect::<Vec<_>>(), "no result is lost");
    let mut dropped = 0;
    for camera in ["fast", "limited"] {
        let capture = health.newest(Role::Capture, camera).expect("capture reported");
        check_capture(&capture);
        let inference = health.newest(Role::InferCamera, camera).expect("inference reported");
        check_inference(&inference, &rows, camera);
        let last = sequences(&rows, camera).into_iter().max().expect("frames");
        assert!(capture.counter(Counter::Published) > last, "a frame that was never published");
        assert_eq!(inference.counter(Counter::Failed), 0);
        let stale = inference.counter(Counter::Stale) > 0;
        assert_eq!(stale, camera == "limited", "{camera}: frames beyond their age");
        dropped += inference.counter(Counter::Missed) + inference.counter(Counter::Superseded);
        let limited = capture.counter(Counter::LostRate) > 0;
        assert_eq!(limited, camera == "limited", "{camera}: frames left out by the rate limit");
    }
    assert!(dropped > 0, "that was no overload");
    // A frame that was not inferred has no detections and says why.
    for row in rows.iter().filter(|row| row.outcome == Outcome::Dropped) {
        assert_ne!(row.reason, Reason::None, "{row:?}");
        assert!(row.detections.is_empty() && row.times.inference_end_ns == 0, "{row:?}");
    }
}

#[test]
fn two_cameras_of_different_sizes_keep_their_own_frames() {
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
        name = "small"
        source = "test:red?width=320&height=192&fps=30&frames=60"
        delivery = "every-frame"
        [[camera]]
        name = "large"
        source = "test:green?width=1280&height=768&fps=30&frames=50"
        delivery = "every-frame"
        "#
    ));
    let results = Collector::start(&world.domain());
    let exit = world.up(&config).wait(120);
    world.assert_ended();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    let each = [("small", 60, (320, 192), "red"), ("large", 50, (1280, 768), "green")];
    for (camera, frames, size, label) in each {
        assert_eq!(sequences(&rows, camera), (0..frames).collect::<Vec<u64>>(), "{camera}");
        for row in rows.iter().filter(|row| row.camera == camera) {
            assert_eq!((row.outcome, row.size), (Outcome::Ok, size), "{row:?}");
            // 3x5 cells of the network, all of one colour, each a box.
            assert_eq!(row.detections.len(), 15, "{row:?}");
            assert!(row.detections.iter().all(|found| found.label == label), "{row:?}");
            let right = row.detections.iter().map(|f| f.bbox[2]).fold(0.0, f32::max);
            assert!((right - size.0 as f32).abs() < 1.0, "boxes in source pixels: {row:?}");
        }
    }
}

#[test]
fn a_camera_that_changes_its_size_loses_nothing() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 128)));
    let part = |pattern: &str, width: u32, height: u32| {
        format!(
            "videotestsrc num-buffers=25 pattern={pattern} ! \
             video/x-raw,width={width},height={height},framerate=25/1 ! c. "
        )
    };
    let source = format!(
        "concat name=c {} {} {}",
        part("red", 320, 240),
        part("green", 1280, 960),
        part("red", 640, 480)
    );
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "zoom"
        source = "gst:{source}"
        delivery = "every-frame"
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let exit = world.up(&config).wait(120);
    world.assert_ended();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    assert_eq!(sequences(&rows, "zoom"), (0..75).collect::<Vec<u64>>());
    for row in &rows {
        let (size, label) = match row.sequence {
            0..25 => ((320, 240), "red"),
            25..50 => ((1280, 960), "green"),
            _ => ((640, 480), "red"),
        };
        assert_eq!((row.outcome, row.size), (Outcome::Ok, size), "{row:?}");
        assert_eq!(row.detections.len(), 12, "{row:?}");
        assert!(row.detections.iter().all(|found| found.label == label), "{row:?}");
    }
    let capture = health.newest(Role::Capture, "zoom").expect("capture reported");
    check_capture(&capture);
    assert_eq!(capture.counter(Counter::Published), 75);
}
