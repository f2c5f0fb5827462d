//! Real inference with tiny models whose answer follows from the picture.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, load, openvino, options, run, thresholds};
use framebus_engine::{
    BatchOutput, EngineError, FrameRequest, InputShape, LoadOptions, Mode, Precision,
};
use framebus_model::testing::{TinyDetector, tiny_detector};
use framebus_model::{Model, OutputLayout};
use framebus_vision::Detection;

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];

fn close(found: &Detection, class: u32, bbox: [f32; 4]) {
    assert_eq!(found.class, class, "{found:?}");
    assert!((found.score - 1.0).abs() < 0.01, "{found:?}");
    for (have, want) in found.bbox.iter().zip(bbox) {
        assert!((have - want).abs() < 0.5, "{found:?} instead of {bbox:?}");
    }
}

#[test]
fn one_class() {
    let Some(backend) = openvino() else { return };
    let mut engine = load(backend.as_ref(), &tiny_detector(1, Some((64, 96))), &options()).unwrap();
    let info = engine.info().clone();
    assert_eq!((info.backend, info.model.as_str()), ("openvino", "tiny"));
    assert_eq!((info.base.height, info.base.width, info.max_batch), (64, 96, 1));
    assert_eq!(info.precision, Precision::F32);
    assert_eq!(info.labels, ["red"]);
    let mut contexts = engine.contexts(engine.info().base).unwrap();
    assert!(
        engine.contexts(engine.info().base).unwrap().is_empty(),
        "contexts are handed out once"
    );
    let mut context = contexts.pop().unwrap();
    // What was handed out must live on without its engine.
    drop(engine);

    let mut picture = Picture::black(96, 64);
    assert_eq!(run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap(), []);
    picture.fill([32, 0, 64, 32], RED).fill([64, 32, 96, 64], GREEN);
    let found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    close(&found[0], 0, [32.0, 0.0, 64.0, 32.0]);
}

#[test]
fn two_classes_in_every_layout() {
    let Some(backend) = openvino() else { return };
    for layout in [
        OutputLayout::Dense { channels_first: true },
        OutputLayout::Dense { channels_first: false },
        OutputLayout::EndToEnd,
    ] {
        // With two classes the shapes of the last two layouts are alike.
        let end_to_end = layout == OutputLayout::EndToEnd;
        let mut tiny = TinyDetector::new(2, Some((96, 96)))
            .with_metadata("end2end", if end_to_end { "True" } else { "False" });
        tiny.layout = layout;
        let mut engine = load(backend.as_ref(), &tiny.build(), &options()).unwrap();
        assert_eq!(engine.info().labels, ["red", "green"]);
        let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
        let mut picture = Picture::black(96, 96);
        picture.fill([0, 64, 32, 96], RED).fill([64, 0, 96, 32], GREEN);
        let mut found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
        found.sort_by_key(|detection| detection.class);
        assert_eq!(found.len(), 2, "{layout:?}: {found:?}");
        close(&found[0], 0, [0.0, 64.0, 32.0, 96.0]);
        close(&found[1], 1, [64.0, 0.0, 96.0, 32.0]);
    }
}

#[test]
fn a_model_that_suppresses_by_itself_may_find_nothing_in_the_self_check() {
    let Some(backend) = openvino() else { return };
    let mut tiny = TinyDetector::new(1, Some((64, 64))).with_metadata("end2end", "True");
    tiny.layout = OutputLayout::EndToEnd;
    let mut bytes = tiny.build();
    // Side of a cell, half of it, and the weight of the own channel: no cell has a box.
    for factor in [32.0_f32, 16.0, 1.0].map(f32::to_le_bytes) {
        let places: Vec<usize> =
            (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(&factor)).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at..at + 4].fill(0));
    }
    let mut engine = load(backend.as_ref(), &bytes, &options()).unwrap();
    let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
    let found = run(context.as_mut(), &Picture::black(64, 64), &thresholds(0.25, 0.7)).unwrap();
    assert_eq!(found, []);
}

#[test]
fn a_dynamic_model_takes_the_wanted_size_and_boxes_come_back_in_source_pixels() {
    let Some(backend) = openvino() else { return };
    let input = InputShape::Fixed(framebus_engine::Shape { height: 128, width: 192 });
    let options = LoadOptions { input, ..options() };
    let mut engine = load(backend.as_ref(), &tiny_detector(2, None), &options).unwrap();
    assert_eq!((engine.info().base.height, engine.info().base.width), (128, 192));
    let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
    // Twice the network's size: one cell of the network is 64x64 here.
    let mut picture = Picture::black(384, 256);
    picture.fill([128, 64, 192, 128], GREEN);
    let found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    close(&found[0], 1, [128.0, 64.0, 192.0, 128.0]);
    // Another size through the same context, 192x192: letterboxed to 128x128 with
    // 32 columns of grey at the left, so the cell at 32..64 shows pixels 0..48.
    let mut picture = Picture::black(192, 192);
    picture.fill([0, 48, 48, 96], GREEN);
    let found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    close(&found[0], 1, [0.0, 48.0, 48.0, 96.0]);
}

