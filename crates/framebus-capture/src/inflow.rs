//! What comes in before anything is decoded: a camera that sends and is never seen has
//! other faults than one that sends nothing.

use crate::threads;
use framebus_service::clock;
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts what one pipeline receives from its camera.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    /// When the first and the last piece of video came, CLOCK_MONOTONIC ns; 0 = not yet.
    first_ns: AtomicU64,
    last_ns: AtomicU64,
    /// Key frames that reached the decoder.
    keys: AtomicU64,
}

impl Inflow {
    /// Waits for the pipeline's decoder, and lets it begin with a key frame.
    pub(crate) fn install(pipeline: &gst::Pipeline) -> Arc<Self> {
        let inflow = Arc::new(Self::default());
        let counted = inflow.clone();
        pipeline.connect_deep_element_added(move |_, _, element| {
            if threads::is_video_decoder(element)
                && let Some(pad) = element.static_pad("sink")
            {
                let (inflow, begun) = (counted.clone(), AtomicBool::new(false));
                pad.add_probe(PadProbeType::BUFFER, move |_, info| {
                    begun.fetch_or(inflow.unit(info.buffer()), Relaxed);
                    if begun.load(Relaxed) {
                        return PadProbeReturn::Ok;
                    }
                    // Decoders make grey pictures of it, which a network sees things in.
                    info.flow_res = Ok(gst::FlowSuccess::Ok);
                    PadProbeReturn::Handled
                });
            }
        });
        inflow
    }

    /// Counts packets that come out of `pad`, long before there is a decoder.
    pub(crate) fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        let inflow = self.clone();
        pad.add_probe(PadProbeType::BUFFER | PadProbeType::BUFFER_LIST, move |_, _| {
            inflow.packet();
            PadProbeReturn::Ok
        });
    }

    fn packet(&self) {
        let now_ns = clock::monotonic_ns();
        self.last_ns.store(now_ns, Relaxed);
        let _ = self.first_ns.compare_exchange(0, now_ns, Relaxed, Relaxed);
    }

    /// Returns whether it is a key frame.
    fn unit(&self, unit: Option<&gst::Buffer>) -> bool {
        self.packet();
        let key = unit.is_some_and(|unit| !unit.flags().contains(gst::BufferFlags::DELTA_UNIT));
        self.keys.fetch_add(u64::from(key), Relaxed);
        key
    }

    /// What stands in the way of a first picture, once video has come in for longer than
    /// `limit_ns` and still does; and for how long it has.
    pub(crate) fn unseen(&self, now_ns: u64, limit_ns: u64) -> Option<(String, u64)> {
        let first_ns = self.first_ns.load(Relaxed);
        let quiet_ns = now_ns.saturating_sub(self.last_ns.load(Relaxed));
        if first_ns == 0 || quiet_ns > limit_ns {
            return None;
        }
        let limit_s = limit_ns as f64 / 1e9;
        let sentence = match self.keys.load(Relaxed) {
            0 => format!(
                "connected, but no key frame for {limit_s:.0} s: set a shorter key-frame interval in the camera"
            ),
            _ => format!("connected, but nothing could be decoded for {limit_s:.0} s"),
        };
        Some((sentence, now_ns.saturating_sub(first_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn video_without_key_frames_is_told_from_silence() {
        gst::init().expect("GStreamer");
        let inflow = Inflow::default();
        let now_ns = clock::monotonic_ns();
        assert_eq!(inflow.unseen(now_ns, 5 * SECOND), None);
        let mut unit = gst::Buffer::new();
        unit.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        inflow.unit(Some(&unit));
        let later_ns = clock::monotonic_ns() + 4 * SECOND;
        let (said, since_ns) = inflow.unseen(later_ns, 5 * SECOND).expect("video came in");
        assert!(said.starts_with("connected, but no key frame for 5 s"), "{said}");
        assert!((3 * SECOND..=5 * SECOND).contains(&since_ns), "{since_ns}");
        unit.make_mut().unset_flags(gst::BufferFlags::DELTA_UNIT);
        inflow.unit(Some(&unit));
        let (said, _) = inflow.unseen(later_ns, 5 * SECOND).expect("video came in");
        assert_eq!(said, "connected, but nothing could be decoded for 5 s");
        // Long silence is a stall, whatever came before.
        assert_eq!(inflow.unseen(later_ns + 9 * SECOND, 5 * SECOND), None);
    }
}
