//! What a process leaves behind that dies, lies or dawdles on the bus: nothing
//! that others would notice.

use framebus_bus::{Bus, BusError, Delivery, Domain, memory, services};
use framebus_tests::crash::{CAMERA, header, limits, publish};
use framebus_tests::{Process, World, wait_until, with_shm};
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOLD: &str = env!("CARGO_BIN_EXE_hold_sample");
const SLOW: &str = env!("CARGO_BIN_EXE_slow_reader");
const DIE: &str = env!("CARGO_BIN_EXE_die_while_publishing");
const LIE: &str = env!("CARGO_BIN_EXE_lying_header");
const FULL: &str = env!("CARGO_BIN_EXE_full_shm");

fn domain(world: &World) -> Domain {
    Domain::new(world.instance(), &world.root(), limits()).expect("a short name")
}

fn start(world: &World, name: &str, program: &str, extra: &[&str]) -> Process {
    let root = world.root().display().to_string();
    let mut args = vec![root.as_str(), world.instance()];
    args.extend(extra);
    world.start(name, Path::new(program), &args)
}

fn clean(bus: &Bus) {
    wait_until("a dead node to be cleaned", 10, || {
        (bus.clean_dead_nodes().removed > 0).then_some(())
    });
}

/// Ends the instance and returns what it left in /dev/shm.
fn close(bus: Bus, domain: &Domain) -> usize {
    drop(bus);
    domain.remove_leftovers().expect("leftovers can be removed").len()
}

#[test]
fn a_killed_holder_gives_its_samples_and_its_place_back() {
    let world = World::new();
    let domain = domain(&world);
    let bus: Bus = Bus::open(&domain, "test").expect("bus");
    let (_, bytes) = header(320, 180, 0);
    let publisher =
        bus.frame_publisher(CAMERA, bytes, Delivery::Latest, Arc::default()).expect("publisher");
    let reader = bus.frame_subscriber(CAMERA, Delivery::Latest, "test").expect("reader");
    let mut sequence = 0;
    let mut publish_and_read = || {
        publish(&publisher, 320, 180, sequence).expect("published");
        let frame = reader.receive().expect("received").expect("the newest frame");
        assert_eq!(frame.header().sequence, sequence);
        assert!(frame.plane(0).0.iter().all(|&byte| byte == sequence as u8), "torn {sequence}");
        sequence += 1;
    };
    // More deaths than there are places and samples.
    for round in 0..12 {
        let mut holder = start(&world, &format!("holder{round}"), HOLD, &[]);
        wait_until("the holder to hold", 20, || {
            publish_and_read();
            let output = holder.stdout();
            assert!(holder.is_running(), "{output}{}", holder.stderr());
            (output == "holding 4\n").then_some(())
        });
        holder.signal(Signal::KILL);
        assert_eq!(holder.wait(10).signal, Some(9));
        for _ in 0..50 {
            publish_and_read();
        }
        clean(&bus);
    }
    // Both places are free but for the test's own, and every loan is there.
    let second = bus.frame_subscriber(CAMERA, Delivery::Latest, "second");
    assert!(second.is_ok(), "{second:?}");
    let loans: Vec<_> = (0..4).map(|_| publisher.loan(bytes).expect("a free sample")).collect();
    assert!(matches!(publisher.loan(bytes), Err(BusError::NoLoan { limit: 4, .. })));
    drop((loans, second, reader, publisher));
    assert!(close(bus, &domain) <= 1, "more than iceoryx2's one file per domain");
}

