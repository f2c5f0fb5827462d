//! Logging to standard error through `tracing`.

use framebus_config::{Log, LogFormat};
use std::io::IsTerminal;
use std::sync::Once;
use tracing_subscriber::EnvFilter;

/// Starts logging; `FRAMEBUS_LOG` (a `tracing` filter such as
/// `debug,iceoryx2=warn`) overrides the configured level. Later calls do nothing.
pub fn init(log: &Log) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = std::env::var("FRAMEBUS_LOG")
            .ok()
            .and_then(|spec| EnvFilter::try_new(spec).ok())
            .unwrap_or_else(|| {
                // iceoryx2 reports every failed attempt that it then recovers
                // from; its errors come back to us as `Err` and are logged once.
                EnvFilter::new(format!("{},iceoryx2=off", log.level.as_str()))
            });
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false);
        let terminal = std::io::stderr().is_terminal();
        match log.format {
            LogFormat::Json => builder.json().flatten_event(true).init(),
            // journald adds its own time stamps.
            LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() && !terminal => {
                builder.without_time().with_ansi(false).init();
            }
            LogFormat::Auto | LogFormat::Text => builder.with_ansi(terminal).init(),
        }
    });
}
