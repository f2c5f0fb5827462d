//! Which backend is loaded next, by what happened to those that ran.
//!
//! A backend that hung, failed or took the process with it is left for the next one of
//! the configured order, and taken again after a while that doubles each time. The
//! process restarts in between, so what happened is kept in a text file in the
//! instance's folder, one fault a line: seconds since 1970, backend, kind, words. Where
//! only one backend is configured it changes nothing but what `status` says.

use framebus_engine::LoadOptions;
use framebus_service::{Shutdown, clock};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Name of the file in the instance's folder.
const FILE: &str = "inference.backends";
/// Faults that are kept, newest last.
const FAULTS_MAX: usize = 32;
/// First wait before a backend is taken again.
const OUT_MIN_S: u64 = 10;
/// Longest one.
const OUT_MAX_S: u64 = 3600;
/// A backend that has run for so long starts again with the first wait.
const WELL_S: u64 = 600;
/// A process may be killed by anybody; a second time within this, it is the backend.
const DIED_TWICE_S: u64 = 60;
/// For so long after it, a fault is part of what `status` says.
const TOLD_S: u64 = 10;

/// What happened to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process ended while it had frames, for whatever reason.
    Died,
    /// It answered errors, or did not answer a probe.
    Failed,
    /// It did not answer.
    Hung,
}

impl Kind {
    const ALL: [(Self, &str); 3] =
        [(Self::Died, "died"), (Self::Failed, "failed"), (Self::Hung, "hung")];

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    at_s: u64,
    backend: String,
    kind: Kind,
    words: String,
}

/// The faults of all backends.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    faults: Vec<Fault>,
}

impl Book {
    /// Opens the book in `folder`; what cannot be read is as if it had not happened.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let faults = text.lines().filter_map(Fault::parse).take(FAULTS_MAX).collect();
        Self { path, faults }
    }

    /// Something happened at `now_s`, seconds since 1970.
    pub fn note(&mut self, now_s: u64, backend: &str, kind: Kind, words: &str) {
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        self.faults.push(Fault { at_s: now_s, backend: backend.to_owned(), kind, words });
        let surplus = self.faults.len().saturating_sub(FAULTS_MAX);
        self.faults.drain(..surplus);
        if let Err(error) = self.write() {
            tracing::warn!(path = %self.path.display(), %error, "the faults of backends cannot be kept");
        }
    }

    fn write(&self) -> Result<()> {
        let lines: String = self.faults.iter().map(Fault::line).collect();
        // In one step: whoever reads sees the old or the new text.
        let new = self.path.with_extension("new");
        std::fs::write(&new, lines)?;
        std::fs::rename(new, &self.path)
    }

    /// A backend was tried at `now_s` and could not be loaded. Only news of one that ran:
    /// what was never there is asked for at each start anyway.
    ///
    /// A server is asked again even so: it may only have started later than we did.
    pub fn not_loaded(&mut self, now_s: u64, backend: &str) {
        let remote = framebus_engine::is_remote(backend);
        if remote || self.faults.iter().any(|fault| fault.backend == backend) {
            self.note(now_s, backend, Kind::Failed, "could not be loaded again");
        }
    }

    /// Until when a backend is left alone, seconds since 1970; `None` when it is not.
    #[must_use]
    pub fn out_until_s(&self, backend: &str, now_s: u64) -> Option<u64> {
        // A clock that was set back must not shut a backend out for longer.
        let recent = |until_s: &u64| *until_s > now_s && *until_s - now_s <= OUT_MAX_S;
        self.was_out_until_s(backend).filter(recent)
    }

    /// Until when a backend was left alone the last time; `None` when it never was.
    fn was_out_until_s(&self, backend: &str) -> Option<u64> {
        let (mut until_s, mut wait_s, mut died_s) = (0_u64, 0, None);
        for fault in self.faults.iter().filter(|fault| fault.backend == backend) {
            if fault.kind == Kind::Died {
                let before = died_s.replace(fault.at_s);
                if before.is_none_or(|before| fault.at_s.saturating_sub(before) > DIED_TWICE_S) {
                    continue;
                }
            }
            let well = fault.at_s > until_s.saturating_add(WELL_S);
            wait_s = if well { OUT_MIN_S } else { (2 * wait_s).clamp(OUT_MIN_S, OUT_MAX_S) };
            until_s = fault.at_s.saturating_add(wait_s);
        }
        (until_s > 0).then_some(until_s)
    }

    /// `names`, those that are left alone last, and of these the soonest first: better
    /// than nothing where the others are not there.
    #[must_use]
    pub fn order(&self, names: &[String], now_s: u64) -> Vec<String> {
        let mut order = names.to_vec();
        order.sort_by_key(|name| self.out_until_s(name, now_s).unwrap_or(0));
        order
    }

    /// The first backend of `names` before `loaded` that ran once and was left alone, and
    /// until when: that may be over, where loading the other one took longer.
    #[must_use]
    pub fn preferred(&self, names: &[String], loaded: &str) -> Option<(String, u64)> {
        let before = names.iter().take_while(|name| *name != loaded);
        before.filter_map(|name| Some((name.clone(), self.was_out_until_s(name)?))).next()
    }

    /// What made the process restart, when that was a moment ago.
    #[must_use]
    pub fn told(&self, now_s: u64) -> Option<&str> {
        let last = self.faults.last()?;
        let recent = now_s.abs_diff(last.at_s) < TOLD_S && last.kind != Kind::Died;
        recent.then_some(last.words.as_str())
    }
}

