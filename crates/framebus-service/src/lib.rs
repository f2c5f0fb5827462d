//! What every framebus process does alike.
//!
//! A `main` is one call:
//!
//! ```no_run
//! use framebus_service::{Failure, Service, run};
//!
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     common: framebus_service::CommonArgs,
//! }
//!
//! impl AsRef<framebus_service::CommonArgs> for Args {
//!     fn as_ref(&self) -> &framebus_service::CommonArgs { &self.common }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     run("example", |_args: Args, service: Service| -> Result<(), Failure> {
//!         service.ready();
//!         while !service.shutdown().wait(std::time::Duration::from_secs(1)) {
//!             service.progress();
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Order: arguments → configuration → logging and panic hook → signals → bus →
//! the process's own build → READY → loop → STOPPING → drain → exit code.

mod abandon;
mod backoff;
pub mod clock;
mod domain;
mod failure;
mod log;
pub mod priority;
mod reload;
mod run;
mod shutdown;
mod supervised;
mod vitals;

pub use abandon::{abandon, leave};
pub use backoff::Backoff;
pub use domain::{delivery, domain, is_offline};
pub use failure::{Failure, Kind, OrFail};
pub use log::init as init_log;
pub use reload::Reload;
pub use run::{CommonArgs, Service, exit_code, parse_args, run};
pub use shutdown::Shutdown;
pub use supervised::ENV as SUPERVISED_ENV;
pub use vitals::{Reporter, Vitals, without_figures};

/// Name under which the inference process subscribes to frames. An every-frame
/// source waits for it before it sends its first frame.
pub const INFER_READER: &str = "infer";
