//! The `tensorrt` backend over the double of an NVIDIA GPU (`tests/gpu-double`): the same
//! boxes as the backend on the CPU, nothing left, and nothing read after it was given back.
//!
//! The double runs the real kernels, compiled for the CPU, and the network through
//! OpenVINO. What it cannot show is a real GPU's arithmetic and time.

use framebus_engine::{
    BatchOutput, Build, Context, Engine, EngineError, FrameRequest, InputShape, LoadOptions, Mode,
    Precision, Shape, Thresholds, backend,
};
use framebus_model::{Model, testing::TinyDetector};
use framebus_tests::{
    Expected, GpuDouble, Loaded, Picture, World, asset, expected, found, matches, openvino,
    reference,
};
use framebus_vision::{Colour, FrameView, Planes};
use std::path::Path;
use std::sync::Mutex;

const PICTURES: [&str; 2] = ["bus", "giraffe"];
const TINY: Shape = Shape { height: 96, width: 160 };

/// A world with the double in it, and the double in this process.
fn double() -> Option<(World, GpuDouble, Loaded)> {
    let mut world = World::new();
    let double = openvino().then(|| GpuDouble::install(&mut world, ""))??;
    let loaded = double.load();
    Some((world, double, loaded))
}

/// How to run on the double, which keeps its engines in the world's folder.
fn options(world: &World, double: &GpuDouble) -> LoadOptions {
    LoadOptions {
        precision: Precision::F32,
        tensorrt: framebus_config::TensorRt {
            library: Some(double.folder().to_owned()),
            graphs: true,
            ..framebus_config::TensorRt::default()
        },
        cameras: 4,
        cache: Some(world.path("cache")),
        ..LoadOptions::new(framebus_service::clock::monotonic_ns)
    }
}

fn load(name: &str, model: &Path, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
    backend(name)?.load(&Model::open(model).expect("a model"), options)
}

fn thresholds() -> Thresholds {
    Thresholds { confidence: 0.25, iou: 0.45, max_detections: 300, classes: None }
}

/// A detector of coloured cells whose head can be cut off.
fn tiny(world: &World) -> std::path::PathBuf {
    world.write("tiny.onnx", TinyDetector::with_head(2, Some((TINY.height, TINY.width))).build())
}

/// What the backend on the CPU finds in each picture.
fn on_the_cpu(model: &Path, options: &LoadOptions, pictures: &[Picture]) -> Vec<Vec<Expected>> {
    let mut engine = load("openvino", model, options).expect("loads");
    let (labels, base) = (engine.info().labels.clone(), engine.info().base);
    let mut context = engine.contexts(base).expect("contexts").pop().expect("one");
    let (thresholds, mut output) = (thresholds(), BatchOutput::default());
    let one = |picture: &Picture| {
        let request = FrameRequest { view: picture.view(), thresholds: &thresholds, memory: None };
        context.run(&[request], &mut output).expect("runs");
        expected(&found(&labels, &output, 0))
    };
    pictures.iter().map(one).collect()
}

#[test]
fn batches_of_1_to_8_answer_what_the_backend_on_the_cpu_does() {
    let Some(model) = asset("models/yolov8n.onnx") else { return };
    let pictures: Vec<Picture> = PICTURES.iter().filter_map(|name| Picture::open(name)).collect();
    if pictures.len() < PICTURES.len() {
        return;
    }
    let Some((world, double, loaded)) = double() else { return };
    let square = InputShape::Fixed(Shape { height: 640, width: 640 });
    let options =
        LoadOptions { cameras: 8, contexts: 1, input: square, ..options(&world, &double) };
    let want = on_the_cpu(&model, &options, &pictures);
    let thresholds = thresholds();
    // In f16 the weights have 11 bits; the double computes with them in f32.
    for (precision, score, overlap) in
        [(Precision::F32, 0.001, 0.999), (Precision::F16, 0.02, 0.97)]
    {
        let options = LoadOptions { precision, ..options.clone() };
        let mut engine = load("tensorrt", &model, &options).expect("loads");
        let info = engine.info().clone();
        assert_eq!(
            (info.backend, &*info.version, info.max_batch),
            ("tensorrt", "TensorRT 10.3.0", 8)
        );
        assert_eq!(info.precision, precision);
        let mut contexts = engine.contexts(info.base).expect("contexts");
        let mut output = BatchOutput::default();
        let step = if precision == Precision::F32 { 1 } else { 7 };
        for batch in (1..=8).step_by(step) {
            let requests: Vec<FrameRequest<'_>> = (0..batch)
                .map(|place| FrameRequest {
                    view: pictures[(batch + place) % pictures.len()].view(),
                    thresholds: &thresholds,
                    memory: None,
                })
                .collect();
            contexts[0].run(&requests, &mut output).expect("runs");
            for place in 0..batch {
                let which = (batch + place) % pictures.len();
                let have = found(&info.labels, &output, place);
                matches(&want[which], &have, 0.27, overlap, score, 0.27)
                    .unwrap_or_else(|e| panic!("{precision:?}, {place} of {batch}: {e}"));
                let (_, reference) = reference(PICTURES[which]);
                matches(&reference, &have, 0.3, 0.95, 0.03, 0.35).unwrap_or_else(|e| {
                    panic!("{precision:?}, {place} of {batch}, reference: {e}")
                });
            }
        }
        let error = contexts[0].run(&[], &mut output).expect_err("no frame").to_string();
        assert!(error.contains("0 frames were given"), "{error}");
    }
    assert_nothing_is_left(&loaded);
}

