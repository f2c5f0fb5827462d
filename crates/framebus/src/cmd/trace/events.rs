//! The Chrome trace-event format, JSON object form, written as it comes.
//!
//! The format is described in "Trace Event Format" of the Chromium project;
//! Perfetto and chrome://tracing read it. Times are microseconds with the
//! nanoseconds as decimals.

use serde_json::Value;
use std::io::{self, Write};

/// A row of the time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) pid: u32,
    /// Unique in the whole file, not only in its process.
    pub(super) tid: u32,
}

/// A value that is shown when the event is selected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Count(u64),
    /// A duration in ns, shown in ms.
    Ms(u64),
    Text(&'a str),
}

/// Arguments of an event.
pub(super) type Args<'a> = [(&'a str, Arg<'a>)];

/// What a flow event does to the arrow between slices.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flow {
    Start,
    Step,
    End,
}

/// Writes events; what has been written is complete JSON after
/// [`finish`](Self::finish) only.
#[derive(Debug)]
pub(super) struct Events<W> {
    out: W,
    origin_ns: u64,
    empty: bool,
}

impl<W: Write> Events<W> {
    /// Begins the file; events before `origin_ns` (CLOCK_MONOTONIC) are moved
    /// there.
    pub(super) fn new(mut out: W, origin_ns: u64) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Self { out, origin_ns, empty: true })
    }

    /// Names a process and says where it stands among the others.
    pub(super) fn process(&mut self, pid: u32, name: &str, order: u32) -> io::Result<()> {
        let track = Track { pid, tid: pid };
        self.metadata(track, "process_name", "name", Arg::Text(name))?;
        self.metadata(track, "process_sort_index", "sort_index", Arg::Count(order.into()))
    }

    /// Names a row and says where it stands in its process.
    pub(super) fn thread(&mut self, track: Track, name: &str, order: u32) -> io::Result<()> {
        self.metadata(track, "thread_name", "name", Arg::Text(name))?;
        self.metadata(track, "thread_sort_index", "sort_index", Arg::Count(order.into()))
    }

    fn metadata(&mut self, track: Track, what: &str, key: &str, value: Arg<'_>) -> io::Result<()> {
        self.open('M', track, self.origin_ns)?;
        self.name(what, "__metadata")?;
        self.close(&[(key, value)])
    }

    /// Something that took from `from_ns` to `to_ns`. Slices of one row must nest.
    pub(super) fn slice(
        &mut self,
        track: Track,
        name: &str,
        (from_ns, to_ns): (u64, u64),
        args: &Args<'_>,
    ) -> io::Result<()> {
        self.open('X', track, from_ns)?;
        self.out.write_all(b",\"dur\":")?;
        self.us(to_ns.saturating_sub(from_ns))?;
        self.name(name, "stage")?;
        self.close(args)
    }

    /// Something that happened.
    pub(super) fn instant(
        &mut self,
        track: Track,
        name: &str,
        at_ns: u64,
        args: &Args<'_>,
    ) -> io::Result<()> {
        self.open('i', track, at_ns)?;
        self.out.write_all(b",\"s\":\"t\"")?;
        self.name(name, "outcome")?;
        self.close(args)
    }

    /// One end of something that may overlap with others of its name. Those of
    /// one `id` must nest.
    pub(super) fn waiting(
        &mut self,
        track: Track,
        id: u64,
        begin: bool,
        name: &str,
        at_ns: u64,
        args: &Args<'_>,
    ) -> io::Result<()> {
        self.open(if begin { 'b' } else { 'e' }, track, at_ns)?;
        write!(self.out, ",\"id\":{id}")?;
        self.name(name, "waiting")?;
        self.close(args)
    }

    /// A point of the arrow `id` among those of one name, bound to the slice around it.
    pub(super) fn flow(
        &mut self,
        track: Track,
        name: &str,
        id: u64,
        flow: Flow,
        at_ns: u64,
    ) -> io::Result<()> {
        let letter = match flow {
            Flow::Start => 's',
            Flow::Step => 't',
            Flow::End => 'f',
        };
        self.open(letter, track, at_ns)?;
        write!(self.out, ",\"id\":{id}")?;
        if matches!(flow, Flow::End) {
            // To the slice around the point, not to the one after it.
            self.out.write_all(b",\"bp\":\"e\"")?;
        }
        self.name(name, name)?;
        self.close(&[])
    }

    /// Ends the file with what is to be known of it as a whole.
    pub(super) fn finish(mut self, about: &Value) -> io::Result<()> {
        self.out.write_all(b"\n],\"otherData\":")?;
        serde_json::to_writer(&mut self.out, about)?;
        self.out.write_all(b"}\n")?;
        self.out.flush()
    }

    fn open(&mut self, phase: char, track: Track, at_ns: u64) -> io::Result<()> {
        let separator = if std::mem::take(&mut self.empty) { "" } else { "," };
        let Track { pid, tid } = track;
        write!(self.out, "{separator}\n{{\"ph\":\"{phase}\",\"pid\":{pid},\"tid\":{tid},\"ts\":")?;
        self.us(at_ns.saturating_sub(self.origin_ns))
    }

    /// Perfetto multiplies the number by 1000 in f64 and cuts off what is no
    /// whole nanosecond. Where that would be one too few (every hundredth
    /// number), a tenth is added: slices that touch would overlap otherwise,
    /// and Perfetto leaves out such slices.
    fn us(&mut self, ns: u64) -> io::Result<()> {
        let read = (ns as f64 / 1000.0 * 1000.0) as u64;
        let tenth = if read < ns { "1" } else { "" };
        write!(self.out, "{}.{:03}{tenth}", ns / 1000, ns % 1000)
    }

    fn name(&mut self, name: &str, category: &str) -> io::Result<()> {
        write!(self.out, ",\"cat\":\"{category}\",\"name\":")?;
        self.text(name)
    }

    fn close(&mut self, args: &Args<'_>) -> io::Result<()> {
        for (index, (key, value)) in args.iter().enumerate() {
            self.out.write_all(if index == 0 { b",\"args\":{" } else { b"," })?;
            self.text(key)?;
            self.out.write_all(b":")?;
            match value {
                Arg::Count(count) => write!(self.out, "{count}")?,
                Arg::Ms(ns) => write!(self.out, "{:.3}", *ns as f64 / 1e6)?,
                Arg::Text(text) => self.text(text)?,
            }
        }
        self.out.write_all(if args.is_empty() { b"}" } else { b"}}" })
    }

    /// Names may come from other processes: escaped.
    fn text(&mut self, text: &str) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, text).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_the_format() {
        let mut bytes = Vec::new();
        let mut events = Events::new(&mut bytes, 1_000_000).expect("memory");
        let track = Track { pid: 7, tid: 1 };
        let written = (|| {
            events.process(7, "capture \"a\"", 3)?;
            events.thread(track, "a", 0)?;
            let args = [("camera", Arg::Text("a\n")), ("n", Arg::Count(2)), ("ms", Arg::Ms(1500))];
            events.slice(track, "capture", (1_001_500, 1_004_042), &args)?;
            events.instant(track, "dropped", 999, &[])?;
            events.waiting(track, 5, true, "wake", 1_000_001, &[])?;
            events.waiting(track, 5, false, "wake", 1_000_002, &[])?;
            events.flow(track, "frame", 5, Flow::Start, 1_002_000)?;
            events.flow(track, "frame", 5, Flow::Step, 1_003_000)?;
            events.flow(track, "frame", 5, Flow::End, 1_004_000)?;
            events.finish(&json!({"results": 1}))
        })();
        written.expect("memory");
        let file: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(file["otherData"]["results"], 1);
        let events = file["traceEvents"].as_array().expect("a list");
        assert_eq!(events.len(), 11);
        assert_eq!(events[0]["args"]["name"], "capture \"a\"");
        assert_eq!(
            events[4],
            json!({"ph": "X", "pid": 7, "tid": 1, "ts": 1.5, "dur": 2.542, "cat": "stage",
                   "name": "capture", "args": {"camera": "a\n", "n": 2, "ms": 0.002}})
        );
        assert_eq!(events[5]["ts"], 0.0, "before the origin");
        assert_eq!((&events[6]["ph"], &events[6]["id"]), (&json!("b"), &json!(5)));
        assert_eq!((&events[10]["ph"], &events[10]["bp"]), (&json!("f"), &json!("e")));
    }

    #[test]
    fn perfetto_reads_every_nanosecond() {
        for ns in (0..20_000).chain(1_000_000_000_000..1_000_000_020_000) {
            let mut bytes = Vec::new();
            let mut events = Events { out: &mut bytes, origin_ns: 0, empty: true };
            events.us(ns).expect("memory");
            let text = String::from_utf8(bytes).expect("digits");
            let read: f64 = text.parse().expect("a number");
            assert_eq!((read * 1000.0) as u64, ns, "{text}");
        }
    }

    #[test]
    fn a_file_without_events_is_complete_too() {
        let mut bytes = Vec::new();
        let events = Events::new(&mut bytes, 0).expect("memory");
        events.finish(&json!({})).expect("memory");
        let file: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(file["traceEvents"], json!([]));
    }
}
