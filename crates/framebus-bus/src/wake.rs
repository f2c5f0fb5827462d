//! Sleeping until something is on the bus.

use crate::{BusError, Ipc};
use iceoryx2::port::listener::{Listener, ListenerWaitError};
use iceoryx2::prelude::{
    CallbackProgression, SignalHandlingMode, WaitSet, WaitSetAttachmentId, WaitSetBuilder,
};
use iceoryx2::service::Service;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// A wait of less than a microsecond would be one without an end: the socket's timeout
/// counts in microseconds, and 0 is none.
const SHORTEST_WAIT: Duration = Duration::from_micros(10);

/// Wakes one reader of one service.
#[derive(Debug)]
pub struct Waker<S: Service = Ipc> {
    listener: Listener<S>,
}

impl<S: Service> Waker<S> {
    pub(crate) fn new(listener: Listener<S>) -> Self {
        Self { listener }
    }

    /// Sleeps until something was sent, or `timeout`. Returns whether something
    /// woke it; readers look either way.
    ///
    /// # Errors
    /// [`BusError::Transport`].
    pub fn wait(&self, timeout: Duration) -> Result<bool, BusError> {
        let mut woken = false;
        match self.listener.timed_wait(|_| woken = true, timeout.max(SHORTEST_WAIT)) {
            // A signal that this thread happened to receive is no fault of the
            // bus; whoever waits looks again and learns of the stop elsewhere.
            Ok(_) | Err(ListenerWaitError::InterruptSignal) => Ok(woken),
            Err(error) => Err(BusError::Transport {
                service: "event".to_owned(),
                reason: format!("{error:?}"),
            }),
        }
    }

    /// Forgets the wake-ups so far, and makes the descriptor unreadable again; to be
    /// called before a look, so that what is sent after it wakes anew.
    pub fn drain(&self) {
        // An event that cannot be read now is read at the next wake-up.
        let _ = self.listener.try_wait(|_| {});
    }
}

impl Waker<Ipc> {
    pub(crate) fn listener(&self) -> &Listener<Ipc> {
        &self.listener
    }
}

/// Sleeps until one of `wakers` has something, or `timeout`. What woke them is
/// forgotten; readers look either way. For a few services that are waited for
/// together; [`run`] is for many.
///
/// # Errors
/// [`BusError::Transport`].
pub fn wait_any(wakers: &[&Waker<Ipc>], timeout: Duration) -> Result<(), BusError> {
    let mut descriptors: Vec<_> =
        wakers.iter().map(|waker| PollFd::new(*waker, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut descriptors, timeout.as_ref()) {
        // As in `wait`: whoever waits looks again.
        Ok(_) | Err(Errno::INTR) => {
            wakers.iter().for_each(|waker| waker.drain());
            Ok(())
        }
        Err(error) => Err(wait_error(error)),
    }
}

/// Calls `on_wake` with the numbers of those `wakers` that have something, and with
/// none at least every `timeout`, until it answers `Break`. For one thread that
/// reads several services; what a wake-up costs does not grow with their number.
///
/// # Errors
/// [`BusError::Transport`].
pub fn run(
    wakers: &[&Waker<Ipc>],
    timeout: Duration,
    mut on_wake: impl FnMut(&[usize]) -> ControlFlow<()>,
) -> Result<(), BusError> {
    let waitset: WaitSet<Ipc> = WaitSetBuilder::new()
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()
        .map_err(wait_error)?;
    let mut guards = Vec::with_capacity(wakers.len());
    for waker in wakers {
        guards.push(waitset.attach_notification(&waker.listener).map_err(wait_error)?);
    }
    let numbers: HashMap<_, usize> =
        guards.iter().map(WaitSetAttachmentId::from_guard).zip(0..).collect();
    let mut woken: Vec<usize> = Vec::with_capacity(wakers.len());
    loop {
        woken.clear();
        let waited = waitset.wait_and_process_once_with_timeout(
            |id| {
                woken.extend(numbers.get(&id).copied());
                CallbackProgression::Continue
            },
            timeout,
        );
        waited.map_err(wait_error)?;
        // Before the readers look: what is sent after this wakes them again.
        woken.iter().for_each(|&number| wakers[number].drain());
        if on_wake(&woken).is_break() {
            return Ok(());
        }
    }
}

fn wait_error(error: impl std::fmt::Debug) -> BusError {
    BusError::Transport { service: "wait set".to_owned(), reason: format!("{error:?}") }
}
