//! Sleeping until something is on the bus.

use crate::{BusError, Ipc};
use iceoryx2::port::listener::{Listener, ListenerWaitError};
use iceoryx2::prelude::{
    CallbackProgression, SignalHandlingMode, WaitSet, WaitSetAttachmentId, WaitSetBuilder,
};
use iceoryx2::service::Service;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

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
        match self.listener.timed_wait(|_| woken = true, timeout) {
            // A signal that this thread happened to receive is no fault of the
            // bus; whoever waits looks again and learns of the stop elsewhere.
            Ok(_) | Err(ListenerWaitError::InterruptSignal) => Ok(woken),
            Err(error) => Err(BusError::Transport {
                service: "event".to_owned(),
                reason: format!("{error:?}"),
            }),
        }
    }

    fn drain(&self) {
        // An event that cannot be read now is read at the next wake-up.
        let _ = self.listener.try_wait(|_| {});
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
