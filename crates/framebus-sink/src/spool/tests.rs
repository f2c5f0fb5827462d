use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A message that says which one it is, and is long enough to be cut.
fn message(number: u64, length: usize) -> Vec<u8> {
    let mut text = format!("{number} ").into_bytes();
    text.resize(text.len() + length, b'a' + (number % 26) as u8);
    text
}

fn number_of(message: &[u8]) -> u64 {
    let text = std::str::from_utf8(message).expect("text");
    let (number, rest) = text.split_once(' ').expect("a number");
    let number = number.parse().expect("a number");
    assert!(rest.bytes().all(|byte| byte == b'a' + (number % 26) as u8), "damaged: {text}");
    number
}

/// A process that is being started by another test holds this one's lock for a moment.
fn reopen(path: &Path, max: u64) -> Spool {
    loop {
        match Spool::open(path, max) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            other => return other.expect("opens again"),
        }
    }
}

fn rest(spool: &mut Spool) -> Vec<u64> {
    let mut payload = Vec::new();
    let mut numbers = Vec::new();
    while let Some(number) = spool.read(&mut payload).expect("readable") {
        assert_eq!(number, number_of(&payload));
        numbers.push(number);
    }
    numbers
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Read,
    /// Acknowledges everything that was read.
    Acknowledge,
    Rewind,
    /// As after SIGKILL.
    Reopen,
    /// As after SIGKILL in the middle of a write.
    ReopenCut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..9000).prop_map(Step::Push),
        4 => Just(Step::Read),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Rewind),
        1 => Just(Step::Reopen),
        1 => (1_u64..40).prop_map(Step::ReopenCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a list in memory: order, what is repeated, and that each message is
    /// delivered or counted as lost.
    #[test]
    fn every_message_comes_in_order_or_is_counted(steps in prop::collection::vec(step(), 1..200)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("q");
        // Small enough for segments to be given up.
        let max = 128 << 10;
        let mut spool = Spool::open(&path, max).expect("opens");
        let (mut pushed, mut read, mut acknowledged, mut lost) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut payload = Vec::new();
        for step in steps {
            match step {
                Step::Push(length) => {
                    spool.push(&message(pushed, length)).expect("written");
                    pushed += 1;
                    prop_assert!(spool.bytes <= max);
                }
                Step::Read => {
                    if let Some(number) = spool.read(&mut payload).expect("readable") {
                        prop_assert_eq!(number, number_of(&payload));
                        prop_assert!(number >= read);
                        // What is skipped is counted.
                        let gap = spool.take_lost();
                        lost += gap;
                        prop_assert_eq!(number, read + gap);
                        read = number + 1;
                    } else {
                        let gap = spool.take_lost();
                        lost += gap;
                        prop_assert_eq!(read + gap, pushed);
                        read = pushed;
                    }
                }
                Step::Acknowledge => {
                    spool.acknowledge(read).expect("written");
                    acknowledged = acknowledged.max(read);
                }
                Step::Rewind | Step::Reopen | Step::ReopenCut(_) => {
                    lost += spool.take_lost();
                    if let Step::Rewind = step {
                        spool.rewind().expect("rewinds");
                    } else {
                        drop(spool);
                        if let Step::ReopenCut(bytes) = step {
                            // Half of a record that was never acknowledged as written.
                            let last = segment::list(&path).expect("listed").pop();
                            if let Some(last) = last {
                                let mut half = Vec::new();
                                record(pushed, &message(pushed, 64), &mut half);
                                half.truncate(bytes as usize);
                                let mut file = private().append(true).open(last.path(&path));
                                file.as_mut().expect("there").write_all(&half).expect("written");
                            }
                        }
                        spool = reopen(&path, max);
                    }
                    lost += spool.take_lost();
                    // From the first that is not acknowledged, or the first that is left.
                    prop_assert!(spool.next >= acknowledged);
                    prop_assert_eq!(spool.end, pushed);
                    read = spool.next;
                }
            }
        }
        spool.rewind().expect("rewinds");
        let first = spool.next;
        prop_assert_eq!(rest(&mut spool), (first..pushed).collect::<Vec<_>>());
        lost += spool.take_lost();
        // Nobody else knows what became of those between: delivered, or counted.
        prop_assert!(first >= acknowledged && lost <= pushed);
        prop_assert!(first - acknowledged <= lost, "given up unsaid");
    }
}

