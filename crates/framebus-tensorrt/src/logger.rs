//! The `ILogger` that TensorRT gets: its lines go to `tracing` (target `tensorrt`) and
//! to [`crate::record`].
//!
//! TensorRT remembers the first logger of a process for good and complains about a
//! second, so these are constants that are never released. Its virtual table differs:
//! see [`crate::abi::implemented`].
#![allow(unsafe_code)]

use crate::abi::Abi;
use crate::record::{self, Severity};
use std::ffi::{CStr, c_char, c_void};
use std::panic::catch_unwind;

type This = *const c_void;
type Log = unsafe extern "C" fn(This, i32, *const c_char);

/// `nvinfer1::InterfaceInfo`: name and version of an interface.
#[repr(C)]
pub(crate) struct InterfaceInfo {
    kind: *const c_char,
    major: i32,
    minor: i32,
}

impl InterfaceInfo {
    pub(crate) fn first(kind: &'static CStr) -> Self {
        Self { kind: kind.as_ptr(), major: 1, minor: 0 }
    }
}

#[repr(C)]
struct Table10 {
    log: Log,
    complete_destructor: extern "C" fn(This),
    deleting_destructor: extern "C" fn(This),
}

#[repr(C)]
struct Table11 {
    language: extern "C" fn(This) -> i32,
    info: extern "C" fn(This) -> InterfaceInfo,
    complete_destructor: extern "C" fn(This),
    deleting_destructor: extern "C" fn(This),
    log: Log,
}

/// An object without data of its own.
#[repr(C)]
struct Logger<T: 'static> {
    table: &'static T,
}

static TABLE_10: Table10 = Table10 { log, complete_destructor: kept, deleting_destructor: kept };
static TABLE_11: Table11 =
    Table11 { language, info, complete_destructor: kept, deleting_destructor: kept, log };
static LOGGER_10: Logger<Table10> = Logger { table: &TABLE_10 };
static LOGGER_11: Logger<Table11> = Logger { table: &TABLE_11 };

/// The logger for libraries of this interface; valid for the whole process.
pub(crate) fn pointer(abi: Abi) -> *const c_void {
    match abi {
        Abi::V10 => (&raw const LOGGER_10).cast(),
        Abi::V11 | Abi::Rtx1 => (&raw const LOGGER_11).cast(),
    }
}

/// `APILanguage::kCPP`: what else there is (Python) is not us either.
pub(crate) extern "C" fn language(_: This) -> i32 {
    0
}

extern "C" fn info(_: This) -> InterfaceInfo {
    InterfaceInfo::first(c"ILogger")
}

/// Destructors do nothing: TensorRT does not own what we implement.
pub(crate) extern "C" fn kept(_: This) {}

unsafe extern "C" fn log(_: This, severity: i32, message: *const c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: TensorRT passes a C string that lives during the call.
    let message = unsafe { CStr::from_ptr(message) };
    // A subscriber of `tracing` that panics must not unwind into C++; the line is lost.
    let _ = catch_unwind(|| tell(severity, &message.to_string_lossy()));
}

fn tell(severity: i32, message: &str) {
    let severity = Severity::from_number(severity);
    record::push(severity, message);
    let message = message.trim_end();
    match severity {
        Severity::Error => tracing::error!(target: "tensorrt", "{message}"),
        Severity::Warning => tracing::warn!(target: "tensorrt", "{message}"),
        // What TensorRT calls information is a line per step of its own work.
        Severity::Info => tracing::debug!(target: "tensorrt", "{message}"),
        Severity::Verbose => tracing::trace!(target: "tensorrt", "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_the_record_through_both_tables() {
        for log in [LOGGER_10.table.log, LOGGER_11.table.log] {
            let mark = record::mark();
            // SAFETY: `this` is not looked at; a null message is allowed.
            unsafe { log(std::ptr::null(), 1, std::ptr::null()) };
            assert_eq!(record::since(mark), "");
            // SAFETY: as above, with a C string.
            unsafe { log(std::ptr::null(), 1, c"broken\nplan".as_ptr()) };
            assert_eq!(record::since(mark), "broken plan");
            // SAFETY: as above.
            unsafe { log(std::ptr::null(), 3, c"chatter".as_ptr()) };
            assert_eq!(record::since(mark), "broken plan");
        }
    }

    #[test]
    fn the_interface_names_itself() {
        let info = (LOGGER_11.table.info)(std::ptr::null());
        // SAFETY: a constant C string.
        assert_eq!(unsafe { CStr::from_ptr(info.kind) }, c"ILogger");
        assert_eq!((info.major, info.minor), (1, 0));
        assert_eq!(size_of::<InterfaceInfo>(), 16);
    }
}
