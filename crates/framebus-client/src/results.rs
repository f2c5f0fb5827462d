//! Results with loss counted.

use crate::BusError;
use framebus_bus::{ResultSample, ResultSubscriber};
use std::time::Duration;

/// How many are missing before the one with this epoch and number. Numbers are the
/// publisher's word: one that jumps must not overflow.
pub(crate) fn lost_before(last: Option<(u64, u64)>, epoch: u64, number: u64) -> u64 {
    match last {
        // Before our own start nothing was ours to lose.
        None => 0,
        Some((last_epoch, last)) if last_epoch == epoch => {
            number.saturating_sub(last.saturating_add(1))
        }
        // A restarted publisher counts from 0; how much of the one before is missing,
        // nobody can say.
        Some(_) => number,
    }
}

/// A stream of results.
#[derive(Debug)]
pub struct Results {
    subscriber: ResultSubscriber,
    /// Epoch and number of the result before.
    last: Option<(u64, u64)>,
    lost: u64,
}

impl Results {
    /// Counts losses on top of a subscriber.
    #[must_use]
    pub fn new(subscriber: ResultSubscriber) -> Self {
        Self { subscriber, last: None, lost: 0 }
    }

    /// The next result that is already there.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when two results are held already.
    pub fn poll(&mut self) -> Result<Option<ResultSample>, BusError> {
        let result = self.subscriber.receive()?;
        if let Some(result) = &result {
            let (epoch, number) =
                (result.header().result_epoch_ns, result.header().result_sequence);
            self.lost = self.lost.saturating_add(lost_before(self.last, epoch, number));
            self.last = Some((epoch, number));
        }
        Ok(result)
    }

    /// Waits for the next result, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(&mut self, timeout: Duration) -> Result<Option<ResultSample>, BusError> {
        if let Some(result) = self.poll()? {
            return Ok(Some(result));
        }
        let _woken = self.subscriber.waker().wait(timeout)?;
        self.poll()
    }

    /// Waits for the next result as long as it takes.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&mut self) -> Result<ResultSample, BusError> {
        loop {
            if let Some(result) = self.wait_for(Duration::from_secs(1))? {
                return Ok(result);
            }
        }
    }

    /// Results that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Results that were skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.subscriber.bad_headers()
    }
}
