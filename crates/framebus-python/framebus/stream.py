"""What streams of results and of frames have in common."""

import logging
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .bus import Reader, WaitSet, deadline
from .errors import BadHeader, VersionError

T = TypeVar("T")

# Samples that one look passes over: a publisher that sends nothing but garbage must
# not keep a reader from its other work.
_SKIPS_MAX = 64

_log = logging.getLogger("framebus")


class Pace:
    """At most one sleep and one wake-up per `seconds`: what comes in between waits, and is
    then there without another one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def rest(self, end: float) -> None:
        """Sleeps until it is time to look again, or until `end`."""
        if self._seconds > 0:
            now = time.monotonic()
            if now < self._next:
                time.sleep(max(0.0, min(self._next, end) - now))
                if end < self._next:
                    return
            self._next = max(now, self._next) + self._seconds


class Stream(ABC, Generic[T]):
    """Samples of one service with losses counted. For one thread at a time."""

    def __init__(self, reader: Reader, pace: float = 0.0) -> None:
        self._reader = reader
        self._pace = Pace(pace)
        self._last: tuple[int, int] | None = None
        self._lost = 0
        self._lag_ns = 0
        self._bad_headers = 0
        self._understood = False

    @abstractmethod
    def _decode(self, sample: Any, raw: bytes, address: int, length: int) -> T | None:
        """Checks a sample, whose header `raw` is a copy; `None` for one to pass over."""

    def poll(self) -> T | None:
        """What is already there, or `None`."""
        for _ in range(_SKIPS_MAX):
            taken = self._reader.receive()
            if taken is None:
                return None
            try:
                item = self._decode(*taken)
            except (BadHeader, VersionError) as error:
                self._reject(error)
                continue
            finally:
                # A sample that was passed over goes back before the next one comes.
                del taken
            if item is not None:
                self._understood = True
                return item
        return None

    def _reject(self, error: BadHeader | VersionError) -> None:
        """Counts a sample that is not trusted. Another version is the instance's until
        one was understood; after that it is somebody else's lie, and no reason to end."""
        if isinstance(error, VersionError) and not self._understood:
            raise error
        self._bad_headers += 1
        # Ever more rarely, so that a flood does not fill the disk.
        if self._bad_headers.bit_count() == 1:
            _log.warning(
                "%s: one skipped (%d so far): %s",
                self._reader.service, self._bad_headers, error,
            )  # fmt: skip

    def wait(self, timeout: float | None = None) -> T | None:
        """The next one; `None` when none comes within `timeout` seconds. Without a
        timeout it waits as long as it takes."""
        end = deadline(timeout)
        while (item := self.poll()) is None:
            self._pace.rest(end)
            left = end - time.monotonic()
            if left <= 0:
                return self.poll()
            self._reader.wait(left)
        return item

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self.wait()
        assert item is not None
        return item

    def _counted(self, epoch_ns: int, number: int, sent_ns: int, *, from_zero: bool) -> None:
        """Takes note of a sample's number. `from_zero`: numbers of a restarted
        publisher that are missing at their beginning count as lost."""
        if self._last is not None:
            last_epoch, last = self._last
            if last_epoch == epoch_ns:
                self._lost += max(0, number - last - 1)
            elif from_zero:
                self._lost += number
        self._last = (epoch_ns, number)
        self._lag_ns = time.monotonic_ns() - sent_ns

    @property
    def lost(self) -> int:
        """How many were overwritten before this reader took them."""
        return self._lost

    @property
    def lag_ms(self) -> float:
        """How long the one taken last had waited for this reader, ms."""
        return self._lag_ns / 1e6

    @property
    def bad_headers(self) -> int:
        """How many were skipped because their header contradicted their payload."""
        return self._bad_headers

    def close(self) -> None:
        """Gives up the reader's place."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Selector:
    """Sleeps until one of several streams has something: for one thread that reads many.
    What a wake-up costs does not grow with their number."""

    def __init__(self, *streams: Stream[Any], pace: float = 0.0) -> None:
        """`pace`: as for `Client.results`."""
        self._streams = streams
        self._pace = Pace(pace)
        self._set = WaitSet([stream._reader for stream in streams])

    def wait(self, timeout: float | None = None) -> list[Stream[Any]]:
        """Those that have something, each to be polled until it says `None`; empty when
        `timeout` seconds have passed."""
        end = deadline(timeout)
        while True:
            self._pace.rest(end)
            left = end - time.monotonic()
            woken = self._set.wait(left)
            if woken or left <= 0:
                return [self._streams[number] for number in woken]

    def close(self) -> None:
        """Ends it; the streams go on."""
        self._set.close()
