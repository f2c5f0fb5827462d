"""YOLOv8 as a Python program usually runs it: letterbox, engine, NMS with OpenCV.

Engines: "openvino" (its default precision, bf16 where the CPU has it, and the
LATENCY hint), "openvino-f32", "onnxruntime" (default threads: one per core).
"""

import cv2
import numpy as np

SIDE = 640
CONFIDENCE, IOU, MAX_DETECTIONS = 0.25, 0.7, 300


def load(engine, model):
    """A function from a [1,3,640,640] blob to the [84,8400] output."""
    if engine == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda blob: session.run(None, {name: blob})[0][0]
    if engine not in ("openvino", "openvino-f32"):
        raise SystemExit(f"unknown engine {engine}")
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY"}
    if engine == "openvino-f32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(blob):
        # shared_memory: the blob is not copied into OpenVINO's own tensor.
        request.infer({0: openvino.Tensor(blob, shared_memory=True)})
        return request.get_output_tensor(0).data[0]

    return run


def letterbox(frame):
    """The blob, the scale and the offset of the picture in it."""
    height, width = frame.shape[:2]
    scale = min(SIDE / height, SIDE / width)
    inner = round(width * scale), round(height * scale)
    left, top = (SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2
    picture = cv2.copyMakeBorder(
        cv2.resize(frame, inner, interpolation=cv2.INTER_LINEAR),
        top, SIDE - inner[1] - top, left, SIDE - inner[0] - left,
        cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return cv2.dnn.blobFromImage(picture, 1 / 255, swapRB=True), scale, (left, top)


def boxes(output, scale, offset):
    """[(x, y, width, height, score, class)] in pixels of the frame."""
    scores = output[4:]
    best = scores.max(axis=0)
    keep = best > CONFIDENCE
    found, best, classes = output[:4, keep].T, best[keep], scores[:, keep].argmax(axis=0)
    corners = np.column_stack((found[:, :2] - found[:, 2:] / 2, found[:, 2:]))
    chosen = cv2.dnn.NMSBoxesBatched(corners, best, classes, CONFIDENCE, IOU) if len(best) else []
    corners[:, :2] -= offset
    corners /= scale
    return [(*corners[i], best[i], classes[i]) for i in chosen[:MAX_DETECTIONS]]


class Detector:
    def __init__(self, engine, model):
        self.run = load(engine, model)
        self.run(np.zeros((1, 3, SIDE, SIDE), np.float32))

    def __call__(self, frame):
        blob, scale, offset = letterbox(frame)
        return boxes(self.run(blob), scale, offset)
