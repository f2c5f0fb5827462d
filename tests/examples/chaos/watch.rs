//! A reader that is never killed and notes everything: it has joined as an observer,
//! like any program of a user, and stays while everything around it dies.

use crate::pattern::{CAMERAS, Camera};
use framebus_bus::{Bus, BusError, Domain};
use framebus_service::clock;
use framebus_tests::wait_until;
use framebus_types::{Counter, Health, Outcome, Role, State, text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(50);
/// How exactly the moment is known at which a record was written.
const LOOK_AT_FILE: Duration = Duration::from_millis(5);
/// Frames of a camera on their way through a process while it counts: counters are
/// read one after the other.
const ON_THE_WAY: u64 = 8;

/// A frame that was published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) epoch_ns: u64,
    pub(crate) sequence: u64,
    pub(crate) publish_ns: u64,
}

/// A result that was published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Index into [`CAMERAS`].
    pub(crate) camera: usize,
    pub(crate) epoch_ns: u64,
    pub(crate) sequence: u64,
    pub(crate) result_epoch_ns: u64,
    pub(crate) result_sequence: u64,
    pub(crate) outcome: Outcome,
    pub(crate) result_ns: u64,
}

/// What has been seen.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Per camera.
    pub(crate) frames: [Vec<Frame>; CAMERAS.len()],
    pub(crate) answers: Vec<Answer>,
    /// When the sink's file was seen to have grown, and to how many bytes.
    pub(crate) written: Vec<(u64, u64)>,
    /// Frames that were not one whole picture.
    pub(crate) torn: Vec<String>,
    /// Headers that contradicted their payload.
    pub(crate) bad_headers: u64,
    /// Errors of the bus at this reader.
    pub(crate) errors: Vec<String>,
    /// Newest health record of each process: role, name, process id.
    pub(crate) health: BTreeMap<(u32, String, u32), Health>,
    /// Health records whose counters do not add up.
    pub(crate) contradictions: Vec<String>,
}

impl Log {
    /// What the supervisor last said of processes that are not live.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut newest: BTreeMap<&str, &Health> = BTreeMap::new();
        for ((role, name, _), record) in &self.health {
            if *role == u32::from(Role::Child) {
                let kept = newest.entry(name).or_insert(record);
                if record.updated_ns > kept.updated_ns {
                    *kept = record;
                }
            }
        }
        newest
            .into_iter()
            .filter(|(_, record)| record.state != u32::from(State::Live))
            .map(|(name, record)| format!("{name}: {}", text::unpack(&record.reason)))
            .collect()
    }
}

