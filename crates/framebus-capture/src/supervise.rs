//! The life of a camera: connect, watch, reconnect, end. The only place that
//! says the state.

use crate::drought::Drought;
use crate::error::CaptureError;
use crate::explain;
use crate::host::Host;
use crate::pipeline::Session;
use crate::publish::Output;
use crate::watch::{Watch, say_waiting};
use framebus_config::{Camera, Source};
use framebus_service::{Backoff, Service, clock};
use framebus_types::{Counter, State};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How often the pipeline is looked at, at least.
const STEP: Duration = Duration::from_millis(50);
/// Time that a camera has for its first frame, at least: many send nothing
/// before their next key frame, seconds away. ns.
const FIRST_FRAME_NS: u64 = 10_000_000_000;
/// Time that a camera which sends has for its first key frame: with the longest intervals
/// that cameras offer, a new connection would only lose what has been waited for. ns.
const KEY_FRAME_NS: u64 = 60_000_000_000;
/// Live for so long, the next failure starts with the shortest wait again. ns.
const STEADY_NS: u64 = 10_000_000_000;
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
    /// Nothing comes any more; what is missing.
    Stalled(String),
    /// More and more frames wait in front of a decoder that is too slow.
    Late,
    Failed(CaptureError),
}

struct Supervisor<'a> {
    host: &'a Host<'a>,
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

pub(crate) fn run(host: &Host<'_>, output: &Arc<Output>) -> Result<Ended, CaptureError> {
    gst::init().map_err(CaptureError::Init)?;
    Supervisor {
        host,
        camera: host.camera,
        service: host.service,
        output,
        backoff: host.backoff(),
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
                End::Late => {
                    let camera = self.camera.name.as_str();
                    tracing::warn!(camera, "frames stay late: connecting anew, without what waits");
                    continue;
                }
                End::Stalled(reason) => {
                    self.say(State::Stalled, &reason);
                    self.output.vitals().add(Counter::Errors, 1);
                    let wait = self.backoff.fail();
                    if self.wait(wait) {
                        return Ok(Ended::Stopped);
                    }
                    continue;
                }
                End::Failed(error) => error,
            };
            self.output.vitals().add(Counter::Errors, 1);
            let fatal = matches!(
                error,
                CaptureError::Pipeline { .. }
                    | CaptureError::Element { .. }
                    | CaptureError::Decoder { .. }
            );
            // The bus may have room later; a file does not mend itself.
            if fatal || (is_file(source) && !matches!(error, CaptureError::Bus(_))) {
                return Err(error);
            }
            self.say(State::Offline, &error.sentence());
            let wait = match error {
                CaptureError::Login { .. } => self.backoff.fail_for_long(),
                _ => self.backoff.fail(),
            };
            if self.wait(wait) {
                return Ok(Ended::Stopped);
            }
        }
    }

    fn say(&self, state: State, reason: &str) {
        self.output.vitals().set_state(state, reason);
    }

    /// Waits before the next attempt; returns whether asked to stop.
    fn wait(&mut self, wait: Duration) -> bool {
        self.service.ready();
        let stop = self.host.wait_to_retry(wait);
        // The time away is not one in which frames arrive.
        self.drought.forget(self.output.vitals());
        stop
    }

    fn session(&mut self) -> End {
        let mut session = match Session::build(self.camera, self.output) {
            Ok(session) => session,
            Err(error) => return End::Failed(error),
        };
        session.play();
        self.service.ready();
        let published = self.output.vitals().get(Counter::Published);
        let mut watch = Watch::new(published);
        let end = loop {
            self.host.progress();
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
        watch.describe(self.camera, self.output, &session);
        self.left_behind.extend(session.stop(self.host));
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
                let choice = self.camera.decoder;
                let text = explain::error(source, choice, &error, &debug, watch.missing());
                Some(End::Failed(explain::failure(source, &text)))
            }
            gst::MessageView::Warning(message) => {
                let text = explain::without_urls(message.error().message());
                tracing::warn!(camera = %self.camera.name, warning = text, "GStreamer");
                if message.error().matches(gst::StreamError::Decode) {
                    self.output.vitals().add(Counter::Errors, 1);
                    watch.fault(clock::monotonic_ns(), text);
                    self.output.faults(|faults| faults.decoder_error(clock::monotonic_ns()));
                }
                None
            }
            gst::MessageView::Element(message) => {
                watch.element(message);
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
        let silent_ns = watch.silent_ns(now_ns, session.last_ns());
        let live = self.went_live(session, watch);
        if session.frames() == 0 {
            return self.look_at_none(session, now_ns, silent_ns);
        }
        if silent_ns > self.stall_ns() {
            let reason = no_frame(self.stall_ns());
            if is_file(&self.camera.source) {
                // Its next frame may be due later, or its disk may be slow.
                self.say(State::Stalled, &reason);
                return None;
            }
            return Some(End::Stalled(reason));
        }
        if self.say_drought() || !live {
            return None;
        }
        if now_ns.saturating_sub(watch.live_since_ns) > STEADY_NS {
            self.backoff.reset();
        }
        let decoder = watch.degraded(now_ns).map(|fault| format!("decoder errors: {fault}"));
        let picture = || self.output.faults(|faults| faults.sentence()).flatten();
        match decoder.or_else(picture) {
            Some(fault) => self.say(State::Degraded, &fault),
            None => self.say(State::Live, ""),
        }
        watch.describe(self.camera, self.output, session);
        let has_backlog = self.output.faults(|faults| faults.has_backlog(now_ns));
        (has_backlog == Some(true) && session.is_live()).then_some(End::Late)
    }

    /// Before the first frame of a connection.
    fn look_at_none(&self, session: &Session, now_ns: u64, silent_ns: u64) -> Option<End> {
        if is_file(&self.camera.source) {
            return None;
        }
        if let Some((reason, since_ns)) = session.inflow().unseen(now_ns, self.stall_ns()) {
            if since_ns > KEY_FRAME_NS.max(self.stall_ns()) {
                return Some(End::Stalled(reason));
            }
            if since_ns > self.stall_ns() {
                self.say(State::Stalled, &reason);
            }
            return None;
        }
        let limit_ns = self.stall_ns().max(FIRST_FRAME_NS);
        if silent_ns > limit_ns {
            return Some(End::Stalled(no_frame(limit_ns)));
        }
        // After a failure, its reason says more.
        let state = self.output.vitals().state();
        if silent_ns > self.stall_ns() && matches!(state, State::Starting | State::Live) {
            self.say(State::Stalled, &no_frame(self.stall_ns()));
        }
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
            watch.describe(self.camera, self.output, session);
        }
        true
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

fn no_frame(limit_ns: u64) -> String {
    format!("no frame for {:.0} s", limit_ns as f64 / 1e9)
}

fn is_file(source: &Source) -> bool {
    matches!(source, Source::File(_))
}
