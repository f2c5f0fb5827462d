"""Frames: pixels where the camera's process put them, read-only.

**Lifetime.** numpy knows nothing of samples, and an array that outlived its sample would
show another frame, or end the process. Therefore every array that a frame hands out, and
every view made of one, refers through its `base` to the object that holds the sample:
the memory is given back when the frame is released *and* the last array is gone, never
before. An array cannot be invalidated, so that release is the end of the frame's own
access (`ReleasedError`) and not of arrays that are still in use. Who keeps too many gets
`HeldError` at the next frame; nobody else is held up.
"""

import math
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .bus import Reader
from .checks import Picture, check_frame, plane_size
from .colour import nv12_to_rgb
from .errors import FormatError, ReleasedError
from .layout import (
    FLAG_DISCONTINUITY,
    FLAG_MOTION,
    FLAG_MOTION_MEASURED,
    NO_PTS,
    PICTURE_FAULTS,
    FrameHeader,
    PixelFormat,
    text,
)
from .stream import Stream

Pixels = NDArray[np.uint8]


class _Memory:
    """A sample's payload for numpy, which keeps this object, and it the sample."""

    __slots__ = ("__array_interface__", "_sample")

    def __init__(self, sample: Any, address: int, length: int) -> None:
        self._sample = sample
        self.__array_interface__ = {
            # The pages are mapped read-only: a write would end the process. numpy
            # refuses it first, and refuses to make the array writable.
            "data": (address, True),
            "shape": (length,),
            "typestr": "|u1",
            "version": 3,
        }


class Frame:
    """A frame in shared memory whose header has been checked."""

    __slots__ = (
        "_offsets",
        "_payload",
        "_strides",
        "camera",
        "capture_ns",
        "chroma_site",
        "discontinuity",
        "epoch_ns",
        "faults",
        "format",
        "height",
        "matrix",
        "motion",
        "moving",
        "pts_ns",
        "publish_ns",
        "range",
        "sequence",
        "wall_ns",
        "width",
    )  # fmt: skip

    def __init__(self, memory: Pixels, header: FrameHeader, picture: Picture) -> None:
        self._payload: Pixels | None = memory
        self._offsets = tuple(header.offsets)
        self._strides = tuple(header.strides)
        self.camera = text(header.camera)
        #: With camera and sequence the frame's name; results carry the same.
        self.epoch_ns: int = header.epoch_ns
        self.sequence: int = header.sequence
        #: When the buffer left the decoder and when it was sent, CLOCK_MONOTONIC ns.
        self.capture_ns: int = header.capture_ns
        self.publish_ns: int = header.publish_ns
        #: Capture time by the wall clock, ns since 1970.
        self.wall_ns: int = header.wall_ns
        self.pts_ns: int | None = None if header.pts_ns == NO_PTS else header.pts_ns
        self.width: int = header.width
        self.height: int = header.height
        self.format, self.matrix, self.range, self.chroma_site = picture
        flags = header.flags
        #: Frames before this one are missing.
        self.discontinuity = bool(flags & FLAG_DISCONTINUITY)
        #: Whether something moves; `None` when that was not measured.
        self.moving = bool(flags & FLAG_MOTION) if flags & FLAG_MOTION_MEASURED else None
        #: Share of the picture that moved, 0..=1; 0 when not measured.
        self.motion: float = header.motion
        #: Why the picture is suspect, such as `frozen`.
        self.faults = tuple(name for flag, name in PICTURE_FAULTS if flags & flag)

    @property
    def name(self) -> tuple[str, int, int]:
        """Camera, epoch and sequence: what a result of this frame carries too."""
        return self.camera, self.epoch_ns, self.sequence

    def _plane(self, plane: int, shape: tuple[int, ...], form: PixelFormat) -> Pixels:
        if self._payload is None:
            raise ReleasedError(
                f"frame #{self.sequence} of {self.camera} was given back: read it before "
                "release() or inside its `with`, or keep a copy (`frame.y.copy()`)"
            )
        if self.format is not form:
            instead = "frame.rgb()" if form is PixelFormat.NV12 else "frame.y and frame.uv"
            raise FormatError(
                f"frame #{self.sequence} of {self.camera} is {self.format}, not {form}: "
                f"use {instead}"
            )
        size = plane_size(form, self.width, self.height, plane)
        assert size is not None, "both formats have the planes that are asked for"
        # Of the inner dimensions, without gaps; rows lie a stride apart.
        inner = tuple(math.prod(shape[i + 1 :]) for i in range(1, len(shape)))
        view: Pixels = np.ndarray(
            shape, np.uint8, self._payload, self._offsets[plane], (self._strides[plane], *inner)
        )
        return view

    @property
    def y(self) -> Pixels:
        """Luma of NV12, (height, width), in place."""
        return self._plane(0, (self.height, self.width), PixelFormat.NV12)

    @property
    def uv(self) -> Pixels:
        """Cb and Cr of NV12, (height / 2, width / 2, 2), rounded up, in place."""
        shape = ((self.height + 1) // 2, (self.width + 1) // 2, 2)
        return self._plane(1, shape, PixelFormat.NV12)

    @property
    def pixels(self) -> Pixels:
        """R, G, B of RGB24, (height, width, 3), in place."""
        return self._plane(0, (self.height, self.width, 3), PixelFormat.RGB24)

    def rgb(self) -> Pixels:
        """R, G, B, (height, width, 3): a copy of your own, which may be written and kept.
        Chroma is repeated, not interpolated."""
        if self.format is PixelFormat.RGB24:
            return self.pixels.copy()
        return nv12_to_rgb(self.y, self.uv, self.matrix, self.range)

    def release(self) -> None:
        """Gives the frame back, as soon as no array of it is in use any more."""
        self._payload = None

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._payload is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = ", released" if self.released else ""
        return (
            f"<Frame {self.camera} #{self.sequence} {self.width}x{self.height} "
            f"{self.format}{state}>"
        )


class Frames(Stream[Frame]):
    """Frames of one camera, from now on; of the newest only, where the source does not
    wait for its readers."""

    def __init__(self, reader: Reader, camera: str) -> None:
        super().__init__(reader)
        self.camera = camera

    @property
    def limit(self) -> int:
        """Frames that may be held at a time."""
        return self._reader.limit

    def _decode(self, sample: Any, raw: bytes, address: int, length: int) -> Frame | None:
        header = FrameHeader.from_buffer_copy(raw)
        picture = check_frame(header, length, self.camera)
        # Sent again for another reader.
        if self._last == (header.epoch_ns, header.sequence):
            return None
        self._counted(header.epoch_ns, header.sequence, header.publish_ns, from_zero=False)
        return Frame(np.asarray(_Memory(sample, address, length)), header, picture)
