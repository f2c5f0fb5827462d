//! `framebus trace`: where did my 25 ms go?

mod events;
mod lanes;
mod merge;
mod requests;
#[cfg(test)]
mod server_tests;
mod server_trace;
mod summary;
#[cfg(test)]
mod tests;
mod timeline;

use crate::annotate::readable;
use crate::cmd::status::{join, receive};
use crate::instance::{Attached, Where, describe};
use crate::out;
use crate::screen::Screen;
use crate::stats::Collector;
use framebus_bus::{BusError, Domain, HealthSubscriber};
use framebus_client::Results;
use framebus_config::CameraName;
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_types::Health;
use indicatif::{ProgressBar, ProgressStyle};
use merge::Merged;
use serde_json::json;
use server_trace::ServerTrace;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use summary::Summary;
use timeline::{Frame, Timeline};

/// Every process reports once a second: after this long all have said who they
/// are.
const REPORTS: Duration = Duration::from_millis(1200);
/// Time between two looks at reports that have not come yet.
const REPORTS_LOOK: Duration = Duration::from_millis(100);
/// Longest wait for a result before looking whether the instance still runs.
const LOOK: Duration = Duration::from_millis(100);
/// Time that a signal takes from the kernel to the wish to stop.
const SIGNAL: Duration = Duration::from_millis(50);
/// Time between two looks of the progress bar, ns.
const SHOW_NS: u64 = 100_000_000;
/// Bytes collected before they are written.
const CHUNK: usize = 1 << 18;

/// Record every stage of every frame as a time line for Perfetto
///
/// Reads the results of a running instance, holds nobody up, and writes each
/// frame's way from the decoder to this reader: open the file at
/// https://ui.perfetto.dev or chrome://tracing. A table says at the end where the
/// time went. Ctrl-C ends the recording early; the file is complete then too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus trace --seconds 10 -o trace.json --config framebus.toml
  framebus trace --seconds 5 --cameras front,yard -o - | gzip > trace.json.gz
  framebus trace --server-trace /srv/triton.json      with a Triton server's own trace

Rows: each capture process with a row per camera (capture: decoder to sent); the
inference process with a row per execution context (preprocess, inference, decode,
publish), what waits for it (wake: sent to taken, queue: taken to batched) and what
was not inferred (dropped, skipped, failed, with the reason); this reader (receive:
result sent to received here). Arrows join the slices of one frame. Rows ending in
(2), (3), … hold what overlaps.

Where a server runs the network, inference consists of serialise, request and
receive (its answer decoded). What lies inside request is not known to its client:
the server's averages of the last second are drawn into the middle, what remains
before and after is the way there and back, and their names say (average) and
(estimated). With the server's own trace they are measured, and the server has rows
of its own (accept, queue, input, compute, output, respond), with arrows. Start it with
  tritonserver --trace-config triton,file=/srv/triton.json \\
    --trace-config triton,log-frequency=50 --trace-config rate=1 \\
    --trace-config level=TIMESTAMPS …
It writes a file every 50 requests then; without log-frequency one file, when it
stops. The newest 200,000 requests are looked for there, by their ids. A server on
another machine has another clock: its spans are laid into the middle of their
requests, and say (clock aligned).

Frames that were captured before the recording began are left out. A frame that
never reached inference (missed, over the fps limit, no memory) has no result and
no slice; the table at the end counts those out of the processes' own reports, which
come once a second. Results that this reader was too slow for are counted as well.

