//! Why a file is not a model that framebus can run.

use std::path::PathBuf;

/// Why a file is not a model that framebus can run. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be opened or read.
    #[error("cannot read model {}; check `model.path`, or fetch one with `framebus models fetch`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A directory, a socket or another thing that is not a file.
    #[error("model {} is not a file; `model.path` must name an ONNX file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Nothing inside.
    #[error("model {} is empty (0 bytes); export or copy it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More bytes than one protocol buffer may have.
    #[error("model {} has {bytes} bytes; ONNX files above {limit} bytes (2 GiB) are not supported", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size read.
        limit: u64,
    },
    /// Not a protocol buffer of ONNX's shape.
    #[error("model {} is not a readable ONNX file: {hint}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What it looks like and what to do.
        hint: String,
        /// Where decoding stopped; absent when the bytes decode but hold no model.
        #[source]
        source: Option<prost::DecodeError>,
    },
    /// A model for another task.
    #[error("model {} was trained for task '{task}'; framebus runs task 'detect' (export a detection model such as yolov8n.pt with `yolo export format=onnx`)", path.display())]
    Task {
        /// The file.
        path: PathBuf,
        /// The task in its metadata.
        task: String,
    },
    /// Metadata that cannot be understood.
    #[error("model {} has metadata `{key}` = {value}, expected {expected}; export it again or correct the entry", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Metadata key.
        key: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// The shapes are not those of a YOLO detector.
    #[error("model {} is not a YOLO detector: {reason}; found {found}; accepted: one float32 input [batch,3,height,width] and one output [batch,4+classes,anchors], [batch,anchors,4+classes] or [batch,n,6] (Ultralytics `yolo export format=onnx` of a detect model)", path.display())]
    NotADetector {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
        /// Inputs, outputs and producer.
        found: String,
    },
}
