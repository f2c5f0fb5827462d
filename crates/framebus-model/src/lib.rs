//! Reads ONNX: task, class names, input and output shapes; cuts the head off ([`cut`]).
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

mod cache;
pub mod cut;
mod error;
mod graph;
mod heads;
mod inspect;
mod layout;
mod metadata;
mod model;
mod onnx;
#[cfg(feature = "testing")]
pub mod testing;
pub mod typed;
mod wire;

pub use cache::{Prepared, cache_folder, digest, prepare, private_folder, save, write_private};
pub use cut::NotCut;
pub use error::ModelError;
pub use heads::HeadScale;
pub use layout::OutputLayout;
pub use model::{Dim, Model, TensorInfo};
pub use typed::{Element, NotTyped, Typed, TypedTensor};
