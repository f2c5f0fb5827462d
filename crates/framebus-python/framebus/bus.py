"""The only module that knows iceoryx2."""

import ctypes
import importlib.metadata
import os
import time
import weakref
from typing import Any

from .domain import Domain
from .errors import (
    AbsentError,
    FramebusError,
    FullError,
    HeldError,
    ReleasedError,
    TransportError,
    VersionError,
)

_ICEORYX2 = "0.10.0"
try:
    _found = importlib.metadata.version("iceoryx2")
except importlib.metadata.PackageNotFoundError:
    _found = "none"
if _found != _ICEORYX2:
    raise VersionError(
        f"iceoryx2 {_ICEORYX2} is needed and {_found} is installed: other versions cannot see "
        f"an instance's services; pip install iceoryx2=={_ICEORYX2}"
    )

import iceoryx2 as iox  # noqa: E402

# What fails comes back as an exception, once and in our words.
iox.set_log_level(iox.LogLevel.Fatal)

# Nobody ever waits for a reader of this name; see framebus-bus/src/readers.rs.
_OBSERVER = "observer:"
# A signal is answered between two waits.
_LONGEST_WAIT_S = 0.25
# Below a microsecond the socket's timeout would be 0, which is none.
_SHORTEST_WAIT_S = 1e-5


def _transport(service: str, error: Exception) -> TransportError:
    return TransportError(
        f"bus service {service} failed: {error}; see `framebus status` whether the instance "
        "runs, and open the client again"
    )


def _open_error(service: str, error: Exception | str) -> FramebusError:
    word = str(error)
    if word == "DoesNotExist":
        return AbsentError(
            f"nothing publishes {service} in this instance yet; is `framebus up` running with "
            "the same instance and user, and is there such a camera?"
        )
    if "Incompatible" in word or "Corrupted" in word:
        return VersionError(
            f"cannot open bus service {service}: {word}; the instance's layouts are not of the "
            "version that this package reads: install the package of the instance's own version"
        )
    return TransportError(f"cannot open bus service {service}: {word}; see `framebus doctor`")


def _full_error(service: str) -> FullError:
    key = "frame_subscribers" if service.startswith("frames/") else "result_subscribers"
    return FullError(
        f"{service} has as many readers as it has room for: end one (a `framebus tap`, a "
        f"subscriber), or raise bus.{key} and restart the instance"
    )


def _port_error(service: str, error: Exception) -> FramebusError:
    word = str(error)
    if word in ("ExceedsMaxSupportedListeners", "ExceedsMaxSupportedSubscribers"):
        return _full_error(service)
    return TransportError(f"cannot join bus service {service}: {word}; see `framebus doctor`")


