//! Writing the cut model: what stays, stays byte for byte.

use super::extent::Extent;
use super::head::Head;
use super::shapes::{Freedom, Shapes};
use crate::heads;
use crate::onnx::{
    AttributeProto, DimensionProto, DimensionValue, FLOAT, GraphProto, INT64, NodeProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use crate::wire::{self, Field};
use bytes::Bytes;
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Tensors that are added have names that begin so.
const PREFIX: &str = "framebus/";
/// `AttributeProto.AttributeType.INT`.
const INT: i32 = 2;

/// What is left of a graph.
pub(super) struct Kept<'a> {
    /// By node number.
    nodes: Vec<bool>,
    tensors: HashSet<&'a str>,
}

impl<'a> Kept<'a> {
    /// Everything that the head's tensors are computed from; the sentence that says
    /// which node would not follow the picture's size otherwise.
    pub(super) fn of(
        graph: &'a GraphProto,
        shapes: &Shapes<'_>,
        head: &'a Head,
        multiple: i64,
    ) -> Result<Self, String> {
        let mut producers: HashMap<&str, usize> = HashMap::new();
        for (number, node) in graph.node.iter().enumerate() {
            producers.extend(node.output.iter().map(|output| (output.as_str(), number)));
        }
        let mut kept = Self { nodes: vec![false; graph.node.len()], tensors: HashSet::new() };
        let ends = head.scales.iter().flat_map(|scale| [&scale.boxes, &scale.classes]);
        let mut waiting: Vec<&str> = ends.map(String::as_str).collect();
        while let Some(tensor) = waiting.pop() {
            if tensor.is_empty() || !kept.tensors.insert(tensor) {
                continue;
            }
            let Some(&number) = producers.get(tensor) else { continue };
            let node = &graph.node[number];
            let refuse =
                |reason: &str| Err(format!("{} ties it to one size: {reason}", node.describe()));
            // A reshape with a new target no longer reads the old one.
            let inputs = match &shapes.freedom[number] {
                Freedom::Free => node.input.len(),
                Freedom::NewTarget(_) => 1,
                Freedom::Baked(reason) => return refuse(reason),
            };
            let known = shapes.tensors.get(tensor).is_some_and(|tensor| {
                tensor.shape.iter().all(|dim| dim.is_some_and(|dim| dim.is_whole(multiple)))
            });
            if !known {
                return refuse("the size of its output is no formula of the picture's");
            }
            kept.nodes[number] = true;
            waiting.extend(node.input.iter().take(inputs).map(String::as_str));
        }
        Ok(kept)
    }
}

/// What is known of the whole model.
pub(super) struct Old<'a> {
    pub(super) graph: &'a GraphProto,
    pub(super) shapes: &'a Shapes<'a>,
    /// The picture input's name.
    pub(super) input: &'a str,
    pub(super) classes: usize,
}

/// The bytes of the cut model; `source` is the whole file.
pub(super) fn rewrite(
    source: &Bytes,
    old: &Old<'_>,
    head: &Head,
    kept: &Kept<'_>,
) -> Result<Vec<u8>, String> {
    let damaged = || "its protocol buffers are not laid out as ONNX's".to_owned();
    let parts = wire::fields(source).ok_or_else(damaged)?;
    let mut graphs = parts.iter().filter(|part| part.number == 7);
    let (Some(raw_graph), None) = (graphs.next(), graphs.next()) else {
        return Err(damaged());
    };
    let written = rewrite_graph(raw_graph, old, head, kept)?;
    let length: usize = written.iter().map(Bytes::len).sum();

    let entry = StringStringEntryProto {
        key: heads::KEY.to_owned(),
        value: heads::write(&head.scales, head.bins),
    };
    let mut bytes = Vec::with_capacity(source.len() - raw_graph.raw.len() + length + 256);
    for part in &parts {
        if part.number == 7 {
            bytes.extend(wire::header(7, length));
            written.iter().for_each(|piece| bytes.extend_from_slice(piece));
        } else {
            bytes.extend_from_slice(&part.raw);
        }
    }
    bytes.extend(wire::field(14, &entry.encode_to_vec()));
    Ok(bytes)
}

