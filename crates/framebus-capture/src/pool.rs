//! A buffer pool whose memory is samples on loan from the bus.
//!
//! The converter asks the pool for a buffer per frame and writes into it; the
//! probe behind takes the loan out of the buffer and sends it. Nothing is
//! recycled or preallocated: iceoryx2 does both.

use crate::publish::Output;
use framebus_bus::FrameLoan;
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Loans that GStreamer may hold at once. One is in use; a decoder that writes
/// straight into the pool may hold a second. The publisher has more than these
/// ([`framebus_bus::services::frames`]): the copy needs one too.
const MAX_HELD: usize = 2;

/// Memory of a GStreamer buffer that is a sample on loan. Dropped unsent, it
/// goes back to the publisher.
pub(crate) struct LoanedFrame {
    loan: FrameLoan,
    _held: Held,
}

/// Counts as held until dropped.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LoanedFrame {
    pub(crate) fn into_loan(self) -> FrameLoan {
        self.loan
    }
}

impl AsMut<[u8]> for LoanedFrame {
    fn as_mut(&mut self) -> &mut [u8] {
        self.loan.payload_mut()
    }
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub(crate) struct LoanPool {
        pub(super) output: OnceLock<Arc<Output>>,
        held: Arc<AtomicUsize>,
        info: Mutex<Option<VideoInfo>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for LoanPool {
        const NAME: &'static str = "FramebusLoanPool";
        type Type = super::LoanPool;
        type ParentType = gst::BufferPool;
    }

    impl ObjectImpl for LoanPool {}
    impl GstObjectImpl for LoanPool {}

    impl LoanPool {
        /// Shared memory where it can be had, else heap memory: such a frame is
        /// copied, or counted as lost, when it arrives at the probe.
        fn memory(&self, bytes: usize) -> gst::Memory {
            let held = Held(self.held.clone());
            if self.held.fetch_add(1, Ordering::Relaxed) < MAX_HELD
                && let Some(Ok(loan)) = self.output.get().map(|output| output.loan(bytes))
            {
                return gst::Memory::from_mut_slice(LoanedFrame { loan, _held: held });
            }
            gst::Memory::with_size(bytes)
        }
    }

    impl BufferPoolImpl for LoanPool {
        // VideoAlignment is not offered: a decoder would then decode into the
        // loans, keep them as reference frames, and every frame would be copied.
        fn options() -> &'static [&'static str] {
            &["GstBufferPoolOptionVideoMeta"]
        }

        fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
            let Some((Some(caps), ..)) = config.params() else { return false };
            let Ok(info) = VideoInfo::from_caps(&caps) else { return false };
            *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Some(info);
            self.parent_set_config(config)
        }

        fn start(&self) -> bool {
            true
        }

        fn stop(&self) -> bool {
            true
        }

        fn acquire_buffer(
            &self,
            _params: Option<&gst::BufferPoolAcquireParams>,
        ) -> Result<gst::Buffer, gst::FlowError> {
            let info = self
                .info
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
                .ok_or(gst::FlowError::NotNegotiated)?;
            let mut buffer = gst::Buffer::new();
            let inner = buffer.get_mut().ok_or(gst::FlowError::Error)?;
            inner.append_memory(self.memory(info.size()));
            let planes = info.n_planes() as usize;
            gst_video::VideoMeta::add_full(
                inner,
                gst_video::VideoFrameFlags::empty(),
                info.format(),
                info.width(),
                info.height(),
                &info.offset()[..planes],
                &info.stride()[..planes],
            )
            .map_err(|_| gst::FlowError::Error)?;
            Ok(buffer)
        }

        fn release_buffer(&self, buffer: gst::Buffer) {
            drop(buffer);
        }

        fn reset_buffer(&self, _buffer: &mut gst::BufferRef) {}
    }
}

glib::wrapper! {
    /// See the module.
    pub(crate) struct LoanPool(ObjectSubclass<imp::LoanPool>) @extends gst::BufferPool, gst::Object;
}

impl LoanPool {
    /// A pool for buffers of these caps.
    pub(crate) fn new(
        output: &Arc<Output>,
        caps: &gst::Caps,
        bytes: u32,
    ) -> Result<Self, glib::BoolError> {
        let pool: Self = glib::Object::new();
        // A new object: nobody has set it before.
        let _ = pool.imp().output.set(output.clone());
        let mut config = pool.config();
        config.set_params(Some(caps), bytes, 0, 0);
        pool.set_config(config)?;
        Ok(pool)
    }
}
