//! How long stages take, as people read it.

use crate::table::{Column, figure, fitted};
use framebus_types::Stage;

pub(crate) use framebus_client::health::Latency;

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
