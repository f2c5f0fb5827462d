//! A TEST's double of CUDA: the calls that make and end memory.
#![allow(unsafe_code)] // Functions exported under CUDA's names; nothing unsafe in them.

use crate::capture::forbidden;
use crate::code;
use crate::context::{Out, call, put, release};
use crate::memory::{self, Kind};
use crate::{device, fault, stream};
use std::ffi::c_void;
use std::sync::Arc;

/// `CU_MEMHOSTREGISTER_READ_ONLY`.
const READ_ONLY: u32 = 8;

fn device_memory(kind: Kind) -> bool {
    kind == Kind::Device
}

fn pinned(kind: Kind) -> bool {
    kind == Kind::Pinned
}

fn registered(kind: Kind) -> bool {
    matches!(kind, Kind::Registered(_))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(out: Out<'_, usize>, bytes: usize) -> u32 {
    call(|| {
        forbidden("cuMemAlloc")?;
        put(out, memory::allocate(bytes, Kind::Device)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(out: Out<'_, usize>, bytes: usize, _flags: u32) -> u32 {
    cuMemAlloc_v2(out, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: usize) -> u32 {
    release(|| {
        forbidden("cuMemFree")?;
        if address == 0 {
            return Ok(());
        }
        memory::free(address, "cuMemFree", device_memory, code::INVALID_VALUE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(out: Out<'_, usize>, bytes: usize, stream: *mut c_void) -> u32 {
    call(|| {
        if !device::get().pools {
            return Err(code::NOT_SUPPORTED);
        }
        if stream::get(stream as usize)?.capture().is_some() {
            return Err(code::CAPTURE_UNSUPPORTED);
        }
        put(out, memory::allocate(bytes, Kind::Device)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: usize, stream: *mut c_void) -> u32 {
    release(|| {
        if stream::get(stream as usize)?.capture().is_some() {
            return Err(code::CAPTURE_UNSUPPORTED);
        }
        let free =
            move || memory::free(address, "cuMemFreeAsync", device_memory, code::INVALID_VALUE);
        if fault::alive().is_err() {
            // The streams do nothing any more.
            return free();
        }
        stream::try_enqueue(stream as usize, Arc::new(free))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(out: Out<'_, *mut c_void>, bytes: usize, _flags: u32) -> u32 {
    call(|| {
        forbidden("cuMemHostAlloc")?;
        put(out, memory::allocate(bytes, Kind::Pinned)? as *mut c_void)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(out: Out<'_, *mut c_void>, bytes: usize) -> u32 {
    cuMemHostAlloc(out, bytes, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: *mut c_void) -> u32 {
    release(|| {
        forbidden("cuMemFreeHost")?;
        memory::free(address as usize, "cuMemFreeHost", pinned, code::INVALID_VALUE)
    })
}

/// Readable and writable as the process sees the range; `None` where something of it
/// is not mapped.
fn mapped(address: usize, len: usize) -> Option<(bool, bool)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let (mut at, end) = (address, address.checked_add(len)?);
    let (mut readable, mut writable) = (true, true);
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (first, last) = words.next()?.split_once('-')?;
        let first = usize::from_str_radix(first, 16).ok()?;
        let last = usize::from_str_radix(last, 16).ok()?;
        if first <= at && at < last {
            let rights = words.next()?;
            readable &= rights.starts_with('r');
            writable &= rights.as_bytes().get(1) == Some(&b'w');
            at = last;
            if at >= end {
                return Some((readable, writable));
            }
        }
    }
    None
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, flags: u32) -> u32 {
    call(|| {
        forbidden("cuMemHostRegister")?;
        let device = device::get();
        let read_only = flags & READ_ONLY != 0;
        if !device.register || (read_only && !device.read_only) || fault::now().register {
            return Err(code::NOT_SUPPORTED);
        }
        if address.is_null() || bytes == 0 {
            return Err(code::INVALID_VALUE);
        }
        let (readable, writable) = mapped(address as usize, bytes).ok_or(code::INVALID_VALUE)?;
        if !readable || !(writable || read_only) {
            return Err(code::INVALID_VALUE);
        }
        memory::register(address as usize, bytes, read_only)?;
        crate::count::REGISTRATIONS.add(1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(address: *mut c_void) -> u32 {
    release(|| {
        forbidden("cuMemHostUnregister")?;
        memory::free(address as usize, "cuMemHostUnregister", registered, code::NOT_REGISTERED)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(
    out: Out<'_, usize>,
    address: *mut c_void,
    _flags: u32,
) -> u32 {
    call(|| match memory::find(address as usize) {
        Some(block) if block.kind != Kind::Device => put(out, address as usize),
        _ => Err(code::INVALID_VALUE),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<'_, usize>, total: Out<'_, usize>) -> u32 {
    call(|| {
        let all = usize::try_from(device::get().memory).unwrap_or(usize::MAX);
        put(free, all.saturating_sub(memory::live(device_memory).1))?;
        put(total, all)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(
    base: Out<'_, usize>,
    len: Out<'_, usize>,
    address: usize,
) -> u32 {
    call(|| {
        let block = memory::find(address).ok_or(code::NOT_FOUND)?;
        // Either may be left out.
        let _ = put(base, block.address);
        let _ = put(len, block.len);
        Ok(())
    })
}
