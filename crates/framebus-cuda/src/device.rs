//! A device that work is done on.

use crate::context::{Context, Kernels};
use crate::error::CudaError;
use crate::memory::Registration;
use crate::probe::{self, DeviceInfo, HostAccess};
use crate::segments::{Located, MemoryId, Segments};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A CUDA device with our kernels; clones are the same one.
#[derive(Debug, Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    info: DeviceInfo,
    kernels: Kernels,
    /// Locked for a look-up, or for as long as it takes to register a new segment;
    /// no other lock is taken meanwhile.
    segments: Mutex<Segments>,
}

impl Device {
    /// Opens device `ordinal` of [`crate::devices`] and has the driver load the
    /// kernels.
    ///
    /// # Errors
    /// As [`crate::devices`]; [`CudaError::NoDevice`] when there is no such device,
    /// [`CudaError::Kernel`] when it cannot run the kernels.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        Self::open_with(ordinal, None)
    }

    /// As [`Self::open`], with frames reaching the device in another way than the one
    /// that suits it: for tests and benchmarks. A way that the device does not have
    /// ends in [`HostAccess::Staged`], frame by frame.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(ordinal: usize, access: Option<HostAccess>) -> Result<Self, CudaError> {
        let (context, mut info) = probe::open_device(ordinal)?;
        let context = Arc::new(context);
        let kernels = Kernels::load(&context).map_err(|error| CudaError::Kernel {
            device: info.name.clone(),
            source: Box::new(error),
        })?;
        info.host_access = access.unwrap_or(info.host_access);
        let how = Registration {
            mapped: info.host_access == HostAccess::Mapped,
            read_only: info.read_only_registration,
        };
        let segments = Mutex::new(Segments::new(&context, how));
        Ok(Self { shared: Arc::new(Shared { info, kernels, segments }) })
    }

    /// What is known about it.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// Makes its context the calling thread's current one, as libraries want it that
    /// are handed addresses and streams of this crate.
    ///
    /// # Errors
    /// [`CudaError::Call`] once the device is lost.
    pub fn bind(&self) -> Result<(), CudaError> {
        self.context().bind()
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        self.kernels().context()
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.shared.kernels
    }

    /// As [`Segments::locate`]; `None` as well when the CPU is to copy everything.
    pub(crate) fn locate(
        &self,
        id: MemoryId,
        bytes: &Range<usize>,
        plane: &[u8],
    ) -> Option<Located> {
        if self.shared.info.host_access == HostAccess::Staged {
            return None;
        }
        let mut segments = self.shared.segments.lock().unwrap_or_else(PoisonError::into_inner);
        segments.locate(id, bytes, plane)
    }
}
