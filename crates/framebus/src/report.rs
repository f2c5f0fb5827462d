//! What `up`, `status` and `top` say of cameras and processes.

use crate::latency::{self, Latency};
use crate::stats::{CAPTURE_DROPS, Collector, INFER_DROPS, Track, camera_state};
use crate::table::{Column, NONE, causes, figure, fits, fitted, pair, size};
use framebus_types::{Counter, Detection, Role, Stage, State, text};
use std::fmt::Write;

/// A camera as all processes together see it.
pub(crate) struct Camera<'a> {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) capture: Option<&'a Track>,
    pub(crate) infer: Option<&'a Track>,
}

impl<'a> Camera<'a> {
    pub(crate) fn new(collector: &'a Collector, name: &str, now_ns: u64) -> Self {
        let capture = collector.track(Role::Capture, name);
        let infer = collector.track(Role::InferCamera, name);
        let (state, reason) = camera_state(collector, name, now_ns);
        Self { name: name.to_owned(), state, reason, capture, infer }
    }

    pub(crate) fn size(&self) -> String {
        self.capture.map_or_else(|| size(0, 0), |t| size(t.latest().width, t.latest().height))
    }

    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let mut drops = self.capture.map_or_else(Vec::new, |track| track.drops(&CAPTURE_DROPS));
        drops.extend(self.infer.map_or_else(Vec::new, |track| track.drops(&INFER_DROPS)));
        drops
    }

    pub(crate) fn fps_in(&self) -> Option<f64> {
        self.capture.and_then(|track| track.rate(Counter::Published))
    }

    pub(crate) fn fps_out(&self) -> Option<f64> {
        self.infer.and_then(|track| track.rate(Counter::Ok))
    }

    /// Durations of a stage over the last seconds, the total being the age of
    /// results when they are published. The inference process counts those of
    /// answered frames, capture its own stage of every frame.
    pub(crate) fn latency(&self, stage: Stage) -> Latency {
        let of = |track: &Track| track.latency(stage);
        let inferred = self.infer.map(of).filter(|latency| latency.max_ms().is_some());
        inferred.or_else(|| self.capture.map(of)).unwrap_or_default()
    }

    /// As [`latency`](Self::latency), since the start of the instance.
    fn total_latency(&self, stage: Stage) -> Latency {
        let of = |track: &Track| track.total_latency(stage);
        let inferred = self.infer.map(of).filter(|latency| latency.max_ms().is_some());
        inferred.or_else(|| self.capture.map(of)).unwrap_or_default()
    }

    fn state_text(&self) -> String {
        state_text(self.state, &self.reason)
    }

    fn row(&self) -> Vec<String> {
        let age = self.latency(Stage::Total);
        vec![
            self.name.clone(),
            self.state.to_string(),
            self.size(),
            figure(self.fps_in()),
            figure(self.fps_out()),
            pair(age.quantile_ms(0.5), age.quantile_ms(0.99)),
            causes(&self.drops()),
        ]
    }

    /// One line for a log.
    pub(crate) fn line(&self) -> String {
        let age = self.latency(Stage::Total);
        format!(
            "{}: {}, {}, {} fps in, {} fps out, age p50/p99 {} ms, drops: {}",
            self.name,
            self.state_text(),
            self.size(),
            figure(self.fps_in()),
            figure(self.fps_out()),
            pair(age.quantile_ms(0.5), age.quantile_ms(0.99)),
            causes(&self.drops())
        )
    }
}

/// `offline (connection refused)`, first line only.
pub(crate) fn state_text(state: State, reason: &str) -> String {
    match reason.lines().next().filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("{state} ({reason})"),
        None => state.to_string(),
    }
}

