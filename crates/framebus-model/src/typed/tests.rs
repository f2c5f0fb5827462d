//! Graphs with what detectors have beside convolutions; what stays as it lies; what is
//! refused.

use super::tensor::Converter;
use super::{Element, Typed};
use crate::onnx::{
    self, AttributeProto, FLOAT, FLOAT16, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    TensorProto,
};
use crate::testing::{DflHead, Graph, TinyDetector, check_types, dim, int, ints, value};
use crate::{Model, OutputLayout, wire};
use bytes::Bytes;
use half::f16;
use prost::Message;
use std::path::Path;

fn open(bytes: Vec<u8>) -> Model {
    Model::from_bytes(Path::new("tiny.onnx"), bytes).expect("a model")
}

fn half(bytes: Vec<u8>) -> Result<Typed, String> {
    open(bytes).typed(Element::F16).map_err(|error| error.to_string())
}

fn graph(bytes: &Bytes) -> GraphProto {
    ModelProto::decode(bytes.clone()).expect("whole").graph.expect("a graph")
}

fn node<'a>(graph: &'a GraphProto, output: &str) -> &'a NodeProto {
    let found = graph.node.iter().find(|node| node.output.iter().any(|name| name == output));
    found.unwrap_or_else(|| panic!("nothing writes {output}"))
}

fn casts(graph: &GraphProto) -> Vec<&str> {
    let casts = graph.node.iter().filter(|n| n.op_type == "Cast" && n.name.contains("framebus/"));
    casts.map(|node| node.output[0].as_str()).collect()
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind, ..AttributeProto::default() }
}

fn metadata() -> Vec<(String, String)> {
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    vec![entry("task", "detect"), entry("names", "{0: 'a', 1: 'b'}")]
}

fn finish(graph: Graph) -> Vec<u8> {
    let input = [1, 3, 64, 64].map(|n| dim(Some(n), "")).to_vec();
    let output = [1, 6, 256].map(|n| dim(Some(n), "")).to_vec();
    graph.finish(value("images", input), value("output0", output), &metadata())
}

/// From a map `[1,8,16,16]` to `output0`, with a constant that the body reads too.
fn head(graph: &mut Graph, map: &str) {
    graph.float("last.weight", &[6, 8, 1, 1], &[0.125; 48]);
    graph.node("Conv", &[map, "last.weight"], "last", vec![]);
    graph.int64("rows", &[3], &[1, 6, 256]);
    graph.node("Reshape", &["last", "rows"], "flat", vec![]);
    graph.node("Mul", &["flat", "shared"], "output0", vec![]);
}

/// `first`: `[1,8,8,8]` from the picture.
fn stem() -> Graph {
    let mut graph = Graph::default();
    let weights: Vec<f32> = (0..8 * 3 * 64).map(|n| (n % 13) as f32 / 400.0 - 0.01).collect();
    graph.float("first.weight", &[8, 3, 8, 8], &weights);
    graph.float("shared", &[], &[0.5]);
    graph.node("Conv", &["images", "first.weight"], "first", vec![ints("strides", &[8, 8])]);
    graph
}

