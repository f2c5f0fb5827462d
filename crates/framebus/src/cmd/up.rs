//! `framebus up`: runs an instance in the foreground.

use crate::instance::Lock;
use crate::report;
use crate::screen::Screen;
use crate::stats::Collector;
use crate::supervisor::{Supervisor, prints};
use crate::viewer::{Best, Viewer, Wanted};
use crate::{annotate, cmd};
use framebus_bus::{Bus, HealthSubscriber};
use framebus_config::{Config, Delivery};
use framebus_service::{CommonArgs, Failure, Kind, OrFail, Reporter, Shutdown, Vitals, clock};
use framebus_types::{Counter, Health, Role, State};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Time between two looks at the children.
const TICK: Duration = Duration::from_millis(50);
/// The live table is redrawn this often, ns.
const TABLE_NS: u64 = 1_000_000_000;
/// Without a live table, cameras are summed up this often, ns.
const SUMMARY_NS: u64 = 10_000_000_000;
/// After the last camera has ended: nothing moving for so long means that
/// nothing more comes. Processes report once a second, ns.
const QUIET_NS: u64 = 2_500_000_000;

/// Run an instance in the foreground: one process per camera, inference, sinks
///
/// Processes that die are started again after a growing wait; the reason is
/// shown. When all cameras have come to their end (files), or on Ctrl-C or
/// SIGTERM, what is in flight is finished, everything stops, and a table says
/// what came, what became of it and how long each stage took. `no reader` counts
/// frames that were sent while the inference process was not there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus up --config framebus.toml
  framebus up -c framebus.toml --duration-s 30 --follow --annotate best.jpg

On a terminal a live table shows every camera; otherwise one line is printed per
change of state, and a summary every 10 s. While it runs, `framebus top`,
`framebus status` and `framebus tap` look at it from other terminals.")]
pub(crate) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Stop after this many seconds.
    #[arg(long, value_name = "N", value_parser = seconds)]
    duration_s: Option<Duration>,
    /// Print detections as they come (10 lines per camera and second at most).
    #[arg(long)]
    follow: bool,
    /// Save the frame with the most detections, boxes drawn, as .jpg or .png.
    #[arg(long, value_name = "FILE", value_parser = picture_file)]
    annotate: Option<PathBuf>,
}

/// Parses a span of time in seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= 1e8);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "must be a number of seconds above 0".into())
}

fn picture_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    match ending.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("jpg" | "jpeg" | "png") => Ok(path),
        _ => Err("must end in .jpg or .png".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let config = framebus_config::load(&args.common.config).or_fail(Kind::Config)?;
    // What a sink prints is for a program: nothing else may stand between.
    let screen = Screen::new(config.enabled_sinks().any(|sink| prints(&sink.kind)));
    cmd::init_log(&screen);
    preflight(&config, &args)?;
    let supervisor = Supervisor::new(&config, &screen)?;
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let domain = framebus_service::domain(&config)?;
    let bus = Arc::new(Bus::open(&domain, "up")?);
    let lock = Lock::take(&domain)?;
    let result = cmd::check::fits(&config, &domain).and_then(|()| {
        let run = Run { config: &config, args: &args, screen: &screen, shutdown };
        run.run(&bus, supervisor)
    });
    drop(bus);
    // Every process of the instance is gone: nothing may stay behind.
    if let Err(error) = domain.remove_leftovers() {
        screen
            .log(&format!("cannot remove what is left of {}: {error}", domain.folder().display()));
    }
    drop(lock);
    result.map(|()| ExitCode::SUCCESS)
}

/// What can be known before anything is started.
fn preflight(config: &Config, args: &Args) -> Result<(), Failure> {
    if config.enabled_cameras().next().is_none() {
        return Err(Failure::message(
            Kind::Config,
            format_args!(
                "{}: every [[camera]] has enabled = false; nothing to do",
                config.file.display()
            ),
        ));
    }
    // A device may be plugged in later: its camera is offline until then.
    let missing = cmd::check::missing(config).files;
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Err(Failure::message(Kind::Config, lines.join("\n")));
    }
    cmd::check::open_model(config)?;
    if let Some(folder) = args.annotate.as_ref().and_then(|file| file.parent())
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(Failure::message(
            Kind::Unavailable,
            format_args!("--annotate: there is no folder {}", folder.display()),
        ));
    }
    Ok(())
}

struct Run<'a> {
    config: &'a Config,
    args: &'a Args,
    screen: &'a Arc<Screen>,
    shutdown: Shutdown,
}

