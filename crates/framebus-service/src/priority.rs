//! Which cores a process may use, and how willingly it gives way.

use crate::{Failure, Kind, OrFail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Adds `nice` to the calling thread's niceness and ties it to `cores` (CPU numbers
/// as in /proc/cpuinfo; empty = all). Threads inherit both: call it before the threads that
/// do the work are started.
///
/// Niceness is added to what the process was started with, so that `nice` or systemd's
/// `Nice=` around it still counts; it is only ever raised, which needs no rights.
///
/// # Errors
/// [`Kind::Config`] when a core is not one of those that this process may use.
pub fn apply(nice: u8, cores: &[usize]) -> Result<(), Failure> {
    if !cores.is_empty() {
        let allowed = sched_getaffinity(None).or_fail(Kind::Unavailable)?;
        let mut wanted = CpuSet::new();
        for &core in cores {
            if core >= CpuSet::MAX_CPU || !allowed.is_set(core) {
                let allowed = ranges((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)));
                return Err(Failure::message(
                    Kind::Config,
                    format!(
                        "cores: CPU {core} is not there or not allowed to this process; it may use {allowed}"
                    ),
                ));
            }
            wanted.set(core);
        }
        sched_setaffinity(None, &wanted).or_fail(Kind::Unavailable)?;
    }
    if nice > 0 {
        // Raising is always permitted; a seccomp filter that forbids it costs
        // fairness and not the cameras.
        if let Err(error) = rustix::process::nice(i32::from(nice)) {
            tracing::warn!(nice, %error, "niceness not changed");
        }
    }
    Ok(())
}

/// `0-3, 6`.
fn ranges(cores: impl Iterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both belong to a thread, so a thread of its own leaves the others alone.
    fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(run).join().expect("the thread ends"))
    }

    #[test]
    fn a_thread_and_its_children_get_one_core_and_give_way() {
        let first = |set: &CpuSet| (0..CpuSet::MAX_CPU).find(|&core| set.is_set(core));
        apart(|| {
            let before = rustix::process::getpriority_process(None).expect("a niceness");
            let core = first(&sched_getaffinity(None).expect("a set")).expect("a core");
            apply(3, &[core]).expect("permitted");
            apart(|| {
                let set = sched_getaffinity(None).expect("a set");
                assert_eq!((set.count(), first(&set)), (1, Some(core)));
                let nice = rustix::process::getpriority_process(None).expect("a niceness");
                assert_eq!(nice, (before + 3).min(19));
            });
        });
    }

    #[test]
    fn a_core_that_is_not_there_is_named_with_those_that_are() {
        apart(|| {
            let before = sched_getaffinity(None).expect("a set");
            for core in [CpuSet::MAX_CPU - 1, usize::MAX] {
                let error = apply(0, &[core]).expect_err("no such core");
                assert_eq!(error.kind, Kind::Config);
                let text = error.to_string();
                assert!(
                    text.contains(&format!("CPU {core} ")) && text.contains("may use"),
                    "{text}"
                );
            }
            assert!(sched_getaffinity(None).expect("a set") == before, "nothing was changed");
        });
    }

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), "0-2, 5, 7-8");
        assert_eq!(ranges(std::iter::empty()), "");
    }
}
