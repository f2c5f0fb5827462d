//! What C is told when a call does not do what was asked.

use framebus_client::BusError;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// Status: done.
pub const FRAMEBUS_OK: i32 = 0;
/// Status: nothing came within the timeout.
pub const FRAMEBUS_NONE: i32 = 1;
/// Error: an argument is NULL, not UTF-8, or out of range.
pub const FRAMEBUS_ERROR_ARGUMENT: i32 = -1;
/// Error: the instance does not run, or has no such camera (yet).
pub const FRAMEBUS_ERROR_ABSENT: i32 = -2;
/// Error: the instance's name or folder cannot be used.
pub const FRAMEBUS_ERROR_INSTANCE: i32 = -3;
/// Error: all places for readers are taken.
pub const FRAMEBUS_ERROR_FULL: i32 = -4;
/// Error: this reader holds as many frames as it may; free one.
pub const FRAMEBUS_ERROR_HELD: i32 = -5;
/// Error: the instance is of another version than this library.
pub const FRAMEBUS_ERROR_VERSION: i32 = -6;
/// Error: the bus failed; close everything and connect again.
pub const FRAMEBUS_ERROR_TRANSPORT: i32 = -7;
/// Error: a fault of this library.
pub const FRAMEBUS_ERROR_INTERNAL: i32 = -8;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: i32,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { status: FRAMEBUS_ERROR_ARGUMENT, message: message.into() }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        let status = match &error {
            BusError::Absent { .. } => FRAMEBUS_ERROR_ABSENT,
            BusError::Domain { .. } | BusError::Folder { .. } => FRAMEBUS_ERROR_INSTANCE,
            BusError::Full { .. } => FRAMEBUS_ERROR_FULL,
            BusError::NoLoan { .. } => FRAMEBUS_ERROR_HELD,
            BusError::Version { .. } => FRAMEBUS_ERROR_VERSION,
            BusError::Service { reason, .. } if reason.contains("Incompatible") => {
                FRAMEBUS_ERROR_VERSION
            }
            _ => FRAMEBUS_ERROR_TRANSPORT,
        };
        Self { status, message: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Keeps what the last failure of this thread says.
pub(crate) fn keep(message: String) {
    // A zero inside would end it early; nothing else can be wrong with it.
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = message;
        }
    });
}

/// Hands out the address of what was kept; `fallback` when the thread is ending.
pub(crate) fn kept(fallback: &'static CStr) -> *const std::ffi::c_char {
    let address = LAST.try_with(|last| last.try_borrow().map(|last| last.as_ptr()).ok());
    address.ok().flatten().unwrap_or(fallback.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_status() {
        let service = || "results".to_owned();
        let reason = |text: &str| text.to_owned();
        for (error, status) in [
            (BusError::Absent { service: service() }, FRAMEBUS_ERROR_ABSENT),
            (BusError::Full { service: service(), key: "k" }, FRAMEBUS_ERROR_FULL),
            (BusError::NoLoan { service: service(), limit: 4 }, FRAMEBUS_ERROR_HELD),
            (
                BusError::Version { service: service(), found: 2, expected: 1 },
                FRAMEBUS_ERROR_VERSION,
            ),
            (
                BusError::Service { service: service(), reason: reason("IncompatibleTypes") },
                FRAMEBUS_ERROR_VERSION,
            ),
            (
                BusError::Transport { service: service(), reason: reason("x") },
                FRAMEBUS_ERROR_TRANSPORT,
            ),
        ] {
            let message = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status, failure.message), (status, message));
        }
    }
}
