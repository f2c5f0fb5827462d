//! `[triton]`.

use crate::{Endpoint, Secret};
use std::fmt;
use std::path::PathBuf;

/// `[triton]`: the server that the `triton` backend asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triton {
    /// Where the server listens for gRPC.
    pub url: Endpoint,
    /// Name in the server's repository; `None` = the stem of [`Model::path`](crate::Model::path).
    pub model: Option<String>,
    /// Version of the model, digits only; `None` = the server's choice.
    pub version: Option<String>,
    /// How tensors travel.
    pub transport: TritonTransport,
    /// Longest time for a request, in milliseconds; below
    /// [`Model::timeout_ms`](crate::Model::timeout_ms) where the backend is used.
    pub timeout_ms: u64,
    /// Most frames of one request; 0 = what the server's model configuration says.
    pub max_batch: usize,
    /// Sent with each call; visible ASCII. `None` = no such header.
    pub token: Option<Secret>,
    /// Header that holds the token, in lower case; `authorization` has `Bearer` before it.
    pub token_header: String,
    /// PEM file of the authority to trust; `None` = those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate; there with [`key`](Self::key) or not at all.
    pub cert: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub key: Option<PathBuf>,
}

choice! {
    /// `triton.transport`.
    TritonTransport {
        /// Shared memory where the server runs on this machine and accepts it, else gRPC.
        Auto = "auto",
        /// The server reads from and writes to /dev/shm; only names travel.
        SystemSharedMemory = "system-shared-memory",
        /// The same with memory of a GPU that both use.
        CudaSharedMemory = "cuda-shared-memory",
        /// Whole tensors in each message.
        Grpc = "grpc",
    }
}
