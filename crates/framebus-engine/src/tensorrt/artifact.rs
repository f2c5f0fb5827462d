//! Engines that are kept between runs.
//!
//! An engine belongs to one version of the library, one kind of GPU, one driver, one
//! model and one input. All of that is its *key*, which stands in front of it in the file
//! and, as a digest, in the file's name. A SHA-256 of the whole ends it: TensorRT does not
//! promise to survive a damaged engine. What is not exactly what this program would have
//! written is built anew.
//!
//! ```text
//! framebus-engine 1
//! <the key, a line each>
//! reference <boxes>
//! <class score left top right bottom, a line each>
//! engine <bytes>
//! <the engine><SHA-256 of all before it>
//! ```

use super::reference::Reference;
use crate::api::{Precision, Shape};
use framebus_model::{digest, private_folder, write_private};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const FIRST_LINE: &str = "framebus-engine 1\n";
/// Bytes of a SHA-256 in hexadecimal digits.
const SUM: usize = 64;
/// Engines of one model, input and batch that are kept: of other GPUs, drivers and
/// versions, to which this machine may come back.
const KEPT: usize = 8;

/// What an engine belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Begins the file's name.
    stem: String,
    text: String,
}

impl Key {
    /// The key of the engine for `shape` and batches of 1 to `max_batch` on `machine`
    /// (lines of text); `model` is the digest of what the library is given.
    pub(super) fn new(
        (name, model): (&str, &str),
        machine: &str,
        settings: &framebus_config::TensorRt,
        precision: Precision,
        (shape, max_batch): (Shape, usize),
    ) -> Self {
        let workspace =
            settings.workspace_mib.map_or_else(|| "all".to_owned(), |mib| format!("{mib} MiB"));
        let text = format!(
            "{machine}model {model}\nprecision {precision:?}\ninput {shape}\nbatch \
             {max_batch}\nworkspace {workspace}\nlevel {}\n",
            settings.optimization_level,
        );
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = name.chars().take(64).map(plain).collect();
        Self { stem: format!("{name}-{shape}-b{max_batch}-"), text }
    }

    fn file(&self, folder: &Path) -> PathBuf {
        let digest = digest(self.text.as_bytes());
        folder.join(format!("{}{}.engine", self.stem, &digest[..16]))
    }
}

/// The folder of kept engines.
#[derive(Debug, Clone)]
pub(super) struct Store(Result<PathBuf, String>);

/// What a file held.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) engine: Vec<u8>,
    /// What another engine answered to the check picture; `None` where none was here.
    pub(super) reference: Option<Reference>,
    pub(super) file: PathBuf,
    /// It comes out of the store.
    pub(super) was_kept: bool,
}

/// Why there is no engine in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// Never built, or for another GPU, driver, library or model.
    Absent(String),
    /// There is a file, and it is not what was written.
    Damaged(String),
}

impl Missing {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Damaged(reason) => reason,
        }
    }
}

impl Store {
    /// The store in `cache`, which is created for this user only.
    pub(super) fn open(cache: Option<&Path>) -> Self {
        let folder = cache.map(|cache| cache.join("tensorrt")).ok_or_else(|| {
            "none of CACHE_DIRECTORY, XDG_CACHE_HOME and HOME names a folder".to_owned()
        });
        Self(folder.and_then(|folder| {
            private_folder(&folder).map_err(|reason| format!("{}: {reason}", folder.display()))?;
            Ok(folder)
        }))
    }

    /// The engine of `key`.
    pub(super) fn read(&self, key: &Key) -> Result<Kept, Missing> {
        let folder = self.0.as_ref().map_err(|reason| Missing::Absent(reason.clone()))?;
        let file = key.file(folder);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Missing::Absent(format!("there is no {}", file.display())));
            }
            Err(error) => return Err(Missing::Damaged(format!("{}: {error}", file.display()))),
        };
        let (engine, reference) = parse(key, &bytes)
            .map_err(|reason| Missing::Damaged(format!("{}: {reason}", file.display())))?;
        Ok(Kept { engine, reference, file, was_kept: true })
    }

    /// Keeps an engine; answers the file, or why there is none.
    pub(super) fn write(
        &self,
        key: &Key,
        engine: &[u8],
        reference: Option<&Reference>,
    ) -> Result<PathBuf, String> {
        let folder = self.0.as_ref().map_err(Clone::clone)?;
        let file = key.file(folder);
        let mut head = format!("{FIRST_LINE}{}", key.text);
        if let Some(reference) = reference {
            reference.write(&mut head);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(head, "engine {}", engine.len());
        let mut content = Vec::with_capacity(head.len() + engine.len());
        content.extend_from_slice(head.as_bytes());
        content.extend_from_slice(engine);
        let sum = digest(&content);
        write_private(&file, &[&content, sum.as_bytes()])
            .map_err(|error| format!("{}: {error}", file.display()))?;
        prune(folder, &key.stem, &file);
        Ok(file)
    }

    /// What building remembers of how long layers took on `machine`; behind its digest, as
    /// the library reads what it is given without asking.
    pub(super) fn timings(&self, machine: &str) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.timings_file(machine)?).ok()?;
        let (sum, timings) = bytes.split_at_checked(SUM)?;
        (digest(timings).as_bytes() == sum).then(|| timings.to_vec())
    }

    /// Takes an engine out that the library refused or that answers wrongly, so that
    /// another one is built.
    pub(super) fn discard(&self, kept: &Kept) {
        if let Err(error) = std::fs::remove_file(&kept.file) {
            tracing::debug!(file = %kept.file.display(), %error, "a bad engine stays");
        }
    }

    /// Keeps that; without it the next build only takes longer.
    pub(super) fn keep_timings(&self, machine: &str, timings: &[u8]) {
        let Some(file) = self.timings_file(machine) else { return };
        if let Err(error) = write_private(&file, &[digest(timings).as_bytes(), timings]) {
            tracing::debug!(file = %file.display(), %error, "the timing cache is not kept");
        }
    }

    fn timings_file(&self, machine: &str) -> Option<PathBuf> {
        let key = digest(machine.as_bytes());
        Some(self.0.as_ref().ok()?.join(format!("timing-{}.cache", &key[..16])))
    }
}

