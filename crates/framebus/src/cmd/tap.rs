//! `framebus tap`: prints results or events as they come.

use crate::instance::{Attached, Where, describe};
use crate::screen::Screen;
use crate::{out, viewer};
use framebus_bus::{Bus, BusError, Domain};
use framebus_client::{Events, Results, json};
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

/// Print the results, or the events, of a running instance as they come
///
/// Waits for the instance when it does not run. A slow reader holds nobody up;
/// what it lost is said at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus tap --config framebus.toml
  framebus tap --camera front --json | jq .detections
  framebus tap --count 1
  framebus tap --events --json | jq 'select(.event == \"cross\")'")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// Only this camera.
    #[arg(long, value_parser = camera)]
    camera: Option<CameraName>,
    /// Print events instead: what objects did, at zones and lines too.
    #[arg(long)]
    events: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// End after so many results or events.
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
        let join = |bus: &Bus| Stream::join(bus, args.events);
        let Some((attached, stream)) = wait(&domain, "tap", &shutdown, join)? else { break };
        // The reader leaves first: `attached` then clears up where nothing runs.
        left = print(args, &attached, stream, left, &shutdown)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is printed.
enum Stream {
    Results(Results),
    Events(Events),
}

impl Stream {
    fn join(bus: &Bus, events: bool) -> Result<Self, BusError> {
        if events {
            return Ok(Self::Events(Events::new(bus.join_events("tap")?)));
        }
        Ok(Self::Results(Results::new(bus.join_results("tap")?)))
    }

    /// The next camera and line, when one comes soon.
    fn next(&mut self, as_json: bool) -> Result<Option<(String, String)>, BusError> {
        Ok(match self {
            Self::Results(results) => results.wait_for(LOOK)?.map(|result| {
                let line =
                    if as_json { json::result(&result).to_string() } else { viewer::line(&result) };
                (result.camera().to_owned(), line)
            }),
            Self::Events(events) => events.wait_for(LOOK)?.map(|event| {
                let line = if as_json {
                    json::event(&event).to_string()
                } else {
                    viewer::event_line(&event)
                };
                (event.camera().to_owned(), line)
            }),
        })
    }

    fn lost(&self) -> (u64, &'static str) {
        match self {
            Self::Results(results) => (results.lost(), "results"),
            Self::Events(events) => (events.lost(), "events"),
        }
    }
}

/// Waits until the instance runs, as a reader of this name; `None` when asked to stop.
pub(super) fn wait<T>(
    domain: &Domain,
    reader: &str,
    shutdown: &Shutdown,
    join: impl Fn(&Bus) -> Result<T, BusError>,
) -> Result<Option<(Attached, T)>, Failure> {
    let mut hinted = false;
    loop {
        if let Some(attached) = Attached::new(domain, reader)? {
            match join(&attached.bus) {
                Ok(joined) => return Ok(Some((attached, joined))),
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
/// how many results or events are still wanted.
fn print(
    args: &Args,
    attached: &Attached,
    mut stream: Stream,
    mut left: u64,
    shutdown: &Shutdown,
) -> Result<u64, Failure> {
    while left > 0 && !shutdown.requested() {
        let next = match stream.next(args.json) {
            // The signal that asks to stop interrupts the wait.
            Err(_) if shutdown.wait(SIGNAL) => break,
            next => next?,
        };
        let Some((camera, line)) = next else {
            if attached.is_gone() {
                out::note("the instance has stopped");
                break;
            }
            continue;
        };
        if args.camera.as_ref().is_some_and(|wanted| wanted.as_str() != camera) {
            continue;
        }
        out::line(line)?;
        left -= 1;
    }
    let (lost, what) = stream.lost();
    if lost > 0 {
        out::note(format_args!("{lost} {what} were lost: this reader was too slow"));
    }
    Ok(left)
}
