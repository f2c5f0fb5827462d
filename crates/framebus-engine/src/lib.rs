//! The Engine trait and its backends.
//!
//! [`load_first`] turns a model file and an order of backends into an [`Engine`];
//! its [`Context`]s take borrowed frames and answer boxes in source pixels.
//! Libraries are opened at run time: a build without any of them installed works,
//! and says what is missing when a backend is asked for.

mod answer;
pub mod api;
mod building;
mod hand_out;
mod letterboxes;
pub mod openvino;
mod plan;
pub mod registry;
pub mod scripted;
mod settings;
mod sides;
pub mod tensorrt;
pub mod triton;

pub use api::{
    Backend, BatchOutput, ClockNs, Context, Engine, EngineError, EngineInfo, FrameOutput,
    FrameRequest, Head, InputShape, LoadOptions, MemoryId, Mode, Precision, ServerTimes, Shape,
    ShapePolicy, StageTimes, Thresholds,
};
pub use building::{Build, Built, Progress, Report};
pub use registry::{NAMES, Skipped, backend, backends, expand, is_remote, load_first};
pub use settings::backends_of;
