//! The `IProgressMonitor` that TensorRT gets, and through which a build is cancelled.
#![allow(unsafe_code)]

use crate::logger::{InterfaceInfo, kept, language};
use crate::progress::{Estimate, Progress};
use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

type This = *const c_void;

/// The virtual table, as [`crate::abi::implemented::MONITOR`] has it.
#[repr(C)]
struct Table {
    language: extern "C" fn(This) -> i32,
    info: extern "C" fn(This) -> InterfaceInfo,
    complete_destructor: extern "C" fn(This),
    deleting_destructor: extern "C" fn(This),
    phase_start: unsafe extern "C" fn(This, *const c_char, *const c_char, i32),
    step_complete: unsafe extern "C" fn(This, *const c_char, i32) -> bool,
    phase_finish: unsafe extern "C" fn(This, *const c_char),
}

static TABLE: Table = Table {
    language,
    info,
    complete_destructor: kept,
    deleting_destructor: kept,
    phase_start,
    step_complete,
    phase_finish,
};

/// What a caller wants to hear, and whether it wants to go on.
pub(crate) type Report<'a> = dyn FnMut(&Progress) -> bool + Send + 'a;

/// A C++ object that begins with its virtual table.
#[repr(C)]
pub(crate) struct Monitor<'a> {
    table: &'static Table,
    // TensorRT may call from several threads.
    state: Mutex<State<'a>>,
}

struct State<'a> {
    report: &'a mut Report<'a>,
    estimate: Estimate,
    cancelled: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// How a build ended for its caller.
pub(crate) struct Outcome {
    pub(crate) cancelled: bool,
    pub(crate) panic: Option<Box<dyn Any + Send>>,
}

impl<'a> Monitor<'a> {
    pub(crate) fn new(report: &'a mut Report<'a>) -> Self {
        let estimate = Estimate::default();
        let state = State { report, estimate, cancelled: false, panic: None };
        Self { table: &TABLE, state: Mutex::new(state) }
    }

    /// For TensorRT, which may use it as long as the monitor lives.
    pub(crate) fn pointer(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }

    /// Tells the caller of a step; false when the build is to end.
    pub(crate) fn tell(&self, make: impl FnOnce(&mut Estimate) -> Progress) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if state.cancelled {
            return false;
        }
        let progress = make(&mut state.estimate);
        // A panic goes on in the caller's thread, not through C++.
        match catch_unwind(AssertUnwindSafe(|| (state.report)(&progress))) {
            Ok(go_on) => state.cancelled = !go_on,
            Err(panic) => {
                state.cancelled = true;
                state.panic = Some(panic);
            }
        }
        !state.cancelled
    }

    pub(crate) fn outcome(self) -> Outcome {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Outcome { cancelled: state.cancelled, panic: state.panic }
    }
}

extern "C" fn info(_: This) -> InterfaceInfo {
    InterfaceInfo::first(c"IProgressMonitor")
}

/// # Safety
/// `this` is a live [`Monitor`].
unsafe fn monitor<'m>(this: This) -> &'m Monitor<'m> {
    // SAFETY: the caller's promise; the monitor is only used through shared references.
    unsafe { &*this.cast::<Monitor<'m>>() }
}

/// # Safety
/// `name` is null or a C string that lives as long as the text is used.
unsafe fn text(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

unsafe extern "C" fn phase_start(
    this: This,
    name: *const c_char,
    parent: *const c_char,
    steps: i32,
) {
    // SAFETY: TensorRT calls with the monitor it was given.
    let monitor = unsafe { monitor(this) };
    // SAFETY: TensorRT passes C strings that live during the call.
    let name = unsafe { text(name) }.unwrap_or_default();
    // SAFETY: as above; null where there is no parent.
    let parent = unsafe { text(parent) };
    monitor.tell(|estimate| estimate.start(&name, parent.as_deref(), count(steps)));
}

unsafe extern "C" fn step_complete(this: This, name: *const c_char, step: i32) -> bool {
    // SAFETY: TensorRT calls with the monitor it was given.
    let monitor = unsafe { monitor(this) };
    // SAFETY: TensorRT passes a C string that lives during the call.
    let name = unsafe { text(name) }.unwrap_or_default();
    monitor.tell(|estimate| estimate.step(&name, count(step)))
}

unsafe extern "C" fn phase_finish(this: This, name: *const c_char) {
    // SAFETY: TensorRT calls with the monitor it was given.
    let monitor = unsafe { monitor(this) };
    // SAFETY: TensorRT passes a C string that lives during the call.
    let name = unsafe { text(name) }.unwrap_or_default();
    monitor.tell(|estimate| estimate.finish(&name));
}
