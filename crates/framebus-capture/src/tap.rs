//! What is noted of a frame on its way through the pipeline, and its way onto the bus.
//!
//! A frame that needs no converter ([`Writer::direct`]) is written into its sample where it
//! arrives, and goes no further; one that arrives in a sample is sent as it is. Others pass the
//! converter: converter and sink run in one thread, one frame at a time, so that what is noted
//! of a frame at its arrival belongs to the next buffer at the sink.

use crate::convert::{Writer, output_caps};
use crate::faults::Faults;
use crate::layout::Layout;
use crate::limit::{RateLimit, Timeline};
use crate::motion::MotionGate;
use crate::pool::{LoanPool, LoanedFrame};
use crate::publish::{Moment, Output};
use framebus_bus::{BusError, FrameLoan};
use framebus_config::Camera;
use framebus_service::clock;
use framebus_types::{Counter, FLAG_CORRUPT, FLAG_PICTURE_FAULT, MAX_PLANES};
use gst::{PadProbeReturn, PadProbeType, prelude::*};
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What becomes of a frame at its arrival.
enum Arrival {
    /// It goes to the converter.
    Convert,
    /// Nothing more: it was left out.
    Over,
    /// It is written and sent at once.
    Direct(Moment, Arc<Writer>),
}

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
    /// Where motion is asked for.
    motion: Option<Mutex<MotionGate>>,
    /// Something moved, and the idle gate has not been told.
    moved: AtomicBool,
}

#[derive(Default)]
struct TapState {
    limit: Option<RateLimit>,
    timeline: Timeline,
    /// The frame inside the converter.
    in_flight: Option<Moment>,
    /// Frames that need no converter.
    direct: Option<Arc<Writer>>,
    /// What the converter delivers.
    format: Option<Arc<Writer>>,
    /// Why the bus did not take a frame.
    refusal: Option<BusError>,
}

pub(crate) fn watch_arrival(pad: &gst::Pad, filter: &gst::Element, tap: &Arc<Tap>) {
    let (events, filter) = (tap.clone(), filter.downgrade());
    pad.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return PadProbeReturn::Ok;
        };
        events.state().direct = Writer::direct(event.caps(), events.max_width).map(Arc::new);
        if let Some(filter) = filter.upgrade()
            && let Some(caps) = output_caps(event.caps(), events.max_width)
            && filter.property::<gst::Caps>("caps") != caps
        {
            // Before the converter sees the event and negotiates.
            filter.set_property("caps", caps);
        }
        PadProbeReturn::Ok
    });
    let tap = tap.clone();
    // A buffer that goes no further is `Handled`: with `Drop`, GStreamer 1.22 frees it after
    // these bindings have.
    pad.add_probe(PadProbeType::BUFFER, move |_, info| {
        let Some(buffer) = info.buffer() else { return PadProbeReturn::Ok };
        match tap.arrive(buffer) {
            Arrival::Convert => PadProbeReturn::Ok,
            Arrival::Over => PadProbeReturn::Handled,
            Arrival::Direct(moment, writer) if writer.same => {
                // Taken, so that the buffer is ours alone.
                if let Some(gst::PadProbeData::Buffer(buffer)) = info.data.take() {
                    info.flow_res = tap.send_or_write(buffer, &writer, moment);
                }
                PadProbeReturn::Handled
            }
            Arrival::Direct(moment, writer) => {
                info.flow_res = tap.write(buffer, &writer, moment, Counter::ZeroCopy);
                PadProbeReturn::Handled
            }
        }
    });
}

