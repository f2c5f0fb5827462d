//! What the recorded frames say together.

use super::events::Track;
use super::merge::Merged;
use super::requests::{PARTS, Part, Parts, Request};
use super::timeline::Frame;
use crate::latency::{self, Latency};
use crate::stats::{CAPTURE_DROPS, Collector, INFER_DROPS};
use crate::table::{Column, causes, figure, fitted};
use framebus_types::{Counter, Outcome, Reason, Role, STAGES, Stage};
use std::collections::BTreeMap;

/// Frames that no result speaks of are counted by these only.
const UNSEEN: [Counter; 5] =
    [Counter::Undecoded, Counter::LostRate, Counter::LostMemory, Counter::LostBad, Counter::Missed];
/// Less than this share of the time between two stages is not worth a row.
const BETWEEN_MIN: f64 = 0.001;

/// Durations of a stage with their sum.
#[derive(Debug, Clone, Default)]
struct Sum {
    latency: Latency,
    ns: u64,
    count: u64,
}

impl Sum {
    fn record(&mut self, ns: u64) {
        self.latency.record(ns);
        self.ns += ns;
        self.count += 1;
    }
}

/// Where the time of frames went that a server answered.
#[derive(Debug, Default)]
struct Parted {
    sums: [Sum; PARTS],
    frames: u64,
}

impl Parted {
    fn record(&mut self, parts: &Parts) {
        self.frames += 1;
        for (sum, ns) in self.sums.iter_mut().zip(parts) {
            if let Some(ns) = ns {
                sum.record(*ns);
            }
        }
    }
}

/// One camera's frames.
#[derive(Debug, Default)]
struct Camera {
    ok: u64,
    detections: u64,
    /// By `outcome (reason)`.
    others: BTreeMap<(Outcome, Reason), u64>,
}

/// Counts frames as they come; its size does not grow with their number.
#[derive(Debug, Default)]
pub(super) struct Summary {
    stages: [Sum; STAGES],
    receive: Sum,
    /// Decoder to received.
    total: Sum,
    between: Sum,
    /// By the clients of a server and its averages.
    estimated: Parted,
    /// By the server's own trace.
    exact: Parted,
    is_aligned: bool,
    cameras: BTreeMap<String, Camera>,
    /// What every camera had lost when the recording began.
    before: BTreeMap<(String, usize), u64>,
}

impl Summary {
    /// Begins with what the processes have said so far.
    pub(super) fn new(health: &Collector) -> Self {
        let mut before = BTreeMap::new();
        for name in health.cameras() {
            for (index, counter) in UNSEEN.into_iter().enumerate() {
                before.insert((name.clone(), index), lost(health, &name, counter));
            }
        }
        Self { before, ..Self::default() }
    }

    /// Counts a frame.
    pub(super) fn add(&mut self, frame: &Frame<'_>) {
        if !self.cameras.contains_key(frame.camera) {
            self.cameras.insert(frame.camera.to_owned(), Camera::default());
        }
        let Some(camera) = self.cameras.get_mut(frame.camera) else { return };
        if frame.outcome != Outcome::Ok {
            *camera.others.entry((frame.outcome, frame.reason)).or_default() += 1;
            return;
        }
        camera.ok += 1;
        camera.detections += u64::from(frame.header.count);
        let times = &frame.header.times;
        let mut staged_ns = 0;
        for (sum, ns) in
            self.stages.iter_mut().zip(times.durations_ns()).take(Stage::Total as usize)
        {
            let ns = ns.unwrap_or(0);
            sum.record(ns);
            staged_ns += ns;
        }
        let receive_ns = frame.received_ns - times.result_ns;
        let total_ns = frame.received_ns - times.capture_ns;
        self.receive.record(receive_ns);
        self.total.record(total_ns);
        self.between.record(total_ns.saturating_sub(staged_ns + receive_ns));
        let nowhere = Track { pid: 0, tid: 0 };
        if let Some(request) = Request::of(frame.header, nowhere) {
            self.estimated.record(&request.estimate());
        }
    }

    /// Counts what the server's trace says: in place of what was estimated.
    pub(super) fn add_exact(&mut self, merged: &Merged) {
        self.is_aligned = merged.is_aligned;
        for (parts, frames) in &merged.exact {
            (0..*frames).for_each(|_| self.exact.record(parts));
        }
    }

    /// Frames that were recorded.
    pub(super) fn frames(&self) -> u64 {
        let of = |camera: &Camera| camera.ok + camera.others.values().sum::<u64>();
        self.cameras.values().map(of).sum()
    }

