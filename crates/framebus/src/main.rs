//! The `framebus` command: runs, checks and shows an instance.
//!
//! Printing is this program's work; everything goes through [`out`] and
//! [`screen`], which live with a reader that has gone (`framebus tap | head`).

mod annotate;
mod applied;
mod bounded;
mod changes;
mod children;
mod cli;
mod cmd;
mod control;
mod instance;
mod latency;
mod out;
mod private;
mod recording;
mod report;
mod rig;
mod screen;
mod stats;
mod supervisor;
mod table;
mod unit;
mod viewer;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    match framebus_service::parse_args::<cli::Cli>() {
        Ok(cli) => out::exit_code(cmd::run(cli.command)),
        Err(code) => code,
    }
}
