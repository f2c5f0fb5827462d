//! How long to wait before something that failed is tried again.

use crate::clock;
use std::time::Duration;

/// Waits that double from the shortest to the longest. Each is shortened by up to a
/// quarter at random, so that cameras behind one switch, or processes that died together,
/// do not all come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Begins with a wait of `min_ms`; none is longer than `max_ms`.
    #[must_use]
    pub fn new(min_ms: u64, max_ms: u64) -> Self {
        // Processes that are started together differ in their number, waits of one process
        // in the nanoseconds. xorshift stays at zero once there.
        let random = (clock::monotonic_ns() ^ u64::from(std::process::id()).rotate_left(32)) | 1;
        Self { min_ms, max_ms, failures: 0, random }
    }

    /// The wait after one more failure.
    pub fn fail(&mut self) -> Duration {
        let factor = 1_u64 << self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let base_ms = self.min_ms.saturating_mul(factor).min(self.max_ms);
        // xorshift64 (Marsaglia 2003): enough to spread attempts, for nothing else.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let percent = 75 + self.random % 26;
        Duration::from_micros(base_ms.saturating_mul(percent).saturating_mul(10))
    }

    /// The longest wait from now on: another attempt soon would do harm.
    pub fn fail_for_long(&mut self) -> Duration {
        self.failures = 30;
        self.fail()
    }

    /// It works again: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let mut backoff = Backoff::new(500, 4000);
        for expected_ms in [500, 1000, 2000, 4000, 4000, 4000] {
            let wait_ms = backoff.fail().as_millis() as u64;
            assert!((expected_ms * 3 / 4..=expected_ms).contains(&wait_ms), "{wait_ms}");
        }
        backoff.reset();
        assert!(backoff.fail().as_millis() <= 500);
        assert!(backoff.fail_for_long().as_millis() >= 3000);
        let mut waits: Vec<_> = (0..20).map(|_| backoff.fail()).collect();
        waits.dedup();
        assert!(waits.len() > 10, "{waits:?}");
        assert_eq!(Backoff::new(u64::MAX, 0).fail(), Duration::ZERO);
    }
}
