//! Cutting heads off, and keeping what was cut.

use framebus_model::testing::{DflHead, TinyDetector, not_yolo, tiny_detector};
use framebus_model::{Dim, Model, OutputLayout, Prepared, prepare, save};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const PATH: &str = "models/tiny.onnx";
const NO_HEAD: &str = "its output is not joined from boxes and scores";

fn open(bytes: Vec<u8>) -> Model {
    Model::from_bytes(Path::new(PATH), bytes).expect("a model")
}

/// A static detector of 64x96 with the default head.
fn tiny() -> TinyDetector {
    TinyDetector::with_head(3, Some((64, 96)))
}

fn not_cut(bytes: Vec<u8>) -> String {
    open(bytes).cut().expect_err("should not be cut").to_string()
}

/// Replaces the first place where `from` lies.
fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|part| part == from).expect("is there");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn every_form_of_the_head_is_cut() {
    for (size, bins) in [(None, 16), (Some((64, 96)), 16), (Some((64, 64)), 8), (None, 1)] {
        for flags in 0..8 {
            let [joined, constant_nodes, reshaped] = [1, 2, 4].map(|bit| flags & bit != 0);
            let channels_first = joined == reshaped;
            let mut tiny = TinyDetector::with_head(3, size);
            tiny.head = Some(DflHead { bins, joined, constant_nodes, reshaped });
            tiny.layout = OutputLayout::Dense { channels_first };
            let model = open(tiny.build());
            assert_eq!(model.layout(), tiny.layout);
            assert_eq!((model.heads().len(), model.bins()), (0, 1));
            let cut = model.cut().unwrap_or_else(|error| panic!("{:?}: {error}", tiny.head));

            assert_eq!((cut.layout(), cut.bins()), (OutputLayout::Heads, bins));
            assert_eq!((cut.size(), cut.batch()), (None, None));
            assert_eq!(cut.input().name, "images");
            assert_eq!(cut.input().shape[1], Dim::Fixed(3));
            assert_eq!((cut.name(), cut.path()), ("tiny", Path::new(PATH)));
            assert_eq!(cut.labels(), ["red", "green", "blue"]);
            assert_eq!(cut.image_size(), size);
            let scales: Vec<_> =
                cut.heads().iter().map(|h| (&*h.boxes, &*h.classes, h.stride)).collect();
            assert_eq!(scales, [("box16", "class16", 16), ("box32", "class32", 32)]);
            let outputs: Vec<_> =
                cut.outputs().iter().map(|o| (&*o.name, o.shape[1].fixed())).collect();
            let boxes = Some(4 * bins);
            let expected =
                [("box16", boxes), ("class16", Some(3)), ("box32", boxes), ("class32", Some(3))];
            assert_eq!(outputs, expected);
            assert_eq!(cut.outputs()[2].shape[3], Dim::Symbolic("width/32".to_owned()));

            // What was written is a model of its own, and is not cut a second time.
            let again = Model::from_bytes(Path::new("x/other.onnx"), cut.bytes().unwrap().clone());
            let again = again.unwrap();
            assert_eq!(again.heads(), cut.heads());
            assert_eq!(again.name(), "other");
            assert_eq!(again.cut().unwrap().bytes(), cut.bytes());
        }
    }
}

#[test]
fn the_file_is_read_again_and_the_model_keeps_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, tiny().build()).unwrap();
    let model = Model::open(&path).unwrap();
    assert!(model.bytes().is_none());
    assert!(model.cut().unwrap().bytes().is_some());
    std::fs::remove_file(&path).unwrap();
    assert!(model.cut().unwrap_err().to_string().contains("cannot read model"));
}

