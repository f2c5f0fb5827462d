//! The file: tables, transactions, and what goes because it is old or too much.

use super::Row;
use framebus_config::History;
use framebus_types::{Detection, Direction, Event, EventKind, Outcome, Reason, ResultHeader, text};
use rusqlite::{Connection, Error, ErrorCode, Statement, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `fbus`: says whose file it is.
const APPLICATION: i64 = 0x6662_7573;
/// Of the tables below.
const VERSION: i64 = 1;
const DAY_NS: u64 = 86_400_000_000_000;
/// Another program may write, for example to delete; it is waited for so long.
const BUSY: Duration = Duration::from_millis(500);
/// Rows that go at once, beside twice as many as come: small steps, and faster than growth.
const STEP: usize = 500;
/// Pages of 4 KiB that are given back to the disk at once.
const PAGES: u32 = 1000;
/// Damaged files that are kept beside the new one.
const KEPT: u32 = 4;

/// Numbers of 64 bits without sign (tracks, zones) keep their bits in SQLite's signed ones.
const TABLES: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE events (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, wall_ns INTEGER NOT NULL,
    camera TEXT NOT NULL, event TEXT NOT NULL, place TEXT NOT NULL, direction TEXT NOT NULL,
    track INTEGER NOT NULL, label TEXT NOT NULL, class INTEGER NOT NULL, score REAL NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    age_s REAL NOT NULL, epoch_ns INTEGER NOT NULL, sequence INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL);
CREATE INDEX events_time ON events (wall_ns);
CREATE TABLE results (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, wall_ns INTEGER NOT NULL,
    camera TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    model TEXT NOT NULL, backend TEXT NOT NULL, age_ms REAL, epoch_ns INTEGER NOT NULL,
    sequence INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL);
CREATE INDEX results_time ON results (wall_ns);
CREATE TABLE detections (
    result INTEGER NOT NULL REFERENCES results (number) ON DELETE CASCADE,
    track INTEGER NOT NULL, zones INTEGER NOT NULL, label TEXT NOT NULL,
    class INTEGER NOT NULL, score REAL NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL);
CREATE INDEX detections_result ON detections (result);
";

const EVENT: &str = "INSERT OR IGNORE INTO events VALUES \
    (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
const RESULT: &str = "INSERT OR IGNORE INTO results VALUES \
    (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
const DETECTION: &str = "INSERT INTO detections VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Up to when the oldest rows of both tables reach.
const OLDEST: &str = "SELECT max(wall_ns) FROM (SELECT wall_ns FROM (
    SELECT * FROM (SELECT wall_ns FROM events ORDER BY wall_ns LIMIT ?1) UNION ALL
    SELECT * FROM (SELECT wall_ns FROM results ORDER BY wall_ns LIMIT ?1))
    ORDER BY wall_ns LIMIT ?1)";

/// Why the file cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what was written to it.
    Damaged(String),
    /// It is somebody else's.
    Foreign(&'static str),
    /// This may pass.
    Other(String),
}

impl Fault {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Damaged(why) | Self::Other(why) => why,
            Self::Foreign(why) => why,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Other("the disk is full".to_owned()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Other("another program has locked it".to_owned())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
    keep_ns: u64,
    keep_bytes: i64,
}

impl Store {
    /// Opens the file or makes it. One that is damaged is set aside before; the note says so.
    pub(super) fn open_or_begin(history: &History) -> Result<(Self, Option<String>), Fault> {
        match Self::open(history) {
            Err(Fault::Damaged(why)) => {
                let aside = set_aside(&history.path).map_err(|error| {
                    Fault::Other(format!("damaged ({why}) and not to be set aside: {error}"))
                })?;
                tracing::error!(path = %history.path.display(), why, aside = %aside.display(),
                    "the history is damaged: set aside, and begun anew");
                let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let note = format!("the file was damaged: it is now {name}, and begun anew");
                Self::open(history).map(|store| (store, Some(note)))
            }
            other => other.map(|store| (store, None)),
        }
    }

