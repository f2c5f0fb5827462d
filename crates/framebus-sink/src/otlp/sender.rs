//! The half that posts: batches of traces, and what becomes of them.

use super::trace;
use crate::post;
use framebus_config::Otlp;
use framebus_service::{Backoff, Vitals, clock};
use framebus_types::{Counter, State};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use ureq::Agent;

/// Traces of one request at most.
const BATCH: usize = 100;
/// Traces wait for others for so long.
const GATHER: Duration = Duration::from_secs(1);
/// Most memory that waiting traces take: some 2,500 of them.
const QUEUE_BYTES: usize = 8 << 20;
/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after the first failure, and after many, ms.
const RETRY_MS: (u64, u64) = (500, 30_000);
/// Longest wait that a collector may ask for with Retry-After, in seconds.
const RETRY_AFTER_MAX_S: u64 = 120;
/// Most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 64 << 10;
/// Most letters of what a collector says that are shown.
const SHOWN: usize = 100;

/// Traces that wait, shared by the thread that reads the bus and the one that sends.
#[derive(Debug)]
pub(super) struct Queue {
    inside: Mutex<Inside>,
    changed: Condvar,
    vitals: Arc<Vitals>,
}

#[derive(Debug, Default)]
struct Inside {
    traces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Why the collector does not take them.
    fault: Option<String>,
    /// Lost since it last took some.
    lost: u64,
    stopping: bool,
}

