//! What is noted while one connection lasts.

use crate::decoder;
use crate::pipeline::Session;
use crate::publish::{Output, Waiting};
use framebus_config::{Camera, Decoder, Source};
use framebus_service::clock;
use framebus_types::{Counter, State, text};
use gst::prelude::*;
use std::collections::VecDeque;

/// So many decoder errors within [`FAULTS_NS`] are a degraded camera.
const FAULTS: usize = 3;
const FAULTS_NS: u64 = 10_000_000_000;
/// The pipeline is looked at many times a second; so long between two looks, the process
/// itself was stopped (SIGSTOP, a frozen cgroup), and its camera is not to blame. ns.
const STOPPED_NS: u64 = 1_000_000_000;

/// What is noted during one session.
#[derive(Default)]
pub(crate) struct Watch {
    /// Frames that were published before the session.
    pub(crate) published: u64,
    /// When a published frame was first seen, CLOCK_MONOTONIC ns; 0 = not yet.
    pub(crate) live_since_ns: u64,
    /// The last failure was one to connect.
    pub(crate) unconnected: bool,
    /// Decoder that GStreamer lacks.
    missing: Option<String>,
    /// Times of the last decoder errors.
    faults: VecDeque<u64>,
    fault: String,
    described: Option<(u32, u32, &'static str)>,
    /// When the pipeline was last looked at, CLOCK_MONOTONIC ns; 0 = not yet.
    looked_ns: u64,
    /// When this process went on after it had been stopped.
    resumed_ns: u64,
}

impl Watch {
    pub(crate) fn new(published: u64) -> Self {
        Self { published, ..Self::default() }
    }

    /// For how long nothing has come since `last_ns`, while this process ran.
    pub(crate) fn silent_ns(&mut self, now_ns: u64, last_ns: u64) -> u64 {
        if self.looked_ns != 0 && now_ns.saturating_sub(self.looked_ns) > STOPPED_NS {
            self.resumed_ns = now_ns;
        }
        self.looked_ns = now_ns;
        now_ns.saturating_sub(last_ns.max(self.resumed_ns))
    }

    /// Notes a decoder that GStreamer announces as missing.
    pub(crate) fn element(&mut self, message: &gst::message::Element) {
        let Some(structure) = message.structure() else { return };
        if structure.name() == "missing-plugin" {
            let name = structure.get::<&str>("name").unwrap_or("a decoder");
            let caps = structure.get::<gst::Caps>("detail").ok();
            let kind = caps.as_ref().and_then(|caps| caps.structure(0)).map(|s| s.name());
            self.missing = Some(match kind {
                Some(kind) => format!("{kind} ({name})"),
                None => name.to_owned(),
            });
        }
    }

    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    pub(crate) fn fault(&mut self, now_ns: u64, text: String) {
        self.faults.push_back(now_ns);
        if self.faults.len() > FAULTS {
            self.faults.pop_front();
        }
        self.fault = text;
    }

    /// The last decoder error, when they keep coming.
    pub(crate) fn degraded(&self, now_ns: u64) -> Option<&str> {
        let first = *self.faults.front()?;
        let many = self.faults.len() == FAULTS && now_ns.saturating_sub(first) < FAULTS_NS;
        many.then_some(&self.fault)
    }

    /// Says the size and what does the work.
    pub(crate) fn describe(&mut self, camera: &Camera, output: &Output, session: &Session) {
        let Some((width, height)) = session.size() else { return };
        let vitals = output.vitals();
        let how = match (vitals.get(Counter::ZeroCopy), vitals.get(Counter::Copied)) {
            (0, 0) => return,
            (_, 0) => "zero-copy",
            (0, _) => "copied",
            _ => "partly copied",
        };
        if self.described == Some((width, height, how)) {
            return;
        }
        self.described = Some((width, height, how));
        let before = vitals.snapshot().detail;
        let origin = match session.decoder() {
            Some(element) => {
                decoded_by(camera, &element, session.converter(), text::unpack(&before))
            }
            None if matches!(camera.source, Source::Test(_)) => "videotestsrc".to_owned(),
            None => "raw video".to_owned(),
        };
        vitals.set_size(width, height);
        vitals.set_detail(&format!("{origin} → NV12 {width}x{height}, {how}"));
    }
}

/// What decodes, and what converts its frames before they are in our memory; logged where it
/// is not what stood in the detail `before`.
fn decoded_by(
    camera: &Camera,
    element: &gst::Element,
    converter: Option<String>,
    before: &str,
) -> String {
    let name = element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    let origin = match converter {
        Some(converter) => format!("{name}, {converter}"),
        None => name,
    };
    if before.starts_with(&format!("{origin} ")) {
        return origin;
    }
    tracing::info!(camera = %camera.name, decoder = origin, "decoding");
    if camera.decoder == Decoder::Auto
        && !matches!(camera.source, Source::Gst(_))
        && let Some(hardware) = decoder::passed_over(element)
    {
        tracing::warn!(
            camera = %camera.name,
            "{hardware} did not start or refused the stream: {origin} decodes it on the processor"
        );
    }
    origin
}

/// Says that the source waits for its readers, if it does.
pub(crate) fn say_waiting(output: &Output, stall_ns: u64, sent: bool) -> bool {
    let since = |since_ns| clock::monotonic_ns().saturating_sub(since_ns);
    match output.waiting() {
        Waiting::Reader => {
            let state = if sent { State::Stalled } else { State::Starting };
            output.vitals().set_state(state, "waiting for the inference process");
            true
        }
        Waiting::Room(since_ns) if since(since_ns) > stall_ns => {
            output.vitals().set_state(State::Stalled, "the readers take no frames");
            true
        }
        Waiting::Room(_) | Waiting::No => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn errors_that_keep_coming_degrade() {
        let mut watch = Watch::default();
        watch.fault(SECOND, "first".to_owned());
        watch.fault(2 * SECOND, "second".to_owned());
        assert_eq!(watch.degraded(2 * SECOND), None);
        watch.fault(3 * SECOND, "third".to_owned());
        assert_eq!(watch.degraded(4 * SECOND), Some("third"));
        assert_eq!(watch.degraded(11 * SECOND), None);
        watch.fault(30 * SECOND, "much later".to_owned());
        assert_eq!(watch.degraded(30 * SECOND), None);
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_its_camera() {
        let mut watch = Watch::default();
        assert_eq!(watch.silent_ns(10 * SECOND, 9 * SECOND), SECOND);
        assert_eq!(watch.silent_ns(10 * SECOND + SECOND / 20, 9 * SECOND), SECOND + SECOND / 20);
        assert_eq!(watch.silent_ns(60 * SECOND, 9 * SECOND), 0);
        assert_eq!(watch.silent_ns(61 * SECOND, 9 * SECOND), SECOND);
        assert_eq!(watch.silent_ns(61 * SECOND + 1, 61 * SECOND), 1);
    }
}