Exit codes: 0 recorded, 64 no such camera, 69 nothing runs or the file cannot be
written.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// How long to record.
    #[arg(long, value_name = "N", default_value = "10", value_parser = super::up::seconds)]
    seconds: Duration,
    /// File to write; - is standard output, a pipe or device is written to as it is.
    #[arg(long, short, value_name = "FILE", default_value = "trace.json")]
    output: PathBuf,
    /// Only these cameras, with commas.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = super::tap::camera)]
    cameras: Vec<CameraName>,
    /// The trace that a Triton server writes: FILE, FILE.0, FILE.1, …, read at the end
    /// of the recording; may be given several times.
    #[arg(long, value_name = "FILE")]
    server_trace: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let domain = args.place.domain()?;
    let to_stdout = args.output.as_os_str() == "-";
    super::init_log(&Screen::new(true));
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let file = &args.output;
    let failed = |error: io::Error| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error).context(format!("cannot write {}", file.display())),
    };
    let known = std::fs::metadata(file).ok().filter(|_| !to_stdout).map(|known| known.file_type());
    if known.is_some_and(|kind| kind.is_dir()) {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let mut recorder = Recorder::join(args, &domain, &shutdown)?;
    if shutdown.requested() {
        return Err(Failure::message(
            Kind::Unavailable,
            "stopped before the recording began; nothing was written",
        ));
    }
    if to_stdout {
        let out = BufWriter::with_capacity(CHUNK, io::stdout().lock());
        recorder.record(out, &shutdown, out::failure)?;
        out::note(recorder.account(Screen::new(true).columns()));
        return Ok(ExitCode::SUCCESS);
    }
    if known.is_some_and(|kind| !kind.is_file()) {
        // A pipe or device is written to, never replaced.
        let out = File::options().write(true).open(file).map_err(failed)?;
        recorder.record(BufWriter::with_capacity(CHUNK, out), &shutdown, failed)?;
        out::note(recorder.account(Screen::new(true).columns()));
        return Ok(ExitCode::SUCCESS);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut temporary = tempfile::Builder::new()
        .prefix(".framebus-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    let out = BufWriter::with_capacity(CHUNK, temporary.as_file_mut());
    recorder.record(out, &shutdown, failed)?;
    readable(temporary.path());
    temporary.persist(file).map_err(|error| failed(error.error))?;
    out::line(recorder.account(Screen::new(false).columns()))?;
    out::line(format_args!(
        "\n{}: open it at https://ui.perfetto.dev or chrome://tracing",
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads an instance.
struct Recorder<'a> {
    args: &'a Args,
    domain: &'a Domain,
    collector: Collector,
    records: Vec<Health>,
    summary: Summary,
    /// Results whose times contradict each other.
    disordered: u64,
    lost: u64,
    recorded_ns: u64,
    server: Option<(ServerTrace, Merged)>,
    results: Results,
    health: HealthSubscriber,
    /// Behind its readers: dropped after them.
    attached: Attached,
}

impl<'a> Recorder<'a> {
    /// Joins the instance and learns which processes there are.
    fn join(args: &'a Args, domain: &'a Domain, shutdown: &Shutdown) -> Result<Self, Failure> {
        let absent = |what: &str| {
            let place = describe(domain);
            Failure::message(
                Kind::Unavailable,
                format_args!(
                    "{what} in {place}; start `framebus up` with the same configuration and user first"
                ),
            )
        };
        let attached = Attached::new(domain, "trace")?.ok_or_else(|| absent("nothing runs"))?;
        let health = join(&attached)?.ok_or_else(|| absent("nothing runs yet"))?;
        let (mut collector, mut records) = (Collector::default(), Vec::new());
        let end_ns = clock::monotonic_ns() + REPORTS.as_nanos() as u64;
        while clock::monotonic_ns() < end_ns && !shutdown.wait(REPORTS_LOOK) {
            receive(&health, &mut records, &mut collector)?;
        }
        let names = collector.cameras();
        let unknown =
            args.cameras.iter().find(|wanted| !names.iter().any(|n| n == wanted.as_str()));
        if let Some(unknown) = unknown.filter(|_| !shutdown.requested()) {
            return Err(Failure::message(
                Kind::Usage,
                format_args!(
                    "--cameras: there is no {unknown} in {}; there is: {}",
                    describe(domain),
                    names.join(", ")
                ),
            ));
        }
        let results = match attached.bus.join_results("trace") {
            Ok(subscriber) => Results::new(subscriber),
            Err(BusError::Absent { .. }) => return Err(absent("inference has not started yet")),
            Err(error) => return Err(error.into()),
        };
        let summary = Summary::new(&collector);
        Ok(Self {
            args,
            domain,
            collector,
            records,
            summary,
            disordered: 0,
            lost: 0,
            recorded_ns: 0,
            server: None,
            results,
            health,
            attached,
        })
    }

    /// Writes a complete file: until the time is over, the wish to stop, or the
    /// end of the instance.
    fn record(
        &mut self,
        out: impl Write,
        shutdown: &Shutdown,
        failed: impl Fn(io::Error) -> Failure,
    ) -> Result<(), Failure> {
        let start_ns = clock::monotonic_ns();
        let end_ns = start_ns.saturating_add(self.args.seconds.as_nanos() as u64);
        let server_trace = &self.args.server_trace;
        let mut timeline =
            Timeline::new(out, start_ns, !server_trace.is_empty()).map_err(&failed)?;
        let bar = bar(self.args.seconds);
        let mut shown_ns = start_ns;
        while !shutdown.requested() {
            let now_ns = clock::monotonic_ns();
            if now_ns >= end_ns {
                break;
            }
            if now_ns >= shown_ns + SHOW_NS {
                shown_ns = now_ns;
                bar.set_message(self.summary.frames().to_string());
                bar.set_position((now_ns - start_ns) / 1_000_000);
            }
            receive(&self.health, &mut self.records, &mut self.collector)?;
            let wait = LOOK.min(Duration::from_nanos(end_ns - now_ns));
            let result = match self.results.wait_for(wait) {
                // The signal that asks to stop interrupts the wait.
                Err(_) if shutdown.wait(SIGNAL) => break,
                result => result?,
            };
            let received_ns = clock::monotonic_ns();
            let Some(result) = result else {
                if self.attached.is_gone() {
                    out::note("the instance has stopped");
                    break;
                }
                continue;
            };
            let header = *result.header();
            let camera = out::plain(result.camera());
            let (outcome, reason) = (result.outcome(), result.reason());
            // Given back at once: writing takes time.
            drop(result);
            if header.times.capture_ns < start_ns || !self.is_wanted(&camera) {
                continue;
            }
            let frame = Frame { camera: &camera, outcome, reason, header: &header, received_ns };
            if !frame.is_in_order() {
                self.disordered += 1;
                continue;
            }
            timeline.add(&frame, &self.collector).map_err(&failed)?;
            self.summary.add(&frame);
        }
        bar.finish_and_clear();
        receive(&self.health, &mut self.records, &mut self.collector)?;
        self.recorded_ns = clock::monotonic_ns() - start_ns;
        self.lost = self.results.lost();
        if !server_trace.is_empty() {
            let trace = ServerTrace::read(server_trace, &timeline.requests());
            trace.notes.iter().for_each(|note| out::note(format_args!("server trace: {note}")));
            let merged = timeline.merge(&trace.served).map_err(&failed)?;
            self.summary.add_exact(&merged);
            self.server = Some((trace, merged));
        }
        let merged = self.server.as_ref().map(|(_, merged)| merged);
        let about = json!({
            "tool": concat!("framebus ", env!("CARGO_PKG_VERSION")),
            "instance": self.domain.instance(),
            "seconds": self.recorded_ns as f64 / 1e9,
            "frames": self.summary.frames(),
            "results_lost": self.lost,
            "results_with_wrong_times": self.disordered,
            "server_requests": merged.map(|merged| merged.requests),
            "server_requests_matched": merged.map(|merged| merged.exact.len()),
            "server_clock_aligned": merged.map(|merged| merged.is_aligned),
        });
        timeline.finish(&about).map_err(&failed)
    }

    fn is_wanted(&self, camera: &str) -> bool {
        let wanted = &self.args.cameras;
        wanted.is_empty() || wanted.iter().any(|name| name.as_str() == camera)
    }

    /// The tables at the end, and what is missing in them.
    fn account(&self, width: usize) -> String {
        let frames = self.summary.frames();
        let seconds = self.recorded_ns as f64 / 1e9;
        let mut text = format!("{frames} frames in {seconds:.1} s");
        if self.lost > 0 {
            text += &format!("; {} results were lost: this reader was too slow", self.lost);
        }
        if self.disordered > 0 {
            text += &format!("; {} results left out: their times are no times", self.disordered);
        }
        if let Some((trace, merged)) = &self.server {
            text += &format!("\n{}", merged.text(trace.skipped));
        }
        let mut names = self.collector.cameras();
        names.retain(|name| self.is_wanted(name));
        text + "\n\n" + &self.summary.text(&self.collector, &names, width)
    }
}

/// Shown on standard error, where that is a terminal.
fn bar(span: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("recording [{bar:30}] {percent:>3} %, {msg} frames")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(span.as_millis() as u64).with_style(style).with_message("0")
}
