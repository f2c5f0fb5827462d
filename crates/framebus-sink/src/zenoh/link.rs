//! One connection to a Zenoh node.

use super::pictures::Questions;
use crate::deliver::Outbox;
use crate::tls;
use framebus_config::{Url, Zenoh};
use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use zenoh::bytes::Encoding;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::{ConsolidationMode, Queryable};
use zenoh::{Config, Session, Wait};

/// Zenoh's usual port.
const PORT: u16 = 7447;
/// Longest time to connect in.
const CONNECT: Duration = Duration::from_secs(5);
/// A confirmation that takes longer does not come. A subscriber that is slow for so long
/// gets messages twice.
const ANSWER: Duration = Duration::from_secs(20);
/// The node takes this side for gone after so long without a sign of life, ms.
const LEASE_MS: u64 = 4000;

/// A connection; ended when dropped.
pub(super) struct Link {
    session: Session,
    /// Both ends of the connection, ports included: another one differs.
    ends: zenoh::session::Link,
    /// Nothing is sent with them: they know whether somebody listens.
    publishers: Vec<Publisher<'static>>,
    _questions: Option<Queryable<()>>,
    outbox: Arc<Outbox>,
    /// Since [`take_gone`](Self::take_gone), the last subscriber of a kind has left.
    gone: Arc<AtomicBool>,
    /// What [`ask`](Self::ask) asks for.
    nothing: String,
}

/// A question that is on its way behind messages.
pub(super) struct Asked(Arc<Verdict>);

#[derive(Default)]
struct Verdict {
    over: AtomicBool,
    late: AtomicBool,
}

/// What has become of the messages in front of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// They have arrived at the node.
    Arrived,
    /// The last subscriber left meanwhile.
    Unheard,
    /// Nobody knows: the connection is another one, or none.
    Ended,
    /// Nobody knows: there was no answer in time.
    Late,
}

impl Asked {
    /// Whether there is an answer to judge.
    pub(super) fn is_over(&self) -> bool {
        self.0.over.load(SeqCst)
    }
}

/// Says that the question is over when Zenoh has nothing more to call.
struct Guard(Arc<Verdict>, Arc<Outbox>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
        // Who is just about to sleep holds the lock.
        drop(self.1.lock());
        self.1.wake();
    }
}

impl Link {
    /// Connects; `kinds` are the last parts of the keys that will be sent.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub(super) fn open(
        zenoh: &Zenoh,
        prefix: &str,
        kinds: impl Iterator<Item = &'static str>,
        outbox: &Arc<Outbox>,
        questions: &Option<Questions>,
    ) -> Result<Self, String> {
        let config = config(zenoh).map_err(|error| plain(&error))?;
        let session = zenoh::open(config).wait().map_err(|error| {
            tracing::debug!(%error, "zenoh");
            why(zenoh)
        })?;
        let Some(ends) = session.info().links().wait().next() else {
            return Err(super::ENDED.to_owned());
        };
        let gone = Arc::new(AtomicBool::new(false));
        let mut publishers = Vec::new();
        for kind in kinds {
            let publisher = session
                .declare_publisher(format!("{prefix}/*/{kind}"))
                .wait()
                .map_err(|error| plain(&error))?;
            let (left, waiter) = (gone.clone(), outbox.clone());
            publisher
                .matching_listener()
                .callback(move |status| {
                    if !status.matching() {
                        left.store(true, SeqCst);
                    }
                    drop(waiter.lock());
                    waiter.wake();
                })
                .background()
                .wait()
                .map_err(|error| plain(&error))?;
            publishers.push(publisher);
        }
        let questions = match questions.clone() {
            Some(questions) => {
                let queryable = session
                    .declare_queryable(format!("{prefix}/*/frame"))
                    .callback(move |query| questions.put(query))
                    .wait();
                Some(queryable.map_err(|error| plain(&error))?)
            }
            None => None,
        };
        // A part that begins with "@" is met by no wildcard: storages keep away from it.
        let nothing = format!("{prefix}/@framebus/arrived");
        let outbox = outbox.clone();
        Ok(Self { session, ends, publishers, _questions: questions, outbox, gone, nothing })
    }

    /// Whether the connection is still the one of [`open`](Self::open): Zenoh makes another
    /// one by itself, and loses what was on its way without a word.
    pub(super) fn is_up(&self) -> bool {
        self.session.info().links().wait().any(|ends| ends == self.ends)
    }

    /// Whether somebody listens to anything of what is sent.
    pub(super) fn is_heard(&self) -> bool {
        self.publishers.iter().any(|publisher| {
            publisher.matching_status().wait().is_ok_and(|status| status.matching())
        })
    }

    /// Whether the last subscriber has left since this was asked last. Another one may
    /// have come.
    pub(super) fn take_gone(&self) -> bool {
        self.gone.swap(false, SeqCst)
    }

    /// Publishes. Waits where the connection is full.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub(super) fn put(&self, key: String, payload: &[u8]) -> Result<(), String> {
        self.session
            .put(key, payload)
            .encoding(Encoding::APPLICATION_JSON)
            .priority(PRIORITY)
            .congestion_control(CongestionControl::Block)
            .wait()
            .map_err(|error| plain(&error))
    }

    /// Asks for something that nobody has. The question keeps its place behind what was
    /// put before: same priority, so same queue; and the node takes them in turn.
    ///
    /// # Errors
    /// Why it could not, in words.
    pub(super) fn ask(&self) -> Result<Asked, String> {
        let verdict = Arc::new(Verdict::default());
        let guard = Guard(verdict.clone(), self.outbox.clone());
        self.session
            .get(self.nothing.as_str())
            .priority(PRIORITY)
            .congestion_control(CongestionControl::Block)
            .consolidation(ConsolidationMode::None)
            .timeout(ANSWER)
            .callback(move |reply| {
                // Zenoh says in this way that the time is over.
                if reply.result().is_err() {
                    guard.0.late.store(true, SeqCst);
                }
            })
            .wait()
            .map_err(|error| plain(&error))?;
        Ok(Asked(verdict))
    }

    /// What an answer means. A question is over, too, when its connection ends; but Zenoh
    /// takes the connection off its list before that.
    pub(super) fn judge(&self, asked: &Asked) -> Answer {
        if asked.0.late.load(SeqCst) {
            return Answer::Late;
        }
        if !self.is_up() {
            return Answer::Ended;
        }
        if self.gone.load(SeqCst) || !self.is_heard() {
            return Answer::Unheard;
        }
        Answer::Arrived
    }
}

