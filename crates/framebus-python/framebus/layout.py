"""Layouts in shared memory, version 1.

Written by hand after the crate framebus-types, whose ``tests/layout.golden`` the
tests of this package compare them with: a change there is noticed here.
"""

import ctypes
import functools
import sys
from ctypes import c_char, c_float, c_uint8, c_uint32, c_uint64
from enum import Enum, StrEnum
from typing import TypeVar

from .errors import BadHeader

VERSION = 1
MAX_PLANES = 4
# `pts_ns` of a frame without a presentation time.
NO_PTS = 2**64 - 1

# Why a picture is suspect; see FLAG_* in framebus-types/src/frame.rs.
FLAG_DISCONTINUITY = 1
FLAG_MOTION = 1 << 1
FLAG_MOTION_MEASURED = 1 << 3
PICTURE_FAULTS = (
    (1 << 4, "frozen"),
    (1 << 5, "uniform"),
    (1 << 6, "corrupt"),
    (1 << 7, "blurred"),
    (1 << 8, "time jump"),
    (1 << 9, "late"),
)


class Outcome(StrEnum):
    """What became of a frame that reached the inference process."""

    OK = "ok"
    SKIPPED = "skipped"
    DROPPED = "dropped"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a frame was not inferred; empty when it was."""

    NONE = ""
    SUPERSEDED = "superseded"
    STALE = "stale"
    STOPPING = "stopping"
    BAD_FRAME = "bad frame"
    ENGINE = "engine"
    MOTION = "motion"


class PixelFormat(StrEnum):
    """Pixel format of a frame."""

    NV12 = "NV12"
    RGB24 = "RGB24"


class ColourMatrix(StrEnum):
    """YCbCr matrix (ITU-T H.273)."""

    BT601 = "bt601"
    BT709 = "bt709"
    BT2020 = "bt2020"


class ColourRange(StrEnum):
    """Sample range: Y in 16..=235, or in 0..=255."""

    LIMITED = "limited"
    FULL = "full"


class ChromaSite(StrEnum):
    """Horizontal position of 4:2:0 chroma samples."""

    LEFT = "left"
    CENTER = "center"


class EventKind(StrEnum):
    """What happened."""

    APPEAR = "appear"
    DISAPPEAR = "disappear"
    ENTER = "enter"
    LEAVE = "leave"
    DWELL = "dwell"
    CROSS = "cross"


class Direction(StrEnum):
    """Which way a line was crossed; empty for everything else."""

    NONE = ""
    FORWARD = "forward"
    BACKWARD = "backward"


# Wire codes.
OUTCOMES = dict(zip((1, 2, 3, 4), Outcome, strict=True))
REASONS = dict(enumerate(Reason))
FORMATS = {int.from_bytes(b"NV12", "little"): PixelFormat.NV12,
           int.from_bytes(b"RGB3", "little"): PixelFormat.RGB24}  # fmt: skip
MATRICES = dict(enumerate(ColourMatrix))
RANGES = dict(enumerate(ColourRange))
CHROMA_SITES = dict(enumerate(ChromaSite))
EVENT_KINDS = dict(enumerate(EventKind, 1))
DIRECTIONS = dict(enumerate(Direction))

E = TypeVar("E", bound=Enum)


def decode(what: str, table: dict[int, E], code: int) -> E:
    """A code from shared memory, or `BadHeader` for one that this version does not know."""
    try:
        return table[code]
    except KeyError:
        raise BadHeader(f"unknown {what} code {code}") from None


def text(field: bytes) -> str:
    """A text field up to its first zero (ctypes cuts there); what is no UTF-8 ends it."""
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        return field[: error.start].decode()


@functools.lru_cache(maxsize=1024)
def padded(field: bytes) -> str:
    """A text field with its padding. Names come again and again, and are read once."""
    return text(field.partition(b"\0")[0])


class StageTimes(ctypes.Structure):
    """When each stage of a frame ended, CLOCK_MONOTONIC ns."""

    _fields_ = [
        ("capture_ns", c_uint64),
        ("publish_ns", c_uint64),
        ("taken_ns", c_uint64),
        ("batched_ns", c_uint64),
        ("preprocessed_ns", c_uint64),
        ("inference_start_ns", c_uint64),
        ("inference_end_ns", c_uint64),
        ("decoded_ns", c_uint64),
        ("result_ns", c_uint64),
    ]


class ServerTimes(ctypes.Structure):
    """What a server that ran the network said of its time."""

    _fields_ = [
        ("request", c_uint64),
        ("serialise_us", c_uint32),
        ("receive_us", c_uint32),
        ("queue_us", c_uint32),
        ("compute_input_us", c_uint32),
        ("compute_us", c_uint32),
        ("compute_output_us", c_uint32),
        ("sent_bytes", c_uint32),
        ("received_bytes", c_uint32),
    ]


class FrameHeader(ctypes.Structure):
    """User header of a camera's frames."""

    # Known to Python 3.13; older ones ignore it, and align to 8. That is enough to
    # open a service, which asks for at most the creator's alignment.
    _align_ = 64
    _fields_ = [
        ("version", c_uint32),
        ("flags", c_uint32),
        ("camera", c_char * 32),
        ("epoch_ns", c_uint64),
        ("sequence", c_uint64),
        ("capture_ns", c_uint64),
        ("wall_ns", c_uint64),
        ("pts_ns", c_uint64),
        ("publish_ns", c_uint64),
        ("width", c_uint32),
        ("height", c_uint32),
        ("fourcc", c_uint32),
        ("matrix", c_uint32),
        ("range", c_uint32),
        ("chroma_site", c_uint32),
        ("strides", c_uint32 * MAX_PLANES),
        ("offsets", c_uint32 * MAX_PLANES),
        ("motion", c_float),
        ("segment", c_uint32),
        ("reserved", c_uint8 * 40),
    ]

    @staticmethod
    def type_name() -> str:
        """What iceoryx2 compares with the creator's."""
        return "framebus.FrameHeader.v1"


