//! Time stamps against arrival: jumps, and frames that come ever later.
//!
//! The delay between a frame's time stamp and its arrival is unknown, but its least value
//! is not: whatever a frame takes longer than the fastest one, it waited for somebody.

/// How fast the least delay may grow, as a share of time: two clocks that drift apart are
/// no delay. 100 ppm is more than crystals differ.
const DRIFT: f64 = 100e-6;

/// What the time of one frame says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// The time stamp jumped by so much, ns; negative: back.
    pub(crate) jump_ns: Option<i64>,
    /// So much later than the fastest frame, ns.
    pub(crate) lag_ns: u64,
}

/// Times of one connection.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    pts_ns: i64,
    arrival_ns: i64,
    least_delay_ns: i64,
}

impl Timing {
    /// Notes a frame; `arrival_ns` is CLOCK_MONOTONIC. Time stamps that go back, or ahead
    /// of the arrival, by more than `limit_ns` have jumped; 0: never.
    pub(crate) fn see(&mut self, pts_ns: Option<u64>, arrival_ns: u64, limit_ns: u64) -> Time {
        let Some(pts_ns) = pts_ns.and_then(|pts_ns| i64::try_from(pts_ns).ok()) else {
            return Time::default();
        };
        let (arrival_ns, limit_ns) = (arrival_ns as i64, limit_ns as i64);
        let delay_ns = arrival_ns - pts_ns;
        let first = Last { pts_ns, arrival_ns, least_delay_ns: delay_ns };
        let Some(last) = &mut self.last else {
            self.last = Some(first);
            return Time::default();
        };
        let (step_ns, passed_ns) = (pts_ns - last.pts_ns, arrival_ns - last.arrival_ns);
        let jump_ns = if step_ns < 0 { step_ns } else { step_ns - passed_ns };
        // Back by less, such as frames out of order, is no jump either; a stream
        // that starts anew has new delays.
        if limit_ns > 0 && (jump_ns > limit_ns || (step_ns < 0 && -jump_ns > limit_ns)) {
            self.last = Some(first);
            return Time { jump_ns: Some(jump_ns), lag_ns: 0 };
        }
        let drift_ns = (passed_ns as f64 * DRIFT) as i64;
        let least_delay_ns = delay_ns.min(last.least_delay_ns + drift_ns);
        *last = Last { pts_ns, arrival_ns, least_delay_ns };
        Time { jump_ns: None, lag_ns: (delay_ns - least_delay_ns) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const LIMIT: u64 = 2000 * MS;

    #[test]
    fn a_clock_that_runs_is_no_fault() {
        let mut timing = Timing::default();
        for frame in 0..1000 {
            // Jitter of 30 ms, frames out of order, one without a time stamp.
            let jitter = frame * 7919 % 31 * MS;
            let pts = (frame ^ 1) * 40 * MS;
            let pts = (frame != 500).then_some(pts);
            let time = timing.see(pts, 5_000_000 * MS + frame * 40 * MS + jitter, LIMIT);
            assert_eq!(time.jump_ns, None, "frame {frame}");
            assert!(time.lag_ns <= 111 * MS, "frame {frame}: {time:?}");
        }
    }

    #[test]
    fn jumps_are_found_and_pauses_are_none() {
        let mut timing = Timing::default();
        let mut see = |pts_ms: u64, arrival_ms: u64| {
            timing.see(Some(pts_ms * MS), arrival_ms * MS, LIMIT).jump_ns.map(|ns| ns / 1_000_000)
        };
        assert_eq!(see(10_000, 50_000), None);
        assert_eq!(see(10_040, 50_040), None);
        // Nothing for 10 s, and the stamps know it; then nothing for 10 s, and a burst.
        assert_eq!(see(20_040, 60_040), None);
        assert_eq!(see(20_080, 70_040), None);
        assert_eq!(see(30_040, 70_050), Some(9950));
        assert_eq!(see(30_080, 70_090), None);
        assert_eq!(see(1000, 70_130), Some(-29_080));
        assert_eq!(see(1040, 70_170), None);
        // Back by a second is within the limit.
        assert_eq!(see(40, 70_210), None);
    }

    #[test]
    fn a_decoder_that_falls_behind_is_late_and_clocks_that_drift_are_not() {
        let mut timing = Timing::default();
        let mut lag_ms = |frame: u64, arrival: u64| {
            timing.see(Some(frame * 40 * MS), arrival, LIMIT).lag_ns / MS
        };
        // 90 parts of a million in a day of frames.
        for frame in 0..86_400 * 25 {
            let arrival = frame * 40 * MS + frame * 40 * MS / 1_000_000 * 90;
            assert!(lag_ms(frame, arrival) < 10, "frame {frame}");
        }
        // Each frame takes 5 ms too long.
        let begin = 86_400 * 25;
        let mut last = 0;
        for frame in begin..begin + 1000 {
            let arrival = frame * 40 * MS + begin * 40 * MS / 1_000_000 * 90;
            last = lag_ms(frame, arrival + (frame - begin) * 5 * MS);
        }
        assert!((4800..5000).contains(&last), "{last}");
    }
}
