//! The seam between scheduling and inference.
//!
//! A [`Backend`] loads a model into an [`Engine`]; an engine hands out one or
//! more [`Context`]s, each of which is driven by one worker thread. A context
//! gets a batch of *borrowed* frames and answers boxes in source pixels:
//! preprocessing belongs to the backend, because only it knows where its input
//! memory is (host, pinned, GPU, a server's shared memory).

use crate::building::{Build, Built, Report};
use crate::triton::Server;
pub use framebus_cuda::MemoryId;
use framebus_vision::{Detection, FrameView};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// CLOCK_MONOTONIC in nanoseconds, handed in by the process so that stage times
/// of all processes share one clock and tests can script it.
pub type ClockNs = fn() -> u64;

/// Arithmetic precision of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// What the device does best (bf16 with AMX, f16 on GPUs, else f32).
    #[default]
    Auto,
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit float.
    F16,
}

/// Size of the network's input in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// Wanted input size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputShape {
    /// Shaped like each camera where the model allows it, else what the model was
    /// exported for.
    #[default]
    Auto,
    /// The same for every camera; multiples of the model's largest stride.
    Fixed(Shape),
}

/// Which input serves which frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapePolicy {
    /// One input for every frame.
    Fixed(Shape),
    /// The smallest input that holds the frame at the model's scale.
    CameraShaped {
        /// The longer side of every input, pixels.
        side: usize,
        /// Both sides are multiples of this, pixels.
        stride: usize,
    },
}

impl ShapePolicy {
    /// The input for frames of `width` x `height` pixels: the longer side of the
    /// frame fills `side`, the shorter one is rounded up to the stride.
    #[must_use]
    pub fn shape_for(self, width: usize, height: usize) -> Shape {
        match self {
            Self::Fixed(shape) => shape,
            Self::CameraShaped { side, stride } => {
                let (long, short) = (width.max(height).max(1), width.min(height).max(1));
                // Rounded as the letterbox rounds, so that the picture just fits.
                let scaled = (short as f64 * (side as f64 / long as f64)).round_ties_even();
                let short = (scaled as usize).max(1).next_multiple_of(stride).min(side);
                match width >= height {
                    true => Shape { height: short, width: side },
                    false => Shape { height: side, width: short },
                }
            }
        }
    }
}

/// What the engine is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One request at a time, as fast as possible: all cores on one frame.
    #[default]
    Latency,
    /// Several requests in flight: more frames a second, each a little later.
    Throughput,
}

/// How much of a detector the network itself computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// All that was exported.
    #[default]
    Whole,
    /// Raw maps: the head was cut off, the backend computes the boxes.
    Cut,
    /// All, and overlapping boxes are dropped too.
    Suppressed,
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Arithmetic precision.
    pub precision: Precision,
    /// Network input size.
    pub input: InputShape,
    /// Latency or throughput.
    pub mode: Mode,
    /// Execution contexts wanted; 0 lets the backend choose for `mode`.
    pub contexts: usize,
    /// CPU threads the engine may use; 0 lets it choose.
    pub threads: usize,
    /// Folder for prepared models; `None` prepares them anew in memory.
    pub cache: Option<PathBuf>,
    /// Run the model as it was exported: its head is not cut off.
    pub as_is: bool,
    /// The server that the `triton` backend asks.
    pub triton: Option<Server>,
    /// The GPU that the `tensorrt` backend uses, and how.
    pub tensorrt: framebus_config::TensorRt,
    /// Frames that may come at once: cameras that are switched on.
    pub cameras: usize,
    /// Whether an engine that is not there is built now.
    pub build: Build,
    /// Who is told of building.
    pub report: Option<Report>,
    /// Clock for stage times.
    pub clock: ClockNs,
}

impl LoadOptions {
    /// Everything chosen by the backend, for latency, nothing kept on disk.
    #[must_use]
    pub fn new(clock: ClockNs) -> Self {
        Self {
            precision: Precision::default(),
            input: InputShape::default(),
            mode: Mode::default(),
            contexts: 0,
            threads: 0,
            cache: None,
            as_is: false,
            triton: None,
            tensorrt: framebus_config::TensorRt::default(),
            cameras: 1,
            build: Build::default(),
            report: None,
            clock,
        }
    }
}

