//! Finding the head: walking back from the output.
//!
//! Ultralytics' detection head ends like this in every version since YOLOv8 (sizes for
//! 80 classes and 640x640):
//!
//! ```text
//! boxes, per scale [1,64,h,w] ─ reshape ─┐ concat [1,64,8400] ─ DFL ─ [1,4,8400] ─ decode ─┐
//! classes, per scale [1,80,h,w] ─────────┘ concat [1,80,8400] ─ sigmoid ───────────────────┴ concat
//! ```
//!
//! Older exports join boxes and classes of a scale first and split them after. DFL is
//! `reshape [1,4,16,8400] → softmax over the 16 bins → convolution with 0, 1, … 15`;
//! heads without it (one bin) have plain distances. The decode is checked as a linear
//! form: the upper half of the boxes must be `anchor + (right/bottom - left/top) / 2`, the
//! lower half `left/top + right/bottom`. Nothing here depends on names.

use super::extent::Extent;
use super::shapes::Shapes;
use crate::heads::{HeadScale, MAX_BINS, MAX_SCALES};
use crate::onnx::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Nodes between the output and a scale's convolution; a damaged graph has more.
const MAX_STEPS: usize = 64;
/// Anchors that a constant may hold: 8192x8192 pixels at stride 8.
const MAX_ANCHORS: usize = 1 << 22;

/// What was found, finest stride first: the tensors before anything is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) scales: Vec<HeadScale>,
    pub(super) bins: usize,
}

/// Finds the head that ends in `graph`'s output, for `classes` classes.
pub(super) fn find(
    graph: &GraphProto,
    shapes: &Shapes<'_>,
    classes: usize,
    opset: i64,
    sizes: Option<[i64; 3]>,
) -> Result<Head, String> {
    let output = graph.output.first().ok_or_else(|| "it has no output".to_owned())?;
    let walk = Walk::new(graph, shapes, opset);
    let (boxes, scores) = walk.ends(&output.name)?;
    let logits = match walk.producer(scores) {
        Some(node) if node.op_type == "Sigmoid" => node.input(0).unwrap_or_default(),
        _ => return Err("the class scores do not come from a sigmoid".to_owned()),
    };
    let decode = walk.decode(boxes)?;
    let (distribution, bins) = walk.bins(&decode.distances)?;
    let boxes = walk.sources(distribution, 0..4 * bins)?;
    let logits = walk.sources(logits, 0..classes)?;
    if boxes.len() != logits.len() || boxes.is_empty() || boxes.len() > MAX_SCALES {
        return Err(format!(
            "it has {} scales of boxes and {} of classes",
            boxes.len(),
            logits.len()
        ));
    }
    let mut scales = Vec::with_capacity(boxes.len());
    for (boxes, classes_of) in boxes.iter().zip(&logits) {
        let stride = walk.stride(boxes, 4 * bins)?;
        if walk.stride(classes_of, classes)? != stride {
            return Err("boxes and classes of a scale have different strides".to_owned());
        }
        scales.push(HeadScale {
            boxes: (*boxes).to_owned(),
            classes: (*classes_of).to_owned(),
            stride,
        });
    }
    if let Some([_, height, width]) = sizes {
        walk.check_anchors(&decode, &scales, height, width)?;
    }
    scales.sort_by_key(|scale| scale.stride);
    let names: HashSet<&str> =
        scales.iter().flat_map(|s| [s.boxes.as_str(), s.classes.as_str()]).collect();
    if names.len() != 2 * scales.len()
        || scales.windows(2).any(|pair| pair[0].stride >= pair[1].stride)
    {
        return Err("two of its scales are the same".to_owned());
    }
    Ok(Head { scales, bins })
}

/// Multiples of left/top distance, right/bottom distance and anchor that a tensor is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Form([f64; 3]);

impl Form {
    fn combine(self, other: Self, sign: f64) -> Self {
        let mut sum = self.0;
        for (value, more) in sum.iter_mut().zip(other.0) {
            *value += sign * more;
        }
        Self(sum)
    }