    /// Two tables: stages, and the cameras of these names.
    pub(super) fn text(&self, health: &Collector, names: &[String], width: usize) -> String {
        format!("{}\n\n{}", self.stages_text(width), self.cameras_text(health, names, width))
    }

    fn stages_text(&self, width: usize) -> String {
        let all_ns = self.total.ns.max(1) as f64;
        let stages = Stage::ALL.iter().zip(&self.stages).take(Stage::Total as usize);
        let mut rows: Vec<(String, &Sum, f64)> = Vec::new();
        for (stage, sum) in stages {
            rows.push((stage.as_str().to_owned(), sum, 1.0));
            if *stage == Stage::Inference {
                rows.extend(self.server_rows());
            }
        }
        rows.push(("receive".to_owned(), &self.receive, 1.0));
        if self.between.ns as f64 / all_ns >= BETWEEN_MIN {
            rows.push(("between".to_owned(), &self.between, 1.0));
        }
        rows.push(("total".to_owned(), &self.total, 1.0));
        let rows = rows.into_iter().map(|(name, sum, weight)| {
            let mut row = vec![name];
            row.extend(latency::figures(&sum.latency).map(|(_, ms)| figure(ms)));
            row.push(format!("{:.1} %", sum.ns as f64 * weight * 100.0 / all_ns));
            row
        });
        let columns = [
            Column::new("stage, ms", 0),
            Column::new(">p50", 0),
            Column::new(">p90", 2),
            Column::new(">p99", 1),
            Column::new(">max", 2),
            Column::new(">share", 1),
        ];
        fitted(&columns, rows.collect(), width)
    }

    /// What `inference` consists of where a server answered: by its own trace, else
    /// estimated. With the weight of each row: a trace may speak of some frames only,
    /// which stand for all.
    fn server_rows(&self) -> Vec<(String, &Sum, f64)> {
        let is_exact = self.exact.frames > 0;
        let parted = if is_exact { &self.exact } else { &self.estimated };
        let weight = self.estimated.frames as f64 / parted.frames.max(1) as f64;
        let name = |part: Part| match part {
            Part::Send | Part::Answer if is_exact && self.is_aligned => {
                format!("  {} (clock aligned)", part.as_str())
            }
            part if is_exact => format!("  {}", part.as_str()),
            part => format!("  {}", part.estimated()),
        };
        let rows = Part::ALL.into_iter().zip(&parted.sums).filter(|(_, sum)| sum.count > 0);
        rows.map(|(part, sum)| (name(part), sum, weight)).collect()
    }

    fn cameras_text(&self, health: &Collector, names: &[String], width: usize) -> String {
        let none = Camera::default();
        let rows = names.iter().map(|name| {
            let camera = self.cameras.get(name).unwrap_or(&none);
            let others: Vec<String> = camera
                .others
                .iter()
                .map(|((outcome, reason), n)| match reason {
                    Reason::None => format!("{outcome} {n}"),
                    reason => format!("{outcome} ({reason}) {n}"),
                })
                .collect();
            let others = if others.is_empty() { causes(&[]) } else { others.join(", ") };
            vec![
                name.clone(),
                camera.ok.to_string(),
                camera.detections.to_string(),
                others,
                causes(&self.unseen(health, name)),
            ]
        });
        let columns = [
            Column::new("camera", 0),
            Column::new(">ok", 0),
            Column::new(">detections", 2),
            Column::new("other outcomes", 1).least(14),
            Column::new("never seen by inference", 1).least(23),
        ];
        fitted(&columns, rows.collect(), width)
    }

    /// Frames since the beginning that no result speaks of, by cause.
    fn unseen(&self, health: &Collector, name: &str) -> Vec<(&'static str, u64)> {
        let word = |counter: Counter| {
            let all = CAPTURE_DROPS.iter().chain(&INFER_DROPS);
            all.clone().find(|(known, _)| *known == counter).map_or("lost", |(_, word)| *word)
        };
        let since = |(index, counter): (usize, Counter)| {
            let before = self.before.get(&(name.to_owned(), index)).copied().unwrap_or(0);
            (word(counter), lost(health, name, counter).saturating_sub(before))
        };
        UNSEEN.into_iter().enumerate().map(since).filter(|(_, n)| *n > 0).collect()
    }
}

/// A counter over the processes of a camera.
fn lost(health: &Collector, name: &str, counter: Counter) -> u64 {
    let roles = [Role::Capture, Role::InferCamera];
    roles.iter().filter_map(|role| health.track(*role, name)).map(|t| t.total(counter)).sum()
}
