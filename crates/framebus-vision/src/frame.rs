//! Borrowed views of decoded pictures.
//!
//! A [`FrameView`] is what the rest of the crate computes on: plane slices with
//! strides, and the colour description that came with the frame. It never owns
//! pixels; on the hot path the slices lie in shared memory.

use std::fmt;

/// YCbCr → RGB matrix coefficients (ITU-T H.273, MatrixCoefficients).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matrix {
    /// ITU-R BT.601: Kr = 0.299, Kb = 0.114. SD video, JPEG.
    #[default]
    Bt601,
    /// ITU-R BT.709: Kr = 0.2126, Kb = 0.0722. HD video.
    Bt709,
    /// ITU-R BT.2020 non-constant luminance: Kr = 0.2627, Kb = 0.0593. UHD video.
    Bt2020,
}

/// Whether samples use the whole 8-bit range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// Y in 16..=235, Cb and Cr in 16..=240 around 128 ("TV", "studio").
    #[default]
    Limited,
    /// Y, Cb, Cr in 0..=255, chroma around 128 ("PC", JPEG).
    Full,
}

/// Horizontal position of a 4:2:0 chroma sample relative to its luma pair.
///
/// Vertically both kinds sit half-way between two luma rows, as H.264/H.265
/// decoders and JPEG deliver them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChromaSite {
    /// Co-sited with the left luma sample (MPEG-2, H.264 default).
    #[default]
    Left,
    /// Centred between the two luma samples (JPEG, MPEG-1).
    Center,
}

/// How YCbCr samples of a frame are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Colour {
    /// Matrix coefficients.
    pub matrix: Matrix,
    /// Sample range.
    pub range: Range,
    /// Chroma sample position.
    pub site: ChromaSite,
}

/// Plane slices by pixel format. Strides are in bytes and may exceed the width.
#[derive(Debug, Clone, Copy)]
pub enum Planes<'a> {
    /// 8-bit luma plane, then interleaved Cb, Cr at half resolution, rounded up.
    Nv12 {
        /// Luma, `y_stride * (height - 1) + width` bytes at least.
        y: &'a [u8],
        /// Bytes from one luma row to the next.
        y_stride: usize,
        /// Chroma pairs, `ceil(height / 2)` rows of `ceil(width / 2)` pairs.
        uv: &'a [u8],
        /// Bytes from one chroma row to the next.
        uv_stride: usize,
    },
    /// Interleaved 8-bit R, G, B; full range, no subsampling.
    Rgb24 {
        /// `stride * (height - 1) + 3 * width` bytes at least.
        data: &'a [u8],
        /// Bytes from one row to the next.
        stride: usize,
    },
}

/// A rectangle of a picture, in pixels. Offsets are even, so that a chroma sample
/// of 4:2:0 lies inside or outside as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Columns left of it.
    pub x: usize,
    /// Rows above it.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// A picture whose planes are known to be large enough for its size.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    width: usize,
    height: usize,
    planes: Planes<'a>,
    colour: Colour,
}

/// Why plane slices, or a part of them, do not make a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Width or height is zero.
    Empty,
    /// A row does not fit into its stride.
    Stride {
        /// Which plane.
        plane: &'static str,
        /// Bytes a row needs.
        need: usize,
        /// Bytes the stride gives.
        have: usize,
    },
    /// A plane ends before its last row does.
    Short {
        /// Which plane.
        plane: &'static str,
        /// Bytes the plane needs.
        need: usize,
        /// Bytes the slice has.
        have: usize,
    },
    /// A region is empty, reaches outside the picture or has odd offsets.
    Region {
        /// The region asked for.
        region: Region,
        /// Width of the picture.
        width: usize,
        /// Height of the picture.
        height: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("picture has no pixels"),
            Self::Stride { plane, need, have } => {
                write!(f, "{plane} plane: a row needs {need} bytes, the stride is {have}")
            }
            Self::Short { plane, need, have } => {
                write!(f, "{plane} plane: needs {need} bytes, has {have}")
            }
            Self::Region { region: Region { x, y, width: w, height: h }, width, height } => write!(
                f,
                "region of {w}x{h} pixels at {x},{y} in a picture of {width}x{height}: it must \
                 have pixels, lie inside and start at even offsets"
            ),
        }
    }
}

impl std::error::Error for FrameError {}

impl<'a> FrameView<'a> {
    /// Checks that every row of every plane lies inside its slice.
    ///
    /// # Errors
    /// [`FrameError`] names the plane and the bytes that are missing.
    pub fn new(
        width: usize,
        height: usize,
        planes: Planes<'a>,
        colour: Colour,
    ) -> Result<Self, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty);
        }
        match planes {
            Planes::Nv12 { y, y_stride, uv, uv_stride } => {
                check("Y", y.len(), y_stride, width, height)?;
                check("UV", uv.len(), uv_stride, 2 * width.div_ceil(2), height.div_ceil(2))?;
            }
            Planes::Rgb24 { data, stride } => check("RGB", data.len(), stride, 3 * width, height)?,
        }
        Ok(Self { width, height, planes, colour })
    }

    /// The part of the picture inside `region`; the same bytes, none copied.
    ///
    /// # Errors
    /// [`FrameError::Region`] when the region is empty, reaches outside the picture
    /// or has odd offsets.
    pub fn crop(&self, region: Region) -> Result<Self, FrameError> {
        let Region { x, y: top, width, height } = region;
        let fits = |from: usize, len: usize, of: usize| {
            len > 0 && from.is_multiple_of(2) && from.checked_add(len).is_some_and(|end| end <= of)
        };
        if !fits(x, width, self.width) || !fits(top, height, self.height) {
            let (width, height) = (self.width, self.height);
            return Err(FrameError::Region { region, width, height });
        }
        let planes = match self.planes {
            Planes::Nv12 { y, y_stride, uv, uv_stride } => Planes::Nv12 {
                y: &y[top * y_stride + x..],
                y_stride,
                // A pair of bytes for every two columns.
                uv: &uv[top / 2 * uv_stride + x..],
                uv_stride,
            },
            Planes::Rgb24 { data, stride } => {
                Planes::Rgb24 { data: &data[top * stride + 3 * x..], stride }
            }
        };
        Ok(Self { width, height, planes, colour: self.colour })
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The plane slices.
    #[must_use]
    pub fn planes(&self) -> Planes<'a> {
        self.planes
    }

    /// Matrix, range and chroma position; without meaning for RGB.
    #[must_use]
    pub fn colour(&self) -> Colour {
        self.colour
    }
}

fn check(
    plane: &'static str,
    len: usize,
    stride: usize,
    row_bytes: usize,
    rows: usize,
) -> Result<(), FrameError> {
    if stride < row_bytes {
        return Err(FrameError::Stride { plane, need: row_bytes, have: stride });
    }
    let need = stride
        .checked_mul(rows - 1)
        .and_then(|n| n.checked_add(row_bytes))
        .ok_or(FrameError::Short { plane, need: usize::MAX, have: len })?;
    if len < need {
        return Err(FrameError::Short { plane, need, have: len });
    }
    Ok(())
}
