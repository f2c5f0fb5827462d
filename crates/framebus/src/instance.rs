//! Which instance a command speaks of, and being its only supervisor.

use crate::{cmd, out};
use framebus_bus::{Bus, Domain, Limits};
use framebus_config::Config;
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where `framebus up` finds its configuration when nothing is said.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/framebus/framebus.toml";
/// Somebody who only looks holds the lock for less than this.
const PROBE: Duration = Duration::from_millis(20);

/// The running instance that is meant.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Where {
    /// Configuration file of the running instance [default:
    /// /etc/framebus/framebus.toml where it exists].
    #[arg(long, short, env = "FRAMEBUS_CONFIG", conflicts_with_all = ["instance", "root"])]
    config: Option<PathBuf>,
    /// Name of the instance, without a configuration file [default: default].
    #[arg(long)]
    instance: Option<String>,
    /// Folder of the bus files (`bus.root`) [default: /tmp/framebus-UID].
    #[arg(long)]
    root: Option<PathBuf>,
}

impl Where {
    /// The instance's domain.
    pub(crate) fn domain(&self) -> Result<Domain, Failure> {
        self.find().map(|(domain, _)| domain)
    }

    /// The instance's domain and, where a file was named, its configuration.
    pub(crate) fn find(&self) -> Result<(Domain, Option<Config>), Failure> {
        let named = self.instance.is_some() || self.root.is_some();
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| !named && file.exists());
        if let Some(file) = self.config.clone().or_else(default) {
            return match framebus_config::load(&file) {
                Ok(config) => Ok((framebus_service::domain(&config)?, Some(config))),
                Err(errors) => running(&file).ok_or(errors).or_fail(Kind::Config),
            };
        }
        let root = self.root.clone().unwrap_or_else(Domain::default_root);
        let instance = self.instance.as_deref().unwrap_or("default");
        Ok((Domain::new(instance, &root, Limits::default())?, None))
    }
}

/// The instance that runs although `file` has errors, or names a variable that only its
/// processes have; with the configuration that it runs from, where that can be read here.
fn running(file: &Path) -> Option<(Domain, Option<Config>)> {
    let (instance, root) = framebus_config::whereabouts(file)?;
    let root = root.unwrap_or_else(Domain::default_root);
    let domain = Domain::new(instance.as_str(), &root, Limits::default()).ok()?;
    if !domain.folder().is_dir() {
        return None;
    }
    let config = framebus_config::load_applied(file, &applied_copy(file, &domain)).ok();
    out::note(format_args!(
        "{} cannot be used as it is (`framebus check` says why); this is what runs",
        file.display()
    ));
    let exact = config.as_ref().and_then(|config| framebus_service::domain(config).ok());
    Some((exact.unwrap_or(domain), config))
}

/// A view of a running instance from outside.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) bus: Bus,
    id: Option<(u64, u64)>,
    /// Behind the bus: dropped after it.
    _sweep: Sweep,
}

impl Attached {
    /// Joins the bus of a running instance; `None` when there is none. Looking
    /// at an instance that does not run leaves no folder behind.
    pub(crate) fn new(domain: &Domain, process: &str) -> Result<Option<Self>, Failure> {
        let id = folder_id(domain);
        let mut sweep = Sweep { domain: domain.clone(), made: false };
        if id.is_none() || is_stopped(domain) {
            return Ok(None);
        }
        let bus = Bus::open(domain, process)?;
        if folder_id(domain) != id {
            // It stopped in between, and opening has made the folder anew.
            drop(bus);
            sweep.made = true;
            return Ok(None);
        }
        Ok(Some(Self { bus, id, _sweep: sweep }))
    }

    /// Whether the instance has been stopped since: what is joined here then
    /// reaches nobody.
    pub(crate) fn is_gone(&self) -> bool {
        folder_id(self.bus.domain()) != self.id || is_stopped(self.bus.domain())
    }
}

/// Clears up after an instance that has stopped: its supervisor leaves everything
/// alone while somebody else still reads.
#[derive(Debug)]
struct Sweep {
    domain: Domain,
    /// The folder is this process's own work.
    made: bool,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        // Held meanwhile, so that no supervisor starts in what is being removed.
        let lock = probe(&self.domain);
        if !matches!(lock, Probe::Free(_)) && !self.made {
            return;
        }
        if let Err(error) = self.domain.remove_leftovers() {
            tracing::warn!(%error, folder = %self.domain.folder().display(), "cannot be removed");
        }
    }
}

/// What the supervisor's lock says.
enum Probe {
    /// No supervisor has been here: systemd may run the processes itself.
    Absent,
    Held,
    /// The lock, until this is dropped.
    Free(#[allow(dead_code, reason = "held, not read")] File),
}

fn probe(domain: &Domain) -> Probe {
    let Ok(file) = File::open(lock_file(domain)) else { return Probe::Absent };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Probe::Free(file),
        Err(_) => Probe::Held,
    }
}