/// What was loaded, for logs, `status` and results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Backend name as in the configuration (`openvino`).
    pub backend: &'static str,
    /// Device in the backend's words (`CPU: Intel(R) Xeon(R)`).
    pub device: String,
    /// Backend library version.
    pub version: String,
    /// Model name: the file's stem.
    pub model: String,
    /// Precision in use; a server's is its own business, and `Auto`.
    pub precision: Precision,
    /// What of it runs.
    pub head: Head,
    /// Which input serves which frame.
    pub shapes: ShapePolicy,
    /// The input that `load` compiled and checked.
    pub base: Shape,
    /// What it was tuned for.
    pub mode: Mode,
    /// Execution contexts of each shape: as many batches may run at once.
    pub contexts: usize,
    /// Largest batch one `run` takes.
    pub max_batch: usize,
    /// Class names by class number.
    pub labels: Vec<String>,
    /// After [`EngineError::Gone`] it goes on by itself as soon as it can.
    pub returns: bool,
}

/// Which boxes to keep.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Lowest score kept, 0..=1.
    pub confidence: f32,
    /// Overlap above which the weaker of two boxes of one class goes, 0..=1.
    pub iou: f32,
    /// Boxes kept per frame, strongest first.
    pub max_detections: usize,
    /// Class numbers to keep; `None` keeps all.
    pub classes: Option<Vec<u32>>,
}

/// One frame of a batch.
#[derive(Debug, Clone, Copy)]
pub struct FrameRequest<'a> {
    /// The borrowed picture, usually in shared memory.
    pub view: FrameView<'a>,
    /// Which boxes to keep.
    pub thresholds: &'a Thresholds,
    /// Who owns the shared segment that the view's planes lie in, for backends that pin
    /// memory; `None`: unknown, the frame is copied.
    pub memory: Option<MemoryId>,
}

/// Boxes of one frame, strongest first, in source pixels.
#[derive(Debug, Clone, Default)]
pub struct FrameOutput {
    /// The boxes.
    pub detections: Vec<Detection>,
    /// Boxes that passed the thresholds but not `max_detections`.
    pub truncated: u32,
}

/// When the stages of a batch ended, nanoseconds of [`ClockNs`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// The last frame lies in the network's input.
    pub preprocessed_ns: u64,
    /// The network started.
    pub inference_start_ns: u64,
    /// The network ended.
    pub inference_end_ns: u64,
    /// Boxes are decoded and suppressed.
    pub decoded_ns: u64,
    /// What a server said of the batch; zeros where the engine is in this process.
    pub server: ServerTimes,
}

/// Where the time between [`StageTimes::inference_start_ns`] and
/// [`StageTimes::inference_end_ns`] went when a server on the other side of a connection
/// ran the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerTimes {
    /// The request's id in the server's own trace; 0: no server was asked.
    pub request: u64,
    /// Encoding the request took, us.
    pub serialise_us: u32,
    /// Decoding the answer took, from its last byte on, us.
    pub receive_us: u32,
    /// By the server's statistics a request of the last second waited so long for an
    /// instance of the model, us; this and the next three are averages, 0 when unknown.
    pub queue_us: u32,
    /// Its inputs were prepared, us.
    pub compute_input_us: u32,
    /// The network ran, us.
    pub compute_us: u32,
    /// Its outputs were prepared, us.
    pub compute_output_us: u32,
    /// Bytes of the encoded request.
    pub sent_bytes: u32,
    /// Bytes of the encoded answer.
    pub received_bytes: u32,
}

/// Answer to a batch. Kept by the caller from one `run` to the next, so that
/// nothing is allocated per frame.
#[derive(Debug, Clone, Default)]
pub struct BatchOutput {
    /// One entry per request, in order; grown by `run` when needed, never shrunk.
    pub frames: Vec<FrameOutput>,
    /// Stage times of the batch.
    pub times: StageTimes,
}

/// A loader of engines.
pub trait Backend: Send + Sync {
    /// Name as written in the configuration.
    fn name(&self) -> &'static str;