impl Queue {
    pub(super) fn new(vitals: Arc<Vitals>) -> Self {
        Self { inside: Mutex::default(), changed: Condvar::new(), vitals }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inside: MutexGuard<'a, Inside>, ns: u64) -> MutexGuard<'a, Inside> {
        let timeout = Duration::from_nanos(ns);
        self.changed.wait_timeout(inside, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes a trace; the oldest go when there is no room.
    pub(super) fn push(&self, spans: Vec<u8>) {
        let mut inside = self.lock();
        inside.bytes += spans.len();
        inside.traces.push_back(spans);
        let mut lost = 0;
        while inside.bytes > QUEUE_BYTES
            && let Some(oldest) = inside.traces.pop_front()
        {
            inside.bytes -= oldest.len();
            lost += 1;
        }
        self.lose(&mut inside, lost);
        if inside.traces.len() == 1 || inside.traces.len() == BATCH {
            self.changed.notify_all();
        }
    }

    fn lose(&self, inside: &mut Inside, traces: u64) {
        self.vitals.add(Counter::Lost, traces);
        inside.lost += traces;
    }

    /// Puts what is known into words.
    pub(super) fn tell(&self) {
        let inside = self.lock();
        let Some(fault) = inside.fault.clone() else {
            drop(inside);
            return self.vitals.set_state(State::Live, "");
        };
        let (lost, waiting) = (inside.lost, inside.traces.len());
        drop(inside);
        let lost = if lost > 0 { format!("; {lost} traces lost") } else { String::new() };
        let waiting = if waiting > 0 { format!("; {waiting} traces wait") } else { String::new() };
        self.vitals.set_state(State::Degraded, &format!("{fault}{lost}{waiting}"));
    }

    /// Lets the other thread send what is there, for `most` at most; what is left then is
    /// lost.
    pub(super) fn finish(&self, worker: &JoinHandle<()>, most: Duration) {
        let end_ns = clock::monotonic_ns() + most.as_nanos() as u64;
        let mut inside = self.lock();
        inside.stopping = true;
        self.changed.notify_all();
        while !worker.is_finished() && clock::monotonic_ns() < end_ns {
            inside = self.wait(inside, 20_000_000);
        }
        let left = inside.traces.len() as u64;
        self.lose(&mut inside, left);
    }
}

/// Posts until the queue ends.
#[derive(Debug)]
pub(super) struct Sender {
    otlp: Otlp,
    address: String,
    head: String,
    queue: Arc<Queue>,
    /// Made anew after each failure, so that renewed certificates are read.
    agent: Option<Agent>,
    batch: Vec<Vec<u8>>,
    body: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Spans that the collector did not want all the same, and why.
    Taken(Option<(u64, String)>),
    /// Why, and after how many seconds the collector wants to be asked again.
    Later(String, Option<u64>),
    /// Never.
    Refused(String),
}

impl Sender {
    pub(super) fn new(otlp: &Otlp, instance: &str, queue: &Arc<Queue>) -> Self {
        Self {
            address: format!("{}/v1/traces", otlp.url.as_str().trim_end_matches('/')),
            head: trace::head(instance),
            otlp: otlp.clone(),
            queue: queue.clone(),
            agent: None,
            batch: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_MS.0, RETRY_MS.1);
        while self.next_batch() {
            let outcome = self.post();
            let origin = self.otlp.url.origin();
            let queue = self.queue.clone();
            let vitals = &queue.vitals;
            let count = self.batch.len() as u64;
            let mut inside = queue.lock();
            match outcome {
                Outcome::Taken(None) => {
                    backoff.reset();
                    vitals.add(Counter::Written, count);
                    vitals.add(Counter::WrittenBytes, self.body.len() as u64);
                    (inside.fault, inside.lost) = (None, 0);
                }
                Outcome::Taken(Some((spans, why))) => {
                    backoff.reset();
                    // It does not say which ones: at most so many traces are not whole.
                    let lost = spans.min(count);
                    vitals.add(Counter::Errors, 1);
                    vitals.add(Counter::Written, count - lost);
                    vitals.add(Counter::WrittenBytes, self.body.len() as u64);
                    queue.lose(&mut inside, lost);
                    inside.fault = Some(format!("{origin} refuses {spans} spans: {why}"));
                }
                Outcome::Refused(why) => {
                    backoff.reset();
                    vitals.add(Counter::Errors, 1);
                    queue.lose(&mut inside, count);
                    inside.fault = Some(format!("{origin} refuses traces: {why}"));
                }
                Outcome::Later(why, after_s) => {
                    self.agent = None;
                    vitals.add(Counter::Errors, 1);
                    inside.fault = Some(format!("{origin}: {why}"));
                    self.again(&mut inside);
                    let mut wait = backoff.fail();
                    if let Some(after_s) = after_s {
                        wait = wait.max(Duration::from_secs(after_s.min(RETRY_AFTER_MAX_S)));
                    }
                    let end_ns = clock::monotonic_ns() + wait.as_nanos() as u64;
                    while !inside.stopping && clock::monotonic_ns() < end_ns {
                        inside = queue.wait(inside, end_ns.saturating_sub(clock::monotonic_ns()));
                    }
                    if inside.stopping {
                        return;
                    }
                }
            }
        }
    }

    /// Takes the next traces from the queue; `false` when it ends and none are left.
    fn next_batch(&mut self) -> bool {
        self.batch.clear();
        let mut inside = self.queue.lock();
        while inside.traces.is_empty() {
            if inside.stopping {
                return false;
            }
            inside = self.queue.wait(inside, GATHER.as_nanos() as u64);
        }
        let end_ns = clock::monotonic_ns() + GATHER.as_nanos() as u64;
        while inside.traces.len() < BATCH && !inside.stopping {
            let left_ns = end_ns.saturating_sub(clock::monotonic_ns());
            if left_ns == 0 {
                break;
            }
            inside = self.queue.wait(inside, left_ns);
        }
        let count = inside.traces.len().min(BATCH);
        self.batch.extend(inside.traces.drain(..count));
        inside.bytes -= self.batch.iter().map(Vec::len).sum::<usize>();
        drop(inside);
        self.body.clear();
        self.body.extend_from_slice(self.head.as_bytes());
        for (number, spans) in self.batch.iter().enumerate() {
            if number > 0 {
                self.body.push(b',');
            }
            self.body.extend_from_slice(spans);
        }
        self.body.extend_from_slice(trace::TAIL.as_bytes());
        true
    }

    /// Puts the batch in front of the queue again, as far as there is room.
    fn again(&mut self, inside: &mut Inside) {
        while let Some(spans) = self.batch.pop() {
            if inside.bytes + spans.len() > QUEUE_BYTES {
                // This one and those before it.
                self.queue.lose(inside, self.batch.len() as u64 + 1);
                self.batch.clear();
                return;
            }
            inside.bytes += spans.len();
            inside.traces.push_front(spans);
        }
    }

    fn post(&mut self) -> Outcome {
        let connect = || post::agent(&self.otlp.url, self.otlp.ca.as_deref(), TIMEOUT);
        let agent = match self.agent.take().map_or_else(connect, Ok) {
            Ok(agent) => agent,
            Err(why) => return Outcome::Later(why, None),
        };
        let mut request = agent.post(&self.address).header("Content-Type", "application/json");
        if let Some(token) = &self.otlp.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose()));
        }
        let answer = request.send(&self.body[..]);
        self.agent = Some(agent);
        match answer {
            Ok(mut answer) => {
                let after_s = post::retry_after(&answer);
                let status = answer.status().as_u16();
                let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec();
                judge(status, after_s, &body.unwrap_or_default())
            }
            Err(error) => Outcome::Later(post::why(&error), None),
        }
    }
}

