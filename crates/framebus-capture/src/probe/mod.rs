//! A look at a camera for some seconds, beside everything else: `framebus doctor` asks
//! for it. Nothing gets onto the bus; the answer is one JSON object.
//!
//! ```text
//! source → decoder → fakesink
//!        ↑ caps, arrival, size, key frames
//! ```

mod decoders;
mod figures;

pub use decoders::decoders;

use crate::error::CaptureError;
use crate::{explain, picture, source, threads};
use figures::{Figures, Pace, Unit};
use framebus_config::{Camera, Source};
use framebus_service::{Shutdown, clock};
use gst::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How often the pipeline is looked at, at least.
const STEP: Duration = Duration::from_millis(50);
/// A pipeline that does not stop is left behind: the process ends anyway.
const STOP: Duration = Duration::from_secs(2);

/// What has been seen of the stream.
#[derive(Default)]
struct Seen {
    /// Compressed frames, as they reach the decoder; decoded ones without a decoder.
    units: Vec<Unit>,
    /// Frames behind the decoder.
    pictures: u64,
    /// Of the compressed stream.
    caps: Option<gst::Caps>,
    /// Of the decoded one.
    raw_caps: Option<gst::Caps>,
    decoder: Option<String>,
}

/// Looks at a camera until the key-frame distance is known, `limit` at most, connecting
/// included. The answer has `camera`, `ok` and `reason`; figures that could not be
/// taken are null. Nothing in it shows a login.
#[must_use]
pub fn probe(camera: &Camera, limit: Duration) -> Value {
    let (figures, seen, error) = if picture::is_picture(&camera.source) {
        match picture::probe(camera) {
            Ok((width, height)) => return pictures(camera, width, height),
            Err(error) => (Figures::default(), Seen::default(), Some(error)),
        }
    } else {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let error = look(camera, limit, &seen).err();
        let seen = std::mem::take(&mut *lock(&seen));
        (Figures::of(&seen.units, pace(camera), seen.decoder.is_some()), seen, error)
    };
    let nothing = (seen.pictures == 0).then(|| nothing(&seen, limit));
    let reason = error.map(|error| error.sentence()).or(nothing);
    let caps = seen.caps.as_ref().or(seen.raw_caps.as_ref()).and_then(|caps| caps.structure(0));
    let raw = seen.raw_caps.as_ref().and_then(|caps| caps.structure(0));
    let side = |name: &str| {
        let of = |s: &gst::StructureRef| s.get::<i32>(name).ok().filter(|side| *side > 0);
        raw.and_then(of).or_else(|| caps.and_then(of))
    };
    let announced = caps.and_then(|caps| caps.get::<gst::Fraction>("framerate").ok());
    let announced = announced.filter(|rate| rate.numer() > 0 && rate.denom() > 0);
    json!({
        "camera": camera.name.as_str(),
        "source": camera.source.to_string(),
        "ok": reason.is_none(),
        "reason": reason,
        "codec": caps.map(codec),
        "profile": caps.and_then(|caps| caps.get::<&str>("profile").ok()),
        "width": side("width"),
        "height": side("height"),
        "fps_announced":
            announced.map(|rate| figures::round(f64::from(rate.numer()) / f64::from(rate.denom()))),
        "fps_measured": figures.fps,
        "frames": seen.units.len(),
        "key_frames": figures.key_frames,
        "key_frame_s": figures.key_frame_s,
        "key_frame_frames": figures.key_frame_frames,
        "jitter_p95_ms": figures.jitter_p95_ms,
        "jitter_max_ms": figures.jitter_max_ms,
        "bit_rate_kbps": figures.bit_rate_kbps,
        "decoder": seen.decoder,
        "latency_ms": matches!(camera.source, Source::Rtsp(_)).then_some(camera.latency_ms),
    })
}

/// A picture has neither rate nor decoder.
fn pictures(camera: &Camera, width: u32, height: u32) -> Value {
    json!({
        "camera": camera.name.as_str(),
        "source": camera.source.to_string(),
        "ok": true,
        "reason": null,
        "codec": "pictures",
        "width": width,
        "height": height,
    })
}

/// What it means that no picture came, in words.
fn nothing(seen: &Seen, limit: Duration) -> String {
    let seconds = limit.as_secs_f64();
    match seen.units.len() {
        0 => format!("no frame within {seconds:.0} s"),
        units => format!("{units} frames arrived within {seconds:.0} s, none could be decoded"),
    }
}

