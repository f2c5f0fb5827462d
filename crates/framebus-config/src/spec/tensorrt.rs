//! Keys of `[tensorrt]`.

use super::{Default, Key, Kind, key};

pub(super) static TENSORRT: [Key; 6] = [
    key(
        "library",
        Kind::Path,
        Default::Absent("library = \"/usr/lib/tensorrt\"", "where the system's loader looks"),
    )
    .doc(
        "The TensorRT library (libnvinfer.so.10 or .11, or libtensorrt_rtx.so.1), or the folder \
         that holds it; the ONNX parser's library is looked for beside it.",
        "Set it where TensorRT came as an archive or a Python package.",
    )
    .also(&["lib", "path", "libnvinfer", "tensorrt"]),
    key("device", Kind::Int { min: 0, max: 63, unit: "" }, Default::Int(0))
        .doc(
            "Number of the GPU, from 0; an error for a wrong one lists them.",
            "CUDA counts the fastest first, unless CUDA_DEVICE_ORDER says otherwise.",
        )
        .also(&["gpu", "gpu_id", "device_id", "ordinal"]),
    key("max_batch", Kind::Int { min: 0, max: 64, unit: "frames" }, Default::Int(0))
        .doc(
            "Most frames of one batch. 0 means as many as there are enabled cameras, 16 at most.",
            "The engine is built for 1 to so many and tuned for half of it; a larger one takes \
             more GPU memory and longer to build.",
        )
        .also(&["batch", "batch_size", "max_batch_size"]),
    key(
        "workspace_mib",
        Kind::Int { min: 16, max: 1_048_576, unit: "MiB" },
        Default::Absent("workspace_mib = 1024", "all memory of the GPU"),
    )
    .doc(
        "GPU memory that building may use while it tries layers.",
        "Lower it on a Jetson, where the GPU's memory is everybody's.",
    )
    .also(&["workspace", "workspace_mb", "max_workspace_size"]),
    key("optimization_level", Kind::Int { min: 0, max: 5, unit: "" }, Default::Int(3))
        .doc(
            "How long building looks for fast layers: 0 builds in seconds and runs slower, 5 may \
             take many minutes.",
            "3 is the library's own choice.",
        )
        .also(&["builder_optimization_level", "optimisation_level", "opt_level"]),
    key("graphs", Kind::Bool, Default::Bool(false))
        .doc(
            "Launch a batch as one CUDA graph instead of layer by layer. A network that cannot be \
             captured is launched layer by layer, with one warning.",
            "A small network has a hundred launches of a few microseconds each. Off, because one \
             execution context serves the graphs of all batch sizes, NVIDIA advises one for each \
             graph, and nobody has tried it on a GPU yet.",
        )
        .also(&["cuda_graph", "cuda_graphs", "graph", "use_cuda_graph"]),
];
