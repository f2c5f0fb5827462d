//! Files that the sinks `snapshots` and `clips` have written of events, in folders by camera
//! and day (UTC): `08-15-00.250Z-enter-7.jpg`, and `08-14-55Z-enter-7.mp4` with the events of
//! the clip in a JSON file beside it.
//!
//! No name that somebody sends becomes a part of a path: the camera is one of ours, the day
//! is that of the event, and the file is looked for among those that are there.

use crate::files::utc;
use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use framebus_config::{CameraName, Config, Sink, SinkKind};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of one partial answer at most; a video player asks for the next part.
const PART: u64 = 4 << 20;
/// Bytes that are read at once where everything is asked for.
const PIECE: usize = 64 << 10;
const DAY_MS: u64 = 86_400_000;
/// Clips of a day that are asked for an event.
const CLIPS: usize = 32;
/// Bytes of what a clip says of itself, at most.
const TOLD: u64 = 1 << 20;

/// The folders of the instance.
#[derive(Debug)]
pub(crate) struct Shelf {
    folders: Vec<Folder>,
    cameras: Vec<String>,
}

/// What a sink writes.
#[derive(Debug)]
struct Folder {
    /// End of the names of its files.
    end: &'static str,
    path: PathBuf,
    /// Names of the events that it writes of, and cameras; empty = all.
    events: Vec<&'static str>,
    cameras: Vec<CameraName>,
}

impl Shelf {
    pub(crate) fn new(config: &Config, cameras: Vec<String>) -> Self {
        let folder = |sink: &Sink| {
            let (end, path, events) = match &sink.kind {
                SinkKind::Snapshots(sink) => ("jpg", &sink.folder, &sink.events),
                SinkKind::Clips(sink) => ("mp4", &sink.folder, &sink.events),
                _ => return None,
            };
            let (path, events) = (path.clone(), events.clone());
            Some(Folder { end, path, events, cameras: sink.cameras.clone() })
        };
        Self { folders: config.enabled_sinks().filter_map(folder).collect(), cameras }
    }

    /// Whether a file with this end (`jpg`, `mp4`) is made of an event called `kind`.
    pub(crate) fn has(&self, end: &str, camera: &str, kind: &str) -> bool {
        self.folders.iter().any(|folder| {
            folder.end == end
                && (folder.events.is_empty() || folder.events.contains(&kind))
                && (folder.cameras.is_empty()
                    || folder.cameras.iter().any(|name| name.as_str() == camera))
        })
    }

    /// The file of an event that happened at `wall_ms`, ms since 1970. A snapshot is asked
    /// for as `enter-7.jpg` (event and track), a clip by the event's id: `ID.mp4`.
    pub(crate) fn find(&self, camera: &str, wall_ms: u64, name: &str) -> Option<PathBuf> {
        let (what, end) = name.rsplit_once('.')?;
        if what.is_empty() || !self.cameras.iter().any(|known| known == camera) {
            return None;
        }
        let folders = self.folders.iter().filter(|folder| folder.end == end);
        folders.map(|folder| folder.path.join(camera)).find_map(|folder| match end {
            "jpg" => snapshot(&folder, wall_ms, what),
            _ => clip(&folder, wall_ms, what),
        })
    }
}

/// Names of the files of a day that end so, oldest first. Links are left out: one could
/// lead anywhere.
fn files(folder: &Path, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(end))
        .collect();
    names.sort_unstable();
    names
}

/// Of the very frame, or the first later one, which says that it is late.
fn snapshot(folder: &Path, wall_ms: u64, what: &str) -> Option<PathBuf> {
    let (day, time) = moment(wall_ms);
    let folder = folder.join(day);
    let (exact, late) = (format!("{time}Z-{what}.jpg"), format!("Z-{what}-late.jpg"));
    let names = files(&folder, ".jpg");
    let own = names.iter().find(|name| **name == exact);
    let own = own.or_else(|| names.iter().find(|name| **name > exact && name.ends_with(&late)));
    own.map(|name| folder.join(name))
}

/// The last clips that began before the event: one of them says that it has it.
fn clip(folder: &Path, wall_ms: u64, id: &str) -> Option<PathBuf> {
    let quoted = format!("\"{id}\"");
    for back_ms in [0, DAY_MS] {
        let (day, time) = moment(wall_ms.saturating_sub(back_ms));
        let folder = folder.join(day);
        let names = files(&folder, ".mp4");
        let before = names.iter().rev().filter(|name| back_ms > 0 || **name <= format!("{time}~"));
        for name in before.take(CLIPS) {
            let path = folder.join(name);
            let told = File::open(path.with_extension("json")).ok().and_then(|file| {
                let mut told = String::new();
                file.take(TOLD).read_to_string(&mut told).ok()?;
                Some(told)
            });
            if told.is_some_and(|told| told.contains(&quoted)) {
                return Some(path);
            }
        }
    }
    None
}

/// Day and time as the files have them: `2026-01-31` and `08-15-00.250`.
fn moment(wall_ms: u64) -> (String, String) {
    let (day, time, ms) = utc(wall_ms.saturating_mul(1_000_000));
    (day, format!("{time}.{ms:03}"))
}

