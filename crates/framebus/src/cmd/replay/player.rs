//! Publishes the frames of a recording in place of their cameras.

use super::Pace;
use crate::recording::{Entry, Image, Reader};
use framebus_bus::{Bus, BusError, Delivery, FramePublisher, header};
use framebus_service::{Failure, INFER_READER, Kind, OrFail, Reporter, Shutdown, Vitals, clock};
use framebus_types::{Counter, Detection, FrameHeader, ResultHeader, Role, State, text};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// How often a waiting player looks up.
const LOOK: Duration = Duration::from_millis(20);
/// Between the last frame of a round and the first of the next, ns.
const ROUND_GAP_NS: u64 = 100_000_000;

/// Which frame: camera, epoch, sequence.
pub(super) type Key = ([u8; 32], u64, u64);

/// A recorded result of a frame that was replayed.
pub(super) struct Recorded {
    pub(super) header: Box<ResultHeader>,
    pub(super) detections: Vec<Detection>,
}

/// Frames sent so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What was played.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) frames: u64,
    /// Frames whose header and picture do not belong together.
    pub(super) unusable: u64,
    /// Why the recording has no end, where it has none.
    pub(super) cut: Option<String>,
}

/// What to play, and how.
pub(super) struct Player {
    pub(super) bus: Arc<Bus>,
    pub(super) file: PathBuf,
    pub(super) pace: Pace,
    /// The cameras.
    pub(super) deliveries: BTreeMap<String, Delivery>,
    pub(super) again: bool,
    /// Where recorded results go.
    pub(super) recorded: Option<SyncSender<Recorded>>,
    pub(super) stop: Shutdown,
}

impl Player {
    /// Plays until the end of the recording, or until asked to stop.
    pub(super) fn run(self, progress: &Progress) -> (Played, Result<(), Failure>) {
        let mut played = Played::default();
        let end = self.play(&mut played, progress);
        (played, end)
    }

    fn play(&self, played: &mut Played, progress: &Progress) -> Result<(), Failure> {
        let names = self.deliveries.keys();
        let vitals: Vec<_> = names.map(|name| Vitals::new(Role::Capture, name)).collect();
        let alive = Arc::new(AtomicBool::new(true));
        let reporter = Reporter::start(&self.bus, vitals.clone(), alive.clone(), false)?;
        let vitals = vitals.into_iter().map(|vitals| (vitals.name().to_owned(), vitals)).collect();
        let mut stage = Stage {
            player: self,
            alive,
            vitals,
            publishers: HashMap::new(),
            shift: None,
            last_capture_ns: 0,
            round: 0,
            unanswered: HashSet::new(),
        };
        loop {
            let mut reader = Reader::open(&self.file).or_fail(Kind::Config)?;
            for entry in reader.by_ref() {
                if self.stop.requested() {
                    return Ok(());
                }
                match entry {
                    Entry::Frame { header, image } => match stage.frame(&header, &image)? {
                        Sent::Yes => {
                            played.frames += 1;
                            progress.0.store(played.frames, Relaxed);
                        }
                        Sent::Unusable => played.unusable += 1,
                        Sent::Stopped => return Ok(()),
                    },
                    Entry::Result { header, detections } => stage.result(header, detections),
                }
            }
            played.cut = reader.cut().map(str::to_owned);
            if !self.again || played.frames == 0 {
                break;
            }
            stage.next_round();
        }
        stage.vitals.values().for_each(|vitals| vitals.set_state(State::Ended, ""));
        reporter.publish();
        Ok(())
    }
}

/// What became of a frame.
enum Sent {
    Yes,
    Unusable,
    Stopped,
}

/// A recording that is being played.
struct Stage<'a> {
    player: &'a Player,
    /// Set by whoever makes progress, or has nothing to do yet.
    alive: Arc<AtomicBool>,
    vitals: HashMap<String, Arc<Vitals>>,
    publishers: HashMap<String, FramePublisher>,
    /// What is added to capture times, modulo 2^64.
    shift: Option<u64>,
    /// The last of this round, as replayed.
    last_capture_ns: u64,
    round: u64,
    /// Frames whose recorded result is still to come, where it is wanted.
    unanswered: HashSet<Key>,
}

