//! What is on its way to the broker, and which message it may end connections for.

use super::link::{Client, SPARE};
use framebus_service::clock;
use std::collections::{BTreeMap, VecDeque};

/// Connections in a row that bring nothing across, until messages go one at a time.
const FRUITLESS: u32 = 2;
/// Connections in a row that end with the same message alone on its way, until it is given up.
const ALONE: u32 = 5;

/// What is on its way, and what the broker is to keep.
#[derive(Default)]
pub(super) struct Window {
    pub(super) client: Option<Client>,
    /// In the order of sending.
    pub(super) flying: VecDeque<Flight>,
    /// Messages that the broker keeps, by topic: the newest of each.
    pub(super) kept: BTreeMap<String, String>,
    /// Topics of those that it does not have yet.
    pub(super) fresh: VecDeque<String>,
    /// The one that was read from the spool last.
    pub(super) record: Vec<u8>,
    pub(super) suspicion: Suspicion,
    /// It was looked for announcements that are no longer made.
    pub(super) has_asked: bool,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Load {
    /// Number in the spool.
    Record(u64),
    /// Topic of one that the broker keeps.
    Kept(String),
    /// The last word of this sink.
    GoodBye,
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its number at the broker, once it has one.
    pub(super) packet: Option<u16>,
    pub(super) load: Load,
    pub(super) bytes: u64,
    pub(super) sent_ns: u64,
    /// It has arrived or is refused for good.
    pub(super) arrived: bool,
    /// Why it is refused.
    pub(super) refused: Option<String>,
}

impl Flight {
    /// One that is sent now.
    pub(super) fn new(load: Load, bytes: u64) -> Self {
        let sent_ns = clock::monotonic_ns();
        Self { packet: None, load, bytes, sent_ns, arrived: false, refused: None }
    }
}

impl Window {
    pub(super) fn keep(&mut self, topic: String, payload: String) {
        if !self.fresh.contains(&topic) {
            self.fresh.push_back(topic.clone());
        }
        self.kept.insert(topic, payload);
    }

    /// Whether no more may be on its way.
    pub(super) fn is_full(&self, in_flight: u16) -> bool {
        if self.suspicion.one_at_a_time() {
            return !self.flying.is_empty();
        }
        // What the broker keeps may go beside.
        let spare = if self.fresh.is_empty() { 0 } else { SPARE / 2 };
        self.flying.len() >= usize::from(in_flight) + spare
    }

    /// Takes out what has arrived, in order: a later one waits for those before, and may be
    /// sent again with them.
    pub(super) fn settled(&mut self) -> Option<Flight> {
        self.flying.front().filter(|flight| flight.arrived)?;
        self.flying.pop_front()
    }
}

/// Finds the message that a broker ends connections for, where it gives no better sign that
/// it does not take it. Connections that are never made are no sign of anything.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// A record has arrived on this connection.
    has_arrived: bool,
    /// Connections in a row on which none has.
    fruitless: u32,
    /// Records that go one at a time yet.
    left: u16,
    /// The message that was alone on its way at the end, of so many connections in a row.
    alone: Option<(Load, u32)>,
}

impl Suspicion {
    fn one_at_a_time(&self) -> bool {
        self.left > 0
    }

    /// A message has arrived.
    pub(super) fn arrived(&mut self, load: &Load) {
        if matches!(load, Load::Record(_)) {
            self.has_arrived = true;
            self.left = self.left.saturating_sub(1);
        }
        if self.alone.as_ref().is_some_and(|(suspect, _)| suspect == load) {
            self.alone = None;
        }
    }

    /// A connection has ended, perhaps because of one of these. The one to give up.
    pub(super) fn ended(&mut self, flying: &VecDeque<Flight>, in_flight: u16) -> Option<Load> {
        let has_arrived = std::mem::take(&mut self.has_arrived);
        let mut waiting = flying.iter().filter(|flight| !flight.arrived);
        let first = waiting.next()?;
        self.fruitless = if has_arrived { 0 } else { self.fruitless + 1 };
        if self.fruitless >= FRUITLESS {
            // As many as were on their way beside the one that is looked for.
            self.left = in_flight;
        }
        if waiting.next().is_some() {
            self.alone = None;
            return None;
        }
        let before = self.alone.take().filter(|(load, _)| *load == first.load);
        let count = before.map_or(0, |(_, count)| count) + 1;
        if count >= ALONE {
            return Some(first.load.clone());
        }
        self.alone = Some((first.load.clone(), count));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that takes what it is sent until it meets `bad`; acknowledgements that it
    /// has sent by then are lost in the end of the connection, except of what went alone.
    fn connect(suspicion: &mut Suspicion, next: &mut u64, bad: u64) -> Option<Load> {
        const IN_FLIGHT: u16 = 8;
        loop {
            let count = if suspicion.one_at_a_time() { 1 } else { u64::from(IN_FLIGHT) };
            let numbers = *next..*next + count;
            if numbers.contains(&bad) {
                let flight = |number| Flight::new(Load::Record(number), 0);
                return suspicion.ended(&numbers.map(flight).collect(), IN_FLIGHT);
            }
            for number in numbers {
                suspicion.arrived(&Load::Record(number));
            }
            *next += count;
        }
    }

    #[test]
    fn the_message_that_ends_connections_is_found() {
        for bad in [0, 3, 7, 8, 20] {
            let (mut suspicion, mut next, mut connections) = (Suspicion::default(), 0, 0);
            let found = loop {
                connections += 1;
                if let Some(found) = connect(&mut suspicion, &mut next, bad) {
                    break found;
                }
                assert!(connections < 10, "{bad}: {suspicion:?}");
            };
            assert_eq!((found, next), (Load::Record(bad), bad));
            assert!(connections > ALONE, "{bad}: it was sought among several first");
        }
    }

    #[test]
    fn one_that_arrives_in_the_end_is_not_suspected() {
        let flying: VecDeque<Flight> = [Flight::new(Load::Record(5), 0)].into();
        let mut suspicion = Suspicion::default();
        for _ in 0..10 {
            for _ in 1..ALONE {
                assert_eq!(suspicion.ended(&flying, 8), None);
            }
            assert_eq!(suspicion.ended(&VecDeque::new(), 8), None, "nothing was on its way");
            suspicion.arrived(&Load::Record(5));
        }
    }
}