#[test]
fn what_is_no_such_head_is_left_alone() {
    assert_eq!(not_cut(tiny_detector(2, None)), NO_HEAD);
    let mut end_to_end = TinyDetector::new(2, Some((64, 64))).with_metadata("end2end", "True");
    end_to_end.layout = OutputLayout::EndToEnd;
    assert!(not_cut(end_to_end.build()).contains("already free of overlapping boxes"));
    assert!(Model::from_bytes(Path::new(PATH), not_yolo()).is_err());

    // Distances weighed otherwise than 0, 1, 2, …
    let counts = floats(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    let text = not_cut(patched(tiny().build(), &counts, &floats(&[0.0, 1.0, 2.0, 3.5, 4.0])));
    assert_eq!(text, "the tensor 'expected.flat' is joined in another way");
    // Anchors in the corners of the cells.
    let centres = floats(&[0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 0.5]);
    let corners = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0]);
    let text = not_cut(patched(tiny().build(), &centres, &corners));
    assert_eq!(text, "its anchors are not the centres of its cells");
    let text = not_cut(patched(tiny().build(), &floats(&[16.0, 32.0]), &floats(&[16.0, 31.0])));
    assert_eq!(text, "its strides are not those of its scales");
    // Right and bottom where left and top belong: `Sub` becomes `Add` and is no longer
    // `anchor - distance`.
    let text = not_cut(patched(tiny().build(), b"\x22\x03Sub", b"\x22\x03Add"));
    assert!(text.contains("decoded in another way"), "{text}");
    // A size that is no multiple of the stride.
    let odd = TinyDetector::with_head(1, Some((64, 96))).with_metadata("stride", "64");
    assert!(not_cut(odd.build()).contains("no multiple of its stride 64"));
}

#[test]
fn an_operator_that_is_not_known_is_not_cut_after() {
    let pool = patched(tiny().build(), b"\x22\x0bAveragePool", b"\x22\x0bUnheardPool");
    assert!(not_cut(pool).contains("decoded in another way"));
}

#[test]
fn a_file_that_says_wrong_things_about_its_heads_is_refused() {
    let cut = open(tiny().build()).cut().unwrap();
    let bytes = cut.bytes().unwrap().to_vec();
    for (value, part) in [
        ("bins=16 strides=16:32", "not of the form"),
        ("bins=99 strides=16,32", "not of the form"),
        ("bins=16 strides=32,16", "not of the form"),
        ("bins=16 strides=16,3x", "not of the form"),
        ("bins=15 strides=16,32", "has not 60 channels"),
        ("bins=16 strides=16332", "not of the form"),
        ("bins=16 strides=00016", "names 1 scales, which need 2 outputs"),
    ] {
        let bytes = patched(bytes.clone(), b"bins=16 strides=16,32", value.as_bytes());
        let text = Model::from_bytes(Path::new(PATH), bytes).unwrap_err().to_string();
        assert!(text.contains(part), "{value}: {text}");
    }
}

fn taken(prepared: Prepared) -> (Model, Result<PathBuf, String>) {
    match prepared {
        Prepared::Cut { model, cached } => (model, cached),
        Prepared::AsIs { reason } => panic!("{reason}"),
    }
}

#[test]
fn cut_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("new/cache");
    let model = open(tiny().build());
    let (first, path) = taken(prepare(&model, Some(&cache)));
    let path = path.unwrap();
    assert_eq!(path.parent(), Some(&*cache));
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(first.path(), path);
    assert_eq!((first.name(), first.bytes()), ("tiny", None));
    let content = std::fs::read(&path).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();

    let (second, _) = taken(prepare(&model, Some(&cache)));
    assert_eq!((second.name(), second.heads()), ("tiny", first.heads()));
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    // The kept file can be given as a model itself.
    let (third, same) = taken(prepare(&Model::open(&path).unwrap(), Some(&cache)));
    assert_eq!((third.heads(), same), (first.heads(), Ok(path.clone())));

    // Cut short, changed in the middle, replaced by another model: made anew.
    let mut changed = content.clone();
    changed[content.len() / 2] ^= 1;
    let foreign = open(tiny_detector(1, None)).bytes().unwrap().to_vec();
    for damaged in [content[..content.len() / 2].to_vec(), changed, foreign, Vec::new()] {
        std::fs::write(&path, damaged).unwrap();
        let (model, cached) = taken(prepare(&model, Some(&cache)));
        assert_eq!((model.heads(), cached), (first.heads(), Ok(path.clone())));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1, "temporary files are left");
}

