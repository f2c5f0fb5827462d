//! Zenoh: events and results to other machines, at least once and in order up to the next
//! node; pictures for whoever asks.
//!
//! Zenoh acknowledges nothing by itself. Messages go out of the spool as publications, and
//! behind them goes a question that nobody has an answer to ([`Link::ask`]): it travels in
//! the same queue and over the same connection, so when the node says that there is no
//! answer, everything in front of it has arrived there. Only then do messages leave the
//! spool. A connection that ended, or a time without subscribers, begins again with the
//! first message that is not confirmed.

mod link;
mod pictures;

use crate::deliver::{self, Courier, DRAIN, Outbox};
use crate::feed::Message;
use crate::spool::Spool;
use framebus_config::{Config, Deliver, Sink, Zenoh};
use framebus_service::{Backoff, Failure, Kind, Service, Vitals, clock};
use framebus_types::Counter;
use link::{Answer, Asked, Link};
use pictures::Pictures;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wait after the first failure, and after many, ms.
const RECONNECT_MS: (u64, u64) = (500, 10_000);
/// Messages, and their bytes, that are sent before the first is confirmed.
const WINDOW: u64 = 512;
const WINDOW_BYTES: u64 = 1 << 20;
/// How often the connection is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(500);
/// A question that has waited so long is spoken of, ns.
const SLOW_NS: u64 = 3_000_000_000;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    zenoh: &Zenoh,
    vitals: &Arc<Vitals>,
) -> Result<(), Failure> {
    let config = service.config();
    let prefix = prefix(config, zenoh);
    vitals.set_detail(&detail(zenoh, &prefix, 0));
    let outbox = Outbox::open(service, sink, &zenoh.spool, vitals)?;
    let pictures = match zenoh.frames {
        true => Some(Pictures::start(service, sink, zenoh, &prefix)?),
        false => None,
    };
    let sender = Arc::new(Sender {
        zenoh: zenoh.clone(),
        prefix,
        outbox: outbox.clone(),
        vitals: vitals.clone(),
        questions: pictures.as_ref().map(Pictures::questions),
        asked_ns: AtomicU64::new(0),
        is_slow: AtomicBool::new(false),
    });
    let worker = sender.clone();
    let worker =
        std::thread::Builder::new().name("zenoh".to_owned()).spawn(move || worker.run()).map_err(
            |error| Failure::message(Kind::Unavailable, format_args!("thread: {error}")),
        )?;
    let mut courier = Sending { sender, worker, pictures, made: 0 };
    let also = (false, false);
    deliver::run(service, sink, vitals, zenoh.deliver, also, &outbox, &mut courier)
}

/// First part of every key. Boxes differ by their host's name, which may hold anything.
fn prefix(config: &Config, zenoh: &Zenoh) -> String {
    zenoh.prefix.clone().unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let host: String = host.chars().map(plain).collect();
        let host = if host.is_empty() { "box" } else { &host };
        format!("framebus/{host}/{}", config.instance.as_str())
    })
}

/// What the status shows; its end may be cut off.
fn detail(zenoh: &Zenoh, prefix: &str, pictures: u64) -> String {
    let origin = zenoh.url.origin();
    match pictures {
        0 => format!("zenoh to {origin} as {prefix}"),
        _ => format!("zenoh to {origin}, {pictures} pictures made, as {prefix}"),
    }
}

/// What is delivered, as the last part of a key.
fn kinds(deliver: Deliver) -> impl Iterator<Item = &'static str> {
    let (events, results) = (deliver.events(), deliver.results());
    [events.then_some("event"), results.then_some("result")].into_iter().flatten()
}

/// The half on the thread that reads the bus.
struct Sending {
    sender: Arc<Sender>,
    worker: JoinHandle<()>,
    pictures: Option<Pictures>,
    /// Pictures that the status speaks of.
    made: u64,
}