/// Whether there was a supervisor and is none any more. Without a lock file this
/// cannot be known, and is not concluded.
fn is_stopped(domain: &Domain) -> bool {
    matches!(probe(domain), Probe::Free(_))
}

/// Whether `framebus up` runs the instance.
pub(crate) fn is_supervised(domain: &Domain) -> bool {
    matches!(probe(domain), Probe::Held)
}

fn lock_file(domain: &Domain) -> PathBuf {
    domain.folder().join("up.lock")
}

/// The copy of `file` that the instance runs from: that of `framebus up` in its folder,
/// otherwise, for the packaged file, that of the services. It need not be there.
pub(crate) fn applied_copy(file: &Path, domain: &Domain) -> PathBuf {
    let own = domain.folder().join(cmd::up::APPLIED);
    let packaged = file == Path::new(DEFAULT_CONFIG) && !own.is_file();
    if packaged { cmd::systemd::APPLIED.into() } else { own }
}

fn folder_id(domain: &Domain) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(domain.folder()).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// `instance "front" (in /tmp/framebus-0/front)`.
pub(crate) fn describe(domain: &Domain) -> String {
    format!("instance {:?} (in {})", domain.instance(), domain.folder().display())
}

/// Being the one supervisor of an instance; ends with this value or the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in the domain's folder, which is made where it is not there; to be
    /// called before the bus is opened. Whoever clears up after the instance before
    /// holds the lock, and takes the folder away.
    pub(crate) fn take(domain: &Domain) -> Result<Self, Failure> {
        let path = lock_file(domain);
        let failed = |error: std::io::Error| Failure {
            kind: Kind::Unavailable,
            error: anyhow::Error::new(error).context(format!("cannot lock {}", path.display())),
        };
        const TRIES: u32 = 10;
        for left in (0..TRIES).rev() {
            let file = match open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && left > 0 => {
                    DirBuilder::new()
                        .mode(0o700)
                        .recursive(true)
                        .create(domain.folder())
                        .map_err(failed)?;
                    continue;
                }
                file => file.map_err(failed)?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // It may be somebody who only looks whether one runs.
                Err(rustix::io::Errno::WOULDBLOCK) if left > 0 => {
                    let _ = Shutdown::new().wait(PROBE);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Failure::message(
                        Kind::Unavailable,
                        format_args!(
                            "another `framebus up` runs {}; stop it, or give this one another `instance`",
                            describe(domain)
                        ),
                    ));
                }
                Err(error) => return Err(failed(error.into())),
            }
            // The one before may have removed the file between our two steps.
            let here = std::fs::metadata(&path).ok().map(|meta| (meta.dev(), meta.ino()));
            let meta = file.metadata().map_err(failed)?;
            if here == Some((meta.dev(), meta.ino())) {
                return Ok(Self { _file: file });
            }
        }
        Err(Failure::message(
            Kind::Unavailable,
            format_args!("{} keeps changing; try again", path.display()),
        ))
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_an_instance_that_does_not_run_makes_no_folder() {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let domain = Domain::new("a", root.path(), Limits::default()).expect("valid");
        assert!(Attached::new(&domain, "test").expect("no error").is_none());
        assert!(!domain.folder().exists());
    }

    #[test]
    fn the_end_of_the_supervisor_is_seen_and_the_last_reader_clears_up() {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let instance = format!("gone-{}", std::process::id());
        let domain = Domain::new(&instance, root.path(), Limits::default()).expect("valid");
        let bus: Bus = Bus::open(&domain, "up").expect("a bus");
        let unsupervised = Attached::new(&domain, "test").expect("no error").expect("runs");
        assert!(!unsupervised.is_gone(), "without a lock file nothing is known");
        let lock = Lock::take(&domain).expect("free");
        let attached = Attached::new(&domain, "test").expect("no error").expect("runs");
        assert!(!attached.is_gone());
        drop(unsupervised);
        assert!(domain.folder().exists(), "it runs");
        drop(bus);
        assert!(domain.remove_leftovers().is_ok_and(|names| names.is_empty()), "still read");
        drop(lock);
        assert!(attached.is_gone() && domain.folder().exists());
        assert!(Attached::new(&domain, "test").expect("no error").is_none());
        drop(attached);
        assert!(!domain.folder().exists());
        let prefix = domain.shm_prefix().to_owned();
        let left = std::fs::read_dir("/dev/shm").expect("readable").flatten();
        assert_eq!(
            left.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).count(),
            0
        );
    }

    #[test]
    fn the_second_supervisor_is_refused_until_the_first_has_gone() {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let domain = Domain::new("a", root.path(), Limits::default()).expect("valid");
        let first = Lock::take(&domain).expect("free");
        let refused = Lock::take(&domain).expect_err("taken");
        assert_eq!(refused.kind, Kind::Unavailable);
        assert!(refused.to_string().contains("another `framebus up` runs"), "{refused}");
        drop(first);
        Lock::take(&domain).expect("free again");
    }
}