/// What an answer means
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>). Where the fault is the
/// address's or the login's, traces wait for somebody to mend it, as far as there is room.
fn judge(status: u16, after_s: Option<u64>, body: &[u8]) -> Outcome {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    match status {
        200..=299 => Outcome::Taken(rejected(&said)),
        300..=399 => Outcome::Later(format!("redirects ({status}), which are not followed"), None),
        401 | 403 => Outcome::Later(format!("refuses the token ({status})"), None),
        404 | 405 => Outcome::Later(format!("takes no traces at this address ({status})"), None),
        408 | 429 | 502..=504 => Outcome::Later(format!("answers {status}"), after_s),
        _ => match shown(&said["message"]) {
            why if why.is_empty() => Outcome::Refused(format!("answer {status}")),
            why => Outcome::Refused(format!("answer {status}, {why}")),
        },
    }
}

/// Spans that a collector has not taken although it answers 200.
fn rejected(said: &Value) -> Option<(u64, String)> {
    let partial = &said["partialSuccess"];
    // JSON of protobuf writes numbers of 64 bits as text, and takes either.
    let count = &partial["rejectedSpans"];
    let spans = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    (spans > 0).then(|| (spans, shown(&partial["errorMessage"])))
}

/// What a collector says, short and without what moves a terminal.
fn shown(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::Role;

    #[test]
    fn answers_decide_between_waiting_and_giving_up() {
        assert_eq!(judge(200, None, b"{}"), Outcome::Taken(None));
        let some = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too\u001b old"}}"#;
        assert_eq!(judge(200, None, some), Outcome::Taken(Some((3, "too old".to_owned()))));
        let none = br#"{"partialSuccess":{"rejectedSpans":0,"errorMessage":"slow down"}}"#;
        assert_eq!(judge(200, None, none), Outcome::Taken(None));
        for status in [307, 401, 404, 408, 429, 502, 503, 504] {
            assert!(matches!(judge(status, None, b""), Outcome::Later(..)), "{status}");
        }
        assert!(matches!(judge(503, Some(9), b"no"), Outcome::Later(_, Some(9))));
        assert_eq!(judge(500, None, b""), Outcome::Refused("answer 500".to_owned()));
        let why = judge(400, None, br#"{"message":"bad span"}"#);
        assert_eq!(why, Outcome::Refused("answer 400, bad span".to_owned()));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go() {
        let vitals = Vitals::new(Role::Sink, "s");
        let queue = Queue::new(vitals.clone());
        for number in 0..20 {
            queue.push(vec![number; 1 << 20]);
        }
        assert_eq!(vitals.get(Counter::Lost), 12);
        let inside = queue.lock();
        assert_eq!((inside.traces.len(), inside.bytes), (8, 8 << 20));
        assert_eq!(inside.traces[0][0], 12);
    }
}
