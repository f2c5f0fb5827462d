"""NV12 to RGB."""

import numpy as np
from numpy.typing import NDArray

from .layout import ColourMatrix, ColourRange

# Kr, Kb (ITU-T H.273, table 4).
_WEIGHTS = {
    ColourMatrix.BT601: (0.299, 0.114),
    ColourMatrix.BT709: (0.2126, 0.0722),
    ColourMatrix.BT2020: (0.2627, 0.0593),
}


def nv12_to_rgb(
    y: NDArray[np.uint8], uv: NDArray[np.uint8], matrix: ColourMatrix, span: ColourRange
) -> NDArray[np.uint8]:
    """(height, width, 3) of `y` (height, width) and `uv` (height / 2, width / 2, 2)."""
    kr, kb = _WEIGHTS[matrix]
    kg = 1 - kr - kb
    limited = span is ColourRange.LIMITED
    # A half is added for rounding, once, where all three colours pass.
    codes = np.arange(256, dtype=np.float32)
    luma = ((codes - 16) * (255 / 219) if limited else codes)[y] + np.float32(0.5)
    chroma = (uv.astype(np.float32) - 128) * np.float32(255 / 224 if limited else 1)
    cb, cr = chroma[..., 0], chroma[..., 1]
    red, blue = 2 * (1 - kr) * cr, 2 * (1 - kb) * cb
    shares = (red, -(kr * red + kb * blue) / kg, blue)
    height, width = y.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for number, share in enumerate(shares):
        full = share.repeat(2, 0).repeat(2, 1)[:height, :width] + luma
        np.clip(full, 0, 255, out=full)
        rgb[..., number] = full
    return rgb
