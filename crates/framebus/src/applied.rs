//! The applied configuration: a validated copy from which processes restart while the
//! file itself is being edited.

use framebus_config::{Config, load_applied};
use framebus_service::{Failure, Kind, OrFail};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Validates the file at `file`, has `accept` agree, and only then puts its text at
/// `applied`, for this user alone and at once: a reader sees the old copy or the new one.
///
/// # Errors
/// What is wrong in the file (78), what `accept` says, or a copy that cannot be written;
/// the old copy stays.
pub(crate) fn apply(
    file: &Path,
    applied: &Path,
    accept: impl FnOnce(&Config) -> Result<(), Failure>,
) -> Result<Config, Failure> {
    let folder = applied.parent().unwrap_or(Path::new("/"));
    let unwritten = |error: std::io::Error| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error).context(format!("cannot write {}", applied.display())),
    };
    // What is validated is the copy, so that an edit in between changes nothing.
    let mut copy = tempfile::NamedTempFile::new_in(folder).map_err(unwritten)?;
    match File::open(file) {
        Ok(text) => std::io::copy(&mut text.take(BYTES_MAX), &mut copy).map_err(unwritten)?,
        // Says what is wrong with the path.
        Err(_) => return framebus_config::load(file).or_fail(Kind::Config),
    };
    let config = load_applied(file, copy.path()).or_fail(Kind::Config)?;
    accept(&config)?;
    copy.as_file().sync_all().map_err(unwritten)?;
    copy.persist(applied).map_err(|error| unwritten(error.error))?;
    Ok(config)
}

/// No configuration is larger; a mistaken path may be.
const BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: &str =
        "[model]\npath = \"a.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n";

    #[test]
    fn only_a_valid_file_that_is_accepted_replaces_the_copy() {
        let folder = tempfile::tempdir().expect("temp dir");
        let (file, applied) = (folder.path().join("a.toml"), folder.path().join("applied.toml"));
        let missing = apply(&file, &applied, |_| Ok(())).expect_err("no file");
        assert_eq!(missing.kind, Kind::Config);
        assert!(!applied.exists());

        std::fs::write(&file, GOOD).expect("written");
        let config = apply(&file, &applied, |_| Ok(())).expect("valid");
        assert_eq!(config.model.path, folder.path().join("a.onnx"), "from the file's folder");
        let mode = std::fs::metadata(&applied).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        std::fs::write(&file, format!("{GOOD}fps = \"many\"\n")).expect("written");
        let wrong = apply(&file, &applied, |_| Ok(())).expect_err("fps");
        assert!(wrong.to_string().contains("a.toml:6:7"), "{wrong}");
        std::fs::write(&file, format!("{GOOD}fps = 5\n")).expect("written");
        let refused = |_: &Config| Err(Failure::message(Kind::Config, "not now"));
        apply(&file, &applied, refused).expect_err("refused");
        assert_eq!(std::fs::read_to_string(&applied).expect("kept"), GOOD);
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 2, "no other files");
    }
}
