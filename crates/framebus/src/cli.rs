//! The command line.

use clap::{Parser, Subcommand};

/// Cameras in, detections out, over shared memory, on one box.
///
/// `framebus detect bus.jpg` shows what a model sees in a picture or clip;
/// `framebus up --config framebus.toml` runs cameras, inference and sinks until
/// it is stopped.
#[derive(Debug, Parser)]
#[command(
    name = "framebus",
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  framebus models fetch                      bring the YOLOv8n model
  framebus detect street.jpg clip.mp4        what is in these pictures?
  framebus check --config framebus.toml      is this configuration right, does it fit?
  framebus up --config framebus.toml         run it
  framebus top                               watch it from another terminal
  framebus trace -o trace.json               where do the milliseconds go?
  framebus record -o street.mcap             keep frames and results, for Foxglove
  framebus replay street.mcap --compare      does the model still find the same?
  framebus bench                             how fast is this machine?
  framebus doctor                            what is wrong with it, and what to do?
  framebus bundle                            pack that for somebody who helps

Exit codes: 0 done or asked to stop, 64 wrong arguments, 69 something needed is
unavailable, 70 a bug, 78 the configuration or a file that it names is wrong.
FRAMEBUS_LOG=debug (or any tracing filter) shows more of what happens."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Subcommands, one file each in `cmd`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(crate::cmd::up::Args),
    Check(crate::cmd::check::Args),
    Doctor(crate::cmd::doctor::Args),
    Bundle(crate::cmd::bundle::Args),
    Detect(crate::cmd::detect::Args),
    Tap(crate::cmd::tap::Args),
    Status(crate::cmd::status::Args),
    Top(crate::cmd::top::Args),
    Reload(crate::cmd::reload::Args),
    Trace(crate::cmd::trace::Args),
    Record(crate::cmd::record::Args),
    Replay(crate::cmd::replay::Args),
    Models(crate::cmd::models::Args),
    Bench(Box<crate::cmd::bench::Args>),
    Completions(crate::cmd::completions::Args),
    Man(crate::cmd::completions::ManArgs),
    #[command(hide = true)]
    Systemd(crate::cmd::systemd::Args),
}
