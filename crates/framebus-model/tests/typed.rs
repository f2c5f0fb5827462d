//! ONNX with types, and what a cache of compiled networks needs.

use framebus_model::testing::{DflHead, TinyDetector, check_types};
use framebus_model::{Element, Model, digest, private_folder, write_private};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FLOAT: i32 = 1;
const FLOAT16: i32 = 10;

fn open(bytes: Vec<u8>) -> Option<Model> {
    Model::from_bytes(Path::new("models/tiny.onnx"), bytes).ok()
}

#[test]
fn yolov8n_takes_half_the_room() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.framebus/models/yolov8n.onnx");
    if !path.is_file() {
        let required = std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_some_and(|v| v == "1");
        assert!(!required, "{} is missing; run `make setup`", path.display());
        eprintln!("SKIPPED: {} is missing; run `make setup`", path.display());
        return;
    }
    let whole = Model::open(&path).unwrap();
    let cut = whole.cut().unwrap();

    let single = whole.typed(Element::F32).unwrap();
    assert_eq!(single.bytes, std::fs::read(&path).unwrap());
    assert_eq!(&cut.typed(Element::F32).unwrap().bytes, cut.bytes().unwrap());

    let typed = cut.typed(Element::F16).unwrap();
    let (before, after) = (cut.bytes().unwrap().len(), typed.bytes.len());
    assert!((before / 2..before * 51 / 100).contains(&after), "{before} → {after}");
    assert_eq!((typed.clamped, typed.quantised), (0, false));
    let types = check_types(&typed.bytes).unwrap();
    // One float32 tensor: the scales that both resizes read.
    let singles: Vec<_> = types.iter().filter(|(_, kind)| **kind == FLOAT).collect();
    assert_eq!(singles.len(), 1, "{singles:?}");
    for (scale, output) in cut.outputs().iter().zip(&typed.outputs) {
        assert_eq!((&scale.name, output.element), (&output.name, Element::F16));
    }

    let typed = whole.typed(Element::F16).unwrap();
    let types = check_types(&typed.bytes).unwrap();
    assert_eq!((types["images"], types["output0"]), (FLOAT16, FLOAT));
    for (name, kind) in [
        ("/model.9/Concat_output_0", FLOAT16),
        ("/model.22/cv2.0/cv2.0.2/Conv_output_0", FLOAT16),
        ("framebus/f32//model.22/cv2.0/cv2.0.2/Conv_output_0", FLOAT),
        ("/model.22/Concat_output_0", FLOAT),
        ("/model.22/dfl/conv/Conv_output_0", FLOAT),
    ] {
        assert_eq!(types.get(name), Some(&kind), "{name}");
    }
    // The six maps that the head reads.
    assert_eq!(types.keys().filter(|name| name.starts_with("framebus/f32/")).count(), 6);
    assert!(types.keys().all(|name| !name.starts_with("framebus/f16/")));
}

#[test]
fn the_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, TinyDetector::with_head(3, None).build()).unwrap();
    let model = Model::open(&path).unwrap();
    check_types(&model.typed(Element::F16).unwrap().bytes).unwrap();
    std::fs::write(&path, "no model").unwrap();
    assert!(model.typed(Element::F16).is_err());
    std::fs::remove_file(&path).unwrap();
    let text = model.typed(Element::F32).unwrap_err().to_string();
    assert!(text.contains("cannot read model"), "{text}");
}

/// Where a file is taken at all, its typed form fits together if the file did.
fn survive(bytes: Vec<u8>) {
    let Some(model) = open(bytes) else { return };
    for model in [model.cut().ok(), Some(model)].into_iter().flatten() {
        let sound = model.bytes().is_some_and(|bytes| check_types(bytes).is_ok());
        if let Ok(typed) = model.typed(Element::F16)
            && sound
        {
            check_types(&typed.bytes).expect("the types should fit as before");
        }
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

#[test]
fn content_is_named_by_its_sha256() {
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest(b"abc"), abc);
}

#[test]
fn private_files_in_private_folders() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a/plans");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    private_folder(&folder).unwrap();
    private_folder(&folder).unwrap();
    assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));

    let file = folder.join("plan");
    write_private(&file, &[b"first"]).unwrap();
    write_private(&file, &[b"second", b" and ", b"third"]).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"second and third");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "temporary files are left");

    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o720)).unwrap();
    assert!(private_folder(&folder).unwrap_err().contains("others may write"));
    assert!(private_folder(&file).is_err());
    assert!(write_private(&folder.join("none/plan"), &[b""]).is_err());
}