    fn open(history: &History) -> Result<Self, Fault> {
        let db = Connection::open(&history.path)?;
        db.busy_timeout(BUSY)?;
        let number = |sql| db.query_row(sql, (), |row| row.get::<_, i64>(0));
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
            (0, 0) if tables == 0 => {
                db.execute_batch(&format!(
                    "{TABLES}PRAGMA application_id = {APPLICATION};
                     PRAGMA user_version = {VERSION}; COMMIT"
                ))?;
            }
            (APPLICATION, VERSION) => {}
            (APPLICATION, _) => {
                return Err(Fault::Foreign("is a history of another version of framebus"));
            }
            _ => return Err(Fault::Foreign("is another program's database")),
        }
        // With WAL, NORMAL loses the last second or so with the power, and nothing else.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
             PRAGMA journal_size_limit = 4194304",
        )?;
        let keep_ns = history.keep_days * DAY_NS;
        let keep_bytes = i64::try_from(history.keep_mib << 20).unwrap_or(i64::MAX);
        Ok(Self { db, keep_ns, keep_bytes })
    }

    /// Writes rows in one transaction; those that are there already are left as they are.
    /// A little of what is too old or too much goes with it.
    pub(super) fn write<'a, R>(&mut self, rows: R, now_ns: u64) -> Result<(), Fault>
    where
        R: IntoIterator<Item = &'a Row, IntoIter: ExactSizeIterator>,
    {
        let rows = rows.into_iter();
        let step = STEP + 2 * rows.len();
        let work = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut event = work.prepare(EVENT)?;
            let mut result = work.prepare(RESULT)?;
            let mut detection = work.prepare(DETECTION)?;
            for row in rows {
                match row {
                    Row::Event(row) => write_event(&mut event, row)?,
                    Row::Result(header, found) => {
                        if write_result(&mut result, header)? {
                            let number = work.last_insert_rowid();
                            for found in found {
                                write_detection(&mut detection, number, found)?;
                            }
                        }
                    }
                }
            }
        }
        prune(&work, now_ns.saturating_sub(self.keep_ns), self.keep_bytes, step)?;
        Ok(work.commit()?)
    }
}

fn prune(work: &Transaction<'_>, oldest_ns: u64, most: i64, step: usize) -> Result<(), Error> {
    for table in ["events", "results"] {
        let sql = format!(
            "DELETE FROM {table} WHERE number IN \
             (SELECT number FROM {table} WHERE wall_ns < ?1 ORDER BY wall_ns LIMIT ?2)"
        );
        work.execute(&sql, params![oldest_ns as i64, step as i64])?;
    }
    let number = |sql| work.query_row(sql, (), |row| row.get::<_, i64>(0));
    let page = number("PRAGMA page_size")?;
    let pages = number("PRAGMA page_count")?;
    if (pages - number("PRAGMA freelist_count")?) * page > most {
        let up_to: Option<i64> = work.query_row(OLDEST, [step as i64], |row| row.get(0))?;
        for table in ["events", "results"] {
            work.execute(&format!("DELETE FROM {table} WHERE wall_ns <= ?1"), [up_to])?;
        }
    }
    if pages * page > most {
        work.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    }
    Ok(())
}

fn write_event(insert: &mut Statement<'_>, event: &Event) -> Result<(), Error> {
    let [x1, y1, x2, y2] = event.bbox;
    insert.execute(params![
        event.id(),
        event.wall_ns as i64,
        event.camera(),
        EventKind::try_from(event.kind).map_or("", EventKind::as_str),
        event.place(),
        Direction::try_from(event.direction).map_or("", Direction::as_str),
        event.track as i64,
        event.label(),
        event.class,
        event.score,
        x1,
        y1,
        x2,
        y2,
        event.age_ns as f64 / 1e9,
        event.epoch_ns as i64,
        event.sequence as i64,
        event.width,
        event.height,
    ])?;
    Ok(())
}

/// Whether it is a new one.
fn write_result(insert: &mut Statement<'_>, header: &ResultHeader) -> Result<bool, Error> {
    let camera = text::unpack(&header.camera);
    let times = &header.times;
    let has_age = times.capture_ns > 0 && times.result_ns >= times.capture_ns;
    let written = insert.execute(params![
        format!("{camera}-{:x}-{}", header.epoch_ns, header.sequence),
        header.wall_ns as i64,
        camera,
        Outcome::try_from(header.outcome).map_or("", Outcome::as_str),
        Reason::try_from(header.reason).map_or("", Reason::as_str),
        text::unpack(&header.message),
        header.model(),
        header.backend(),
        has_age.then(|| (times.result_ns - times.capture_ns) as f64 / 1e6),
        header.epoch_ns as i64,
        header.sequence as i64,
        header.width,
        header.height,
    ])?;
    Ok(written == 1)
}

fn write_detection(
    insert: &mut Statement<'_>,
    result: i64,
    found: &Detection,
) -> Result<(), Error> {
    let [x1, y1, x2, y2] = found.bbox;
    insert.execute(params![
        result,
        found.track as i64,
        found.zones as i64,
        found.label(),
        found.class,
        found.score,
        x1,
        y1,
        x2,
        y2,
    ])?;
    Ok(())
}

/// `history.db` becomes `history.db.damaged`, or `.damaged2` and so on where that is there;
/// the last of [`KEPT`] is written over.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let named = |base: &Path, ending: &str| {
        let mut name = base.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let mut aside = named(path, ".damaged");
    let mut number = 1;
    while aside.exists() && number < KEPT {
        number += 1;
        aside = named(path, &format!(".damaged{number}"));
    }
    std::fs::rename(path, &aside)?;
    // What SQLite's own tools recover from belongs to it; the index of it does not.
    let (log, index) = (named(path, "-wal"), named(path, "-shm"));
    let _ = std::fs::remove_file(named(&aside, "-wal"));
    for done in [std::fs::rename(log, named(&aside, "-wal")), std::fs::remove_file(index)] {
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
