//! A TEST's double of TensorRT: what it has to know of an ONNX file, read from its
//! protobuf fields by hand: the tensors that go in and out, and the operators.

use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) input: bool,
    /// TensorRT's number: 0 FP32, 1 FP16, 2 INT8, 3 INT32, 4 BOOL, 5 UINT8, 7 BF16, 8 INT64.
    pub(super) data_type: i32,
    /// -1: free.
    pub(super) shape: Vec<i64>,
}

impl Tensor {
    /// Bytes of one value.
    pub(super) fn size(&self) -> usize {
        match self.data_type {
            2 | 4 | 5 => 1,
            1 | 7 => 2,
            8 => 8,
            _ => 4,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    /// Inputs first.
    pub(super) tensors: Vec<Tensor>,
    /// Name and operator.
    pub(super) nodes: Vec<(String, String)>,
}

/// Value of a protobuf field.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, len: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// `Some(None)` at the end, `None` for what is no protobuf.
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Bytes(self.bytes(8)?),
            2 => {
                let len = self.number()?;
                Value::Bytes(self.bytes(len)?)
            }
            5 => Value::Bytes(self.bytes(4)?),
            _ => return None,
        };
        if key >> 3 == 0 { None } else { Some(Some((key >> 3, value))) }
    }
}

/// Calls `each` for every field.
fn fields<'a>(message: &'a [u8], mut each: impl FnMut(u64, &Value<'a>)) -> Option<()> {
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        each(number, &value);
    }
    Some(())
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// First message in field `number`.
fn sub(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let mut found = None;
    fields(message, |number, value| {
        if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
            found.get_or_insert(*bytes);
        }
    })?;
    found
}

/// `ValueInfoProto`.
fn tensor(message: &[u8], input: bool) -> Option<Tensor> {
    let name = string(sub(message, 1)?);
    let kind = sub(sub(message, 2)?, 1)?;
    let (mut element, mut shape) = (0, Vec::new());
    fields(kind, |number, value| {
        if let (1, Value::Number(value)) = (number, value) {
            element = *value;
        }
    })?;
    fields(sub(kind, 2).unwrap_or_default(), |number, value| {
        if let (1, Value::Bytes(dimension)) = (number, value) {
            let mut size = -1;
            let _ = fields(dimension, |number, value| {
                if let (1, Value::Number(value)) = (number, value) {
                    size = i64::try_from(*value).ok().filter(|value| *value > 0).unwrap_or(-1);
                }
            });
            shape.push(size);
        }
    })?;
    let data_type = match element {
        1 => 0,
        10 => 1,
        3 => 2,
        6 => 3,
        9 => 4,
        2 => 5,
        16 => 7,
        7 => 8,
        _ => return None,
    };
    Some(Tensor { name, input, data_type, shape })
}

/// `None` for bytes that are no ONNX model with a graph.
pub(super) fn read(model: &[u8]) -> Option<Graph> {
    let graph = sub(model, 7)?;
    let (mut ins, mut outs, mut weights) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut nodes = Vec::new();
    fields(graph, |number, value| {
        let Value::Bytes(bytes) = value else {
            return;
        };
        match number {
            1 => {
                let text = |field| sub(bytes, field).map(string).unwrap_or_default();
                nodes.push((text(3), text(4)));
            }
            5 => {
                weights.insert(sub(bytes, 8).map(string).unwrap_or_default());
            }
            11 => ins.push(*bytes),
            12 => outs.push(*bytes),
            _ => {}
        }
    })?;
    let mut tensors = Vec::new();
    for (messages, input) in [(ins, true), (outs, false)] {
        for message in messages {
            let tensor = tensor(message, input)?;
            if !weights.contains(&tensor.name) {
                tensors.push(tensor);
            }
        }
    }
    let complete = !nodes.is_empty()
        && tensors.iter().any(|tensor| tensor.input)
        && tensors.iter().any(|tensor| !tensor.input);
    complete.then_some(Graph { tensors, nodes })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 128);
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn value(name: &str, element: u8, dimensions: &[Option<u8>]) -> Vec<u8> {
        let dimension = |size: &Option<u8>| match size {
            Some(size) => field(1, &[1 << 3, *size]),
            None => field(1, &field(2, b"batch")),
        };
        let shape: Vec<u8> = dimensions.iter().flat_map(dimension).collect();
        let kind = [vec![1 << 3, element], field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &kind))].concat()
    }

    /// One node from `x` to `y`, both `[batch, 4]` in FP32.
    pub(crate) fn model(operator: &str) -> Vec<u8> {
        let node = [field(1, b"x"), field(2, b"y"), field(3, b"n"), field(4, operator.as_bytes())];
        let (x, y) = (value("x", 1, &[None, Some(4)]), value("y", 1, &[None, Some(4)]));
        let graph =
            [field(1, &node.concat()), field(2, b"g"), field(11, &x), field(12, &y)].concat();
        let graph = [&[7 << 3 | 2, u8::try_from(graph.len()).unwrap()], &graph[..]].concat();
        [vec![1 << 3, 8], graph, field(8, &[2 << 3, 13])].concat()
    }

    #[test]
    fn tensors_and_operators() {
        let graph = read(&model("Relu")).unwrap();
        assert_eq!(graph.nodes, [("n".to_owned(), "Relu".to_owned())]);
        let input = &graph.tensors[0];
        assert_eq!((input.name.as_str(), input.input, input.data_type), ("x", true, 0));
        assert_eq!((&input.shape[..], input.size()), (&[-1, 4][..], 4));
        assert!(read(b"no model").is_none() && read(&[]).is_none());
        assert!(read(&model("Relu")[..30]).is_none());
    }
}
