//! What servers say of their models, and what is made of it.

use super::contract::{Contract, Element, Reading};
use super::proto::{Empty, ModelConfig, ModelMetadata, TensorMetadata};
use crate::api::Shape;
use framebus_model::Model;
use framebus_model::testing::{DflHead, TinyDetector};
use framebus_vision::Layout;
use std::path::Path;

const VGA: Shape = Shape { height: 96, width: 128 };

/// Two classes; its head can be cut off.
fn model() -> Model {
    let detector = TinyDetector { head: Some(DflHead::default()), ..TinyDetector::new(2, None) };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.onnx");
    std::fs::write(&path, detector.build()).expect("written");
    // With its content: the file goes.
    let model = Model::from_bytes(&path, std::fs::read(&path).expect("read")).expect("a model");
    model.cut().expect("cut")
}

/// The same as it was exported, for a fixed input.
fn whole(classes: usize) -> Model {
    let bytes = TinyDetector::new(classes, Some((96, 128))).build();
    Model::from_bytes(Path::new("tiny.onnx"), bytes).expect("a model")
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata { name: name.into(), datatype: datatype.into(), shape: shape.to_vec() }
}

fn picture(datatype: &str, shape: &[i64]) -> Vec<TensorMetadata> {
    vec![tensor("images", datatype, shape)]
}

fn server(inputs: Vec<TensorMetadata>, outputs: Vec<TensorMetadata>) -> ModelMetadata {
    ModelMetadata { name: "yolo".into(), inputs, outputs, ..ModelMetadata::default() }
}

fn contract(model: &Model, metadata: &ModelMetadata, batch: i32) -> Result<Contract, String> {
    let config = ModelConfig { max_batch_size: batch, ..ModelConfig::default() };
    Contract::new(model, metadata, &config, 0).map_err(|error| error.to_string())
}

#[test]
fn raw_outputs_are_read_whichever_side_comes_first() {
    let model = whole(2);
    let inputs = || picture("FP32", &[1, 3, 96, 128]);
    let cases: [(&[i64], Layout); 3] = [
        (&[1, 6, 252], Layout::ChannelsFirst),
        (&[1, 252, 6], Layout::AnchorsFirst),
        (&[1, -1, -1], Layout::ChannelsFirst),
    ];
    for (shape, layout) in cases {
        let metadata = server(inputs(), vec![tensor("output0", "FP32", shape)]);
        let found = contract(&model, &metadata, 0).expect("fits");
        assert_eq!(found.reading, Reading::Whole(layout), "{shape:?}");
        assert_eq!((found.max_batch, found.element), (1, Element::F32));
        assert_eq!(found.output_bytes(0, VGA, 1), 6 * 252 * 4, "{shape:?}");
        assert_eq!((found.sides.height, found.sides.width), (Some(96), Some(128)));
    }
    let three = whole(3);
    let suppressed = server(inputs(), vec![tensor("output0", "FP16", &[1, 300, 6])]);
    let found = contract(&three, &suppressed, 0).expect("fits");
    assert_eq!(found.reading, Reading::Whole(Layout::EndToEnd));
    assert_eq!(found.output_bytes(0, VGA, 1), 300 * 6 * 2);
}

#[test]
fn maps_of_a_cut_head_are_found_by_name_or_order() {
    let model = model();
    let maps = |names: &dyn Fn(usize) -> [String; 2]| {
        let mut maps = Vec::new();
        for (index, _) in model.heads().iter().enumerate() {
            let [boxes, classes] = names(index);
            maps.push(tensor(&boxes, "FP32", &[-1, 4 * model.bins() as i64, -1, -1]));
            maps.push(tensor(&classes, "FP32", &[-1, 2, -1, -1]));
        }
        maps
    };
    let inputs = || picture("FP16", &[-1, 3, -1, -1]);
    let own = |index: usize| {
        let head = &model.heads()[index];
        [head.boxes.clone(), head.classes.clone()]
    };
    let mut shuffled = maps(&own);
    shuffled.reverse();
    let found = contract(&model, &server(inputs(), shuffled), 8).expect("fits");
    let names: Vec<String> = found.outputs.iter().map(|output| output.name.clone()).collect();
    assert_eq!(names[..2], own(0), "by name, whatever the server's order");
    assert!(matches!(&found.reading, Reading::Heads { bins, .. } if *bins == model.bins()));
    assert_eq!((found.max_batch, found.element), (8, Element::F16));
    assert_eq!((found.sides.height, found.sides.width), (None, None));
    assert_eq!(found.input_bytes(VGA, 2), 2 * 3 * 96 * 128 * 2);
    let stride = model.heads()[0].stride;
    let cells = (96 / stride) * (128 / stride);
    assert_eq!(found.output_bytes(1, VGA, 3), 3 * 2 * cells * 4);
    let other = |index: usize| [format!("b{index}"), format!("c{index}")];
    assert!(contract(&model, &server(inputs(), maps(&other)), 8).is_ok(), "by order");
}