impl Courier for Sending {
    fn note(&mut self, _: &Message<'_>) {}

    fn kick(&mut self) {
        self.sender.outbox.wake();
    }

    fn tick(&mut self) {
        self.sender.complain_when_slow();
        let made = self.pictures.as_ref().map_or(0, Pictures::made);
        if made != std::mem::replace(&mut self.made, made) {
            let sender = &self.sender;
            sender.vitals.set_detail(&detail(&sender.zenoh, &sender.prefix, made));
        }
    }

    fn finish(&mut self) {
        self.pictures = None;
        let end_ns = clock::monotonic_ns() + DRAIN.as_nanos() as u64;
        let mut inside = self.sender.outbox.lock();
        // What is not confirmed by then comes again after the next start.
        while !self.worker.is_finished() && clock::monotonic_ns() < end_ns {
            inside = self.sender.outbox.wait(inside, Duration::from_millis(20));
        }
    }
}

/// The half that sends.
struct Sender {
    zenoh: Zenoh,
    prefix: String,
    outbox: Arc<Outbox>,
    vitals: Arc<Vitals>,
    questions: Option<pictures::Questions>,
    /// Since when a confirmation is waited for; 0 while none is.
    asked_ns: AtomicU64,
    /// Whether that was spoken of.
    is_slow: AtomicBool,
}

/// What was sent and is not confirmed.
#[derive(Default)]
struct Flight {
    asked: Option<(Asked, Load)>,
    /// Sent after the question.
    after: Load,
}

/// Messages.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    count: u64,
    bytes: u64,
    /// Number of the last one in the spool.
    last: u64,
}

/// How the connection is, as far as the state was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Heard,
    Unheard,
}

impl Sender {
    /// Connects, again and again, until the sink stops.
    fn run(&self) {
        let mut backoff = Backoff::new(RECONNECT_MS.0, RECONNECT_MS.1);
        loop {
            let reason = self.serve_connection(&mut backoff);
            self.again();
            if self.outbox.lock().stopping {
                self.outbox.wake();
                return;
            }
            self.outbox.say(Some(format!("{}: {reason}", self.zenoh.url.origin())));
            if !self.outbox.sleep(backoff.fail()) {
                return;
            }
        }
    }

    /// One connection from its begin to its end; says why it ended.
    fn serve_connection(&self, backoff: &mut Backoff) -> String {
        let kinds = kinds(self.zenoh.deliver);
        let link = match Link::open(&self.zenoh, &self.prefix, kinds, &self.outbox, &self.questions)
        {
            Ok(link) => link,
            Err(reason) => return reason,
        };
        backoff.reset();
        tracing::info!(node = self.zenoh.url.origin(), prefix = self.prefix, "connected");
        let (mut flight, mut told) = (Flight::default(), Told::Nothing);
        let mut record = Vec::new();
        loop {
            if let Err(reason) = self.confirm(&link, &mut flight) {
                return reason;
            }
            let is_heard = !link.take_gone() && link.is_heard();
            if !is_heard && flight.load().count > 0 {
                // The node throws away what nobody wants: it has to come again.
                self.again();
                flight = Flight::default();
            }
            self.tell(&mut told, is_heard);
            let mut is_readable = is_heard;
            if is_heard {
                match self.fill(&link, &mut flight, &mut record) {
                    Ok(disk_works) => is_readable = disk_works,
                    Err(reason) => return reason,
                }
            }
            if !link.is_up() {
                return ENDED.to_owned();
            }
            let inside = self.outbox.lock();
            if inside.stopping && (inside.spool.waiting() == 0 || !is_heard) {
                return String::new();
            }
            // More may have come meanwhile, and an answer.
            let has_more = inside.spool.has_unread() && !flight.load().is_full();
            let is_answered = flight.asked.as_ref().is_some_and(|(asked, _)| asked.is_over());
            let goes_on = is_answered || (is_readable && has_more);
            if !goes_on {
                drop(self.outbox.wait(inside, LOOK));
            }
        }
    }

