//! Frames together with their results.

use crate::{BusError, Frames, Results, wait};
use framebus_bus::wake::wait_any;
use framebus_bus::{FrameSample, ResultSample};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Pairs of a frame and its result, by camera, epoch and sequence.
///
/// Frames wait for their results here, one less than may be held, and one less again for
/// each that you hold. A result whose frame had to go before it came is counted. A pair
/// that you hold takes one of the reader's two results.
#[derive(Debug)]
pub struct Joined {
    frames: Frames,
    results: Results,
    waiting: VecDeque<FrameSample>,
    /// Frames that may wait.
    room: usize,
    unmatched: u64,
}

impl Joined {
    /// Joins two streams; results of other cameras are passed over.
    #[must_use]
    pub fn new(frames: Frames, results: Results) -> Self {
        let room = frames.limit().saturating_sub(1).max(1);
        let waiting = VecDeque::with_capacity(room + 1);
        Self { frames, results, waiting, room, unmatched: 0 }
    }

    /// A pair that is already there.
    ///
    /// # Errors
    /// As [`Frames::poll`] and [`Results::poll`].
    pub fn poll(&mut self) -> Result<Option<(FrameSample, ResultSample)>, BusError> {
        self.take_frames()?;
        while let Some(result) = self.results.poll()? {
            if result.camera() != self.frames.camera() {
                continue;
            }
            let mut frame = self.take(&result);
            if frame.is_none() {
                // It may have been sent since the look at the frames.
                self.take_frames()?;
                frame = self.take(&result);
            }
            if let Some(frame) = frame {
                return Ok(Some((frame, result)));
            }
            self.unmatched = self.unmatched.saturating_add(1);
        }
        Ok(None)
    }

    fn take_frames(&mut self) -> Result<(), BusError> {
        loop {
            match self.frames.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    self.waiting.push_back(frame);
                    if self.waiting.len() > self.room {
                        self.waiting.pop_front();
                    }
                }
                // The caller holds some: what waits has to make room.
                Err(error @ BusError::NoLoan { .. }) => {
                    self.waiting.pop_front().ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, result: &ResultSample) -> Option<FrameSample> {
        let name = (result.header().epoch_ns, result.header().sequence);
        let of = |frame: &FrameSample| (frame.header().epoch_ns, frame.header().sequence);
        let place = self.waiting.iter().position(|frame| of(frame) == name)?;
        self.waiting.remove(place)
    }

    /// Waits for the next pair, `timeout` at most.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait_for(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<(FrameSample, ResultSample)>, BusError> {
        wait::until(self, timeout, Self::poll, |this, left| {
            wait_any(&[this.frames.subscriber.waker(), this.results.subscriber.waker()], left)
        })
    }

    /// Waits for the next pair as long as it takes.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&mut self) -> Result<(FrameSample, ResultSample), BusError> {
        loop {
            if let Some(pair) = self.wait_for(wait::LONGEST)? {
                return Ok(pair);
            }
        }
    }

    /// Waits for the next pair without blocking the thread; `readable` waits until the
    /// descriptor of [`frames`](Self::frames) or that of [`results`](Self::results) is
    /// readable. See [`Results::wait_async`].
    ///
    /// # Errors
    /// As [`poll`](Self::poll), and [`BusError::Transport`] for an error of `readable`.
    pub async fn wait_async(
        &mut self,
        readable: impl AsyncFnMut() -> io::Result<()>,
    ) -> Result<(FrameSample, ResultSample), BusError> {
        wait::until_readable(self, readable, Self::poll, Self::drain).await
    }

    /// Forgets what woke either stream.
    pub fn drain(&self) {
        self.frames.drain();
        self.results.drain();
    }

    /// Results of the camera whose frame was not there (any more).
    #[must_use]
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// The frames, for their counters and their descriptor.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The results of all cameras, for their counters and their descriptor.
    #[must_use]
    pub fn results(&self) -> &Results {
        &self.results
    }
}
