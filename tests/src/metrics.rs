//! A page of Prometheus' text format, read strictly.

use std::collections::BTreeMap;

/// Series and their values; a family and its type; read strictly.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By name and labels, as written.
    pub series: BTreeMap<String, f64>,
    /// Names and types.
    pub families: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads format 0.0.4.
    ///
    /// # Panics
    /// When a family is not in one piece, with its description before its series, when a
    /// series is there twice or a value is none.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut family = (String::new(), String::new());
        assert!(text.ends_with('\n'), "the last line is not ended");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(help.ends_with('.') && !page.families.contains_key(name), "{line}");
                family = (name.to_owned(), String::new());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(name, family.0, "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                family.1 = kind.to_owned();
                page.families.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                let name = series.split('{').next().expect("a name");
                let belongs = match name.strip_prefix(&*family.0) {
                    Some("_bucket" | "_sum" | "_count") => family.1 == "histogram",
                    Some("") => family.1 != "histogram",
                    _ => false,
                };
                assert!(belongs, "{line} stands below {family:?}");
                assert!(value >= 0.0 && !series.contains("pid="), "{line}");
                assert!(page.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        page
    }

    /// The value of a series.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn get(&self, series: &str) -> f64 {
        let close = || self.series.keys().filter(|key| key.starts_with(&series[..12]));
        *self
            .series
            .get(series)
            .unwrap_or_else(|| panic!("no {series} among {:?}", close().collect::<Vec<_>>()))
    }

    /// Buckets of a camera's stage: bound in s and count, in the order of the bounds.
    #[must_use]
    pub fn buckets(&self, camera: &str, stage: &str) -> Vec<(f64, f64)> {
        let start =
            format!("framebus_stage_seconds_bucket{{camera=\"{camera}\",stage=\"{stage}\",le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .series
            .iter()
            .filter_map(|(series, count)| {
                let bound = series.strip_prefix(&start)?.strip_suffix("\"}")?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
                Some((bound, *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}
