//! MQTT: events and results to a broker, at least once and in order; states that it keeps.
//!
//! Messages are published with QoS 1 out of the spool and leave it when the broker has
//! acknowledged them. Each connection begins with the first that is not acknowledged, so
//! that one whose acknowledgement was lost comes twice, with the same id. One that the
//! broker will never take is given up, counted and named.

mod cameras;
mod home;
mod link;
mod window;

use crate::deliver::{self, Courier, DRAIN, Inside, Outbox};
use crate::feed::Message;
use cameras::Cameras;
use framebus_config::{Config, Mqtt, Sink};
use framebus_service::{Backoff, Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, Health};
use home::Home;
use link::{Ended, Given, Happened, Will};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use window::{Flight, Load, Window};

/// Wait after the first failure, and after many, ms.
const RECONNECT_MS: (u64, u64) = (500, 30_000);
/// An acknowledgement that takes longer will not come, though the connection lives.
const ACKNOWLEDGE_NS: u64 = 60_000_000_000;
/// Messages that are refused or sent in one go: the thread that reads the bus does it too.
const BURST: usize = 2048;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    mqtt: &Mqtt,
    vitals: &Arc<Vitals>,
) -> Result<(), Failure> {
    let config = service.config();
    let protocol = mqtt.protocol;
    vitals.set_detail(&format!("mqtt {} to {}", protocol.as_str(), mqtt.url.origin()));
    let outbox = Outbox::open(service, sink, &mqtt.spool, vitals)?;
    let id =
        mqtt.client_id.clone().unwrap_or_else(|| format!("{}{}", own_names(config), sink.name));
    let mut kept = BTreeMap::new();
    let status = format!("{}/status", mqtt.topic);
    kept.insert(status.clone(), ONLINE.to_owned());
    let home = mqtt.home_assistant.then(|| Home::new(config, sink));
    if home.is_some() {
        kept.extend(home::announcements(config, sink, mqtt, &own_names(config)));
    }
    let also = home.as_ref().map_or((false, false), Home::needs);
    let window = Window { kept, ..Window::default() };
    let broker = Arc::new(Broker {
        mqtt: mqtt.clone(),
        id,
        status,
        names: own_names(config),
        outbox: outbox.clone(),
        vitals: vitals.clone(),
        window: Mutex::new(window),
        connected: AtomicBool::new(false),
        has_said_good_bye: AtomicBool::new(false),
    });
    let worker = broker.clone();
    std::thread::Builder::new()
        .name("mqtt".to_owned())
        .spawn(move || worker.run())
        .map_err(|error| Failure::message(Kind::Unavailable, format_args!("thread: {error}")))?;
    let health = service.bus().health_subscriber()?;
    let cameras = Cameras::new(config, sink, clock::monotonic_ns());
    let listen = move |records: &mut Vec<Health>| {
        // What is missed now is said again in a second.
        let _ = health.receive_into(records);
    };
    let (records, told) = (Vec::new(), home::told(config, sink, mqtt));
    let mut courier = Sending { broker, listen, records, cameras, home, sink, told };
    deliver::run(service, sink, vitals, mqtt.deliver, also, &outbox, &mut courier)
}

/// How every name begins that this instance has at a broker: no other machine uses them.
fn own_names(config: &Config) -> String {
    let name = rustix::system::uname();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let plain = |c: char| if is_plain(&c) { c } else { '-' };
    let host: String = name.nodename().to_string_lossy().chars().map(plain).collect();
    format!("framebus-{host}-{}-", config.instance.as_str())
}

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// The half on the thread that reads the bus.
struct Sending<'a, F> {
    broker: Arc<Broker>,
    listen: F,
    records: Vec<Health>,
    cameras: Cameras,
    home: Option<Home>,
    sink: &'a Sink,
    /// What the broker is told of the configuration.
    told: home::Told,
}

