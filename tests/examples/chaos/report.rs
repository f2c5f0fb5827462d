//! The table at the end, the same as JSON, and which aims were missed.

use crate::inject::{Fault, SECOND_NS};
use crate::reconcile::Account;
use crate::survey::{Growth, Shm};
use crate::watch::Log;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Recovery of 95 of 100 kills, s.
const RECOVERY_P95_S: f64 = 2.0;
/// Descriptors and threads that a process may have more at its end than when it had
/// just started: connections to others that are being replaced.
const COMES_AND_GOES: i64 = 12;

/// Everything that is known at the end.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) kills_wanted: usize,
    pub(crate) ups: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) log: Log,
    pub(crate) account: Account,
    pub(crate) growth: BTreeMap<&'static str, Growth>,
    pub(crate) shm_before: Shm,
    pub(crate) shm_most: Shm,
    pub(crate) shm_after: Shm,
    pub(crate) leftovers: Vec<String>,
    /// What `up` said when it did not end as it should.
    pub(crate) wrong_end: Option<String>,
}

/// Recovery times of one kind of fault.
struct Recovery {
    what: String,
    count: usize,
    never: usize,
    /// Sorted.
    seconds: Vec<f64>,
}

impl Recovery {
    fn of<'a>(what: String, faults: impl Iterator<Item = &'a Fault>) -> Self {
        let times: Vec<Option<u64>> = faults.map(Fault::recovery_ns).collect();
        let seconds = times.iter().flatten().map(|&ns| ns as f64 / SECOND_NS as f64);
        let mut seconds: Vec<f64> = seconds.collect();
        seconds.sort_by(f64::total_cmp);
        Self { what, count: times.len(), never: times.len() - seconds.len(), seconds }
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.seconds.len() as f64).ceil() as usize;
        self.seconds.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn line(&self) -> String {
        let [p50, p95, max] = [0.5, 0.95, 1.0].map(|share| self.quantile(share));
        let Self { what, count, never, .. } = self;
        format!("{what:<22}{count:>6}{p50:>9.2}{p95:>9.2}{max:>9.2}{never:>8}")
    }

    fn json(&self) -> Value {
        let [p50, p95, max] = [0.5, 0.95, 1.0].map(|share| self.quantile(share));
        json!({ "what": self.what, "count": self.count, "never": self.never,
            "p50_s": p50, "p95_s": p95, "max_s": max })
    }
}

impl Outcome {
    fn kills(&self) -> Recovery {
        Recovery::of("all kills".to_owned(), self.faults.iter().filter(|fault| fault.is_kill()))
    }

    fn recoveries(&self) -> Vec<Recovery> {
        let mut rows = Vec::new();
        for (word, kills) in [("killed", true), ("stopped", false)] {
            for target in ["capture", "inference", "sink", "reader", "up"] {
                let of = |fault: &&Fault| fault.target.name() == target && fault.is_kill() == kills;
                let row = Recovery::of(format!("{target} {word}"), self.faults.iter().filter(of));
                rows.extend((row.count > 0).then_some(row));
            }
        }
        rows.push(self.kills());
        rows
    }

    /// Every aim with whether it was reached and the figure.
    fn aims(&self) -> Vec<(bool, String)> {
        let (kills, account) = (self.kills(), &self.account);
        let never = self.faults.iter().filter(|fault| fault.back_ns.is_none()).count();
        let zero = |count: u64, what: &str| (count == 0, format!("{what}: {count}"));
        let most =
            self.growth.values().map(|growth| growth.fds.max(growth.threads)).max().unwrap_or(0);
        vec![
            (
                kills.count >= self.kills_wanted,
                format!("kills: {} of {}", kills.count, self.kills_wanted),
            ),
            (
                kills.quantile(0.95) <= RECOVERY_P95_S,
                format!("recovery p95: {:.2} s, at most {RECOVERY_P95_S} s", kills.quantile(0.95)),
            ),
            zero(never as u64, "faults nobody recovered from"),
            zero(self.log.torn.len() as u64, "torn frames"),
            zero(self.log.bad_headers, "headers that lie"),
            zero(self.log.errors.len() as u64, "errors of the bus at this reader"),
            zero(account.twice as u64, "frames with two results"),
            zero(account.unexplained(), "frames without a result or a reason"),
            zero(self.log.contradictions.len() as u64, "health records that do not add up"),
            zero(account.broken as u64, "broken lines in the sink's file"),
            zero(
                (account.records_twice + account.records_made_up) as u64,
                "records repeated or made up",
            ),
            (
                self.shm_after == self.shm_before,
                format!(
                    "/dev/shm at rest: {} before, {} after",
                    text(self.shm_before),
                    text(self.shm_after)
                ),
            ),
            (
                // Each service has room for a publisher and its dead predecessor.
                self.shm_most.bytes <= 2 * self.shm_before.bytes,
                format!("/dev/shm at most: {}, not above twice that at rest", text(self.shm_most)),
            ),
            zero(self.leftovers.len() as u64, "files left at the end"),
            (
                most <= COMES_AND_GOES,
                format!(
                    "descriptors or threads grown within a life: {most}, at most {COMES_AND_GOES}"
                ),
            ),
            (self.wrong_end.is_none(), "up ends when asked".to_owned()),
        ]
    }

