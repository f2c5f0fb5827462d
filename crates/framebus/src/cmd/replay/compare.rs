//! Whether the model finds again what it found.

use super::player::Key;
use framebus_bus::ResultSample;
use framebus_types::{Detection, Outcome, Reason, ResultHeader, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// Differences that are shown.
const SHOWN: usize = 5;

/// A result as it is compared.
#[derive(Debug, Clone)]
struct Answer {
    outcome: Outcome,
    reason: Reason,
    truncated: u32,
    batch_size: u32,
    detections: Vec<Detection>,
}

impl Answer {
    fn new(header: &ResultHeader, mut detections: Vec<Detection>) -> Self {
        // Who is followed under which number, and with it who counts in a zone, depends on
        // the frames before the recording.
        detections.iter_mut().for_each(|found| (found.track, found.zones) = (0, 0));
        Self {
            outcome: Outcome::try_from(header.outcome).unwrap_or(Outcome::Failed),
            reason: Reason::try_from(header.reason).unwrap_or(Reason::None),
            truncated: header.truncated,
            batch_size: header.batch_size,
            detections,
        }
    }

    /// Bit by bit: two boxes that only print alike are two.
    fn is(&self, other: &Self) -> bool {
        self.truncated == other.truncated
            && bytemuck::cast_slice::<_, u8>(&self.detections)
                == bytemuck::cast_slice::<_, u8>(&other.detections)
    }

    fn shown(&self) -> String {
        match self.reason {
            Reason::None => self.outcome.to_string(),
            reason => format!("{} ({reason})", self.outcome),
        }
    }
}

/// Recorded and replayed results, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    recorded: HashMap<Key, Answer>,
    replayed: HashMap<Key, Answer>,
    pub(super) identical: u64,
    pub(super) different: u64,
    /// Of those that differ: in a batch of another size.
    other_batch: u64,
    /// Not inferred both times: what became of the frame then and now.
    uncompared: BTreeMap<(String, String), u64>,
    shown: Vec<String>,
    /// `model with backend`.
    recorded_by: BTreeSet<String>,
    replayed_by: BTreeSet<String>,
}

fn key(header: &ResultHeader) -> Key {
    (header.camera, header.epoch_ns, header.sequence)
}

fn by(header: &ResultHeader) -> String {
    crate::out::plain(&format!("{} with {}", header.model(), header.backend()))
}

impl Comparison {
    /// A result of the recording, of a frame that is replayed.
    pub(super) fn recorded(&mut self, header: &ResultHeader, detections: Vec<Detection>) {
        let answer = Answer::new(header, detections);
        if answer.outcome == Outcome::Ok {
            self.recorded_by.insert(by(header));
        }
        match self.replayed.remove(&key(header)) {
            Some(replayed) => self.judge(header, &answer, &replayed),
            None => {
                self.recorded.insert(key(header), answer);
            }
        }
    }

    /// A result of the replay.
    pub(super) fn replayed(&mut self, result: &ResultSample) {
        let header = result.header();
        let answer = Answer::new(header, result.detections().to_vec());
        if answer.outcome == Outcome::Ok {
            self.replayed_by.insert(by(header));
        }
        match self.recorded.remove(&key(header)) {
            Some(recorded) => self.judge(header, &recorded, &answer),
            None => {
                self.replayed.insert(key(header), answer);
            }
        }
    }

    fn judge(&mut self, header: &ResultHeader, recorded: &Answer, replayed: &Answer) {
        if (recorded.outcome, replayed.outcome) != (Outcome::Ok, Outcome::Ok) {
            let pair = (recorded.shown(), replayed.shown());
            *self.uncompared.entry(pair).or_default() += 1;
            return;
        }
        if recorded.is(replayed) {
            self.identical += 1;
            return;
        }
        self.different += 1;
        self.other_batch += u64::from(recorded.batch_size != replayed.batch_size);
        if self.shown.len() < SHOWN {
            let camera = crate::out::plain(text::unpack(&header.camera));
            self.shown.push(format!(
                "{camera} #{}: {}",
                header.sequence,
                difference(&recorded.detections, &replayed.detections)
            ));
        }
    }