pub(crate) fn watch_departure(pad: &gst::Pad, tap: &Arc<Tap>) {
    let caps_tap = tap.clone();
    pad.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            caps_tap.state().format = Writer::nv12(event.caps()).map(Arc::new);
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

impl Tap {
    pub(crate) fn new(camera: &Camera, output: &Arc<Output>) -> Self {
        output.faults(Faults::reconnected);
        Self {
            output: output.clone(),
            max_width: camera.max_width,
            alive: AtomicBool::new(true),
            frames: AtomicU64::new(0),
            last_ns: AtomicU64::new(clock::monotonic_ns()),
            state: Mutex::new(TapState {
                limit: camera.fps.map(RateLimit::new),
                ..TapState::default()
            }),
            motion: MotionGate::new(camera).map(Mutex::new),
            moved: AtomicBool::new(false),
        }
    }

    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// Frames that arrived so far.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// When the last frame arrived or was sent, CLOCK_MONOTONIC ns; before the
    /// first, when the pipeline was built.
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns.load(Relaxed)
    }

    /// The camera sends, although nothing is decoded.
    pub(crate) fn heard(&self) {
        self.last_ns.store(clock::monotonic_ns(), Relaxed);
    }

    /// Whether something moved since the last call.
    pub(crate) fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Why the bus refused a frame, once.
    pub(crate) fn refusal(&self) -> Option<BusError> {
        self.state().refusal.take()
    }

    /// Size of the frames on the bus.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        let state = self.state();
        let writer = state.direct.as_ref().or(state.format.as_ref())?;
        Some((writer.layout.width, writer.layout.height))
    }

    /// Whatever the pipeline still brings is dropped from now on. Returns whether a
    /// frame was inside the converter.
    pub(crate) fn close(&self) -> bool {
        self.alive.store(false, Relaxed);
        self.state().in_flight.take().is_some()
    }

    fn state(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer has left the decoder.
    fn arrive(&self, buffer: &gst::Buffer) -> Arrival {
        if !self.alive.load(Relaxed) {
            return Arrival::Over;
        }
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        // GAP is no sign of damage: videorate sets it on every frame that it repeats.
        let corrupted = buffer.flags().contains(gst::BufferFlags::CORRUPTED);
        let flags = if corrupted { FLAG_PICTURE_FAULT | FLAG_CORRUPT } else { 0 };
        let mut moment = Moment::now(pts.unwrap_or(u64::MAX), flags);
        self.last_ns.store(moment.capture_ns, Relaxed);
        self.frames.fetch_add(1, Relaxed);
        let (swallowed, arrival) = {
            let mut state = self.state();
            moment.stream_ns = state.timeline.time_ns(pts, moment.capture_ns);
            let admitted = state.limit.as_mut().is_none_or(|limit| limit.admit(moment.stream_ns));
            let arrival = match &state.direct {
                _ if !admitted => Arrival::Over,
                Some(direct) => Arrival::Direct(moment, direct.clone()),
                None => Arrival::Convert,
            };
            let converts = matches!(arrival, Arrival::Convert);
            let before = std::mem::replace(&mut state.in_flight, converts.then_some(moment));
            (before.is_some(), arrival)
        };
        if swallowed {
            self.output.lose(Counter::LostBad);
        }
        if matches!(arrival, Arrival::Over) {
            self.output.lose(Counter::LostRate);
        }
        arrival
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
        let Some(writer) = format else {
            self.output.lose(Counter::LostBad);
            return Ok(gst::FlowSuccess::Ok);
        };
        self.send_or_write(buffer, &writer, moment)
    }

    /// An NV12 frame: sent where it lies in a sample and is ours alone, else copied into one.
    fn send_or_write(
        &self,
        buffer: gst::Buffer,
        writer: &Writer,
        moment: Moment,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match take_loan(buffer, &writer.layout) {
            Ok(loan) => self.send(loan, &writer.layout, moment, Counter::ZeroCopy),
            Err(buffer) => self.write(&buffer, writer, moment, Counter::Copied),
        }
    }

    fn send(
        &self,
        mut loan: FrameLoan,
        layout: &Layout,
        mut moment: Moment,
        how: Counter,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if let Some(motion) = &self.motion {
            let mut motion = motion.lock().unwrap_or_else(PoisonError::into_inner);
            if motion.look(loan.payload_mut(), layout, &mut moment) {
                self.moved.store(true, Relaxed);
            }
        }
        self.output.faults(|faults| faults.look(loan.payload_mut(), layout, &mut moment));
        let sent = self.output.publish(loan, layout, &moment, how);
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

    /// Writes a buffer into a loan and sends it.
    fn write(
        &self,
        buffer: &gst::Buffer,
        writer: &Writer,
        moment: Moment,
        how: Counter,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Ok(frame) = VideoFrameRef::from_buffer_ref_readable(buffer, &writer.input) else {
            self.output.lose(Counter::LostBad);
            return Ok(gst::FlowSuccess::Ok);
        };
        match self.output.loan(writer.layout.bytes) {
            Ok(mut loan) => {
                let written = writer.write(&frame, loan.payload_mut());
                // Sending may wait for readers; the decoder can have its buffer back.
                drop(frame);
                if written.is_none() {
                    self.output.lose(Counter::LostBad);
                    return Ok(gst::FlowSuccess::Ok);
                }
                self.send(loan, &writer.layout, moment, how)
            }
            Err(BusError::NoLoan { .. }) => {
                self.output.lose(Counter::LostMemory);
                Ok(gst::FlowSuccess::Ok)
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
