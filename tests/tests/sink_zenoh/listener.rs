//! A program that listens, and what it has heard.

use framebus_service::clock;
use framebus_tests::wait_until;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use zenoh::Wait;
use zenoh::bytes::Encoding;
use zenoh::pubsub::Subscriber;
use zenoh::query::Reply;

/// A program that listens: its session and what came in.
pub(crate) struct Listener {
    session: zenoh::Session,
    subscriber: Option<Subscriber<()>>,
    heard: Heard,
}

/// What came in, over all sessions of a test.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Message>>>);

#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) key: String,
    pub(crate) payload: Value,
    /// Arrival, ns of the wall clock.
    pub(crate) at_ns: u64,
}

impl Listener {
    /// Listens at `endpoints`; `more` are keys of Zenoh's configuration, and values in JSON.
    pub(crate) fn start(endpoints: &[String], more: &[(&str, Value)], heard: &Heard) -> Self {
        let mut config = zenoh::Config::default();
        let endpoints = serde_json::to_string(endpoints).expect("JSON");
        let fixed = [
            ("mode", "\"peer\""),
            ("listen/endpoints", &endpoints),
            ("scouting/multicast/enabled", "false"),
        ];
        for (key, value) in fixed {
            config.insert_json5(key, value).expect("a key of Zenoh");
        }
        for (key, value) in more {
            config.insert_json5(key, &value.to_string()).expect("a key of Zenoh");
        }
        let session = zenoh::open(config).wait().expect("listens");
        Self { session, subscriber: None, heard: heard.clone() }
    }

    pub(crate) fn at(port: u16, heard: &Heard) -> Self {
        Self::start(&[format!("tcp/127.0.0.1:{port}")], &[], heard)
    }

    pub(crate) fn subscribe(&mut self, keys: &str) {
        let heard = self.heard.clone();
        let subscriber = self.session.declare_subscriber(keys.to_owned()).callback(move |sample| {
            assert_eq!(*sample.encoding(), Encoding::APPLICATION_JSON);
            let payload = serde_json::from_slice(&sample.payload().to_bytes()).expect("JSON");
            let message =
                Message { key: sample.key_expr().to_string(), payload, at_ns: clock::wall_ns() };
            heard.0.lock().expect("no panic inside").push(message);
        });
        self.subscriber = Some(subscriber.wait().expect("subscribes"));
    }

    pub(crate) fn unsubscribe(&mut self) {
        self.subscriber = None;
    }

    pub(crate) fn end(self) {
        drop(self.subscriber);
        self.session.close().wait().expect("closes");
    }

    pub(crate) fn ask(&self, question: &str) -> Vec<Reply> {
        self.session.get(question).wait().expect("asks").into_iter().collect()
    }
}

impl Heard {
    pub(crate) fn all(&self) -> Vec<Message> {
        self.0.lock().expect("no panic inside").clone()
    }

    /// First occurrences of the numbers of each key, and how many were repeats.
    fn numbers(&self) -> (BTreeMap<String, Vec<u64>>, usize) {
        let (mut found, mut seen, mut repeats) = (BTreeMap::new(), BTreeSet::new(), 0);
        for message in self.all() {
            let id = message.payload["id"].as_str().expect("an id").to_owned();
            if seen.insert((message.key.clone(), id)) {
                let numbers: &mut Vec<u64> = found.entry(message.key).or_default();
                numbers.push(message.payload["sequence"].as_u64().expect("a number"));
            } else {
                repeats += 1;
            }
        }
        (found, repeats)
    }

    pub(crate) fn count(&self) -> u64 {
        self.numbers().0.values().map(|numbers| numbers.len() as u64).sum()
    }

    /// Waits for so many different ones, and looks at their order.
    pub(crate) fn assert_whole(&self, sent: u64, keys: usize) -> usize {
        wait_until("all of them", 30, || (self.count() >= sent).then_some(()));
        let (found, repeats) = self.numbers();
        for (key, numbers) in &found {
            let all: Vec<u64> = (0..numbers.len() as u64).collect();
            assert_eq!(*numbers, all, "{key}: lost or out of order");
        }
        assert_eq!((found.len(), self.count()), (keys, sent));
        repeats
    }
}
