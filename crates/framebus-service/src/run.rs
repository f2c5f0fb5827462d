//! From `main` to exit code.

use crate::reload::{self, Reload};
use crate::{Failure, Kind, OrFail, Shutdown, domain, log, supervised};
use clap::Parser;
use framebus_bus::Bus;
use framebus_config::Config;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments that every process of an instance takes.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// Configuration file.
    #[arg(long, short, env = "FRAMEBUS_CONFIG", default_value = "/etc/framebus/framebus.toml")]
    pub config: PathBuf,
    /// Validated copy that is read instead of the file, where it exists: an instance
    /// that runs restarts its processes from it while the file is being edited.
    #[arg(long, env = "FRAMEBUS_APPLIED", hide = true)]
    pub applied: Option<PathBuf>,
}

/// What a process starts with.
#[derive(Debug)]
pub struct Service {
    config: Config,
    args: CommonArgs,
    reload: Reload,
    bus: Arc<Bus>,
    shutdown: Shutdown,
    progress: Arc<AtomicBool>,
}

impl Service {
    /// The configuration that the process started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration as it is now, once after each SIGHUP; `None` when nobody asked
    /// or the file has errors, which are logged. To be called in the process's loop. What
    /// cannot be taken over in place ends with [`Kind::Changed`], upon which the
    /// supervisor starts the process again at once.
    #[must_use]
    pub fn reloaded(&self) -> Option<Config> {
        self.reload.take(&self.args)
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// The wish to stop.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Says that the process does its work (systemd `READY=1`).
    pub fn ready(&self) {
        self.progress();
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    /// Says that the process has done a piece of work, or has looked and found
    /// none. The watchdog is fed by this and not by a timer.
    pub fn progress(&self) {
        self.progress.store(true, Ordering::Relaxed);
    }

    /// The flag behind [`progress`](Self::progress), for other threads.
    #[must_use]
    pub fn progress_flag(&self) -> Arc<AtomicBool> {
        self.progress.clone()
    }
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs one process; see the crate's documentation for the order.
pub fn run<A: Parser + AsRef<CommonArgs>>(
    role: &str,
    body: impl FnOnce(A, Service) -> Result<(), Failure>,
) -> ExitCode {
    let args = match parse_args::<A>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    exit_code(role, start(role, args, body))
}

/// Parses the arguments; help and version end with 0, mistakes with 64.
///
/// # Errors
/// The exit code to end with; everything has been printed.
pub fn parse_args<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(Kind::Usage.code()) } else { ExitCode::SUCCESS }
    })
}

/// Logs how a process ended and makes its exit code.
pub fn exit_code(role: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) if PANICKED.load(Ordering::Relaxed) => ExitCode::from(Kind::Bug.code()),
        Ok(()) => {
            tracing::info!("{role} stopped");
            ExitCode::SUCCESS
        }
        Err(failure) if failure.kind == Kind::Changed => {
            tracing::info!("{role} stopped: {failure}");
            failure.exit_code()
        }
        Err(failure) => {
            tracing::error!("{role}: {failure}");
            failure.exit_code()
        }
    }
}

fn start<A: AsRef<CommonArgs>>(
    role: &str,
    args: A,
    body: impl FnOnce(A, Service) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let common = args.as_ref().clone();
    // Before the file is read: a change after that is heard, and ends nobody.
    let reload = Reload::on_signal().or_fail(Kind::Bug)?;
    let config = match reload::read(&common) {
        Ok(config) => config,
        Err(errors) => {
            log::init(&framebus_config::Log::default());
            return Err(errors).or_fail(Kind::Config);
        }
    };
    log::init(&config.log);
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    stop_on_panic(shutdown.clone());
    supervised::watch(shutdown.clone()).or_fail(Kind::Bug)?;
    let bus = Arc::new(Bus::open(&domain(&config)?, role)?);
    let progress = Arc::new(AtomicBool::new(true));
    let joined = bus.clone();
    let service = Service { config, args: common, reload, bus, shutdown, progress };
    let result = body(args, service).and_then(|()| Ok(joined.check_files()?));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    result
}

/// A panic in any thread is a bug: it is logged, and the process stops and says
/// 70 instead of living on without that thread.
fn stop_on_panic(shutdown: Shutdown) {
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::Relaxed);
        let message = info.payload_as_str().unwrap_or("without a message");
        let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
        tracing::error!("panicked: {message}{place}");
        shutdown.request();
    }));
}
