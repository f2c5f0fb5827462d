//! Opening good, odd and broken model files.

use framebus_model::testing::{TinyDetector, not_yolo, tiny_detector};
use framebus_model::{Dim, Model, ModelError, OutputLayout};
use std::path::Path;

fn open(bytes: Vec<u8>) -> Result<Model, ModelError> {
    Model::from_bytes(Path::new("models/tiny.onnx"), bytes)
}

fn refused(bytes: Vec<u8>) -> String {
    open(bytes).expect_err("the model should be refused").to_string()
}

#[test]
fn one_class_fixed_size() {
    let model = open(tiny_detector(1, Some((64, 96)))).unwrap();
    assert_eq!(model.name(), "tiny");
    assert_eq!(model.labels(), ["red"]);
    assert_eq!(model.size(), Some((64, 96)));
    assert_eq!(model.image_size(), Some((64, 96)));
    assert_eq!(model.stride(), 32);
    assert_eq!(model.batch(), Some(1));
    assert_eq!(model.layout(), OutputLayout::Dense { channels_first: true });
    assert_eq!(model.input().name, "images");
    assert_eq!(model.producer(), "framebus-testing 1");
}

#[test]
fn dynamic_sizes_are_symbolic() {
    let model = open(tiny_detector(2, None)).unwrap();
    assert_eq!(model.size(), None);
    assert_eq!(model.batch(), None);
    assert_eq!(model.classes(), 2);
    assert_eq!(model.input().shape[2], Dim::Symbolic("height".to_owned()));
}

#[test]
fn other_layouts() {
    let mut tiny = TinyDetector::new(3, Some((64, 64)));
    tiny.layout = OutputLayout::Dense { channels_first: false };
    assert_eq!(open(tiny.build()).unwrap().layout(), tiny.layout);
    tiny.layout = OutputLayout::EndToEnd;
    assert_eq!(open(tiny.build()).unwrap().layout(), tiny.layout);
    assert_eq!(open(tiny.build()).unwrap().classes(), 3);
}

#[test]
fn without_names_classes_are_numbered() {
    let mut tiny = TinyDetector::new(2, Some((96, 96)));
    tiny.metadata.clear();
    let model = open(tiny.build()).unwrap();
    assert_eq!(model.labels(), ["class0", "class1"]);
    assert_eq!(model.stride(), 32);
}

#[test]
fn other_tasks_are_named() {
    let text = refused(TinyDetector::new(1, None).with_metadata("task", "segment").build());
    assert!(text.contains("trained for task 'segment'"), "{text}");
    assert!(text.contains("models/tiny.onnx"), "{text}");
}

#[test]
fn a_classifier_is_refused_with_what_was_found() {
    assert_eq!(
        refused(not_yolo()),
        "model models/tiny.onnx is not a YOLO detector: its output has rank 2 instead of 3; found \
         inputs images float32[1,3,64,64]; outputs logits float32[1,10]; written by \
         framebus-testing 1; accepted: one float32 input [batch,3,height,width] and one output \
         [batch,4+classes,anchors], [batch,anchors,4+classes] or [batch,n,6] (Ultralytics `yolo \
         export format=onnx` of a detect model)"
    );
}

#[test]
fn names_that_contradict_the_shape_are_refused() {
    let tiny = TinyDetector::new(2, Some((96, 96))).with_metadata("names", "{0: 'a'}");
    let text = refused(tiny.build());
    assert!(text.contains("names 1 classes, which needs 5 output channels"), "{text}");
}

#[test]
fn damaged_metadata_is_quoted() {
    let tiny = TinyDetector::new(1, None).with_metadata("names", "{0: person}");
    let text = refused(tiny.build());
    assert!(text.contains("metadata `names` = {0: person}, expected"), "{text}");
    let text = refused(TinyDetector::new(1, None).with_metadata("stride", "0").build());
    assert!(text.contains("metadata `stride` = 0"), "{text}");
}

#[test]
fn files_that_are_no_models() {
    for (bytes, part) in [
        (&b"PK\x03\x04 whatever"[..], "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "XML or HTML"),
        (b"hello, this is text", "not an ONNX model"),
        (b"\x08\x08", "holds no graph"),
    ] {
        let text = refused(bytes.to_vec());
        assert!(text.contains(part), "{text}");
    }
    assert!(matches!(open(Vec::new()), Err(ModelError::Empty { .. })));
}

#[test]
fn a_graph_that_does_not_hang_together_is_refused() {
    let whole = tiny_detector(1, Some((64, 64)));
    // The node that writes `score_raw` now writes another name of the same length.
    let mut broken = whole.clone();
    let at = broken.windows(9).position(|w| w == b"score_raw").unwrap();
    broken[at..at + 9].copy_from_slice(b"score_two");
    let text = refused(broken);
    assert!(
        text.contains("node 'Clip_scores' (Clip) reads 'score_raw', which nothing before it"),
        "{text}"
    );
    // The second input of the first convolution gets an unknown field number, as one
    // flipped byte does: only its first input is left.
    let mut broken = whole.clone();
    let at = broken.windows(12).position(|w| w == b"score_weight").unwrap();
    broken[at - 2] = 0x69;
    let text = refused(broken);
    assert!(text.contains("node 'Conv_score_raw' (Conv) has fewer than 2 inputs"), "{text}");
    // `side_bias` has one value of four bytes; its shape [1] becomes [2].
    let mut broken = whole;
    let at = broken.windows(9).rposition(|w| w == b"side_bias").unwrap();
    let dims = broken[..at].windows(2).rposition(|w| w == [0x08, 0x01]).unwrap();
    broken[dims + 1] = 2;
    let text = refused(broken);
    assert!(text.contains("tensor 'side_bias' has more or fewer bytes"), "{text}");
}

#[test]
fn missing_files_folders_and_huge_files() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Model::open(folder.path().join("none.onnx")).unwrap_err();
    assert!(matches!(missing, ModelError::Read { .. }));
    assert!(missing.to_string().contains("none.onnx"), "{missing}");
    assert!(matches!(Model::open(folder.path()), Err(ModelError::NotAFile { .. })));
    let huge = folder.path().join("huge.onnx");
    // Sparse: takes no disk.
    std::fs::File::create(&huge).unwrap().set_len((2 << 30) + 1).unwrap();
    assert!(matches!(Model::open(&huge), Err(ModelError::TooLarge { .. })));
}

#[test]
fn truncation_at_every_byte_is_an_error_or_a_model_and_never_a_panic() {
    let whole = tiny_detector(2, Some((64, 64)));
    let mut refused = 0;
    for length in 0..whole.len() {
        refused += usize::from(open(whole[..length].to_vec()).is_err());
    }
    // Only a cut inside the trailing, optional entries can leave a whole model.
    assert!(refused * 10 > whole.len() * 8, "{refused} of {} cuts refused", whole.len());
    assert!(open(whole).is_ok());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        let _ = open(bytes);
    }

    #[test]
    fn mutated_models_never_panic(
        changes in proptest::collection::vec((0usize..4096, proptest::num::u8::ANY), 1..8)
    ) {
        let mut bytes = tiny_detector(2, None);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = open(bytes);
    }
}
