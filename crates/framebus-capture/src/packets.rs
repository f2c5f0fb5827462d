//! The camera's own compressed video, in front of the decoder and of the idle gate: one
//! packet a frame onto the bus, where a sink wants it. Nothing is decoded or encoded for it.
//!
//! `decodebin` puts a parser in front of every H.264 and H.265 decoder. What leaves it is
//! what MP4 files hold (`avc`, `hvc1`) unless the decoder wants start codes; [`Reframer`]
//! changes the form then, and nothing else.

use crate::reframe::Reframer;
use framebus_bus::{Bus, PacketPublisher};
use framebus_service::clock;
use framebus_types::{Codec, PACKET_DISCONTINUITY, PACKET_KEY, PacketHeader, text};
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One camera's packets; lives as long as the process, across reconnects, so that sequence
/// numbers go on.
pub(crate) struct Packets {
    bus: Arc<Bus>,
    camera: String,
    epoch_ns: u64,
    sequence: AtomicU64,
    publisher: Mutex<Publisher>,
}

enum Publisher {
    /// No packet has come yet: a camera that sends none needs no memory for them.
    Unopened,
    Open(Arc<PacketPublisher>),
    /// The bus refused, which was logged; frames are not held up by it.
    Refused,
}

impl Packets {
    pub(crate) fn new(bus: &Arc<Bus>, camera: &str, epoch_ns: u64) -> Arc<Self> {
        Arc::new(Self {
            bus: bus.clone(),
            camera: camera.to_owned(),
            epoch_ns,
            sequence: AtomicU64::new(0),
            publisher: Mutex::new(Publisher::Unopened),
        })
    }

    fn publisher(&self) -> Option<Arc<PacketPublisher>> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*publisher, Publisher::Unopened) {
            *publisher = match self.bus.packet_publisher(&self.camera) {
                Ok(opened) => Publisher::Open(Arc::new(opened)),
                Err(error) => {
                    tracing::error!(camera = self.camera, %error, "no compressed video for sinks");
                    Publisher::Refused
                }
            };
        }
        match &*publisher {
            Publisher::Open(publisher) => Some(publisher.clone()),
            _ => None,
        }
    }

    /// Sends one access unit whose form `format` describes.
    fn send(&self, format: &Format, buffer: &gst::BufferRef, discontinuity: bool) {
        let (Some(publisher), Ok(map)) = (self.publisher(), buffer.map_readable()) else { return };
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let ns = |time: Option<gst::ClockTime>| time.map(gst::ClockTime::nseconds);
        let header = PacketHeader {
            codec: format.codec.into(),
            camera: text::pack(&self.camera),
            epoch_ns: self.epoch_ns,
            sequence: self.sequence.fetch_add(1, Relaxed),
            capture_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
            pts_ns: ns(buffer.pts()).unwrap_or(u64::MAX),
            dts_ns: ns(buffer.dts()).unwrap_or(u64::MAX),
            duration_ns: ns(buffer.duration()).unwrap_or(0),
            flags: if key { PACKET_KEY } else { 0 }
                | if discontinuity { PACKET_DISCONTINUITY } else { 0 },
            width: format.width,
            height: format.height,
            ..PacketHeader::default()
        };
        let config: &[u8] = if key { &format.config } else { &[] };
        // Its number is used up: readers see that it is missing.
        if let Err(error) = publisher.publish(&header, config, &map) {
            tracing::warn!(camera = self.camera, %error, "packet lost");
        }
    }
}

/// What a parser says of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    codec: Codec,
    /// Payload of the `avcC` or `hvcC` box.
    config: Vec<u8>,
    width: u32,
    height: u32,
}

impl Format {
    /// What `caps` describe, if it is in the form that MP4 files hold.
    pub(crate) fn from_caps(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let (codec, form) = match structure.name().as_str() {
            "video/x-h264" => (Codec::H264, "avc"),
            "video/x-h265" => (Codec::H265, "hvc1"),
            _ => return None,
        };
        let text = |key| structure.get::<&str>(key).ok();
        if text("stream-format") != Some(form) || text("alignment") != Some("au") {
            return None;
        }
        let config = structure.get::<gst::Buffer>("codec_data").ok()?;
        let config = config.map_readable().ok()?.to_vec();
        let side = |key| structure.get::<i32>(key).ok().and_then(|side| u32::try_from(side).ok());
        let (width, height) = (side("width").unwrap_or(0), side("height").unwrap_or(0));
        (!config.is_empty()).then_some(Self { codec, config, width, height })
    }
}

/// Takes the packets of one pipeline.
pub(crate) struct PacketTap {
    packets: Arc<Packets>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The parser's pad; a stream beside it is left alone.
    owner: gst::glib::WeakRef<gst::Pad>,
    format: Option<Format>,
    /// Where the stream has another form.
    reframer: Option<Reframer>,
    /// A packet has been sent.
    begun: bool,
    closed: bool,
}

impl PacketTap {
    /// Waits for the pipeline's parser.
    pub(crate) fn install(pipeline: &gst::Pipeline, packets: &Arc<Packets>) -> Arc<Self> {
        let tap = Arc::new(Self { packets: packets.clone(), state: Mutex::default() });
        let weak = Arc::downgrade(&tap);
        pipeline.connect_deep_element_added(move |_, _, element| {
            let parses = element
                .factory()
                .is_some_and(|factory| matches!(&*factory.name(), "h264parse" | "h265parse"));
            if let (true, Some(tap), Some(pad)) =
                (parses, weak.upgrade(), element.static_pad("src"))
            {
                tap.watch(&pad);
            }
        });
        tap
    }

