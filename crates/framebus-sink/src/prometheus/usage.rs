//! What a process of the instance uses, out of /proc.

use rustix::param::{clock_ticks_per_second, page_size};

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// Processor time of all its threads, user and system, s.
    pub(super) cpu_s: f64,
    /// Memory that it has in RAM, shared memory included, bytes.
    pub(super) resident_bytes: u64,
    /// Its threads.
    pub(super) threads: u64,
}

/// Asks the kernel; `None` when there is no such process, or it is none of ours: the number
/// came over the bus and may have been given to somebody else since.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5). The name may contain anything, brackets too; fields are counted from
/// its last closing one.
fn parse(stat: &str) -> Option<Usage> {
    let (head, fields) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    if !name.starts_with("framebus") {
        return None;
    }
    // The third field of the page is the first one here.
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Usage {
        cpu_s: (field(14)? + field(15)?) as f64 / clock_ticks_per_second() as f64,
        resident_bytes: field(24)? * page_size() as u64,
        threads: field(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "12 (framebus) x(1) S 1 12 12 0 -1 4194560 2000 0 3 0 150 50 0 0 20 0 7 0 \
                    9000 300000000 2500 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0";
        let usage = parse(stat).expect("a process of ours");
        assert_eq!(usage.threads, 7);
        assert_eq!(usage.resident_bytes, 2500 * page_size() as u64);
        assert!((usage.cpu_s - 200.0 / clock_ticks_per_second() as f64).abs() < 1e-9);
        assert_eq!(parse(&stat.replace("framebus", "sshd")), None);
        assert_eq!(parse("12 (framebus"), None);
        assert_eq!(parse("12 (framebus) S 1"), None);
    }
}