#[test]
fn beyond_the_bound_the_oldest_go_and_each_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("spool/q");
    let max = 1 << 20;
    let mut spool = Spool::open(&path, max).expect("opens");
    for number in 0..5000 {
        spool.push(&message(number, 500)).expect("written");
    }
    let lost = spool.take_lost();
    let on_disk: u64 = segment::list(&path).expect("listed").iter().map(|s| s.bytes).sum();
    assert!(on_disk <= max && on_disk > max * 9 / 10, "{on_disk}");
    assert_eq!(spool.waiting(), 5000 - lost);
    // A process that comes later counts none of them again.
    drop(spool);
    let mut spool = reopen(&path, max);
    assert_eq!(rest(&mut spool), (lost..5000).collect::<Vec<_>>());
    assert_eq!(spool.take_lost(), 0);
    // On their way while their segment is given up: lost once it is known.
    spool.rewind().expect("rewinds");
    let mut payload = Vec::new();
    for _ in 0..10 {
        assert!(spool.read(&mut payload).expect("readable").is_some());
    }
    for number in 5000..10_000 {
        spool.push(&message(number, 500)).expect("written");
    }
    let then = spool.take_lost();
    spool.rewind().expect("rewinds");
    assert_eq!(spool.take_lost(), 10, "those that were on their way");
    let left = rest(&mut spool);
    assert_eq!(then + 10 + left.len() as u64, 10_000 - lost);
    spool.acknowledge(10_000).expect("written");
    spool.remove_if_empty();
    assert!(!folder.path().join("spool").exists(), "an empty spool leaves nothing");
}

#[test]
fn a_folder_has_one_process_and_one_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("q");
    let spool = Spool::open(&path, 1 << 20).expect("opens");
    let error = Spool::open(&path, 1 << 20).expect_err("in use");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
    drop(spool);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set");
    let error = Spool::open(&path, 1 << 20).expect_err("others may write");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn damage_costs_its_own_segment_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(folder.path(), 1 << 20).expect("opens");
    for number in 0..500 {
        spool.push(&message(number, 500)).expect("written");
    }
    let segments = segment::list(folder.path()).expect("listed");
    let (damaged, after) = (segments[1], segments[2]);
    let file = OpenOptions::new().write(true).open(damaged.path(folder.path())).expect("there");
    file.write_all_at(b"XXXX", 2000).expect("written");
    drop(spool);
    let mut spool = reopen(folder.path(), 1 << 20);
    let numbers = rest(&mut spool);
    let lost = spool.take_lost();
    assert_eq!(numbers.len() as u64 + lost, 500);
    let missing: Vec<u64> = (0..500).filter(|number| !numbers.contains(number)).collect();
    assert!(
        missing[0] >= damaged.first && missing.last() == Some(&(after.first - 1)),
        "{missing:?}"
    );
    // A cursor that makes no sense: everything again, nothing lost.
    spool.acknowledge(100).expect("written");
    drop(spool);
    fs::write(folder.path().join("cursor"), b"no cursor...").expect("written");
    let mut spool = reopen(folder.path(), 1 << 20);
    assert!(rest(&mut spool)[0] <= 100);
}

const CHILD_FOLDER: &str = "FRAMEBUS_TEST_SPOOL";

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "started by killed_at_any_moment_nothing_is_lost"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let mut spool = Spool::open(Path::new(&folder), 64 << 20).expect("opens");
    let mut payload = Vec::new();
    println!("\nopen {} {}", spool.end, spool.next);
    loop {
        let number = spool.end;
        spool.push(&message(number, 700)).expect("written");
        println!("pushed {number}");
        // Behind, as a slow broker is.
        if number.is_multiple_of(3)
            && let Some(number) = spool.read(&mut payload).expect("readable")
        {
            assert_eq!(number, number_of(&payload));
            println!("sent {number}");
            spool.acknowledge(number + 1).expect("written");
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut pushed, mut sent) = (BTreeSet::new(), Vec::new());
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().expect("own file"))
            .args(["--exact", "spool::tests::child", "--ignored", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut kill_after = 100 + round * 137;
        // Lines that were printed before the kill are read to their end.
        for line in lines.by_ref() {
            let line = line.expect("text");
            if let Some((word, Ok(number))) =
                line.split_once(' ').map(|(word, rest)| (word, rest.parse::<u64>()))
            {
                match word {
                    "pushed" => assert!(pushed.insert(number), "{number} was given out twice"),
                    "sent" => sent.push(number),
                    _ => {}
                }
            }
            kill_after = kill_after.wrapping_sub(1);
            if kill_after == 0 {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
    }
    let mut spool = reopen(folder.path(), 64 << 20);
    assert_eq!(spool.take_lost(), 0);
    let left = rest(&mut spool);
    // One more than was said may have been written, and one sent may come again.
    let said: Vec<u64> = pushed.iter().copied().collect();
    assert!(said.windows(2).all(|pair| pair[1] - pair[0] <= 2), "numbers jump");
    let mut all: BTreeSet<u64> = sent.iter().copied().collect();
    let repeated = sent.len() - all.len();
    assert!(repeated <= 12, "{repeated} repeated in 12 kills");
    assert!(sent.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1), "order");
    all.extend(&left);
    assert!(left.windows(2).all(|pair| pair[1] == pair[0] + 1), "order");
    let missing: Vec<_> = pushed.difference(&all).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(pushed.len() > 5000, "{}", pushed.len());
}
