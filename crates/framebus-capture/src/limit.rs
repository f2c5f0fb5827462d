//! The frame-rate limit.

/// Lets through at most so many frames per second, evenly.
///
/// Frames are held against a schedule of equal steps, so that 25 fps limited to
/// 10 gives 10 on average although no frame falls on the step exactly.
#[derive(Debug)]
pub(crate) struct RateLimit {
    period_ns: u64,
    next_ns: Option<u64>,
}

impl RateLimit {
    pub(crate) fn new(fps: f64) -> Self {
        Self { period_ns: (1e9 / fps.max(1e-3)) as u64, next_ns: None }
    }

    /// Whether the frame of this time (any clock that runs evenly) may pass.
    pub(crate) fn admit(&mut self, time_ns: u64) -> bool {
        // Rounded and jittering time stamps of a camera at just the limit must
        // not cost every second frame.
        let tolerance_ns = self.period_ns / 8;
        match self.next_ns {
            // A clock that jumped back far: a new stream.
            Some(next) if time_ns.saturating_add(2 * self.period_ns) < next => {}
            Some(next) if time_ns + tolerance_ns < next => return false,
            Some(next) if time_ns < next + self.period_ns => {
                self.next_ns = Some(next + self.period_ns);
                return true;
            }
            _ => {}
        }
        self.next_ns = Some(time_ns + self.period_ns);
        true
    }
}

/// A PTS so far behind the newest one belongs to a new stream, ns.
const NEW_STREAM_NS: u64 = 1_000_000_000;

/// One even clock for [`RateLimit`] out of presentation times. A PTS that does
/// not advance counts as none: such frames are told apart by their arrival, or a
/// camera whose time stamps stand still would never pass the limit again.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    newest_pts_ns: Option<u64>,
    /// Arrival of the frame with that PTS, CLOCK_MONOTONIC ns.
    arrival_ns: u64,
}

impl Timeline {
    /// The time of a frame; `arrival_ns` is CLOCK_MONOTONIC.
    pub(crate) fn time_ns(&mut self, pts_ns: Option<u64>, arrival_ns: u64) -> u64 {
        if let Some(pts_ns) = pts_ns
            && self.newest_pts_ns.is_none_or(|newest| {
                pts_ns > newest || pts_ns.saturating_add(NEW_STREAM_NS) < newest
            })
        {
            (self.newest_pts_ns, self.arrival_ns) = (Some(pts_ns), arrival_ns);
            return pts_ns;
        }
        match self.newest_pts_ns {
            Some(newest) => newest.saturating_add(arrival_ns.saturating_sub(self.arrival_ns)),
            None => arrival_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(source_fps: f64, limit: f64, seconds: f64, jitter_ns: i64) -> usize {
        let mut rate = RateLimit::new(limit);
        (0..(source_fps * seconds) as u64)
            .filter(|i| {
                let even = (*i as f64 * 1e9 / source_fps) as i64 + 1_000_000_000;
                let shifted = if i % 2 == 0 { even + jitter_ns } else { even - jitter_ns };
                rate.admit(shifted as u64)
            })
            .count()
    }

    #[test]
    fn the_average_is_the_limit() {
        for (source, limit) in [(25.0, 10.0), (30.0, 15.0), (30.0, 7.0), (60.0, 25.0), (29.97, 1.0)]
        {
            let count = admitted(source, limit, 100.0, 0) as f64 / 100.0;
            assert!((count - limit).abs() <= limit * 0.02 + 0.01, "{source} → {limit}: {count}");
        }
    }

    #[test]
    fn a_camera_at_the_limit_loses_nothing() {
        assert_eq!(admitted(30.0, 30.0, 10.0, 0), 300);
        assert_eq!(admitted(30.0, 30.0, 10.0, 1_500_000), 300);
        assert_eq!(admitted(15.0, 30.0, 10.0, 0), 150);
    }

    #[test]
    fn a_stream_that_starts_again_passes() {
        let mut rate = RateLimit::new(10.0);
        assert!(rate.admit(50_000_000_000));
        assert!(!rate.admit(50_010_000_000));
        assert!(rate.admit(0));
        assert!(!rate.admit(10_000_000));
    }

    #[test]
    fn a_pts_that_does_not_advance_counts_as_none() {
        const MS: u64 = 1_000_000;
        // 10 s at 25 fps, limited to 5: the time stamps stand still, flicker,
        // run, are missing, start again in the middle.
        let count = |pts: fn(u64) -> Option<u64>| {
            let (mut rate, mut timeline) = (RateLimit::new(5.0), Timeline::default());
            (0..250)
                .filter(|i| rate.admit(timeline.time_ns(pts(*i), 7_000_000 * MS + i * 40 * MS)))
                .count()
        };
        assert_eq!(count(|_| Some(0)), 50);
        assert_eq!(count(|i| Some(i % 2)), 50);
        assert_eq!(count(|i| Some(i * 40 * MS)), 50);
        assert_eq!(count(|i| Some(i / 2 * 80 * MS)), 50);
        assert_eq!(count(|_| None), 50);
        let again = count(|i| Some(i % 125 * 40 * MS));
        assert!((50..=51).contains(&again), "{again}");
        // A fast file takes no time to arrive.
        let (mut rate, mut timeline) = (RateLimit::new(5.0), Timeline::default());
        let fast = (0..250).filter(|i| rate.admit(timeline.time_ns(Some(i * 40 * MS), 1))).count();
        assert_eq!(fast, 50);
    }
}
