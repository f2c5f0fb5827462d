//! Keeps the processes of an instance alive.
//!
//! One child per camera, one for inference, one per sink. What dies is started
//! again after a growing wait; what cannot get better by trying again is not.

use crate::backoff::{Backoff, jitter};
use crate::children::{self, Child, Exit, OnLine};
use crate::screen::Screen;
use crate::stats::Collector;
use framebus_config::{Config, JsonlPath, LogFormat, SinkKind, Source, Up};
use framebus_service::{Failure, Kind, Vitals, clock};
use framebus_types::{Counter, Role, State, text};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// What a child does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Duty {
    Capture {
        camera: String,
        from_file: bool,
    },
    Infer,
    /// `prints`: to this process's standard output.
    Sink {
        prints: bool,
    },
}

/// Where a child is in its life.
enum Phase {
    Waiting {
        until_ns: u64,
    },
    Running(Box<Child>),
    /// It came to its end: a capture's source, or the reader of a sink that prints.
    Ended,
    /// It failed in a way that trying again does not change.
    Failed(Kind),
    Stopped,
}

struct Unit {
    duty: Duty,
    /// As printed: `capture front`.
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    vitals: Arc<Vitals>,
    backoff: Backoff,
    phase: Phase,
    was_live: bool,
    reason: String,
}

/// All children.
pub(crate) struct Supervisor {
    units: Vec<Unit>,
    up: Up,
    on_line: OnLine,
    screen: Arc<Screen>,
    fatal: Option<Failure>,
}

/// Whether a sink writes to standard output.
pub(crate) fn prints(kind: &SinkKind) -> bool {
    matches!(kind, SinkKind::Jsonl { path: JsonlPath::Stdout, .. })
}

/// Name of a child's health record, as cut to its field.
pub(crate) fn child_name(role: &str, name: &str) -> String {
    text::unpack(&text::pack::<32>(&format!("{role}:{name}"))).to_owned()
}

impl Supervisor {
    /// Plans the children; starts none.
    pub(crate) fn new(config: &Config, screen: &Arc<Screen>) -> Result<Self, Failure> {
        let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
        let unit = |duty: Duty, program: &str, name: &str, extra: &[&str]| {
            let (role, shown, record) = match duty {
                Duty::Infer => ("infer", "infer".to_owned(), "infer".to_owned()),
                Duty::Capture { .. } => {
                    ("capture", format!("capture {name}"), child_name("capture", name))
                }
                Duty::Sink { .. } => ("sink", format!("sink {name}"), child_name("sink", name)),
            };
            let mut args: Vec<OsString> = vec!["--config".into(), file.clone().into()];
            args.extend(extra.iter().map(OsString::from));
            let vitals = Vitals::new(Role::Child, &record);
            vitals.set_detail(role);
            Ok::<_, Failure>(Unit {
                duty,
                name: shown,
                program: children::find(program)?,
                args,
                vitals,
                backoff: Backoff::new(config.up.restart_min_ms, config.up.restart_max_ms),
                phase: Phase::Waiting { until_ns: 0 },
                was_live: false,
                reason: String::new(),
            })
        };
        // Readers first, so that they miss nothing.
        let mut units = Vec::new();
        for sink in config.enabled_sinks() {
            let name = sink.name.as_str();
            let prints = prints(&sink.kind);
            units.push(unit(Duty::Sink { prints }, "framebus-sink", name, &["--sink", name])?);
        }
        units.push(unit(Duty::Infer, "framebus-infer", "", &[])?);
        for camera in config.enabled_cameras() {
            let name = camera.name.as_str();
            let from_file = matches!(camera.source, Source::File(_));
            let duty = Duty::Capture { camera: name.to_owned(), from_file };
            units.push(unit(duty, "framebus-capture", name, &["--camera", name])?);
        }
        let (json, log) = (config.log.format == LogFormat::Json, screen.clone());
        // The live table shows what is well.
        let brief = screen.is_live() && std::env::var_os("FRAMEBUS_LOG").is_none();
        let on_line: OnLine = Arc::new(move |name, line| {
            if brief && children::is_chatter(line) {
                return;
            }
            // A prefix would break lines that a machine reads.
            if json { log.log(line) } else { log.log(&format!("[{name}] {line}")) }
        });
        Ok(Self { units, up: config.up, on_line, screen: screen.clone(), fatal: None })
    }

