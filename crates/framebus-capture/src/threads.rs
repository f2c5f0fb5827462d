//! How many threads a software decoder gets.
//!
//! Left alone, libav starts one thread per core that decode frames side by side. Each of
//! them holds a frame back, so that on n cores every frame comes n - 1 frames late; it costs
//! an eighth more processor time, and takes cores from inference. A camera at its own pace
//! needs a fraction of one core. A recording that is read as fast as possible shares the
//! machine with an inference that needs more than decoding does: half of the cores suffice.

use crate::decoder::decodes_video;
use framebus_config::{Camera, Pace, Source};
use gst::prelude::*;

/// Sets the threads of decoders that are added to the pipeline.
pub(crate) fn set(pipeline: &gst::Pipeline, camera: &Camera) {
    let fast = matches!(camera.source, Source::File(_)) && camera.pace == Pace::Fast;
    // The idle gate needs each picture as soon as its frame is in.
    let side_by_side = fast && !camera.idle_gate;
    let threads = match camera.decoder_threads {
        0 if side_by_side => {
            std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
        }
        0 => 1,
        threads => threads,
    };
    let threads = i32::try_from(threads).unwrap_or(i32::MAX);
    pipeline.connect_deep_element_added(move |_, _, element| {
        if !is_video_decoder(element) || !element.has_property("max-threads") {
            return;
        }
        // The same name has other types elsewhere.
        match element.property_type("max-threads") {
            Some(kind) if kind == i32::static_type() => {
                element.set_property("max-threads", threads)
            }
            Some(kind) if kind == u32::static_type() => {
                element.set_property("max-threads", threads.unsigned_abs());
            }
            _ => {}
        }
        if !side_by_side && element.has_property("thread-type") {
            element.set_property_from_str("thread-type", "slice");
        }
    });
}

/// Whether an element decodes video.
pub(crate) fn is_video_decoder(element: &gst::Element) -> bool {
    let Some(factory) = element.factory() else { return false };
    decodes_video(factory.metadata("klass").unwrap_or_default())
}
