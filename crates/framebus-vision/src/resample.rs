//! Letterbox of a decoded picture into the network's input.
//!
//! One pass from the frame's planes to planar R, G, B f32 in 0..=1: bilinear
//! resize, colour conversion and padding together, no picture in between. The
//! tables depend on size, format, colour and destination only, so a
//! [`Resampler`] is built once per camera and reused until one of them changes.
//!
//! Definition, per output pixel:
//! - source position = (d + 0.5) · source / resized − 0.5, clamped to the edge
//!   samples, no antialiasing: OpenCV's `INTER_LINEAR`;
//! - luma is sampled at that position; Cb and Cr at the matching position of the
//!   chroma grid, whose sample i sits at luma 2i (left) or 2i + 0.5 (centre)
//!   horizontally and at 2j + 0.5 vertically;
//! - YCbCr → RGB after ITU-T H.273 (MatrixCoefficients, VideoFullRangeFlag),
//!   clamped to 0..=1.

use crate::frame::{ChromaSite, Colour, FrameView, Matrix, Planes, Range};
use crate::letterbox::Letterbox;
use std::fmt;

/// Grey that YOLO models see around a picture.
pub const PADDING: f32 = 114.0 / 255.0;

/// Longest side of a source or destination: byte offsets within a row fit u32.
const MAX_SIDE: usize = 1 << 16;

/// Why a picture cannot be resampled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResampleError {
    /// A side is zero or absurdly long.
    Size {
        /// Of what.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The frame is not what the tables were built for.
    Mismatch,
    /// The output has not three planes of the destination's size.
    OutputLength {
        /// Values needed.
        need: usize,
        /// Values given.
        have: usize,
    },
}

impl fmt::Display for ResampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { what, width, height } => write!(
                f,
                "{what} of {width}x{height} pixels cannot be letterboxed: each side must have \
                 1 to {MAX_SIDE} pixels"
            ),
            Self::Mismatch => f.write_str(
                "frame differs in size, format or colour from what the letterbox was built for: \
                 build a new one",
            ),
            Self::OutputLength { need, have } => {
                write!(f, "letterbox needs room for {need} values, got {have}")
            }
        }
    }
}

impl std::error::Error for ResampleError {}

/// What of a frame the tables depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Nv12(Colour),
    Rgb24,
}

impl Format {
    fn of(frame: &FrameView<'_>) -> Self {
        match frame.planes() {
            Planes::Nv12 { .. } => Self::Nv12(frame.colour()),
            Planes::Rgb24 { .. } => Self::Rgb24,
        }
    }
}

/// Precomputed letterbox of one kind of frame into one destination.
#[derive(Debug, Clone)]
pub struct Resampler {
    letterbox: Letterbox,
    format: Format,
    /// Luma, or the interleaved channels of RGB.
    columns: Taps,
    rows: Taps,
    /// Empty for RGB.
    chroma_columns: Taps,
    chroma_rows: Taps,
    colour: ToRgb,
    /// One output row of 2x2 neighbourhoods per channel.
    neighbours: [Vec<u32>; 3],
    /// One output row per interpolated channel.
    samples: [Vec<f32>; 3],
}

impl Resampler {
    /// Builds the tables for frames like this one.
    ///
    /// # Errors
    /// [`ResampleError::Size`] when a side is zero or over 65536 pixels.
    pub fn new(frame: &FrameView<'_>, dst_w: usize, dst_h: usize) -> Result<Self, ResampleError> {
        let check = |what, width: usize, height: usize| {
            if width.min(height) == 0 || width.max(height) > MAX_SIDE {
                return Err(ResampleError::Size { what, width, height });
            }
            Ok(())
        };
        let (src_w, src_h) = (frame.width(), frame.height());
        check("picture", src_w, src_h)?;
        check("network input", dst_w, dst_h)?;

        let letterbox = Letterbox::new(src_w, src_h, dst_w, dst_h);
        let (width, height) = (letterbox.resized_width(), letterbox.resized_height());
        let format = Format::of(frame);
        let at = |src: usize, resized: usize| {
            move |d: usize| (d as f64 + 0.5) * src as f64 / resized as f64 - 0.5
        };
        let (x, y) = (at(src_w, width), at(src_h, height));
        let rows = Taps::new(height, src_h, 1, y);
        let (columns, chroma_columns, chroma_rows, colour) = match format {
            Format::Rgb24 => {
                (Taps::new(width, src_w, 3, x), Taps::default(), Taps::default(), ToRgb::default())
            }
            Format::Nv12(colour) => {
                let site = match colour.site {
                    ChromaSite::Left => 0.0,
                    ChromaSite::Center => 0.5,
                };
                (
                    Taps::new(width, src_w, 1, x),
                    Taps::new(width, src_w.div_ceil(2), 2, |d| (x(d) - site) / 2.0),
                    Taps::new(height, src_h.div_ceil(2), 1, |d| (y(d) - 0.5) / 2.0),
                    ToRgb::new(colour),
                )
            }
        };
        Ok(Self {
            letterbox,
            format,
            columns,
            rows,
            chroma_columns,
            chroma_rows,
            colour,
            neighbours: std::array::from_fn(|_| vec![0; width]),
            samples: std::array::from_fn(|_| vec![0.0; width]),
        })
    }

