//! Whether a graph hangs together.
//!
//! Inference libraries trust what they are given: OpenVINO 2026.4 reads past its
//! list of inputs when a convolution has lost its weights, for which one flipped byte
//! is enough. What can be checked without computing shapes is checked here, so that
//! a damaged file ends in a message and not in a signal.

use crate::onnx::{GraphProto, TensorProto};
use std::collections::HashSet;

/// The sentence that says what is wrong.
pub(crate) fn check(graph: &GraphProto) -> Result<(), String> {
    let mut known: HashSet<&str> = HashSet::new();
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
        known.insert(&tensor.name);
    }
    for sparse in &graph.sparse_initializer {
        known.extend(sparse.values.as_ref().map(|values| values.name.as_str()));
    }
    known.extend(graph.input.iter().map(|input| input.name.as_str()));
    // ONNX demands that nodes are sorted: each reads what comes before it. An
    // empty name is an optional input that is not given.
    for node in &graph.node {
        if node.op_type.is_empty() || node.output.is_empty() {
            return Err(format!("{} has no operator or no output", node.describe()));
        }
        let needed = needed_inputs(&node.op_type);
        if node.input.iter().take(needed).filter(|input| !input.is_empty()).count() < needed {
            return Err(format!("{} has fewer than {needed} inputs", node.describe()));
        }
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            if !known.contains(input.as_str()) {
                return Err(format!(
                    "{} reads '{}', which nothing before it writes",
                    node.describe(),
                    input.escape_debug()
                ));
            }
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if !known.insert(output) {
                return Err(format!(
                    "{} writes '{}' a second time",
                    node.describe(),
                    output.escape_debug()
                ));
            }
        }
    }
    match graph.output.iter().find(|output| !known.contains(output.name.as_str())) {
        Some(output) => Err(format!("nothing writes its output '{}'", output.name.escape_debug())),
        None => Ok(()),
    }
}

/// Inputs that an operator cannot do without, by ONNX's operator list (the fewest of
/// any operator set since 5). Operators that are not listed are held to nothing: a
/// custom one may have none.
fn needed_inputs(operator: &str) -> usize {
    match operator {
        "Range" | "Where" | "Scan" | "ScatterElements" | "ScatterND" | "OneHot" | "QLinearConv" => {
            3
        }
        "Add" | "And" | "CumSum" | "Conv" | "ConvInteger" | "ConvTranspose"
        | "DequantizeLinear" | "Div" | "Equal" | "Expand" | "Gather" | "GatherElements"
        | "GatherND" | "Gemm" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"
        | "MatMul" | "MatMulInteger" | "Mod" | "Mul" | "NonMaxSuppression" | "Or" | "PRelu"
        | "Pow" | "QuantizeLinear" | "Reshape" | "Sub" | "Tile" | "Xor" => 2,
        "Abs"
        | "ArgMax"
        | "ArgMin"
        | "AveragePool"
        | "BatchNormalization"
        | "Cast"
        | "Ceil"
        | "Clip"
        | "Concat"
        | "ConstantOfShape"
        | "Cos"
        | "Dropout"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Flatten"
        | "Floor"
        | "GlobalAveragePool"
        | "GlobalMaxPool"
        | "HardSigmoid"
        | "HardSwish"
        | "Identity"
        | "If"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "Max"
        | "MaxPool"
        | "Mean"
        | "Min"
        | "Neg"
        | "NonZero"
        | "Not"
        | "Pad"
        | "Reciprocal"
        | "ReduceL2"
        | "ReduceMax"
        | "ReduceMean"
        | "ReduceMin"
        | "ReduceSum"
        | "Relu"
        | "Resize"
        | "Round"
        | "Shape"
        | "Sigmoid"
        | "Sin"
        | "Size"
        | "Slice"
        | "Softmax"
        | "Softplus"
        | "Split"
        | "Sqrt"
        | "Squeeze"
        | "Sum"
        | "Tanh"
        | "TopK"
        | "Transpose"
        | "Unsqueeze"
        | "Upsample" => 1,
        _ => 0,
    }
}

/// Data that lies in the tensor must fill its shape.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("tensor '{}' {what}", tensor.name.escape_debug()));
    if tensor.name.is_empty() {
        return wrong("has no name");
    }
    let mut values: u64 = 1;
    for &dim in &tensor.dims {
        let Some(product) = u64::try_from(dim).ok().and_then(|dim| values.checked_mul(dim)) else {
            return wrong("has a shape that is no shape");
        };
        values = product;
    }
    let bytes = tensor.raw_data.len() as u64;
    let Some(size) = element_size(tensor.data_type) else {
        return Ok(());
    };
    // No raw data: the values lie in a typed field or in another file.
    if bytes != 0 && values.checked_mul(size) != Some(bytes) {
        return wrong("has more or fewer bytes than its shape needs");
    }
    Ok(())
}

/// Bytes a value of `TensorProto.DataType`; `None` for packed or unknown types.
fn element_size(data_type: i32) -> Option<u64> {
    match data_type {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 | 14 => Some(8),
        15 => Some(16),
        _ => None,
    }
}