    /// Takes out of the spool what has arrived for certain.
    fn confirm(&self, link: &Link, flight: &mut Flight) -> Result<(), String> {
        let Some((asked, load)) = flight.asked.take_if(|(asked, _)| asked.is_over()) else {
            return Ok(());
        };
        self.asked_ns.store(0, Relaxed);
        match link.judge(&asked) {
            Answer::Arrived => {}
            Answer::Unheard => {
                self.again();
                *flight = Flight::default();
                return Ok(());
            }
            Answer::Ended => return Err(ENDED.to_owned()),
            Answer::Late => return Err(LATE.to_owned()),
        }
        if self.is_slow.swap(false, Relaxed) {
            self.outbox.say(None);
        }
        self.vitals.add(Counter::Written, load.count);
        self.vitals.add(Counter::WrittenBytes, load.bytes);
        let mut inside = self.outbox.lock();
        inside.disk_result("shorten", &self.vitals, |spool| spool.acknowledge(load.last + 1));
        Ok(())
    }

    /// Sends as much as may be on its way, and asks whether it has arrived; `false` when
    /// the spool cannot be read.
    fn fill(&self, link: &Link, flight: &mut Flight, record: &mut Vec<u8>) -> Result<bool, String> {
        let mut disk_works = true;
        while !flight.load().is_full() {
            let mut inside = self.outbox.lock();
            let next = inside.disk_result("read", &self.vitals, |spool| spool.read(record));
            drop(inside);
            disk_works = next.is_some();
            let Some(number) = next.flatten() else { break };
            let Some((key, _, payload)) = deliver::parts(record) else { continue };
            let key = format!("{}/{key}", self.prefix);
            flight.after.count += 1;
            flight.after.bytes += payload.len() as u64;
            flight.after.last = number;
            // A full connection holds this thread up: a sign of life for the state.
            let _ = self.asked_ns.compare_exchange(0, clock::monotonic_ns(), Relaxed, Relaxed);
            link.put(key, payload)?;
            if flight.asked.is_none() {
                flight.ask(link)?;
            }
        }
        if flight.asked.is_none() && flight.after.count > 0 {
            flight.ask(link)?;
            self.asked_ns.store(clock::monotonic_ns(), Relaxed);
        }
        Ok(disk_works)
    }

    /// What is not confirmed comes again.
    fn again(&self) {
        self.asked_ns.store(0, Relaxed);
        self.is_slow.store(false, Relaxed);
        let mut inside = self.outbox.lock();
        inside.disk_result("read", &self.vitals, Spool::rewind);
    }

    fn tell(&self, told: &mut Told, is_heard: bool) {
        let now = if is_heard { Told::Heard } else { Told::Unheard };
        if std::mem::replace(told, now) == now {
            return;
        }
        let origin = self.zenoh.url.origin();
        self.outbox.say((!is_heard).then(|| format!("{origin}: nobody subscribes")));
    }

    /// Says, from another thread, that the node does not answer.
    fn complain_when_slow(&self) {
        let asked_ns = self.asked_ns.load(Relaxed);
        let is_slow = asked_ns != 0 && clock::monotonic_ns() > asked_ns + SLOW_NS;
        if is_slow && !self.is_slow.swap(true, Relaxed) {
            let origin = self.zenoh.url.origin();
            self.outbox.say(Some(format!("{origin}: does not confirm what was sent")));
        }
    }
}

const ENDED: &str = "the connection ended";
const LATE: &str = "what was sent was not confirmed in time";

impl Flight {
    /// All of it.
    fn load(&self) -> Load {
        let asked = self.asked.as_ref().map_or(Load::default(), |(_, load)| *load);
        Load {
            count: asked.count + self.after.count,
            bytes: asked.bytes + self.after.bytes,
            last: self.after.last.max(asked.last),
        }
    }

    fn ask(&mut self, link: &Link) -> Result<(), String> {
        self.asked = Some((link.ask()?, std::mem::take(&mut self.after)));
        Ok(())
    }
}

impl Load {
    fn is_full(self) -> bool {
        self.count >= WINDOW || self.bytes >= WINDOW_BYTES
    }
}
