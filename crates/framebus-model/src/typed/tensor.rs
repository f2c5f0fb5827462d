//! Float32 tensors written as float16.

use crate::onnx::{self, TensorProto};
use crate::wire;
use bytes::Bytes;
use half::f16;

/// `AttributeProto.AttributeType.TENSOR`.
const TENSOR: u64 = 4;

/// Converts and counts the values that had to be clamped.
#[derive(Debug, Default)]
pub(super) struct Converter {
    pub(super) clamped: usize,
}

impl Converter {
    /// The `TensorProto` in `raw` with its values as float16 in `raw_data`; name,
    /// shape and everything else stay. `None` where it is damaged.
    pub(super) fn tensor(&mut self, raw: &Bytes, tensor: &TensorProto) -> Option<Vec<u8>> {
        let values = self.values(tensor)?;
        let mut bytes = Vec::with_capacity(values.len() + 128);
        // Type, float_data and raw_data are written anew.
        for part in wire::fields(raw)?.iter().filter(|part| ![2, 4, 9].contains(&part.number)) {
            bytes.extend_from_slice(&part.raw);
        }
        bytes.extend(wire::number(2, onnx::FLOAT16 as u64));
        bytes.extend(wire::header(9, values.len()));
        bytes.extend_from_slice(&values);
        Some(bytes)
    }

    /// An attribute `value`: a float16 tensor of the same values. `None` where the
    /// tensor is damaged.
    pub(super) fn attribute(&mut self, tensor: &TensorProto) -> Option<Vec<u8>> {
        let values = self.values(tensor)?;
        let mut half = Vec::with_capacity(values.len() + 64);
        tensor.dims.iter().for_each(|&dim| half.extend(wire::number(1, dim as u64)));
        half.extend(wire::number(2, onnx::FLOAT16 as u64));
        half.extend(wire::field(9, &values));
        let mut bytes = wire::field(1, b"value");
        bytes.extend(wire::field(5, &half));
        bytes.extend(wire::number(20, TENSOR));
        Some(bytes)
    }

    /// The values of a float32 tensor, little endian.
    fn values(&mut self, tensor: &TensorProto) -> Option<Vec<u8>> {
        let count = tensor.count()?;
        let mut bytes = Vec::with_capacity(tensor.raw_data.len() / 2);
        if tensor.raw_data.is_empty() {
            tensor.float_data.iter().for_each(|&value| bytes.extend(self.value(value)));
        } else {
            let chunks = tensor.raw_data.as_chunks().0.iter();
            chunks.for_each(|&raw| bytes.extend(self.value(f32::from_le_bytes(raw))));
        }
        (bytes.len() == 2 * count).then_some(bytes)
    }

    /// Infinities, as masks have them, and NaN stay what they are.
    fn value(&mut self, value: f32) -> [u8; 2] {
        let mut half = f16::from_f32(value);
        if value.is_finite() && half.is_infinite() {
            self.clamped += 1;
            half = if value > 0.0 { f16::MAX } else { f16::MIN };
        }
        half.to_le_bytes()
    }
}
