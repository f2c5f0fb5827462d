//! That what is kept is kept byte for byte, known or not, and that shapes which cannot be
//! are no panic.

use super::reshape::Export;
use super::shapes::{Freedom, Shapes};
use crate::Model;
use crate::onnx::{GraphProto, NodeProto, TensorProto};
use crate::testing::{DflHead, TinyDetector};
use crate::wire::{self, Field};
use bytes::Bytes;
use std::collections::HashSet;
use std::path::Path;

const GRAPH: u64 = 7;
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const INPUT: u64 = 11;

/// A number that ONNX does not use in any message: what a later version may add.
const UNKNOWN: u64 = 900;

fn fields(message: &Bytes) -> Vec<Field> {
    wire::fields(message).expect("whole message")
}

fn graph(model: &Bytes) -> Bytes {
    fields(model).into_iter().find(|field| field.number == GRAPH).expect("graph").content
}

fn all(message: &Bytes, number: u64) -> Vec<Bytes> {
    fields(message).into_iter().filter(|f| f.number == number).map(|f| f.raw).collect()
}

/// The tiny detector with an unknown field in the model, the graph, every node, every
/// weight and the input.
fn with_unknown_fields(reshaped: bool) -> Bytes {
    let mut tiny = TinyDetector::with_head(3, Some((64, 96)));
    tiny.head = Some(DflHead { reshaped, ..DflHead::default() });
    let plain = Bytes::from(tiny.build());
    let mark = |message: &Bytes| {
        let mut bytes = message.to_vec();
        bytes.extend(wire::field(UNKNOWN, b"later version"));
        bytes
    };
    let marked = wire::edit(&plain, GRAPH, |_, graph| {
        let mut graph = graph.clone();
        for number in [NODE, INITIALIZER, INPUT] {
            graph = wire::edit(&graph, number, |_, part| Some(mark(part)))?.into();
        }
        Some(mark(&graph))
    });
    Bytes::from(mark(&Bytes::from(marked.expect("edited"))))
}

fn cut(source: &Bytes) -> Bytes {
    let model = Model::from_bytes(Path::new("tiny.onnx"), source.clone()).expect("opened");
    model.cut().expect("cut").bytes().expect("in memory").clone()
}

#[test]
fn kept_parts_are_the_files_own_bytes() {
    let source = with_unknown_fields(false);
    let cut = cut(&source);
    let (old, new) = (graph(&source), graph(&cut));
    for number in [NODE, INITIALIZER] {
        let before: HashSet<Bytes> = all(&old, number).into_iter().collect();
        let after = all(&new, number);
        assert!(!after.is_empty() && after.len() < before.len());
        assert!(after.iter().all(|part| before.contains(part)), "a part of {number} was changed");
    }
    // Two pools and four convolutions with weight and bias.
    assert_eq!((all(&new, NODE).len(), all(&new, INITIALIZER).len()), (6, 8));
    for (before, after) in [(&old, &new), (&source, &cut)] {
        assert_eq!(all(before, UNKNOWN), all(after, UNKNOWN));
        assert_eq!(all(after, UNKNOWN).len(), 1);
    }
    // All else of the model is there, in order, and one metadata entry more.
    let rest = |model: &Bytes| -> Vec<Bytes> {
        fields(model).into_iter().filter(|f| f.number != GRAPH).map(|f| f.raw).collect()
    };
    let (before, after) = (rest(&source), rest(&cut));
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
}

#[test]
fn a_reshape_that_is_made_free_changes_one_name_and_nothing_else() {
    let source = with_unknown_fields(true);
    let cut = cut(&source);
    let before: HashSet<Bytes> = all(&graph(&source), NODE).into_iter().collect();
    let changed: Vec<Bytes> =
        all(&graph(&cut), NODE).into_iter().filter(|node| !before.contains(node)).collect();
    let text = |node: &Bytes| String::from_utf8_lossy(node).into_owned();
    let reshapes: Vec<String> =
        changed.iter().map(text).filter(|node| node.contains("Reshape")).collect();
    assert_eq!(reshapes.len(), 2);
    for (node, old, new) in
        [(&reshapes[0], "tokens", "framebus/target_1"), (&reshapes[1], "back", "framebus/target_2")]
    {
        assert!(node.contains(new) && !node.contains(old), "{node}");
        assert!(node.contains("later version"), "{node}");
    }
    // The others compute the targets.
    let added = changed.iter().map(text).filter(|node| !node.contains("Reshape"));
    assert!(added.into_iter().all(|node| node.contains("framebus/")));
    // The old targets are not kept.
    let weights: String = all(&graph(&cut), INITIALIZER).iter().map(text).collect();
    assert!(!weights.contains("tokens") && !weights.contains("back"));
}

#[test]
fn the_input_keeps_all_but_its_sizes() {
    let source = with_unknown_fields(false);
    let input = all(&graph(&cut(&source)), INPUT);
    assert_eq!(input.len(), 1);
    let text = String::from_utf8_lossy(&input[0]).into_owned();
    for part in ["images", "later version", "batch", "height", "width"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn weights_in_another_file_are_refused() {
    let source = Bytes::from(TinyDetector::with_head(1, Some((64, 64))).build());
    // TensorProto.data_location (14) = EXTERNAL.
    let external = wire::edit(&source, GRAPH, |_, graph| {
        wire::edit(graph, INITIALIZER, |_, tensor| Some([&tensor[..], &[0x70, 1]].concat()))
    });
    let external = external.expect("edited");
    let model = Model::from_bytes(Path::new("tiny.onnx"), external).expect("opened");
    assert_eq!(model.cut().expect_err("external").to_string(), "its weights lie in another file");
}

/// Found by fuzzing: the limits of a slice cannot be clamped to less than nothing.
#[test]
fn a_slice_of_a_negative_length_is_not_understood() {
    const INT64: i32 = 7;
    let list = |name: &str, values: &[i64]| TensorProto {
        name: name.to_owned(),
        dims: vec![values.len() as i64],
        data_type: INT64,
        int64_data: values.to_vec(),
        ..TensorProto::default()
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let negative = TensorProto { name: "data".to_owned(), dims: vec![-3], ..list("", &[]) };
    let graph = GraphProto {
        initializer: vec![negative, list("from", &[0]), list("to", &[2])],
        node: vec![NodeProto {
            op_type: "Slice".to_owned(),
            input: names(&["data", "from", "to"]),
            output: names(&["part"]),
            ..NodeProto::default()
        }],
        ..GraphProto::default()
    };
    let shapes = Shapes::follow(&graph, "images", Export { sizes: None, multiple: 32 });
    let Freedom::Baked(reason) = &shapes.freedom[0] else { panic!("understood") };
    assert_eq!(reason, "its input has a negative length");
}
