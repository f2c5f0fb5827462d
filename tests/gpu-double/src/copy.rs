//! A TEST's double of CUDA: copies and memsets.
//!
//! Host memory that is neither pinned nor registered is *pageable*: CUDA may put such
//! bytes aside and go on, or wait; here the caller always waits.
#![allow(unsafe_code)] // Functions exported under CUDA's names; see at each block.

use crate::code::{self, Code};
use crate::context::call;
use crate::memory::{self, Access, Kind, hold};
use crate::stream::Op;
use crate::{capture, count, fault, stream, time};
use std::ffi::c_void;
use std::sync::Arc;

/// Where one side of a copy is, by the call's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Device,
    Host,
    /// By the address alone.
    Either,
}

/// Rows of bytes and where each begins; a plain copy is one row.
#[derive(Debug, Clone, Copy)]
struct Rows {
    to: (usize, usize),
    from: (usize, usize),
    width: usize,
    height: usize,
}

impl Rows {
    fn plain(to: usize, from: usize, len: usize) -> Self {
        Self { to: (to, len), from: (from, len), width: len, height: 1 }
    }

    /// Bytes between the first and the last of one side.
    fn span(&self, pitch: usize) -> usize {
        if self.height == 0 || self.width == 0 { 0 } else { (self.height - 1) * pitch + self.width }
    }
}

/// Whether the address belongs to memory that the device does not know.
fn pageable(address: usize, side: Side) -> bool {
    side != Side::Device && memory::find(address).is_none()
}

/// Does the copy in a stream (`None`: now, in the legacy stream).
fn copy(stream: Option<*mut c_void>, rows: Rows, to: Side, from: Side) -> Result<(), Code> {
    let waits = pageable(rows.to.0, to) || pageable(rows.from.0, from);
    let op = operation(rows, to, from);
    let handle = stream.map_or(0, |stream| stream as usize);
    let target = stream::get(handle)?;
    if stream.is_none() {
        capture::forbidden("a copy without a stream")?;
    }
    stream::try_enqueue(handle, op)?;
    if stream.is_none() || (waits && target.capture().is_none()) {
        stream::synchronize(&target)?;
    }
    Ok(())
}

fn operation(rows: Rows, to: Side, from: Side) -> Op {
    // What is pageable now is so for the operation: memory that was registered when
    // the copy was enqueued and is not when it runs is a violation.
    let known = |address, side, span| span > 0 && !pageable(address, side);
    let (to_known, from_known) = (
        known(rows.to.0, to, rows.span(rows.to.1)),
        known(rows.from.0, from, rows.span(rows.from.1)),
    );
    Arc::new(move || {
        let mut held = Vec::new();
        if to_known {
            held.extend(hold(rows.to.0, rows.span(rows.to.1), Access::Write, "copy to")?);
        }
        let written = held.len();
        if from_known {
            held.extend(hold(rows.from.0, rows.span(rows.from.1), Access::Read, "copy from")?);
        }
        time::pause(fault::now().slow_copy);
        for row in 0..rows.height {
            memory::copy(rows.to.0 + row * rows.to.1, rows.from.0 + row * rows.from.1, rows.width);
        }
        let on_device = |side: &[Arc<memory::Block>]| {
            side.first().is_some_and(|block| block.kind == Kind::Device)
        };
        let (write, read) = held.split_at(written);
        let bytes = (rows.width * rows.height) as u64;
        match (on_device(write), on_device(read)) {
            (true, false) => {
                count::H2D_COPIES.add(1);
                count::H2D_BYTES.add(bytes);
                if read.iter().any(|block| matches!(block.kind, Kind::Registered(_))) {
                    count::REGISTERED_BYTES.add(bytes);
                }
            }
            (false, true) => {
                count::D2H_COPIES.add(1);
                count::D2H_BYTES.add(bytes);
            }
            _ => {}
        }
        if !(to_known && from_known) {
            count::PAGEABLE.add(1);
        }
        Ok(())
    })
}

