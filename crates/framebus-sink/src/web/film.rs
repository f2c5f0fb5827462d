//! Pictures of a camera while somebody looks: a thread for each watched camera.
//!
//! It reads frames as an observer: no source waits for it. Between two pictures it sleeps,
//! and then waits for the next frame: what was sent meanwhile is old.

use super::hub::Hub;
use super::picture::Shrinker;
use crate::jpeg::{Encoder, Picture};
use bytes::Bytes;
use framebus_client::{BusError, FrameSample, Frames};
use framebus_config::Web;
use framebus_service::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long a camera that nobody looks at any more is still read: a page that is loaded
/// anew comes back at once.
const LINGER_NS: u64 = 2_000_000_000;
/// How often a thread looks up when no frame comes.
const LOOK: Duration = Duration::from_millis(100);
/// A camera that cannot be read is tried again after this time.
const AGAIN: Duration = Duration::from_millis(500);
/// Bytes in front of each picture, see [`header`].
pub(crate) const HEADER: usize = 40;

/// Opens the frames of a camera.
pub(crate) type Open = Arc<dyn Fn(&str) -> Result<Frames, BusError> + Send + Sync>;

/// What all threads share.
pub(crate) struct Studio {
    hub: Arc<Hub>,
    open: Open,
    encoder: Encoder,
    width: usize,
    period_ns: u64,
    stop: AtomicBool,
}

impl Studio {
    pub(crate) fn new(hub: Arc<Hub>, web: &Web, open: Open) -> Arc<Self> {
        Arc::new(Self {
            hub,
            open,
            encoder: Encoder::new(web.quality),
            width: web.width as usize,
            period_ns: 1_000_000_000 / u64::from(web.fps.max(1)),
            stop: AtomicBool::new(false),
        })
    }

    /// Starts a thread for each camera that is watched and has none. They end by
    /// themselves.
    pub(crate) fn look(self: &Arc<Self>) {
        for (number, camera) in self.hub.cameras.iter().enumerate() {
            if !self.hub.is_watched(number) || camera.filmed.swap(true, Relaxed) {
                continue;
            }
            let studio = self.clone();
            let name = format!("film-{}", camera.name);
            let started = std::thread::Builder::new().name(name).spawn(move || {
                studio.film(number);
                studio.hub.cameras[number].filmed.store(false, Relaxed);
            });
            if let Err(error) = started {
                camera.filmed.store(false, Relaxed);
                tracing::warn!(camera = camera.name, %error, "no thread to make pictures");
            }
        }
    }

    /// Ends all threads soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn film(&self, number: usize) {
        let camera = &self.hub.cameras[number].name;
        let mut said = false;
        let mut film = Film::default();
        let mut watched_ns = clock::monotonic_ns();
        while self.goes_on(number, &mut watched_ns) {
            let read = (self.open)(camera)
                .and_then(|frames| self.read(frames, number, &mut film, &mut watched_ns));
            match read {
                Ok(()) => {}
                // Its capture process may still be on its way.
                Err(BusError::Absent { .. }) => std::thread::park_timeout(AGAIN),
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(camera, %error, "frames cannot be read");
                    }
                    std::thread::park_timeout(AGAIN);
                }
            }
        }
    }

    fn goes_on(&self, number: usize, watched_ns: &mut u64) -> bool {
        let now_ns = clock::monotonic_ns();
        if self.hub.is_watched(number) {
            *watched_ns = now_ns;
        }
        !self.stop.load(Relaxed) && now_ns.saturating_sub(*watched_ns) < LINGER_NS
    }

    fn read(
        &self,
        mut frames: Frames,
        number: usize,
        film: &mut Film,
        watched_ns: &mut u64,
    ) -> Result<(), BusError> {
        let mut due_ns = clock::monotonic_ns();
        while self.goes_on(number, watched_ns) {
            if !self.hub.is_watched(number) {
                std::thread::park_timeout(LOOK);
                continue;
            }
            // A camera that comes as often as pictures are made jitters around the time.
            let early_ns = due_ns.saturating_sub(self.period_ns / 4);
            let wait_ns = early_ns.saturating_sub(clock::monotonic_ns());
            if wait_ns > 0 {
                std::thread::park_timeout(Duration::from_nanos(wait_ns));
                while frames.poll()?.is_some() {}
            }
            let Some(frame) = frames.wait_for(LOOK)? else { continue };
            let now_ns = clock::monotonic_ns();
            let picture = film.picture(self, number, &frame);
            self.hub.counts.encoded.fetch_add(1, Relaxed);
            let taken_ns = clock::monotonic_ns().saturating_sub(now_ns);
            self.hub.counts.encoding_ns.fetch_add(taken_ns, Relaxed);
            self.hub.picture(number, &picture, frame.header().capture_ns);
            due_ns = (due_ns + self.period_ns).max(now_ns);
        }
        Ok(())
    }
}

/// Memory that is used again for the next picture.
#[derive(Default)]
struct Film {
    shrinker: Shrinker,
    picture: Picture,
    /// Bytes of the last message: the next one needs about as many.
    size: usize,
}

impl Film {
    fn picture(&mut self, studio: &Studio, number: usize, frame: &FrameSample) -> Bytes {
        self.shrinker.shrink(frame, studio.width, &mut self.picture);
        let mut message = Vec::with_capacity(self.size + self.size / 4 + HEADER + 1024);
        header(number, frame, &mut message);
        studio.encoder.encode(&self.picture, &mut message);
        self.size = message.len();
        message.into()
    }
}

/// What the page must know of a picture, little endian: version 1 (u16), number of the
/// camera (u16), width and height of the frame (u32), epoch, sequence, wall clock in ns
/// (u64), age in us when the picture was begun (u32).
fn header(number: usize, frame: &FrameSample, message: &mut Vec<u8>) {
    let of = frame.header();
    let age_us = clock::monotonic_ns().saturating_sub(of.capture_ns) / 1000;
    message.extend(1_u16.to_le_bytes());
    message.extend((number as u16).to_le_bytes());
    message.extend(of.width.to_le_bytes());
    message.extend(of.height.to_le_bytes());
    message.extend(of.epoch_ns.to_le_bytes());
    message.extend(of.sequence.to_le_bytes());
    message.extend(of.wall_ns.to_le_bytes());
    message.extend(u32::try_from(age_us).unwrap_or(u32::MAX).to_le_bytes());
}
