//! A head as Ultralytics' exporter writes it, over the cells of a tiny detector.

use super::{CELL, Graph, int, ints};
use crate::onnx::FLOAT;

/// Scales of the head, finest first.
pub(super) const STRIDES: [usize; 2] = [16, 32];

/// The head of an Ultralytics export, from two scales to the joined output.
///
/// Class 1 (green) is found at stride 16, so one green cell of 32x32 pixels yields four
/// boxes of 16x16; every other class at stride 32. A score is `sigmoid(20 x colour -
/// 10)`: 0.99995 for a pure colour. The box of a cell is the cell itself; blue makes it
/// wider, up to nearly twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DflHead {
    /// Bins of the distribution of each distance; 1: distances without DFL, as YOLO26.
    pub bins: usize,
    /// Boxes and classes of a scale are joined before the scales are, and split again
    /// (Ultralytics before 8.4).
    pub joined: bool,
    /// Constants come from `Constant` nodes (not simplified) instead of initialisers.
    pub constant_nodes: bool,
    /// The cells of stride 32 go through two reshapes with a baked size, as attention
    /// does (YOLOv10 and later). Only with a fixed size.
    pub reshaped: bool,
}

impl Default for DflHead {
    fn default() -> Self {
        Self { bins: 16, joined: false, constant_nodes: false, reshaped: false }
    }
}

impl DflHead {
    /// Writes `output0`: `[batch,4+classes,anchors]`.
    pub(super) fn write(&self, graph: &mut Graph, classes: usize, size: Option<(usize, usize)>) {
        let sides = 4 * self.bins;
        let mut boxes = Vec::new();
        let mut logits = Vec::new();
        let mut joined = Vec::new();
        for stride in STRIDES {
            self.maps(graph, classes, stride, size);
            let (box_map, class_map) = (format!("box{stride}"), format!("class{stride}"));
            if self.joined {
                let both = format!("both{stride}");
                graph.node("Concat", &[&box_map, &class_map], &both, vec![int("axis", 1)]);
                joined.push(flat(graph, &both, &[(sides + classes) as i64, -1], size));
            } else {
                boxes.push(flat(graph, &box_map, &[sides as i64, -1], size));
                logits.push(flat(graph, &class_map, &[classes as i64, -1], size));
            }
        }
        let join = |graph: &mut Graph, parts: &[String], name: &str| {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            graph.node("Concat", &parts, name, vec![int("axis", -1)]);
        };
        if self.joined {
            join(graph, &joined, "joined");
            graph.int64("parts", &[2], &[sides as i64, classes as i64]);
            graph.node("Split", &["joined", "parts"], "boxes", vec![int("axis", 1)]);
            if let Some(split) = graph.nodes.last_mut() {
                split.output.push("logits".to_owned());
            }
        } else {
            join(graph, &boxes, "boxes");
            join(graph, &logits, "logits");
        }
        let distances = self.distances(graph, size);
        match size {
            Some((height, width)) => baked_anchors(graph, height, width),
            None => computed_anchors(graph),
        }
        decode(graph, &distances);
        if self.constant_nodes {
            graph.initialisers_to_nodes();
        }
    }