/// The threads that fill a [`Log`].
pub(crate) struct Watch {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Joins; waits for an instance that is still starting. `records` is the file of
    /// the sink.
    pub(crate) fn start(domain: &Domain, records: PathBuf) -> Self {
        let mut watch = Self { log: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for (index, camera) in CAMERAS.iter().enumerate() {
            watch.spawn(domain, move |bus, log, stop| frames(bus, index, camera, log, stop));
        }
        watch.spawn(domain, answers);
        watch.spawn(domain, move |bus, log, stop| health(bus, &records, log, stop));
        watch
    }

    fn spawn(
        &mut self,
        domain: &Domain,
        work: impl FnOnce(&Bus, &Mutex<Log>, &AtomicBool) + Send + 'static,
    ) {
        let (domain, log, stop) = (domain.clone(), self.log.clone(), self.stop.clone());
        self.threads.push(std::thread::spawn(move || {
            // A node for each: like that many programs of users.
            let bus: Bus = Bus::open(&domain, "chaos").expect("the bus can be joined");
            work(&bus, &log, &stop);
        }));
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the bus.
    pub(crate) fn finish(mut self) -> Log {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the reader works whatever happens around it");
        }
        std::mem::take(&mut *self.log())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Nothing of an instance is removed while somebody reads it.
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn join<T>(what: &str, mut try_join: impl FnMut() -> Result<T, BusError>) -> T {
    wait_until(what, 60, || match try_join() {
        Ok(joined) => Some(joined),
        Err(BusError::Absent { .. }) => None,
        Err(error) => panic!("{what}: {error}"),
    })
}

/// What a call to the bus gave; an error is noted, and there is nothing then.
fn noted<T: Default>(log: &Mutex<Log>, result: Result<T, BusError>) -> T {
    result.unwrap_or_else(|error| {
        let mut log = lock(log);
        if log.errors.len() < 100 {
            log.errors.push(error.to_string());
        }
        T::default()
    })
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frames(bus: &Bus, index: usize, camera: &Camera, log: &Mutex<Log>, stop: &AtomicBool) {
    let reader = join(camera.name, || bus.join_frames(camera.name, "chaos"));
    while !stop.load(Ordering::Relaxed) {
        let _woken = noted(log, reader.waker().wait(LOOK));
        while let Some(frame) = noted(log, reader.receive()) {
            let header = *frame.header();
            let whole = camera.is_whole(frame.plane(0), frame.plane(1));
            let mut log = lock(log);
            if !whole {
                let (epoch, sequence) = (header.epoch_ns, header.sequence);
                log.torn.push(format!("{} {epoch} #{sequence}", camera.name));
            }
            log.frames[index].push(Frame {
                epoch_ns: header.epoch_ns,
                sequence: header.sequence,
                publish_ns: header.publish_ns,
            });
        }
    }
    lock(log).bad_headers += reader.bad_headers();
}

fn answers(bus: &Bus, log: &Mutex<Log>, stop: &AtomicBool) {
    let reader = join("results", || bus.join_results("chaos"));
    while !stop.load(Ordering::Relaxed) {
        let _woken = noted(log, reader.waker().wait(LOOK));
        while let Some(result) = noted(log, reader.receive()) {
            let header = result.header();
            let camera = CAMERAS.iter().position(|camera| camera.name == result.camera());
            lock(log).answers.push(Answer {
                camera: camera.expect("no other cameras are there"),
                epoch_ns: header.epoch_ns,
                sequence: header.sequence,
                result_epoch_ns: header.result_epoch_ns,
                result_sequence: header.result_sequence,
                outcome: result.outcome(),
                result_ns: header.times.result_ns,
            });
        }
    }
    lock(log).bad_headers += reader.bad_headers();
}

fn health(bus: &Bus, records: &std::path::Path, log: &Mutex<Log>, stop: &AtomicBool) {
    let reader = join("health", || bus.join_health());
    let (mut said, mut size) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let _woken = noted(log, reader.waker().wait(LOOK_AT_FILE));
        let grown = std::fs::metadata(records).map_or(0, |data| data.len());
        if grown > size {
            size = grown;
            lock(log).written.push((clock::monotonic_ns(), size));
        }
        said.clear();
        let bad = noted(log, reader.receive_into(&mut said));
        let mut log = lock(log);
        log.bad_headers += bad as u64;
        for record in &said {
            let name = text::unpack(&record.name).to_owned();
            if let Some(difference) = contradiction(record) {
                log.contradictions.push(format!("{name} (pid {}): {difference}", record.pid));
            }
            log.health.insert((record.role, name, record.pid), *record);
        }
    }
}

/// What of a record's counters does not add up.
fn contradiction(record: &Health) -> Option<String> {
    let sum = |counters: &[Counter]| counters.iter().map(|&c| record.counter(c)).sum::<u64>();
    use Counter as C;
    let sides = if record.role == u32::from(Role::Capture) {
        (
            "captured",
            sum(&[C::Captured]),
            sum(&[C::Published, C::LostRate, C::LostMemory, C::LostBad]),
        )
    } else if record.role == u32::from(Role::InferCamera) {
        // What its predecessor had taken, a new process answers without having taken it.
        let taken = sum(&[C::Taken, C::Orphaned]);
        ("taken", taken, sum(&[C::Ok, C::Skipped, C::Superseded, C::Stale, C::Failed]))
    } else {
        return None;
    };
    let (what, left, right) = sides;
    (left.abs_diff(right) > ON_THE_WAY).then(|| format!("{what} {left}, accounted for {right}"))
}
