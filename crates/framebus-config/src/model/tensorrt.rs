//! `[tensorrt]`.

use std::path::PathBuf;

/// `[tensorrt]`: how the `tensorrt` backend uses an NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRt {
    /// The library's file, or a folder that holds it; `None` = where the loader looks.
    pub library: Option<PathBuf>,
    /// Number of the GPU, from 0, as CUDA counts them.
    pub device: usize,
    /// Most frames of one batch; 0 = as many as cameras are enabled, 16 at most.
    pub max_batch: usize,
    /// GPU memory that building may use for trying layers, MiB; `None` = all there is.
    pub workspace_mib: Option<u64>,
    /// How hard building looks for fast layers, 0..=5.
    pub optimization_level: u32,
    /// Whether a batch is one launch (a CUDA graph) instead of one a layer.
    pub graphs: bool,
}
