//! What the processes of an instance say of themselves: states, rates, quantiles and
//! totals out of their health records.
//!
//! `framebus status`, `top` and the sinks that speak of states all read them here, so that
//! they say the same.

mod camera;
mod latency;

pub use camera::camera_state;
pub use framebus_types::{Counter, Health, Role, Stage, State};
pub use latency::Latency;

use framebus_types::{COUNTERS, STAGES, text};
use std::collections::{BTreeMap, VecDeque};

/// Rates and quantiles speak of this much time, ns: short enough to follow
/// what happens, long enough for a 99th percentile of a slow camera.
const WINDOW_NS: u64 = 5_000_000_000;
/// Records closer together than this give no rate, ns.
const RATE_MIN_NS: u64 = 500_000_000;
/// Processes report once a second: who has missed two reports is not well, ns. What
/// is wrong must show within 5 s, of which `framebus status` takes half.
const SILENT_NS: u64 = 2_500_000_000;
/// A process that works makes progress many times a second; its reports say when it
/// did last, to the second, ns.
const IDLE_NS: u64 = 4_000_000_000;
/// What ended in order is spoken of for so long, ns.
const REMEMBERED_NS: u64 = 5_000_000_000;
/// Names are taken from whoever writes on the bus: with 64 cameras there are some 200.
const TRACKS_MAX: usize = 512;
/// Records kept of one name: one a second, and a few at changes of state.
const RECORDS_MAX: usize = 16;

/// Counters that count lost frames, with the word for their cause.
pub const CAPTURE_DROPS: [(Counter, &str); 4] = [
    (Counter::Undecoded, "undecoded"),
    (Counter::LostRate, "rate"),
    (Counter::LostMemory, "memory"),
    (Counter::LostBad, "layout"),
];
/// As [`CAPTURE_DROPS`], for the inference process.
pub const INFER_DROPS: [(Counter, &str); 5] = [
    (Counter::Missed, "missed"),
    (Counter::Superseded, "superseded"),
    (Counter::Stale, "stale"),
    (Counter::Skipped, "skipped"),
    (Counter::Failed, "failed"),
];

/// Name of a child's health record, as cut to its field: `capture:front`, `infer`.
#[must_use]
pub fn child_name(role: &str, name: &str) -> String {
    if role == Role::Infer.as_str() {
        return role.to_owned();
    }
    text::unpack(&text::pack::<32>(&format!("{role}:{name}"))).to_owned()
}

/// The records of all processes, newest first to be seen.
#[derive(Debug, Default)]
pub struct Collector {
    tracks: BTreeMap<(Role, String), Track>,
}

impl Collector {
    /// Takes a record; older ones than the newest known are left out, and new names
    /// beyond a bound that no instance reaches.
    pub fn add(&mut self, record: &Health) {
        let Ok(role) = Role::try_from(record.role) else { return };
        let name = text::plain(text::unpack(&record.name));
        let full = self.tracks.len() >= TRACKS_MAX;
        match self.tracks.get_mut(&(role, name.clone())) {
            Some(track) => track.add(record),
            None if !full => {
                self.tracks.insert((role, name), Track::new(record));
            }
            None => {}
        }
    }

    /// What was heard of the one called `name`.
    #[must_use]
    pub fn track(&self, role: Role, name: &str) -> Option<&Track> {
        self.tracks.get(&(role, name.to_owned()))
    }

    /// All that somebody spoke of, by role and name.
    pub fn tracks(&self) -> impl Iterator<Item = (Role, &str, &Track)> {
        self.tracks.iter().map(|((role, name), track)| (*role, name.as_str(), track))
    }

    /// Whether nothing was heard yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Drops what has stopped in order a while ago, and cameras that inference does not
    /// speak of any more: a reload has taken them out.
    pub fn forget_stopped(&mut self, now_ns: u64) {
        let infers = self.track(Role::Infer, "infer").is_some_and(|t| !t.is_silent(now_ns));
        self.tracks.retain(|(role, _), track| {
            let record = track.latest();
            let stopped = record.state == State::Stopping as u32
                || (*role == Role::InferCamera && infers && track.is_silent(now_ns));
            !stopped || now_ns.saturating_sub(record.updated_ns) < REMEMBERED_NS
        });
    }

