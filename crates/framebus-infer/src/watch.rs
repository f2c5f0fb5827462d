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
/// A batch that takes longer, and twice as long as usual, is told of before it is given
/// up, ns.
const LONG_NS: u64 = 2_000_000_000;
/// Preparing the model for an input takes no longer, ns: a big one that was never prepared
/// takes a minute on a slow machine.
pub(crate) const LOADING_MAX_NS: u64 = 300_000_000_000;

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
    /// The worker has lost a batch, and ends when it comes back.
    lost: bool,
}

/// How long a worker has been in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// No longer than it may be.
    Short,
    /// So long that whoever watches wants to know.
    Long,
    /// Too long: this is no engine any more.
    Over(Duration),
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
        let mut given = self.given();
        given.lost |= !given.frames.is_empty();
        std::mem::take(&mut given.frames)
    }

    /// Whether a batch was taken away from the worker.
    pub(crate) fn is_lost(&self) -> bool {
        self.given().lost
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
    /// Batch that was seen last, and when first; the loader's behind those of the workers.
    seen: Vec<(u64, u64)>,
}

impl Watch {
    pub(crate) fn new(timeout: Duration, workers: usize, now_ns: u64) -> Self {
        let timeout_ns = timeout.as_nanos() as u64;
        Self { timeout_ns, looked_ns: now_ns, awake_ns: 0, seen: vec![(0, 0); workers + 1] }
    }

    /// Time has passed; answers what of it this process ran since it started, ns.
    pub(crate) fn advance(&mut self, now_ns: u64) -> u64 {
        self.awake_ns += now_ns.saturating_sub(self.looked_ns).min(PAUSE_NS);
        self.looked_ns = now_ns;
        self.awake_ns
    }

    fn since_ns(&mut self, thread: usize, batch: u64) -> u64 {
        let seen = &mut self.seen[thread];
        if seen.0 != batch {
            *seen = (batch, self.awake_ns);
        }
        self.awake_ns - seen.1
    }

    /// How long the worker's batch has been in the engine. A lane that has not answered yet
    /// (`usual_ns` 0) gets more time: nobody knows its usual.
    pub(crate) fn batch(&mut self, worker: usize, batch: u64, usual_ns: u64) -> Wait {
        let since_ns = self.since_ns(worker, batch);
        let patience_ns = if usual_ns == 0 { self.timeout_ns } else { usual_ns };
        if since_ns > self.timeout_ns.max(patience_ns.saturating_mul(TIMES_USUAL)) {
            Wait::Over(Duration::from_nanos(since_ns))
        } else if since_ns > LONG_NS.max(usual_ns.saturating_mul(2)) {
            Wait::Long
        } else {
            Wait::Short
        }
    }

    /// Whether the loader's work of this number takes too long.
    pub(crate) fn is_loading_too_long(&mut self, load: u64) -> bool {
        let loader = self.seen.len() - 1;
        self.since_ns(loader, load) > LOADING_MAX_NS
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
        while !matches!(watch.batch(0, 1, usual_ns), Wait::Over(_)) {
            now_ns += LOOK;
            watch.advance(now_ns);
        }
        now_ns
    }

    #[test]
    fn a_batch_that_takes_long_is_told_of_before_it_is_given_up() {
        let long_s = |usual_ns| {
            let mut watch = watch();
            let mut waits = (0..300).map(|look| {
                watch.advance(look * LOOK);
                watch.batch(0, 1, usual_ns)
            });
            waits.position(|wait| wait == Wait::Long).map(|look| look / 10)
        };
        assert_eq!(long_s(0), Some(2), "the first batch");
        assert_eq!(long_s(SECOND / 2), Some(2));
        assert_eq!(long_s(3 * SECOND), Some(6), "a slow model");
        assert_eq!(long_s(SECOND / 10), None, "given up first");
    }

    #[test]
    fn preparing_an_input_ends_or_hangs() {
        let mut watch = watch();
        let too_long = (1..).find(|look| {
            watch.advance(look * LOOK);
            watch.is_loading_too_long(1)
        });
        assert_eq!(too_long, Some(3002));
        assert!(!watch.is_loading_too_long(3), "another one");
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
            assert_eq!(watch.batch(0, look / 15, 1), Wait::Short);
            assert_eq!(watch.batch(1, 7, 1) != Wait::Short, look > 21, "{look}");
        }
    }

    #[test]
    fn time_in_which_the_process_did_not_run_is_not_the_engines() {
        let mut watch = watch();
        watch.advance(LOOK);
        assert_eq!(watch.batch(0, 1, 1), Wait::Short);
        watch.advance(3600 * SECOND);
        assert_eq!(watch.batch(0, 1, 1), Wait::Short);
        let overdue = first_overdue(&mut watch, 3600 * SECOND, 1);
        assert_eq!(overdue, 3600 * SECOND + 18 * LOOK);
    }

    #[test]
    fn frames_are_answered_by_whoever_takes_them_out() {
        let note = Note::default();
        assert!(!note.end() && note.take().is_empty() && note.batch().is_none());
        assert!(!note.is_lost(), "nothing was taken away");
    }
}
