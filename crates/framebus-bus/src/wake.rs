//! Sleeping until something is on the bus.

use crate::{BusError, Ipc};
use iceoryx2::port::listener::{Listener, ListenerWaitError};
use iceoryx2::prelude::{CallbackProgression, SignalHandlingMode, WaitSet, WaitSetBuilder};
use iceoryx2::service::Service;
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

/// Calls `on_wake` whenever one of `wakers` has something, and at least every
/// `timeout`, until it answers `Break`. For one thread that reads several
/// services; nothing is allocated per wake-up.
///
/// # Errors
/// [`BusError::Transport`].
pub fn run(
    wakers: &[&Waker<Ipc>],
    timeout: Duration,
    mut on_wake: impl FnMut() -> ControlFlow<()>,
) -> Result<(), BusError> {
    let waitset: WaitSet<Ipc> = WaitSetBuilder::new()
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()
        .map_err(wait_error)?;
    let mut guards = Vec::with_capacity(wakers.len());
    for waker in wakers {
        guards.push(waitset.attach_notification(&waker.listener).map_err(wait_error)?);
    }
    loop {
        let mut woken = false;
        waitset
            .wait_and_process_once_with_timeout(
                |_| {
                    woken = true;
                    CallbackProgression::Continue
                },
                timeout,
            )
            .map_err(wait_error)?;
        if woken {
            wakers.iter().for_each(|waker| waker.drain());
        }
        if on_wake().is_break() {
            return Ok(());
        }
    }
}

fn wait_error(error: impl std::fmt::Debug) -> BusError {
    BusError::Transport { service: "wait set".to_owned(), reason: format!("{error:?}") }
}
