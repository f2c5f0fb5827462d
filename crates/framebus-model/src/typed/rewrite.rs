//! Writing the model with its types: what keeps its type stays byte for byte.

use super::Element;
use super::plan::{Plan, Value};
use super::tensor::Converter;
use crate::onnx::{self, AttributeProto, GraphProto, NodeProto};
use crate::wire::{self, Field};
use bytes::Bytes;
use prost::Message;

/// `AttributeProto.AttributeType.INT`.
const INT: i32 = 2;

/// The file's bytes and how many constants were clamped.
pub(super) fn rewrite<'a>(
    source: &Bytes,
    graph: &'a GraphProto,
    plan: &Plan<'a>,
) -> Result<(Vec<u8>, usize), String> {
    let damaged = || "its protocol buffers are not laid out as ONNX's".to_owned();
    let parts = wire::fields(source).ok_or_else(damaged)?;
    let mut graphs = parts.iter().filter(|part| part.number == 7);
    let (Some(raw_graph), None) = (graphs.next(), graphs.next()) else {
        return Err(damaged());
    };
    let mut writer = Writer { graph, plan, converter: Converter::default(), pieces: Vec::new() };
    writer.graph(raw_graph).ok_or_else(damaged)?;
    let length: usize = writer.pieces.iter().map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(source.len() - raw_graph.raw.len() + length + 16);
    for part in &parts {
        if part.number == 7 {
            bytes.extend(wire::header(7, length));
            writer.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        } else {
            bytes.extend_from_slice(&part.raw);
        }
    }
    Ok((bytes, writer.converter.clamped))
}

/// Its methods answer `None` where the file is damaged.
struct Writer<'a, 'p> {
    graph: &'a GraphProto,
    plan: &'p Plan<'a>,
    converter: Converter,
    /// The graph's fields; slices of the file wherever nothing changed.
    pieces: Vec<Bytes>,
}

