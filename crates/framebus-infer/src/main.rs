//! `framebus-infer`: see the library of this crate.

use clap::Parser;
use framebus_service::{CommonArgs, run};
use std::process::ExitCode;

/// Takes the frames of all cameras from the bus and publishes one result per frame.
#[derive(Debug, Parser)]
#[command(name = "framebus-infer", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

impl AsRef<CommonArgs> for Args {
    fn as_ref(&self) -> &CommonArgs {
        &self.common
    }
}

fn main() -> ExitCode {
    run("infer", |_: Args, service| framebus_infer::serve(&service))
}
