//! JSON lines: one object per result, to standard output or a rotated file.

use crate::feed::{Feed, Message};
use crate::rotated::Rotated;
use framebus_client::{ResultSample, json};
use framebus_config::{Jsonl, JsonlPath, Sink};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, State};
use std::io::{self, Write};
use std::path::Path;

/// Lines are written when so many bytes of them have come together.
const BURST_BYTES: usize = 64 * 1024;
/// A target that could not be written is tried again after this long, ns.
const RETRY_NS: u64 = 1_000_000_000;

/// Runs until asked to stop; then takes what is still there.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    jsonl: &Jsonl,
    vitals: &Vitals,
) -> Result<(), Failure> {
    let mut lines = Lines::new(open(jsonl)?, vitals);
    vitals.set_detail(&match &jsonl.path {
        JsonlPath::Stdout => "jsonl to standard output".to_owned(),
        JsonlPath::File(path) => format!("jsonl to {}", path.display()),
    });
    let mut feed = Feed::open(service, sink, vitals, (true, false))?;
    vitals.set_state(State::Live, "");
    service.ready();
    loop {
        let mut is_read = true;
        let goes_on = feed.turn(|message| {
            if let Message::Result(result) = message {
                is_read &= lines.add(result);
            }
        })?;
        if !(lines.write() && is_read && goes_on) {
            return Ok(());
        }
    }
}

/// Where lines go.
enum Output {
    Stdout(io::StdoutLock<'static>),
    File(Rotated),
}

fn open(jsonl: &Jsonl) -> Result<Output, Failure> {
    let JsonlPath::File(path) = &jsonl.path else {
        return Ok(Output::Stdout(io::stdout().lock()));
    };
    let fail = |error: io::Error| {
        let error = anyhow::Error::new(error).context(format!(
            "cannot write {}; does its folder exist and may this user write there?",
            path.display()
        ));
        Failure::new(Kind::Unavailable, error)
    };
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    Rotated::open(path, jsonl.rotate_mib << 20, jsonl.keep).map(Output::File).map_err(fail)
}

/// Lines that are written together: each of them is written, or counted as lost.
struct Lines<'a> {
    output: Output,
    vitals: &'a Vitals,
    burst: Vec<u8>,
    results: u64,
    /// Not tried again before, after a failure.
    retry_ns: u64,
}

impl<'a> Lines<'a> {
    fn new(output: Output, vitals: &'a Vitals) -> Self {
        Self { output, vitals, burst: Vec::new(), results: 0, retry_ns: 0 }
    }

    /// Takes a result; `false` when there is nobody left to write for.
    fn add(&mut self, result: &ResultSample) -> bool {
        // Writing a `Value` into memory cannot fail.
        if serde_json::to_writer(&mut self.burst, &json::result(result)).is_ok() {
            self.burst.push(b'\n');
        }
        self.results += 1;
        let full = match &self.output {
            Output::Stdout(_) => false,
            Output::File(file) => file.is_full(self.burst.len()),
        };
        if full || self.burst.len() >= BURST_BYTES { self.write() } else { true }
    }

    /// Writes what has come together; `false` when there is nobody left to write for. A
    /// full disk is a state, and may pass.
    fn write(&mut self) -> bool {
        if self.results == 0 {
            return true;
        }
        let now_ns = clock::monotonic_ns();
        let written = if now_ns < self.retry_ns {
            None
        } else {
            Some(match &mut self.output {
                Output::Stdout(stdout) => {
                    stdout.write_all(&self.burst).and_then(|()| stdout.flush())
                }
                Output::File(file) => file.write(&self.burst),
            })
        };
        match &written {
            Some(Ok(())) => {
                self.vitals.add(Counter::Written, self.results);
                self.vitals.add(Counter::WrittenBytes, self.burst.len() as u64);
                if self.vitals.state() == State::Degraded {
                    self.vitals.set_state(State::Live, "");
                }
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                tracing::info!("the reader of standard output is gone");
                return false;
            }
            Some(Err(error)) => {
                self.retry_ns = now_ns + RETRY_NS;
                self.vitals.add(Counter::Errors, 1);
                self.vitals.set_state(State::Degraded, &format!("cannot write: {error}"));
                self.vitals.add(Counter::Lost, self.results);
            }
            None => self.vitals.add(Counter::Lost, self.results),
        }
        self.burst.clear();
        self.results = 0;
        true
    }
}
