//! One module per subcommand.

pub(crate) mod bench;
pub(crate) mod bundle;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod detect;
pub(crate) mod doctor;
pub(crate) mod models;
pub(crate) mod record;
pub(crate) mod reload;
pub(crate) mod replay;
pub(crate) mod status;
pub(crate) mod systemd;
pub(crate) mod tap;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod up;

use crate::cli::Command;
use crate::screen::Screen;
use framebus_config::Config;
use framebus_service::{Failure, Kind};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(args) => up::run(args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Detect(args) => detect::run(args),
        Command::Tap(args) => tap::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Models(args) => models::run(args),
        Command::Bench(args) => bench::run(*args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
        Command::Systemd(args) => systemd::run(&args),
    }
}

/// Loads a configuration file; where there is none, says how to name one.
fn load(path: &Path) -> Result<Config, Failure> {
    framebus_config::load(path).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let hint = if path.exists() { "" } else { "; name yours with --config FILE" };
        Failure::message(Kind::Config, lines.join("\n") + hint)
    })
}

/// Starts this command's own log: warnings, around the table of `screen`.
/// `FRAMEBUS_LOG` says otherwise.
fn init_log(screen: &Arc<Screen>) {
    let filter = std::env::var("FRAMEBUS_LOG")
        .ok()
        .and_then(|spec| EnvFilter::try_new(spec).ok())
        .unwrap_or_else(|| {
            // Changes of state are shown by the commands themselves.
            EnvFilter::new("warn,framebus_service::vitals=error,iceoryx2=off")
        });
    let screen = screen.clone();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .without_time()
        .with_writer(move || LogWriter { screen: screen.clone(), bytes: Vec::new() })
        .try_init();
}

/// Collects one event and prints it as a whole.
struct LogWriter {
    screen: Arc<Screen>,
    bytes: Vec<u8>,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim_end();
        if !text.is_empty() {
            self.screen.log(text);
        }
    }
}
