//! Webhook: events and results posted to a URL, at least once and in order.

use crate::deliver::{self, Courier, DRAIN, Outbox};
use crate::feed::Message;
use crate::post;
use crate::spool::Spool;
use framebus_config::{Sink, Webhook};
use framebus_service::{Backoff, Failure, Kind, Service, Vitals, clock};
use framebus_types::Counter;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;

/// Messages of one request, and their bytes, at most; one longer message goes alone.
const BATCH: usize = 50;
const BATCH_BYTES: usize = 256 << 10;
/// Wait after the first failure, and after many, ms.
const RETRY_MS: (u64, u64) = (500, 60_000);
/// Longest wait that a server may ask for with Retry-After, in seconds.
const RETRY_AFTER_MAX_S: u64 = 600;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    webhook: &Webhook,
    vitals: &Arc<Vitals>,
) -> Result<(), Failure> {
    vitals.set_detail(&format!("webhook to {}", webhook.url.origin()));
    let outbox = Outbox::open(service, sink, &webhook.spool, vitals)?;
    let poster = Poster {
        webhook: webhook.clone(),
        outbox: outbox.clone(),
        vitals: vitals.clone(),
        agent: None,
        batch: Batch::default(),
        most: BATCH,
    };
    let worker = std::thread::Builder::new()
        .name("webhook".to_owned())
        .spawn(move || poster.run())
        .map_err(|error| Failure::message(Kind::Unavailable, format_args!("thread: {error}")))?;
    // Nothing is known to be wrong before the first message.
    outbox.say(None);
    let mut courier = Sending { outbox: outbox.clone(), worker: Some(worker) };
    let also = (false, false);
    deliver::run(service, sink, vitals, webhook.deliver, also, &outbox, &mut courier)
}

/// The half on the thread that reads the bus.
struct Sending {
    outbox: Arc<Outbox>,
    worker: Option<std::thread::JoinHandle<()>>,
}

