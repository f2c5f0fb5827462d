//! Results with loss and lag counted.

use crate::lag::Lag;
use crate::{BusError, wait};
use framebus_bus::{ResultSample, ResultSubscriber};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
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
    pub(crate) subscriber: ResultSubscriber,
    /// Epoch and number of the result before.
    last: Option<(u64, u64)>,
    lost: u64,
    lag: Lag,
}

impl Results {
    /// Counts losses on top of a subscriber.
    #[must_use]
    pub fn new(subscriber: ResultSubscriber) -> Self {
        Self { subscriber, last: None, lost: 0, lag: Lag::default() }
    }

    /// The next result that is already there.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when two results are held already, [`BusError::Version`] when
    /// the instance is of another version.
    pub fn poll(&mut self) -> Result<Option<ResultSample>, BusError> {
        let result = self.subscriber.receive()?;
        if let Some(result) = &result {
            let (epoch, number) =
                (result.header().result_epoch_ns, result.header().result_sequence);
            self.lost = self.lost.saturating_add(lost_before(self.last, epoch, number));
            self.last = Some((epoch, number));
            self.lag.taken(result.header().times.result_ns);
        }
        Ok(result)
    }

    /// Waits for the next result, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(&mut self, timeout: Duration) -> Result<Option<ResultSample>, BusError> {
        wait::until(self, timeout, Self::poll, |this, left| {
            this.subscriber.waker().wait(left).map(drop)
        })
    }

    /// Waits for the next result as long as it takes.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&mut self) -> Result<ResultSample, BusError> {
        loop {
            if let Some(result) = self.wait_for(wait::LONGEST)? {
                return Ok(result);
            }
        }
    }

    /// Waits for the next result without blocking the thread, in any runtime: `readable`
    /// waits until the descriptor ([`as_fd`](Self::as_fd)) is readable. Dropping the
    /// future loses nothing.
    ///
    /// With `async-io` (smol):
    /// ```no_run
    /// # use std::os::fd::AsFd;
    /// # async fn read(client: framebus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut results = client.results()?;
    /// let descriptor = results.as_fd().try_clone_to_owned()?;
    /// let descriptor = async_io::Async::new_nonblocking(descriptor)?;
    /// loop {
    ///     let result = results.wait_async(async || descriptor.readable().await).await?;
    ///     println!("{}", result.camera());
    /// }
    /// # }
    /// ```
    /// With tokio the descriptor is an `AsyncFd` with `Interest::READABLE`, and `readable`
    /// is `async || Ok(descriptor.readable().await?.clear_ready())`: its reactor remembers.
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and [`BusError::Transport`] for an error of `readable`.
    pub async fn wait_async(
        &mut self,
        readable: impl AsyncFnMut() -> io::Result<()>,
    ) -> Result<ResultSample, BusError> {
        wait::until_readable(self, readable, Self::poll, Self::drain).await
    }

    /// Forgets what woke this reader, see [`as_fd`](Self::as_fd).
    pub fn drain(&self) {
        self.subscriber.waker().drain();
    }

    /// Results that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How long the result taken last had waited for this reader.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.lag.last()
    }

    /// Results that were skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.subscriber.bad_headers()
    }
}

impl AsFd for Results {
    /// For poll, epoll and what is built on them: readable from the moment something was
    /// sent until [`drain`](Self::drain) or a wait. When it is readable, `drain` first and
    /// then [`poll`](Self::poll) until it says `None`; what is sent meanwhile makes it
    /// readable again. To be waited for and nothing else: reading from it loses wake-ups.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscriber.waker().as_fd()
    }
}