    /// The pipeline has ended.
    pub(crate) fn close(&self) {
        let reframer = {
            let mut state = self.state();
            state.closed = true;
            state.reframer.take()
        };
        // Stopping it may wait for a packet that is on its way through it.
        drop(reframer);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        // The pipeline owns the probes, the session owns the tap.
        let weak = Arc::downgrade(self);
        pad.add_probe(PadProbeType::BUFFER | PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
            let Some(tap) = weak.upgrade() else { return PadProbeReturn::Ok };
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => tap.unit(pad, buffer),
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        tap.caps(pad, caps.caps());
                    }
                }
                _ => {}
            }
            PadProbeReturn::Ok
        });
    }

    /// Whether the stream is this pad's. The first pad takes it, and the next one when the
    /// decoder is replaced.
    fn owned_by(state: &mut State, pad: &gst::Pad) -> bool {
        match state.owner.upgrade() {
            Some(owner) => owner == *pad,
            None => {
                state.owner = pad.downgrade();
                true
            }
        }
    }

    fn caps(self: &Arc<Self>, pad: &gst::Pad, caps: &gst::CapsRef) {
        let mut state = self.state();
        if state.closed || !Self::owned_by(&mut state, pad) {
            return;
        }
        state.format = Format::from_caps(caps);
        let old = state.reframer.take();
        if state.format.is_none() {
            let weak = Arc::downgrade(self);
            let made = Reframer::new(caps, move |format, buffer| {
                if let Some(tap) = weak.upgrade() {
                    tap.send(format, buffer);
                }
            });
            state.reframer = made
                .inspect_err(|error| tracing::warn!(%error, "no compressed video for sinks"))
                .ok();
        }
        drop(state);
        drop(old);
    }

    fn unit(&self, pad: &gst::Pad, buffer: &gst::Buffer) {
        let (format, reframer) = {
            let mut state = self.state();
            if state.closed || !Self::owned_by(&mut state, pad) {
                return;
            }
            (state.format.clone(), state.reframer.clone())
        };
        match (format, reframer) {
            (Some(format), _) => self.send(&format, buffer),
            (None, Some(reframer)) => reframer.push(buffer.clone()),
            (None, None) => {}
        }
    }

    fn send(&self, format: &Format, buffer: &gst::BufferRef) {
        let first = !std::mem::replace(&mut self.state().begun, true);
        self.packets.send(format, buffer, first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats and bytes of what the pipeline's reframer makes of `form`.
    fn reframed(codec: &str, form: &str) -> Vec<(Format, Vec<u8>)> {
        let text = format!(
            "videotestsrc num-buffers=12 ! video/x-raw,width=64,height=48,framerate=10/1 ! \
             {codec} tune=zerolatency key-int-max=5 ! {parse} ! {form} ! fakesink name=end",
            parse = if codec == "x264enc" { "h264parse" } else { "h265parse" },
        );
        let pipeline = gst::parse::launch(&text).expect("a pipeline");
        let pipeline = pipeline.downcast::<gst::Pipeline>().expect("is one");
        let pad = pipeline.by_name("end").and_then(|e| e.static_pad("sink")).expect("a pad");
        let got = Arc::new(Mutex::new(Vec::new()));
        let (sent, made) = (got.clone(), Mutex::new(None::<Reframer>));
        pad.add_probe(PadProbeType::BUFFER, move |pad, info| {
            let caps = pad.current_caps().expect("negotiated");
            let buffer = info.buffer().expect("asked for").clone();
            let keep = sent.clone();
            let put = move |format: &Format, buffer: &gst::BufferRef| {
                let bytes = buffer.map_readable().expect("memory").to_vec();
                keep.lock().expect("no panic").push((format.clone(), bytes));
            };
            match Format::from_caps(&caps) {
                Some(format) => put(&format, &buffer),
                None => {
                    let mut made = made.lock().expect("no panic");
                    made.get_or_insert_with(|| Reframer::new(&caps, put).expect("made"))
                        .push(buffer);
                }
            }
            PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).expect("starts");
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = pipeline.bus().expect("a bus").timed_pop_filtered(None, &ends).expect("an end");
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
        pipeline.set_state(gst::State::Null).expect("stops");
        std::mem::take(&mut got.lock().expect("no panic"))
    }

    #[test]
    fn start_codes_become_lengths_and_nothing_else_changes() {
        gst::init().expect("GStreamer");
        for (codec, kind, mp4) in
            [("x264enc", "video/x-h264", "avc"), ("x265enc", "video/x-h265", "hvc1")]
        {
            if gst::ElementFactory::find(codec).is_none() {
                continue;
            }
            let as_files = reframed(codec, &format!("{kind},stream-format={mp4},alignment=au"));
            let start_codes =
                reframed(codec, &format!("{kind},stream-format=byte-stream,alignment=au"));
            assert_eq!(as_files.len(), 12, "{codec}");
            assert_eq!(start_codes.len(), 12, "{codec}");
            for (one, other) in as_files.iter().zip(&start_codes) {
                let (format, bytes) = one;
                assert_eq!((format.width, format.height), (64, 48));
                assert_eq!(format, &other.0, "{codec}");
                // Parameter sets inside of a byte stream stay where they are.
                assert!(other.1.ends_with(bytes), "{codec}: {} {}", other.1.len(), bytes.len());
            }
        }
    }
}
