//! One of TensorRT's execution contexts as what runs between our two kernels.
#![allow(unsafe_code)]

use framebus_cuda::{Buffers, Network};
use framebus_tensorrt::ExecutionContext;
use std::ffi::{CString, c_void};

/// A network with its input and outputs by name.
pub(super) struct TensorRtNetwork {
    context: ExecutionContext,
    input: CString,
    /// `[batch, 3, height, width]`; `None` where the network has one batch only.
    free: Option<[i64; 4]>,
    /// In the order of [`Buffers::outputs`].
    outputs: Vec<CString>,
}

impl TensorRtNetwork {
    /// `free` is the input's shape where the batch may vary.
    pub(super) fn new(
        context: ExecutionContext,
        input: CString,
        free: Option<[i64; 4]>,
        outputs: Vec<CString>,
    ) -> Self {
        // Nothing is set yet, whatever its first dimension says.
        let free = free.map(|[_, c, h, w]| [0, c, h, w]);
        Self { context, input, free, outputs }
    }
}

impl Network for TensorRtNetwork {
    fn enqueue(
        &mut self,
        batch: usize,
        buffers: &Buffers,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let text = |error: framebus_tensorrt::Error| error.to_string();
        if let Some(shape) = &mut self.free
            && shape[0] != batch as i64
        {
            shape[0] = batch as i64;
            if let Err(error) = self.context.set_input_shape(&self.input, shape) {
                shape[0] = 0;
                return Err(text(error));
            }
        }
        if self.outputs.len() != buffers.outputs.len() {
            return Err(format!(
                "the network has {} outputs, there is memory for {}",
                self.outputs.len(),
                buffers.outputs.len()
            ));
        }
        // SAFETY: the buffer set allocated the input for its largest batch of this network's
        // input shape, and frees it only after the lane's stream has done all its work.
        unsafe { self.context.set_tensor_address(&self.input, buffers.input) }.map_err(text)?;
        for (name, &address) in self.outputs.iter().zip(&buffers.outputs) {
            // SAFETY: as for the input; sizes come from the engine's own output shapes.
            unsafe { self.context.set_tensor_address(name, address) }.map_err(text)?;
        }
        // SAFETY: the lane calls this with its own live stream of the current context, and
        // lets nobody else use the network meanwhile.
        unsafe { self.context.enqueue(stream) }.map_err(text)
    }
}
