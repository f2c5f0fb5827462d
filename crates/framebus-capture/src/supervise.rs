//! The life of a camera: connect, watch, reconnect, end. The only place that
//! says the state.

use crate::drought::Drought;
use crate::error::CaptureError;
use crate::explain;
use crate::limit::Backoff;
use crate::pipeline::Session;
use crate::publish::{Output, Waiting};
use framebus_config::{Camera, Source};
use framebus_service::{Service, clock};
use framebus_types::{Counter, State};
use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How often the pipeline is looked at, at least.
const STEP: Duration = Duration::from_millis(50);
/// Time that a camera has for its first frame, at least: many send nothing
/// before their next key frame, seconds away. ns.
const FIRST_FRAME_NS: u64 = 10_000_000_000;
/// Live for so long, the next failure starts with the shortest wait again. ns.
const STEADY_NS: u64 = 10_000_000_000;
/// So many decoder errors within [`FAULTS_NS`] are a degraded camera.
const FAULTS: usize = 3;
const FAULTS_NS: u64 = 10_000_000_000;

/// So many pipelines that hang in their stop at once are given up with the whole
/// process, which alone frees what they hold.
const LEFT_BEHIND: usize = 2;

/// How a camera came to its end without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The source has no more frames.
    Source,
    /// Asked to stop.
    Stopped,
}

/// How one pipeline came to its end.
enum End {
    Stopped,
    /// After so many frames.
    Eos(u64),
    /// No frame for so many seconds.
    Stalled(f64),
    Failed(CaptureError),
}

struct Supervisor<'a> {
    camera: &'a Camera,
    service: &'a Service,
    output: &'a Arc<Output>,
    backoff: Backoff,
    /// The camera has been live before.
    seen: bool,
    drought: Drought,
    /// Pipelines that did not stop in time; each tells when it has after all.
    left_behind: Vec<mpsc::Receiver<()>>,
}

pub(crate) fn run(
    camera: &Camera,
    service: &Service,
    output: &Arc<Output>,
) -> Result<Ended, CaptureError> {
    gst::init().map_err(CaptureError::Init)?;
    let backoff = Backoff::new(camera.reconnect_min_ms, camera.reconnect_max_ms, clock::wall_ns());
    Supervisor {
        camera,
        service,
        output,
        backoff,
        seen: false,
        drought: Drought::default(),
        left_behind: Vec::new(),
    }
    .run()
}

