//! The part of ONNX's protocol buffers that framebus reads and, in tests, writes.
//!
//! Field numbers are those published in `onnx.proto` (package `onnx`, IR version 3
//! and later). Fields that are not listed are skipped by the decoder. Tensor data
//! is `Bytes`, so decoding a model shares the file's buffer instead of copying
//! its weights.

use bytes::Bytes;
use prost::{Message, Oneof};

/// `TensorProto.DataType.FLOAT`.
pub(crate) const FLOAT: i32 = 1;
/// `TensorProto.DataType.FLOAT16`.
pub(crate) const FLOAT16: i32 = 10;
/// `TensorProto.DataType.INT32`.
pub(crate) const INT32: i32 = 6;
/// `TensorProto.DataType.INT64`.
pub(crate) const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseTensorProto {
    /// Its name is the tensor's.
    #[prost(message, optional, tag = "1")]
    pub(crate) values: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
    /// Empty or `ai.onnx` for ONNX's own operators.
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, tag = "2")]
    pub(crate) f: f32,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) s: Bytes,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<TensorProto>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    /// 1 = FLOAT, 2 = INT, 4 = TENSOR, 6 = FLOATS, 7 = INTS.
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) raw_data: Bytes,
    /// 1: the values lie in another file.
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

impl NodeProto {
    pub(crate) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|attribute| attribute.i)
    }

    /// A list of integers as attribute; `None` where it is absent or empty.
    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice()).filter(|ints| !ints.is_empty())
    }

    /// The name of the input with this number, where it is given.
    pub(crate) fn input(&self, number: usize) -> Option<&str> {
        self.input.get(number).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// `node 'name' (Operator)`, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("node '{}' ({})", self.name.escape_debug(), self.op_type.escape_debug())
    }
}

impl TensorProto {
    /// Number of values by the shape; `None` when it is no shape.
    pub(crate) fn count(&self) -> Option<usize> {
        let dims = self.dims.iter().map(|&dim| usize::try_from(dim).ok());
        dims.into_iter().try_fold(1usize, |count, dim| count.checked_mul(dim?))
    }

    /// The values of an integer tensor of at most `limit`.
    pub(crate) fn integers(&self, limit: usize) -> Option<Vec<i64>> {
        let count = self.count().filter(|&count| count <= limit)?;
        let values: Vec<i64> = match self.data_type {
            INT64 if !self.raw_data.is_empty() => {
                let chunks = self.raw_data.as_chunks().0.iter();
                chunks.map(|&bytes| i64::from_le_bytes(bytes)).collect()
            }
            INT64 => self.int64_data.clone(),
            INT32 if !self.raw_data.is_empty() => {
                let chunks = self.raw_data.as_chunks().0.iter();
                chunks.map(|&bytes| i64::from(i32::from_le_bytes(bytes))).collect()
            }
            INT32 => self.int32_data.iter().map(|&value| i64::from(value)).collect(),
            _ => return None,
        };
        (values.len() == count).then_some(values)
    }

    /// The values of a float32 tensor of at most `limit`.
    pub(crate) fn floats(&self, limit: usize) -> Option<Vec<f32>> {
        let count = self.count().filter(|&count| count <= limit)?;
        let values: Vec<f32> = match self.data_type {
            FLOAT if !self.raw_data.is_empty() => {
                let chunks = self.raw_data.as_chunks().0.iter();
                chunks.map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            FLOAT => self.float_data.clone(),
            _ => return None,
        };
        (values.len() == count).then_some(values)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub(crate) value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum DimensionValue {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Param(String),
}
