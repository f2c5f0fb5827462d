//! The driver's functions: raw, and with their status as a `Result`.
//!
//! The library is found and opened by `cudarc`, whose handles and structures are
//! used as well. Its functions are not, for two reasons: they panic where the driver
//! lacks one, and their status is a Rust enum, which a code of a newer driver must
//! not become. Here every function is looked up once, before the first is called,
//! and a status is a number. That the signatures agree with those of `cudarc`, which
//! come from NVIDIA's header, is checked by the compiler.

#![allow(unsafe_code)]

use crate::error::CudaError;
use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;

/// Declares functions: their place in the table, the driver's name, arguments.
macro_rules! functions {
    ($($method:ident = $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        /// Every function that this crate calls.
        #[derive(Debug)]
        pub(crate) struct Driver {
            error_name: ErrorText,
            error_text: ErrorText,
            $($method: unsafe extern "C" fn($($type),*) -> u32,)*
        }

        $(const _: unsafe fn($($type),*) -> sys::CUresult = sys::$name;)*

        impl Driver {
            fn resolve() -> Result<Self, CudaError> {
                Ok(Self {
                    error_name: symbol("cuGetErrorName")?,
                    error_text: symbol("cuGetErrorString")?,
                    $($method: symbol(stringify!($name))?,)*
                })
            }

            $(
                /// # Safety
                /// What NVIDIA's documentation of the function asks for.
                #[allow(clippy::too_many_arguments, reason = "the driver's")]
                pub(crate) unsafe fn $method(&self, $($arg: $type),*) -> Result<(), CudaError> {
                    // SAFETY: the caller keeps the function's own conditions.
                    let status = unsafe { (self.$method)($($arg),*) };
                    self.check(stringify!($name), status)
                }
            )*
        }
    };
}

/// `CUresult cuGetErrorName(CUresult, const char**)`, the status as a number.
type ErrorText = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

functions! {
    init = cuInit(flags: c_uint);
    driver_version = cuDriverGetVersion(version: *mut c_int);
    device_count = cuDeviceGetCount(count: *mut c_int);
    device_get = cuDeviceGet(device: *mut sys::CUdevice, ordinal: c_int);
    device_name = cuDeviceGetName(name: *mut c_char, len: c_int, device: sys::CUdevice);
    device_memory = cuDeviceTotalMem_v2(bytes: *mut usize, device: sys::CUdevice);
    device_attribute = cuDeviceGetAttribute(
        value: *mut c_int, attribute: sys::CUdevice_attribute, device: sys::CUdevice);
    context_retain = cuDevicePrimaryCtxRetain(
        context: *mut sys::CUcontext, device: sys::CUdevice);
    context_release = cuDevicePrimaryCtxRelease_v2(device: sys::CUdevice);
    context_set_current = cuCtxSetCurrent(context: sys::CUcontext);
    stream_create = cuStreamCreate(stream: *mut sys::CUstream, flags: c_uint);
    stream_destroy = cuStreamDestroy_v2(stream: sys::CUstream);
    stream_synchronize = cuStreamSynchronize(stream: sys::CUstream);
    stream_wait_event = cuStreamWaitEvent(
        stream: sys::CUstream, event: sys::CUevent, flags: c_uint);
    stream_begin_capture = cuStreamBeginCapture_v2(
        stream: sys::CUstream, mode: sys::CUstreamCaptureMode);
    stream_end_capture = cuStreamEndCapture(stream: sys::CUstream, graph: *mut sys::CUgraph);
    event_create = cuEventCreate(event: *mut sys::CUevent, flags: c_uint);
    event_destroy = cuEventDestroy_v2(event: sys::CUevent);
    event_record = cuEventRecord(event: sys::CUevent, stream: sys::CUstream);
    event_synchronize = cuEventSynchronize(event: sys::CUevent);
    graph_instantiate = cuGraphInstantiateWithFlags(
        exec: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong);
    graph_destroy = cuGraphDestroy(graph: sys::CUgraph);
    graph_exec_destroy = cuGraphExecDestroy(exec: sys::CUgraphExec);
    graph_launch = cuGraphLaunch(exec: sys::CUgraphExec, stream: sys::CUstream);
    memory_alloc = cuMemAlloc_v2(address: *mut sys::CUdeviceptr, bytes: usize);
    memory_free = cuMemFree_v2(address: sys::CUdeviceptr);
    host_alloc = cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint);
    host_free = cuMemFreeHost(address: *mut c_void);
    host_register = cuMemHostRegister_v2(address: *mut c_void, bytes: usize, flags: c_uint);
    host_unregister = cuMemHostUnregister(address: *mut c_void);
    host_device_address = cuMemHostGetDevicePointer_v2(
        address: *mut sys::CUdeviceptr, host: *mut c_void, flags: c_uint);
    copy_to_device = cuMemcpyHtoDAsync_v2(
        to: sys::CUdeviceptr, from: *const c_void, bytes: usize, stream: sys::CUstream);
    copy_to_host = cuMemcpyDtoHAsync_v2(
        to: *mut c_void, from: sys::CUdeviceptr, bytes: usize, stream: sys::CUstream);
    copy_rows = cuMemcpy2DAsync_v2(
        copy: *const sys::CUDA_MEMCPY2D, stream: sys::CUstream);
    set_bytes = cuMemsetD8Async(
        address: sys::CUdeviceptr, value: c_uchar, bytes: usize, stream: sys::CUstream);
    module_load = cuModuleLoadData(module: *mut sys::CUmodule, image: *const c_void);
    module_unload = cuModuleUnload(module: sys::CUmodule);
    module_function = cuModuleGetFunction(
        function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char);
    launch = cuLaunchKernel(
        function: sys::CUfunction,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: sys::CUstream,
        arguments: *mut *mut c_void, extra: *mut *mut c_void);
}

