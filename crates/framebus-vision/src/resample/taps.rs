//! Which samples an output position takes along one axis, and their weights.

use super::pick::Picks;

/// Bits of a column weight: two of them sum to `1 << COLUMN_BITS`, which i16 holds.
pub(super) const COLUMN_BITS: u32 = 14;
/// Bits of a row weight.
pub(super) const ROW_BITS: u32 = 15;

/// First sample and fraction of the second for each of `len` output positions.
fn pairs(
    len: usize,
    samples: usize,
    position: impl Fn(usize) -> f64,
) -> impl Iterator<Item = (usize, f64)> {
    let last = (samples - 1) as f64;
    // The last sample is reached as the second of its pair, so that a pair never
    // ends outside the row.
    let last_pair = samples.max(2) - 2;
    (0..len).map(move |d| {
        let at = position(d).clamp(0.0, last);
        let first = (at as usize).min(last_pair);
        (first, at - first as f64)
    })
}

/// The two neighbours of every output column.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    pub(super) picks: Picks,
    /// Weights of the left and the right one.
    pub(super) weights: Vec<[i16; 2]>,
}

impl Columns {
    /// `samples` of a row, read at `position(0..len)`.
    pub(super) fn new(len: usize, samples: usize, position: impl Fn(usize) -> f64) -> Self {
        let one = 1_i16 << COLUMN_BITS;
        let (first, weights) = pairs(len, samples, position)
            .map(|(first, fraction)| {
                let right = (fraction * f64::from(one)).round() as i16;
                (first as u16, [one - right, right])
            })
            .unzip();
        Self { picks: Picks::new(first), weights }
    }
}

/// The two neighbours of every output row.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    rows: Vec<RowPair>,
}

/// Two source rows and how to mix them.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPair {
    pub(super) upper: usize,
    /// The same as `upper` where its weight is zero.
    pub(super) lower: usize,
    /// Weight of the lower one, below `1 << ROW_BITS`.
    pub(super) weight: i16,
}

impl Rows {
    /// `samples` of a column, read at `position(0..len)`.
    pub(super) fn new(len: usize, samples: usize, position: impl Fn(usize) -> f64) -> Self {
        let rows = pairs(len, samples, position)
            .map(|(upper, fraction)| {
                let weight = (fraction * f64::from(1 << ROW_BITS)).round();
                // A fraction of one is the lower row alone.
                if weight >= f64::from(1 << ROW_BITS) {
                    return RowPair { upper: upper + 1, lower: upper + 1, weight: 0 };
                }
                let weight = weight as i16;
                RowPair { upper, lower: upper + usize::from(weight > 0), weight }
            })
            .collect();
        Self { rows }
    }

    pub(super) fn get(&self, row: usize) -> RowPair {
        self.rows[row]
    }
}
