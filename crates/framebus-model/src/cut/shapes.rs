//! The shape of every tensor as formulas, node by node.
//!
//! Operators that are not listed, and listed ones in a form that is not understood,
//! leave their outputs unknown: a node that reads them is then not understood either.
//! That is no error as long as no such node is kept.

use super::extent::Extent;
use super::operators::{
    arithmetic, broadcast, count, gather, matmul, same, shape_of, transpose, window,
};
use super::reshape::{Export, reshape};
use crate::onnx::{GraphProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// Shapes and slice limits are no longer lists of numbers than this.
pub(super) const MAX_VALUES: usize = 64;

/// Whether a node computes the same for every batch and size.
#[derive(Debug, Clone)]
pub(super) enum Freedom {
    /// As it stands.
    Free,
    /// A `Reshape` that does once its target is this.
    NewTarget(Vec<Extent>),
    /// It does not, and why; or it is not known.
    Baked(String),
}

/// What is known of a tensor.
#[derive(Debug, Clone, Default)]
pub(super) struct Tensor {
    /// Dimensions; `None` for one that is no formula.
    pub(super) shape: Vec<Option<Extent>>,
    /// The values of a short list of integers, row-major.
    pub(super) values: Option<Vec<Extent>>,
}

impl Tensor {
    pub(super) fn of(shape: Vec<Option<Extent>>) -> Self {
        Self { shape, values: None }
    }

    /// A scalar (rank 0) or a list of integers.
    pub(super) fn list(values: Vec<Extent>, scalar: bool) -> Self {
        let shape = if scalar { Vec::new() } else { vec![count(values.len())] };
        Self { shape, values: Some(values) }
    }

    /// The axis that `axis`, which may count from the end, names.
    pub(super) fn axis(&self, axis: i64) -> Option<usize> {
        let rank = i64::try_from(self.shape.len()).ok()?;
        let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
        usize::try_from(axis).ok().filter(|&axis| axis < self.shape.len())
    }

    /// The length of a dimension that is a plain number.
    pub(super) fn fixed(&self, axis: usize) -> Option<usize> {
        self.shape.get(axis).copied().flatten()?.as_count()
    }

    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.values.as_ref()?.iter().map(|value| value.as_constant()).collect()
    }
}

/// The shapes of a graph's tensors.
pub(super) struct Shapes<'a> {
    pub(super) tensors: HashMap<&'a str, Tensor>,
    /// By node number.
    pub(super) freedom: Vec<Freedom>,
    constants: HashMap<&'a str, &'a TensorProto>,
    export: Export,
}

impl<'a> Shapes<'a> {
    /// Follows the graph from `input`, a picture `[batch,3,height,width]`.
    pub(super) fn follow(graph: &'a GraphProto, input: &'a str, export: Export) -> Self {
        let mut shapes = Self {
            tensors: HashMap::new(),
            freedom: Vec::with_capacity(graph.node.len()),
            constants: HashMap::new(),
            export,
        };
        for tensor in &graph.initializer {
            shapes.constant(&tensor.name, tensor);
        }
        let picture = [Extent::BATCH, Extent::constant(3), Extent::HEIGHT, Extent::WIDTH];
        shapes.tensors.insert(input, Tensor::of(picture.map(Some).to_vec()));
        for node in &graph.node {
            let freedom = shapes.node(node).unwrap_or_else(Freedom::Baked);
            shapes.freedom.push(freedom);
        }
        shapes
    }

