#!/usr/bin/env python3
"""Writes a model repository for Triton's Python backend out of ONNX files.

usage: make_repository.py FOLDER NAME=ONNX[,KEY=VALUE...]...

NAME is the model's name at the server. Keys:
  batch=N        max_batch_size (0: the batch is an ordinary dimension)
  dynamic=1      Triton's dynamic batching (needs batch), delay_us=N waits so long for more
  fp16=1         FP16 tensors instead of FP32, in and out
  uint8=1        UINT8 pixels 0 to 255 as input instead of floats 0 to 1
  instances=N    processes that run the model (1)
  precision=, threads=, nms=, nms_conf=, nms_iou=, nms_max=, nms_labels=
                 as model.py beside this file explains
  fault=PATH     for tests: the file that makes the model misbehave

  make_repository.py /tmp/models yolov8n=yolov8n.onnx,batch=4,dynamic=1,precision=bf16
  serve.sh --repository /tmp/models --grpc-port 8001

A model that is there already is written anew; others in FOLDER stay.
"""

import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
HOME = os.environ.get("TRITON_HOME") or os.path.join(HERE, "../../.framebus/triton")
PASSED_ON = ("precision", "threads", "nms", "nms_conf", "nms_iou", "nms_max", "nms_labels")
OTHERS = ("batch", "dynamic", "delay_us", "fp16", "uint8", "instances", "fault")
TYPES = {"f32": "FP32", "f16": "FP16", "i32": "INT32", "i64": "INT64", "u8": "UINT8", "boolean": "BOOL"}


def stop(message, code=64):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


try:
    import openvino as ov
except ImportError:
    # The Python that serve.sh uses has it.
    python = os.path.join(HOME, "venv/bin/python")
    if not os.path.exists(python) or os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(HOME, "venv")):
        stop("Triton is not set up here, run: scripts/setup.sh --triton", 69)
    os.execv(python, [python, *sys.argv])


def tensors(ports, batch, half):
    """[(name, type, dims)] as config.pbtxt wants them."""
    found = []
    for port in ports:
        dims = [dim.get_length() if dim.is_static else -1 for dim in port.get_partial_shape()]
        kind = port.get_element_type().get_type_name()
        if kind not in TYPES:
            stop(f"{port.get_any_name()} holds {kind}, which this script does not know")
        found.append((port.get_any_name(), "FP16" if half and kind == "f32" else TYPES[kind], dims[bool(batch) :]))
    return found


def nms_tensors(options, batch, half):
    real = "FP16" if half else "FP32"
    first = [] if batch else [1]
    if options["nms"] == "end2end":
        return [("output0", real, [*first, 300, 6])]
    most = int(options.get("nms_max", 100))
    return [
        ("num_dets", "INT32", [*first, 1]),
        ("det_boxes", real, [*first, most, 4]),
        ("det_scores", real, [*first, most]),
        ("det_classes", "INT32", [*first, most]),
    ]


def quoted(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def block(word, entries):
    lines = [f"  {{ name: {quoted(name)}, data_type: TYPE_{kind}, dims: {dims} }}" for name, kind, dims in entries]
    return f"{word} [\n" + ",\n".join(lines) + "\n]\n"


def configuration(name, onnx, options):
    batch, half = int(options.get("batch", 0)), options.get("fp16") == "1"
    model = ov.Core().read_model(onnx)
    inputs = tensors(model.inputs, batch, half)
    if options.get("uint8") == "1":
        inputs = [(input_name, "UINT8", dims) for input_name, _, dims in inputs]
    outputs = nms_tensors(options, batch, half) if options.get("nms") else tensors(model.outputs, batch, half)
    text = f'name: {quoted(name)}\nbackend: "python"\nmax_batch_size: {batch}\n'
    text += block("input", inputs) + block("output", outputs)
    text += f"instance_group [ {{ count: {int(options.get('instances', 1))}, kind: KIND_CPU }} ]\n"
    if options.get("dynamic") == "1":
        if not batch:
            stop(f"{name}: dynamic=1 needs batch=N")
        delay = int(options.get("delay_us", 0))
        text += "dynamic_batching {%s }\n" % (f" max_queue_delay_microseconds: {delay}" if delay else "")
    parameters = {"FORCE_CPU_ONLY_INPUT_TENSORS": "yes", "onnx": onnx}
    parameters.update((key, options[key]) for key in PASSED_ON if key in options)
    if "fault" in options:
        parameters["fault_file"] = os.path.abspath(options["fault"])
    for key, value in parameters.items():
        text += f"parameters {{ key: {quoted(key)}, value {{ string_value: {quoted(value)} }} }}\n"
    return text


def main():
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        return
    if len(arguments) < 2:
        stop("usage: make_repository.py FOLDER NAME=ONNX[,KEY=VALUE...]...")
    folder = arguments[0]
    for argument in arguments[1:]:
        words = argument.split(",")
        name, _, onnx = words[0].partition("=")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not onnx:
            stop(f"'{words[0]}' is not NAME=ONNX")
        if not os.path.isfile(onnx):
            stop(f"{name}: there is no file {onnx}", 69)
        options = dict(word.partition("=")[::2] for word in words[1:])
        unknown = [key for key in options if key not in PASSED_ON + OTHERS]
        if unknown:
            stop(f"{name}: unknown key {', '.join(unknown)}; known: {', '.join(OTHERS + PASSED_ON)}")
        try:
            text = configuration(name, os.path.abspath(onnx), options)
        except (ValueError, RuntimeError) as error:
            stop(f"{name}: {str(error).strip()}")
        place = os.path.join(folder, name)
        os.makedirs(os.path.join(place, "1"), exist_ok=True)
        shutil.copyfile(os.path.join(HERE, "model.py"), os.path.join(place, "1", "model.py"))
        # Last, and at once: a polling server takes the model when this changes.
        with open(os.path.join(place, ".config"), "w") as file:
            file.write(text)
        os.replace(os.path.join(place, ".config"), os.path.join(place, "config.pbtxt"))
        print(place)


main()
