//! A TEST's double of TensorRT: the caller's `ILogger` and `IProgressMonitor`.
#![allow(unsafe_code)]

use crate::count;
use std::ffi::{CStr, CString, c_char, c_void};

pub(super) const ERROR: i32 = 1;
pub(super) const WARNING: i32 = 2;
pub(super) const INFO: i32 = 3;

/// Slot of an interface that the caller implements.
fn slot(object: usize, slot: usize) -> *const c_void {
    let table = crate::memory::snapshot(object, 8);
    let table = usize::from_ne_bytes(table.try_into().unwrap_or_default());
    let method = crate::memory::snapshot(table + 8 * slot, 8);
    usize::from_ne_bytes(method.try_into().unwrap_or_default()) as *const c_void
}

/// TensorRT 10's `ILogger`: `[log, destructors]`. TensorRT calls it from any thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logger(usize);

impl Logger {
    pub(super) fn new(logger: *const c_void) -> Option<Self> {
        if logger.is_null() {
            count::violation("a factory of TensorRT was given no logger".to_owned());
            return None;
        }
        Some(Self(logger as usize))
    }

    pub(super) fn log(self, severity: i32, text: &str) {
        type Log = extern "C" fn(usize, i32, *const c_char);
        let Ok(text) = CString::new(text.replace('\0', " ")) else {
            return;
        };
        // SAFETY: slot 0 of an `ILogger` of TensorRT 10 is `log(Severity, const char*)`,
        // and the caller keeps the logger alive as TensorRT asks.
        let log = unsafe { std::mem::transmute::<*const c_void, Log>(slot(self.0, 0)) };
        log(self.0, severity, text.as_ptr());
    }

    pub(super) fn error(self, text: &str) {
        self.log(ERROR, text);
    }
}

/// `IProgressMonitor`: `[getAPILanguage, getInterfaceInfo, destructors, phaseStart,
/// stepComplete, phaseFinish]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Monitor(pub(super) usize);

impl Monitor {
    pub(super) fn start(self, phase: &CStr, parent: Option<&CStr>, steps: i32) {
        type Start = extern "C" fn(usize, *const c_char, *const c_char, i32);
        // SAFETY: the type of slot 4; the monitor lives while its configuration is used.
        let start = unsafe { std::mem::transmute::<*const c_void, Start>(slot(self.0, 4)) };
        start(self.0, phase.as_ptr(), parent.map_or(std::ptr::null(), CStr::as_ptr), steps);
    }

    /// Whether to go on.
    pub(super) fn step(self, phase: &CStr, step: i32) -> bool {
        type Step = extern "C" fn(usize, *const c_char, i32) -> bool;
        // SAFETY: the type of slot 5; as above.
        let complete = unsafe { std::mem::transmute::<*const c_void, Step>(slot(self.0, 5)) };
        complete(self.0, phase.as_ptr(), step)
    }

    pub(super) fn finish(self, phase: &CStr) {
        type Finish = extern "C" fn(usize, *const c_char);
        // SAFETY: the type of slot 6; as above.
        let finish = unsafe { std::mem::transmute::<*const c_void, Finish>(slot(self.0, 6)) };
        finish(self.0, phase.as_ptr());
    }
}
