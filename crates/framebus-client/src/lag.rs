//! How far behind a reader is.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CLOCK_MONOTONIC, the clock that all processes of an instance share.
pub(crate) fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// How long the sample taken last had waited.
#[derive(Debug, Default)]
pub(crate) struct Lag(Duration);

impl Lag {
    /// A sample that was sent at `sent_ns` is taken now.
    pub(crate) fn taken(&mut self, sent_ns: u64) {
        self.0 = now().saturating_sub(Duration::from_nanos(sent_ns));
    }

    pub(crate) fn last(&self) -> Duration {
        self.0
    }
}
