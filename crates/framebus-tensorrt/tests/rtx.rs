//! The building half against the real TensorRT-RTX, which builds without a GPU.
//!
//! `scripts/setup.sh --tensorrt-rtx` fetches it; without it these tests say SKIPPED.
#![allow(clippy::print_stderr, reason = "SKIPPED and the figures must be seen")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use framebus_model::testing::TinyDetector;
use framebus_model::{Dim, Element, Model};
use framebus_tensorrt::{
    Abi, BuildRequest, Built, Error, Library, Profile, ProfileInput, Progress,
};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Height and width of the plans.
const SIZE: (i64, i64) = (384, 640);

/// A path below `.framebus`, or `None` after saying SKIPPED.
fn asset(path: &str, option: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.framebus");
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    let reason = format!("{} is missing; run scripts/setup.sh{option}", file.display());
    assert!(std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_none_or(|v| v != "1"), "{reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

/// The folder of TensorRT-RTX, or `None` after saying SKIPPED.
fn folder() -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("SKIPPED: TensorRT-RTX comes as a wheel for Linux on x86-64 alone");
        return None;
    }
    asset("tensorrt-rtx", " --tensorrt-rtx")
}

fn library() -> Option<Library> {
    Some(Library::open(Some(&folder()?)).expect("TensorRT-RTX opens"))
}

/// Batches of 1, 4 and 8 pictures for the input of `model`.
fn profile(model: &Model) -> Profile {
    let input = model.input();
    assert_eq!(input.shape.len(), 4);
    let shape = |batch| vec![batch, 3, SIZE.0, SIZE.1];
    let name = CString::new(input.name.as_str()).unwrap();
    Profile { inputs: vec![ProfileInput { name, min: shape(1), opt: shape(4), max: shape(8) }] }
}

/// A model with a cut head, small enough to be built in a moment.
fn tiny() -> Model {
    let bytes = TinyDetector::with_head(3, Some((64, 64))).build();
    Model::from_bytes(Path::new("tiny.onnx"), bytes).unwrap().cut().unwrap()
}

fn build(
    library: &Library,
    model: &Model,
    element: Element,
    report: &mut Vec<Progress>,
) -> Result<Built, Error> {
    let onnx = &model.typed(element).expect("it can be written so").bytes;
    let profiles = [profile(model)];
    let request = BuildRequest {
        onnx,
        profiles: &profiles,
        workspace_bytes: Some(1 << 30),
        ..BuildRequest::default()
    };
    library.build(&request, &mut |progress| {
        report.push(progress.clone());
        true
    })
}

fn assert_monotonic(report: &[Progress]) {
    let mut last = 0.0;
    for progress in report {
        assert!(progress.fraction >= last, "falls: {report:?}");
        assert!(progress.step <= progress.steps && progress.steps > 0, "{progress:?}");
        last = progress.fraction;
    }
    assert!(report.len() > 3, "{report:?}");
    let (last, before) = report.split_last().unwrap();
    assert_eq!((last.phase.as_str(), last.fraction), ("Plan built", 1.0));
    assert!(before.iter().all(|progress| progress.fraction < 1.0), "{report:?}");
}

/// A model's plan, with its size and time on stderr.
fn builds(library: &Library, what: &str, model: &Model, element: Element) -> Built {
    assert!(matches!(model.input().shape[0], Dim::Symbolic(_)), "the batch is free");
    let mut report = Vec::new();
    let start = SystemTime::now();
    let built = build(library, model, element, &mut report).unwrap();
    let seconds = start.elapsed().unwrap().as_secs_f64();
    eprintln!(
        "{what}: plan of {} bytes in {seconds:.2} s, {} steps told, timing cache {:?}",
        built.plan().len(),
        report.len(),
        built.timing_cache().map(|cache| cache.len()),
    );
    assert_monotonic(&report);
    built
}

#[test]
fn the_library_says_what_it_is() {
    let Some(library) = library() else { return };
    assert_eq!(library.abi(), Abi::Rtx1);
    assert_eq!(library.version().major, 1);
    assert!(library.path().ends_with("libtensorrt_rtx.so.1"));
    assert!(library.check_capability((8, 6)).is_ok());
    let error = library.check_capability((8, 7)).unwrap_err().to_string();
    assert!(error.contains("compute capability 8.7 (supported: 7.5, 8.0"), "{error}");
}

