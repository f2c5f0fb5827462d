//! What goes into a bundle. Whatever cannot be had says why in its place.

use super::secrets::Instance;
use crate::bounded;
use crate::cmd::doctor::{limits, storage};
use framebus_bus::Domain;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Bound of a tool that answers at once.
const TOOL: Duration = Duration::from_secs(20);
/// Bound of `framebus doctor`, which watches every camera.
const DOCTOR: Duration = Duration::from_secs(180);
/// Looks at the instance, each a little over two seconds.
const LOOKS: usize = 3;
/// Lines of the journal.
const LINES: &str = "5000";
/// Files of a listing: an instance has some hundred.
const LISTED: usize = 5000;

/// One file of the archive.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What it is, in a few words.
    pub(crate) what: &'static str,
    pub(crate) text: String,
    /// Secrets that were in it.
    pub(crate) redacted: usize,
}

impl Entry {
    pub(crate) fn new(name: impl Into<String>, what: &'static str, text: String) -> Self {
        Self { name: name.into(), what, text, redacted: 0 }
    }
}

/// Everything, secrets included: it is redacted before it goes anywhere.
pub(crate) fn all(instance: &Instance) -> Vec<Entry> {
    let mut entries = vec![versions()];
    if let Some(file) = &instance.file {
        // What cannot be read as a configuration may hold secrets in ways nobody knows.
        let text = match &instance.config {
            Some(_) => instance.text.clone(),
            None => format!(
                "{} is left out because of its errors:\n{}",
                file.display(),
                instance.errors
            ),
        };
        entries.push(Entry::new("framebus.toml", "the configuration", text));
    }
    let doctor = own(instance, &["doctor", "--json"], DOCTOR);
    entries.push(Entry::new("doctor.json", "framebus doctor --json", doctor));
    let mut pids = BTreeSet::new();
    for look in 1..=LOOKS {
        let status = own(instance, &["status", "--json"], TOOL);
        pids.extend(pids_in(&status));
        let nothing = pids.is_empty();
        entries.push(Entry::new(format!("status-{look}.json"), "framebus status --json", status));
        if nothing {
            break;
        }
    }
    if let Some(domain) = &instance.domain {
        entries.push(Entry::new("shm.txt", "its files in /dev/shm and bus.root", listing(domain)));
    }
    for pid in pids {
        let name = format!("processes/{pid}.txt");
        entries.push(Entry::new(name, "a process, from /proc", process(pid)));
    }
    entries.push(Entry::new("journal.txt", "last log lines of its units", journal()));
    entries.push(Entry::new("kernel.txt", "kernel messages about memory", kernel()));
    entries
}

/// What a program says, or why it says nothing.
fn said(program: &str, args: &[&str], environment: &[(String, String)], bound: Duration) -> String {
    match bounded::run_with(program, args, environment, bound) {
        Ok(answer) if answer.stderr.is_empty() => answer.stdout,
        Ok(answer) => format!("{}{}", answer.stdout, answer.stderr),
        Err(error) => format!("{error}\n"),
    }
}

/// This program with other arguments: what breaks in it breaks there alone.
fn own(instance: &Instance, args: &[&str], bound: Duration) -> String {
    let Ok(program) = std::env::current_exe() else {
        return "the framebus program is gone\n".to_owned();
    };
    let program = program.to_string_lossy();
    let file = instance.file.as_ref().map(|file| file.display().to_string());
    let mut line = vec![&*program];
    line.extend(args);
    line.extend(file.iter().flat_map(|file| ["--config", file.as_str()]));
    let user = instance.domain.as_ref().and_then(user_of);
    if let Some(user) = &user {
        line.splice(0..0, ["runuser", "-u", user, "--"]);
    }
    said(line[0], &line[1..], &instance.environment, bound)
}

/// Whose instance it is, where that is not root, which runs this: only root may read the
/// journal, and only the instance's own user may join its bus.
fn user_of(domain: &Domain) -> Option<String> {
    let owner = std::fs::symlink_metadata(domain.folder()).ok()?.uid();
    let other = rustix::process::getuid().is_root() && owner != 0;
    other.then(|| limits::name_of("/etc/passwd", owner))
}

fn versions() -> Entry {
    let mut text = String::new();
    for program in ["framebus", "framebus-capture", "framebus-infer", "framebus-sink"] {
        let line = match crate::children::find(program) {
            Ok(path) => {
                format!(
                    "{}: {}",
                    path.display(),
                    said(&path.to_string_lossy(), &["--version"], &[], TOOL)
                )
            }
            Err(failure) => format!("{failure}\n"),
        };
        text.push_str(&line);
    }
    for file in ["/etc/os-release", "/proc/version", "/proc/meminfo", "/proc/loadavg"] {
        let content = std::fs::read_to_string(file).unwrap_or_else(|error| format!("{error}\n"));
        let _ = write!(text, "\n{file}:\n{content}");
    }
    Entry::new("versions.txt", "programs, system, memory", text)
}

