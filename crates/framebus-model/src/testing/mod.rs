//! Tiny ONNX models for tests: real graphs, no download, no Python.
//!
//! [`TinyDetector`] sees colours. The network averages cells of 32x32 pixels of its
//! input and scores each cell per class: class 0 is red, 1 green, 2 blue (`own
//! channel - half of the two others`, clipped to 0..=1); further classes never
//! fire. The box of a cell is the cell itself. So a picture that is black but for
//! one pure red cell yields one box of class 0 with score 1, exactly where the cell
//! is; grey, white and black yield nothing.
//!
//! With a [`DflHead`] it ends like Ultralytics' exports, so that its head can be cut off.

mod dfl;
mod types;

pub use dfl::DflHead;
pub use types::check_types;

use crate::OutputLayout;
use crate::onnx::{
    AttributeProto, DimensionProto, DimensionValue, FLOAT, GraphProto, INT64, ModelProto,
    NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use bytes::Bytes;
use prost::Message;

/// Side of the cells that [`TinyDetector`] looks at, in pixels of its input.
pub const CELL: usize = 32;

/// `AttributeProto.AttributeType.INT`, `TENSOR` and `INTS`.
const INT: i32 = 2;
const TENSOR: i32 = 4;
const INTS: i32 = 7;

/// A recipe for a tiny detector.
#[derive(Debug, Clone)]
pub struct TinyDetector {
    /// Number of classes, at least one.
    pub classes: usize,
    /// Fixed height and width, multiples of [`CELL`]; `None` leaves batch, height
    /// and width free.
    pub size: Option<(usize, usize)>,
    /// How the output lies. [`OutputLayout::Heads`] is not written: cut a model with a
    /// head instead ([`crate::Model::cut`]).
    pub layout: OutputLayout,
    /// The head of an Ultralytics export; `None`: boxes and scores come straight from
    /// the cells, and nothing can be cut off. Dense layouts only.
    pub head: Option<DflHead>,
    /// Cells with a score above 0.9 answer NaN instead.
    pub nan_above: bool,
    /// Metadata entries; `task`, `stride`, `names` (and `imgsz` for a fixed size) by
    /// default.
    pub metadata: Vec<(String, String)>,
}

impl TinyDetector {
    /// As [`TinyDetector::new`] with a head of 16 bins as in YOLOv8's export.
    #[must_use]
    pub fn with_head(classes: usize, size: Option<(usize, usize)>) -> Self {
        Self { head: Some(DflHead::default()), ..Self::new(classes, size) }
    }

    /// A dense detector with the metadata of an Ultralytics export.
    #[must_use]
    pub fn new(classes: usize, size: Option<(usize, usize)>) -> Self {
        const COLOURS: [&str; 3] = ["red", "green", "blue"];
        let names: Vec<String> = (0..classes)
            .map(|n| match COLOURS.get(n) {
                Some(colour) => format!("{n}: '{colour}'"),
                None => format!("{n}: 'class{n}'"),
            })
            .collect();
        let entry = |key: &str, value: String| (key.to_owned(), value);
        let mut metadata = vec![
            entry("task", "detect".to_owned()),
            entry("stride", CELL.to_string()),
            entry("names", format!("{{{}}}", names.join(", "))),
        ];
        if let Some((height, width)) = size {
            metadata.push(entry("imgsz", format!("[{height}, {width}]")));
        }
        Self {
            classes,
            size,
            layout: OutputLayout::Dense { channels_first: true },
            head: None,
            nan_above: false,
            metadata,
        }
    }

    /// Sets or adds one metadata entry.
    #[must_use]
    pub fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Writes the file's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut graph = Graph::default();
        if let Some(head) = &self.head {
            head.write(&mut graph, self.classes, self.size);
        } else {
            graph.averages();
            graph.scores(self.classes);
            if self.nan_above {
                graph.nan_above();
            }
            graph.centres();
        }
        let (tail, dims) = self.tail(&mut graph);
        let cells = |side: usize| self.size.map(|(height, width)| (height / side) * (width / side));
        let anchors = match &self.head {
            Some(_) => dfl::STRIDES.iter().map(|&stride| cells(stride)).sum(),
            None => cells(CELL),
        };
        let batch = dim(self.size.map(|_| 1), "batch");
        let anchors = dim(anchors, "anchors");
        let output = match dims {
            Tail::Rows(channels) => vec![batch.clone(), dim(Some(channels), ""), anchors],
            Tail::Columns(channels) => vec![batch.clone(), anchors, dim(Some(channels), "")],
        };
        let input = vec![
            batch,
            dim(Some(3), ""),
            dim(self.size.map(|s| s.0), "height"),
            dim(self.size.map(|s| s.1), "width"),
        ];
        graph.finish(value("images", input), value(&tail, output), &self.metadata)
    }

    fn tail(&self, graph: &mut Graph) -> (String, Tail) {
        let channels = 4 + self.classes;
        match self.layout {
            OutputLayout::Dense { channels_first } if self.head.is_some() => {
                if channels_first {
                    return ("output0".to_owned(), Tail::Rows(channels));
                }
                graph.node("Transpose", &["output0"], "transposed", vec![ints("perm", &[0, 2, 1])]);
                ("transposed".to_owned(), Tail::Columns(channels))
            }
            OutputLayout::Dense { channels_first } => {
                graph.node(
                    "Concat",
                    &["cx", "cy", "side", "side", "scores"],
                    "map",
                    vec![int("axis", 1)],
                );
                graph.int64("rows", &[3], &[0, channels as i64, -1]);
                graph.node("Reshape", &["map", "rows"], "output0", vec![]);
                if channels_first {
                    return ("output0".to_owned(), Tail::Rows(channels));
                }
                graph.node("Transpose", &["output0"], "transposed", vec![ints("perm", &[0, 2, 1])]);
                ("transposed".to_owned(), Tail::Columns(channels))
            }
            OutputLayout::EndToEnd | OutputLayout::Heads => {
                graph.end_to_end();
                ("end2end".to_owned(), Tail::Columns(6))
            }
        }
    }
}

