//! Which types an operator takes and makes, after ONNX's schemas (operator sets 5 to 25).

use super::Element;
use crate::onnx::{self, NodeProto};

/// `TensorProto.DataType.BOOL`.
const BOOL: i32 = 9;

/// Whether a file with such a node says by itself what runs in how many bits.
pub(super) fn is_quantised(operator: &str) -> bool {
    matches!(
        operator,
        "QuantizeLinear"
            | "DequantizeLinear"
            | "DynamicQuantizeLinear"
            | "QLinearConv"
            | "QLinearMatMul"
            | "ConvInteger"
            | "MatMulInteger"
    )
}

/// Whether the operator is defined for float16 in this operator set, where it is for
/// float32.
pub(super) fn takes_half(operator: &str, opset: i64) -> bool {
    match operator {
        "Celu" | "NonMaxSuppression" | "Range" => false,
        "CumSum" => opset >= 14,
        "IsInf" => opset >= 20,
        _ => true,
    }
}

/// The type in which a node of `element` reads a float input; `None` when it takes
/// either.
pub(super) fn reads(node: &NodeProto, slot: usize, element: Element) -> Option<Element> {
    match (node.op_type.as_str(), slot) {
        ("Cast" | "IsNaN" | "NonZero" | "Shape" | "Size", _)
        | ("OneHot", 0 | 1)
        | ("Dropout", 1..) => None,
        // The scales, and the region that comes before them: a type each of their own.
        ("Resize" | "Upsample", 1..) => Some(Element::F32),
        _ => Some(element),
    }
}

/// The `TensorProto.DataType` that a node of `element` makes at an output. `inputs` are
/// the types as it reads them. `None` where that is not known.
pub(super) fn makes(
    node: &NodeProto,
    output: usize,
    element: Element,
    inputs: &[Option<i32>],
) -> Option<i32> {
    let input = |number: usize| inputs.get(number).copied().flatten();
    match (node.op_type.as_str(), output) {
        ("ArgMax" | "ArgMin" | "NonMaxSuppression" | "NonZero" | "Shape" | "Size", 0)
        | ("MaxPool" | "TopK", 1) => Some(onnx::INT64),
        (
            "And" | "Equal" | "Greater" | "GreaterOrEqual" | "IsInf" | "IsNaN" | "Less"
            | "LessOrEqual" | "Not" | "Or" | "Xor",
            0,
        )
        | ("Dropout", 1) => Some(BOOL),
        ("Cast", 0) => match i32::try_from(node.int("to")?).ok()? {
            onnx::FLOAT => Some(element.data_type()),
            other => Some(other),
        },
        ("CastLike" | "Where", 0) => input(1),
        ("OneHot", 0) => input(2),
        ("ConstantOfShape", 0) => match node.attribute("value") {
            None => Some(element.data_type()),
            Some(value) => match value.t.as_ref()?.data_type {
                onnx::FLOAT => Some(element.data_type()),
                other => Some(other),
            },
        },
        // Mean and deviation, which no reader has need of.
        ("LayerNormalization", 1..) => None,
        (operator, _) if same(operator) => input(0),
        _ => None,
    }
}

/// Operators whose outputs have the type of their first input.
fn same(operator: &str) -> bool {
    matches!(
        operator,
        "Abs"
            | "Acos"
            | "Acosh"
            | "Add"
            | "Asin"
            | "Asinh"
            | "Atan"
            | "Atanh"
            | "AveragePool"
            | "BatchNormalization"
            | "Ceil"
            | "Celu"
            | "CenterCropPad"
            | "Clip"
            | "Compress"
            | "Concat"
            | "Conv"
            | "ConvTranspose"
            | "Cos"
            | "Cosh"
            | "CumSum"
            | "DeformConv"
            | "DepthToSpace"
            | "Div"
            | "Dropout"
            | "Einsum"
            | "Elu"
            | "Erf"
            | "Exp"
            | "Expand"
            | "Flatten"
            | "Floor"
            | "Gather"
            | "GatherElements"
            | "GatherND"
            | "Gelu"
            | "Gemm"
            | "GlobalAveragePool"
            | "GlobalLpPool"
            | "GlobalMaxPool"
            | "GridSample"
            | "GroupNormalization"
            | "HardSigmoid"
            | "HardSwish"
            | "Hardmax"
            | "Identity"
            | "InstanceNormalization"
            | "LRN"
            | "LayerNormalization"
            | "LeakyRelu"
            | "Log"
            | "LogSoftmax"
            | "LpNormalization"
            | "LpPool"
            | "MatMul"
            | "Max"
            | "MaxPool"
            | "Mean"
            | "MeanVarianceNormalization"
            | "Min"
            | "Mish"
            | "Mod"
            | "Mul"
            | "Neg"
            | "PRelu"
            | "Pad"
            | "Pow"
            | "RMSNormalization"
            | "Range"
            | "Reciprocal"
            | "ReduceL1"
            | "ReduceL2"
            | "ReduceLogSum"
            | "ReduceLogSumExp"
            | "ReduceMax"
            | "ReduceMean"
            | "ReduceMin"
            | "ReduceProd"
            | "ReduceSum"
            | "ReduceSumSquare"
            | "Relu"
            | "Reshape"
            | "Resize"
            | "ReverseSequence"
            | "RoiAlign"
            | "Round"
            | "Scatter"
            | "ScatterElements"
            | "ScatterND"
            | "Selu"
            | "Shrink"
            | "Sigmoid"
            | "Sign"
            | "Sin"
            | "Sinh"
            | "Slice"
            | "Softmax"
            | "Softplus"
            | "Softsign"
            | "SpaceToDepth"
            | "Split"
            | "Sqrt"
            | "Squeeze"
            | "Sub"
            | "Sum"
            | "Swish"
            | "Tan"
            | "Tanh"
            | "ThresholdedRelu"
            | "Tile"
            | "TopK"
            | "Transpose"
            | "Trilu"
            | "Unsqueeze"
            | "Upsample"
    )
}
