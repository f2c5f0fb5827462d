//! Finding the OpenVINO C library.
//!
//! OpenVINO comes as a Python wheel (`openvino/libs/libopenvino_c.so.2641`, no
//! unversioned name), as Debian and RPM packages and as an archive under
//! `/opt/intel`. This module only looks at folders; opening what it found is
//! [`super::probe`]'s part.
//!
//! Opening a library runs its code. What lies beside the program is as good as
//! the program; what lies above the current directory may be anybody's, so there
//! only files are taken that nobody but root and the current user can change.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// File or folder that replaces the search.
pub(crate) const OVERRIDE: &str = "FRAMEBUS_OPENVINO_LIB";

const FILE: &str = "libopenvino_c.so";

/// Where `make setup` puts the library, from the project's folder.
const BELOW: &str = ".framebus/openvino";

/// Folders below a root that are looked into: the deepest known one is
/// `lib/python3.11/site-packages/openvino/libs` of a virtual environment.
const MAX_DEPTH: usize = 6;

/// Entries looked at below one root; the wheel has about 2,000.
const MAX_ENTRIES: usize = 50_000;

/// Where packages put libraries.
const SYSTEM: [&str; 6] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib",
];

/// What the search depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Value of [`OVERRIDE`].
    pub(crate) explicit: Option<OsString>,
    /// The running program.
    pub(crate) executable: Option<PathBuf>,
    /// The current directory.
    pub(crate) current_dir: Option<PathBuf>,
    /// The user's home.
    pub(crate) home: Option<PathBuf>,
    /// `INTEL_OPENVINO_DIR`, set by the archive's `setupvars.sh`.
    pub(crate) intel_dir: Option<PathBuf>,
    /// Folders of `LD_LIBRARY_PATH`.
    pub(crate) loader_path: Vec<PathBuf>,
}

impl Surroundings {
    pub(crate) fn of_this_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        Self {
            explicit: path(OVERRIDE),
            executable: std::env::current_exe().ok(),
            current_dir: std::env::current_dir().ok(),
            home: path("HOME").map(PathBuf::from),
            intel_dir: path("INTEL_OPENVINO_DIR").map(PathBuf::from),
            loader_path: path("LD_LIBRARY_PATH")
                .map(|v| std::env::split_paths(&v).filter(|p| p.is_absolute()).collect())
                .unwrap_or_default(),
        }
    }
}

/// Files to try, best first, and the places that were looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) searched: Vec<PathBuf>,
    /// Files that are not opened, each a sentence with the reason.
    pub(crate) refused: Vec<String>,
}

pub(crate) fn search(surroundings: &Surroundings) -> Found {
    let mut found = Found::default();
    if let Some(explicit) = &surroundings.explicit {
        let path = PathBuf::from(explicit);
        if path.is_dir() {
            found.below(&path, MAX_DEPTH);
        } else {
            // Even when it is missing: opening it gives the system's reason.
            found.searched.push(path.clone());
            found.files.push(path);
        }
        return found;
    }
    let beside = surroundings.executable.as_deref().and_then(Path::parent);
    for folder in beside.into_iter().flat_map(Path::ancestors) {
        found.below(&folder.join(BELOW), MAX_DEPTH);
    }
    for folder in surroundings.current_dir.iter().flat_map(|start| start.ancestors()) {
        if !found.searched.contains(&folder.join(BELOW)) {
            found.trusted_below(folder);
        }
    }
    found.below(Path::new("/opt/framebus/openvino"), MAX_DEPTH);
    if let Some(home) = &surroundings.home {
        found.below(&home.join(".local/share/framebus/openvino"), MAX_DEPTH);
    }
    if let Some(folder) = &surroundings.intel_dir {
        found.below(folder, MAX_DEPTH);
    }
    for folder in intel_folders(Path::new("/opt/intel")) {
        found.below(&folder, MAX_DEPTH);
    }
    for folder in &surroundings.loader_path {
        found.below(folder, 0);
    }
    for folder in SYSTEM {
        found.below(Path::new(folder), 0);
    }
    let mut seen = HashSet::new();
    found.files.retain(|file| seen.insert(file.clone()));
    let mut seen = HashSet::new();
    found.searched.retain(|folder| seen.insert(folder.clone()));
    found
}

impl Found {
    fn below(&mut self, root: &Path, depth: usize) {
        self.searched.push(root.to_owned());
        let mut files = Vec::new();
        let mut budget = MAX_ENTRIES;
        collect(root, depth, &mut budget, &mut files);
        // Highest version first; the unversioned name is the packager's choice.
        files.sort_by(|a, b| version(b).cmp(&version(a)).then_with(|| a.cmp(b)));
        self.files.append(&mut files);
    }

