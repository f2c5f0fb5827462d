//! From a file's bytes to a [`Model`], or to the sentence that says why not.

use crate::ModelError;
use crate::graph;
use crate::heads;
use crate::layout::{self, Hints, OutputLayout};
use crate::metadata;
use crate::model::{Dim, Model, TensorInfo};
use crate::onnx::{self, DimensionValue, ModelProto, TensorShapeProto, ValueInfoProto};
use bytes::Bytes;
use prost::Message;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Protocol buffers end at 2 GiB; larger models keep their weights outside.
const MAX_BYTES: u64 = 2 << 30;
/// Largest stride of every Ultralytics detector without a P6 head.
const DEFAULT_STRIDE: usize = 32;
/// No sensible network input or output has a longer side.
const MAX_DIM: i64 = 1 << 24;
/// Characters of a metadata value that a message shows.
const EXCERPT: usize = 60;

/// The whole file, which must be one and no longer than protocol buffers may be.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_owned(), source };
    // Asked before opening: opening a FIFO would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ModelError::NotAFile { path: path.to_owned() });
    }
    let too_large = |bytes| ModelError::TooLarge { path: path.to_owned(), bytes, limit: MAX_BYTES };
    if metadata.len() > MAX_BYTES {
        return Err(too_large(metadata.len()));
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // A file may grow while it is read; `take` keeps the bound.
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > MAX_BYTES {
        return Err(too_large(read as u64));
    }
    Ok(bytes)
}

/// What the first bytes look like, for the message when they are no ONNX.
fn hint(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"PK\x03\x04") {
        "it is a zip archive, perhaps a PyTorch .pt; export it with `yolo export format=onnx`"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer; fetch the real file with `git lfs pull`"
    } else if bytes.starts_with(b"<") {
        "it is an XML or HTML page, perhaps an OpenVINO .xml or a failed download; give the .onnx"
    } else {
        "the bytes are not an ONNX model, or it is damaged or cut short; export or copy it again"
    }
}

/// Decodes and checks a whole file; the model does not keep the bytes.
pub(crate) fn model(path: &Path, bytes: Bytes) -> Result<Model, ModelError> {
    if bytes.is_empty() {
        return Err(ModelError::Empty { path: path.to_owned() });
    }
    let hint = hint(&bytes);
    let proto = ModelProto::decode(bytes).map_err(|source| ModelError::NotOnnx {
        path: path.to_owned(),
        hint: hint.to_owned(),
        source: Some(source),
    })?;
    inspect(path, &proto)
}

fn inspect(path: &Path, proto: &ModelProto) -> Result<Model, ModelError> {
    let Some(graph) = proto.graph.as_ref().filter(|graph| !graph.node.is_empty()) else {
        return Err(ModelError::NotOnnx {
            path: path.to_owned(),
            hint:
                "it holds no graph; the file is damaged or no ONNX model, export or copy it again"
                    .to_owned(),
            source: None,
        });
    };
    graph::check(graph).map_err(|reason| ModelError::NotOnnx {
        path: path.to_owned(),
        hint: format!("its graph is damaged ({reason}); export or copy it again"),
        source: None,
    })?;
    let entry = |key: &str| {
        let found = proto.metadata_props.iter().find(|entry| entry.key == key);
        found.map(|entry| entry.value.as_str())
    };
    if let Some(task) = entry("task").filter(|task| *task != "detect") {
        return Err(ModelError::Task { path: path.to_owned(), task: excerpt(task) });
    }
    let names = field(path, "names", entry("names"), metadata::parse_names, "{0: 'person', …}")?;
    let stride = field(path, "stride", entry("stride"), parse_stride, "a number from 1 to 4096")?;
    let image_size = field(path, "imgsz", entry("imgsz"), metadata::parse_size, "[640, 640]")?;

    // Files of IR version 3 list the weights among the inputs.
    let weights: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<TensorInfo> =
        graph.input.iter().filter(|i| !weights.contains(i.name.as_str())).map(tensor).collect();
    let outputs: Vec<TensorInfo> = graph.output.iter().map(tensor).collect();
    let producer = format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned();
    let refuse = |reason: String| ModelError::NotADetector {
        path: path.to_owned(),
        reason,
        found: found(&inputs, &outputs, &producer),
    };

    let [input] = inputs.as_slice() else {
        return Err(refuse(format!("it has {} inputs", inputs.len())));
    };
    check_input(input).map_err(refuse)?;
    let mut heads = Vec::new();
    let mut bins = 1;
    let (layout, classes) = if let Some(text) = entry(heads::KEY) {
        let found = heads::read(text, &outputs, names.as_ref().map(Vec::len)).map_err(refuse)?;
        (heads, bins) = (found.scales, found.bins);
        (OutputLayout::Heads, found.classes)
    } else {
        let [output] = outputs.as_slice() else {
            return Err(refuse(format!("it has {} outputs", outputs.len())));
        };
        if output.element_type != onnx::FLOAT {
            return Err(refuse(format!(
                "its output is {} instead of float32",
                type_name(output.element_type)
            )));
        }
        let with_nms = entry("args").is_some_and(|args| metadata::has_true(args, "nms"));
        let end_to_end = match entry("end2end") {
            _ if with_nms => Some(true),
            Some(value) => Some(value.eq_ignore_ascii_case("true")),
            None => None,
        };
        let hints = Hints {
            named: names.as_ref().map(Vec::len),
            end_to_end,
            anchors: layout::anchors(input.size()),
        };
        layout::recognise(output, hints).map_err(refuse)?
    };
    Ok(Model {
        path: path.to_owned(),
        name: path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
        layout,
        heads,
        bins,
        labels: names.unwrap_or_else(|| (0..classes).map(metadata::default_name).collect()),
        stride: stride.unwrap_or(DEFAULT_STRIDE),
        image_size,
        input: input.clone(),
        outputs,
        producer,
        bytes: None,
    })
}

