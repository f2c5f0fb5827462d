//! `framebus up`: runs an instance in the foreground.

use crate::changes::{Changes, refusal};
use crate::control::{self, Control};
use crate::instance::Lock;
use crate::screen::Screen;
use crate::supervisor::Supervisor;
use crate::unit::prints;
use crate::viewer::{Best, Viewer, Wanted};
use crate::watch::{Drain, Shown, Watch};
use crate::{annotate, applied, cmd, report};
use framebus_bus::{Bus, Domain};
use framebus_config::Config;
use framebus_service::{CommonArgs, Failure, Kind, OrFail, Reload, Reporter, Shutdown, clock};
use framebus_types::Role;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two looks at the children.
const TICK: Duration = Duration::from_millis(50);
/// Name, in the instance's folder, of the copy of the configuration that children read.
pub(crate) const APPLIED: &str = "applied.toml";

/// Run an instance in the foreground: one process per camera, inference, sinks
///
/// Processes that die are started again after a growing wait; the reason is
/// shown. What hangs is killed and started again. When all cameras have come to
/// their end (files), or on Ctrl-C or SIGTERM, what is in flight is finished,
/// everything stops, and a table says what came, what became of it and how long
/// each stage took. `no reader` counts frames that were sent while the inference
/// process was not there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus up --config framebus.toml
  framebus up -c framebus.toml --duration-s 30 --follow --annotate best.jpg

On a terminal a live table shows every camera; otherwise one line is printed per
change of state, and a summary every 10 s. While it runs, `framebus top`,
`framebus status` and `framebus tap` look at it from other terminals, and
`framebus reload` (or SIGHUP) takes over a changed configuration; --follow and
--annotate then go on with the cameras of the start.")]
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
    let config = cmd::load(&args.common.config)?;
    // What a sink prints is for a program: nothing else may stand between.
    let screen = Screen::new(prints_results(&config));
    cmd::init_log(&screen);
    acceptable(&config)?;
    annotate_to(&args)?;
    let up = Up {
        args: &args,
        screen: &screen,
        shutdown: Shutdown::on_signals().or_fail(Kind::Bug)?,
        hangup: Reload::on_signal().or_fail(Kind::Bug)?,
        terminal: std::io::stdin().is_terminal(),
    };
    let domain = framebus_service::domain(&config)?;
    let lock = Lock::take(&domain)?;
    let result = cmd::check::fits(&config, &domain).and_then(|()| up.run_all(&domain, config));
    // Every process of the instance is gone: nothing may stay behind.
    if let Err(error) = domain.remove_leftovers() {
        screen
            .log(&format!("cannot remove what is left of {}: {error}", domain.folder().display()));
    }
    drop(lock);
    result.map(|()| ExitCode::SUCCESS)
}

fn prints_results(config: &Config) -> bool {
    config.enabled_sinks().any(|sink| prints(&sink.kind))
}

/// What can be known of a configuration before anything is started.
pub(crate) fn acceptable(config: &Config) -> Result<(), Failure> {
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
    Ok(())
}

/// Services cannot be made in other sizes while somebody holds on to them.
fn nobody_else(domain: &Domain, children: &[u32]) -> Result<(), Failure> {
    let is_own = |pid: &u32| *pid == std::process::id() || children.contains(pid);
    let others: Vec<String> = domain
        .processes()
        .into_iter()
        .filter(|pid| !is_own(pid))
        .map(|pid| pid.to_string())
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::message(
        Kind::Unavailable,
        format_args!(
            "the sizes of the bus change, for which no other process may read from it: \
             end process {} and reload again",
            others.join(", ")
        ),
    ))
}

fn annotate_to(args: &Args) -> Result<(), Failure> {
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

/// What stays from start to end.
struct Up<'a> {
    args: &'a Args,
    screen: &'a Arc<Screen>,
    shutdown: Shutdown,
    hangup: Reload,
    /// Somebody sits in front of it.
    terminal: bool,
}

/// How the processes came to be stopped.
enum End {
    Asked,
    /// All start anew with this configuration.
    Again(Box<Config>),
}

