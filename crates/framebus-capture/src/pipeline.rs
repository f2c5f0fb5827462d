//! What stands behind every source: pace, converter, probes, shared memory.
//!
//! ```text
//! source → [identity sync] → videoconvertscale → capsfilter NV12 → fakesink
//!                          ↑ arrival, rate limit                 ↑ allocation, publish
//! ```
//!
//! Converter and sink run in one thread, one frame at a time: what is noted of a frame at its
//! arrival belongs to the next buffer at the sink.

use crate::error::CaptureError;
use crate::explain;
use crate::layout::{Layout, SD_HEIGHT, scaled};
use crate::limit::{RateLimit, Timeline};
use crate::pool::{LoanPool, LoanedFrame};
use crate::publish::{Moment, Output, Waiting};
use crate::source;
use framebus_bus::{BusError, FrameLoan};
use framebus_config::{Camera, Pace, Source};
use framebus_service::{Service, clock};
use framebus_types::{Counter, FLAG_PICTURE_FAULT, MAX_PLANES};
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use gst_video::{VideoFrameExt, VideoFrameRef, VideoInfo};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// Longest wait for a pipeline to stop, ns: when asked to stop, and before a
/// reconnect.
const STOP_NS: u64 = 2_000_000_000;
const RECONNECT_STOP_NS: u64 = 5_000_000_000;

/// What the probes of one pipeline know.
pub(crate) struct Tap {
    output: Arc<Output>,
    max_width: Option<u32>,
    /// Cleared when the pipeline is given up: whatever it still brings is dropped.
    alive: AtomicBool,
    /// Frames that arrived.
    frames: AtomicU64,
    /// When the last one arrived or was sent, CLOCK_MONOTONIC ns.
    last_ns: AtomicU64,
    state: Mutex<TapState>,
}

#[derive(Default)]
struct TapState {
    limit: Option<RateLimit>,
    timeline: Timeline,
    /// The frame inside the converter.
    in_flight: Option<Moment>,
    /// What the converter delivers.
    format: Option<(VideoInfo, Layout)>,
    /// Why the bus did not take a frame.
    refusal: Option<BusError>,
}

/// One pipeline from its building to its end.
pub(crate) struct Session {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    tap: Arc<Tap>,
}

impl Session {
    pub(crate) fn build(camera: &Camera, output: &Arc<Output>) -> Result<Self, CaptureError> {
        let pipeline = gst::Pipeline::new();
        let bus =
            pipeline.bus().ok_or_else(|| explain::broken(&camera.source, "no message bus"))?;
        let tap = Arc::new(Tap {
            output: output.clone(),
            max_width: camera.max_width,
            alive: AtomicBool::new(true),
            frames: AtomicU64::new(0),
            last_ns: AtomicU64::new(clock::monotonic_ns()),
            state: Mutex::new(TapState {
                limit: camera.fps.map(RateLimit::new),
                ..TapState::default()
            }),
        });
        let head = tail(&pipeline, camera, &tap)?;
        source::attach(&pipeline, &head, camera)?;
        Ok(Self { pipeline, bus, tap })
    }

    /// Starts the pipeline; what goes wrong arrives as a message.
    pub(crate) fn play(&self) {
        // An error also posts a message, which says more.
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            tracing::debug!("the pipeline refused to start");
        }
    }

    /// The next message that matters.
    pub(crate) fn message(&self, timeout: Duration) -> Option<gst::Message> {
        let timeout = gst::ClockTime::from_nseconds(timeout.as_nanos() as u64);
        self.bus.timed_pop_filtered(
            timeout,
            &[
                gst::MessageType::Error,
                gst::MessageType::Warning,
                gst::MessageType::Eos,
                gst::MessageType::Element,
            ],
        )
    }

    /// Frames that arrived so far.
    pub(crate) fn frames(&self) -> u64 {
        self.tap.frames.load(Relaxed)
    }

    /// When the last frame arrived or was sent, CLOCK_MONOTONIC ns; before the
    /// first, when the pipeline was built.
    pub(crate) fn last_ns(&self) -> u64 {
        self.tap.last_ns.load(Relaxed)
    }

    /// Why the bus refused a frame, once.
    pub(crate) fn refusal(&self) -> Option<BusError> {
        self.tap.state().refusal.take()
    }

    /// Size of the frames on the bus.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        self.tap.state().format.as_ref().map(|(_, layout)| (layout.width, layout.height))
    }

    /// Name of the element that decodes, if there is one.
    pub(crate) fn decoder(&self) -> Option<String> {
        let mut elements = self.pipeline.iterate_recurse();
        while let Ok(Some(element)) = elements.next() {
            let Some(factory) = element.factory() else { continue };
            let class = factory.metadata("klass").unwrap_or_default();
            if class.contains("Decoder") && (class.contains("Video") || class.contains("Image")) {
                return Some(factory.name().to_string());
            }
        }
        None
    }

    /// Stops the pipeline and waits for it, within a bound: GStreamer joins
    /// threads here that may hang in a socket or a driver. Returns what tells the
    /// end of a pipeline that was left behind.
    pub(crate) fn stop(self, service: &Service) -> Option<mpsc::Receiver<()>> {
        let (done, stopped) = mpsc::channel();
        let pipeline = self.pipeline.clone();
        let thread = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
            let _ = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread to stop the pipeline");
            let _ = self.pipeline.set_state(gst::State::Null);
            return None;
        }
        let mut since_ns = clock::monotonic_ns();
        let (mut left_behind, mut asked) = (false, service.shutdown().requested());
        while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
            service.progress();
            let now_ns = clock::monotonic_ns();
            if !asked && service.shutdown().requested() {
                (asked, since_ns) = (true, now_ns);
            }
            if !asked && self.tap.output.waiting() != Waiting::No {
                // A frame that waits for its reader must not be lost.
                since_ns = now_ns;
            }
            if now_ns - since_ns >= if asked { STOP_NS } else { RECONNECT_STOP_NS } {
                tracing::warn!("the pipeline does not stop; it is left behind");
                left_behind = true;
                break;
            }
        }
        self.tap.alive.store(false, Relaxed);
        // A frame that the converter swallowed while it stopped.
        if self.tap.state().in_flight.take().is_some() && !asked {
            self.tap.output.lose(Counter::LostBad);
        }
        left_behind.then_some(stopped)
    }
}

