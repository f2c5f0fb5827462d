//! Kills and stops processes at random moments and notices when they are back.

use crate::pattern::CAMERAS;
use crate::watch::{Log, Watch};
use framebus_service::clock;
use framebus_tests::{Process, World, wait_until};
use framebus_types::Outcome;
use rustix::process::Signal;
use std::path::Path;

/// Readers from outside that are killed too.
const READERS: usize = 2;
/// What is not back after so long, never will be.
pub(crate) const NEVER_NS: u64 = 30 * SECOND_NS;
/// A service manager's wait before it starts the supervisor again.
const RESTART_UP_NS: u64 = 100_000_000;
/// Nanoseconds of a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Numbers that look random and can be had again (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Never 0, and neighbouring seeds far apart.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.share() * count as f64) as usize).min(count - 1)
    }
}

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Index into [`CAMERAS`].
    Capture(usize),
    Infer,
    Sink,
    Reader(usize),
    Up,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Capture(_) => "capture",
            Self::Infer => "inference",
            Self::Sink => "sink",
            Self::Reader(_) => "reader",
            Self::Up => "up",
        }
    }

    /// Whether what is measured of one would be the fault of the other.
    fn disturbs(self, other: Self) -> bool {
        let chain = |target| matches!(target, Self::Infer | Self::Sink);
        self == other || self == Self::Up || other == Self::Up || chain(self) && chain(other)
    }
}

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) target: Target,
    pid: u32,
    pub(crate) start_ns: u64,
    /// `Some` when the process was only stopped: for how long.
    stop_ns: Option<u64>,
    /// From when on it could come back: the kill, or the end of the stop once that is over.
    from_ns: Option<u64>,
    /// When its work was seen again.
    pub(crate) back_ns: Option<u64>,
    /// Newest epoch of each camera before the fault, and of the results.
    epochs: [u64; CAMERAS.len()],
    result_epoch_ns: u64,
    /// Bytes in the sink's file when it could not write.
    file_bytes: u64,
}

impl Fault {
    pub(crate) fn is_kill(&self) -> bool {
        self.stop_ns.is_none()
    }

    /// From the kill, or from the end of the stop.
    pub(crate) fn recovery_ns(&self) -> Option<u64> {
        Some(self.back_ns?.saturating_sub(self.from_ns?))
    }

    /// When its work was first seen after `from_ns`.
    fn back(&self, from_ns: u64, log: &Log) -> Option<u64> {
        match self.target {
            Target::Capture(camera) => self.capture_back(from_ns, log, camera),
            Target::Infer => self.infer_back(from_ns, log),
            Target::Sink => {
                let after =
                    log.written.iter().rev().take_while(|(_, size)| *size > self.file_bytes);
                after.last().map(|(at_ns, _)| *at_ns)
            }
            Target::Up => {
                let cameras =
                    (0..CAMERAS.len()).map(|camera| self.capture_back(from_ns, log, camera));
                let infer_ns = self.infer_back(from_ns, log)?;
                // Its children write their last records after its own end.
                let written = log.written.iter().rev().take_while(|(at_ns, _)| *at_ns > infer_ns);
                let written_ns = written.last().map(|(at_ns, _)| *at_ns);
                let all: Option<Vec<u64>> = cameras.chain([written_ns]).collect();
                all?.into_iter().max()
            }
            // Says so itself, see `Injector::tick`.
            Target::Reader(_) => None,
        }
    }

    fn capture_back(&self, from_ns: u64, log: &Log, camera: usize) -> Option<u64> {
        let after = log.frames[camera].iter().rev().take_while(|frame| frame.publish_ns > from_ns);
        after
            .filter(|frame| !self.is_kill() || frame.epoch_ns != self.epochs[camera])
            .last()
            .map(|frame| frame.publish_ns)
    }

    fn infer_back(&self, from_ns: u64, log: &Log) -> Option<u64> {
        let after = log.answers.iter().rev().take_while(|answer| answer.result_ns > from_ns);
        after
            .filter(|answer| answer.outcome == Outcome::Ok)
            .filter(|answer| !self.is_kill() || answer.result_epoch_ns != self.result_epoch_ns)
            .last()
            .map(|answer| answer.result_ns)
    }
}

