"""Over shared memory: what is read, what is lost, what is held, what is refused."""

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from instance import Instance, nv12_header, result_header

from framebus import (
    AbsentError,
    BadHeader,
    Client,
    FormatError,
    FullError,
    HeldError,
    InstanceError,
    ReleasedError,
    Selector,
    VersionError,
    layout,
)


class OtherFrames(layout.FrameHeader):
    """Of a version to come."""

    @staticmethod
    def type_name() -> str:
        return "framebus.FrameHeader.v2"


class Bus(unittest.TestCase):
    """With an instance and a client."""

    def setUp(self) -> None:
        self.instance = self.enterContext(Instance())
        self.client = self.enterContext(Client(self.instance.name, self.instance.root))

    def result(self, number: int, **fields: int) -> None:
        fields.setdefault("sequence", number)
        self.instance.results.send(result_header(result_sequence=number, **fields), b"")

    def frame(self, number: int, value: int = 0, **fields: Any) -> None:
        header = nv12_header(64, 32)
        header.sequence = number
        for name, content in fields.items():
            setattr(header, name, content)
        self.instance.frames.send(header, bytes([value]) * (64 * 32 * 3 // 2))

    def test_results_come_in_order_and_losses_are_counted(self) -> None:
        results = self.client.results()
        self.assertIsNone(results.poll())
        for number in range(20):
            self.result(number)
        # The buffer has room for eight; what was lost before the first is not ours.
        self.assertEqual([r.sequence for r in iter(results.poll, None)], list(range(12, 20)))
        self.assertEqual(results.lost, 0)
        for number in range(20, 40):
            self.result(number)
        self.assertEqual([r.sequence for r in iter(results.poll, None)], list(range(32, 40)))
        self.assertEqual(results.lost, 12)
        # A restarted publisher counts from 0.
        self.result(3, result_epoch_ns=1)
        self.assertIsNotNone(results.poll())
        self.assertEqual(results.lost, 15)

    def test_a_wait_ends_with_the_result_or_with_its_time(self) -> None:
        results = self.client.results()
        begin = time.monotonic()
        self.assertIsNone(results.wait(0.3))
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)
        sender = threading.Timer(0.3, self.result, (5,))
        sender.start()
        found = results.wait(30)
        sender.join()
        assert found is not None
        self.assertEqual(found.sequence, 5)
        self.result(6, times=layout.StageTimes(result_ns=time.monotonic_ns()))
        time.sleep(0.02)
        self.assertIsNotNone(results.poll())
        self.assertGreaterEqual(results.lag_ms, 20)
        self.assertLess(results.lag_ms, 30_000)

    def test_a_paced_reader_takes_several_at_a_wake_up(self) -> None:
        results = self.client.results(pace=0.3)
        woken = 0
        wait = results._reader.wait

        def counted(seconds: float) -> None:
            nonlocal woken
            woken += 1
            wait(seconds)

        results._reader.wait = counted  # type: ignore[method-assign]
        self.result(0)
        self.assertIsNotNone(results.wait(10))
        sender = threading.Thread(
            target=lambda: [(time.sleep(0.03), self.result(number)) for number in range(1, 6)]
        )
        sender.start()
        found = [results.wait(10) for _ in range(5)]
        sender.join()
        self.assertEqual([result and result.sequence for result in found], [1, 2, 3, 4, 5])
        self.assertLess(woken, 5, "one wake-up for several")
        begin = time.monotonic()
        self.assertIsNone(results.wait(0.05))
        self.assertLess(time.monotonic() - begin, 10, "the timeout ends it")

    def test_lying_results_and_frames_are_skipped_and_counted(self) -> None:
        results, frames = self.client.results(), self.client.frames("cam")
        self.result(0, count=3)
        self.result(1, outcome=77)
        self.result(2)
        with self.assertLogs("framebus"):
            found = results.poll()
        assert found is not None
        self.assertEqual((found.sequence, results.bad_headers), (2, 2))
        self.frame(0, camera=b"other")
        with self.assertLogs("framebus"):
            self.assertIsNone(frames.poll())
        self.frame(1)
        self.assertIsNotNone(frames.poll())
        self.assertEqual(frames.bad_headers, 1)
        self.assertTrue(issubclass(BadHeader, Exception))

    def test_another_version_is_an_error_and_not_silence(self) -> None:
        results = self.client.results()
        self.result(0, version=2)
        with self.assertRaisesRegex(VersionError, "header version 2"):
            results.poll()
        self.result(1)
        self.assertIsNotNone(results.poll())
        # Anybody of the same user can send one: no reason to end.
        self.result(2, version=2)
        self.result(3)
        with self.assertLogs("framebus"):
            found = results.poll()
        assert found is not None
        self.assertEqual((found.sequence, results.bad_headers), (3, 1))
        other = self.enterContext(Instance(frames=OtherFrames))
        client = self.enterContext(Client(other.name, other.root))
        with self.assertRaisesRegex(VersionError, "IncompatibleTypes.*own version"):
            client.frames("cam")

    def test_pixels_are_in_place_and_read_only(self) -> None:
        frames = self.client.frames("cam")
        self.frame(4, 7)
        frame = frames.poll()
        assert frame is not None
        self.assertEqual((frame.y.shape, frame.uv.shape), ((32, 64), (16, 32, 2)))
        self.assertTrue((frame.y == 7).all() and (frame.uv == 7).all())
        self.assertEqual(frame.y.ctypes.data, frame._payload.ctypes.data)
        self.assertEqual(frame.uv.ctypes.data, frame._payload.ctypes.data + 64 * 32)
        mapped = {
            tuple(int(edge, 16) for edge in line.split()[0].split("-")): line
            for line in Path("/proc/self/maps").read_text().splitlines()
            if self.instance.domain.prefix in line and " r--s " in line
        }
        self.assertTrue(
            any(start <= frame.y.ctypes.data < end for start, end in mapped),
            "the array lies in memory that is mapped read-only",
        )
        for view in (frame.y, frame.uv, frame.y[::2, 3:], frame.y.reshape(-1)):
            self.assertFalse(view.flags.writeable)
            with self.assertRaises(ValueError):
                view.flags.writeable = True
            with self.assertRaises(ValueError):
                view[0] = 1
        with self.assertRaisesRegex(FormatError, r"is NV12, not RGB24: use frame\.y"):
            _ = frame.pixels

    def test_rows_lie_a_stride_apart(self) -> None:
        frames = self.client.frames("cam")
        header = nv12_header(5, 3)
        header.strides[:2] = [8, 16]
        header.offsets[:2] = [4, 40]
        payload = np.arange(100, dtype=np.uint8)
        self.instance.frames.send(header, payload.tobytes())
        frame = frames.poll()
        assert frame is not None
        np.testing.assert_array_equal(frame.y, [payload[4 + 8 * r :][:5] for r in range(3)])
        np.testing.assert_array_equal(
            frame.uv, [payload[40 + 16 * r :][:6].reshape(3, 2) for r in range(2)]
        )
        self.assertEqual(frame.rgb().shape, (3, 5, 3))

    def test_no_array_outlives_its_sample(self) -> None:
        frames = self.client.frames("cam")
        self.frame(0, 1)
        with frames.poll() as frame:
            view = frame.y[4:8]
        with self.assertRaisesRegex(ReleasedError, "#0 of cam was given back: read it before"):
            _ = frame.y
        # Its frame is released, the reader closed, the client gone, and the publisher
        # has gone round its memory: the view shows what it showed.
        frames.close()
        self.client.close()
        del frame, frames
        gc.collect()
        for number in range(1, 40):
            self.frame(number, 99)
        self.assertTrue((view == 1).all())

    def test_a_released_frame_and_a_dropped_array_give_their_memory_back(self) -> None:
        frames = self.client.frames("cam")
        held = []
        for number in range(4):
            self.frame(number)
            held.append(frames.poll().y)
        self.frame(4)
        with self.assertRaisesRegex(HeldError, "holds 4 samples of frames/cam, .* copies"):
            frames.poll()
        del held[1]
        frame = frames.poll()
        assert frame is not None
        self.assertEqual((frame.sequence, frames.lost), (4, 0))
        frame.release()
        for number in range(10, 200):
            self.frame(number)
            with frames.poll() as frame:
                self.assertEqual(frame.sequence, number)
        self.assertEqual(frames.lost, 5)

    def test_a_slow_reader_sees_the_newest_frame_and_knows_its_losses(self) -> None:
        frames = self.client.frames("cam")
        self.frame(0)
        self.assertEqual(frames.poll().sequence, 0)
        for number in range(1, 6):
            self.frame(number)
        self.frame(5)  # sent again for another reader
        self.assertEqual(frames.poll().sequence, 5)
        self.assertIsNone(frames.poll())
        self.assertEqual(frames.lost, 4)

    def test_frames_meet_their_results(self) -> None:
        with self.client.joined("cam") as pairs:
            for number in range(4):
                self.frame(number, number)
                self.assertIsNone(pairs.poll(), "no result yet")
            self.result(0, sequence=0)  # its frame had to go: three wait
            self.result(1, sequence=2)
            self.result(2, sequence=1, epoch_ns=8)
            self.result(3, sequence=1)
            frame, result = pairs.wait(10)
            self.assertEqual((frame.sequence, result.sequence, frame.y[0, 0]), (2, 2, 2))
            frame, result = pairs.wait(10)
            self.assertEqual(frame.name, (result.camera, result.epoch_ns, result.sequence))
            self.assertEqual((frame.sequence, pairs.unmatched), (1, 2))
            # Who holds too much gets no more, and is told.
            held = [frame.y]
            with self.assertRaises(HeldError):
                for number in range(4, 12):
                    self.frame(number)
                    self.result(number + 5, sequence=number)
                    held.append(pairs.poll()[0].y)
            self.assertEqual(len(held), 4)

    def test_one_thread_reads_many_streams(self) -> None:
        results, frames = self.client.results(), self.client.frames("cam")
        selector = Selector(results, frames)
        self.assertEqual(selector.wait(0.05), [])
        self.frame(0)
        self.assertEqual(selector.wait(10), [frames])
        self.assertIsNotNone(frames.poll())
        self.assertEqual(selector.wait(0.05), [], "an event wakes once")
        self.result(0)
        self.frame(1)
        self.assertEqual(set(selector.wait(10)), {results, frames})
        selector.close()
        with self.assertRaisesRegex(ReleasedError, "was closed"):
            selector.wait(0)

    def test_readers_are_observers_and_their_number_is_bounded(self) -> None:
        first = self.client.results()
        self.assertEqual(first._reader._subscriber.name.as_str(), "observer:python")
        second = self.client.results()
        with self.assertRaisesRegex(FullError, "raise bus.result_subscribers"):
            self.client.results()
        second.close()
        with self.assertRaisesRegex(ReleasedError, "this reader of results was closed"):
            second.poll()
        self.assertIsNone(self.client.results().poll())

    def test_one_place_at_the_frames_is_left_to_inference(self) -> None:
        first = self.client.frames("cam")
        with self.assertRaisesRegex(FullError, "^frames/cam has as.* raise bus.frame_subscribers"):
            self.client.frames("cam")
        first.close()
        self.frame(0)
        self.assertIsNone(self.client.frames("cam").poll())

    def test_an_instance_without_such_places_is_of_another_version(self) -> None:
        self.instance.frames._observers = None
        with self.assertRaisesRegex(VersionError, "package of the instance's own version"):
            self.client.frames("cam")

    def test_what_is_not_there_is_said(self) -> None:
        with self.assertRaisesRegex(AbsentError, "nothing publishes frames/nocam"):
            self.client.frames("nocam")
        with self.assertRaisesRegex(AbsentError, "nothing publishes instance absent"):
            Client("absent", self.instance.root)
        self.client.close()
        with self.assertRaisesRegex(ReleasedError, "this client was closed"):
            self.client.results()

    def test_the_client_may_be_forgotten_before_its_reader(self) -> None:
        results = Client(self.instance.name, self.instance.root).results()
        gc.collect()
        self.result(1)
        self.assertIsNotNone(results.poll())

    def test_a_fork_does_not_take_its_parents_samples(self) -> None:
        results = self.client.results()
        child = os.fork()
        if child == 0:
            try:
                results.poll()
            except ReleasedError:
                os._exit(7)
            os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)

    def test_a_process_that_ends_leaves_no_member_behind(self) -> None:
        # Everything is held in globals, which the interpreter drops in no order.
        program = (
            "import sys; from framebus import Client\n"
            "client = Client(sys.argv[1], sys.argv[2])\n"
            "pairs = client.joined('cam'); results = client.results()\n"
        )
        before = sorted(p.name for p in self.instance.domain.folder.rglob("*"))
        subprocess.run(
            [sys.executable, "-c", program, self.instance.name, str(self.instance.root)],
            check=True, timeout=60,
        )  # fmt: skip
        after = sorted(p.name for p in self.instance.domain.folder.rglob("*"))
        self.assertEqual(before, after)


