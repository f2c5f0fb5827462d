//! The gate in front of the decoder: while a camera is idle, only key frames are decoded.
//!
//! Key frames always pass. The frames behind one are kept; when their sizes, or motion in a
//! decoded frame, say that something happens, they are decoded in one burst and the gate
//! stays open until it has been quiet for the hold time. What is still kept when the next
//! key frame comes is dropped and counted as `Undecoded`. Since whatever is kept follows
//! the last decoded frame without a gap, the gate can close at any frame.
//!
//! Bound: something that moves is seen with the next key frame at the latest, and a stream
//! whose key frames are further apart than `idle_max_s` is decoded as a whole. Decoders that
//! reorder (B frames) hand a key frame out when the next one comes, one group of pictures
//! later. Groups that are open (pictures before their key frame that need the group before)
//! cannot be left out: the first of them opens the gate for good.

use crate::limit::Timeline;
use crate::sizes::{Hint, Sizes};
use crate::tap::Tap;
use framebus_config::Camera;
use framebus_service::clock;
use framebus_types::Counter;
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most that is kept; beyond it everything passes until the next key frame.
const KEPT_FRAMES: usize = 1800;
const KEPT_BYTES: usize = 32 << 20;
/// So many key frames without a picture from the decoder are no idle camera any more.
const UNANSWERED: u32 = 3;

/// One compressed frame, as far as the gate is concerned.
#[derive(Debug, Clone, Copy)]
struct Unit {
    key: bool,
    bytes: usize,
    /// Presentation time, ns.
    pts_ns: Option<u64>,
    /// Time that always advances, ns.
    time_ns: u64,
    /// Motion was found in a frame decoded since the unit before.
    moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// To the decoder, behind everything that is kept.
    Decode,
    /// What is kept is dropped; this one goes to the decoder.
    Renew,
    Keep,
}

/// When to decode; no GStreamer in it.
#[derive(Debug)]
struct Gate {
    hold_ns: u64,
    max_ns: u64,
    sizes: Sizes,
    /// Open until then.
    open_ns: Option<u64>,
    /// Everything passes until the next key frame.
    through: bool,
    /// Everything passes: open groups of pictures.
    never: bool,
    /// The last key frame: its time and its presentation time.
    key_ns: Option<u64>,
    key_pts_ns: Option<u64>,
    kept: usize,
    kept_bytes: usize,
}

impl Gate {
    fn new(hold_ns: u64, max_ns: u64) -> Self {
        Self {
            hold_ns,
            max_ns,
            sizes: Sizes::default(),
            open_ns: None,
            through: true,
            never: false,
            key_ns: None,
            key_pts_ns: None,
            kept: 0,
            kept_bytes: 0,
        }
    }

    fn look(&mut self, unit: &Unit) -> Verdict {
        if unit.moved {
            self.open_ns = Some(unit.time_ns.saturating_add(self.hold_ns));
        }
        if unit.key {
            self.sizes.key();
            let group_ns =
                self.key_ns.replace(unit.time_ns).map(|last| unit.time_ns.abs_diff(last));
            self.key_pts_ns = unit.pts_ns;
            self.through = group_ns.is_none_or(|group_ns| group_ns > self.max_ns);
            (self.kept, self.kept_bytes) = (0, 0);
            return Verdict::Renew;
        }
        self.never |= unit.pts_ns.zip(self.key_pts_ns).is_some_and(|(pts, key)| pts < key);
        let is_open = |gate: &Self| gate.open_ns.is_some_and(|until| unit.time_ns < until);
        let hint = self.sizes.delta(unit.bytes, is_open(self));
        if hint == Hint::Busy {
            self.open_ns = Some(unit.time_ns.saturating_add(self.hold_ns));
        }
        let age_ns = self.key_ns.map_or(u64::MAX, |key_ns| unit.time_ns.saturating_sub(key_ns));
        self.through |= age_ns > self.max_ns
            || self.kept >= KEPT_FRAMES
            || self.kept_bytes + unit.bytes > KEPT_BYTES;
        if self.through || self.never || hint != Hint::Quiet || is_open(self) {
            (self.kept, self.kept_bytes) = (0, 0);
            return Verdict::Decode;
        }
        self.kept += 1;
        self.kept_bytes += unit.bytes;
        Verdict::Keep
    }