    /// One record per child, for the health service.
    pub(crate) fn vitals(&self) -> Vec<Arc<Vitals>> {
        self.units.iter().map(|unit| unit.vitals.clone()).collect()
    }

    /// Starts what should run, notices what has died.
    pub(crate) fn tick(&mut self, collector: &Collector) {
        let now_ns = clock::monotonic_ns();
        for unit in &mut self.units {
            match &mut unit.phase {
                Phase::Waiting { until_ns } if *until_ns <= now_ns => unit.start(&self.on_line),
                Phase::Running(child) => {
                    let (pid, exit) = (child.pid(), child.exited());
                    let reported = collector
                        .tracks()
                        .filter(|(role, ..)| *role != Role::Child)
                        .find(|(_, _, track)| track.latest().pid == pid);
                    if let Some((_, _, track)) = reported
                        && exit.is_none()
                    {
                        unit.was_live |= track.latest().state == State::Live as u32;
                        unit.vitals.set_state(State::Live, "");
                    }
                    if let Some(exit) = exit {
                        let alive_ns = child.alive_ns();
                        unit.died(&exit, alive_ns, collector, &self.screen, &mut self.fatal);
                    }
                }
                _ => {}
            }
        }
    }

    /// Why nothing can go on, once.
    pub(crate) fn take_fatal(&mut self) -> Option<Failure> {
        self.fatal.take()
    }

    /// Whether no camera will deliver anything any more.
    pub(crate) fn cameras_over(&self) -> bool {
        self.units
            .iter()
            .filter(|unit| matches!(unit.duty, Duty::Capture { .. }))
            .all(|unit| matches!(unit.phase, Phase::Ended | Phase::Failed(_)))
    }

    /// Whether the reader of what a sink prints has gone (`framebus up | head`).
    pub(crate) fn reader_gone(&self) -> bool {
        self.units.iter().any(|unit| {
            matches!((&unit.duty, &unit.phase), (Duty::Sink { prints: true }, Phase::Ended))
        })
    }

    /// The first camera that failed for good.
    pub(crate) fn failed_camera(&self) -> Option<Failure> {
        self.units.iter().find_map(|unit| match (&unit.duty, &unit.phase) {
            (Duty::Capture { camera, .. }, Phase::Failed(kind)) => Some(Failure::message(
                *kind,
                format_args!("camera {camera} failed: {}", unit.reason),
            )),
            _ => None,
        })
    }

    /// Stops everything in the order in which frames flow, each group within
    /// `drain_s`, so that results of the last frames still reach the sinks.
    pub(crate) fn stop(&mut self, mut meanwhile: impl FnMut()) {
        let bound = Duration::from_secs_f64(self.up.drain_s);
        let groups: [fn(&Duty) -> bool; 3] = [
            |duty| matches!(duty, Duty::Capture { .. }),
            |duty| *duty == Duty::Infer,
            |duty| matches!(duty, Duty::Sink { .. }),
        ];
        for group in groups {
            let units = self.units.iter_mut().filter(|unit| group(&unit.duty));
            let running = units.filter_map(|unit| match &mut unit.phase {
                Phase::Running(child) => {
                    unit.vitals.set_state(State::Stopping, "");
                    Some((unit.name.as_str(), &mut **child))
                }
                _ => None,
            });
            for name in children::stop_all(running, bound, &mut meanwhile) {
                self.screen.log(&format!(
                    "{name} did not stop within up.drain_s = {} s and was killed",
                    self.up.drain_s
                ));
            }
            for unit in self.units.iter_mut().filter(|unit| group(&unit.duty)) {
                if matches!(unit.phase, Phase::Running(_) | Phase::Waiting { .. }) {
                    unit.phase = Phase::Stopped;
                }
            }
        }
    }
}

impl Unit {
    fn start(&mut self, on_line: &OnLine) {
        // A sink may print results there; the others print nothing.
        let stdout = match self.duty {
            Duty::Sink { .. } => Stdio::inherit(),
            _ => Stdio::null(),
        };
        match Child::start(&self.name, &self.program, &self.args, stdout, on_line.clone()) {
            Ok(child) => {
                self.vitals.set_pid(child.pid());
                self.vitals.set_state(State::Starting, "");
                self.phase = Phase::Running(Box::new(child));
            }
            Err(error) => {
                self.wait(0, &error.to_string());
            }
        }
    }

