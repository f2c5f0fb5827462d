//! What sinks that deliver elsewhere do alike: every message goes to the spool first, and
//! from there to the other side. A crash between the two repeats messages and loses none.

use crate::feed::{Feed, Message};
use crate::spool::{Spool, Unsynced};
use framebus_client::{ResultSample, json};
use framebus_config::{Config, Deliver, Sink, Spool as Settings};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, State};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;
/// After the wish to stop, the other side may take what waits for so long.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// The one before may need a moment to be gone.
const LOCK_TRIES: usize = 20;
/// A refusal is spoken of for so long, ns.
const REFUSED_NS: u64 = 60 * SECOND_NS;

/// The half that sends.
pub(crate) trait Courier {
    /// A message has come, before it is in the spool.
    fn note(&mut self, message: &Message<'_>);
    /// Messages were put into the spool.
    fn kick(&mut self);
    /// A second has passed.
    fn tick(&mut self);
    /// Whether what it announces is not what this configuration says: it starts anew then.
    fn is_outdated(&self, _: &Config) -> bool {
        false
    }
    /// The sink ends: deliver what can be within [`DRAIN`].
    fn finish(&mut self);
}

/// What waits, shared by the thread that reads the bus and the one that sends.
#[derive(Debug)]
pub(crate) struct Outbox {
    inside: Mutex<Inside>,
    changed: Condvar,
    vitals: Arc<Vitals>,
    /// The folder is ours, and goes when nothing waits in it.
    is_temporary: bool,
}

#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) spool: Spool,
    /// Why nothing can be sent now.
    fault: Option<String>,
    /// What cannot be done with the spool, and why.
    disk: Vec<(&'static str, String)>,
    /// Given up since the spool was last empty, and when the last one was.
    lost: (u64, u64),
    /// Whether it is known by now if anything can be sent.
    known: bool,
    /// Why messages are refused for good, how many, and when the last one was.
    refused: Option<(String, u64, u64)>,
    pub(crate) stopping: bool,
}

impl Outbox {
    /// Opens the spool of a sink.
    ///
    /// # Errors
    /// [`Kind::Unavailable`], with what to do.
    pub(crate) fn open(
        service: &Service,
        sink: &Sink,
        settings: &Settings,
        vitals: &Arc<Vitals>,
    ) -> Result<Arc<Self>, Failure> {
        let folder = folder(service.config(), sink, settings)?;
        let mut tries = 0;
        let spool = loop {
            match Spool::open(&folder, settings.max_mib << 20) {
                Ok(spool) => break spool,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tries += 1;
                    if tries == LOCK_TRIES || service.shutdown().wait(Duration::from_millis(100)) {
                        return Err(unusable(
                            &folder,
                            "another process uses it; each sink needs its own",
                        ));
                    }
                }
                Err(error) => {
                    return Err(unusable(
                        &folder,
                        &format!(
                            "{error}; may this user write there? The key spool names another folder"
                        ),
                    ));
                }
            }
        };
        let waiting = spool.waiting();
        tracing::info!(folder = %folder.display(), waiting, "spool");
        let inside = Inside {
            spool,
            fault: None,
            disk: Vec::new(),
            lost: (0, 0),
            known: false,
            refused: None,
            stopping: false,
        };
        Ok(Arc::new(Self {
            inside: Mutex::new(inside),
            changed: Condvar::new(),
            vitals: vitals.clone(),
            is_temporary: settings.folder.is_none(),
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something changes, `timeout` at most.
    pub(crate) fn wait<'a>(
        &self,
        inside: MutexGuard<'a, Inside>,
        timeout: Duration,
    ) -> MutexGuard<'a, Inside> {
        self.changed.wait_timeout(inside, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Waits before the next attempt; `false` when the sink ends meanwhile.
    pub(crate) fn sleep(&self, wait: Duration) -> bool {
        let end_ns = clock::monotonic_ns() + wait.as_nanos() as u64;
        let mut inside = self.lock();
        while !inside.stopping {
            let left_ns = end_ns.saturating_sub(clock::monotonic_ns());
            if left_ns == 0 {
                return true;
            }
            inside = self.wait(inside, Duration::from_nanos(left_ns));
        }
        false
    }

    /// Says why nothing can be sent, or that it can. Each failure counts as an error.
    pub(crate) fn say(&self, fault: Option<String>) {
        if fault.is_some() {
            self.vitals.add(Counter::Errors, 1);
        }
        let mut inside = self.lock();
        inside.known = true;
        inside.fault = fault;
    }

    /// Says that the other side refuses a message for good.
    pub(crate) fn refuse(&self, why: String) {
        self.vitals.add(Counter::Errors, 1);
        let mut inside = self.lock();
        let before = inside.refused.take().map_or(0, |(_, count, _)| count);
        inside.refused = Some((why, before + 1, clock::monotonic_ns()));
    }

    fn push(&self, record: &[u8]) {
        let mut inside = self.lock();
        let kept = inside.disk_result("write", &self.vitals, |spool| spool.push(record));
        self.vitals.add(Counter::Lost, u64::from(kept.is_none()));
    }

    /// Puts what is known into words and counters.
    fn tell(&self) {
        let mut inside = self.lock();
        let lost = inside.spool.take_lost();
        self.vitals.add(Counter::Lost, lost);
        let (waiting, now_ns) = (inside.spool.waiting(), clock::monotonic_ns());
        if lost > 0 {
            inside.lost = (inside.lost.0 + lost, now_ns);
        } else if waiting == 0 || now_ns >= inside.lost.1 + REFUSED_NS {
            inside.lost = (0, 0);
        }
        if !inside.known && lost == 0 && inside.disk.is_empty() {
            return;
        }
        inside.refused = inside.refused.take().filter(|(.., at_ns)| now_ns < at_ns + REFUSED_NS);
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend(inside.fault.clone());
        reasons.extend(
            inside.disk.iter().map(|(what, why)| format!("cannot {what} the spool: {why}")),
        );
        if let Some((why, count, _)) = &inside.refused {
            reasons.push(format!("{why} ({count} lost)"));
        }
        if inside.lost.0 > 0 {
            reasons.push(format!("spool full: the oldest {} messages are lost", inside.lost.0));
        }
        let is_fine = reasons.is_empty();
        if !is_fine && waiting > 0 {
            reasons.push(format!("{waiting} messages wait on disk"));
        }
        drop(inside);
        let state = if is_fine { State::Live } else { State::Degraded };
        self.vitals.set_state(state, &reasons.join("; "));
    }
}

impl Inside {
    /// What `work` with the spool gives; `None` when the disk fails, which the state says
    /// until the same thing works again.
    pub(crate) fn disk_result<T>(
        &mut self,
        what: &'static str,
        vitals: &Vitals,
        work: impl FnOnce(&mut Spool) -> std::io::Result<T>,
    ) -> Option<T> {
        let done = work(&mut self.spool);
        self.disk.retain(|fault| fault.0 != what);
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                vitals.add(Counter::Errors, 1);
                self.disk.push((what, error.to_string()));
                None
            }
        }
    }
}

fn unusable(folder: &std::path::Path, why: &str) -> Failure {
    Failure::message(Kind::Unavailable, format_args!("spool {}: {why}", folder.display()))
}

/// Beside the instance's own folder, which goes with the instance: no instance has a name
/// with a dot.
fn folder(config: &Config, sink: &Sink, settings: &Settings) -> Result<PathBuf, Failure> {
    if let Some(folder) = &settings.folder {
        return Ok(folder.clone());
    }
    let domain = framebus_service::domain(config)?;
    let mut folder = domain.folder().into_os_string();
    folder.push(".spool");
    Ok(PathBuf::from(folder).join(sink.name.as_str()))
}

/// Messages from the bus into the spool, until the process is asked to stop.
pub(crate) fn run(
    service: &Service,
    sink: &Sink,
    vitals: &Vitals,
    deliver: Deliver,
    also: (bool, bool),
    outbox: &Outbox,
    courier: &mut impl Courier,
) -> Result<(), Failure> {
    let kinds = (deliver.results() || also.0, deliver.events() || also.1);
    let mut feed = Feed::open(service, sink, vitals, kinds)?;
    let (sync, worker) = syncer(&outbox.vitals)?;
    outbox.tell();
    service.ready();
    let (mut record, mut next_tick_ns) = (Vec::new(), 0);
    let result = loop {
        let mut pushed = false;
        let turn = feed.turn(|message| {
            courier.note(&message);
            let is_delivered = match message {
                Message::Result(_) => deliver.results(),
                Message::Event(_) => deliver.events(),
            };
            if is_delivered && write(&message, &mut record) {
                outbox.push(&record);
                pushed = true;
            }
        });
        if pushed {
            courier.kick();
        }
        match turn {
            Ok(true) => outbox.tell(),
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
        let now_ns = clock::monotonic_ns();
        if now_ns >= next_tick_ns {
            next_tick_ns = now_ns + SECOND_NS;
            courier.tick();
            let mut inside = outbox.lock();
            // What is delivered at once need not survive a loss of power.
            if inside.spool.waiting() > 0 {
                let files = inside.spool.sync();
                drop(inside);
                // A disk that is still busy with the last second gets this one with the next.
                if let Ok(files) = files
                    && let Err(TrySendError::Full(files)) = sync.try_send(files)
                {
                    outbox.lock().spool.sync_later(files);
                }
            }
            if let Some(config) = feed.changed()
                && courier.is_outdated(&config)
            {
                let why = format!("what sink {} tells of cameras changed", sink.name);
                break Err(Failure::message(Kind::Changed, why));
            }
        }
    };
    outbox.lock().stopping = true;
    outbox.wake();
    courier.finish();
    let mut inside = outbox.lock();
    vitals.add(Counter::Lost, inside.spool.take_lost());
    if outbox.is_temporary {
        inside.spool.remove_if_empty();
    }
    if inside.spool.waiting() > 0
        && let Ok(files) = inside.spool.sync()
    {
        let _ = sync.send(files);
    }
    drop((inside, sync));
    let _ = worker.join();
    result
}

/// The thread that waits for the disk; it ends when its sender is dropped.
fn syncer(vitals: &Arc<Vitals>) -> Result<(SyncSender<Unsynced>, JoinHandle<()>), Failure> {
    let (sender, receiver) = sync_channel::<Unsynced>(1);
    let vitals = vitals.clone();
    let started = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        for files in receiver {
            for (_, file) in files {
                if let Err(error) = file.sync_data() {
                    vitals.add(Counter::Errors, 1);
                    tracing::warn!(%error, "the spool is not safe from a loss of power");
                }
            }
        }
    });
    match started {
        Ok(worker) => Ok((sender, worker)),
        Err(error) => Err(Failure::message(Kind::Unavailable, format_args!("thread: {error}"))),
    }
}

/// `CAMERA/event ID`, a line feed, and the JSON that is delivered; `false` when there is
/// none.
fn write(message: &Message<'_>, record: &mut Vec<u8>) -> bool {
    let (head, body) = match message {
        Message::Event(event) => {
            (format!("{}/event {}\n", event.camera(), event.id()), json::event(event))
        }
        Message::Result(result) => {
            let id = result_id(result);
            let mut body = json::result(result);
            body["id"] = serde_json::Value::String(id.clone());
            (format!("{}/result {id}\n", result.camera()), body)
        }
    };
    record.clear();
    record.extend_from_slice(head.as_bytes());
    serde_json::to_writer(&mut *record, &body).is_ok()
}

/// The frame's name.
fn result_id(result: &ResultSample) -> String {
    let header = result.header();
    format!("{}-{:x}-{}", result.camera(), header.epoch_ns, header.sequence)
}

/// Takes a record of [`write`] apart: topic, id, JSON.
pub(crate) fn parts(record: &[u8]) -> Option<(&str, &str, &[u8])> {
    let at = record.iter().position(|&byte| byte == b'\n')?;
    let (topic, id) = std::str::from_utf8(&record[..at]).ok()?.split_once(' ')?;
    Some((topic, id, &record[at + 1..]))
}