class Instances(unittest.TestCase):
    """Names, folders, configuration files."""

    def test_names_and_folders_are_checked(self) -> None:
        for name, root, message in (
            ("", "/tmp/fb", "1 to 24 of a-z"),
            ("A b", "/tmp/fb", "1 to 24 of a-z"),
            ("a", "rel", "must be an absolute path"),
            ("a", "/0123456789/0123456789/0123456789/0123456789/0123", "allow 48"),
        ):
            with self.assertRaisesRegex(InstanceError, message):
                Client(name, root)

    def test_a_folder_that_others_may_write_is_refused(self) -> None:
        with Instance() as instance:
            instance.domain.folder.chmod(0o777)
            with self.assertRaisesRegex(InstanceError, "chmod go-w"):
                Client(instance.name, instance.root)

    def test_a_configuration_names_its_instance(self) -> None:
        with Instance() as instance:
            file = instance.root / "framebus.toml"
            file.write_text(f'instance = "{instance.name}"\n[bus]\nroot = "."\n')
            with Client.from_config(file) as client:
                self.assertIsNone(client.results().poll())
            for text in ("instance = ", "instance = 3", "[bus]\nroot = 3", "bus = 3"):
                file.write_text(text)
                with self.assertRaisesRegex(InstanceError, "framebus check --config"):
                    Client.from_config(file)
        with self.assertRaisesRegex(InstanceError, "cannot read"):
            Client.from_config(file)


if __name__ == "__main__":
    assert ctypes.sizeof(OtherFrames) == ctypes.sizeof(layout.FrameHeader)
    unittest.main()
