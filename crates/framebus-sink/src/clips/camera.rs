//! The clips of one camera: what is kept, what is wanted, what is being written.

use super::Common;
use super::recording::Recording;
use super::ring::{Ring, goes_on, shown_ns};
use crate::feed::Message;
use framebus_client::{Event, EventKind, Packet, PacketSubscriber, json};
use framebus_config::Clips;
use framebus_service::{Failure, Service, clock};
use framebus_types::Counter;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// Results whose times are known: an event comes with its result.
const TIMES: usize = 256;
/// Events that wait for their turn, or for a key frame.
const EVENTS_WAITING: usize = 256;
/// A camera whose frames have come for so long without a packet has none. ns.
const SILENT_NS: u64 = 10_000_000_000;
/// A clip for which no packet has come for so long ends; the rest is another one. ns.
const STALL_NS: u64 = 5_000_000_000;

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// A clip that shall begin with the next key frame.
#[derive(Debug)]
struct Wanted {
    /// First part of the rest of its name.
    name: String,
    events: Vec<Value>,
    /// How long it shall be, ns.
    length_ns: u64,
    /// When it was asked for, CLOCK_MONOTONIC ns.
    since_ns: u64,
}

/// See the module.
pub(crate) struct CameraClips {
    name: String,
    packets: PacketSubscriber,
    lost: u64,
    bad: u64,
    last: Option<Arc<Packet>>,
    ring: Ring,
    /// Epoch, sequence number and presentation time of the newest results' frames.
    times: VecDeque<(u64, u64, u64)>,
    events: VecDeque<Event>,
    recording: Option<(Recording, String)>,
    wanted: Option<Wanted>,
    /// When the first result of this camera came without any packet before it.
    unseen_since_ns: Option<u64>,
}

