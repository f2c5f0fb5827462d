//! What a subscriber gets from a publisher of this very process: pairs, losses, lag,
//! wake-ups.

use async_io::{Async, Timer, block_on};
use framebus_bus::{Bus, Delivery, Domain, FramePublisher, Limits, ResultPublisher};
use framebus_client::{BusError, Client};
use framebus_types::{Event, EventKind, Fourcc, FrameHeader, Outcome, ResultHeader, text};
use futures_lite::future;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::park_timeout;
use std::time::Duration;

const SIDE: u32 = 32;
const BYTES: usize = (SIDE * SIDE * 3 / 2) as usize;
const MS: Duration = Duration::from_millis(1);

/// An instance with the camera `cam`.
struct World {
    frames: FramePublisher,
    results: ResultPublisher,
    client: Client,
    sent: AtomicU64,
    bus: Bus,
    // After everybody who is in it.
    _domain: Left,
    _folder: tempfile::TempDir,
}

/// Leaves nothing of a domain behind.
struct Left(Domain);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.remove_leftovers().expect("removable");
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("a folder");
        let name = folder.path().file_name().expect("a name").to_string_lossy().to_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let domain = Domain::new(&name, folder.path(), Limits::default()).expect("valid");
        let bus: Bus = Bus::open(&domain, "test").expect("opens");
        let frames = bus
            .frame_publisher("cam", BYTES, Delivery::Latest, Arc::default())
            .expect("a publisher");
        let results = bus.result_publisher(Arc::default()).expect("a publisher");
        let client = Client::connect_in(&name, folder.path()).expect("connects");
        Self {
            frames,
            results,
            client,
            sent: AtomicU64::new(0),
            bus,
            _domain: Left(domain),
            _folder: folder,
        }
    }

    fn frame(&self, sequence: u64) {
        let mut loan = self.frames.loan(BYTES).expect("a loan");
        loan.payload_mut().fill(sequence as u8);
        let header = FrameHeader {
            camera: text::pack("cam"),
            sequence,
            epoch_ns: 7,
            width: SIDE,
            height: SIDE,
            fourcc: Fourcc::Nv12.into(),
            strides: [SIDE, SIDE, 0, 0],
            offsets: [0, SIDE * SIDE, 0, 0],
            publish_ns: monotonic_ns(),
            ..FrameHeader::default()
        };
        self.frames.publish(loan, &header).expect("sent");
    }

    fn result(&self, camera: &str, sequence: u64) {
        let mut header = ResultHeader {
            camera: text::pack(camera),
            sequence,
            epoch_ns: 7,
            result_sequence: self.sent.fetch_add(1, Ordering::Relaxed),
            outcome: Outcome::Ok.into(),
            ..ResultHeader::default()
        };
        header.times.result_ns = monotonic_ns();
        self.results.publish(&header, &[]).expect("sent");
    }
}

fn monotonic_ns() -> u64 {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("positive").as_nanos() as u64
}

#[test]
fn a_frame_comes_with_its_own_result() {
    let world = World::new();
    let mut pairs = world.client.joined("cam").expect("subscribes");
    assert!(pairs.poll().expect("nothing").is_none());
    // A result before its frame, of which the publisher knows nothing any more.
    world.result("cam", 0);
    assert!(pairs.poll().expect("nothing").is_none());
    assert_eq!(pairs.unmatched(), 1);
    for number in 1..4 {
        world.frame(number);
        assert!(pairs.poll().expect("no result yet").is_none());
    }
    world.result("other", 2);
    world.result("cam", 2);
    let (frame, result) = pairs.poll().expect("polls").expect("the pair");
    assert_eq!((frame.header().sequence, result.header().sequence), (2, 2));
    assert!(frame.plane(0).0.iter().all(|&luma| luma == 2), "its own pixels");
    drop((frame, result));
    for number in [1, 3] {
        world.result("cam", number);
        let (frame, _) = pairs.poll().expect("polls").expect("the pair");
        assert_eq!(frame.header().sequence, number, "results may overtake each other");
    }
    // Three wait at most: the fourth sends the first away.
    for number in 4..8 {
        world.frame(number);
        assert!(pairs.poll().expect("no result yet").is_none());
    }
    world.result("cam", 4);
    world.result("cam", 5);
    let pair = pairs.wait_for(100 * MS).expect("waits").expect("the pair");
    assert_eq!((pair.0.header().sequence, pairs.unmatched()), (5, 2));
    // What is held leaves less room; the reader is not stuck.
    world.frame(8);
    world.result("cam", 8);
    let other = pairs.wait_for(100 * MS).expect("waits").expect("the pair");
    assert_eq!(other.0.header().sequence, 8);
    let lost = (pairs.frames().lost(), pairs.results().lost());
    assert_eq!(lost, (0, 0), "nothing was lost on the way");
}

#[test]
fn a_pair_wakes_its_reader_and_a_wait_has_an_end() {
    let world = World::new();
    let mut pairs = world.client.joined("cam").expect("subscribes");
    let begin = monotonic_ns();
    assert!(pairs.wait_for(50 * MS).expect("waits").is_none());
    assert!(monotonic_ns() - begin >= 50_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3 {
                park_timeout(20 * MS);
                world.frame(number);
                park_timeout(5 * MS);
                world.result("cam", number);
            }
        });
        for number in 0..3 {
            let (frame, _) = pairs.wait_for(10_000 * MS).expect("waits").expect("a pair");
            assert_eq!(frame.header().sequence, number);
        }
    });
}

