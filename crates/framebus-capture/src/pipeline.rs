//! What stands behind every source: pace, converter, probes, shared memory.
//!
//! ```text
//! source → [identity sync] → videoconvertscale → capsfilter NV12 → fakesink
//!                          ↑ arrival, rate limit, direct way     ↑ allocation, publish
//! ```

use crate::device;
use crate::error::CaptureError;
use crate::explain;
use crate::host::Host;
use crate::idle::IdleTap;
use crate::inflow::Inflow;
use crate::packets::PacketTap;
use crate::publish::{Output, Waiting};
use crate::source;
use crate::tap::{Tap, watch_arrival, watch_departure};
use crate::threads;
use framebus_bus::BusError;
use framebus_config::{Camera, Pace, Source};
use framebus_service::clock;
use framebus_types::Counter;
use gst::prelude::*;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for a pipeline to stop, ns: when asked to stop, and before a
/// reconnect.
const STOP_NS: u64 = 2_000_000_000;
const RECONNECT_STOP_NS: u64 = 5_000_000_000;

/// One pipeline from its building to its end.
pub(crate) struct Session {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    tap: Arc<Tap>,
    idle: Option<Arc<IdleTap>>,
    inflow: Arc<Inflow>,
    packets: Option<Arc<PacketTap>>,
    /// Starts the pipeline.
    start: Option<JoinHandle<()>>,
}

impl Session {
    pub(crate) fn build(camera: &Camera, output: &Arc<Output>) -> Result<Self, CaptureError> {
        let pipeline = gst::Pipeline::new();
        let bus =
            pipeline.bus().ok_or_else(|| explain::broken(&camera.source, "no message bus"))?;
        let tap = Arc::new(Tap::new(camera, output));
        threads::set(&pipeline, camera);
        let packets = output.packets().map(|packets| PacketTap::install(&pipeline, packets));
        let inflow = Inflow::install(&pipeline);
        let idle = camera.idle_gate.then(|| IdleTap::install(&pipeline, camera, &tap));
        let head = tail(&pipeline, camera, &tap)?;
        source::attach(&pipeline, &head, camera, &inflow)?;
        Ok(Self { pipeline, bus, tap, idle, inflow, packets, start: None })
    }

    /// Starts the pipeline; what goes wrong arrives as a message, of an error too. In a
    /// thread, for opening a device or a pipe may block.
    pub(crate) fn play(&mut self) {
        let pipeline = self.pipeline.clone();
        let play = move || {
            let _ = pipeline.set_state(gst::State::Playing);
        };
        match std::thread::Builder::new().name("play".to_owned()).spawn(play) {
            Ok(thread) => self.start = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to start the pipeline");
                let _ = self.pipeline.set_state(gst::State::Playing);
            }
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
        self.tap.frames()
    }

    /// When the last frame arrived or was sent, CLOCK_MONOTONIC ns; before the
    /// first, when the pipeline was built.
    pub(crate) fn last_ns(&self) -> u64 {
        self.tap.last_ns()
    }

    /// Why the bus refused a frame, once.
    pub(crate) fn refusal(&self) -> Option<BusError> {
        self.tap.refusal()
    }

    /// What comes in before anything is decoded.
    pub(crate) fn inflow(&self) -> &Inflow {
        &self.inflow
    }

    /// Size of the frames on the bus.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        self.tap.size()
    }

    /// Whether its source is live: a new connection then begins with the present.
    pub(crate) fn is_live(&self) -> bool {
        // A sink that does not synchronise says no for everybody: what is in front of it knows.
        let sink = self.pipeline.iterate_sinks().next().ok().flatten();
        let mut latency = gst::query::Latency::new();
        sink.and_then(|sink| sink.static_pad("sink"))
            .is_some_and(|pad| pad.peer_query(&mut latency) && latency.result().0)
    }

    /// The element that decodes, if there is one.
    pub(crate) fn decoder(&self) -> Option<gst::Element> {
        let mut elements = self.pipeline.iterate_recurse();
        while let Ok(Some(element)) = elements.next() {
            if threads::is_video_decoder(&element) {
                return Some(element);
            }
        }
        None
    }

    /// Name of the element that converts frames where the decoder left them, outside of our
    /// memory.
    pub(crate) fn converter(&self) -> Option<String> {
        let element = self.pipeline.by_name(device::CONVERTER)?;
        element.factory().map(|factory| factory.name().to_string())
    }

    /// Stops a pipeline that is known to stop.
    #[cfg(test)]
    pub(crate) fn end(mut self) {
        let _ = self.start.take().map(JoinHandle::join);
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(packets) = &self.packets {
            packets.close();
        }
    }

    /// Stops the pipeline and waits for it, within a bound: GStreamer joins
    /// threads here that may hang in a socket or a driver. Returns what tells the
    /// end of a pipeline that was left behind.
    pub(crate) fn stop(mut self, host: &Host<'_>) -> Option<mpsc::Receiver<()>> {
        let (done, stopped) = mpsc::channel();
        let (pipeline, start) = (self.pipeline.clone(), self.start.take());
        let thread = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            // A start that comes after the stop would never be stopped.
            let _ = start.map(JoinHandle::join);
            let _ = pipeline.set_state(gst::State::Null);
            let _ = done.send(());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread to stop the pipeline");
            let _ = self.pipeline.set_state(gst::State::Null);
            return None;
        }
        let mut since_ns = clock::monotonic_ns();
        let shutdown = host.service.shutdown();
        let (mut left_behind, mut asked) = (false, shutdown.requested());
        while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
            host.progress();
            let now_ns = clock::monotonic_ns();
            if !asked && shutdown.requested() {
                (asked, since_ns) = (true, now_ns);
            }
            if !asked && self.tap.output().waiting() != Waiting::No {
                // A frame that waits for its reader must not be lost.
                since_ns = now_ns;
            }
            if now_ns - since_ns >= if asked { STOP_NS } else { RECONNECT_STOP_NS } {
                tracing::warn!("the pipeline does not stop; it is left behind");
                left_behind = true;
                break;
            }
        }
        if let Some(packets) = &self.packets {
            packets.close();
        }
        // A frame that the converter swallowed while it stopped.
        if self.tap.close() && !asked {
            self.tap.output().lose(Counter::LostBad);
        }
        if let Some(idle) = &self.idle {
            idle.discard();
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
