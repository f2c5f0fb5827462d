//! MQTT: events and results to a broker, at least once and in order; states that it keeps.
//!
//! Messages are published with QoS 1 out of the spool and leave it when the broker has
//! acknowledged them. Each connection begins with the first that is not acknowledged, so
//! that one whose acknowledgement was lost comes twice, with the same id.

mod cameras;
mod home;
mod link;

use crate::deliver::{self, Courier, DRAIN, Inside, Outbox};
use crate::feed::Message;
use cameras::Cameras;
use framebus_config::{Mqtt, Sink};
use framebus_service::{Backoff, Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, Health};
use home::Home;
use link::{Client, Happened, Will};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Wait after the first failure, and after many, ms.
const RECONNECT_MS: (u64, u64) = (500, 30_000);
/// An acknowledgement that takes longer will not come, though the connection lives.
const ACKNOWLEDGE_NS: u64 = 60_000_000_000;

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
    let id = mqtt
        .client_id
        .clone()
        .unwrap_or_else(|| format!("framebus-{}-{}", config.instance.as_str(), sink.name));
    let mut kept = BTreeMap::new();
    let status = format!("{}/status", mqtt.topic);
    kept.insert(status.clone(), ONLINE.to_owned());
    let home = mqtt.home_assistant.then(|| Home::new(config, sink));
    if home.is_some() {
        kept.extend(home::announcements(config, sink, mqtt));
    }
    let also = home.as_ref().map_or((false, false), Home::needs);
    let window = Window {
        client: None,
        flying: VecDeque::new(),
        kept,
        fresh: VecDeque::new(),
        record: Vec::new(),
    };
    let broker = Arc::new(Broker {
        mqtt: mqtt.clone(),
        id,
        status,
        outbox: outbox.clone(),
        vitals: vitals.clone(),
        window: Mutex::new(window),
        connected: AtomicBool::new(false),
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
    let mut courier = Sending { broker, listen, records: Vec::new(), cameras, home };
    deliver::run(service, sink, vitals, mqtt.deliver, also, &outbox, &mut courier)
}

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// The half on the thread that reads the bus.
struct Sending<F> {
    broker: Arc<Broker>,
    listen: F,
    records: Vec<Health>,
    cameras: Cameras,
    home: Option<Home>,
}

impl<F: FnMut(&mut Vec<Health>)> Courier for Sending<F> {
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
            home.changes(&mut keep);
        }
        broker.pump(&mut window);
        broker.check(&window);
    }

    fn finish(&mut self) {
        let broker = &self.broker;
        let is_empty = |inside: &Inside| inside.spool.waiting() == 0;
        broker.wait_until(|inside| is_empty(inside) || !broker.connected.load(Relaxed));
        let mut window = broker.window();
        if !broker.connected.load(Relaxed) {
            return;
        }
        window.keep(broker.status.clone(), OFFLINE.to_owned());
        broker.pump(&mut window);
        if let Some(client) = &window.client {
            client.disconnect();
        }
        drop(window);
        broker.wait_until(|_| !broker.connected.load(Relaxed));
    }
}

/// The half that waits for the broker, with what both share. Locks are taken in the order
/// window, outbox.
struct Broker {
    mqtt: Mqtt,
    id: String,
    /// Topic that says whether this sink runs.
    status: String,
    outbox: Arc<Outbox>,
    vitals: Arc<Vitals>,
    window: Mutex<Window>,
    connected: AtomicBool,
}

/// What is on its way, and what the broker is to keep.
struct Window {
    client: Option<Client>,
    /// In the order of sending.
    flying: VecDeque<Flight>,
    /// Messages that the broker keeps, by topic: the newest of each.
    kept: BTreeMap<String, String>,
    /// Topics of those that it does not have yet.
    fresh: VecDeque<String>,
    record: Vec<u8>,
}

/// A message on its way.
struct Flight {
    /// Its number at the broker, once it has one.
    packet: Option<u16>,
    /// Its number in the spool; none for what the broker keeps.
    record: Option<u64>,
    bytes: u64,
    sent_ns: u64,
    arrived: bool,
}

impl Window {
    fn keep(&mut self, topic: String, payload: String) {
        if !self.fresh.contains(&topic) {
            self.fresh.push_back(topic.clone());
        }
        self.kept.insert(topic, payload);
    }
}

impl Broker {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, [`DRAIN`] at most.
    fn wait_until(&self, done: impl Fn(&Inside) -> bool) {
        let end_ns = clock::monotonic_ns() + DRAIN.as_nanos() as u64;
        let mut inside = self.outbox.lock();
        while !done(&inside) && clock::monotonic_ns() < end_ns {
            inside = self.outbox.wait(inside, Duration::from_millis(20));
        }
    }

    /// Connects, again and again, until the sink stops.
    fn run(&self) {
        let mut backoff = Backoff::new(RECONNECT_MS.0, RECONNECT_MS.1);
        loop {
            let reason = self.serve_connection(&mut backoff);
            let mut window = self.window();
            self.connected.store(false, Relaxed);
            window.client = None;
            window.flying.clear();
            let mut inside = self.outbox.lock();
            inside.disk_result("read", &self.vitals, |spool| spool.rewind());
            let stopping = inside.stopping;
            drop(inside);
            drop(window);
            self.outbox.wake();
            if stopping {
                return;
            }
            let broker = self.mqtt.url.origin();
            self.outbox.say(Some(format!("broker {broker}: {reason}")));
            let end_ns = clock::monotonic_ns() + backoff.fail().as_nanos() as u64;
            let mut inside = self.outbox.lock();
            while !inside.stopping && clock::monotonic_ns() < end_ns {
                let left_ns = end_ns.saturating_sub(clock::monotonic_ns());
                inside = self.outbox.wait(inside, Duration::from_nanos(left_ns));
            }
            if inside.stopping {
                return;
            }
        }
    }

