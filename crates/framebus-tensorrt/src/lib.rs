//! Own binding to TensorRT, opened at run time: nothing is linked and no header is
//! needed, so one program serves machines with TensorRT 10 (JetPack 6), TensorRT 11,
//! TensorRT-RTX 1 and none at all.
//!
//! ```no_run
//! use framebus_tensorrt::{BuildRequest, Library, Profile, ProfileInput};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // After CUDA was found to work: TensorRT does not survive its absence.
//! let library = Library::open(None)?;
//! let onnx = std::fs::read("model.onnx")?;
//! let batch = |n| vec![n, 3, 384, 640];
//! let input =
//!     ProfileInput { name: c"images".into(), min: batch(1), opt: batch(4), max: batch(8) };
//! let request = BuildRequest {
//!     onnx: &onnx,
//!     profiles: &[Profile { inputs: vec![input] }],
//!     ..BuildRequest::default()
//! };
//! let built = library.build(&request, &mut |progress| {
//!     println!("{:3.0} % {}", progress.fraction * 100.0, progress.phase);
//!     true
//! })?;
//! let engine = library.runtime()?.deserialize(built.plan())?;
//! let context = engine.context()?;
//! # Ok(())
//! # }
//! ```
//!
//! Three levels: `raw` (objects, virtual tables, slots of [`abi`]) and the callbacks
//! `logger` and `monitor`; `open` and `builder` (owned objects, results); and what is
//! public here, where ownership is types: a context keeps its engine, an engine its
//! runtime, a runtime its library, and the logger is never released.

pub mod abi;
mod build;
mod builder;
mod engine;
mod error;
mod library;
mod logger;
mod monitor;
mod open;
mod progress;
mod raw;
mod record;
mod search;

pub use abi::{Abi, Version};
pub use build::{BuildRequest, Built, Profile, ProfileInput};
pub use engine::{DataType, Engine, ExecutionContext, Io, Runtime, Selector, Tensor};
pub use error::{Error, ParseError};
pub use library::Library;
pub use progress::Progress;