impl<'a> Writer<'a, '_> {
    fn graph(&mut self, raw: &Field) -> Option<()> {
        // What the nodes read in another type than the file has it comes before them.
        self.otherwise(self.plan.input)?;
        for tensor in &self.graph.initializer {
            self.otherwise(&tensor.name)?;
        }
        // How many fields of each number came before: they are the decoded lists' indices.
        let mut seen = [0usize; 16];
        for part in wire::fields(&raw.content)? {
            let mut index = 0;
            if let Some(count) = usize::try_from(part.number).ok().and_then(|n| seen.get_mut(n)) {
                index = *count;
                *count += 1;
            }
            match part.number {
                1 => self.node(&part, index)?,
                5 => {
                    let tensor = self.graph.initializer.get(index)?;
                    let piece = if self.is_half_constant(&tensor.name) {
                        wire::field(5, &self.converter.tensor(&part.content, tensor)?).into()
                    } else {
                        part.raw
                    };
                    self.pieces.push(piece);
                }
                11 => {
                    let name = self.graph.input.get(index)?.name.as_str();
                    let half = name == self.plan.input || self.is_half_constant(name);
                    let element = if half { Element::F16 } else { Element::F32 };
                    self.value(&part, element)?;
                }
                12 => self.value(&part, self.plan.outputs)?,
                // Types of tensors in between: no longer true.
                13 => {}
                _ => self.pieces.push(part.raw),
            }
        }
        Some(())
    }

    /// An input or output of the graph with this type where it was a float.
    fn value(&mut self, part: &Field, element: Element) -> Option<()> {
        let piece = if element == Element::F32 {
            part.raw.clone()
        } else {
            let half = onnx::FLOAT16 as u64;
            let value = wire::edit(&part.content, 2, |_, kind| {
                wire::edit(kind, 1, |_, tensor| wire::with_number(tensor, 1, half))
            });
            wire::field(part.number, &value?).into()
        };
        self.pieces.push(piece);
        Some(())
    }

    fn is_half_constant(&self, name: &str) -> bool {
        let value = self.plan.values.get(name);
        value.is_some_and(|v| v.constant.is_some() && v.made() == Some(Element::F16))
    }

    /// The node with the names and the type that it now has, and behind it its outputs
    /// in their other types.
    fn node(&mut self, part: &Field, index: usize) -> Option<()> {
        let node = self.graph.node.get(index)?;
        let element = *self.plan.nodes.get(index)?;
        let mut raw = part.content.clone();
        let mut changed = false;
        let inputs: Vec<_> =
            (0..node.input.len()).map(|slot| self.plan.input(node, slot, element)).collect();
        let outputs: Vec<_> = node.output.iter().map(|name| self.written(name)).collect();
        for (number, names, old) in [(1, &inputs, &node.input), (2, &outputs, &node.output)] {
            if names.iter().zip(old).any(|(new, old)| new != old) {
                let name = |at: usize, _: &Bytes| Some(names.get(at)?.as_bytes().to_vec());
                raw = wire::edit(&raw, number, name)?.into();
                changed = true;
            }
        }
        if let Some(attributes) = self.attributes(node, element, &raw)? {
            raw = attributes.into();
            changed = true;
        }
        let piece = if changed { wire::field(1, &raw).into() } else { part.raw.clone() };
        self.pieces.push(piece);
        node.output.iter().try_for_each(|name| self.otherwise(name))
    }

    /// The name that its producer gives a tensor.
    fn written(&self, name: &'a str) -> std::borrow::Cow<'a, str> {
        match self.plan.values.get(name).and_then(Value::made) {
            Some(made) => self.plan.name(name, made),
            None => name.into(),
        }
    }

    /// The node's message with attributes that name or hold the new type; `Some(None)`
    /// where none does.
    fn attributes(
        &mut self,
        node: &NodeProto,
        element: Element,
        raw: &Bytes,
    ) -> Option<Option<Vec<u8>>> {
        let zero;
        let tensor = match node.op_type.as_str() {
            "Cast" if element == Element::F16 && node.int("to") == Some(onnx::FLOAT.into()) => {
                let half = onnx::FLOAT16 as u64;
                let edited = wire::edit(raw, 5, |at, attribute| {
                    match node.attribute.get(at)?.name.as_str() {
                        "to" => wire::with_number(attribute, 3, half),
                        _ => Some(attribute.to_vec()),
                    }
                });
                return edited.map(Some);
            }
            "Constant" => {
                let name = node.output.first()?.as_str();
                let value = self.plan.values.get(name);
                match value.and_then(|value| value.constant.as_deref()) {
                    Some(tensor) if self.is_half_constant(name) => tensor,
                    _ => return Some(None),
                }
            }
            "ConstantOfShape" if element == Element::F16 => match node.attribute("value") {
                Some(value) => match value.t.as_ref()? {
                    tensor if tensor.data_type == onnx::FLOAT => tensor,
                    _ => return Some(None),
                },
                None => {
                    zero = onnx::TensorProto {
                        dims: vec![1],
                        float_data: vec![0.0],
                        ..onnx::TensorProto::default()
                    };
                    &zero
                }
            },
            _ => return Some(None),
        };
        // Both operators have no other attribute.
        let mut bytes = Vec::with_capacity(raw.len());
        for part in wire::fields(raw)?.iter().filter(|part| part.number != 5) {
            bytes.extend_from_slice(&part.raw);
        }
        bytes.extend(wire::field(5, &self.converter.attribute(tensor)?));
        Some(Some(bytes))
    }

    /// The tensor once more, in the type that it is not made in, where that is read.
    fn otherwise(&mut self, name: &'a str) -> Option<()> {
        let Some(value) = self.plan.values.get(name).filter(|value| value.read_otherwise()) else {
            return Some(());
        };
        let made = value.made()?;
        let output = self.plan.name(name, made.other()).into_owned();
        let mut node =
            NodeProto { output: vec![output.clone()], name: output, ..NodeProto::default() };
        let bytes = match value.constant.as_deref() {
            Some(tensor) => {
                "Constant".clone_into(&mut node.op_type);
                let mut bytes = node.encode_to_vec();
                // A constant that is read in both types keeps float32 where it lies.
                bytes.extend(wire::field(5, &self.converter.attribute(tensor)?));
                bytes
            }
            None => {
                "Cast".clone_into(&mut node.op_type);
                node.input.push(self.plan.name(name, made).into_owned());
                node.attribute.push(AttributeProto {
                    name: "to".to_owned(),
                    i: made.other().data_type().into(),
                    r#type: INT,
                    ..AttributeProto::default()
                });
                node.encode_to_vec()
            }
        };
        self.pieces.push(wire::field(1, &bytes).into());
        Some(())
    }
}
