"""Results: small, copied out of shared memory, so that they may be kept for ever."""

import ctypes
import functools
import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import layout
from .checks import check_result_fields
from .layout import Outcome, Reason, padded
from .stream import Stream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

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


# The layouts ResultHeader and Detection, read in one go: a field at a time, ctypes takes
# four times as long. The tests compare them with the structures.
HEADER = struct.Struct("<6I 32s 6Q 9Q 4I 48s 16s 128s I 4x Q 8I 16x")
DETECTION = struct.Struct("<4f f I Q Q f 12x 40s")


@functools.lru_cache(maxsize=64)
def _faults(flags: int) -> tuple[str, ...]:
    return tuple(name for flag, name in layout.PICTURE_FAULTS if flags & flag)


def _detection(
    left: float, top: float, right: float, bottom: float,
    score: float, class_id: int, track: int, zones: int, angle: float, label: bytes,
) -> Detection:  # fmt: skip
    box = left, top, right, bottom
    return Detection(padded(label), class_id, score, box, track, zones, angle)


def decode_result(header: "Buffer", payload: bytes) -> Result:
    """A result out of its header (a ResultHeader, or its bytes) and payload, both of them
    copies.

    `BadHeader` when they contradict each other, `VersionError` for another layout."""
    (
        version, outcome, reason, count, truncated, extra,
        camera, epoch_ns, sequence, result_sequence, result_epoch_ns, wall_ns, pts_ns,
        *rest,
    ) = HEADER.unpack_from(header)  # fmt: skip
    checked = check_result_fields(version, outcome, reason, count, extra, len(payload))
    times, (width, height, _batch, flags, model, backend, message, _context), server = (
        rest[:9], rest[9:17], rest[17:],
    )  # fmt: skip
    found = DETECTION.iter_unpack(payload[: count * DETECTION.size]) if count else ()
    return Result(
        padded(camera),
        epoch_ns,
        sequence,
        result_sequence,
        result_epoch_ns,
        *checked,
        padded(message),
        padded(backend),
        padded(model),
        width,
        height,
        wall_ns,
        None if pts_ns == layout.NO_PTS else pts_ns,
        StageTimes(*times),
        ServerTimes(*server) if server[0] else None,
        _faults(flags),
        truncated,
        tuple(itertools.starmap(_detection, found)),
    )


class Results(Stream[Result]):
    """Results of all cameras of the instance, from now on."""

    def _decode(self, sample: Any, raw: bytes, address: int, length: int) -> Result:
        # `sample` is given back when this returns: nothing refers to its memory then.
        result = decode_result(raw, ctypes.string_at(address, length))
        self._counted(
            result.result_epoch_ns,
            result.result_sequence,
            result.times.result_ns,
            from_zero=True,
        )
        return result
