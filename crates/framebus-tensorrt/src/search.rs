//! Where TensorRT's library is looked for.

use std::path::{Path, PathBuf};

/// Library files by preference: the newest interface first. TensorRT-RTX is last, as
/// it serves fewer GPUs.
pub(crate) const NAMES: [&str; 3] =
    ["libnvinfer.so.11", "libnvinfer.so.10", "libtensorrt_rtx.so.1"];

/// Names that only a folder given by the user is searched for as well: what they stand
/// for is known after opening.
const UNVERSIONED: [&str; 2] = ["libnvinfer.so", "libtensorrt_rtx.so"];

/// One place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A name for the loader, which knows `LD_LIBRARY_PATH` and the system's cache.
    Name(&'static str),
    /// A file that is there.
    File(PathBuf),
}

/// What to try in order, and what was looked at without a find.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) empty: Vec<String>,
}

/// For a file or folder given by the user: nothing but that.
pub(crate) fn given(path: &Path) -> Found {
    let mut found = Found::default();
    if path.is_dir() {
        let names = NAMES.iter().chain(&UNVERSIONED);
        let files = names.map(|name| path.join(name)).filter(|file| file.is_file());
        found.candidates.extend(files.map(Candidate::File));
        if found.candidates.is_empty() {
            found.empty.push(format!("{} in {}", NAMES.join(", "), path.display()));
        }
    } else if path.exists() {
        found.candidates.push(Candidate::File(path.to_owned()));
    } else {
        found.empty.push(format!("{}, which does not exist", path.display()));
    }
    found
}

/// The loader's places, then the usual folders below `root` (`/`).
pub(crate) fn usual(root: &Path) -> Found {
    let mut found = Found::default();
    found.candidates.extend(NAMES.map(Candidate::Name));
    let mut empty = Vec::new();
    for folder in folders(root) {
        let files: Vec<PathBuf> =
            NAMES.iter().map(|name| folder.join(name)).filter(|file| file.is_file()).collect();
        if files.is_empty() {
            empty.push(folder.display().to_string());
        }
        found.candidates.extend(files.into_iter().map(Candidate::File));
    }
    found.empty = empty;
    found
}

/// Folders where packages and archives of TensorRT put libraries.
fn folders(root: &Path) -> Vec<PathBuf> {
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut folders: Vec<PathBuf> =
        [triplet.as_str(), "usr/lib64", "usr/local/lib", "usr/local/cuda/lib64"]
            .map(|folder| root.join(folder))
            .to_vec();
    for parent in ["usr/local", "opt"] {
        let Ok(entries) = std::fs::read_dir(root.join(parent)) else { continue };
        let mut unpacked: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|entry| {
                entry.file_name().to_string_lossy().to_lowercase().starts_with("tensorrt")
            })
            .map(|entry| entry.path().join("lib"))
            .collect();
        // `TensorRT-10.13` before `TensorRT-10.3` is no promise: the order is only
        // the same every time.
        unpacked.sort_unstable_by(|a, b| b.cmp(a));
        folders.extend(unpacked);
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn a_given_path_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.so");
        let found = given(&missing);
        assert!(found.candidates.is_empty());
        assert_eq!(found.empty, [format!("{}, which does not exist", missing.display())]);

        let found = given(folder.path());
        assert!(found.candidates.is_empty());
        assert!(found.empty[0].contains("libnvinfer.so.11, "), "{found:?}");

        for name in ["libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so", "libother.so"] {
            touch(&folder.path().join(name));
        }
        let file = |name: &str| Candidate::File(folder.path().join(name));
        let expected = ["libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so"].map(file);
        assert_eq!(given(folder.path()).candidates, expected);
        assert_eq!(given(&folder.path().join("libother.so")).candidates, [file("libother.so")]);
    }

    #[test]
    fn the_loader_comes_first_then_the_usual_folders() {
        let root = tempfile::tempdir().unwrap();
        let unpacked = root.path().join("usr/local/TensorRT-10.13.2/lib/libnvinfer.so.10");
        let opt = root.path().join("opt/tensorrt/lib/libtensorrt_rtx.so.1");
        touch(&unpacked);
        touch(&opt);
        let found = usual(root.path());
        let mut expected = NAMES.map(Candidate::Name).to_vec();
        expected.extend([Candidate::File(unpacked), Candidate::File(opt)]);
        assert_eq!(found.candidates, expected);
        assert!(found.empty.iter().any(|folder| folder.ends_with("-linux-gnu")), "{found:?}");
    }
}