macro_rules! copies {
    ($($name:ident $asynchronous:ident $to:ident $from:ident;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name(to: usize, from: usize, bytes: usize) -> u32 {
            call(|| copy(None, Rows::plain(to, from, bytes), Side::$to, Side::$from))
        }

        #[unsafe(no_mangle)]
        extern "C" fn $asynchronous(
            to: usize,
            from: usize,
            bytes: usize,
            stream: *mut c_void,
        ) -> u32 {
            call(|| copy(Some(stream), Rows::plain(to, from, bytes), Side::$to, Side::$from))
        }
    )* };
}

copies! {
    cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 Device Host;
    cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 Host Device;
    cuMemcpyDtoD_v2 cuMemcpyDtoDAsync_v2 Device Device;
    cuMemcpy cuMemcpyAsync Either Either;
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
struct Copy2D {
    from_x: usize,
    from_y: usize,
    from_kind: u32,
    from_host: usize,
    from_device: usize,
    from_array: usize,
    from_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_kind: u32,
    to_host: usize,
    to_device: usize,
    to_array: usize,
    to_pitch: usize,
    width: usize,
    height: usize,
}

impl Copy2D {
    fn copy(&self, stream: Option<*mut c_void>) -> Result<(), Code> {
        let side = |kind, host, device| match kind {
            1 => Ok((host, Side::Host)),
            2 => Ok((device, Side::Device)),
            4 => Ok((device, Side::Either)),
            // Arrays are not doubled.
            _ => Err(code::INVALID_VALUE),
        };
        // Packed rows may leave the pitch out.
        let pitch = |pitch| if pitch == 0 { self.width } else { pitch };
        let (to_pitch, from_pitch) = (pitch(self.to_pitch), pitch(self.from_pitch));
        if to_pitch < self.width || from_pitch < self.width {
            return Err(code::INVALID_VALUE);
        }
        let (to, to_side) = side(self.to_kind, self.to_host, self.to_device)?;
        let (from, from_side) = side(self.from_kind, self.from_host, self.from_device)?;
        let rows = Rows {
            to: (to + self.to_y * to_pitch + self.to_x, to_pitch),
            from: (from + self.from_y * from_pitch + self.from_x, from_pitch),
            width: self.width,
            height: self.height,
        };
        copy(stream, rows, to_side, from_side)
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2D_v2(copy: Option<&Copy2D>) -> u32 {
    call(|| copy.ok_or(code::INVALID_VALUE)?.copy(None))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy2DAsync_v2(copy: Option<&Copy2D>, stream: *mut c_void) -> u32 {
    call(|| copy.ok_or(code::INVALID_VALUE)?.copy(Some(stream)))
}

/// Memsets do not wait, as in CUDA, except those without a stream.
fn set(stream: Option<*mut c_void>, to: usize, pattern: Vec<u8>, times: usize) -> Result<(), Code> {
    let handle = stream.map_or(0, |stream| stream as usize);
    if stream.is_none() {
        capture::forbidden("a memset without a stream")?;
    }
    let op = move || {
        let _held = hold(to, pattern.len() * times, Access::Write, "memset")?;
        memory::fill(to, &pattern, times);
        Ok(())
    };
    stream::try_enqueue(handle, Arc::new(op))?;
    if stream.is_none() { stream::synchronize(&stream::get(handle)?) } else { Ok(()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: usize, byte: u8, times: usize) -> u32 {
    call(|| set(None, to, vec![byte], times))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: usize, byte: u8, times: usize, stream: *mut c_void) -> u32 {
    call(|| set(Some(stream), to, vec![byte], times))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: usize, word: u32, times: usize) -> u32 {
    call(|| set(None, to, word.to_ne_bytes().to_vec(), times))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: usize, word: u32, times: usize, stream: *mut c_void) -> u32 {
    call(|| set(Some(stream), to, word.to_ne_bytes().to_vec(), times))
}
