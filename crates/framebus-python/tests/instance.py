"""An instance to test with: services as framebus-bus makes them, in a folder of its own,
published by this very process."""

import ctypes
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import iceoryx2 as iox

from framebus import layout
from framebus.domain import Domain

EVENT_SENT = 1


def nv12_header(width: int, height: int, camera: str = "cam") -> layout.FrameHeader:
    """An honest header of a frame without gaps."""
    header = layout.FrameHeader(version=layout.VERSION, pts_ns=layout.NO_PTS)
    header.camera = camera.encode()
    header.width, header.height = width, height
    header.fourcc = int.from_bytes(b"NV12", "little")
    header.strides[:2] = [width, width]
    header.offsets[:2] = [0, width * height]
    return header


def result_header(camera: str = "cam", **fields: int) -> layout.ResultHeader:
    """An honest header of a result without detections."""
    header = layout.ResultHeader(version=layout.VERSION, outcome=1, pts_ns=layout.NO_PTS)
    header.camera = camera.encode()
    for name, value in fields.items():
        setattr(header, name, value)
    return header


class Service:
    """A publisher of one service and what wakes its readers."""

    def __init__(self, node: Any, name: str, header: type, buffer: int, readers: int) -> None:
        key = iox.ServiceName.new(name)
        self._service = (
            node.service_builder(key)
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .user_header(header)
            .max_publishers(2)
            .max_subscribers(readers)
            .subscriber_max_buffer_size(buffer)
            .subscriber_max_borrowed_samples(4)
            .history_size(0)
            .enable_safe_overflow(True)
            .create()
        )
        self._event = (
            node.service_builder(key).event().max_listeners(readers).event_id_max_value(3).create()
        )
        # For the frames: all readers but one are observers.
        self._observers = (
            node.service_builder(iox.ServiceName.new(name + "/observers"))
            .event()
            .max_listeners(readers - 1)
            .create()
        )
        self._publisher = (
            self._service.publisher_builder()
            .initial_max_slice_len(1 << 16)
            .max_loaned_samples(4)
            .create()
        )
        self._notifier = (
            self._event.notifier_builder().default_event_id(iox.EventId.new(EVENT_SENT)).create()
        )

    def send(self, header: ctypes.Structure, payload: bytes) -> None:
        """Sends a sample and wakes the readers."""
        sample = self._publisher.loan_slice_uninit(max(1, len(payload)))
        ctypes.memmove(sample.user_header_ptr, ctypes.addressof(header), ctypes.sizeof(header))
        ctypes.memmove(sample.payload_ptr, payload, len(payload))
        sample.assume_init().send()
        self._notifier.notify()


class Instance:
    """Results, and frames of the camera `cam`."""

    def __init__(self, *, frames: type = layout.FrameHeader, readers: int = 2) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="fb", dir="/tmp"))
        # So that instances of two tests at once do not share memory.
        self.name = f"p{os.getpid()}{self.root.name[2:].lower()}"
        self.domain = Domain(self.name, self.root)
        self.domain.folder.mkdir(mode=0o700)
        config = iox.config.default()
        config.global_cfg.prefix = iox.FileName.new(self.domain.prefix)
        config.global_cfg.root_path = iox.Path.new(str(self.domain.folder))
        self._node = (
            iox.NodeBuilder.new()
            .config(config)
            .signal_handling_mode(iox.SignalHandlingMode.Disabled)
            .create(iox.ServiceType.Ipc)
        )
        self.results = Service(self._node, "results", layout.ResultHeader, 8, readers)
        self.frames = Service(self._node, "frames/cam", frames, 1, readers)

    def close(self) -> None:
        """Ends it and removes its files."""
        self.results = self.frames = self._node = None
        shutil.rmtree(self.root)
        for file in Path("/dev/shm").glob(f"{self.domain.prefix}*"):
            file.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
