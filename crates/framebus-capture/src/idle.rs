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
//!
//! Frames of a burst bear the time at which they were decoded as `capture_ns`, up to
//! `idle_max_s` after the camera sent them; `pts_ns` tells them apart.

use crate::gate::{Gate, Unit, Verdict};
use crate::limit::Timeline;
use crate::tap::Tap;
use framebus_config::Camera;
use framebus_service::clock;
use framebus_types::Counter;
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many key frames without a picture from the decoder are no idle camera any more.
const UNANSWERED: u32 = 3;

struct State {
    gate: Gate,
    /// The decoder's pad; a stream beside it is not gated.
    owner: gst::glib::WeakRef<gst::Pad>,
    timeline: Timeline,
    kept: Vec<gst::Buffer>,
    /// Pictures that the decoder had given at the last key frame, and key frames since
    /// it gave one.
    answered: u64,
    unanswered: u32,
}

impl State {
    fn new(gate: Gate) -> Self {
        Self {
            gate,
            owner: gst::glib::WeakRef::new(),
            timeline: Timeline::default(),
            kept: Vec::new(),
            answered: 0,
            unanswered: 0,
        }
    }

    /// Whether the gate is this pad's. The first pad takes it, and the next one when the
    /// decoder is replaced: what is kept of one stream must not enter another's decoder.
    fn owned_by(&mut self, pad: &gst::Pad) -> bool {
        match self.owner.upgrade() {
            Some(owner) => owner == *pad,
            None => {
                self.owner = pad.downgrade();
                true
            }
        }
    }
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
            state: Mutex::new(State::new(Gate::new(
                ns(camera.motion_hold_s),
                ns(camera.idle_max_s),
            ))),
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
            move |pad, info| {
                if let (Some(idle), Some(event)) = (events.upgrade(), info.event()) {
                    idle.event(pad, event);
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
            if !state.owned_by(pad) {
                return Ok(true);
            }
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
        let mut burst = burst.into_iter();
        self.bursting.store(true, Relaxed);
        let pushed = burst.try_for_each(|kept| pad.chain(kept).map(drop));
        self.bursting.store(false, Relaxed);
        if pushed.is_err() {
            // The pipeline stops: neither the rest nor the unit behind it is decoded.
            self.tap.output().vitals().add(Counter::Undecoded, burst.len() as u64 + 1);
        }
        pushed.map(|()| true)
    }

    fn event(&self, pad: &gst::Pad, event: &gst::EventRef) {
        let mut state = self.state();
        if !state.owned_by(pad) {
            return;
        }
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

    #[test]
    fn the_gate_is_one_decoders_until_that_is_gone() {
        gst::init().expect("GStreamer");
        let mut state = State::new(Gate::new(1_000_000_000, 10_000_000_000));
        let [first, second] = [0; 2].map(|_| gst::Pad::new(gst::PadDirection::Sink));
        assert!(state.owned_by(&first) && !state.owned_by(&second) && state.owned_by(&first));
        drop(first);
        assert!(state.owned_by(&second));
    }
}
