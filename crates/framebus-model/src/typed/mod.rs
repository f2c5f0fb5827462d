//! ONNX whose tensors have the types that they are computed in.
//!
//! A strongly typed network (the only kind that TensorRT 11 and TensorRT for RTX know,
//! and one that TensorRT 10 has too) computes each layer in the types that the file
//! says, so precision is a property of the ONNX and not a switch of the builder.
//! [`Model::typed`] writes that ONNX: with [`Element::F16`] the weights take half the
//! room and the convolutions run in 16 bits.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use framebus_model::{Model, testing::TinyDetector};
//! # let file = tempfile::NamedTempFile::new()?;
//! # std::fs::write(file.path(), TinyDetector::with_head(2, Some((64, 96))).build())?;
//! # let path = file.path();
//! use framebus_model::Element;
//!
//! let typed = Model::open(path)?.cut()?.typed(Element::F16)?;
//! assert_eq!(typed.input.element, Element::F16);
//! assert!(typed.outputs.iter().all(|output| output.element == Element::F16));
//! # Ok(())
//! # }
//! ```
//!
//! # What becomes 16 bits
//! - The picture input, always: steps of at most 1/2048 within 0..=1 hold every code.
//! - A model whose head was cut off: all of it, outputs included. Who decodes them
//!   widens each number first.
//! - A whole model: everything that a convolution still comes after (the body), and that
//!   convolution. What remains decodes boxes in pixels, where 16 bits would be steps of
//!   half a pixel above 512: it stays float32, and so does the output. A convolution with
//!   one output channel is no part of the body for this, because the one that sums up a
//!   distance's bins is such.
//!
//! Weights and constants are converted where they lie (rounded to the nearest, ties to even;
//! finite values beyond ±65504 are set to that and counted in [`Typed::clamped`]). A `Cast`
//! stands where a tensor is read in the type that it is not made in.
//!
//! # What does not
//! - What is computed from sizes and constants alone (ranges, anchors, the sizes of a
//!   resize), as whole numbers above 2048 have no place in 16 bits.
//! - Operators that ONNX defines for float32 only, and single inputs of that kind, such as
//!   the scales of a `Resize`: `operators.rs`, after ONNX's own schemas (operator sets 5 to
//!   25).
//! - A model that is quantised already ([`Typed::quantised`]): its file says all types, so
//!   it is handed on as it is.
//!
//! Batch, height and width stay as free or as fixed as they are. Fields that are not
//! touched are copied as they lie in the file; only the notes on shapes and types of tensors
//! in between are dropped.
//!
//! # What is refused
//! Weights in another file, sparse weights, subgraphs (`If`, `Loop`, `Scan`), and operators
//! that are not ONNX's own: their types are not known. But for the first, such a model can
//! be run in float32.
//!
//! # What was tried
//! The trained YOLOv8n (operator set 22), cut and whole, and the tiny detectors of the tests
//! in all their forms, with attention, resizing and operators of one type: all pass ONNX's
//! full check with strict inference of shapes and types, and TensorRT for RTX 1.7.1 builds
//! each as a strongly typed network. YOLOv8n takes 6.3 MB instead of 12.7. On six
//! photographs, every tensor in between rounded to 16 bits, its cut form answers like that
//! of float32: scores within 0.008; boxes of the 409 cells with a score above 0.25 within
//! 0.8 pixels (nine in ten within 0.1), of all cells within 0.5 for 99 in 100; three of
//! those cells fall below the threshold, none changes its class. That is arithmetic on a
//! CPU with float32 sums: what a GPU makes of it was not seen.

mod operators;
mod plan;
mod rewrite;
mod tensor;
#[cfg(test)]
mod tests;

use crate::graph;
use crate::inspect;
use crate::layout::OutputLayout;
use crate::model::{Model, TensorInfo};
use crate::onnx::{self, ModelProto};
use bytes::Bytes;
use plan::Plan;
use prost::Message;

