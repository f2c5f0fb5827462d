"""A model of Triton's Python backend: runs one ONNX file with OpenVINO on the CPU.

make_repository.py copies this file into a model repository and writes the
config.pbtxt beside it. Parameters there (all strings):

onnx        path of the file (required)
precision   f32, bf16 or auto (default: what OpenVINO prefers on this CPU)
threads     threads of one inference (default: OpenVINO's choice)
nms         efficient: num_dets, det_boxes, det_scores and det_classes, as
            TensorRT's EfficientNMS plugin gives them; end2end: output0
            [n, 300, 6] of x1 y1 x2 y2 score class. Both for exports whose output
            is [n, 4 + classes, anchors]
nms_conf    lowest score (0.25)
nms_iou     overlap within a class from which the weaker box goes (0.45)
nms_max     boxes at most (100; 300 for end2end)
nms_labels  all: a box may come once for each class above nms_conf, as with the
            plugin; best: only for its best class
fault_file  for tests only: see Fault

Inputs of any size go where the ONNX leaves it free (each shape is compiled once,
which takes a second). Requests that Triton's dynamic batcher hands over together
and that are of one shape run as one batch if the ONNX leaves the batch free, else
one after the other. FP16 tensors are converted on the way in and out, UINT8 pixels
become floats 0 to 1.

OpenVINO and numpy < 2 come from PYTHONPATH, which serve.sh sets. With numpy 2 this
server's Python backend answers empty tensors without any error, hence the check.
"""

import collections
import json
import os
import signal
import time

import numpy as np
import openvino as ov
import triton_python_backend_utils as pb

if not np.__version__.startswith("1."):
    raise RuntimeError(f"numpy {np.__version__} does not work with this server, it needs numpy < 2")

# Compiled shapes kept at a time; each holds its own copy of the weights.
MAX_SHAPES = 16
END2END_ROWS = 300


class Fault:
    """Misbehaves on demand, so that tests see how a client copes.

    As long as the file exists, its content decides at every call: `hang` waits until
    the file is gone (30 s at most), `slow MS` waits so long, `error` answers an error,
    `raise` raises an exception, `die` kills this process. `load MS` delays loading.
    """

    HANG_S = 30.0

    def __init__(self, path):
        self.path = path

    def read(self):
        try:
            with open(self.path) as file:
                word, _, rest = file.read().strip().partition(" ")
        except (OSError, TypeError):  # gone, or there is no path
            return "", 0.0
        return word, float(rest or 0) / 1000

    def at_load(self):
        word, seconds = self.read()
        if word == "load":
            time.sleep(seconds)

    def at_call(self):
        """The message of the error to answer, or None."""
        word, seconds = self.read()
        if word == "hang":
            end = time.monotonic() + self.HANG_S
            while self.read()[0] == "hang" and time.monotonic() < end:
                time.sleep(0.01)
        elif word == "slow":
            time.sleep(seconds)
        elif word == "error":
            return "error asked for by fault_file"
        elif word == "raise":
            raise ValueError("exception asked for by fault_file")
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return None


class Network:
    """The ONNX file, compiled for the shapes it is asked for."""

    def __init__(self, path, precision, threads):
        self.core = ov.Core()
        self.model = self.core.read_model(path)
        self.inputs = [port.get_names() for port in self.model.inputs]
        self.config = {"PERFORMANCE_HINT": "LATENCY"}
        if precision != "auto":
            self.config["INFERENCE_PRECISION_HINT"] = precision
        if threads:
            self.config["INFERENCE_NUM_THREADS"] = threads
        shapes = [port.get_partial_shape() for port in self.model.inputs]
        self.free_batch = all(shape.rank.get_length() > 0 and shape[0].is_dynamic for shape in shapes)
        self.compiled = collections.OrderedDict()
        if not any(shape.is_dynamic for shape in shapes):
            self.request([tuple(shape.to_shape()) for shape in shapes])

    def request(self, shapes):
        key = tuple(shapes)
        if key in self.compiled:
            self.compiled.move_to_end(key)
            return self.compiled[key]
        model = self.model
        if any(port.get_partial_shape().is_dynamic for port in model.inputs):
            model = model.clone()
            model.reshape({port: ov.PartialShape(list(shape)) for port, shape in zip(model.inputs, shapes)})
        request = self.core.compile_model(model, "CPU", self.config).create_infer_request()
        self.compiled[key] = request
        if len(self.compiled) > MAX_SHAPES:
            self.compiled.popitem(last=False)
        return request

    def infer(self, arrays):
        """{name: array} for every output; the arrays are valid until the next call."""
        request = self.request([array.shape for array in arrays])
        tensors = {}
        for i, (port, array) in enumerate(zip(self.model.inputs, arrays)):
            # A view where the bytes are right already, which is the ordinary case.
            if array.dtype == np.uint8 and port.get_element_type() == ov.Type.f32:
                array = array * np.float32(1 / 255)
            array = np.ascontiguousarray(array, port.get_element_type().to_dtype())
            tensors[i] = ov.Tensor(array, shared_memory=True)
        request.infer(tensors)
        found = {}
        for i, port in enumerate(request.model_outputs):
            for name in port.get_names():
                found[name] = request.get_output_tensor(i).data
        return found


