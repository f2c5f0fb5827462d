//! A process that receives the frames of `framebus bench bus` and notes how long each was
//! on its way. Told `block`, `poll` or `idle` on standard input; at the end of it, it
//! writes what it noted.

use super::numbers::{Summary, round};
use framebus_bus::{Bus, Delivery, Domain, FrameSubscriber, Limits};
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest sleep of a reader that blocks.
const LOOK: Duration = Duration::from_millis(20);
/// A look that does not sleep to speak of.
const SHORTEST: Duration = Duration::from_micros(1);
/// Figures that are kept of each size and way.
pub(super) const KEPT_MAX: usize = 1_000_000;

const IDLE: u32 = 0;
const BLOCK: u32 = 1;
const POLL: u32 = 2;

/// Receive frames for a benchmark
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    instance: String,
    /// Readers of each service, this one included.
    #[arg(long)]
    readers: usize,
    /// Number of services.
    #[arg(long)]
    services: usize,
    /// Where the figures go.
    #[arg(long)]
    output: PathBuf,
}

/// Limits of the benchmark's instance: the same in every process of it.
pub(super) fn limits(readers: usize) -> Limits {
    Limits { frame_subscribers: readers, result_subscribers: 1, ..Limits::default() }
}

/// Name of a service.
pub(super) fn service(number: usize) -> String {
    format!("s{number}")
}

/// What was noted of one size.
#[derive(Default)]
struct Notes {
    blocking_us: Vec<f64>,
    blocking_cpu_ns: u64,
}

/// CPU time of this thread, ns.
pub(super) fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let domain = Domain::new(&args.instance, &args.root, limits(args.readers))?;
    let bus: Bus = Bus::open(&domain, "reader")?;
    let subscribers = (0..args.services)
        .map(|number| bus.frame_subscriber(&service(number), Delivery::Latest, "reader"))
        .collect::<Result<Vec<_>, _>>()?;
    std::fs::write(&args.output, "").or_fail(Kind::Unavailable)?;
    let way = AtomicU32::new(IDLE);
    let mut notes: Vec<Notes> = subscribers.iter().map(|_| Notes::default()).collect();
    let mut polled: Vec<Vec<f64>> = vec![Vec::new(); subscribers.len()];
    std::thread::scope(|scope| {
        // One thread for each size, so that all are woken in the same way; one that
        // polls for all, because each takes a core.
        for (subscriber, notes) in subscribers.iter().zip(&mut notes) {
            let way = &way;
            scope.spawn(move || wait(subscriber, notes, way, shutdown));
        }
        scope.spawn(|| poll(&subscribers, &mut polled, &way, shutdown));
        for line in std::io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("block") => way.store(BLOCK, Ordering::Relaxed),
                Ok("poll") => way.store(POLL, Ordering::Relaxed),
                Ok("idle") => way.store(IDLE, Ordering::Relaxed),
                _ => break,
            }
        }
        shutdown.request();
    });
    let all = notes.iter_mut().zip(&mut polled);
    let notes: Vec<Value> = all.map(|(notes, polled)| notes.json(polled)).collect();
    std::fs::write(&args.output, Value::from(notes).to_string()).or_fail(Kind::Unavailable)
}

/// Sleeps until it is woken, as the inference process does.
fn wait(subscriber: &FrameSubscriber, notes: &mut Notes, way: &AtomicU32, shutdown: &Shutdown) {
    while !shutdown.requested() {
        if way.load(Ordering::Relaxed) != BLOCK {
            let _ = shutdown.wait(LOOK);
            // Or the next sleep would end at once.
            // (A socket takes a timeout of zero for none.)
            while subscriber.waker().wait(SHORTEST).is_ok_and(|woken| woken) {}
            continue;
        }
        let before_ns = thread_cpu_ns();
        let woken = subscriber.waker().wait(LOOK);
        take(subscriber, &mut notes.blocking_us);
        if woken.is_ok_and(|woken| woken) {
            notes.blocking_cpu_ns += thread_cpu_ns() - before_ns;
        }
    }
}

/// Looks again and again.
fn poll(
    subscribers: &[FrameSubscriber],
    polled_us: &mut [Vec<f64>],
    way: &AtomicU32,
    shutdown: &Shutdown,
) {
    while !shutdown.requested() {
        if way.load(Ordering::Relaxed) != POLL {
            let _ = shutdown.wait(LOOK);
            continue;
        }
        for (subscriber, times_us) in subscribers.iter().zip(&mut *polled_us) {
            take(subscriber, times_us);
        }
        std::hint::spin_loop();
    }
}

fn take(subscriber: &FrameSubscriber, times_us: &mut Vec<f64>) {
    while let Ok(Some(frame)) = subscriber.receive() {
        let now_ns = clock::monotonic_ns();
        if times_us.len() < KEPT_MAX {
            let sent_ns = frame.header().publish_ns;
            times_us.push(now_ns.saturating_sub(sent_ns) as f64 / 1e3);
        }
    }
}

impl Notes {
    fn json(&mut self, polled_us: &mut [f64]) -> Value {
        let woken = self.blocking_us.len();
        json!({
            "received": woken + polled_us.len(),
            "blocking_us": Summary::of(&mut self.blocking_us).map(Summary::json),
            "polling_us": Summary::of(polled_us).map(Summary::json),
            "wake_cpu_us":
                (woken > 0).then(|| round(self.blocking_cpu_ns as f64 / 1e3 / woken as f64)),
        })
    }
}
