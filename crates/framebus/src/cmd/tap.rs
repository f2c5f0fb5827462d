//! `framebus tap`: prints results as they come.

use crate::instance::{Attached, Where, describe};
use crate::screen::Screen;
use crate::{out, viewer};
use framebus_bus::{BusError, Domain};
use framebus_client::{Results, json};
use framebus_config::CameraName;
use framebus_service::{Failure, Kind, OrFail, Shutdown};
use std::process::ExitCode;
use std::time::Duration;

/// Time between two attempts to reach an instance that does not run yet.
const RETRY: Duration = Duration::from_millis(250);
/// Longest wait for a result before looking whether the instance still runs.
const LOOK: Duration = Duration::from_millis(250);
/// Time that a signal takes from the kernel to the wish to stop.
const SIGNAL: Duration = Duration::from_millis(50);

/// Print the results of a running instance as they come
///
/// Waits for the instance when it does not run. A slow reader holds nobody up;
/// what it lost is said at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus tap --config framebus.toml
  framebus tap --camera front --json | jq .detections
  framebus tap --count 1")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// Only this camera.
    #[arg(long, value_parser = camera)]
    camera: Option<CameraName>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// End after so many results.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Parses the name of a camera.
pub(crate) fn camera(text: &str) -> Result<CameraName, String> {
    CameraName::try_from(text).map_err(|error| error.to_string())
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let domain = args.place.domain()?;
    super::init_log(&Screen::new(true));
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !shutdown.requested() {
        let Some((attached, results)) = wait(&domain, &shutdown)? else { break };
        // The reader leaves first: `attached` then clears up where nothing runs.
        left = print(args, &attached, results, left, &shutdown)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until the instance runs; `None` when asked to stop.
fn wait(domain: &Domain, shutdown: &Shutdown) -> Result<Option<(Attached, Results)>, Failure> {
    let mut hinted = false;
    loop {
        if let Some(attached) = Attached::new(domain, "tap")? {
            match attached.bus.join_results("tap") {
                Ok(subscriber) => return Ok(Some((attached, Results::new(subscriber)))),
                Err(BusError::Absent { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !hinted {
            hinted = true;
            out::note(format_args!(
                "waiting for {}: is `framebus up` running with the same configuration and user?",
                describe(domain)
            ));
        }
        if shutdown.wait(RETRY) {
            return Ok(None);
        }
    }
}

/// Prints until the count, the wish to stop or the end of the instance; returns
/// how many results are still wanted.
fn print(
    args: &Args,
    attached: &Attached,
    mut results: Results,
    mut left: u64,
    shutdown: &Shutdown,
) -> Result<u64, Failure> {
    while left > 0 && !shutdown.requested() {
        let result = match results.wait_for(LOOK) {
            // The signal that asks to stop interrupts the wait.
            Err(_) if shutdown.wait(SIGNAL) => break,
            result => result?,
        };
        let Some(result) = result else {
            if attached.is_gone() {
                out::note("the instance has stopped");
                break;
            }
            continue;
        };
        if args.camera.as_ref().is_some_and(|camera| camera.as_str() != result.camera()) {
            continue;
        }
        if args.json {
            out::line(json::result(&result))?;
        } else {
            out::line(viewer::line(&result))?;
        }
        left -= 1;
    }
    if results.lost() > 0 {
        out::note(format_args!("{} results were lost: this reader was too slow", results.lost()));
    }
    Ok(left)
}