#[test]
fn what_the_server_suppresses_is_told_by_types_and_shapes() {
    let outputs = vec![
        tensor("classes", "INT32", &[-1, 100]),
        tensor("boxes", "FP32", &[-1, 100, 4]),
        tensor("number", "INT32", &[-1, 1]),
        tensor("scores", "FP32", &[-1, 100]),
    ];
    let metadata = server(picture("UINT8", &[-1, 3, 96, 128]), outputs);
    let found = contract(&whole(2), &metadata, 4).expect("fits");
    assert_eq!(found.reading, Reading::Suppressed);
    let names: Vec<&str> = found.outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(names, ["number", "boxes", "scores", "classes"]);
    assert_eq!(found.element, Element::U8);
}

#[test]
fn batches_are_the_servers_word_or_less() {
    let outputs = || vec![tensor("output0", "FP32", &[-1, 6, 252])];
    let metadata = server(picture("FP32", &[-1, 3, 96, 128]), outputs());
    let limit = |max_batch_size: i32, gathers: bool, wanted: usize| {
        let config = ModelConfig {
            max_batch_size,
            dynamic_batching: gathers.then(Empty::default),
            ..ModelConfig::default()
        };
        Contract::new(&whole(2), &metadata, &config, wanted)
            .map(|contract| contract.max_batch)
            .map_err(|error| error.to_string())
    };
    assert_eq!(limit(8, false, 0), Ok(8));
    assert_eq!(limit(8, false, 3), Ok(3));
    assert_eq!(limit(8, true, 0), Ok(1), "the server gathers single requests");
    assert_eq!(limit(8, true, 4), Ok(4), "the user's word");
    assert_eq!(limit(0, false, 0), Ok(1), "free, but nobody says how many");
    let text = limit(2, false, 4).unwrap_err();
    assert!(
        text.contains("triton.max_batch = 4, but the server's model takes 2 at most"),
        "{text}"
    );
    let fixed = server(picture("FP32", &[4, 3, 96, 128]), outputs());
    let text = contract(&whole(2), &fixed, 0).unwrap_err();
    assert!(text.contains("exactly 4 frames at once"), "{text}");
}

#[test]
fn answers_are_measured_against_what_was_said_before() {
    let outputs = vec![tensor("output0", "FP32", &[-1, 6, -1])];
    let metadata = server(picture("FP32", &[-1, 3, 96, 128]), outputs);
    let found = contract(&whole(2), &metadata, 4).expect("fits");
    assert!(found.fits(0, &[2, 6, 252], 2));
    let wrong: [&[i64]; 5] = [&[1, 6, 252], &[2, 7, 252], &[2, 6, -1], &[2, 6], &[]];
    assert!(wrong.iter().all(|shape| !found.fits(0, shape, 2)));
    let vast = vec![tensor("output0", "FP32", &[-1, 6, i64::MAX])];
    let vast = server(picture("FP32", &[-1, 3, 96, 128]), vast);
    assert!(contract(&whole(2), &vast, 4).unwrap_err().contains("too large"));
}

#[test]
fn what_does_not_fit_is_explained() {
    let good = || vec![tensor("output0", "FP32", &[1, 6, 252])];
    let cases = [
        (
            server(picture("FP32", &[1, 96, 128, 3]), good()),
            "its input 'images' FP32 [1, 96, 128, 3] has its colours last",
        ),
        (
            server(picture("BYTES", &[1, 3, 96, 128]), good()),
            "its input is 'images' BYTES [1, 3, 96, 128]; one input [batch, 3, height, width]",
        ),
        (
            server(vec![tensor("a", "FP32", &[1]), tensor("b", "FP32", &[1])], good()),
            "it has 2 inputs ('a' FP32 [1], 'b' FP32 [1])",
        ),
        (
            server(
                picture("FP32", &[1, 3, 96, 128]),
                vec![tensor("output0", "FP32", &[1, 84, 252])],
            ),
            "its outputs 'output0' FP32 [1, 84, 252] are none of what is read for the 2 classes \
             of tiny.onnx",
        ),
        (
            server(picture("FP32", &[1, 3, 96, 128]), vec![tensor("o", "INT32", &[1, 6, 252])]),
            "are none of what is read",
        ),
    ];
    for (metadata, expected) in cases {
        let text = contract(&whole(2), &metadata, 0).unwrap_err();
        assert!(text.starts_with("triton cannot run model yolo: "), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let stateful = ModelConfig { sequence_batching: Some(Empty {}), ..ModelConfig::default() };
    let metadata = server(picture("FP32", &[1, 3, 96, 128]), good());
    assert!(Contract::new(&whole(2), &metadata, &stateful, 0).is_err());
}
