//! Tiny models whose head can be cut off: same answers, any shape, any cache.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, load, openvino, options, run, thresholds};
use framebus_engine::{EngineError, InputShape, LoadOptions, Shape, ShapePolicy};
use framebus_model::testing::{DflHead, TinyDetector};
use framebus_vision::Detection;
use std::path::{Path, PathBuf};

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const PURPLE: [u8; 3] = [255, 0, 90];

fn sorted(mut boxes: Vec<Detection>) -> Vec<Detection> {
    boxes.sort_by(|a, b| a.bbox.map(f32::round).partial_cmp(&b.bbox.map(f32::round)).unwrap());
    boxes
}

fn side(shape: Shape) -> InputShape {
    InputShape::Fixed(shape)
}

#[test]
fn cut_and_whole_give_the_same_boxes() {
    let Some(backend) = openvino() else { return };
    let mut picture = Picture::black(160, 96);
    picture.fill([0, 0, 32, 32], RED).fill([64, 32, 96, 64], GREEN);
    picture.fill([128, 64, 160, 96], PURPLE);
    let shape = Shape { height: 96, width: 160 };
    for bins in [1, 16] {
        for joined in [false, true] {
            for size in [None, Some((96, 160))] {
                let reshaped = size.is_some();
                let head = DflHead { bins, joined, reshaped, ..DflHead::default() };
                let bytes = TinyDetector { head: Some(head), ..TinyDetector::new(2, size) }.build();
                let answer = |as_is| {
                    let options = LoadOptions { as_is, input: side(shape), ..options() };
                    let mut engine = load(backend.as_ref(), &bytes, &options).unwrap();
                    let mut context = engine.contexts(shape).unwrap().pop().unwrap();
                    sorted(run(context.as_mut(), &picture, &thresholds(0.25, 0.7)).unwrap())
                };
                let (whole, cut) = (answer(true), answer(false));
                assert!(whole.len() >= 5, "one red cell, four green ones: {whole:?}");
                assert_eq!(whole.len(), cut.len(), "{bins} bins, joined {joined}, {size:?}");
                for (a, b) in whole.iter().zip(&cut) {
                    assert_eq!(a.class, b.class);
                    assert!((a.score - b.score).abs() < 1e-4, "{a:?} {b:?}");
                    let near = a.bbox.iter().zip(b.bbox).all(|(a, b)| (a - b).abs() < 0.05);
                    assert!(near, "{a:?} {b:?}");
                }
            }
        }
    }
}

#[test]
fn a_static_export_serves_cameras_of_every_shape() {
    let Some(backend) = openvino() else { return };
    // With reshapes whose sizes the export baked in.
    let head = DflHead { reshaped: true, ..DflHead::default() };
    let tiny = TinyDetector { head: Some(head), ..TinyDetector::new(1, Some((160, 160))) };
    let mut engine = load(backend.as_ref(), &tiny.build(), &options()).unwrap();
    let policy = ShapePolicy::CameraShaped { side: 160, stride: 32 };
    assert_eq!(engine.info().shapes, policy);
    assert_eq!(engine.info().base, Shape { height: 96, width: 160 });
    for (width, height) in [(320, 192), (192, 320), (320, 320)] {
        let mut picture = Picture::black(width, height);
        // Twice the network's size: a cell of the network is 64x64 here.
        picture.fill([64, 128, 128, 192], RED);
        let shape = policy.shape_for(width, height);
        assert_eq!((2 * shape.width, 2 * shape.height), (width, height));
        let mut context = engine.contexts(shape).unwrap().pop().unwrap();
        let found = run(context.as_mut(), &picture, &thresholds(0.5, 0.7)).unwrap();
        assert_eq!(found.len(), 1, "{shape}: {found:?}");
        for (have, want) in found[0].bbox.iter().zip([64.0, 128.0, 128.0, 192.0]) {
            assert!((have - want).abs() < 0.5, "{shape}: {found:?}");
        }
    }
}

#[test]
fn a_network_whose_values_are_no_numbers_is_refused_at_load() {
    let Some(backend) = openvino() else { return };
    let mut bytes = TinyDetector::with_head(1, Some((64, 64))).build();
    assert!(load(backend.as_ref(), &bytes, &options()).is_ok());
    // The factor of the class logits.
    let (factor, nan) = (20.0_f32.to_le_bytes(), f32::NAN.to_le_bytes());
    let places: Vec<usize> =
        (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(&factor)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&nan);
    }
    let error = load(backend.as_ref(), &bytes, &options()).err().expect("refused");
    assert!(matches!(error, EngineError::Load { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("self-check failed") && text.contains("not finite"), "{text}");
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_lies_in_the_cache_never_breaks_loading() {
    let Some(backend) = openvino() else { return };
    let bytes = TinyDetector::with_head(1, Some((160, 160))).build();
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("cache");
    let options = LoadOptions { cache: Some(folder.clone()), ..options() };
    let works = || {
        let mut engine = load(backend.as_ref(), &bytes, &options).unwrap();
        assert!(matches!(engine.info().shapes, ShapePolicy::CameraShaped { .. }));
        assert_eq!(engine.info().model, "tiny", "named by the original");
        assert_eq!(engine.contexts(engine.info().base).unwrap().len(), 1);
        // A shape that comes later is read from the same place.
        assert_eq!(engine.contexts(Shape { height: 160, width: 160 }).unwrap().len(), 1);
    };
    works();
    let files = kept(&folder);
    assert_eq!(files.len(), 1, "{files:?}");
    let good = std::fs::read(&files[0]).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x55;
    for bad in [&b"garbage"[..], &good[..good.len() / 2], &[], &flipped] {
        std::fs::write(&files[0], bad).unwrap();
        works();
        assert!(std::fs::read(&files[0]).unwrap() == good, "rebuilt");
    }
    // A file where the folder should be.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    works();
}
