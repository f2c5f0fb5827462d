//! Stopping: first signal drains, second aborts.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The wish to stop. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    flag: Arc<AtomicBool>,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Shutdown {
    /// A wish that only [`request`](Self::request) can express.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to SIGINT and SIGTERM: the first one requests the stop, the
    /// second ends the process at once.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let wish = shutdown.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if wish.requested() {
                    tracing::warn!("second signal: stopping at once");
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                tracing::info!(signal, "asked to stop");
                wish.request();
            }
        })?;
        Ok(shutdown)
    }

    /// Asks everyone who holds a clone to stop.
    pub fn request(&self) {
        let guard = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.flag.store(true, Ordering::Relaxed);
        drop(guard);
        self.inner.changed.notify_all();
    }

    /// Whether to stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.inner.flag.load(Ordering::Relaxed)
    }

    /// The bare flag, for callbacks that must not block.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.inner.flag.clone()
    }

    /// Sleeps for `timeout` or until asked to stop; returns whether asked.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let guard = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (_guard, _) = self
            .inner
            .changed
            .wait_timeout_while(guard, timeout, |()| !self.requested())
            .unwrap_or_else(PoisonError::into_inner);
        self.requested()
    }
}
