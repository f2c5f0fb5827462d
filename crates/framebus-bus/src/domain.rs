//! Instances: separate worlds on one machine.

use crate::{BusError, Ipc, Limits, files};
use iceoryx2::config::Config;
use iceoryx2::node::{Node, NodeState, NodeView as _};
use iceoryx2::prelude::{CallbackProgression, FileName, Path as IoxPath, SemanticString};
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest root path: iceoryx2 puts Unix sockets below it, whose paths end at
/// 108 bytes, and needs about 60 for its own names.
const ROOT_MAX: usize = 48;

/// One instance: its own prefix in /dev/shm and its own folder, so that two
/// installations, or a test and an installation, never meet.
#[derive(Debug, Clone)]
pub struct Domain {
    instance: String,
    root: PathBuf,
    prefix: String,
    limits: Limits,
    config: Config,
}

impl Domain {
    /// Default folder of all instances of this user: `/tmp/framebus-<uid>`.
    #[must_use]
    pub fn default_root() -> PathBuf {
        PathBuf::from(format!("/tmp/framebus-{}", rustix::process::getuid().as_raw()))
    }

    /// Names an instance below `root`.
    ///
    /// # Errors
    /// [`BusError::Domain`] when the name or the folder cannot be used.
    pub fn new(instance: &str, root: &Path, limits: Limits) -> Result<Self, BusError> {
        let fail = |reason: String| BusError::Domain {
            instance: instance.to_owned(),
            root: root.to_owned(),
            reason,
        };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if instance.is_empty() || instance.len() > 24 || !instance.bytes().all(plain) {
            return Err(fail("an instance name has 1 to 24 of a-z, 0-9, - and _".to_owned()));
        }
        if !root.is_absolute() {
            return Err(fail("the folder must be an absolute path".to_owned()));
        }
        let folder = root.join(instance);
        let length = folder.as_os_str().len();
        if length > ROOT_MAX {
            return Err(fail(format!(
                "its path has {length} bytes, sockets below it allow {ROOT_MAX}; choose a shorter bus.root or instance"
            )));
        }
        // The dot ends the name: no name has one, so that no prefix is the
        // beginning of another instance's.
        let prefix = format!("fb{}_{instance}.", rustix::process::getuid().as_raw());
        let mut config = Config::default();
        config.global.prefix = FileName::new(prefix.as_bytes())
            .map_err(|error| fail(format!("prefix {prefix}: {error:?}")))?;
        config.global.set_root_path(
            &IoxPath::new(folder.as_os_str().as_encoded_bytes())
                .map_err(|error| fail(format!("{error:?}")))?,
        );
        Ok(Self { instance: instance.to_owned(), root: root.to_owned(), prefix, limits, config })
    }