/// Cameras, one row each, and below them the reasons of their states; `stages`
/// adds the median of each stage where there is room for all of them.
pub(crate) fn cameras(
    collector: &Collector,
    names: &[String],
    now_ns: u64,
    stages: bool,
    width: usize,
) -> String {
    let mut reasons = String::new();
    let cameras = names.iter().map(|name| {
        let camera = Camera::new(collector, name, now_ns);
        if let Some(reason) = camera.reason.lines().next() {
            let _ = write!(reasons, "\n{name}: {reason}");
        }
        camera
    });
    let cameras: Vec<Camera<'_>> = cameras.collect();
    let titles = Stage::ALL.map(|stage| format!(">{}", stage.as_str()));
    let laid = |stages: &[Stage]| {
        let mut columns = vec![
            Column::new("camera", 0),
            Column::new("state", 0),
            Column::new("size", 5),
            Column::new(">fps in", 3),
            Column::new(">fps out", 2),
            Column::new(">age p50/p99 ms", 1),
            Column::new("drops", 4).least(12),
        ];
        let at = columns.len() - 1;
        let title = |stage: &Stage| Column::new(&titles[*stage as usize], 0);
        columns.splice(at..at, stages.iter().map(title));
        let row = |camera: &Camera<'_>| {
            let mut row = camera.row();
            let median = |stage: &Stage| figure(camera.latency(*stage).quantile_ms(0.5));
            row.splice(at..at, stages.iter().map(median));
            row
        };
        (columns, cameras.iter().map(row).collect::<Vec<_>>())
    };
    // The total is the age already.
    let (wide, all) = laid(&Stage::ALL[..Stage::Total as usize]);
    let table = if stages && fits(&wide, &all, width) {
        fitted(&wide, all, width)
    } else {
        let (columns, rows) = laid(&[]);
        fitted(&columns, rows, width)
    };
    table + &reasons
}

/// Where the milliseconds of the last seconds went: a block for all cameras
/// together, or one for each.
pub(crate) fn stages(collector: &Collector, names: &[String], each: bool, width: usize) -> String {
    let cameras: Vec<Camera<'_>> =
        names.iter().map(|name| Camera::new(collector, name, 0)).collect();
    if each || cameras.len() == 1 {
        let block = |camera: &Camera<'_>| {
            latency::block(&camera.name, |stage| camera.latency(stage), width)
        };
        return cameras.iter().map(block).collect::<Vec<_>>().join("\n\n");
    }
    let all = |stage| {
        let mut sum = Latency::default();
        cameras.iter().for_each(|camera| sum.merge(&camera.latency(stage)));
        sum
    };
    latency::block("all", all, width)
}

/// `engine: yolov8n on …`: model, device, mode, contexts, precision and shapes as
/// the inference process describes them; why not, when it is not well.
pub(crate) fn engine(collector: &Collector, now_ns: u64) -> Option<String> {
    let track = collector.track(Role::Infer, "infer")?;
    let (state, reason) = collector.process_state(Role::Infer, "infer", now_ns)?;
    let detail = crate::out::plain(text::unpack(&track.latest().detail));
    Some(match (state, detail.as_str()) {
        (State::Live, detail) if !detail.is_empty() => format!("engine: {detail}"),
        (_, "") => format!("engine: {}", state_text(state, &reason)),
        (_, detail) => format!("engine: {}; {detail}", state_text(state, &reason)),
    })
}

/// The account at the end: what came, what became of it, how long it took.
pub(crate) fn account(collector: &Collector, names: &[String], width: usize) -> String {
    let cameras: Vec<Camera<'_>> =
        names.iter().map(|name| Camera::new(collector, name, 0)).collect();
    let total = |track: Option<&Track>, counter| track.map_or(0, |track| track.total(counter));
    let counts = cameras.iter().map(|camera| {
        let (capture, infer) = (camera.capture, camera.infer);
        // What policy skips is not dropped; it shows among the causes.
        let dropped: u64 =
            [Counter::Superseded, Counter::Stale].map(|counter| total(infer, counter)).iter().sum();
        let published = total(capture, Counter::Published);
        let share = total(capture, Counter::ZeroCopy) as f64 * 100.0 / published.max(1) as f64;
        let rate =
            |track: Option<&Track>, counter| figure(track.and_then(|t| t.total_rate(counter)));
        vec![
            camera.name.clone(),
            camera.size(),
            published.to_string(),
            total(infer, Counter::Ok).to_string(),
            dropped.to_string(),
            total(infer, Counter::Failed).to_string(),
            total(infer, Counter::Detections).to_string(),
            rate(capture, Counter::Published),
            rate(infer, Counter::Ok),
            if published == 0 { NONE.to_owned() } else { format!("{share:.0} %") },
            causes(&{
                let mut drops = camera.drops();
                // Sent while the inference process loaded its model, was being
                // restarted, or had already been stopped.
                let seen = total(infer, Counter::Taken) + total(infer, Counter::Missed);
                let unseen = published.saturating_sub(seen);
                drops.extend((unseen > 0).then_some(("no reader", unseen)));
                drops
            }),
        ]
    });
    let columns = [
        Column::new("camera", 0),
        Column::new("size", 7),
        Column::new(">frames", 0),
        Column::new(">ok", 0),
        Column::new(">dropped", 2),
        Column::new(">failed", 2),
        Column::new(">detections", 4),
        Column::new(">fps in", 5),
        Column::new(">fps out", 3),
        Column::new(">zero-copy", 6),
        Column::new("drops by cause", 0),
    ];
    let mut rows: Vec<Vec<String>> = counts.collect();
    let mut text = if fits(&columns, &rows, width) {
        fitted(&columns, rows, width)
    } else {
        // Causes are for reading in full: below the table.
        let causes: Vec<String> = rows.iter_mut().filter_map(Vec::pop).collect();
        let mut text = fitted(&columns[..columns.len() - 1], rows, width);
        for (camera, causes) in cameras.iter().zip(causes).filter(|(_, causes)| causes != NONE) {
            let _ = write!(text, "\n{}: {causes}", camera.name);
        }
        text
    };
    text.push_str("\n\n");
    text.push_str(&latencies(&cameras, width));
    text
}

