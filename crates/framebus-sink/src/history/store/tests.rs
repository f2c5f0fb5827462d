use super::*;
use framebus_config::Deliver;

fn history(folder: &Path, keep_mib: u64) -> History {
    let path = folder.join("h.db");
    History { path, deliver: Deliver::Both, keep_days: 2, keep_mib }
}

fn event(sequence: u64, wall_ns: u64) -> Row {
    let camera = text::pack("gate");
    Row::Event(Box::new(Event { camera, sequence, wall_ns, ..Event::default() }))
}

fn result(sequence: u64, wall_ns: u64) -> Row {
    let camera = text::pack("gate");
    let header = ResultHeader { camera, sequence, wall_ns, ..ResultHeader::default() };
    Row::Result(Box::new(header), vec![Detection { zones: 1 << 63, ..Detection::default() }; 3])
}

fn count(store: &Store, what: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {what}");
    store.db.query_row(&sql, (), |row| row.get(0)).expect("a table")
}

#[test]
fn rows_that_come_again_are_there_once() {
    let folder = tempfile::tempdir().expect("temp dir");
    let (mut store, note) = Store::open_or_begin(&history(folder.path(), 8)).expect("opens");
    assert_eq!(note, None);
    let rows = [event(1, 10), result(1, 10), result(2, 11)];
    store.write(&rows, 20).expect("written");
    drop(store);
    let (mut store, note) = Store::open_or_begin(&history(folder.path(), 8)).expect("opens");
    assert_eq!(note, None);
    store.write(&rows, 20).expect("written");
    store.write(&[result(3, 12)], 20).expect("written");
    let counts = ["events", "results", "detections"].map(|table| count(&store, table));
    assert_eq!(counts, [1, 3, 9]);
}

#[test]
fn what_is_old_goes_and_its_detections_with_it() {
    let folder = tempfile::tempdir().expect("temp dir");
    let (mut store, _) = Store::open_or_begin(&history(folder.path(), 8)).expect("opens");
    let now_ns = 10 * DAY_NS;
    let rows = [event(1, 8 * DAY_NS - 1), event(2, 8 * DAY_NS), result(1, 7 * DAY_NS)];
    store.write(&rows, now_ns).expect("written");
    let counts = ["events", "results", "detections"].map(|table| count(&store, table));
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn the_file_keeps_its_size_and_the_newest_stay() {
    let folder = tempfile::tempdir().expect("temp dir");
    let history = history(folder.path(), 1);
    let (mut store, _) = Store::open_or_begin(&history).expect("opens");
    let mut largest = 0;
    for second in 0..30 {
        let rows: Vec<Row> = (0..400).map(|n| second * 400 + n).map(|n| event(n, n)).collect();
        store.write(&rows, 12_000).expect("written");
        let pages = store.db.query_row("PRAGMA page_count", (), |row| row.get::<_, i64>(0));
        largest = largest.max(pages.expect("a number") * 4096);
    }
    // Of 12,000 rows of some 200 bytes; what is written before something goes comes on top.
    assert!((900 << 10..1300 << 10).contains(&largest), "{largest}");
    let (rows, newest) = (count(&store, "events"), count(&store, "events WHERE wall_ns = 11999"));
    assert!((1000..10_000).contains(&rows) && newest == 1, "{rows} {newest}");
    let oldest = count(&store, "events WHERE wall_ns < 2000");
    assert_eq!(oldest, 0);
}

#[test]
fn a_full_disk_and_a_lock_are_said_and_pass() {
    let folder = tempfile::tempdir().expect("temp dir");
    let history = history(folder.path(), 8);
    let (mut store, _) = Store::open_or_begin(&history).expect("opens");
    store.db.execute_batch("PRAGMA max_page_count = 20").expect("a bound");
    let rows: Vec<Row> = (0..2000).map(|n| event(n, 1)).collect();
    let fault = store.write(&rows, 2).expect_err("no room");
    assert_eq!(fault.words(), "the disk is full");
    assert_eq!(count(&store, "events"), 0, "all or nothing");
    store.db.execute_batch("PRAGMA max_page_count = 10000").expect("no bound");
    let other = Connection::open(&history.path).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let fault = store.write(&rows, 2).expect_err("locked");
    assert_eq!(fault.words(), "another program has locked it");
    other.execute_batch("ROLLBACK").expect("no lock");
    store.write(&rows, 2).expect("written");
    assert_eq!(count(&store, "events"), 2000);
}

#[test]
fn damaged_files_are_set_aside_and_those_of_others_are_left_alone() {
    let folder = tempfile::tempdir().expect("temp dir");
    let history = history(folder.path(), 8);
    let aside = folder.path().join("h.db.damaged");
    std::fs::write(&history.path, "no database at all, but long enough".repeat(100))
        .expect("there");
    let (store, note) = Store::open_or_begin(&history).expect("opens");
    assert_eq!(count(&store, "events"), 0);
    let note = note.expect("a note");
    assert_eq!(note, "the file was damaged: it is now h.db.damaged, and begun anew");
    assert!(std::fs::read(&aside).expect("aside").starts_with(b"no database"));
    drop(store);
    for number in [2, 3, 4, 4] {
        std::fs::write(&history.path, format!("damaged again: {number}").repeat(100))
            .expect("there");
        let (_, note) = Store::open_or_begin(&history).expect("opens");
        let expected = format!("the file was damaged: it is now h.db.damaged{number}, and");
        assert!(note.expect("a note").starts_with(&expected));
    }
    assert!(std::fs::read(&aside).expect("the first").starts_with(b"no database"));
    let (store, _) = Store::open_or_begin(&history).expect("opens");
    store.db.execute_batch("PRAGMA user_version = 2").expect("another version");
    drop(store);
    let fault = Store::open_or_begin(&history).expect_err("another version");
    assert!(matches!(fault, Fault::Foreign(_)), "{fault:?}");
    std::fs::remove_file(&history.path).expect("there");
    let other = Connection::open(&history.path).expect("opens");
    other.execute_batch("CREATE TABLE mine (a)").expect("a table");
    drop(other);
    let fault = Store::open_or_begin(&history).expect_err("another program's");
    assert_eq!(fault.words(), "is another program's database");
}

#[test]
fn what_is_recovered_from_goes_with_a_damaged_file() {
    let folder = tempfile::tempdir().expect("temp dir");
    let file = |name: &str| folder.path().join(name);
    for name in ["h.db", "h.db-wal", "h.db-shm", "h.db.damaged"] {
        std::fs::write(file(name), name).expect("written");
    }
    assert_eq!(set_aside(&file("h.db")).expect("set aside"), file("h.db.damaged2"));
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    left.sort();
    assert_eq!(left, ["h.db.damaged", "h.db.damaged2", "h.db.damaged2-wal"]);
    assert_eq!(std::fs::read(file("h.db.damaged2-wal")).expect("there"), b"h.db-wal");
}