fn parse(key: &Key, bytes: &[u8]) -> Result<(Vec<u8>, Option<Reference>), String> {
    let short = || "it was cut short".to_owned();
    let content = bytes.len().checked_sub(SUM).ok_or_else(short)?;
    let (content, sum) = bytes.split_at(content);
    if digest(content).as_bytes() != sum {
        return Err("it is damaged or was cut short: its checksum is wrong".to_owned());
    }
    let rest = content.strip_prefix(FIRST_LINE.as_bytes()).ok_or("it is no engine of ours")?;
    let rest = rest
        .strip_prefix(key.text.as_bytes())
        .ok_or("it was built for another GPU, driver, library or model")?;
    let (reference, rest) = Reference::read(rest)?;
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(short)?;
    let (line, engine) = rest.split_at(end);
    let engine = &engine[1..];
    let length = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("engine ")?.parse::<usize>().ok());
    if length != Some(engine.len()) || engine.is_empty() {
        return Err("it is damaged: the engine has another length".to_owned());
    }
    Ok((engine.to_vec(), reference))
}

/// Removes the oldest engines of the same model, input and batch; `new` stays.
fn prune(folder: &Path, stem: &str, new: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut old: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let same = name.starts_with(stem) && name.ends_with(".engine") && path != new;
            let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
            same.then_some((written, path))
        })
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(KEPT - 1);
    for (_, path) in old.drain(..surplus) {
        // Somebody else may have done so.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::TensorRt as Settings;

    const MACHINE: &str = "library TensorRT 10.3.0\ngpu L4\ncapability 8.9\ndriver 12.6\n";

    fn key(machine: &str, model: &str) -> Key {
        let shape = Shape { height: 384, width: 640 };
        Key::new(("yolo v8/n", model), machine, &Settings::default(), Precision::F16, (shape, 8))
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(Some(folder.path()));
        (folder, store)
    }

    #[test]
    fn an_engine_comes_back_as_it_was_kept() {
        let (_folder, store) = store();
        let key = key(MACHINE, "abc");
        assert!(matches!(store.read(&key), Err(Missing::Absent(_))));
        let file = store.write(&key, b"an engine\n\0", None).expect("kept");
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(name.starts_with("yolo_v8_n-384x640-b8-") && name.ends_with(".engine"), "{name}");
        let engine = b"an engine\n\0".to_vec();
        let kept = Kept { engine, reference: None, file, was_kept: true };
        assert_eq!(store.read(&key), Ok(kept));
    }

    #[test]
    fn other_machines_and_models_have_other_engines() {
        let (_folder, store) = store();
        store.write(&key(MACHINE, "abc"), b"x", None).expect("kept");
        let machines = ["10.3.0", "L4", "8.9", "12.6"].map(|word| MACHINE.replace(word, "11"));
        for machine in &machines {
            assert!(matches!(store.read(&key(machine, "abc")), Err(Missing::Absent(_))));
        }
        assert!(matches!(store.read(&key(MACHINE, "abd")), Err(Missing::Absent(_))));
    }

    #[test]
    fn what_was_not_written_so_is_refused() {
        let (_folder, store) = store();
        let key = key(MACHINE, "abc");
        let file = store.write(&key, &[7; 5000], None).expect("kept");
        let whole = std::fs::read(&file).expect("readable");
        let refused = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("writable");
            match store.read(&key) {
                Err(Missing::Damaged(reason)) => reason,
                other => panic!("{} bytes: {other:?}", bytes.len()),
            }
        };
        for length in [0, 1, SUM, 500, whole.len() - 1] {
            refused(&whole[..length]);
        }
        for at in [0, 20, 200, 3000, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(refused(&damaged).contains("damaged"), "byte {at}");
        }
        // Another machine's, under this name.
        let other = self::key(&MACHINE.replace("L4", "T4"), "abc");
        let foreign = store.write(&other, b"y", None).expect("kept");
        let foreign = std::fs::read(foreign).expect("readable");
        assert!(refused(&foreign).contains("another GPU"));
        refused(b"garbage");
    }

    #[test]
    fn old_engines_go_and_others_stay() {
        let (folder, store) = store();
        for i in 0..KEPT + 4 {
            store.write(&key(MACHINE, &i.to_string()), b"x", None).expect("kept");
        }
        let count = || std::fs::read_dir(folder.path().join("tensorrt")).expect("there").count();
        assert_eq!(count(), KEPT);
        store.keep_timings(MACHINE, b"t");
        assert_eq!(store.timings(MACHINE), Some(b"t".to_vec()));
        assert_eq!(store.timings("another"), None);
        let file = store.timings_file(MACHINE).expect("a folder");
        std::fs::write(&file, [b'0'; 2 * SUM]).expect("writable");
        assert_eq!(store.timings(MACHINE), None, "damaged");
        assert_eq!(count(), KEPT + 1);
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_the_reason_is_told() {
        let store = Store::open(None);
        let reason = store.write(&key(MACHINE, "abc"), b"x", None).expect_err("no folder");
        assert!(reason.contains("XDG_CACHE_HOME"), "{reason}");
        assert!(matches!(store.read(&key(MACHINE, "abc")), Err(Missing::Absent(_))));
    }
}
