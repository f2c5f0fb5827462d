//! Cut models that are kept between runs.
//!
//! A cached file is named by what it was made of and begins with the cut model; it ends
//! with a metadata entry that holds the SHA-256 of all before it. So it is an ONNX
//! file for every tool, and one that was cut short, damaged or put there by somebody
//! else's program is noticed and made anew.

use crate::layout::OutputLayout;
use crate::onnx::StringStringEntryProto;
use crate::{Model, cut, inspect};
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Goes into the name: a cutter that writes other files looks for other files.
const CUTTER_VERSION: &str = "1";
/// Metadata key of the last entry.
const CHECKSUM: &str = "framebus.sha256";
/// `ModelProto.metadata_props` as a length-delimited field: the key byte.
const METADATA_PROPS: u8 = 14 << 3 | 2;

/// A model made ready to run.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one is made per start")]
pub enum Prepared {
    /// The head is cut off.
    Cut {
        /// What to run: [`OutputLayout::Heads`], with the original's name and labels. Its
        /// path is the cached file; where there is none, the original's, and
        /// [`Model::bytes`] holds the content.
        model: Model,
        /// The cached file, or why there is none.
        cached: Result<PathBuf, String>,
    },
    /// The model is run as it is.
    AsIs {
        /// Why it could not be cut: one sentence.
        reason: String,
    },
}

/// Takes the cut form of `model` out of the folder `cache`, or cuts it and keeps it there
/// for the next time. Without a folder, or where it cannot be used, the cut form stays
/// in memory.
///
/// The folder is created for this user only (mode 0700) and not used when somebody
/// else may write to it.
#[must_use]
pub fn prepare(model: &Model, cache: Option<&Path>) -> Prepared {
    if model.layout() == OutputLayout::Heads {
        let cached = match model.bytes() {
            None => Ok(model.path().to_owned()),
            Some(_) => Err("it was cut in memory".to_owned()),
        };
        return Prepared::Cut { model: model.clone(), cached };
    }
    let source = match model.bytes() {
        Some(bytes) => bytes.clone(),
        None => match inspect::read(model.path()) {
            Ok(bytes) => bytes.into(),
            Err(error) => return Prepared::AsIs { reason: error.to_string() },
        },
    };
    let path = cache
        .ok_or_else(|| "none of CACHE_DIRECTORY, XDG_CACHE_HOME and HOME names a folder".to_owned())
        .and_then(|folder| {
            private_folder(folder).map_err(|reason| format!("{}: {reason}", folder.display()))?;
            Ok(folder.join(format!("{}.onnx", key(&source))))
        });
    if let Ok(path) = &path
        && let Some(kept) = read(path)
    {
        let model = Model { name: model.name.clone(), labels: model.labels.clone(), ..kept };
        return Prepared::Cut { model, cached: Ok(path.clone()) };
    }
    let cut = match cut::cut_bytes(model, &source) {
        Ok(cut) => cut,
        Err(error) => return Prepared::AsIs { reason: error.to_string() },
    };
    let written = path.and_then(|path| {
        let bytes = cut.bytes().map_or(&[][..], |bytes| bytes);
        write_private(&path, &[bytes, &seal(bytes)])
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    });
    match written {
        Ok(path) => Prepared::Cut {
            model: Model { path: path.clone(), bytes: None, ..cut },
            cached: Ok(path),
        },
        Err(reason) => Prepared::Cut { model: cut, cached: Err(reason) },
    }
}

/// Writes the cut form of `model` to `path`, through a temporary file beside it, for
/// whoever the process's umask lets read it.
///
/// # Errors
/// What the system said.
pub fn save(model: &Model, path: &Path) -> std::io::Result<()> {
    match model.bytes() {
        Some(bytes) => write(path, 0o666, &[bytes]),
        None => write(path, 0o666, &[&std::fs::read(model.path())?]),
    }
}

/// The folder for cut models, where the environment names one: `$CACHE_DIRECTORY` (set
/// by systemd), `$XDG_CACHE_HOME/framebus` or `~/.cache/framebus`. It need not exist.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        // systemd separates several folders by colons; the first is the service's own.
        let value = std::env::var_os(name)?;
        std::env::split_paths(&value).next().filter(|folder| folder.is_absolute())
    };
    absolute("CACHE_DIRECTORY")
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("framebus")))
        .or_else(|| Some(absolute("HOME")?.join(".cache/framebus")))
}

/// Creates the folder for this user only (mode 0700), parents included, or checks that
/// nobody else can put a file there: what a cache of compiled networks needs, since
/// whoever can write one can make the inference library do what they like.
///
/// # Errors
/// One sentence, without the folder's name: it cannot be created or read, belongs to
/// another user, or others may write to it.
pub fn private_folder(folder: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(text)?;
    let metadata = std::fs::metadata(folder).map_err(text)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(format!("the folder belongs to user {}, not to {user}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err("others may write to the folder; take that right away with chmod go-w".into());
    }
    Ok(())
}

/// SHA-256 of `bytes` in lower-case hexadecimal digits, 64 of them: names content for
/// as long as files are kept, whatever machine or version writes them.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn key(source: &[u8]) -> String {
    let mut hasher = Sha256::new_with_prefix(CUTTER_VERSION);
    hasher.update(source);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The last field of a cached file.
fn seal(content: &[u8]) -> Vec<u8> {
    let entry = StringStringEntryProto { key: CHECKSUM.to_owned(), value: digest(content) };
    let mut field = vec![METADATA_PROPS];
    field.extend(entry.encode_length_delimited_to_vec());
    field
}

/// The cached model; `None` where there is none or it is not what was written.
fn read(path: &Path) -> Option<Model> {
    let bytes = Bytes::from(inspect::read(path).ok()?);
    let content = bytes.len().checked_sub(seal(&[]).len())?;
    let (content, end) = bytes.split_at(content);
    (end == seal(content)).then_some(())?;
    let model = inspect::model(path, bytes).ok()?;
    (model.layout() == OutputLayout::Heads).then_some(model)
}

/// Writes a file that only this user may read (mode 0600), through a temporary file
/// beside it that is brought to the disk first: readers see the old file or the whole
/// new one, never a part. `content` is written piece after piece.
///
/// # Errors
/// What the system said; the old file, where there was one, is still there.
pub fn write_private(path: &Path, content: &[&[u8]]) -> std::io::Result<()> {
    write(path, 0o600, content)
}

/// All or nothing: readers see the old file or the whole new one.
fn write(path: &Path, mode: u32, content: &[&[u8]]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".framebus-")
        .permissions(PermissionsExt::from_mode(mode))
        .tempfile_in(folder)?;
    for part in content {
        file.write_all(part)?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
