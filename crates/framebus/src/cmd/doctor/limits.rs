//! Users and limits: open files, processes, memory, core files, groups.

use super::finding::{Finding, Level};
use super::machine::read;
use crate::table::mib;
use framebus_config::{Config, Source};
use framebus_service::Kind;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit, getuid};
use std::path::{Path, PathBuf};

const AREA: &str = "limits";
/// Each service that a process joins takes some descriptors.
const FILES: u64 = 1024;
/// GStreamer, the bus and a process's own threads take about this many for a camera,
/// the other processes about so many together.
const TASKS_PER_CAMERA: u64 = 20;
const TASKS: u64 = 100;
/// A capture process takes about this much besides its frames, the model the rest. MiB.
const MEMORY_PER_CAMERA: u64 = 64;
const MEMORY: u64 = 512;

pub(crate) fn look(config: Option<&Config>) -> Vec<Finding> {
    let cameras = config.map_or(1, |config| config.enabled_cameras().count() as u64);
    let mut findings = vec![user(), open_files(), core_files()];
    findings.extend([tasks(cameras), memory(cameras)]);
    findings.extend(devices(config));
    findings
}

fn user() -> Finding {
    let uid = getuid();
    let name = name_of("/etc/passwd", uid.as_raw());
    let own = rustix::process::getgroups().unwrap_or_default();
    let mut groups: Vec<String> = own.iter().map(|id| name_of("/etc/group", id.as_raw())).collect();
    groups.sort();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" ") };
    let text = format!("{name} ({}), further groups {groups}", uid.as_raw());
    if uid.is_root() {
        return Finding::new(AREA, "user", Level::Warning, text)
            .next("nothing of framebus needs root: for lasting use give it a user of its own");
    }
    Finding::ok(AREA, "user", text)
}

/// The name of a number in /etc/passwd or /etc/group; the number where it has none.
pub(crate) fn name_of(file: &str, id: u32) -> String {
    let text = read(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| id.to_string())
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let text = format!("{} open files for each process", number(limit.current));
    if limit.current.is_some_and(|current| current < FILES) {
        return Finding::new(AREA, "files", Level::Warning, text)
            .next(format!("`ulimit -n {FILES}`, or LimitNOFILE={FILES} in a unit"));
    }
    Finding::ok(AREA, "files", text)
}

/// A capture process holds its camera's password, and so would its core file.
fn core_files() -> Finding {
    match getrlimit(Resource::Core).current {
        Some(0) => Finding::ok(AREA, "core files", "none is written when a process crashes"),
        limit => {
            let limit = limit.map_or_else(|| "unlimited".to_owned(), mib);
            let text = format!("{limit}: that of a capture process holds its camera's password");
            Finding::new(AREA, "core files", Level::Warning, text)
                .next("`ulimit -c 0`, or LimitCORE=0 in a unit, unless you look into a crash")
        }
    }
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// The nearest limit of this process's control group and those above it.
fn cgroup(file: &str) -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let folder = root.join(own.trim_start_matches('/'));
    let limits = folder.ancestors().take_while(|folder| folder.starts_with(root));
    limits.filter_map(|folder| read(folder.join(file))?.parse().ok()).min()
}

fn tasks(cameras: u64) -> Finding {
    let wanted = TASKS + TASKS_PER_CAMERA * cameras;
    let user = getrlimit(Resource::Nproc).current;
    let limit = cgroup("pids.max").into_iter().chain(user).min();
    let text = format!("{} threads and processes, about {wanted} are needed", number(limit));
    match limit {
        Some(limit) if limit < wanted => {
            Finding::new(AREA, "threads", Level::Problem(Kind::Unavailable), text)
                .next(format!("raise TasksMax (systemd) or --pids-limit (Docker) above {wanted}"))
        }
        _ => Finding::ok(AREA, "threads", text),
    }
}

fn memory(cameras: u64) -> Finding {
    let info = read("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    let total = field("MemTotal:").unwrap_or(0);
    let limit = cgroup("memory.max").unwrap_or(total).min(total);
    let available = field("MemAvailable:").unwrap_or(total).min(limit);
    let wanted = (MEMORY + MEMORY_PER_CAMERA * cameras) << 20;
    let text = format!(
        "{} of {} available, about {} are needed beside /dev/shm",
        mib(available),
        mib(limit),
        mib(wanted)
    );
    if available < wanted {
        return Finding::new(AREA, "memory", Level::Warning, text)
            .next("end what else runs here, run fewer cameras, or scale them down (max_width)");
    }
    Finding::ok(AREA, "memory", text)
}

/// Devices that belong to a group: cameras and graphics.
fn devices(config: Option<&Config>) -> Vec<Finding> {
    let cameras = config.into_iter().flat_map(Config::enabled_cameras);
    let mut paths: Vec<(PathBuf, &str)> = cameras
        .filter_map(|camera| match &camera.source {
            Source::V4l2(path) => Some((path.clone(), "video")),
            _ => None,
        })
        .collect();
    let render = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    let render = render.filter(|e| e.file_name().to_string_lossy().starts_with("renderD"));
    paths.extend(render.map(|entry| (entry.path(), "render")));
    let present = paths.into_iter().filter(|(path, _)| path.exists());
    let check = |(path, group): (PathBuf, &str)| {
        let name = path.display().to_string();
        match access(&path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Finding::ok(AREA, name, "may be used by this user"),
            Err(_) => Finding::new(AREA, name, Level::Warning, "may not be used by this user")
                .next(format!("`usermod -aG {group} USER`, then log in again or restart the unit")),
        }
    };
    present.map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_numbers() {
        assert_eq!(name_of("/etc/passwd", 0), "root");
        assert_eq!(name_of("/etc/group", 4_000_000_000), "4000000000");
    }

    #[test]
    fn more_cameras_need_more() {
        assert_eq!(tasks(1_000_000_000).level, Level::Problem(Kind::Unavailable));
        assert_eq!(memory(1 << 20).level, Level::Warning);
    }
}
