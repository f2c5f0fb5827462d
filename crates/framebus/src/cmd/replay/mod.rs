//! `framebus replay`: recorded frames go through inference again.
//!
//! Runs the same processes as `up` over an instance of its own, in which this process
//! publishes the frames in place of the captures.

mod compare;
mod instance;
mod player;

use crate::private::Private;
use crate::recording::Overview;
use crate::rig::Rig;
use crate::screen::Screen;
use crate::{children, out};
use compare::Comparison;
use framebus_bus::ResultSample;
use framebus_client::json;
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_types::Role;
use indicatif::{ProgressBar, ProgressStyle};
use instance::Instance;
use player::{Played, Player, Recorded};
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longest start: the model is compiled.
const START: Duration = Duration::from_secs(180);
/// Recorded answers that wait to be compared.
const RECORDED_MAX: usize = 1024;
/// After the last frame, live: so long without a result is the end, ns.
const QUIET_NS: u64 = 2_000_000_000;
/// Every frame's result is waited for, while inference lives; but not for ever, ns.
const MISSING_NS: u64 = 60_000_000_000;
/// Exit code when results differ.
const DIFFERENT: u8 = 1;

/// How fast frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Pace {
    /// At the times of the recording. As live: what inference is too slow for is dropped.
    Original,
    /// As fast as inference takes them: every frame is inferred.
    Fast,
}

/// Put the frames of a recording through inference again
///
/// Starts inference in an instance of its own, beside whatever else runs, with the frames
/// of the recording in place of the cameras. Model and settings are those of the
/// configuration, so that another model, backend or threshold can be tried on the same
/// frames; cameras that the configuration does not have get the defaults. What other
/// terminals need to watch it (`framebus top`, `framebus tap`, subscribers) is printed at
/// the start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus replay street.mcap --config framebus.toml --compare
  framebus replay street.mcap --config new-model.toml --pace fast --output new.jsonl
  framebus replay street.mcap --loop --sinks       a demonstration without cameras

Frames keep their camera, epoch, sequence, presentation and wall-clock time, flags and
pixels, so that results have the names that they had. capture_ns moves by one span for
all frames, the first one to now; publish_ns is the moment in which the frame is sent. In
each --loop round after the first, epoch_ns is one higher.

--compare prints how many results are the recorded ones again, bit by bit: class, score,
box and label of every detection. Track numbers and zones are not compared: they depend on
what was before the recording. Only frames that were inferred both times can
be compared; the others are counted.

Only recordings with --frames raw can be replayed.

Exit codes: 0 replayed, 1 compared and different, 64 wrong arguments, 69 inference is not
available or nothing could be compared, 78 configuration or no such recording.")]
pub(crate) struct Args {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Configuration file with the model and what else is to be tried.
    #[arg(long, short, env = "FRAMEBUS_CONFIG", default_value = crate::instance::DEFAULT_CONFIG)]
    config: PathBuf,
    /// At the recording's own times, or as fast as inference goes [default: original; fast
    /// with --compare].
    #[arg(long, value_enum)]
    pace: Option<Pace>,
    /// Begin again at the end, until Ctrl-C.
    #[arg(long = "loop", conflicts_with = "compare")]
    again: bool,
    /// Compare the results with those of the recording.
    #[arg(long)]
    compare: bool,
    /// Start the configuration's sinks too. They write where the configuration says, as
    /// if it happened now.
    #[arg(long)]
    sinks: bool,
    /// Write the results into this file, one JSON object a line.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the account at the end as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    super::init_log(&Screen::new(true));
    let overview = overview(&args.file)?;
    let pace = args.pace.unwrap_or(if args.compare { Pace::Fast } else { Pace::Original });
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let mut private = Private::new("replay")?;
    let instance = Instance::prepare(args, pace, &overview, &mut private)?;
    let mut output = match &args.output {
        Some(file) => Some(Output::create(file)?),
        None => None,
    };
    out::note(format_args!(
        "replaying as instance {name}: framebus top --instance {name} --root {}",
        private.folder().display(),
        name = private.instance(),
    ));
    let mut rig = Rig::new(private, &instance.domain, &shutdown, "replay")?;
    rig.start("infer", &children::find("framebus-infer")?, &instance.common)?;
    for sink in &instance.sinks {
        let mut sink_args: Vec<OsString> = instance.common.to_vec();
        sink_args.extend(["--sink".into(), sink.into()]);
        rig.start(&format!("sink {sink}"), &children::find("framebus-sink")?, &sink_args)?;
    }
    rig.pump_until_done("inference is ready", START, &mut |_, _| {}, |rig| {
        rig.is_live(Role::Infer, "infer")
    })?;
    let (send, recorded) = std::sync::mpsc::sync_channel(RECORDED_MAX);
    let player = Player {
        bus: rig.bus().clone(),
        file: args.file.clone(),
        pace,
        deliveries: instance.deliveries.clone(),
        again: args.again,
        recorded: args.compare.then_some(send),
        stop: Shutdown::new(),
    };
    let mut session = Session {
        comparison: Comparison::default(),
        recorded,
        output: output.as_mut(),
        results: 0,
        result_ns: clock::monotonic_ns(),
        failed: None,
    };
    let bar = bar(overview.frames.values().sum());
    let started_ns = clock::monotonic_ns();
    let (played, broken) = session.run(&mut rig, player, pace, &bar)?;
    let seconds = session.result_ns.saturating_sub(started_ns) as f64 / 1e9;
    bar.finish_and_clear();
    let (comparison, results) = (session.comparison, session.results);
    rig.stop(|_| true, &mut |_, _| {});
    if let Some(output) = output {
        output.finish()?;
    }
    if let Some(reason) = &played.cut {
        out::note(format_args!(
            "{} ends before its end ({reason}); replayed up to there",
            args.file.display()
        ));
    }
    broken?;
    let account = Account { played: &played, results, seconds };
    account.print(args, args.compare.then_some(&comparison))?;
    if !args.compare {
        return Ok(ExitCode::SUCCESS);
    }
    match (comparison.identical, comparison.different) {
        (_, 1..) => Ok(ExitCode::from(DIFFERENT)),
        (0, 0) => Err(Failure::message(
            Kind::Unavailable,
            "nothing could be compared: no frame of the recording was inferred both times",
        )),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// What there is to replay.
fn overview(file: &Path) -> Result<Overview, Failure> {
    let fail = |what: &dyn std::fmt::Display| {
        Failure::message(Kind::Config, format_args!("{}: {what}", file.display()))
    };
    let overview = Overview::of(file).map_err(|error| fail(&error))?;
    match (&overview.cut, overview.has_jpeg) {
        _ if !overview.frames.is_empty() => Ok(overview),
        (_, true) => Err(fail(
            &"it has JPEG pictures, which are not what the network saw; record with --frames raw",
        )),
        (Some(reason), false) => Err(fail(reason)),
        (None, false) => Err(fail(&"it has no frames of framebus; record with --frames raw")),
    }
}

/// Results as lines.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Self::failed(path, error))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn failed(path: &Path, error: std::io::Error) -> Failure {
        let error = anyhow::Error::new(error);
        let error = error.context(format!("cannot write {}", path.display()));
        Failure { kind: Kind::Unavailable, error }
    }

