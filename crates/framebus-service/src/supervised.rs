//! Ending with the supervisor, however it ends.

use crate::Shutdown;
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// Set to `1` by a supervisor that holds the other end of this process's
/// standard input.
pub const ENV: &str = "FRAMEBUS_SUPERVISED";

/// Time to finish after the supervisor has gone; nobody is left who would kill
/// a process that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// Under a supervisor: waits for the end of standard input and then stops.
/// The kernel closes the pipe even when the supervisor is killed.
pub(crate) fn watch(shutdown: Shutdown) -> std::io::Result<()> {
    if std::env::var_os(ENV).is_none_or(|value| value != "1") {
        return Ok(());
    }
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
        let mut bytes = [0; 64];
        let mut input = std::io::stdin().lock();
        loop {
            match input.read(&mut bytes) {
                Ok(0) => break,
                Err(error) if error.kind() != ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        if !shutdown.requested() {
            tracing::warn!("the supervisor is gone: stopping");
            shutdown.request();
        }
        let _ = Shutdown::new().wait(GRACE);
        let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTERM);
    })?;
    Ok(())
}
