//! The machine: system, processor, NVIDIA driver, clock, network, systemd.

use super::bounded;
use super::finding::{Finding, Level};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bound of system tools that answer at once.
const TOOL: Duration = Duration::from_secs(5);
/// Instructions that make networks faster, as /proc/cpuinfo names them.
const FEATURES: [&str; 7] =
    ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd"];

pub(crate) fn look() -> Vec<Finding> {
    let mut findings = vec![system(), processor(), clock(), network(), systemd()];
    findings.extend(nvidia());
    findings
}

/// A small file of /proc or /sys.
pub(crate) fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn system() -> Finding {
    let release = read("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or("Linux", |name| name.trim_matches('"'));
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy();
    let text = format!("{name}, kernel {kernel}, {}", uname.machine().to_string_lossy());
    let mut numbers = kernel.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 14) {
        return Finding::new("machine", "system", Level::Warning, text).next(
            "from Linux 5.14 on, a full /dev/shm is refused with a sentence; before, it kills the process",
        );
    }
    Finding::ok("machine", "system", text)
}

fn processor() -> Finding {
    let info = read("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let found: Vec<&str> = FEATURES.into_iter().filter(|name| flags.contains(name)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!(
        "{}, {cores} cores for this process, {}",
        field("model name").unwrap_or_else(|| "unknown".to_owned()),
        if found.is_empty() { "no vector extensions".to_owned() } else { found.join(" ") }
    );
    if cfg!(target_arch = "x86_64") && !found.contains(&"avx2") {
        return Finding::new("machine", "processor", Level::Warning, text)
            .next("inference is several times slower without AVX2; in a virtual machine, pass the host's processor through");
    }
    Finding::ok("machine", "processor", text)
}

/// Shared libraries whose names start with `name`, where the loader looks.
pub(crate) fn libraries(name: &str) -> Vec<PathBuf> {
    let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = std::env::split_paths(&paths).chain(
        ["/usr/lib", "/lib", "/usr/lib64", "/usr/local/lib"]
            .into_iter()
            .flat_map(|folder| [PathBuf::from(folder), Path::new(folder).join(&triple)]),
    );
    let entries = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether a PCI device of this vendor can compute graphics.
fn has_gpu(vendor: &str) -> bool {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices.into_iter().any(|device| {
        let is = |file: &str, start: &str| {
            read(device.path().join(file)).is_some_and(|text| text.starts_with(start))
        };
        is("vendor", vendor) && is("class", "0x03")
    })
}

/// Nothing of NVIDIA's is linked or opened: files tell.
fn nvidia() -> Vec<Finding> {
    const AREA: &str = "nvidia";
    let version = read("/proc/driver/nvidia/version");
    let cuda = libraries("libcuda.so.1");
    let driver = match (&version, has_gpu("0x10de")) {
        (None, false) => {
            return vec![Finding::new(
                AREA,
                "gpu",
                Level::Skipped,
                "no NVIDIA GPU in this machine",
            )];
        }
        (None, true) => Finding::new(
            AREA,
            "driver",
            Level::Warning,
            "there is an NVIDIA GPU without its driver",
        )
        .next("install the driver (Debian: nvidia-driver) to decode on the GPU"),
        (Some(version), _) => {
            let line = version.lines().next().unwrap_or_default();
            let devices = (0..16).filter(|n| Path::new(&format!("/dev/nvidia{n}")).exists());
            let text = format!("{line}, {} GPUs", devices.count());
            if Path::new("/dev/nvidiactl").exists() {
                Finding::ok(AREA, "driver", text)
            } else {
                Finding::new(AREA, "driver", Level::Warning, format!("{text}, no /dev/nvidiactl"))
                    .next("in a container, start it with --gpus all; else run nvidia-modprobe")
            }
        }
    };
    let library = match cuda.first() {
        Some(path) => Finding::ok(AREA, "libcuda", path.display().to_string()),
        None => Finding::new(
            AREA,
            "libcuda",
            Level::Warning,
            "libcuda.so.1 is not where the loader looks",
        )
        .next("install libcuda1, or pass the driver's libraries into the container"),
    };
    vec![driver, library]
}

fn clock() -> Finding {
    const WHAT: &str = "clock";
    let answer =
        bounded::run("timedatectl", &["show", "--property=NTPSynchronized", "--value"], TOOL);
    match answer.as_ref().map(|answer| answer.stdout.trim()) {
        Ok("yes") => Finding::ok("machine", WHAT, "the wall clock is synchronised"),
        Ok("no") => {
            Finding::new("machine", WHAT, Level::Warning, "the wall clock is not synchronised")
                .next(
                    "`timedatectl set-ntp true`: results carry wall-clock times for other machines",
                )
        }
        _ => Finding::new("machine", WHAT, Level::Skipped, "timedatectl is not here to ask"),
    }
}

fn network() -> Finding {
    Finding::ok("machine", "ports", "framebus listens on none; it connects to its cameras")
}

fn systemd() -> Finding {
    const WHAT: &str = "systemd";
    const UNIT: &str = "framebus.target";
    let folders = ["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"];
    let Some(file) =
        folders.into_iter().map(|folder| Path::new(folder).join(UNIT)).find(|f| f.exists())
    else {
        return Finding::new("machine", WHAT, Level::Skipped, "framebus.target is not installed");
    };
    if !Path::new("/run/systemd/system").exists() {
        let text = format!("{} is there; systemd does not run here", file.display());
        return Finding::new("machine", WHAT, Level::Skipped, text);
    }
    let said = |verb: &str| {
        let answer = bounded::run("systemctl", &[verb, UNIT], TOOL);
        answer.map_or_else(|error| error, |answer| answer.stdout.trim().to_owned())
    };
    let (enabled, active) = (said("is-enabled"), said("is-active"));
    let text = format!("{UNIT} is {enabled} and {active}");
    if active == "failed" {
        return Finding::new("machine", WHAT, Level::Warning, text)
            .next("`systemctl list-units --failed 'framebus*'`, then `journalctl -u UNIT`");
    }
    Finding::ok("machine", WHAT, text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_c_library_and_no_other() {
        assert!(!super::libraries("libc.so").is_empty());
        assert!(super::libraries("libnosuchlibrary").is_empty());
    }
}