    /// Instance name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Folder of this instance's service and node files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.instance)
    }

    /// What every file of this instance in /dev/shm starts with.
    #[must_use]
    pub fn shm_prefix(&self) -> &str {
        &self.prefix
    }

    /// Numbers that size the services.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Makes the instance's folder, for this user alone, and refuses one that
    /// belongs to somebody else: whoever owns it could feed us services.
    pub(crate) fn create_folder(&self) -> Result<(), BusError> {
        let fail = |reason: String| BusError::Domain {
            instance: self.instance.clone(),
            root: self.root.clone(),
            reason,
        };
        for folder in [self.root.clone(), self.folder()] {
            let created = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder);
            let meta = created
                .and_then(|()| std::fs::symlink_metadata(&folder))
                .map_err(|source| BusError::Folder { path: folder.clone(), source })?;
            let uid = rustix::process::getuid().as_raw();
            if !meta.is_dir() || meta.uid() != uid {
                return Err(fail(format!(
                    "{} is not a folder of user {uid} (owner {}); all processes of an instance run as one user",
                    folder.display(),
                    meta.uid()
                )));
            }
            // Where others may write, they could put a folder of theirs in place of
            // the instance's; in a sticky one they cannot.
            let mode = meta.permissions().mode();
            if mode & 0o022 != 0 && (folder != self.root || mode & 0o1000 == 0) {
                return Err(fail(format!(
                    "others may write in {0}: chmod go-w {0}",
                    folder.display()
                )));
            }
        }
        if let Some((file, owner)) = files::foreign(self) {
            return Err(fail(format!(
                "{} belongs to user {owner}; remove it, or choose another instance name",
                file.display()
            )));
        }
        Ok(())
    }

    /// Whether a process of the instance lives: one of its own, or a subscriber.
    #[must_use]
    pub fn in_use(&self) -> bool {
        let mut alive = false;
        // A folder that is not there has no nodes; one that cannot be read is
        // left alone.
        let listed = Node::<Ipc>::list(&self.config, |node| {
            alive = !matches!(node, NodeState::Dead(_));
            if alive { CallbackProgression::Stop } else { CallbackProgression::Continue }
        });
        alive || (listed.is_err() && self.folder().exists())
    }

    /// Numbers of the processes that have joined the instance and live.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        // A list that cannot be read to its end holds what was read.
        let _ = Node::<Ipc>::list(&self.config, |node| {
            if let NodeState::Alive(node) = node
                && let Ok(pid) = node.id().pid::<Ipc>()
                && let Ok(pid) = u32::try_from(pid.value())
            {
                found.push(pid);
            }
            CallbackProgression::Continue
        });
        found
    }

    /// Removes what is left of an instance that nobody uses any more: its folder
    /// and its files in /dev/shm. While a process of the instance lives, nothing
    /// is touched: a subscriber that outlives a restart keeps its services and
    /// goes on when the instance is back.
    ///
    /// Returns the names of the files that were in /dev/shm. One is always
    /// there: iceoryx2 keeps it per domain and never removes it.
    ///
    /// # Errors
    /// The first file that could not be removed.
    pub fn remove_leftovers(&self) -> std::io::Result<Vec<OsString>> {
        let mut removed = Vec::new();
        if self.in_use() {
            return Ok(removed);
        }
        for entry in std::fs::read_dir("/dev/shm")? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(self.prefix.as_bytes()) {
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => removed.push(entry.file_name()),
                    // Another process that ends cleans up as well.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match std::fs::remove_dir_all(self.folder()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.remove_empty_folders();
        Ok(removed)
    }

    /// They go only when they are empty, that is, when nobody uses them.
    pub(crate) fn remove_empty_folders(&self) {
        for folder in [&self.folder(), &self.root] {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders_are_checked() {
        let root = Path::new("/tmp/fb");
        assert!(Domain::new("cam-1", root, Limits::default()).is_ok());
        for (name, root) in [
            ("", root),
            ("A b", root),
            ("a", Path::new("rel")),
            ("a", Path::new("/0123456789/0123456789/0123456789/0123456789/0123")),
        ] {
            assert!(Domain::new(name, root, Limits::default()).is_err(), "{name} {root:?}");
        }
    }

    #[test]
    fn no_instance_owns_the_files_of_another() {
        let domain = |name| Domain::new(name, Path::new("/tmp/fb"), Limits::default());
        let (short, long) = (domain("a").expect("valid"), domain("a_b").expect("valid"));
        assert!(!long.shm_prefix().starts_with(short.shm_prefix()));
    }

    #[test]
    fn a_foreign_file_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir_in("/tmp").expect("temp dir");
        let domain = Domain::new("x", dir.path(), Limits::default()).expect("valid");
        std::fs::write(domain.folder(), b"").expect("write");
        assert!(domain.create_folder().is_err());
    }

    #[test]
    fn folders_that_others_may_change_are_refused() {
        let dir = tempfile::tempdir_in("/tmp").expect("temp dir");
        let root = dir.path().join("r");
        let domain = Domain::new("x", &root, Limits::default()).expect("valid");
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        };
        let refused = || domain.create_folder().expect_err("refused").to_string();
        domain.create_folder().expect("made");
        for path in [root.clone(), domain.folder()] {
            let made = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(made & 0o777, 0o700, "{}", path.display());
        }
        mode(&root, 0o1777);
        domain.create_folder().expect("sticky");
        mode(&root, 0o775);
        assert!(refused().contains("chmod go-w"), "{}", refused());
        mode(&root, 0o700);
        mode(&domain.folder(), 0o702);
        assert!(refused().contains("chmod go-w"), "{}", refused());
        // Somebody was there first, with a link to a folder that they can read.
        std::fs::remove_dir_all(&root).expect("removed");
        std::os::unix::fs::symlink(dir.path(), &root).expect("linked");
        assert!(refused().contains("is not a folder"), "{}", refused());
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !rustix::process::getuid().is_root() {
            // Only root can make a file that is somebody else's.
            return;
        }
        let dir = tempfile::tempdir_in("/tmp").expect("temp dir");
        let name = format!("foreign-{}", std::process::id());
        let domain = Domain::new(&name, &dir.path().join("r"), Limits::default()).expect("valid");
        let refused = || domain.create_folder().expect_err("refused").to_string();
        domain.create_folder().expect("made");
        let squatted = Path::new("/dev/shm").join(format!("{}x.dynamic", domain.shm_prefix()));
        std::fs::write(&squatted, b"").expect("written");
        std::os::unix::fs::chown(&squatted, Some(65534), None).expect("given away");
        let error = refused();
        std::fs::remove_file(&squatted).expect("removed");
        assert!(error.contains("belongs to user 65534"), "{error}");
        std::os::unix::fs::chown(domain.folder(), Some(65534), None).expect("given away");
        assert!(refused().contains("owner 65534"), "{}", refused());
    }
}
