//! Memory that a server on this machine maps too.
//!
//! A region is a file in /dev/shm that this process made. As long as it lives it holds a
//! lock on the file, which the kernel releases when the process ends, however it ends. A
//! region that the server was told of goes away together with its file only once the server
//! has forgotten it; else the file stays, without a lock, and whoever asks that server next
//! finds it ([`orphans`]) and lets the server forget it.
//!
//! The server reads the input and writes the outputs while a request is on its way, and
//! only then. A region whose request had no answer is never used again.

#![allow(unsafe_code, reason = "memory that another process maps too")]

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstat};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where `shm_open` has its files on Linux.
pub(crate) const FOLDER: &str = "/dev/shm";
/// Begin of the names of all regions.
const PREFIX: &str = "framebus-triton-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A mapped file of our own; unmapped when dropped, and removed unless the server knows it.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    path: PathBuf,
    map: MmapRaw,
    /// The server may have it mapped.
    known: bool,
    /// Holds the lock.
    _file: File,
}

impl Region {
    /// A region of `length` bytes for one server, zeroed, all of them there.
    ///
    /// # Errors
    /// The system's, such as no space in `folder`.
    pub(crate) fn create(folder: &Path, server: &str, length: usize) -> io::Result<Self> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // Nobody's name before: a server may remember what a killed process told it.
            let chance = RandomState::new().hash_one(number) as u32;
            let name = format!("{PREFIX}{}-{number}-{chance:08x}-{server}", std::process::id());
            let path = folder.join(&name);
            let new =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match new {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            match locked {
                // Between its creation and its lock somebody has taken it for an orphan.
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Ok(()) if fstat(&file)?.st_nlink == 0 => continue,
                Ok(()) => {}
                Err(error) => {
                    let _ = std::fs::remove_file(&path);
                    return Err(error.into());
                }
            }
            // Now, as an error: pages that are not there when they are written are SIGBUS.
            let there = fallocate(&file, FallocateFlags::empty(), 0, length as u64);
            let map = there
                .map_err(io::Error::from)
                .and_then(|()| MmapOptions::new().len(length).map_raw(&file));
            match map {
                Ok(map) => return Ok(Self { name, path, map, known: false, _file: file }),
                Err(error) => {
                    let _ = std::fs::remove_file(&path);
                    return Err(error);
                }
            }
        }
    }

    /// Its name in [`FOLDER`], and at the server.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the server may have it mapped from now on.
    pub(crate) fn set_known(&mut self, known: bool) {
        self.known = known;
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Its bytes; aligned to a page.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, initialised by the kernel, and lives as long as
        // `self`; the file has this length and nobody makes it shorter but a process of the
        // same user that could do anything to us. The server writes here only while a
        // request is on its way, and then nobody calls this.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    /// The same for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably: no other slice of this
        // process lives.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr(), self.map.len()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.known {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A region that nobody owns any more, but that its server may have mapped.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) name: String,
    path: PathBuf,
    /// Holds the lock: nobody else looks at it meanwhile.
    _file: File,
}

impl Orphan {
    /// The server has forgotten it.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The part of a region's name that says which server it is for.
pub(crate) fn server_tag(host: &str, port: u16) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    let host: String = host.chars().take(64).map(letter).collect();
    format!("{host}_{port}")
}

/// Regions for `server` of processes that have ended, and those that were given up.
pub(crate) fn orphans(folder: &Path, server: &str) -> Vec<Orphan> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ours = names.filter(|name| {
        name.strip_prefix(PREFIX).and_then(|rest| rest.splitn(4, '-').nth(3)) == Some(server)
    });
    let orphan = |name: String| {
        let path = folder.join(&name);
        // Another user's cannot be opened.
        let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Orphan { name, path, _file: file })
    };
    ours.filter_map(orphan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    #[test]
    fn a_region_is_there_for_its_owner_only_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mut region = Region::create(folder.path(), "h_1", 10_000).expect("made");
        assert_eq!((region.len(), region.bytes()[9_999]), (10_000, 0));
        region.bytes_mut()[9_999] = 7;
        let file = folder.path().join(region.name());
        assert_eq!(std::fs::read(&file).expect("there")[9_999], 7, "it is the file's memory");
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(region);
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn what_a_server_knows_stays_until_it_has_forgotten_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let names = |server: &str| -> Vec<String> {
            orphans(folder, server).into_iter().map(|orphan| orphan.name).collect()
        };
        let alive = Region::create(folder, "h_1", 64).expect("made");
        let mut known = Region::create(folder, "h_1", 64).expect("made");
        let other = Region::create(folder, "h_2", 64).expect("made");
        std::fs::write(folder.join("somebody-else"), "x").expect("written");
        std::fs::write(folder.join(format!("{PREFIX}1")), "x").expect("written");
        assert!(names("h_1").is_empty(), "all have an owner");
        known.set_known(true);
        let name = known.name().to_owned();
        drop(known);
        drop(other);
        assert_eq!(names("h_1"), [name.as_str()]);
        assert!(names("h_2").is_empty(), "nobody knew it");
        orphans(folder, "h_1").into_iter().for_each(Orphan::remove);
        let mut left = files(folder);
        left.sort();
        let mut expected =
            [alive.name().to_owned(), format!("{PREFIX}1"), "somebody-else".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
        assert!(orphans(Path::new("/nonexistent"), "h_1").is_empty());
        assert_eq!(server_tag("fe80::1", 8001), "fe80__1_8001");
    }

    #[test]
    fn too_large_a_region_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Region::create(folder.path(), "h_1", usize::MAX / 2).is_err());
        assert!(files(folder.path()).is_empty());
    }
}
