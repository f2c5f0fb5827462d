//! When the idle gate decodes: the decision alone, without GStreamer. What it is for: `idle`.

use crate::sizes::{Hint, Sizes};

/// Most that is kept; beyond it everything passes until the next key frame.
const KEPT_FRAMES: usize = 1800;
const KEPT_BYTES: usize = 32 << 20;

/// One compressed frame, as far as the gate is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) key: bool,
    pub(crate) bytes: usize,
    /// Presentation time, ns.
    pub(crate) pts_ns: Option<u64>,
    /// Time of the stream, ns: advances unless the stream starts anew.
    pub(crate) time_ns: u64,
    /// Motion was found in a frame decoded since the unit before.
    pub(crate) moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the decoder, behind everything that is kept.
    Decode,
    /// What is kept is dropped; this one goes to the decoder.
    Renew,
    Keep,
}

/// When to decode; no GStreamer in it.
#[derive(Debug)]
pub(crate) struct Gate {
    hold_ns: u64,
    max_ns: u64,
    sizes: Sizes,
    /// When something last happened; open for the hold time around it.
    busy_ns: Option<u64>,
    /// Everything passes until the next key frame.
    through: bool,
    /// Everything passes: open groups of pictures.
    pub(crate) never: bool,
    /// The last key frame: its time and its presentation time.
    key_ns: Option<u64>,
    key_pts_ns: Option<u64>,
    kept: usize,
    kept_bytes: usize,
}

impl Gate {
    pub(crate) fn new(hold_ns: u64, max_ns: u64) -> Self {
        Self {
            hold_ns,
            max_ns,
            sizes: Sizes::default(),
            busy_ns: None,
            through: true,
            never: false,
            key_ns: None,
            key_pts_ns: None,
            kept: 0,
            kept_bytes: 0,
        }
    }

    pub(crate) fn look(&mut self, unit: &Unit) -> Verdict {
        if unit.moved {
            self.busy_ns = Some(unit.time_ns);
        }
        if unit.key {
            self.sizes.key();
            let group_ns =
                self.key_ns.replace(unit.time_ns).map(|last| unit.time_ns.abs_diff(last));
            self.key_pts_ns = unit.pts_ns;
            self.through = group_ns.is_none_or(|group_ns| group_ns > self.max_ns);
            (self.kept, self.kept_bytes) = (0, 0);
            return Verdict::Renew;
        }
        // Farther back than a group reaches, it is a clock that was set.
        self.never |= unit
            .pts_ns
            .zip(self.key_pts_ns)
            .is_some_and(|(pts, key)| pts < key && key - pts <= self.max_ns);
        // A stream that starts anew may go back in time.
        let is_open = |gate: &Self| {
            gate.busy_ns.is_some_and(|busy| unit.time_ns.abs_diff(busy) < gate.hold_ns)
        };
        let hint = self.sizes.delta(unit.bytes, is_open(self));
        if hint == Hint::Busy {
            self.busy_ns = Some(unit.time_ns);
        }
        let age_ns = self.key_ns.map_or(u64::MAX, |key_ns| unit.time_ns.abs_diff(key_ns));
        self.through |= age_ns > self.max_ns
            || self.kept >= KEPT_FRAMES
            || self.kept_bytes + unit.bytes > KEPT_BYTES;
        if self.through || self.never || hint != Hint::Quiet || is_open(self) {
            (self.kept, self.kept_bytes) = (0, 0);
            return Verdict::Decode;
        }
        self.kept += 1;
        self.kept_bytes += unit.bytes;
        Verdict::Keep
    }

