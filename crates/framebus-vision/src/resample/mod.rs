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
//!
//! Computed row by row: two source rows mixed to a line in fixed point, two
//! neighbours of every column picked out of the line, then interpolation, colour
//! and clamping in vector registers. What is kept between the steps is one row and
//! stays in the L1 cache; source samples are read once per output row, outputs are
//! written once. The result is within 0.1/255 of the definition and the same to
//! the bit with all vector instructions (AVX-512, AVX2, NEON, none).

mod colour;
mod pick;
mod rows;
mod taps;

use crate::frame::{ChromaSite, Colour, FrameError, FrameView, Planes, Region};
use crate::letterbox::Letterbox;
pub use colour::ToRgbCodes;
use colour::{Channel, ToRgb, plain_row};
use pick::Picker;
use pulp::{Arch, NullaryFnOnce, Simd};
use rows::{Plane, mix_chroma, mix_luma, mix_rgb};
use std::fmt;
use taps::{Columns, Rows};

/// Grey that YOLO models see around a picture.
pub const PADDING: f32 = 114.0 / 255.0;

/// Longest side of a source or destination: the offset of a pair within a row fits
/// u16.
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
    /// The region does not fit the frame.
    Region(FrameError),
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
            Self::Region(error) => error.fmt(f),
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
    /// Size of the frames.
    frame: [usize; 2],
    region: Region,
    tables: Tables,
    scratch: Scratch,
}

#[derive(Debug, Clone)]
struct Tables {
    /// Luma, or all channels of RGB.
    columns: Columns,
    rows: Rows,
    /// Empty for RGB.
    chroma_columns: Columns,
    chroma_rows: Rows,
    colour: ToRgb,
}

/// What is kept of one row, per channel.
#[derive(Debug, Clone)]
struct Scratch {
    /// Two source rows mixed.
    lines: [Vec<i16>; 3],
    /// The neighbours of every output column.
    pairs: [Vec<[i16; 2]>; 3],
}

impl Resampler {
    /// Builds the tables for frames like this one.
    ///
    /// # Errors
    /// [`ResampleError::Size`] when a side is zero or over 65536 pixels.
    pub fn new(frame: &FrameView<'_>, dst_w: usize, dst_h: usize) -> Result<Self, ResampleError> {
        let whole = Region { x: 0, y: 0, width: frame.width(), height: frame.height() };
        Self::for_region(frame, whole, dst_w, dst_h)
    }

    /// As [`Self::new`] for one region of such frames, as if they were cut to it:
    /// [`Self::run`] takes whole frames, and [`Self::letterbox`] maps boxes to
    /// their pixels.
    ///
    /// # Errors
    /// [`ResampleError::Size`], and [`ResampleError::Region`] when the region is
    /// not inside the frame or has odd offsets.
    pub fn for_region(
        frame: &FrameView<'_>,
        region: Region,
        dst_w: usize,
        dst_h: usize,
    ) -> Result<Self, ResampleError> {
        let whole = [frame.width(), frame.height()];
        let frame = frame.crop(region).map_err(ResampleError::Region)?;
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
        let format = Format::of(&frame);
        let at = |src: usize, resized: usize| {
            move |d: usize| (d as f64 + 0.5) * src as f64 / resized as f64 - 0.5
        };
        let (x, y) = (at(src_w, width), at(src_h, height));
        let mut tables = Tables {
            columns: Columns::new(width, src_w, x),
            rows: Rows::new(height, src_h, y),
            chroma_columns: Columns::default(),
            chroma_rows: Rows::default(),
            colour: ToRgb::default(),
        };
        let mut chroma_w = src_w;
        if let Format::Nv12(colour) = format {
            let site = match colour.site {
                ChromaSite::Left => 0.0,
                ChromaSite::Center => 0.5,
            };
            chroma_w = src_w.div_ceil(2);
            tables.chroma_columns = Columns::new(width, chroma_w, |d| (x(d) - site) / 2.0);
            tables.chroma_rows = Rows::new(height, src_h.div_ceil(2), |d| (y(d) - 0.5) / 2.0);
            tables.colour = ToRgb::new(colour);
        }
        let chroma_slack = tables.chroma_columns.picks.slack().max(tables.columns.picks.slack());
        let scratch = Scratch {
            lines: [src_w, chroma_w, chroma_w].map(|samples| vec![0; samples + chroma_slack]),
            pairs: std::array::from_fn(|_| vec![[0; 2]; tables.columns.picks.pairs()]),
        };
        let letterbox = letterbox.with_origin(region.x, region.y);
        Ok(Self { letterbox, format, frame: whole, region, tables, scratch })
    }

    /// Whether the tables serve this frame: same size, format and, for YCbCr,
    /// colour. Strides may differ from frame to frame.
    #[must_use]
    pub fn matches(&self, frame: &FrameView<'_>) -> bool {
        self.frame == [frame.width(), frame.height()] && self.format == Format::of(frame)
    }

    /// The part of the frames that is letterboxed.
    #[must_use]
    pub fn region(&self) -> Region {
        self.region
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
        let frame = &frame.crop(self.region).map_err(ResampleError::Region)?;
        let Self { letterbox, tables, scratch, .. } = self;
        Job { letterbox, tables, scratch, frame, out }.run_on(Arch::new());
        Ok(())
    }
}

/// One call of [`Resampler::run`].
struct Job<'a> {
    letterbox: &'a Letterbox,
    tables: &'a Tables,
    scratch: &'a mut Scratch,
    frame: &'a FrameView<'a>,
    out: &'a mut [f32],
}

