//! The answers for two known pictures against those of another runtime.

use framebus_tests::{Collector, Found, World, asset, matches, openvino, reference};
use framebus_types::Outcome;
use serde_json::Value;
use std::path::PathBuf;

const PICTURES: [&str; 2] = ["bus", "giraffe"];

fn assets() -> Option<(PathBuf, [PathBuf; 2])> {
    let model = asset("models/yolov8n.onnx")?;
    let pictures = [asset("media/bus.jpg")?, asset("media/giraffe.jpg")?];
    openvino().then_some((model, pictures))
}

/// `framebus detect --json` on one picture: its only line.
fn detect(world: &World, options: &[&str], model: &str, picture: &str) -> Value {
    let mut args = vec!["detect", "--json", "--model", model];
    args.extend(options);
    args.push(picture);
    let exit = world.framebus("detect", &args).wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.stdout.lines().count(), 1, "{}", exit.stdout);
    serde_json::from_str(&exit.stdout).expect("a JSON object")
}

fn found(line: &Value) -> Vec<Found> {
    let number = |value: &Value| value.as_f64().expect("a number") as f32;
    line["detections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| Found {
            label: found["label"].as_str().expect("a label").to_owned(),
            class: found["class"].as_u64().expect("a class") as u32,
            score: number(&found["score"]),
            bbox: [0, 1, 2, 3].map(|i| number(&found["box"][i])),
        })
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn detect_in_f32_answers_the_reference() {
    let Some((model, pictures)) = assets() else { return };
    let world = World::new();
    let options = "--precision f32 --input 640x640 --confidence 0.25 --iou 0.45";
    let options: Vec<&str> = options.split(' ').collect();
    for (name, picture) in PICTURES.iter().zip(pictures) {
        let picture = picture.display().to_string();
        let line = detect(&world, &options, &model.display().to_string(), &picture);
        let (size, want) = reference(name);
        matches(&want, &found(&line), 0.3, 0.95, 0.02, 0.35)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            keys(&line),
            [
                "source",
                "frame",
                "width",
                "height",
                "outcome",
                "backend",
                "model",
                "detections",
                "ms"
            ]
        );
        assert_eq!(keys(&line["detections"][0]), ["label", "class", "score", "box"]);
        assert_eq!(line["source"], picture.as_str());
        assert_eq!(line["frame"], 0);
        assert_eq!([&line["width"], &line["height"]], [size[0], size[1]].each_ref());
        assert_eq!((&line["outcome"], &line["backend"]), (&"ok".into(), &"openvino".into()));
        assert_eq!(line["model"], "yolov8n");
        for stage in ["preprocess", "inference", "decode", "total"] {
            assert!(line["ms"][stage].as_f64().is_some_and(|ms| ms > 0.0), "{stage}: {line}");
        }
    }
    world.assert_gone();
}

#[test]
fn detect_with_the_defaults_is_close_to_the_reference() {
    let Some((model, pictures)) = assets() else { return };
    let world = World::new();
    // As the reference but for the precision, which is the machine's best.
    let options = ["--input", "640x640", "--iou", "0.45"];
    for (name, picture) in PICTURES.iter().zip(pictures) {
        let picture = picture.display().to_string();
        let line = detect(&world, &options, &model.display().to_string(), &picture);
        let (_, want) = reference(name);
        let sure: Vec<_> = want.into_iter().filter(|expected| expected.score > 0.4).collect();
        matches(&sure, &found(&line), 0.4, 0.9, 0.06, 0.46)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn pictures_as_cameras_answer_the_reference() {
    let Some((model, pictures)) = assets() else { return };
    let world = World::new();
    let [bus, giraffe] = pictures.map(|picture| picture.display().to_string());
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        precision = "f32"
        input = "640x640"
        confidence = 0.25
        iou = 0.45
        [[camera]]
        name = "bus"
        source = "file:{bus}"
        delivery = "every-frame"
        [[camera]]
        name = "giraffe"
        source = "file:{giraffe}"
        delivery = "every-frame"
        "#
    ));
    let results = Collector::start(&world.domain());
    let exit = world.up(&config).wait(60);
    world.assert_ended();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    assert_eq!(rows.len(), 2, "one result for each picture");
    for name in PICTURES {
        let row = rows.iter().find(|row| row.camera == name).expect("its result");
        let (size, want) = reference(name);
        assert_eq!((row.outcome, [row.size.0, row.size.1]), (Outcome::Ok, size));
        matches(&want, &row.detections, 0.3, 0.95, 0.02, 0.35)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
