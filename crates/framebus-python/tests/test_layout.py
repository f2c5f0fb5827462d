"""The layouts are those of the crate framebus-types."""

import ctypes
import sys
import unittest
from pathlib import Path

from framebus import layout, results

GOLDEN = Path(__file__).parents[2] / "framebus-types/tests/layout.golden"
STRUCTURES = ("FrameHeader", "StageTimes", "ServerTimes", "ResultHeader", "Detection", "Event")


class Layouts(unittest.TestCase):
    """Against the golden file of the Rust side."""

    def test_offsets_and_sizes_are_the_frozen_ones(self) -> None:
        frozen: dict[str, list[str]] = {}
        for line in GOLDEN.read_text().splitlines():
            words = line.split()
            if "size" in words:
                fields = frozen.setdefault(words[0], [])
                size, align = int(words[2]), int(words[4])
                structure = getattr(layout, words[0], None)
                if structure is not None:
                    self.assertEqual(ctypes.sizeof(structure), size, words[0])
                    # Older versions of Python cannot align a structure to 64 bytes.
                    if align <= 8 or sys.version_info >= (3, 13):
                        self.assertEqual(ctypes.alignment(structure), align, words[0])
            else:
                fields.append(line)
        for name in STRUCTURES:
            structure = getattr(layout, name)
            ours = [
                f"  {getattr(structure, field).offset:4} {field}"
                for field, *_ in structure._fields_
            ]
            self.assertEqual(ours, frozen[name], name)

    def test_every_field_has_the_size_that_is_left_for_it(self) -> None:
        for name in STRUCTURES:
            structure = getattr(layout, name)
            end = 0
            for field, *_ in structure._fields_:
                place = getattr(structure, field)
                self.assertEqual(place.offset, end, f"{name}.{field}")
                end = place.offset + place.size
            self.assertEqual(end, ctypes.sizeof(structure), name)

    def test_what_is_read_in_one_go_lies_where_the_structures_say(self) -> None:
        for structure, quick in (
            (layout.ResultHeader, results.HEADER),
            (layout.Detection, results.DETECTION),
        ):
            self.assertEqual(quick.size, ctypes.sizeof(structure))
            # A structure whose every byte is another one, but no text ends.
            raw = bytes(number % 255 + 1 for number in range(quick.size))
            whole = structure.from_buffer_copy(raw)
            expected: list[object] = []

            def walk(part: ctypes.Structure, expected: list[object] = expected) -> None:
                for name, *_ in part._fields_:
                    value = getattr(part, name)
                    if name in ("gap", "reserved", "extra_offset", "extra_len"):
                        continue
                    if isinstance(value, ctypes.Structure):
                        walk(value)
                    elif isinstance(value, ctypes.Array):
                        expected.extend(value)
                    else:
                        expected.append(value)

            walk(whole)
            self.assertEqual(repr(list(quick.unpack(raw))), repr(expected))

    def test_codes_are_those_of_the_crate(self) -> None:
        source = (GOLDEN.parents[1] / "src/code.rs").read_text()
        for what, table in (
            ("Outcome", layout.OUTCOMES),
            ("Reason", layout.REASONS),
            ("ColourMatrix", layout.MATRICES),
            ("ColourRange", layout.RANGES),
            ("ChromaSite", layout.CHROMA_SITES),
            ("EventKind", layout.EVENT_KINDS),
            ("Direction", layout.DIRECTIONS),
        ):
            body = source.split(f' {what}, "')[1].split("\n}")[0]
            rows = [line for line in body.splitlines() if "=>" in line]
            codes = {int(row.split("=")[1]): row.split('"')[1] for row in rows}
            self.assertEqual(codes, table, what)
        self.assertEqual({str(name) for name in layout.FORMATS.values()}, {"NV12", "RGB24"})

    def test_version_and_flags_are_those_of_the_crate(self) -> None:
        source = GOLDEN.parents[1] / "src"
        self.assertIn(
            f"pub const VERSION: u32 = {layout.VERSION};", (source / "lib.rs").read_text()
        )
        flags = (source / "frame.rs").read_text()
        for flag, word in layout.PICTURE_FAULTS:
            name = "FLAG_" + word.upper().replace(" ", "_")
            self.assertIn(f"pub const {name}: u32 = 1 << {flag.bit_length() - 1};", flags)

    def test_foreign_bytes_end_a_text(self) -> None:
        self.assertEqual(layout.text("aé€".encode()), "aé€")
        self.assertEqual(layout.text(b"ok\xffx"), "ok")
        self.assertEqual(layout.text(b"ok\xe2\x82"), "ok")
        for field in (b"ok\0\0", b"ok\0x", b"ok\xff\0", b"ok"):
            self.assertEqual(layout.padded(field), "ok")


if __name__ == "__main__":
    unittest.main()
