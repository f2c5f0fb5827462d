//! Waiting, the same for every stream: look, sleep, look again.

use crate::BusError;
use std::io;
use std::time::Duration;

/// Longest sleep of a wait without an end: a wake-up that was lost costs no more.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// Looks, sleeps `timeout` at most where nothing is there, and looks again.
pub(crate) fn until<S, T>(
    stream: &mut S,
    timeout: Duration,
    mut poll: impl FnMut(&mut S) -> Result<Option<T>, BusError>,
    sleep: impl Fn(&S, Duration) -> Result<(), BusError>,
) -> Result<Option<T>, BusError> {
    let start = crate::lag::now();
    loop {
        if let Some(item) = poll(stream)? {
            return Ok(Some(item));
        }
        // A wake-up may be of a sample that was taken before it, or of another camera's.
        let left = timeout.saturating_sub(crate::lag::now().saturating_sub(start));
        if left.is_zero() {
            return Ok(None);
        }
        sleep(stream, left)?;
    }
}

/// Looks, and lets the caller's runtime wait for the descriptor while nothing is there.
pub(crate) async fn until_readable<S, T>(
    stream: &mut S,
    mut readable: impl AsyncFnMut() -> io::Result<()>,
    poll: impl Fn(&mut S) -> Result<Option<T>, BusError>,
    drain: impl Fn(&S),
) -> Result<T, BusError> {
    loop {
        if let Some(item) = poll(stream)? {
            return Ok(item);
        }
        drain(stream);
        // Sent before the drain, it wakes nobody any more.
        if let Some(item) = poll(stream)? {
            return Ok(item);
        }
        readable().await.map_err(|error| BusError::Transport {
            service: "event".to_owned(),
            reason: error.to_string(),
        })?;
    }
}
