//! A running private instance, seen from outside: children, results, health.

use crate::children::{Child, quiet, stop_all};
use crate::private::Private;
use crate::stats::Collector;
use framebus_bus::{Bus, HealthSubscriber, ResultSample, ResultSubscriber};
use framebus_service::{Failure, Kind, Shutdown, clock};
use framebus_types::{Counter, Health, Role, State};
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a result before looking at children and clock.
const LOOK: Duration = Duration::from_millis(20);
/// Time that children have to stop.
const STOP: Duration = Duration::from_secs(10);

/// Takes results: the result, and when it was received, CLOCK_MONOTONIC ns.
pub(crate) type OnResult<'a> = &'a mut dyn FnMut(&ResultSample, u64);

/// What this process reads of the instance.
struct Intake {
    results: ResultSubscriber,
    health: HealthSubscriber,
    collector: Collector,
    records: Vec<Health>,
    /// Epoch and number of the last result.
    last: Option<(u64, u64)>,
    lost: u64,
}

impl Intake {
    /// Everything that is there.
    fn take(&mut self, on_result: OnResult<'_>) -> Result<(), Failure> {
        while let Some(result) = self.results.receive()? {
            let now_ns = clock::monotonic_ns();
            let header = result.header();
            let (epoch_ns, sequence) = (header.result_epoch_ns, header.result_sequence);
            if let Some((last_epoch_ns, last)) = self.last
                && last_epoch_ns == epoch_ns
            {
                self.lost += sequence.saturating_sub(last + 1);
            }
            self.last = Some((epoch_ns, sequence));
            on_result(&result, now_ns);
        }
        self.records.clear();
        self.health.receive_into(&mut self.records)?;
        self.records.iter().for_each(|record| self.collector.add(record));
        Ok(())
    }
}

/// The instance. Fields are dropped in their order: children before the bus, the bus
/// before the folder.
pub(crate) struct Rig {
    children: Vec<(String, Child)>,
    intake: Intake,
    shutdown: Shutdown,
    bus: Arc<Bus>,
    _private: Private,
}

impl Rig {
    /// Joins the instance of `private` before any of its processes is there, so that
    /// no result is missed. `reader` names this process on the bus.
    pub(crate) fn new(
        private: Private,
        domain: &framebus_bus::Domain,
        shutdown: &Shutdown,
        reader: &str,
    ) -> Result<Self, Failure> {
        let bus: Arc<Bus> = Arc::new(Bus::open(domain, reader)?);
        Ok(Self {
            children: Vec::new(),
            intake: Intake {
                results: bus.result_subscriber(reader)?,
                health: bus.health_subscriber()?,
                collector: Collector::default(),
                records: Vec::new(),
                last: None,
                lost: 0,
            },
            shutdown: shutdown.clone(),
            bus,
            _private: private,
        })
    }

    /// The bus that this process has joined.
    pub(crate) fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// Starts a process of the instance.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &Path,
        args: &[OsString],
    ) -> Result<(), Failure> {
        let child = Child::start(name, program, args, Stdio::null(), quiet())?;
        self.children.push((name.to_owned(), child));
        Ok(())
    }

    /// Starts another process of this program: `framebus ARGS`.
    pub(crate) fn start_own(&mut self, name: &str, args: &[OsString]) -> Result<(), Failure> {
        let own = std::env::current_exe().map_err(|error| {
            Failure::message(Kind::Unavailable, format_args!("own program not found: {error}"))
        })?;
        self.start(name, &own, args)
    }

    /// Tells a child something.
    pub(crate) fn say(&mut self, name: &str, line: &str) {
        for (_, child) in self.children.iter_mut().filter(|(known, _)| known == name) {
            child.say(line);
        }
    }

    /// Number of a child's process.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|(known, _)| known == name).map(|(_, child)| child.pid())
    }

    /// Whether the user wants to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.shutdown.requested()
    }

    /// Waits for results for [`LOOK`] at most and hands on those that are there.
    pub(crate) fn pump(&mut self, on_result: OnResult<'_>) -> Result<(), Failure> {
        self.intake.results.waker().wait(LOOK)?;
        self.intake.take(on_result)
    }

    /// What the processes say of themselves.
    pub(crate) fn collector(&self) -> &Collector {
        &self.intake.collector
    }

    /// Results that this reader did not get.
    pub(crate) fn lost(&self) -> u64 {
        self.intake.lost
    }

    /// As [`Self::pump`] until `end_ns`; also fails when a child has ended, and returns
    /// early when the user wants to stop.
    pub(crate) fn pump_until(
        &mut self,
        end_ns: u64,
        on_result: OnResult<'_>,
    ) -> Result<(), Failure> {
        while clock::monotonic_ns() < end_ns && !self.stopping() {
            self.pump(on_result)?;
            self.check()?;
        }
        Ok(())
    }

    /// As [`Self::pump_until`] until `done` says so, `bound` at most.
    pub(crate) fn pump_until_done(
        &mut self,
        what: &str,
        bound: Duration,
        on_result: OnResult<'_>,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        let end_ns = clock::monotonic_ns() + bound.as_nanos() as u64;
        while !done(self) {
            if self.stopping() {
                return Err(Failure::message(
                    Kind::Unavailable,
                    format_args!("stopped before: {what}"),
                ));
            }
            if clock::monotonic_ns() >= end_ns {
                return Err(Failure::message(
                    Kind::Unavailable,
                    format_args!("not within {bound:?}: {what}"),
                ));
            }
            self.pump(on_result)?;
            self.check()?;
        }
        Ok(())
    }

    /// Fails when a child has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for (name, child) in &mut self.children {
            if let Some(exit) = child.exited() {
                return Err(Failure::message(
                    exit.kind(),
                    format_args!("{name} ended: {}", exit.reason()),
                ));
            }
        }
        Ok(())
    }

    /// Whether a child has ended, successfully.
    pub(crate) fn has_ended(&mut self, name: &str) -> Result<bool, Failure> {
        for (_, child) in self.children.iter_mut().filter(|(known, _)| known == name) {
            if let Some(exit) = child.exited() {
                if exit.success() {
                    return Ok(true);
                }
                return Err(Failure::message(exit.kind(), exit.reason()));
            }
        }
        Ok(false)
    }

    /// What a process counts of itself.
    pub(crate) fn count(&self, role: Role, name: &str, counter: Counter) -> u64 {
        self.collector().track(role, name).map_or(0, |track| track.total(counter))
    }

    /// Whether a process has said that it delivers.
    pub(crate) fn is_live(&self, role: Role, name: &str) -> bool {
        let track = self.collector().track(role, name);
        track.is_some_and(|track| track.latest().state == State::Live as u32)
    }

    /// Stops the children whose name `which` accepts, and hears their last words.
    pub(crate) fn stop(&mut self, which: impl Fn(&str) -> bool, on_result: OnResult<'_>) {
        let Self { children, intake, .. } = self;
        let chosen = children.iter_mut().filter(|(name, _)| which(name));
        stop_all(chosen.map(|(name, child)| (name.as_str(), child)), STOP, || {
            // An instance in which nothing is lost waits for this reader.
            let _ = intake.take(on_result);
        });
        let _ = intake.take(on_result);
        self.children.retain(|(name, _)| !which(name));
    }
}
