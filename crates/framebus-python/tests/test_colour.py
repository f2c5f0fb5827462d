"""NV12 to RGB against the definition."""

import unittest

import numpy as np

from framebus.colour import nv12_to_rgb
from framebus.layout import ColourMatrix, ColourRange

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


class Colour(unittest.TestCase):
    """There and back."""

    def test_colours_come_back(self) -> None:
        colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 160, 30)]
        for matrix in ColourMatrix:
            kr, kb = WEIGHTS[matrix]
            for span in ColourRange:
                for red, green, blue in colours:
                    luma = kr * red + (1 - kr - kb) * green + kb * blue
                    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
                    if span is ColourRange.LIMITED:
                        luma, cb, cr = 16 + luma * 219 / 255, cb * 224 / 255, cr * 224 / 255
                    y = np.full((3, 5), round(luma), np.uint8)
                    pair = np.clip([round(cb) + 128, round(cr) + 128], 0, 255)
                    uv = np.broadcast_to(pair.astype(np.uint8), (2, 3, 2))
                    rgb = nv12_to_rgb(y, uv, matrix, span)
                    self.assertEqual((rgb.shape, rgb.dtype), ((3, 5, 3), np.uint8))
                    away = np.abs(rgb.astype(int) - (red, green, blue)).max()
                    self.assertLessEqual(away, 3, f"{matrix} {span} {red, green, blue}: {rgb[0]}")

    def test_each_chroma_sample_colours_four_pixels(self) -> None:
        y = np.full((4, 4), 128, np.uint8)
        uv = np.full((2, 2, 2), 128, np.uint8)
        uv[0, 1, 1] = 200
        rgb = nv12_to_rgb(y, uv, ColourMatrix.BT709, ColourRange.FULL)
        red = rgb[..., 0] > 128
        self.assertTrue(red[:2, 2:].all())
        self.assertEqual(red.sum(), 4)


if __name__ == "__main__":
    unittest.main()