    /// Whether the tables serve this frame: same size, format and, for YCbCr,
    /// colour. Strides may differ from frame to frame.
    #[must_use]
    pub fn matches(&self, frame: &FrameView<'_>) -> bool {
        self.letterbox.src_width() == frame.width()
            && self.letterbox.src_height() == frame.height()
            && self.format == Format::of(frame)
    }

    /// Where the picture lies in the network's input.
    #[must_use]
    pub fn letterbox(&self) -> &Letterbox {
        &self.letterbox
    }

    /// Values that [`Self::run`] writes: 3 · height · width.
    #[must_use]
    pub fn output_len(&self) -> usize {
        3 * self.letterbox.dst_width() * self.letterbox.dst_height()
    }

    /// Writes the letterboxed frame to `out`: planes R, G, B of the destination's
    /// size, row by row, 0..=1.
    ///
    /// # Errors
    /// [`ResampleError::Mismatch`] when the tables do not serve this frame,
    /// [`ResampleError::OutputLength`]; `out` is untouched then.
    pub fn run(&mut self, frame: &FrameView<'_>, out: &mut [f32]) -> Result<(), ResampleError> {
        if !self.matches(frame) {
            return Err(ResampleError::Mismatch);
        }
        let need = self.output_len();
        if out.len() != need {
            return Err(ResampleError::OutputLength { need, have: out.len() });
        }
        let plane = need / 3;
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let mut planes = [red, green, blue];
        for plane in &mut planes {
            self.pad(plane);
        }
        let dst_w = self.letterbox.dst_width();
        for row in 0..self.letterbox.resized_height() {
            let start = (self.letterbox.top() + row) * dst_w + self.letterbox.left();
            let end = start + self.letterbox.resized_width();
            let rgb = planes.each_mut().map(|plane| &mut plane[start..end]);
            match frame.planes() {
                Planes::Nv12 { y, y_stride, uv, uv_stride } => {
                    let luma = Plane { data: y, stride: y_stride };
                    let chroma = Plane { data: uv, stride: uv_stride };
                    self.nv12_row(row, luma, chroma, rgb);
                }
                Planes::Rgb24 { data, stride } => self.rgb_row(row, Plane { data, stride }, rgb),
            }
        }
        Ok(())
    }

    /// Fills what the picture does not cover.
    fn pad(&self, plane: &mut [f32]) {
        let l = &self.letterbox;
        let dst_w = l.dst_width();
        let (above, rest) = plane.split_at_mut(l.top() * dst_w);
        let (middle, below) = rest.split_at_mut(l.resized_height() * dst_w);
        above.fill(PADDING);
        below.fill(PADDING);
        if l.resized_width() < dst_w {
            for row in middle.chunks_exact_mut(dst_w) {
                row[..l.left()].fill(PADDING);
                row[l.left() + l.resized_width()..].fill(PADDING);
            }
        }
    }

    fn nv12_row(&mut self, row: usize, luma: Plane<'_>, chroma: Plane<'_>, rgb: [&mut [f32]; 3]) {
        let [near_y, near_cb, near_cr] = &mut self.neighbours;
        let [y, cb, cr] = &mut self.samples;

        let mut edge = [[0; 2]; 2];
        let (upper, lower, fy) =
            luma.row_pair(&self.rows, row, self.letterbox.src_width(), &mut edge);
        gather_luma(upper, lower, &self.columns.offset, near_y);
        blend::<8, 16>(near_y, &self.columns.fraction, fy, y);

        let mut edge = [[0; 4]; 2];
        let pairs = self.letterbox.src_width().div_ceil(2);
        let (upper, lower, fy) = chroma.row_pair(&self.chroma_rows, row, pairs, &mut edge);
        gather_chroma(upper, lower, &self.chroma_columns.offset, near_cb, near_cr);
        blend::<16, 8>(near_cb, &self.chroma_columns.fraction, fy, cb);
        blend::<16, 8>(near_cr, &self.chroma_columns.fraction, fy, cr);

        self.colour.row(y, cb, cr, rgb);
    }

