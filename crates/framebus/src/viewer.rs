//! Watches results beside `up`: prints detections as they come, keeps the frame
//! with the most of them.

use crate::annotate;
use crate::report::{boxes, counts};
use crate::screen::Screen;
use framebus_bus::{Bus, BusError, Delivery, FrameSample, FrameSubscriber, ResultSubscriber};
use framebus_service::{Failure, Kind, Shutdown, clock};
use framebus_types::{Detection, Direction, Event, EventKind, Outcome};
use image::RgbImage;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines per camera and second that a person can still follow.
const LINES_PER_S: u32 = 10;
/// How often lines that were left out are mentioned, ns.
const MENTION_NS: u64 = 10_000_000_000;
/// Results remembered per camera for a frame that is seen after its result.
const RECENT: usize = 16;
/// Longest wait for something to look at: bounds how late a stop is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) follow: bool,
    pub(crate) picture: bool,
}

/// The frame with the most detections.
pub(crate) struct Best {
    pub(crate) picture: RgbImage,
    pub(crate) camera: String,
    pub(crate) sequence: u64,
    pub(crate) detections: Vec<Detection>,
}

/// A thread that reads results, and frames where a picture is wanted.
pub(crate) struct Viewer {
    thread: JoinHandle<Option<Best>>,
    stop: Shutdown,
}

impl Viewer {
    /// Subscribes at once, so that nothing that is published later is missed.
    pub(crate) fn start(
        bus: &Bus,
        cameras: &[(String, Delivery)],
        wanted: Wanted,
        screen: &Arc<Screen>,
    ) -> Result<Self, Failure> {
        let results = bus.result_subscriber("up")?;
        let mut views = BTreeMap::new();
        for (name, delivery) in cameras {
            let frames = match wanted.picture {
                true => Some(bus.frame_subscriber(name, *delivery, "up").map_err(|error| {
                    let error = anyhow::Error::new(error).context(
                        "cannot read frames for --annotate; is bus.frame_subscribers 2 or more?",
                    );
                    Failure { kind: Kind::Unavailable, error }
                })?),
                false => None,
            };
            views.insert(name.clone(), View { frames, ..View::default() });
        }
        let stop = Shutdown::new();
        let (screen, stopped) = (screen.clone(), stop.clone());
        let mut state = State { results, views, wanted, screen, best: None };
        let thread = std::thread::Builder::new()
            .name("viewer".to_owned())
            .spawn(move || {
                // Once more after the stop: what was sent before it counts.
                let mut last = false;
                loop {
                    if let Err(error) = state.look() {
                        state.screen.log(&format!("results cannot be read: {error}"));
                        return state.best;
                    }
                    if last {
                        state.mention(u64::MAX);
                        return state.best;
                    }
                    last = stopped.requested();
                    if !last && state.results.waker().wait(LOOK).is_err() {
                        let _ = stopped.wait(LOOK);
                    }
                }
            })
            .map_err(|error| {
                let error = anyhow::Error::new(error).context("cannot start a thread");
                Failure { kind: Kind::Unavailable, error }
            })?;
        Ok(Self { thread, stop })
    }

    /// Stops; hands out the best frame.
    pub(crate) fn finish(self) -> Option<Best> {
        self.stop.request();
        self.thread.join().ok().flatten()
    }
}

struct State {
    results: ResultSubscriber,
    views: BTreeMap<String, View>,
    wanted: Wanted,
    screen: Arc<Screen>,
    best: Option<Best>,
}

/// One camera.
#[derive(Default)]
struct View {
    frames: Option<FrameSubscriber>,
    /// The frame whose result is awaited. Only one is held at a time, in shared
    /// memory: a reader may hold three, and nothing is copied for frames that
    /// do not become the best.
    candidate: Option<FrameSample>,
    recent: VecDeque<Recent>,
    second_ns: u64,
    printed: u32,
    left_out: u64,
    mentioned_ns: u64,
}

