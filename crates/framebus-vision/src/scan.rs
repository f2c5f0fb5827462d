//! The strongest of many rows, column by column, at memory speed.
//!
//! Class scores come as one row of cells per class. Looking for the best class of
//! every cell is nearly all of a decode's work, and nearly all cells end there.

/// Cells whose running values are kept together: with the rows that pass over
/// them they stay in the L1 cache.
pub(crate) const BLOCK: usize = 512;

/// Cells that are asked together whether one of them passed.
const CHUNK: usize = 32;

/// Running values of a block of cells.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    best: [f32; BLOCK],
    sum: [f32; BLOCK],
}

impl Default for Running {
    fn default() -> Self {
        Self { best: [0.0; BLOCK], sum: [0.0; BLOCK] }
    }
}

impl Running {
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.best.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
    }

    /// Adds `row`, so that NaN and infinities stay visible without a test per value.
    #[inline(always)]
    pub(crate) fn add(&mut self, row: &[f32]) {
        for (s, &v) in self.sum.iter_mut().zip(row) {
            *s += v;
        }
    }

    /// [`Self::add`], and the maximum of what is a number.
    #[inline(always)]
    fn add_best(&mut self, row: &[f32]) {
        for ((b, s), &v) in self.best.iter_mut().zip(&mut self.sum).zip(row) {
            *s += v;
            *b = if v > *b { v } else { *b };
        }
    }

    /// [`Self::add_best`] of four rows: a quarter of the traffic of running values.
    #[inline(always)]
    fn add_best_of_four(&mut self, rows: [&[f32]; 4]) {
        let [r0, r1, r2, r3] = rows;
        let rows = r0.iter().zip(r1).zip(r2).zip(r3);
        for ((b, s), (((&v0, &v1), &v2), &v3)) in self.best.iter_mut().zip(&mut self.sum).zip(rows)
        {
            *s += (v0 + v1) + (v2 + v3);
            let low = if v1 > v0 { v1 } else { v0 };
            let high = if v3 > v2 { v3 } else { v2 };
            let best = if high > low { high } else { low };
            *b = if best > *b { best } else { *b };
        }
    }

    /// [`Self::add_best`] of all rows.
    #[inline(always)]
    pub(crate) fn add_rows<'a>(&mut self, mut rows: impl Iterator<Item = &'a [f32]>) {
        while let Some(first) = rows.next() {
            match (rows.next(), rows.next(), rows.next()) {
                (Some(second), Some(third), Some(fourth)) => {
                    self.add_best_of_four([first, second, third, fourth]);
                }
                (second, third, _) => {
                    for row in [Some(first), second, third].into_iter().flatten() {
                        self.add_best(row);
                    }
                }
            }
        }
    }

    /// Calls `hit` with the number of each of the first `len` cells whose maximum
    /// reaches `limit`, or whose sum is not finite: a value is not, or their sum
    /// overflowed. The flag says whether the sum is finite.
    #[inline(always)]
    pub(crate) fn hits(&self, len: usize, limit: f32, mut hit: impl FnMut(usize, f32, bool)) {
        let is_hit = |best: f32, sum: f32| (best >= limit) | !sum.is_finite();
        let bests = self.best[..len].chunks(CHUNK);
        for (chunk, (bests, sums)) in bests.zip(self.sum[..len].chunks(CHUNK)).enumerate() {
            // Without early exit the question to a chunk is a few vector
            // instructions, and most chunks have no hit.
            let cells = || bests.iter().zip(sums);
            if !cells().fold(false, |any, (&best, &sum)| any | is_hit(best, sum)) {
                continue;
            }
            for (i, (&best, &sum)) in cells().enumerate() {
                if is_hit(best, sum) {
                    hit(chunk * CHUNK + i, best, sum.is_finite());
                }
            }
        }
    }
}