    pub(crate) fn reached(&self) -> bool {
        self.aims().iter().all(|(reached, _)| *reached)
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            format!(
                "seed {}, {:.0} s, supervisor started {} times",
                self.seed, self.seconds, self.ups
            ),
            String::new(),
            format!(
                "{:<22}{:>6}{:>9}{:>9}{:>9}{:>8}",
                "recovery, s", "count", "p50", "p95", "max", "never"
            ),
        ];
        lines.extend(self.recoveries().iter().map(Recovery::line));
        let a = &self.account;
        lines.extend([
            String::new(),
            format!("frames {}, results {} ({} of them failed), results not seen here {}", a.frames, a.results, a.failed, a.results_unseen),
            format!(
                "frames without a result: {} while inference was away, {} whose camera was killed first, \
                 {} else, of {} that inference counts as missed",
                a.inference_away, a.camera_killed, a.unanswered, a.missed
            ),
            format!("records written {}", a.records),
            String::new(),
            format!("{:<22}{:>6}{:>9}{:>9}{:>9}{:>10}", "growth within a life", "lives", "longest", "fds", "threads", "RSS KiB"),
        ]);
        lines.extend(self.growth.iter().map(|(role, growth)| {
            let Growth { lives, longest_ns, fds, threads, rss_kib } = growth;
            let seconds = longest_ns / SECOND_NS;
            format!("{role:<22}{lives:>6}{seconds:>8}s{fds:>9}{threads:>9}{rss_kib:>10}")
        }));
        lines.push(String::new());
        lines.extend(
            self.aims().iter().map(|(reached, aim)| {
                format!("{} {aim}", if *reached { "ok    " } else { "MISSED" })
            }),
        );
        let troubles = self.log.troubles();
        let examples = [
            &self.log.torn,
            &self.log.errors,
            &self.log.contradictions,
            &self.leftovers,
            &troubles,
            if self.account.unexplained() > 0 { &self.account.examples } else { &Vec::new() },
        ];
        let examples = examples.into_iter().flatten();
        lines.extend(examples.take(10).map(|example| format!("       {example}")));
        lines.extend(self.wrong_end.iter().cloned());
        lines.join("\n")
    }

    pub(crate) fn json(&self) -> Value {
        let aims = self.aims();
        let shm = |shm: Shm| json!({ "files": shm.files, "bytes": shm.bytes });
        json!({
            "seed": self.seed,
            "seconds": self.seconds,
            "reached": self.reached(),
            "aims": aims.iter().map(|(reached, aim)| json!({ "reached": reached, "aim": aim }))
                .collect::<Vec<_>>(),
            "recovery": self.recoveries().iter().map(Recovery::json).collect::<Vec<_>>(),
            "frames": self.account.frames,
            "results": self.account.results,
            "results_failed": self.account.failed,
            "results_twice": self.account.twice,
            "unanswered": {
                "inference_away": self.account.inference_away,
                "camera_killed": self.account.camera_killed,
                "else": self.account.unanswered,
                "missed": self.account.missed,
                "unexplained": self.account.unexplained(),
                "examples": self.account.examples.iter().take(20).collect::<Vec<_>>(),
            },
            "records": self.account.records,
            "torn": self.log.torn.len(),
            "shm": {
                "before": shm(self.shm_before), "most": shm(self.shm_most), "after": shm(self.shm_after),
            },
            "leftovers": self.leftovers,
            "errors": self.log.errors,
            "not_live": self.log.troubles(),
        })
    }
}

fn text(shm: Shm) -> String {
    format!("{} files, {:.1} MiB", shm.files, shm.bytes as f64 / f64::from(1 << 20))
}
