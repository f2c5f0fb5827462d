//! Readers that keep everything they see, on threads of their own.

use crate::wait_until;
use framebus_bus::{Bus, Domain, HealthSubscriber, ResultSample, ResultSubscriber};
use framebus_client::{Event, Events};
use framebus_types::{Health, Outcome, Reason, Role, StageTimes, State, text};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(50);

/// A detection outside of shared memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Class name.
    pub label: String,
    /// Class number.
    pub class: u32,
    /// Confidence, 0..=1.
    pub score: f32,
    /// Left, top, right, bottom in source pixels.
    pub bbox: [f32; 4],
}

/// A result outside of shared memory.
#[derive(Debug, Clone)]
pub struct Row {
    /// Camera name.
    pub camera: String,
    /// Start of the capture process that made the frame.
    pub epoch_ns: u64,
    /// Sequence number of the frame.
    pub sequence: u64,
    /// Sequence number of the result.
    pub result_sequence: u64,
    /// What became of the frame.
    pub outcome: Outcome,
    /// Why it was not inferred.
    pub reason: Reason,
    /// Frame width and height.
    pub size: (u32, u32),
    /// Backend that answered.
    pub backend: String,
    /// Stage times.
    pub times: StageTimes,
    /// What was found.
    pub detections: Vec<Found>,
}

impl Row {
    fn new(result: &ResultSample) -> Self {
        let header = result.header();
        let found = |d: &framebus_types::Detection| Found {
            label: d.label().to_owned(),
            class: d.class,
            score: d.score,
            bbox: d.bbox,
        };
        Self {
            camera: result.camera().to_owned(),
            epoch_ns: header.epoch_ns,
            sequence: header.sequence,
            result_sequence: header.result_sequence,
            outcome: result.outcome(),
            reason: result.reason(),
            size: (header.width, header.height),
            backend: header.backend().to_owned(),
            times: header.times,
            detections: result.detections().iter().map(found).collect(),
        }
    }
}

