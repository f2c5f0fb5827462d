//! A TEST's double of CUDA: starting, devices and contexts.
#![allow(unsafe_code)] // Functions exported under CUDA's names; see at each block.

use crate::code::{self, Code};
use crate::{capture, count, device, fault, memory, stream};
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Where a function puts a result: C's pointer, which may be null.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Contexts are numbers from here on, one per device.
const FIRST_CONTEXT: usize = 0x4_0000_0000;
/// Devices that a test may have.
const DEVICES: usize = 16;

static STARTED: AtomicBool = AtomicBool::new(false);
static RETAINED: [AtomicI32; DEVICES] = [const { AtomicI32::new(0) }; DEVICES];

thread_local! {
    /// The thread's stack of contexts; 0 is none.
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn put<T>(out: Out<'_, T>, value: T) -> Result<(), Code> {
    out.ok_or(code::INVALID_VALUE)?.write(value);
    Ok(())
}

fn answer(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(0)
}

/// Whether `cuInit` was called and there is a device: what TensorRT asks as well.
pub(crate) fn started() -> bool {
    STARTED.load(Ordering::SeqCst) && device::get().devices > 0
}

/// A call that needs no context.
fn bare(body: impl FnOnce() -> Result<(), Code>) -> Code {
    if !STARTED.load(Ordering::SeqCst) {
        return code::NOT_INITIALIZED;
    }
    answer(body())
}

fn ready() -> Result<(), Code> {
    if !STARTED.load(Ordering::SeqCst) {
        return Err(code::NOT_INITIALIZED);
    }
    let context = CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0));
    let ordinal = context.wrapping_sub(FIRST_CONTEXT);
    match RETAINED.get(ordinal) {
        Some(count) if count.load(Ordering::SeqCst) > 0 => Ok(()),
        _ => Err(code::INVALID_CONTEXT),
    }
}

/// A call in the thread's context, while nothing has failed.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Code>) -> Code {
    answer(ready().and_then(|()| fault::alive()).and_then(|()| body()))
}

/// A call that ends something: it is done even when the device is lost, and then
/// answers that.
pub(crate) fn release(body: impl FnOnce() -> Result<(), Code>) -> Code {
    answer(ready().and_then(|()| {
        let alive = fault::alive();
        body().and(alive)
    }))
}

