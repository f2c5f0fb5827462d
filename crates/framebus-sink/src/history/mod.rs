//! History: events, and results with their detections, in a SQLite file that other programs
//! read at the same time.

mod store;

use crate::feed::{Feed, Message};
use framebus_config::{History, Sink};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, Detection, Event, ResultHeader, State};
use std::collections::VecDeque;
use std::path::Path;
use store::{Fault, Store};

/// How often rows are written, ns.
const EVERY_NS: u64 = 1_000_000_000;
/// Most memory that rows take while the file cannot be written.
const WAITING_BYTES: usize = 8 << 20;
/// That a damaged file was set aside is spoken of for so long, ns.
const NOTE_NS: u64 = 60 * EVERY_NS;

/// What becomes a row.
#[derive(Debug, Clone)]
enum Row {
    Event(Box<Event>),
    Result(Box<ResultHeader>, Vec<Detection>),
}

impl Row {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(_) => size_of::<Event>(),
            Self::Result(_, found) => size_of::<ResultHeader>() + size_of_val(found.as_slice()),
        }
    }
}

/// Runs until asked to stop; then writes what is still there.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    history: &History,
    vitals: &Vitals,
) -> Result<(), Failure> {
    let path = &history.path;
    vitals.set_detail(&format!("history in {}", path.display()));
    let (store, note) = open(history)?;
    let mut writer = Writer {
        history,
        store: Some(store),
        vitals,
        rows: VecDeque::new(),
        bytes: 0,
        lost: 0,
        note: note.map(|note| (note, clock::monotonic_ns() + NOTE_NS)),
    };
    let kinds = (history.deliver.results(), history.deliver.events());
    let mut feed = Feed::open(service, sink, vitals, kinds)?;
    writer.write();
    service.ready();
    let mut next_ns = clock::monotonic_ns() + EVERY_NS;
    loop {
        let turn = feed.turn(|message| writer.take(message));
        match turn {
            Ok(true) if clock::monotonic_ns() < next_ns => {}
            Ok(true) => {
                next_ns = clock::monotonic_ns() + EVERY_NS;
                writer.write();
            }
            Ok(false) => {
                writer.last();
                return Ok(());
            }
            Err(failure) => {
                writer.last();
                return Err(failure);
            }
        }
    }
}

/// The file, and what there is to say about it.
fn open(history: &History) -> Result<(Store, Option<String>), Failure> {
    let path = &history.path;
    let fail = |kind, why: &str| Failure::message(kind, format_args!("{}: {why}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder).map_err(|error| {
            fail(Kind::Unavailable, &format!("{error}; may this user write there?"))
        })?;
    }
    match Store::open_or_begin(history) {
        Ok(opened) => Ok(opened),
        Err(Fault::Foreign(what)) => {
            Err(fail(Kind::Config, &format!("{what}; name another file with the key path")))
        }
        Err(fault) => Err(fail(
            Kind::Unavailable,
            &format!("{}; may this user write there, and is there room?", fault.words()),
        )),
    }
}

/// Rows on their way into the file.
struct Writer<'a> {
    history: &'a History,
    /// `None` after it was damaged and while no new one can be made.
    store: Option<Store>,
    vitals: &'a Vitals,
    rows: VecDeque<Row>,
    bytes: usize,
    /// Rows that went since the last one was written.
    lost: u64,
    /// What is to be said, and up to when.
    note: Option<(String, u64)>,
}

impl Writer<'_> {
    fn take(&mut self, message: Message<'_>) {
        let row = match message {
            Message::Event(event) => Row::Event(Box::new(*event)),
            Message::Result(result) => {
                Row::Result(Box::new(*result.header()), result.detections().to_vec())
            }
        };
        self.bytes += row.bytes();
        self.rows.push_back(row);
        while self.bytes > WAITING_BYTES
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.lose(1);
        }
    }

    fn lose(&mut self, rows: u64) {
        self.vitals.add(Counter::Lost, rows);
        self.lost += rows;
    }

    /// Writes what has come together: all of it, or nothing and it waits. A full disk is a
    /// state, and may pass.
    fn write(&mut self) {
        let now_ns = clock::monotonic_ns();
        self.note = self.note.take().filter(|(_, end_ns)| now_ns < *end_ns);
        let written = match self.try_write() {
            Err(Fault::Damaged(why)) => {
                tracing::error!(path = %self.history.path.display(), why, "damaged");
                self.store = None;
                self.try_write()
            }
            other => other,
        };
        let fault = match written {
            Ok(()) => {
                self.vitals.add(Counter::Written, self.rows.len() as u64);
                self.rows.clear();
                (self.bytes, self.lost) = (0, 0);
                None
            }
            Err(fault) => {
                self.vitals.add(Counter::Errors, 1);
                let mut words = format!("cannot write: {}", fault.words());
                if self.lost > 0 {
                    words += &format!("; {} lost", self.lost);
                }
                Some(format!("{words}; {} wait", self.rows.len()))
            }
        };
        let note = self.note.as_ref().map(|(note, _)| note.clone());
        let reasons: Vec<String> = fault.into_iter().chain(note).collect();
        let state = if reasons.is_empty() { State::Live } else { State::Degraded };
        self.vitals.set_state(state, &reasons.join("; "));
    }

    fn try_write(&mut self) -> Result<(), Fault> {
        // Removed by somebody: what is written would be in no file.
        if !self.history.path.exists() {
            self.store = None;
        }
        if self.store.is_none() {
            let (store, note) = Store::open_or_begin(self.history)?;
            self.store = Some(store);
            self.note = note.map(|note| (note, clock::monotonic_ns() + NOTE_NS));
        }
        match &mut self.store {
            Some(store) => store.write(&self.rows, clock::wall_ns()),
            None => Ok(()),
        }
    }

    /// The sink ends, and its state says so already.
    fn last(&mut self) {
        match self.try_write() {
            Ok(()) => self.vitals.add(Counter::Written, self.rows.len() as u64),
            Err(fault) => {
                tracing::error!(why = fault.words(), rows = self.rows.len(), "not written");
                self.lose(self.rows.len() as u64);
            }
        }
    }
}
