//! Whether every frame has exactly one result, or a reason for having none.

use crate::inject::{Fault, SECOND_NS, Target};
use crate::pattern::CAMERAS;
use crate::watch::{Answer, Frame, Log};
use framebus_types::{Counter, Outcome, Role};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A frame that was published so long before its camera or the inference process was
/// killed may not have been taken or answered yet, and that it was overwritten may not
/// have been said yet: health records come once a second. On a machine that stands still
/// meanwhile it is longer, see [`on_the_way_ns`].
const ON_THE_WAY_NS: u64 = SECOND_NS;
/// Inference answers all cameras again within so long after it answered the first.
const ALL_BACK_NS: u64 = SECOND_NS;

/// Where the frames and results went.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Frames that were published and seen here.
    pub(crate) frames: usize,
    /// Results that were seen here.
    pub(crate) results: usize,
    /// Those with outcome `failed`: what an inference process had when it was killed.
    pub(crate) failed: usize,
    /// Results beyond the first of a frame.
    pub(crate) twice: usize,
    /// Results that were published and not seen here.
    pub(crate) results_unseen: u64,
    /// Frames without a result: inference was away, or was killed with them.
    pub(crate) inference_away: u64,
    /// Frames without a result: their camera was killed before they were taken.
    pub(crate) camera_killed: u64,
    /// Frames without a result at all other times.
    pub(crate) unanswered: u64,
    /// Which these were, and which fault came before and after them.
    pub(crate) examples: Vec<String>,
    /// Frames that inference says were overwritten before it took them.
    pub(crate) missed: u64,
    /// Records in the sink's file.
    pub(crate) records: usize,
    /// Lines of it that are no whole record.
    pub(crate) broken: usize,
    /// Records beyond the first of a frame.
    pub(crate) records_twice: usize,
    /// Records of results that nobody published.
    pub(crate) records_made_up: usize,
}

impl Account {
    /// Frames that nothing explains.
    pub(crate) fn unexplained(&self) -> u64 {
        self.unanswered.saturating_sub(self.missed + self.results_unseen)
    }
}

type Key = (usize, u64, u64);

/// Adds everything up.
pub(crate) fn account(log: &Log, faults: &[Fault], records: &Path) -> Account {
    let mut account = Account::default();
    let mut answered: BTreeSet<Key> = BTreeSet::new();
    let mut numbers: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    for answer in &log.answers {
        account.results += 1;
        account.failed += usize::from(answer.outcome == Outcome::Failed);
        if !answered.insert((answer.camera, answer.epoch_ns, answer.sequence)) {
            account.twice += 1;
        }
        let number = answer.result_sequence;
        let (first, last, count) =
            numbers.entry(answer.result_epoch_ns).or_insert((number, number, 0));
        (*first, *last, *count) = ((*first).min(number), (*last).max(number), *count + 1);
    }
    // A repeated number would make it negative; the duplicates are counted above.
    account.results_unseen = numbers
        .values()
        .map(|(first, last, count)| (last - first + 1).saturating_sub(*count))
        .sum();

    let within = |at_ns: u64, windows: &[(u64, u64)]| {
        windows.iter().any(|&(from_ns, to_ns)| (from_ns..=to_ns).contains(&at_ns))
    };
    // Before the first and after the last result nobody was there to answer.
    let times = log.answers.iter().map(|answer| answer.result_ns);
    let (first_ns, last_ns) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    let there_ns = first_ns + ALL_BACK_NS..last_ns.saturating_sub(ON_THE_WAY_NS);
    for (camera, frames) in log.frames.iter().enumerate() {
        let published: BTreeMap<(u64, u64), u64> = frames
            .iter()
            .map(|frame| ((frame.epoch_ns, frame.sequence), frame.publish_ns))
            .collect();
        let from_ns = |fault: &Fault| on_the_way_ns(fault, camera, &published, &log.answers);
        let away: Vec<(u64, u64)> = faults
            .iter()
            .filter(|fault| matches!(fault.target, Target::Infer | Target::Up))
            .map(|fault| {
                let back_ns = fault.back_ns.map_or(u64::MAX, |back_ns| back_ns + ALL_BACK_NS);
                (from_ns(fault), back_ns)
            })
            .collect();
        let killed: Vec<(u64, u64)> = faults
            .iter()
            .filter(|fault| fault.target == Target::Capture(camera) && fault.is_kill())
            .map(|fault| (from_ns(fault), fault.start_ns))
            .collect();
        for frame in frames {
            account.frames += 1;
            let answered = answered.contains(&(camera, frame.epoch_ns, frame.sequence));
            if answered || !there_ns.contains(&frame.publish_ns) {
                continue;
            }
            if within(frame.publish_ns, &away) {
                account.inference_away += 1;
            } else if within(frame.publish_ns, &killed) {
                account.camera_killed += 1;
            } else {
                account.unanswered += 1;
                account.examples.push(describe(camera, frame, faults));
            }
        }
    }
    let inference =
        log.health.iter().filter(|((role, ..), _)| *role == u32::from(Role::InferCamera));
    account.missed = inference.map(|(_, record)| record.counter(Counter::Missed)).sum();
    records_of(records, &answered, &mut account);
    account
}

