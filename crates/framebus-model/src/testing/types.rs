//! Whether the types of a graph fit together, as a strongly typed network demands.

use crate::onnx::{FLOAT, FLOAT16, INT64, ModelProto, NodeProto};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;

/// `TensorProto.DataType.BOOL`.
const BOOL: i32 = 9;

/// Follows the types through a whole ONNX file: the types of all tensors by name
/// (`TensorProto.DataType`; 1 is float32, 10 float16).
///
/// # Errors
/// Says which node reads tensors of two float types, or one that its operator is not
/// defined for, and which output is not what the graph declares.
pub fn check_types(model: &[u8]) -> Result<HashMap<String, i32>, String> {
    let bytes = Bytes::copy_from_slice(model);
    let proto = ModelProto::decode(bytes).map_err(|error| error.to_string())?;
    let graph = proto.graph.ok_or_else(|| "no graph".to_owned())?;
    let opset = proto.opset_import.iter().map(|set| set.version).max().unwrap_or(0);
    let declared = |value: &crate::onnx::ValueInfoProto| {
        value.r#type.as_ref()?.tensor_type.as_ref().map(|tensor| tensor.elem_type)
    };
    let mut types: HashMap<String, i32> = HashMap::new();
    for tensor in &graph.initializer {
        types.insert(tensor.name.clone(), tensor.data_type);
    }
    for input in &graph.input {
        let kind = declared(input).ok_or_else(|| format!("input {} has no type", input.name))?;
        let known = *types.entry(input.name.clone()).or_insert(kind);
        if known != kind {
            return Err(format!("input {} is {known}, not {kind}", input.name));
        }
    }
    for node in &graph.node {
        let inputs: Vec<i32> =
            node.input.iter().map(|name| types.get(name).copied().unwrap_or(0)).collect();
        check_inputs(node, &inputs, opset)?;
        for (number, name) in node.output.iter().enumerate() {
            types.insert(name.clone(), output_type(node, number, &inputs)?);
        }
    }
    for output in &graph.output {
        let (made, kind) = (types.get(&output.name).copied(), declared(output));
        if made != kind {
            return Err(format!("output {} is {made:?}, not {kind:?}", output.name));
        }
    }
    Ok(types)
}

fn check_inputs(node: &NodeProto, inputs: &[i32], opset: i64) -> Result<(), String> {
    let op = node.op_type.as_str();
    let is_float = |kind: &&i32| [FLOAT, FLOAT16].contains(kind);
    let wrong = |what: &str| Err(format!("{} reads {what}: {inputs:?}", node.describe()));
    if matches!(op, "Cast" | "Shape" | "Size" | "NonZero" | "IsNaN") {
        return Ok(());
    }
    let same = if matches!(op, "Resize" | "Upsample") { 1 } else { inputs.len() };
    let (same, single) = inputs.split_at(same.min(inputs.len()));
    if single.contains(&FLOAT16) {
        return wrong("scales that are not float32");
    }
    let mut floats = same.iter().filter(is_float);
    let first = floats.next();
    if floats.any(|kind| Some(kind) != first) {
        return wrong("two float types");
    }
    let single = matches!(op, "Celu" | "NonMaxSuppression" | "Range" | "QuantizeLinear")
        || (op == "CumSum" && opset < 14)
        || (op == "IsInf" && opset < 20);
    if single && first == Some(&FLOAT16) {
        return wrong("float16, for which it is not defined");
    }
    Ok(())
}

fn output_type(node: &NodeProto, number: usize, inputs: &[i32]) -> Result<i32, String> {
    let held = || node.attribute("value").and_then(|a| a.t.as_ref()).map(|t| t.data_type);
    let kind = match (node.op_type.as_str(), number) {
        ("Shape" | "Size" | "ArgMax" | "NonMaxSuppression" | "NonZero", 0)
        | ("TopK" | "MaxPool", 1) => Some(INT64),
        ("Equal" | "Greater" | "Less" | "Not" | "And" | "Or" | "IsNaN" | "IsInf", 0)
        | ("Dropout", 1) => Some(BOOL),
        ("Cast", 0) => node.int("to").and_then(|to| i32::try_from(to).ok()),
        ("Constant", 0) => match node.attribute.first().map(|a| a.name.as_str()) {
            Some("value_int" | "value_ints") => Some(INT64),
            Some("value_float" | "value_floats") => Some(FLOAT),
            _ => held(),
        },
        ("ConstantOfShape", 0) => Some(held().unwrap_or(FLOAT)),
        ("Where" | "CastLike", 0) => inputs.get(1).copied(),
        _ => inputs.first().copied(),
    };
    kind.filter(|&kind| kind != 0).ok_or_else(|| format!("{} has no type", node.describe()))
}
