//! Keys of `[model]`.

use super::{Default, Key, Kind, key};
use crate::model::{Mode, Precision};

pub(super) static MODEL: [Key; 14] = [
    key("path", Kind::Path, Default::Required("path = \"../.framebus/models/yolov8n.onnx\""))
        .doc(
            "The ONNX file of a YOLOv8 detection model; `framebus models fetch` brings one.",
            "Relative paths count from the folder of the configuration file, here and below. The \
             triton backend reads only the class names and the shape of the outputs from it; the \
             network itself runs on the server.",
        )
        .also(&["file", "model", "weights", "onnx", "name"]),
    key("backend", Kind::Backends, Default::Word("auto"))
        .doc(
            "What runs the model: \"auto\", or a list in the order of preference out of \
             \"openvino\", \"tensorrt\" (an NVIDIA GPU; see [tensorrt]) and \"triton\" (a server; \
             see [triton]). The first that works is taken.",
            "\"auto\" is openvino. It never takes triton, which needs a server, nor tensorrt, which \
             has not been tried on a real GPU yet (docs/gpu.md): both have to be named.",
        )
        .also(&["backends", "engine", "device", "runtime"]),
    key("input", Kind::Input, Default::Word("auto"))
        .doc(
            "Size of the network's input: \"auto\", or \"HEIGHTxWIDTH\" in pixels, each a \
             multiple of 32 from 32 to 4096.",
            "\"auto\" shapes it like each camera where the model is known well enough for that \
             (384x640 for 16:9), and takes the size of the export otherwise.",
        )
        .also(&["imgsz", "size", "input_size", "shape", "input_shape", "resolution"]),
    key("precision", Kind::Word(Precision::NAMES), Default::Word("auto"))
        .doc(
            "Arithmetic of the network.",
            "\"auto\" takes the fastest that the device does well; \"f32\" is the reference.",
        )
        .also(&["dtype", "fp16", "half", "data_type"]),
    key("mode", Kind::Word(Mode::NAMES), Default::Word("auto"))
        .doc(
            "\"latency\": one result as soon as possible. \"throughput\": as many as possible.",
            "\"auto\" is latency for one live camera, and throughput for several or for one file \
             with pace = \"fast\".",
        )
        .also(&["hint", "performance_hint", "performance"]),
    key("contexts", Kind::Int { min: 0, max: 16, unit: "" }, Default::Int(0))
        .doc(
            "How many batches are in work at once, with triton requests to the server; 0 means that \
             the backend decides.",
            "Two overlap the preprocessing of one camera with the inference of another.",
        )
        .also(&["streams", "num_streams", "workers", "instances"]),
    key("threads", Kind::Int { min: 0, max: 256, unit: "" }, Default::Int(0))
        .doc(
            "CPU threads of the backend; 0 means that the backend decides.",
            "Lower it to leave cores for decoding video.",
        )
        .also(&["num_threads", "cpu_threads"]),
    key("cores", Kind::Cores, Default::EmptyList)
        .doc(
            "CPU numbers that the inference process may use, as in /proc/cpuinfo; [] means all. \
             Example: [2, 3].",
            "With threads = 0 the backend gets as many threads as there are cores in the list.",
        )
        .also(&["cpus", "cpu", "affinity", "cpu_affinity", "taskset", "pin"]),
    key("nice", Kind::Int { min: 0, max: 19, unit: "" }, Default::Int(5))
        .doc(
            "How far the inference process gives way to others when cores are short (nice).",
            "A frame that waits can be dropped before inference, but not before it is decoded: \
             where both fight for few cores, decoding has to win or pictures tear and cameras \
             stall. On an idle machine it changes nothing.",
        )
        .also(&["niceness", "priority", "renice"]),
    key("timeout_ms", Kind::Int { min: 100, max: 600_000, unit: super::MS }, Default::Int(2000))
        .doc(
            "An engine that does not answer a batch within this, or within ten times what it \
             usually takes, hangs: the batch's frames fail and inference starts again.",
            "Seconds would be a long silence; the first batch of an input shape, of which nobody \
             knows what is usual, may take ten times as long.",
        )
        .also(&["timeout", "timeout_s", "infer_timeout_ms", "watchdog_ms"]),
    key("confidence", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.25))
        .doc(
            "Least score of a detection, 0 to 1.",
            "0.25 is what Ultralytics predicts with, so that results compare.",
        )
        .also(&["conf", "threshold", "score", "min_score", "conf_threshold", "min_confidence"]),
    key("iou", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.7))
        .doc(
            "Of two boxes of one class that overlap by more than this (intersection over union, \
             0 to 1), the weaker goes.",
            "0.7 as in Ultralytics; lower it where one object is found twice.",
        )
        .also(&["nms", "nms_iou", "nms_threshold", "iou_threshold", "overlap"]),
    key("max_detections", Kind::Int { min: 1, max: 1000, unit: "" }, Default::Int(300))
        .doc(
            "Most detections of one frame; the strongest stay and the rest is counted.",
            "It bounds the memory of a result.",
        )
        .also(&["max_det", "max_objects", "limit"]),
    key("classes", Kind::Classes, Default::EmptyList)
        .doc(
            "Classes that are reported, by name as in the model or by number from 0; [] means \
             all. Example: [\"person\", 2].",
            "The network looks for all of them anyway; this only keeps results small.",
        )
        .also(&["class", "labels", "objects", "filter", "class_filter"]),
];