const PRIORITY: Priority = Priority::DEFAULT;

impl Drop for Link {
    fn drop(&mut self) {
        // One that is gone needs no good-bye.
        let _ = self.session.close().wait();
    }
}

/// A client of one node: it looks for no others, tells nobody of itself and listens nowhere.
fn config(zenoh: &Zenoh) -> zenoh::Result<Config> {
    let mut config = Config::default();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut set = |key: &str, value: &str| config.insert_json5(key, value);
    set("mode", &text("client"))?;
    set("connect/endpoints", &format!("[{}]", text(&locator(&zenoh.url))))?;
    set("connect/timeout_ms", "0")?;
    set("listen/endpoints", "[]")?;
    set("scouting/multicast/enabled", "false")?;
    set("scouting/gossip/enabled", "false")?;
    set("adminspace/enabled", "false")?;
    set("transport/shared_memory/enabled", "false")?;
    set("transport/unicast/open_timeout", &CONNECT.as_millis().to_string())?;
    set("transport/link/tx/lease", &LEASE_MS.to_string())?;
    // A full connection holds up messages, which wait on disk; it need not end for that.
    let close_us = ANSWER.as_micros().to_string();
    set("transport/link/tx/queue/congestion_control/block/wait_before_close", &close_us)?;
    let files = [
        ("root_ca_certificate", &zenoh.ca),
        ("connect_certificate", &zenoh.cert),
        ("connect_private_key", &zenoh.key),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            set(&format!("transport/link/tls/{key}"), &text(&file.display().to_string()))?;
        }
    }
    if zenoh.cert.is_some() {
        set("transport/link/tls/enable_mtls", "true")?;
    }
    Ok(config)
}

/// The address as Zenoh writes it.
fn locator(url: &Url) -> String {
    let host =
        if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().into() };
    format!("{}/{host}:{}", url.scheme(), url.port().unwrap_or(PORT))
}

/// What keeps this side from the node, found by knocking: Zenoh does not say.
fn why(zenoh: &Zenoh) -> String {
    match knock(zenoh) {
        Err(reason) => reason,
        Ok(()) => "something answers, but not as a Zenoh node does".to_owned(),
    }
}

fn knock(zenoh: &Zenoh) -> Result<(), String> {
    let url = &zenoh.url;
    let identity = zenoh.cert.as_deref().zip(zenoh.key.as_deref());
    let is_tls = url.scheme() == "tls";
    let config = is_tls.then(|| tls::client(zenoh.ca.as_deref(), identity)).transpose()?;
    let addresses = (url.host(), url.port().unwrap_or(PORT)).to_socket_addrs();
    let addresses = addresses.map_err(|error| tls::reason(&error))?;
    let mut last = "host not found".to_owned();
    for address in addresses {
        let mut stream = match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => stream,
            Err(error) => {
                last = tls::reason(&error);
                continue;
            }
        };
        let Some(config) = config else { return Ok(()) };
        let say = |error: std::io::Error| tls::reason(&error);
        stream.set_read_timeout(Some(CONNECT)).map_err(say)?;
        let name = rustls::pki_types::ServerName::try_from(url.host().to_owned())
            .map_err(|error| error.to_string())?;
        let mut client =
            rustls::ClientConnection::new(config, name).map_err(|error| tls::explain(&error))?;
        client.complete_io(&mut stream).map_err(say)?;
        // A certificate of ours that is refused shows after the handshake; the node says
        // nothing by itself where all is well.
        stream.set_read_timeout(Some(Duration::from_millis(500))).map_err(say)?;
        let read = rustls::Stream::new(&mut client, &mut stream).read(&mut [0]);
        return match read {
            Err(error) if tls::fault(&error).is_some() => Err(say(error)),
            _ => Ok(()),
        };
    }
    Err(last)
}

/// A short sentence out of Zenoh's, which name its source files.
fn plain(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split(" at /").next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_lose_the_places_in_the_library() {
        let error: zenoh::Error = "Unable to do it at /root/x.rs:1.".into();
        assert_eq!(plain(&error), "Unable to do it");
    }
}