/// The graph's fields; slices of the file wherever nothing changed.
fn rewrite_graph(
    raw: &Field,
    old: &Old<'_>,
    head: &Head,
    kept: &Kept<'_>,
) -> Result<Vec<Bytes>, String> {
    let Old { graph, shapes, input, classes } = *old;
    let damaged = || "its graph is not laid out as ONNX's".to_owned();
    let parts = wire::fields(&raw.content).ok_or_else(damaged)?;
    if shapes.tensors.keys().any(|name| name.starts_with(PREFIX)) {
        return Err(format!("it has tensors whose names begin with {PREFIX}"));
    }
    let mut added = Added::default();
    let mut pieces: Vec<Bytes> = Vec::with_capacity(parts.len());
    // How many fields of each number came before: they are the decoded lists' indices.
    let mut seen = [0usize; 16];
    for part in parts {
        let mut index = 0;
        if let Some(count) = usize::try_from(part.number).ok().and_then(|n| seen.get_mut(n)) {
            index = *count;
            *count += 1;
        }
        let has = |name: &str| kept.tensors.contains(name);
        let piece = match part.number {
            1 => match (kept.nodes.get(index), shapes.freedom.get(index)) {
                (Some(true), Some(Freedom::NewTarget(shape))) => {
                    let node = graph.node.get(index).ok_or_else(damaged)?;
                    let target = added.target(input, node, shapes, shape)?;
                    let edited = wire::edit(&part.content, 1, |number, name| {
                        Some(if number == 1 { target.clone().into_bytes() } else { name.to_vec() })
                    });
                    Some(wire::field(1, &edited.ok_or_else(damaged)?).into())
                }
                (Some(true), _) => Some(part.raw),
                _ => None,
            },
            5 => graph.initializer.get(index).is_some_and(|t| has(&t.name)).then_some(part.raw),
            11 => match graph.input.get(index) {
                Some(value) if value.name == input => {
                    let free = free_input(&part.content).ok_or_else(damaged)?;
                    Some(wire::field(11, &free).into())
                }
                Some(value) => has(&value.name).then_some(part.raw),
                None => None,
            },
            // Old outputs, and shapes of tensors in between: no longer true.
            12 | 13 => None,
            14 => {
                let annotated = wire::fields(&part.content).ok_or_else(damaged)?;
                let of_kept = annotated.iter().any(|field| {
                    field.number == 1 && std::str::from_utf8(&field.content).is_ok_and(has)
                });
                of_kept.then_some(part.raw)
            }
            15 => {
                let values = graph.sparse_initializer.get(index).and_then(|s| s.values.as_ref());
                values.is_some_and(|values| has(&values.name)).then_some(part.raw)
            }
            _ => Some(part.raw),
        };
        pieces.extend(piece);
    }
    // What computes targets reads nothing but the picture's shape, so it can come first.
    let nodes = added.nodes.iter().map(|node| wire::field(1, &node.encode_to_vec()).into());
    pieces.splice(0..0, nodes);
    let tensors = added.tensors.iter().map(|tensor| wire::field(5, &tensor.encode_to_vec()).into());
    pieces.extend(tensors);
    for scale in &head.scales {
        for (name, channels) in [(&scale.boxes, 4 * head.bins), (&scale.classes, classes)] {
            let value = output(name, channels, scale.stride);
            pieces.push(wire::field(12, &value.encode_to_vec()).into());
        }
    }
    Ok(pieces)
}

/// The picture input with batch, height and width free; all else stays.
fn free_input(value: &Bytes) -> Option<Vec<u8>> {
    let dims = [param("batch"), fixed(3), param("height"), param("width")];
    let shape = TensorShapeProto { dim: dims.to_vec() }.encode_to_vec();
    wire::edit(value, 2, |_, kind| {
        wire::edit(kind, 1, |_, tensor| wire::edit(tensor, 2, |_, _| Some(shape.clone())))
    })
}