    /// Names of all cameras that a process spoke of.
    pub fn cameras(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .tracks
            .keys()
            .filter(|(role, _)| matches!(role, Role::Capture | Role::InferCamera))
            .map(|(_, name)| name.clone())
            .collect();
        // One whose capture never came so far that it reported. Its name may be cut.
        for (_, child) in self.tracks.keys().filter(|(role, _)| *role == Role::Child) {
            let Some(camera) = child.strip_prefix("capture:") else { continue };
            if !names.iter().any(|name| child_name("capture", name) == *child) {
                names.push(camera.to_owned());
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// What the supervisor says of a child that is not live. `None` also when it is
    /// silent itself: what the child says then counts.
    pub fn unwell_child(&self, role: &str, name: &str, now_ns: u64) -> Option<(State, String)> {
        let track = self.track(Role::Child, &child_name(role, name))?;
        (!track.is_silent(now_ns))
            .then(|| track.state(now_ns))
            .filter(|(state, _)| *state != State::Live)
    }

    /// State of what `track` is of.
    pub fn state_of(&self, role: Role, name: &str, track: &Track, now_ns: u64) -> (State, String) {
        match role {
            Role::Capture | Role::Infer | Role::Sink => self.process_state(role, name, now_ns),
            Role::InferCamera | Role::Child => None,
        }
        .unwrap_or_else(|| track.state(now_ns))
    }

    /// State of a capture, inference or sink process: the supervisor knows best when it
    /// is not there, the process itself what it does.
    pub fn process_state(&self, role: Role, name: &str, now_ns: u64) -> Option<(State, String)> {
        let track = self.track(role, name);
        let own = track.map(|track| track.state(now_ns));
        // Silence is that of its predecessor.
        let says = track.filter(|track| !track.is_silent(now_ns)).and(own.as_ref());
        match (self.unwell_child(role.as_str(), name, now_ns), says) {
            (Some((state, why)), Some((_, said))) if why.is_empty() => Some((state, said.clone())),
            (Some(child), _) => Some(child),
            (None, _) => own,
        }
    }
}

/// The records of one camera or process.
#[derive(Debug)]
pub struct Track {
    /// Newest at the back; never empty.
    window: VecDeque<Health>,
    /// What processes of this name counted before they were restarted.
    past: Totals,
    /// The last record without frames and the first one with some.
    first_ns: Option<u64>,
}

/// Sums over restarts.
#[derive(Debug, Clone)]
struct Totals {
    counters: [u64; COUNTERS],
    stages: Box<[Latency; STAGES]>,
}

impl Default for Totals {
    fn default() -> Self {
        let stages = Box::new(std::array::from_fn(|_| Latency::default()));
        Self { counters: [0; COUNTERS], stages }
    }
}

impl Totals {
    fn add(&mut self, record: &Health) {
        for (sum, count) in self.counters.iter_mut().zip(record.counters) {
            *sum = sum.wrapping_add(count);
        }
        for (sum, stage) in self.stages.iter_mut().zip(&record.stages) {
            sum.merge(&Latency::between(stage, None));
        }
    }
}

impl Track {
    fn new(record: &Health) -> Self {
        Self {
            first_ns: moves(record).then_some(record.updated_ns),
            window: VecDeque::from([*record]),
            past: Totals::default(),
        }
    }

    fn add(&mut self, record: &Health) {
        let newest = *self.latest();
        if record.updated_ns <= newest.updated_ns && record.pid == newest.pid {
            return;
        }
        if record.started_wall_ns != newest.started_wall_ns {
            self.past.add(&newest);
            self.window.clear();
        } else if self.first_ns.is_none() && moves(record) {
            self.first_ns = Some(newest.updated_ns);
        }
        self.window.push_back(*record);
        while self.window.len() > RECORDS_MAX
            || self.window.get(1).is_some_and(|second| {
                record.updated_ns.saturating_sub(second.updated_ns) >= WINDOW_NS
            })
        {
            self.window.pop_front();
        }
    }

    /// The newest record.
    pub fn latest(&self) -> &Health {
        // Never empty: made with one record, cleared only to take another.
        &self.window[self.window.len() - 1]
    }

    /// The state that was reported, or what its absence says.
    pub fn state(&self, now_ns: u64) -> (State, String) {
        let record = self.latest();
        let state = State::try_from(record.state).unwrap_or(State::Degraded);
        self.lapse(now_ns).unwrap_or_else(|| (state, text::plain(text::unpack(&record.reason))))
    }

    /// `Offline` when nothing was heard for a while, `Stalled` when reports come but
    /// the process does nothing any more.
    pub fn lapse(&self, now_ns: u64) -> Option<(State, String)> {
        let record = self.latest();
        let state = State::try_from(record.state).unwrap_or(State::Degraded);
        if matches!(state, State::Ended | State::Disabled | State::Stopping) {
            return None;
        }
        if self.is_silent(now_ns) {
            let silent_s = now_ns.saturating_sub(record.updated_ns) / 1_000_000_000;
            return Some((State::Offline, format!("silent for {silent_s} s")));
        }
        let idle_ns = self.idle_ns(now_ns);
        let works = matches!(state, State::Live | State::Degraded);
        (works && idle_ns > IDLE_NS).then(|| {
            (State::Stalled, format!("hangs: no progress for {} s", idle_ns / 1_000_000_000))
        })
    }

    /// Whether reports do not come any more.
    pub fn is_silent(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.latest().updated_ns) > SILENT_NS
    }

    /// Time since the process did something; 0 while it has not said.
    pub fn idle_ns(&self, now_ns: u64) -> u64 {
        match self.latest().progress_ns {
            0 => 0,
            progress_ns => now_ns.saturating_sub(progress_ns),
        }
    }

    /// Events per second over the last seconds.
    pub fn rate(&self, counter: Counter) -> Option<f64> {
        let (older, newer) = (self.window.front()?, self.window.back()?);
        let span_ns = newer.updated_ns.saturating_sub(older.updated_ns);
        if span_ns < RATE_MIN_NS {
            return None;
        }
        let count = newer.counter(counter).saturating_sub(older.counter(counter));
        Some(count as f64 * 1e9 / span_ns as f64)
    }

    /// Durations of a stage over the last seconds; the longest one is that since
    /// the process started.
    pub fn latency(&self, stage: Stage) -> Latency {
        let older = self.window.front().filter(|_| self.window.len() > 1);
        let older = older.map(|record| &record.stages[stage as usize]);
        Latency::between(&self.latest().stages[stage as usize], older)
    }

    /// A counter over all processes of this name.
    pub fn total(&self, counter: Counter) -> u64 {
        self.past.counters[counter as usize].wrapping_add(self.latest().counter(counter))
    }

    /// Durations of a stage over all processes of this name.
    pub fn total_latency(&self, stage: Stage) -> Latency {
        let mut total = self.past.stages[stage as usize].clone();
        total.merge(&Latency::between(&self.latest().stages[stage as usize], None));
        total
    }

    /// Events per second between the first frame and the newest record.
    pub fn total_rate(&self, counter: Counter) -> Option<f64> {
        let span_ns = self.latest().updated_ns.saturating_sub(self.first_ns?);
        (span_ns >= RATE_MIN_NS).then(|| self.total(counter) as f64 * 1e9 / span_ns as f64)
    }

    /// Non-zero drops: cause and total.
    pub fn drops(&self, causes: &[(Counter, &'static str)]) -> Vec<(&'static str, u64)> {
        causes
            .iter()
            .map(|(counter, cause)| (*cause, self.total(*counter)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Whether frames have come.
fn moves(record: &Health) -> bool {
    record.counter(Counter::Captured) > 0 || record.counter(Counter::Taken) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::histogram::bucket;

    const S: u64 = 1_000_000_000;

    fn record(started: u64, updated_ns: u64, published: u64, ms: u64) -> Health {
        let mut health = Health {
            role: Role::Capture.into(),
            name: text::pack("a"),
            state: State::Live.into(),
            started_wall_ns: started,
            updated_ns,
            ..Health::default()
        };
        health.counters[Counter::Captured as usize] = published;
        health.counters[Counter::Published as usize] = published;
        health.counters[Counter::LostMemory as usize] = 1;
        health.stages[Stage::Total as usize].counts[bucket(ms * 1_000_000)] = published as u32;
        health
    }

    #[test]
    fn rates_come_from_the_last_seconds_and_totals_from_all() {
        let mut collector = Collector::default();
        for second in 1..=20 {
            // 10 frames a second for 10 s, then 30.
            let published = if second <= 10 { second * 10 } else { 100 + (second - 10) * 30 };
            collector.add(&record(7, second * S, published, 20));
        }
        let track = collector.track(Role::Capture, "a").expect("added");
        assert_eq!(track.rate(Counter::Published), Some(30.0));
        assert_eq!(track.total(Counter::Published), 400);
        assert_eq!(track.drops(&CAPTURE_DROPS), [("memory", 1)]);
        assert_eq!(collector.cameras(), ["a"]);
    }

    #[test]
    fn one_record_gives_no_rate() {
        let mut collector = Collector::default();
        collector.add(&record(7, S, 10, 20));
        collector.add(&record(7, S, 10, 20));
        let track = collector.track(Role::Capture, "a").expect("added");
        assert_eq!(track.rate(Counter::Published), None);
        let p50 = track.latency(Stage::Total).quantile_ms(0.5).expect("counted");
        assert!((p50 / 20.0 - 1.0).abs() < 0.13, "{p50}");
    }

    #[test]
    fn a_restart_keeps_what_was_counted() {
        let mut collector = Collector::default();
        collector.add(&record(7, S, 100, 10));
        collector.add(&record(8, 3 * S, 1, 40));
        collector.add(&record(8, 4 * S, 21, 40));
        let track = collector.track(Role::Capture, "a").expect("added");
        assert_eq!(track.total(Counter::Published), 121);
        assert_eq!(track.rate(Counter::Published), Some(20.0));
        let total = track.total_latency(Stage::Total);
        let p50 = total.quantile_ms(0.5).expect("counted");
        let p99 = total.quantile_ms(0.99).expect("counted");
        assert!(p50 < 12.0 && p99 > 35.0, "{p50} {p99}");
        let now_p50 = track.latency(Stage::Total).quantile_ms(0.5).expect("counted");
        assert!(now_p50 > 35.0, "{now_p50}");
    }

    #[test]
    fn invented_names_and_hasty_reports_take_bounded_memory() {
        let mut collector = Collector::default();
        collector.add(&record(7, S, 1, 1));
        for number in 0..2000 {
            let name = text::pack(&format!("invented-{number}"));
            collector.add(&Health { name, ..record(7, S, 1, 1) });
            collector.add(&record(7, S + number, 1, 1));
        }
        assert_eq!(collector.tracks().count(), TRACKS_MAX);
        let track = collector.track(Role::Capture, "a").expect("known before");
        assert_eq!((track.window.len(), track.latest().updated_ns), (RECORDS_MAX, S + 1999));
    }

    #[test]
    fn silence_is_a_state() {
        let track = Track::new(&record(7, S, 1, 1));
        assert_eq!(track.state(2 * S).0, State::Live);
        assert_eq!(track.state(10 * S), (State::Offline, "silent for 9 s".to_owned()));
    }

    #[test]
    fn reports_without_progress_are_a_hang_except_while_nothing_is_claimed() {
        let mut hanging = record(7, 20 * S, 1, 1);
        hanging.progress_ns = 12 * S;
        let said = Track::new(&hanging).state(20 * S);
        assert_eq!(said, (State::Stalled, "hangs: no progress for 8 s".to_owned()));
        hanging.state = State::Starting.into();
        assert_eq!(Track::new(&hanging).state(20 * S).0, State::Starting);
        assert_eq!(Track::new(&record(7, S, 1, 1)).idle_ns(9 * S), 0, "not said yet");
    }

    #[test]
    fn cameras_are_those_that_somebody_speaks_of() {
        let child = |name: &str, state: State| Health {
            role: Role::Child.into(),
            name: text::pack(&child_name("capture", name)),
            state: state.into(),
            updated_ns: S,
            ..Health::default()
        };
        let long = "a-camera-with-a-name-of-31-byte";
        let mut collector = Collector::default();
        collector.add(&child("never-came", State::Offline));
        collector.add(&child(long, State::Live));
        collector.add(&Health { name: text::pack(long), ..record(7, S, 1, 1) });
        assert_eq!(collector.cameras(), [long, "never-came"]);
        collector.add(&Health {
            name: text::pack("gone"),
            state: State::Stopping.into(),
            ..record(7, S, 1, 1)
        });
        collector.forget_stopped(2 * S);
        assert_eq!(collector.cameras().len(), 3);
        collector.forget_stopped(7 * S);
        assert_eq!(collector.cameras(), [long, "never-came"]);
    }
}
