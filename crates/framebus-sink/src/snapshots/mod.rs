//! Snapshots: a JPEG for each event, of the frame in which it happened.
//!
//! The frame is found by its name: a thread per camera holds the newest frames, on the bus
//! and without copying them, until their results have come. Where inference takes longer
//! than that, the oldest frame that is left is taken, and the file's name says `late`.

mod frames;

use crate::feed::{Feed, Message};
use crate::files::{Store, write_whole};
use framebus_client::picture::{self, Labelled};
use framebus_client::{Event, EventKind};
use framebus_config::{Sink, SnapshotStyle, Snapshots};
use framebus_service::{Failure, Kind, Service, Vitals};
use framebus_types::{Counter, State};
use frames::{Holder, Holders};
use image::RgbImage;
use jpeg_encoder::ColorType;
use std::io;
use std::path::PathBuf;

/// A crop shows so much around the object, as a share of its size.
const MARGIN: f32 = 0.15;
/// Least side of a crop, in pixels.
const CROP_MIN: f32 = 32.0;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    snapshots: &Snapshots,
    vitals: &Vitals,
) -> Result<(), Failure> {
    let store =
        Store::open(&snapshots.folder, "jpg", snapshots.keep_mib << 20).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!(
                "cannot write into {}; may this user make folders there?",
                snapshots.folder.display()
            ));
            Failure::new(Kind::Unavailable, error)
        })?;
    let mut writer = Writer { snapshots, vitals, store, late: 0, trouble: None, last: None };
    let hold = |camera: &str| Holder::start(service, camera, sink.name.as_str());
    let mut holders = Holders::default();
    let served = service.config().enabled_cameras().map(|camera| camera.name.as_str());
    for camera in served.filter(|camera| sink.serves(camera)) {
        holders.0.push(hold(camera)?);
    }
    let mut feed = Feed::open(service, sink, vitals, (false, true))?;
    vitals.set_state(State::Live, "");
    service.ready();
    loop {
        let mut events = Vec::new();
        let goes_on = feed.turn(|message| {
            if let Message::Event(event) = message {
                events.push(*event);
            }
        })?;
        for event in &events {
            let kind = EventKind::try_from(event.kind).map_or("", EventKind::as_str);
            if !snapshots.events.is_empty() && !snapshots.events.contains(&kind) {
                continue;
            }
            if !holders.0.iter().any(|holder| holder.camera() == event.camera()) {
                // A camera that a reload has added: its next events get theirs.
                holders.0.push(hold(event.camera())?);
            }
            let holder = holders.0.iter().find(|holder| holder.camera() == event.camera());
            if let Some(holder) = holder {
                writer.take(event, kind, holder);
            }
            service.progress();
        }
        if !goes_on {
            return Ok(());
        }
        writer.say(&holders.0);
    }
}

/// A picture and the frame that it is of.
struct Picture {
    camera: String,
    epoch_ns: u64,
    sequence: u64,
    wall_ns: u64,
    rgb: RgbImage,
}

struct Writer<'a> {
    snapshots: &'a Snapshots,
    vitals: &'a Vitals,
    store: Store,
    /// Snapshots of a later frame than the event's.
    late: u64,
    trouble: Option<String>,
    /// Events of one frame follow each other.
    last: Option<Picture>,
}

