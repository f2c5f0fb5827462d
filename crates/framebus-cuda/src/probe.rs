//! Which devices there are, before anything is made on one.

use crate::context::{self, Context};
use crate::driver::Driver;
use crate::error::CudaError;

/// How a device gets at pixels in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAccess {
    /// Integrated GPU: kernels read registered host memory in place, nothing is copied.
    Mapped,
    /// Shared memory is pinned where it lies and copied by the device's DMA.
    Registered,
    /// The CPU copies frames to pinned buffers, the device's DMA from there.
    Staged,
}

/// One CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number: 0 is the first.
    pub ordinal: usize,
    /// As the driver calls it: `NVIDIA GeForce RTX 4090`.
    pub name: String,
    /// Compute capability: (8, 9).
    pub capability: (u32, u32),
    /// Newest CUDA that the driver serves: (12, 6).
    pub driver: (u32, u32),
    /// Device memory.
    pub memory_bytes: u64,
    /// Whether it shares the host's memory.
    pub integrated: bool,
    /// How frames reach it.
    pub host_access: HostAccess,
    /// Whether it registers memory that cannot be written.
    pub read_only_registration: bool,
}

/// All devices, none of them touched.
///
/// # Errors
/// [`CudaError::NoDriver`] without a driver, [`CudaError::OldDriver`] with one that
/// lacks a function, [`CudaError::NoDevice`] when the driver does not start or finds
/// no device. Never panics.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    let (driver, count) = open()?;
    (0..count).map(|ordinal| context::info(driver, ordinal)).collect()
}

/// The driver and how many devices it has: at least one.
fn open() -> Result<(&'static Driver, usize), CudaError> {
    let no_device = |error| match error {
        CudaError::Call { call, name, code, .. } => {
            CudaError::NoDevice { reason: format!("{name} ({code}) at {call}") }
        }
        other => other,
    };
    let driver = Driver::get().map_err(no_device)?;
    match context::device_count(driver).map_err(no_device)? {
        0 => Err(CudaError::NoDevice { reason: "the driver counts 0".to_owned() }),
        count => Ok((driver, count)),
    }
}

/// A device's primary context, and what is known about it.
pub(crate) fn open_device(ordinal: usize) -> Result<(Context, DeviceInfo), CudaError> {
    let (driver, count) = open()?;
    if ordinal >= count {
        return Err(CudaError::NoDevice {
            reason: format!("device {ordinal} was asked for, there are {count} (0 is the first)"),
        });
    }
    let info = context::info(driver, ordinal)?;
    Ok((Context::retain(driver, ordinal)?, info))
}