#[test]
fn class_filter_and_maximum() {
    let Some(backend) = openvino() else { return };
    let mut engine = load(backend.as_ref(), &tiny_detector(2, Some((96, 96))), &options()).unwrap();
    let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
    let mut picture = Picture::black(96, 96);
    picture.fill([0, 0, 96, 64], RED).fill([0, 64, 32, 96], GREEN);
    let mut limits = thresholds(0.5, 0.7);
    limits.classes = Some(vec![1]);
    let found = run(context.as_mut(), &picture, &limits).unwrap();
    assert_eq!(found.len(), 1);
    close(&found[0], 1, [0.0, 64.0, 32.0, 96.0]);
    limits.classes = Some(vec![0]);
    limits.max_detections = 4;
    let mut output = BatchOutput::default();
    let request = FrameRequest { view: picture.view(), thresholds: &limits, memory: None };
    context.run(&[request], &mut output).unwrap();
    assert_eq!((output.frames[0].detections.len(), output.frames[0].truncated), (4, 2));
    // One frame at a time, and never none.
    assert!(context.run(&[], &mut output).is_err());
    assert!(context.run(&[request, request], &mut output).is_err());
}

#[test]
fn an_answer_that_is_no_number_is_a_failure_and_never_an_empty_list() {
    let Some(backend) = openvino() else { return };
    let mut tiny = TinyDetector::new(1, Some((64, 64)));
    tiny.nan_above = true;
    let mut engine = load(backend.as_ref(), &tiny.build(), &options()).unwrap();
    let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
    let mut picture = Picture::black(64, 64);
    assert!(run(context.as_mut(), &picture, &thresholds(0.1, 0.7)).is_ok());
    picture.fill([0, 0, 32, 32], RED);
    let error = run(context.as_mut(), &picture, &thresholds(0.1, 0.7)).unwrap_err();
    assert!(matches!(error, EngineError::Run { stage: "decode", .. }), "{error}");
    assert!(error.to_string().contains("not finite"), "{error}");
    // The context stays usable.
    assert!(run(context.as_mut(), &Picture::black(64, 64), &thresholds(0.1, 0.7)).is_ok());
}

#[test]
fn throughput_mode_hands_out_contexts_that_run_at_once() {
    let Some(backend) = openvino() else { return };
    let options = LoadOptions { mode: Mode::Throughput, contexts: 3, threads: 2, ..options() };
    for bytes in
        [tiny_detector(1, Some((64, 64))), TinyDetector::with_head(1, Some((64, 64))).build()]
    {
        let mut engine = load(backend.as_ref(), &bytes, &options).unwrap();
        let contexts = engine.contexts(engine.info().base).unwrap();
        assert_eq!(contexts.len(), 3);
        std::thread::scope(|scope| {
            for (index, mut context) in contexts.into_iter().enumerate() {
                scope.spawn(move || {
                    let (x, y) = (32 * (index % 2), 32 * (index / 2));
                    let mut picture = Picture::black(64, 64);
                    picture.fill([x, y, x + 32, y + 32], RED);
                    for _ in 0..50 {
                        let found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
                        assert_eq!(found.len(), 1);
                        let (x, y) = (x as f32, y as f32);
                        close(&found[0], 0, [x, y, x + 32.0, y + 32.0]);
                    }
                });
            }
        });
    }
    let chosen = LoadOptions { contexts: 0, ..options };
    let mut engine = load(backend.as_ref(), &tiny_detector(1, Some((64, 64))), &chosen).unwrap();
    assert!(!engine.contexts(engine.info().base).unwrap().is_empty());
}

#[test]
fn a_graph_that_the_library_refuses_is_a_load_error_on_one_line() {
    let Some(backend) = openvino() else { return };
    // An operator that does not exist; both names have the same length.
    let mut broken = tiny_detector(1, Some((64, 64)));
    let mut replaced = 0;
    for at in 0..broken.len() - 6 {
        if broken[at..].starts_with(b"CumSum") {
            broken[at..at + 6].copy_from_slice(b"CumXXX");
            replaced += 1;
        }
    }
    assert!(replaced > 0);
    let error = load(backend.as_ref(), &broken, &options()).err().expect("refused");
    assert!(matches!(error, EngineError::Load { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("openvino failed to load model tiny: "), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn a_model_whose_path_is_not_utf8_or_is_gone_is_a_load_error() {
    use std::os::unix::ffi::OsStrExt;
    let Some(backend) = openvino() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"t\xff.onnx"));
    std::fs::write(&path, tiny_detector(1, Some((64, 64)))).unwrap();
    let model = Model::open(&path).unwrap();
    let error = backend.load(&model, &options()).err().expect("refused");
    assert!(error.to_string().contains("not UTF-8"), "{error}");

    let path = folder.path().join("gone.onnx");
    std::fs::write(&path, tiny_detector(1, Some((64, 64)))).unwrap();
    let model = Model::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = backend.load(&model, &options()).err().expect("refused");
    assert!(matches!(error, EngineError::Load { .. }), "{error}");
}

#[test]
fn a_claimed_output_that_the_graph_does_not_have_is_found_by_the_self_check() {
    let Some(backend) = openvino() else { return };
    // Three named classes claimed for a symbolic output of two.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.onnx");
    let mut tiny = TinyDetector::new(2, None);
    tiny.metadata.retain(|(key, _)| key != "names");
    let mut bytes = tiny.build();
    // The declared 6 channels (dim_value 6) become 7; the graph still makes 6.
    let at = bytes.windows(4).rposition(|w| w == [0x0a, 0x02, 0x08, 0x06]).unwrap();
    bytes[at + 3] = 7;
    std::fs::write(&path, bytes).unwrap();
    let model = Model::open(&path).unwrap();
    assert_eq!(model.classes(), 3);
    let input = InputShape::Fixed(framebus_engine::Shape { height: 64, width: 64 });
    let error = backend.load(&model, &LoadOptions { input, ..options() }).err().expect("refused");
    assert!(error.to_string().contains("self-check failed"), "{error}");
    assert!(error.to_string().contains("[1, 6, 4]"), "{error}");
}