class Nms:
    """Decodes [n, 4 + classes, anchors] and drops overlapping boxes class by class."""

    def __init__(self, get):
        self.kind = get("nms", "")
        self.conf = float(get("nms_conf", "0.25"))
        self.iou = float(get("nms_iou", "0.45"))
        self.most = int(get("nms_max", END2END_ROWS if self.kind == "end2end" else 100))
        self.best_only = get("nms_labels", "all") == "best"

    def one(self, grid):
        """[k, 6] rows of x1 y1 x2 y2 score class, best first."""
        scores = grid[4:]
        if self.best_only:
            classes = scores.argmax(axis=0)
            best = scores[classes, np.arange(scores.shape[1])]
            anchors = np.flatnonzero(best > self.conf)
            classes = classes[anchors]
        else:
            classes, anchors = np.nonzero(scores > self.conf)
        score = scores[classes, anchors]
        order = np.argsort(-score, kind="stable")
        classes, anchors, score = classes[order], anchors[order], score[order]
        x, y, w, h = grid[:4, anchors]
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
        area = w * h
        alive = np.ones(len(score), bool)
        kept = []
        for i in range(len(score)):
            if not alive[i]:
                continue
            kept.append(i)
            if len(kept) == self.most:
                break
            corner = np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:]) - np.maximum(boxes[i, :2], boxes[i + 1 :, :2])
            overlap = corner.clip(0).prod(axis=1)
            union = area[i] + area[i + 1 :] - overlap
            alive[i + 1 :] &= (overlap <= self.iou * union) | (classes[i + 1 :] != classes[i])
        rows = np.zeros((len(kept), 6), np.float32)
        rows[:, :4], rows[:, 4], rows[:, 5] = boxes[kept], score[kept], classes[kept]
        return rows

    def __call__(self, grids):
        n = len(grids)
        if self.kind == "end2end":
            out = np.zeros((n, END2END_ROWS, 6), np.float32)
            for i, grid in enumerate(grids):
                rows = self.one(grid)[:END2END_ROWS]
                out[i, : len(rows)] = rows
            return {"output0": out}
        out = {
            "num_dets": np.zeros((n, 1), np.int32),
            "det_boxes": np.zeros((n, self.most, 4), np.float32),
            "det_scores": np.zeros((n, self.most), np.float32),
            # The plugin's filler.
            "det_classes": np.full((n, self.most), -1, np.int32),
        }
        for i, grid in enumerate(grids):
            rows = self.one(grid)
            out["num_dets"][i] = len(rows)
            out["det_boxes"][i, : len(rows)] = rows[:, :4]
            out["det_scores"][i, : len(rows)] = rows[:, 4]
            out["det_classes"][i, : len(rows)] = rows[:, 5]
        return out


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})

        def get(key, default=None):
            return parameters.get(key, {}).get("string_value", default)

        if not get("onnx"):
            raise pb.TritonModelException("config.pbtxt has no parameter 'onnx': the path of the model file")
        precision = get("precision", "auto")
        if precision not in ("f32", "bf16", "auto"):
            raise pb.TritonModelException(f"precision is '{precision}', it can be f32, bf16 or auto")
        self.fault = Fault(get("fault_file"))
        self.fault.at_load()
        self.network = Network(get("onnx"), precision, int(get("threads", "0")))
        self.nms = None
        if get("nms"):
            self.nms = Nms(get)
            if self.nms.kind not in ("efficient", "end2end"):
                raise pb.TritonModelException(f"nms is '{self.nms.kind}', it can be efficient or end2end")
            if len(self.network.model.outputs) != 1 or len(self.network.model.outputs[0].get_partial_shape()) != 3:
                raise pb.TritonModelException("nms needs a model with one output [n, 4 + classes, anchors]")
        self.batches = config.get("max_batch_size", 0) > 0
        # The configuration's inputs in the order of the ONNX file.
        names = {entry["name"] for entry in config["input"]}
        self.inputs = []
        for port in self.network.inputs:
            known = names & port
            if not known:
                raise pb.TritonModelException(f"config.pbtxt has no input {' or '.join(sorted(port))}")
            self.inputs.append(known.pop())
        self.outputs = [
            (entry["name"], pb.triton_string_to_numpy(entry["data_type"])) for entry in config["output"]
        ]

    def run(self, arrays):
        """Every configured output for inputs of one shape; arrays of the caller's own."""
        rows = arrays[0].shape[0]
        if self.batches and rows > 1 and not self.network.free_batch:
            parts = [self.finish(self.network.infer([array[i : i + 1] for array in arrays])) for i in range(rows)]
            return [np.concatenate([part[k] for part in parts]) for k in range(len(self.outputs))]
        return self.finish(self.network.infer(arrays))

    def finish(self, found):
        if self.nms:
            found = self.nms(next(iter(found.values())))
        # A copy always: OpenVINO writes the next answer over this one.
        return [np.array(found[name], dtype=kind) for name, kind in self.outputs]

    def answer(self, outputs):
        return pb.InferenceResponse([pb.Tensor(name, value) for (name, _), value in zip(self.outputs, outputs)])

    def execute(self, requests):
        message = self.fault.at_call()
        if message:
            return [pb.InferenceResponse([], pb.TritonError(message)) for _ in requests]
        taken = [[pb.get_input_tensor_by_name(r, name).as_numpy() for name in self.inputs] for r in requests]
        shapes = {tuple(array.shape[1:] for array in arrays) for arrays in taken}
        if len(requests) > 1 and self.batches and self.network.free_batch and len(shapes) == 1:
            together = self.run([np.concatenate(column) for column in zip(*taken)])
            answers, row = [], 0
            for arrays in taken:
                end = row + len(arrays[0])
                answers.append(self.answer([np.ascontiguousarray(value[row:end]) for value in together]))
                row = end
            return answers
        return [self.answer(self.run(arrays)) for arrays in taken]