#[test]
fn a_saved_model_is_a_file_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let cut = open(tiny().build()).cut().unwrap();
    let (plain, saved, again) =
        (folder.path().join("plain"), folder.path().join("saved"), folder.path().join("again"));
    std::fs::write(&plain, "").unwrap();
    save(&cut, &saved).unwrap();
    assert_eq!(std::fs::read(&saved).unwrap(), *cut.bytes().unwrap());
    save(&Model::open(&saved).unwrap(), &again).unwrap();
    assert_eq!(std::fs::read(&again).unwrap(), *cut.bytes().unwrap());
    // Readable by others as far as the umask lets it be.
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&saved), mode(&plain));
}

#[test]
fn a_folder_that_cannot_be_used_costs_only_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = open(tiny().build());
    let refused = |cache: Option<&Path>, part: &str| {
        let (cut, cached) = taken(prepare(&model, cache));
        assert!(cut.bytes().is_some());
        let reason = cached.unwrap_err();
        assert!(reason.contains(part), "{reason}");
    };
    refused(None, "names a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(Some(&file), "file: ");
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    refused(Some(&shared), "others may write to the folder");
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 0);
    // What cannot be cut says why, with or without a folder.
    let plain = open(tiny_detector(1, None));
    let Prepared::AsIs { reason } = prepare(&plain, Some(folder.path())) else { panic!("cut") };
    assert_eq!(reason, NO_HEAD);
}

#[test]
fn yolov8n_is_cut_where_the_scales_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.framebus/models/yolov8n.onnx");
    if !path.is_file() {
        let required = std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_some_and(|v| v == "1");
        assert!(!required, "{} is missing; run `make setup`", path.display());
        eprintln!("SKIPPED: {} is missing; run `make setup`", path.display());
        return;
    }
    let cut = Model::open(&path).unwrap().cut().unwrap();
    let scales: Vec<_> = cut.heads().iter().map(|h| (&*h.boxes, &*h.classes, h.stride)).collect();
    let names: [(String, String, usize); 3] = std::array::from_fn(|n| {
        let name = |branch: &str| format!("/model.22/{branch}.{n}/{branch}.{n}.2/Conv_output_0");
        (name("cv2"), name("cv3"), 8 << n)
    });
    assert_eq!(scales, names.each_ref().map(|(a, b, stride)| (&**a, &**b, *stride)));
    assert_eq!((cut.bins(), cut.classes(), cut.stride()), (16, 80, 32));
    assert_eq!((cut.name(), cut.labels()[0].as_str()), ("yolov8n", "person"));
    // The tail's anchors and the shapes in between are gone, the weights are not.
    let (before, after) = (std::fs::metadata(&path).unwrap().len(), cut.bytes().unwrap().len());
    assert!((12_500_000..12_700_000).contains(&after), "{before} → {after}");
}

/// Opens and cuts; a result that says it is cut must say it again when read.
fn survive(bytes: Vec<u8>) {
    if let Ok(model) = Model::from_bytes(Path::new(PATH), bytes)
        && let Ok(cut) = model.cut()
    {
        assert_eq!(cut.layout(), OutputLayout::Heads);
    }
}

#[test]
fn truncation_at_every_byte_never_panics() {
    let whole = TinyDetector::with_head(2, Some((64, 64))).build();
    for length in 0..whole.len() {
        survive(whole[..length].to_vec());
    }
}

proptest::proptest! {
    #[test]
    fn flipped_bytes_never_panic(
        fixed in proptest::bool::ANY,
        changes in proptest::collection::vec((0usize..1 << 16, proptest::num::u8::ANY), 1..6)
    ) {
        let mut tiny = TinyDetector::with_head(2, fixed.then_some((64, 96)));
        tiny.head = Some(DflHead { bins: 4, reshaped: true, ..DflHead::default() });
        let mut bytes = tiny.build();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        survive(bytes);
    }
}