impl CameraClips {
    pub(crate) fn open(
        service: &Service,
        sink: &str,
        camera: &str,
        clips: &Clips,
    ) -> Result<Self, Failure> {
        Ok(Self {
            name: camera.to_owned(),
            packets: service.bus().packet_subscriber(camera, sink)?,
            lost: 0,
            bad: 0,
            last: None,
            ring: Ring::new(ns(clips.before_s)),
            times: VecDeque::with_capacity(TIMES),
            events: VecDeque::new(),
            recording: None,
            wanted: None,
            unseen_since_ns: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// What keeps this camera from having whole clips.
    pub(crate) fn complaint(&self) -> Option<String> {
        let camera = &self.name;
        if self.unseen_since_ns.is_some_and(|at| clock::monotonic_ns() > at + SILENT_NS) {
            return Some(format!(
                "camera {camera} has no compressed video: clips need H.264 or H.265 from it"
            ));
        }
        self.ring.too_small.then(|| {
            format!(
                "before_s of camera {camera} does not fit into {} MiB: its clips begin later",
                super::ring::RING_BYTES >> 20
            )
        })
    }

    /// Notes what came from the bus.
    pub(crate) fn hear(&mut self, message: Message<'_>) {
        match message {
            Message::Result(result) => {
                let header = result.header();
                if self.times.len() == TIMES {
                    self.times.pop_front();
                }
                self.times.push_back((header.epoch_ns, header.sequence, header.pts_ns));
                if self.last.is_none() {
                    self.unseen_since_ns.get_or_insert_with(clock::monotonic_ns);
                }
            }
            Message::Event(event) => {
                if self.events.len() == EVENTS_WAITING {
                    self.events.pop_front();
                }
                self.events.push_back(*event);
            }
        }
    }

    /// Takes the packets that have come, then the events.
    pub(crate) fn work(&mut self, common: &mut Common<'_>) -> Result<(), Failure> {
        while let Some(packet) = self.packets.receive()? {
            self.take(Arc::new(packet), common);
        }
        let last_ns = self.last.as_ref().map_or(u64::MAX, |last| last.header.capture_ns);
        if self.is_recording() && clock::monotonic_ns() > last_ns.saturating_add(STALL_NS) {
            self.interrupt(common, "interrupted");
        }
        let (lost, bad) = (self.packets.lost(), self.packets.bad_headers());
        common.vitals.add(Counter::Lost, lost - self.lost);
        common.vitals.add(Counter::BadHeaders, bad - self.bad);
        (self.lost, self.bad) = (lost, bad);
        while let Some(event) = self.events.pop_front() {
            let kind = EventKind::try_from(event.kind).map_or("", EventKind::as_str);
            if common.clips.events.is_empty() || common.clips.events.contains(&kind) {
                self.happened(&event, kind, common);
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: Arc<Packet>, common: &mut Common<'_>) {
        self.unseen_since_ns = None;
        let joined = self.last.as_ref().is_none_or(|last| goes_on(last, &packet));
        let same = self.recording.as_ref().is_none_or(|(open, _)| open.takes(&packet));
        let same_in_ring = match self.ring.from(0).next() {
            Some(first) if packet.header.is_key() => first.config() == packet.config(),
            _ => true,
        };
        if !(joined && same) {
            let end = if joined { "parameters changed" } else { "interrupted" };
            self.interrupt(common, end);
        }
        if !(joined && same_in_ring) {
            self.ring.clear();
        }
        self.last = Some(packet.clone());
        let kept = self.ring.push(&packet);
        let now_ns = shown_ns(&packet);
        if let Some((open, _)) = &mut self.recording {
            if now_ns > open.until_ns {
                let length_ns = open.until_ns.saturating_sub(open.start_ns());
                let longest = length_ns >= ns(common.clips.longest_s);
                self.close(common, if longest { "longest_s" } else { "after_s" });
            } else {
                self.write(&packet, common);
            }
        }
        if kept && packet.header.is_key() && self.recording.is_none() {
            self.begin_wanted(&packet, common);
        }
    }

    /// A file ends although more is wanted, which begins with the next key frame.
    fn interrupt(&mut self, common: &mut Common<'_>, end: &str) {
        let Some((open, name)) = &self.recording else { return };
        let reached_ns = self.last.as_ref().map_or(open.start_ns(), |last| shown_ns(last));
        let length_ns = open.until_ns.saturating_sub(reached_ns);
        let wanted = Wanted {
            name: name.clone(),
            events: Vec::new(),
            length_ns,
            since_ns: clock::monotonic_ns(),
        };
        self.close(common, end);
        self.wanted = (length_ns > 0).then_some(wanted);
    }

    fn begin_wanted(&mut self, packet: &Arc<Packet>, common: &mut Common<'_>) {
        let Some(wanted) = self.wanted.take() else { return };
        let late_ns = clock::monotonic_ns().saturating_sub(wanted.since_ns);
        // What was wanted is over by now.
        if late_ns > wanted.length_ns {
            return;
        }
        let from_ns = shown_ns(packet);
        if self.begin(from_ns, wanted.name, common)
            && let Some((open, _)) = &mut self.recording
        {
            open.until_ns = from_ns + (wanted.length_ns - late_ns);
            wanted.events.into_iter().for_each(|event| open.note(event, from_ns));
            let described = open.describe(None);
            self.settle(described, common);
        }
    }

    /// An event that makes or prolongs a clip.
    fn happened(&mut self, event: &Event, kind: &str, common: &mut Common<'_>) {
        let known =
            self.times.iter().rev().find(|(epoch, sequence, _)| {
                (*epoch, *sequence) == (event.epoch_ns, event.sequence)
            });
        let at_ns = match known {
            Some((_, _, pts_ns)) if *pts_ns != u64::MAX => Some(*pts_ns),
            _ => self.ring.shown_at(event.capture_ns),
        };
        let name = format!("{kind}-{}", event.track);
        let (after_ns, longest_ns) = (ns(common.clips.after_s), ns(common.clips.longest_s));
        let Some(at_ns) = at_ns else {
            // Nothing is here to begin with: the camera is away, or has no such video.
            let wanted = self.wanted.get_or_insert_with(|| Wanted {
                name,
                events: Vec::new(),
                length_ns: after_ns.min(longest_ns),
                since_ns: clock::monotonic_ns(),
            });
            if wanted.events.len() < EVENTS_WAITING {
                wanted.events.push(json::event(event));
            }
            return;
        };
        let over = self
            .recording
            .as_ref()
            .is_some_and(|(open, _)| at_ns > open.start_ns().saturating_add(longest_ns));
        if over {
            self.close(common, "longest_s");
        }
        if self.recording.is_none()
            && !self.begin(at_ns.saturating_sub(ns(common.clips.before_s)), name, common)
        {
            return;
        }
        let Some((open, _)) = &mut self.recording else { return };
        open.note(json::event(event), at_ns);
        let last_ns = open.start_ns().saturating_add(longest_ns);
        open.until_ns = open.until_ns.max(at_ns + after_ns).min(last_ns);
        let described = open.describe(None);
        self.settle(described, common);
    }

    /// Begins a file with what is kept from `from_ns` on; whether it did.
    fn begin(&mut self, from_ns: u64, name: String, common: &mut Common<'_>) -> bool {
        if !common.may_write() {
            common.vitals.add(Counter::Lost, 1);
            return false;
        }
        let kept: Vec<Arc<Packet>> = self.ring.from(from_ns).cloned().collect();
        let Some(first) = kept.first() else { return false };
        let begun = common
            .store
            .place(&self.name, first.header.wall_ns, false, &name)
            .and_then(|path| Recording::begin(path, &self.name, first));
        match begun {
            Ok(open) => {
                common.trouble = None;
                common.store.note(open.path(), true);
                self.recording = Some((open, name));
            }
            Err(error) => {
                common.vitals.add(Counter::Lost, 1);
                common.failed(&common.clips.folder.display().to_string(), &error);
                return false;
            }
        }
        for packet in &kept {
            self.write(packet, common);
        }
        self.recording.is_some()
    }

    fn write(&mut self, packet: &Arc<Packet>, common: &mut Common<'_>) {
        let Some((open, _)) = &mut self.recording else { return };
        match open.push(packet) {
            Ok(true) => common.store.note(open.path(), true),
            Ok(false) => {}
            Err(error) => self.settle(Err(error), common),
        }
    }

    /// Ends the clip when it could not be written.
    fn settle(&mut self, written: std::io::Result<()>, common: &mut Common<'_>) {
        let Err(error) = written else { return };
        let Some((open, _)) = self.recording.take() else { return };
        common.failed(&open.path().display().to_string(), &error);
        common.vitals.add(Counter::Lost, 1);
        common.store.note(open.path(), false);
    }

    /// Ends the clip, if there is one.
    pub(crate) fn close(&mut self, common: &mut Common<'_>, end: &str) {
        let Some((open, _)) = &mut self.recording else { return };
        if let Err(error) = open.finish(end) {
            self.settle(Err(error), common);
            return;
        }
        common.vitals.add(Counter::Written, 1);
        common.vitals.add(Counter::WrittenBytes, open.bytes());
        common.store.note(open.path(), false);
        self.recording = None;
    }
}
