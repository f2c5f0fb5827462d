//! The state of a camera, as all processes together see it.

use super::{Collector, Track};
use framebus_types::{Role, State};

/// State of a camera and why. Capture says what the source does, inference whether frames
/// can be used; the worse of both is the camera's state.
#[must_use]
pub fn camera_state(collector: &Collector, name: &str, now_ns: u64) -> (State, String) {
    let infer = collector.track(Role::InferCamera, name);
    let (state, reason) = collector
        .process_state(Role::Capture, name, now_ns)
        .unwrap_or((State::Starting, String::new()));
    let inference = match state {
        State::Live | State::Degraded | State::Starting => inference(collector, infer, now_ns),
        _ => None,
    };
    match inference {
        Some((worse, why)) if severity(worse) > severity(state) => {
            (worse, format!("inference: {why}"))
        }
        _ => (state, reason),
    }
}

/// What keeps inference from answering the frames of a camera. Without inference a
/// camera is stalled: its frames come, and nothing becomes of them.
fn inference(
    collector: &Collector,
    camera: Option<&Track>,
    now_ns: u64,
) -> Option<(State, String)> {
    let (state, reason) = collector.process_state(Role::Infer, "infer", now_ns)?;
    match state {
        State::Offline | State::Stalled => Some((State::Stalled, reason)),
        State::Starting => Some((State::Starting, reason)),
        State::Live | State::Degraded => camera.map(|track| track.state(now_ns)),
        State::Disabled | State::Ended | State::Stopping => None,
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
