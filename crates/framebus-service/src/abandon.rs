//! Ending although a thread hangs in foreign code.

use crate::Failure;

/// Ends the process at once with the failure's exit code: for a thread that hangs in a
/// library and cannot be ended or joined. Destructors and exit handlers do not run,
/// because those of the library may wait for that thread; shared memory is cleaned up by
/// the next process of the instance, as after SIGKILL. Everything that others shall know
/// has to be published before.
pub fn abandon(role: &str, failure: &Failure) -> ! {
    tracing::error!("{role}: {failure}; a thread hangs, ending without it");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    signal_hook::low_level::exit(i32::from(failure.kind.code()))
}

/// Ends the process at once as its `main` would with `result`, but without destructors and
/// exit handlers: for a thread that is busy in a library and cannot be told to stop.
pub fn leave(role: &str, result: &Result<(), Failure>) -> ! {
    let code = match result {
        Ok(()) => 0,
        Err(failure) => {
            tracing::error!("{role}: {failure}");
            failure.kind.code()
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    signal_hook::low_level::exit(i32::from(code))
}