    fn add(&mut self, result: &ResultSample) -> Result<(), Failure> {
        let line = json::result(result);
        writeln!(self.file, "{line}").map_err(|error| Self::failed(&self.path, error))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| Self::failed(&self.path, error))
    }
}

/// What comes back, and what it is held against.
struct Session<'a> {
    comparison: Comparison,
    recorded: Receiver<Recorded>,
    output: Option<&'a mut Output>,
    results: u64,
    /// When the last result came.
    result_ns: u64,
    failed: Option<Failure>,
}

impl Session<'_> {
    /// Plays everything and takes the results. What went wrong while frames were played
    /// stands beside what was played.
    fn run(
        &mut self,
        rig: &mut Rig,
        player: Player,
        pace: Pace,
        bar: &ProgressBar,
    ) -> Result<(Played, Result<(), Failure>), Failure> {
        let stop = player.stop.clone();
        let progress = player::Progress::default();
        let shown = progress.clone();
        let thread = std::thread::Builder::new().name("player".to_owned());
        let thread = thread.spawn(move || player.run(&shown)).or_fail(Kind::Unavailable)?;
        self.result_ns = clock::monotonic_ns();
        let mut broken = Ok(());
        while broken.is_ok() && !rig.stopping() {
            broken = self.step(rig);
            bar.set_position(self.results);
            let now_ns = clock::monotonic_ns();
            let quiet_ns = now_ns.saturating_sub(self.result_ns);
            let patience_ns = if pace == Pace::Fast { MISSING_NS } else { QUIET_NS };
            if thread.is_finished() && (self.results >= progress.get() || quiet_ns > patience_ns) {
                break;
            }
        }
        stop.request();
        // It may be waiting for this reader, or with a recorded answer in hand.
        while !thread.is_finished() {
            let _ = self.step(rig);
        }
        self.hear_recorded();
        let played = thread
            .join()
            .map_err(|_| Failure::message(Kind::Bug, "the player panicked; its words are above"))?;
        let (played, end) = played;
        Ok((played, broken.and(end)))
    }

    fn step(&mut self, rig: &mut Rig) -> Result<(), Failure> {
        rig.pump(&mut |result, now_ns| {
            self.results += 1;
            self.result_ns = now_ns;
            self.comparison.replayed(result);
            if let (Some(output), None) = (&mut self.output, &self.failed) {
                self.failed = output.add(result).err();
            }
        })?;
        self.hear_recorded();
        match self.failed.take() {
            Some(failure) => Err(failure),
            None => rig.check(),
        }
    }

    fn hear_recorded(&mut self) {
        while let Ok(Recorded { header, detections }) = self.recorded.try_recv() {
            self.comparison.recorded(&header, detections);
        }
    }
}

/// The words at the end.
struct Account<'a> {
    played: &'a Played,
    results: u64,
    seconds: f64,
}

impl Account<'_> {
    fn print(&self, args: &Args, comparison: Option<&Comparison>) -> Result<(), Failure> {
        let Self { played, results, seconds } = self;
        if args.json {
            return out::line(json!({
                "file": args.file,
                "frames": played.frames,
                "unusable": played.unusable,
                "results": results,
                "seconds": seconds,
                "cut": played.cut,
                "compared": comparison.map(Comparison::json),
            }));
        }
        out::line(format_args!(
            "{}: {} frames replayed in {seconds:.1} s ({:.1}/s), {results} results",
            args.file.display(),
            played.frames,
            played.frames as f64 / seconds.max(1e-9),
        ))?;
        if played.unusable > 0 {
            out::note(format_args!("{} frames are damaged and were left out", played.unusable));
        }
        match comparison {
            Some(comparison) => out::print(&comparison.text()),
            None => Ok(()),
        }
    }
}

/// Shown on standard error, where that is a terminal.
fn bar(frames: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("replaying [{bar:30}] {pos} of {len} frames")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(frames).with_style(style)
}