    /// `boxN` `[b,4*bins,h,w]` and `classN` `[b,classes,h,w]` of one stride.
    fn maps(&self, graph: &mut Graph, classes: usize, stride: usize, size: Option<(usize, usize)>) {
        let side = stride as i64;
        let shape = vec![ints("kernel_shape", &[side, side]), ints("strides", &[side, side])];
        let mut cells = format!("cells{stride}");
        graph.node("AveragePool", &["images"], &cells, shape);
        if let Some((height, width)) = size.filter(|_| self.reshaped && stride == CELL) {
            let (rows, columns) = ((height / CELL) as i64, (width / CELL) as i64);
            graph.int64("tokens", &[3], &[1, 3, rows * columns]);
            graph.int64("back", &[4], &[1, 3, rows, columns]);
            graph.node("Reshape", &[&cells, "tokens"], "flattened", vec![]);
            graph.node("Reshape", &["flattened", "back"], "restored", vec![]);
            "restored".clone_into(&mut cells);
        }

        let mut convolution = |name: &str, weights: &[f32], biases: &[f32]| {
            let (weight, bias) = (format!("{name}{stride}.weight"), format!("{name}{stride}.bias"));
            graph.float(&weight, &[biases.len() as i64, 3, 1, 1], weights);
            graph.float(&bias, &[biases.len() as i64], biases);
            graph.node("Conv", &[&cells, &weight, &bias], &format!("{name}{stride}"), vec![]);
        };
        // Half a stride to each side, and more where it is blue: bins 0 and 1 are as
        // likely, or the distance itself is 0.5.
        let mut weights = vec![0.0; 4 * self.bins * 3];
        let mut biases = vec![if self.bins == 1 { 0.5 } else { -20.0 }; 4 * self.bins];
        if self.bins == 1 {
            weights.chunks_exact_mut(3).for_each(|row| row[2] = 0.5);
        } else {
            biases.chunks_exact_mut(self.bins).for_each(|side| side[..2].fill(0.0));
            weights.chunks_exact_mut(3 * self.bins).for_each(|side| side[5] = 4.0);
        }
        convolution("box", &weights, &biases);
        let mut weights = vec![0.0; classes * 3];
        for (class, row) in weights.chunks_exact_mut(3).enumerate().take(3) {
            if (class == 1) == (stride == STRIDES[0]) {
                row.fill(-10.0);
                row[class] = 20.0;
            }
        }
        convolution("class", &weights, &vec![-10.0; classes]);
    }

    /// The name of the tensor `[b,4,anchors]`.
    fn distances(&self, graph: &mut Graph, size: Option<(usize, usize)>) -> String {
        if self.bins == 1 {
            return "boxes".to_owned();
        }
        let bins = self.bins as i64;
        let sides = flat(graph, "boxes", &[4, bins, -1], size);
        graph.node("Transpose", &[&sides], "by_bin", vec![ints("perm", &[0, 2, 1, 3])]);
        graph.node("Softmax", &["by_bin"], "likely", vec![int("axis", 1)]);
        let counts: Vec<f32> = (0..self.bins).map(|bin| bin as f32).collect();
        graph.float("dfl.weight", &[1, bins, 1, 1], &counts);
        graph.node("Conv", &["likely", "dfl.weight"], "expected", vec![]);
        flat(graph, "expected", &[4, -1], size)
    }
}

/// Reshapes to `[batch, dims…]`; the name of the result.
fn flat(graph: &mut Graph, tensor: &str, dims: &[i64], size: Option<(usize, usize)>) -> String {
    let (target, result) = (format!("{tensor}.target"), format!("{tensor}.flat"));
    if size.is_some() {
        let dims: Vec<i64> = [1].iter().chain(dims).copied().collect();
        graph.int64(&target, &[dims.len() as i64], &dims);
    } else {
        let (shape, batch, rest) =
            (format!("{tensor}.shape"), format!("{tensor}.batch"), format!("{tensor}.rest"));
        graph.node("Shape", &[tensor], &shape, vec![]);
        graph.int64(&format!("{tensor}.first"), &[1], &[0]);
        graph.node("Gather", &[&shape, &format!("{tensor}.first")], &batch, vec![int("axis", 0)]);
        graph.int64(&rest, &[dims.len() as i64], dims);
        graph.node("Concat", &[&batch, &rest], &target, vec![int("axis", 0)]);
    }
    graph.node("Reshape", &[tensor, &target], &result, vec![]);
    result
}

/// `anchors` `[1,2,a]` and `strides` `[1,a]` as constants.
fn baked_anchors(graph: &mut Graph, height: usize, width: usize) {
    let (mut xs, mut ys, mut strides) = (Vec::new(), Vec::new(), Vec::new());
    for stride in STRIDES {
        for y in 0..height / stride {
            for x in 0..width / stride {
                xs.push(x as f32 + 0.5);
                ys.push(y as f32 + 0.5);
                strides.push(stride as f32);
            }
        }
    }
    let count = strides.len() as i64;
    xs.extend(ys);
    graph.float("anchors", &[1, 2, count], &xs);
    graph.float("strides", &[1, count], &strides);
}

