//! Clips: the camera's own compressed video around events, as fragmented MP4. Nothing is
//! decoded or encoded.
//!
//! A clip begins with the last key frame before `before_s` and ends `after_s` behind its
//! last event; events that come meanwhile make it longer, up to `longest_s`. It has its
//! final name at once and plays at any time. What does not go on (a reconnect, packets that
//! this process lost, other parameters) ends the file; what is still wanted then is a file
//! of its own, from the next key frame on.

mod camera;
mod mp4;
mod recording;
mod ring;

use crate::feed::{Feed, Message};
use crate::files::Store;
use camera::CameraClips;
use framebus_config::{Clips, Sink};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, State};

/// A folder that could not be written is tried again after this long, ns.
const RETRY_NS: u64 = 1_000_000_000;

/// What all cameras of the sink share.
pub(crate) struct Common<'a> {
    clips: &'a Clips,
    vitals: &'a Vitals,
    store: Store,
    /// Why nothing can be written, and since when (CLOCK_MONOTONIC ns).
    trouble: Option<(String, u64)>,
}

impl Common<'_> {
    /// Whether it makes sense to begin a file now.
    fn may_write(&self) -> bool {
        self.trouble
            .as_ref()
            .is_none_or(|(_, since_ns)| clock::monotonic_ns() > since_ns + RETRY_NS)
    }

    fn failed(&mut self, what: &str, error: &std::io::Error) {
        self.vitals.add(Counter::Errors, 1);
        self.trouble = Some((format!("cannot write {what}: {error}"), clock::monotonic_ns()));
    }
}

/// Runs until asked to stop; then ends the clips that are being written.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    clips: &Clips,
    vitals: &Vitals,
) -> Result<(), Failure> {
    let store = Store::open(&clips.folder, "mp4", clips.keep_mib << 20).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!(
            "cannot write into {}; may this user make folders there?",
            clips.folder.display()
        ));
        Failure::new(Kind::Unavailable, error)
    })?;
    let mut common = Common { clips, vitals, store, trouble: None };
    let name = sink.name.as_str();
    let mut cameras = Vec::new();
    let served = service.config().enabled_cameras().map(|camera| camera.name.as_str());
    for camera in served.filter(|camera| sink.serves(camera)) {
        cameras.push(CameraClips::open(service, name, camera, clips)?);
    }
    let mut feed = Feed::open(service, sink, vitals, (true, true))?;
    vitals.set_state(State::Live, "");
    service.ready();
    loop {
        let mut unknown = None;
        let goes_on = feed.turn(|message| {
            let camera = match message {
                Message::Result(result) => result.camera(),
                Message::Event(event) => event.camera(),
            };
            match cameras.iter_mut().find(|known| known.name() == camera) {
                Some(known) => known.hear(message),
                // A camera that a reload has added.
                None => unknown = Some(camera.to_owned()),
            }
        })?;
        if let Some(camera) = unknown {
            cameras.push(CameraClips::open(service, name, &camera, clips)?);
        }
        for camera in &mut cameras {
            camera.work(&mut common)?;
        }
        say(&common, &cameras, goes_on);
        if !goes_on {
            cameras.iter_mut().for_each(|camera| camera.close(&mut common, "stopped"));
            return Ok(());
        }
    }
}

fn say(common: &Common<'_>, cameras: &[CameraClips], goes_on: bool) {
    let (files, removed) = common.store.counts();
    let open = cameras.iter().filter(|camera| camera.is_recording()).count();
    let room = if removed > 0 { format!(", {removed} removed for room") } else { String::new() };
    common.vitals.set_detail(&format!(
        "clips in {}: {files}, {open} open{room}",
        common.clips.folder.display()
    ));
    if !goes_on {
        return;
    }
    let trouble = common.trouble.as_ref().map(|(trouble, _)| trouble.clone());
    match trouble.or_else(|| cameras.iter().find_map(CameraClips::complaint)) {
        Some(trouble) => common.vitals.set_state(State::Degraded, &trouble),
        None => common.vitals.set_state(State::Live, ""),
    }
}
