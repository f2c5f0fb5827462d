//! JPEG on request: `PREFIX/CAMERA/frame` answers with the newest frame.
//!
//! One thread answers. It joins a camera as an observer when somebody asks and leaves it
//! some seconds after the last question: while nobody asks, no frame is read and nothing is
//! encoded. A camera is encoded ten times a second at most; more questions get the same
//! picture.

use crate::jpeg::{Encoder, Picture};
use crate::web::picture::Shrinker;
use framebus_client::{BusError, FrameSample, Frames};
use framebus_config::{Sink, Zenoh};
use framebus_service::{Failure, Kind, Service, clock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use zenoh::Wait;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::key_expr::KeyExpr;
use zenoh::query::Query;

/// Questions that wait; beyond it they go unanswered.
const QUESTIONS: usize = 32;
/// Shortest time between two pictures of a camera, ns.
const PERIOD_NS: u64 = 100_000_000;
/// A camera that nobody has asked for since is left, ns.
const LINGER_NS: u64 = 10_000_000_000;
/// Longest wait for a frame.
const FRAME: Duration = Duration::from_secs(1);
/// How often the thread looks up when nobody asks.
const LOOK: Duration = Duration::from_millis(200);
/// Least width of a picture, in pixels.
const WIDTH_MIN: u32 = 16;
/// Least JPEG quality.
const QUALITY_MIN: u8 = 10;

/// Where questions go.
#[derive(Clone)]
pub(super) struct Questions(SyncSender<Query>);

impl Questions {
    /// Never waits: this is one of Zenoh's threads.
    pub(super) fn put(&self, query: Query) {
        // One that is dropped ends without an answer.
        let _ = self.0.try_send(query);
    }
}

/// The thread that answers; ended when dropped.
pub(super) struct Pictures {
    questions: Questions,
    made: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pictures {
    pub(super) fn start(
        service: &Service,
        sink: &Sink,
        zenoh: &Zenoh,
        prefix: &str,
    ) -> Result<Self, Failure> {
        let (bus, reader) = (service.bus().clone(), sink.name.to_string());
        let (sender, receiver) = sync_channel(QUESTIONS);
        let (made, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let names = service.config().enabled_cameras().map(|camera| camera.name.as_str());
        let cameras = names.filter(|name| sink.serves(name)).map(|name| Camera {
            name: name.to_owned(),
            key: format!("{prefix}/{name}/frame"),
            frames: None,
            asked_ns: 0,
            shot: None,
        });
        let mut studio = Studio {
            open: Box::new(move |camera| bus.join_frames(camera, &reader).map(Frames::new)),
            cameras: cameras.collect(),
            most: (zenoh.width, zenoh.quality),
            encoder: (zenoh.quality, Encoder::new(zenoh.quality)),
            shrinker: Shrinker::default(),
            picture: Picture::default(),
            made: made.clone(),
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("pictures".to_owned())
            .spawn(move || studio.run(&receiver, &stopped))
            .map_err(|error| Failure::new(Kind::Unavailable, error))?;
        Ok(Self { questions: Questions(sender), made, stop, thread: Some(thread) })
    }

    pub(super) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Pictures that were encoded.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Joins a camera.
type Open = Box<dyn Fn(&str) -> Result<Frames, BusError> + Send>;

struct Studio {
    open: Open,
    cameras: Vec<Camera>,
    /// Width and quality at most.
    most: (u32, u8),
    encoder: (u8, Encoder),
    shrinker: Shrinker,
    picture: Picture,
    made: Arc<AtomicU64>,
}

struct Camera {
    name: String,
    key: String,
    frames: Option<Frames>,
    asked_ns: u64,
    shot: Option<Shot>,
}

/// A picture that was made.
#[derive(Clone)]
struct Shot {
    jpeg: ZBytes,
    /// Which frame it is, as JSON.
    about: String,
    made_ns: u64,
}

impl Studio {
    fn run(&mut self, questions: &Receiver<Query>, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            match questions.recv_timeout(LOOK) {
                Ok(query) => self.answer(&query, stop),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now_ns = clock::monotonic_ns();
            for camera in &mut self.cameras {
                if camera.frames.is_some() && now_ns > camera.asked_ns + LINGER_NS {
                    (camera.frames, camera.shot) = (None, None);
                }
            }
        }
    }

    fn answer(&mut self, query: &Query, stop: &AtomicBool) {
        let wanted = match wanted(query, self.most) {
            Ok(wanted) => wanted,
            Err(why) => return drop(query.reply_err(why).wait()),
        };
        for number in 0..self.cameras.len() {
            let camera = &self.cameras[number];
            let Ok(key) = KeyExpr::try_from(camera.key.clone()) else { continue };
            if !query.key_expr().intersects(&key) || stop.load(Relaxed) {
                continue;
            }
            // Who has asked may be gone.
            let sent = match self.shot(number, wanted) {
                Ok(shot) => query
                    .reply(key, shot.jpeg)
                    .encoding(Encoding::IMAGE_JPEG)
                    .attachment(shot.about)
                    .wait(),
                Err(why) => query.reply_err(format!("{}: {why}", self.cameras[number].name)).wait(),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "an answer was not taken");
            }
        }
    }

    fn shot(&mut self, number: usize, (width, quality): (u32, u8)) -> Result<Shot, String> {
        let camera = &mut self.cameras[number];
        let now_ns = clock::monotonic_ns();
        camera.asked_ns = now_ns;
        if let Some(shot) = &camera.shot
            && now_ns < shot.made_ns + PERIOD_NS
        {
            return Ok(shot.clone());
        }
        let frames = match &mut camera.frames {
            Some(frames) => frames,
            None => {
                let opened = (self.open)(&camera.name).map_err(|error| match error {
                    BusError::Absent { .. } => "does not run now".to_owned(),
                    other => other.to_string(),
                })?;
                camera.frames.insert(opened)
            }
        };
        match newest(frames) {
            Ok(Some(frame)) => {
                if self.encoder.0 != quality {
                    self.encoder = (quality, Encoder::new(quality));
                }
                let mut jpeg = Vec::new();
                self.shrinker.shrink(&frame, width as usize, &mut self.picture);
                self.encoder.1.encode(&self.picture, &mut jpeg);
                self.made.fetch_add(1, Relaxed);
                let about = about(&camera.name, &frame);
                let shot = Shot { jpeg: jpeg.into(), about, made_ns: now_ns };
                Ok(camera.shot.insert(shot).clone())
            }
            // A camera that sends seldom: its newest frame is still that one.
            Ok(None) => match &camera.shot {
                Some(shot) if now_ns < shot.made_ns + LINGER_NS => Ok(shot.clone()),
                _ => Err(format!("no frame within {} s", FRAME.as_secs())),
            },
            Err(error) => {
                (camera.frames, camera.shot) = (None, None);
                Err(error.to_string())
            }
        }
    }
}

fn newest(frames: &mut Frames) -> Result<Option<FrameSample>, BusError> {
    let mut newest = None;
    loop {
        match frames.poll() {
            Ok(Some(frame)) => newest = Some(frame),
            Ok(None) if newest.is_some() => return Ok(newest),
            Ok(None) => return frames.wait_for(FRAME),
            // A reader may hold one only; there is a newer one.
            Err(BusError::NoLoan { .. }) if newest.take().is_some() => {}
            Err(error) => return Err(error),
        }
    }
}

fn about(camera: &str, frame: &FrameSample) -> String {
    let header = frame.header();
    serde_json::json!({
        "camera": camera,
        "epoch_ns": header.epoch_ns,
        "sequence": header.sequence,
        "wall_ns": header.wall_ns,
        "width": header.width,
        "height": header.height,
    })
    .to_string()
}

/// Width and quality of a question: `…/frame?width=640;quality=70`, within bounds.
fn wanted(query: &Query, most: (u32, u8)) -> Result<(u32, u8), String> {
    let parameters = query.parameters();
    let width = number(parameters.get("width"), "width", most.0)?;
    let quality = number(parameters.get("quality"), "quality", most.1)?;
    Ok((width.clamp(WIDTH_MIN, most.0), quality.clamp(QUALITY_MIN, most.1)))
}

fn number<T: std::str::FromStr>(text: Option<&str>, name: &str, most: T) -> Result<T, String> {
    text.map_or(Ok(most), |text| {
        text.parse().map_err(|_| format!("{name} must be a whole number, not {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_question_are_read_or_named() {
        assert_eq!(number(None, "width", 640_u32), Ok(640));
        assert_eq!(number(Some("320"), "width", 640_u32), Ok(320));
        let why = number(Some("300"), "quality", 80_u8).expect_err("no quality");
        assert!(why.contains("quality") && why.contains("300"), "{why}");
    }
}
