//! The text that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::fmt::{Display, Write};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own.
    Text,
    /// OpenMetrics, for clients that ask for it.
    OpenMetrics,
}

impl Format {
    /// Chosen by the `Accept` header: OpenMetrics for whoever names it and does not like
    /// plain text better.
    pub(super) fn accepted(accept: &str) -> Self {
        let best = |kind: &str| {
            let weights = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(kind));
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
            });
            weights.fold(0.0_f64, f64::max)
        };
        let open = best("application/openmetrics-text");
        if open > 0.0 && open >= best("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` header.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family of series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, until its process starts anew.
    Counter,
    /// A value of this moment.
    Gauge,
    /// Counts of durations up to certain bounds.
    Histogram,
}

/// Families of series, one after the other.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    format: Format,
    name: &'static str,
    kind: Kind,
}

impl Page {
    /// Starts with room for `bytes`.
    pub(super) fn new(format: Format, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), format, name: "", kind: Kind::Gauge }
    }

    /// Begins a family: its name without `_total`, its unit (the end of its name; empty =
    /// none) and what it means.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        help: &'static str,
    ) {
        (self.name, self.kind) = (name, kind);
        let end = if self.format == Format::Text { self.end() } else { "" };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing into a `String` cannot fail.
        let _ = writeln!(self.text, "# HELP {name}{end} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{end} {word}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    fn end(&self) -> &'static str {
        if self.kind == Kind::Counter { "_total" } else { "" }
    }

    /// A series of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line(self.end(), labels, value);
    }

    /// A series whose name has an end of its own.
    pub(super) fn line(&mut self, end: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(end);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_written() {
        let page = |format| {
            let mut page = Page::new(format, 0);
            page.family("a_seconds", Kind::Counter, "seconds", "Time.");
            page.sample(&[("camera", "a\"\\\n"), ("x", "y")], 0.25);
            page.family("b", Kind::Gauge, "", "A thing.");
            page.sample(&[], 7);
            page.finish()
        };
        assert_eq!(
            page(Format::Text),
            "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
             a_seconds_total{camera=\"a\\\"\\\\\\n\",x=\"y\"} 0.25\n\
             # HELP b A thing.\n# TYPE b gauge\nb 7\n"
        );
        assert_eq!(
            page(Format::OpenMetrics),
            "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
             a_seconds_total{camera=\"a\\\"\\\\\\n\",x=\"y\"} 0.25\n\
             # HELP b A thing.\n# TYPE b gauge\nb 7\n# EOF\n"
        );
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        // As Prometheus 2.42 asks.
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for plain in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "text/html"] {
            assert_eq!(Format::accepted(plain), Format::Text, "{plain}");
        }
        let less = "application/openmetrics-text;q=0.2, text/plain;q=0.5";
        assert_eq!(Format::accepted(less), Format::Text);
    }
}