impl Up<'_> {
    /// Runs the processes, and all of them again after a change that concerns all.
    fn run_all(&self, domain: &Domain, mut config: Config) -> Result<(), Failure> {
        let end_ns =
            self.args.duration_s.map(|span| clock::monotonic_ns() + span.as_nanos() as u64);
        let control = Control::listen(domain).or_fail(Kind::Unavailable)?;
        config = applied::apply(&config.file, &domain.folder().join(APPLIED), |_| Ok(()))?;
        let mut again = false;
        loop {
            // After a change that concerns all, services are made anew in their new sizes.
            let bus = Arc::new(Bus::open(&framebus_service::domain(&config)?, "up")?);
            let supervisor =
                Supervisor::new(&config, &domain.folder().join(APPLIED), self.screen, again)?;
            let mut run = Run::new(self, &bus, config, &control, end_ns, supervisor)?;
            let end = run.run(&bus)?;
            // Somebody removed them: that is why it ended.
            bus.check_files()?;
            match end {
                End::Asked => return Ok(()),
                End::Again(changed) => config = *changed,
            }
            again = true;
        }
    }

    /// The terminal was closed: there, SIGHUP means the end and not a reload.
    fn terminal_gone(&self) -> bool {
        self.terminal && !std::io::stdin().is_terminal()
    }
}

/// The processes of one configuration, or of several that follow each other in place.
struct Run<'a> {
    up: &'a Up<'a>,
    config: Config,
    applied: PathBuf,
    control: &'a Control,
    end_ns: Option<u64>,
    supervisor: Supervisor,
    watch: Watch,
    progress: Arc<AtomicBool>,
    reporter: Option<Reporter>,
}

impl<'a> Run<'a> {
    fn new(
        up: &'a Up<'a>,
        bus: &Arc<Bus>,
        config: Config,
        control: &'a Control,
        end_ns: Option<u64>,
        supervisor: Supervisor,
    ) -> Result<Self, Failure> {
        let applied = bus.domain().folder().join(APPLIED);
        let watch = Watch::new(bus.health_subscriber()?, supervisor.vitals());
        let progress = Arc::new(AtomicBool::new(true));
        Ok(Self {
            up,
            config,
            applied,
            control,
            end_ns,
            supervisor,
            watch,
            progress,
            reporter: None,
        })
    }

    fn run(&mut self, bus: &Arc<Bus>) -> Result<End, Failure> {
        let Args { follow, annotate, .. } = self.up.args;
        let wanted = Wanted { follow: *follow, picture: annotate.is_some() };
        let cameras: Vec<(String, framebus_bus::Delivery)> = self
            .config
            .enabled_cameras()
            .map(|camera| (camera.name.to_string(), framebus_service::delivery(camera.delivery)))
            .collect();
        let viewer = (wanted.follow || wanted.picture)
            .then(|| Viewer::start(bus, &cameras, wanted, self.up.screen))
            .transpose()?;
        let result = self.report(bus).and_then(|()| self.watch(bus));
        self.supervisor.stop(|| self.watch.look());
        let best = viewer.and_then(Viewer::finish);
        self.watch.look();
        self.reporter = None;

        self.up.screen.clear();
        if self.watch.collector.tracks().any(|(role, ..)| role == Role::Capture) {
            let columns = self.up.screen.columns();
            let account = report::account(&self.watch.collector, &self.names(), columns);
            self.up.screen.line(&account);
        }
        let saved = self.save(best);
        result.and_then(|end| saved.map(|()| end))
    }

    fn names(&self) -> Vec<String> {
        self.config.enabled_cameras().map(|camera| camera.name.to_string()).collect()
    }

    /// Reports of the children that there are now. Also cleans up after dead
    /// processes, every second.
    fn report(&mut self, bus: &Arc<Bus>) -> Result<(), Failure> {
        // The one before leaves its place first.
        self.reporter = None;
        let vitals = self.supervisor.vitals();
        self.watch.vitals.clone_from(&vitals);
        self.reporter = Some(Reporter::start(bus, vitals, self.progress.clone(), true)?);
        Ok(())
    }

