//! What every sink does alike: take results and events, count what was lost, notice a
//! changed configuration, and take what is still there when it shall stop.

use framebus_client::{Event, Events, ResultSample, Results};
use framebus_config::{CameraName, Config, Diff, Sink};
use framebus_service::{Failure, Kind, Service, Vitals};
use framebus_types::{Counter, State};
use std::time::Duration;

/// How often a sink looks up when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// Messages of a kind that are taken before the sink gets its turn although more are coming.
const BURST: usize = 64;

/// What a sink takes from the bus.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Message<'a> {
    /// A result of one of its cameras.
    Result(&'a ResultSample),
    /// An event of one of its cameras.
    Event(&'a Event),
}

/// A sink's subscriptions.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    service: &'a Service,
    sink: &'a Sink,
    vitals: &'a Vitals,
    results: Option<Results>,
    events: Option<Events>,
    /// Messages that are still taken after the wish to stop: all that can be waiting on
    /// the bus by then.
    left: usize,
    lost: u64,
    bad: u64,
    /// A configuration that was taken over and nobody has asked for yet.
    changed: Option<Config>,
}

impl<'a> Feed<'a> {
    /// Subscribes.
    pub(crate) fn open(
        service: &'a Service,
        sink: &'a Sink,
        vitals: &'a Vitals,
        (results, events): (bool, bool),
    ) -> Result<Self, Failure> {
        let (bus, name) = (service.bus(), sink.name.as_str());
        let results = results.then(|| bus.result_subscriber(name)).transpose()?.map(Results::new);
        let events = events.then(|| bus.event_subscriber(name)).transpose()?.map(Events::new);
        let left = 2 * service.config().bus.result_buffer;
        Ok(Self { service, sink, vitals, results, events, left, lost: 0, bad: 0, changed: None })
    }

    /// Hands what has come to `take`, after waiting a little for it; `false` when the sink
    /// shall end, which it may then do at leisure: its state says so already.
    ///
    /// # Errors
    /// Those of the bus, and [`Kind::Changed`] when another configuration concerns this sink.
    pub(crate) fn turn(&mut self, mut take: impl FnMut(Message<'_>)) -> Result<bool, Failure> {
        let stopping = self.service.shutdown().requested();
        let mut received = 0;
        // Both kinds of messages come from one process, and waking for either one wakes for
        // both soon enough: events are sent with results.
        let mut wait = LOOK;
        if let Some(results) = &mut self.results {
            let mut next = results.wait_for(wait)?;
            wait = Duration::ZERO;
            while let Some(result) = next.take() {
                received += 1;
                if wanted(&self.sink.cameras, result.camera()) {
                    take(Message::Result(&result));
                }
                if received < BURST {
                    next = results.poll()?;
                }
            }
        }
        if let Some(events) = &mut self.events {
            let mut next = if wait.is_zero() { events.poll()? } else { events.wait_for(wait)? };
            let most = received + BURST;
            while let Some(event) = next.take() {
                received += 1;
                if wanted(&self.sink.cameras, event.camera()) {
                    take(Message::Event(&event));
                }
                if received < most {
                    next = events.poll()?;
                }
            }
        }
        self.count(received);
        self.service.progress();
        if let Some(config) = self.service.reloaded() {
            if !still_wanted(self.service.config(), &config, self.sink)? {
                self.vitals.set_state(State::Stopping, "");
                return Ok(false);
            }
            self.changed = Some(config);
        }
        if stopping {
            self.left = self.left.saturating_sub(received);
            if received == 0 || self.left == 0 {
                self.vitals.set_state(State::Stopping, "");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The configuration, once after each change in which this sink stays as it is.
    pub(crate) fn changed(&mut self) -> Option<Config> {
        self.changed.take()
    }

    fn count(&mut self, received: usize) {
        self.vitals.add(Counter::Received, received as u64);
        let (results, events) = (self.results.as_ref(), self.events.as_ref());
        let lost = results.map_or(0, Results::lost) + events.map_or(0, Events::lost);
        let bad = results.map_or(0, Results::bad_headers) + events.map_or(0, Events::bad_events);
        self.vitals.add(Counter::Lost, lost - self.lost);
        self.vitals.add(Counter::BadHeaders, bad - self.bad);
        (self.lost, self.bad) = (lost, bad);
    }
}

fn wanted(cameras: &[CameraName], camera: &str) -> bool {
    cameras.is_empty() || cameras.iter().any(|wanted| wanted.as_str() == camera)
}

/// Whether a changed configuration still has this sink; one that it has changed ends
/// with [`Kind::Changed`].
pub(crate) fn still_wanted(old: &Config, new: &Config, sink: &Sink) -> Result<bool, Failure> {
    let limits = |config| framebus_service::domain(config).map(|domain| *domain.limits());
    let changed = |what: &str| {
        let name = &sink.name;
        Err(Failure::message(Kind::Changed, format_args!("{what} of sink {name} changed")))
    };
    if Diff::between(old, new).everything || limits(old)? != limits(new)? {
        return changed("the bus or the log");
    }
    match new.enabled_sinks().find(|other| other.name == sink.name) {
        Some(same) if same == sink => Ok(true),
        Some(_) => changed("the section"),
        None => Ok(false),
    }
}
