//! The files that an instance lives in: for its user alone, kept from being cleaned
//! away while a process of the instance runs, and missed when they are gone all the
//! same.
//!
//! What is mapped stays usable after its name has been removed, so that nothing fails at
//! first. But whoever joins later makes the services anew beside the old ones, and the
//! two halves never meet: better to stop, say so and start again.

use crate::{BusError, Domain};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// iceoryx2 keeps one such file per domain in /dev/shm for as long as anybody is there.
const DOMAIN_FILE: &str = ".global_mgmt";

/// A file with the device and inode that it had.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    id: (u64, u64),
}

impl Known {
    fn new(path: PathBuf) -> Option<Self> {
        Some(Self { id: id(&path)?, path })
    }

    fn is_there(&self) -> bool {
        id(&self.path) == Some(self.id)
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The files of an instance, as they were when this process joined.
#[derive(Debug)]
pub(crate) struct Files {
    known: Vec<Known>,
    /// Locked, see [`keep`].
    _folder: Option<File>,
}

impl Files {
    /// Notes and keeps them; to be called once the node is there.
    pub(crate) fn new(domain: &Domain) -> Self {
        let folder = domain.folder();
        let memory = domain_file(domain);
        if let Some(memory) = &memory {
            // iceoryx2 lets every user write this one, whatever the umask. Who has no right
            // to change it has not made it either.
            let _ = std::fs::set_permissions(memory, Permissions::from_mode(0o600));
        }
        let paths = std::iter::once(folder.clone()).chain(memory);
        Self { known: paths.filter_map(Known::new).collect(), _folder: keep(&folder) }
    }

    /// Whether they are the same ones still.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        match self.known.iter().find(|known| !known.is_there()) {
            None => Ok(()),
            Some(gone) => Err(BusError::Vanished { path: gone.path.clone() }),
        }
    }
}

/// systemd-tmpfiles removes what has not been touched for ten days from /tmp on many
/// systems; a folder on which somebody holds a lock, and all below it, is left alone
/// (tmpfiles.d(5)). Where locks are not to be had, the folder is watched all the same.
fn keep(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    flock(&folder, FlockOperation::NonBlockingLockShared).ok()?;
    Some(folder)
}

/// Files of the instance in /dev/shm.
fn list_shm(domain: &Domain) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry.file_name().as_encoded_bytes().starts_with(domain.shm_prefix().as_bytes())
        })
        .map(|entry| entry.path())
        .collect()
}

fn domain_file(domain: &Domain) -> Option<PathBuf> {
    list_shm(domain).into_iter().find(|path| path.to_string_lossy().ends_with(DOMAIN_FILE))
}

/// The first file of the instance in /dev/shm that is another user's: everybody may
/// create files there and the names are known, so it could be memory that somebody
/// else writes. iceoryx2 does not look.
pub(crate) fn foreign(domain: &Domain) -> Option<(PathBuf, u32)> {
    let uid = rustix::process::getuid().as_raw();
    list_shm(domain).into_iter().find_map(|path| {
        let owner = std::fs::symlink_metadata(&path).ok()?.uid();
        (owner != uid).then_some((path, owner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, Limits};

    fn instance(name: &str) -> (tempfile::TempDir, Domain) {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let name = format!("{name}-{}", std::process::id());
        let domain = Domain::new(&name, root.path(), Limits::default()).expect("valid");
        (root, domain)
    }

    #[test]
    fn files_that_vanish_are_missed() {
        for in_shm in [false, true] {
            let (_root, domain) = instance(if in_shm { "shm" } else { "folder" });
            let bus: Bus = Bus::open(&domain, "test").expect("a bus");
            bus.check_files().expect("all there");
            let path = if in_shm {
                let memory = domain_file(&domain).expect("iceoryx2 makes it");
                std::fs::remove_file(&memory).expect("removed");
                memory
            } else {
                std::fs::remove_dir_all(domain.folder()).expect("removed");
                domain.folder()
            };
            let error = bus.check_files().expect_err("gone").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            // A new one of the same name is not the one that was joined.
            std::fs::create_dir_all(domain.folder()).expect("made");
            assert!(bus.check_files().is_err());
            drop(bus);
            domain.remove_leftovers().expect("removable");
        }
    }

    #[test]
    fn a_cleaner_of_temporary_files_sees_that_the_folder_is_in_use() {
        let (_root, domain) = instance("kept");
        let bus: Bus = Bus::open(&domain, "test").expect("a bus");
        let folder = File::open(domain.folder()).expect("readable");
        let lock = || flock(&folder, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(lock(), Err(rustix::io::Errno::WOULDBLOCK));
        drop(bus);
        assert_eq!(lock(), Ok(()));
        domain.remove_leftovers().expect("removable");
    }
}
