//! Files by camera and day, and how much disk they may take together.
//!
//! `FOLDER/CAMERA/2026-01-31/08-15-00Z-enter-7.mp4`: times are UTC, so that names sort and no
//! hour comes twice. The oldest go first when there are too many. Only files that look like
//! this are counted or removed; whatever else lies in the folder is left alone.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

const DAY_S: u64 = 86_400;

/// Day and time of day of a wall-clock time, UTC: `2026-01-31`, `08-15-00`, milliseconds.
pub(crate) fn utc(wall_ns: u64) -> (String, String, u64) {
    let (seconds, ms) = (wall_ns / 1_000_000_000, wall_ns / 1_000_000 % 1000);
    let (days, second) = (seconds / DAY_S, seconds % DAY_S);
    // Gregorian calendar in cycles of 400 years, each year beginning in March, so that the
    // leap day is a year's last. 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (400 * cycle + year, if month < 10 { month + 3 } else { month - 9 });
    let year = year + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{hour:02}-{minute:02}-{:02}", second % 60),
        ms,
    )
}

/// The files of one sink.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// How the names end, without the full stop.
    ending: &'static str,
    max_bytes: u64,
    /// Oldest first.
    files: VecDeque<Kept>,
    bytes: u64,
    removed: u64,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// With the JSON file beside it.
    bytes: u64,
    /// It is being written.
    open: bool,
}

impl Store {
    /// Makes the folder and takes stock of it.
    pub(crate) fn open(folder: &Path, ending: &'static str, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut found: Vec<(String, Kept)> = Vec::new();
        for camera in folders(folder) {
            for day in folders(&camera) {
                let name = day.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !has_form(&name, "0000-00-00") {
                    continue;
                }
                for entry in std::fs::read_dir(&day).into_iter().flatten().flatten() {
                    let (path, file) = (entry.path(), entry.file_name());
                    let file = file.to_string_lossy();
                    let ours = path.extension().is_some_and(|end| end == ending)
                        && file.get(..8).is_some_and(|time| has_form(time, "00-00-00"));
                    if ours {
                        let bytes = size(&path);
                        found.push((format!("{name}/{file}"), Kept { path, bytes, open: false }));
                    }
                }
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let files: VecDeque<Kept> = found.into_iter().map(|(_, kept)| kept).collect();
        let bytes = files.iter().map(|kept| kept.bytes).sum();
        let mut store =
            Self { folder: folder.to_owned(), ending, max_bytes, files, bytes, removed: 0 };
        store.make_room();
        Ok(store)
    }

    /// Where the file of a camera and moment goes; its folder is made. `rest` follows the
    /// time. The name is new.
    pub(crate) fn place(
        &self,
        camera: &str,
        wall_ns: u64,
        with_ms: bool,
        rest: &str,
    ) -> io::Result<PathBuf> {
        let (day, time, ms) = utc(wall_ns);
        let folder = self.folder.join(camera).join(day);
        std::fs::create_dir_all(&folder)?;
        let time = if with_ms { format!("{time}.{ms:03}Z") } else { format!("{time}Z") };
        let name = |number: u32| match number {
            1 => folder.join(format!("{time}-{rest}.{}", self.ending)),
            _ => folder.join(format!("{time}-{rest}-{number}.{}", self.ending)),
        };
        (1..1000).map(name).find(|path| !path.exists()).ok_or_else(|| {
            io::Error::other(format!("a thousand files are called {}", name(1).display()))
        })
    }

    /// Notes a new file, or that one has grown; the oldest go where it gets too much.
    pub(crate) fn note(&mut self, path: &Path, open: bool) {
        let bytes = size(path);
        match self.files.iter_mut().rev().find(|kept| kept.path == path) {
            Some(kept) => {
                self.bytes = self.bytes - kept.bytes + bytes;
                (kept.bytes, kept.open) = (bytes, open);
            }
            None => {
                self.bytes += bytes;
                self.files.push_back(Kept { path: path.to_owned(), bytes, open });
            }
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.files.iter().position(|kept| !kept.open) else { return };
            let Some(kept) = self.files.remove(oldest) else { return };
            self.bytes -= kept.bytes;
            self.removed += 1;
            if let Err(error) = std::fs::remove_file(&kept.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %kept.path.display(), %error, "cannot be removed");
            }
            let _ = std::fs::remove_file(kept.path.with_extension("json"));
            // The day's folder goes when it is empty.
            let _ = kept.path.parent().map(std::fs::remove_dir);
        }
    }

    /// Files that are there, and files that had to go since this process started.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.files.len(), self.removed)
    }
}

/// Bytes of a file and the JSON file beside it.
fn size(path: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    bytes(path) + bytes(&path.with_extension("json"))
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink())
}

/// Whether a text looks like this one, zeros standing for digits.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(letter, wanted)| match wanted {
            b'0' => letter.is_ascii_digit(),
            _ => letter == wanted,
        })
}

/// Writes a file that appears whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(hidden);
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        // Checked with `date -u -d @…`.
        for (seconds, day, time) in [
            (0, "1970-01-01", "00-00-00"),
            (951_782_399, "2000-02-28", "23-59-59"),
            (951_782_400, "2000-02-29", "00-00-00"),
            (951_868_800, "2000-03-01", "00-00-00"),
            (1_767_225_599, "2025-12-31", "23-59-59"),
            (1_767_225_600, "2026-01-01", "00-00-00"),
            (4_107_542_400, "2100-03-01", "00-00-00"),
        ] {
            let (found_day, found_time, ms) = utc(seconds * 1_000_000_000 + 7_000_000);
            assert_eq!((found_day.as_str(), found_time.as_str(), ms), (day, time, 7));
        }
    }

    #[test]
    fn the_oldest_go_and_strangers_stay() {
        let folder = tempfile::tempdir().expect("temp dir");
        let second = |n: u64| n * 1_000_000_000;
        let mut store = Store::open(folder.path(), "mp4", 250).expect("opens");
        let mut add = |camera: &str, at: u64, open| {
            let path = store.place(camera, second(at), false, "enter-1").expect("a place");
            std::fs::write(&path, [0; 90]).expect("written");
            std::fs::write(path.with_extension("json"), [0; 10]).expect("written");
            store.note(&path, open);
            path
        };
        let first = add("a", 10, true);
        let second_file = add("b", 20, false);
        let stranger = second_file.with_file_name("notes.mp4");
        std::fs::write(&stranger, [0; 900]).expect("written");
        let third = add("a", 86_400, false);
        assert!(first.exists() && !second_file.exists() && third.exists() && stranger.exists());
        assert_eq!(store.counts(), (2, 1));
        assert!(!second_file.with_extension("json").exists());
        assert!(first.ends_with("a/1970-01-01/00-00-10Z-enter-1.mp4"), "{}", first.display());
        let again = store.place("a", second(10), false, "enter-1").expect("a place");
        assert!(again.ends_with("00-00-10Z-enter-1-2.mp4"), "{}", again.display());
        // The next process finds the same files, and what is too much for it goes.
        let store = Store::open(folder.path(), "mp4", 100).expect("opens");
        assert_eq!(store.counts(), (1, 1));
        assert!(!first.exists() && third.exists() && stranger.exists());
        assert!(!first.parent().expect("a folder").exists(), "an empty day goes");
    }
}
