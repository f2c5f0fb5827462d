//! How long a batch will probably take.

/// Smoothed duration and its deviation, as TCP estimates its round trips
/// (RFC 6298, section 2: gains 1/8 and 1/4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceTime {
    mean_ns: u64,
    deviation_ns: u64,
}

impl ServiceTime {
    /// A batch took so long.
    pub fn observe(&mut self, took_ns: u64) {
        if self.mean_ns == 0 {
            // Unlike TCP, which risks more by being early than by being late.
            *self = Self { mean_ns: took_ns, deviation_ns: 0 };
            return;
        }
        let error_ns = took_ns.abs_diff(self.mean_ns);
        self.deviation_ns = self.deviation_ns - self.deviation_ns / 4 + error_ns / 4;
        self.mean_ns = self.mean_ns - self.mean_ns / 8 + took_ns / 8;
    }

    /// The next batch probably takes no longer than this; 0 before the first one. Two
    /// mean deviations are 1.6 standard deviations of a normal distribution: 19 of 20.
    #[must_use]
    pub fn expected_ns(self) -> u64 {
        self.mean_ns + 2 * self.deviation_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_on_what_is_steady_and_leaves_room_for_what_varies() {
        let mut service = ServiceTime::default();
        assert_eq!(service.expected_ns(), 0);
        (0..100).for_each(|_| service.observe(10_000_000));
        assert!((9_900_000..10_100_000).contains(&service.expected_ns()), "{service:?}");
        (0..100).for_each(|n| service.observe(if n % 2 == 0 { 8_000_000 } else { 12_000_000 }));
        assert!((12_500_000..15_500_000).contains(&service.expected_ns()), "{service:?}");
    }
}
