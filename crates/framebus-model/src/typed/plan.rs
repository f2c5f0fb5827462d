//! Which nodes compute in 16 bits, and which tensors are read in which types.

use super::Element;
use super::operators;
use crate::onnx::{self, GraphProto, ModelProto, NodeProto, TensorProto};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What is known of a tensor.
#[derive(Debug, Default)]
pub(super) struct Value<'a> {
    /// `TensorProto.DataType` as the node or the file makes it; of a float32 constant
    /// too, though that is written in whichever types it is read.
    made: i32,
    /// A float32 constant.
    pub(super) constant: Option<Cow<'a, TensorProto>>,
    half: bool,
    single: bool,
    /// As which type the graph gives it out.
    output: Option<Element>,
}

impl Value<'_> {
    /// The type that it is made in; `None` for what is no float of 16 or 32 bits.
    pub(super) fn made(&self) -> Option<Element> {
        if self.constant.is_some() { Some(self.named()?) } else { Element::of(self.made) }
    }

    /// The type of the tensor that has the old name.
    fn named(&self) -> Option<Element> {
        let constant = if self.half && !self.single { Element::F16 } else { Element::F32 };
        let made = Element::of(self.made)?;
        Some(self.output.unwrap_or(if self.constant.is_some() { constant } else { made }))
    }

    /// Whether somebody reads it in the type that it is not made in.
    pub(super) fn read_otherwise(&self) -> bool {
        match self.made() {
            Some(Element::F16) => self.single,
            Some(Element::F32) => self.half,
            None => false,
        }
    }

    fn read(&mut self, element: Element) {
        match element {
            Element::F16 => self.half = true,
            Element::F32 => self.single = true,
        }
    }
}

/// How a model becomes one of 16 bits.
pub(super) struct Plan<'a> {
    /// By node number: the type it computes in, where that is a float.
    pub(super) nodes: Vec<Element>,
    pub(super) values: HashMap<&'a str, Value<'a>>,
    /// Type of all outputs.
    pub(super) outputs: Element,
    pub(super) input: &'a str,
}

