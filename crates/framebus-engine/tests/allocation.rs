//! Nothing is allocated per frame. What the library allocates inside is its own
//! affair and not counted: it does not use Rust's allocator.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, load, openvino, options, thresholds};
use framebus_engine::scripted::{Script, ScriptedBackend};
use framebus_engine::{BatchOutput, Context, FrameRequest, LoadOptions};
use framebus_model::testing::{TinyDetector, tiny_detector};
use framebus_vision::{Colour, FrameView, Planes};

/// Runs pictures of two sizes and both formats until everything has grown, then
/// counts allocations of the same again.
fn allocations(context: &mut dyn Context) -> u64 {
    let thresholds = thresholds(0.25, 0.7);
    let mut rgb = Picture::black(128, 96);
    rgb.fill([0, 0, 128, 96], [255, 0, 0]);
    let (y, uv) = (vec![80; 64 * 48], vec![110; 64 * 24]);
    let planes = Planes::Nv12 { y: &y, y_stride: 64, uv: &uv, uv_stride: 64 };
    let nv12 = FrameView::new(64, 48, planes, Colour::default()).unwrap();
    let mut output = BatchOutput::default();
    let mut boxes = 0;
    let mut round = || {
        for view in [rgb.view(), nv12] {
            let request = FrameRequest { view, thresholds: &thresholds, memory: None };
            context.run(&[request], &mut output).unwrap();
            boxes += output.frames[0].detections.len();
        }
        context.infer_only().unwrap();
    };
    round();
    round();
    let counted = allocation_counter::measure(|| (0..10).for_each(|_| round())).count_total;
    assert!(boxes > 0, "the picture has boxes to decode");
    counted
}

#[test]
fn openvino_contexts_allocate_nothing_after_the_first_frames() {
    let Some(backend) = openvino() else { return };
    for bytes in [
        tiny_detector(2, None),
        tiny_detector(2, Some((96, 128))),
        TinyDetector::with_head(2, Some((96, 128))).build(),
    ] {
        let mut engine = load(backend.as_ref(), &bytes, &options()).unwrap();
        let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
        assert_eq!(allocations(context.as_mut()), 0, "{:?}", engine.info());
    }
}

#[test]
fn the_counter_counts() {
    // The scripted engine records its calls, so it allocates.
    let bytes = TinyDetector::new(1, Some((64, 64))).build();
    let model = framebus_model::Model::from_bytes("tiny.onnx".as_ref(), bytes).unwrap();
    let box_ = framebus_vision::Detection { bbox: [0.0, 0.0, 9.0, 9.0], score: 0.9, class: 0 };
    let rest = framebus_engine::scripted::Action::Answer(vec![box_]);
    let backend = ScriptedBackend::new(Script { rest, ..Script::default() });
    let options = LoadOptions::new(|| 0);
    let mut engine = framebus_engine::Backend::load(&backend, &model, &options).unwrap();
    let mut context = engine.contexts(engine.info().base).unwrap().pop().unwrap();
    assert!(allocations(context.as_mut()) > 0);
}
