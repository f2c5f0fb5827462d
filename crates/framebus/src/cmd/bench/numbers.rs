//! Medians, quantiles and ratios of measured values.

use serde_json::{Value, json};

/// What is said of a set of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Summary {
    /// `None` of nothing. Sorts the values.
    pub(super) fn of(values: &mut [f64]) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            // Nearest rank: always one of the values.
            let rank = (quantile * values.len() as f64).ceil() as usize;
            values[rank.clamp(1, values.len()) - 1]
        };
        (!values.is_empty()).then(|| Self {
            min: values[0],
            p50: middle(values),
            p90: at(0.90),
            p99: at(0.99),
            max: values[values.len() - 1],
        })
    }

    pub(super) fn json(self) -> Value {
        json!({
            "min": round(self.min), "p50": round(self.p50), "p90": round(self.p90),
            "p99": round(self.p99), "max": round(self.max),
        })
    }
}

/// Of sorted values.
fn middle(values: &[f64]) -> f64 {
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 }
}

/// The median; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    Summary::of(&mut sorted).map(|summary| summary.p50)
}

/// Ratios of neighbours in `a b a b …`: each block over the one before and the one
/// after it. Machines change their speed within seconds; neighbours share it mostly,
/// and a slow drift cancels between the two directions. Blocks without a figure (NaN) are left out.
pub(super) fn adjacent_ratios(a: &[f64], b: &[f64]) -> Vec<f64> {
    let before = a.iter().zip(b);
    let after = a.iter().skip(1).zip(b);
    let ratios = before.chain(after).map(|(a, b)| a / b);
    ratios.filter(|ratio| ratio.is_finite()).collect()
}

/// Events per second between the first and the last of these times, ns. Free of the
/// edges of a window, which cut an event each.
pub(super) fn rate(times_ns: &mut [u64]) -> Option<f64> {
    times_ns.sort_unstable();
    let (first, last) = (times_ns.first()?, times_ns.last()?);
    (last > first).then(|| (times_ns.len() - 1) as f64 * 1e9 / (last - first) as f64)
}

/// Four significant digits: more would claim more than was measured.
pub(super) fn round(value: f64) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    if value == 0.0 {
        return json!(0.0);
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(digits.clamp(-15, 15));
    json!((value * scale).round() / scale)
}

/// As [`round`], `null` of nothing.
pub(super) fn maybe(value: Option<f64>) -> Value {
    value.map_or(Value::Null, round)
}

/// Median, smallest and largest of ratios.
pub(super) fn spread(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    Summary::of(&mut sorted).map_or(
        Value::Null,
        |s| json!({"p50": round(s.p50), "min": round(s.min), "max": round(s.max), "pairs": values.len()}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks_and_the_median_is_the_middle() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&mut values).expect("values");
        assert_eq!((summary.min, summary.max), (1.0, 100.0));
        assert_eq!((summary.p50, summary.p90, summary.p99), (50.5, 90.0, 99.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(Summary::of(&mut []), None);
    }

    #[test]
    fn a_machine_that_changes_its_speed_does_not_move_the_ratio() {
        // Half speed from the third block on; the product is always 10 % slower.
        let product = [90.0, 90.0, 45.0, 45.0, 45.0];
        let bare = [100.0, 100.0, 50.0, 50.0, 50.0];
        let ratios = adjacent_ratios(&product, &bare);
        assert_eq!(ratios.len(), 9);
        assert_eq!(median(&ratios), Some(0.9));
        assert_eq!(adjacent_ratios(&[1.0, f64::NAN, 3.0], &[0.0, 1.0]), [3.0]);
    }

    #[test]
    fn a_rate_counts_the_steps_between_events() {
        assert_eq!(rate(&mut [2_000_000_000, 0, 1_000_000_000]), Some(1.0));
        assert_eq!(rate(&mut [5]), None);
    }

    #[test]
    fn figures_have_four_digits() {
        assert_eq!(round(1234.567), json!(1235.0));
        assert_eq!(round(0.001_234_567), json!(0.001_235));
        assert_eq!((round(f64::NAN), round(0.0)), (Value::Null, json!(0.0)));
    }
}
