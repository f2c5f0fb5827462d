//! Frames with loss counted.

use crate::BusError;
use framebus_bus::{FrameSample, FrameSubscriber};
use std::time::Duration;

/// A stream of one camera's frames.
#[derive(Debug)]
pub struct Frames {
    subscriber: FrameSubscriber,
    last: Option<(u64, u64)>,
    lost: u64,
}

impl Frames {
    /// Counts losses on top of a subscriber.
    #[must_use]
    pub fn new(subscriber: FrameSubscriber) -> Self {
        Self { subscriber, last: None, lost: 0 }
    }

    /// The newest frame that is already there.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when three frames are held already.
    pub fn poll(&mut self) -> Result<Option<FrameSample>, BusError> {
        let frame = self.subscriber.receive()?;
        if let Some(frame) = &frame {
            let (epoch, sequence) = (frame.header().epoch_ns, frame.header().sequence);
            if let Some((last_epoch, last)) = self.last
                && last_epoch == epoch
            {
                let lost = sequence.saturating_sub(last).saturating_sub(1);
                self.lost = self.lost.saturating_add(lost);
            }
            self.last = Some((epoch, sequence));
        }
        Ok(frame)
    }

    /// Waits for the next frame, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(&mut self, timeout: Duration) -> Result<Option<FrameSample>, BusError> {
        if let Some(frame) = self.poll()? {
            return Ok(Some(frame));
        }
        let _woken = self.subscriber.waker().wait(timeout)?;
        self.poll()
    }

    /// Frames that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