/// Why the process shall restart: a better backend can be taken.
#[derive(Debug, Clone, Default)]
pub struct Returning(Arc<Mutex<Option<String>>>);

impl Returning {
    /// Says so, with the reason.
    pub fn say(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// What was said last, once.
    #[must_use]
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where a better backend than `loaded` is left alone: asks it from time to time whether
/// it is there again, and then says so to `returning`.
pub(crate) fn watch_for_return(
    book: &Arc<Mutex<Book>>,
    (names, loaded): (&[String], &'static str),
    options: LoadOptions,
    shutdown: Shutdown,
    returning: Returning,
) {
    let (book, names) = (book.clone(), names.to_vec());
    let watch = move || {
        let probe = |name: &str| {
            let backend = framebus_engine::backend(name).map_err(|error| error.to_string())?;
            backend.probe(&options).map(|_| ()).map_err(|error| error.to_string())
        };
        let wait = |wait_s| shutdown.wait(Duration::from_secs(wait_s));
        if let Some(name) = returned(&book, &names, loaded, &probe, &wait) {
            returning.say(format!("{name} is there again"));
        }
    };
    // Without it the process stays with what it has.
    let _ = std::thread::Builder::new().name("backends".to_owned()).spawn(watch);
}

/// Waits until a better backend than `loaded` is there again; `None` when there is none,
/// or `wait` says that the process stops.
fn returned(
    book: &Mutex<Book>,
    names: &[String],
    loaded: &str,
    probe: &dyn Fn(&str) -> std::result::Result<(), String>,
    wait: &dyn Fn(u64) -> bool,
) -> Option<String> {
    let now_s = || clock::wall_ns() / 1_000_000_000;
    let book = || book.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (name, until_s) = book().preferred(names, loaded)?;
        // Not at once: what was just loaded instead shall do something first.
        if wait(until_s.saturating_sub(now_s()).clamp(OUT_MIN_S, OUT_MAX_S)) {
            return None;
        }
        match probe(&name) {
            Ok(()) => return Some(name),
            // Asking a server costs nothing: it shall be taken again soon after it is back,
            // however long it was away.
            Err(_) if framebus_engine::is_remote(&name) => {}
            Err(reason) => book().note(now_s(), &name, Kind::Failed, &reason),
        }
    }
}

impl Fault {
    fn line(&self) -> String {
        format!("{} {} {} {}\n", self.at_s, self.backend, self.kind.word(), self.words)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        let at_s = parts.next()?.parse().ok()?;
        let backend = parts.next()?.to_owned();
        let word = parts.next()?;
        let (kind, _) = Kind::ALL.into_iter().find(|(_, known)| *known == word)?;
        Some(Self { at_s, backend, kind, words: parts.next().unwrap_or_default().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn book() -> (tempfile::TempDir, Book) {
        let folder = tempfile::tempdir().expect("a folder");
        let book = Book::open(folder.path());
        (folder, book)
    }

    #[test]
    fn a_backend_that_hung_is_left_for_the_next_and_taken_again() {
        let (folder, mut book) = book();
        assert_eq!(book.order(&names(), NOW), ["a", "b", "c"]);
        book.note(NOW, "a", Kind::Hung, "a did not answer\nwithin 2.0 s");
        for book in [&book, &Book::open(folder.path())] {
            assert_eq!(book.order(&names(), NOW), ["b", "c", "a"]);
            assert_eq!(book.told(NOW + 3), Some("a did not answer within 2.0 s"));
            assert_eq!(book.preferred(&names(), "b"), Some(("a".to_owned(), NOW + 10)));
            assert_eq!(book.preferred(&names(), "a"), None);
            assert_eq!(book.order(&names(), NOW + 10), ["a", "b", "c"]);
            assert_eq!(book.told(NOW + 10), None);
        }
        book.note(NOW, "b", Kind::Failed, "");
        book.note(NOW + 1, "c", Kind::Failed, "");
        assert_eq!(book.order(&names(), NOW + 1), ["a", "b", "c"], "none is better than another");
    }

    #[test]
    fn the_wait_grows_and_shrinks_again_after_a_good_while() {
        let (_folder, mut book) = book();
        let mut now = NOW;
        for wait_s in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
            book.note(now, "a", Kind::Failed, "");
            assert_eq!(book.out_until_s("a", now), Some(now + wait_s));
            now += wait_s;
        }
        now += WELL_S + 1;
        book.note(now, "a", Kind::Failed, "");
        assert_eq!(book.out_until_s("a", now), Some(now + 10));
        (0..100).for_each(|_| book.note(now, "a", Kind::Failed, ""));
        assert_eq!(book.faults.len(), FAULTS_MAX);
    }

    #[test]
    fn one_death_says_nothing_of_a_backend_but_two_do() {
        let (_folder, mut book) = book();
        book.note(NOW, "a", Kind::Died, "");
        book.note(NOW + 61, "a", Kind::Died, "");
        assert_eq!((book.out_until_s("a", NOW + 61), book.told(NOW + 61)), (None, None));
        book.note(NOW + 100, "a", Kind::Died, "");
        assert_eq!(book.out_until_s("a", NOW + 100), Some(NOW + 110));
    }

    #[test]
    fn a_backend_that_is_there_again_is_returned_to() {
        let (_folder, mut book) = book();
        let now_s = clock::wall_ns() / 1_000_000_000;
        book.note(now_s, "a", Kind::Hung, "");
        let book = Mutex::new(book);
        let probes = std::cell::Cell::new(0);
        let waits = std::cell::RefCell::new(Vec::new());
        let probe = |name: &str| {
            assert_eq!(name, "a");
            probes.set(probes.get() + 1);
            if probes.get() < 3 { Err("connection refused".to_owned()) } else { Ok(()) }
        };
        let wait = |wait_s: u64| {
            waits.borrow_mut().push(wait_s.div_ceil(10) * 10);
            false
        };
        assert_eq!(returned(&book, &names(), "b", &probe, &wait), Some("a".to_owned()));
        assert_eq!(*waits.borrow(), [10, 20, 40]);
        assert_eq!(returned(&book, &names(), "a", &probe, &wait), None, "nothing is better");
        assert_eq!(returned(&book, &names(), "b", &probe, &|_| true), None, "stopping");
    }

    #[test]
    fn a_backend_is_returned_to_also_when_the_other_one_took_long_to_load() {
        let (_folder, mut book) = book();
        book.note(NOW, "a", Kind::Hung, "");
        book.not_loaded(NOW, "b");
        assert_eq!(book.faults.len(), 1, "b never ran");
        let book = Mutex::new(book);
        let waits = std::cell::RefCell::new(Vec::new());
        let wait = |wait_s: u64| {
            waits.borrow_mut().push(wait_s);
            false
        };
        assert_eq!(returned(&book, &names(), "b", &|_| Ok(()), &wait), Some("a".to_owned()));
        assert_eq!(*waits.borrow(), [OUT_MIN_S]);
        // One that is there and cannot be loaded is tried again ever more rarely.
        let mut book = book.into_inner().expect("no panic");
        for wait_s in [20, 40] {
            let until_s = book.out_until_s("a", NOW).unwrap_or(NOW);
            book.not_loaded(until_s, "a");
            assert_eq!(book.out_until_s("a", until_s), Some(until_s + wait_s));
        }
    }

    #[test]
    fn what_cannot_be_read_has_not_happened() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "x a hung w\n1 a\n5 a burnt w\n18446744073709551615 a hung w\n\n7 b hung\n";
        std::fs::write(folder.path().join(FILE), text).expect("written");
        let book = Book::open(folder.path());
        assert_eq!(book.out_until_s("b", 8), Some(17));
        assert_eq!(book.out_until_s("a", 8), None);
        std::fs::write(folder.path().join(FILE), [0xff; 999]).expect("written");
        assert!(Book::open(folder.path()).faults.is_empty());
    }
}