    /// The stream starts anew: nothing is known of what the decoder has.
    pub(crate) fn renew(&mut self) {
        self.through = true;
        (self.key_ns, self.key_pts_ns) = (None, None);
        (self.kept, self.kept_bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_NS: u64 = 40_000_000;
    const SECOND: u64 = 1_000_000_000;

    /// Runs a stream at 25 frames/s through a gate; returns the verdicts.
    struct Stream {
        gate: Gate,
        frame: u64,
    }

    impl Stream {
        fn new() -> Self {
            Self { gate: Gate::new(SECOND, 10 * SECOND), frame: 0 }
        }

        fn unit(&mut self, key: bool, bytes: usize) -> Unit {
            let time_ns = 3_600 * SECOND + self.frame * FRAME_NS;
            self.frame += 1;
            Unit { key, bytes, pts_ns: Some(time_ns), time_ns, moved: false }
        }

        fn push(&mut self, key: bool, bytes: usize) -> Verdict {
            let unit = self.unit(key, bytes);
            self.gate.look(&unit)
        }

        /// One group of pictures of `length`, of `bytes` each.
        fn group(&mut self, length: usize, bytes: impl Fn(usize) -> usize) -> Vec<Verdict> {
            (0..length)
                .map(|i| if i == 0 { self.push(true, 50_000) } else { self.push(false, bytes(i)) })
                .collect()
        }

        /// Until the gate knows the stream.
        fn learn(&mut self) {
            for _ in 0..5 {
                self.group(100, |i| 500 + i % 7 * 20);
            }
        }
    }

    #[test]
    fn an_idle_stream_is_decoded_by_its_key_frames() {
        let mut stream = Stream::new();
        let first = stream.group(25, |_| 500);
        assert!(first[1..].iter().all(|verdict| *verdict == Verdict::Decode), "{first:?}");
        stream.learn();
        let group = stream.group(25, |i| 500 + i % 5 * 30);
        assert_eq!(group[0], Verdict::Renew);
        assert!(group[1..].iter().all(|verdict| *verdict == Verdict::Keep), "{group:?}");
    }

    #[test]
    fn a_large_frame_opens_at_once_and_quiet_closes_after_the_hold() {
        let mut stream = Stream::new();
        stream.learn();
        let group = stream.group(100, |i| if i == 10 { 4000 } else { 500 });
        assert_eq!(group[9], Verdict::Keep);
        // 1 s of hold are 25 frames; the run of sizes calms down before that.
        let open: Vec<usize> = (1..100).filter(|i| group[*i] == Verdict::Decode).collect();
        assert_eq!(open.first(), Some(&10));
        assert!((30..60).contains(open.last().expect("open")), "{open:?}");
        assert_eq!(open.len(), open.last().expect("open") - 9, "without a gap");
        assert_eq!(group[99], Verdict::Keep);
    }

    #[test]
    fn motion_in_a_key_frame_opens() {
        let mut stream = Stream::new();
        stream.learn();
        stream.push(true, 50_000);
        let unit = Unit { moved: true, ..stream.unit(false, 500) };
        assert_eq!(stream.gate.look(&unit), Verdict::Decode);
        assert_eq!(stream.push(false, 500), Verdict::Decode);
    }

    #[test]
    fn key_frames_far_apart_open_for_good() {
        let mut stream = Stream::new();
        stream.gate.max_ns = u64::MAX;
        stream.group(500, |_| 500);
        stream.group(500, |_| 500);
        stream.gate.max_ns = 10 * SECOND;
        stream.group(25, |_| 500);
        stream.group(25, |_| 500);
        let far = stream.group(500, |_| 500);
        // After 10 s the first time, from then on at once.
        assert_eq!(far[249], Verdict::Keep);
        assert!(far[251..].iter().all(|verdict| *verdict == Verdict::Decode));
        let next = stream.group(500, |_| 500);
        assert!(next[1..].iter().all(|verdict| *verdict == Verdict::Decode));
        stream.group(25, |_| 500);
        assert!(stream.group(25, |_| 500)[5..].contains(&Verdict::Keep));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut stream = Stream::new();
        stream.gate.max_ns = u64::MAX;
        for _ in 0..3 {
            stream.group(KEPT_FRAMES + 100, |_| 100);
        }
        let many = stream.group(KEPT_FRAMES + 100, |_| 100);
        let kept = many.iter().filter(|verdict| **verdict == Verdict::Keep).count();
        assert!(kept <= KEPT_FRAMES, "{kept}");
        assert_eq!(many.last(), Some(&Verdict::Decode));
        let mut stream = Stream::new();
        for _ in 0..5 {
            stream.group(25, |_| KEPT_BYTES / 10);
        }
        let large = stream.group(25, |_| KEPT_BYTES / 10);
        let kept = large.iter().filter(|verdict| **verdict == Verdict::Keep).count();
        assert_eq!(kept, 10, "{large:?}");
    }

    #[test]
    fn open_groups_are_never_left_out() {
        let mut stream = Stream::new();
        stream.learn();
        stream.push(true, 50_000);
        let mut leading = stream.unit(false, 500);
        leading.pts_ns = leading.pts_ns.map(|pts| pts - 3 * FRAME_NS);
        assert_eq!(stream.gate.look(&leading), Verdict::Decode);
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Decode));
    }

    #[test]
    fn a_clock_that_goes_back_leaves_no_gate_open() {
        let mut stream = Stream::new();
        stream.learn();
        stream.push(true, 50_000);
        assert_eq!(stream.push(false, 9000), Verdict::Decode);
        stream.frame = 0;
        // The group that the jump falls into is no measure of time.
        assert_eq!(stream.push(false, 500), Verdict::Decode);
        stream.group(25, |_| 500);
        stream.group(25, |_| 500);
        let group = stream.group(25, |_| 500);
        assert!(group[1..].iter().all(|verdict| *verdict == Verdict::Keep), "{group:?}");
    }

    #[test]
    fn a_stream_that_starts_anew_is_decoded_up_to_its_second_key_frame() {
        let mut stream = Stream::new();
        stream.learn();
        stream.gate.renew();
        assert_eq!(stream.push(false, 500), Verdict::Decode);
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Decode));
        assert!(stream.group(25, |_| 500)[1..].iter().all(|v| *v == Verdict::Keep));
    }
}