/// Since when frames of a camera may have been lost with the process that `fault` hit:
/// those that were published after the newest one whose answer is older than
/// [`ON_THE_WAY_NS`].
fn on_the_way_ns(
    fault: &Fault,
    camera: usize,
    published: &BTreeMap<(u64, u64), u64>,
    answers: &[Answer],
) -> u64 {
    let from_ns = fault.start_ns.saturating_sub(ON_THE_WAY_NS);
    let before =
        answers.iter().rev().filter(|answer| answer.camera == camera && answer.result_ns < from_ns);
    let newest_ns = before
        .filter_map(|answer| published.get(&(answer.epoch_ns, answer.sequence)))
        .next()
        .copied();
    newest_ns.unwrap_or(from_ns).min(from_ns)
}

fn describe(camera: usize, frame: &Frame, faults: &[Fault]) -> String {
    let name = |fault: &Fault| {
        let seconds = (fault.start_ns as f64 - frame.publish_ns as f64) / SECOND_NS as f64;
        format!("{:?} {seconds:+.2} s", fault.target)
    };
    let after = faults.iter().filter(|fault| fault.start_ns > frame.publish_ns);
    let before = faults.iter().filter(|fault| fault.start_ns <= frame.publish_ns);
    let after = after.min_by_key(|fault| fault.start_ns).map(name);
    let before = before.max_by_key(|fault| fault.start_ns).map(name);
    let camera = CAMERAS[camera].name;
    format!("{camera} {} #{}: {before:?}, {after:?}", frame.epoch_ns, frame.sequence)
}

fn records_of(path: &Path, answered: &BTreeSet<Key>, account: &mut Account) {
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let Some(key) = key(line) else {
            account.broken += 1;
            continue;
        };
        account.records += 1;
        if !keys.insert(key) {
            account.records_twice += 1;
        }
        // The sink began before this reader and ended after it.
        let (camera, epoch_ns, _) = key;
        let seen_before = answered.range((camera, epoch_ns, 0)..key).next().is_some();
        let seen_after = answered.range(key..=(camera, epoch_ns, u64::MAX)).next().is_some();
        if seen_before && seen_after && !answered.contains(&key) {
            account.records_made_up += 1;
        }
    }
    // What was lost here may well have been written.
    let lost = account.results_unseen as usize;
    account.records_made_up = account.records_made_up.saturating_sub(lost);
}

fn key(line: &str) -> Option<Key> {
    let record: Value = serde_json::from_str(line).ok()?;
    let camera = CAMERAS.iter().position(|camera| record["camera"] == camera.name)?;
    Some((camera, record["epoch_ns"].as_u64()?, record["sequence"].as_u64()?))
}