/// A thread that ends with its owner.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Calls `step` until stopped, and once more then.
    fn start(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let wish = stop.clone();
        let thread = std::thread::spawn(move || {
            while !wish.load(Ordering::Relaxed) {
                step();
            }
            step();
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps every event of an instance.
#[derive(Debug)]
pub struct EventLog {
    /// Events, and how many were lost.
    kept: Arc<Mutex<(Vec<Event>, u64)>>,
    worker: Worker,
}

impl EventLog {
    /// Subscribes before anything is published, as [`Collector::start`] does.
    ///
    /// # Panics
    /// When the bus cannot be joined.
    #[must_use]
    pub fn start(domain: &Domain) -> Self {
        let bus: Bus = Bus::open(domain, "events").expect("the bus can be joined");
        let mut events = Events::new(bus.event_subscriber("events").expect("events can be read"));
        let kept = Arc::new(Mutex::new((Vec::new(), 0)));
        let own = kept.clone();
        let worker = Worker::start(move || {
            // The bus must outlive what it handed out.
            let _bus = &bus;
            let mut next = events.wait_for(LOOK).expect("the bus");
            let mut kept = own.lock().expect("no panic inside");
            while let Some(event) = next {
                kept.0.push(event);
                next = events.poll().expect("the bus");
            }
            kept.1 = events.lost() + events.bad_events();
        });
        Self { kept, worker }
    }

    /// Leaves the bus and answers what came.
    ///
    /// # Panics
    /// When an event was lost or could not be understood.
    #[must_use]
    pub fn finish(self) -> Vec<Event> {
        drop(self.worker);
        let mut kept = self.kept.lock().expect("no panic inside");
        assert_eq!(kept.1, 0, "events were lost");
        std::mem::take(&mut kept.0)
    }
}

/// Keeps every result of an instance.
#[derive(Debug)]
pub struct Collector {
    rows: Arc<Mutex<Vec<Row>>>,
    worker: Worker,
}

impl Collector {
    /// Subscribes before anything is published: the services are created with
    /// the domain's own limits.
    ///
    /// # Panics
    /// When the bus cannot be joined.
    #[must_use]
    pub fn start(domain: &Domain) -> Self {
        let bus: Bus = Bus::open(domain, "collector").expect("the bus can be joined");
        let subscriber = bus.result_subscriber("collector").expect("results can be read");
        let rows = Arc::new(Mutex::new(Vec::new()));
        let kept = rows.clone();
        let worker = Worker::start(move || {
            // The bus must outlive what it handed out.
            let _bus = &bus;
            collect(&subscriber, &kept);
        });
        Self { rows, worker }
    }

    /// What has come so far.
    ///
    /// # Panics
    /// When the collecting thread has.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.rows.lock().expect("the collector lives").clone()
    }

    /// Waits until `done` says so and returns what has come.
    ///
    /// # Panics
    /// When it does not within `deadline_s`.
    pub fn wait(&self, what: &str, deadline_s: u64, done: impl Fn(&[Row]) -> bool) -> Vec<Row> {
        wait_until(what, deadline_s, || {
            let rows = self.rows.lock().expect("the collector lives");
            done(&rows).then(|| rows.clone())
        })
    }

    /// Waits for `count` more `ok` results of `camera` than there are now.
    ///
    /// # Panics
    /// When they do not come within `deadline_s`.
    pub fn wait_more(&self, camera: &str, count: usize, deadline_s: u64) {
        let ok = |rows: &[Row]| {
            rows.iter().filter(|r| r.camera == camera && r.outcome == Outcome::Ok).count()
        };
        let before = ok(&self.rows.lock().expect("the collector lives"));
        let what = format!("{count} more ok results of {camera} after {before}");
        self.wait(&what, deadline_s, |rows| ok(rows) >= before + count);
    }

    /// Takes what is still waiting and ends.
    ///
    /// # Panics
    /// When the collecting thread has.
    #[must_use]
    pub fn finish(self) -> Vec<Row> {
        drop(self.worker);
        std::mem::take(&mut *self.rows.lock().expect("the collector lived"))
    }
}

fn collect(subscriber: &ResultSubscriber, rows: &Mutex<Vec<Row>>) {
    let _woken = subscriber.waker().wait(LOOK).expect("the bus works");
    while let Some(result) = subscriber.receive().expect("the bus works") {
        rows.lock().expect("no panic inside").push(Row::new(&result));
    }
}

/// Keeps the newest health record of everything, and every state that was seen.
#[derive(Debug)]
pub struct HealthWatch {
    seen: Arc<Mutex<Vec<Health>>>,
    _worker: Worker,
}

impl HealthWatch {
    /// Subscribes; the service is created with the domain's own limits.
    ///
    /// # Panics
    /// When the bus cannot be joined.
    #[must_use]
    pub fn start(domain: &Domain) -> Self {
        let bus: Bus = Bus::open(domain, "health-watch").expect("the bus can be joined");
        let subscriber: HealthSubscriber = bus.health_subscriber().expect("health can be read");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let worker = Worker::start(move || {
            let _bus = &bus;
            let _woken = subscriber.waker().wait(LOOK).expect("the bus works");
            let mut records = Vec::new();
            let bad = subscriber.receive_into(&mut records).expect("the bus works");
            assert_eq!(bad, 0, "health records that make no sense");
            kept.lock().expect("no panic inside").append(&mut records);
        });
        Self { seen, _worker: worker }
    }

    /// The newest record of `role` and `name`.
    ///
    /// # Panics
    /// When the watching thread has.
    #[must_use]
    pub fn newest(&self, role: Role, name: &str) -> Option<Health> {
        let seen = self.seen.lock().expect("the watch lives");
        seen.iter().rev().find(|record| is(record, role, name)).copied()
    }

    /// States of `role` and `name` in the order in which they were first said,
    /// with their reasons.
    ///
    /// # Panics
    /// When the watching thread has.
    #[must_use]
    pub fn states(&self, role: Role, name: &str) -> Vec<(State, String)> {
        let seen = self.seen.lock().expect("the watch lives");
        let mut states: Vec<(State, String)> = Vec::new();
        for record in seen.iter().filter(|record| is(record, role, name)) {
            let Ok(state) = State::try_from(record.state) else { continue };
            let state = (state, text::unpack(&record.reason).to_owned());
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        states
    }

    /// Waits until the newest record of `role` and `name` satisfies `done`.
    ///
    /// # Panics
    /// When it does not within `deadline_s`; the states seen are shown.
    pub fn wait(
        &self,
        role: Role,
        name: &str,
        deadline_s: u64,
        done: impl Fn(&Health) -> bool,
    ) -> Health {
        let end_ns = framebus_service::clock::monotonic_ns() + deadline_s * 1_000_000_000;
        wait_until(&format!("health of {role} {name}"), deadline_s + 1, || {
            let newest = self.newest(role, name).filter(&done);
            assert!(
                newest.is_some() || framebus_service::clock::monotonic_ns() < end_ns,
                "{role} {name} said in {deadline_s} s: {:?}",
                self.states(role, name)
            );
            newest
        })
    }

    /// Waits until `role` and `name` is in `state`.
    ///
    /// # Panics
    /// When it is not within `deadline_s`.
    pub fn wait_state(&self, role: Role, name: &str, state: State, deadline_s: u64) -> Health {
        self.wait(role, name, deadline_s, |record| record.state == u32::from(state))
    }
}

fn is(record: &Health, role: Role, name: &str) -> bool {
    record.role == u32::from(role) && text::unpack(&record.name) == name
}
