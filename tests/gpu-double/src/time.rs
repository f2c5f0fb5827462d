//! A TEST's double of CUDA: clock and pauses.
#![allow(clippy::disallowed_methods)] // No shutdown to watch and no frame times here.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since the library's first use.
pub(crate) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
