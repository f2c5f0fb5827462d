//! One child of the supervisor: started, watched, started again.
//!
//! What dies is started again after a wait that grows while it does not get well, and
//! seldom once it has failed often in a row. What hangs is killed first. What cannot
//! get better by trying again waits for a changed configuration.

use crate::children::{Child, Exit, OnLine};
use crate::screen::Screen;
use crate::stats::{Collector, Track, child_name};
use framebus_config::{Camera, JsonlPath, Sink, SinkKind, Source, Up};
use framebus_service::{Backoff, Failure, Kind, Vitals, clock};
use framebus_types::{Counter, Role, State};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;
/// A process that was live for so long had got well: its next failure is a first one.
const WELL_NS: u64 = 3 * SECOND_NS;
/// After so many failures in a row it is tried every `up.breaker_s` only.
const BREAKER_FAILURES: u32 = 8;
/// A process that loads a model or connects may be quiet for so many times `up.hang_s`.
const STARTING_FACTOR: u64 = 12;
/// Bytes of the reason of an end that leave room for what becomes of it.
const REASON_MAX: usize = 120;

/// What a child does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Duty {
    Capture {
        camera: String,
        from_file: bool,
    },
    Infer,
    /// `prints`: to this process's standard output.
    Sink {
        name: String,
        prints: bool,
    },
}

impl Duty {
    pub(crate) fn capture(camera: &Camera) -> Self {
        let from_file = matches!(camera.source, Source::File(_));
        Self::Capture { camera: camera.name.to_string(), from_file }
    }

    pub(crate) fn sink(sink: &Sink) -> Self {
        Self::Sink { name: sink.name.to_string(), prints: prints(&sink.kind) }
    }

    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Capture { .. } => Role::Capture,
            Self::Infer => Role::Infer,
            Self::Sink { .. } => Role::Sink,
        }
    }

    /// Of the camera or sink; inference has none.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Capture { camera: name, .. } | Self::Sink { name, .. } => name,
            Self::Infer => "",
        }
    }

    pub(crate) fn program(&self) -> &'static str {
        match self {
            Self::Capture { .. } => "framebus-capture",
            Self::Infer => "framebus-infer",
            Self::Sink { .. } => "framebus-sink",
        }
    }

    /// The arguments that say which one is meant.
    pub(crate) fn args(&self) -> Vec<OsString> {
        match self {
            Self::Capture { camera, .. } => vec!["--camera".into(), camera.into()],
            Self::Infer => Vec::new(),
            Self::Sink { name, .. } => vec!["--sink".into(), name.into()],
        }
    }

    /// As printed: `capture front`.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.role(), self.name()).trim_end().to_owned()
    }
}

/// Whether a sink writes to standard output.
pub(crate) fn prints(kind: &SinkKind) -> bool {
    matches!(kind, SinkKind::Jsonl(jsonl) if jsonl.path == JsonlPath::Stdout)
}

/// Where a child is in its life.
pub(crate) enum Phase {
    Waiting {
        until_ns: u64,
    },
    Running(Box<Child>),
    /// Asked to stop by a changed configuration; killed when it takes too long.
    Leaving {
        child: Box<Child>,
        until_ns: u64,
        again: bool,
    },
    /// It ended well; whether that was the end of its source, its last report says,
    /// which may still be on its way.
    Over {
        pid: u32,
    },
    /// It came to its end: a capture's source, or the reader of a sink that prints.
    Ended,
    /// It failed in a way that trying again does not change.
    Failed(Kind),
    Stopped,
}

/// What a tick works with.
pub(crate) struct Around<'a> {
    pub(crate) collector: &'a Collector,
    pub(crate) screen: &'a Screen,
    pub(crate) on_line: &'a OnLine,
    pub(crate) up: &'a Up,
    pub(crate) now_ns: u64,
    /// Since when this process itself has been awake: what it slept through is no
    /// silence of others.
    pub(crate) awake_ns: u64,
}

/// One child and what is known of it.
pub(crate) struct Unit {
    pub(crate) duty: Duty,
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) phase: Phase,
    /// Why it ended last.
    pub(crate) reason: String,
    backoff: Backoff,
    /// Ends in a row without getting well, and when the first of them was.
    failures: u32,
    failing_since_ns: u64,
    /// When this life was first seen live.
    live_since_ns: Option<u64>,
    starts: u32,
    /// It has worked: what ends it now may pass.
    pub(crate) was_live: bool,
    /// Why it was killed.
    hung: Option<String>,
}

impl Unit {
    pub(crate) fn new(duty: Duty, program: PathBuf, args: Vec<OsString>, up: &Up) -> Self {
        let vitals = Vitals::new(Role::Child, &child_name(duty.role().as_str(), duty.name()));
        vitals.set_detail(duty.role().as_str());
        Self {
            name: duty.shown(),
            duty,
            program,
            args,
            vitals,
            phase: Phase::Waiting { until_ns: 0 },
            reason: String::new(),
            backoff: Backoff::new(up.restart_min_ms, up.restart_max_ms),
            failures: 0,
            failing_since_ns: 0,
            live_since_ns: None,
            starts: 0,
            was_live: false,
            hung: None,
        }
    }

