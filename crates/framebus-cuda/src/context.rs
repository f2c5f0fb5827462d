//! A device's primary context, its properties and our kernels on it.
//!
//! The primary context is the one that TensorRT uses, too.

#![allow(unsafe_code)]

use crate::driver::Driver;
use crate::error::CudaError;
use crate::probe::{DeviceInfo, HostAccess};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

/// Kernels as PTX text, which the driver compiles for its device; `scripts/kernels.py`
/// makes it.
const PTX: &str = concat!(include_str!("../kernels/framebus.ptx"), "\0");

pub(crate) fn device_count(driver: &Driver) -> Result<usize, CudaError> {
    let mut count = 0;
    // SAFETY: writes one int.
    unsafe { driver.device_count(&raw mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Asks the driver about one device.
pub(crate) fn info(driver: &Driver, ordinal: usize) -> Result<DeviceInfo, CudaError> {
    let device = device(driver, ordinal)?;
    let attribute = |attribute: Attribute| -> Result<c_int, CudaError> {
        let mut value = 0;
        // SAFETY: writes one int; the device is one of the driver's.
        unsafe { driver.device_attribute(&raw mut value, attribute, device) }?;
        Ok(value)
    };
    let number = |value: c_int| u32::try_from(value).unwrap_or(0);
    let mut name = [0_u8; 256];
    // SAFETY: writes a C string of 256 bytes at most.
    unsafe { driver.device_name(name.as_mut_ptr().cast::<c_char>(), 256, device) }?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"unknown device");
    let mut memory_bytes = 0;
    // SAFETY: writes one number.
    unsafe { driver.device_memory(&raw mut memory_bytes, device) }?;
    let mut version = 0;
    // SAFETY: writes one int.
    unsafe { driver.driver_version(&raw mut version) }?;
    let version = number(version);
    let integrated = attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
    let registers = attribute(Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)? != 0;
    let read_only = Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED;
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(DeviceInfo {
        ordinal,
        name: name.to_string_lossy().into_owned(),
        capability: (number(major), number(minor)),
        // 12060 is CUDA 12.6.
        driver: (version / 1000, version % 1000 / 10),
        memory_bytes: memory_bytes as u64,
        integrated,
        host_access: match (registers, integrated) {
            (true, true) => HostAccess::Mapped,
            (true, false) => HostAccess::Registered,
            (false, _) => HostAccess::Staged,
        },
        read_only_registration: attribute(read_only)? != 0,
    })
}

fn device(driver: &Driver, ordinal: usize) -> Result<sys::CUdevice, CudaError> {
    let mut device = 0;
    let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
    // SAFETY: writes one int; the driver refuses numbers that it does not have.
    unsafe { driver.device_get(&raw mut device, ordinal) }?;
    Ok(device)
}

/// A reference to a device's primary context. Everything made in it keeps it alive.
#[derive(Debug)]
pub(crate) struct Context {
    driver: &'static Driver,
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: a context may be made current by any number of threads; the driver
// serialises what needs it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn retain(driver: &'static Driver, ordinal: usize) -> Result<Self, CudaError> {
        let device = device(driver, ordinal)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle; released in `drop`.
        unsafe { driver.context_retain(&raw mut raw, device) }?;
        Ok(Self { driver, device, raw })
    }

    pub(crate) fn driver(&self) -> &'static Driver {
        self.driver
    }

    /// Makes it this thread's current context: what is called next belongs to it.
    pub(crate) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        unsafe { self.driver.context_set_current(self.raw) }
    }

    /// For destructors: binds, destroys, and has nowhere to report an error to. After
    /// a lost device all of them fail, which the run that lost it has said already.
    pub(crate) fn destroy(&self, what: impl FnOnce(&Driver) -> Result<(), CudaError>) {
        if let Err(error) = self.bind().and_then(|()| what(self.driver)) {
            tracing::debug!(%error, "not given back to the driver");
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `retain`; nothing made in it is left, because
        // everything holds a reference.
        if let Err(error) = unsafe { self.driver.context_release(self.device) } {
            tracing::debug!(%error, "not given back to the driver");
        }
    }
}

/// One of our kernels. Whoever launches it knows its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function(pub(crate) sys::CUfunction);

// SAFETY: a handle that the driver only reads; any thread may launch it.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// The loaded kernels.
#[derive(Debug)]
pub(crate) struct Kernels {
    module: Module,
    /// `framebus_letterbox`.
    pub(crate) letterbox: Function,
    /// `framebus_decode`.
    pub(crate) decode: Function,
}

impl Kernels {
    /// Has the driver compile the kernels, or takes them from its cache.
    pub(crate) fn load(context: &Arc<Context>) -> Result<Self, CudaError> {
        let module = Module::load(context)?;
        let letterbox = module.function(c"framebus_letterbox")?;
        let decode = module.function(c"framebus_decode")?;
        Ok(Self { module, letterbox, decode })
    }

    /// The context that they are loaded in.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.module.context
    }
}

#[derive(Debug)]
struct Module {
    raw: sys::CUmodule,
    context: Arc<Context>,
}

// SAFETY: a handle that is only given to the driver, which serialises.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    fn load(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the image is text that ends with a NUL.
        unsafe { context.driver.module_load(&raw mut raw, PTX.as_ptr().cast()) }?;
        Ok(Self { raw, context: Arc::clone(context) })
    }

    fn function(&self, name: &CStr) -> Result<Function, CudaError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a live module and a C string.
        unsafe { self.context.driver.module_function(&raw mut raw, self.raw, name.as_ptr()) }?;
        Ok(Function(raw))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once; who launches a kernel holds the device until it is done.
        self.context.destroy(|driver| unsafe { driver.module_unload(self.raw) });
    }
}
