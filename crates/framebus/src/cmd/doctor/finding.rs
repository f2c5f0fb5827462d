//! What a check found, and what to do about it.

use crate::table;
use framebus_service::Kind;
use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Ok,
    /// Not looked at, or not needed here.
    Skipped,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Problem(Kind),
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem(_) => "problem",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) area: &'static str,
    pub(crate) what: String,
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) next: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        area: &'static str,
        what: impl Into<String>,
        level: Level,
        text: impl Into<String>,
    ) -> Self {
        Self { area, what: what.into(), level, text: text.into(), next: None }
    }

    pub(crate) fn ok(area: &'static str, what: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(area, what, Level::Ok, text)
    }

    /// What somebody can do about it, in one sentence.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "area": self.area,
            "what": self.what,
            "level": self.level.as_str(),
            "text": self.text,
            "next": self.next,
        })
    }
}

/// All of it as text; the next step stands below its line.
pub(crate) fn table(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    let mut area = "";
    for finding in findings {
        let first = if finding.area == area { "" } else { finding.area };
        area = finding.area;
        rows.push(vec![
            first.to_owned(),
            finding.level.as_str().to_owned(),
            format!("{}: {}", finding.what, crate::out::plain(&finding.text)),
        ]);
        if let Some(next) = &finding.next {
            rows.push(vec![String::new(), String::new(), format!("→ {next}")]);
        }
    }
    // Without its empty header.
    let text = table::table(&["", "", ""], rows);
    text.split_once('\n').map_or_else(String::new, |(_, rows)| rows.to_owned())
}

/// `2 problems, 1 warning`.
pub(crate) fn summary(findings: &[Finding]) -> String {
    let count = |word: &str| {
        let number = findings.iter().filter(|finding| finding.level.as_str() == word).count();
        format!("{number} {word}{}", if number == 1 { "" } else { "s" })
    };
    format!("{}, {}", count("problem"), count("warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_stands_below_its_line() {
        let findings = [
            Finding::ok("gpu", "driver", "fine"),
            Finding::new("gpu", "library", Level::Problem(Kind::Unavailable), "gone")
                .next("install it"),
        ];
        let text = table(&findings);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "gpu  ok       driver: fine");
        assert!(lines[1].starts_with("problem  library: gone"), "{text}");
        assert_eq!(lines[2], "→ install it");
        assert_eq!(summary(&findings), "1 problem, 0 warnings");
    }
}