fn check_input(input: &TensorInfo) -> Result<(), String> {
    let [_, channels, height, width] = input.shape.as_slice() else {
        return Err(format!("its input has rank {} instead of 4", input.shape.len()));
    };
    match channels {
        Dim::Fixed(3) => {}
        Dim::Fixed(n) => return Err(format!("its input has {n} channels instead of 3")),
        // An exporter that frees every dimension still means RGB.
        Dim::Symbolic(_) => {}
    }
    if height.fixed() == Some(0) || width.fixed() == Some(0) {
        return Err("its input has no pixels".to_owned());
    }
    if input.element_type != onnx::FLOAT {
        return Err(format!(
            "its input is {} instead of float32 (export without half=True or int8=True)",
            type_name(input.element_type)
        ));
    }
    Ok(())
}

fn parse_stride(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|stride| (1..=4096).contains(stride))
}

fn field<T>(
    path: &Path,
    key: &'static str,
    value: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Option<T>, ModelError> {
    let Some(value) = value else { return Ok(None) };
    match parse(value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(ModelError::Metadata {
            path: path.to_owned(),
            key,
            value: excerpt(value),
            expected,
        }),
    }
}

fn excerpt(value: &str) -> String {
    let mut text: String = value.chars().take(EXCERPT).flat_map(char::escape_debug).collect();
    if value.chars().nth(EXCERPT).is_some() {
        text.push('…');
    }
    text
}

fn tensor(value: &ValueInfoProto) -> TensorInfo {
    let kind = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    TensorInfo {
        name: value.name.clone(),
        element_type: kind.map_or(0, |t| t.elem_type),
        shape: kind.and_then(|t| t.shape.as_ref()).map_or_else(Vec::new, dims),
    }
}

fn dims(shape: &TensorShapeProto) -> Vec<Dim> {
    let dim = |value: &Option<DimensionValue>| match value {
        // Some exporters write -1 or 0 for "free".
        Some(DimensionValue::Value(n @ 1..=MAX_DIM)) => {
            usize::try_from(*n).map_or_else(|_| Dim::Symbolic(n.to_string()), Dim::Fixed)
        }
        Some(DimensionValue::Value(n)) => Dim::Symbolic(n.to_string()),
        Some(DimensionValue::Param(name)) => Dim::Symbolic(excerpt(name)),
        None => Dim::Symbolic(String::new()),
    };
    shape.dim.iter().map(|d| dim(&d.value)).collect()
}

/// `inputs images float32[1,3,640,640]; outputs …; written by pytorch 2.4.0`.
fn found(inputs: &[TensorInfo], outputs: &[TensorInfo], producer: &str) -> String {
    let list = |tensors: &[TensorInfo]| {
        // A graph with very many outputs must not fill the log.
        let mut texts: Vec<String> = tensors
            .iter()
            .take(8)
            .map(|t| {
                let shape = layout::shape_text(&t.shape);
                format!("{} {}{shape}", excerpt(&t.name), type_name(t.element_type))
            })
            .collect();
        if tensors.len() > texts.len() {
            texts.push(format!("and {} more", tensors.len() - texts.len()));
        }
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    let producer = if producer.is_empty() { "an unnamed exporter" } else { producer };
    format!("inputs {}; outputs {}; written by {}", list(inputs), list(outputs), excerpt(producer))
}

/// Names of `TensorProto.DataType`.
fn type_name(element_type: i32) -> String {
    let name = match element_type {
        0 => "untyped",
        1 => "float32",
        2 => "uint8",
        3 => "int8",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        10 => "float16",
        11 => "float64",
        16 => "bfloat16",
        other => return format!("type{other}"),
    };
    name.to_owned()
}