    /// One connection from its begin to its end; says why it ended.
    fn serve_connection(&self, backoff: &mut Backoff) -> String {
        let will = Will { topic: &self.status, payload: OFFLINE };
        let (client, mut connection) = match link::open(&self.mqtt, &self.id, &will) {
            Ok(halves) => halves,
            Err(reason) => return reason,
        };
        self.window().client = Some(client);
        loop {
            match connection.next() {
                Ok(Happened::Connected) => {
                    backoff.reset();
                    self.outbox.say(None);
                    tracing::info!(broker = self.mqtt.url.origin(), "connected");
                    let mut window = self.window();
                    window.fresh = window.kept.keys().cloned().collect();
                    // Who listens learns first that this sink is there.
                    window.fresh.retain(|topic| *topic != self.status);
                    window.fresh.push_front(self.status.clone());
                    self.connected.store(true, Relaxed);
                    self.pump(&mut window);
                }
                Ok(Happened::Sent(packet)) => {
                    let mut window = self.window();
                    let next = window.flying.iter_mut().find(|flight| flight.packet.is_none());
                    if let Some(flight) = next {
                        flight.packet = Some(packet);
                    }
                }
                Ok(Happened::Acknowledged(packet, refused)) => self.arrived(packet, refused),
                Ok(Happened::Busy(reason)) => return reason,
                Ok(Happened::Other) => {}
                Err(ended) => {
                    if ended.too_large {
                        self.give_up_oldest();
                    }
                    return ended.reason;
                }
            }
        }
    }

    /// Sends as much as may be on its way.
    fn pump(&self, window: &mut Window) {
        let most = usize::from(self.mqtt.in_flight);
        while self.connected.load(Relaxed) {
            // What the broker keeps may go beside: above all the last word.
            let spare = if window.fresh.is_empty() { 0 } else { link::SPARE / 2 };
            if window.flying.len() >= most + spare {
                return;
            }
            let Some(client) = &window.client else { return };
            let (record, bytes, taken) = if let Some(topic) = window.fresh.pop_front() {
                let payload = window.kept.get(&topic).map_or("", String::as_str);
                (None, 0, client.publish(&topic, "", payload.as_bytes(), true))
            } else {
                let mut inside = self.outbox.lock();
                let next = inside
                    .disk_result("read", &self.vitals, |spool| spool.read(&mut window.record));
                drop(inside);
                let Some(number) = next.flatten() else { return };
                let Some((topic, id, payload)) = deliver::parts(&window.record) else { return };
                let topic = format!("{}/{topic}", self.mqtt.topic);
                let bytes = payload.len() as u64;
                (Some(number), bytes, client.publish(&topic, id, payload, false))
            };
            if !taken {
                // There is room for all that may be on its way: something is wrong, and a
                // new connection begins with this message.
                self.connected.store(false, Relaxed);
                client.disconnect_now();
                return;
            }
            let sent_ns = clock::monotonic_ns();
            window.flying.push_back(Flight {
                packet: None,
                record,
                bytes,
                sent_ns,
                arrived: false,
            });
        }
    }

    /// A message has arrived, or was refused for good.
    fn arrived(&self, packet: u16, refused: Option<String>) {
        let mut window = self.window();
        let mut flying = window.flying.iter_mut();
        let found = flying.find(|flight| flight.packet == Some(packet) && !flight.arrived);
        let Some(flight) = found else { return };
        flight.arrived = true;
        let is_record = flight.record.is_some();
        let bytes = flight.bytes;
        match refused {
            None if is_record => {
                self.vitals.add(Counter::Written, 1);
                self.vitals.add(Counter::WrittenBytes, bytes);
            }
            None => {}
            Some(why) => {
                self.vitals.add(Counter::Lost, u64::from(is_record));
                let broker = self.mqtt.url.origin();
                self.outbox.refuse(format!("broker {broker} refuses messages: {why}"));
            }
        }
        // In order: a later one that has arrived waits for those before.
        let mut last = None;
        while window.flying.front().is_some_and(|flight| flight.arrived) {
            last = window.flying.pop_front().and_then(|flight| flight.record).or(last);
        }
        if let Some(number) = last {
            let mut inside = self.outbox.lock();
            inside.disk_result("write", &self.vitals, |spool| spool.acknowledge(number + 1));
            let (stopping, waiting) = (inside.stopping, inside.spool.waiting());
            drop(inside);
            if stopping && waiting == 0 {
                self.outbox.wake();
            }
        }
        self.pump(&mut window);
    }

    /// The broker takes no message of this size: the next ones must not wait for ever.
    fn give_up_oldest(&self) {
        let window = self.window();
        let oldest = window.flying.iter().filter(|flight| !flight.arrived);
        // The one that could not be sent has no number yet.
        let record = oldest.filter(|flight| flight.packet.is_none()).find_map(|f| f.record);
        if let Some(number) = record {
            let mut inside = self.outbox.lock();
            // What was sent before it and is not acknowledged comes again only if it is
            // the oldest; else it is tried once more after those.
            if inside.spool.first_waiting() == number {
                self.vitals.add(Counter::Lost, 1);
                inside.disk_result("write", &self.vitals, |spool| spool.acknowledge(number + 1));
            }
        }
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
