//! What the fault tests look at: a camera that must notice nothing, what processes
//! hold on to, and what `framebus status` says meanwhile.
//!
//! ```no_run
//! # use framebus_tests::World;
//! use framebus_tests::{Bystander, Usage, show_fault, wait_status};
//! # fn example(world: &World, pid: u32) {
//! let near = Bystander::start(&world.domain(), "near");
//! let before = Usage::of(&[pid]);
//! // … end the RTSP server of camera "net" …
//! show_fault(world, "server gone", "net", "offline", "refused", 5);
//! // … start it again …
//! wait_status(world, "net", "live", "", 10);
//! Usage::assert_flat(before, Usage::of(&[pid]));
//! assert!(near.finish() > 0);
//! # }
//! ```

use crate::{Process, World, wait_until};
use framebus_bus::{Bus, Domain, FrameSubscriber, ResultSubscriber};
use framebus_service::clock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between the starts of two `framebus status`: each takes 2.3 s, and two at
/// once tell of a change about a second after it can be seen.
const STATUS_EVERY_NS: u64 = 1_200_000_000;

/// Watches a camera that a fault elsewhere must not disturb.
///
/// A frame counts as seen when it came as a frame or when a result names it: a live
/// camera keeps only its newest frame for a reader, and on a busy machine one reader
/// alone may be late without anybody being at fault. Keep the camera at 20 fps or less.
#[derive(Debug)]
pub struct Bystander {
    camera: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What has been seen of one camera.
#[derive(Debug, Default)]
struct Seen {
    /// Epochs in the order in which they appeared.
    epochs: Vec<u64>,
    /// Sequence numbers of frames, as they came.
    frames: Vec<u64>,
    /// Sequence numbers that results named.
    results: BTreeSet<u64>,
}

impl Bystander {
    /// Joins a running instance as an observer, for whom nobody waits; returns once
    /// the first frame of `camera` has come.
    ///
    /// # Panics
    /// When none has come after 60 s.
    #[must_use]
    pub fn start(domain: &Domain, camera: &str) -> Self {
        let bus: Bus = Bus::open(domain, "bystander").expect("the bus can be joined");
        let frames = wait_until(&format!("frames/{camera}"), 60, || {
            bus.join_frames(camera, "bystander").ok()
        });
        let results = wait_until("results", 60, || bus.join_results("bystander").ok());
        let (seen, stop) =
            (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (kept, wish, name) = (seen.clone(), stop.clone(), camera.to_owned());
        let thread = std::thread::spawn(move || {
            // The bus must outlive what it handed out.
            let _bus = &bus;
            // Where that is allowed: a reader that gets its turn misses nothing.
            let _ = rustix::process::nice(-10);
            while !wish.load(Ordering::Relaxed) {
                look(&frames, &results, &name, &kept);
            }
        });
        let bystander = Self { camera: camera.to_owned(), seen, stop, thread: Some(thread) };
        wait_until(&format!("a frame of {camera}"), 60, || (bystander.count() > 0).then_some(()));
        bystander
    }

    /// Frames seen so far.
    ///
    /// # Panics
    /// When the watching thread has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.lock().expect("the bystander lives").frames.len()
    }