    /// Starts it when it is time, notices how it fares. A failure means that nothing can
    /// go on.
    pub(crate) fn tick(&mut self, around: &Around<'_>) -> Result<(), Failure> {
        match &mut self.phase {
            Phase::Waiting { until_ns } => {
                let until_ns = *until_ns;
                if until_ns <= around.now_ns {
                    self.start(around);
                } else if self.failures > 0 {
                    self.tell_wait(until_ns, around);
                }
            }
            Phase::Running(child) => match child.exited() {
                Some(exit) => {
                    let pid = child.pid();
                    return self.died(&exit, pid, around);
                }
                None => self.watch(around),
            },
            Phase::Leaving { child, until_ns, again } => {
                if child.exited().is_some() {
                    self.phase =
                        if *again { Phase::Waiting { until_ns: 0 } } else { Phase::Stopped };
                } else if *until_ns <= around.now_ns {
                    child.kill();
                }
            }
            Phase::Over { pid } => {
                let name = self.duty.name();
                let ended = around.collector.track(self.duty.role(), name).is_some_and(|track| {
                    track.latest().pid == *pid && track.latest().state == State::Ended as u32
                });
                if ended {
                    self.vitals.set_state(State::Ended, "");
                    self.phase = Phase::Ended;
                } else {
                    self.fail("stopped, and not by framebus up", "exit code 0", around);
                }
            }
            Phase::Ended | Phase::Failed(_) | Phase::Stopped => {}
        }
        Ok(())
    }

    /// What the configuration says of it has changed, or may have been mended.
    pub(crate) fn renew(&mut self, up: &Up) {
        self.backoff = Backoff::new(up.restart_min_ms, up.restart_max_ms);
        self.failures = 0;
        if !self.leave(up, true) {
            self.phase = Phase::Waiting { until_ns: 0 };
        }
    }

    /// It is not wanted any more.
    pub(crate) fn retire(&mut self, up: &Up) {
        self.vitals.set_state(State::Stopping, "");
        if !self.leave(up, false) {
            self.phase = Phase::Stopped;
        }
    }

