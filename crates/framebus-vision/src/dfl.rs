//! Boxes of the cells that passed, many at once.
//!
//! Distribution Focal Loss (Li et al. 2020, arXiv:2006.04388): the distance of a
//! side is the expectation Σ softmax(logits)ᵢ · i over its bins. The cells of a
//! group are computed side by side, so that rows of the map are walked once and no
//! sum runs across a register.

use crate::heads::HeadScale;
use crate::yolo::Sieve;

/// Cells of a group; a register of AVX-512, two of AVX2, four of NEON.
const LANES: usize = 16;

/// One value per cell of a group.
type Lanes = [f32; LANES];

/// Cells that wait for their boxes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    len: usize,
    cells: [usize; LANES],
    scores: Lanes,
    classes: [u32; LANES],
    /// Box values, `[4 * bins]`.
    values: Vec<Lanes>,
}

impl Group {
    pub(crate) fn start(&mut self, bins: usize) {
        self.len = 0;
        self.values.clear();
        self.values.resize(4 * bins, [0.0; LANES]);
    }

    /// Takes a cell of `scale`; a full group gives its boxes to `sieve`.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        scale: &HeadScale<'_>,
        cell: usize,
        score: f32,
        class: u32,
        sieve: &mut Sieve<'_>,
    ) {
        self.cells[self.len] = cell;
        self.scores[self.len] = score;
        self.classes[self.len] = class;
        self.len += 1;
        if self.len == LANES {
            self.finish(scale, sieve);
        }
    }

    /// Gives the boxes of the waiting cells to `sieve`, in the order they came.
    #[inline(always)]
    pub(crate) fn finish(&mut self, scale: &HeadScale<'_>, sieve: &mut Sieve<'_>) {
        if self.len == 0 {
            return;
        }
        // Empty lanes compute a cell once more.
        let last = self.cells[self.len - 1];
        self.cells[self.len..].fill(last);
        let mut sums = [0.0; LANES];
        let rows = scale.boxes.chunks_exact(scale.width * scale.height);
        for (values, row) in self.values.iter_mut().zip(rows) {
            for i in 0..LANES {
                values[i] = row[self.cells[i]];
                sums[i] += values[i];
            }
        }
        let mut sides = [[0.0; LANES]; 4];
        let bins = self.values.len() / 4;
        for (side, values) in sides.iter_mut().zip(self.values.chunks_exact(bins)) {
            *side = match values {
                &[distances] => distances,
                _ => expectations(values),
            };
        }
        for i in 0..self.len {
            // A sum of finite values may overflow.
            if !sums[i].is_finite() {
                let broken = self.values.iter().filter(|values| !values[i].is_finite()).count();
                sieve.counts.non_finite += broken as u32;
                if broken > 0 {
                    continue;
                }
            }
            let x = (self.cells[i] % scale.width) as f32 + 0.5;
            let y = (self.cells[i] / scale.width) as f32 + 0.5;
            let [left, top, right, bottom] = sides.map(|side| side[i]);
            let stride = scale.stride as f32;
            let bbox = [x - left, y - top, x + right, y + bottom].map(|v| v * stride);
            sieve.push(bbox, self.scores[i], self.classes[i]);
        }
        self.len = 0;
    }
}

/// Σ softmax(logits)ᵢ · i of each lane.
#[inline(always)]
fn expectations(logits: &[Lanes]) -> Lanes {
    let mut most = [f32::NEG_INFINITY; LANES];
    for logits in logits {
        for i in 0..LANES {
            most[i] = if logits[i] > most[i] { logits[i] } else { most[i] };
        }
    }
    let (mut total, mut moment) = ([0.0; LANES], [0.0; LANES]);
    for (bin, logits) in logits.iter().enumerate() {
        for i in 0..LANES {
            let weight = exp_of_negative(logits[i] - most[i]);
            total[i] += weight;
            moment[i] += weight * bin as f32;
        }
    }
    std::array::from_fn(|i| moment[i] / total[i])
}

/// eˣ for x ≤ 0 to 2e-7 of its value; e⁻⁸⁷ below −87, for a softmax as good as 0.
///
/// x = n · ln 2 + r, eˣ = 2ⁿ · eʳ with the polynomial of Cephes' `expf`: a handful
/// of vector instructions, where the library's function takes one value at a time.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Added, it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;

    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let fraction = p * r * r + r + 1.0;
    fraction * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::{LANES, exp_of_negative, expectations};

    #[test]
    fn exponential_is_that_of_the_library() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - want).abs() / want;
            assert!(error < 2e-7, "e^{x} is off by {error} of its value");
        }
        for x in [-88.0, -1e9, f32::MIN, f32::NEG_INFINITY] {
            assert!((0.0..2e-38).contains(&exp_of_negative(x)), "e^{x}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
    }

    #[test]
    fn expectation_of_known_distributions() {
        let at = |values: &[f32]| {
            let logits: Vec<_> = values.iter().map(|&v| [v; LANES]).collect();
            expectations(&logits)[LANES - 1]
        };
        assert_eq!(at(&[3.0; 16]), 7.5);
        assert!((at(&[0.0, 0.0, 100.0, 0.0]) - 2.0).abs() < 1e-6);
        assert!((at(&[f32::MIN, f32::MAX]) - 1.0).abs() < 1e-6);
        // e¹ / (1 + e¹)
        assert!((at(&[-1000.0, -999.0]) - 0.731_058_6).abs() < 1e-6);
    }
}
