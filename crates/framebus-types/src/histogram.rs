//! Buckets of a latency histogram, the same in every process.
//!
//! Log-linear as in HDR histograms: [`SUB_BUCKETS`] equal steps per power of
//! two of microseconds, so a bucket is at most 12.5 % wide. Counts are
//! cumulative since the process started; the difference of two readings is the
//! histogram of the time between.

/// Steps per power of two.
pub const SUB_BUCKETS: usize = 8;
/// Buckets: exact below 8 µs, then 8 per octave up to 2^26 µs (67 s); the last
/// one also holds everything above.
pub const BUCKETS: usize = SUB_BUCKETS * 24;

/// Bucket of a duration.
#[must_use]
pub fn bucket(duration_ns: u64) -> usize {
    let us = duration_ns / 1000;
    if us < SUB_BUCKETS as u64 {
        return us as usize;
    }
    let octave = us.ilog2() as usize; // >= 3
    let step = (us >> (octave - 3)) as usize - SUB_BUCKETS;
    ((octave - 2) * SUB_BUCKETS + step).min(BUCKETS - 1)
}

/// Upper edge of a bucket in µs (exclusive).
#[must_use]
pub fn upper_us(bucket: usize) -> u64 {
    if bucket < SUB_BUCKETS {
        return bucket as u64 + 1;
    }
    let octave = bucket / SUB_BUCKETS + 2;
    let step = (bucket % SUB_BUCKETS + SUB_BUCKETS + 1) as u64;
    step << (octave - 3)
}

/// The `quantile` (0..=1) of cumulative counts `newer` minus `older`, in µs:
/// the middle of the bucket that holds it. `None` when nothing was counted.
/// Counts wrap at `u32::MAX`, so differences do too.
#[must_use]
pub fn quantile_us(newer: &[u32], older: Option<&[u32]>, quantile: f64) -> Option<f64> {
    let count = |i: usize| newer[i].wrapping_sub(older.map_or(0, |o| o[i]));
    let total: u64 = (0..newer.len()).map(|i| u64::from(count(i))).sum();
    if total == 0 {
        return None;
    }
    let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for i in 0..newer.len() {
        seen += u64::from(count(i));
        if seen >= rank {
            let lower = if i == 0 { 0 } else { upper_us(i - 1) };
            return Some((lower + upper_us(i)) as f64 / 2.0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for i in 1..BUCKETS - 1 {
            let (lower, upper) = (upper_us(i - 1), upper_us(i));
            assert!(upper > lower, "bucket {i}");
            assert_eq!(bucket(lower * 1000), i);
            assert_eq!(bucket(upper * 1000 - 1), i);
            if i >= SUB_BUCKETS {
                assert!((upper - lower) as f64 / lower as f64 <= 0.125);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_difference() {
        let mut older = [0_u32; BUCKETS];
        older[bucket(1_000_000)] = u32::MAX; // about to wrap
        let mut newer = older;
        for ms in 1..=100_u64 {
            let i = bucket(ms * 1_000_000);
            newer[i] = newer[i].wrapping_add(1);
        }
        let p50 = quantile_us(&newer, Some(&older), 0.5).expect("counted");
        assert!((p50 / 50_000.0 - 1.0).abs() < 0.13, "{p50}");
        assert_eq!(quantile_us(&older, Some(&older), 0.5), None);
    }
}
