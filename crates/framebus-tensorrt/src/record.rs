//! The last lines that TensorRT logged, so that an error carries its own words.
//!
//! TensorRT keeps one logger per process, so the lines of all callers come together
//! here; a caller takes the ones that came after its [`Mark`], its own thread's first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

/// Lines kept.
const LINES: usize = 32;
/// Bytes kept of a line.
const LINE_BYTES: usize = 600;
/// Lines that an error carries.
const TOLD: usize = 3;

/// `ILogger::Severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Verbose,
    Info,
    Warning,
    Error,
}

impl Severity {
    /// 0 is an internal error, 1 an error, 2 a warning, 3 information, 4 verbose.
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            ..=1 => Self::Error,
            2 => Self::Warning,
            3 => Self::Info,
            4.. => Self::Verbose,
        }
    }
}

struct Line {
    number: u64,
    thread: ThreadId,
    severity: Severity,
    text: String,
}

#[derive(Default)]
pub(crate) struct Record {
    written: u64,
    lines: VecDeque<Line>,
}

/// A moment in the record: what comes after it belongs to the call at hand.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

impl Record {
    const fn new() -> Self {
        Self { written: 0, lines: VecDeque::new() }
    }

    fn push(&mut self, thread: ThreadId, severity: Severity, text: &str) {
        self.written += 1;
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        let text = one_line(text, LINE_BYTES);
        self.lines.push_back(Line { number: self.written, thread, severity, text });
    }

    /// The last errors after `mark`, warnings where there is no error.
    fn since(&self, mark: Mark, thread: ThreadId) -> String {
        let after = || self.lines.iter().filter(|line| line.number > mark.0);
        for severity in [Severity::Error, Severity::Warning] {
            for own in [true, false] {
                let matching: Vec<&str> = after()
                    .filter(|line| line.severity == severity && (!own || line.thread == thread))
                    .map(|line| line.text.as_str())
                    .collect();
                if !matching.is_empty() {
                    return matching[matching.len().saturating_sub(TOLD)..].join("; ");
                }
            }
        }
        String::new()
    }
}

static RECORD: Mutex<Record> = Mutex::new(Record::new());

/// Keeps a warning or an error; the others are told to `tracing` alone.
pub(crate) fn push(severity: Severity, text: &str) {
    if severity >= Severity::Warning {
        let thread = std::thread::current().id();
        RECORD.lock().unwrap_or_else(PoisonError::into_inner).push(thread, severity, text);
    }
}

/// To be taken before a call that may fail.
pub(crate) fn mark() -> Mark {
    Mark(RECORD.lock().unwrap_or_else(PoisonError::into_inner).written)
}

/// What TensorRT said after `mark`, on one line; empty where it said nothing.
pub(crate) fn since(mark: Mark) -> String {
    let thread = std::thread::current().id();
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).since(mark, thread)
}

/// `text` on one line without needless space, cut after `bytes`.
pub(crate) fn one_line(text: &str, bytes: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > bytes {
            line.truncate(line.floor_char_boundary(bytes));
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other_thread() -> ThreadId {
        std::thread::spawn(|| std::thread::current().id()).join().unwrap()
    }

    #[test]
    fn the_lines_of_a_call_are_the_ones_after_its_mark() {
        let (own, other) = (std::thread::current().id(), other_thread());
        let mut record = Record::default();
        record.push(own, Severity::Error, "old");
        let mark = Mark(record.written);
        assert_eq!(record.since(mark, own), "");
        record.push(own, Severity::Warning, "careful");
        assert_eq!(record.since(mark, own), "careful");
        record.push(other, Severity::Error, "theirs");
        assert_eq!(record.since(mark, own), "theirs");
        record.push(own, Severity::Error, "first");
        record.push(own, Severity::Error, "second");
        assert_eq!(record.since(mark, own), "first; second");
    }

    #[test]
    fn the_record_is_bounded() {
        let own = std::thread::current().id();
        let mut record = Record::default();
        let mark = Mark(0);
        for n in 0..1000 {
            record.push(own, Severity::Error, &format!("{n} {}", "x".repeat(10_000)));
        }
        assert_eq!(record.lines.len(), LINES);
        assert!(record.since(mark, own).len() < TOLD * (LINE_BYTES + 8));
        assert!(record.since(mark, own).starts_with("997 x"));
    }

    #[test]
    fn a_line_has_no_line_breaks_and_is_cut_between_characters() {
        assert_eq!(one_line("a\n\tb  c\r\n", 100), "a b c");
        assert_eq!(one_line("ééé", 3), "é…");
        assert_eq!(one_line("", 3), "");
    }
}
