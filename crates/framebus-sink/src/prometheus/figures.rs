//! What is known of the instance between two scrapes.

use framebus_client::health::{Collector, Role, State, camera_state, child_name};
use framebus_client::{Direction, Event, EventKind};
use framebus_config::{CameraName, Config};
use std::collections::{BTreeMap, BTreeSet};

/// Series of events at most. Zones, lines and classes come out of a configuration and a
/// model; whoever invents names on the bus must not fill the memory here and at the reader.
const EVENT_SERIES_MAX: usize = 4096;
/// After the start: every process has reported by then, or does not, ns.
const HEARD_NS: u64 = 5_000_000_000;

/// The labels of a series of events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventSeries {
    pub(super) camera: String,
    pub(super) kind: &'static str,
    pub(super) place: String,
    pub(super) direction: &'static str,
    pub(super) label: String,
}

/// Answers to requests, by status.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) by_status: BTreeMap<u16, u64>,
}

/// Health records and events, added up.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) instance: String,
    pub(super) collector: Collector,
    pub(super) events: BTreeMap<EventSeries, u64>,
    /// Events that found no place among the series.
    pub(super) unlisted: u64,
    pub(super) requests: Requests,
    /// Cameras that this sink serves; empty = all.
    wanted: Vec<CameraName>,
    /// Cameras of the configuration, and whether they are switched on.
    configured: BTreeMap<String, bool>,
    started_ns: u64,
}

impl Figures {
    pub(super) fn new(config: &Config, wanted: &[CameraName], now_ns: u64) -> Self {
        let mut figures = Self { wanted: wanted.to_vec(), started_ns: now_ns, ..Self::default() };
        figures.configure(config);
        figures
    }

    /// Takes over a configuration.
    pub(super) fn configure(&mut self, config: &Config) {
        self.instance = config.instance.to_string();
        let cameras = config.cameras.iter();
        self.configured = cameras.map(|c| (c.name.to_string(), c.enabled)).collect();
    }

    /// Counts an event.
    pub(super) fn count(&mut self, event: &Event) {
        let (Ok(kind), Ok(direction)) =
            (EventKind::try_from(event.kind), Direction::try_from(event.direction))
        else {
            return;
        };
        let series = EventSeries {
            camera: event.camera().to_owned(),
            kind: kind.as_str(),
            place: event.place().to_owned(),
            direction: direction.as_str(),
            label: event.label().to_owned(),
        };
        let full = self.events.len() >= EVENT_SERIES_MAX;
        match self.events.get_mut(&series) {
            Some(count) => *count += 1,
            None if full => self.unlisted += 1,
            None => {
                self.events.insert(series, 1);
            }
        }
    }