impl Supervisor<'_> {
    fn run(&mut self) -> Result<Ended, CaptureError> {
        loop {
            let end = self.session();
            if self.service.shutdown().requested() {
                return Ok(Ended::Stopped);
            }
            let stuck =
                |told: &mpsc::Receiver<()>| told.try_recv() == Err(mpsc::TryRecvError::Empty);
            self.left_behind.retain(stuck);
            if self.left_behind.len() >= LEFT_BEHIND {
                self.output.vitals().add(Counter::Errors, 1);
                return Err(CaptureError::Stuck { count: self.left_behind.len() });
            }
            self.output.mark_discontinuity();
            let source = &self.camera.source;
            let error = match end {
                End::Stopped => return Ok(Ended::Stopped),
                End::Eos(0) if is_file(source) => {
                    return Err(explain::reason(source, "no frame could be decoded from it"));
                }
                End::Eos(_) if is_file(source) && self.camera.repeat => continue,
                End::Eos(_) if source.is_live() => {
                    explain::reason(source, "the camera ended the stream")
                }
                End::Eos(_) => return Ok(Ended::Source),
                End::Stalled(seconds) => {
                    self.say(State::Stalled, &format!("no frame for {seconds:.0} s"));
                    self.output.vitals().add(Counter::Errors, 1);
                    if self.wait() {
                        return Ok(Ended::Stopped);
                    }
                    continue;
                }
                End::Failed(error) => error,
            };
            self.output.vitals().add(Counter::Errors, 1);
            let fatal =
                matches!(error, CaptureError::Pipeline { .. } | CaptureError::Element { .. });
            // The bus may have room later; a file does not mend itself.
            if fatal || (is_file(source) && !matches!(error, CaptureError::Bus(_))) {
                return Err(error);
            }
            self.say(State::Offline, &error.sentence());
            if self.wait() {
                return Ok(Ended::Stopped);
            }
        }
    }

    fn say(&self, state: State, reason: &str) {
        self.output.vitals().set_state(state, reason);
    }

    /// Waits before the next attempt; returns whether asked to stop.
    fn wait(&mut self) -> bool {
        self.service.ready();
        let stop = wait_to_retry(self.camera, self.service, &mut self.backoff);
        // The time away is not one in which frames arrive.
        self.drought.forget(self.output.vitals());
        stop
    }

    fn session(&mut self) -> End {
        let session = match Session::build(self.camera, self.output) {
            Ok(session) => session,
            Err(error) => return End::Failed(error),
        };
        session.play();
        self.service.ready();
        let published = self.output.vitals().get(Counter::Published);
        let mut watch = Watch { published, ..Watch::default() };
        let end = loop {
            self.service.progress();
            let message = session.message(STEP);
            if self.service.shutdown().requested() {
                break End::Stopped;
            }
            if let Some(error) = session.refusal() {
                break End::Failed(error.into());
            }
            if let Some(message) = message
                && let Some(end) = self.hear(&message, &session, &mut watch)
            {
                break end;
            }
            if let Some(end) = self.look(&session, &mut watch) {
                break end;
            }
        };
        // A short last part may have gone by between two looks.
        self.describe(&session, &mut watch);
        self.left_behind.extend(session.stop(self.service));
        match end {
            End::Failed(CaptureError::Source { source_name, reason }) if watch.unconnected => {
                // Asked after the stop: some cameras take one connection only.
                let better = match &self.camera.source {
                    Source::Rtsp(url) => {
                        explain::unreachable(url.as_str(), self.service.shutdown())
                    }
                    _ => None,
                };
                End::Failed(CaptureError::Source { source_name, reason: better.unwrap_or(reason) })
            }
            end => end,
        }
    }

    /// What the pipeline says.
    fn hear(
        &mut self,
        message: &gst::Message,
        session: &Session,
        watch: &mut Watch,
    ) -> Option<End> {
        match message.view() {
            gst::MessageView::Eos(_) => {
                self.went_live(session, watch);
                // A short file that is shown again and again ends before a look.
                self.say_drought();
                Some(End::Eos(session.frames()))
            }
            gst::MessageView::Error(message) => {
                let error = message.error();
                let debug = message.debug().map(|text| text.to_string()).unwrap_or_default();
                watch.unconnected = explain::is_connect_error(&error, &debug);
                let source = &self.camera.source;
                let text = explain::error(source, &error, &debug, watch.missing.as_deref());
                Some(End::Failed(explain::reason(source, &text)))
            }
            gst::MessageView::Warning(message) => {
                let text = explain::without_urls(message.error().message());
                tracing::warn!(camera = %self.camera.name, warning = text, "GStreamer");
                if message.error().matches(gst::StreamError::Decode) {
                    self.output.vitals().add(Counter::Errors, 1);
                    watch.fault(clock::monotonic_ns(), text);
                }
                None
            }
            gst::MessageView::Element(message) => {
                let structure = message.structure()?;
                if structure.name() == "missing-plugin" {
                    let name = structure.get::<&str>("name").unwrap_or("a decoder");
                    let caps = structure.get::<gst::Caps>("detail").ok();
                    let kind = caps.as_ref().and_then(|caps| caps.structure(0)).map(|s| s.name());
                    watch.missing = Some(match kind {
                        Some(kind) => format!("{kind} ({name})"),
                        None => name.to_owned(),
                    });
                }
                None
            }
            _ => None,
        }
    }

    /// What the frames say.
    fn look(&mut self, session: &Session, watch: &mut Watch) -> Option<End> {
        let now_ns = clock::monotonic_ns();
        let sent = self.output.vitals().get(Counter::Published) > 0;
        if say_waiting(self.output, self.stall_ns(), sent) {
            self.drought.forget(self.output.vitals());
            return None;
        }
        let silent_ns = now_ns.saturating_sub(session.last_ns());
        let live = self.went_live(session, watch);
        if session.frames() == 0 {
            let limit_ns = self.stall_ns().max(FIRST_FRAME_NS);
            let hopeless = silent_ns > limit_ns && !is_file(&self.camera.source);
            return hopeless.then_some(End::Stalled(limit_ns as f64 / 1e9));
        }
        if silent_ns > self.stall_ns() {
            if is_file(&self.camera.source) {
                // Its next frame may be due later, or its disk may be slow.
                self.say(
                    State::Stalled,
                    &format!("no frame for {:.0} s", self.stall_ns() as f64 / 1e9),
                );
                return None;
            }
            return Some(End::Stalled(self.stall_ns() as f64 / 1e9));
        }
        if self.say_drought() || !live {
            return None;
        }
        if now_ns.saturating_sub(watch.live_since_ns) > STEADY_NS {
            self.backoff.reset();
        }
        match watch.degraded(now_ns) {
            Some(fault) => self.say(State::Degraded, &format!("decoder errors: {fault}")),
            None => self.say(State::Live, ""),
        }
        self.describe(session, watch);
        None
    }

    /// Says that frames arrive and none gets onto the bus, if so.
    fn say_drought(&mut self) -> bool {
        // A rate limit far below one frame a second is no fault.
        let period_s = self.camera.fps.map_or(0.0, |fps| 1.0 / fps);
        let limit_ns = self.stall_ns().max((3.0 * period_s * 1e9) as u64);
        let now_ns = clock::monotonic_ns();
        let cause = self.drought.look(self.output.vitals(), now_ns, limit_ns);
        if let Some(cause) = &cause {
            self.say(State::Degraded, cause);
        }
        cause.is_some()
    }

    /// Notes the first published frame of a session; returns whether there is one.
    fn went_live(&mut self, session: &Session, watch: &mut Watch) -> bool {
        if self.output.vitals().get(Counter::Published) == watch.published {
            return false;
        }
        if watch.live_since_ns == 0 {
            watch.live_since_ns = clock::monotonic_ns();
            if std::mem::replace(&mut self.seen, true) && !is_file(&self.camera.source) {
                self.output.vitals().add(Counter::Reconnects, 1);
            }
            self.say(State::Live, "");
            self.describe(session, watch);
        }
        true
    }

    /// Says the size and what does the work.
    fn describe(&self, session: &Session, watch: &mut Watch) {
        let Some((width, height)) = session.size() else { return };
        let vitals = self.output.vitals();
        let how = match (vitals.get(Counter::ZeroCopy), vitals.get(Counter::Copied)) {
            (0, 0) => return,
            (_, 0) => "zero-copy",
            (0, _) => "copied",
            _ => "partly copied",
        };
        if watch.described == Some((width, height, how)) {
            return;
        }
        watch.described = Some((width, height, how));
        let origin = session.decoder().unwrap_or_else(|| match self.camera.source {
            Source::Test(_) => "videotestsrc".to_owned(),
            _ => "raw video".to_owned(),
        });
        vitals.set_size(width, height);
        vitals.set_detail(&format!("{origin} → NV12 {width}x{height}, {how}"));
    }

    /// A slow test pattern is not a stall.
    fn stall_ns(&self) -> u64 {
        let period_s = match &self.camera.source {
            Source::Test(test) => 1.0 / test.fps,
            _ => 0.0,
        };
        (self.camera.stall_s.max(3.0 * period_s) * 1e9) as u64
    }
}

