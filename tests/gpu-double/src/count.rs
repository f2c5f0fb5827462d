//! A TEST's double of CUDA: what is counted, and what went against the rules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Violations kept with their text; the rest are only counted.
const KEPT: usize = 64;

/// A number that goes up, and for some down. Relaxed: counting must not put the work of
/// one stream before that of another, which would hide races from ThreadSanitizer.
pub(crate) struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed) + more
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn at_least(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// Kernel launches that ran.
pub(crate) static LAUNCHES: Count = Count::new();
/// Times that a network ran.
pub(crate) static ENQUEUES: Count = Count::new();
pub(crate) static GRAPH_LAUNCHES: Count = Count::new();
pub(crate) static H2D_COPIES: Count = Count::new();
pub(crate) static H2D_BYTES: Count = Count::new();
pub(crate) static D2H_COPIES: Count = Count::new();
pub(crate) static D2H_BYTES: Count = Count::new();
/// Copies whose host side is neither pinned nor registered: they hold their caller up.
pub(crate) static PAGEABLE: Count = Count::new();
/// Times that host memory was registered.
pub(crate) static REGISTRATIONS: Count = Count::new();
/// Bytes that went to the device out of registered memory.
pub(crate) static REGISTERED_BYTES: Count = Count::new();
/// Bytes of host memory that kernels used where they lie.
pub(crate) static MAPPED_BYTES: Count = Count::new();
/// Calls that made their caller wait for the device.
pub(crate) static WAITS: Count = Count::new();
/// Streams that are in an operation now, and the most there ever were.
pub(crate) static RUNNING: Count = Count::new();
pub(crate) static PEAK: Count = Count::new();
/// TensorRT objects that live.
pub(crate) static ENGINES: Count = Count::new();
pub(crate) static CONTEXTS: Count = Count::new();
pub(crate) static OBJECTS: Count = Count::new();
/// Engines that were built.
pub(crate) static BUILDS: Count = Count::new();

static VIOLATIONS: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));

/// Something that CUDA or TensorRT forbids, seen.
pub(crate) fn violation(text: String) {
    let mut violations = VIOLATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    violations.1 += 1;
    if violations.0.len() < KEPT {
        violations.0.push(text);
    }
    drop(violations);
    crate::report::save();
}

/// The texts, and how many there were in all.
pub(crate) fn violations() -> (Vec<String>, usize) {
    VIOLATIONS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