    /// Looks below a folder that anybody may have made.
    fn trusted_below(&mut self, folder: &Path) {
        let first = self.files.len();
        self.below(&folder.join(BELOW), MAX_DEPTH);
        for file in self.files.split_off(first) {
            match distrust(folder, &file, rustix::process::geteuid().as_raw()) {
                None => self.files.push(file),
                Some(reason) => self.refused.push(format!(
                    "{} was found from the current directory and not opened ({reason}; \
                     `chmod -R go-w` and `chown` make it yours alone)",
                    file.display()
                )),
            }
        }
    }

    /// The places that were looked at, for a message.
    pub(crate) fn searched_text(&self) -> String {
        let texts: Vec<String> = self.searched.iter().map(|p| p.display().to_string()).collect();
        texts.join(", ")
    }
}

/// Why others than root and the user `uid` could exchange `file`, from the file
/// itself up to `folder`. A link counts with where it leads: from there up to the
/// root where that is outside, except that a sticky folder such as `/tmp` lets
/// nobody exchange what is another's.
fn distrust(folder: &Path, file: &Path, uid: u32) -> Option<String> {
    let real = match (file.canonicalize(), folder.canonicalize()) {
        (Ok(file), Ok(folder)) => (file, folder),
        (Err(error), _) | (_, Err(error)) => return Some(format!("it cannot be checked: {error}")),
    };
    for (file, folder) in [(file, folder), (&real.0, &real.1)] {
        let outside = !file.starts_with(folder);
        for path in file.ancestors().take_while(|path| outside || path.starts_with(folder)) {
            let meta = match path.symlink_metadata() {
                Ok(meta) => meta,
                Err(error) => {
                    return Some(format!("{} cannot be checked: {error}", path.display()));
                }
            };
            let owner = meta.uid();
            if owner != 0 && owner != uid {
                return Some(format!("{} belongs to user {owner}", path.display()));
            }
            // A link has no permissions of its own.
            let open = meta.mode() & 0o022 != 0 && !meta.is_symlink();
            let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
            if open && !(outside && sticky) {
                return Some(format!("{} is writable by others", path.display()));
            }
        }
    }
    None
}

fn collect(folder: &Path, depth: usize, budget: &mut usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        let path = entry.path();
        // Does not follow links: a folder that links to its parent is no loop.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth > 0 {
                collect(&path, depth - 1, budget, files);
            }
        } else if version(&path).is_some() && path.is_file() {
            files.push(path);
        }
    }
}

/// `libopenvino_c.so.2641` → 2641; the name without a version is above all.
/// `None` for any other file.
fn version(path: &Path) -> Option<Vec<u64>> {
    let rest = path.file_name()?.to_str()?.strip_prefix(FILE)?;
    if rest.is_empty() {
        return Some(vec![u64::MAX]);
    }
    rest.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect()
}

