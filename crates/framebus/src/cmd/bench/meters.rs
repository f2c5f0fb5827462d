//! What processes cost, out of /proc.

use std::path::PathBuf;

/// Memory of processes, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident; pages that several processes map count in each of them.
    pub(super) rss: u64,
    /// Proportional: shared pages are divided among those who map them, so that
    /// the sum over processes is what they take together.
    pub(super) pss: u64,
}

impl Memory {
    pub(super) fn add(&mut self, other: Self) {
        self.rss += other.rss;
        self.pss += other.pss;
    }
}

fn read(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/{file}"))).ok()
}

/// User and system time of all threads so far, seconds, in steps of the kernel's clock
/// tick (10 ms). `None` when the process is gone.
pub(super) fn cpu_s(pid: u32) -> Option<f64> {
    let ticks = cpu_ticks(&read(pid, "stat")?)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 (utime) and 15 (stime) of /proc/PID/stat, proc(5). The second field is the
/// program's name in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The process that started it, or took it over. `None` when it is gone.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = read(pid, "stat")?;
    stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Memory of a process now. `None` when it is gone.
pub(super) fn memory(pid: u32) -> Option<Memory> {
    let rollup = read(pid, "smaps_rollup")?;
    Some(Memory { rss: kib(&rollup, "Rss:")? << 10, pss: kib(&rollup, "Pss:")? << 10 })
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU cores that this process may use.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 300 25 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(325));
        assert_eq!(cpu_ticks("7 (a) R 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let own = std::process::id();
        let memory = memory(own).expect("it runs");
        assert!(memory.rss > 0 && memory.pss > 0 && memory.pss <= memory.rss);
        assert!(cpu_s(own).is_some());
        assert_eq!(cpu_s(u32::MAX), None);
        assert_eq!(parent(own), rustix::process::getppid().map(|pid| pid.as_raw_pid() as u32));
        assert_eq!(parent(u32::MAX), None);
    }
}
