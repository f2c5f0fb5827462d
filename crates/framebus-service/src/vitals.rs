//! What a process counts and says of itself.

use crate::clock;
use framebus_bus::{Bus, BusError, HealthPublisher};
use framebus_types::{
    COUNTERS, Counter, Health, Histogram, Role, STAGES, Stage, State, histogram, text,
};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Counters, latencies and state of one camera, sink or process. Counting is
/// lock-free and allocates nothing.
#[derive(Debug)]
pub struct Vitals {
    role: Role,
    name: String,
    started_wall_ns: u64,
    counters: [AtomicU64; COUNTERS],
    stages: [StageCounts; STAGES],
    told: Mutex<Told>,
}

#[derive(Debug)]
struct StageCounts {
    counts: [AtomicU32; histogram::BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// What changes rarely.
#[derive(Debug, Clone)]
struct Told {
    state: State,
    reason: String,
    since_ns: u64,
    detail: String,
    width: u32,
    height: u32,
    pid: u32,
}

impl Vitals {
    /// Starts in [`State::Starting`].
    #[must_use]
    pub fn new(role: Role, name: &str) -> Arc<Self> {
        Arc::new(Self {
            role,
            name: name.to_owned(),
            started_wall_ns: clock::wall_ns(),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            stages: std::array::from_fn(|_| StageCounts {
                counts: std::array::from_fn(|_| AtomicU32::new(0)),
                sum_ns: AtomicU64::new(0),
                max_ns: AtomicU64::new(0),
            }),
            told: Mutex::new(Told {
                state: State::Starting,
                reason: String::new(),
                since_ns: clock::monotonic_ns(),
                detail: String::new(),
                width: 0,
                height: 0,
                pid: std::process::id(),
            }),
        })
    }

    /// What it is of.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.counters[counter as usize].fetch_add(n, Relaxed);
    }

    /// Reads a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// Records how long a stage took.
    pub fn record(&self, stage: Stage, duration_ns: u64) {
        let counts = &self.stages[stage as usize];
        counts.counts[histogram::bucket(duration_ns)].fetch_add(1, Relaxed);
        counts.sum_ns.fetch_add(duration_ns, Relaxed);
        counts.max_ns.fetch_max(duration_ns, Relaxed);
    }

    /// Says what state this is in and why; logged when more than figures change.
    pub fn set_state(&self, state: State, reason: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.state == state && told.reason == reason {
            return;
        }
        let new = told.state != state || without_figures(&told.reason) != without_figures(reason);
        if told.state != state {
            told.since_ns = clock::monotonic_ns();
        }
        told.state = state;
        told.reason.clear();
        told.reason.push_str(reason);
        drop(told);
        match state {
            _ if !new => {}
            State::Degraded | State::Stalled | State::Offline => {
                tracing::warn!(role = %self.role, name = self.name, %state, reason, "state");
            }
            _ => tracing::info!(role = %self.role, name = self.name, %state, reason, "state"),
        }
    }

    /// The state that was said last.
    #[must_use]
    pub fn state(&self) -> State {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).state
    }

    /// Says what does the work: decoder, engine, sink kind.
    pub fn set_detail(&self, detail: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.detail.clear();
        told.detail.push_str(detail);
    }

    /// Says the size of the frames, or of the network's input.
    pub fn set_size(&self, width: u32, height: u32) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.width, told.height) = (width, height);
    }

    /// Says whose vitals these are when they are not this process's own.
    pub fn set_pid(&self, pid: u32) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).pid = pid;
    }

    /// A record of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Health {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health {
            role: self.role.into(),
            name: text::pack(&self.name),
            pid: told.pid,
            state: told.state.into(),
            reason: text::pack(&told.reason),
            started_wall_ns: self.started_wall_ns,
            state_since_ns: told.since_ns,
            updated_ns: clock::monotonic_ns(),
            width: told.width,
            height: told.height,
            detail: text::pack(&told.detail),
            counters: std::array::from_fn(|i| self.counters[i].load(Relaxed)),
            stages: std::array::from_fn(|i| Histogram {
                counts: std::array::from_fn(|b| self.stages[i].counts[b].load(Relaxed)),
                sum_ns: self.stages[i].sum_ns.load(Relaxed),
                max_ns: self.stages[i].max_ns.load(Relaxed),
            }),
            ..Health::default()
        }
    }
}