impl Run<'_> {
    fn run(&self, bus: &Arc<Bus>, mut supervisor: Supervisor) -> Result<(), Failure> {
        let cameras: Vec<(String, framebus_bus::Delivery)> = self
            .config
            .enabled_cameras()
            .map(|camera| (camera.name.to_string(), delivery(camera.delivery)))
            .collect();
        let vitals = supervisor.vitals();
        let mut watch = Watch {
            health: bus.health_subscriber()?,
            vitals: vitals.clone(),
            collector: Collector::default(),
            records: Vec::new(),
        };
        // Also cleans up after dead processes, every second.
        let reporter = Reporter::start(bus, vitals, Arc::new(AtomicBool::new(true)), true)?;
        let wanted = Wanted { follow: self.args.follow, picture: self.args.annotate.is_some() };
        let viewer = (wanted.follow || wanted.picture)
            .then(|| Viewer::start(bus, &cameras, wanted, self.screen))
            .transpose()?;
        let names: Vec<String> = cameras.into_iter().map(|(name, _)| name).collect();

        let result = self.watch(&mut supervisor, &mut watch, &names);
        supervisor.stop(|| watch.look());
        let best = viewer.and_then(Viewer::finish);
        watch.look();
        drop(reporter);

        self.screen.clear();
        if watch.collector.tracks().any(|(role, ..)| role == Role::Capture) {
            let account = report::account(&watch.collector, &names, self.screen.columns());
            self.screen.line(&account);
        }
        let saved = self.save(best);
        result.and(saved)
    }

    /// Until the wish to stop, the end of the last camera, or a failure.
    fn watch(
        &self,
        supervisor: &mut Supervisor,
        watch: &mut Watch,
        names: &[String],
    ) -> Result<(), Failure> {
        let start_ns = clock::monotonic_ns();
        let end_ns = self.args.duration_s.map(|span| start_ns + span.as_nanos() as u64);
        let mut shown = Shown::new(start_ns);
        let mut over: Option<Drain> = None;
        loop {
            watch.look();
            supervisor.tick(&watch.collector);
            if let Some(failure) = supervisor.take_fatal() {
                return Err(failure);
            }
            let now_ns = clock::monotonic_ns();
            shown.show(self.screen, &watch.collector, names, now_ns);
            if supervisor.cameras_over() {
                let drain = over.get_or_insert_with(|| Drain::new(now_ns));
                if drain.is_done(&watch.collector, names, now_ns) {
                    return supervisor.failed_camera().map_or(Ok(()), Err);
                }
            }
            if supervisor.reader_gone() {
                self.screen.log("the reader of standard output is gone: stopping");
                return Ok(());
            }
            let timed_out = end_ns.is_some_and(|end_ns| now_ns >= end_ns);
            if timed_out || self.screen.is_gone() || self.shutdown.wait(TICK) {
                return Ok(());
            }
        }
    }

    fn save(&self, best: Option<Best>) -> Result<(), Failure> {
        let Some(file) = &self.args.annotate else { return Ok(()) };
        let Some(mut best) = best else {
            self.screen.line(&format!("nothing was detected: {} is not written", file.display()));
            return Ok(());
        };
        annotate::draw(&mut best.picture, &best.detections);
        annotate::save(&best.picture, file)
            .map_err(|error| Failure::message(Kind::Unavailable, error))?;
        self.screen.line(&format!(
            "\n{}: frame {} of {} with {}",
            file.display(),
            best.sequence,
            best.camera,
            report::counts(&best.detections)
        ));
        Ok(())
    }
}

fn delivery(delivery: Delivery) -> framebus_bus::Delivery {
    match delivery {
        Delivery::Latest => framebus_bus::Delivery::Latest,
        Delivery::EveryFrame => framebus_bus::Delivery::EveryFrame,
    }
}

/// Collects what all processes say.
struct Watch {
    health: HealthSubscriber,
    vitals: Vec<Arc<Vitals>>,
    collector: Collector,
    records: Vec<Health>,
}

impl Watch {
    fn look(&mut self) {
        self.records.clear();
        if let Err(error) = self.health.receive_into(&mut self.records) {
            tracing::warn!(%error, "health cannot be read");
        }
        // Those of the children are known first-hand, and fresher.
        let others = self.records.iter().filter(|record| record.role != Role::Child as u32);
        others.for_each(|record| self.collector.add(record));
        self.vitals.iter().for_each(|vitals| self.collector.add(&vitals.snapshot()));
    }
}