/// Builds everything behind the source; returns its first element.
fn tail(
    pipeline: &gst::Pipeline,
    camera: &Camera,
    tap: &Arc<Tap>,
) -> Result<gst::Element, CaptureError> {
    let mut chain = Vec::new();
    if matches!(camera.source, Source::File(_)) && camera.pace == Pace::Realtime {
        let pace = source::make("identity")?;
        pace.set_property("sync", true);
        chain.push(pace);
    }
    let first_converter = chain.len();
    if gst::ElementFactory::find("videoconvertscale").is_some() {
        chain.push(source::make("videoconvertscale")?);
    } else {
        // Before GStreamer 1.22. The conversion comes last: it writes the loan.
        chain.push(source::make("videoscale")?);
        chain.push(source::make("videoconvert")?);
    }
    for element in &chain[first_converter..] {
        if element.has_property("add-borders") {
            element.set_property("add-borders", false);
        }
    }
    let filter = source::make("capsfilter")?;
    filter.set_property("caps", gst::Caps::builder("video/x-raw").field("format", "NV12").build());
    let sink = source::make("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", false);
    sink.set_property("enable-last-sample", false);
    let arrival = pad(&chain[first_converter], "sink", camera)?;
    let departure = pad(&sink, "sink", camera)?;
    chain.push(filter.clone());
    chain.push(sink);
    let broken = |error: gst::glib::BoolError| explain::broken(&camera.source, &error.message);
    pipeline.add_many(&chain).map_err(broken)?;
    gst::Element::link_many(&chain).map_err(broken)?;
    watch_arrival(&arrival, &filter, tap);
    watch_departure(&departure, tap);
    chain.into_iter().next().ok_or_else(|| explain::broken(&camera.source, "empty pipeline"))
}

fn pad(element: &gst::Element, name: &str, camera: &Camera) -> Result<gst::Pad, CaptureError> {
    element
        .static_pad(name)
        .ok_or_else(|| explain::broken(&camera.source, "an element without pads"))
}

fn watch_arrival(pad: &gst::Pad, filter: &gst::Element, tap: &Arc<Tap>) {
    let (events, filter) = (tap.clone(), filter.downgrade());
    pad.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view())
            && let Some(filter) = filter.upgrade()
            && let Some(caps) = output_caps(event.caps(), events.max_width)
            && filter.property::<gst::Caps>("caps") != caps
        {
            // Before the converter sees the event and negotiates.
            filter.set_property("caps", caps);
        }
        PadProbeReturn::Ok
    });
    let tap = tap.clone();
    pad.add_probe(PadProbeType::BUFFER, move |_, info| match info.buffer() {
        Some(buffer) => tap.arrive(buffer),
        None => PadProbeReturn::Ok,
    });
}