impl<'a> Plan<'a> {
    /// `cut`: nothing but the body is there. Otherwise the sentence that says why not.
    pub(super) fn of(
        proto: &ModelProto,
        graph: &'a GraphProto,
        input: &'a str,
        cut: bool,
    ) -> Result<Self, String> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
            return Err(format!("its tensor '{}' is sparse", name.escape_debug()));
        }
        let standard = proto.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
        let opset = standard.map_or(0, |set| set.version);
        let outputs = if cut { Element::F16 } else { Element::F32 };
        let mut plan = Self { nodes: Vec::new(), values: HashMap::new(), outputs, input };
        for tensor in &graph.initializer {
            plan.constant(&tensor.name, Cow::Borrowed(tensor));
        }
        for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
            let name = node.output.first().map_or("", String::as_str);
            match held(node).ok_or_else(|| format!("{} holds no tensor", node.describe()))? {
                Ok(tensor) => plan.constant(name, tensor),
                Err(made) => drop(plan.values.insert(name, Value { made, ..Value::default() })),
            }
        }
        plan.values.insert(input, Value { made: onnx::FLOAT16, ..Value::default() });
        let body = plan.body(graph, cut);
        let picture = from_picture(graph, input);
        for ((node, body), picture) in graph.node.iter().zip(body).zip(picture) {
            let half = body && picture && operators::takes_half(&node.op_type, opset);
            let element = if half { Element::F16 } else { Element::F32 };
            plan.node(node, element)?;
            plan.nodes.push(element);
        }
        for output in &graph.output {
            let value = plan.values.get_mut(output.name.as_str()).filter(|_| output.name != input);
            let computed = |value: &&mut Value<'_>| {
                Element::of(value.made).is_some() && value.constant.is_none()
            };
            let value = value.filter(computed).ok_or_else(|| {
                format!("its output '{}' is no computed float", output.name.escape_debug())
            })?;
            value.output = Some(outputs);
            value.read(outputs);
        }
        let taken = plan.values.keys().find(|name| {
            [Element::F16, Element::F32].into_iter().any(|e| name.starts_with(prefix(e)))
        });
        match taken {
            Some(name) => Err(format!("it has a tensor named '{}' already", name.escape_debug())),
            None => Ok(plan),
        }
    }

    /// The name under which a tensor is found in this type.
    pub(super) fn name(&self, tensor: &'a str, element: Element) -> Cow<'a, str> {
        match self.values.get(tensor).and_then(Value::named) {
            Some(named) if named != element => Cow::Owned(format!("{}{tensor}", prefix(element))),
            _ => Cow::Borrowed(tensor),
        }
    }

    /// The name of an input as this node reads it.
    pub(super) fn input(&self, node: &'a NodeProto, slot: usize, element: Element) -> Cow<'a, str> {
        let name = node.input.get(slot).map_or("", String::as_str);
        let made = self.values.get(name).and_then(Value::made);
        match operators::reads(node, slot, element).or(made) {
            Some(element) => self.name(name, element),
            None => Cow::Borrowed(name),
        }
    }

    fn constant(&mut self, name: &'a str, tensor: Cow<'a, TensorProto>) {
        let made = tensor.data_type;
        let constant = (made == onnx::FLOAT).then_some(tensor);
        self.values.insert(name, Value { made, constant, ..Value::default() });
    }

    fn node(&mut self, node: &'a NodeProto, element: Element) -> Result<(), String> {
        let describe = || node.describe();
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            let domain = node.domain.escape_debug();
            return Err(format!("{} is of the operator set {domain}", describe()));
        }
        if node.op_type == "Constant" {
            return Ok(());
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for (slot, name) in node.input.iter().enumerate() {
            let Some(value) = self.values.get_mut(name.as_str()) else {
                inputs.push(None);
                continue;
            };
            let read = operators::reads(node, slot, element);
            let read = read.filter(|_| Element::of(value.made).is_some());
            inputs.push(Some(read.map_or(value.made, Element::data_type)));
            if let Some(element) = read {
                value.read(element);
            }
        }
        for (number, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let made = operators::makes(node, number, element, &inputs)
                .ok_or_else(|| format!("what type {} makes is not known", describe()))?;
            self.values.insert(name, Value { made, ..Value::default() });
        }
        Ok(())
    }

    /// By node number: whether a convolution comes after it, or it is one.
    fn body(&self, graph: &GraphProto, cut: bool) -> Vec<bool> {
        if cut {
            return vec![true; graph.node.len()];
        }
        // Output channels of a convolution with these weights.
        let mut channels: HashMap<&str, i64> = HashMap::new();
        for (name, value) in &self.values {
            channels.extend(value.constant.as_ref().and_then(|t| Some((*name, *t.dims.first()?))));
        }
        for node in graph.node.iter().filter(|node| node.op_type == "Identity") {
            let known = node.input(0).and_then(|name| channels.get(name)).copied();
            channels.extend(node.output.first().map(String::as_str).zip(known));
        }
        // With one output channel it may be the sum over the bins of a distance. Weights
        // that are no constant are taken for more than one channel.
        let is_convolution = |node: &NodeProto| {
            let channels = node.input(1).and_then(|name| channels.get(name));
            node.op_type == "Conv" && channels != Some(&1)
        };
        let mut needed: HashSet<&str> = HashSet::new();
        let mut body = vec![false; graph.node.len()];
        for (node, body) in graph.node.iter().zip(&mut body).rev() {
            *body = is_convolution(node)
                || node.output.iter().any(|output| needed.contains(output.as_str()));
            if *body {
                needed.extend(node.input.iter().map(String::as_str).filter(|n| !n.is_empty()));
            }
        }
        body
    }
}

/// Tensors that are added have names that begin so.
fn prefix(element: Element) -> &'static str {
    match element {
        Element::F16 => "framebus/f16/",
        Element::F32 => "framebus/f32/",
    }
}

/// By node number: whether it reads what was computed from the picture, and not only
/// from its size.
fn from_picture(graph: &GraphProto, input: &str) -> Vec<bool> {
    let mut picture = HashSet::from([input]);
    let mut all = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let reads = !matches!(node.op_type.as_str(), "Shape" | "Size")
            && node.input.iter().any(|name| picture.contains(name.as_str()));
        if reads {
            picture.extend(node.output.iter().map(String::as_str));
        }
        all.push(reads);
    }
    all
}

/// What a `Constant` node holds: a tensor, or the type of what is no float.
fn held(node: &NodeProto) -> Option<Result<Cow<'_, TensorProto>, i32>> {
    let attribute = node.attribute.first()?;
    let floats = |dims, float_data| {
        let data_type = onnx::FLOAT;
        Some(Ok(Cow::Owned(TensorProto { dims, data_type, float_data, ..TensorProto::default() })))
    };
    match attribute.name.as_str() {
        "value" => Some(Ok(Cow::Borrowed(attribute.t.as_ref()?))),
        "value_float" => floats(Vec::new(), vec![attribute.f]),
        "value_floats" => {
            floats(vec![i64::try_from(attribute.floats.len()).ok()?], attribute.floats.clone())
        }
        "value_int" | "value_ints" => Some(Err(onnx::INT64)),
        _ => None,
    }
}
