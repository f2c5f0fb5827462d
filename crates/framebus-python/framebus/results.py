"""Results: small, copied out of shared memory, so that they may be kept for ever."""

import ctypes
from dataclasses import dataclass
from typing import Any

from . import layout
from .checks import check_result
from .layout import Outcome, Reason, text
from .stream import Stream

_DETECTION = ctypes.sizeof(layout.Detection)
_STAGES = (
    ("capture", "capture_ns", "publish_ns"),
    ("wake", "publish_ns", "taken_ns"),
    ("queue", "taken_ns", "batched_ns"),
    ("preprocess", "batched_ns", "preprocessed_ns"),
    ("inference", "inference_start_ns", "inference_end_ns"),
    ("decode", "inference_end_ns", "decoded_ns"),
    ("publish", "decoded_ns", "result_ns"),
    ("total", "capture_ns", "result_ns"),
)


@dataclass(frozen=True, slots=True)
class Detection:
    """One object in a frame."""

    label: str
    class_id: int
    score: float
    #: Left, top, right, bottom in pixels of the frame.
    box: tuple[float, float, float, float]
    #: Track number of the camera; 0 when not tracked.
    track: int
    #: One bit per zone of the camera that the object is in.
    zones: int
    #: Rotation in radians, clockwise.
    angle: float


@dataclass(frozen=True, slots=True)
class StageTimes:
    """When each stage ended, CLOCK_MONOTONIC ns (`time.monotonic_ns()`); 0 for a stage
    that the frame did not reach."""

    capture_ns: int
    publish_ns: int
    taken_ns: int
    batched_ns: int
    preprocessed_ns: int
    inference_start_ns: int
    inference_end_ns: int
    decoded_ns: int
    result_ns: int

    def ms(self) -> dict[str, float]:
        """How long each stage took; those that the frame did not pass are left out."""
        found = {}
        for name, begin, end in _STAGES:
            start_ns, end_ns = getattr(self, begin), getattr(self, end)
            if start_ns and end_ns:
                found[name] = max(0, end_ns - start_ns) / 1e6
        return found


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """What a server that ran the network said of its time, us and bytes."""

    request: int
    serialise_us: int
    receive_us: int
    queue_us: int
    compute_input_us: int
    compute_us: int
    compute_output_us: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one frame. `(camera, epoch_ns, sequence)` names the frame."""

    camera: str
    epoch_ns: int
    sequence: int
    #: Counts every result of the publisher, from 0 within `result_epoch_ns`.
    result_sequence: int
    result_epoch_ns: int
    outcome: Outcome
    reason: Reason
    #: Why it failed; empty otherwise.
    message: str
    backend: str
    model: str
    #: Of the frame, in pixels.
    width: int
    height: int
    #: Capture time by the wall clock, ns since 1970.
    wall_ns: int
    #: Presentation time in the stream; `None` when it has none.
    pts_ns: int | None
    times: StageTimes
    #: `None` where the engine is in the inference process.
    server: ServerTimes | None
    #: Why the picture is suspect, such as `frozen`.
    faults: tuple[str, ...]
    #: Detections that passed the thresholds but not `max_detections`.
    truncated: int
    #: Empty unless the outcome is `ok`.
    detections: tuple[Detection, ...]


def _plain(structure: ctypes.Structure) -> list[int]:
    return [getattr(structure, name) for name, *_ in structure._fields_]


def _detection(found: Any) -> Detection:
    return Detection(
        text(found.label),
        getattr(found, "class"),
        found.score,
        tuple(found.bbox),
        found.track,
        found.zones,
        found.angle,
    )


def decode_result(header: layout.ResultHeader, payload: bytes) -> Result:
    """A result out of its header and payload, both of them copies.

    `BadHeader` when they contradict each other, `VersionError` for another layout."""
    outcome, reason = check_result(header, len(payload))
    flags = header.flags
    found = (layout.Detection * header.count).from_buffer_copy(payload)
    return Result(
        camera=text(header.camera),
        epoch_ns=header.epoch_ns,
        sequence=header.sequence,
        result_sequence=header.result_sequence,
        result_epoch_ns=header.result_epoch_ns,
        outcome=outcome,
        reason=reason,
        message=text(header.message),
        backend=text(header.backend),
        model=text(header.model),
        width=header.width,
        height=header.height,
        wall_ns=header.wall_ns,
        pts_ns=None if header.pts_ns == layout.NO_PTS else header.pts_ns,
        times=StageTimes(*_plain(header.times)),
        server=ServerTimes(*_plain(header.server)) if header.server.request else None,
        faults=tuple(name for flag, name in layout.PICTURE_FAULTS if flags & flag),
        truncated=header.truncated,
        detections=tuple(map(_detection, found)),
    )


class Results(Stream[Result]):
    """Results of all cameras of the instance, from now on."""

    def _decode(self, sample: Any, header: Any, address: int, length: int) -> Result:
        # `sample` is given back when this returns: nothing refers to its memory then.
        result = decode_result(header, ctypes.string_at(address, length))
        self._counted(
            result.result_epoch_ns,
            result.result_sequence,
            result.times.result_ns,
            from_zero=True,
        )
        return result