struct Recent {
    epoch_ns: u64,
    sequence: u64,
    detections: Vec<Detection>,
}

impl State {
    fn look(&mut self) -> Result<(), BusError> {
        // Frames first: a frame is sent before its result.
        for view in self.views.values_mut() {
            view.take_frames()?;
        }
        while let Some(result) = self.results.receive()? {
            let Some(view) = self.views.get_mut(result.camera()) else { continue };
            if self.wanted.follow {
                view.follow(&result, &self.screen);
            }
            // Results of inferred frames come in their order; that of a dropped frame
            // overtakes them and says nothing of older ones.
            if self.wanted.picture && result.outcome() == Outcome::Ok {
                if view.recent.len() == RECENT {
                    view.recent.pop_front();
                }
                view.recent.push_back(Recent {
                    epoch_ns: result.header().epoch_ns,
                    sequence: result.header().sequence,
                    detections: result.detections().to_vec(),
                });
            }
        }
        for (name, view) in &mut self.views {
            view.judge(name, &mut self.best, &self.screen);
        }
        self.mention(clock::monotonic_ns());
        Ok(())
    }

    fn mention(&mut self, now_ns: u64) {
        for (name, view) in &mut self.views {
            if view.left_out > 0 && now_ns.saturating_sub(view.mentioned_ns) >= MENTION_NS {
                self.screen.line(&format!("{name}: {} more lines left out", view.left_out));
                view.left_out = 0;
                view.mentioned_ns = now_ns;
            }
        }
    }
}

impl View {
    /// Takes all waiting frames: an every-frame camera waits for its readers.
    fn take_frames(&mut self) -> Result<(), BusError> {
        let Some(frames) = &self.frames else { return Ok(()) };
        while let Some(frame) = frames.receive()? {
            if self.candidate.is_none() {
                self.candidate = Some(frame);
            }
        }
        Ok(())
    }

    fn judge(&mut self, name: &str, best: &mut Option<Best>, screen: &Screen) {
        let Some(frame) = &self.candidate else { return };
        let (epoch_ns, sequence) = (frame.header().epoch_ns, frame.header().sequence);
        let same = |recent: &&Recent| recent.epoch_ns == epoch_ns && recent.sequence == sequence;
        if let Some(recent) = self.recent.iter().find(same) {
            if recent.detections.len() > best.as_ref().map_or(0, |best| best.detections.len()) {
                match annotate::rgb(frame) {
                    Ok(picture) => {
                        let (camera, detections) = (name.to_owned(), recent.detections.clone());
                        *best = Some(Best { picture, camera, sequence, detections });
                    }
                    Err(error) => screen.log(&format!("{name}: frame {sequence}: {error}")),
                }
            }
            self.candidate = None;
        } else if self.recent.back().is_some_and(|newest| {
            newest.epoch_ns > epoch_ns
                || (newest.epoch_ns == epoch_ns && newest.sequence > sequence)
        }) {
            // Inference never saw it, or its result is long gone.
            self.candidate = None;
        }
    }

    fn follow(&mut self, result: &framebus_bus::ResultSample, screen: &Screen) {
        let failed = result.outcome() == Outcome::Failed;
        if result.detections().is_empty() && !failed {
            return;
        }
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(self.second_ns) >= 1_000_000_000 {
            (self.second_ns, self.printed) = (now_ns, 0);
        }
        if self.printed == LINES_PER_S {
            if self.left_out == 0 && self.mentioned_ns == 0 {
                self.mentioned_ns = now_ns;
            }
            self.left_out += 1;
            return;
        }
        self.printed += 1;
        screen.line(&line(result));
    }
}