#[test]
fn the_real_model_becomes_a_plan() {
    let Some(library) = library() else { return };
    let Some(file) = asset("models/yolov8n.onnx", "") else { return };
    let model = Model::open(&file).unwrap().cut().unwrap();
    let size = |what: &str, element| {
        let what = format!("yolov8n, cut, {what}, batch 1/4/8 at 384x640");
        builds(&library, &what, &model, element).plan().len()
    };
    let (whole, half) = (size("f32", Element::F32), size("f16", Element::F16));
    assert!(whole > 5_000_000 && half > 5_000_000 && half < whole, "{half} of {whole} bytes");
}

#[test]
fn gpus_can_be_chosen_and_wrong_ones_are_refused() {
    let Some(library) = library() else { return };
    let model = tiny();
    let onnx = model.bytes().unwrap();
    let profiles = [profile(&model)];
    let with = |capabilities| {
        let request =
            BuildRequest { onnx, profiles: &profiles, capabilities, ..BuildRequest::default() };
        library.build(&request, &mut |_| true)
    };
    let default = with(&[]).unwrap().plan().len();
    let turing = with(&[(7, 5), (8, 6), (8, 9)]).unwrap().plan().len();
    eprintln!("tiny: {default} bytes by default, {turing} for 7.5, 8.6 and 8.9");
    let error = with(&[(8, 6), (8, 7)]).unwrap_err();
    assert!(matches!(error, Error::Capability { capability: (8, 7), .. }), "{error}");
}

#[test]
fn a_build_is_cancelled_at_every_stage_and_another_one_works() {
    let Some(library) = library() else { return };
    let model = tiny();
    let onnx = model.bytes().unwrap();
    let profiles = [profile(&model)];
    let request = BuildRequest { onnx, profiles: &profiles, ..BuildRequest::default() };
    for stop_after in [1, 2, 3, 10, 50] {
        let mut told = 0;
        let error = library.build(&request, &mut |_| {
            told += 1;
            told < stop_after
        });
        assert!(matches!(error, Err(Error::Cancelled)), "{stop_after}: {error:?}");
        assert_eq!(told, stop_after, "nothing is told after the stop");
    }
    builds(&library, "tiny after cancelled builds", &model, Element::F32);
}

#[test]
fn a_panic_of_the_callers_comes_back_to_the_caller() {
    let Some(library) = library() else { return };
    let model = tiny();
    let onnx = model.bytes().unwrap();
    let profiles = [profile(&model)];
    let request = BuildRequest { onnx, profiles: &profiles, ..BuildRequest::default() };
    let mut told = 0;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = library.build(&request, &mut |_| {
            told += 1;
            assert!(told < 20, "the twentieth step");
            true
        });
    }));
    let payload = caught.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"the twentieth step"));
}

#[test]
fn a_timing_cache_goes_in_and_comes_out() {
    let Some(library) = library() else { return };
    let model = tiny();
    let onnx = model.bytes().unwrap();
    let profiles = [profile(&model)];
    let with = |timing_cache| {
        let request = BuildRequest {
            onnx,
            profiles: &profiles,
            timing_cache,
            optimization_level: Some(0),
            ..BuildRequest::default()
        };
        library.build(&request, &mut |_| true).unwrap().timing_cache()
    };
    let first = with(None).expect("this library makes one");
    assert!(with(Some(&first)).is_some());
    // What does not fit is left aside.
    assert!(with(Some(b"no cache at all, but quite some bytes of it")).is_some());
    assert!(with(Some(&[])).is_some());
}

/// Other bytes of the same length in place of every `from`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    let mut count = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
        count += 1;
    }
    assert!(count > 0, "{} is not in the model", String::from_utf8_lossy(from));
    bytes
}

fn parse_errors(library: &Library, onnx: &[u8]) -> (Vec<framebus_tensorrt::ParseError>, String) {
    let request = BuildRequest { onnx, ..BuildRequest::default() };
    let error = library.build(&request, &mut |_| true).unwrap_err();
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    eprintln!("{text}");
    let Error::Parse { errors } = error else { panic!("{text}") };
    (errors, text)
}

