//! What the engine's tests share: assets that a set-up fetches, options, pictures.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::print_stderr, reason = "SKIPPED must be seen")]

use framebus_engine::{
    Backend, BatchOutput, Context, Engine, EngineError, FrameRequest, LoadOptions, Precision,
    Thresholds,
};
use framebus_model::Model;
use framebus_vision::{Colour, Detection, FrameView, Planes};
use std::path::{Path, PathBuf};

/// A file below `.framebus`, or `None` after saying SKIPPED.
///
/// # Panics
/// When it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
pub(crate) fn asset(path: &str) -> Option<PathBuf> {
    let file = repository().join(".framebus").join(path);
    if file.is_file() {
        return Some(file);
    }
    skip(&format!("{} is missing; `make setup` fetches it", file.display()));
    None
}

/// The OpenVINO backend, or `None` after saying SKIPPED.
///
/// # Panics
/// When it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
pub(crate) fn openvino() -> Option<Box<dyn Backend>> {
    let backend = framebus_engine::backend("openvino").unwrap();
    match backend.probe(&LoadOptions::new(|| 0)) {
        Ok(_) => Some(backend),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn skip(reason: &str) {
    assert!(
        std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_none_or(|v| v != "1"),
        "FRAMEBUS_REQUIRE_ASSETS=1, but {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn options() -> LoadOptions {
    LoadOptions { precision: Precision::F32, ..LoadOptions::new(clock) }
}

/// Counts calls: enough to see that stages are stamped in order.
fn clock() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) fn thresholds(confidence: f32, iou: f32) -> Thresholds {
    Thresholds { confidence, iou, max_detections: 300, classes: None }
}

/// Loads bytes as a model file of this name.
pub(crate) fn load(
    backend: &dyn Backend,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Engine>, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.onnx");
    std::fs::write(&path, bytes).unwrap();
    backend.load(&Model::open(&path).unwrap(), options)
}

/// A picture file.
pub(crate) fn decode(path: &Path) -> Picture {
    let pixels = image::open(path).unwrap().into_rgb8();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    Picture { width, height, data: pixels.into_raw() }
}

/// An RGB picture.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<u8>,
}

impl Picture {
    pub(crate) fn black(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; 3 * width * height] }
    }

    pub(crate) fn fill(&mut self, [x1, y1, x2, y2]: [usize; 4], colour: [u8; 3]) -> &mut Self {
        for y in y1..y2 {
            for x in x1..x2 {
                let at = 3 * (y * self.width + x);
                self.data[at..at + 3].copy_from_slice(&colour);
            }
        }
        self
    }

    /// The largest centred part with sides of `w` to `h`.
    pub(crate) fn crop(&self, w: usize, h: usize) -> Self {
        let unit = (self.width / w).min(self.height / h);
        let (width, height) = (unit * w, unit * h);
        let (left, top) = ((self.width - width) / 2, (self.height - height) / 2);
        let rows = self.data.chunks_exact(3 * self.width).skip(top).take(height);
        let data = rows.flat_map(|row| &row[3 * left..3 * (left + width)]).copied().collect();
        Self { width, height, data }
    }

    /// Left and right exchanged.
    pub(crate) fn mirrored(&self) -> Self {
        let rows = self.data.chunks_exact(3 * self.width);
        let data = rows.flat_map(|row| row.chunks_exact(3).rev().flatten()).copied().collect();
        Self { data, ..*self }
    }

    pub(crate) fn view(&self) -> FrameView<'_> {
        let planes = Planes::Rgb24 { data: &self.data, stride: 3 * self.width };
        FrameView::new(self.width, self.height, planes, Colour::default()).unwrap()
    }
}

pub(crate) fn run(
    context: &mut dyn Context,
    picture: &Picture,
    thresholds: &Thresholds,
) -> Result<Vec<Detection>, EngineError> {
    let mut output = BatchOutput::default();
    context.run(&[FrameRequest { view: picture.view(), thresholds, memory: None }], &mut output)?;
    let times = output.times;
    assert!(times.preprocessed_ns > 0);
    assert!(times.preprocessed_ns <= times.inference_start_ns);
    assert!(times.inference_start_ns < times.inference_end_ns);
    assert!(times.inference_end_ns < times.decoded_ns);
    Ok(output.frames.swap_remove(0).detections)
}
