//! What goes wrong between this crate and the driver.

/// The driver, a device or a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no driver on this machine.
    #[error(
        "no NVIDIA driver (libcuda.so.1 not found): install it, or start the container with \
         access to the GPU (`--gpus all`)"
    )]
    NoDriver,
    /// The driver lacks a function of CUDA 11.4 or older, or does not understand our
    /// kernels.
    #[error("the NVIDIA driver is too old: it has no {missing}; update it")]
    OldDriver {
        /// What it lacks.
        missing: &'static str,
    },
    /// There is a driver and nothing it can use, or not the device asked for.
    #[error("driver found but no usable CUDA device: {reason}")]
    NoDevice {
        /// The driver's word for it.
        reason: String,
    },
    /// A call of the driver failed, or work enqueued before it did.
    #[error("{call}: {name} ({code}): {text}")]
    Call {
        /// The function that answered the error.
        call: &'static str,
        /// The driver's number for it.
        code: u32,
        /// `CUDA_ERROR_…`.
        name: String,
        /// The driver's explanation.
        text: String,
    },
    /// The kernels cannot be loaded.
    #[error("the CUDA kernels cannot be loaded for {device}")]
    Kernel {
        /// Name of the device.
        device: String,
        /// What the driver said.
        #[source]
        source: Box<CudaError>,
    },
    /// A buffer set was asked for that cannot be.
    #[error("no buffers can be made: {reason}")]
    Spec {
        /// What is wrong with it.
        reason: String,
    },
}

/// Codes after which every call of this process answers an error, as far as is
/// known: the device is gone, or a kernel broke the context that all share.
const LOST: [u32; 16] = [
    4,   // DEINITIALIZED
    46,  // DEVICE_UNAVAILABLE
    214, // ECC_UNCORRECTABLE
    219, // NVLINK_UNCORRECTABLE
    226, // CONTAINED
    700, // ILLEGAL_ADDRESS
    702, // LAUNCH_TIMEOUT
    709, // CONTEXT_IS_DESTROYED
    710, // ASSERT
    714, // HARDWARE_STACK_ERROR
    715, // ILLEGAL_INSTRUCTION
    716, // MISALIGNED_ADDRESS
    717, // INVALID_ADDRESS_SPACE
    718, // INVALID_PC
    719, // LAUNCH_FAILED
    999, // UNKNOWN
];

impl CudaError {
    /// Whether nothing of CUDA works in this process any more: only a new process
    /// helps, and perhaps not even that.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Call { code, .. } => LOST.contains(code),
            Self::Kernel { source, .. } => source.is_lost(),
            Self::NoDriver | Self::OldDriver { .. } | Self::NoDevice { .. } | Self::Spec { .. } => {
                false
            }
        }
    }
}

/// A batch has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The driver or the device failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The network could not be enqueued.
    #[error("network: {0}")]
    Network(String),
    /// More frames than there is room for, or none.
    #[error("a batch of {frames} frames; 1 to {max_batch} fit")]
    Batch {
        /// Frames handed in.
        frames: usize,
        /// Frames that fit.
        max_batch: usize,
    },
    /// A frame cannot be letterboxed into this buffer set.
    #[error("frame {index} of the batch: {reason}")]
    Frame {
        /// Its place in the batch.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl RunError {
    /// As [`CudaError::is_lost`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Cuda(error) => error.is_lost(),
            Self::Network(_) | Self::Batch { .. } | Self::Frame { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: u32) -> CudaError {
        let (name, text) = ("CUDA_ERROR_X".to_owned(), "words".to_owned());
        CudaError::Call { call: "cuCall", code, name, text }
    }

    #[test]
    fn out_of_memory_passes_and_a_failed_launch_does_not() {
        assert!(!call(2).is_lost());
        assert!(RunError::from(call(719)).is_lost());
        let kernel = CudaError::Kernel { device: "GPU".to_owned(), source: Box::new(call(700)) };
        assert!(kernel.is_lost());
        assert!(!RunError::Network("no".to_owned()).is_lost());
    }

    #[test]
    fn messages_name_the_call_and_the_code() {
        assert_eq!(call(719).to_string(), "cuCall: CUDA_ERROR_X (719): words");
        assert!(CudaError::NoDriver.to_string().starts_with("no NVIDIA driver (libcuda.so.1"));
    }
}
