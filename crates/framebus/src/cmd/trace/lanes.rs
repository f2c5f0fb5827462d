//! Rows that slices are laid on such that no two of one row overlap.

use super::events::{Events, Track};
use std::collections::VecDeque;
use std::io::{self, Write};

/// Slices remembered per row: results come nearly in the order of time.
const RECENT: usize = 64;

/// Rows of one kind, as many as things overlap.
#[derive(Debug)]
pub(super) struct Lanes {
    pid: u32,
    name: String,
    order: u32,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    track: Track,
    recent: VecDeque<(u64, u64)>,
    /// Before this, what is taken is not remembered.
    floor_ns: u64,
}

impl Row {
    fn is_free(&self, (from_ns, to_ns): (u64, u64)) -> bool {
        from_ns >= self.floor_ns
            && self.recent.iter().all(|(from, to)| to_ns <= *from || from_ns >= *to)
    }

    fn take(&mut self, span: (u64, u64)) {
        if self.recent.len() == RECENT
            && let Some((_, end_ns)) = self.recent.pop_front()
        {
            self.floor_ns = self.floor_ns.max(end_ns);
        }
        self.recent.push_back(span);
    }
}

/// Hands out row numbers that are unique in a file.
#[derive(Debug, Default)]
pub(super) struct Numbers(u32);

impl Lanes {
    /// Rows called `name`, `name (2)`, …; `order` is their place in the process.
    pub(super) fn new(pid: u32, name: &str, order: u32) -> Self {
        Self { pid, name: name.to_owned(), order, rows: Vec::new() }
    }

    /// The process that the rows belong to.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// A row that is free for the whole span (ns); a new one is named first.
    pub(super) fn place<W: Write>(
        &mut self,
        span: (u64, u64),
        numbers: &mut Numbers,
        events: &mut Events<W>,
    ) -> io::Result<Track> {
        if let Some(row) = self.rows.iter_mut().find(|row| row.is_free(span)) {
            row.take(span);
            return Ok(row.track);
        }
        numbers.0 += 1;
        let track = Track { pid: self.pid, tid: numbers.0 };
        let name = match self.rows.len() {
            0 => self.name.clone(),
            rows => format!("{} ({})", self.name, rows + 1),
        };
        events.thread(track, &name, self.order + self.rows.len() as u32)?;
        self.rows.push(Row { track, recent: VecDeque::from([span]), floor_ns: 0 });
        Ok(track)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_spans_of_a_row_overlap() {
        let mut events = Events::new(io::sink(), 0).expect("a sink");
        let (mut lanes, mut numbers) = (Lanes::new(9, "context 0", 0), Numbers::default());
        let mut place = |from, to| {
            lanes.place((from, to), &mut numbers, &mut events).expect("a sink takes everything").tid
        };
        assert_eq!(place(10, 20), 1);
        assert_eq!(place(20, 30), 1, "one begins where the other ends");
        assert_eq!(place(15, 25), 2);
        assert_eq!(place(0, 10), 1, "results may come out of order");
        assert_eq!(place(12, 13), 2, "the first row is taken from 10 to 30, the second from 15");
        assert_eq!(place(5, 16), 3);
        for step in 2..200 {
            assert_eq!(place(step * 20, step * 20 + 10), 1);
        }
        assert_eq!(place(41, 49), 2, "what the first row held then is forgotten, not free");
    }
}