impl<F: FnMut(&mut Vec<Health>)> Courier for Sending<'_, F> {
    fn note(&mut self, message: &Message<'_>) {
        if let Some(home) = &mut self.home {
            home.note(message);
        }
    }

    fn kick(&mut self) {
        self.broker.pump(&mut self.broker.window());
    }

    fn tick(&mut self) {
        self.records.clear();
        (self.listen)(&mut self.records);
        self.cameras.hear(&self.records);
        let broker = &self.broker;
        let mut window = broker.window();
        let mut keep = |topic: String, payload: String| {
            window.keep(format!("{}/{topic}", broker.mqtt.topic), payload);
        };
        self.cameras.changes(clock::monotonic_ns(), clock::wall_ns(), &mut keep);
        if let Some(home) = &mut self.home {
            home.changes(|camera| self.cameras.is_seen(camera), &mut keep);
        }
        broker.pump(&mut window);
        broker.check(&window);
    }

    fn is_outdated(&self, config: &Config) -> bool {
        home::told(config, self.sink, &self.broker.mqtt) != self.told
    }

    fn finish(&mut self) {
        let broker = &self.broker;
        let is_empty = |inside: &Inside| inside.spool.waiting() == 0;
        broker.wait_until(broker.is_gone(is_empty), drain_end_ns());
        broker.say_good_bye();
    }
}

fn drain_end_ns() -> u64 {
    clock::monotonic_ns() + DRAIN.as_nanos() as u64
}

/// The half that waits for the broker, with what both share. Locks are taken in the order
/// window, outbox.
struct Broker {
    mqtt: Mqtt,
    id: String,
    /// Topic that says whether this sink runs.
    status: String,
    /// How the names begin that this instance has there.
    names: String,
    outbox: Arc<Outbox>,
    vitals: Arc<Vitals>,
    window: Mutex<Window>,
    connected: AtomicBool,
    /// The broker knows that this sink ends.
    has_said_good_bye: AtomicBool,
}