/// A dense detector as [`TinyDetector::new`] makes it.
#[must_use]
pub fn tiny_detector(classes: usize, size: Option<(usize, usize)>) -> Vec<u8> {
    TinyDetector::new(classes, size).build()
}

/// A classifier: `[1,3,64,64]` → `[1,10]`, without metadata.
#[must_use]
pub fn not_yolo() -> Vec<u8> {
    let mut graph = Graph::default();
    graph.node("GlobalAveragePool", &["images"], "mean", vec![]);
    graph.float("weight", &[10, 3, 1, 1], &[0.1; 30]);
    graph.node("Conv", &["mean", "weight"], "map", vec![]);
    graph.node("Flatten", &["map"], "logits", vec![int("axis", 1)]);
    let input = [1, 3, 64, 64].map(|n| dim(Some(n), "")).to_vec();
    let output = [1, 10].map(|n| dim(Some(n), "")).to_vec();
    graph.finish(value("images", input), value("logits", output), &[])
}

enum Tail {
    Rows(usize),
    Columns(usize),
}

/// A graph that is being written.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) tensors: Vec<TensorProto>,
}

impl Graph {
    /// `cells`: mean of every cell, `[b,3,h,w]`.
    fn averages(&mut self) {
        let side = CELL as i64;
        let shape = vec![ints("kernel_shape", &[side, side]), ints("strides", &[side, side])];
        self.node("AveragePool", &["images"], "cells", shape);
    }

    /// `scores`: `[b,classes,h,w]`, 0..=1.
    fn scores(&mut self, classes: usize) {
        let mut weights = vec![0.0; classes * 3];
        for (class, row) in weights.chunks_exact_mut(3).enumerate().take(3) {
            row.fill(-0.5);
            row[class] = 1.0;
        }
        self.float("score_weight", &[classes as i64, 3, 1, 1], &weights);
        self.node("Conv", &["cells", "score_weight"], "score_raw", vec![]);
        self.float("zero", &[], &[0.0]);
        self.float("one", &[], &[1.0]);
        self.node("Clip", &["score_raw", "zero", "one"], "scores", vec![]);
    }

    /// `scores * sqrt(0.9 - scores)`: NaN for cells above 0.9.
    fn nan_above(&mut self) {
        self.float("limit", &[], &[0.9]);
        self.node("Sub", &["limit", "scores"], "below", vec![]);
        self.node("Sqrt", &["below"], "root", vec![]);
        self.node("Mul", &["scores", "root"], "scores_or_nan", vec![]);
        for node in &mut self.nodes {
            // What reads `scores` from here on gets the faulty ones.
            if node.output.iter().any(|o| o == "scores") {
                node.output = vec!["scores_clean".to_owned()];
            }
            for input in node.input.iter_mut().filter(|i| i.as_str() == "scores") {
                "scores_clean".clone_into(input);
            }
        }
        self.node("Identity", &["scores_or_nan"], "scores", vec![]);
    }