#[test]
fn publishers_killed_at_any_moment_leave_no_torn_frame_and_no_place_taken() {
    let world = World::new();
    let domain = domain(&world);
    let bus: Bus = Bus::open(&domain, "test").expect("bus");
    let reader = bus.frame_subscriber(CAMERA, Delivery::Latest, "test").expect("reader");
    for round in 0..12_u64 {
        let stay: &[&str] = if round % 4 == 3 { &["half"] } else { &[] };
        let word = if stay.is_empty() { "publishing" } else { "loaned" };
        let mut child = start(&world, &format!("publisher{round}"), DIE, stay);
        child.wait_for_stdout(word, 20);
        // 37 and 100 have no common factor: the kill falls on other moments.
        let wanted = if stay.is_empty() { 1 + round * 37 % 100 } else { 0 };
        let mut seen = 0;
        wait_until("frames of the child", 20, || {
            let _woken = reader.waker().wait(Duration::from_millis(20)).expect("the bus works");
            seen += whole_frames(&reader);
            (seen >= wanted).then_some(())
        });
        child.signal(Signal::KILL);
        assert_eq!(child.wait(10).signal, Some(9));
        whole_frames(&reader);
        clean(&bus);
    }
    assert_eq!(reader.bad_headers(), 0);
    drop(reader);
    assert!(close(bus, &domain) <= 1, "more than iceoryx2's one file per domain");
}

/// Reads what is there; every frame must be one frame.
fn whole_frames(reader: &framebus_bus::FrameSubscriber) -> u64 {
    let mut seen = 0;
    while let Some(frame) = reader.receive().expect("received") {
        let sequence = frame.header().sequence;
        for plane in [0, 1] {
            let whole = frame.plane(plane).0.iter().all(|&byte| byte == sequence as u8);
            assert!(whole, "torn frame {sequence}");
        }
        seen += 1;
    }
    seen
}

#[test]
fn a_slow_reader_holds_nobody_up_and_sees_whole_frames() {
    let world = World::new();
    let domain = domain(&world);
    let bus: Bus = Bus::open(&domain, "test").expect("bus");
    let (_, bytes) = header(320, 180, 0);
    let publisher =
        bus.frame_publisher(CAMERA, bytes, Delivery::Latest, Arc::default()).expect("publisher");
    let reader = bus.frame_subscriber(CAMERA, Delivery::Latest, "test").expect("reader");
    let mut slow = start(&world, "slow", SLOW, &[]);
    slow.wait_for_stdout("reading", 20);
    let mut sequence = 0;
    wait_until("five frames at the slow reader", 20, || {
        // A thousand a look, that is some thousands for each of the slow one's.
        for _ in 0..1000 {
            publish(&publisher, 320, 180, sequence).expect("never held up");
            let frame = reader.receive().expect("received").expect("nothing lost");
            assert_eq!(frame.header().sequence, sequence);
            sequence += 1;
        }
        assert!(slow.is_running(), "{}", slow.stderr());
        (slow.stdout().lines().count() > 5).then_some(())
    });
    let taken: Vec<u64> = slow
        .stdout()
        .lines()
        .filter_map(|line| line.strip_prefix("frame ")?.parse().ok())
        .collect();
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "{taken:?}");
    assert!(taken[taken.len() - 1] > 1000, "it saw new frames and not a queue: {taken:?}");
}

/// A reader opens its end of a connection when it first looks. Until then the
/// publisher has nobody to wait for, and iceoryx2 drops what does not fit.
#[test]
fn readers_that_look_late_miss_no_frame_of_an_every_frame_source() {
    const FRAMES: u64 = 12;
    let world = World::new();
    let domain = domain(&world);
    let bus: Bus = Bus::open(&domain, "test").expect("bus");
    let late = || bus.frame_subscriber(CAMERA, Delivery::EveryFrame, "late").expect("reader");
    let readers = [late(), late()];
    let (_, bytes) = header(320, 180, 0);
    let stop = Arc::default();
    let publisher =
        bus.frame_publisher(CAMERA, bytes, Delivery::EveryFrame, stop).expect("publisher");
    let source = std::thread::spawn(move || {
        for sequence in 0..FRAMES {
            publish(&publisher, 320, 180, sequence).expect("published");
        }
        publisher
    });
    // Long enough for a publisher that does not wait to be through.
    #[allow(clippy::disallowed_methods, reason = "being late is its purpose")]
    std::thread::sleep(Duration::from_millis(300));
    let mut seen = [Vec::new(), Vec::new()];
    let what = "every frame at both readers";
    wait_until(what, 20, || {
        for (reader, seen) in readers.iter().zip(&mut seen) {
            while let Some(frame) = reader.receive().expect("received") {
                let sequence = frame.header().sequence;
                assert!(frame.plane(0).0.iter().all(|&b| b == sequence as u8), "torn {sequence}");
                seen.push(sequence);
            }
        }
        let through = source.is_finished();
        assert!(!through || seen[0].len() + seen[1].len() > 4, "dropped: {seen:?}");
        seen.iter().all(|seen| seen.len() as u64 >= FRAMES).then_some(())
    });
    let all: Vec<u64> = (0..FRAMES).collect();
    assert_eq!(seen, [all.clone(), all], "each once, in order");
    drop(source.join().expect("the source ends"));
}

