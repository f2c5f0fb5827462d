//! A table that is redrawn in place, with lines scrolling above it.

use crate::table::cut;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a long-running command prints. Shared by threads; lines and table
/// never tear each other.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    to_stderr: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    table: Vec<String>,
    drawn: usize,
    gone: bool,
}

impl Screen {
    /// Prints on standard output, or on standard error when the output belongs
    /// to somebody else (a sink).
    pub(crate) fn new(to_stderr: bool) -> Arc<Self> {
        let terminal =
            if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        // A sink that prints results would tear the table.
        let live = terminal && !to_stderr && !is_dumb();
        Arc::new(Self { live, to_stderr, inner: Mutex::default() })
    }

    /// Whether there is a table to redraw; otherwise only lines make sense.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Characters in a line of the terminal that is printed on; no limit where it
    /// is none, so that what reads a pipe sees everything.
    pub(crate) fn columns(&self) -> usize {
        let terminal = match self.to_stderr {
            true => io::stderr().is_terminal().then(|| size(io::stderr())),
            false => io::stdout().is_terminal().then(|| size(io::stdout())),
        };
        terminal.map_or(usize::MAX, |(columns, _)| columns)
    }

    /// Whether the reader of the output has gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).gone
    }

    /// Prints lines that stay.
    pub(crate) fn line(&self, text: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = inner.erase();
        bytes.push_str(text);
        bytes.push('\n');
        bytes.push_str(&inner.draw(self.live));
        self.write(&mut inner, &bytes);
    }

    /// Prints a line of the log: on standard error, around the table where both
    /// are the same terminal.
    pub(crate) fn log(&self, text: &str) {
        if self.live && io::stderr().is_terminal() {
            return self.line(text);
        }
        let _guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Replaces the table.
    pub(crate) fn table(&self, text: &str) {
        if !self.live {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = inner.erase();
        inner.table = text.lines().map(|line| line.trim_end().to_owned()).collect();
        bytes.push_str(&inner.draw(true));
        self.write(&mut inner, &bytes);
    }

    /// Takes the table away for good.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = inner.erase();
        inner.table.clear();
        self.write(&mut inner, &bytes);
    }

    fn write(&self, inner: &mut Inner, text: &str) {
        let result = if self.to_stderr {
            io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        if result.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            inner.gone = true;
        }
    }
}

impl Inner {
    /// The bytes that take the table off the screen.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// The bytes that draw it below the cursor, cut to the terminal: a wrapped
    /// line would make the next `erase` miss, a scrolled one too.
    fn draw(&mut self, live: bool) -> String {
        if !live {
            return String::new();
        }
        let (columns, rows) = size(io::stdout());
        let room = rows.saturating_sub(1);
        let mut text = String::new();
        let over = self.table.len().saturating_sub(room);
        let kept = if over > 0 { room.saturating_sub(1) } else { room };
        for line in self.table.iter().take(kept) {
            text.push_str(&cut(line, columns));
            text.push('\n');
        }
        self.drawn = self.table.len().min(room);
        if over > 0 && room > 0 {
            let _ = writeln!(text, "… {} more lines", self.table.len() - kept);
        }
        text
    }
}

/// Columns and rows of a terminal.
fn size(terminal: impl AsFd) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

/// A terminal that does not move its cursor.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether standard output takes colours (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal()
        && !is_dumb()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasing_takes_exactly_the_lines_that_were_drawn() {
        let mut inner = Inner { table: vec!["a".into(), "b".into()], ..Inner::default() };
        assert_eq!(inner.erase(), "");
        assert_eq!(inner.draw(true), "a\nb\n");
        assert_eq!(inner.erase(), "\x1b[2A\r\x1b[J");
        assert_eq!(inner.erase(), "");
        assert_eq!(inner.draw(false), "");
    }
}