    pub(super) fn is_wanted(&self, camera: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted.as_str() == camera)
    }

    /// Names of the cameras that are spoken of: those of the configuration, whether their
    /// processes were ever there or not, and those of others that report.
    pub(super) fn cameras(&self) -> Vec<String> {
        // The name that a child is known by may be cut; the whole one is in the configuration.
        let is_cut = |name: &String| {
            let child = child_name(Role::Capture.as_str(), name);
            let whole = |other: &String| {
                other != name && child_name(Role::Capture.as_str(), other) == child
            };
            self.configured.keys().any(whole)
        };
        let heard = self.collector.cameras().into_iter().filter(|name| !is_cut(name));
        let mut names: BTreeSet<String> = self.configured.keys().cloned().collect();
        names.extend(heard);
        names.retain(|name| self.is_wanted(name));
        names.into_iter().collect()
    }

    /// The state of a camera.
    pub(super) fn camera_state(&self, name: &str, now_ns: u64) -> State {
        let reported = self.collector.track(Role::Capture, name).is_some()
            || self
                .collector
                .track(Role::Child, &child_name(Role::Capture.as_str(), name))
                .is_some();
        match self.configured.get(name) {
            _ if reported => camera_state(&self.collector, name, now_ns).0,
            Some(false) => State::Disabled,
            _ if now_ns.saturating_sub(self.started_ns) < HEARD_NS => State::Starting,
            _ => State::Offline,
        }
    }

    /// Role and name of the processes that are spoken of.
    pub(super) fn processes(&self) -> Vec<(Role, String)> {
        let mut processes = BTreeSet::new();
        let mut children = BTreeSet::new();
        for (role, name, _) in self.collector.tracks() {
            match role {
                Role::Capture if !self.is_wanted(name) => {
                    children.insert(child_name(role.as_str(), name));
                }
                Role::Capture | Role::Infer | Role::Sink => {
                    children.insert(child_name(role.as_str(), name));
                    processes.insert((role, name.to_owned()));
                }
                Role::InferCamera | Role::Child => {}
            }
        }
        // Those that never came so far that they reported.
        for (_, child, _) in self.collector.tracks().filter(|(role, ..)| *role == Role::Child) {
            if children.contains(child) {
                continue;
            }
            let (word, name) = child.split_once(':').unwrap_or((child, child));
            let role = [Role::Capture, Role::Infer, Role::Sink].into_iter();
            let Some(role) = role.into_iter().find(|role| role.as_str() == word) else { continue };
            if role != Role::Capture || self.is_wanted(name) {
                processes.insert((role, name.to_owned()));
            }
        }
        processes.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_client::health::Health;
    use framebus_types::text;

    const S: u64 = 1_000_000_000;

    fn config() -> Config {
        let text = "[model]\npath = \"x\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
                    [[camera]]\nname = \"off\"\nenabled = false\nsource = \"test:red\"\n\
                    [[camera]]\nname = \"a-camera-with-a-name-of-31-byte\"\nsource = \"test:red\"\n";
        framebus_config::parse(text, "x".as_ref(), &|_| None).expect("valid")
    }

    fn record(role: Role, name: &str, state: State) -> Health {
        Health {
            role: role.into(),
            name: text::pack(name),
            state: state.into(),
            updated_ns: 10 * S,
            ..Health::default()
        }
    }

    #[test]
    fn a_camera_that_nobody_speaks_of_is_not_well() {
        let figures = Figures::new(&config(), &[], S);
        assert_eq!(figures.cameras(), ["a", "a-camera-with-a-name-of-31-byte", "off"]);
        assert_eq!(figures.camera_state("a", 2 * S), State::Starting);
        assert_eq!(figures.camera_state("a", 7 * S), State::Offline);
        assert_eq!(figures.camera_state("off", 2 * S), State::Disabled);
    }

    #[test]
    fn a_cut_name_is_no_other_camera_or_process() {
        let mut figures = Figures::new(&config(), &[], S);
        let long = "a-camera-with-a-name-of-31-byte";
        let child = child_name("capture", long);
        figures.collector.add(&record(Role::Child, &child, State::Offline));
        figures.collector.add(&record(Role::Child, "infer", State::Live));
        assert_eq!(figures.cameras(), ["a", long, "off"]);
        assert_eq!(figures.camera_state(long, 10 * S), State::Offline);
        figures.collector.add(&record(Role::Capture, long, State::Live));
        let expected = [(Role::Capture, long.to_owned()), (Role::Infer, "infer".to_owned())];
        assert_eq!(figures.processes(), expected);
    }

    #[test]
    fn invented_events_take_bounded_memory() {
        let mut figures = Figures::new(&config(), &[], S);
        for number in 0..EVENT_SERIES_MAX + 10 {
            let place = text::pack(&format!("p{number}"));
            figures.count(&Event { kind: EventKind::Enter.into(), place, ..Event::default() });
        }
        figures.count(&Event { kind: 99, ..Event::default() });
        assert_eq!((figures.events.len(), figures.unlisted), (EVENT_SERIES_MAX, 10));
    }
}