/// The same from the shapes of the maps.
fn computed_anchors(graph: &mut Graph) {
    graph.int64("zero", &[], &[0]);
    graph.int64("one", &[], &[1]);
    graph.int64("axis_2", &[], &[2]);
    graph.int64("axis_3", &[], &[3]);
    graph.int64("front", &[1], &[0]);
    graph.int64("back_axis", &[1], &[-1]);
    graph.int64("row", &[2], &[1, -1]);
    graph.int64("column", &[2], &[-1, 1]);
    graph.int64("pairs", &[2], &[-1, 2]);
    graph.float("half_cell", &[], &[0.5]);
    let axis0 = || vec![int("axis", 0)];
    for stride in STRIDES {
        let of = |name: &str| format!("{name}{stride}");
        graph.node("Shape", &[&of("box")], &of("grid"), vec![]);
        for (axis, shape, name) in [("axis_2", "column", "y"), ("axis_3", "row", "x")] {
            let [count, steps, float, centre, line, zeros] =
                ["count", "steps", "float", "centre", "line", "zeros"]
                    .map(|part| of(&format!("{name}_{part}")));
            graph.node("Gather", &[&of("grid"), axis], &count, axis0());
            graph.node("Range", &["zero", &count, "one"], &steps, vec![]);
            graph.node("Cast", &[&steps], &float, vec![int("to", i64::from(FLOAT))]);
            graph.node("Add", &[&float, "half_cell"], &centre, vec![]);
            graph.node("Reshape", &[&centre, shape], &line, vec![]);
            graph.node("Sub", &[&line, &line], &zeros, vec![]);
        }
        // A row plus a column of zeros is the row on every line.
        for (line, zeros, all, last) in
            [("x_line", "y_zeros", "x_all", "x_last"), ("y_line", "x_zeros", "y_all", "y_last")]
        {
            graph.node("Add", &[&of(line), &of(zeros)], &of(all), vec![]);
            graph.node("Unsqueeze", &[&of(all), "back_axis"], &of(last), vec![]);
        }
        let xy = [of("x_last"), of("y_last")];
        graph.node("Concat", &[&xy[0], &xy[1]], &of("xy"), vec![int("axis", -1)]);
        graph.node("Reshape", &[&of("xy"), "pairs"], &of("points"), vec![]);
        // Strides: the points times zero plus the stride, first column.
        graph.float(&of("stride"), &[], &[stride as f32]);
        graph.node("Sub", &[&of("points"), &of("points")], &of("zeros"), vec![]);
        graph.node("Add", &[&of("zeros"), &of("stride")], &of("stride_pairs"), vec![]);
    }
    let all = |name: &str| STRIDES.map(|stride| format!("{name}{stride}"));
    let [a, b] = all("points");
    graph.node("Concat", &[&a, &b], "points", axis0());
    graph.node("Transpose", &["points"], "points_xy", vec![ints("perm", &[1, 0])]);
    graph.node("Unsqueeze", &["points_xy", "front"], "anchors", vec![]);
    let [a, b] = all("stride_pairs");
    graph.node("Concat", &[&a, &b], "stride_pairs", axis0());
    graph.node("Transpose", &["stride_pairs"], "strides_xy", vec![ints("perm", &[1, 0])]);
    graph.node("Gather", &["strides_xy", "front"], "strides", axis0());
}

/// `output0` from `[b,4,anchors]` distances, `logits`, `anchors` and `strides`.
fn decode(graph: &mut Graph, distances: &str) {
    for (name, at) in [("from", 0), ("middle", 2), ("to", 4), ("channel", 1)] {
        graph.int64(name, &[1], &[at]);
    }
    graph.float("two", &[], &[2.0]);
    graph.node("Slice", &[distances, "from", "middle", "channel"], "left_top", vec![]);
    graph.node("Slice", &[distances, "middle", "to", "channel"], "right_bottom", vec![]);
    graph.node("Sub", &["anchors", "left_top"], "start", vec![]);
    graph.node("Add", &["anchors", "right_bottom"], "end", vec![]);
    graph.node("Add", &["start", "end"], "sum", vec![]);
    graph.node("Div", &["sum", "two"], "centre", vec![]);
    graph.node("Sub", &["end", "start"], "size", vec![]);
    graph.node("Concat", &["centre", "size"], "cells_box", vec![int("axis", 1)]);
    graph.node("Mul", &["cells_box", "strides"], "pixels", vec![]);
    graph.node("Sigmoid", &["logits"], "scores", vec![]);
    graph.node("Concat", &["pixels", "scores"], "output0", vec![int("axis", 1)]);
}
