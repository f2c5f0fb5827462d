//! Engines that do not answer.
//!
//! A thread that hangs in foreign code cannot be ended. So each worker notes what it
//! gives to the engine, the taker looks at the notes, and whoever takes the frames out of
//! a note answers them: the worker when the engine returns, or the taker when it does
//! not.

use crate::camera::Camera;
use crate::publish::Arrival;
use framebus_types::FrameHeader;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest time between two looks that counts as time the engine has had, ns. More
/// passes only when this process did not run: stopped, suspended, or starved.
const PAUSE_NS: u64 = 250_000_000;
/// An engine may take so many times as long as it usually does, whatever the limit, so
/// that slow models on slow machines live.
const TIMES_USUAL: u64 = 10;

/// A frame in the engine.
#[derive(Debug, Clone)]
pub(crate) struct InEngine {
    pub(crate) camera: Arc<Camera>,
    pub(crate) header: FrameHeader,
    pub(crate) ticket: u64,
    pub(crate) arrival: Arrival,
}

/// What a worker has given to the engine; empty when nothing, or when it was taken out.
#[derive(Debug, Default)]
pub(crate) struct Note {
    frames: Mutex<Given>,
}

#[derive(Debug, Default)]
struct Given {
    /// Batches so far.
    batch: u64,
    lane: usize,
    frames: Vec<InEngine>,
}

impl Note {
    fn given(&self) -> MutexGuard<'_, Given> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker gives a batch to the engine.
    pub(crate) fn begin(&self, lane: usize, frames: impl Iterator<Item = InEngine>) {
        let mut given = self.given();
        given.batch += 1;
        given.lane = lane;
        given.frames.extend(frames);
    }

    /// The engine has returned; whether the frames are still the worker's to answer.
    pub(crate) fn end(&self) -> bool {
        let mut given = self.given();
        let own = !given.frames.is_empty();
        given.frames.clear();
        own
    }

    /// Takes the frames away from the worker.
    pub(crate) fn take(&self) -> Vec<InEngine> {
        std::mem::take(&mut self.given().frames)
    }

    /// Number and lane of the batch that is in the engine.
    pub(crate) fn batch(&self) -> Option<(u64, usize)> {
        let given = self.given();
        (!given.frames.is_empty()).then_some((given.batch, given.lane))
    }
}

/// Since when each worker has been in the engine, by a clock that stands still while
/// this process does not run.
#[derive(Debug)]
pub(crate) struct Watch {
    timeout_ns: u64,
    looked_ns: u64,
    awake_ns: u64,
    /// Batch that was seen last, and when first.
    seen: Vec<(u64, u64)>,
}

impl Watch {
    pub(crate) fn new(timeout: Duration, workers: usize, now_ns: u64) -> Self {
        let timeout_ns = timeout.as_nanos() as u64;
        Self { timeout_ns, looked_ns: now_ns, awake_ns: 0, seen: vec![(0, 0); workers] }
    }

    /// Time has passed; answers what of it this process ran since it started, ns.
    pub(crate) fn advance(&mut self, now_ns: u64) -> u64 {
        self.awake_ns += now_ns.saturating_sub(self.looked_ns).min(PAUSE_NS);
        self.looked_ns = now_ns;
        self.awake_ns
    }

    /// How long the worker's batch has been in the engine when that is too long. A lane
    /// that has not answered yet (`usual_ns` 0) gets more time: nobody knows its usual.
    pub(crate) fn overdue(&mut self, worker: usize, batch: u64, usual_ns: u64) -> Option<Duration> {
        let seen = &mut self.seen[worker];
        if seen.0 != batch {
            *seen = (batch, self.awake_ns);
        }
        let usual_ns = if usual_ns == 0 { self.timeout_ns } else { usual_ns };
        let limit_ns = self.timeout_ns.max(TIMES_USUAL * usual_ns);
        let since_ns = self.awake_ns - seen.1;
        (since_ns > limit_ns).then(|| Duration::from_nanos(since_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: u64 = 100_000_000;
    const SECOND: u64 = 1_000_000_000;

    fn watch() -> Watch {
        Watch::new(Duration::from_secs(2), 2, 0)
    }

    /// Looks every 0.1 s from `from_ns` until the batch is overdue; answers when.
    fn first_overdue(watch: &mut Watch, from_ns: u64, usual_ns: u64) -> u64 {
        let mut now_ns = from_ns;
        while watch.overdue(0, 1, usual_ns).is_none() {
            now_ns += LOOK;
            watch.advance(now_ns);
        }
        now_ns
    }

    #[test]
    fn an_engine_has_the_limit_or_ten_times_what_it_usually_takes() {
        assert_eq!(first_overdue(&mut watch(), 0, SECOND / 100), 2 * SECOND + LOOK);
        assert_eq!(first_overdue(&mut watch(), 0, SECOND), 10 * SECOND + LOOK);
        assert_eq!(first_overdue(&mut watch(), 0, 0), 20 * SECOND + LOOK, "the first batch");
    }

    #[test]
    fn each_batch_of_each_worker_counts_from_its_own_begin() {
        let mut watch = watch();
        for look in 1..100 {
            watch.advance(look * LOOK);
            assert_eq!(watch.overdue(0, look / 15, 1), None);
            assert_eq!(watch.overdue(1, 7, 1).is_some(), look > 21, "{look}");
        }
    }

    #[test]
    fn time_in_which_the_process_did_not_run_is_not_the_engines() {
        let mut watch = watch();
        watch.advance(LOOK);
        assert_eq!(watch.overdue(0, 1, 1), None);
        watch.advance(3600 * SECOND);
        assert_eq!(watch.overdue(0, 1, 1), None);
        let overdue = first_overdue(&mut watch, 3600 * SECOND, 1);
        assert_eq!(overdue, 3600 * SECOND + 18 * LOOK);
    }

    #[test]
    fn frames_are_answered_by_whoever_takes_them_out() {
        let note = Note::default();
        assert!(!note.end() && note.take().is_empty() && note.batch().is_none());
    }
}
