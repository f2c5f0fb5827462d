//! How long stages take: histograms of one camera or of several together.

use crate::table::{Column, figure, fitted};
use framebus_types::histogram::{BUCKETS, bucket, quantile_us};
use framebus_types::{Histogram, Stage};

/// Durations of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
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
    pub(crate) fn between(newer: &Histogram, older: Option<&Histogram>) -> Self {
        let counts = std::array::from_fn(|index| {
            let before = older.map_or(0, |older| older.counts[index]);
            newer.counts[index].wrapping_sub(before)
        });
        Self { counts, max_ns: newer.max_ns }
    }

    /// Counts one duration.
    pub(crate) fn record(&mut self, duration_ns: u64) {
        let count = &mut self.counts[bucket(duration_ns)];
        *count = count.saturating_add(1);
        self.max_ns = self.max_ns.max(duration_ns);
    }

    /// Counts what `other` has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(count);
        }
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The middle of the bucket that holds the quantile (0..=1), ms, but never
    /// more than the maximum.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let ms = quantile_us(&self.counts, None, quantile)? / 1e3;
        Some(if self.max_ns > 0 { ms.min(self.max_ns as f64 / 1e6) } else { ms })
    }

    /// The longest duration, ms.
    pub(crate) fn max_ms(&self) -> Option<f64> {
        (self.max_ns > 0).then_some(self.max_ns as f64 / 1e6)
    }
}

/// The names and values of what is said of a distribution.
pub(crate) fn figures(latency: &Latency) -> [(&'static str, Option<f64>); 4] {
    [
        ("p50", latency.quantile_ms(0.5)),
        ("p90", latency.quantile_ms(0.9)),
        ("p99", latency.quantile_ms(0.99)),
        ("max", latency.max_ms()),
    ]
}

/// A block of lines, ms: a column for each stage, a row for each quantile; the
/// first column is headed by whose stages these are.
pub(crate) fn block(whose: &str, of: impl Fn(Stage) -> Latency, width: usize) -> String {
    let mut columns = vec![Column::new(whose, 0)];
    // What remains where there is little room: where the milliseconds usually go.
    let rank = |stage| match stage {
        Stage::Total | Stage::Inference => 1,
        Stage::Queue | Stage::Preprocess => 2,
        Stage::Capture | Stage::Wake => 3,
        Stage::Decode | Stage::Publish => 4,
    };
    let titles = Stage::ALL.map(|stage| format!(">{}", stage.as_str()));
    let stages = Stage::ALL.into_iter().zip(&titles);
    columns.extend(stages.map(|(stage, title)| Column::new(title, rank(stage))));
    let all = Stage::ALL.map(|stage| figures(&of(stage)));
    let rows = (0..all[0].len()).map(|quantile| {
        let mut row = vec![all[0][quantile].0.to_owned()];
        row.extend(all.iter().map(|stage| figure(stage[quantile].1)));
        row
    });
    fitted(&columns, rows.collect(), width)
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

    #[test]
    fn a_block_fits_an_ordinary_terminal() {
        let mut one = Latency::default();
        one.record(1_234_000_000);
        let text = block("front-door", |_| one.clone(), 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.trim_end().chars().count() <= 80), "{text}");
        for stage in Stage::ALL {
            assert!(lines[0].contains(stage.as_str()), "{text}");
        }
        let narrow = block("front-door", |_| one.clone(), 40);
        assert!(narrow.contains("inference") && !narrow.contains("publish"), "{narrow}");
    }
}
