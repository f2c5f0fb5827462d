//! SIGHUP: the configuration may have changed.

use crate::CommonArgs;
use framebus_config::{Config, ConfigErrors, load, load_applied};
use signal_hook::consts::SIGHUP;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The wish to look at the configuration again.
#[derive(Debug)]
pub struct Reload {
    asked: Arc<AtomicBool>,
}

impl Reload {
    /// Listens to SIGHUP, which ends a process that does not.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub fn on_signal() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, asked.clone())?;
        Ok(Self { asked })
    }

    /// Whether SIGHUP has come since the last call.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// The configuration as it is now, once after each SIGHUP. A file with errors is
    /// logged and changes nothing.
    pub(crate) fn take(&self, args: &CommonArgs) -> Option<Config> {
        if !self.asked() {
            return None;
        }
        match read(args) {
            Ok(config) => Some(config),
            Err(errors) => {
                tracing::error!("the changed configuration is not used: {errors}");
                None
            }
        }
    }
}

/// Reads what the arguments name: the applied copy where there is one.
pub(crate) fn read(args: &CommonArgs) -> Result<Config, ConfigErrors> {
    match &args.applied {
        Some(applied) if applied.is_file() => load_applied(&args.config, applied),
        _ => load(&args.config),
    }
}
