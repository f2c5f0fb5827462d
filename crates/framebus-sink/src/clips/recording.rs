//! One clip that is being written: fragments of about a second, each written at once, so
//! that the file plays up to the last one whatever becomes of this process.

use super::mp4::{self, Sample, Track};
use super::ring::shown_ns;
use crate::files::write_whole;
use framebus_client::Packet;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A fragment is written when it has so much, or when the next key frame comes. ns.
const FRAGMENT_NS: u64 = 1_000_000_000;
/// Most events that the file beside a clip lists.
const EVENTS_MAX: usize = 1000;

/// A file and what is not yet written of it.
#[derive(Debug)]
pub(crate) struct Recording {
    path: PathBuf,
    file: File,
    camera: String,
    first: Arc<Packet>,
    pending: Vec<Arc<Packet>>,
    /// Fragments written, and the time at which the next one begins.
    fragments: u32,
    next_ticks: u64,
    /// Ticks of the last frame.
    duration: u64,
    frames: u64,
    bytes: u64,
    events: Vec<Value>,
    more_events: u64,
    /// Last moment that belongs to it, on the stream's clock.
    pub(crate) until_ns: u64,
}

impl Recording {
    /// Begins a file with `first`, which is a key frame.
    pub(crate) fn begin(path: PathBuf, camera: &str, first: &Arc<Packet>) -> io::Result<Self> {
        let mut file = File::create_new(&path)?;
        let head = mp4::head(&Track {
            codec: first.codec,
            config: first.config(),
            width: first.header.width,
            height: first.header.height,
            delay: u32::try_from(mp4::ticks(shown_ns(first) as i64 - order_ns(first) as i64))
                .unwrap_or(0),
        });
        file.write_all(&head).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok(Self {
            path,
            file,
            camera: camera.to_owned(),
            first: first.clone(),
            pending: Vec::new(),
            fragments: 0,
            next_ticks: 0,
            duration: mp4::TIMESCALE / 25,
            frames: 0,
            bytes: head.len() as u64,
            events: Vec::new(),
            more_events: 0,
            until_ns: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When its first frame is shown, on the stream's clock.
    pub(crate) fn start_ns(&self) -> u64 {
        shown_ns(&self.first)
    }

    /// Whether a key frame can be in this file: its parameters are those of the first one.
    pub(crate) fn takes(&self, packet: &Packet) -> bool {
        !packet.header.is_key()
            || (packet.codec == self.first.codec && packet.config() == self.first.config())
    }

    /// Adds a frame; whether a fragment was written.
    pub(crate) fn push(&mut self, packet: &Arc<Packet>) -> io::Result<bool> {
        let full = self.pending.first().is_some_and(|first| {
            packet.header.is_key() || order_ns(packet).abs_diff(order_ns(first)) >= FRAGMENT_NS
        });
        if full {
            self.flush(Some(packet))?;
        }
        self.pending.push(packet.clone());
        Ok(full)
    }

    /// Notes an event that happened at `shown_ns`.
    pub(crate) fn note(&mut self, mut event: Value, shown_ns: u64) {
        if self.events.len() == EVENTS_MAX {
            self.more_events += 1;
            return;
        }
        let at_s = (shown_ns as i64 - self.start_ns() as i64) as f64 / 1e9;
        if let Some(event) = event.as_object_mut() {
            event.insert("at_s".to_owned(), json!(at_s));
        }
        self.events.push(event);
    }

    /// Writes the JSON file beside the clip.
    pub(crate) fn describe(&self, end: Option<&str>) -> io::Result<()> {
        let header = &self.first.header;
        let text = json!({
            "camera": self.camera,
            "codec": self.first.codec.as_str(),
            "width": header.width,
            "height": header.height,
            "wall_ns": header.wall_ns,
            "epoch_ns": header.epoch_ns,
            "pts_ns": if header.pts_ns == u64::MAX { Value::Null } else { header.pts_ns.into() },
            "frames": self.frames,
            "duration_s": self.next_ticks as f64 / mp4::TIMESCALE as f64,
            "end": end,
            "events": self.events,
            "more_events": self.more_events,
        });
        write_whole(&self.path.with_extension("json"), format!("{text:#}\n").as_bytes())
    }

    /// Writes what is left and says why the clip ends.
    pub(crate) fn finish(&mut self, end: &str) -> io::Result<()> {
        self.flush(None)?;
        self.describe(Some(end))
    }

    /// Writes a fragment: all of it or, with an error, nothing.
    fn flush(&mut self, next: Option<&Packet>) -> io::Result<()> {
        let Some(first) = self.pending.first() else { return Ok(()) };
        let starts = self.decoding_ticks(next);
        let begin_ns = order_ns(&self.first) as i64;
        let samples: Vec<Sample<'_>> = self
            .pending
            .iter()
            .zip(starts.windows(2))
            .map(|(packet, times)| {
                let shown = mp4::ticks(shown_ns(packet) as i64 - begin_ns);
                Sample {
                    key: packet.header.is_key(),
                    duration: u32::try_from(times[1] - times[0]).unwrap_or(u32::MAX),
                    offset: i32::try_from(shown - times[0] as i64).unwrap_or(0),
                    data: packet.data(),
                }
            })
            .collect();
        debug_assert!(self.fragments > 0 || first.header.is_key());
        let fragment = mp4::fragment(self.fragments + 1, self.next_ticks, &samples);
        if let Err(error) = self.file.write_all(&fragment) {
            // Half a fragment would be taken for a broken file.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.fragments += 1;
        self.frames += samples.len() as u64;
        self.bytes += fragment.len() as u64;
        if let [.., before, last] = starts[..] {
            (self.next_ticks, self.duration) = (last, last - before);
        }
        self.pending.clear();
        Ok(())
    }

    /// When each pending frame is decoded, and the one behind them: ticks since the first of
    /// the file, each later than the one before.
    fn decoding_ticks(&self, next: Option<&Packet>) -> Vec<u64> {
        let mut times: Vec<u64> = self.pending.iter().map(|packet| order_ns(packet)).collect();
        if self.pending.iter().any(|packet| packet.header.dts_ns == u64::MAX) {
            // Without decoding times, frames are decoded in the order in which they came, at
            // the times at which some frame is shown.
            times.sort_unstable();
        }
        let first_ns = order_ns(&self.first) as i64;
        let mut starts = Vec::with_capacity(times.len() + 1);
        let mut least = self.next_ticks;
        for time in times.into_iter().chain(next.map(order_ns)) {
            let ticks = u64::try_from(mp4::ticks(time as i64 - first_ns)).unwrap_or(0);
            // The first one begins where the last fragment said that it ends.
            let ticks = if starts.is_empty() { self.next_ticks } else { ticks.max(least) };
            starts.push(ticks);
            least = ticks + 1;
        }
        if next.is_none() {
            let last = starts.last().copied().unwrap_or(self.next_ticks);
            let lasts = self.pending.last().map_or(0, |packet| packet.header.duration_ns);
            let lasts = mp4::ticks(lasts as i64) as u64;
            starts.push(last + if lasts > 0 { lasts } else { self.duration });
        }
        starts
    }
}

/// When a packet is decoded, on the stream's clock.
fn order_ns(packet: &Packet) -> u64 {
    match packet.header.dts_ns {
        u64::MAX => shown_ns(packet),
        dts_ns => dts_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::packet;
    use super::*;

    #[test]
    fn every_fragment_is_on_the_disk_at_once_and_holds_the_frames() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("a.mp4");
        let mut recording = Recording::begin(path.clone(), "a", &packet(5)).expect("begins");
        let mut written = Vec::new();
        for number in 5..18 {
            if recording.push(&packet(number)).expect("written") {
                written.push(number);
            }
        }
        // Key frames are five apart; nothing of the last group is written yet.
        assert_eq!(written, [10, 15]);
        let size = std::fs::metadata(&path).expect("there").len();
        assert_eq!(size, recording.bytes());
        recording.note(json!({"id": "x"}), 700_000_000);
        recording.finish("after").expect("written");
        let told = std::fs::read_to_string(path.with_extension("json")).expect("there");
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!((&told["frames"], &told["duration_s"]), (&json!(13), &json!(1.3)));
        assert_eq!(told["events"][0]["at_s"], json!(0.2));
        let bytes = std::fs::read(&path).expect("readable");
        let data: Vec<u8> = (5..18).flat_map(|number| packet(number).data().to_vec()).collect();
        let parts = [&data[..96 + 4 * 100], &data[data.len() - 296..]];
        assert!(parts.iter().all(|part| bytes.windows(part.len()).any(|seen| seen == *part)));
    }

    #[test]
    fn frames_without_decoding_times_get_some_that_advance() {
        let folder = tempfile::tempdir().expect("temp dir");
        let mut recording =
            Recording::begin(folder.path().join("a.mp4"), "a", &packet(0)).expect("begins");
        // Shown in the order 0, 2, 1, 4, 3.
        for (number, shown) in [(0, 0), (1, 2), (2, 1), (3, 4), (4, 3)] {
            let mut next = (*packet(number)).clone();
            (next.header.dts_ns, next.header.pts_ns) = (u64::MAX, shown * 100_000_000);
            recording.push(&Arc::new(next)).expect("kept");
        }
        let times = recording.decoding_ticks(None);
        assert_eq!(times, [0, 9000, 18_000, 27_000, 36_000, 39_600]);
    }
}
