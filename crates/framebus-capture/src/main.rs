//! The capture process: one camera, file or pipeline becomes frames on the bus.

use clap::Parser;
use framebus_service::{CommonArgs, run};
use std::process::ExitCode;

/// Puts the frames of one camera on the bus.
#[derive(Parser)]
#[command(name = "framebus-capture", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Name of the camera, as in the configuration.
    #[arg(long)]
    camera: String,
}

impl AsRef<CommonArgs> for Args {
    fn as_ref(&self) -> &CommonArgs {
        &self.common
    }
}

fn main() -> ExitCode {
    run("capture", |args: Args, service| framebus_capture::run(&args.camera, &service))
}