    /// The constant with this name: an initialiser or what a `Constant` node holds.
    pub(super) fn constant_tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.constants.get(name).copied()
    }

    fn constant(&mut self, name: &'a str, tensor: &'a TensorProto) {
        let dims = tensor.dims.iter().map(|&dim| Some(Extent::constant(dim))).collect();
        let values = tensor.integers(MAX_VALUES);
        let values = values.map(|list| list.into_iter().map(Extent::constant).collect());
        self.tensors.insert(name, Tensor { shape: dims, values });
        self.constants.insert(name, tensor);
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<Freedom, String> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!("its operator set {} is not known", node.domain.escape_debug()));
        }
        let [name, ..] = node.output.as_slice() else {
            return Err("it has no output".to_owned());
        };
        if node.op_type == "Constant" {
            return self.constant_node(node, name);
        }
        if node.op_type == "Split" {
            return self.split(node);
        }
        let (tensor, freedom) = if node.op_type == "Reshape" {
            self.reshape(node)?
        } else {
            (self.one(node)?, Freedom::Free)
        };
        // What a dropout or a pool answers beside its result is not used by detectors.
        if let (Some(&constant), "Identity") =
            (node.input(0).and_then(|input| self.constants.get(input)), node.op_type.as_str())
        {
            self.constants.insert(name, constant);
        }
        self.tensors.insert(name, tensor);
        Ok(freedom)
    }

    fn constant_node(&mut self, node: &'a NodeProto, name: &'a str) -> Result<Freedom, String> {
        if let Some(tensor) = node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            self.constant(name, tensor);
        } else if let Some(value) = node.int("value_int") {
            self.tensors.insert(name, Tensor::list(vec![Extent::constant(value)], true));
        } else if let Some(values) = node.ints("value_ints").filter(|v| v.len() <= MAX_VALUES) {
            let values = values.iter().map(|&value| Extent::constant(value)).collect();
            self.tensors.insert(name, Tensor::list(values, false));
        }
        Ok(Freedom::Free)
    }

    fn input(&self, node: &NodeProto, number: usize) -> Result<&Tensor, String> {
        node.input(number)
            .and_then(|name| self.tensors.get(name))
            .ok_or_else(|| format!("the shape of its input {number} is not known"))
    }

    /// The integers of an input, or of the attribute that held them in older
    /// operator sets; `None` when neither is given.
    fn integers(
        &self,
        node: &NodeProto,
        number: usize,
        attribute: &str,
    ) -> Result<Option<Vec<i64>>, String> {
        if let Some(values) = node.ints(attribute) {
            return Ok(Some(values.to_vec()));
        }
        if node.input(number).is_none() {
            return Ok(None);
        }
        let numbers = self.input(node, number)?.numbers();
        numbers.map(Some).ok_or_else(|| format!("its input {number} is no list of constants"))
    }

    fn one(&self, node: &NodeProto) -> Result<Tensor, String> {
        let input = |number| self.input(node, number);
        match node.op_type.as_str() {
            "Abs"
            | "BatchNormalization"
            | "Clip"
            | "DequantizeLinear"
            | "Elu"
            | "Erf"
            | "Exp"
            | "Gelu"
            | "HardSigmoid"
            | "HardSwish"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "LeakyRelu"
            | "Mish"
            | "Neg"
            | "QuantizeLinear"
            | "Reciprocal"
            | "Relu"
            | "Selu"
            | "Sigmoid"
            | "Softmax"
            | "Softplus"
            | "Sqrt"
            | "Tanh" => Ok(Tensor::of(input(0)?.shape.clone())),
            "Cast" | "Dropout" | "Identity" => Ok(input(0)?.clone()),
            "Add" | "Div" | "Max" | "Min" | "Mul" | "PRelu" | "Pow" | "Sub" | "Sum" => {
                self.elementwise(node)
            }
            "Conv" => window(node, input(0)?, Some(input(1)?)),
            "AveragePool" | "MaxPool" => window(node, input(0)?, None),
            "GlobalAveragePool" | "GlobalMaxPool" => match input(0)?.shape.as_slice() {
                &[batch, channels, _, _] => {
                    Ok(Tensor::of(vec![batch, channels, count(1), count(1)]))
                }
                _ => Err("its input is no map".to_owned()),
            },
            "Concat" => self.concat(node),
            "Gather" => gather(node, input(0)?, input(1)?),
            "MatMul" => matmul(&input(0)?.shape, &input(1)?.shape),
            "Resize" | "Upsample" => self.resize(node),
            "Shape" => shape_of(node, input(0)?),
            "Slice" => self.slice(node),
            "Squeeze" | "Unsqueeze" => self.squeeze(node),
            "Transpose" => transpose(node, input(0)?),
            other => Err(format!("what {} does to shapes is not known", other.escape_debug())),
        }
    }

    fn reshape(&self, node: &NodeProto) -> Result<(Tensor, Freedom), String> {
        let input = self.input(node, 0)?;
        let target = self.input(node, 1)?.values.as_ref();
        let target = target.ok_or_else(|| "its target is not known".to_owned())?;
        let zero_copies = node.int("allowzero").unwrap_or(0) == 0;
        let (shape, freedom) = reshape(&input.shape, target, zero_copies, self.export);
        Ok((Tensor { shape, values: input.values.clone() }, freedom))
    }

    fn elementwise(&self, node: &NodeProto) -> Result<Tensor, String> {
        let mut all = self.input(node, 0)?.clone();
        for number in 1..node.input.len() {
            let other = self.input(node, number)?;
            let values = arithmetic(&node.op_type, &all, other);
            all = Tensor { shape: broadcast(&all.shape, &other.shape)?, values };
        }
        Ok(all)
    }

    fn concat(&self, node: &NodeProto) -> Result<Tensor, String> {
        let first = self.input(node, 0)?;
        let axis = node.int("axis").and_then(|axis| first.axis(axis));
        let axis = axis.ok_or_else(|| "its axis does not exist".to_owned())?;
        let mut shape = first.shape.clone();
        let mut values = first.values.clone();
        for number in 1..node.input.len() {
            let other = self.input(node, number)?;
            if other.shape.len() != shape.len() {
                return Err("its inputs have different ranks".to_owned());
            }
            for (at, (dim, &more)) in shape.iter_mut().zip(&other.shape).enumerate() {
                if at == axis {
                    *dim = dim.zip(more).and_then(|(a, b)| a.plus(b));
                } else {
                    *dim = same(*dim, more)?;
                }
            }
            values = values.zip(other.values.clone()).map(|(mut list, more)| {
                list.extend(more);
                list
            });
        }
        let values = values.filter(|list| shape.len() == 1 && list.len() <= MAX_VALUES);
        Ok(Tensor { shape, values })
    }

    fn split(&mut self, node: &'a NodeProto) -> Result<Freedom, String> {
        let input = self.input(node, 0)?;
        let axis = input.axis(node.int("axis").unwrap_or(0));
        let axis = axis.ok_or_else(|| "its axis does not exist".to_owned())?;
        let length = input.fixed(axis).ok_or_else(|| "it splits a free dimension".to_owned())?;
        let parts = node.output.len();
        let sizes = match self.integers(node, 1, "split")? {
            Some(sizes) => sizes,
            None => {
                let each = i64::try_from(length.div_ceil(parts)).unwrap_or(i64::MAX);
                vec![each; parts]
            }
        };
        let total = sizes.iter().try_fold(0i64, |all, &size| all.checked_add(size));
        if sizes.len() != parts || total.and_then(|n| usize::try_from(n).ok()) != Some(length) {
            return Err("its parts are not its whole".to_owned());
        }
        let shape = input.shape.clone();
        for (name, size) in node.output.iter().zip(sizes) {
            let mut part = shape.clone();
            part[axis] = Some(Extent::constant(size));
            self.tensors.insert(name, Tensor::of(part));
        }
        Ok(Freedom::Free)
    }

    /// First and last element of every axis of a `Slice` with steps of one:
    /// `(axis, start, end)`, cut to lengths that are numbers.
    pub(super) fn limits(&self, node: &NodeProto) -> Result<Vec<(usize, i64, i64)>, String> {
        let input = self.input(node, 0)?;
        let missing = || "its limits are not given".to_owned();
        let starts = self.integers(node, 1, "starts")?.ok_or_else(missing)?;
        let ends = self.integers(node, 2, "ends")?.ok_or_else(missing)?;
        let axes = match self.integers(node, 3, "axes")? {
            Some(axes) => axes,
            None => (0..).take(starts.len()).collect(),
        };
        let steps = self.integers(node, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err("its limits do not fit together".to_owned());
        }
        if steps.iter().any(|&step| step != 1) {
            return Err("it leaves elements out".to_owned());
        }
        let limits = starts.iter().zip(&ends).zip(axes).map(|((&start, &end), axis)| {
            let axis = input.axis(axis).ok_or_else(|| "its axis does not exist".to_owned())?;
            let length = input.shape[axis].and_then(Extent::as_constant);
            match length {
                Some(length) if length < 0 => Err("its input has a negative length".to_owned()),
                Some(length) => {
                    let clamp = |at: i64| {
                        (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length)
                    };
                    Ok((axis, clamp(start), clamp(end).max(clamp(start))))
                }
                // All of a free dimension is the only part that fits every size.
                None if start == 0 && end >= i64::from(i32::MAX) => Ok((axis, 0, i64::MAX)),
                None => Err("it takes a fixed part of a free dimension".to_owned()),
            }
        });
        limits.collect()
    }

    fn slice(&self, node: &NodeProto) -> Result<Tensor, String> {
        let mut result = self.input(node, 0)?.clone();
        for (axis, start, end) in self.limits(node)? {
            if end == i64::MAX {
                continue;
            }
            result.shape[axis] = Some(Extent::constant(end - start));
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            result.values = result
                .values
                .zip(range)
                .and_then(|(list, (start, end))| list.get(start..end).map(<[_]>::to_vec));
        }
        Ok(result)
    }

    fn resize(&self, node: &NodeProto) -> Result<Tensor, String> {
        let input = self.input(node, 0)?;
        let at = if node.op_type == "Resize" && node.input.len() > 2 { 2 } else { 1 };
        let scales = node.input(at).and_then(|name| self.constants.get(name));
        let Some(scales) = scales.and_then(|t| t.floats(8)).filter(|list| !list.is_empty()) else {
            // Sizes that follow from the input are formulas; baked ones are numbers.
            let sizes = self.input(node, 3).ok().and_then(|sizes| sizes.values.clone());
            let sizes = sizes.ok_or_else(|| "it resizes by what is not constant".to_owned())?;
            if sizes.iter().skip(2).any(|size| size.as_constant().is_some()) {
                return Err("it resizes to a fixed size".to_owned());
            }
            return Ok(Tensor::of(sizes.into_iter().map(Some).collect()));
        };
        if scales.len() != input.shape.len() {
            return Err("its scales do not fit its input".to_owned());
        }
        let dims = input.shape.iter().zip(scales).map(|(dim, scale)| {
            let scale = Some(scale).filter(|s| s.fract() == 0.0 && (1.0..=64.0).contains(s));
            let scale = scale.ok_or_else(|| "its scale is no whole number".to_owned())?;
            Ok(dim.and_then(|dim| dim.times(Extent::constant(scale as i64))))
        });
        Ok(Tensor::of(dims.collect::<Result<_, String>>()?))
    }

    fn squeeze(&self, node: &NodeProto) -> Result<Tensor, String> {
        let input = self.input(node, 0)?;
        let axes = self.integers(node, 1, "axes")?;
        let axes = axes.ok_or_else(|| "its axes are not given".to_owned())?;
        let add = node.op_type == "Unsqueeze";
        let rank = input.shape.len() + if add { axes.len() } else { 0 };
        let frame = Tensor::of(vec![None; rank]);
        let axes: Option<Vec<usize>> = axes.iter().map(|&axis| frame.axis(axis)).collect();
        let axes = axes.ok_or_else(|| "its axis does not exist".to_owned())?;
        let shape = if add {
            let mut rest = input.shape.iter().copied();
            let dim = |at| if axes.contains(&at) { count(1) } else { rest.next().flatten() };
            (0..rank).map(dim).collect()
        } else {
            let kept = input.shape.iter().enumerate().filter(|(at, _)| !axes.contains(at));
            kept.map(|(_, &dim)| dim).collect()
        };
        Ok(Tensor { shape, values: input.values.clone() })
    }
}