    /// The stream starts anew: nothing is known of what the decoder has.
    fn renew(&mut self) {
        self.through = true;
        (self.key_ns, self.key_pts_ns) = (None, None);
        (self.kept, self.kept_bytes) = (0, 0);
    }
}

struct State {
    gate: Gate,
    timeline: Timeline,
    kept: Vec<gst::Buffer>,
    /// Pictures that the decoder had given at the last key frame, and key frames since
    /// it gave one.
    answered: u64,
    unanswered: u32,
}

/// The gate at the decoder's sink pad.
pub(crate) struct IdleTap {
    tap: Arc<Tap>,
    camera: String,
    state: Mutex<State>,
    /// What was kept is on its way into the decoder, through the same pad.
    bursting: AtomicBool,
    /// Units come whole; parts of frames would be mistaken for frames.
    whole: AtomicBool,
}

impl IdleTap {
    /// Waits for the pipeline's H.264 or H.265 decoder. Other streams are decoded as ever.
    pub(crate) fn install(pipeline: &gst::Pipeline, camera: &Camera, tap: &Arc<Tap>) -> Arc<Self> {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let idle = Arc::new(Self {
            tap: tap.clone(),
            camera: camera.name.to_string(),
            state: Mutex::new(State {
                gate: Gate::new(ns(camera.motion_hold_s), ns(camera.idle_max_s)),
                timeline: Timeline::default(),
                kept: Vec::new(),
                answered: 0,
                unanswered: 0,
            }),
            bursting: AtomicBool::new(false),
            whole: AtomicBool::new(true),
        });
        let weak = Arc::downgrade(&idle);
        pipeline.connect_deep_element_added(move |_, _, element| {
            if let Some(idle) = weak.upgrade()
                && let Some(pad) = decoder_pad(element)
            {
                idle.watch(&pad);
            }
        });
        idle
    }

    fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        // The pipeline owns the probes, the session owns the gate.
        let events = Arc::downgrade(self);
        pad.add_probe(
            PadProbeType::EVENT_DOWNSTREAM | PadProbeType::EVENT_FLUSH,
            move |_, info| {
                if let (Some(idle), Some(event)) = (events.upgrade(), info.event()) {
                    idle.event(event);
                }
                PadProbeReturn::Ok
            },
        );
        let units = Arc::downgrade(self);
        pad.add_probe(PadProbeType::BUFFER, move |pad, info| {
            let (Some(idle), Some(buffer)) = (units.upgrade(), info.buffer()) else {
                return PadProbeReturn::Ok;
            };
            match idle.unit(pad, buffer) {
                Ok(true) => PadProbeReturn::Ok,
                Ok(false) => {
                    info.flow_res = Ok(gst::FlowSuccess::Ok);
                    PadProbeReturn::Handled
                }
                Err(error) => {
                    info.flow_res = Err(error);
                    PadProbeReturn::Handled
                }
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A unit in front of the decoder; whether it goes in.
    fn unit(&self, pad: &gst::Pad, buffer: &gst::Buffer) -> Result<bool, gst::FlowError> {
        if self.bursting.load(Relaxed) || !self.whole.load(Relaxed) {
            return Ok(true);
        }
        let now_ns = clock::monotonic_ns();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let burst = {
            let mut state = self.state();
            let state = &mut *state;
            // Decoding times advance where presentation times of B frames do not.
            let time = buffer.dts_or_pts().map(gst::ClockTime::nseconds);
            let unit = Unit {
                key,
                bytes: buffer.size(),
                pts_ns: buffer.pts().map(gst::ClockTime::nseconds),
                time_ns: state.timeline.time_ns(time, now_ns),
                moved: self.tap.take_moved(),
            };
            let was_closed_group = !state.gate.never;
            let verdict = state.gate.look(&unit);
            if was_closed_group && state.gate.never {
                tracing::warn!(
                    camera = self.camera,
                    "idle_gate has no effect: the stream has open groups of pictures, of which no \
                     frame can be left out; choose closed ones (IDR key frames) in the camera"
                );
            }
            match verdict {
                Verdict::Renew => {
                    let frames = self.tap.frames();
                    let silent = frames == state.answered;
                    state.unanswered = if silent { state.unanswered + 1 } else { 0 };
                    state.answered = frames;
                    self.drop_kept(state);
                    return Ok(true);
                }
                Verdict::Keep => {
                    // A copy: the source may have few buffers of its own.
                    let copy = buffer.copy_deep().map_err(|_| gst::FlowError::Error)?;
                    state.kept.push(copy);
                    if state.unanswered < UNANSWERED {
                        self.tap.heard();
                    }
                    return Ok(false);
                }
                Verdict::Decode => std::mem::take(&mut state.kept),
            }
        };
        if burst.is_empty() {
            return Ok(true);
        }
        tracing::debug!(camera = self.camera, frames = burst.len(), "the scene is no longer idle");
        self.bursting.store(true, Relaxed);
        let pushed = burst.into_iter().try_for_each(|kept| pad.chain(kept).map(drop));
        self.bursting.store(false, Relaxed);
        pushed.map(|()| true)
    }

    fn event(&self, event: &gst::EventRef) {
        match event.view() {
            gst::EventView::Caps(caps) => {
                let parts = caps
                    .caps()
                    .structure(0)
                    .and_then(|s| s.get::<&str>("alignment").ok())
                    .is_some_and(|alignment| alignment != "au");
                self.whole.store(!parts, Relaxed);
            }
            gst::EventView::StreamStart(_)
            | gst::EventView::Segment(_)
            | gst::EventView::FlushStop(_)
            | gst::EventView::Eos(_) => {}
            _ => return,
        }
        let mut state = self.state();
        self.drop_kept(&mut state);
        state.gate.renew();
    }

    /// The pipeline has ended: what is kept will not be decoded.
    pub(crate) fn discard(&self) {
        self.drop_kept(&mut self.state());
    }

    fn drop_kept(&self, state: &mut State) {
        if !state.kept.is_empty() {
            self.tap.output().vitals().add(Counter::Undecoded, state.kept.len() as u64);
            state.kept.clear();
        }
    }
}

/// The sink pad of an H.264 or H.265 decoder.
fn decoder_pad(element: &gst::Element) -> Option<gst::Pad> {
    // The decoder inside a bin is announced by itself.
    if element.is::<gst::Bin>() || !crate::threads::is_video_decoder(element) {
        return None;
    }
    let pad = element.static_pad("sink")?;
    let compressed = ["video/x-h264", "video/x-h265"];
    let takes = pad.pad_template_caps();
    takes.iter().any(|s| compressed.contains(&s.name().as_str())).then_some(pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_NS: u64 = 40_000_000;
    const SECOND: u64 = 1_000_000_000;

    /// Runs a stream at 25 frames/s through a gate; returns the verdicts.
    struct Stream {
        gate: Gate,
        frame: u64,
    }

    impl Stream {
        fn new() -> Self {
            Self { gate: Gate::new(SECOND, 10 * SECOND), frame: 0 }
        }

        fn unit(&mut self, key: bool, bytes: usize) -> Unit {
            let time_ns = 3_600 * SECOND + self.frame * FRAME_NS;
            self.frame += 1;
            Unit { key, bytes, pts_ns: Some(time_ns), time_ns, moved: false }
        }

        fn push(&mut self, key: bool, bytes: usize) -> Verdict {
            let unit = self.unit(key, bytes);
            self.gate.look(&unit)
        }

        /// One group of pictures of `length`, of `bytes` each.
        fn group(&mut self, length: usize, bytes: impl Fn(usize) -> usize) -> Vec<Verdict> {
            (0..length)
                .map(|i| if i == 0 { self.push(true, 50_000) } else { self.push(false, bytes(i)) })
                .collect()
        }

        /// Until the gate knows the stream.
        fn learn(&mut self) {
            for _ in 0..5 {
                self.group(100, |i| 500 + i % 7 * 20);
            }
        }
    }

    #[test]
    fn an_idle_stream_is_decoded_by_its_key_frames() {
        let mut stream = Stream::new();
        let first = stream.group(25, |_| 500);
        assert!(first[1..].iter().all(|verdict| *verdict == Verdict::Decode), "{first:?}");
        stream.learn();
        let group = stream.group(25, |i| 500 + i % 5 * 30);
        assert_eq!(group[0], Verdict::Renew);
        assert!(group[1..].iter().all(|verdict| *verdict == Verdict::Keep), "{group:?}");
    }

    #[test]
    fn a_large_frame_opens_at_once_and_quiet_closes_after_the_hold() {
        let mut stream = Stream::new();
        stream.learn();
        let group = stream.group(100, |i| if i == 10 { 4000 } else { 500 });
        assert_eq!(group[9], Verdict::Keep);
        // 1 s of hold are 25 frames; the run of sizes calms down before that.
        let open: Vec<usize> = (1..100).filter(|i| group[*i] == Verdict::Decode).collect();
        assert_eq!(open.first(), Some(&10));
        assert!((30..60).contains(open.last().expect("open")), "{open:?}");
        assert_eq!(open.len(), open.last().expect("open") - 9, "without a gap");
        assert_eq!(group[99], Verdict::Keep);
    }

    #[test]
    fn motion_in_a_key_frame_opens() {
        let mut stream = Stream::new();
        stream.learn();
        stream.push(true, 50_000);
        let unit = Unit { moved: true, ..stream.unit(false, 500) };
        assert_eq!(stream.gate.look(&unit), Verdict::Decode);
        assert_eq!(stream.push(false, 500), Verdict::Decode);
    }

    #[test]
    fn key_frames_far_apart_open_for_good() {
        let mut stream = Stream::new();
        stream.gate.max_ns = u64::MAX;
        stream.group(500, |_| 500);
        stream.group(500, |_| 500);
        stream.gate.max_ns = 10 * SECOND;
        stream.group(25, |_| 500);
        stream.group(25, |_| 500);
        let far = stream.group(500, |_| 500);
        // After 10 s the first time, from then on at once.
        assert_eq!(far[249], Verdict::Keep);
        assert!(far[251..].iter().all(|verdict| *verdict == Verdict::Decode));
        let next = stream.group(500, |_| 500);
        assert!(next[1..].iter().all(|verdict| *verdict == Verdict::Decode));
        stream.group(25, |_| 500);
        assert!(stream.group(25, |_| 500)[5..].contains(&Verdict::Keep));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut stream = Stream::new();
        stream.gate.max_ns = u64::MAX;
        for _ in 0..3 {
            stream.group(KEPT_FRAMES + 100, |_| 100);
        }
        let many = stream.group(KEPT_FRAMES + 100, |_| 100);
        let kept = many.iter().filter(|verdict| **verdict == Verdict::Keep).count();
        assert!(kept <= KEPT_FRAMES, "{kept}");
        assert_eq!(many.last(), Some(&Verdict::Decode));
        let mut stream = Stream::new();
        for _ in 0..5 {
            stream.group(25, |_| KEPT_BYTES / 10);
        }
        let large = stream.group(25, |_| KEPT_BYTES / 10);
        let kept = large.iter().filter(|verdict| **verdict == Verdict::Keep).count();
        assert_eq!(kept, 10, "{large:?}");
    }

    #[test]
    fn open_groups_are_never_left_out() {
        let mut stream = Stream::new();
        stream.learn();
        stream.push(true, 50_000);
        let mut leading = stream.unit(false, 500);
        leading.pts_ns = leading.pts_ns.map(|pts| pts - 3 * FRAME_NS);
        assert_eq!(stream.gate.look(&leading), Verdict::Decode);
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Decode));
    }

    #[test]
    fn a_stream_that_starts_anew_is_decoded_up_to_its_second_key_frame() {
        let mut stream = Stream::new();
        stream.learn();
        stream.gate.renew();
        assert_eq!(stream.push(false, 500), Verdict::Decode);
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Decode));
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Keep));
    }
}