    /// Until the wish to stop, the end of the last camera, or a failure.
    fn watch(&mut self, bus: &Arc<Bus>) -> Result<End, Failure> {
        let screen = self.up.screen;
        let mut names = self.names();
        let mut shown = Shown::new(clock::monotonic_ns());
        let mut over: Option<Drain> = None;
        loop {
            self.watch.look();
            self.progress.store(true, Ordering::Relaxed);
            let children = self.supervisor.count();
            let changed = self.supervisor.tick(&self.watch.collector)?;
            if self.supervisor.count() != children {
                self.report(bus)?;
            } else if let Some(reporter) = self.reporter.as_ref().filter(|_| changed) {
                reporter.publish();
            }
            let now_ns = clock::monotonic_ns();
            shown.show(screen, &self.watch.collector, &names, now_ns);
            if self.supervisor.cameras_over() {
                let drain = over.get_or_insert_with(|| Drain::new(now_ns));
                if drain.is_done(&self.watch.collector, &names, now_ns) {
                    return self.supervisor.failed_camera().map_or(Ok(End::Asked), Err);
                }
            } else {
                over = None;
            }
            if self.supervisor.reader_gone() {
                screen.log("the reader of standard output is gone: stopping");
                return Ok(End::Asked);
            }
            let hung_up = self.up.hangup.asked();
            let asked = self.control.asked();
            if hung_up && self.up.terminal_gone() {
                return Ok(End::Asked);
            }
            if hung_up || asked.is_some() {
                let (said, again) = self.reload(bus.domain());
                if let Some(stream) = asked {
                    control::answer(stream, &said);
                }
                if let Some(config) = again {
                    return Ok(End::Again(config));
                }
                self.report(bus)?;
                names = self.names();
            }
            let timed_out = self.end_ns.is_some_and(|end_ns| now_ns >= end_ns);
            if timed_out || screen.is_gone() || self.up.shutdown.wait(TICK) {
                return Ok(End::Asked);
            }
        }
    }

    /// Takes over the file as it is now, unless something is wrong with it. Returns
    /// what is to be said, and the configuration when all processes are to start anew.
    fn reload(&mut self, domain: &Domain) -> (Value, Option<Box<Config>>) {
        let screen = self.up.screen;
        let mut planned = None;
        let taken = applied::apply(&self.config.file, &self.applied, |config| {
            let found = Changes::between(&self.config, config)?;
            if prints_results(config) && !prints_results(&self.config) {
                return Err(Failure::message(
                    Kind::Config,
                    "a sink that prints needs standard output to itself: stop `framebus up` and start it again",
                ));
            }
            acceptable(config)?;
            if found.sizes {
                nobody_else(domain, &self.supervisor.pids())?;
            }
            planned = Some((found, self.supervisor.added(config)?));
            Ok(())
        });
        let nobody = || Failure::message(Kind::Bug, "a file that nobody has looked at");
        let taken = taken.and_then(|config| Ok((config, planned.ok_or_else(nobody)?)));
        match taken {
            Ok((config, (changes, added))) => {
                screen.log(&format!("reloaded {}:", config.file.display()));
                changes.lines().iter().for_each(|line| screen.log(&format!("  {line}")));
                let said = changes.to_json(&config);
                if changes.everything {
                    return (said, Some(Box::new(config)));
                }
                self.supervisor.reload(&config, &changes.diff, added);
                self.config = config;
                (said, None)
            }
            Err(failure) => {
                screen.log(&format!("not reloaded, what ran goes on: {failure}"));
                (refusal(&failure), None)
            }
        }
    }

    fn save(&self, best: Option<Best>) -> Result<(), Failure> {
        let Some(file) = &self.up.args.annotate else { return Ok(()) };
        let Some(mut best) = best else {
            self.up
                .screen
                .line(&format!("nothing was detected: {} is not written", file.display()));
            return Ok(());
        };
        annotate::draw(&mut best.picture, &best.detections);
        annotate::save(&best.picture, file)
            .map_err(|error| Failure::message(Kind::Unavailable, error))?;
        self.up.screen.line(&format!(
            "\n{}: frame {} of {} with {}",
            file.display(),
            best.sequence,
            best.camera,
            report::counts(&best.detections)
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "x", "NaN", "inf", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(picture_file("a/b.JPG").is_ok() && picture_file("a.gif").is_err());
    }
}