/// Attention, resizing by scales and by computed sizes, and operators of one type.
fn zoo() -> Vec<u8> {
    let mut g = stem();
    g.float("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    g.node("Resize", &["first", "", "scales"], "scaled", vec![]);
    // Sizes through floats, as PyTorch's exporter wrote them.
    g.node("Shape", &["first"], "shape", vec![]);
    g.node("Cast", &["shape"], "shape_float", vec![int("to", 1)]);
    g.node("Mul", &["shape_float", "scales"], "sizes_float", vec![]);
    g.node("Cast", &["sizes_float"], "sizes", vec![int("to", 7)]);
    g.node("Resize", &["first", "", "", "sizes"], "sized", vec![]);
    g.node("Add", &["scaled", "sized"], "sum", vec![]);
    g.node("Split", &["sum"], "left", vec![int("axis", 1)]);
    g.nodes.last_mut().expect("split").output.push("right".to_owned());

    g.int64("tokens", &[3], &[1, 4, 256]);
    g.int64("map", &[4], &[1, 4, 16, 16]);
    g.node("Reshape", &["left", "tokens"], "keys", vec![]);
    g.node("Transpose", &["keys"], "queries", vec![ints("perm", &[0, 2, 1])]);
    g.node("MatMul", &["queries", "keys"], "products", vec![]);
    g.node("Mul", &["products", "shared"], "logits", vec![]);
    // A mask as it is often written; the first column is out of sight.
    let mut mask = vec![0.0; 256];
    mask[..2].copy_from_slice(&[f32::MIN, f32::NEG_INFINITY]);
    g.float("mask", &[1, 1, 256], &mask);
    g.node("Add", &["logits", "mask"], "masked", vec![]);
    g.node("Softmax", &["masked"], "likely", vec![int("axis", -1)]);
    g.node("MatMul", &["keys", "likely"], "seen", vec![]);
    g.node("Reshape", &["seen", "map"], "attended", vec![]);

    g.node("Celu", &["right"], "celu", vec![]);
    g.node("Shape", &["celu"], "celu_shape", vec![]);
    g.node("ConstantOfShape", &["celu_shape"], "zeros", vec![]);
    g.node(
        "Constant",
        &[],
        "limit",
        vec![AttributeProto { f: 0.1, ..attribute("value_float", 1) }],
    );
    g.node("Greater", &["celu", "limit"], "is_large", vec![]);
    g.node("Where", &["is_large", "celu", "zeros"], "large", vec![]);
    g.node("Cast", &["is_large"], "is_large_float", vec![int("to", 1)]);
    g.node("Mul", &["large", "is_large_float"], "kept", vec![]);
    g.int64("k", &[1], &[16]);
    g.node("TopK", &["kept", "k"], "sorted", vec![int("axis", -1)]);
    g.nodes.last_mut().expect("topk").output.push("order".to_owned());
    g.node("Concat", &["attended", "sorted"], "joined", vec![int("axis", 1)]);
    head(&mut g, "joined");
    finish(g)
}

#[test]
fn types_fit_in_every_form_of_the_tiny_detector() {
    for (size, bins) in [(None, 16), (Some((64, 96)), 16), (Some((64, 64)), 8), (None, 1)] {
        for flags in 0..8 {
            let [joined, constant_nodes, reshaped] = [1, 2, 4].map(|bit| flags & bit != 0);
            let mut tiny = TinyDetector::with_head(3, size);
            tiny.head = Some(DflHead { bins, joined, constant_nodes, reshaped });
            let whole = open(tiny.build());
            for (model, outputs) in
                [(whole.cut().unwrap(), Element::F16), (whole.clone(), Element::F32)]
            {
                let typed = model.typed(Element::F16).unwrap();
                let types = check_types(&typed.bytes).unwrap_or_else(|e| panic!("{tiny:?}: {e}"));
                assert_eq!((types["images"], typed.input.element), (FLOAT16, Element::F16));
                let names: Vec<_> = model.outputs().iter().map(|o| &o.name).collect();
                assert_eq!(names, typed.outputs.iter().map(|o| &o.name).collect::<Vec<_>>());
                assert!(typed.outputs.iter().all(|output| output.element == outputs));
                assert_eq!((typed.clamped, typed.quantised), (0, false));
                // Dimensions, free or not, are those of the model.
                let (old, new) = (graph(model.bytes().unwrap()), graph(&typed.bytes));
                let dims = |g: &GraphProto| {
                    let kind = g.input[0].r#type.clone().unwrap().tensor_type.unwrap();
                    kind.shape.unwrap()
                };
                assert_eq!(dims(&old), dims(&new));
                // Convolutions that end the body, and what comes after.
                for name in ["box16", "class16", "box32", "class32"] {
                    assert_eq!(types[name], FLOAT16);
                }
                if outputs == Element::F32 {
                    assert_eq!((types["pixels"], types["output0"]), (FLOAT, FLOAT));
                    assert_eq!(types.get("expected").copied().unwrap_or(FLOAT), FLOAT);
                    assert_eq!(casts(&new).len(), 4, "{:?}", casts(&new));
                }
            }
        }
    }
}

#[test]
fn detectors_without_a_head_and_with_one_class() {
    for layout in [OutputLayout::EndToEnd, OutputLayout::Dense { channels_first: false }] {
        for classes in [1, 3] {
            let mut tiny = TinyDetector::new(classes, Some((64, 96)));
            tiny.layout = layout;
            let typed = half(tiny.build()).unwrap();
            let types = check_types(&typed.bytes).unwrap();
            // The map of positions comes out of a convolution with one channel.
            assert_eq!(types["side"], FLOAT);
            assert_eq!(types["score_raw"], if classes == 1 { FLOAT } else { FLOAT16 });
        }
    }
}

#[test]
fn float32_is_the_file_itself() {
    for model in [open(TinyDetector::new(2, None).build()), open(zoo())] {
        let typed = model.typed(Element::F32).unwrap();
        assert_eq!(&typed.bytes, model.bytes().unwrap());
        assert_eq!(typed.bytes.as_ptr(), model.bytes().unwrap().as_ptr(), "copied");
        assert_eq!((typed.input.element, typed.outputs[0].element), (Element::F32, Element::F32));
        assert!(!format!("{typed:?}").contains("[8,"), "{typed:?}");
    }
}

#[test]
fn operators_of_all_kinds() {
    let source = zoo();
    check_types(&source).unwrap();
    let typed = half(source).unwrap();
    let types = check_types(&typed.bytes).unwrap();
    let graph = graph(&typed.bytes);
    for (name, kind) in [
        ("scales", FLOAT),
        ("shape_float", FLOAT),
        ("sizes_float", FLOAT),
        ("sized", FLOAT16),
        ("likely", FLOAT16),
        ("mask", FLOAT16),
        ("celu", FLOAT),
        ("zeros", FLOAT),
        ("large", FLOAT16),
        ("limit", FLOAT16),
        ("is_large_float", FLOAT16),
        ("order", onnx::INT64),
        ("last", FLOAT16),
        ("flat", FLOAT),
        ("output0", FLOAT),
        ("shared", FLOAT),
        ("framebus/f16/shared", FLOAT16),
    ] {
        assert_eq!(types.get(name), Some(&kind), "{name}");
    }
    // What is smaller than any 16-bit number; infinity stays.
    assert_eq!(typed.clamped, 1);
    let mask = graph.initializer.iter().find(|tensor| tensor.name == "mask").unwrap();
    let first = |at: usize| f16::from_le_bytes([mask.raw_data[at], mask.raw_data[at + 1]]);
    assert_eq!([first(0), first(2), first(4)], [f16::MIN, f16::NEG_INFINITY, f16::ZERO]);
    assert_eq!(node(&graph, "framebus/f16/shared").op_type, "Constant");
    assert_eq!(node(&graph, "is_large_float").int("to"), Some(FLOAT16.into()));
    assert_eq!(node(&graph, "logits").input, ["products", "framebus/f16/shared"]);
    assert_eq!(node(&graph, "output0").input[1], "shared");
    let expected = ["framebus/f32/right", "framebus/f16/celu", "framebus/f16/zeros"];
    assert_eq!(casts(&graph)[..3], expected);
}

#[test]
fn a_convolution_may_be_the_output() {
    // Channels last, so that the output of a convolution has the right shape.
    let mut g = Graph::default();
    g.float("w", &[6, 3, 4, 4], &[0.01; 288]);
    g.node("Conv", &["images", "w"], "map", vec![ints("strides", &[4, 4])]);
    g.float("w1", &[6, 6, 1], &[0.1; 36]);
    g.int64("rows", &[3], &[1, 6, 256]);
    g.node("Reshape", &["map", "rows"], "flat", vec![]);
    g.node("Conv", &["flat", "w1"], "output0", vec![]);
    let typed = half(finish(g)).unwrap();
    check_types(&typed.bytes).unwrap();
    let graph = graph(&typed.bytes);
    assert_eq!(node(&graph, "output0").op_type, "Cast");
    assert_eq!(node(&graph, "output0").input, ["framebus/f16/output0"]);
    assert_eq!(node(&graph, "framebus/f16/output0").op_type, "Conv");
}

#[test]
fn operators_of_one_type_by_operator_set() {
    for (opset, kind) in [(13, FLOAT), (14, FLOAT16)] {
        let mut g = stem();
        g.float("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
        g.node("Resize", &["first", "", "scales"], "large", vec![]);
        g.int64("axis", &[], &[3]);
        g.node("CumSum", &["large", "axis"], "all", vec![]);
        head(&mut g, "all");
        let mut proto = ModelProto::decode(&finish(g)[..]).unwrap();
        proto.opset_import[0].version = opset;
        let typed = half(proto.encode_to_vec()).unwrap();
        assert_eq!(check_types(&typed.bytes).unwrap()["all"], kind);
    }
}

#[test]
fn weights_that_are_inputs_too_change_their_type_there() {
    // As in files of IR version 3.
    let mut proto = ModelProto::decode(&zoo()[..]).unwrap();
    let graph = proto.graph.as_mut().unwrap();
    for tensor in graph.initializer.iter().filter(|tensor| tensor.data_type == FLOAT) {
        let dims = tensor.dims.iter().map(|&n| dim(usize::try_from(n).ok(), "")).collect();
        graph.input.push(value(&tensor.name, dims));
    }
    check_types(&half(proto.encode_to_vec()).unwrap().bytes).unwrap();
}

#[test]
fn what_keeps_its_type_is_the_files_own_bytes() {
    const UNKNOWN: u64 = 900;
    let mark = |message: &Bytes| [&message[..], &wire::field(UNKNOWN, b"later")].concat();
    let marked = |model: &Bytes| {
        let edited = wire::edit(model, 7, |_, graph| {
            let mut graph = graph.clone();
            for number in [1, 5, 11, 12] {
                graph = wire::edit(&graph, number, |_, part| Some(mark(part)))?.into();
            }
            graph = [&graph[..], &wire::field(13, b"")].concat().into();
            Some(mark(&graph))
        });
        Bytes::from(mark(&edited.unwrap().into()))
    };
    let source = marked(&zoo().into());
    let typed = half(source.to_vec()).unwrap();
    check_types(&typed.bytes).unwrap();
    let parts = |model: &Bytes, number: u64| -> Vec<Bytes> {
        let graph = wire::fields(model).unwrap().into_iter().find(|f| f.number == 7).unwrap();
        let parts = wire::fields(&graph.content).unwrap();
        parts.into_iter().filter(|f| f.number == number).map(|f| f.content).collect()
    };
    let later = wire::field(UNKNOWN, b"later");
    let holds = |part: &Bytes| part.windows(later.len()).any(|bytes| bytes == later);
    for number in [1, 5, 11, 12, 13] {
        let (old, new) = (parts(&source, number), parts(&typed.bytes, number));
        if number == 13 {
            assert_eq!((old.len(), new.len()), (1, 0));
            continue;
        }
        // Every old part is there with what is not known of it; no other is marked.
        assert_eq!(new.iter().filter(|part| holds(part)).count(), old.len(), "{number}");
        let same = old.iter().filter(|part| new.contains(part)).count();
        assert!(number == 11 || same > 0, "{number}");
    }
    assert!(wire::fields(&typed.bytes).unwrap().iter().any(|field| field.number == UNKNOWN));
}

#[test]
fn values_are_rounded_to_the_nearest() {
    let mut converter = Converter::default();
    let values = [1.0, 0.1, 65504.0, 65519.9, 65520.0, -1e9, 1e-10, f32::INFINITY, f32::NAN];
    let mut tensor = TensorProto { dims: vec![9], data_type: FLOAT, ..TensorProto::default() };
    tensor.float_data = values.to_vec();
    tensor.name = "w".to_owned();
    let raw = Bytes::from(tensor.encode_to_vec());
    let written = converter.tensor(&raw, &tensor).unwrap();
    assert_eq!(converter.clamped, 2);
    let written = TensorProto::decode(&written[..]).unwrap();
    assert_eq!((written.data_type, &*written.name, &*written.dims), (FLOAT16, "w", &[9i64][..]));
    assert!(written.float_data.is_empty());
    let halves = written.raw_data.as_chunks().0.iter();
    let read: Vec<f32> = halves.map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect();
    assert_eq!(read[..4], [1.0, 0.099_975_586, 65504.0, 65504.0]);
    assert_eq!(read[4..8], [65504.0, -65504.0, 0.0, f32::INFINITY]);
    assert!(read[8].is_nan());
    // As many values as the shape says, or none at all.
    tensor.dims = vec![8];
    assert!(converter.tensor(&raw, &tensor).is_none());
}

/// A zoo with one change.
fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut proto = ModelProto::decode(&zoo()[..]).unwrap();
    change(proto.graph.as_mut().unwrap());
    proto.encode_to_vec()
}

fn set_operator(graph: &mut GraphProto, output: &str, operator: &str) {
    let node = graph.node.iter_mut().find(|node| node.output[0] == output).unwrap();
    operator.clone_into(&mut node.op_type);
}

#[test]
fn a_quantised_model_is_handed_on() {
    let source = changed(|graph| {
        graph.initializer.push(TensorProto {
            dims: vec![6, 8, 1, 1],
            data_type: 3,
            name: "q".to_owned(),
            raw_data: Bytes::from(vec![1; 48]),
            ..TensorProto::default()
        });
        let at = graph.node.iter().position(|node| node.output[0] == "last").unwrap();
        graph.node[at].input[1] = "last.weight.f".to_owned();
        graph.node.insert(
            at,
            NodeProto {
                input: vec!["q".to_owned(), "shared".to_owned()],
                output: vec!["last.weight.f".to_owned()],
                op_type: "DequantizeLinear".to_owned(),
                ..NodeProto::default()
            },
        );
    });
    let typed = half(source.clone()).unwrap();
    assert!(typed.quantised);
    assert_eq!(typed.bytes, source);
    assert_eq!((typed.input.element, typed.outputs[0].element), (Element::F32, Element::F32));
}

#[test]
fn what_is_not_understood_is_refused() {
    let refused = |change: fn(&mut GraphProto), part: &str| {
        let text = half(changed(change)).expect_err("typed");
        assert!(text.contains(part), "{text}");
    };
    refused(
        |g| set_operator(g, "celu", "If"),
        "what type node 'Celu_celu' (If) makes is not known",
    );
    refused(|g| set_operator(g, "celu", "EfficientNMS"), "is not known");
    refused(|g| g.node[0].domain = "com.acme".to_owned(), "of the operator set com.acme");
    refused(|g| g.initializer[0].data_location = 1, "its weights lie in another file");
    refused(
        |g| {
            let values = Some(TensorProto { name: "s".to_owned(), ..TensorProto::default() });
            g.sparse_initializer.push(SparseTensorProto { values });
        },
        "its tensor 's' is sparse",
    );
    refused(
        |g| {
            let limit = g.node.iter_mut().find(|node| node.op_type == "Constant").unwrap();
            "sparse_value".clone_into(&mut limit.attribute[0].name);
        },
        "node 'Constant_limit' (Constant) holds no tensor",
    );
    refused(
        |g| {
            g.node.iter_mut().for_each(|node| {
                for name in node.input.iter_mut().chain(&mut node.output).filter(|n| *n == "sum") {
                    "framebus/f16/sum".clone_into(name);
                }
            })
        },
        "it has a tensor named 'framebus/f16/sum' already",
    );
    refused(|g| "shared".clone_into(&mut g.output[0].name), "'shared' is no computed float");
    // Damaged weights: fewer values than the shape says.
    refused(|g| drop(std::mem::take(&mut g.initializer[0].raw_data)), "not laid out as ONNX's");
}
