//! What results say, collected in windows of time.

use super::super::numbers::{Summary, rate};
use framebus_bus::ResultSample;
use framebus_types::{Outcome, Reason, STAGES};

/// Frames of which every figure is kept; of more only the number is.
const SAMPLES_MAX: usize = 4_000_000;

/// One inferred frame; times in ms, NaN for a stage that it did not pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) stages: [f32; STAGES],
    /// Frame published → result published.
    pub(super) latency: f32,
    /// `latency` over the time that the network took.
    pub(super) ratio: f32,
    /// Frame left the decoder → result received here.
    pub(super) age: f32,
}

/// What became of frames that were not inferred, and of those that were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) ok: u64,
    pub(super) skipped: u64,
    pub(super) superseded: u64,
    pub(super) stale: u64,
    pub(super) failed: u64,
    /// Overwritten on the bus.
    pub(super) missed: u64,
}

impl Outcomes {
    /// Frames that should have been inferred and were not, of all; skipped ones are
    /// policy.
    pub(super) fn drop_share(&self) -> f64 {
        let dropped = self.superseded + self.stale + self.failed + self.missed;
        let all = dropped + self.ok + self.skipped;
        if all == 0 { 0.0 } else { dropped as f64 / all as f64 }
    }

    /// All frames that something became of.
    pub(super) fn sum(&self) -> u64 {
        let Self { ok, skipped, superseded, stale, failed, missed } = *self;
        ok + skipped + superseded + stale + failed + missed
    }

    pub(super) fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.skipped += other.skipped;
        self.superseded += other.superseded;
        self.stale += other.stale;
        self.failed += other.failed;
        self.missed += other.missed;
    }
}

/// One camera.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) samples: Vec<Sample>,
    pub(super) outcomes: Outcomes,
    /// First and last sequence number of the window, and how many came.
    span: Option<(u64, u64, u64)>,
}

impl Track {
    /// The quantiles of one figure of all samples.
    pub(super) fn summary(&self, figure: impl Fn(&Sample) -> f32) -> Option<Summary> {
        summary([self], figure)
    }
}

/// The quantiles of one figure over several cameras.
pub(super) fn summary<'a>(
    tracks: impl IntoIterator<Item = &'a Track>,
    figure: impl Fn(&Sample) -> f32,
) -> Option<Summary> {
    let samples = tracks.into_iter().flat_map(|track| &track.samples);
    let values = samples.map(|sample| f64::from(figure(sample)));
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    Summary::of(&mut values)
}

/// Takes every result; keeps those of frames that were published within a window.
#[derive(Debug)]
pub(super) struct Recorder {
    cameras: Vec<String>,
    pub(super) tracks: Vec<Track>,
    /// Start and end, CLOCK_MONOTONIC ns; `None` between windows.
    window: Option<(u64, u64)>,
    /// When results of the window were published, ns.
    ends_ns: Vec<u64>,
    /// Results `ok` of each camera since the start, inside and outside of windows.
    pub(super) seen: Vec<u64>,
    /// When the last result was received, ns.
    pub(super) last_ns: u64,
    kept: usize,
}

impl Recorder {
    pub(super) fn new(cameras: &[String]) -> Self {
        Self {
            cameras: cameras.to_vec(),
            tracks: cameras.iter().map(|_| Track::default()).collect(),
            window: None,
            ends_ns: Vec::new(),
            seen: vec![0; cameras.len()],
            last_ns: 0,
            kept: 0,
        }
    }

    /// Begins a window; the one before is settled.
    pub(super) fn open(&mut self, start_ns: u64) {
        self.settle();
        self.window = Some((start_ns, u64::MAX));
        self.ends_ns.clear();
    }

    /// Ends it. Results of its frames may still come, and count.
    pub(super) fn close(&mut self, end_ns: u64) {
        if let Some((_, end)) = &mut self.window {
            *end = end_ns;
        }
        self.ends_ns.retain(|ns| *ns <= end_ns);
    }

    /// Counts what is missing in the window: after it, nothing more comes.
    pub(super) fn settle(&mut self) {
        self.window = None;
        for track in &mut self.tracks {
            if let Some((first, last, count)) = track.span.take() {
                track.outcomes.missed += (last - first + 1).saturating_sub(count);
            }
        }
    }

    /// Results `ok` a second of the window, and how many they were.
    pub(super) fn rate(&mut self) -> (Option<f64>, usize) {
        (rate(&mut self.ends_ns), self.ends_ns.len())
    }

    pub(super) fn take(&mut self, result: &ResultSample, received_ns: u64) {
        let Some(camera) = self.cameras.iter().position(|name| name == result.camera()) else {
            return;
        };
        self.last_ns = received_ns;
        let (header, outcome) = (result.header(), result.outcome());
        let times = &header.times;
        if outcome == Outcome::Ok {
            self.seen[camera] += 1;
        }
        let Some((start_ns, end_ns)) = self.window else { return };
        if outcome == Outcome::Ok && (start_ns..=end_ns).contains(&times.result_ns) {
            self.ends_ns.push(times.result_ns);
        }
        if !(start_ns..end_ns).contains(&times.publish_ns) {
            return;
        }
        let track = &mut self.tracks[camera];
        let span = track.span.get_or_insert((header.sequence, header.sequence, 0));
        span.0 = span.0.min(header.sequence);
        span.1 = span.1.max(header.sequence);
        span.2 += 1;
        let outcomes = &mut track.outcomes;
        *match (outcome, result.reason()) {
            (Outcome::Ok, _) => &mut outcomes.ok,
            (Outcome::Skipped, _) => &mut outcomes.skipped,
            (Outcome::Dropped, Reason::Stale) => &mut outcomes.stale,
            (Outcome::Dropped, _) => &mut outcomes.superseded,
            (Outcome::Failed, _) => &mut outcomes.failed,
        } += 1;
        if outcome != Outcome::Ok || self.kept >= SAMPLES_MAX {
            return;
        }
        self.kept += 1;
        let ms = |ns: u64| (ns as f64 / 1e6) as f32;
        let latency = ms(times.result_ns.saturating_sub(times.publish_ns));
        let network = ms(times.inference_end_ns.saturating_sub(times.inference_start_ns));
        track.samples.push(Sample {
            stages: times.durations_ns().map(|stage| stage.map_or(f32::NAN, ms)),
            latency,
            ratio: latency / network,
            age: ms(received_ns.saturating_sub(times.capture_ns)),
        });
    }

    /// Outcomes of all cameras.
    pub(super) fn outcomes(&self) -> Outcomes {
        self.tracks.iter().fold(Outcomes::default(), |mut sum, track| {
            sum.add(track.outcomes);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_policy_skips_is_not_dropped() {
        let outcomes =
            Outcomes { ok: 80, skipped: 10, superseded: 4, stale: 3, failed: 2, missed: 1 };
        assert_eq!(outcomes.drop_share(), 0.1);
        assert_eq!(Outcomes::default().drop_share(), 0.0);
    }

    #[test]
    fn gaps_in_a_window_are_missed_frames() {
        let mut recorder = Recorder::new(&["a".to_owned()]);
        recorder.tracks[0].span = Some((10, 19, 8));
        recorder.settle();
        recorder.settle();
        assert_eq!(recorder.outcomes().missed, 2);
    }
}
