//! What the host and the kernels agree on: `kernels/framebus.h`.

use bytemuck::{Pod, Zeroable};
use framebus_vision::heads::logit_below;
use framebus_vision::resample::ToRgbCodes;
use framebus_vision::{ChromaSite, Colour, Letterbox};
use std::mem::offset_of;

/// A cell of a cut head that passed the threshold's first look.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct RawCandidate {
    /// Left, top, right, bottom in pixels of the network's input.
    pub bbox: [f32; 4],
    /// The largest class logit.
    pub logit: f32,
    /// The first class that has it.
    pub class: u32,
    /// Number of the cell over all scales, finest scale first, row by row.
    pub cell: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<RawCandidate>() == 32);
const _: () = assert!(offset_of!(RawCandidate, logit) == 16);
const _: () = assert!(offset_of!(RawCandidate, class) == 20);
const _: () = assert!(offset_of!(RawCandidate, cell) == 24);

/// One frame of a batch, for both kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub(crate) struct FrameEntry {
    /// Device address of luma, or of R, G, B.
    pub(crate) y: u64,
    /// Device address of Cb, Cr; 0 for RGB.
    pub(crate) uv: u64,
    /// Bytes from row to row.
    pub(crate) y_stride: u32,
    pub(crate) uv_stride: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: u32,
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) resized_width: u32,
    pub(crate) resized_height: u32,
    /// Place of a chroma sample in its pair of luma samples, in 1/2³² of a luma sample.
    pub(crate) site: u32,
    pub(crate) luma: f32,
    pub(crate) red_cr: f32,
    pub(crate) green_cb: f32,
    pub(crate) green_cr: f32,
    pub(crate) blue_cb: f32,
    pub(crate) constant: [f32; 3],
    /// Cells whose largest class logit reaches this become candidates.
    pub(crate) logit: f32,
    pub(crate) reserved0: u32,
    /// Source samples per output pixel, 32.32 fixed point.
    pub(crate) step_x: u64,
    pub(crate) step_y: u64,
    pub(crate) reserved1: [u64; 2],
}

/// [`FrameEntry::format`].
pub(crate) const NV12: u32 = 0;
/// [`FrameEntry::format`].
pub(crate) const RGB24: u32 = 1;

const _: () = assert!(size_of::<FrameEntry>() == 128);
const _: () = assert!(offset_of!(FrameEntry, y_stride) == 16);
const _: () = assert!(offset_of!(FrameEntry, width) == 24);
const _: () = assert!(offset_of!(FrameEntry, format) == 32);
const _: () = assert!(offset_of!(FrameEntry, left) == 36);
const _: () = assert!(offset_of!(FrameEntry, resized_width) == 44);
const _: () = assert!(offset_of!(FrameEntry, site) == 52);
const _: () = assert!(offset_of!(FrameEntry, luma) == 56);
const _: () = assert!(offset_of!(FrameEntry, constant) == 76);
const _: () = assert!(offset_of!(FrameEntry, logit) == 88);
const _: () = assert!(offset_of!(FrameEntry, step_x) == 96);
const _: () = assert!(offset_of!(FrameEntry, step_y) == 104);
const _: () = assert!(offset_of!(FrameEntry, reserved1) == 112);

impl FrameEntry {
    /// Geometry, colour and threshold; where the pixels lie is for the upload to say.
    pub(crate) fn new(letterbox: &Letterbox, colour: Colour, confidence: f32) -> Self {
        let step = |source: usize, resized: usize| ((source as u64) << 32) / (resized as u64);
        let (width, height) = (letterbox.src_width(), letterbox.src_height());
        let ToRgbCodes { luma, red_cr, green_cb, green_cr, blue_cb, constant } = colour.to_rgb();
        Self {
            luma,
            red_cr,
            green_cb,
            green_cr,
            blue_cb,
            constant,
            width: width as u32,
            height: height as u32,
            left: letterbox.left() as u32,
            top: letterbox.top() as u32,
            resized_width: letterbox.resized_width() as u32,
            resized_height: letterbox.resized_height() as u32,
            site: match colour.site {
                ChromaSite::Left => 0,
                ChromaSite::Center => 1 << 31,
            },
            logit: logit_below(confidence),
            step_x: step(width, letterbox.resized_width()),
            step_y: step(height, letterbox.resized_height()),
            ..Self::zeroed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_vision::{Matrix, Range};

    #[test]
    fn black_white_and_grey_come_out() {
        for range in [Range::Limited, Range::Full] {
            for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
                let colour = Colour { matrix, range, site: ChromaSite::Left };
                let e = FrameEntry::new(&Letterbox::new(64, 36, 32, 32), colour, 0.5);
                let (black, white) = match range {
                    Range::Limited => (16.0, 235.0),
                    Range::Full => (0.0, 255.0),
                };
                for (code, value) in [(black, 0.0), (white, 1.0)] {
                    let base = e.luma * code;
                    let red = base + e.red_cr * 128.0 + e.constant[0];
                    let green = base + (e.green_cb + e.green_cr) * 128.0 + e.constant[1];
                    let blue = base + e.blue_cb * 128.0 + e.constant[2];
                    for channel in [red, green, blue] {
                        assert!((channel - value).abs() < 1e-5, "{colour:?} {channel} {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn geometry() {
        let letterbox = Letterbox::new(1920, 1080, 640, 640);
        let entry = FrameEntry::new(&letterbox, Colour::default(), 0.5);
        assert_eq!((entry.left, entry.top), (0, 140));
        assert_eq!((entry.resized_width, entry.resized_height), (640, 360));
        assert_eq!((entry.step_x, entry.step_y), (3 << 32, 3 << 32));
        assert_eq!(entry.site, 0);
    }
}