    /// Waits before the next start.
    fn wait(&mut self, alive_ns: u64, reason: &str) -> u64 {
        let now_ns = clock::monotonic_ns();
        let delay_ms = self.backoff.delay_ms(alive_ns, jitter(now_ns));
        self.vitals.add(Counter::Restarts, 1);
        self.vitals.set_state(State::Offline, &format!("{reason}; starting it again"));
        // The state's reason goes with the next start; this stays.
        self.vitals.set_detail(&format!("last end: {reason}"));
        self.phase = Phase::Waiting { until_ns: now_ns + delay_ms * 1_000_000 };
        delay_ms
    }

    /// An error without who said it: that stands beside it.
    fn without_name(&self, reason: String) -> String {
        let (role, camera) = match &self.duty {
            Duty::Capture { camera, .. } => ("capture: ", format!("camera {camera}: ")),
            Duty::Infer => ("infer: ", String::new()),
            Duty::Sink { .. } => ("sink: ", String::new()),
        };
        let reason = reason.strip_prefix(role).unwrap_or(&reason);
        reason.strip_prefix(camera.as_str()).unwrap_or(reason).to_owned()
    }

    fn died(
        &mut self,
        exit: &Exit,
        alive_ns: u64,
        collector: &Collector,
        screen: &Screen,
        fatal: &mut Option<Failure>,
    ) {
        let reason = self.without_name(exit.reason());
        let for_good = match &self.duty {
            // A sink ends by itself only when nobody reads what it prints.
            Duty::Capture { .. } | Duty::Sink { prints: true } if exit.success() => {
                self.vitals.set_state(State::Ended, "");
                self.phase = Phase::Ended;
                return;
            }
            // A file that could not be read does not get better.
            Duty::Capture { camera, from_file } => {
                let published = collector
                    .track(Role::Capture, camera)
                    .is_some_and(|track| track.total(Counter::Published) > 0);
                *from_file && exit.kind() == Kind::Unavailable && !published
            }
            Duty::Infer => exit.kind() == Kind::Unavailable && !self.was_live,
            Duty::Sink { .. } => false,
        };
        self.reason.clone_from(&reason);
        if for_good || exit.kind() == Kind::Config {
            self.vitals.set_state(State::Offline, &reason);
            self.phase = Phase::Failed(exit.kind());
            if self.duty == Duty::Infer {
                *fatal = Some(Failure::message(exit.kind(), &reason));
            } else {
                screen.log(&format!("{} is not started again: {}", self.name, exit.how()));
            }
            return;
        }
        let delay_ms = self.wait(alive_ns, &reason);
        screen.log(&format!(
            "{} died ({}); starting it again in {:.1} s",
            self.name,
            exit.how(),
            delay_ms as f64 / 1e3
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(prints: bool, script: &str) -> Supervisor {
        let unit = Unit {
            duty: Duty::Sink { prints },
            name: "sink a".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            vitals: Vitals::new(Role::Child, "sink:a"),
            backoff: Backoff::new(60_000, 60_000),
            phase: Phase::Waiting { until_ns: 0 },
            was_live: false,
            reason: String::new(),
        };
        let up = Up { restart_min_ms: 60_000, restart_max_ms: 60_000, drain_s: 1.0 };
        let on_line: OnLine = Arc::new(|_, _| {});
        Supervisor { units: vec![unit], up, on_line, screen: Screen::new(true), fatal: None }
    }

    /// Runs the only child to its end; whether a reader is taken for gone.
    fn ended(mut supervisor: Supervisor) -> bool {
        let collector = Collector::default();
        supervisor.tick(&collector);
        assert!(matches!(supervisor.units[0].phase, Phase::Running(_)));
        while matches!(supervisor.units[0].phase, Phase::Running(_)) {
            supervisor.tick(&collector);
            let _ = framebus_service::Shutdown::new().wait(Duration::from_millis(5));
        }
        let again = matches!(supervisor.units[0].phase, Phase::Waiting { .. });
        assert_ne!(again, supervisor.reader_gone(), "started again, or over");
        supervisor.reader_gone()
    }

    #[test]
    fn only_a_sink_that_prints_and_ends_well_says_that_its_reader_has_gone() {
        assert!(ended(sink(true, "exit 0")));
        assert!(!ended(sink(true, "exit 69")));
        assert!(!ended(sink(true, "kill -9 $$")));
        assert!(!ended(sink(false, "exit 0")));
    }
}