impl Stage<'_> {
    fn frame(&mut self, recorded: &FrameHeader, message: &[u8]) -> Result<Sent, Failure> {
        let Some(image) = Image::parse(message) else { return Ok(Sent::Unusable) };
        let name = text::unpack(&recorded.camera);
        let fits =
            |header: &FrameHeader| header::check_frame(header, image.data.len(), name).is_ok();
        let Some(header) = image.layout(recorded).filter(fits) else {
            return Ok(Sent::Unusable);
        };
        let Some(vitals) = self.vitals.get(name).cloned() else { return Ok(Sent::Unusable) };
        if !self.publishers.contains_key(name) && !self.open(name, image.data.len())? {
            return Ok(Sent::Stopped);
        }
        let Some(publisher) = self.publishers.get(name) else { return Ok(Sent::Stopped) };
        let now_ns = clock::monotonic_ns();
        let shift = *self.shift.get_or_insert(now_ns.wrapping_sub(recorded.capture_ns));
        let capture_ns = recorded.capture_ns.wrapping_add(shift);
        self.last_capture_ns = self.last_capture_ns.max(capture_ns);
        if self.player.pace == Pace::Original && self.rests_until(capture_ns) {
            return Ok(Sent::Stopped);
        }
        let mut loan = loop {
            match publisher.loan(image.data.len()) {
                Ok(loan) => break loan,
                // Readers hold what there is: one will be given back.
                Err(BusError::NoLoan { .. }) if !self.player.stop.wait(LOOK) => {
                    self.alive.store(true, Relaxed);
                }
                Err(BusError::NoLoan { .. }) => return Ok(Sent::Stopped),
                Err(error) => return Err(error.into()),
            }
        };
        loan.payload_mut()[..image.data.len()].copy_from_slice(image.data);
        let header = FrameHeader {
            capture_ns,
            publish_ns: clock::monotonic_ns(),
            epoch_ns: recorded.epoch_ns.wrapping_add(self.round),
            ..header
        };
        if self.player.recorded.is_some() {
            self.unanswered.insert((header.camera, header.epoch_ns, header.sequence));
        }
        publisher.publish(loan, &header)?;
        self.alive.store(true, Relaxed);
        vitals.set_size(header.width, header.height);
        vitals.add(Counter::Captured, 1);
        vitals.add(Counter::Published, 1);
        Ok(Sent::Yes)
    }

    /// Opens a camera and waits for inference to read it; false when asked to stop.
    fn open(&mut self, name: &str, bytes: usize) -> Result<bool, Failure> {
        let Player { bus, deliveries, stop, .. } = self.player;
        let delivery = deliveries.get(name).copied().unwrap_or_default();
        let publisher = bus.frame_publisher(name, bytes, delivery, stop.flag())?;
        while !publisher.has_reader(INFER_READER) {
            if stop.wait(LOOK) {
                return Ok(false);
            }
            self.alive.store(true, Relaxed);
        }
        if let Some(vitals) = self.vitals.get(name) {
            vitals.set_state(State::Live, "");
        }
        self.publishers.insert(name.to_owned(), publisher);
        Ok(true)
    }

    /// A recorded result: of interest where its frame was replayed, which came before it.
    fn result(&mut self, header: Box<ResultHeader>, detections: Vec<Detection>) {
        let Some(recorded) = &self.player.recorded else { return };
        if self.unanswered.remove(&(header.camera, header.epoch_ns, header.sequence)) {
            // Nobody listens any more: the replay is being stopped.
            let _ = recorded.send(Recorded { header, detections });
        }
    }

    fn next_round(&mut self) {
        self.round += 1;
        self.unanswered.clear();
        // The next frame is the first again, a moment from the last or from now.
        self.shift = None;
        if self.player.pace == Pace::Original {
            self.rests_until(self.last_capture_ns + ROUND_GAP_NS);
        }
    }

    /// Waits for that time; true when asked to stop.
    fn rests_until(&self, time_ns: u64) -> bool {
        loop {
            self.alive.store(true, Relaxed);
            let left_ns = time_ns.saturating_sub(clock::monotonic_ns());
            // A gap in the recording is no hang.
            let nap = Duration::from_nanos(left_ns.min(500_000_000));
            if self.player.stop.wait(nap) {
                return true;
            }
            if left_ns <= 500_000_000 {
                return false;
            }
        }
    }
}
