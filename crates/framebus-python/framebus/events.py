"""Events: what objects did, copied out of shared memory."""

import ctypes
from collections import deque
from dataclasses import dataclass
from typing import Any

import iceoryx2 as iox

from . import layout
from .bus import Reader
from .checks import check_event
from .errors import BadHeader, VersionError
from .layout import Direction, EventKind, text
from .stream import Stream

_EVENT = ctypes.sizeof(layout.Event)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that an object did."""

    kind: EventKind
    camera: str
    #: Name of the zone or line; empty when it is about neither.
    place: str
    #: Of a crossing.
    direction: Direction
    #: Track number of the camera, the `track` of detections; counts from 1 within
    #: `event_epoch_ns`.
    track: int
    label: str
    class_id: int
    #: Its last confidence, and left, top, right, bottom in pixels of the frame.
    score: float
    box: tuple[float, float, float, float]
    #: How long it has been there: in the zone for `leave` and `dwell`, in the picture
    #: otherwise, s.
    age_s: float
    #: The frame, and which of its events this is, from 0.
    epoch_ns: int
    sequence: int
    index: int
    #: Capture time by the wall clock, ns since 1970, and by CLOCK_MONOTONIC.
    wall_ns: int
    capture_ns: int
    #: Of the frame, in pixels.
    width: int
    height: int
    #: Counts every event of the publisher, from 0 within `event_epoch_ns`.
    event_sequence: int
    event_epoch_ns: int

    @property
    def id(self) -> str:
        """Its name: the same for the same event of the same frames, whoever computes it."""
        return f"{self.camera}-{self.epoch_ns:x}-{self.sequence}-{self.index}"


def decode_event(event: layout.Event) -> Event:
    """An event out of a copy. `BadHeader` for unknown codes, `VersionError` for another
    layout."""
    kind, direction = check_event(event)
    return Event(
        kind=kind,
        camera=text(event.camera),
        place=text(event.place),
        direction=direction,
        track=event.track,
        label=text(event.label),
        class_id=getattr(event, "class"),
        score=event.score,
        box=tuple(event.bbox),
        age_s=event.age_ns / 1e9,
        epoch_ns=event.epoch_ns,
        sequence=event.sequence,
        index=event.index,
        wall_ns=event.wall_ns,
        capture_ns=event.capture_ns,
        width=event.width,
        height=event.height,
        event_sequence=event.event_sequence,
        event_epoch_ns=event.event_epoch_ns,
    )


class EventReader(Reader):
    """The service's samples are lists of events without a header."""

    def _typed(self, builder: Any, header: type[ctypes.Structure]) -> Any:
        return builder.publish_subscribe(iox.Slice[header])  # type: ignore[valid-type]

    def _parts(self, sample: Any) -> tuple[Any, bytes, int, int]:
        # Whatever its elements are, the wheel counts a slice in bytes.
        return sample, b"", sample.payload_ptr, sample.payload().number_of_elements


class Events(Stream[Event]):
    """Events of all cameras of the instance, from now on.

    `lag_ms` counts from the capture of the frame."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        # Those of the sample taken last; a few at most.
        self._waiting: deque[Event] = deque()

    def poll(self) -> Event | None:
        """What is already there, or `None`."""
        self._reader._check_open()
        return self._waiting.popleft() if self._waiting else super().poll()

    def _decode(self, sample: Any, raw: Any, address: int, length: int) -> Event | None:
        # `sample` is given back when this returns: nothing refers to its memory then.
        copy = ctypes.string_at(address, length)
        for number in range(length // _EVENT):
            try:
                event = decode_event(layout.Event.from_buffer_copy(copy, number * _EVENT))
                self._understood = True
            except (BadHeader, VersionError) as error:
                # One that lies takes nothing from the others of its frame.
                self._reject(error)
                continue
            self._counted(
                event.event_epoch_ns, event.event_sequence, event.capture_ns, from_zero=True
            )
            self._waiting.append(event)
        return self._waiting.popleft() if self._waiting else None