/// Opened once, for the rest of the process: a driver does not survive unloading.
static DRIVER: OnceLock<Driver> = OnceLock::new();

impl Driver {
    /// Opens the driver and initialises it.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::OldDriver`]; [`CudaError::Call`] when it
    /// cannot be initialised. A failure is tried again at the next call.
    pub(crate) fn get() -> Result<&'static Self, CudaError> {
        let driver = if let Some(driver) = DRIVER.get() {
            driver
        } else {
            // SAFETY: opens the driver by its own name and closes it again; its
            // initialisers have no preconditions.
            if !unsafe { sys::is_culib_present() } {
                return Err(CudaError::NoDriver);
            }
            let resolved = Self::resolve()?;
            DRIVER.get_or_init(|| resolved)
        };
        // SAFETY: no preconditions; further calls do nothing.
        unsafe { driver.init(0) }?;
        Ok(driver)
    }

    fn check(&self, call: &'static str, code: u32) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let name = self.text(self.error_name, code).unwrap_or_else(|| "unknown error".to_owned());
        let text = self.text(self.error_text, code).unwrap_or_else(|| "no explanation".to_owned());
        Err(CudaError::Call { call, code, name, text })
    }

    fn text(&self, get: ErrorText, code: u32) -> Option<String> {
        let mut text = std::ptr::null();
        // SAFETY: `text` can be written; the driver answers an error for unknown codes.
        let status = unsafe { get(code, &raw mut text) };
        if status != 0 || text.is_null() {
            return None;
        }
        // SAFETY: the driver answers a C string that lives as long as it is loaded.
        let text = unsafe { CStr::from_ptr(text) };
        Some(text.to_string_lossy().into_owned())
    }
}

/// Looks up one function.
fn symbol<F: Copy>(name: &'static str) -> Result<F, CudaError> {
    // SAFETY: the library was just found to open, so this does not panic; it is
    // NVIDIA's driver by its name.
    let library = unsafe { sys::culib() };
    // SAFETY: `F` is the signature of that function, which the macro above compares
    // with NVIDIA's header (written out by hand for the two of the error texts).
    let symbol = unsafe { library.get::<F>(name) };
    symbol.map(|symbol| *symbol).map_err(|_| CudaError::OldDriver { missing: name })
}
