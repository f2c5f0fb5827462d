//! A TEST's double of CUDA: events. Recording puts a new fence into the stream, and
//! who waits takes the fence of the last recording.
#![allow(unsafe_code)] // Functions exported under CUDA's names; nothing unsafe in them.

use crate::capture::{self, Capture};
use crate::code::{self, Code};
use crate::context::{Out, call, put, release};
use crate::stream::{self, Fence, Item};
use crate::table::{Table, lock};
use crate::{count, fault};
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: u32 = 2;

pub(crate) struct Event {
    flags: u32,
    /// The last recording's place; none before the first.
    pub(crate) fence: Mutex<Option<Arc<Fence>>>,
    /// The capture of the last recording, the stream's handle, and how many of that
    /// stream's operations lie before it.
    pub(crate) captured: Mutex<Option<(Arc<Capture>, usize, usize)>>,
}

pub(crate) static EVENTS: Table<Event> = Table::new("event");

pub(crate) fn record(event: &Event, stream: usize) -> Result<(), Code> {
    let stream = stream::get(stream)?;
    if let Some(capture) = stream.capture() {
        if capture.status() != 1 {
            return Err(code::CAPTURE_INVALIDATED);
        }
        let recorded = capture.recorded(stream.handle);
        *lock(&event.captured) = Some((capture, stream.handle, recorded));
        return Ok(());
    }
    let fence = Arc::new(Fence::default());
    stream::submit(&stream, [Item::Signal(fence.clone())])?;
    *lock(&event.captured) = None;
    *lock(&event.fence) = Some(fence);
    Ok(())
}

pub(crate) fn wait(stream: usize, event: &Event) -> Result<(), Code> {
    let stream = stream::get(stream)?;
    if capture::wait(&stream, event)? {
        return Ok(());
    }
    let Some(fence) = lock(&event.fence).clone() else {
        return Ok(());
    };
    stream::submit(&stream, [Item::Wait(fence)])
}