impl Courier for Sending {
    fn note(&mut self, _: &Message<'_>) {}

    fn kick(&mut self) {
        self.outbox.wake();
    }

    fn tick(&mut self) {}

    fn finish(&mut self) {
        let end_ns = clock::monotonic_ns() + DRAIN.as_nanos() as u64;
        let Some(worker) = self.worker.take() else { return };
        let mut inside = self.outbox.lock();
        // A request that takes longer is repeated after the next start.
        while !worker.is_finished() && clock::monotonic_ns() < end_ns {
            inside = self.outbox.wait(inside, Duration::from_millis(20));
        }
    }
}

/// The half that posts.
struct Poster {
    webhook: Webhook,
    outbox: Arc<Outbox>,
    vitals: Arc<Vitals>,
    /// Made anew after each failure, so that renewed certificates are read.
    agent: Option<Agent>,
    batch: Batch,
    /// Messages of the next request at most.
    most: usize,
}

/// Messages of one request.
#[derive(Debug, Default)]
struct Batch {
    body: Vec<u8>,
    count: usize,
    /// Number of the last one in the spool.
    last: u64,
    record: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// Why, and after how many seconds the server wants to be asked again.
    Later(String, Option<u64>),
    /// Never: the fault is the message's.
    Refused(String),
}

impl Poster {
    fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_MS.0, RETRY_MS.1);
        loop {
            if !self.next_batch() {
                return;
            }
            match self.post() {
                Outcome::Taken => {
                    backoff.reset();
                    self.most = (self.most * 2).min(BATCH);
                    self.vitals.add(Counter::Written, self.batch.count as u64);
                    self.vitals.add(Counter::WrittenBytes, self.batch.body.len() as u64);
                    self.done();
                    self.outbox.say(None);
                }
                Outcome::Later(why, after_s) => {
                    self.agent = None;
                    let mut wait = backoff.fail();
                    if let Some(after_s) = after_s {
                        wait = wait.max(Duration::from_secs(after_s.min(RETRY_AFTER_MAX_S)));
                    }
                    self.again();
                    self.outbox.say(Some(format!("{}: {why}", self.webhook.url.origin())));
                    if !self.outbox.sleep(wait) {
                        return;
                    }
                }
                // Which one it is shows when each is posted alone.
                Outcome::Refused(_) if self.batch.count > 1 => {
                    self.most = 1;
                    self.again();
                }
                Outcome::Refused(why) => {
                    self.vitals.add(Counter::Lost, 1);
                    let origin = self.webhook.url.origin();
                    self.outbox.refuse(format!("{origin} refuses messages: {why}"));
                    self.done();
                    self.outbox.say(None);
                }
            }
        }
    }

    /// Waits for messages and makes a body of them; `false` when the sink ends and none
    /// are left.
    fn next_batch(&mut self) -> bool {
        let batch = &mut self.batch;
        batch.body.clear();
        batch.count = 0;
        let mut inside = self.outbox.lock();
        loop {
            while batch.count < self.most && batch.body.len() < BATCH_BYTES {
                let next =
                    inside.disk_result("read", &self.vitals, |spool| spool.read(&mut batch.record));
                let Some(number) = next.flatten() else { break };
                let Some((_, _, payload)) = deliver::parts(&batch.record) else { continue };
                batch.body.push(if batch.count == 0 { b'[' } else { b',' });
                batch.body.extend_from_slice(payload);
                (batch.count, batch.last) = (batch.count + 1, number);
            }
            match batch.count {
                0 if inside.stopping => return false,
                0 => inside = self.outbox.wait(inside, Duration::from_secs(1)),
                // One message is an object.
                1 => {
                    batch.body.remove(0);
                    return true;
                }
                _ => {
                    batch.body.push(b']');
                    return true;
                }
            }
        }
    }

    fn connect(&self) -> Result<Agent, String> {
        let Webhook { url, ca, timeout_ms, .. } = &self.webhook;
        post::agent(url, ca.as_deref(), Duration::from_millis(*timeout_ms))
    }

    fn post(&mut self) -> Outcome {
        let agent = match self.agent.take().map_or_else(|| self.connect(), Ok) {
            Ok(agent) => agent,
            Err(why) => return Outcome::Later(why, None),
        };
        let time_s = clock::wall_ns() / 1_000_000_000;
        let mut request = agent
            .post(self.webhook.url.as_str())
            .header("Content-Type", "application/json")
            .header("X-Framebus-Timestamp", time_s.to_string());
        if let Some(secret) = &self.webhook.secret {
            let signature = signature(secret.expose(), time_s, &self.batch.body);
            request = request.header("X-Framebus-Signature", signature);
        }
        let answer = request.send(&self.batch.body[..]);
        self.agent = Some(agent);
        match answer {
            Ok(answer) => judge(answer.status().as_u16(), post::retry_after(&answer)),
            Err(error) => Outcome::Later(post::why(&error), None),
        }
    }

    fn done(&mut self) {
        let last = self.batch.last;
        let mut inside = self.outbox.lock();
        inside.disk_result("shorten", &self.vitals, |spool| spool.acknowledge(last + 1));
    }

    /// The same messages come again.
    fn again(&mut self) {
        let mut inside = self.outbox.lock();
        inside.disk_result("read", &self.vitals, Spool::rewind);
    }
}

/// What an answer means. Where the fault is the address's or the login's, messages wait
/// until somebody mends it; where it is the message's, it would never be taken.
fn judge(status: u16, after_s: Option<u64>) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        300..=399 => Outcome::Later(format!("redirects ({status}), which are not followed"), None),
        401 | 403 => Outcome::Later(format!("refuses the login or the signature ({status})"), None),
        404 | 405 | 410 => Outcome::Later(format!("has no such address ({status})"), None),
        408 | 425 | 429 | 500..=599 => Outcome::Later(format!("answers {status}"), after_s),
        _ => Outcome::Refused(format!("answer {status}")),
    }
}

/// `sha256=` and the HMAC-SHA256 of time stamp, full stop and body, in hexadecimal.
fn signature(key: &str, time_s: u64, body: &[u8]) -> String {
    // Keys may have any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{time_s}.").as_bytes());
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_openssl_computes() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(signature("key", 1_700_000_000, br#"{"a":1}"#), EXPECTED);
    }

    const EXPECTED: &str =
        "sha256=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";

    #[test]
    fn answers_decide_between_waiting_and_giving_up() {
        assert_eq!(judge(204, None), Outcome::Taken);
        for status in [301, 401, 403, 404, 408, 429, 500, 503] {
            assert!(matches!(judge(status, None), Outcome::Later(..)), "{status}");
        }
        assert!(matches!(judge(503, Some(9)), Outcome::Later(_, Some(9))));
        for status in [400, 413, 415, 422] {
            assert!(matches!(judge(status, None), Outcome::Refused(_)), "{status}");
        }
    }
}
