//! A TEST's double of CUDA: streams captured into graphs. The operations of all streams
//! of a capture make one list in the order in which they came: one of the orders that
//! CUDA may take, and always the same.

use crate::code::{self, Code};
use crate::count;
use crate::event::Event;
use crate::stream::{self, NON_BLOCKING, Op, Stream};
use crate::table::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// `CU_STREAM_CAPTURE_MODE_…`: whose unsafe calls spoil a capture.
const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

/// A capture that is on its way.
pub(crate) struct Capture {
    mode: u32,
    thread: ThreadId,
    /// Handle of the stream that it began in.
    origin: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ops: Vec<Op>,
    /// Why nothing comes of it any more.
    spoilt: Option<String>,
    /// Streams that take part, with the operations recorded in each, and how many of
    /// them the others wait for.
    members: BTreeMap<usize, (usize, usize)>,
}

static ACTIVE: Mutex<Vec<Arc<Capture>>> = Mutex::new(Vec::new());

impl Capture {
    fn spoil(&self, why: &str) {
        lock(&self.state).spoilt.get_or_insert_with(|| why.to_owned());
    }

    /// 1: it goes on, 2: it is spoilt. As `CUstreamCaptureStatus`.
    pub(crate) fn status(&self) -> i32 {
        if lock(&self.state).spoilt.is_some() { 2 } else { 1 }
    }

    fn valid(&self) -> Result<(), Code> {
        if lock(&self.state).spoilt.is_some() { Err(code::CAPTURE_INVALIDATED) } else { Ok(()) }
    }

    /// Operations recorded so far in one of its streams.
    pub(crate) fn recorded(&self, stream: usize) -> usize {
        lock(&self.state).members.get(&stream).map_or(0, |(recorded, _)| *recorded)
    }

    fn refuse(&self, call: &str, code: Code) -> Code {
        self.spoil(call);
        count::violation(format!("{call} while a stream is captured (CUDA answers {code})"));
        code
    }
}

/// Puts `op` into the capture of the stream, if there is one.
pub(crate) fn record(stream: &Stream, op: &Op) -> Result<bool, Code> {
    let Some(capture) = stream.capture() else {
        return Ok(false);
    };
    capture.valid()?;
    let mut state = lock(&capture.state);
    state.ops.push(op.clone());
    state.members.entry(stream.handle).or_default().0 += 1;
    Ok(true)
}

pub(crate) fn begin(stream: &Stream, mode: u32) -> Result<(), Code> {
    if stream.handle == 0 {
        return Err(code::CAPTURE_UNSUPPORTED);
    }
    if mode > RELAXED {
        return Err(code::INVALID_VALUE);
    }
    let mut capturing = lock(&stream.capturing);
    if capturing.is_some() {
        return Err(code::ILLEGAL_STATE);
    }
    let thread = std::thread::current().id();
    let members = BTreeMap::from([(stream.handle, (0, 0))]);
    let state = Mutex::new(State { members, ..State::default() });
    let capture = Arc::new(Capture { mode, thread, origin: stream.handle, state });
    lock(&ACTIVE).push(capture.clone());
    *capturing = Some(capture);
    Ok(())
}

/// Ends the capture and answers its operations.
pub(crate) fn end(stream: &Stream) -> Result<Vec<Op>, Code> {
    let capture = stream.capture().ok_or(code::ILLEGAL_STATE)?;
    if capture.origin != stream.handle {
        return Err(capture.refuse("cuStreamEndCapture in another stream", code::CAPTURE_UNMATCHED));
    }
    if capture.mode != RELAXED && capture.thread != std::thread::current().id() {
        return Err(code::CAPTURE_WRONG_THREAD);
    }
    lock(&ACTIVE).retain(|other| !Arc::ptr_eq(other, &capture));
    let mut state = lock(&capture.state);
    for member in state.members.keys() {
        if let Ok(stream) = stream::get(*member) {
            *lock(&stream.capturing) = None;
        }
    }
    if state.spoilt.is_some() {
        return Err(code::CAPTURE_INVALIDATED);
    }
    let unjoined = |(handle, (recorded, joined)): (&usize, &(usize, usize))| {
        *handle != capture.origin && joined < recorded
    };
    if state.members.iter().any(unjoined) {
        return Err(code::CAPTURE_UNJOINED);
    }
    Ok(std::mem::take(&mut state.ops))
}

/// A stream is told to wait for an event; `Ok(true)`: that is a matter of the capture
/// alone, which is done with it.
pub(crate) fn wait(stream: &Arc<Stream>, event: &Event) -> Result<bool, Code> {
    let captured = lock(&event.captured).clone();
    match (stream.capture(), captured) {
        (None, None) => Ok(false),
        (Some(capture), None) => {
            capture.valid()?;
            if lock(&event.fence).is_none() {
                // Never recorded: nothing to wait for.
                return Ok(true);
            }
            Err(capture
                .refuse("cuStreamWaitEvent for an event recorded outside", code::CAPTURE_ISOLATION))
        }
        (Some(capture), Some((other, from, recorded))) => {
            capture.valid()?;
            if !Arc::ptr_eq(&capture, &other) {
                return Err(capture
                    .refuse("cuStreamWaitEvent for another capture's event", code::CAPTURE_MERGE));
            }
            if let Some((_, joined)) = lock(&capture.state).members.get_mut(&from) {
                *joined = recorded.max(*joined);
            }
            Ok(true)
        }
        (None, Some((capture, ..))) => {
            capture.valid()?;
            if stream.handle == 0 {
                return Err(capture.refuse("waiting in the legacy stream", code::CAPTURE_IMPLICIT));
            }
            if !lock(&ACTIVE).iter().any(|active| Arc::ptr_eq(active, &capture)) {
                count::violation("waiting for an event of a capture that has ended".to_owned());
                return Err(code::CAPTURED_EVENT);
            }
            // The stream becomes part of the capture.
            lock(&capture.state).members.entry(stream.handle).or_default();
            *lock(&stream.capturing) = Some(capture);
            Ok(true)
        }
    }
}

/// A call that CUDA forbids on a stream, or an event, that is captured.
pub(crate) fn refuse_on(capture: Option<Arc<Capture>>, call: &str, code: Code) -> Result<(), Code> {
    capture.map_or(Ok(()), |capture| Err(capture.refuse(call, code)))
}

/// A call that is unsafe while any thread (or this one, by the capture's mode) captures.
pub(crate) fn forbidden(call: &str) -> Result<(), Code> {
    let here = std::thread::current().id();
    let spoilt = |capture: &&Arc<Capture>| {
        capture.mode == GLOBAL || (capture.mode == THREAD_LOCAL && capture.thread == here)
    };
    refuse_on(lock(&ACTIVE).iter().find(spoilt).cloned(), call, code::CAPTURE_UNSUPPORTED)
}

/// A call that waits for every stream: unsafe with any capture.
pub(crate) fn forbidden_everywhere(call: &str) -> Result<(), Code> {
    refuse_on(lock(&ACTIVE).first().cloned(), call, code::CAPTURE_UNSUPPORTED)
}

/// Work in the legacy stream would wait for the blocking streams, of which none may be
/// captured.
pub(crate) fn implicit(stream: &Stream) -> Result<(), Code> {
    if stream.handle != 0 {
        return Ok(());
    }
    let blocking = |capture: &&Arc<Capture>| {
        stream::get(capture.origin).is_ok_and(|origin| origin.flags & NON_BLOCKING == 0)
    };
    let found = lock(&ACTIVE).iter().find(blocking).cloned();
    refuse_on(found, "work in the legacy stream", code::CAPTURE_IMPLICIT)
}
