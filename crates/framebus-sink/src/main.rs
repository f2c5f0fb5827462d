//! `framebus-sink`: see the library of this crate.

use clap::Parser;
use framebus_service::{CommonArgs, run};
use std::process::ExitCode;

/// Delivers the results of an instance to one target.
#[derive(Debug, Parser)]
#[command(name = "framebus-sink", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Name of the `[[sink]]` in the configuration.
    #[arg(long)]
    sink: String,
}

impl AsRef<CommonArgs> for Args {
    fn as_ref(&self) -> &CommonArgs {
        &self.common
    }
}

fn main() -> ExitCode {
    run("sink", |args: Args, service| framebus_sink::serve(&service, &args.sink))
}
