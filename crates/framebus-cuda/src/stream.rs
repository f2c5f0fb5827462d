//! Streams, events and graphs.
//!
//! Enqueueing is `unsafe` throughout: the driver reads and writes the addresses
//! later, and only who enqueues knows what keeps them alive until then.

#![allow(unsafe_code)]

use crate::context::{Context, Function};
use crate::error::CudaError;
use cudarc::driver::sys;
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

/// Work in order, next to the work of other streams.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: sys::CUstream,
    context: Arc<Context>,
}

// SAFETY: a stream may be used by any thread whose current context is its own, which
// `Device::bind` provides; the driver serialises calls.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// Rows of bytes, from one pitch to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    /// Bytes of a row.
    pub(crate) bytes: usize,
    /// How many rows.
    pub(crate) count: usize,
    /// Bytes from one row to the next, at the source.
    pub(crate) from_pitch: usize,
    /// Bytes from one row to the next, at the destination.
    pub(crate) to_pitch: usize,
}

impl Stream {
    /// A stream that does not wait for the default stream, nor makes it wait.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: writes one handle; destroyed in `drop`.
        unsafe { context.driver().stream_create(&raw mut raw, flags) }?;
        Ok(Self { raw, context: Arc::clone(context) })
    }

    /// The `CUstream`, for libraries that enqueue on it.
    pub(crate) fn as_raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// Blocks until everything enqueued is done. Must not be called while the stream
    /// is being captured.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: a live stream.
        unsafe { self.context.driver().stream_synchronize(self.raw) }
    }

    /// What is enqueued from now on starts when `event` has happened.
    pub(crate) fn wait(&self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: a live stream and event; the driver keeps what it needs of the event.
        unsafe { self.context.driver().stream_wait_event(self.raw, event.raw, 0) }
    }

    /// # Safety
    /// Both ranges stay as they are until the stream has passed; `from` is pinned, or
    /// its bytes must not change before the call returns either.
    pub(crate) unsafe fn copy_to_device(
        &self,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.context.driver().copy_to_device(to, from.cast(), bytes, self.raw) }
    }

    /// # Safety
    /// As [`Self::copy_to_device`], for every row.
    pub(crate) unsafe fn copy_rows_to_device(
        &self,
        to: u64,
        from: *const u8,
        rows: Rows,
    ) -> Result<(), CudaError> {
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: from.cast(),
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstDevice: to,
            ..rows.copy()
        };
        // SAFETY: the caller's promise; the structure is read during the call.
        unsafe { self.context.driver().copy_rows(&raw const copy, self.raw) }
    }

    /// # Safety
    /// Both ranges stay until the stream has passed, and nobody reads `to` before.
    pub(crate) unsafe fn copy_to_host(
        &self,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.context.driver().copy_to_host(to.cast(), from, bytes, self.raw) }
    }

    /// # Safety
    /// As [`Self::copy_to_host`], for every row.
    pub(crate) unsafe fn copy_rows_to_host(
        &self,
        to: *mut u8,
        from: u64,
        rows: Rows,
    ) -> Result<(), CudaError> {
        let copy = sys::CUDA_MEMCPY2D {
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcDevice: from,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: to.cast(),
            ..rows.copy()
        };
        // SAFETY: the caller's promise; the structure is read during the call.
        unsafe { self.context.driver().copy_rows(&raw const copy, self.raw) }
    }

    /// # Safety
    /// The range stays until the stream has passed.
    pub(crate) unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.context.driver().set_bytes(address, 0, bytes, self.raw) }
    }

    /// # Safety
    /// `arguments` point at values of the kernel's parameter types, in order, and the
    /// addresses among them stay until the stream has passed. The values themselves
    /// are read during the call.
    pub(crate) unsafe fn launch(
        &self,
        function: Function,
        grid: [u32; 3],
        block: [u32; 2],
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        let [x, y, z] = grid;
        let arguments = arguments.as_mut_ptr();
        let none = std::ptr::null_mut();
        // SAFETY: the caller's promise.
        unsafe {
            self.context
                .driver()
                .launch(function.0, x, y, z, block[0], block[1], 1, 0, self.raw, arguments, none)
        }
    }

    /// # Safety
    /// All addresses that were captured stay until the stream has passed, and the
    /// graph is not launched by another thread meanwhile.
    pub(crate) unsafe fn launch_graph(&self, graph: &Graph) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        unsafe { self.context.driver().graph_launch(graph.raw, self.raw) }
    }

    /// From now on, what is enqueued is recorded instead of run. Thread-local: other
    /// threads may go on allocating and copying.
    pub(crate) fn begin_capture(&self) -> Result<Capture<'_>, CudaError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a live stream; the capture ends with the value returned.
        unsafe { self.context.driver().stream_begin_capture(self.raw, mode) }?;
        Ok(Capture { stream: self, open: true })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created once; the driver finishes what is enqueued.
        self.context.destroy(|driver| unsafe { driver.stream_destroy(self.raw) });
    }
}

