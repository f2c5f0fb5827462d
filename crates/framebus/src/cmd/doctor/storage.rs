//! Shared memory and disks: is there room, and whose is what lies there?

use super::check;
use super::finding::{Finding, Level};
use crate::table::mib;
use framebus_bus::{Domain, memory};
use framebus_config::{Config, Jsonl, JsonlPath, SinkKind};
use framebus_service::Kind;
use rustix::fs::statvfs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const AREA: &str = "storage";
/// Less free space on a disk is worth a word, bytes.
const DISK_FREE: u64 = 256 << 20;

pub(crate) fn look(instance: Option<(&Config, &Domain)>) -> Vec<Finding> {
    let mut findings = vec![shared_memory(instance)];
    let Some((config, domain)) = instance else { return findings };
    findings.extend(leftovers(domain));
    findings.push(owner(domain));
    let mut disks = vec![("bus.root".to_owned(), config.bus.root.as_path(), DISK_FREE)];
    for sink in config.enabled_sinks() {
        let SinkKind::Jsonl(Jsonl { path: JsonlPath::File(path), rotate_mib, keep }) = &sink.kind
        else {
            continue;
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let wanted = (rotate_mib << 20).saturating_mul(*keep as u64 + 1);
        disks.push((format!("sink {}", sink.name), folder.unwrap_or(Path::new(".")), wanted));
    }
    findings.extend(disks.into_iter().map(|(what, folder, wanted)| disk(&what, folder, wanted)));
    findings
}

/// A file of /dev/shm that belongs to an instance of this name.
struct Segment {
    name: String,
    uid: u32,
    bytes: u64,
}

/// Whether a file of /dev/shm belongs to an instance of this name, whichever user's.
pub(crate) fn is_of(instance: &str, file: &str) -> bool {
    let of_users = file.strip_prefix("fb").unwrap_or_default();
    let rest = of_users.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('_');
    rest.and_then(|rest| rest.strip_prefix(instance)).is_some_and(|rest| rest.starts_with('.'))
}

/// Files of instances of this name, whichever user they belong to.
fn segments(instance: &str) -> Vec<Segment> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let segment = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().ok().filter(|_| is_of(instance, &name))?;
        Some(Segment { name, uid: meta.uid(), bytes: meta.blocks() * 512 })
    };
    entries.filter_map(segment).collect()
}

fn shared_memory(instance: Option<(&Config, &Domain)>) -> Finding {
    const WHAT: &str = "/dev/shm";
    let Ok(stat) = statvfs(WHAT) else {
        return Finding::new(AREA, WHAT, Level::Problem(Kind::Unavailable), "is not there")
            .next("`mount -t tmpfs -o size=2G tmpfs /dev/shm`");
    };
    let (total, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
    let Some((config, domain)) = instance else {
        return Finding::ok(AREA, WHAT, format!("{} of {} free", mib(free), mib(total)));
    };
    // What an instance that runs has taken already it need not take again.
    let prefix = domain.shm_prefix();
    let own = segments(domain.instance()).into_iter().filter(|s| s.name.starts_with(prefix));
    let taken: u64 = own.map(|segment| segment.bytes).sum();
    let needed = check::bytes_needed(config, domain);
    let text = format!(
        "{} of {} free, this configuration needs {}, of which {} are taken",
        mib(free),
        mib(total),
        mib(needed),
        mib(taken)
    );
    if needed > free + taken {
        // All of it, and as much again: others use it too.
        let size = ((needed + memory::MARGIN) * 2).next_multiple_of(64 << 20) >> 20;
        return Finding::new(AREA, WHAT, Level::Problem(Kind::Unavailable), text).next(format!(
            "`mount -o remount,size={size}M /dev/shm` (Docker: --shm-size={size}m), or lower bus.frame_subscribers"
        ));
    }
    Finding::ok(AREA, WHAT, text)
}

/// What is left of an instance: our own is cleaned up at the next start, that of
/// another user stays.
fn leftovers(domain: &Domain) -> Option<Finding> {
    const WHAT: &str = "left over";
    let segments = segments(domain.instance());
    let (own, other): (Vec<_>, Vec<_>) =
        segments.iter().partition(|segment| segment.name.starts_with(domain.shm_prefix()));
    if let Some(first) = other.first() {
        let bytes = other.iter().map(|segment| segment.bytes).sum();
        let text = format!(
            "{} files of user {} in /dev/shm belong to an instance of this name, {}",
            other.len(),
            first.uid,
            mib(bytes)
        );
        return Some(Finding::new(AREA, WHAT, Level::Warning, text).next(
            "if that user runs no instance any more, have that user run `framebus up` and stop it: it cleans up",
        ));
    }
    if own.is_empty() || domain.in_use() {
        return None;
    }
    let bytes = own.iter().map(|segment| segment.bytes).sum();
    let text = format!("{} files of an instance that does not run, {}", own.len(), mib(bytes));
    Some(
        Finding::new(AREA, WHAT, Level::Warning, text)
            .next("nothing to do: the next `framebus up` removes them"),
    )
}

fn owner(domain: &Domain) -> Finding {
    const WHAT: &str = "instance";
    let folder = domain.folder();
    let name = domain.instance();
    let Ok(meta) = std::fs::symlink_metadata(&folder) else {
        return Finding::ok(AREA, WHAT, format!("{name} does not run"));
    };
    let uid = rustix::process::getuid().as_raw();
    if meta.uid() != uid {
        let text =
            format!("{} belongs to user {}, this is user {uid}", folder.display(), meta.uid());
        return Finding::new(AREA, WHAT, Level::Problem(Kind::Unavailable), text).next(
            "run framebus as the user of the instance (`sudo -u USER framebus …`), or choose another bus.root",
        );
    }
    let state = if domain.in_use() { "runs" } else { "does not run" };
    Finding::ok(AREA, WHAT, format!("{name} {state}, as user {uid}, in {}", folder.display()))
}

fn disk(what: &str, folder: &Path, wanted: u64) -> Finding {
    // The nearest folder that is there: the rest is made at the start.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let name = folder.display();
    let Ok(stat) = statvfs(there) else {
        return Finding::new(AREA, what, Level::Warning, format!("{name} cannot be asked"))
            .next("is its disk mounted?");
    };
    let free = stat.f_bavail * stat.f_frsize;
    let text = format!("{name}: {} free", mib(free));
    if free < wanted {
        return Finding::new(
            AREA,
            what,
            Level::Warning,
            format!("{text}, {} may be needed", mib(wanted)),
        )
        .next("free some space, or write less (rotate_mib, keep)");
    }
    Finding::ok(AREA, what, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_instance() {
        assert!(is_of("default", "fb0_default.x.data") && is_of("default", "fb1000_default.y"));
        for other in ["fb0_default2.x", "fb0_other.x", "xfb0_default.x", "fb0default.x", ""] {
            assert!(!is_of("default", other), "{other}");
        }
    }

    #[test]
    fn room_on_a_disk() {
        assert_eq!(disk("a", Path::new("/tmp/not/there"), 0).level, Level::Ok);
        let full = disk("a", Path::new("/tmp"), u64::MAX);
        assert_eq!(full.level, Level::Warning);
        assert!(full.next.is_some());
    }
}