    /// Asks a child to stop, once: a second wish would abort it. Returns whether there
    /// is one.
    fn leave(&mut self, up: &Up, again: bool) -> bool {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Running(child) => {
                child.terminate();
                self.vitals.set_state(State::Stopping, "");
                let until_ns = clock::monotonic_ns() + (up.drain_s * 1e9) as u64;
                Phase::Leaving { child, until_ns, again }
            }
            Phase::Leaving { child, until_ns, .. } => Phase::Leaving { child, until_ns, again },
            _ => return false,
        };
        true
    }

    fn start(&mut self, around: &Around<'_>) {
        // A sink may print results there; the others print nothing.
        let stdout = match self.duty {
            Duty::Sink { .. } => Stdio::inherit(),
            _ => Stdio::null(),
        };
        let on_line = around.on_line.clone();
        match Child::start(&self.name, &self.program, &self.args, stdout, on_line) {
            Ok(child) => {
                self.starts += 1;
                self.live_since_ns = None;
                // It may have been killed and then asked to leave.
                self.hung = None;
                self.vitals.set_pid(child.pid());
                self.vitals.set_state(State::Starting, "");
                self.phase = Phase::Running(Box::new(child));
            }
            Err(error) => self.fail(&error.to_string(), "not started", around),
        }
    }

    /// Looks at what a running child reports; kills it when it hangs.
    fn watch(&mut self, around: &Around<'_>) {
        let Phase::Running(child) = &self.phase else { return };
        let now_ns = around.now_ns;
        let name = if self.duty == Duty::Infer { "infer" } else { self.duty.name() };
        let track = around
            .collector
            .track(self.duty.role(), name)
            .filter(|track| track.latest().pid == child.pid());
        if let Some(track) = track {
            if track.latest().state == State::Live as u32 {
                self.was_live = true;
                self.live_since_ns.get_or_insert(now_ns);
            }
            match track.lapse(now_ns) {
                Some((state, reason)) => self.vitals.set_state(state, &reason),
                None => self.vitals.set_state(State::Live, ""),
            }
        }
        if self.hung.is_none()
            && let Some(why) = hangs(track, child.started_ns(), around)
        {
            around.screen.log(&format!("{} {why}: killing it", self.name));
            child.kill();
            self.hung = Some(format!("hung: {why}"));
        }
    }

    fn died(&mut self, exit: &Exit, pid: u32, around: &Around<'_>) -> Result<(), Failure> {
        let hung = self.hung.take();
        let how = hung.clone().unwrap_or_else(|| exit.how());
        let reason = hung.unwrap_or_else(|| self.without_name(exit.reason()));
        let for_good = match &self.duty {
            Duty::Capture { .. } if exit.success() => {
                self.phase = Phase::Over { pid };
                return Ok(());
            }
            // A sink that prints ends by itself only when nobody reads that.
            Duty::Sink { prints: true, .. } if exit.success() => {
                self.vitals.set_state(State::Ended, "");
                self.phase = Phase::Ended;
                return Ok(());
            }
            // A file that could not be read does not get better.
            Duty::Capture { camera, from_file } => {
                let published = around
                    .collector
                    .track(Role::Capture, camera)
                    .is_some_and(|track| track.total(Counter::Published) > 0);
                *from_file && exit.kind() == Kind::Unavailable && !published
            }
            Duty::Infer => exit.kind() == Kind::Unavailable && self.is_first(),
            Duty::Sink { .. } => false,
        };
        if for_good || matches!(exit.kind(), Kind::Config | Kind::Usage) {
            self.vitals.set_state(State::Offline, &reason);
            self.phase = Phase::Failed(exit.kind());
            self.reason.clone_from(&reason);
            // Nothing has worked yet: somebody who has just typed the command reads why.
            if self.duty == Duty::Infer && self.is_first() {
                return Err(Failure::message(exit.kind(), &reason));
            }
            around.screen.log(&format!("{} is not started again: {how}", self.name));
            return Ok(());
        }
        // At once, unless it does nothing but end so.
        if exit.kind() == Kind::Changed && self.live_since_ns.is_some() {
            self.phase = Phase::Waiting { until_ns: 0 };
            return Ok(());
        }
        self.fail(&reason, &how, around);
        Ok(())
    }

    /// Whether this is the first life of all and was never live.
    fn is_first(&self) -> bool {
        self.starts == 1 && !self.was_live
    }

    /// Counts a failure and waits before the next start.
    fn fail(&mut self, reason: &str, how: &str, around: &Around<'_>) {
        let now_ns = around.now_ns;
        let well_ns = self.live_since_ns.take().map_or(0, |since| now_ns.saturating_sub(since));
        if well_ns >= WELL_NS {
            self.backoff.reset();
            self.failures = 0;
        }
        if self.failures == 0 {
            self.failing_since_ns = now_ns;
        }
        self.failures += 1;
        let mut wait_ns = self.backoff.fail().as_nanos() as u64;
        if self.failures >= BREAKER_FAILURES {
            wait_ns = wait_ns.max((around.up.breaker_s * 1e9) as u64);
        }
        let until_ns = now_ns + wait_ns;
        reason.clone_into(&mut self.reason);
        self.vitals.add(Counter::Restarts, 1);
        // The state's reason goes with the next start; this stays.
        self.vitals.set_detail(&format!("last end: {reason}"));
        self.tell_wait(until_ns, around);
        self.phase = Phase::Waiting { until_ns };
        around.screen.log(&format!(
            "{} died ({how}); starting it again in {:.1} s",
            self.name,
            wait_ns as f64 / 1e9
        ));
    }

    fn tell_wait(&self, until_ns: u64, around: &Around<'_>) {
        let mut text = clipped(&self.reason).to_owned();
        if self.failures > 1 {
            let over_s = around.now_ns.saturating_sub(self.failing_since_ns) / SECOND_NS;
            text.push_str(&format!("; failed {} times in {over_s} s", self.failures));
        }
        let left_s = until_ns.saturating_sub(around.now_ns).div_ceil(SECOND_NS);
        text.push_str(&format!("; next try in {left_s} s"));
        self.vitals.set_state(State::Offline, &text);
    }

    /// An error without who said it: that stands beside it.
    fn without_name(&self, reason: String) -> String {
        let role = format!("{}: ", self.duty.role());
        let reason = reason.strip_prefix(&role).unwrap_or(&reason);
        let camera = format!("camera {}: ", self.duty.name());
        reason.strip_prefix(&camera).unwrap_or(reason).to_owned()
    }
}

/// The beginning of the first line.
fn clipped(reason: &str) -> &str {
    let line = reason.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(REASON_MAX)]
}

/// Why a child is to be taken for hanging.
fn hangs(track: Option<&Track>, started_ns: u64, around: &Around<'_>) -> Option<String> {
    let bound_ns = (around.up.hang_s * 1e9) as u64;
    if bound_ns == 0 {
        return None;
    }
    let Around { now_ns, awake_ns, .. } = *around;
    let since = |ns: u64| now_ns.saturating_sub(ns.max(awake_ns).max(started_ns));
    let works = |track: &&Track| {
        [State::Starting, State::Stopping].map(u32::from).iter().all(|s| *s != track.latest().state)
    };
    let bound_ns = match track.filter(works) {
        Some(_) => bound_ns,
        None => bound_ns * STARTING_FACTOR,
    };
    let silent_ns = since(track.map_or(started_ns, |track| track.latest().updated_ns));
    if silent_ns > bound_ns {
        return Some(format!("silent for {} s", silent_ns / SECOND_NS));
    }
    let idle_ns = track.map_or(0, |track| track.idle_ns(now_ns)).min(since(0));
    (idle_ns > bound_ns).then(|| format!("no progress for {} s", idle_ns / SECOND_NS))
}

#[cfg(test)]
mod tests;