/// A model that does its own suppression cannot be cut: its one output comes back whole.
#[test]
fn a_whole_model_answers_too_and_inputs_are_shaped_like_cameras() {
    let Some((world, double, loaded)) = double() else { return };
    let options = LoadOptions { as_is: true, ..options(&world, &double) };
    let whole = world.tiny_model(2, None);
    let thresholds = thresholds();
    let mut engine = load("tensorrt", &whole, &options).expect("loads");
    let mut reference = load("openvino", &whole, &options).expect("loads");
    let info = engine.info().clone();
    assert_eq!((info.head, info.max_batch), (framebus_engine::Head::Whole, 4));
    for shape in [info.base, Shape { height: 640, width: 480 }] {
        let frame = Pattern::new(shape.width, shape.height, 1);
        let requests = [frame.request(&thresholds); 3];
        let (mut have, mut want) = (BatchOutput::default(), BatchOutput::default());
        engine.contexts(shape).expect("contexts")[0].run(&requests, &mut have).expect("runs");
        reference.contexts(shape).expect("contexts")[0]
            .run(&requests[..1], &mut want)
            .expect("runs");
        let want = expected(&found(&info.labels, &want, 0));
        assert!(!want.is_empty());
        for place in 0..3 {
            let have = found(&info.labels, &have, place);
            matches(&want, &have, 0.26, 0.99, 0.005, 0.26)
                .unwrap_or_else(|e| panic!("{shape}: {e}"));
        }
    }
    drop(engine);
    assert_nothing_is_left(&loaded);
}

/// NV12 frames with a coloured square whose place depends on `number`.
struct Pattern {
    width: usize,
    height: usize,
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

impl Pattern {
    fn new(width: usize, height: usize, number: usize) -> Self {
        let mut pattern = Self {
            width,
            height,
            luma: vec![0; width * height],
            chroma: vec![0; width.next_multiple_of(2) * height.div_ceil(2)],
        };
        pattern.draw(number);
        pattern
    }

    fn draw(&mut self, number: usize) {
        self.luma.fill(128);
        self.chroma.fill(128);
        let (columns, rows) = (self.width / 32, self.height / 32);
        let (left, top) = (32 * (number % columns), 32 * (number / columns % rows));
        let stride = self.width.next_multiple_of(2);
        for y in top..top + 32 {
            self.luma[y * self.width + left..][..32].fill(81);
        }
        for y in top / 2..top / 2 + 16 {
            for pair in self.chroma[y * stride + left..][..32].chunks_exact_mut(2) {
                // Red, limited range.
                pair.copy_from_slice(&[90, 240]);
            }
        }
    }

    /// What is read from now on is wrong, and shows.
    fn poison(&mut self) {
        self.luma.fill(16);
        self.chroma.fill(128);
    }