impl Broker {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, done: impl Fn(&Inside) -> bool, end_ns: u64) {
        let mut inside = self.outbox.lock();
        while !done(&inside) && clock::monotonic_ns() < end_ns {
            inside = self.outbox.wait(inside, Duration::from_millis(20));
        }
    }

    /// What there is to wait for, which no longer comes when the connection has ended.
    fn is_gone<'a>(&'a self, done: impl Fn(&Inside) -> bool + 'a) -> impl Fn(&Inside) -> bool + 'a {
        move |inside| done(inside) || !self.connected.load(Relaxed)
    }

    /// Says that the sink ends, beside all that is on its way. Where the broker does not
    /// acknowledge it, the connection ends with the process, and the will speaks.
    fn say_good_bye(&self) {
        let mut window = self.window();
        let is_allowed = window.kept.contains_key(&self.status);
        let Some(client) = window.client.as_ref().filter(|_| is_allowed) else { return };
        if !self.connected.load(Relaxed)
            || !matches!(client.publish(&self.status, "", OFFLINE.as_bytes(), true), Given::Sent)
        {
            return;
        }
        window.flying.push_back(Flight::new(Load::GoodBye, 0));
        drop(window);
        let (end_ns, is_said) = (drain_end_ns(), || self.has_said_good_bye.load(Relaxed));
        self.wait_until(self.is_gone(|_| is_said()), end_ns);
        if !is_said() {
            return;
        }
        if let Some(client) = &self.window().client {
            client.disconnect();
        }
        self.wait_until(self.is_gone(|_| false), end_ns);
    }

    /// Connects, again and again, until the sink stops.
    fn run(&self) {
        let mut backoff = Backoff::new(RECONNECT_MS.0, RECONNECT_MS.1);
        loop {
            let ended = self.serve_connection(&mut backoff);
            let mut window = self.window();
            // Not where this half has ended it.
            let is_suspicious = self.connected.swap(false, Relaxed) && ended.is_suspicious;
            window.client = None;
            let stopping = self.outbox.lock().stopping;
            if is_suspicious && !stopping {
                self.suspect(&mut window);
            }
            window.flying.clear();
            let mut inside = self.outbox.lock();
            inside.disk_result("read", &self.vitals, |spool| spool.rewind());
            drop(inside);
            drop(window);
            self.outbox.wake();
            if stopping {
                return;
            }
            let broker = self.mqtt.url.origin();
            self.outbox.say(Some(format!("broker {broker}: {}", ended.reason)));
            if !self.outbox.sleep(backoff.fail()) {
                return;
            }
        }
    }

    /// One connection from its begin to its end; says why it ended.
    fn serve_connection(&self, backoff: &mut Backoff) -> Ended {
        let will = Will { topic: &self.status, payload: OFFLINE };
        let (client, mut connection) = match link::open(&self.mqtt, &self.id, &will) {
            Ok(halves) => halves,
            Err(reason) => return reason.as_str().into(),
        };
        self.window().client = Some(client);
        loop {
            match connection.next() {
                Ok(Happened::Connected(longest)) => self.greet(longest),
                Ok(Happened::Sent(packet)) => {
                    let mut window = self.window();
                    let mut flying = window.flying.iter_mut();
                    let next = flying.find(|flight| flight.packet.is_none() && !flight.arrived);
                    if let Some(flight) = next {
                        flight.packet = Some(packet);
                    }
                }
                Ok(Happened::Acknowledged(packet, refused)) => {
                    // A connection on which nothing comes across is as bad as none.
                    if self.arrived(packet, refused) {
                        backoff.reset();
                    }
                }
                Ok(Happened::Kept(topic, payload)) => {
                    let mut window = self.window();
                    if !window.kept.contains_key(&topic)
                        && home::is_own(&payload, &self.names, &self.status)
                    {
                        // An empty message takes away what is kept.
                        window.keep(topic, String::new());
                        self.pump(&mut window);
                    }
                }
                Ok(Happened::Busy(reason)) => return reason.as_str().into(),
                Ok(Happened::Other) => {}
                Err(ended) => return ended,
            }
        }
    }

    fn greet(&self, longest: Option<usize>) {
        self.outbox.say(None);
        tracing::info!(broker = self.mqtt.url.origin(), "connected");
        let mut window = self.window();
        window.fresh = window.kept.keys().cloned().collect();
        if window.kept.contains_key(&self.status) {
            // Who listens learns first that this sink is there.
            window.fresh.retain(|topic| *topic != self.status);
            window.fresh.push_front(self.status.clone());
        }
        // Once: a broker that ends connections for such a question is asked no more.
        let asks = self.mqtt.home_assistant && !std::mem::replace(&mut window.has_asked, true);
        if let Some(client) = &mut window.client {
            client.set_longest(longest);
            if asks {
                client.ask(&home::announced(&self.mqtt));
            }
        }
        self.connected.store(true, Relaxed);
        self.pump(&mut window);
    }

    /// Sends as much as may be on its way.
    fn pump(&self, window: &mut Window) {
        let in_flight = self.mqtt.in_flight;
        for _ in 0..BURST {
            if window.is_full(in_flight) {
                self.settle(window);
            }
            if window.is_full(in_flight) || !self.connected.load(Relaxed) || !self.send_next(window)
            {
                break;
            }
        }
        self.settle(window);
    }

    /// Sends the next message; `false` when there is none, or no way.
    fn send_next(&self, window: &mut Window) -> bool {
        let Some(client) = &window.client else { return false };
        let (mut flight, given, name) = if let Some(topic) = window.fresh.pop_front() {
            let payload = window.kept.get(&topic).map_or("", String::as_str);
            let given = client.publish(&topic, "", payload.as_bytes(), true);
            (Flight::new(Load::Kept(topic.clone()), 0), given, topic)
        } else {
            let mut inside = self.outbox.lock();
            let next =
                inside.disk_result("read", &self.vitals, |spool| spool.read(&mut window.record));
            drop(inside);
            let Some(number) = next.flatten() else { return false };
            let Some((topic, id, payload)) = deliver::parts(&window.record) else { return false };
            let topic = format!("{}/{topic}", self.mqtt.topic);
            let given = client.publish(&topic, id, payload, false);
            (Flight::new(Load::Record(number), payload.len() as u64), given, topic)
        };
        match given {
            Given::Sent => {}
            Given::Refused(why) => {
                flight.arrived = true;
                flight.refused = Some(format!("refuses messages: {name} has {why}"));
            }
            Given::Full => {
                // There is room for all that may be on its way: something is wrong, and a
                // new connection begins with this message.
                self.connected.store(false, Relaxed);
                client.disconnect_now();
                return false;
            }
        }
        window.flying.push_back(flight);
        true
    }

    /// Gives up a message that the broker will not take, ever.
    fn refuse(&self, load: &Load, why: &str) {
        self.vitals.add(Counter::Lost, u64::from(matches!(load, Load::Record(_))));
        self.outbox.refuse(format!("broker {} {why}", self.mqtt.url.origin()));
    }

    /// Takes what has arrived from the spool.
    fn settle(&self, window: &mut Window) {
        let mut last = None;
        while let Some(flight) = window.settled() {
            if let Some(why) = &flight.refused {
                self.refuse(&flight.load, why);
            }
            if let Load::Record(number) = flight.load {
                last = Some(number);
            }
        }
        let Some(number) = last else { return };
        let mut inside = self.outbox.lock();
        inside.disk_result("shorten", &self.vitals, |spool| spool.acknowledge(number + 1));
        let (stopping, waiting) = (inside.stopping, inside.spool.waiting());
        drop(inside);
        if stopping && waiting == 0 {
            self.outbox.wake();
        }
    }

    /// The broker has cut the connection: gives up the message that it does that for, once
    /// that is known.
    fn suspect(&self, window: &mut Window) {
        let found = window.suspicion.ended(&window.flying, self.mqtt.in_flight);
        let Some(load) = found else { return };
        let name = match &load {
            Load::Record(number) => {
                let mut inside = self.outbox.lock();
                let first = inside.disk_result("read", &self.vitals, |spool| {
                    spool.rewind()?;
                    spool.read(&mut window.record)
                });
                inside.disk_result("shorten", &self.vitals, |spool| spool.acknowledge(number + 1));
                let is_it = first.flatten() == Some(*number);
                let parts = deliver::parts(&window.record).filter(|_| is_it);
                parts.map(|(topic, id, _)| format!("{}/{topic} {id}", self.mqtt.topic))
            }
            Load::Kept(topic) => {
                window.kept.remove(topic);
                Some(topic.clone())
            }
            Load::GoodBye => None,
        };
        let name = name.unwrap_or_default();
        tracing::warn!(name, "the broker ends every connection at this message: given up");
        let why = format!("ends the connection at {name}; is it too long, or not allowed?");
        self.refuse(&load, &why);
    }

    /// A message has arrived, or was refused for good. Whether the connection has proved
    /// to be of use.
    fn arrived(&self, packet: u16, refused: Option<String>) -> bool {
        let mut window = self.window();
        let Window { flying, suspicion, .. } = &mut *window;
        let mut flying = flying.iter_mut();
        let found = flying.find(|flight| flight.packet == Some(packet) && !flight.arrived);
        let Some(flight) = found else { return false };
        flight.arrived = true;
        suspicion.arrived(&flight.load);
        let is_record = matches!(flight.load, Load::Record(_));
        match refused {
            Some(why) => flight.refused = Some(format!("refuses messages: {why}")),
            None if is_record => {
                self.vitals.add(Counter::Written, 1);
                self.vitals.add(Counter::WrittenBytes, flight.bytes);
            }
            None if flight.load == Load::GoodBye => {
                self.has_said_good_bye.store(true, Relaxed);
                self.outbox.wake();
            }
            None => {}
        }
        self.settle(&mut window);
        self.pump(&mut window);
        is_record || window.flying.is_empty()
    }

    /// Ends a connection on which nothing arrives.
    fn check(&self, window: &Window) {
        let now_ns = clock::monotonic_ns();
        let oldest = window.flying.iter().find(|flight| !flight.arrived);
        if oldest.is_some_and(|flight| now_ns > flight.sent_ns + ACKNOWLEDGE_NS)
            && let Some(client) = &window.client
        {
            tracing::warn!("the broker has acknowledged nothing for a minute: connecting anew");
            self.connected.store(false, Relaxed);
            client.disconnect_now();
        }
    }
}