fn watch_departure(pad: &gst::Pad, tap: &Arc<Tap>) {
    let caps_tap = tap.clone();
    pad.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            caps_tap.state().format = VideoInfo::from_caps(event.caps())
                .ok()
                .and_then(|info| Layout::nv12(&info, event.caps()).map(|layout| (info, layout)));
        }
        PadProbeReturn::Ok
    });
    let pool_tap = tap.clone();
    pad.add_probe(PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
        let Some(query) = info.query_mut() else { return PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else {
            return PadProbeReturn::Ok;
        };
        match pool_tap.offer_pool(query) {
            Some(()) => PadProbeReturn::Handled,
            None => PadProbeReturn::Ok,
        }
    });
    let tap = tap.clone();
    pad.add_probe(PadProbeType::BUFFER, move |_, info| {
        // Taken, so that the buffer is ours alone.
        if let Some(gst::PadProbeData::Buffer(buffer)) = info.data.take() {
            info.flow_res = tap.depart(buffer);
        }
        PadProbeReturn::Handled
    });
}

/// Caps behind the converter: NV12 in the stream's own size (or smaller),
/// pixel aspect and colorimetry, so that nothing is converted but the format.
fn output_caps(input: &gst::CapsRef, max_width: Option<u32>) -> Option<gst::Caps> {
    let info = VideoInfo::from_caps(input).ok()?;
    let (width, height) = scaled(info.width(), info.height(), max_width);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "NV12")
        .field("width", i32::try_from(width).ok()?)
        .field("height", i32::try_from(height).ok()?)
        .field("pixel-aspect-ratio", info.par());
    // Without a colorimetry in the caps GStreamer takes it from the height; a
    // frame made smaller must not change sides. Where both sides are the same
    // it stays unsaid: with one, GStreamer 1.22 reads the chroma site too, and
    // would convert between what it read and what it did not.
    let crosses = info.height() > SD_HEIGHT && height <= SD_HEIGHT;
    let colorimetry = match input.structure(0)?.get::<&str>("colorimetry") {
        Ok(stated) => Some(stated.to_owned()),
        Err(_) if crosses => Some(info.colorimetry().to_string()),
        Err(_) => None,
    };
    Some(match colorimetry.filter(|text| info.is_yuv() && !text.is_empty()) {
        Some(colorimetry) => caps.field("colorimetry", colorimetry).build(),
        None => caps.build(),
    })
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer has left the decoder. A buffer that goes no further is `Handled`:
    /// with `Drop`, GStreamer 1.22 frees it after these bindings have.
    fn arrive(&self, buffer: &gst::Buffer) -> PadProbeReturn {
        if !self.alive.load(Relaxed) {
            return PadProbeReturn::Handled;
        }
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let corrupted = buffer.flags().contains(gst::BufferFlags::CORRUPTED);
        let moment =
            Moment::now(pts.unwrap_or(u64::MAX), if corrupted { FLAG_PICTURE_FAULT } else { 0 });
        self.last_ns.store(moment.capture_ns, Relaxed);
        self.frames.fetch_add(1, Relaxed);
        let (swallowed, admitted) = {
            let mut state = self.state();
            let time_ns = state.timeline.time_ns(pts, moment.capture_ns);
            let admitted = state.limit.as_mut().is_none_or(|limit| limit.admit(time_ns));
            let before = std::mem::replace(&mut state.in_flight, admitted.then_some(moment));
            (before.is_some(), admitted)
        };
        if swallowed {
            self.output.lose(Counter::LostBad);
        }
        if admitted {
            PadProbeReturn::Ok
        } else {
            self.output.lose(Counter::LostRate);
            PadProbeReturn::Handled
        }
    }

    /// Answers an allocation query with shared memory.
    fn offer_pool(&self, query: &mut gst::query::Allocation) -> Option<()> {
        let caps = query.get_owned().0?;
        let info = VideoInfo::from_caps(&caps).ok()?;
        let bytes = u32::try_from(info.size()).ok()?;
        // A first loan opens the publisher or enlarges its segment. What cannot
        // be had is said once here and not by every frame.
        match self.output.loan(info.size()) {
            Ok(_) | Err(BusError::NoLoan { .. }) => {}
            Err(error) => {
                self.state().refusal = Some(error);
                return None;
            }
        }
        let pool = LoanPool::new(&self.output, &caps, bytes).ok()?;
        query.add_allocation_pool(Some(&pool), bytes, 0, 0);
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        Some(())
    }

    /// A converted buffer: sent as it is, or copied where it is not ours alone.
    fn depart(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        if !self.alive.load(Relaxed) {
            return Err(gst::FlowError::Flushing);
        }
        let (moment, format) = {
            let mut state = self.state();
            (state.in_flight.take(), state.format.clone())
        };
        let moment = moment.unwrap_or_else(|| Moment::now(u64::MAX, 0));
        let Some((info, layout)) = format else {
            self.output.lose(Counter::LostBad);
            return Ok(gst::FlowSuccess::Ok);
        };
        let (loan, how) = match take_loan(buffer, &layout) {
            Ok(loan) => (loan, Counter::ZeroCopy),
            Err(buffer) => match self.copy(&buffer, &info, &layout)? {
                Some(loan) => (loan, Counter::Copied),
                None => return Ok(gst::FlowSuccess::Ok),
            },
        };
        let sent = self.output.publish(loan, &layout, &moment, how);
        self.last_ns.store(clock::monotonic_ns(), Relaxed);
        match sent {
            Ok(true) => Ok(gst::FlowSuccess::Ok),
            Ok(false) => Err(gst::FlowError::Flushing),
            Err(error) => {
                self.state().refusal = Some(error);
                Err(gst::FlowError::Error)
            }
        }
    }

    /// One copy into a new loan; `None` when the frame was counted as lost.
    fn copy(
        &self,
        buffer: &gst::Buffer,
        info: &VideoInfo,
        layout: &Layout,
    ) -> Result<Option<FrameLoan>, gst::FlowError> {
        let Ok(frame) = VideoFrameRef::from_buffer_ref_readable(buffer, info) else {
            self.output.lose(Counter::LostBad);
            return Ok(None);
        };
        match self.output.loan(layout.bytes) {
            Ok(mut loan) => {
                let copied = copy_planes(&frame, layout, loan.payload_mut());
                if copied.is_none() {
                    self.output.lose(Counter::LostBad);
                }
                Ok(copied.map(|()| loan))
            }
            Err(BusError::NoLoan { .. }) => {
                self.output.lose(Counter::LostMemory);
                Ok(None)
            }
            Err(error) => {
                self.output.lose(Counter::LostMemory);
                self.state().refusal = Some(error);
                Err(gst::FlowError::Error)
            }
        }
    }
}

