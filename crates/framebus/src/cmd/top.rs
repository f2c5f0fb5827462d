//! `framebus top`: a live view of a running instance.

use super::status::{heading, join, processes, receive};
use crate::instance::{Attached, Where, describe};
use crate::report;
use crate::screen::Screen;
use crate::stats::Collector;
use framebus_bus::{Domain, HealthSubscriber};
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

/// Time between two tables.
const PERIOD_NS: u64 = 1_000_000_000;
/// Time between two looks at the bus: records wait there two deep.
const LOOK: Duration = Duration::from_millis(100);

/// Watch a running instance: a table every second
///
/// Rates, ages and stage times are those of the last five seconds, except for the
/// longest (max): that is since the process started, and so are drops. Ends with
/// q or Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns: fps in = frames on the bus, fps out = results with outcome ok, age =
decoder to published result; on a wide terminal also the median of each stage in ms.
Columns that do not fit are left out, the least important first.
Stages: capture (decoder to sent), wake (to taken by the inference process), queue
(to a batch), preprocess, inference, decode (boxes), publish, total (the age).
Drops: undecoded (compressed frames that the idle gate kept from the decoder), rate
(the camera's fps limit), memory (no free sample), layout (frame that cannot be
published), missed (overwritten before inference took it), superseded (a newer frame
came first), stale (its result would be older than max_age_ms), skipped (nothing
moved: the motion gate), failed.

When the output is no terminal, one table per second is printed. Without --count,
`top` waits for an instance that does not run; with it, that is exit code 69.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// End after so many tables.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stages of each camera instead of all cameras together.
    #[arg(long)]
    stages: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let domain = args.place.domain()?;
    let screen = Screen::new(false);
    super::init_log(&screen);
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let keys = if screen.is_live() { Keys::listen(&shutdown) } else { None };
    let mut view =
        View { domain: &domain, each: args.stages, joined: None, collector: Collector::default() };
    let mut left = args.count.unwrap_or(u64::MAX);
    // Rates need two reports, which come once a second; somebody who watches
    // sees them arrive.
    let first_ns = if screen.is_live() { PERIOD_NS } else { 2 * PERIOD_NS + PERIOD_NS / 4 };
    let mut next_ns = clock::monotonic_ns() + first_ns;
    while left > 0 && !screen.is_gone() && !shutdown.wait(LOOK) {
        view.look()?;
        let now_ns = clock::monotonic_ns();
        if now_ns < next_ns {
            continue;
        }
        next_ns = now_ns + PERIOD_NS;
        left -= 1;
        if left == 0 && view.collector.is_empty() {
            return Err(Failure::message(
                Kind::Unavailable,
                format_args!("nothing runs in {}", describe(&domain)),
            ));
        }
        let text = view.text(now_ns, screen.columns());
        if screen.is_live() { screen.table(&text) } else { screen.line(&format!("{text}\n")) }
    }
    drop(keys);
    Ok(ExitCode::SUCCESS)
}

struct View<'a> {
    domain: &'a Domain,
    /// Stages of each camera are wanted.
    each: bool,
    /// The subscriber leaves before what it has joined.
    joined: Option<(HealthSubscriber, Attached)>,
    collector: Collector,
}

impl View<'_> {
    /// Reads what is there; joins when an instance has come, leaves when it has
    /// gone.
    fn look(&mut self) -> Result<(), Failure> {
        if self.joined.as_ref().is_some_and(|(_, attached)| attached.is_gone()) {
            self.joined = None;
            self.collector = Collector::default();
        }
        if self.joined.is_none()
            && let Some(attached) = Attached::new(self.domain, "top")?
            && let Some(health) = join(&attached)?
        {
            self.joined = Some((health, attached));
        }
        match &self.joined {
            Some((health, _)) => receive(health, &mut Vec::new(), &mut self.collector),
            None => Ok(()),
        }
    }

    fn text(&mut self, now_ns: u64, width: usize) -> String {
        self.collector.forget_stopped(now_ns);
        if self.collector.is_empty() {
            return format!("nothing runs in {}; waiting for `framebus up`", describe(self.domain));
        }
        let (collector, names) = (&self.collector, self.collector.cameras());
        format!(
            "{}\n{}\n\n{}\n\n{}\n\n{}",
            heading(self.domain, collector),
            report::engine(collector, now_ns).unwrap_or_default(),
            report::cameras(collector, &names, now_ns, true, width),
            report::stages(collector, &names, self.each, width),
            processes(collector, now_ns, width)
        )
    }
}

/// Keys without Enter; the terminal is as before when this is dropped.
struct Keys {
    before: Termios,
}

impl Keys {
    fn listen(shutdown: &Shutdown) -> Option<Self> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return None;
        }
        let before = tcgetattr(&input).ok()?;
        let mut modes = before.clone();
        // Ctrl-C stays a signal.
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Now, &modes).ok()?;
        let keys = Self { before };
        let shutdown = shutdown.clone();
        // Ends with the process: there is no portable way to interrupt a read.
        let listener = std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            let mut key = [0];
            while let Ok(1) = std::io::stdin().read(&mut key) {
                if matches!(key[0], b'q' | b'Q') {
                    shutdown.request();
                    return;
                }
            }
        });
        listener.ok().map(|_| keys)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
