//! Events with loss counted.

use crate::{BusError, wait};
use framebus_bus::EventSubscriber;
use framebus_types::Event;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    subscriber: EventSubscriber,
    /// Epoch and number of the event before.
    last: Option<(u64, u64)>,
    lost: u64,
}

impl Events {
    /// Counts losses on top of a subscriber.
    #[must_use]
    pub fn new(subscriber: EventSubscriber) -> Self {
        Self { subscriber, last: None, lost: 0 }
    }

    /// The next event that is already there.
    ///
    /// # Errors
    /// [`BusError::Transport`] when the bus fails, [`BusError::Version`] when the instance
    /// is of another version.
    pub fn poll(&mut self) -> Result<Option<Event>, BusError> {
        let event = self.subscriber.receive()?;
        if let Some(event) = &event {
            let (epoch, number) = (event.event_epoch_ns, event.event_sequence);
            let lost = crate::results::lost_before(self.last, epoch, number);
            self.lost = self.lost.saturating_add(lost);
            self.last = Some((epoch, number));
        }
        Ok(event)
    }

    /// Waits for the next event, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(&mut self, timeout: Duration) -> Result<Option<Event>, BusError> {
        wait::until(self, timeout, Self::poll, |this, left| {
            this.subscriber.waker().wait(left).map(drop)
        })
    }

    /// Waits for the next event as long as it takes.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&mut self) -> Result<Event, BusError> {
        loop {
            if let Some(event) = self.wait_for(wait::LONGEST)? {
                return Ok(event);
            }
        }
    }

    /// Waits for the next event without blocking the thread, as
    /// [`Results::wait_async`](crate::Results::wait_async) does.
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and [`BusError::Transport`] for an error of `readable`.
    pub async fn wait_async(
        &mut self,
        readable: impl AsyncFnMut() -> io::Result<()>,
    ) -> Result<Event, BusError> {
        wait::until_readable(self, readable, Self::poll, Self::drain).await
    }

    /// Forgets what woke this reader, see [`as_fd`](Self::as_fd).
    pub fn drain(&self) {
        self.subscriber.waker().drain();
    }

    /// Events that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Events that were skipped because they cannot be understood.
    #[must_use]
    pub fn bad_events(&self) -> u64 {
        self.subscriber.bad_events()
    }
}

impl AsFd for Events {
    /// As that of [`Results`](crate::Results).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscriber.waker().as_fd()
    }
}