#[test]
fn losses_lag_and_what_may_be_held_are_told() {
    let world = World::new();
    let (mut results, mut frames) =
        (world.client.results().expect("joins"), world.client.frames("cam").expect("joins"));
    for number in 0..200 {
        world.result("cam", number);
    }
    world.frame(0);
    assert_eq!(frames.poll().expect("polls").expect("a frame").header().sequence, 0);
    world.frame(1);
    world.frame(5);
    park_timeout(20 * MS);
    assert_eq!(results.poll().expect("polls").expect("a result").header().sequence, 72);
    assert!(results.lag() >= 20 * MS, "{:?}", results.lag());
    assert_eq!(results.lost(), 0, "nothing was ours before the first");
    for number in 200..210 {
        world.result("cam", number);
    }
    assert_eq!(results.poll().expect("polls").expect("a result").header().sequence, 82);
    assert_eq!(results.lost(), 9, "of ten the place of one was free");
    let held = frames.poll().expect("polls").expect("a frame");
    assert!(frames.lag() >= 20 * MS, "{:?}", frames.lag());
    assert_eq!((held.header().sequence, frames.lost()), (5, 4));
    assert_eq!(frames.limit(), 4);
    let mut all = vec![held];
    for number in 6..9 {
        world.frame(number);
        all.extend(frames.poll().expect("a frame"));
    }
    world.frame(9);
    let error = frames.poll().expect_err("one too many");
    assert!(matches!(error, BusError::NoLoan { limit: 4, .. }), "{error}");
    all.clear();
    assert_eq!(frames.wait().expect("given back").header().sequence, 9);
}

#[test]
fn an_asynchronous_reader_misses_nothing() {
    let world = World::new();
    let mut results = world.client.results().expect("subscribes");
    let descriptor = results.as_fd().try_clone_to_owned().expect("a descriptor");
    let descriptor = Async::new_nonblocking(descriptor).expect("a reactor");
    let mut next = |limit: Duration| {
        let result = async { Some(results.wait_async(async || descriptor.readable().await).await) };
        let late = async {
            Timer::after(limit).await;
            None
        };
        block_on(future::or(result, late))
    };
    assert!(next(50 * MS).is_none(), "nothing was sent");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..120 {
                world.result("cam", number);
                // Bursts, pauses, and what comes while the reader falls asleep; never more
                // than its buffer has room for.
                if number % 7 == 0 {
                    park_timeout(Duration::from_micros(100 * (number % 10)));
                }
            }
        });
        for number in 0..120 {
            let result = next(10_000 * MS).expect("a wake-up").expect("a result");
            assert_eq!(result.header().sequence, number);
        }
    });
    assert!(next(50 * MS).is_none(), "a wake-up is used up");
}

#[test]
fn an_asynchronous_pair_waits_for_either() {
    let world = World::new();
    let mut pairs = world.client.joined("cam").expect("subscribes");
    let source = |stream: &dyn AsFd| {
        Async::new_nonblocking(stream.as_fd().try_clone_to_owned().expect("a descriptor"))
            .expect("a reactor")
    };
    let (frames, results) = (source(pairs.frames()), source(pairs.results()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20 {
                world.frame(number);
                park_timeout(MS);
                world.result("cam", number);
                park_timeout(2 * MS);
            }
        });
        let either = async || future::or(frames.readable(), results.readable()).await;
        let (frame, result) = block_on(pairs.wait_async(either)).expect("a pair");
        assert_eq!(frame.header().sequence, result.header().sequence);
    });
}

#[test]
fn events_are_waited_for_in_every_way() {
    let world = World::new();
    let publisher = world.bus.event_publisher().expect("a publisher");
    let mut events = world.client.events().expect("subscribes");
    let descriptor = events.as_fd().try_clone_to_owned().expect("a descriptor");
    let descriptor = Async::new_nonblocking(descriptor).expect("a reactor");
    let send = |number: u64| {
        let kind = EventKind::Enter.into();
        let event = Event { kind, event_sequence: number, ..Event::default() };
        publisher.publish(&[event]).expect("sent");
    };
    let newer = Event { version: 9, kind: EventKind::Enter.into(), ..Event::default() };
    publisher.publish(&[newer]).expect("sent");
    let error = events.poll().expect_err("another version").to_string();
    assert!(error.starts_with("events carries header version 9"), "{error}");
    send(0);
    assert!(events.poll().expect("reads").is_some());
    publisher.publish(&[newer]).expect("sent");
    assert!(events.poll().expect("no reason to end").is_none());
    assert_eq!(events.bad_events(), 1);
    let begin_ns = monotonic_ns();
    assert!(events.wait_for(50 * MS).expect("waits").is_none(), "it was taken before");
    assert!(monotonic_ns() - begin_ns >= 50_000_000, "a wake-up that is used up ends no wait");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..20 {
                send(number);
                park_timeout(MS);
            }
        });
        for number in 1..20 {
            let event = if number % 2 == 0 {
                events.wait().expect("an event")
            } else {
                block_on(events.wait_async(async || descriptor.readable().await)).expect("an event")
            };
            assert_eq!(event.event_sequence, number);
        }
    });
    assert_eq!(events.lost(), 0);
}