/// Stages of all frames: a row for each camera where there is room, a block
/// otherwise.
fn latencies(cameras: &[Camera<'_>], width: usize) -> String {
    let titles = Stage::ALL.map(|stage| format!(">{}", stage.as_str()));
    let mut columns = vec![Column::new("latency p50/p99 ms", 0)];
    columns.extend(titles.iter().map(|title| Column::new(title, 0)));
    let rows = cameras.iter().map(|camera| {
        let mut row = vec![camera.name.clone()];
        row.extend(Stage::ALL.map(|stage| {
            let latency = camera.total_latency(stage);
            pair(latency.quantile_ms(0.5), latency.quantile_ms(0.99))
        }));
        row
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if fits(&columns, &rows, width) {
        return fitted(&columns, rows, width);
    }
    let block = |camera: &Camera<'_>| {
        latency::block(&camera.name, |stage| camera.total_latency(stage), width)
    };
    let blocks: Vec<String> = cameras.iter().map(block).collect();
    format!("latency, ms:\n{}", blocks.join("\n"))
}

/// `4 person, 1 bus`; strongest class count first.
pub(crate) fn counts(detections: &[Detection]) -> String {
    if detections.is_empty() {
        return "nothing".to_owned();
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for found in detections {
        match counts.iter_mut().find(|(label, _)| *label == found.label()) {
            Some((_, count)) => *count += 1,
            None => counts.push((found.label(), 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let parts: Vec<String> =
        counts.iter().map(|(label, n)| format!("{n} {}", crate::out::plain(label))).collect();
    parts.join(", ")
}

/// `person 0.90 [49 398 245 903], …`: score and corners in pixels.
pub(crate) fn boxes(detections: &[Detection]) -> String {
    let one = |found: &Detection| {
        let [left, top, right, bottom] = found.bbox.map(|edge| edge.round());
        let label = crate::out::plain(found.label());
        format!("{label} {:.2} [{left} {top} {right} {bottom}]", found.score)
    };
    detections.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::Health;

    fn health(
        role: Role,
        name: &str,
        state: State,
        reason: &str,
        set: &[(Counter, u64)],
    ) -> Health {
        let mut health = Health {
            role: role.into(),
            name: text::pack(name),
            state: state.into(),
            reason: text::pack(reason),
            updated_ns: 1,
            width: 1920,
            height: 1080,
            ..Health::default()
        };
        for (counter, value) in set {
            health.counters[*counter as usize] = *value;
        }
        health
    }

    #[test]
    fn the_account_reconciles() {
        let mut collector = Collector::default();
        let captured = [(Counter::Published, 14), (Counter::ZeroCopy, 9), (Counter::LostRate, 2)];
        collector.add(&health(Role::Capture, "front", State::Ended, "", &captured));
        let inferred = [
            (Counter::Taken, 9),
            (Counter::Ok, 6),
            (Counter::Stale, 1),
            (Counter::Skipped, 2),
            (Counter::Missed, 3),
        ];
        collector.add(&health(Role::InferCamera, "front", State::Live, "", &inferred));
        let text = account(&collector, &["front".to_owned()], usize::MAX);
        let row: Vec<&str> =
            text.lines().nth(1).expect("a row").split("  ").filter(|w| !w.is_empty()).collect();
        let row: Vec<&str> = row.iter().map(|cell| cell.trim()).collect();
        assert_eq!(
            row,
            [
                "front",
                "1920x1080",
                "14",
                "6",
                "1",
                "0",
                "0",
                "-",
                "-",
                "64 %",
                "rate 2, missed 3, stale 1, skipped 2, no reader 2"
            ]
        );
    }

    #[test]
    fn the_account_fits_a_narrow_terminal_and_keeps_its_causes() {
        let mut collector = Collector::default();
        let captured =
            [(Counter::Published, 1_000_000), (Counter::Undecoded, 70), (Counter::LostRate, 2)];
        collector.add(&health(Role::Capture, "front", State::Ended, "", &captured));
        let inferred = [(Counter::Ok, 6), (Counter::Stale, 1), (Counter::Skipped, 30)];
        collector.add(&health(Role::InferCamera, "front", State::Live, "", &inferred));
        let text = account(&collector, &["front".to_owned()], 80);
        assert!(text.lines().all(|line| line.trim_end().chars().count() <= 80), "{text}");
        let causes = "front: undecoded 70, rate 2, stale 1, skipped 30, no reader 1000000";
        assert!(text.lines().any(|line| line == causes), "{text}");
        assert!(text.contains("p99") && text.contains("preprocess"), "{text}");
    }

    #[test]
    fn the_engine_says_what_it_is_or_why_it_is_not() {
        let mut collector = Collector::default();
        assert_eq!(engine(&collector, 1), None);
        collector.add(&health(Role::Infer, "infer", State::Starting, "loading the model", &[]));
        let said = engine(&collector, 1).expect("known");
        assert_eq!(said, "engine: starting (loading the model)");
        let mut live = health(Role::Infer, "infer", State::Live, "", &[]);
        live.updated_ns = 2;
        live.detail = text::pack("yolov8n, latency, 1 context");
        collector.add(&live);
        assert_eq!(engine(&collector, 2).expect("known"), "engine: yolov8n, latency, 1 context");
    }

    #[test]
    fn the_supervisor_overrules_a_process_that_is_gone() {
        let mut collector = Collector::default();
        collector.add(&health(Role::Capture, "a", State::Live, "", &[]));
        assert_eq!(Camera::new(&collector, "a", 1).state, State::Live);
        collector.add(&health(Role::Child, "capture:a", State::Offline, "killed", &[]));
        let camera = Camera::new(&collector, "a", 1);
        assert_eq!((camera.state, camera.reason.as_str()), (State::Offline, "killed"));
        collector.add(&health(Role::Infer, "infer", State::Live, "", &[]));
        collector.add(&health(Role::InferCamera, "b", State::Degraded, "x", &[]));
        collector.add(&health(Role::Capture, "b", State::Live, "", &[]));
        let camera = Camera::new(&collector, "b", 1);
        assert_eq!((camera.state, camera.reason.as_str()), (State::Degraded, "inference: x"));
        let mut dead = health(Role::Child, "infer", State::Offline, "killed", &[]);
        dead.updated_ns = 9_000_000_000;
        collector.add(&dead);
        let mut fresh = health(Role::Capture, "b", State::Live, "", &[]);
        fresh.updated_ns = dead.updated_ns;
        collector.add(&fresh);
        let camera = Camera::new(&collector, "b", dead.updated_ns);
        assert_eq!((camera.state, camera.reason.as_str()), (State::Stalled, "inference: killed"));
        // A supervisor that is silent knows nothing any more; the processes do.
        fresh.updated_ns += 9_000_000_000;
        collector.add(&fresh);
        assert!(collector.unwell_child("infer", "", fresh.updated_ns).is_none());
    }

    #[test]
    fn detections_read_well() {
        let found = |label: &str, score| Detection {
            label: text::pack(label),
            score,
            bbox: [1.4, 2.0, 30.6, 40.0],
            ..Detection::default()
        };
        let all = [found("bus", 0.9), found("person", 0.8), found("person", 0.7)];
        assert_eq!(counts(&all), "2 person, 1 bus");
        assert_eq!(counts(&[]), "nothing");
        assert_eq!(boxes(&all[..1]), "bus 0.90 [1 2 31 40]");
    }
}
