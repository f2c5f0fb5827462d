//! Rate, key-frame distance, jitter and bit rate of a stream, from its frames.

/// Frames that are kept at most: a file is read faster than time goes.
const UNITS_MAX: usize = 20_000;
/// Time that is looked at, at least.
const LEAST_NS: u64 = 3_000_000_000;
/// Key frames that make a distance: the first of them may have waited in the server.
const KEY_FRAMES: usize = 3;
/// Left out of rate and jitter: a server first sends what it had kept.
const WARM_UP_NS: u64 = 1_000_000_000;

/// Which clock a stream goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Frames come when they are due.
    Arrival,
    /// Frames come as fast as they can be read.
    Stamps,
}

/// One frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) arrival_ns: u64,
    /// Decoding time where the stream has one, else presentation time.
    pub(crate) stamp_ns: Option<u64>,
    pub(crate) bytes: usize,
    pub(crate) key: bool,
}

impl Unit {
    pub(crate) fn of(buffer: &gst::BufferRef, arrival_ns: u64) -> Self {
        Self {
            arrival_ns,
            stamp_ns: buffer.dts_or_pts().map(gst::ClockTime::nseconds),
            bytes: buffer.size(),
            key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        }
    }

    fn time_ns(&self, pace: Pace) -> Option<u64> {
        match pace {
            Pace::Arrival => Some(self.arrival_ns),
            Pace::Stamps => self.stamp_ns,
        }
    }
}

/// Notes a frame; of a very long look, the beginning counts.
pub(crate) fn keep(units: &mut Vec<Unit>, unit: Unit) {
    if units.len() < UNITS_MAX {
        units.push(unit);
    }
}

/// Whether there is no more to be learned by waiting.
pub(crate) fn is_enough(units: &[Unit], pace: Pace, compressed: bool) -> bool {
    let keys = units.iter().filter(|unit| unit.key).count();
    span_ns(units, pace).is_some_and(|span_ns| span_ns >= LEAST_NS)
        && (!compressed || keys >= KEY_FRAMES)
        || units.len() == UNITS_MAX
}

fn span_ns(units: &[Unit], pace: Pace) -> Option<u64> {
    let (first, last) = units.first().zip(units.last())?;
    last.time_ns(pace)?.checked_sub(first.time_ns(pace)?)
}

/// What the frames say; `None` where they say nothing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) fps: Option<f64>,
    pub(crate) key_frames: Option<usize>,
    /// The longest distance between two key frames.
    pub(crate) key_frame_s: Option<f64>,
    pub(crate) key_frame_frames: Option<usize>,
    /// How far frames come from when they are due by the frame before them.
    pub(crate) jitter_p95_ms: Option<f64>,
    pub(crate) jitter_max_ms: Option<f64>,
    pub(crate) bit_rate_kbps: Option<f64>,
}

impl Figures {
    /// Decoded frames (`compressed` is false) have no key frames and no bit rate.
    pub(crate) fn of(units: &[Unit], pace: Pace, compressed: bool) -> Self {
        let warm = units.first().map_or(0, |first| first.arrival_ns + WARM_UP_NS);
        let from = units.iter().position(|unit| unit.arrival_ns >= warm).unwrap_or(0);
        // Too short a look, or a file: all of it.
        let from = if units.len() - from < 10 || pace == Pace::Stamps { 0 } else { from };
        let steady = &units[from..];
        let span_s = span_ns(steady, pace).filter(|span| *span > 0).map(|span| span as f64 / 1e9);
        let mut figures = Self::default();
        if let Some(span_s) = span_s {
            figures.fps = Some(round((steady.len() - 1) as f64 / span_s));
            let bytes: usize = steady[1..].iter().map(|unit| unit.bytes).sum();
            figures.bit_rate_kbps =
                compressed.then(|| (bytes as f64 * 8.0 / 1000.0 / span_s).round());
        }
        if compressed {
            figures.key_frames(units, pace);
        }
        if pace == Pace::Arrival {
            figures.jitter(steady);
        }
        figures
    }

