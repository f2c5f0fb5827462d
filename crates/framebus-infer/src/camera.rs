//! One camera as this process sees it.

use crate::analytics::Analytics;
use crate::order::Order;
use crate::publish::{Answer, frame_time_ns};
use crate::run::Source;
use framebus_bus::FrameSubscriber;
use framebus_service::Vitals;
use framebus_types::{Counter, FLAG_MOTION, FLAG_MOTION_MEASURED, FrameHeader, Role, State};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// A camera's subscription, counters, answers and motion gate.
#[derive(Debug)]
pub(crate) struct Camera {
    subscriber: FrameSubscriber,
    pub(crate) every_frame: bool,
    vitals: Arc<Vitals>,
    /// Answers that wait for the one before them.
    pub(crate) order: Order<Answer>,
    /// Tracks, zones and events; `None` when nothing is tracked (any more).
    analytics: Mutex<Option<Analytics>>,
    /// No frame for so long is a stall, ns.
    stall_ns: AtomicU64,
    /// Epoch and sequence number of the last frame taken.
    last: Mutex<Option<(u64, u64)>>,
    /// With a motion gate: a frame is looked at after so long whatever moved, ns; else 0.
    motion_force_ns: AtomicU64,
    /// Capture time of the last frame that passed the gate; 0 lets the next one pass.
    looked_ns: AtomicU64,
    /// Time of the last frame that the gate kept back, as objects are followed; 0 before one.
    still_ns: AtomicU64,
    /// The frame that the engine saw last failed there.
    failing: AtomicBool,
}

impl Camera {
    /// A camera that has not delivered yet; `unanswered` as in [`Order::new`].
    pub(crate) fn new(
        subscriber: FrameSubscriber,
        source: &Source,
        analytics: Option<Analytics>,
        unanswered: usize,
    ) -> Self {
        let camera = Self {
            subscriber,
            every_frame: source.policy.every_frame,
            vitals: source.vitals.clone(),
            order: Order::new(unanswered),
            analytics: Mutex::new(analytics),
            stall_ns: AtomicU64::new(0),
            last: Mutex::new(None),
            motion_force_ns: AtomicU64::new(0),
            looked_ns: AtomicU64::new(0),
            still_ns: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        };
        camera.set(source);
        camera
    }

    /// Takes over what may change while it runs.
    pub(crate) fn set(&self, source: &Source) {
        self.stall_ns.store(source.stall_ns, Relaxed);
        self.motion_force_ns.store(source.motion_force_ns.unwrap_or(0), Relaxed);
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.subscriber.camera()
    }

    /// No frame for so long is a stall, ns.
    pub(crate) fn stall_ns(&self) -> u64 {
        self.stall_ns.load(Relaxed)
    }

    /// Its tracks. Workers hold them only under the camera's order.
    pub(crate) fn analytics(&self) -> MutexGuard<'_, Option<Analytics>> {
        self.analytics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its tracks, unless a worker is sending what it has found just now.
    pub(crate) fn idle_analytics(&self) -> Option<MutexGuard<'_, Option<Analytics>>> {
        match self.analytics.try_lock() {
            Ok(analytics) => Some(analytics),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Time of the last frame that the gate kept back; 0 when there was none yet.
    pub(crate) fn still_ns(&self) -> u64 {
        self.still_ns.load(Relaxed)
    }

    /// Its frames.
    pub(crate) fn subscriber(&self) -> &FrameSubscriber {
        &self.subscriber
    }

    /// Its counters.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Counts the frame and those missing before it.
    pub(crate) fn count(&self, header: &FrameHeader) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = match *last {
            Some((epoch, sequence)) if epoch == header.epoch_ns => sequence.saturating_add(1),
            // A restarted capture process counts from 0; what came before our
            // own start we did not miss.
            Some(_) => 0,
            None => header.sequence,
        };
        *last = Some((header.epoch_ns, header.sequence));
        drop(last);
        self.vitals.add(Counter::Taken, 1);
        self.vitals.add(Counter::Missed, header.sequence.saturating_sub(expected));
    }

    /// A frame came that can be used.
    pub(crate) fn came(&self) {
        if !self.failing.load(Relaxed) {
            self.vitals.set_state(State::Live, "");
        }
    }

    /// The engine answered a frame.
    pub(crate) fn answered(&self) {
        if self.failing.swap(false, Relaxed) {
            self.vitals.set_state(State::Live, "");
        }
    }

    /// A frame failed in the engine: frames that come do not make the camera live until
    /// one is answered.
    pub(crate) fn failed(&self, reason: &str) {
        self.failing.store(true, Relaxed);
        self.vitals.set_state(State::Degraded, reason);
    }

    /// Whether the motion gate keeps the frame from the engine. One that passes is
    /// the last look from now on.
    pub(crate) fn skips(&self, header: &FrameHeader) -> bool {
        let force_ns = self.motion_force_ns.load(Relaxed);
        if force_ns == 0 {
            return false;
        }
        let looked_ns = self.looked_ns.load(Relaxed);
        let still = header.flags & (FLAG_MOTION_MEASURED | FLAG_MOTION) == FLAG_MOTION_MEASURED;
        // Either way: a capture time that lies must not shut the gate.
        let recent = looked_ns != 0 && header.capture_ns.abs_diff(looked_ns) < force_ns;
        if still && recent {
            let time_ns = frame_time_ns(self.every_frame, header.pts_ns, header.capture_ns);
            self.still_ns.store(time_ns, Relaxed);
        } else {
            self.looked_ns.store(header.capture_ns, Relaxed);
            if self.every_frame {
                // Its time may begin anew, as where a clip does: an old one would come again.
                self.still_ns.store(0, Relaxed);
            }
        }
        still && recent
    }

    /// A frame that passed the gate was not answered: the next one passes.
    pub(crate) fn look_again(&self) {
        self.looked_ns.store(0, Relaxed);
    }
}

/// Vitals of one camera in this process.
#[must_use]
pub fn camera_vitals(name: &str) -> Arc<Vitals> {
    Vitals::new(Role::InferCamera, name)
}