/// `/opt/intel/openvino`, `/opt/intel/openvino_2026`, …
fn intel_folders(parent: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("openvino"))
        .map(|entry| entry.path())
        .collect();
    folders.sort_by(|a, b| b.cmp(a));
    if folders.is_empty() {
        folders.push(parent.join("openvino"));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn put(folder: &Path, name: &str) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join(name);
        std::fs::write(&file, b"x").unwrap();
        file
    }

    #[test]
    fn the_wheel_in_the_project_is_found_from_a_folder_below_it() {
        let project = tempfile::tempdir().unwrap();
        let libs = project.path().join(".framebus/openvino/openvino/libs");
        let old = put(&libs, "libopenvino_c.so.2540");
        let new = put(&libs, "libopenvino_c.so.2641");
        put(&libs, "libopenvino_c.so.2641.debug");
        put(&libs, "libopenvino.so.2641");
        let found = search(&Surroundings {
            executable: Some(project.path().join("target/debug/framebus")),
            current_dir: Some(project.path().join("crates/deep/inside")),
            ..Surroundings::default()
        });
        assert_eq!(found.files[..2], [new, old]);
        assert!(found.searched.contains(&PathBuf::from("/opt/framebus/openvino")));
        let unique: HashSet<_> = found.searched.iter().collect();
        assert_eq!(unique.len(), found.searched.len());
    }

    #[test]
    fn an_explicit_place_is_the_only_place() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        put(&project.join(".framebus/openvino/libs"), "libopenvino_c.so.2641");
        let explicit = put(&folder.path().join("mine/lib"), "libopenvino_c.so");
        let mut surroundings = Surroundings {
            explicit: Some(folder.path().join("mine").into_os_string()),
            current_dir: Some(project),
            ..Surroundings::default()
        };
        assert_eq!(search(&surroundings).files, [explicit]);

        let missing = folder.path().join("none.so");
        surroundings.explicit = Some(missing.clone().into_os_string());
        assert_eq!(search(&surroundings).files, [missing]);
    }

    #[test]
    fn links_to_parents_end() {
        let project = tempfile::tempdir().unwrap();
        let root = project.path().join(".framebus/openvino");
        let file = put(&root, "libopenvino_c.so.2641");
        std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
        let found = search(&Surroundings {
            executable: Some(project.path().join("framebus")),
            ..Surroundings::default()
        });
        assert_eq!(found.files.first(), Some(&file));
    }

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_write_is_not_taken_from_the_current_directory() {
        let top = tempfile::tempdir().unwrap();
        let project = top.path().join("project");
        let file = put(&project.join(BELOW), "libopenvino_c.so.2641");
        let chain = [
            (file.clone(), 0o644),
            (project.join(BELOW), 0o755),
            (project.join(".framebus"), 0o755),
            (project.clone(), 0o755),
        ];
        for (path, mode) in &chain {
            chmod(path, *mode);
        }
        // Above the project anybody may write, as in /tmp.
        chmod(top.path(), 0o1777);
        let from_current =
            Surroundings { current_dir: Some(project.join("crates")), ..Surroundings::default() };
        let found = search(&from_current);
        assert_eq!((found.files.first(), found.refused.len()), (Some(&file), 0));
        for (path, mode) in &chain {
            for open in [0o020, 0o002] {
                chmod(path, mode | open);
                let found = search(&from_current);
                assert!(!found.files.contains(&file), "{}", path.display());
                let reason = format!("({} is writable by others;", path.display());
                assert!(found.refused[0].contains(&reason), "{:?}", found.refused);
                // The program's own place is trusted as the program is.
                let found = search(&Surroundings {
                    executable: Some(project.join("target/debug/framebus")),
                    ..from_current.clone()
                });
                assert_eq!((found.files.first(), found.refused.len()), (Some(&file), 0));
            }
            chmod(path, *mode);
        }
        // A folder for everybody is no project.
        let planted = put(&top.path().join(BELOW), "libopenvino_c.so.2641");
        let found = search(&from_current);
        assert!(!found.files.contains(&planted) && found.files.contains(&file));
    }

    #[test]
    fn links_and_owners_are_looked_through() {
        let top = tempfile::tempdir().unwrap();
        let (project, other) = (top.path().join("project"), top.path().join("other"));
        let file = put(&other.join("openvino"), "libopenvino_c.so.2641");
        std::fs::create_dir(&project).unwrap();
        std::os::unix::fs::symlink(&other, project.join(".framebus")).unwrap();
        for (path, mode) in [(&project, 0o755), (&other, 0o755), (&file, 0o644)] {
            chmod(path, mode);
        }
        chmod(&other.join("openvino"), 0o755);
        let linked = project.join(BELOW).join("libopenvino_c.so.2641");
        let uid = std::fs::metadata(&file).unwrap().uid();
        assert_eq!(distrust(&project, &linked, uid), None);
        chmod(&other, 0o777);
        let reason = distrust(&project, &linked, uid).unwrap();
        assert!(reason.ends_with("other is writable by others"), "{reason}");
        chmod(&other, 0o755);
        if uid == 0 {
            std::os::unix::fs::chown(&file, Some(4321), None).unwrap();
            let reason = distrust(&project, &linked, uid).unwrap();
            assert!(reason.ends_with("belongs to user 4321"), "{reason}");
        } else {
            let reason = distrust(&project, &linked, uid + 1).unwrap();
            assert!(reason.ends_with(&format!("belongs to user {uid}")), "{reason}");
        }
    }

    #[test]
    fn home_and_loader_path() {
        let folder = tempfile::tempdir().unwrap();
        let home = put(
            &folder.path().join(".local/share/framebus/openvino/openvino/libs"),
            "libopenvino_c.so.2641",
        );
        let loader = put(&folder.path().join("lib"), "libopenvino_c.so.2610");
        let found = search(&Surroundings {
            home: Some(folder.path().to_owned()),
            loader_path: vec![folder.path().join("lib")],
            ..Surroundings::default()
        });
        let at = |file: &PathBuf| found.files.iter().position(|f| f == file);
        assert!(at(&home).unwrap() < at(&loader).unwrap());
    }
}