/// Type of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE 754 binary16, ONNX's `FLOAT16`.
    F16,
    /// IEEE 754 binary32, ONNX's `FLOAT`.
    F32,
}

impl Element {
    /// ONNX `TensorProto.DataType`.
    pub(crate) fn data_type(self) -> i32 {
        match self {
            Self::F16 => onnx::FLOAT16,
            Self::F32 => onnx::FLOAT,
        }
    }

    fn of(data_type: i32) -> Option<Self> {
        match data_type {
            onnx::FLOAT16 => Some(Self::F16),
            onnx::FLOAT => Some(Self::F32),
            _ => None,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::F16 => Self::F32,
            Self::F32 => Self::F16,
        }
    }
}

/// An input or output of a [`Typed`] model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedTensor {
    /// Name in the graph, the same as in the model.
    pub name: String,
    /// Type of its numbers.
    pub element: Element,
}

/// A model with types: see [`Model::typed`].
#[derive(Clone, PartialEq, Eq)]
pub struct Typed {
    /// The ONNX file's content.
    pub bytes: Bytes,
    /// The picture input.
    pub input: TypedTensor,
    /// The outputs in the order of [`Model::outputs`].
    pub outputs: Vec<TypedTensor>,
    /// The file holds quantised tensors; it was not changed.
    pub quantised: bool,
    /// Finite constants that no 16-bit number is near to; they became ±65504.
    pub clamped: usize,
}

/// Without the content, which may be large.
impl std::fmt::Debug for Typed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typed")
            .field("bytes", &self.bytes.len())
            .field("input", &self.input)
            .field("outputs", &self.outputs)
            .field("quantised", &self.quantised)
            .field("clamped", &self.clamped)
            .finish()
    }
}

/// Why a model cannot be written with such types: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotTyped {
    reason: String,
}

/// See [`Model::typed`].
pub(crate) fn typed(model: &Model, element: Element) -> Result<Typed, NotTyped> {
    let refuse = |reason| NotTyped { reason };
    let source = match model.bytes() {
        Some(bytes) => bytes.clone(),
        None => inspect::read(model.path()).map_err(|error| refuse(error.to_string()))?.into(),
    };
    let bytes = source.clone();
    let proto = ModelProto::decode(source.clone()).map_err(|error| refuse(error.to_string()))?;
    write(model, &proto, bytes, element).map_err(refuse)
}

fn write(
    model: &Model,
    proto: &ModelProto,
    source: Bytes,
    element: Element,
) -> Result<Typed, String> {
    let graph = proto.graph.as_ref().ok_or_else(|| "it holds no graph".to_owned())?;
    // The file may be another one than the model was read from.
    graph::check(graph)?;
    if graph.initializer.iter().any(|tensor| tensor.data_location != 0) {
        return Err("its weights lie in another file".to_owned());
    }
    let tensor = |tensor: &TensorInfo, element| TypedTensor { name: tensor.name.clone(), element };
    let named = |element: Element, outputs: Element| {
        let input = tensor(model.input(), element);
        let outputs = model.outputs().iter().map(|output| tensor(output, outputs)).collect();
        (input, outputs)
    };
    let quantised = graph.node.iter().any(|node| operators::is_quantised(&node.op_type));
    if quantised || element == Element::F32 {
        let (input, outputs) = named(Element::F32, Element::F32);
        return Ok(Typed { bytes: source, input, outputs, quantised, clamped: 0 });
    }
    let cut = model.layout() == OutputLayout::Heads;
    let plan = Plan::of(proto, graph, &model.input().name, cut)?;
    let (bytes, clamped) = rewrite::rewrite(&source, graph, &plan)?;
    // What was written is read like any other file.
    let bytes = Bytes::from(bytes);
    let read = ModelProto::decode(bytes.clone()).map_err(|error| error.to_string())?;
    read.graph.as_ref().map_or_else(|| Err("it lost its graph".to_owned()), graph::check)?;
    let (input, outputs) = named(Element::F16, plan.outputs);
    Ok(Typed { bytes, input, outputs, quantised, clamped })
}