    /// `cx`, `cy`, `side`: `[b,1,h,w]` in pixels, for any size.
    fn centres(&mut self) {
        let side = CELL as f32;
        self.float("side_weight", &[1, 3, 1, 1], &[0.0; 3]);
        self.float("side_bias", &[1], &[side]);
        self.node("Conv", &["cells", "side_weight", "side_bias"], "side", vec![]);
        self.float("half", &[], &[side / 2.0]);
        self.int64("axis_x", &[], &[3]);
        self.int64("axis_y", &[], &[2]);
        self.node("CumSum", &["side", "axis_x"], "right", vec![]);
        self.node("CumSum", &["side", "axis_y"], "bottom", vec![]);
        self.node("Sub", &["right", "half"], "cx", vec![]);
        self.node("Sub", &["bottom", "half"], "cy", vec![]);
    }

    /// `end2end`: `[b,cells,6]` for the strongest class of each cell.
    fn end_to_end(&mut self) {
        self.node("Sub", &["right", "side"], "left", vec![]);
        self.node("Sub", &["bottom", "side"], "top", vec![]);
        let axes = || vec![int("keepdims", 1)];
        let mut best = axes();
        best.push(ints("axes", &[1]));
        self.node("ReduceMax", &["scores"], "best", best);
        let mut which = axes();
        which.push(int("axis", 1));
        self.node("ArgMax", &["scores"], "which", which);
        self.node("Cast", &["which"], "class", vec![int("to", i64::from(FLOAT))]);
        self.node(
            "Concat",
            &["left", "top", "right", "bottom", "best", "class"],
            "map",
            vec![int("axis", 1)],
        );
        self.int64("rows", &[3], &[0, 6, -1]);
        self.node("Reshape", &["map", "rows"], "flat", vec![]);
        self.node("Transpose", &["flat"], "end2end", vec![ints("perm", &[0, 2, 1])]);
    }

    pub(crate) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&s| s.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("{op}_{output}"),
            op_type: op.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    /// Writes every constant as a `Constant` node in front of all others,
    /// as exporters do without simplification.
    fn initialisers_to_nodes(&mut self) {
        let constants = std::mem::take(&mut self.tensors).into_iter().map(|tensor| NodeProto {
            output: vec![tensor.name.clone()],
            name: format!("Constant_{}", tensor.name),
            op_type: "Constant".to_owned(),
            attribute: vec![AttributeProto {
                name: "value".to_owned(),
                t: Some(tensor),
                r#type: TENSOR,
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
        self.nodes.splice(0..0, constants);
    }

    pub(crate) fn float(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, dims, FLOAT, raw);
    }

    pub(crate) fn int64(&mut self, name: &str, dims: &[i64], values: &[i64]) {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, dims, INT64, raw);
    }

    fn tensor(&mut self, name: &str, dims: &[i64], data_type: i32, raw: Vec<u8>) {
        self.tensors.push(TensorProto {
            dims: dims.to_vec(),
            data_type,
            name: name.to_owned(),
            raw_data: Bytes::from(raw),
            ..TensorProto::default()
        });
    }

    pub(crate) fn finish(
        self,
        input: ValueInfoProto,
        output: ValueInfoProto,
        metadata: &[(String, String)],
    ) -> Vec<u8> {
        let entry = |(key, value): &(String, String)| StringStringEntryProto {
            key: key.clone(),
            value: value.clone(),
        };
        let model = ModelProto {
            // IR 8 with operator set 17 is what 2022's exporters wrote: every runtime reads it.
            ir_version: 8,
            producer_name: "framebus-testing".to_owned(),
            producer_version: "1".to_owned(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            metadata_props: metadata.iter().map(entry).collect(),
            graph: Some(GraphProto {
                name: "tiny".to_owned(),
                node: self.nodes,
                initializer: self.tensors,
                input: vec![input],
                output: vec![output],
                sparse_initializer: Vec::new(),
            }),
        };
        model.encode_to_vec()
    }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, r#type: INT, ..AttributeProto::default() }
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        ints: ints.to_vec(),
        r#type: INTS,
        ..AttributeProto::default()
    }
}

pub(crate) fn dim(fixed: Option<usize>, name: &str) -> DimensionProto {
    let value = match fixed {
        Some(n) => DimensionValue::Value(n as i64),
        None => DimensionValue::Param(name.to_owned()),
    };
    DimensionProto { value: Some(value) }
}

pub(crate) fn value(name: &str, dim: Vec<DimensionProto>) -> ValueInfoProto {
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: FLOAT,
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}
