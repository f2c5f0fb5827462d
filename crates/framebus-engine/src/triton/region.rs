//! Memory that a server on this machine maps too.
//!
//! A region is a file in /dev/shm that this process made. As long as it lives it holds a
//! lock on the file, which the kernel releases when the process ends, however it ends:
//! whoever starts next finds by it what nobody owns any more ([`sweep`]).
//!
//! The server reads the input and writes the outputs while a request is on its way, and
//! only then. A region whose request had no answer is never used again.

#![expect(unsafe_code, reason = "memory that another process maps too")]

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

/// A mapped file of our own; unmapped and removed when dropped. A server that has mapped
/// it keeps its memory until it unregisters it or ends.
#[derive(Debug)]
pub(crate) struct Region {
    name: String,
    path: PathBuf,
    map: MmapRaw,
    /// Holds the lock.
    _file: File,
}

impl Region {
    /// A region of `length` bytes, zeroed, all of them there.
    ///
    /// # Errors
    /// The system's, such as no space in `folder`.
    pub(crate) fn create(folder: &Path, length: usize) -> io::Result<Self> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // Nobody's name before: a server may remember what a killed process told it.
            let chance = RandomState::new().hash_one(number) as u32;
            let name = format!("{PREFIX}{}-{number}-{chance:08x}", std::process::id());
            let path = folder.join(&name);
            let new =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match new {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            // Between its creation and its lock somebody may have swept it away.
            if locked.is_err() || fstat(&file)?.st_nlink == 0 {
                continue;
            }
            // Now, as an error: pages that are not there when they are written are SIGBUS.
            let there = fallocate(&file, FallocateFlags::empty(), 0, length as u64);
            let map = there
                .map_err(io::Error::from)
                .and_then(|()| MmapOptions::new().len(length).map_raw(&file));
            match map {
                Ok(map) => return Ok(Self { name, path, map, _file: file }),
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
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the regions of processes that have ended, and answers their names: a server
/// that has mapped them may know them still.
pub(crate) fn sweep(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let ours = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    ours.filter(|name| name.starts_with(PREFIX) && is_orphan(&folder.join(name))).collect()
}

/// Removes the file if its owner has ended.
fn is_orphan(path: &Path) -> bool {
    // Another user's cannot be opened.
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return false };
    let free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    free && std::fs::remove_file(path).is_ok()
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
        let mut region = Region::create(folder.path(), 10_000).expect("made");
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
    fn what_nobody_owns_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let alive = Region::create(folder.path(), 64).expect("made");
        let foreign = folder.path().join("somebody-else");
        std::fs::write(&foreign, "x").expect("written");
        std::fs::write(folder.path().join(format!("{PREFIX}1-1")), "x").expect("written");
        assert_eq!(sweep(folder.path()), [format!("{PREFIX}1-1")]);
        let mut left = files(folder.path());
        left.sort();
        assert_eq!(left, [alive.name().to_owned(), "somebody-else".to_owned()]);
        assert!(sweep(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn too_large_a_region_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Region::create(folder.path(), usize::MAX / 2).is_err());
        assert!(files(folder.path()).is_empty());
    }
}