    pub(super) fn json(&self) -> Value {
        let uncompared: Vec<Value> = self
            .uncompared
            .iter()
            .map(|((then, now), frames)| json!({"recorded": then, "replayed": now, "frames": frames}))
            .collect();
        json!({
            "identical": self.identical,
            "different": self.different,
            "different_in_another_batch_size": self.other_batch,
            "not_inferred_both_times": uncompared,
            "recorded_without_replayed": self.recorded.len(),
            "replayed_without_recorded": self.replayed.len(),
            "recorded_by": self.recorded_by,
            "replayed_by": self.replayed_by,
            "differences": self.shown,
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { identical, different, .. } = self;
        let mut text = format!(
            "compared: {} results: {identical} identical, {different} different\n",
            identical + different
        );
        let mut line = |words: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "  {words}");
        };
        self.shown.iter().for_each(|one| line(format_args!("{one}")));
        if self.different > self.shown.len() as u64 {
            line(format_args!("and {} more", self.different - self.shown.len() as u64));
        }
        if self.other_batch > 0 {
            line(format_args!(
                "{} of them were in a batch of another size, which may change the last bits",
                self.other_batch
            ));
        }
        for ((then, now), frames) in &self.uncompared {
            line(format_args!("not compared: {frames}: {then} when recorded, {now} now"));
        }
        for (what, results) in [
            ("recorded, and no result now", self.recorded.len()),
            ("no result in the recording", self.replayed.len()),
        ] {
            if results > 0 {
                line(format_args!("not compared: {results}: {what}"));
            }
        }
        let join = |names: &BTreeSet<String>| {
            names.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
        };
        let (then, now) = (join(&self.recorded_by), join(&self.replayed_by));
        if then == now {
            line(format_args!("both times {then}"));
        } else {
            line(format_args!("recorded: {then}; replayed: {now}"));
        }
        text
    }
}

/// In words, for one frame.
fn difference(then: &[Detection], now: &[Detection]) -> String {
    let labels = |found: &[Detection]| {
        let mut labels: Vec<String> =
            found.iter().map(|one| crate::out::plain(one.label())).collect();
        labels.sort();
        labels
    };
    if then.len() != now.len() {
        return format!("{} detections when recorded, {} now", then.len(), now.len());
    }
    if labels(then) != labels(now) {
        return format!("{} when recorded, {} now", labels(then).join(" "), labels(now).join(" "));
    }
    let pairs = || then.iter().zip(now);
    let score = pairs().map(|(a, b)| (a.score - b.score).abs()).fold(0.0, f32::max);
    let edges = pairs().flat_map(|(a, b)| a.bbox.iter().zip(b.bbox).map(|(a, b)| (a - b).abs()));
    let edge = edges.fold(0.0, f32::max);
    format!("the same objects, scores differ by up to {score:e}, edges by up to {edge:e} pixels")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(score: f32) -> Detection {
        Detection { score, class: 1, label: text::pack("cat"), ..Detection::default() }
    }

    fn header(sequence: u64, outcome: Outcome) -> ResultHeader {
        ResultHeader {
            camera: text::pack("a"),
            sequence,
            outcome: outcome.into(),
            model: text::pack("m"),
            backend: text::pack("b"),
            batch_size: 1,
            ..ResultHeader::default()
        }
    }

    fn judged(then: Vec<Detection>, now: Vec<Detection>) -> Comparison {
        let mut comparison = Comparison::default();
        let header = header(3, Outcome::Ok);
        let (then, now) = (Answer::new(&header, then), Answer::new(&header, now));
        comparison.judge(&header, &then, &now);
        comparison
    }

    #[test]
    fn one_bit_is_a_difference_and_a_track_number_is_none() {
        let same = judged(vec![found(0.5)], vec![Detection { track: 7, zones: 1, ..found(0.5) }]);
        assert_eq!((same.identical, same.different), (1, 0));
        let next = f32::from_bits(0.5_f32.to_bits() + 1);
        let other = judged(vec![found(0.5)], vec![found(next)]);
        assert_eq!((other.identical, other.different), (0, 1));
        assert!(
            other.text().contains("a #3: the same objects, scores differ by up to 5.9"),
            "{}",
            other.text()
        );
        let zero = judged(vec![found(0.0)], vec![found(-0.0)]);
        assert_eq!(zero.different, 1, "equal numbers of other bits");
        let fewer = judged(vec![found(0.5)], vec![]);
        assert!(fewer.text().contains("1 detections when recorded, 0 now"), "{}", fewer.text());
    }

    #[test]
    fn what_was_not_inferred_both_times_is_counted_and_not_compared() {
        let mut comparison = Comparison::default();
        let dropped =
            ResultHeader { reason: Reason::Superseded.into(), ..header(1, Outcome::Dropped) };
        let ok = header(1, Outcome::Ok);
        comparison.judge(&ok, &Answer::new(&dropped, vec![]), &Answer::new(&ok, vec![found(0.5)]));
        assert_eq!((comparison.identical, comparison.different), (0, 0));
        let text = comparison.text();
        assert!(
            text.contains("not compared: 1: dropped (superseded) when recorded, ok now"),
            "{text}"
        );
    }
}
