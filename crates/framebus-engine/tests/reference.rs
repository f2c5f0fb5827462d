//! The real YOLOv8n on real pictures against what ONNX Runtime answers in f32.
//!
//! The expected values (`tests/fixtures/reference/*.json`) come from the same model
//! file with the standard letterbox, confidence 0.25 and IoU 0.45.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, asset, openvino, options, repository, run, thresholds};
use framebus_engine::{InputShape, LoadOptions, Precision, Shape};
use framebus_model::Model;
use framebus_vision::{Detection, iou};

/// What the references were computed with.
const SQUARE: InputShape = InputShape::Fixed(Shape { height: 640, width: 640 });

/// A detection with the name of its class.
type Labelled = (String, Detection);

#[derive(Debug)]
struct Reference {
    label: String,
    score: f32,
    bbox: [f32; 4],
}

fn references(picture: &str) -> Vec<Reference> {
    let path = repository().join(format!("tests/fixtures/reference/{picture}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
    let detections = json["detections"].as_array().unwrap();
    assert!(!detections.is_empty(), "{} holds no boxes", path.display());
    detections
        .iter()
        .map(|d| Reference {
            label: d["label"].as_str().unwrap().to_owned(),
            score: number(&d["score"]),
            bbox: [0, 1, 2, 3].map(|i| number(&d["box"][i])),
        })
        .collect()
}

fn picture(name: &str) -> Option<Picture> {
    Some(common::decode(&asset(&format!("media/{name}.jpg"))?))
}

/// Boxes by picture; `None` when something is missing.
fn detect(options: &LoadOptions) -> Option<Vec<(&'static str, Vec<Labelled>)>> {
    let backend = openvino()?;
    let model = Model::open(asset("models/yolov8n.onnx")?).unwrap();
    let mut engine = backend.load(&model, options).unwrap();
    let labels = engine.info().labels.clone();
    assert_eq!(labels.len(), 80);
    let info = engine.info();
    println!("{}, {:?}", info.device, info.precision);
    let mut contexts = engine.contexts(engine.info().base).unwrap();
    let context = contexts.first_mut().unwrap();
    let mut answers = Vec::new();
    for name in ["bus", "giraffe"] {
        let found = run(context.as_mut(), &picture(name)?, &thresholds(0.25, 0.45)).unwrap();
        let label = |d: Detection| (labels[d.class as usize].clone(), d);
        answers.push((name, found.into_iter().map(label).collect()));
    }
    Some(answers)
}

/// Finds a detection for each reference box above `above`, and returns those left.
fn compare(
    found: &[Labelled],
    references: &[Reference],
    (above, min_iou, score_tolerance): (f32, f32, f32),
) -> Vec<Labelled> {
    let mut left = found.to_vec();
    for reference in references {
        let best = left
            .iter()
            .enumerate()
            .filter(|(_, (label, _))| *label == reference.label)
            .max_by(|(_, a), (_, b)| {
                iou(a.1.bbox, reference.bbox).total_cmp(&iou(b.1.bbox, reference.bbox))
            })
            .map(|(index, _)| index);
        let matched = best.filter(|&index| iou(left[index].1.bbox, reference.bbox) >= min_iou);
        let Some(index) = matched else {
            assert!(reference.score <= above, "{reference:?} not found in {found:?}");
            continue;
        };
        let (_, detection) = left.swap_remove(index);
        let difference = (detection.score - reference.score).abs();
        if reference.score > above {
            assert!(difference <= score_tolerance, "{reference:?} is {detection:?}");
        }
        println!(
            "{} {:.4}: iou {:.4}, score differs by {difference:.4}",
            reference.label,
            reference.score,
            iou(detection.bbox, reference.bbox)
        );
    }
    left
}

#[test]
fn f32_agrees_with_the_reference() {
    let options = LoadOptions { precision: Precision::F32, input: SQUARE, ..options() };
    let Some(answers) = detect(&options) else {
        return;
    };
    for (picture, found) in answers {
        let left = compare(&found, &references(picture), (0.3, 0.95, 0.02));
        let extra: Vec<_> = left.iter().filter(|(_, d)| d.score > 0.35).collect();
        assert!(extra.is_empty(), "{picture} has {extra:?} which the reference has not");
    }
}

#[test]
fn the_default_precision_stays_close_to_the_reference() {
    let options = LoadOptions { precision: Precision::Auto, input: SQUARE, ..options() };
    let Some(answers) = detect(&options) else {
        return;
    };
    for (picture, found) in answers {
        compare(&found, &references(picture), (0.4, 0.9, 0.06));
    }
}
