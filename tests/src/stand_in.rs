//! In the place of the inference process: events and results at an even pace, numbered, so
//! that a reader can say which ones are missing.

use crate::wait_until;
use framebus_bus::{Bus, Domain};
use framebus_service::clock;
use framebus_types::{Detection, Event, EventKind, Outcome, ResultHeader, StageTimes, text};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is published.
#[derive(Debug, Clone)]
pub struct Script {
    /// Cameras, in turn.
    pub cameras: Vec<&'static str>,
    /// Events a second, over all cameras.
    pub events_per_s: u64,
    /// Results a second, over all cameras.
    pub results_per_s: u64,
    /// What each result holds.
    pub detections: Vec<Detection>,
    /// Stage times of each result.
    pub times: StageTimes,
    /// What each event is, apart from its camera and numbers.
    pub event: Event,
}

impl Default for Script {
    fn default() -> Self {
        let event = Event {
            kind: EventKind::Enter.into(),
            place: text::pack("door"),
            label: text::pack("person"),
            track: 7,
            bbox: [10.0, 20.0, 30.5, 40.25],
            score: 0.875,
            width: 1920,
            height: 1080,
            ..Event::default()
        };
        Self {
            cameras: vec!["a", "b"],
            events_per_s: 50,
            results_per_s: 0,
            detections: Vec::new(),
            times: StageTimes::default(),
            event,
        }
    }
}

/// Publishes until it is dropped.
#[derive(Debug)]
pub struct StandIn {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    paused: AtomicBool,
    idle: AtomicBool,
    events: AtomicU64,
    results: AtomicU64,
    script: Mutex<Script>,
}

impl StandIn {
    /// Joins the instance; publishing begins with [`resume`](Self::resume).
    ///
    /// # Panics
    /// When the bus cannot be joined.
    #[must_use]
    pub fn start(domain: &Domain, script: Script) -> Self {
        let bus: Bus = Bus::open(domain, "stand-in").expect("the bus can be joined");
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(true),
            idle: AtomicBool::new(false),
            events: AtomicU64::new(0),
            results: AtomicU64::new(0),
            script: Mutex::new(script),
        });
        let inside = shared.clone();
        let thread = std::thread::spawn(move || inside.run(&bus));
        Self { shared, thread: Some(thread) }
    }

    /// Goes on.
    pub fn resume(&self) {
        self.shared.idle.store(false, Ordering::SeqCst);
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// Pauses, and returns once nothing more is published.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
        wait_until("a pause", 5, || self.shared.idle.load(Ordering::SeqCst).then_some(()));
    }

    /// Events and results that were published.
    #[must_use]
    pub fn sent(&self) -> (u64, u64) {
        (self.shared.events.load(Ordering::SeqCst), self.shared.results.load(Ordering::SeqCst))
    }

    /// Publishes something else from now on.
    ///
    /// # Panics
    /// When the publishing thread has.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock().expect("the stand-in lives"));
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
    fn run(&self, bus: &Bus) {
        let events = bus.event_publisher().expect("events can be published");
        let results = bus.result_publisher(Arc::default()).expect("results can be published");
        let epoch_ns = clock::wall_ns();
        // What is due grows with the time that was not a pause.
        let (mut before_ns, mut due_ns) = (clock::monotonic_ns(), [0_u64; 2]);
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
            let now_ns = clock::monotonic_ns();
            let passed_ns = now_ns - std::mem::replace(&mut before_ns, now_ns);
            if self.paused.load(Ordering::SeqCst) {
                self.idle.store(true, Ordering::SeqCst);
                continue;
            }
            let script = self.script.lock().expect("no panic inside").clone();
            let per_s = [script.events_per_s, script.results_per_s];
            for (due_ns, per_s) in due_ns.iter_mut().zip(per_s) {
                *due_ns += passed_ns * per_s;
            }
            let cameras = script.cameras.len() as u64;
            while due_ns[0] >= 1_000_000_000 {
                due_ns[0] -= 1_000_000_000;
                let number = self.events.load(Ordering::SeqCst);
                let event = Event {
                    camera: text::pack(script.cameras[(number % cameras) as usize]),
                    event_sequence: number,
                    event_epoch_ns: epoch_ns,
                    epoch_ns,
                    sequence: number / cameras,
                    wall_ns: clock::wall_ns(),
                    ..script.event
                };
                events.publish(&[event]).expect("the bus works");
                self.events.store(number + 1, Ordering::SeqCst);
            }
            while due_ns[1] >= 1_000_000_000 {
                due_ns[1] -= 1_000_000_000;
                let number = self.results.load(Ordering::SeqCst);
                let header = ResultHeader {
                    outcome: Outcome::Ok.into(),
                    count: script.detections.len() as u32,
                    camera: text::pack(script.cameras[(number % cameras) as usize]),
                    result_sequence: number,
                    result_epoch_ns: epoch_ns,
                    epoch_ns,
                    sequence: number / cameras,
                    wall_ns: clock::wall_ns(),
                    times: script.times,
                    width: 1920,
                    height: 1080,
                    ..ResultHeader::default()
                };
                results.send(&header, &script.detections).expect("the bus works");
                results.wake();
                self.results.store(number + 1, Ordering::SeqCst);
            }
        }
    }
}