    fn rgb_row(&mut self, row: usize, plane: Plane<'_>, rgb: [&mut [f32]; 3]) {
        let mut edge = [[0; 6]; 2];
        let (upper, lower, fy) =
            plane.row_pair(&self.rows, row, self.letterbox.src_width(), &mut edge);
        gather_rgb(upper, lower, &self.columns.offset, &mut self.neighbours);
        for (near, out) in self.neighbours.iter().zip(rgb) {
            blend::<8, 16>(near, &self.columns.fraction, fy, out);
            for value in out {
                *value *= 1.0 / 255.0;
            }
        }
    }
}

/// Where each output position of one axis takes its two samples.
#[derive(Debug, Clone, Default)]
struct Taps {
    /// Offset of the first sample; the second follows it.
    offset: Vec<u32>,
    /// Weight of the second sample, 0..=1.
    fraction: Vec<f32>,
}

impl Taps {
    /// `samples` of `step` bytes each, read at `position(0..len)`.
    fn new(len: usize, samples: usize, step: u32, position: impl Fn(usize) -> f64) -> Self {
        let last = (samples - 1) as f64;
        // The last sample is reached as the second of its pair, so that a pair
        // never ends outside the row.
        let last_pair = samples.max(2) - 2;
        let (offset, fraction) = (0..len)
            .map(|d| {
                let at = position(d).clamp(0.0, last);
                let first = (at as usize).min(last_pair);
                (first as u32 * step, (at - first as f64) as f32)
            })
            .unzip();
        Self { offset, fraction }
    }
}

/// A plane of a [`FrameView`], whose bounds are checked there.
#[derive(Clone, Copy)]
struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
}

impl<'a> Plane<'a> {
    /// The two source rows of an output row and the weight of the lower one.
    ///
    /// `N` is the bytes of a pair of samples. A row of one sample is doubled into
    /// `edge`, so that readers may take a pair anywhere.
    fn row_pair<'b, const N: usize>(
        self,
        rows: &Taps,
        row: usize,
        samples: usize,
        edge: &'b mut [[u8; N]; 2],
    ) -> (&'b [u8], &'b [u8], f32)
    where
        'a: 'b,
    {
        let (first, fraction) = (rows.offset[row] as usize, rows.fraction[row]);
        // A weight of zero also stands for a plane of one row.
        let second = if fraction > 0.0 { first + 1 } else { first };
        let bytes = samples * (N / 2);
        let [upper, lower] = [first, second].map(|r| &self.data[r * self.stride..][..bytes]);
        if samples > 1 {
            return (upper, lower, fraction);
        }
        for (pair, source) in edge.iter_mut().zip([upper, lower]) {
            pair[..N / 2].copy_from_slice(source);
            pair[N / 2..].copy_from_slice(source);
        }
        (&edge[0], &edge[1], fraction)
    }
}

/// Packs 2x2 neighbourhoods: upper left in the low byte, then upper right,
/// lower left, lower right. Gathering apart from computing lets the latter run in
/// vector registers.
fn gather_luma(upper: &[u8], lower: &[u8], offsets: &[u32], near: &mut [u32]) {
    let lower = &lower[..upper.len()];
    for (near, &offset) in near.iter_mut().zip(offsets) {
        let i = offset as usize;
        *near = u32::from_le_bytes([upper[i], upper[i + 1], lower[i], lower[i + 1]]);
    }
}

/// As [`gather_luma`] for interleaved Cb, Cr, with the order upper left, lower
/// left, upper right, lower right.
fn gather_chroma(upper: &[u8], lower: &[u8], offsets: &[u32], cb: &mut [u32], cr: &mut [u32]) {
    const CB: u32 = 0x00ff_00ff;
    let lower = &lower[..upper.len()];
    for ((cb, cr), &offset) in cb.iter_mut().zip(cr).zip(offsets) {
        let i = offset as usize;
        let four = |row: &[u8]| u32::from_le_bytes([row[i], row[i + 1], row[i + 2], row[i + 3]]);
        let (a, b) = (four(upper), four(lower));
        *cb = (a & CB) | ((b & CB) << 8);
        *cr = ((a >> 8) & CB) | (b & !CB);
    }
}

