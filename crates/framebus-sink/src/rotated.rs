//! A file of whole lines that is set aside at a certain size.
//!
//! A full disk and a process that is killed both leave half a line behind. It is taken
//! off again, so that who reads the file finds nothing but whole lines.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Read at once while the last end of a line is looked for.
const BLOCK: u64 = 64 * 1024;

/// `results.jsonl` that is written, and `results.jsonl.1` (newest) to `.keep`.
#[derive(Debug)]
pub(crate) struct Rotated {
    path: PathBuf,
    max_bytes: u64,
    keep: usize,
    file: File,
    /// Bytes of whole lines.
    size: u64,
}

impl Rotated {
    /// Opens the file to go on where it ends.
    pub(crate) fn open(path: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        let mut file = appending(path)?;
        let size = whole_lines(&mut file)?;
        file.set_len(size)?;
        Ok(Self { path: path.to_owned(), max_bytes, keep, file, size })
    }

    /// Whether the file has its size, once `pending` bytes are written.
    pub(crate) fn is_full(&self, pending: usize) -> bool {
        self.size + pending as u64 >= self.max_bytes
    }

    /// Writes whole lines: all of them or, with an error, none.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_full(0) {
            self.rotate()?;
        }
        match self.file.write_all(lines) {
            Ok(()) => self.size += lines.len() as u64,
            Err(error) => {
                self.file.set_len(self.size)?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Where a new file could not be made the last time, the old one has been set aside
        // already: once more would push an older one out for nothing.
        let aside = if self.path.exists() { self.keep } else { 0 };
        for number in (0..aside).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = appending(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut name: OsString = self.path.clone().into();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }
}

fn appending(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// Bytes up to the end of the last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn files_are_set_aside_at_their_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("a");
        let mut file = Rotated::open(&path, 4, 2).expect("opens");
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"] {
            file.write(line.as_bytes()).expect("written");
        }
        assert_eq!(read(&path), "7\n");
        assert_eq!(read(&folder.path().join("a.1")), "5\n6\n");
        assert_eq!(read(&folder.path().join("a.2")), "3\n4\n");
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 3);
    }

    #[test]
    fn what_was_set_aside_stays_while_no_new_file_can_be_made() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("a");
        let mut file = Rotated::open(&path, 2, 2).expect("opens");
        file.write(b"1\n").expect("written");
        file.write(b"2\n").expect("written");
        // As a failed attempt leaves it: the newest is aside, and nothing in its place.
        std::fs::remove_file(folder.path().join("a.1")).expect("there");
        std::fs::rename(&path, folder.path().join("a.1")).expect("renamed");
        file.write(b"3\n").expect("written");
        assert_eq!((read(&path), read(&folder.path().join("a.1"))), ("3\n".into(), "2\n".into()));
    }

    #[test]
    fn half_a_line_of_a_process_that_was_killed_is_taken_off() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("a");
        let long = "x".repeat(3 * BLOCK as usize / 2);
        for (found, kept) in [
            ("", ""),
            ("one\n", "one\n"),
            ("one\ntw", "one\n"),
            ("half", ""),
            (format!("one\n{long}").as_str(), "one\n"),
        ] {
            std::fs::write(&path, found).expect("written");
            let mut file = Rotated::open(&path, 1 << 20, 1).expect("opens");
            file.write(b"next\n").expect("written");
            assert_eq!(read(&path), format!("{kept}next\n"));
        }
    }
}