    fn request<'a>(&'a self, thresholds: &'a Thresholds) -> FrameRequest<'a> {
        let planes = Planes::Nv12 {
            y: &self.luma,
            y_stride: self.width,
            uv: &self.chroma,
            uv_stride: self.width.next_multiple_of(2),
        };
        let view = FrameView::new(self.width, self.height, planes, Colour::default());
        FrameRequest { view: view.expect("a picture"), thresholds, memory: None }
    }
}

/// 10,000 frames through four contexts (two lanes) at once. Each frame's memory is
/// overwritten as soon as it is given back, each answer is compared, and the double checks
/// every address that anything touches.
#[test]
fn ten_thousand_frames_leave_nothing_and_read_nothing_late() {
    const FRAMES: usize = 10_000;
    let Some((world, double, loaded)) = double() else { return };
    let model = tiny(&world);
    let options = LoadOptions { contexts: 4, mode: Mode::Throughput, ..options(&world, &double) };
    let mut engine = load("tensorrt", &model, &options).expect("loads");
    let contexts = engine.contexts(engine.info().base).expect("contexts");
    assert_eq!(contexts.len(), 4);
    let thresholds = thresholds();
    // What each pattern gives, one at a time.
    let kinds = (TINY.width / 32) * (TINY.height / 32);
    let answers: Vec<Vec<[f32; 4]>> = {
        let mut check = load("tensorrt", &model, &LoadOptions { contexts: 1, ..options.clone() })
            .expect("loads");
        let mut context = check.contexts(check.info().base).expect("contexts").remove(0);
        (0..kinds).map(|kind| answer(context.as_mut(), &thresholds, kind)).collect()
    };
    assert!(answers.iter().all(|boxes| !boxes.is_empty()), "{answers:?}");
    let before = loaded.report();
    let next = Mutex::new(0);
    std::thread::scope(|scope| {
        for (seed, mut context) in contexts.into_iter().enumerate() {
            let (next, answers, thresholds) = (&next, &answers, &thresholds);
            scope.spawn(move || {
                let mut frames: Vec<Pattern> =
                    (0..4).map(|i| Pattern::new(TINY.width, TINY.height, i)).collect();
                let mut output = BatchOutput::default();
                let mut turn = seed;
                loop {
                    let batch = 1 + turn % 4;
                    turn += 1;
                    let first = {
                        let mut next = next.lock().expect("no panic");
                        if *next >= FRAMES {
                            return;
                        }
                        *next += batch;
                        *next - batch
                    };
                    for (place, frame) in frames[..batch].iter_mut().enumerate() {
                        frame.draw((first + place) % kinds);
                    }
                    let requests: Vec<_> =
                        frames[..batch].iter().map(|frame| frame.request(thresholds)).collect();
                    context.run(&requests, &mut output).expect("runs");
                    drop(requests);
                    frames[..batch].iter_mut().for_each(Pattern::poison);
                    for place in 0..batch {
                        let kind = (first + place) % kinds;
                        let boxes: Vec<[f32; 4]> =
                            output.frames[place].detections.iter().map(|d| d.bbox).collect();
                        assert_eq!(boxes, answers[kind], "frame {}", first + place);
                    }
                }
            });
        }
    });
    let after = loaded.report();
    for count in ["allocations", "pinned", "registered", "streams", "events"] {
        // Contexts are gone; nothing else came.
        assert!(after[count].as_u64() <= before[count].as_u64(), "{count}: {before} {after}");
    }
    assert!(after["peak_streams"].as_u64() > Some(1), "nothing overlapped: {after}");
    assert!(after["graph_launches"].as_u64() > Some(2000), "{after}");
    drop(engine);
    assert_nothing_is_left(&loaded);
}

fn answer(context: &mut dyn Context, thresholds: &Thresholds, kind: usize) -> Vec<[f32; 4]> {
    let frame = Pattern::new(TINY.width, TINY.height, kind);
    let mut output = BatchOutput::default();
    context.run(&[frame.request(thresholds)], &mut output).expect("runs");
    output.frames[0].detections.iter().map(|found| found.bbox).collect()
}

fn assert_nothing_is_left(loaded: &Loaded) {
    let report = loaded.report();
    for count in ["allocations", "pinned", "registered", "streams", "events", "graphs", "objects"] {
        assert_eq!(report[count].as_u64(), Some(0), "{count} are left: {report}");
    }
    assert_eq!(report["violations"].as_array().map(Vec::len), Some(0), "{report}");
}

#[test]
fn what_goes_wrong_on_the_gpu_is_an_error_that_says_so() {
    let Some((world, double, loaded)) = double() else { return };
    let model = tiny(&world);
    let options = LoadOptions { contexts: 1, ..options(&world, &double) };
    let thresholds = thresholds();
    let frame = Pattern::new(TINY.width, TINY.height, 0);
    let mut output = BatchOutput::default();
    let mut engine = load("tensorrt", &model, &options).expect("loads");
    let base = engine.info().base;
    let mut context = engine.contexts(base).expect("contexts").remove(0);
    let mut run = |context: &mut dyn Context, frames: usize| {
        context.run(&vec![frame.request(&thresholds); frames], &mut output)
    };
    // One refusal of TensorRT's is one failed batch. Three is no graph yet.
    loaded.fault("enqueue");
    let error = run(context.as_mut(), 3).expect_err("refused");
    assert!(matches!(error, EngineError::Run { .. }), "{error}");
    loaded.fault("");
    run(context.as_mut(), 3).expect("goes on");
    loaded.fault("oom");
    let error = load("tensorrt", &model, &options).err().expect("no memory").to_string();
    assert!(error.contains("OutOfMemory"), "{error}");
    loaded.fault("");
    run(context.as_mut(), 1).expect("the others are not concerned");
    // After this the device is lost to the process: another backend shall take over.
    loaded.fault("launch");
    let error = run(context.as_mut(), 1).expect_err("failed");
    assert!(matches!(error, EngineError::Gone { backend: "tensorrt", .. }), "{error}");
    loaded.fault("");
    let error = run(context.as_mut(), 1).expect_err("still lost");
    assert!(matches!(error, EngineError::Gone { .. }), "{error}");
    loaded.fault("reset");
    drop((context, engine));
    assert_nothing_is_left(&loaded);
}

#[test]
fn engines_are_kept_refused_when_damaged_and_built_for_each_machine_and_model() {
    let Some((world, double, loaded)) = double() else { return };
    let model = tiny(&world);
    let options = LoadOptions { contexts: 1, ..options(&world, &double) };
    let later = LoadOptions { build: Build::Later, ..options.clone() };
    let builds = || loaded.count("builds");
    let text = load("tensorrt", &model, &later).err().expect("not built").to_string();
    assert!(text.starts_with("tensorrt has no engine of model tiny for 96x160 yet: "), "{text}");
    assert_eq!(builds(), 0);
    load("tensorrt", &model, &options).expect("loads");
    assert_eq!(builds(), 1);
    load("tensorrt", &model, &later).expect("warm");
    assert_eq!(builds(), 1);
    let folder = world.path("cache/tensorrt");
    let kept = || {
        let entries = std::fs::read_dir(&folder).expect("a folder").flatten();
        let mut files: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "engine"))
            .collect();
        files.sort();
        files
    };
    let [file] = &kept()[..] else { panic!("{:?}", kept()) };
    let whole = std::fs::read(file).expect("readable");
    for damage in [&whole[..whole.len() / 2], &whole[..0], b"something else"] {
        std::fs::write(file, damage).expect("writable");
        let text = load("tensorrt", &model, &later).err().expect("refused").to_string();
        assert!(text.contains("no engine of model"), "{text}");
        let before = builds();
        load("tensorrt", &model, &options).expect("built anew");
        assert_eq!(builds(), before + 1);
        assert_eq!(std::fs::read(file).expect("readable").len(), whole.len());
    }
    // Another batch, precision, model: other engines.
    let before = builds();
    load("tensorrt", &model, &LoadOptions { cameras: 7, ..options.clone() }).expect("loads");
    load("tensorrt", &model, &LoadOptions { precision: Precision::F16, ..options.clone() })
        .expect("loads");
    assert_eq!((builds(), kept().len()), (before + 2, 3));
    // Told of progress, and stopped.
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let report = {
        let seen = seen.clone();
        framebus_engine::Report::new(move |progress| {
            seen.lock().expect("no panic").push(progress.fraction);
            progress.fraction < 0.5
        })
    };
    loaded.fault("build-slow=200");
    let opened = Model::open(&model).expect("a model");
    let told = LoadOptions { report: Some(report), ..options };
    let stopped = backend("tensorrt").expect("known").build(&opened, &told, &[], true);
    assert!(matches!(stopped, Err(EngineError::NotBuilt { .. })), "{stopped:?}");
    let seen = seen.lock().expect("no panic").clone();
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    loaded.fault("build-fail");
    let none = LoadOptions { report: None, ..told.clone() };
    let text = backend("tensorrt").expect("known").build(&opened, &none, &[], true);
    assert!(text.is_err());
    loaded.fault("");
    assert_nothing_is_left(&loaded);
}
