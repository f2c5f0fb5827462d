//! A TEST's double of CUDA: the calls on streams.
#![allow(unsafe_code)] // Functions exported under CUDA's names; see at each block.

use crate::code;
use crate::context::{Out, call, put, release};
use crate::event::{self, EVENTS};
use crate::{capture, fault, stream};
use std::ffi::c_void;
use std::sync::Arc;

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(out: Out<'_, usize>, flags: u32) -> u32 {
    call(|| put(out, stream::create(flags, 0)?))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(out: Out<'_, usize>, flags: u32, priority: i32) -> u32 {
    // CUDA takes the nearest priority that there is.
    call(|| put(out, stream::create(flags, priority.clamp(-5, 0))?))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> u32 {
    release(|| {
        capture::refuse_on(
            stream::get(stream as usize)?.capture(),
            "cuStreamDestroy",
            code::CAPTURE_UNSUPPORTED,
        )?;
        stream::destroy(stream as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(stream: *mut c_void, out: Out<'_, u32>) -> u32 {
    call(|| put(out, stream::get(stream as usize)?.flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(stream: *mut c_void, out: Out<'_, i32>) -> u32 {
    call(|| put(out, stream::get(stream as usize)?.priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> u32 {
    call(|| {
        let stream = stream::get(stream as usize)?;
        capture::refuse_on(stream.capture(), "cuStreamSynchronize", code::CAPTURE_UNSUPPORTED)?;
        capture::forbidden("cuStreamSynchronize")?;
        stream::synchronize(&stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: *mut c_void) -> u32 {
    call(|| {
        let stream = stream::get(stream as usize)?;
        capture::refuse_on(stream.capture(), "cuStreamQuery", code::CAPTURE_UNSUPPORTED)?;
        capture::forbidden("cuStreamQuery")?;
        if stream.idle() { fault::alive() } else { Err(code::NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: *mut c_void, event: usize, flags: u32) -> u32 {
    call(|| {
        if flags != 0 {
            // Event nodes of graphs are not doubled.
            return Err(code::NOT_SUPPORTED);
        }
        event::wait(stream as usize, &*EVENTS.get(event)?)
    })
}

/// `CUhostFn` and what it is given: the caller vouches for both until it has run.
struct Host {
    function: extern "C" fn(*mut c_void),
    data: usize,
}

impl Host {
    fn run(&self) {
        (self.function)(self.data as *mut c_void);
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(
    stream: *mut c_void,
    function: Option<extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> u32 {
    call(|| {
        let function = function.ok_or(code::INVALID_VALUE)?;
        let host = Host { function, data: data as usize };
        let op = move || {
            host.run();
            Ok(())
        };
        stream::try_enqueue(stream as usize, Arc::new(op))
    })
}