#[test]
fn a_broken_model_comes_back_with_the_parsers_own_words() {
    let Some(library) = library() else { return };
    let model = TinyDetector::new(3, Some((64, 64))).build();

    // An operator that nobody knows.
    let (errors, text) = parse_errors(&library, &replaced(&model, b"AveragePool", b"AveragePoof"));
    assert_eq!(errors[0].operator, "AveragePoof");
    assert!(text.contains("AveragePoof"), "{text}");

    // Not ONNX at all, nothing at all, cut off.
    for onnx in [b"this is no model".as_slice(), &[], &model[..model.len() / 2]] {
        let (errors, _) = parse_errors(&library, onnx);
        assert!(!errors[0].message.is_empty());
    }
}

#[test]
fn what_tensorrt_refuses_comes_back_in_its_words() {
    let Some(library) = library() else { return };
    let model = tiny();
    let onnx = model.bytes().unwrap();
    let refused = |profiles: &[Profile]| {
        let request = BuildRequest { onnx, profiles, ..BuildRequest::default() };
        let error = library.build(&request, &mut |_| true).unwrap_err();
        assert_eq!(error.to_string().lines().count(), 1);
        eprintln!("{error}");
        error
    };
    // Free sizes and no profile.
    let error = refused(&[]);
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains("no optimization profile"), "{error}");
    // A profile for an input that there is not.
    let mut wrong = profile(&model);
    wrong.inputs[0].name = c"pictures".into();
    assert!(matches!(refused(&[wrong]), Error::Refused { .. }));
    // Bounds the wrong way round never reach TensorRT.
    let mut wrong = profile(&model);
    wrong.inputs[0].max[0] = 2;
    assert!(matches!(refused(&[wrong]), Error::Argument { .. }));
    let request = BuildRequest { onnx, optimization_level: Some(6), ..BuildRequest::default() };
    let error = library.build(&request, &mut |_| true).unwrap_err();
    assert_eq!(error.to_string(), "optimisation level 6; TensorRT has 0 to 5");
}

#[test]
fn no_plan_is_an_error_with_and_without_a_gpu() {
    let Some(library) = library() else { return };
    // TensorRT-RTX makes a runtime without a driver; TensorRT does not.
    let runtime = match library.runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return;
        }
    };
    for plan in [&[7_u8; 4096][..], &[7; 3], &[]] {
        let error = runtime.deserialize(plan).err().expect("no plan");
        let text = error.to_string();
        eprintln!("{text}");
        assert!(text.starts_with("IRuntime::deserializeCudaEngine failed: "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    // A real plan needs a GPU; without one, that is the reason given.
    let model = tiny();
    let mut report = Vec::new();
    let built = build(&library, &model, Element::F32, &mut report).unwrap();
    match runtime.deserialize(built.plan()) {
        Ok(engine) => {
            let tensors = engine.tensors().unwrap();
            eprintln!("{tensors:?}");
            assert_eq!(tensors[0].name.as_c_str(), c"images");
            assert_eq!(engine.profiles(), 1);
        }
        Err(error) => eprintln!("{error}"),
    }
}

#[test]
fn what_is_no_tensorrt_is_refused_with_the_reason() {
    let Some(folder) = folder() else { return };
    // A real library, but the parser.
    let parser = folder.join("libtensorrt_onnxparser_rtx.so.1");
    let error = Library::open(Some(&parser)).unwrap_err();
    assert!(matches!(error, Error::Symbol { .. }), "{error}");
    assert!(error.to_string().contains("no function getInferLibVersion"), "{error}");
}

#[test]
fn a_missing_parser_is_an_error_of_building_alone() {
    let Some(folder) = folder() else { return };
    let alone = tempfile::tempdir().unwrap();
    let link = alone.path().join("libtensorrt_rtx.so.1");
    let real = folder.canonicalize().unwrap().join("libtensorrt_rtx.so.1");
    std::os::unix::fs::symlink(real, &link).unwrap();
    let library = Library::open(Some(&link)).unwrap();
    assert_eq!(library.path(), link);
    let model = tiny();
    let request = BuildRequest { onnx: model.bytes().unwrap(), ..BuildRequest::default() };
    let error = library.build(&request, &mut |_| true);
    // Unless another test of this process has the parser open, which the loader finds.
    match error {
        Err(Error::NoParser { name, .. }) => assert_eq!(name, "libtensorrt_onnxparser_rtx.so.1"),
        Err(Error::Refused { .. }) => {}
        other => panic!("{other:?}"),
    }
}
