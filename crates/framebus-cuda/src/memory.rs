//! Memory of the device, pinned memory of the host, and registered mappings.

#![allow(unsafe_code)]

use crate::context::Context;
use crate::error::CudaError;
use bytemuck::Pod;
use cudarc::driver::sys;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// No type that pinned memory is read as asks for more.
const ALIGNMENT: usize = 64;

/// Device memory; what lies in it at first is not known.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    address: u64,
    bytes: usize,
    context: Arc<Context>,
}

impl DeviceBuffer {
    /// `bytes` of it, at a multiple of 256 (the driver's promise).
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        context.bind()?;
        let bytes = bytes.max(1);
        let mut address = 0;
        // SAFETY: writes one address; freed in `drop`.
        unsafe { context.driver().memory_alloc(&raw mut address, bytes) }?;
        Ok(Self { address, bytes, context: Arc::clone(context) })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated once; the driver waits for work that uses it.
        self.context.destroy(|driver| unsafe { driver.memory_free(self.address) });
    }
}

/// Pinned host memory: the device's DMA reads and writes it while the CPU does
/// something else. It is borrowed only between runs, when no copy is under way.
#[derive(Debug)]
pub(crate) struct Pinned {
    address: NonNull<u8>,
    bytes: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `bytes` of zeros.
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        context.bind()?;
        let bytes = bytes.max(1);
        let mut address = std::ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: writes one address; freed in `drop`.
        unsafe { context.driver().host_alloc(&raw mut address, bytes, flags) }?;
        let Some(address) = NonNull::new(address.cast::<u8>()) else {
            return Err(CudaError::Spec { reason: "the driver gave no pinned memory".to_owned() });
        };
        let pinned = Self { address, bytes, context: Arc::clone(context) };
        // What `values` counts on; the driver gives out whole pages.
        if address.align_offset(ALIGNMENT) != 0 {
            let reason = format!("pinned memory at {address:p} is not aligned");
            return Err(CudaError::Spec { reason });
        }
        // SAFETY: `bytes` were just allocated there.
        unsafe { address.write_bytes(0, bytes) };
        Ok(pinned)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.address.as_ptr()
    }

    /// For the driver to write to.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// As values of a type that any bytes are values of. The length is rounded down.
    pub(crate) fn values<T: Pod>(&self) -> &[T] {
        // SAFETY: initialised, owned, and nobody writes while it is borrowed: see the
        // type.
        let bytes = unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes) };
        bytemuck::cast_slice(&bytes[..self.bytes / size_of::<T>() * size_of::<T>()])
    }

    /// As [`Self::values`], to write.
    pub(crate) fn values_mut<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.bytes) };
        bytemuck::cast_slice_mut(&mut bytes[..self.bytes / size_of::<T>() * size_of::<T>()])
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let address = self.address.as_ptr().cast();
        // SAFETY: allocated once; runs wait for their copies.
        self.context.destroy(|driver| unsafe { driver.host_free(address) });
    }
}

/// How a mapping is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registration {
    /// Kernels are to read it in place.
    pub(crate) mapped: bool,
    /// The device takes memory that cannot be written.
    pub(crate) read_only: bool,
}

/// Our own read-only mapping of a part of a file, registered with the device.
#[derive(Debug)]
pub(crate) struct Registered {
    /// Device address of the first byte, for kernels.
    device_address: Option<u64>,
    context: Arc<Context>,
    /// Last: unmapped after `drop` has unregistered it.
    map: MmapRaw,
}

// SAFETY: the mapping is only read, and by the device.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Registered {
    /// Maps `range` of the file, whose start is a multiple of the page size.
    pub(crate) fn new(
        context: &Arc<Context>,
        file: &File,
        range: &Range<u64>,
        how: Registration,
    ) -> Result<Self, String> {
        let bytes = usize::try_from(range.end - range.start).map_err(|error| error.to_string())?;
        let map = MmapOptions::new()
            .offset(range.start)
            .len(bytes)
            .map_raw_read_only(file)
            .map_err(|error| format!("it cannot be mapped: {error}"))?;
        context.bind().map_err(|error| error.to_string())?;
        let mut flags = sys::CU_MEMHOSTREGISTER_PORTABLE;
        if how.read_only {
            flags |= sys::CU_MEMHOSTREGISTER_READ_ONLY;
        }
        if how.mapped {
            flags |= sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        }
        let host = map.as_mut_ptr().cast();
        // SAFETY: a mapping of our own, unregistered in `drop` before it is unmapped.
        unsafe { context.driver().host_register(host, bytes, flags) }
            .map_err(|error| error.to_string())?;
        let mut registered = Self { device_address: None, context: Arc::clone(context), map };
        if how.mapped {
            let mut address = 0;
            // SAFETY: registered just now, for the device to map.
            unsafe { context.driver().host_device_address(&raw mut address, host, 0) }
                .map_err(|error| error.to_string())?;
            registered.device_address = Some(address);
        }
        Ok(registered)
    }

    /// Bytes registered.
    pub(crate) fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Where byte `offset` is for a copy; `offset` lies inside.
    pub(crate) fn host(&self, offset: usize) -> *const u8 {
        self.map.as_ptr().wrapping_add(offset)
    }

    /// Whether these bytes lie at `offset`. Whoever writes the file does not do so
    /// there now: the caller has them borrowed from another mapping of it.
    pub(crate) fn holds(&self, offset: usize, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.map.len()) {
            return false;
        }
        // SAFETY: inside the mapping, as just checked, and not written meanwhile.
        let here = unsafe { std::slice::from_raw_parts(self.host(offset), bytes.len()) };
        here == bytes
    }

    /// Where byte `offset` is for a kernel, when it was registered for that.
    pub(crate) fn device(&self, offset: usize) -> Option<u64> {
        self.device_address.map(|address| address + offset as u64)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let host = self.map.as_mut_ptr().cast();
        // SAFETY: registered once; runs hold a reference until they are done with it.
        self.context.destroy(|driver| unsafe { driver.host_unregister(host) });
    }
}
