//! The newest frames of one camera, held on the bus by a thread.

use framebus_client::{BusError, FrameSample};
use framebus_service::{Failure, Kind, Service, Shutdown};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames that wait for their results; a reader may hold one more while it takes the next.
const HELD: usize = 3;
/// How often the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);
/// How often it tries to join a camera that is not there.
const RETRY: Duration = Duration::from_millis(500);

/// Holds the frames of a camera until it is dropped.
pub(crate) struct Holder {
    camera: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    frames: Mutex<VecDeque<FrameSample>>,
    complaint: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Holder {
    /// Starts the thread. It joins as an observer: nobody waits for it.
    pub(crate) fn start(service: &Service, camera: &str, reader: &str) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let (worker, bus, name) = (shared.clone(), service.bus().clone(), camera.to_owned());
        let (shutdown, reader) = (service.shutdown().clone(), reader.to_owned());
        let join = move || bus.join_frames(&name, &reader).map(framebus_client::Frames::new);
        let thread = std::thread::Builder::new()
            .name(format!("frames-{camera}"))
            .spawn(move || worker.run(&shutdown, join))
            .map_err(|error| Failure::new(Kind::Unavailable, error))?;
        Ok(Self { camera: camera.to_owned(), shared, thread: Some(thread) })
    }

    pub(crate) fn camera(&self) -> &str {
        &self.camera
    }

    /// Why there are no frames, where that is no matter of waiting.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.shared.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the frame of this name, or the first one after it, out of those that are held.
    pub(crate) fn find(&self, epoch_ns: u64, sequence: u64) -> Option<FrameSample> {
        let mut frames = self.shared.frames();
        let is_it = |frame: &FrameSample| {
            let header = frame.header();
            header.epoch_ns != epoch_ns || header.sequence >= sequence
        };
        // Without one that is as new, the newest.
        let at = frames.iter().position(is_it).or_else(|| frames.len().checked_sub(1));
        at.and_then(|at| frames.remove(at))
    }
}

/// The holders of all cameras.
#[derive(Default)]
pub(crate) struct Holders(pub(crate) Vec<Holder>);

impl Drop for Holders {
    /// All at once: one after the other, each would take its time.
    fn drop(&mut self) {
        for holder in &self.0 {
            holder.shared.stop.store(true, Relaxed);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn frames(&self) -> MutexGuard<'_, VecDeque<FrameSample>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, complaint: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    fn run(
        &self,
        shutdown: &Shutdown,
        join: impl Fn() -> Result<framebus_client::Frames, BusError>,
    ) {
        while !self.stop.load(Relaxed) {
            match join() {
                Ok(mut frames) => {
                    self.complain(None);
                    if let Err(error) = self.hold(&mut frames) {
                        tracing::warn!(%error, "frames for snapshots");
                        self.complain(Some(error.to_string()));
                    }
                    // Samples before their subscriber.
                    self.frames().clear();
                }
                // The camera has yet to start.
                Err(BusError::Absent { .. }) => {}
                Err(error) => self.complain(Some(error.to_string())),
            }
            if self.stop.load(Relaxed) || shutdown.wait(RETRY) {
                return;
            }
        }
    }

    /// Keeps the newest frames until it shall end.
    fn hold(&self, frames: &mut framebus_client::Frames) -> Result<(), BusError> {
        while !self.stop.load(Relaxed) {
            match frames.wait_for(LOOK) {
                Ok(Some(frame)) => {
                    let mut held = self.frames();
                    held.push_back(frame);
                    if held.len() > HELD {
                        held.pop_front();
                    }
                }
                Ok(None) => {}
                // With one frame in inference a reader may hold no more.
                Err(BusError::NoLoan { .. }) => drop(self.frames().pop_front()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
