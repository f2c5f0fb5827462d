//! YCbCr → RGB after ITU-T H.273.

use super::rows::{LINE_BITS, dot};
use super::taps::COLUMN_BITS;
use crate::frame::{Colour, Matrix, Range};

/// What one code comes to in a sum of [`dot`].
const CODE: f32 = (1_u32 << (LINE_BITS + COLUMN_BITS)) as f32;

/// Codes 0..=255 of Y, Cb, Cr, in sums of [`dot`], to R, G, B in 0..=1 as a linear
/// map.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ToRgb {
    luma: f32,
    red_cr: f32,
    green_cb: f32,
    green_cr: f32,
    blue_cb: f32,
    /// What the offsets of luma and chroma come to, per channel.
    constant: [f32; 3],
}

/// Picked samples of one channel and the weights of its columns.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a> {
    pub(super) pairs: &'a [[i16; 2]],
    pub(super) weights: &'a [[i16; 2]],
}

/// How codes 0..=255 of Y, Cb, Cr come to R, G, B in 0..=1, as a linear map:
///
/// - R = `luma` · Y + `red_cr` · Cr + `constant[0]`
/// - G = `luma` · Y + `green_cb` · Cb + `green_cr` · Cr + `constant[1]`
/// - B = `luma` · Y + `blue_cb` · Cb + `constant[2]`
///
/// For what converts elsewhere (a GPU); [`super::Resampler`] uses the same numbers.
/// The results still have to be clamped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToRgbCodes {
    /// Luma's part in all three.
    pub luma: f32,
    /// Part of Cr in R.
    pub red_cr: f32,
    /// Part of Cb in G.
    pub green_cb: f32,
    /// Part of Cr in G.
    pub green_cr: f32,
    /// Part of Cb in B.
    pub blue_cb: f32,
    /// What the offsets of luma and chroma come to, in R, G, B.
    pub constant: [f32; 3],
}

impl Colour {
    /// The linear map of these codes to R, G, B.
    ///
    /// H.273: E'Y = Kr·R + Kg·G + Kb·B, E'Cb = (B − E'Y) / 2(1 − Kb), E'Cr =
    /// (R − E'Y) / 2(1 − Kr), solved for R, G, B, with the codes' scale folded in.
    #[must_use]
    pub fn to_rgb(self) -> ToRgbCodes {
        let (kr, kb) = match self.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let (black, luma_codes, chroma_codes) = match self.range {
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
        ToRgbCodes {
            luma: luma as f32,
            red_cr: red_cr as f32,
            green_cb: green_cb as f32,
            green_cr: green_cr as f32,
            blue_cb: blue_cb as f32,
            constant,
        }
    }
}

impl ToRgb {
    pub(super) fn new(colour: Colour) -> Self {
        let ToRgbCodes { luma, red_cr, green_cb, green_cr, blue_cb, constant } = colour.to_rgb();
        // A power of two: nothing is rounded.
        let [luma, red_cr, green_cb, green_cr, blue_cb] =
            [luma, red_cr, green_cb, green_cr, blue_cb].map(|factor| factor / CODE);
        Self { luma, red_cr, green_cb, green_cr, blue_cb, constant }
    }

    /// Interpolates and converts one row.
    #[inline(always)]
    pub(super) fn row(
        &self,
        y: Channel<'_>,
        cb: Channel<'_>,
        cr: Channel<'_>,
        [red, green, blue]: [&mut [f32]; 3],
    ) {
        let n = red.len();
        let (green, blue) = (&mut green[..n], &mut blue[..n]);
        let [y, cb, cr] = [y, cb, cr].map(|c| (&c.pairs[..n], &c.weights[..n]));
        for i in 0..n {
            let luma = dot(y.0[i], y.1[i]) * self.luma;
            let (cb, cr) = (dot(cb.0[i], cb.1[i]), dot(cr.0[i], cr.1[i]));
            red[i] = unit(luma + cr * self.red_cr + self.constant[0]);
            green[i] = unit(luma + cb * self.green_cb + cr * self.green_cr + self.constant[1]);
            blue[i] = unit(luma + cb * self.blue_cb + self.constant[2]);
        }
    }
}

/// Interpolates one row of a channel that is R, G or B already.
#[inline(always)]
pub(super) fn plain_row(channel: Channel<'_>, out: &mut [f32]) {
    for ((out, &pair), &weights) in out.iter_mut().zip(channel.pairs).zip(channel.weights) {
        *out = dot(pair, weights) * (1.0 / (255.0 * f64::from(CODE))) as f32;
    }
}

/// Clamps to 0..=1 in the two instructions that min and max are; no NaN gets here.
#[inline(always)]
fn unit(value: f32) -> f32 {
    let value = if value > 0.0 { value } else { 0.0 };
    if value < 1.0 { value } else { 1.0 }
}
