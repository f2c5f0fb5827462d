//! What `framebus up` sees and shows: the reports of all processes, changes of state,
//! the live table, and when the last result of a recording has come.

use crate::report;
use crate::screen::Screen;
use crate::stats::Collector;
use framebus_bus::HealthSubscriber;
use framebus_service::{Vitals, without_figures};
use framebus_types::{Counter, Health, Role, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The live table is redrawn this often, ns.
const TABLE_NS: u64 = 1_000_000_000;
/// Without a live table, cameras are summed up this often, ns.
const SUMMARY_NS: u64 = 10_000_000_000;
/// After the last camera has ended: nothing moving for so long means that
/// nothing more comes. Processes report once a second, ns.
const QUIET_NS: u64 = 2_500_000_000;

/// Collects what all processes say.
pub(crate) struct Watch {
    health: HealthSubscriber,
    pub(crate) vitals: Vec<Arc<Vitals>>,
    pub(crate) collector: Collector,
    records: Vec<Health>,
}

impl Watch {
    pub(crate) fn new(health: HealthSubscriber, vitals: Vec<Arc<Vitals>>) -> Self {
        Self { health, vitals, collector: Collector::default(), records: Vec::new() }
    }

    pub(crate) fn look(&mut self) {
        self.records.clear();
        if let Err(error) = self.health.receive_into(&mut self.records) {
            tracing::warn!(%error, "health cannot be read");
        }
        // Those of the children are known first-hand, and fresher.
        let others = self.records.iter().filter(|record| record.role != Role::Child as u32);
        others.for_each(|record| self.collector.add(record));
        self.vitals.iter().for_each(|vitals| self.collector.add(&vitals.snapshot()));
    }
}

/// What is on the screen.
pub(crate) struct Shown {
    /// What was said of each, without figures.
    states: BTreeMap<String, String>,
    table_ns: u64,
    summary_ns: u64,
}

impl Shown {
    pub(crate) fn new(now_ns: u64) -> Self {
        Self { states: BTreeMap::new(), table_ns: 0, summary_ns: now_ns }
    }

    pub(crate) fn show(
        &mut self,
        screen: &Screen,
        collector: &Collector,
        names: &[String],
        now_ns: u64,
    ) {
        if screen.is_live() {
            if now_ns.saturating_sub(self.table_ns) >= TABLE_NS {
                self.table_ns = now_ns;
                let engine = report::engine(collector, now_ns).unwrap_or_default();
                let cameras = report::cameras(collector, names, now_ns, false, screen.columns());
                screen.table(&format!("{engine}\n{cameras}"));
            }
            return;
        }
        let mut states = Vec::new();
        for name in names {
            let camera = report::Camera::new(collector, name, now_ns);
            states.push((format!("camera {name}"), camera.state, camera.reason));
        }
        for (role, name, _) in collector.tracks() {
            let shown = match role {
                Role::Infer => "infer".to_owned(),
                Role::Sink => format!("sink {name}"),
                _ => continue,
            };
            let state = collector.process_state(role, name, now_ns);
            states.extend(state.map(|(state, reason)| (shown, state, reason)));
        }
        for (name, state, reason) in states {
            let text = report::state_text(state, &reason);
            let cause = without_figures(&text);
            if self.states.get(&name) != Some(&cause) && state != State::Stopping {
                screen.line(&format!("{name}: {text}"));
                self.states.insert(name, cause);
            }
        }
        if now_ns.saturating_sub(self.summary_ns) >= SUMMARY_NS {
            self.summary_ns = now_ns;
            for name in names {
                screen.line(&report::Camera::new(collector, name, now_ns).line());
            }
        }
    }
}

/// Waits until the results of all frames are there.
pub(crate) struct Drain {
    moved_ns: u64,
    seen: u64,
}

impl Drain {
    pub(crate) fn new(now_ns: u64) -> Self {
        Self { moved_ns: now_ns, seen: u64::MAX }
    }

    pub(crate) fn is_done(&mut self, collector: &Collector, names: &[String], now_ns: u64) -> bool {
        let answers = [
            Counter::Ok,
            Counter::Skipped,
            Counter::Superseded,
            Counter::Stale,
            Counter::Failed,
            Counter::Missed,
        ];
        let (mut published, mut answered) = (0, 0);
        for name in names {
            let total = |role, counter| collector.track(role, name).map_or(0, |t| t.total(counter));
            published += total(Role::Capture, Counter::Published);
            answered +=
                answers.map(|counter| total(Role::InferCamera, counter)).iter().sum::<u64>();
        }
        if answered != self.seen {
            (self.seen, self.moved_ns) = (answered, now_ns);
        }
        answered >= published || now_ns.saturating_sub(self.moved_ns) >= QUIET_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::text;

    #[test]
    fn a_state_is_new_by_its_cause_not_by_its_figures() {
        let said = |state, reason| without_figures(&report::state_text(state, reason));
        let silent = said(State::Offline, "silent for 9 s");
        assert_eq!(silent, said(State::Offline, "silent for 10 s"));
        assert_ne!(silent, said(State::Offline, "connection refused"));
        assert_ne!(silent, said(State::Stalled, "silent for 9 s"));
    }

    #[test]
    fn draining_ends_with_the_last_result_or_when_nothing_moves() {
        let record = |role: Role, counter: Counter, value| {
            let mut health =
                Health { role: role.into(), name: text::pack("a"), ..Health::default() };
            health.updated_ns = value;
            health.counters[counter as usize] = value;
            health
        };
        let names = ["a".to_owned()];
        let mut collector = Collector::default();
        let mut drain = Drain::new(0);
        collector.add(&record(Role::Capture, Counter::Published, 5));
        collector.add(&record(Role::InferCamera, Counter::Ok, 4));
        assert!(!drain.is_done(&collector, &names, 1));
        assert!(!drain.is_done(&collector, &names, QUIET_NS));
        assert!(drain.is_done(&collector, &names, QUIET_NS + 1));
        collector.add(&record(Role::InferCamera, Counter::Ok, 5));
        assert!(drain.is_done(&collector, &names, QUIET_NS + 2));
    }
}