/// A file is read as fast as it goes: its own time stamps tell its rate.
fn pace(camera: &Camera) -> Pace {
    match camera.source {
        Source::File(_) => Pace::Stamps,
        _ => Pace::Arrival,
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(camera: &Camera, limit: Duration, seen: &Arc<Mutex<Seen>>) -> Result<(), CaptureError> {
    gst::init().map_err(CaptureError::Init)?;
    let pipeline = gst::Pipeline::new();
    let broken = |error: gst::glib::BoolError| explain::broken(&camera.source, &error.message);
    let bus = pipeline.bus().ok_or_else(|| explain::broken(&camera.source, "no message bus"))?;
    threads::set(&pipeline, camera);
    watch_decoders(&pipeline, seen);
    let sink = source::make("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("enable-last-sample", false);
    pipeline.add(&sink).map_err(broken)?;
    watch_pictures(&sink, seen);
    // The camera's own size is told, not the one that is published.
    let unscaled = Camera { max_width: None, ..camera.clone() };
    let end = source::attach(&pipeline, &sink, &unscaled, &Arc::default()).and_then(|()| {
        // An error also posts a message, which says more.
        let _ = pipeline.set_state(gst::State::Playing);
        listen(camera, &bus, limit, seen)
    });
    let (done, stopped) = mpsc::channel();
    let stopping = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        let _ = pipeline.set_state(gst::State::Null);
        let _ = done.send(());
    });
    if stopping.is_ok() {
        let _ = stopped.recv_timeout(STOP);
    }
    match end {
        Err(CaptureError::Source { source_name, reason }) if reason == UNCONNECTED => {
            // Asked after the stop: some cameras take one connection only.
            let better = match &camera.source {
                Source::Rtsp(url) => explain::unreachable(url.as_str(), &Shutdown::new()),
                _ => None,
            };
            let reason = better.unwrap_or_else(|| "no RTSP server answers there".to_owned());
            Err(CaptureError::Source { source_name, reason })
        }
        end => end,
    }
}

/// Stands for a connection that failed without a reason.
const UNCONNECTED: &str = "unconnected";

/// Waits until enough has been seen, or for the reason why it cannot be.
fn listen(
    camera: &Camera,
    bus: &gst::Bus,
    limit: Duration,
    seen: &Mutex<Seen>,
) -> Result<(), CaptureError> {
    let deadline_ns = clock::monotonic_ns() + limit.as_nanos() as u64;
    let mut missing = None;
    while clock::monotonic_ns() < deadline_ns {
        let types = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Element];
        let step = gst::ClockTime::from_nseconds(STEP.as_nanos() as u64);
        let message = bus.timed_pop_filtered(step, &types);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => return Ok(()),
            Some(gst::MessageView::Error(message)) => {
                let (error, debug) = (message.error(), message.debug().unwrap_or_default());
                if explain::is_connect_error(&error, &debug)
                    && matches!(camera.source, Source::Rtsp(_))
                {
                    return Err(explain::reason(&camera.source, UNCONNECTED));
                }
                let text = explain::error(
                    &camera.source,
                    camera.decoder,
                    &error,
                    &debug,
                    missing.as_deref(),
                );
                return Err(explain::reason(&camera.source, &text));
            }
            Some(gst::MessageView::Element(message)) => {
                let structure = message.structure().filter(|s| s.name() == "missing-plugin");
                let name = structure.and_then(|s| s.get::<String>("name").ok());
                missing = name.or(missing);
            }
            _ => {}
        }
        let seen = lock(seen);
        if seen.pictures > 0
            && figures::is_enough(&seen.units, pace(camera), seen.decoder.is_some())
        {
            break;
        }
    }
    Ok(())
}

/// Notes what enters a decoder. The last one counts: earlier ones were tried and
/// found unfit.
fn watch_decoders(pipeline: &gst::Pipeline, seen: &Arc<Mutex<Seen>>) {
    let seen = seen.clone();
    pipeline.connect_deep_element_added(move |_, _, element| {
        if !threads::is_video_decoder(element) {
            return;
        }
        let Some(pad) = element.static_pad("sink") else { return };
        let name = element.factory().map(|factory| factory.name().to_string());
        *lock(&seen) = Seen { decoder: name, ..Seen::default() };
        let seen = seen.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let unit = Unit::of(buffer, clock::monotonic_ns());
                    figures::keep(&mut lock(&seen).units, unit);
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        lock(&seen).caps = Some(caps.caps_owned());
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// Notes what leaves the decoder, or the source where there is none.
fn watch_pictures(sink: &gst::Element, seen: &Arc<Mutex<Seen>>) {
    let Some(pad) = sink.static_pad("sink") else { return };
    let seen = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let mut seen = lock(&seen);
        seen.pictures += 1;
        if seen.raw_caps.is_none() {
            seen.raw_caps = pad.current_caps();
        }
        if seen.decoder.is_none() {
            let unit = Unit::of(buffer, clock::monotonic_ns());
            figures::keep(&mut seen.units, unit);
        }
        gst::PadProbeReturn::Ok
    });
}

/// The codec as cameras' own pages name it.
fn codec(caps: &gst::StructureRef) -> String {
    match caps.name().as_str() {
        "video/x-h264" => "H.264".to_owned(),
        "video/x-h265" => "H.265".to_owned(),
        "image/jpeg" => "MJPEG".to_owned(),
        "video/x-raw" => "raw".to_owned(),
        "video/mpeg" => format!("MPEG-{}", caps.get::<i32>("mpegversion").unwrap_or(4)),
        other => other.trim_start_matches("video/x-").to_uppercase(),
    }
}
