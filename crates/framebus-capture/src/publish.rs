//! From a filled sample to the bus: header, counting, delivery.

use crate::faults::Faults;
use crate::layout::Layout;
use crate::packets::Packets;
use framebus_bus::{Bus, BusError, Delivery, FrameLoan, FramePublisher};
use framebus_config::Camera;
use framebus_service::{INFER_READER, Service, Shutdown, Vitals, clock};
use framebus_types::{Counter, FLAG_DISCONTINUITY, FLAG_PICTURE_FAULT, FrameHeader, Stage, text};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Step in which an every-frame source looks whether its reader has come.
const READER_STEP: Duration = Duration::from_millis(20);
/// How long the last frames are held for readers. A subscriber keeps what is
/// queued when its publisher goes, but only once it has opened the connection,
/// which it does when it next looks.
const LINGER: Duration = Duration::from_secs(3);

/// When a frame came, and what is known of it beside its pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// CLOCK_MONOTONIC ns.
    pub(crate) capture_ns: u64,
    /// Wall clock, ns since 1970.
    pub(crate) wall_ns: u64,
    /// ns, `u64::MAX` = none.
    pub(crate) pts_ns: u64,
    /// The same on a clock that always advances, ns.
    pub(crate) stream_ns: u64,
    /// `FLAG_*` bits.
    pub(crate) flags: u32,
    /// Share of the picture that moves, where it was measured.
    pub(crate) motion: f32,
}

impl Moment {
    pub(crate) fn now(pts_ns: u64, flags: u32) -> Self {
        let capture_ns = clock::monotonic_ns();
        Self {
            capture_ns,
            wall_ns: clock::wall_ns(),
            pts_ns,
            stream_ns: capture_ns,
            flags,
            motion: 0.0,
        }
    }
}

/// What a waiting source waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nothing.
    No,
    /// The inference process has not subscribed.
    Reader,
    /// Readers have full buffers, since this CLOCK_MONOTONIC time in ns.
    Room(u64),
}

/// One camera's way onto the bus; lives as long as the process, across
/// reconnects, so that sequence numbers and the segment go on.
pub(crate) struct Output {
    bus: Arc<Bus>,
    camera: String,
    delivery: Delivery,
    shutdown: Shutdown,
    vitals: Arc<Vitals>,
    epoch_ns: u64,
    publisher: Mutex<Option<Arc<FramePublisher>>>,
    sequence: AtomicU64,
    discontinuity: AtomicBool,
    waiting_reader: AtomicBool,
    sending_since_ns: AtomicU64,
    /// Readers of the last frame.
    recipients: AtomicUsize,
    /// Where pictures are checked.
    faults: Option<Mutex<Faults>>,
    /// Where somebody wants the video as it is compressed.
    packets: Option<Arc<Packets>>,
}

impl Output {
    pub(crate) fn new(service: &Service, camera: &Camera, vitals: Arc<Vitals>) -> Self {
        let mut output =
            Self::over(service.bus().clone(), service.shutdown().clone(), camera, vitals);
        if service.config().wants_packets(camera.name.as_str()) {
            output.packets = Some(Packets::new(&output.bus, &output.camera, output.epoch_ns));
        }
        output
    }

    /// Without a service around it.
    pub(crate) fn over(
        bus: Arc<Bus>,
        shutdown: Shutdown,
        camera: &Camera,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self {
            bus,
            camera: camera.name.to_string(),
            delivery: match camera.delivery {
                framebus_config::Delivery::Latest => Delivery::Latest,
                framebus_config::Delivery::EveryFrame => Delivery::EveryFrame,
            },
            shutdown,
            vitals,
            epoch_ns: clock::wall_ns(),
            publisher: Mutex::new(None),
            sequence: AtomicU64::new(0),
            discontinuity: AtomicBool::new(false),
            waiting_reader: AtomicBool::new(false),
            sending_since_ns: AtomicU64::new(0),
            recipients: AtomicUsize::new(0),
            faults: Faults::new(camera).map(Mutex::new),
            packets: None,
        }
    }

    /// The way of the compressed video, where somebody wants it.
    pub(crate) fn packets(&self) -> Option<&Arc<Packets>> {
        self.packets.as_ref()
    }

