"""Frames together with their results."""

import time
from collections import deque
from types import TracebackType
from typing import Self

from .bus import WaitSet, deadline
from .errors import HeldError
from .frames import Frame, Frames
from .results import Result, Results


class Joined:
    """Pairs of a frame and its result, by camera, epoch and sequence.

    Frames wait for their results here, one less than may be held, and one less again for
    each that you hold. A result whose frame had to go before it came is counted.
    """

    def __init__(self, frames: Frames, results: Results) -> None:
        self.frames = frames
        self.results = results
        self._waiting: deque[Frame] = deque()
        self._room = max(1, frames.limit - 1)
        self._unmatched = 0
        self._wake = WaitSet([frames._reader, results._reader])

    @property
    def unmatched(self) -> int:
        """Results of the camera whose frame was not there (any more)."""
        return self._unmatched

    def _take_frames(self) -> None:
        while True:
            try:
                frame = self.frames.poll()
            except HeldError:
                # The caller holds some: what waits has to make room.
                if not self._waiting:
                    raise
                self._waiting.popleft()
                continue
            if frame is None:
                return
            self._waiting.append(frame)
            if len(self._waiting) > self._room:
                self._waiting.popleft()

    def _take(self, result: Result) -> Frame | None:
        for number, frame in enumerate(self._waiting):
            if (frame.epoch_ns, frame.sequence) == (result.epoch_ns, result.sequence):
                del self._waiting[number]
                return frame
        return None

    def poll(self) -> tuple[Frame, Result] | None:
        """A pair that is already there, or `None`."""
        self._take_frames()
        while (result := self.results.poll()) is not None:
            if result.camera != self.frames.camera:
                continue
            frame = self._take(result)
            if frame is None:
                # It may have been sent since the look at the frames.
                self._take_frames()
                frame = self._take(result)
            if frame is not None:
                return frame, result
            self._unmatched += 1
        return None

    def wait(self, timeout: float | None = None) -> tuple[Frame, Result] | None:
        """The next pair; `None` when none comes within `timeout` seconds."""
        end = deadline(timeout)
        while (pair := self.poll()) is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._wake.wait(left)
        return pair

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Frame, Result]:
        pair = self.wait()
        assert pair is not None
        return pair

    def close(self) -> None:
        """Gives back what waits, and both readers' places."""
        self._waiting.clear()
        self._wake.close()
        self.frames.close()
        self.results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