#[test]
fn lying_headers_are_counted_and_skipped() {
    let world = World::new();
    let domain = domain(&world);
    let bus: Bus = Bus::open(&domain, "test").expect("bus");
    let frames = bus.frame_subscriber(CAMERA, Delivery::EveryFrame, "test").expect("reader");
    let results = bus.result_subscriber("test").expect("reader");
    let mut child = start(&world, "liar", LIE, &[]);
    let (mut honest_frames, mut honest_results) = (Vec::new(), Vec::new());
    wait_until("the liar to finish", 20, || {
        while let Some(frame) = frames.receive().expect("received") {
            honest_frames.push(frame.header().sequence);
        }
        while let Some(result) = results.receive().expect("received") {
            honest_results.push(result.header().sequence);
        }
        assert!(child.is_running(), "{}", child.stderr());
        let all = honest_frames.len() >= 10 && honest_results.len() >= 10;
        (all && child.stdout() == "lied 10\n").then_some(())
    });
    assert_eq!(honest_frames, (0..10).collect::<Vec<u64>>());
    assert_eq!(honest_results, (0..10).collect::<Vec<u64>>());
    assert_eq!((frames.bad_headers(), results.bad_headers()), (10, 20));
}

#[test]
fn a_full_dev_shm_is_an_error_and_never_a_sigbus() {
    let all = limits();
    let spec = services::frames(&all, CAMERA, Delivery::Latest);
    let (_, bytes) = header(320, 180, 0);
    let (_, grown) = header(960, 540, 0);
    let need = memory::frames(&spec, bytes).total_bytes
        + memory::grown(memory::frames(&spec, grown)).total_bytes
        + memory::results(&services::results(&all), all.max_detections).total_bytes
        + memory::health(&services::health(&all), 3).total_bytes;
    let need_kib = need / 1024;
    // From nothing to enough for sure: the check keeps a margin of 1 MiB, and
    // the three event services have files of their own.
    let most_kib = need_kib + 4096;
    let steps = (0..=48).map(|step| 16 + most_kib * step / 48);
    let (mut refused_at_start, mut refused_to_grow, mut ran) = (0, 0, 0);
    for kib in steps {
        let Some(mut command) = with_shm(kib) else { return };
        let world = World::new();
        command.arg(FULL).arg(world.root()).arg(world.instance());
        let exit = Process::start("full", world.folder(), command).wait(30);
        assert_eq!(exit.signal, None, "{kib} KiB: {exit:?}");
        match exit.code {
            Some(0) => ran += 1,
            Some(69) => {
                assert_eq!(ran, 0, "{kib} KiB refused although less sufficed: {exit:?}");
                assert!(exit.stderr.contains("/dev/shm has "), "{exit:?}");
                assert!(exit.stderr.contains("mount it larger"), "{exit:?}");
                if exit.stdout.contains("started") {
                    refused_to_grow += 1;
                } else {
                    refused_at_start += 1;
                }
            }
            // iceoryx2's own bookkeeping files, before anything is asked of us:
            // an error too, in its words.
            Some(70) if kib < 2048 => {
                assert!(exit.stderr.contains("bus service"), "{kib} KiB: {exit:?}");
                refused_at_start += 1;
            }
            _ => panic!("{kib} KiB: {exit:?}"),
        }
    }
    assert!(refused_at_start > 0, "the smallest cannot suffice");
    assert!(refused_to_grow > 0, "growth was never refused");
    assert!(ran > 0, "need + 4 MiB must suffice");
}