class Reader:
    """One service's samples, and the event that wakes their reader."""

    def __init__(
        self, bus: "Bus", service: str, header: type[ctypes.Structure], name: str, newest: bool
    ) -> None:
        self.service = service
        # The client may be forgotten before its readers are.
        self._bus = bus
        self._header_size = ctypes.sizeof(header)
        self._subscriber: Any = None
        self._listener: Any = None
        self._process = os.getpid()
        # Whatever settings its creator gave it: open, and never create.
        key = iox.ServiceName.new(service)
        try:
            samples = self._typed(bus.node.service_builder(key), header).open()
            events = bus.node.service_builder(key).event().open()
        except (iox.PublishSubscribeOpenError, iox.EventOpenError) as error:
            raise _open_error(service, error) from None
        settings = samples.static_config
        # Kept as long as this reader is: its place, see framebus-bus/src/services.rs.
        self._place = self._take_place(bus, service, settings.max_subscribers)
        self.limit: int = settings.subscriber_max_borrowed_samples
        try:
            # First: nothing is sent between the two that does not wake.
            self._listener = events.listener_builder().create()
            builder = samples.subscriber_builder().name(iox.PortName.new(_OBSERVER + name))
            if newest and settings.has_safe_overflow:
                # Whatever is older would be dropped by its reader.
                builder = builder.buffer_size(1)
            self._subscriber = builder.create()
            # A publisher knows only of readers that have looked for it once.
            self._subscriber.has_samples()
        except (iox.ListenerCreateError, iox.SubscriberCreateError) as error:
            self.close()
            raise _port_error(service, error) from None
        except iox.ConnectionFailure as error:
            self.close()
            raise _transport(service, error) from None

    @staticmethod
    def _take_place(bus: "Bus", service: str, readers: int) -> Any:
        """Observers of frames leave one place to the inference process."""
        if not service.startswith("frames/"):
            return None
        if readers < 2:
            raise _full_error(service)
        key = iox.ServiceName.new(service + "/observers")
        try:
            places = bus.node.service_builder(key).event().open()
            return places.listener_builder().create()
        except iox.EventOpenError as error:
            # Made before the frames' service by every version that knows of it.
            word = "Incompatible: older" if str(error) == "DoesNotExist" else str(error)
            raise _open_error(service, word) from None
        except iox.ListenerCreateError as error:
            raise _port_error(service, error) from None

    def _typed(self, builder: Any, header: type[ctypes.Structure]) -> Any:
        return builder.publish_subscribe(iox.Slice[ctypes.c_uint8]).user_header(header)

    def _check_open(self) -> None:
        if self._subscriber is None:
            raise ReleasedError(f"this reader of {self.service} was closed; open another one")
        # Parent and child would take each other's samples.
        if os.getpid() != self._process:
            raise ReleasedError(
                f"this reader of {self.service} belongs to process {self._process}, and this is "
                "a fork of it: open a client in each process (multiprocessing: use spawn)"
            )

    def receive(self) -> tuple[Any, bytes, int, int] | None:
        """A sample, a copy of its header, address and length of its payload. One copy:
        what is checked is what is used, whatever the publisher writes afterwards."""
        self._check_open()
        try:
            sample = self._subscriber.receive()
        except iox.ReceiveError as error:
            if str(error) == "ExceedsMaxBorrows":
                raise HeldError(
                    f"this reader holds {self.limit} samples of {self.service}, as many as it "
                    "may: release frames and drop arrays made of them, or keep copies "
                    "(`frame.y.copy()`)"
                ) from None
            raise _transport(self.service, error) from None
        return None if sample is None else self._parts(sample)

    def _parts(self, sample: Any) -> tuple[Any, bytes, int, int]:
        header = ctypes.string_at(sample.user_header_ptr, self._header_size)
        # What the wheel's own `payload()` makes its slice of, without making one.
        return sample, header, sample.payload_ptr, getattr(sample, "__slice_len")

    def wait(self, seconds: float) -> None:
        """Sleeps until something was sent, or `seconds`; other threads run meanwhile."""
        self._check_open()
        timeout = iox.Duration.from_secs_f64(
            min(max(seconds, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
        )
        try:
            self._listener.timed_wait(timeout)
        except iox.ListenerWaitError as error:
            # Python answers the signal when this returns.
            if "Interrupt" not in str(error):
                raise _transport(self.service, error) from None

    def drain(self) -> None:
        """Forgets the events so far; to be called before a look."""
        if self._listener is not None:
            try:
                self._listener.try_wait()
            except iox.ListenerWaitError as error:
                if "Interrupt" not in str(error):
                    raise _transport(self.service, error) from None

    def close(self) -> None:
        """Leaves the service. Samples that are held stay valid."""
        self._subscriber = self._listener = self._place = None


class WaitSet:
    """Sleeps until one of several readers has something."""

    def __init__(self, readers: list[Reader]) -> None:
        self._readers = readers
        try:
            self._set = (
                iox.WaitSetBuilder.new()
                .signal_handling_mode(iox.SignalHandlingMode.Disabled)
                .create(iox.ServiceType.Ipc)
            )
            self._guards = [self._set.attach_notification(reader._listener) for reader in readers]
        except (iox.WaitSetCreateError, iox.WaitSetAttachmentError) as error:
            raise _transport("wait set", error) from None
        ids = map(iox.WaitSetAttachmentId.from_guard, self._guards)
        self._numbers = {id: number for number, id in enumerate(ids)}

    def wait(self, seconds: float) -> list[int]:
        """Sleeps `seconds` at most. Numbers of the readers that have something; what woke
        them is forgotten, so that they have to look now."""
        if self._set is None:
            raise ReleasedError("this wait set was closed; make another one")
        timeout = iox.Duration.from_secs_f64(min(max(seconds, 0.0), _LONGEST_WAIT_S))
        try:
            woken, _ = self._set.wait_and_process_with_timeout(timeout)
        except iox.WaitSetRunError as error:
            if "Interrupt" not in str(error):
                raise _transport("wait set", error) from None
            return []
        numbers = [self._numbers[id] for id in woken if id in self._numbers]
        for number in numbers:
            self._readers[number].drain()
        return numbers

    def close(self) -> None:
        """Gives the listeners back."""
        self._guards.clear()
        self._set = None


class Bus:
    """This process as a member of an instance's domain."""

    def __init__(self, domain: Domain, process: str) -> None:
        domain.check()
        config = iox.config.default()
        config.global_cfg.prefix = iox.FileName.new(domain.prefix)
        config.global_cfg.root_path = iox.Path.new(str(domain.folder))
        try:
            node = (
                iox.NodeBuilder.new()
                .name(iox.NodeName.new(process))
                .config(config)
                .signal_handling_mode(iox.SignalHandlingMode.Disabled)
                .create(iox.ServiceType.Ipc)
            )
        except iox.NodeCreationFailure as error:
            raise TransportError(
                f"cannot join instance {domain.instance}: {error}; see `framebus doctor`"
            ) from None
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        # The interpreter drops nothing in order when it ends; what it leaves is
        # a dead member, which the instance then has to clean up.
        self._nodes = [node]
        self._finalizer = weakref.finalize(self, _leave, os.getpid(), self._nodes, self._readers)

    @property
    def node(self) -> Any:
        """iceoryx2's node."""
        if not self._nodes:
            raise ReleasedError("this client was closed; open another one")
        return self._nodes[0]

    def reader(
        self, service: str, header: type[ctypes.Structure], name: str, newest: bool
    ) -> Reader:
        """Joins a service as an observer."""
        reader = Reader(self, service, header, name, newest)
        self._readers.add(reader)
        return reader

    def joined(self, reader: Reader) -> Reader:
        """Closes that reader, too, when this process leaves."""
        self._readers.add(reader)
        return reader

    def close(self) -> None:
        """Leaves the instance."""
        self._finalizer()


def _leave(owner: int, nodes: list[Any], readers: "weakref.WeakSet[Reader]") -> None:
    # A forked child has the same objects, and they are its parent's.
    if os.getpid() == owner:
        for reader in list(readers):
            reader.close()
        nodes.clear()


def deadline(timeout: float | None) -> float:
    """When a wait of `timeout` seconds ends; `None`: never."""
    return float("inf") if timeout is None else time.monotonic() + timeout