/// What is on the screen.
struct Shown {
    /// What was said of each, without figures: "silent for 4 s" is no news after
    /// "silent for 3 s".
    states: BTreeMap<String, String>,
    table_ns: u64,
    summary_ns: u64,
}

impl Shown {
    fn new(now_ns: u64) -> Self {
        Self { states: BTreeMap::new(), table_ns: 0, summary_ns: now_ns }
    }

    fn show(&mut self, screen: &Screen, collector: &Collector, names: &[String], now_ns: u64) {
        if screen.is_live() {
            if now_ns.saturating_sub(self.table_ns) >= TABLE_NS {
                self.table_ns = now_ns;
                let engine = report::engine(collector, now_ns).unwrap_or_default();
                let cameras = report::cameras(collector, names, now_ns, false, screen.columns());
                screen.table(&format!("{engine}\n{cameras}"));
            }
            return;
        }
        let mut states = Vec::new();
        for name in names {
            let camera = report::Camera::new(collector, name, now_ns);
            states.push((format!("camera {name}"), camera.state, camera.reason));
        }
        for (role, name, track) in collector.tracks() {
            let (state, reason) = track.state(now_ns);
            match role {
                Role::Infer => states.push(("infer".to_owned(), state, reason)),
                Role::Sink => states.push((format!("sink {name}"), state, reason)),
                _ => {}
            }
        }
        for (name, state, reason) in states {
            let text = report::state_text(state, &reason);
            let cause = without_figures(&text);
            if self.states.get(&name) != Some(&cause) && state != State::Stopping {
                screen.line(&format!("{name}: {text}"));
                self.states.insert(name, cause);
            }
        }
        if now_ns.saturating_sub(self.summary_ns) >= SUMMARY_NS {
            self.summary_ns = now_ns;
            for name in names {
                screen.line(&report::Camera::new(collector, name, now_ns).line());
            }
        }
    }
}

fn without_figures(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Waits until the results of all frames are there.
struct Drain {
    moved_ns: u64,
    seen: u64,
}

impl Drain {
    fn new(now_ns: u64) -> Self {
        Self { moved_ns: now_ns, seen: u64::MAX }
    }

    fn is_done(&mut self, collector: &Collector, names: &[String], now_ns: u64) -> bool {
        let answers = [
            Counter::Ok,
            Counter::Skipped,
            Counter::Superseded,
            Counter::Stale,
            Counter::Failed,
            Counter::Missed,
        ];
        let (mut published, mut answered) = (0, 0);
        for name in names {
            let total = |role, counter| collector.track(role, name).map_or(0, |t| t.total(counter));
            published += total(Role::Capture, Counter::Published);
            answered +=
                answers.map(|counter| total(Role::InferCamera, counter)).iter().sum::<u64>();
        }
        if answered != self.seen {
            (self.seen, self.moved_ns) = (answered, now_ns);
        }
        answered >= published || now_ns.saturating_sub(self.moved_ns) >= QUIET_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::text;

    #[test]
    fn arguments_are_checked() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "x", "NaN", "inf", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(picture_file("a/b.JPG").is_ok() && picture_file("a.gif").is_err());
    }

    #[test]
    fn a_state_is_new_by_its_cause_not_by_its_figures() {
        let said = |state, reason| without_figures(&report::state_text(state, reason));
        let silent = said(State::Offline, "silent for 9 s");
        assert_eq!(silent, said(State::Offline, "silent for 10 s"));
        assert_ne!(silent, said(State::Offline, "connection refused"));
        assert_ne!(silent, said(State::Stalled, "silent for 9 s"));
    }

    #[test]
    fn draining_ends_with_the_last_result_or_when_nothing_moves() {
        let record = |role: Role, counter: Counter, value| {
            let mut health =
                Health { role: role.into(), name: text::pack("a"), ..Health::default() };
            health.updated_ns = value;
            health.counters[counter as usize] = value;
            health
        };
        let names = ["a".to_owned()];
        let mut collector = Collector::default();
        let mut drain = Drain::new(0);
        collector.add(&record(Role::Capture, Counter::Published, 5));
        collector.add(&record(Role::InferCamera, Counter::Ok, 4));
        assert!(!drain.is_done(&collector, &names, 1));
        assert!(!drain.is_done(&collector, &names, QUIET_NS));
        assert!(drain.is_done(&collector, &names, QUIET_NS + 1));
        collector.add(&record(Role::InferCamera, Counter::Ok, 5));
        assert!(drain.is_done(&collector, &names, QUIET_NS + 2));
    }
}
