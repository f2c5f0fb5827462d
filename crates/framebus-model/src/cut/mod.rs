//! Cutting the head off a detector, so that it takes any batch and any size.
//!
//! An Ultralytics export bakes anchors, strides and the shapes of its last reshapes into
//! constants: no engine can run it with another batch or another size, and a 16:9
//! camera pays for a square. Everything up to the last convolutions of the head is
//! free of sizes. [`Model::cut`] finds those
//! convolutions by structure, makes them the outputs, drops what only came after, and
//! leaves batch, height and width open. What came after (softmax over the bins, sigmoid,
//! boxes) is done by whoever runs the model, for the few cells that matter.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use framebus_model::{Model, testing::TinyDetector};
//! # let file = tempfile::NamedTempFile::new()?;
//! # std::fs::write(file.path(), TinyDetector::with_head(2, Some((64, 96))).build())?;
//! # let path = file.path();
//! let cut = Model::open(path)?.cut()?;
//! assert_eq!(cut.size(), None);
//! assert_eq!(cut.heads()[1].stride, 32);
//! # Ok(())
//! # }
//! ```
//!
//! # What is needed
//! - One output `[batch,4+classes,anchors]` (or its transpose), joined from boxes and
//!   sigmoid scores: `head.rs` checks DFL, the decode to centre and size, and, where they
//!   are constants, every anchor and stride.
//! - One to five scales, whose strides follow from the graph.
//! - Between the picture and the outputs only operators whose effect on shapes is known
//!   (`shapes.rs`). Reshapes with baked sizes, as in attention, are made free where the
//!   reading is unique (`reshape.rs`); anything else that ties the graph to its size is
//!   named in [`NotCut`], and the model runs as it is.
//! - Weights inside the file.
//!
//! An output that is free of overlaps already (`nms=True`, end-to-end heads) is not cut:
//! a later suppression would change its answers.
//!
//! # What was tried
//! Files written by Ultralytics' exporter, static and dynamic, with random weights:
//! 8.4.190 (operator sets 12 and 18, simplified and not) for YOLOv5nu, v8n, v9t, v10n (its
//! one-to-many head), 11n, 12n and 26n (without DFL: one bin); 8.0.100 and 8.1.47 for v5nu
//! and v8n; 8.3.50 for v5nu, v8n and 11n (its v10n is end-to-end and runs as it is). And the
//! trained YOLOv8n, operator set 22. Cut and decoded in f32 they answer as before within
//! 0.0002 pixels and 2e-7, with a batch of two and at 384x640 as well (against the
//! dynamic export). Larger sizes of each have more of the same layers.

mod extent;
mod head;
mod operators;
mod reshape;
mod rewrite;
mod shapes;
#[cfg(test)]
mod tests;

use crate::inspect;
use crate::layout::OutputLayout;
use crate::model::{Dim, Model};
use crate::onnx::ModelProto;
use bytes::Bytes;
use prost::Message;
use reshape::Export;
use rewrite::{Kept, Old};
use shapes::Shapes;

/// Why a model can only be run as it is: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotCut {
    reason: String,
}

impl NotCut {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// See [`Model::cut`].
pub(crate) fn cut(model: &Model) -> Result<Model, NotCut> {
    if model.layout() == OutputLayout::Heads {
        return Ok(model.clone());
    }
    let bytes = match model.bytes() {
        Some(bytes) => bytes.clone(),
        None => inspect::read(model.path()).map_err(|error| NotCut::new(error.to_string()))?.into(),
    };
    cut_bytes(model, &bytes)
}

/// As [`cut`] for the file's content at hand.
pub(crate) fn cut_bytes(model: &Model, source: &Bytes) -> Result<Model, NotCut> {
    let bytes = rewritten(model, source).map_err(NotCut::new)?;
    // What was written is read like any other file: it must say what it is.
    let cut = Model::from_bytes(model.path(), bytes)
        .map_err(|error| NotCut::new(format!("its cut form cannot be read back: {error}")))?;
    Ok(Model { name: model.name.clone(), labels: model.labels.clone(), ..cut })
}

fn rewritten(model: &Model, source: &Bytes) -> Result<Vec<u8>, String> {
    match model.layout() {
        OutputLayout::Dense { .. } => {}
        OutputLayout::EndToEnd => {
            return Err("its output is already free of overlapping boxes, and what does that \
                        cannot be cut off"
                .to_owned());
        }
        OutputLayout::Heads => return Err("its head is cut off already".to_owned()),
    }
    let proto = ModelProto::decode(source.clone()).map_err(|error| error.to_string())?;
    let graph = proto.graph.as_ref().ok_or_else(|| "it holds no graph".to_owned())?;
    if graph.initializer.iter().any(|tensor| tensor.data_location != 0) {
        return Err("its weights lie in another file".to_owned());
    }
    let input = model.input();
    let export = Export {
        sizes: sizes(&input.shape),
        multiple: i64::try_from(model.stride()).map_err(|error| error.to_string())?,
    };
    if export.sizes.is_some_and(|[_, height, width]| {
        height % export.multiple != 0 || width % export.multiple != 0
    }) {
        return Err(format!("its input is no multiple of its stride {}", export.multiple));
    }
    let standard = proto.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
    let opset = standard.map_or(0, |set| set.version);
    let shapes = Shapes::follow(graph, &input.name, export);
    let head = head::find(graph, &shapes, model.classes(), opset, export.sizes)?;
    let kept = Kept::of(graph, &shapes, &head, export.multiple)?;
    let old = Old { graph, shapes: &shapes, input: &input.name, classes: model.classes() };
    rewrite::rewrite(source, &old, &head, &kept)
}

/// Batch, height and width where all are fixed.
fn sizes(shape: &[Dim]) -> Option<[i64; 3]> {
    let fixed = |at: usize| i64::try_from(shape.get(at)?.fixed()?).ok();
    Some([fixed(0)?, fixed(2)?, fixed(3)?])
}
