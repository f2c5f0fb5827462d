//! Frames with loss and lag counted.

use crate::lag::Lag;
use crate::{BusError, wait};
use framebus_bus::{FrameSample, FrameSubscriber};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A stream of one camera's frames.
#[derive(Debug)]
pub struct Frames {
    pub(crate) subscriber: FrameSubscriber,
    last: Option<(u64, u64)>,
    lost: u64,
    lag: Lag,
}

impl Frames {
    /// Counts losses on top of a subscriber.
    #[must_use]
    pub fn new(subscriber: FrameSubscriber) -> Self {
        Self { subscriber, last: None, lost: 0, lag: Lag::default() }
    }

    /// The newest frame that is already there.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when [`limit`](Self::limit) frames are held already,
    /// [`BusError::Version`] when the instance is of another version.
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
            self.lag.taken(frame.header().publish_ns);
        }
        Ok(frame)
    }

    /// Waits for the next frame, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(&mut self, timeout: Duration) -> Result<Option<FrameSample>, BusError> {
        wait::until(self, timeout, Self::poll, |this, left| {
            this.subscriber.waker().wait(left).map(drop)
        })
    }

    /// Waits for the next frame as long as it takes.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&mut self) -> Result<FrameSample, BusError> {
        loop {
            if let Some(frame) = self.wait_for(wait::LONGEST)? {
                return Ok(frame);
            }
        }
    }

    /// Waits for the next frame without blocking the thread; see
    /// [`Results::wait_async`](crate::Results::wait_async).
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and [`BusError::Transport`] for an error of `readable`.
    pub async fn wait_async(
        &mut self,
        readable: impl AsyncFnMut() -> io::Result<()>,
    ) -> Result<FrameSample, BusError> {
        wait::until_readable(self, readable, Self::poll, Self::drain).await
    }

    /// Forgets what woke this reader, see [`as_fd`](Self::as_fd).
    pub fn drain(&self) {
        self.subscriber.waker().drain();
    }

    /// Frames that may be held at a time.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.subscriber.limit()
    }

    /// The camera.
    #[must_use]
    pub fn camera(&self) -> &str {
        self.subscriber.camera()
    }

    /// Frames that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How long the frame taken last had waited for this reader.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.lag.last()
    }

    /// Frames that were skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.subscriber.bad_headers()
    }
}

impl AsFd for Frames {
    /// As [`Results::as_fd`](crate::Results::as_fd).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscriber.waker().as_fd()
    }
}