    /// Asserts that the camera still delivers, that its capture process was not
    /// restarted, and that the frames from the first to the last were seen (one in a
    /// hundred may be missing), each once; returns how many there were.
    ///
    /// # Panics
    /// When that is not so.
    #[must_use = "how many frames there were tells whether the test has tested anything"]
    pub fn finish(mut self) -> usize {
        let before = self.count();
        let what = format!("three more frames of {}", self.camera);
        wait_until(&what, 5, || (self.count() >= before + 3).then_some(()));
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        assert!(ended.is_ok(), "the bystander of {} failed", self.camera);
        let seen = self.seen.lock().expect("the bystander lived");
        assert_eq!(seen.epochs.len(), 1, "{} was restarted: {:?}", self.camera, seen.epochs);
        let repeated = seen.frames.windows(2).find(|pair| pair[1] <= pair[0]);
        assert_eq!(repeated, None, "{} went back", self.camera);
        let (first, last) = (seen.frames[0], seen.frames[seen.frames.len() - 1]);
        let frames: BTreeSet<u64> = seen.frames.iter().copied().collect();
        let missing: Vec<u64> = (first..=last)
            .filter(|number| !frames.contains(number) && !seen.results.contains(number))
            .collect();
        let count = (last - first + 1) as usize;
        // Two frames that a busy machine lets out at once are one to who reads the newest.
        let few = missing.len() <= count.div_ceil(100);
        assert!(few, "{} lost {missing:?} of {count}", self.camera);
        count
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(frames: &FrameSubscriber, results: &ResultSubscriber, camera: &str, seen: &Mutex<Seen>) {
    let _woken = frames.waker().wait(Duration::from_millis(50)).expect("the bus works");
    let mut seen = seen.lock().expect("no panic inside");
    while let Some(frame) = frames.receive().expect("the bus works") {
        let (epoch, sequence) = (frame.header().epoch_ns, frame.header().sequence);
        if !seen.epochs.contains(&epoch) {
            seen.epochs.push(epoch);
        }
        seen.frames.push(sequence);
    }
    while let Some(result) = results.receive().expect("the bus works") {
        if result.camera() == camera && seen.epochs.contains(&result.header().epoch_ns) {
            seen.results.insert(result.header().sequence);
        }
    }
}

/// What processes hold on to, all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Open file descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory, shared memory included.
    pub rss_kib: u64,
}

impl Usage {
    /// Looks into /proc.
    ///
    /// # Panics
    /// When one of the processes is gone.
    #[must_use]
    pub fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::try_of(pid).unwrap_or_else(|| panic!("process {pid} is gone"));
            sum.fds += one.fds;
            sum.threads += one.threads;
            sum.rss_kib += one.rss_kib;
        }
        sum
    }

    /// One process; `None` when it is gone.
    #[must_use]
    pub fn try_of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let figure = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            fds: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            threads: figure("Threads:")? as usize,
            rss_kib: figure("VmRSS:")?,
        })
    }

    /// Whether nothing has grown. A leak shows when a fault comes a few times between
    /// the two looks: the bounds leave room for what comes and goes (a connection, a
    /// thread of a pool), not for that once per fault.
    #[must_use]
    pub fn is_flat(before: Self, after: Self) -> bool {
        after.fds <= before.fds + 2
            && after.threads <= before.threads + 2
            && after.rss_kib <= before.rss_kib + before.rss_kib / 10 + 4096
    }

    /// Asserts that nothing has grown, see [`is_flat`](Self::is_flat).
    ///
    /// # Panics
    /// When something has.
    pub fn assert_flat(before: Self, after: Self) {
        assert!(Self::is_flat(before, after), "grown from {before:?} to {after:?}");
    }
}

/// Files of the instance in /dev/shm and their sizes in bytes.
#[must_use]
pub fn shm_files(domain: &Domain) -> BTreeMap<String, u64> {
    std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry))
        .filter(|(name, _)| name.starts_with(domain.shm_prefix()))
        // One that goes between the two looks has no size.
        .map(|(name, entry)| (name, entry.metadata().map_or(0, |data| data.len())))
        .collect()
}

/// One camera or process in the answer of `framebus status --json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRow {
    /// `camera`, or the role of a process: `capture`, `infer`, `infer-camera`,
    /// `sink`, `child`.
    pub kind: String,
    /// Name of the camera or process.
    pub name: String,
    /// State as printed.
    pub state: String,
    /// Why it is in that state; may be empty.
    pub reason: String,
    /// Process id; 0 for cameras.
    pub pid: u32,
    /// Counters above 0 by name; none for cameras.
    pub counters: BTreeMap<String, u64>,
}

impl StatusRow {
    fn new(kind: &str, value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let counters = value["counters"].as_object().into_iter().flatten();
        Self {
            kind: kind.to_owned(),
            name: text("name"),
            state: text("state"),
            reason: text("reason"),
            pid: value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            counters: counters
                .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
                .collect(),
        }
    }
}