/// The instance, its readers and what is being done to them.
pub(crate) struct Injector<'a> {
    world: &'a World,
    config: &'a Path,
    /// The sink's file.
    records: &'a Path,
    random: Random,
    up: Process,
    ups: usize,
    up_gone_ns: Option<u64>,
    readers: Vec<Process>,
    started_readers: usize,
    pending: Vec<Fault>,
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Injector<'a> {
    pub(crate) fn start(world: &'a World, config: &'a Path, records: &'a Path, seed: u64) -> Self {
        let up = world.up(config);
        let readers = (0..READERS).map(|number| reader(world, number)).collect();
        Self {
            world,
            config,
            records,
            random: Random::new(seed),
            up,
            ups: 1,
            up_gone_ns: None,
            readers,
            started_readers: READERS,
            pending: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Kills so far, those not recovered from included.
    pub(crate) fn kills(&self) -> usize {
        self.faults.iter().chain(&self.pending).filter(|fault| fault.is_kill()).count()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Does one fault; false when the one that was drawn is just recovering.
    pub(crate) fn inject(&mut self, watch: &Watch) -> bool {
        let target = match self.random.below(24) {
            0 => Target::Up,
            1..=4 => Target::Infer,
            5..=7 => Target::Sink,
            8..=11 => Target::Reader(self.random.below(READERS)),
            _ => Target::Capture(self.random.below(CAMERAS.len())),
        };
        let stop_s = 0.2 * 40_f64.powf(self.random.share());
        let stops = self.random.below(5) == 0;
        if self.pending.iter().any(|fault| fault.target.disturbs(target)) {
            return false;
        }
        let Some(pid) = self.pid(target) else { return false };
        let log = watch.log();
        let start_ns = clock::monotonic_ns();
        let mut fault = Fault {
            target,
            pid,
            start_ns,
            stop_ns: stops.then_some((stop_s * SECOND_NS as f64) as u64),
            from_ns: (!stops).then_some(start_ns),
            back_ns: None,
            epochs: std::array::from_fn(|camera| {
                log.frames[camera].last().map_or(0, |frame| frame.epoch_ns)
            }),
            result_epoch_ns: log.answers.last().map_or(0, |answer| answer.result_epoch_ns),
            file_bytes: 0,
        };
        drop(log);
        let done = self.world.signal(pid, if stops { Signal::STOP } else { Signal::KILL });
        if fault.is_kill() {
            wait_until("the end of the killed", 10, || {
                let left = self.world.processes().into_iter().any(|(found, _)| found == pid);
                (!left).then_some(())
            });
        }
        fault.file_bytes = size(self.records);
        self.pending.extend(done.then_some(fault));
        done
    }

    fn pid(&mut self, target: Target) -> Option<u32> {
        match target {
            Target::Capture(camera) => self
                .world
                .pid_of(&["framebus-capture", &format!("--camera {}", CAMERAS[camera].name)]),
            Target::Infer => self.world.pid_of(&["framebus-infer"]),
            Target::Sink => self.world.pid_of(&["framebus-sink"]),
            Target::Reader(number) => {
                // One that has not yet joined is no reader.
                let reader = &mut self.readers[number];
                (reader.is_running() && !reader.stdout().is_empty()).then(|| reader.pid())
            }
            Target::Up => self.up.is_running().then(|| self.up.pid()),
        }
    }

    /// Lets the stopped go on, starts what nobody else starts, notices what is back.
    pub(crate) fn tick(&mut self, watch: &Watch) {
        let now_ns = clock::monotonic_ns();
        self.restart(now_ns);
        for fault in &mut self.pending {
            if fault.from_ns.is_none()
                && fault.stop_ns.is_some_and(|stop_ns| now_ns >= fault.start_ns + stop_ns)
            {
                fault.from_ns = Some(now_ns);
                fault.file_bytes = size(self.records);
                // It may be gone: a supervisor need not put up with one that hangs.
                self.world.signal(fault.pid, Signal::CONT);
            }
        }
        let log = watch.log();
        for fault in &mut self.pending {
            let Some(from_ns) = fault.from_ns else { continue };
            fault.back_ns = match fault.target {
                // What it does cannot be seen from outside; it goes on at once.
                Target::Up | Target::Reader(_) if !fault.is_kill() => Some(from_ns),
                Target::Reader(number) => {
                    let reader = &self.readers[number];
                    let is_new = reader.pid() != fault.pid;
                    is_new.then(|| reader.stdout().lines().next()?.parse().ok()).flatten()
                }
                _ => fault.back(from_ns, &log),
            };
        }
        drop(log);
        let over = |fault: &Fault| {
            let late = |from_ns| now_ns.saturating_sub(from_ns) > NEVER_NS;
            fault.back_ns.is_some() || fault.from_ns.is_some_and(late)
        };
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (over, pending): (Vec<Fault>, Vec<Fault>) = pending.partition(over);
        self.pending = pending;
        self.faults.extend(over);
    }

    fn restart(&mut self, now_ns: u64) {
        if !self.up.is_running() {
            let gone_ns = *self.up_gone_ns.get_or_insert(now_ns);
            if now_ns >= gone_ns + RESTART_UP_NS {
                self.ups += 1;
                let config = self.config.display().to_string();
                let args = ["up", "--config", &config];
                self.up = self.world.framebus(&format!("up{}", self.ups), &args);
                self.up_gone_ns = None;
            }
        }
        for reader in &mut self.readers {
            if !reader.is_running() {
                self.started_readers += 1;
                *reader = self::reader(self.world, self.started_readers);
            }
        }
    }

    /// How often the supervisor was started.
    pub(crate) fn ups(&self) -> usize {
        self.ups
    }

    /// Ends the readers, then the instance; returns what `up` said if it did not end
    /// as it should.
    pub(crate) fn finish(mut self) -> (Vec<Fault>, Option<String>) {
        self.readers.clear();
        let wrong = if self.up.is_running() {
            self.up.signal(Signal::TERM);
            let exit = self.up.wait(30);
            (exit.code != Some(0)).then_some(exit.stderr)
        } else {
            Some(self.up.stderr())
        };
        (self.faults, wrong)
    }
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |data| data.len())
}

fn reader(world: &World, number: usize) -> Process {
    let own = std::env::current_exe().expect("the program knows its own file");
    let root = world.root().display().to_string();
    world.start(&format!("reader{number}"), &own, &["reader", &root, world.instance()])
}