fn output(name: &str, channels: usize, stride: usize) -> ValueInfoProto {
    let dim = vec![
        param("batch"),
        fixed(channels as i64),
        param(&format!("height/{stride}")),
        param(&format!("width/{stride}")),
    ];
    let tensor_type = TensorTypeProto { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    let r#type = Some(TypeProto { tensor_type: Some(tensor_type) });
    ValueInfoProto { name: name.to_owned(), r#type }
}

fn fixed(value: i64) -> DimensionProto {
    DimensionProto { value: Some(DimensionValue::Value(value)) }
}

fn param(name: &str) -> DimensionProto {
    DimensionProto { value: Some(DimensionValue::Param(name.to_owned())) }
}

/// Nodes and constants that compute the targets of reshapes.
#[derive(Default)]
struct Added {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    /// Tensors of one number each, by formula.
    numbers: HashMap<Extent, String>,
    /// Constants of one number each.
    constants: HashMap<i64, String>,
    targets: usize,
}

impl Added {
    /// The name of a tensor that holds `shape` for the picture at hand.
    fn target(
        &mut self,
        input: &str,
        node: &NodeProto,
        shapes: &Shapes<'_>,
        shape: &[Extent],
    ) -> Result<String, String> {
        let before = node.input(0).and_then(|name| shapes.tensors.get(name));
        let zero_copies = node.int("allowzero").unwrap_or(0) == 0;
        let copied = |at: usize, extent: Extent| {
            let same = before.and_then(|t| t.shape.get(at).copied().flatten()) == Some(extent);
            zero_copies && same
        };
        let mut names = Vec::with_capacity(shape.len());
        for (at, &extent) in shape.iter().enumerate() {
            names.push(match extent.as_constant() {
                Some(constant) => self.constant(constant),
                None if copied(at, extent) => self.constant(0),
                None => self.number(input, extent)?,
            });
        }
        self.targets += 1;
        let name = format!("{PREFIX}target_{}", self.targets);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.node("Concat", &names, &name, Some(("axis", 0)));
        Ok(name)
    }

    fn constant(&mut self, value: i64) -> String {
        if let Some(name) = self.constants.get(&value) {
            return name.clone();
        }
        let name = format!("{PREFIX}constant_{value}");
        self.tensors.push(TensorProto {
            dims: vec![1],
            data_type: INT64,
            name: name.clone(),
            raw_data: Bytes::copy_from_slice(&value.to_le_bytes()),
            ..TensorProto::default()
        });
        self.constants.insert(value, name.clone());
        name
    }

    /// `numerator x batch^i x height^j x width^k / denominator`.
    fn number(&mut self, input: &str, extent: Extent) -> Result<String, String> {
        if let Some(name) = self.numbers.get(&extent) {
            return Ok(name.clone());
        }
        let mut factors = Vec::new();
        for (axis, power) in [0, 2, 3].into_iter().zip(extent.powers()) {
            let name = format!("{PREFIX}side_{axis}");
            if power > 0 && !self.nodes.iter().any(|node| node.output == [name.as_str()]) {
                let shape = format!("{PREFIX}shape");
                if !self.nodes.iter().any(|node| node.output == [shape.as_str()]) {
                    self.node("Shape", &[input], &shape, None);
                }
                let index = self.constant(axis);
                self.node("Gather", &[&shape, &index], &name, Some(("axis", 0)));
            }
            factors.extend(std::iter::repeat_n(name, usize::from(power)));
        }
        if extent.numerator() != 1 {
            factors.push(self.constant(extent.numerator()));
        }
        let mut factors = factors.into_iter();
        let mut name = factors.next().ok_or_else(|| "a size is no formula".to_owned())?;
        for (step, factor) in factors.enumerate() {
            let product = format!("{PREFIX}number_{}_{step}", self.numbers.len());
            self.node("Mul", &[&name, &factor], &product, None);
            name = product;
        }
        if extent.denominator() != 1 {
            let divisor = self.constant(extent.denominator());
            let quotient = format!("{PREFIX}number_{}", self.numbers.len());
            self.node("Div", &[&name, &divisor], &quotient, None);
            name = quotient;
        }
        self.numbers.insert(extent, name.clone());
        Ok(name)
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, int: Option<(&str, i64)>) {
        let attribute = int.map(|(name, i)| AttributeProto {
            name: name.to_owned(),
            i,
            r#type: INT,
            ..AttributeProto::default()
        });
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op.to_owned(),
            attribute: attribute.into_iter().collect(),
            domain: String::new(),
        });
    }
}