/// The loan inside a buffer that nobody else holds and that lies as announced.
fn take_loan(buffer: gst::Buffer, layout: &Layout) -> Result<FrameLoan, gst::Buffer> {
    let as_announced = buffer.size() == layout.bytes
        && buffer.meta::<gst_video::VideoMeta>().is_none_or(|meta| {
            (0..meta.n_planes().min(MAX_PLANES as u32) as usize).all(|plane| {
                meta.stride().get(plane).is_some_and(|s| *s as u32 == layout.strides[plane])
                    && meta.offset().get(plane).is_some_and(|o| *o as u32 == layout.offsets[plane])
            })
        });
    if !as_announced {
        return Err(buffer);
    }
    match buffer.try_into_inner::<LoanedFrame>() {
        Ok(frame) => Ok(frame.into_loan()),
        Err((buffer, _)) => Err(buffer),
    }
}

/// Copies row by row: the source's strides may differ from the layout's.
fn copy_planes(
    frame: &VideoFrameRef<&gst::BufferRef>,
    layout: &Layout,
    payload: &mut [u8],
) -> Option<()> {
    let (width, height) = (layout.width as usize, layout.height as usize);
    for (plane, row_bytes, rows) in
        [(0, width, height), (1, 2 * width.div_ceil(2), height.div_ceil(2))]
    {
        let from = frame.plane_data(plane as u32).ok()?;
        let from_stride = usize::try_from(*frame.plane_stride().get(plane)?).ok()?;
        let to = payload.get_mut(layout.offsets[plane] as usize..)?;
        let to_stride = layout.strides[plane] as usize;
        for row in 0..rows {
            let source = from.get(row * from_stride..)?.get(..row_bytes)?;
            to.get_mut(row * to_stride..)?.get_mut(..row_bytes)?.copy_from_slice(source);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(input: &str, max_width: Option<u32>) -> String {
        gst::init().expect("GStreamer");
        let caps: gst::Caps = input.parse().expect("caps");
        let output = output_caps(&caps, max_width).expect("video");
        let info = output.structure(0).expect("one structure");
        format!(
            "{}x{} {:?} {}",
            info.get::<i32>("width").expect("width"),
            info.get::<i32>("height").expect("height"),
            info.get::<gst::Fraction>("pixel-aspect-ratio").expect("par").0,
            info.get::<&str>("colorimetry").unwrap_or("-"),
        )
    }

    #[test]
    fn only_the_format_is_converted() {
        let i420 = "video/x-raw,format=I420,width=1920,height=1080";
        assert!(output(i420, None).starts_with("1920x1080"), "{}", output(i420, None));
        assert!(output(i420, None).ends_with(" -"), "{}", output(i420, None));
        // The colours of an HD stream stay so when it is made small.
        assert!(output(i420, Some(640)).ends_with(" bt709"), "{}", output(i420, Some(640)));
        let stated = format!("{i420},colorimetry=1:4:0:0");
        assert!(output(&stated, Some(640)).ends_with(" 1:4:0:0"), "{}", output(&stated, None));
        let rgb = "video/x-raw,format=RGB,width=1920,height=1080";
        assert!(output(rgb, None).ends_with(" -"), "{}", output(rgb, None));
    }
}