impl Job<'_> {
    fn run_on(self, arch: Arch) {
        let job = self;
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => Simd::vectorize(simd, Pass { job, picker: simd }),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => Simd::vectorize(simd, Pass { job, picker: simd }),
            #[cfg(target_arch = "aarch64")]
            Arch::Neon(simd) => Simd::vectorize(simd, Pass { job, picker: simd }),
            _ => Pass { job, picker: pulp::Scalar }.call(),
        }
    }
}

/// A job for one level of vector instructions, and compiled for it.
struct Pass<'a, P> {
    job: Job<'a>,
    picker: P,
}

impl<P: Picker> NullaryFnOnce for Pass<'_, P> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { job: Job { letterbox: l, tables, scratch, frame, out }, picker } = self;
        let (red, rest) = out.split_at_mut(out.len() / 3);
        let (green, blue) = rest.split_at_mut(rest.len() / 2);
        let mut planes = [red, green, blue];
        for plane in &mut planes {
            pad(l, plane);
        }
        for row in 0..l.resized_height() {
            let start = (l.top() + row) * l.dst_width() + l.left();
            let end = start + l.resized_width();
            let rgb = planes.each_mut().map(|plane| &mut plane[start..end]);
            match frame.planes() {
                Planes::Nv12 { y, y_stride, uv, uv_stride } => {
                    let luma = Plane { data: y, stride: y_stride };
                    let chroma = Plane { data: uv, stride: uv_stride };
                    nv12_row(picker, tables, scratch, row, frame.width(), [luma, chroma], rgb);
                }
                Planes::Rgb24 { data, stride } => {
                    let plane = Plane { data, stride };
                    rgb_row(picker, tables, scratch, row, frame.width(), plane, rgb);
                }
            }
        }
    }
}

/// Fills what the picture does not cover.
#[inline(always)]
fn pad(l: &Letterbox, plane: &mut [f32]) {
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

#[inline(always)]
fn nv12_row(
    picker: impl Picker,
    tables: &Tables,
    scratch: &mut Scratch,
    row: usize,
    width: usize,
    [luma, chroma]: [Plane<'_>; 2],
    rgb: [&mut [f32]; 3],
) {
    let [y, cb, cr] = &mut scratch.lines;
    let pair = tables.rows.get(row);
    mix_luma(luma.rows(pair, width), pair.weight, y);
    let pair = tables.chroma_rows.get(row);
    mix_chroma(chroma.rows(pair, 2 * width.div_ceil(2)), pair.weight, cb, cr);

    let [near_y, near_cb, near_cr] = &mut scratch.pairs;
    picker.pick(&tables.columns.picks, y, near_y);
    picker.pick(&tables.chroma_columns.picks, cb, near_cb);
    picker.pick(&tables.chroma_columns.picks, cr, near_cr);

    let weights = &tables.chroma_columns.weights;
    tables.colour.row(
        Channel { pairs: near_y, weights: &tables.columns.weights },
        Channel { pairs: near_cb, weights },
        Channel { pairs: near_cr, weights },
        rgb,
    );
}

#[inline(always)]
fn rgb_row(
    picker: impl Picker,
    tables: &Tables,
    scratch: &mut Scratch,
    row: usize,
    width: usize,
    plane: Plane<'_>,
    rgb: [&mut [f32]; 3],
) {
    let pair = tables.rows.get(row);
    mix_rgb(plane.rows(pair, 3 * width), pair.weight, &mut scratch.lines);
    let Columns { picks, weights } = &tables.columns;
    for ((line, pairs), out) in scratch.lines.iter().zip(&mut scratch.pairs).zip(rgb) {
        picker.pick(picks, line, pairs);
        plain_row(Channel { pairs, weights }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Resampler};
    use crate::frame::{Colour, FrameView, Planes};
    use crate::levels::levels;

    /// Windows of one to four registers, and wider ones; groups that end early.
    #[test]
    fn all_levels_of_vector_instructions_agree_to_the_bit() {
        let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 11) as u8;
        let bytes: Vec<u8> = (0..3 * 1921 * 50).map(byte).collect();
        for width in [1, 2, 7, 90, 181, 361, 700, 1000, 1300, 1921] {
            for (rgb, height) in [(false, 50), (false, 1), (true, 33)] {
                let planes = if rgb {
                    Planes::Rgb24 { data: &bytes, stride: 3 * width }
                } else {
                    Planes::Nv12 { y: &bytes, y_stride: width, uv: &bytes[7..], uv_stride: 1922 }
                };
                let frame = FrameView::new(width, height, planes, Colour::default()).unwrap();
                let mut resampler = Resampler::new(&frame, 181, 97).unwrap();
                let outputs: Vec<Vec<f32>> = levels()
                    .into_iter()
                    .map(|level| {
                        let mut out = vec![f32::NAN; resampler.output_len()];
                        let Resampler { letterbox, tables, scratch, .. } = &mut resampler;
                        Job { letterbox, tables, scratch, frame: &frame, out: &mut out }
                            .run_on(level);
                        out
                    })
                    .collect();
                assert!(outputs[0].iter().all(|v| (0.0..=1.0).contains(v)));
                for (level, output) in levels().iter().zip(&outputs) {
                    assert!(*output == outputs[0], "{width}x{height}, {level:?}");
                }
            }
        }
    }
}
