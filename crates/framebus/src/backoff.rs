//! How long to wait before a process that died is started again.

/// A process that ran this long had recovered: its next failure is a first one.
const RECOVERED_NS: u64 = 10_000_000_000;

/// Waits that double from `min_ms` to `max_ms`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

impl Backoff {
    pub(crate) fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, next_ms: min_ms }
    }

    /// The wait after a process that lived for `alive_ns`. `jitter` (0 to 1)
    /// shortens it by up to a fifth, so that processes that died together do
    /// not all come back at the same moment.
    pub(crate) fn delay_ms(&mut self, alive_ns: u64, jitter: f64) -> u64 {
        if alive_ns >= RECOVERED_NS {
            self.next_ms = self.min_ms;
        }
        let delay = self.next_ms.min(self.max_ms);
        self.next_ms = delay.saturating_mul(2).min(self.max_ms);
        (delay as f64 * (1.0 - 0.2 * jitter.clamp(0.0, 1.0))).round() as u64
    }
}

/// A number from 0 to 1 that differs from call to call; good enough to spread
/// restarts, for nothing else.
pub(crate) fn jitter(now_ns: u64) -> f64 {
    // Fibonacci hashing: the low digits of the clock decide the high bits.
    (now_ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1_u64 << 24) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_recovery() {
        let mut backoff = Backoff::new(250, 1500);
        let waits: Vec<u64> = (0..5).map(|_| backoff.delay_ms(0, 0.0)).collect();
        assert_eq!(waits, [250, 500, 1000, 1500, 1500]);
        assert_eq!(backoff.delay_ms(RECOVERED_NS - 1, 0.0), 1500);
        assert_eq!(backoff.delay_ms(RECOVERED_NS, 0.0), 250);
    }

    #[test]
    fn jitter_takes_a_fifth_at_most() {
        assert_eq!(Backoff::new(1000, 1000).delay_ms(0, 1.0), 800);
        let values: Vec<f64> = (0..100).map(|i| jitter(1_000_000_007 * i)).collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        assert!(values.iter().any(|v| *v < 0.3) && values.iter().any(|v| *v > 0.7));
    }
}
