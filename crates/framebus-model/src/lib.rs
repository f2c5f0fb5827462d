//! Reads ONNX: task, class names, input and output shapes.
//!
//! A [`Model`] answers everything that a backend and a scheduler must know before
//! an engine is built, without any inference library:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file = tempfile::NamedTempFile::new()?;
//! # std::fs::write(file.path(), framebus_model::testing::tiny_detector(2, Some((64, 96))))?;
//! # let path = file.path();
//! let model = framebus_model::Model::open(path)?;
//! assert_eq!(model.labels(), ["red", "green"]);
//! assert_eq!(model.size(), Some((64, 96)));
//! # Ok(())
//! # }
//! ```

mod error;
mod graph;
mod layout;
mod metadata;
mod model;
mod onnx;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::ModelError;
pub use layout::OutputLayout;
pub use model::{Dim, Model, TensorInfo};