impl Rows {
    /// Everything but the two ends.
    fn copy(self) -> sys::CUDA_MEMCPY2D {
        sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: std::ptr::null(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: self.from_pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: std::ptr::null_mut(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: self.to_pitch,
            WidthInBytes: self.bytes,
            Height: self.count,
        }
    }
}

/// A stream whose work is being recorded. Dropping it ends the recording and forgets
/// it, so that the stream works again after an error or a panic.
#[derive(Debug)]
pub(crate) struct Capture<'a> {
    stream: &'a Stream,
    open: bool,
}

impl Capture<'_> {
    /// Ends the recording and makes it launchable.
    pub(crate) fn finish(mut self) -> Result<Graph, CudaError> {
        let context = &self.stream.context;
        let recording = self.end()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a live graph; writes one handle.
        let made = unsafe { context.driver().graph_instantiate(&raw mut raw, recording, 0) };
        self.forget(recording);
        made.map(|()| Graph { raw, context: Arc::clone(context) })
    }

    fn end(&mut self) -> Result<sys::CUgraph, CudaError> {
        self.open = false;
        let mut recording = std::ptr::null_mut();
        let Stream { raw, context } = self.stream;
        // SAFETY: the stream is being captured, by this thread.
        unsafe { context.driver().stream_end_capture(*raw, &raw mut recording) }?;
        Ok(recording)
    }

    fn forget(&self, recording: sys::CUgraph) {
        // SAFETY: a live graph that nobody else has.
        self.stream.context.destroy(|driver| unsafe { driver.graph_destroy(recording) });
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // After an invalid call the driver answers an error and no graph.
        if self.open
            && let Ok(recording) = self.end()
        {
            self.forget(recording);
        }
    }
}

/// Recorded work, launched with one call.
#[derive(Debug)]
pub(crate) struct Graph {
    raw: sys::CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: the driver asks that a graph is used by one thread at a time, which its
// owner's `&mut` and `launch_graph`'s condition provide.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated once; the driver waits for launches to end.
        self.context.destroy(|driver| unsafe { driver.graph_exec_destroy(self.raw) });
    }
}

/// A point in a stream that others wait for.
#[derive(Debug)]
pub(crate) struct Event {
    raw: sys::CUevent,
    context: Arc<Context>,
}

// SAFETY: as for `Stream`.
unsafe impl Send for Event {}
// SAFETY: as for `Stream`.
unsafe impl Sync for Event {}

impl Event {
    /// Without a time, and such that a waiting thread sleeps instead of spinning.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint
            | sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as c_uint;
        // SAFETY: writes one handle; destroyed in `drop`.
        unsafe { context.driver().event_create(&raw mut raw, flags) }?;
        Ok(Self { raw, context: Arc::clone(context) })
    }

    /// It happens when the stream has done what is enqueued now.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: a live event and stream.
        unsafe { self.context.driver().event_record(self.raw, stream.raw) }
    }

    /// Blocks until it has happened; an error of the work before it comes out here.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: a live event.
        unsafe { self.context.driver().event_synchronize(self.raw) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created once; the driver keeps it until it has happened.
        self.context.destroy(|driver| unsafe { driver.event_destroy(self.raw) });
    }
}