/// The file, or the part of it that is asked for; `None` when it cannot be read.
pub(crate) fn read(path: &Path, headers: &HeaderMap) -> Option<Response> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let is_picture = path.extension().is_some_and(|end| end == "jpg");
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let mut response = match asked.map(|range| part(range, size)) {
        None => Body::from_stream(futures_util::stream::iter(pieces(file))).into_response(),
        Some(None) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some(Some((first, last))) => {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(first)).ok()?;
            file.take(last + 1 - first).read_to_end(&mut bytes).ok()?;
            let range = HeaderValue::from_str(&format!("bytes {first}-{last}/{size}")).ok()?;
            (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, range)], bytes).into_response()
        }
    };
    let kind = if is_picture { "image/jpeg" } else { "video/mp4" };
    // A clip may still be growing.
    let kept = if is_picture { "private, max-age=3600" } else { "no-store" };
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    Some(response)
}

/// The file, as fast as it is taken.
fn pieces(mut file: File) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let mut piece = vec![0; PIECE];
        match file.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some(Ok(piece.into()))
            }
            Err(error) => Some(Err(error)),
        }
    })
}

/// First and last byte of `bytes=FIRST-`, `bytes=FIRST-LAST` or `bytes=-COUNT`, no more than
/// a part.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", count) => (size.saturating_sub(count.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.min(end)),
    };
    (first <= last).then(|| (first, last.min(first + PART - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31, 23:59:59.250 UTC.
    const MS: u64 = 1_769_903_999_250;

    #[test]
    fn files_of_events_are_found_and_no_others() {
        let root = tempfile::tempdir().expect("temp dir");
        let folder = root.path().join("files/front/2026-01-31");
        std::fs::create_dir_all(&folder).expect("made");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("written");
        };
        write("23-59-59.250Z-enter-7.jpg", "x");
        write("23-59-59.800Z-leave-8-late.jpg", "x");
        write("23-59-59.250Z-note.txt", "x");
        for (clip, event) in [("23-59-50Z-enter-7", "front-1f-7-0"), ("23-59-58Z-enter-9", "other")]
        {
            write(&format!("{clip}.mp4"), "x");
            write(&format!("{clip}.json"), &format!("{{\"events\": [{{\"id\": \"{event}\"}}]}}"));
        }
        let secret = root.path().join("secret");
        std::fs::write(&secret, b"x").expect("written");
        std::os::unix::fs::symlink(&secret, folder.join("23-59-59.250Z-link-1.jpg")).expect("link");
        let files = root.path().join("files");
        let folders = ["jpg", "mp4"].map(|end| Folder {
            end,
            path: files.clone(),
            events: vec!["enter"],
            cameras: Vec::new(),
        });
        let shelf = Shelf { folders: folders.into(), cameras: vec!["front".to_owned()] };
        assert!(shelf.has("jpg", "front", "enter") && !shelf.has("jpg", "front", "appear"));
        let found = |camera: &str, ms, name: &str| {
            let path = shelf.find(camera, ms, name)?;
            Some(path.file_name()?.to_str()?.to_owned())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(found("front", MS, "enter-7.jpg"), named("23-59-59.250Z-enter-7.jpg"));
        assert_eq!(found("front", MS, "leave-8.jpg"), named("23-59-59.800Z-leave-8-late.jpg"));
        assert_eq!(found("front", MS, "front-1f-7-0.mp4"), named("23-59-50Z-enter-7.mp4"));
        // It began before midnight.
        assert_eq!(found("front", MS + 2000, "front-1f-7-0.mp4"), named("23-59-50Z-enter-7.mp4"));
        for (camera, ms, name) in [
            ("back", MS, "enter-7.jpg"),
            ("..", MS, "enter-7.jpg"),
            ("front", MS + 1, "enter-7.jpg"),
            ("front", MS - DAY_MS, "enter-7.jpg"),
            ("front", MS, "enter-7.txt"),
            ("front", MS, "note.txt"),
            ("front", MS, "enter-7.mp4"),
            ("front", MS, "front-1f-7-1.mp4"),
            ("front", MS - 20_000, "front-1f-7-0.mp4"),
            ("front", MS, ".jpg"),
            ("front", MS, "jpg"),
            ("front", MS, "../../../secret.jpg"),
            ("front", MS, "link-1.jpg"),
            ("front", u64::MAX, "enter-7.jpg"),
        ] {
            assert_eq!(found(camera, ms, name), None, "{camera}/{ms}/{name}");
        }
    }

    #[test]
    fn parts_are_those_of_the_range() {
        assert_eq!(part("bytes=0-", 10), Some((0, 9)));
        assert_eq!(part("bytes=2-4", 10), Some((2, 4)));
        assert_eq!(part("bytes=2-400", 10), Some((2, 9)));
        assert_eq!(part("bytes=-3", 10), Some((7, 9)));
        assert_eq!(part("bytes=0-", 3 * PART), Some((0, PART - 1)));
        for wrong in ["bytes=10-", "bytes=4-2", "bytes=a-b", "lines=0-1", "bytes=0"] {
            assert_eq!(part(wrong, 10), None, "{wrong}");
        }
        assert_eq!(part("bytes=0-", 0), None);
    }
}
