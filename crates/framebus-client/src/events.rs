//! Events with loss counted.

use crate::BusError;
use framebus_bus::EventSubscriber;
use framebus_types::Event;
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
    /// [`BusError::Transport`] when the bus fails.
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
        if let Some(event) = self.poll()? {
            return Ok(Some(event));
        }
        let _woken = self.subscriber.waker().wait(timeout)?;
        self.poll()
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
