"""Read framebus results, and frames if you want them, from your own process.

    from framebus import Client

    for result in Client("default").results():
        for found in result.detections:
            print(result.camera, found.label, f"{found.score:.2f}", found.box)

A reader runs as the same user as the instance and never holds anyone up: a slow
one loses its own oldest results (``Results.lost`` counts them).
"""

from .client import Client, default_root
from .errors import (
    AbsentError,
    BadHeader,
    FormatError,
    FramebusError,
    FullError,
    HeldError,
    InstanceError,
    ReleasedError,
    TransportError,
    VersionError,
)
from .events import Event, Events
from .frames import Frame, Frames
from .joined import Joined
from .layout import (
    ChromaSite,
    ColourMatrix,
    ColourRange,
    Direction,
    EventKind,
    Outcome,
    PixelFormat,
    Reason,
)
from .results import Detection, Result, Results, ServerTimes, StageTimes
from .stream import Selector

__all__ = [
    "AbsentError",
    "BadHeader",
    "ChromaSite",
    "Client",
    "ColourMatrix",
    "ColourRange",
    "Detection",
    "Direction",
    "Event",
    "EventKind",
    "Events",
    "FormatError",
    "Frame",
    "FramebusError",
    "Frames",
    "FullError",
    "HeldError",
    "InstanceError",
    "Joined",
    "Outcome",
    "PixelFormat",
    "Reason",
    "ReleasedError",
    "Result",
    "Results",
    "Selector",
    "ServerTimes",
    "StageTimes",
    "TransportError",
    "VersionError",
    "default_root",
]