fn uncaptured(event: &Event, call: &str) -> Result<(), Code> {
    let captured = lock(&event.captured).as_ref().map(|(capture, ..)| capture.clone());
    capture::refuse_on(captured, call, code::CAPTURED_EVENT)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(out: Out<'_, usize>, flags: u32) -> u32 {
    call(|| {
        let event = Event { flags, fence: Mutex::new(None), captured: Mutex::new(None) };
        put(out, EVENTS.insert(event))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> u32 {
    release(|| EVENTS.remove(event).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: *mut c_void) -> u32 {
    call(|| record(&*EVENTS.get(event)?, stream as usize))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: usize, stream: *mut c_void, flags: u32) -> u32 {
    if flags != 0 {
        // Event nodes of graphs are not doubled.
        return code::NOT_SUPPORTED;
    }
    cuEventRecord(event, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: usize) -> u32 {
    call(|| {
        let event = EVENTS.get(event)?;
        uncaptured(&event, "cuEventQuery")?;
        capture::forbidden("cuEventQuery")?;
        match &*lock(&event.fence) {
            Some(fence) if fence.reached().is_none() => Err(code::NOT_READY),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> u32 {
    call(|| {
        let event = EVENTS.get(event)?;
        uncaptured(&event, "cuEventSynchronize")?;
        capture::forbidden("cuEventSynchronize")?;
        count::WAITS.add(1);
        let fence = lock(&event.fence).clone();
        if let Some(fence) = fence {
            fence.wait();
        }
        fault::alive()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(out: Out<'_, f32>, start: usize, end: usize) -> u32 {
    call(|| {
        let at = |event: usize| {
            let event = EVENTS.get(event)?;
            let fence = lock(&event.fence).clone();
            match fence {
                Some(fence) if event.flags & NO_TIMING == 0 => {
                    fence.reached().ok_or(code::NOT_READY)
                }
                _ => Err(code::INVALID_HANDLE),
            }
        };
        let (start, end) = (at(start)?, at(end)?);
        #[allow(clippy::cast_precision_loss)] // Milliseconds for people.
        let millis = (end as f64 - start as f64) / 1e6;
        #[allow(clippy::cast_possible_truncation)] // CUDA's own type.
        put(out, millis as f32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(out: Out<'_, f32>, start: usize, end: usize) -> u32 {
    cuEventElapsedTime(out, start, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;
    use crate::stream::{NON_BLOCKING, create, get, synchronize, try_enqueue};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn event() -> Event {
        Event { flags: 0, fence: Mutex::new(None), captured: Mutex::new(None) }
    }

    #[test]
    fn a_stream_waits_for_the_recording_and_not_for_later_ones() {
        let (slow, quick) = (create(NON_BLOCKING, 0).unwrap(), create(NON_BLOCKING, 0).unwrap());
        let steps = Arc::new(AtomicUsize::new(0));
        let step = |millis: u64, expected: usize| {
            let steps = steps.clone();
            Arc::new(move || {
                crate::time::pause(Duration::from_millis(millis));
                assert_eq!(steps.fetch_add(1, Ordering::SeqCst), expected);
                Ok(())
            })
        };
        let event = event();
        // Never recorded: no wait.
        wait(quick, &event).unwrap();
        synchronize(&get(quick).unwrap()).unwrap();
        try_enqueue(slow, step(40, 0)).unwrap();
        record(&event, slow).unwrap();
        wait(quick, &event).unwrap();
        try_enqueue(quick, step(0, 1)).unwrap();
        try_enqueue(slow, step(80, 2)).unwrap();
        record(&event, slow).unwrap();
        synchronize(&get(quick).unwrap()).unwrap();
        assert_eq!(steps.load(Ordering::SeqCst), 2);
        synchronize(&get(slow).unwrap()).unwrap();
        assert_eq!(steps.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_capture_takes_other_streams_in_and_runs_when_launched() {
        let (first, second) = (create(NON_BLOCKING, 0).unwrap(), create(NON_BLOCKING, 0).unwrap());
        let total = Arc::new(AtomicUsize::new(0));
        let add = |number: usize| {
            let total = total.clone();
            Arc::new(move || {
                total.fetch_add(number, Ordering::SeqCst);
                Ok(())
            })
        };
        let (fork, join, outside) = (event(), event(), event());
        record(&outside, second).unwrap();
        capture::begin(&get(first).unwrap(), 1).unwrap();
        record(&fork, first).unwrap();
        wait(second, &fork).unwrap();
        try_enqueue(second, add(10)).unwrap();
        record(&join, second).unwrap();
        try_enqueue(first, add(1)).unwrap();
        wait(first, &join).unwrap();
        let ops = capture::end(&get(first).unwrap()).unwrap();
        assert!(get(second).unwrap().capture().is_none());
        assert_eq!((ops.len(), total.load(Ordering::SeqCst)), (2, 0));
        graph::launch(&graph::Executable::new(ops), first).unwrap();
        synchronize(&get(first).unwrap()).unwrap();
        assert_eq!(total.load(Ordering::SeqCst), 11);

        // Work that nobody waits for, and work from outside.
        capture::begin(&get(first).unwrap(), 2).unwrap();
        record(&fork, first).unwrap();
        wait(second, &fork).unwrap();
        try_enqueue(second, add(100)).unwrap();
        assert_eq!(capture::end(&get(first).unwrap()).err(), Some(code::CAPTURE_UNJOINED));
        capture::begin(&get(first).unwrap(), 2).unwrap();
        assert_eq!(wait(first, &outside), Err(code::CAPTURE_ISOLATION));
        assert_eq!(try_enqueue(first, add(100)), Err(code::CAPTURE_INVALIDATED));
        assert_eq!(capture::end(&get(first).unwrap()).err(), Some(code::CAPTURE_INVALIDATED));
        assert_eq!(total.load(Ordering::SeqCst), 11);
    }
}