/// What a reason says apart from its figures: "silent for 4 s" is no news after "silent
/// for 3 s".
#[must_use]
pub fn without_figures(reason: &str) -> String {
    reason.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Publishes vitals once a second, and once more at the end. Feeds systemd's
/// watchdog as long as the process makes progress.
#[derive(Debug)]
pub struct Reporter {
    bus: Arc<Bus>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    reported: Mutex<Reported>,
    progress: Arc<AtomicBool>,
    progress_ns: AtomicU64,
    stop: Mutex<bool>,
    wake: Condvar,
}

#[derive(Debug)]
struct Reported {
    vitals: Vec<Arc<Vitals>>,
    publisher: HealthPublisher,
    /// Records that the publisher has room for.
    room: usize,
}

/// Time between two reports.
const PERIOD: Duration = Duration::from_secs(1);

impl Reporter {
    /// Starts reporting. With `clean`, dead processes of the instance are
    /// cleaned up in the same rhythm.
    ///
    /// # Errors
    /// [`BusError`] when the health service cannot be joined.
    pub fn start(
        bus: &Arc<Bus>,
        vitals: Vec<Arc<Vitals>>,
        progress: Arc<AtomicBool>,
        clean: bool,
    ) -> Result<Self, BusError> {
        let room = vitals.len();
        let publisher = bus.health_publisher(room)?;
        let shared = Arc::new(Shared {
            reported: Mutex::new(Reported { vitals, publisher, room }),
            progress,
            progress_ns: AtomicU64::new(0),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        });
        let (worker, worker_bus) = (shared.clone(), bus.clone());
        let thread = std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || worker.run(&worker_bus, clean))
            .map_err(|error| BusError::Port {
                service: "health".to_owned(),
                reason: format!("cannot start a thread: {error}"),
            })?;
        Ok(Self { bus: bus.clone(), shared, thread: Some(thread) })
    }

    /// Reports these from now on. What is not among them any more is said to be disabled,
    /// once.
    pub fn set(&self, vitals: Vec<Arc<Vitals>>) {
        let is_gone = |old: &&Arc<Vitals>| !vitals.iter().any(|new| Arc::ptr_eq(new, old));
        let reported = self.shared.reported();
        for gone in reported.vitals.iter().filter(is_gone) {
            gone.set_state(State::Disabled, "not in the configuration any more");
        }
        drop(reported);
        self.shared.publish();
        let mut reported = self.shared.reported();
        if vitals.len() > reported.room {
            match self.bus.health_publisher(vitals.len()) {
                Ok(publisher) => {
                    (reported.publisher, reported.room) = (publisher, vitals.len());
                }
                Err(error) => tracing::warn!(%error, "health of new cameras is not published"),
            }
        }
        reported.vitals = vitals;
        drop(reported);
        self.shared.publish();
    }

    /// Publishes now, beside the rhythm: for a change that others wait for.
    pub fn publish(&self) {
        self.shared.publish();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.publish();
    }
}

impl Shared {
    fn run(&self, bus: &Bus, clean: bool) {
        loop {
            let progressed = self.progress.swap(false, Relaxed);
            if progressed {
                self.progress_ns.store(clock::monotonic_ns(), Relaxed);
            }
            self.publish();
            if let Err(error) = bus.check_files() {
                tracing::error!("{error}");
                // An orderly end; the exit code then says why, see `run`.
                let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
                return;
            }
            if progressed {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            if clean {
                let cleaned = bus.clean_dead_nodes();
                if cleaned.removed > 0 {
                    tracing::debug!(
                        processes = cleaned.removed,
                        "cleaned up after processes that are gone"
                    );
                }
            }
            let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
            let (stop, _) = self
                .wake
                .wait_timeout_while(stop, PERIOD, |stop| !*stop)
                .unwrap_or_else(PoisonError::into_inner);
            if *stop {
                return;
            }
        }
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let progress_ns = self.progress_ns.load(Relaxed);
        let record = |vitals: &Arc<Vitals>| Health { progress_ns, ..vitals.snapshot() };
        let reported = self.reported();
        let records: Vec<Health> = reported.vitals.iter().map(record).collect();
        if let Err(error) = reported.publisher.publish(&records) {
            tracing::warn!(%error, "health not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_holds_what_was_said() {
        let vitals = Vitals::new(Role::Capture, "front");
        vitals.add(Counter::Captured, 3);
        vitals.record(Stage::Total, 5_000_000);
        vitals.set_state(State::Degraded, "decoder errors");
        vitals.set_size(1920, 1080);
        let health = vitals.snapshot();
        assert_eq!(text::unpack(&health.name), "front");
        assert_eq!(health.counter(Counter::Captured), 3);
        assert_eq!(State::try_from(health.state), Ok(State::Degraded));
        assert_eq!(text::unpack(&health.reason), "decoder errors");
        let counts = &health.stages[Stage::Total as usize].counts;
        let p50 = histogram::quantile_us(counts, None, 0.5).expect("one value");
        assert!((4500.0..5600.0).contains(&p50), "{p50}");
    }
}