/// What `framebus status --json` says; takes the 2.3 s that it takes. Empty when
/// nothing runs.
///
/// # Panics
/// When the command fails or prints something else.
#[must_use]
pub fn status(world: &World) -> Vec<StatusRow> {
    rows(&mut start_status(world, 0))
}

fn start_status(world: &World, number: usize) -> Process {
    let config = world.path("framebus.toml").display().to_string();
    let args = ["status", "--json", "--config", &config];
    world.framebus(&format!("status{number}"), &args)
}

fn rows(status: &mut Process) -> Vec<StatusRow> {
    let exit = status.wait(20);
    assert!(matches!(exit.code, Some(0 | 1 | 69)), "{exit:?}");
    let Ok(value) = serde_json::from_str::<Value>(&exit.stdout) else {
        assert_eq!(exit.code, Some(69), "{exit:?}");
        return Vec::new();
    };
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let cameras = list("cameras").into_iter().map(|value| StatusRow::new("camera", &value));
    let processes = list("processes").into_iter().map(|value| {
        let role = value["role"].as_str().unwrap_or_default().to_owned();
        StatusRow::new(&role, &value)
    });
    cameras.chain(processes).collect()
}

/// Asks `framebus status` until a row satisfies `done`; returns it and after how long
/// it was said.
///
/// # Panics
/// When none does within `deadline_s`; what was said is shown.
pub fn wait_row(
    world: &World,
    what: &str,
    deadline_s: u64,
    done: impl Fn(&StatusRow) -> bool,
) -> (StatusRow, Duration) {
    let start_ns = clock::monotonic_ns();
    let (mut running, mut next_ns, mut number): (Vec<Process>, u64, usize) = (Vec::new(), 0, 0);
    let mut said = Vec::new();
    loop {
        let now_ns = clock::monotonic_ns();
        if running.len() < 2 && now_ns >= next_ns {
            number += 1;
            next_ns = now_ns + STATUS_EVERY_NS;
            running.push(start_status(world, number));
        }
        if let Some(at) = running.iter_mut().position(|status| !status.is_running()) {
            said = rows(&mut running.remove(at));
            if let Some(row) = said.iter().find(|row| done(row)) {
                let after = Duration::from_nanos(clock::monotonic_ns() - start_ns);
                return (row.clone(), after);
            }
        }
        let late = now_ns > start_ns + deadline_s * 1_000_000_000;
        assert!(!late, "status did not say {what} in {deadline_s} s but: {said:#?}");
        #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_camera(
    world: &World,
    camera: &str,
    state: &str,
    words: &str,
    deadline_s: u64,
) -> (StatusRow, Duration) {
    let words = words.to_lowercase();
    wait_row(world, &format!("{camera} {state} ({words})"), deadline_s, |row| {
        row.kind == "camera"
            && row.name == camera
            && row.state == state
            && row.reason.to_lowercase().contains(&words)
    })
}

/// Waits until `framebus status` says that `camera` is in `state` with `words` in its
/// reason (whatever their letter case); returns after how long it did.
///
/// # Panics
/// When it does not within `deadline_s`.
pub fn wait_status(
    world: &World,
    camera: &str,
    state: &str,
    words: &str,
    deadline_s: u64,
) -> Duration {
    wait_camera(world, camera, state, words, deadline_s).1
}

/// As [`wait_status`], right after a fault was injected: also prints the line from
/// which `make faults` makes its table.
///
/// # Panics
/// When status does not say so within `deadline_s`.
pub fn show_fault(
    world: &World,
    fault: &str,
    camera: &str,
    state: &str,
    words: &str,
    deadline_s: u64,
) -> Duration {
    let (row, after) = wait_camera(world, camera, state, words, deadline_s);
    print_fault(fault, &row, after);
    after
}

/// Prints the line of a fault whose row came from [`wait_row`]: for faults of
/// processes, which belong to no camera.
#[allow(clippy::print_stdout, reason = "make faults reads it")]
pub fn print_fault(fault: &str, row: &StatusRow, after: Duration) {
    let StatusRow { kind, name, state, reason, .. } = row;
    println!("FAULT {fault} | {kind} {name}: {state} ({reason}) | {:.1}", after.as_secs_f64());
}