    fn key_frames(&mut self, units: &[Unit], pace: Pace) {
        let keys: Vec<usize> = (0..units.len()).filter(|index| units[*index].key).collect();
        self.key_frames = Some(keys.len());
        let gaps = keys.windows(2).map(|pair| (pair[0], pair[1]));
        let Some((from, to)) = gaps.max_by_key(|(from, to)| to - from) else { return };
        self.key_frame_frames = Some(to - from);
        // Stamps where there are some: a burst has no distance in arrivals.
        let stamps = units[from].stamp_ns.zip(units[to].stamp_ns);
        let times = stamps.or(units[from].time_ns(pace).zip(units[to].time_ns(pace)));
        let distance = times.and_then(|(from, to)| to.checked_sub(from));
        self.key_frame_s = distance.map(|ns| round(ns as f64 / 1e9));
    }

    fn jitter(&mut self, units: &[Unit]) {
        let mut late_ms: Vec<f64> = units
            .windows(2)
            .filter_map(|pair| {
                let (stamp, next) = pair[0].stamp_ns.zip(pair[1].stamp_ns)?;
                let arrived = pair[1].arrival_ns as f64 - pair[0].arrival_ns as f64;
                Some((arrived - (next as f64 - stamp as f64)).abs() / 1e6)
            })
            .collect();
        late_ms.sort_by(f64::total_cmp);
        let Some(last) = late_ms.len().checked_sub(1) else { return };
        self.jitter_p95_ms = Some(round(late_ms[last * 95 / 100]));
        self.jitter_max_ms = Some(round(late_ms[last]));
    }
}

/// Two digits: more would be noise.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// 25 frames/s with a key frame every `group`; `late_ms` delays an arrival.
    fn stream(frames: u64, group: u64, late_ms: impl Fn(u64) -> u64) -> Vec<Unit> {
        (0..frames)
            .map(|n| Unit {
                arrival_ns: 5_000 * MS + (n * 40 + late_ms(n)) * MS,
                stamp_ns: Some(n * 40 * MS),
                bytes: 1000,
                key: n % group == 0,
            })
            .collect()
    }

    #[test]
    fn an_even_stream() {
        let figures = Figures::of(&stream(101, 50, |_| 0), Pace::Arrival, true);
        let expected = Figures {
            fps: Some(25.0),
            key_frames: Some(3),
            key_frame_s: Some(2.0),
            key_frame_frames: Some(50),
            jitter_p95_ms: Some(0.0),
            jitter_max_ms: Some(0.0),
            bit_rate_kbps: Some(200.0),
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn what_the_server_had_kept_is_neither_rate_nor_jitter() {
        // One second of frames at once, then one by one.
        let burst = |n: u64| if n < 25 { 1000 - n * 40 } else { 1000 };
        let figures = Figures::of(&stream(126, 50, burst), Pace::Arrival, true);
        assert_eq!((figures.fps, figures.jitter_max_ms), (Some(25.0), Some(0.0)));
        assert_eq!(figures.key_frame_s, Some(2.0));
    }

    #[test]
    fn late_frames_are_jitter() {
        let figures = Figures::of(
            &stream(101, 50, |n| if n % 10 == 9 { 30 } else { 0 }),
            Pace::Arrival,
            true,
        );
        assert_eq!((figures.jitter_p95_ms, figures.jitter_max_ms), (Some(30.0), Some(30.0)));
    }

    #[test]
    fn a_file_goes_by_its_stamps_and_raw_video_has_no_key_frames() {
        let mut file = stream(101, 25, |_| 0);
        file.iter_mut().for_each(|unit| unit.arrival_ns = 1);
        let figures = Figures::of(&file, Pace::Stamps, true);
        assert_eq!((figures.fps, figures.key_frame_s), (Some(25.0), Some(1.0)));
        assert_eq!(figures.jitter_max_ms, None);
        assert!(is_enough(&file, Pace::Stamps, true));
        let raw = Figures::of(&stream(101, 1, |_| 0), Pace::Arrival, false);
        assert_eq!((raw.key_frames, raw.bit_rate_kbps, raw.fps), (None, None, Some(25.0)));
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(Figures::of(&[], Pace::Arrival, false), Figures::default());
        let one = Figures::of(&stream(1, 1, |_| 0), Pace::Arrival, true);
        assert_eq!((one.fps, one.key_frames, one.key_frame_s), (None, Some(1), None));
        assert!(!is_enough(&stream(60, 100, |_| 0), Pace::Arrival, true), "one key frame");
        assert!(!is_enough(&stream(40, 10, |_| 0), Pace::Arrival, true), "too short");
        assert!(is_enough(&stream(80, 25, |_| 0), Pace::Arrival, true));
    }
}
