//! A TEST's double of CUDA: handles. A handle is a number and no address, so one that
//! was destroyed or never was is an error and a violation instead of a crash.

use crate::code::{self, Code};
use crate::count;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handles are unique over all kinds: a stream given for an event is found out.
static NEXT: AtomicUsize = AtomicUsize::new(0x5_0000_0000);

/// Everything of one kind that lives.
pub(crate) struct Table<T> {
    kind: &'static str,
    entries: Mutex<BTreeMap<usize, Arc<T>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn handle() -> usize {
    NEXT.fetch_add(0x100, Ordering::SeqCst)
}

impl<T> Table<T> {
    pub(crate) const fn new(kind: &'static str) -> Self {
        Self { kind, entries: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn insert(&self, value: T) -> usize {
        let handle = handle();
        self.put(handle, Arc::new(value));
        handle
    }

    pub(crate) fn put(&self, handle: usize, value: Arc<T>) {
        lock(&self.entries).insert(handle, value);
    }

    pub(crate) fn get(&self, handle: usize) -> Result<Arc<T>, Code> {
        let found = lock(&self.entries).get(&handle).cloned();
        found.ok_or_else(|| self.unknown(handle))
    }

    pub(crate) fn remove(&self, handle: usize) -> Result<Arc<T>, Code> {
        let found = lock(&self.entries).remove(&handle);
        found.ok_or_else(|| self.unknown(handle))
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        lock(&self.entries).values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    fn unknown(&self, handle: usize) -> Code {
        count::violation(format!("{handle:#x} is no live {}", self.kind));
        code::INVALID_HANDLE
    }
}
