//! JSON lines: one object per result, to standard output or a rotated file.

use crate::rotated::Rotated;
use framebus_client::{ResultSample, Results, json};
use framebus_config::{CameraName, Config, Diff, JsonlPath, Sink, SinkKind};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, State};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How often the sink looks up when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// Results taken before the lines reach the file although more are coming.
const RESULTS_MAX: usize = 64;
/// Lines are written when so many bytes of them have come together.
const BURST_BYTES: usize = 64 * 1024;
/// A target that could not be written is tried again after this long, ns.
const RETRY_NS: u64 = 1_000_000_000;

/// Runs until asked to stop; then takes what is still there.
pub(crate) fn serve(service: &Service, sink: &Sink, vitals: &Vitals) -> Result<(), Failure> {
    let SinkKind::Jsonl { path, rotate_mib, keep } = &sink.kind;
    let mut lines = Lines::new(open(path, *rotate_mib, *keep)?, vitals);
    vitals.set_detail(&match path {
        JsonlPath::Stdout => "jsonl to standard output".to_owned(),
        JsonlPath::File(path) => format!("jsonl to {}", path.display()),
    });
    let mut results = Results::new(service.bus().result_subscriber(sink.name.as_str())?);
    vitals.set_state(State::Live, "");
    service.ready();
    // Results that are still taken after the wish to stop: all that can be
    // waiting on the bus by then.
    let mut left = service.config().bus.result_buffer;
    let mut lost_on_bus = 0;
    loop {
        let stopping = service.shutdown().requested();
        let mut received = 0;
        let mut next = results.wait_for(LOOK)?;
        while let Some(result) = next.take() {
            received += 1;
            vitals.add(Counter::Received, 1);
            if wanted(&sink.cameras, &result) && !lines.add(&result) {
                return Ok(());
            }
            if received < RESULTS_MAX {
                next = results.poll()?;
            }
        }
        if !lines.write() {
            return Ok(());
        }
        vitals.add(Counter::Lost, results.lost() - lost_on_bus);
        lost_on_bus = results.lost();
        vitals.add(Counter::BadHeaders, results.bad_headers() - vitals.get(Counter::BadHeaders));
        service.progress();
        if let Some(config) = service.reloaded()
            && !still_wanted(service.config(), &config, sink)?
        {
            vitals.set_state(State::Stopping, "");
            return Ok(());
        }
        if stopping {
            left = left.saturating_sub(received);
            if received == 0 || left == 0 {
                vitals.set_state(State::Stopping, "");
                return Ok(());
            }
        }
    }
}

/// Whether a changed configuration still has this sink; one that it has changed ends
/// with [`Kind::Changed`].
fn still_wanted(old: &Config, new: &Config, sink: &Sink) -> Result<bool, Failure> {
    let limits = |config| framebus_service::domain(config).map(|domain| *domain.limits());
    let changed = |what: &str| {
        let name = &sink.name;
        Err(Failure::message(Kind::Changed, format_args!("{what} of sink {name} changed")))
    };
    if Diff::between(old, new).everything || limits(old)? != limits(new)? {
        return changed("the bus or the log");
    }
    match new.enabled_sinks().find(|other| other.name == sink.name) {
        Some(same) if same == sink => Ok(true),
        Some(_) => changed("the section"),
        None => Ok(false),
    }
}

/// Where lines go.
enum Output {
    Stdout(io::StdoutLock<'static>),
    File(Rotated),
}

fn open(path: &JsonlPath, rotate_mib: u64, keep: usize) -> Result<Output, Failure> {
    let JsonlPath::File(path) = path else {
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
    Rotated::open(path, rotate_mib << 20, keep).map(Output::File).map_err(fail)
}

fn wanted(cameras: &[CameraName], result: &ResultSample) -> bool {
    cameras.is_empty() || cameras.iter().any(|camera| camera.as_str() == result.camera())
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
