//! How long stages take: histograms of one camera or of several together.

use framebus_types::Histogram;
use framebus_types::histogram::{BUCKETS, bucket, quantile_us};

/// Durations of one stage.
#[derive(Debug, Clone)]
pub struct Latency {
    counts: [u32; BUCKETS],
    max_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], max_ns: 0 }
    }
}

impl Latency {
    /// What `newer` counted since `older`, a reading of the same process; the
    /// longest duration is that since the process started.
    pub fn between(newer: &Histogram, older: Option<&Histogram>) -> Self {
        let counts = std::array::from_fn(|index| {
            let before = older.map_or(0, |older| older.counts[index]);
            newer.counts[index].wrapping_sub(before)
        });
        Self { counts, max_ns: newer.max_ns }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration_ns: u64) {
        let count = &mut self.counts[bucket(duration_ns)];
        *count = count.saturating_add(1);
        self.max_ns = self.max_ns.max(duration_ns);
    }

    /// Counts what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(count);
        }
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The middle of the bucket that holds the quantile (0..=1), ms, but never
    /// more than the maximum.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let ms = quantile_us(&self.counts, None, quantile)? / 1e3;
        Some(if self.max_ns > 0 { ms.min(self.max_ns as f64 / 1e6) } else { ms })
    }

    /// The longest duration, ms.
    pub fn max_ms(&self) -> Option<f64> {
        (self.max_ns > 0).then_some(self.max_ns as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_what_came_in_between() {
        let mut older = Histogram::default();
        older.counts[bucket(1_000_000)] = 100;
        let mut newer = older;
        newer.counts[bucket(20_000_000)] = 10;
        newer.max_ns = 20_500_000;
        let latency = Latency::between(&newer, Some(&older));
        let p50 = latency.quantile_ms(0.5).expect("counted");
        assert!((18.0..=20.5).contains(&p50), "{p50}");
        assert_eq!(latency.max_ms(), Some(20.5));
        let all = Latency::between(&newer, None);
        assert!(all.quantile_ms(0.5).is_some_and(|ms| ms < 1.2));
        assert_eq!(Latency::default().quantile_ms(0.5), None);
        assert_eq!(Latency::default().max_ms(), None);
    }

    #[test]
    fn a_quantile_is_never_above_the_maximum() {
        let mut latency = Latency::default();
        // Just above the lower edge of a bucket whose middle is 992 µs.
        latency.record(961_000);
        let mut more = Latency::default();
        more.record(200);
        latency.merge(&more);
        assert_eq!(latency.quantile_ms(1.0), latency.max_ms());
        assert!(latency.quantile_ms(0.5).is_some_and(|ms| ms <= 0.001));
    }
}