    fn scaled(self, factor: f64) -> Self {
        Self(self.0.map(|value| value * factor))
    }
}

/// The tensors that the box decode reads.
#[derive(Debug, Default)]
struct Decode<'a> {
    /// `[batch,4,anchors]`: left, top, right, bottom.
    distances: String,
    /// `[1,2,anchors]`, x then y; the exporter may write the same constant twice.
    anchors: Vec<&'a str>,
    /// `[1,anchors]`.
    strides: &'a str,
}

/// Whether a node joins tensors `[batch,channels,anchors]` by their channels. Their
/// sizes need not be known: anchors may be constants of one size.
fn joins_channels(node: &NodeProto) -> bool {
    node.op_type == "Concat" && matches!(node.int("axis"), Some(1 | -2))
}

struct Walk<'a> {
    nodes: &'a [NodeProto],
    producers: HashMap<&'a str, usize>,
    shapes: &'a Shapes<'a>,
    opset: i64,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a GraphProto, shapes: &'a Shapes<'a>, opset: i64) -> Self {
        let outputs = graph.node.iter().enumerate().flat_map(|(number, node)| {
            node.output.iter().map(move |output| (output.as_str(), number))
        });
        Self { nodes: &graph.node, producers: outputs.collect(), shapes, opset }
    }

    fn producer(&self, tensor: &str) -> Option<&'a NodeProto> {
        self.nodes.get(*self.producers.get(tensor)?)
    }

    /// Follows `Identity` backwards.
    fn origin(&self, mut tensor: &'a str) -> &'a str {
        for _ in 0..MAX_STEPS {
            match self.producer(tensor) {
                Some(node) if node.op_type == "Identity" => {
                    tensor = node.input(0).unwrap_or_default();
                }
                _ => break,
            }
        }
        tensor
    }

    fn axis(&self, node: &NodeProto, default: Option<i64>) -> Option<usize> {
        let tensor = self.shapes.tensors.get(node.input(0)?)?;
        tensor.axis(node.int("axis").or(default)?)
    }

    fn fixed(&self, tensor: &str, axis: usize) -> Option<usize> {
        self.shapes.tensors.get(tensor)?.fixed(axis)
    }

    /// The two halves of the output: boxes and scores.
    fn ends(&self, output: &'a str) -> Result<(&'a str, &'a str), String> {
        let mut tensor = self.origin(output);
        if let Some(node) = self.producer(tensor)
            && node.op_type == "Transpose"
            && node.ints("perm") == Some(&[0, 2, 1])
        {
            tensor = self.origin(node.input(0).unwrap_or_default());
        }
        match self.producer(tensor) {
            Some(node) if joins_channels(node) => match node.input.as_slice() {
                [boxes, scores] => Ok((self.origin(boxes), self.origin(scores))),
                _ => Err("its output is not joined from boxes and scores".to_owned()),
            },
            _ => Err("its output is not joined from boxes and scores".to_owned()),
        }
    }

    /// Checks that `boxes` is `(centre, size) x stride` of four distances.
    fn decode(&self, boxes: &'a str) -> Result<Decode<'a>, String> {
        let unlike = |what: &str| format!("its boxes are decoded in another way ({what})");
        let node = self.producer(boxes).filter(|node| node.op_type == "Mul");
        let node = node.ok_or_else(|| unlike("not multiplied by strides"))?;
        let [a, b] = [0, 1].map(|number| self.origin(node.input(number).unwrap_or_default()));
        let (joined, strides) = if self.is_data(a) { (a, b) } else { (b, a) };
        if self.is_data(strides) {
            return Err(unlike("not multiplied by strides"));
        }
        let mut decode = Decode { strides, ..Decode::default() };
        let joined = self.producer(joined);
        let joined = joined.filter(|node| joins_channels(node) && node.input.len() == 2);
        let joined = joined.ok_or_else(|| unlike("not joined from centre and size"))?;
        let halves = [0, 1].map(|number| joined.input(number).unwrap_or_default());
        let mut steps = 0;
        let first = self.form(halves[0], &mut decode, &mut steps)?;
        let second = self.form(halves[1], &mut decode, &mut steps)?;
        if first != Form([-0.5, 0.5, 1.0]) || second != Form([1.0, 1.0, 0.0]) {
            return Err(unlike("not centre and size of left, top, right, bottom"));
        }
        Ok(decode)
    }

    fn form(
        &self,
        tensor: &'a str,
        decode: &mut Decode<'a>,
        steps: &mut usize,
    ) -> Result<Form, String> {
        let unlike = || "its boxes are decoded in another way (not by sums)".to_owned();
        *steps += 1;
        if *steps > MAX_STEPS {
            return Err(unlike());
        }
        let tensor = self.origin(tensor);
        if !self.is_data(tensor) {
            decode.anchors.push(tensor);
            return Ok(Form([0.0, 0.0, 1.0]));
        }
        let node = self.producer(tensor).ok_or_else(unlike)?;
        let input = |number| node.input(number).unwrap_or_default();
        match node.op_type.as_str() {
            "Add" | "Sub" => {
                let sign = if node.op_type == "Add" { 1.0 } else { -1.0 };
                let (a, b) =
                    (self.form(input(0), decode, steps)?, self.form(input(1), decode, steps)?);
                Ok(a.combine(b, sign))
            }
            "Mul" | "Div" => {
                let factor = self.scalar(input(1)).ok_or_else(unlike)?;
                let factor = if node.op_type == "Mul" { factor } else { 1.0 / factor };
                Ok(self.form(input(0), decode, steps)?.scaled(factor))
            }
            "Slice" | "Split" => {
                let (whole, range) = self.part(node, tensor).ok_or_else(unlike)?;
                if self.fixed(whole, 1) != Some(4) {
                    return Err(unlike());
                }
                if !decode.distances.is_empty() && decode.distances != whole {
                    return Err(unlike());
                }
                whole.clone_into(&mut decode.distances);
                match range {
                    Range { start: 0, end: 2 } => Ok(Form([1.0, 0.0, 0.0])),
                    Range { start: 2, end: 4 } => Ok(Form([0.0, 1.0, 0.0])),
                    _ => Err(unlike()),
                }
            }
            _ => Err(unlike()),
        }
    }

    fn scalar(&self, tensor: &str) -> Option<f64> {
        match self.shapes.constant_tensor(tensor)?.floats(1)?.as_slice() {
            &[value] if value != 0.0 && value.is_finite() => Some(f64::from(value)),
            _ => None,
        }
    }

    /// Which channels (axis 1) of which tensor a `Slice` or `Split` gives out.
    fn part(&self, node: &'a NodeProto, output: &str) -> Option<(&'a str, Range<usize>)> {
        let whole = self.origin(node.input(0)?);
        if node.op_type == "Split" {
            let mut start = 0;
            for name in &node.output {
                let length = self.fixed(name, 1)?;
                if name == output {
                    return (self.axis(node, Some(0)) == Some(1))
                        .then_some((whole, start..start + length));
                }
                start += length;
            }
            return None;
        }
        match self.shapes.limits(node).ok()?.as_slice() {
            &[(1, start, end)] => {
                Some((whole, usize::try_from(start).ok()?..usize::try_from(end).ok()?))
            }
            _ => None,
        }
    }

    /// Whether a tensor's values, not only its shape, come from the picture.
    fn is_data(&self, tensor: &'a str) -> bool {
        let mut waiting = vec![tensor];
        let mut seen = HashSet::new();
        while let Some(tensor) = waiting.pop() {
            if self.shapes.constant_tensor(tensor).is_some() || !seen.insert(tensor) {
                continue;
            }
            match self.producer(tensor) {
                Some(node) if matches!(node.op_type.as_str(), "Shape" | "Size") => {}
                Some(node) => waiting.extend(node.input.iter().map(String::as_str)),
                None if tensor.is_empty() => {}
                // A graph input.
                None => return true,
            }
        }
        false
    }

    /// The tensor before the distribution is read, and how many bins a side it has.
    fn bins(&self, distances: &str) -> Result<(&'a str, usize), String> {
        let missing = || "its boxes are decoded in another way (no distances)".to_owned();
        let (&distances, _) = self.producers.get_key_value(distances).ok_or_else(missing)?;
        let reshape = self.producer(distances).ok_or_else(missing)?;
        let convolution = self.producer(self.origin(reshape.input(0).unwrap_or_default()));
        let is_dfl = |node: &&NodeProto| node.op_type == "Conv" && self.weighs_bins(node).is_some();
        match convolution.filter(is_dfl) {
            Some(node) if reshape.op_type == "Reshape" => self.distribution(node),
            _ => Ok((distances, 1)),
        }
    }

    /// The number of bins that a convolution weighs with 0, 1, 2, ….
    fn weighs_bins(&self, node: &NodeProto) -> Option<usize> {
        let weight = self.shapes.constant_tensor(node.input(1)?)?;
        let bins = match weight.dims.as_slice() {
            &[1, bins, 1, 1] => usize::try_from(bins).ok()?,
            _ => return None,
        };
        let values = weight.floats(MAX_BINS)?;
        let counts = values.iter().enumerate().all(|(bin, &value)| value == bin as f32);
        (counts && bins > 1 && node.input(2).is_none()).then_some(bins)
    }

    /// Walks from the weighing convolution to the tensor `[batch,4*bins,anchors]`, and
    /// checks that the softmax goes over the bins.
    fn distribution(&self, convolution: &'a NodeProto) -> Result<(&'a str, usize), String> {
        let unlike = || "its boxes are decoded in another way (no DFL)".to_owned();
        let bins = self.weighs_bins(convolution).ok_or_else(unlike)?;
        // From the convolution back: axes of the tensor in hand, as they were in the
        // tensor that the convolution reads.
        let mut axes = [0usize, 1, 2, 3];
        let mut softmax = false;
        let mut tensor = convolution.input(0).unwrap_or_default();
        for _ in 0..MAX_STEPS {
            let node = self.producer(tensor).ok_or_else(unlike)?;
            tensor = node.input(0).unwrap_or_default();
            match node.op_type.as_str() {
                "Identity" => {}
                "Transpose" => {
                    let order = node.ints("perm").filter(|order| order.len() == 4);
                    let order = order.ok_or_else(unlike)?;
                    let mut before = [0; 4];
                    for (&from, axis) in order.iter().zip(axes) {
                        let from = usize::try_from(from).ok().filter(|&from| from < 4);
                        before[from.ok_or_else(unlike)?] = axis;
                    }
                    axes = before;
                }
                "Softmax" => {
                    let default = if self.opset < 13 { 1 } else { -1 };
                    let axis = self.axis(node, Some(default));
                    // Before operator set 13 a softmax went over all axes from this on.
                    let over_one = self.opset >= 13 || axis == Some(3);
                    // The convolution sums over its axis 1: that must be the bins.
                    if axis.and_then(|axis| axes.get(axis)) != Some(&1) || !over_one || softmax {
                        return Err(unlike());
                    }
                    softmax = true;
                }
                "Reshape" if softmax => {
                    // [batch, side, bin, anchor] must reach the convolution as
                    // [batch, bin, side, anchor].
                    let shape =
                        node.output.first().and_then(|o| self.shapes.tensors.get(o.as_str()));
                    let sides = shape.and_then(|shape| shape.fixed(1)) == Some(4);
                    let each = shape.and_then(|shape| shape.fixed(2)) == Some(bins);
                    let tensor = self.origin(tensor);
                    let whole = self.fixed(tensor, 1) == Some(4 * bins);
                    return if axes == [0, 2, 1, 3] && sides && each && whole {
                        Ok((tensor, bins))
                    } else {
                        Err(unlike())
                    };
                }
                _ => return Err(unlike()),
            }
        }
        Err(unlike())
    }

    /// The tensors `[batch,range,h,w]` that the channels `range` of a joined tensor
    /// `[batch,channels,anchors]` are made of, in the order of the scales.
    fn sources(&self, tensor: &'a str, range: Range<usize>) -> Result<Vec<&'a str>, String> {
        let mut scales = Vec::new();
        let mut waiting = vec![(tensor, range)];
        for _ in 0..MAX_STEPS {
            let Some((tensor, range)) = waiting.pop() else { return Ok(scales) };
            let unlike =
                || format!("the tensor '{}' is joined in another way", tensor.escape_debug());
            let node = self.producer(tensor).ok_or_else(unlike)?;
            let input = node.input(0).unwrap_or_default();
            match node.op_type.as_str() {
                "Identity" => waiting.push((input, range)),
                "Reshape" => {
                    // Rows and columns become one axis; channels stay.
                    let channels = self.fixed(tensor, 1);
                    if channels.is_none() || self.fixed(input, 1) != channels {
                        return Err(unlike());
                    }
                    waiting.push((input, range));
                }
                "Slice" | "Split" => {
                    let (whole, part) = self.part(node, tensor).ok_or_else(unlike)?;
                    waiting.push((whole, part.start + range.start..part.start + range.end));
                }
                "Concat" if self.axis(node, None) == Some(2) => {
                    // Taken from the end: the last pushed is the first scale.
                    waiting.extend(node.input.iter().rev().map(|i| (i.as_str(), range.clone())));
                }
                "Concat" if self.axis(node, None) == Some(1) => {
                    let mut start = 0;
                    let mut found = None;
                    for input in &node.input {
                        let end = start + self.fixed(input, 1).ok_or_else(unlike)?;
                        if start <= range.start && range.end <= end {
                            found = Some((input.as_str(), range.start - start..range.end - start));
                        }
                        start = end;
                    }
                    waiting.push(found.ok_or_else(unlike)?);
                }
                _ if range.start == 0 && self.fixed(tensor, 1) == Some(range.end) => {
                    scales.push(tensor);
                }
                _ => return Err(unlike()),
            }
        }
        Err("its scales are joined in too many steps".to_owned())
    }

    /// The stride of a tensor `[batch,channels,height/stride,width/stride]`.
    fn stride(&self, tensor: &str, channels: usize) -> Result<usize, String> {
        let shape = self.shapes.tensors.get(tensor).map(|tensor| tensor.shape.as_slice());
        let stride = match shape {
            Some(&[Some(Extent::BATCH), Some(depth), Some(height), Some(width)])
                if depth.as_count() == Some(channels) =>
            {
                height.stride(1).filter(|&stride| width.stride(2) == Some(stride))
            }
            _ => None,
        };
        stride.ok_or_else(|| format!("the stride of '{}' cannot be told", tensor.escape_debug()))
    }

    /// Where anchors and strides are constants, they must be the cells' centres and
    /// the strides in the order of the scales.
    fn check_anchors(
        &self,
        decode: &Decode<'a>,
        scales: &[HeadScale],
        height: i64,
        width: i64,
    ) -> Result<(), String> {
        let other = || "its anchors are not the centres of its cells".to_owned();
        let floats = |tensor: &str| {
            self.shapes.constant_tensor(tensor).and_then(|tensor| tensor.floats(MAX_ANCHORS))
        };
        let cells = || {
            scales.iter().flat_map(|scale| {
                let side = |n: i64| usize::try_from(n).unwrap_or(0) / scale.stride;
                let (rows, columns) = (side(height), side(width));
                (0..rows).flat_map(move |y| (0..columns).map(move |x| (x, y, scale.stride)))
            })
        };
        for anchors in decode.anchors.iter().filter_map(|tensor| floats(tensor)) {
            let (xs, ys) = anchors.split_at(anchors.len() / 2);
            let expected = cells().map(|(x, y, _)| (x as f32 + 0.5, y as f32 + 0.5));
            if !expected.eq(xs.iter().copied().zip(ys.iter().copied())) || xs.len() != ys.len() {
                return Err(other());
            }
        }
        match floats(decode.strides) {
            Some(list) if !cells().map(|(_, _, s)| s as f32).eq(list.iter().copied()) => {
                Err("its strides are not those of its scales".to_owned())
            }
            _ => Ok(()),
        }
    }
}
