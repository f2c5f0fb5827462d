//! What state each camera is in, as a message that the broker keeps.

use framebus_config::{CameraName, Config, Sink};
use framebus_service::without_figures;
use framebus_types::{Health, Role, State, text};
use serde_json::json;

/// Nobody has spoken for it since this long, ns: two reports are missing.
const SILENT_NS: u64 = 2_500_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A camera and what was heard of it.
#[derive(Debug)]
struct Camera {
    name: CameraName,
    capture: Option<Said>,
    inference: Option<Said>,
    /// State and reason that were published last.
    published: Option<(State, String)>,
}

#[derive(Debug, Clone)]
struct Said {
    state: State,
    reason: String,
    updated_ns: u64,
}

/// The cameras of a sink.
#[derive(Debug)]
pub(super) struct Cameras {
    cameras: Vec<Camera>,
    started_ns: u64,
}

impl Cameras {
    pub(super) fn new(config: &Config, sink: &Sink, now_ns: u64) -> Self {
        let cameras = names(config, sink)
            .map(|name| Camera {
                name: name.clone(),
                capture: None,
                inference: None,
                published: None,
            })
            .collect();
        Self { cameras, started_ns: now_ns }
    }

    /// Takes what processes say of themselves.
    pub(super) fn hear(&mut self, records: &[Health]) {
        for record in records {
            let name = text::unpack(&record.name);
            let found = self.cameras.iter_mut().find(|camera| camera.name.as_str() == name);
            let (Some(camera), Ok(state)) = (found, State::try_from(record.state)) else {
                continue;
            };
            let reason = text::unpack(&record.reason).to_owned();
            let said = Said { state, reason, updated_ns: record.updated_ns };
            match Role::try_from(record.role) {
                Ok(Role::Capture) => camera.capture = Some(said),
                Ok(Role::InferCamera) => camera.inference = Some(said),
                _ => {}
            }
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
        for camera in &mut self.cameras {
            let state = state(camera, now_ns);
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
}

/// The enabled cameras that a sink serves.
pub(super) fn names<'a>(
    config: &'a Config,
    sink: &'a Sink,
) -> impl Iterator<Item = &'a CameraName> {
    let is_wanted = |name: &CameraName| sink.cameras.is_empty() || sink.cameras.contains(name);
    config.enabled_cameras().map(|camera| &camera.name).filter(move |name| is_wanted(name))
}

/// Capture says what the source does, inference whether frames can be used; the worse of
/// both is the camera's state.
fn state(camera: &Camera, now_ns: u64) -> (State, String) {
    let spoken = |said: &Option<Said>| {
        let said = said.clone()?;
        let is_over = matches!(said.state, State::Ended | State::Disabled | State::Stopping);
        let is_silent = now_ns.saturating_sub(said.updated_ns) > SILENT_NS;
        Some(match is_silent && !is_over {
            true => (State::Offline, "silent".to_owned()),
            false => (said.state, said.reason),
        })
    };
    let Some(capture) = spoken(&camera.capture) else {
        return (State::Offline, "its capture process does not run".to_owned());
    };
    match spoken(&camera.inference) {
        Some((state, reason))
            if matches!(capture.0, State::Live | State::Degraded | State::Starting)
                && severity(state) > severity(capture.0) =>
        {
            (state, format!("inference: {reason}"))
        }
        _ => capture,
    }
}

/// How far a state is from live.
fn severity(state: State) -> u8 {
    match state {
        State::Degraded => 1,
        State::Starting => 2,
        State::Stalled => 3,
        State::Offline => 4,
        State::Live | State::Disabled | State::Ended | State::Stopping => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: Role, state: State, reason: &str, updated_ns: u64) -> Health {
        Health {
            role: role.into(),
            name: text::pack("a"),
            state: state.into(),
            reason: text::pack(reason),
            updated_ns,
            ..Health::default()
        }
    }

    #[test]
    fn the_worse_of_both_is_published_once() {
        let name = CameraName::try_from("a").expect("a name");
        let camera = Camera { name, capture: None, inference: None, published: None };
        let mut cameras = Cameras { cameras: vec![camera], started_ns: 0 };
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
        let slow = said(Role::InferCamera, State::Degraded, "3 frames dropped", 3 * SECOND_NS);
        assert_eq!(at(&[slow], 3), state("degraded", "inference: 3 frames dropped"));
        let slower = said(Role::InferCamera, State::Degraded, "4 frames dropped", 3 * SECOND_NS);
        assert_eq!(at(&[slower], 3), [], "a figure is no news");
        assert_eq!(at(&[], 9), state("offline", "silent"));
    }
}
