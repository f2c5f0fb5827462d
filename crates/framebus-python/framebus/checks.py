"""Headers from shared memory: trusted only after this.

Another process wrote them, which may be of another version, broken or hostile. The
rules and the words are those of framebus-bus/src/header.rs. These functions read
nothing but their arguments; readers call them on a copy.
"""

import ctypes
from typing import NamedTuple

from .errors import BadHeader, VersionError
from .layout import (
    CHROMA_SITES,
    DIRECTIONS,
    EVENT_KINDS,
    FORMATS,
    MATRICES,
    MAX_PLANES,
    OUTCOMES,
    RANGES,
    REASONS,
    VERSION,
    ChromaSite,
    ColourMatrix,
    ColourRange,
    Detection,
    Direction,
    Event,
    EventKind,
    FrameHeader,
    Outcome,
    PixelFormat,
    Reason,
    ResultHeader,
    decode,
    text,
)

_DETECTION = ctypes.sizeof(Detection)


class Picture(NamedTuple):
    """What a frame's header says of its pixels, checked."""

    format: PixelFormat
    matrix: ColourMatrix
    range: ColourRange
    chroma_site: ChromaSite


def _check_version(found: int) -> None:
    if found != VERSION:
        raise VersionError(
            f"header version {found}, this program reads version {VERSION}; "
            "install the framebus package of the instance's own version"
        )


def plane_size(form: PixelFormat, width: int, height: int, plane: int) -> tuple[int, int] | None:
    """Bytes of a row and number of rows; `None` for a plane that the format does not have."""
    if form is PixelFormat.NV12:
        if plane == 0:
            return width, height
        if plane == 1:
            return 2 * ((width + 1) // 2), (height + 1) // 2
    elif plane == 0:
        return 3 * width, height
    return None


def check_frame(header: FrameHeader, length: int, camera: str) -> Picture:
    """Whether every plane that the header describes lies inside a payload of `length`
    bytes, and the frame is of `camera`."""
    _check_version(header.version)
    found = text(header.camera)
    if found != camera:
        raise BadHeader(f'camera name "{found}" where "{camera}" was expected')
    form = decode("pixel format", FORMATS, header.fourcc)
    width, height = header.width, header.height
    for plane in range(MAX_PLANES):
        size = plane_size(form, width, height, plane)
        if size is None:
            continue
        row, rows = size
        stride = header.strides[plane]
        if row == 0 or rows == 0 or stride < row:
            raise BadHeader(
                f"{width}x{height} frame with a stride of {stride} bytes in plane {plane}"
            )
        end = header.offsets[plane] + stride * (rows - 1) + row
        if end > length:
            raise BadHeader(
                f"plane {plane} of a {width}x{height} frame ends at byte {end}, "
                f"the payload has {length}"
            )
    return Picture(
        form,
        decode("colour matrix", MATRICES, header.matrix),
        decode("colour range", RANGES, header.range),
        decode("chroma site", CHROMA_SITES, header.chroma_site),
    )


def check_result(header: ResultHeader, length: int) -> tuple[Outcome, Reason]:
    """Whether the result that the header describes lies inside a payload of `length` bytes."""
    fields = header.version, header.outcome, header.reason, header.count, header.extra
    return check_result_fields(*fields, length)


def check_result_fields(
    version: int, outcome: int, reason: int, count: int, extra: int, length: int
) -> tuple[Outcome, Reason]:
    """The same for fields that were read before."""
    _check_version(version)
    if count * _DETECTION + extra > length:
        raise BadHeader(
            f"{count} detections and {extra} extra bytes announced, "
            f"the payload has {length} bytes"
        )
    return decode("outcome", OUTCOMES, outcome), decode("reason", REASONS, reason)


def check_event(event: Event) -> tuple[EventKind, Direction]:
    """Whether an event is one that this version knows."""
    _check_version(event.version)
    return decode("event", EVENT_KINDS, event.kind), decode(
        "direction", DIRECTIONS, event.direction
    )
