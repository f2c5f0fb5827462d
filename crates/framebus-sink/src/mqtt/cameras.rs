//! What state each camera is in, as a message that the broker keeps.

use framebus_client::health::{Collector, camera_state};
use framebus_config::{CameraName, Config, Sink};
use framebus_service::without_figures;
use framebus_types::{Health, Role, State};
use serde_json::json;

const SECOND_NS: u64 = 1_000_000_000;

/// A camera, with state and reason that were published last.
#[derive(Debug)]
struct Camera {
    name: CameraName,
    published: Option<(State, String)>,
}

/// The cameras of a sink.
#[derive(Debug)]
pub(super) struct Cameras {
    cameras: Vec<Camera>,
    collector: Collector,
    started_ns: u64,
}

impl Cameras {
    pub(super) fn new(config: &Config, sink: &Sink, now_ns: u64) -> Self {
        let cameras = names(config, sink)
            .map(|name| Camera { name: name.clone(), published: None })
            .collect();
        Self { cameras, collector: Collector::default(), started_ns: now_ns }
    }

    /// Takes what processes say of themselves.
    pub(super) fn hear(&mut self, records: &[Health]) {
        for record in records {
            self.collector.add(record);
        }
    }

    /// Calls `publish` with topic (behind the first part) and payload of each state that
    /// is another one than before; figures in a reason are no change.
    pub(super) fn changes(
        &mut self,
        now_ns: u64,
        wall_ns: u64,
        mut publish: impl FnMut(String, String),
    ) {
        // What has been said reaches a new listener within a second.
        if now_ns < self.started_ns + SECOND_NS {
            return;
        }
        self.collector.forget_stopped(now_ns);
        for camera in &mut self.cameras {
            let state = state(&self.collector, camera.name.as_str(), now_ns);
            let is_known = camera.published.as_ref().is_some_and(|known| {
                known.0 == state.0 && without_figures(&known.1) == without_figures(&state.1)
            });
            if !is_known {
                let payload = json!({
                    "state": state.0.as_str(), "reason": state.1, "since_wall_ns": wall_ns,
                });
                publish(format!("{}/state", camera.name), payload.to_string());
                camera.published = Some(state);
            }
        }
    }

    /// Whether somebody looks at what a camera sees; `true` as well while that is unknown.
    pub(super) fn is_seen(&self, name: &str) -> bool {
        let camera = self.cameras.iter().find(|camera| camera.name.as_str() == name);
        camera
            .and_then(|camera| camera.published.as_ref())
            .is_none_or(|(state, _)| matches!(state, State::Live | State::Degraded))
    }
}

/// The enabled cameras that a sink serves.
pub(super) fn names<'a>(
    config: &'a Config,
    sink: &'a Sink,
) -> impl Iterator<Item = &'a CameraName> {
    let is_wanted = |name: &CameraName| sink.cameras.is_empty() || sink.cameras.contains(name);
    config.enabled_cameras().map(|camera| &camera.name).filter(move |name| is_wanted(name))
}

/// The state that `framebus status` shows; without any word of a capture process, that.
fn state(collector: &Collector, name: &str, now_ns: u64) -> (State, String) {
    match collector.process_state(Role::Capture, name, now_ns) {
        Some(_) => camera_state(collector, name, now_ns),
        None => (State::Offline, "its capture process does not run".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::text;

    fn said(role: Role, state: State, reason: &str, updated_ns: u64) -> Health {
        Health {
            role: role.into(),
            name: text::pack(if role == Role::Infer { "infer" } else { "a" }),
            state: state.into(),
            reason: text::pack(reason),
            updated_ns,
            ..Health::default()
        }
    }

    #[test]
    fn the_worse_of_both_is_published_once() {
        let name = CameraName::try_from("a").expect("a name");
        let camera = Camera { name, published: None };
        let mut cameras =
            Cameras { cameras: vec![camera], collector: Collector::default(), started_ns: 0 };
        let mut at = |records: &[Health], now_s: u64| {
            cameras.hear(records);
            let mut found = Vec::new();
            cameras.changes(now_s * SECOND_NS, 7, |topic, payload| {
                assert_eq!(topic, "a/state");
                let payload: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
                let text = |key: &str| payload[key].as_str().expect("text").to_owned();
                found.push((text("state"), text("reason")));
            });
            found
        };
        let state = |state: &str, reason: &str| vec![(state.to_owned(), reason.to_owned())];
        assert_eq!(at(&[], 0), []);
        assert_eq!(at(&[], 1), state("offline", "its capture process does not run"));
        let live = said(Role::Capture, State::Live, "", 2 * SECOND_NS);
        assert_eq!(at(&[live], 2), state("live", ""));
        assert_eq!(at(&[live], 3), []);
        let infer = |now_s: u64| said(Role::Infer, State::Live, "", now_s * SECOND_NS);
        let slow = said(Role::InferCamera, State::Degraded, "3 frames dropped", 3 * SECOND_NS);
        assert_eq!(at(&[slow, infer(3)], 3), state("degraded", "inference: 3 frames dropped"));
        let slower = said(Role::InferCamera, State::Degraded, "4 frames dropped", 3 * SECOND_NS);
        assert_eq!(at(&[slower], 3), [], "a figure is no news");
        assert_eq!(at(&[], 9), state("offline", "silent for 7 s"));
    }
}