    /// Whether the libraries and devices that the backend needs are here.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says what is missing, where it was searched
    /// and what to do.
    fn probe(&self, options: &LoadOptions) -> Result<String, EngineError>;

    /// Loads `model` and runs it once on an empty picture.
    ///
    /// # Errors
    /// [`EngineError`] by cause.
    fn load(
        &self,
        model: &framebus_model::Model,
        options: &LoadOptions,
    ) -> Result<Box<dyn Engine>, EngineError>;

    /// Builds the engines for `shapes` (none: the one that `load` begins with) as far as
    /// they are not kept already, or all of them when `again`. Takes minutes. A backend
    /// that has nothing to build does nothing.
    ///
    /// # Errors
    /// [`EngineError`] by cause; [`EngineError::NotBuilt`] when [`LoadOptions::report`] said
    /// to stop.
    fn build(
        &self,
        model: &framebus_model::Model,
        options: &LoadOptions,
        shapes: &[Shape],
        again: bool,
    ) -> Result<Vec<Built>, EngineError> {
        let _ = (model, options, shapes, again);
        Ok(Vec::new())
    }
}

/// A loaded model.
pub trait Engine: Send {
    /// What was loaded.
    fn info(&self) -> &EngineInfo;

    /// The execution contexts for one input, [`EngineInfo::contexts`] of them. The
    /// base shape's are ready; for another one that [`ShapePolicy::shape_for`] answers
    /// a network is compiled and checked first, which takes up to seconds. Each shape
    /// is handed out once; later calls return none.
    ///
    /// # Errors
    /// [`EngineError`] by cause.
    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError>;
}

/// One execution context for one input shape, driven by one thread at a time.
pub trait Context: Send {
    /// Letterboxes, infers, decodes. `batch` has 1..=`max_batch` entries; all
    /// frames are free again when the call returns.
    ///
    /// # Errors
    /// [`EngineError::Run`] when the engine failed; the batch then has no answer.
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError>;

    /// Runs the network alone on whatever lies in its input: what a benchmark sets
    /// against [`Context::run`].
    ///
    /// # Errors
    /// [`EngineError::Run`] when the engine failed.
    fn infer_only(&mut self) -> Result<(), EngineError>;
}

/// What can go wrong between a model file and its boxes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A library, driver or device is not here.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        /// Backend name.
        backend: &'static str,
        /// What was searched, where, and what to do.
        reason: String,
    },
    /// The model cannot be run with these options.
    #[error("{backend} cannot run model {model}: {reason}")]
    Unsupported {
        /// Backend name.
        backend: &'static str,
        /// Model name.
        model: String,
        /// What was found and what would be accepted.
        reason: String,
    },
    /// The backend could run the model, and has to build an engine for this machine first.
    #[error("{backend} has no engine of model {model} for {shape} yet: {reason}")]
    NotBuilt {
        /// Backend name.
        backend: &'static str,
        /// Model name.
        model: String,
        /// The input.
        shape: Shape,
        /// What was looked for, and what to do.
        reason: String,
    },
    /// No backend of an ordered list could load the model.
    #[error("no backend can run model {model}: {reasons}")]
    NoBackend {
        /// Model name.
        model: String,
        /// The reason of each backend.
        reasons: String,
    },
    /// Loading or compiling failed.
    #[error("{backend} failed to load model {model}: {reason}")]
    Load {
        /// Backend name.
        backend: &'static str,
        /// Model name.
        model: String,
        /// The library's own message.
        reason: String,
    },
    /// One inference failed.
    #[error("{backend} failed in {stage}: {reason}")]
    Run {
        /// Backend name.
        backend: &'static str,
        /// Stage that failed.
        stage: &'static str,
        /// The library's own message.
        reason: String,
    },
    /// What runs the network is not there any more, or does not answer: another backend
    /// should take over at once.
    #[error("{backend} is gone: {reason}")]
    Gone {
        /// Backend name.
        backend: &'static str,
        /// Which server, and how it shows.
        reason: String,
    },
    /// One inference took longer than the bound.
    #[error("{backend} did not answer within {limit:?}")]
    Timeout {
        /// Backend name.
        backend: &'static str,
        /// The bound.
        limit: Duration,
    },
}
