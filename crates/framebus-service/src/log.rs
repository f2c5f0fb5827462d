//! Logging to standard error through `tracing`.

use framebus_config::{Log, LogFormat};
use std::fmt;
use std::io::IsTerminal;
use std::sync::Once;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

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
                // from; its errors come back to us as `Err` and are logged once. Zenoh
                // tells of its own doings at info, and its orchestrator warns twice of each
                // failed attempt to connect.
                let level = log.level.as_str();
                let zenoh = if level == "error" { level } else { "warn" };
                EnvFilter::new(format!(
                    "{level},iceoryx2=off,zenoh={zenoh},zenoh::net::runtime::orchestrator=error"
                ))
            });
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false);
        let terminal = std::io::stderr().is_terminal();
        match log.format {
            LogFormat::Json => builder.json().flatten_event(true).init(),
            LogFormat::Auto | LogFormat::Text if is_journal() => {
                builder.event_format(Journal(journal_text())).init();
            }
            LogFormat::Auto | LogFormat::Text => builder.with_ansi(terminal).init(),
        }
    });
}

/// Whether standard error goes to journald: `JOURNAL_STREAM` names the device and inode
/// of what systemd connected, and is inherited by children whose output goes elsewhere.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// journald adds its own time stamps.
fn journal_text() -> format::Format<format::Full, ()> {
    format().without_time().with_ansi(false).with_target(false)
}

/// Text whose lines begin with their priority, `<3>` to `<7>`, as sd-daemon(3) has it:
/// `journalctl -p warning` finds them.
struct Journal<F>(F);

impl<S, N, F> FormatEvent<S, N> for Journal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        // journald takes each line for itself.
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_for_journald_has_its_priority() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .event_format(Journal(journal_text()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("no library\nsearched: /a");
            tracing::warn!(camera = "front", "late");
            tracing::info!("live");
            tracing::debug!("tick");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("UTF-8");
        let expected = "<3>ERROR no library\n<3>searched: /a\n<4> WARN late camera=\"front\"\n\
                        <6> INFO live\n<7>DEBUG tick\n";
        assert_eq!(text, expected);
    }
}
