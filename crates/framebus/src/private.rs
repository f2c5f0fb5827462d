//! An instance of one command's own: a folder for this user alone and a bus domain that
//! nobody else meets, both gone afterwards.

use framebus_bus::{Domain, Limits};
use framebus_config::Config;
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Processes whose supervisor was killed end by themselves: so long they are waited
/// for before their instance is removed.
const LAST_USERS: Duration = Duration::from_secs(5);
/// Time between two looks at them.
const LOOK: Duration = Duration::from_millis(50);

/// A private instance. Dropping it removes folder and domain; whatever uses them must
/// have ended by then, so it is declared before its users.
#[derive(Debug)]
pub(crate) struct Private {
    folder: tempfile::TempDir,
    instance: String,
    domain: Option<Domain>,
}

impl Private {
    /// Makes the folder; `command` and this process's number name the instance.
    pub(crate) fn new(command: &str) -> Result<Self, Failure> {
        let instance = format!("{command}-{}", std::process::id());
        // Sockets lie below it, whose paths must be short.
        let base = std::env::temp_dir();
        let base = if base.as_os_str().len() <= 12 { base } else { PathBuf::from("/tmp") };
        let folder = tempfile::Builder::new().prefix("framebus-").tempdir_in(&base);
        let folder = folder.map_err(|error| Failure {
            kind: Kind::Unavailable,
            error: anyhow::Error::new(error)
                .context(format!("cannot make a temporary folder in {}", base.display())),
        })?;
        Ok(Self { folder, instance, domain: None })
    }

    /// The folder; also `bus.root`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The instance's name.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Writes a configuration with this instance and folder into the folder and loads
    /// it; `text` is what follows `instance` at the top. The domain is removed at the
    /// end.
    pub(crate) fn configure(&mut self, text: &str) -> Result<(PathBuf, Config, Domain), Failure> {
        let file = self.write(&format!("instance = {}\n{text}", quote(&self.instance)))?;
        let config = framebus_config::load(&file).map_err(|errors| {
            // The file is none of the user's business; the values are.
            let lines: Vec<String> = errors
                .iter()
                .map(|error| match &error.value {
                    Some(value) => format!("{value}: {}", error.message),
                    None => format!("{}: {}", error.key, error.message),
                })
                .collect();
            Failure::message(Kind::Usage, lines.join("\n"))
        })?;
        let domain = framebus_service::domain(&config)?;
        self.domain = Some(domain.clone());
        Ok((file, config, domain))
    }

    /// Writes a configuration into the folder, for this user alone.
    pub(crate) fn write(&self, text: &str) -> Result<PathBuf, Failure> {
        let file = self.folder().join("framebus.toml");
        write_private(&file, text)?;
        Ok(file)
    }

    /// The domain that a written configuration describes: removed at the end.
    pub(crate) fn adopt(&mut self, domain: Domain) {
        self.domain = Some(domain);
    }

    /// The domain without a configuration.
    pub(crate) fn domain(&mut self, limits: Limits) -> Result<Domain, Failure> {
        let domain = Domain::new(&self.instance, self.folder.path(), limits)?;
        self.domain = Some(domain.clone());
        Ok(domain)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let Some(domain) = &self.domain else { return };
        let looks = LAST_USERS.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if !domain.in_use() {
                break;
            }
            let _ = Shutdown::new().wait(LOOK);
        }
        if let Err(error) = domain.remove_leftovers() {
            tracing::warn!(%error, folder = %domain.folder().display(), "cannot be removed");
        }
    }
}

/// Sources may hold passwords.
fn write_private(file: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut output = std::fs::File::options().write(true).create_new(true).open(file)?;
        output.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        output.write_all(text.as_bytes())
    };
    write().or_fail(Kind::Unavailable)
}

/// A TOML basic string. JSON's escapes are TOML's, but for DEL.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007F")
}

/// A path as a TOML string.
pub(crate) fn quote_path(path: &Path) -> Result<String, Failure> {
    path.to_str().map(quote).ok_or_else(|| {
        let path = path.display();
        Failure::message(Kind::Usage, format_args!("{path}: the path is not UTF-8; rename it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_bus::Bus;

    #[test]
    fn nothing_is_left_of_a_private_instance() {
        let (folder, prefix);
        {
            let mut private = Private::new("private").expect("a folder");
            let domain = private.domain(Limits::default()).expect("a short path");
            let bus: Bus = Bus::open(&domain, "test").expect("a bus");
            let _results = bus.result_subscriber("test").expect("a service");
            folder = private.folder().to_owned();
            prefix = domain.shm_prefix().to_owned();
            assert!(folder.is_dir());
        }
        assert!(!folder.exists());
        let left = std::fs::read_dir("/dev/shm").expect("readable").flatten();
        assert_eq!(
            left.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).count(),
            0
        );
    }
}