    /// Hands what watches the pictures to `with`, where they are checked.
    pub(crate) fn faults<T>(&self, with: impl FnOnce(&mut Faults) -> T) -> Option<T> {
        let faults = self.faults.as_ref()?;
        Some(with(&mut faults.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Borrows a sample. The first call opens the publisher, for now the size
    /// is known.
    pub(crate) fn loan(&self, bytes: usize) -> Result<FrameLoan, BusError> {
        self.publisher(bytes)?.loan(bytes)
    }

    fn publisher(&self, bytes: usize) -> Result<Arc<FramePublisher>, BusError> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(publisher) = publisher.as_ref() {
            return Ok(publisher.clone());
        }
        let opened =
            self.bus.frame_publisher(&self.camera, bytes, self.delivery, self.shutdown.flag())?;
        Ok(publisher.insert(Arc::new(opened)).clone())
    }

    fn opened(&self) -> Option<Arc<FramePublisher>> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks the next frame: some are missing before it.
    pub(crate) fn mark_discontinuity(&self) {
        // Before the very first frame nothing can be missing.
        self.discontinuity.store(self.sequence.load(Relaxed) > 0, Relaxed);
    }

    /// Sends a filled sample; `how` says whether its pixels were copied. An
    /// every-frame source waits here, for the inference process and for room.
    /// Returns `false` when asked to stop, `true` when the frame was dealt with.
    pub(crate) fn publish(
        &self,
        loan: FrameLoan,
        layout: &Layout,
        moment: &Moment,
        how: Counter,
    ) -> Result<bool, BusError> {
        let Some(publisher) = self.opened() else { return Ok(false) };
        if self.delivery == Delivery::EveryFrame && !self.wait_for_reader(&publisher) {
            return Ok(false);
        }
        let mut flags = moment.flags;
        if self.discontinuity.swap(false, Relaxed) {
            flags |= FLAG_DISCONTINUITY;
        }
        let mut header = FrameHeader {
            flags,
            camera: text::pack(&self.camera),
            epoch_ns: self.epoch_ns,
            // One thread publishes at a time. A frame that fails to be sent
            // keeps its number: some readers may have it.
            sequence: self.sequence.fetch_add(1, Relaxed),
            capture_ns: moment.capture_ns,
            wall_ns: moment.wall_ns,
            pts_ns: moment.pts_ns,
            publish_ns: clock::monotonic_ns(),
            motion: moment.motion,
            ..FrameHeader::default()
        };
        layout.write(&mut header);
        self.sending_since_ns.store(header.publish_ns, Relaxed);
        let sent = publisher.publish(loan, &header);
        self.sending_since_ns.store(0, Relaxed);
        let recipients = sent.inspect_err(|_| self.lose(Counter::LostBad))?;
        self.recipients.store(recipients, Relaxed);
        if self.delivery == Delivery::EveryFrame && recipients == 0 {
            if self.shutdown.requested() {
                return Ok(false);
            }
            // The only reader went away, and with it the room that the frame
            // was sent into.
            self.vitals.add(Counter::Errors, 1);
            self.lose(Counter::LostBad);
            tracing::error!(
                camera = self.camera,
                sequence = header.sequence,
                "frame lost: its reader left while it was on its way"
            );
            return Ok(true);
        }
        self.vitals.add(Counter::Captured, 1);
        self.vitals.add(Counter::Published, 1);
        self.vitals.add(how, 1);
        if flags & FLAG_PICTURE_FAULT != 0 {
            self.vitals.add(Counter::Suspect, 1);
        }
        let duration_ns = header.publish_ns.saturating_sub(moment.capture_ns);
        self.vitals.record(Stage::Capture, duration_ns);
        Ok(true)
    }

    /// Counts a frame that left the decoder and goes no further.
    pub(crate) fn lose(&self, cause: Counter) {
        self.vitals.add(Counter::Captured, 1);
        self.vitals.add(cause, 1);
        if cause != Counter::LostRate {
            self.mark_discontinuity();
        }
    }

    fn wait_for_reader(&self, publisher: &FramePublisher) -> bool {
        let mut stop = self.shutdown.requested();
        while !stop && !publisher.has_reader(INFER_READER) {
            self.waiting_reader.store(true, Relaxed);
            stop = self.shutdown.wait(READER_STEP);
        }
        self.waiting_reader.store(false, Relaxed);
        !stop
    }

    /// Logs what became of all frames.
    pub(crate) fn summarise(&self) {
        let count = |counter| self.vitals.get(counter);
        tracing::info!(
            camera = self.camera,
            captured = count(Counter::Captured),
            published = count(Counter::Published),
            zero_copy = count(Counter::ZeroCopy),
            copied = count(Counter::Copied),
            suspect = count(Counter::Suspect),
            undecoded = count(Counter::Undecoded),
            lost_rate = count(Counter::LostRate),
            lost_memory = count(Counter::LostMemory),
            lost_bad = count(Counter::LostBad),
            reconnects = count(Counter::Reconnects),
            errors = count(Counter::Errors),
            "frames"
        );
    }

    /// What the thread that publishes waits for at the moment.
    pub(crate) fn waiting(&self) -> Waiting {
        if self.waiting_reader.load(Relaxed) {
            return Waiting::Reader;
        }
        match self.sending_since_ns.load(Relaxed) {
            0 => Waiting::No,
            since_ns => Waiting::Room(since_ns),
        }
    }

    /// Keeps the last frames for readers that have yet to look, up to
    /// [`LINGER`] or until asked to stop.
    pub(crate) fn linger(&self, service: &Service) {
        let Some(publisher) = self.opened() else { return };
        let step = Duration::from_millis(100);
        let until_ns = clock::monotonic_ns() + LINGER.as_nanos() as u64;
        let read = self.recipients.load(Relaxed) > 0;
        while read && clock::monotonic_ns() < until_ns && !self.shutdown.wait(step) {
            service.progress();
            // The inference process has gone: nobody is left to wait for.
            if self.delivery == Delivery::EveryFrame && !publisher.has_reader(INFER_READER) {
                return;
            }
        }
    }
}
