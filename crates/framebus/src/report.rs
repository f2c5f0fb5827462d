//! What `up`, `status` and `top` say of cameras and processes.

use crate::stats::{CAPTURE_DROPS, Collector, INFER_DROPS, Track};
use crate::supervisor::child_name;
use crate::table::{causes, figure, pair, size, table};
use framebus_types::{Counter, Detection, Role, Stage, State};
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
    /// The supervisor knows best when a process is not there, capture what its
    /// source does, inference whether frames can be used.
    pub(crate) fn new(collector: &'a Collector, name: &str, now_ns: u64) -> Self {
        let capture = collector.track(Role::Capture, name);
        let infer = collector.track(Role::InferCamera, name);
        let child = collector.track(Role::Child, &child_name("capture", name));
        let child =
            child.map(|track| track.state(now_ns)).filter(|(state, _)| *state != State::Live);
        let fault = |track: &Track| {
            let (state, reason) = track.state(now_ns);
            matches!(state, State::Degraded | State::Stalled | State::Offline)
                .then(|| (state, format!("inference: {reason}")))
        };
        let (state, reason) = match (child, capture.map(|track| track.state(now_ns))) {
            (Some(child), Some((_, why))) if child.1.is_empty() && !why.is_empty() => {
                (child.0, why)
            }
            (Some(child), _) => child,
            (None, Some((State::Live, why))) => infer.and_then(fault).unwrap_or((State::Live, why)),
            (None, Some(capture)) => capture,
            (None, None) => (State::Starting, String::new()),
        };
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

    /// Age of results when they are published, ms: median and 99th percentile.
    pub(crate) fn age_ms(&self) -> (Option<f64>, Option<f64>) {
        let age = |quantile| self.infer.and_then(|t| t.quantile_ms(Stage::Total, quantile));
        (age(0.5), age(0.99))
    }

    fn state_text(&self) -> String {
        state_text(self.state, &self.reason)
    }

    fn row(&self) -> Vec<String> {
        let (p50, p99) = self.age_ms();
        vec![
            self.name.clone(),
            self.state.to_string(),
            self.size(),
            figure(self.fps_in()),
            figure(self.fps_out()),
            pair(p50, p99),
            causes(&self.drops()),
        ]
    }

    /// One line for a log.
    pub(crate) fn line(&self) -> String {
        let (p50, p99) = self.age_ms();
        format!(
            "{}: {}, {}, {} fps in, {} fps out, age p50/p99 {} ms, drops: {}",
            self.name,
            self.state_text(),
            self.size(),
            figure(self.fps_in()),
            figure(self.fps_out()),
            pair(p50, p99),
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
/// adds the median of each stage.
pub(crate) fn cameras(
    collector: &Collector,
    names: &[String],
    now_ns: u64,
    stages: bool,
) -> String {
    /// Stages stand in front of the drops; the total is the age already.
    const AT: usize = 6;
    let stages = if stages { &Stage::ALL[..Stage::Total as usize] } else { &[] };
    let mut header =
        vec!["camera", "state", "size", ">fps in", ">fps out", ">age p50/p99 ms", "drops"];
    header.splice(AT..AT, stages.iter().map(|stage| stage.as_str()));
    let mut reasons = String::new();
    let rows = names.iter().map(|name| {
        let camera = Camera::new(collector, name, now_ns);
        if let Some(reason) = camera.reason.lines().next() {
            let _ = write!(reasons, "\n{name}: {reason}");
        }
        let mut row = camera.row();
        let median =
            |stage: &Stage| figure(camera.infer.and_then(|track| track.quantile_ms(*stage, 0.5)));
        row.splice(AT..AT, stages.iter().map(median));
        row
    });
    let table = table(&header, rows.collect());
    table + &reasons
}

/// The account at the end: what came, what became of it, how long it took.
pub(crate) fn account(collector: &Collector, names: &[String]) -> String {
    let cameras: Vec<Camera<'_>> =
        names.iter().map(|name| Camera::new(collector, name, 0)).collect();
    let total = |track: Option<&Track>, counter| track.map_or(0, |track| track.total(counter));
    let counts = cameras.iter().map(|camera| {
        let (capture, infer) = (camera.capture, camera.infer);
        let dropped: u64 = [Counter::Superseded, Counter::Stale, Counter::Skipped]
            .map(|counter| total(infer, counter))
            .iter()
            .sum();
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
            if published == 0 { crate::table::NONE.to_owned() } else { format!("{share:.0} %") },
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
    let mut text = table(
        &[
            "camera",
            "size",
            ">frames",
            ">ok",
            ">dropped",
            ">failed",
            ">detections",
            ">fps in",
            ">fps out",
            ">zero-copy",
            "drops by cause",
        ],
        counts.collect(),
    );
    let mut header = vec!["latency p50/p99 ms".to_owned()];
    header.extend(Stage::ALL.iter().map(|stage| format!(">{}", stage.as_str())));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let stages = cameras.iter().map(|camera| {
        let quantile = |stage: &Stage| {
            let of = |q| {
                let infer = camera.infer.and_then(|track| track.total_quantile_ms(*stage, q));
                infer.or_else(|| camera.capture.and_then(|t| t.total_quantile_ms(*stage, q)))
            };
            pair(of(0.5), of(0.99))
        };
        let mut row = vec![camera.name.clone()];
        row.extend(Stage::ALL.iter().map(quantile));
        row
    });
    let _ = write!(text, "\n\n{}", table(&header, stages.collect()));
    text
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
    use framebus_types::{Health, text};

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
        let captured = [(Counter::Published, 12), (Counter::ZeroCopy, 9), (Counter::LostRate, 2)];
        collector.add(&health(Role::Capture, "front", State::Ended, "", &captured));
        let inferred =
            [(Counter::Taken, 7), (Counter::Ok, 6), (Counter::Stale, 1), (Counter::Missed, 3)];
        collector.add(&health(Role::InferCamera, "front", State::Live, "", &inferred));
        let text = account(&collector, &["front".to_owned()]);
        let row: Vec<&str> =
            text.lines().nth(1).expect("a row").split("  ").filter(|w| !w.is_empty()).collect();
        let row: Vec<&str> = row.iter().map(|cell| cell.trim()).collect();
        assert_eq!(
            row,
            [
                "front",
                "1920x1080",
                "12",
                "6",
                "1",
                "0",
                "0",
                "-",
                "-",
                "75 %",
                "rate 2, missed 3, stale 1, no reader 2"
            ]
        );
    }

    #[test]
    fn the_supervisor_overrules_a_process_that_is_gone() {
        let mut collector = Collector::default();
        collector.add(&health(Role::Capture, "a", State::Live, "", &[]));
        assert_eq!(Camera::new(&collector, "a", 1).state, State::Live);
        collector.add(&health(Role::Child, "capture:a", State::Offline, "killed", &[]));
        let camera = Camera::new(&collector, "a", 1);
        assert_eq!((camera.state, camera.reason.as_str()), (State::Offline, "killed"));
        collector.add(&health(Role::InferCamera, "b", State::Degraded, "x", &[]));
        collector.add(&health(Role::Capture, "b", State::Live, "", &[]));
        let camera = Camera::new(&collector, "b", 1);
        assert_eq!((camera.state, camera.reason.as_str()), (State::Degraded, "inference: x"));
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
