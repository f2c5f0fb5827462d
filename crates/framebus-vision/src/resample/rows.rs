//! Two source rows mixed to the line that an output row is made of.
//!
//! Mixed samples have [`LINE_BITS`] fractional bits in i16. Everything here is
//! `#[inline(always)]`, so that it is compiled for the vector instructions of
//! whoever calls it.

use super::taps::{ROW_BITS, RowPair};

/// Fractional bits of a mixed sample: 255 << 6 leaves room for a sign.
pub(super) const LINE_BITS: u32 = 6;

/// A plane of a [`crate::FrameView`], whose bounds are checked there.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub(super) data: &'a [u8],
    pub(super) stride: usize,
}

impl<'a> Plane<'a> {
    /// The first `bytes` of both rows.
    pub(super) fn rows(self, pair: RowPair, bytes: usize) -> [&'a [u8]; 2] {
        [pair.upper, pair.lower].map(|row| &self.data[row * self.stride..][..bytes])
    }
}

/// `upper + (lower − upper) · weight`, exact to 1/64 of a code.
#[inline(always)]
fn mix(upper: i16, lower: i16, weight: i16) -> i16 {
    // The upper half of a product of i16 is one vector instruction; the shift
    // fills it: |lower − upper| << 7 is below 32768.
    const SHIFT: u32 = 16 + LINE_BITS - ROW_BITS;
    let step = i32::from((lower - upper) << SHIFT) * i32::from(weight);
    (upper << LINE_BITS) + (step >> 16) as i16
}

/// Mixes two rows of luma.
#[inline(always)]
pub(super) fn mix_luma([upper, lower]: [&[u8]; 2], weight: i16, out: &mut [i16]) {
    if weight == 0 {
        for (out, &a) in out.iter_mut().zip(upper) {
            *out = i16::from(a) << LINE_BITS;
        }
        return;
    }
    for ((out, &a), &b) in out.iter_mut().zip(upper).zip(lower) {
        *out = mix(i16::from(a), i16::from(b), weight);
    }
}

/// Mixes two rows of interleaved Cb, Cr into a line each.
#[inline(always)]
pub(super) fn mix_chroma([upper, lower]: [&[u8]; 2], weight: i16, cb: &mut [i16], cr: &mut [i16]) {
    let (upper, lower) = (upper.as_chunks::<2>().0, lower.as_chunks::<2>().0);
    for (((cb, cr), &a), &b) in cb.iter_mut().zip(cr).zip(upper).zip(lower) {
        // As one value of two bytes: a mask and a shift part them in registers.
        let (a, b) = (u16::from_le_bytes(a), u16::from_le_bytes(b));
        *cb = mix((a & 0xff) as i16, (b & 0xff) as i16, weight);
        *cr = mix((a >> 8) as i16, (b >> 8) as i16, weight);
    }
}

/// Mixes two rows of interleaved R, G, B into a line each.
#[inline(always)]
pub(super) fn mix_rgb(
    [upper, lower]: [&[u8]; 2],
    weight: i16,
    [red, green, blue]: &mut [Vec<i16>; 3],
) {
    let (upper, lower) = (upper.as_chunks::<3>().0, lower.as_chunks::<3>().0);
    let out = red.iter_mut().zip(green).zip(blue);
    for ((((red, green), blue), a), b) in out.zip(upper).zip(lower) {
        *red = mix(i16::from(a[0]), i16::from(b[0]), weight);
        *green = mix(i16::from(a[1]), i16::from(b[1]), weight);
        *blue = mix(i16::from(a[2]), i16::from(b[2]), weight);
    }
}

/// Weighted sum of a pair: a code with `LINE_BITS + COLUMN_BITS` fractional bits.
#[inline(always)]
pub(super) fn dot(pair: [i16; 2], weights: [i16; 2]) -> f32 {
    // A product of pairs and their sum are one vector instruction.
    let sum =
        i32::from(pair[0]) * i32::from(weights[0]) + i32::from(pair[1]) * i32::from(weights[1]);
    sum as f32
}