/// What is noted during one session.
#[derive(Default)]
struct Watch {
    /// Frames that were published before the session.
    published: u64,
    /// When a published frame was first seen, CLOCK_MONOTONIC ns; 0 = not yet.
    live_since_ns: u64,
    /// The last failure was one to connect.
    unconnected: bool,
    /// Decoder that GStreamer lacks.
    missing: Option<String>,
    /// Times of the last decoder errors.
    faults: VecDeque<u64>,
    fault: String,
    described: Option<(u32, u32, &'static str)>,
}

impl Watch {
    fn fault(&mut self, now_ns: u64, text: String) {
        self.faults.push_back(now_ns);
        if self.faults.len() > FAULTS {
            self.faults.pop_front();
        }
        self.fault = text;
    }

    /// The last decoder error, when they keep coming.
    fn degraded(&self, now_ns: u64) -> Option<&str> {
        let first = *self.faults.front()?;
        let many = self.faults.len() == FAULTS && now_ns.saturating_sub(first) < FAULTS_NS;
        many.then_some(&self.fault)
    }
}

/// Waits before the next attempt; returns whether asked to stop.
pub(crate) fn wait_to_retry(camera: &Camera, service: &Service, backoff: &mut Backoff) -> bool {
    let wait = backoff.next();
    tracing::info!(camera = %camera.name, retry_ms = wait.as_millis() as u64, "trying again");
    let until_ns = clock::monotonic_ns() + wait.as_nanos() as u64;
    loop {
        service.progress();
        let left_ns = until_ns.saturating_sub(clock::monotonic_ns());
        let step = Duration::from_nanos(left_ns.min(1_000_000_000));
        if service.shutdown().wait(step) || left_ns == 0 {
            return service.shutdown().requested();
        }
    }
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

fn is_file(source: &Source) -> bool {
    matches!(source, Source::File(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_keep_coming_degrade() {
        let second = 1_000_000_000;
        let mut watch = Watch::default();
        watch.fault(second, "first".to_owned());
        watch.fault(2 * second, "second".to_owned());
        assert_eq!(watch.degraded(2 * second), None);
        watch.fault(3 * second, "third".to_owned());
        assert_eq!(watch.degraded(4 * second), Some("third"));
        assert_eq!(watch.degraded(11 * second), None);
        watch.fault(30 * second, "much later".to_owned());
        assert_eq!(watch.degraded(30 * second), None);
    }
}