/// A result as one line for people.
pub(crate) fn line(result: &framebus_bus::ResultSample) -> String {
    let head = format!("{} #{}", crate::out::plain(result.camera()), result.header().sequence);
    match result.outcome() {
        Outcome::Ok if result.detections().is_empty() => format!("{head}: nothing"),
        Outcome::Ok => {
            let found = result.detections();
            format!("{head}: {}: {}", counts(found), boxes(found))
        }
        Outcome::Failed => format!("{head}: failed: {}", crate::out::plain(result.message())),
        outcome => format!("{head}: {outcome} ({})", result.reason()),
    }
}

/// An event as one line for people.
pub(crate) fn event_line(event: &Event) -> String {
    let plain = crate::out::plain;
    let kind = EventKind::try_from(event.kind).map_or("", EventKind::as_str);
    let way = Direction::try_from(event.direction).map_or("", Direction::as_str);
    let what = [kind, &plain(event.place()), way].join(" ");
    format!(
        "{} #{}: {} {} {}, {:.1} s",
        plain(event.camera()),
        event.sequence,
        plain(event.label()),
        event.track,
        what.split_whitespace().collect::<Vec<_>>().join(" "),
        event.age_ns as f64 / 1e9,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::Private;
    use framebus_bus::Limits;
    use framebus_types::{Fourcc, FrameHeader, Reason, ResultHeader, text};

    #[test]
    fn an_event_says_who_did_what_where() {
        let mut event = Event {
            camera: text::pack("front"),
            label: text::pack("person"),
            place: text::pack("door"),
            kind: EventKind::Cross.into(),
            direction: Direction::Forward.into(),
            sequence: 12,
            track: 7,
            age_ns: 3_260_000_000,
            ..Event::default()
        };
        assert_eq!(event_line(&event), "front #12: person 7 cross door forward, 3.3 s");
        (event.kind, event.direction) = (EventKind::Appear.into(), 0);
        (event.place, event.age_ns) = ([0; 32], 0);
        assert_eq!(event_line(&event), "front #12: person 7 appear, 0.0 s");
    }

    const SIDE: u32 = 32;
    const BYTES: usize = (SIDE * SIDE * 3 / 2) as usize;

    #[test]
    fn a_dropped_frame_does_not_take_an_older_one_away() {
        let mut private = Private::new("viewer").expect("a folder");
        let domain = private.domain(Limits::default()).expect("a short path");
        let bus: Bus = Bus::open(&domain, "test").expect("a bus");
        let frames = bus.frame_subscriber("a", Delivery::Latest, "up").expect("a service");
        let mut state = State {
            results: bus.result_subscriber("up").expect("a service"),
            views: [("a".to_owned(), View { frames: Some(frames), ..View::default() })].into(),
            wanted: Wanted { follow: false, picture: true },
            screen: Screen::new(true),
            best: None,
        };
        let camera = bus.frame_publisher("a", BYTES, Delivery::Latest, Arc::default());
        let camera = camera.expect("room for a picture");
        let header = FrameHeader {
            camera: text::pack("a"),
            width: SIDE,
            height: SIDE,
            fourcc: Fourcc::Nv12.into(),
            strides: [SIDE, SIDE, 0, 0],
            offsets: [0, SIDE * SIDE, 0, 0],
            ..FrameHeader::default()
        };
        camera.publish(camera.loan(BYTES).expect("a sample"), &header).expect("sent");
        state.look().expect("read");
        let inference = bus.result_publisher(Arc::default()).expect("a service");
        let mut answer = |sequence, outcome: Outcome, reason: Reason, found: &[Detection]| {
            let header = ResultHeader {
                camera: text::pack("a"),
                sequence,
                outcome: outcome.into(),
                reason: reason.into(),
                ..ResultHeader::default()
            };
            inference.publish(&header, found).expect("sent");
            state.look().expect("read");
        };
        // The next frame is dropped while the first one is in the engine.
        answer(1, Outcome::Dropped, Reason::Superseded, &[]);
        answer(0, Outcome::Ok, Reason::None, &[Detection::default()]);
        assert_eq!(state.best.as_ref().map(|best| best.sequence), Some(0));
    }
}
