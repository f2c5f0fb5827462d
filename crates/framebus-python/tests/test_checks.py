"""Headers that lie are found, in the words of framebus-bus/src/header.rs."""

import ctypes
import unittest
from collections.abc import Callable

from instance import nv12_header, result_header

from framebus import BadHeader, VersionError, layout
from framebus.checks import check_frame, check_result
from framebus.results import decode_result

LENGTH = 64 * 32 * 3 // 2
ONE = ctypes.sizeof(layout.Detection)


def put(field: str, value: object) -> Callable[[layout.FrameHeader], None]:
    return lambda header: setattr(header, field, value)


def put_in(field: str, index: int, value: int) -> Callable[[layout.FrameHeader], None]:
    return lambda header: getattr(header, field).__setitem__(index, value)


def tall(header: layout.FrameHeader) -> None:
    header.height = 2**32 - 1
    header.strides[0] = 2**32 - 1


class Headers(unittest.TestCase):
    """Of frames and of results."""

    def test_honest_frames_pass(self) -> None:
        picture = check_frame(nv12_header(64, 32), LENGTH, "cam")
        self.assertEqual(picture, ("NV12", "bt601", "limited", "left"))

    def test_lies_are_found(self) -> None:
        lies = (
            ('camera name "b" where "cam" was expected', put("camera", b"b")),
            ("unknown pixel format code 1", put("fourcc", 1)),
            ("unknown colour matrix code 9", put("matrix", 9)),
            ("unknown colour range code 2", put("range", 2)),
            ("unknown chroma site code 2", put("chroma_site", 2)),
            ("0x32 frame with a stride of 64 bytes in plane 0", put("width", 0)),
            ("64x0 frame with a stride of 64 bytes in plane 0", put("height", 0)),
            ("64x32 frame with a stride of 63 bytes in plane 0", put_in("strides", 0, 63)),
            ("64x32 frame with a stride of 0 bytes in plane 1", put_in("strides", 1, 0)),
            ("plane 1 of a 64x34 frame ends at byte 3136, the payload has 3072", put("height", 34)),
            (
                "plane 1 of a 64x32 frame ends at byte 4294968319, the payload has 3072",
                put_in("offsets", 1, 2**32 - 1),
            ),
            (
                "plane 0 of a 64x4294967295 frame ends at byte 18446744060824649794, "
                "the payload has 3072",
                tall,
            ),
        )
        for message, lie in lies:
            header = nv12_header(64, 32)
            lie(header)
            with self.assertRaises(BadHeader) as raised:
                check_frame(header, LENGTH, "cam")
            self.assertEqual(str(raised.exception), message)

    def test_another_version_is_told(self) -> None:
        frame, result = nv12_header(64, 32), result_header()
        frame.version = result.version = 9
        for check in (
            lambda: check_frame(frame, LENGTH, "cam"),
            lambda: check_result(result, ONE),
        ):
            with self.assertRaisesRegex(
                VersionError, "header version 9, this program reads version 1; install"
            ):
                check()

    def test_results_that_announce_more_than_there_is_are_found(self) -> None:
        self.assertEqual(check_result(result_header(count=1, extra=4), ONE + 4), ("ok", ""))
        for count, extra in ((2, 0), (1, 5), (2**32 - 1, 2**32 - 1)):
            header = result_header(count=count, extra=extra)
            with self.assertRaisesRegex(BadHeader, f"{count} detections and {extra} extra bytes"):
                check_result(header, ONE + 4)
        for field in ("outcome", "reason"):
            with self.assertRaisesRegex(BadHeader, f"unknown {field} code 77"):
                check_result(result_header(**{field: 77}), ONE)

    def test_a_result_is_what_its_bytes_say(self) -> None:
        header = result_header(
            "tür", count=1, sequence=7, epoch_ns=5, result_sequence=9, width=640, height=480,
            flags=1 << 4 | 1 << 9, truncated=3,
        )  # fmt: skip
        header.model, header.backend, header.message = b"yolov8n", b"openvino", b"why"
        header.times.capture_ns, header.times.result_ns = 1_000_000, 22_500_000
        found = layout.Detection(score=0.5, track=4, label=b"car")
        found.bbox[:] = [1, 2, 3.5, 4]
        setattr(found, "class", 2)
        result = decode_result(header, bytes(found))
        self.assertEqual(
            (result.camera, result.sequence, result.epoch_ns, result.result_sequence),
            ("tür", 7, 5, 9),
        )
        self.assertEqual(
            (result.model, result.backend, result.message, result.width, result.height),
            ("yolov8n", "openvino", "why", 640, 480),
        )
        self.assertEqual((result.pts_ns, result.server, result.truncated), (None, None, 3))
        self.assertEqual(result.faults, ("frozen", "late"))
        self.assertEqual(result.times.ms(), {"total": 21.5})
        (found,) = result.detections
        self.assertEqual(
            (found.label, found.class_id, found.score, found.box, found.track),
            ("car", 2, 0.5, (1, 2, 3.5, 4), 4),
        )


if __name__ == "__main__":
    unittest.main()