fn pids_in(status: &str) -> BTreeSet<u64> {
    // Warnings may stand below the object.
    let Some(line) = status.lines().find(|line| line.starts_with('{')) else {
        return BTreeSet::new();
    };
    let said: Value = serde_json::from_str(line).unwrap_or_default();
    let processes = said["processes"].as_array().cloned().unwrap_or_default();
    processes.iter().filter_map(|process| process["pid"].as_u64()).filter(|pid| *pid > 0).collect()
}

fn listing(domain: &Domain) -> String {
    let mut text = String::from("bytes taken, owner, modified (s), path\n");
    let mut line = |path: &Path| {
        let Ok(meta) = std::fs::symlink_metadata(path) else { return };
        let (taken, uid) = (meta.blocks() * 512, meta.uid());
        let _ = writeln!(text, "{taken:>12} {uid:>6} {:>11} {}", meta.mtime(), path.display());
    };
    let mut folders = vec![domain.folder()];
    let mut left = LISTED;
    let shm = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let of_instance = |entry: &std::fs::DirEntry| {
        storage::is_of(domain.instance(), &entry.file_name().to_string_lossy())
    };
    for entry in shm.filter(of_instance).take(left) {
        line(&entry.path());
        left -= 1;
    }
    while let Some(folder) = folders.pop() {
        line(&folder);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten().take(left) {
            left -= 1;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => line(&entry.path()),
            }
        }
    }
    text
}

/// File name of the program that a /proc entry runs.
pub(crate) fn program(process: &Path) -> Option<String> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let first = String::from_utf8_lossy(first).into_owned();
    Some(Path::new(&first).file_name()?.to_string_lossy().into_owned())
}

/// Never its environment or memory: those hold passwords.
fn process(pid: u64) -> String {
    let folder = Path::new("/proc").join(pid.to_string());
    let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    let mut text = format!("{}\n", String::from_utf8_lossy(&line).replace('\0', " "));
    let open = std::fs::read_dir(folder.join("fd")).map(Iterator::count);
    let _ = match open {
        Ok(open) => writeln!(text, "{open} open files"),
        Err(error) => writeln!(text, "open files: {error}"),
    };
    for file in ["status", "limits", "smaps_rollup", "cgroup"] {
        let content =
            std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| format!("{error}\n"));
        let _ = write!(text, "\n{file}:\n{content}");
    }
    text
}

fn journal() -> String {
    let args = ["--no-pager", "--output=short-iso", "--lines", LINES, "--unit", "framebus*"];
    said("journalctl", &args, &[], TOOL)
}

/// Processes that the kernel killed for want of memory leave no other trace.
fn kernel() -> String {
    let said = said("dmesg", &["--ctime"], &[], TOOL);
    let about_memory = |line: &&str| {
        let line = line.to_lowercase();
        ["oom", "out of memory", "killed process"].iter().any(|words| line.contains(words))
    };
    let lines: Vec<&str> = said.lines().filter(about_memory).collect();
    match (lines.is_empty(), said.lines().count()) {
        // Not a word of it may be read, or dmesg is not there.
        (true, 0..=1) => format!("dmesg: {said}\n"),
        (true, _) => "no process was killed for want of memory\n".to_owned(),
        _ => lines.join("\n") + "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_in_a_status() {
        let status = "{\"processes\":[{\"pid\":7},{\"pid\":0},{\"pid\":7}]}\nWARN x\n";
        assert_eq!(pids_in(status), BTreeSet::from([7]));
        assert!(pids_in("nothing runs").is_empty());
    }

    #[test]
    fn root_looks_at_the_instance_of_another_user_as_that_user() {
        if !rustix::process::getuid().is_root() {
            // Only root can make a folder that is somebody else's.
            return;
        }
        let root = tempfile::tempdir().expect("temp dir");
        let limits = framebus_bus::Limits::default();
        let domain = Domain::new("a", root.path(), limits).expect("valid");
        assert_eq!(user_of(&domain), None, "not there");
        std::fs::create_dir(domain.folder()).expect("made");
        assert_eq!(user_of(&domain), None, "its own");
        std::os::unix::fs::chown(domain.folder(), Some(1), None).expect("given away");
        assert_eq!(user_of(&domain).as_deref(), Some("daemon"));
    }

    #[test]
    fn a_process_shows_no_environment() {
        let text = process(u64::from(std::process::id()));
        assert!(text.contains("VmRSS") && text.contains("Max open files"), "{text}");
        assert!(!text.contains("CARGO_MANIFEST_DIR="), "{text}");
    }
}
