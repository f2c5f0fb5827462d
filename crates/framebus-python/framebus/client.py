"""A connection to an instance."""

import os
import tomllib
from pathlib import Path
from types import TracebackType
from typing import Self

from .bus import Bus
from .domain import Domain, default_root
from .errors import InstanceError
from .events import EventReader, Events
from .frames import Frames
from .joined import Joined
from .layout import Event, FrameHeader, ResultHeader
from .results import Results

__all__ = ["Client", "default_root"]


class Client:
    """A connection to an instance of this user. It observes: nobody ever waits for it."""

    def __init__(
        self,
        instance: str = "default",
        root: str | os.PathLike[str] | None = None,
        *,
        name: str = "python",
    ) -> None:
        """`root` is the configuration's `bus.root`, where it sets one; `name` is shown in
        lists of readers."""
        self._name = name
        self._bus = Bus(Domain(instance, default_root() if root is None else Path(root)), name)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], *, name: str = "python") -> Self:
        """Connects to the instance that a configuration file describes."""
        file = Path(path).absolute()
        try:
            config = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InstanceError(
                f"cannot read {file}: {error}; `framebus check --config {file}` says what is wrong"
            ) from None
        instance, bus = config.get("instance", "default"), config.get("bus", {})
        root = bus.get("root") if isinstance(bus, dict) else bus
        if not isinstance(instance, str) or not isinstance(root, str | None):
            raise InstanceError(
                f"{file}: instance and bus.root are texts; `framebus check --config {file}` "
                "says what is wrong"
            )
        # Paths in a configuration are relative to it.
        return cls(instance, None if root is None else file.parent / root, name=name)

    def results(self, *, pace: float = 0.0) -> Results:
        """Subscribes to the results of all cameras, from now on.

        `pace`: a waiting reader is woken once in so many seconds at most, and then takes all
        that has come. It costs that much delay, and saves a wake-up per result; the buffer
        (128 results) has to last that long."""
        reader = self._bus.reader("results", ResultHeader, self._name, newest=False)
        return Results(reader, pace)

    def events(self) -> Events:
        """Subscribes to the events of all cameras, from now on."""
        reader = EventReader(self._bus, "events", Event, self._name, newest=False)
        return Events(self._bus.joined(reader))

    def frames(self, camera: str) -> Frames:
        """Subscribes to the frames of one camera, from now on."""
        service = f"frames/{camera}"
        return Frames(self._bus.reader(service, FrameHeader, self._name, newest=True), camera)

    def joined(self, camera: str) -> Joined:
        """Subscribes to one camera's frames together with their results."""
        frames = self.frames(camera)
        try:
            return Joined(frames, self.results())
        except BaseException:
            frames.close()
            raise

    def close(self) -> None:
        """Leaves the instance. Arrays of frames that are still held stay valid."""
        self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