class ResultHeader(ctypes.Structure):
    """User header of the results."""

    _align_ = 64
    _fields_ = [
        ("version", c_uint32),
        ("outcome", c_uint32),
        ("reason", c_uint32),
        ("count", c_uint32),
        ("truncated", c_uint32),
        ("extra", c_uint32),
        ("camera", c_char * 32),
        ("epoch_ns", c_uint64),
        ("sequence", c_uint64),
        ("result_sequence", c_uint64),
        ("result_epoch_ns", c_uint64),
        ("wall_ns", c_uint64),
        ("pts_ns", c_uint64),
        ("times", StageTimes),
        ("width", c_uint32),
        ("height", c_uint32),
        ("batch_size", c_uint32),
        ("flags", c_uint32),
        ("model", c_char * 48),
        ("backend", c_char * 16),
        ("message", c_char * 128),
        ("context", c_uint32),
        ("gap", c_uint8 * 4),
        ("server", ServerTimes),
        ("reserved", c_uint8 * 16),
    ]

    @staticmethod
    def type_name() -> str:
        """What iceoryx2 compares with the creator's."""
        return "framebus.ResultHeader.v1"


class Detection(ctypes.Structure):
    """One object in a frame."""

    _fields_ = [
        ("bbox", c_float * 4),
        ("score", c_float),
        ("class", c_uint32),
        ("track", c_uint64),
        ("zones", c_uint64),
        ("angle", c_float),
        ("extra_offset", c_uint32),
        ("extra_len", c_uint32),
        ("reserved", c_uint32),
        ("label", c_char * 40),
    ]


class Event(ctypes.Structure):
    """Something that an object did."""

    _align_ = 64
    _fields_ = [
        ("version", c_uint32),
        ("kind", c_uint32),
        ("class", c_uint32),
        ("direction", c_uint32),
        ("camera", c_char * 32),
        ("place", c_char * 32),
        ("label", c_char * 40),
        ("event_sequence", c_uint64),
        ("event_epoch_ns", c_uint64),
        ("epoch_ns", c_uint64),
        ("sequence", c_uint64),
        ("capture_ns", c_uint64),
        ("wall_ns", c_uint64),
        ("track", c_uint64),
        ("age_ns", c_uint64),
        ("bbox", c_float * 4),
        ("score", c_float),
        ("index", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("reserved", c_uint8 * 40),
    ]

    @staticmethod
    def type_name() -> str:
        """What iceoryx2 compares with the creator's."""
        return "framebus.Event.v1"


assert sys.byteorder == "little", "the layouts are those of little-endian machines"
