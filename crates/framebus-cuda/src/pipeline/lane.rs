//! One execution context and the stream that it computes on.

use crate::device::Device;
use crate::error::CudaError;
use crate::stream::Stream;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device addresses of one buffer set, for the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffers {
    /// `[max_batch, 3, height, width]`.
    pub input: u64,
    /// One for each output, in the order of the spec.
    pub outputs: Vec<u64>,
}

/// What runs between the two kernels.
pub trait Network: Send {
    /// Enqueues the network for `batch` frames on `stream`, a `CUstream` of the
    /// context that is current. Must not wait for the device, nor enqueue anything
    /// elsewhere that the stream does not wait for; the call may be recorded into a
    /// graph, after one call of the same size that was not and with none in between.
    ///
    /// The addresses stay valid until the work is done.
    ///
    /// # Errors
    /// In the words of the library behind it; the batch then has no answer.
    fn enqueue(
        &mut self,
        batch: usize,
        buffers: &Buffers,
        stream: *mut c_void,
    ) -> Result<(), String>;
}

/// One execution context with its compute stream; shared by the (two) buffer sets that
/// feed it.
pub struct Lane<N> {
    /// Held while work is enqueued on the stream. First: the network goes before its
    /// stream.
    network: Mutex<N>,
    stream: Stream,
    device: Device,
}

impl<N> Lane<N> {
    /// Waits for everything on the stream. Under the lock, for a stream that is being
    /// captured cannot be waited for.
    pub(super) fn drain(&self) -> Result<(), CudaError> {
        let _enqueueing = self.lock();
        self.stream.synchronize()
    }

    /// The network, and the stream to enqueue it on.
    pub(super) fn lock(&self) -> MutexGuard<'_, N> {
        // After a panic the network is as good as after an error.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl<N: Network> Lane<N> {
    /// Makes a stream for the network.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(device: &Device, network: N) -> Result<Arc<Self>, CudaError> {
        let stream = Stream::new(device.context())?;
        Ok(Arc::new(Self { network: Mutex::new(network), stream, device: device.clone() }))
    }

    /// Hands out the network and its stream, a `CUstream`, to be set up or asked
    /// something while no set enqueues. The device's context is current.
    ///
    /// # Errors
    /// [`CudaError::Call`] once the device is lost.
    pub fn with_network<R>(
        &self,
        work: impl FnOnce(&mut N, *mut c_void) -> R,
    ) -> Result<R, CudaError> {
        self.device.bind()?;
        let mut network = self.lock();
        Ok(work(&mut network, self.stream.as_raw()))
    }
}

impl<N> Drop for Lane<N> {
    fn drop(&mut self) {
        // For the network, which may have things to give back to the driver.
        if let Err(error) = self.device.bind() {
            tracing::debug!(%error, "a network ends without its device");
        }
    }
}
