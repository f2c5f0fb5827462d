//! What this machine has: driver, GPU, library.
//!
//! In this order, because TensorRT must not be touched without a working driver: it
//! answers pointers to nothing then.

use super::NAME;
use crate::api::EngineError;
use framebus_config::TensorRt as Settings;
use framebus_cuda::DeviceInfo;
use framebus_tensorrt::Library;
use std::fmt;

/// A GPU and a library that runs on it.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub(super) gpu: DeviceInfo,
    pub(super) library: Library,
}

impl Here {
    /// Looks for the GPU and the library that `settings` name.
    pub(super) fn look(settings: &Settings) -> Result<Self, EngineError> {
        let unavailable = |reason| EngineError::Unavailable { backend: NAME, reason };
        let gpus = framebus_cuda::devices().map_err(|error| unavailable(error.to_string()))?;
        let Some(gpu) = gpus.iter().find(|gpu| gpu.ordinal == settings.device) else {
            let names: Vec<String> =
                gpus.iter().map(|gpu| format!("{}: {}", gpu.ordinal, gpu.name)).collect();
            return Err(unavailable(format!(
                "tensorrt.device = {}, but CUDA lists {}; take one of these numbers",
                settings.device,
                names.join(", ")
            )));
        };
        let library = Library::open(settings.library.as_deref())
            .map_err(|error| unavailable(error.to_string()))?;
        library
            .check_capability(gpu.capability)
            .map_err(|error| unavailable(format!("{}: {error}", gpu.name)))?;
        Ok(Self { gpu: gpu.clone(), library })
    }

    /// `NVIDIA L4, compute capability 8.9, CUDA 12.6`.
    pub(super) fn device(&self) -> String {
        let DeviceInfo { name, capability: (major, minor), driver, .. } = &self.gpu;
        format!("{name}, compute capability {major}.{minor}, CUDA {}.{}", driver.0, driver.1)
    }

    /// `TensorRT 10.3.0`, `TensorRT-RTX 1.7.1`.
    pub(super) fn version(&self) -> String {
        let kind = match self.library.abi() {
            framebus_tensorrt::Abi::Rtx1 => "TensorRT-RTX",
            _ => "TensorRT",
        };
        format!("{kind} {}", self.library.version())
    }
}

impl Here {
    /// What an engine belongs to, a line each.
    pub(super) fn machine(&self) -> String {
        let DeviceInfo { name, capability: (major, minor), driver, .. } = &self.gpu;
        format!(
            "library {}\ngpu {}\ncapability {major}.{minor}\ndriver {}.{}\n",
            self.version(),
            name.replace('\n', " "),
            driver.0,
            driver.1
        )
    }
}

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.library.path().display();
        write!(f, "{} in {path}; {}: {}", self.version(), self.gpu.ordinal, self.device())
    }
}