/// As [`gather_luma`] for each channel of interleaved R, G, B.
fn gather_rgb(upper: &[u8], lower: &[u8], offsets: &[u32], near: &mut [Vec<u32>; 3]) {
    let lower = &lower[..upper.len()];
    for (channel, near) in near.iter_mut().enumerate() {
        for (near, &offset) in near.iter_mut().zip(offsets) {
            let i = offset as usize + channel;
            *near = u32::from_le_bytes([upper[i], upper[i + 3], lower[i], lower[i + 3]]);
        }
    }
}

/// Bilinear value of each neighbourhood, 0..=255. `RIGHT` and `BELOW` are the bit
/// positions of the upper right and the lower left sample.
fn blend<const RIGHT: u32, const BELOW: u32>(
    near: &[u32],
    fractions: &[f32],
    below: f32,
    out: &mut [f32],
) {
    // Through i32: x86 has no vector conversion from u32 before AVX-512.
    let sample = |bits: u32| (bits & 0xff) as i32 as f32;
    for ((out, &near), &right) in out.iter_mut().zip(near).zip(fractions) {
        let upper_left = sample(near);
        let lower_left = sample(near >> BELOW);
        let upper = upper_left + (sample(near >> RIGHT) - upper_left) * right;
        let lower = lower_left + (sample(near >> 24) - lower_left) * right;
        *out = upper + (lower - upper) * below;
    }
}

/// YCbCr codes 0..=255 to R, G, B in 0..=1 as a linear map.
#[derive(Debug, Clone, Copy, Default)]
struct ToRgb {
    luma: f32,
    red_cr: f32,
    green_cb: f32,
    green_cr: f32,
    blue_cb: f32,
    /// What the offsets of luma and chroma come to, per channel.
    constant: [f32; 3],
}

impl ToRgb {
    /// H.273: E'Y = Kr·R + Kg·G + Kb·B, E'Cb = (B − E'Y) / 2(1 − Kb), E'Cr =
    /// (R − E'Y) / 2(1 − Kr), solved for R, G, B, with the codes' scale folded in.
    fn new(colour: Colour) -> Self {
        let (kr, kb) = match colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let (black, luma_codes, chroma_codes) = match colour.range {
            Range::Limited => (16.0, 219.0, 224.0),
            Range::Full => (0.0, 255.0, 255.0),
        };
        let kg = 1.0 - kr - kb;
        let luma = 1.0 / luma_codes;
        let red_cr = 2.0 * (1.0 - kr) / chroma_codes;
        let blue_cb = 2.0 * (1.0 - kb) / chroma_codes;
        let green_cb = -blue_cb * kb / kg;
        let green_cr = -red_cr * kr / kg;
        let constant = [red_cr, green_cb + green_cr, blue_cb]
            .map(|chroma: f64| (-black * luma - 128.0 * chroma) as f32);
        Self {
            luma: luma as f32,
            red_cr: red_cr as f32,
            green_cb: green_cb as f32,
            green_cr: green_cr as f32,
            blue_cb: blue_cb as f32,
            constant,
        }
    }

    fn row(&self, y: &[f32], cb: &[f32], cr: &[f32], [red, green, blue]: [&mut [f32]; 3]) {
        let n = y.len();
        let (cb, cr) = (&cb[..n], &cr[..n]);
        let (red, green, blue) = (&mut red[..n], &mut green[..n], &mut blue[..n]);
        for i in 0..n {
            let luma = y[i] * self.luma;
            let (cb, cr) = (cb[i], cr[i]);
            red[i] = unit(luma + cr * self.red_cr + self.constant[0]);
            green[i] = unit(luma + cb * self.green_cb + cr * self.green_cr + self.constant[1]);
            blue[i] = unit(luma + cb * self.blue_cb + self.constant[2]);
        }
    }
}

/// Clamps to 0..=1 in the two instructions that min and max are; no NaN gets here.
fn unit(value: f32) -> f32 {
    let value = if value > 0.0 { value } else { 0.0 };
    if value < 1.0 { value } else { 1.0 }
}