impl Writer<'_> {
    /// Makes the snapshot of an event.
    fn take(&mut self, event: &Event, kind: &str, holder: &Holder) {
        let is_of = |picture: &Picture| {
            picture.camera == event.camera()
                && (picture.epoch_ns, picture.sequence) == (event.epoch_ns, event.sequence)
        };
        if !self.last.as_ref().is_some_and(is_of) {
            self.last = holder.find(event.epoch_ns, event.sequence).and_then(|frame| {
                let header = frame.header();
                let picture = picture::rgb(&frame).map(|rgb| Picture {
                    camera: event.camera().to_owned(),
                    epoch_ns: header.epoch_ns,
                    sequence: header.sequence,
                    wall_ns: header.wall_ns,
                    rgb,
                });
                picture.inspect_err(|error| tracing::warn!(error, "no picture")).ok()
            });
        }
        let Some(picture) = &self.last else {
            self.vitals.add(Counter::Lost, 1);
            tracing::warn!(event = event.id(), "no frame for a snapshot");
            return;
        };
        let late = !is_of(picture);
        self.late += u64::from(late);
        match self.write(picture, event, kind, late) {
            Ok((path, bytes)) => {
                self.trouble = None;
                self.vitals.add(Counter::Written, 1);
                self.vitals.add(Counter::WrittenBytes, bytes);
                self.store.note(&path, false);
            }
            Err(error) => {
                self.vitals.add(Counter::Errors, 1);
                self.vitals.add(Counter::Lost, 1);
                let folder = self.snapshots.folder.display();
                self.trouble = Some(format!("cannot write into {folder}: {error}"));
            }
        }
    }

    fn write(
        &self,
        picture: &Picture,
        event: &Event,
        kind: &str,
        late: bool,
    ) -> io::Result<(PathBuf, u64)> {
        let styled = match self.snapshots.style {
            SnapshotStyle::Plain => None,
            SnapshotStyle::Annotated => {
                let mut annotated = picture.rgb.clone();
                picture::draw(&mut annotated, [Labelled::from(event)]);
                Some(annotated)
            }
            SnapshotStyle::Crop => Some(crop(&picture.rgb, event.bbox)),
        };
        let jpeg = encode(styled.as_ref().unwrap_or(&picture.rgb), self.snapshots.quality)?;
        let rest = format!("{kind}-{}{}", event.track, if late { "-late" } else { "" });
        let path = self.store.place(event.camera(), picture.wall_ns, true, &rest)?;
        write_whole(&path, &jpeg)?;
        Ok((path, jpeg.len() as u64))
    }

    fn say(&self, holders: &[Holder]) {
        let (files, removed) = self.store.counts();
        let some = |count, what| {
            if count > 0 { format!(", {count} {what}") } else { String::new() }
        };
        self.vitals.set_detail(&format!(
            "snapshots in {}: {files}{}{}",
            self.snapshots.folder.display(),
            some(self.late, "late"),
            some(removed, "removed for room")
        ));
        match self.trouble.clone().or_else(|| holders.iter().find_map(Holder::complaint)) {
            Some(trouble) => self.vitals.set_state(State::Degraded, &trouble),
            None => self.vitals.set_state(State::Live, ""),
        }
    }
}

/// The object with a little around it.
fn crop(picture: &RgbImage, bbox: [f32; 4]) -> RgbImage {
    let span = |from: f32, to: f32, side: u32| {
        let (middle, size) = ((from + to) / 2.0, (to - from).abs());
        let half = (size * (0.5 + MARGIN)).max(CROP_MIN / 2.0);
        // A box that is no number shows everything.
        let edge = |at: f32| at.clamp(0.0, side as f32);
        let start = edge(middle - half).floor() as u32;
        let end = edge(middle + half).ceil() as u32;
        if end > start { (start, end - start) } else { (0, side) }
    };
    let (x, width) = span(bbox[0], bbox[2], picture.width());
    let (y, height) = span(bbox[1], bbox[3], picture.height());
    image::imageops::crop_imm(picture, x, y, width, height).to_image()
}

fn encode(picture: &RgbImage, quality: u8) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let too_large = |_| io::Error::other("a JPEG has at most 65535 rows and columns");
    let width = u16::try_from(picture.width()).map_err(too_large)?;
    let height = u16::try_from(picture.height()).map_err(too_large)?;
    jpeg_encoder::Encoder::new(&mut bytes, quality)
        .encode(picture.as_raw(), width, height, ColorType::Rgb)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_crop_has_the_object_and_stays_inside() {
        let picture = RgbImage::from_fn(200, 100, |x, y| Rgb([x as u8, y as u8, 0]));
        let size = |bbox| crop(&picture, bbox).dimensions();
        let middle = crop(&picture, [50.0, 20.0, 150.0, 60.0]);
        assert_eq!(middle.dimensions(), (130, 52));
        assert_eq!(*middle.get_pixel(0, 0), Rgb([35, 14, 0]), "its corner");
        assert_eq!(size([-20.0, -20.0, 500.0, 500.0]), (200, 100));
        assert_eq!(size([100.0, 50.0, 100.0, 50.0]), (32, 32), "a point");
        assert_eq!(size([f32::NAN; 4]), (200, 100));
        assert_eq!(size([900.0, 900.0, 901.0, 901.0]), (200, 100), "outside");
    }
}