fn ordinal(device: i32) -> Result<usize, Code> {
    let there = (0..device::get().devices).contains(&device);
    usize::try_from(device).ok().filter(|n| there && *n < DEVICES).ok_or(code::INVALID_DEVICE)
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: u32) -> u32 {
    let device = device::get();
    if device.init != 0 {
        return device.init;
    }
    if device.devices == 0 || (fault::now().lost.is_some() && !STARTED.load(Ordering::SeqCst)) {
        return code::NO_DEVICE;
    }
    STARTED.store(true, Ordering::SeqCst);
    0
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(out: Out<'_, i32>) -> u32 {
    answer(put(out, device::get().cuda))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(out: Out<'_, i32>) -> u32 {
    bare(|| put(out, device::get().devices))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(out: Out<'_, i32>, number: i32) -> u32 {
    bare(|| {
        ordinal(number)?;
        put(out, number)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(out: *mut c_char, len: i32, device: i32) -> u32 {
    bare(|| {
        ordinal(device)?;
        let len = usize::try_from(len).unwrap_or(0);
        if out.is_null() || len == 0 {
            return Err(code::INVALID_VALUE);
        }
        let name = device::get().name.as_bytes();
        let fits = name.len().min(len - 1);
        memory::copy(out as usize, name.as_ptr() as usize, fits);
        memory::copy(out as usize + fits, c"".as_ptr() as usize, 1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(out: Out<'_, i32>, attribute: i32, device: i32) -> u32 {
    bare(|| {
        ordinal(device)?;
        put(out, device::get().attribute(attribute).ok_or(code::INVALID_VALUE)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(out: Out<'_, usize>, device: i32) -> u32 {
    bare(|| {
        ordinal(device)?;
        put(out, usize::try_from(device::get().memory).unwrap_or(usize::MAX))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(out: Out<'_, [u8; 16]>, device: i32) -> u32 {
    bare(|| {
        let mut uuid = *b"framebus double ";
        uuid[15] = b'0' + u8::try_from(ordinal(device)?).unwrap_or(0);
        put(out, uuid)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(out: Out<'_, [u8; 16]>, device: i32) -> u32 {
    cuDeviceGetUuid(out, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(out: Out<'_, usize>, device: i32) -> u32 {
    bare(|| {
        let ordinal = ordinal(device)?;
        fault::alive()?;
        RETAINED[ordinal].fetch_add(1, Ordering::SeqCst);
        put(out, FIRST_CONTEXT + ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> u32 {
    bare(|| {
        let ordinal = ordinal(device)?;
        let less = |count| (count > 0).then_some(count - 1);
        match RETAINED[ordinal].fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Ok(()),
            Err(_) => {
                count::violation("cuDevicePrimaryCtxRelease: not retained".to_owned());
                Err(code::INVALID_CONTEXT)
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease(device: i32) -> u32 {
    cuDevicePrimaryCtxRelease_v2(device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, _flags: u32) -> u32 {
    bare(|| ordinal(device).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(
    device: i32,
    flags: Out<'_, u32>,
    active: Out<'_, i32>,
) -> u32 {
    bare(|| {
        put(flags, 0)?;
        put(active, i32::from(RETAINED[ordinal(device)?].load(Ordering::SeqCst) > 0))
    })
}

fn known(context: usize) -> Result<(), Code> {
    if context == 0 || context.wrapping_sub(FIRST_CONTEXT) < DEVICES {
        return Ok(());
    }
    count::violation(format!("{context:#x} is no context"));
    Err(code::INVALID_CONTEXT)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    bare(|| {
        known(context)?;
        CURRENT.with_borrow_mut(|stack| {
            stack.pop();
            stack.push(context);
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(out: Out<'_, usize>) -> u32 {
    bare(|| put(out, CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: usize) -> u32 {
    bare(|| {
        known(context)?;
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(out: Out<'_, usize>) -> u32 {
    bare(|| {
        let context = CURRENT.with_borrow_mut(Vec::pop).ok_or(code::INVALID_CONTEXT)?;
        let _ = put(out, context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(out: Out<'_, i32>) -> u32 {
    call(|| {
        let context = CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0));
        put(out, i32::try_from(context.wrapping_sub(FIRST_CONTEXT)).unwrap_or(0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> u32 {
    call(|| {
        capture::forbidden_everywhere("cuCtxSynchronize")?;
        count::WAITS.add(1);
        stream::synchronize_all();
        fault::alive()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(_flags: u32) -> u32 {
    call(|| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<'_, i32>, greatest: Out<'_, i32>) -> u32 {
    call(|| {
        let _ = put(least, 0);
        let _ = put(greatest, -5);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: u32, out: Out<'_, *const c_char>) -> u32 {
    let text = code::text(code);
    let result = put(out, text.map_or(std::ptr::null(), |(name, _)| name.as_ptr()));
    answer(result.and(text.map(|_| ()).ok_or(code::INVALID_VALUE)))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: u32, out: Out<'_, *const c_char>) -> u32 {
    let text = code::text(code);
    let result = put(out, text.map_or(std::ptr::null(), |(_, text)| text.as_ptr()));
    answer(result.and(text.map(|_| ()).ok_or(code::INVALID_VALUE)))
}

/// Nothing is looked up by name here: who asks shall use the dynamic linker.
#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    _symbol: *const c_char,
    out: Out<'_, *mut c_void>,
    _version: i32,
    _flags: u64,
    _status: *mut i32,
) -> u32 {
    let _ = put(out, std::ptr::null_mut());
    code::NOT_FOUND
}
