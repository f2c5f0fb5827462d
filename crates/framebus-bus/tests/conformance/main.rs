//! What the bus promises, over iceoryx2's in-process and inter-process
//! transports alike.

mod observers;
mod world;

use framebus_bus::{BusError, Delivery, FramePublisher, Limits, wake};
use framebus_types::{
    Counter, Detection, FrameHeader, Health, Outcome, ResultHeader, Role, State, text,
};
use iceoryx2::service::Service;
use observers::*;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::*;

fn latest_keeps_the_newest<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let subscriber = bus.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    for sequence in 0..10 {
        assert_eq!(send(&publisher, sequence), 1);
    }
    assert_eq!(sequences(&subscriber), [9]);
}

fn a_hoarding_reader_harms_only_itself<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let hoarder = bus.frame_subscriber("a", Delivery::Latest, "hoarder").expect("subscriber");
    let reader = bus.frame_subscriber("a", Delivery::Latest, "reader").expect("subscriber");
    let mut hoard = Vec::new();
    for sequence in 0..50 {
        assert_eq!(send(&publisher, sequence), 2);
        match hoarder.receive() {
            Ok(Some(frame)) => hoard.push(frame),
            Ok(None) => panic!("a frame was sent"),
            Err(error) => assert!(matches!(error, BusError::NoLoan { limit: 4, .. }), "{error}"),
        }
        assert_eq!(sequences(&reader), [sequence]);
    }
    // What it holds has not been overwritten.
    for (sequence, frame) in hoard.iter().enumerate() {
        assert_eq!(frame.header().sequence, sequence as u64);
        assert!(frame.plane(0).0.iter().all(|&byte| byte == sequence as u8));
    }
    assert_eq!(hoard.len(), 4);
}

fn every_frame_loses_nothing<S: Service + 'static>()
where
    FramePublisher<S>: Send,
{
    const FRAMES: u64 = 200;
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher =
        bus.frame_publisher("a", BYTES, Delivery::EveryFrame, never()).expect("publisher");
    assert!(!publisher.has_reader("infer"));
    let subscriber = bus.frame_subscriber("a", Delivery::EveryFrame, "infer").expect("subscriber");
    assert!(publisher.has_reader("infer"));
    let sender = std::thread::spawn(move || {
        for sequence in 0..FRAMES {
            assert_eq!(send(&publisher, sequence), 1);
        }
        publisher
    });
    let mut seen = Vec::new();
    while seen.len() < FRAMES as usize {
        seen.extend(sequences(&subscriber));
        #[allow(clippy::disallowed_methods)] // the slow reader of this test
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(seen, (0..FRAMES).collect::<Vec<_>>());
    drop(sender.join().expect("sender ends"));
}

fn a_waiting_publisher_can_be_stopped<S: Service + 'static>()
where
    FramePublisher<S>: Send,
{
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let stop = never();
    let publisher =
        bus.frame_publisher("a", BYTES, Delivery::EveryFrame, stop.clone()).expect("publisher");
    let _full = bus.frame_subscriber("a", Delivery::EveryFrame, "infer").expect("subscriber");
    let sender = std::thread::spawn(move || {
        (0..100).for_each(|sequence| {
            send(&publisher, sequence);
        });
        publisher
    });
    stop.store(true, Ordering::Relaxed);
    drop(sender.join().expect("sender ends although nobody reads"));
}

fn a_camera_may_change_its_size<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let subscriber = bus.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    for (sequence, (width, height)) in
        [(64, 32), (1280, 720), (320, 240), (1922, 1080)].into_iter().enumerate()
    {
        let bytes = (width * height * 3 / 2) as usize;
        let mut loan = publisher.loan(bytes).expect("a loan");
        loan.payload_mut().fill(sequence as u8 + 1);
        publisher.publish(loan, &header(sequence as u64, width, height)).expect("sent");
        let frame = subscriber.receive().expect("receives").expect("a frame");
        let (luma, stride) = frame.plane(0);
        let (chroma, _) = frame.plane(1);
        assert_eq!((luma.len(), stride), ((width * height) as usize, width as usize));
        assert!(luma.iter().chain(chroma).all(|&byte| byte == sequence as u8 + 1));
        assert_eq!(luma.as_ptr() as usize % 64, 0, "rows start aligned");
    }
}

fn frames_name_their_segment<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let subscriber = bus.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    let open = || bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let loan = |publisher: &FramePublisher<S>, width: u32, height: u32| {
        publisher.loan((width * height * 3 / 2) as usize).expect("a loan")
    };
    let mut sequence = 0;
    let mut name = |publisher: &FramePublisher<S>, loan, width, height| {
        sequence += 1;
        // What the caller says of it is not asked.
        let header = FrameHeader { segment: 77, ..header(sequence, width, height) };
        publisher.publish(loan, &header).expect("sent");
        let frame = subscriber.receive().expect("receives").expect("a frame");
        let address = frame.plane(0).0.as_ptr() as usize;
        (frame.memory().expect("a name"), mapped_file(address))
    };
    let mut seen = Vec::new();
    let publisher = open();
    let early = loan(&publisher, WIDTH, HEIGHT);
    // Grown to the next power of two, which leaves room for the frame after it.
    for (width, height) in [(64, 32), (32, 16), (1280, 720), (1312, 736), (64, 32), (1920, 1080)] {
        seen.push(name(&publisher, loan(&publisher, width, height), width, height));
    }
    seen.push(name(&publisher, early, WIDTH, HEIGHT));
    seen.push(name(&publisher, loan(&publisher, WIDTH, HEIGHT), WIDTH, HEIGHT));
    let numbers: Vec<u32> = seen.iter().map(|(id, _)| id.segment).collect();
    assert_eq!(numbers, [1, 1, 2, 2, 2, 3, 1, 3]);
    let first = seen[0].0.publisher;
    assert!(seen.iter().all(|(id, _)| id.publisher == first), "{seen:x?}");
    drop(publisher);
    let publisher = open();
    seen.push(name(&publisher, loan(&publisher, WIDTH, HEIGHT), WIDTH, HEIGHT));
    let (restarted, _) = seen[seen.len() - 1];
    assert!(restarted.segment == 1 && restarted.publisher != first, "{restarted:x?}");
    // In-process memory has no files.
    for ((one, file), (other, other_file)) in
        seen.iter().flat_map(|one| seen.iter().map(move |other| (one, other)))
    {
        let files = file.zip(*other_file);
        assert!(files.is_none_or(|(a, b)| (a == b) == (one == other)), "{seen:x?}");
    }
}

/// Inode of the shared memory that is mapped at `address`; `None` for the heap.
fn mapped_file(address: usize) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|line| {
        let (start, end) = line.split_once(' ').expect("range").0.split_once('-').expect("range");
        let number = |text| usize::from_str_radix(text, 16).expect("hexadecimal");
        (number(start)..number(end)).contains(&address)
    });
    let inode = line.expect("mapped").split_ascii_whitespace().nth(4).expect("inode");
    Some(inode.parse().expect("a number")).filter(|&inode| inode != 0)
}

fn a_frame_that_is_sent_again_names_its_new_segment<S: Service + 'static>()
where
    FramePublisher<S>: Sync,
{
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    // Before the publisher: it does not look for it until it first receives.
    let subscriber = bus.frame_subscriber("a", Delivery::EveryFrame, "test").expect("subscriber");
    let publisher =
        bus.frame_publisher("a", BYTES, Delivery::EveryFrame, never()).expect("publisher");
    let mut ids = std::thread::scope(|scope| {
        // What does not fit into the reader's buffer is sent again until it looks.
        let sender = scope.spawn(|| (0..3).map(|sequence| send(&publisher, sequence)).last());
        // Each sending wakes it, also one that did not reach it. After the third the
        // last frame is sent again and again.
        let wake = || subscriber.waker().wait(Duration::from_secs(1)).expect("waits");
        // A sending may be seen before its signal, which then wakes for nothing.
        let wakes = |count: usize| (0..count).for_each(|_| assert!((0..20).any(|_| wake())));
        wakes(5);
        drop(publisher.loan(100 * BYTES).expect("a larger segment"));
        // One wake-up may be an older sending's, one loan may have been made before.
        wakes(3);
        assert!(!sender.is_finished());
        let mut ids = Vec::new();
        while ids.len() < 3 {
            match subscriber.receive().expect("receives") {
                Some(frame) => ids.push((frame.header().sequence, frame.memory().expect("a name"))),
                None => assert!((0..20).any(|_| wake()), "sent again"),
            }
        }
        ids
    });
    ids.sort_by_key(|&(sequence, _)| sequence);
    let numbers: Vec<_> = ids.iter().map(|(sequence, id)| (*sequence, id.segment)).collect();
    assert_eq!(numbers, [(0, 1), (1, 1), (2, 2)]);
}

fn lying_headers_are_skipped<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher =
        bus.frame_publisher("a", BYTES, Delivery::EveryFrame, never()).expect("publisher");
    let subscriber = bus.frame_subscriber("a", Delivery::EveryFrame, "test").expect("subscriber");
    let loan = publisher.loan(BYTES).expect("a loan");
    publisher.publish(loan, &header(0, WIDTH, HEIGHT * 2)).expect("sent");
    send(&publisher, 1);
    assert_eq!(sequences(&subscriber), [1]);
    assert_eq!(subscriber.bad_headers(), 1);
}

fn results_arrive_whole_and_in_order<S: Service>() {
    let world = World::new(Limits { result_buffer: 8, ..Limits::default() });
    let bus = world.bus::<S>("test");
    let subscriber = bus.result_subscriber("test").expect("subscriber");
    let publisher = bus.result_publisher(never()).expect("publisher");
    let found =
        Detection { score: 0.5, class: 3, label: text::pack("bus"), ..Detection::default() };
    for sequence in 0..20 {
        let header = ResultHeader {
            camera: text::pack("a"),
            outcome: Outcome::Ok.into(),
            result_sequence: sequence,
            ..ResultHeader::default()
        };
        publisher.publish(&header, &vec![found; sequence as usize]).expect("sent");
    }
    for sequence in 12..20 {
        let result = subscriber.receive().expect("receives").expect("the newest eight are there");
        assert_eq!(result.header().result_sequence, sequence);
        assert_eq!(result.outcome(), Outcome::Ok);
        assert_eq!(result.detections(), vec![found; sequence as usize]);
    }
    assert!(subscriber.receive().expect("receives").is_none());
}

fn unknown_outcomes_are_skipped<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let subscriber = bus.result_subscriber("test").expect("subscriber");
    let publisher = bus.result_publisher(never()).expect("publisher");
    publisher.publish(&ResultHeader::default(), &[]).expect("sent");
    assert!(subscriber.receive().expect("receives").is_none());
    assert_eq!(subscriber.bad_headers(), 1);
}

fn health_reaches_its_readers<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let subscriber = bus.health_subscriber().expect("subscriber");
    let publisher = bus.health_publisher(2).expect("publisher");
    let mut record = Health {
        role: Role::Sink.into(),
        state: State::Live.into(),
        name: text::pack("x"),
        ..Health::default()
    };
    record.counters[Counter::Lost as usize] = 7;
    publisher.publish(&[record, Health::default(), record]).expect("sent");
    let mut records = Vec::new();
    // One has no role, one is beyond the announced two.
    assert_eq!(subscriber.receive_into(&mut records).expect("receives"), 1);
    assert_eq!(records, [record]);
}

fn domains_do_not_meet<S: Service>() {
    let (one, two) = (World::new(Limits::default()), World::new(Limits::default()));
    let (bus, other) = (one.bus::<S>("test"), two.bus::<S>("test"));
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    assert!(matches!(other.join_frames("a", "test"), Err(BusError::Absent { .. })));
    let stranger = other.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    assert_eq!(send(&publisher, 0), 0);
    assert_eq!(sequences(&stranger), []);
}

fn readers_wake_up<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let subscriber = bus.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    assert!(!subscriber.waker().wait(Duration::from_millis(1)).expect("waits"));
    send(&publisher, 0);
    assert!(subscriber.waker().wait(Duration::from_secs(5)).expect("waits"));
}

#[test]
fn a_domain_in_use_is_left_alone() {
    let world = World::new(Limits::default());
    let bus = world.bus::<framebus_bus::Ipc>("test");
    assert!(world.domain.in_use());
    assert!(world.domain.remove_leftovers().expect("looks").is_empty());
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let subscriber = bus.frame_subscriber("a", Delivery::Latest, "test").expect("subscriber");
    send(&publisher, 0);
    assert_eq!(sequences(&subscriber), [0]);
    drop((publisher, subscriber, bus));
    assert!(!world.domain.in_use());
}

#[test]
fn one_thread_learns_which_of_its_readers_woke_it() {
    let world = World::new(Limits::default());
    let bus = world.bus::<framebus_bus::Ipc>("test");
    let cameras = ["a", "b", "c"];
    let publishers = cameras.map(|camera| {
        bus.frame_publisher(camera, BYTES, Delivery::Latest, never()).expect("publisher")
    });
    let readers = cameras
        .map(|camera| bus.frame_subscriber(camera, Delivery::Latest, "test").expect("subscriber"));
    let wakers = readers.each_ref().map(|reader| reader.waker());
    send(&publishers[2], 0);
    let mut seen: Vec<Vec<usize>> = Vec::new();
    wake::run(&wakers, Duration::from_millis(20), |woken| {
        seen.push(woken.to_vec());
        match seen.len() {
            1 => assert_eq!(send(&publishers[1], 0), 1),
            // Nothing is sent: the next call comes of the time alone.
            2 => {}
            3 => publishers[..2].iter().for_each(|camera| assert_eq!(send(camera, 1), 1)),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })
    .expect("waits");
    seen[3].sort_unstable();
    assert_eq!(seen, [vec![2], vec![1], vec![], vec![0, 1]]);
}

macro_rules! conformance {
    ($($test:ident)+) => {
        mod local { $(#[test] fn $test() { super::$test::<framebus_bus::Local>(); })+ }
        mod ipc { $(#[test] fn $test() { super::$test::<framebus_bus::Ipc>(); })+ }
    };
}

conformance! {
    latest_keeps_the_newest
    a_hoarding_reader_harms_only_itself
    every_frame_loses_nothing
    a_waiting_publisher_can_be_stopped
    observers_are_never_waited_for
    observers_leave_inference_its_place
    a_camera_may_change_its_size
    frames_name_their_segment
    a_frame_that_is_sent_again_names_its_new_segment
    lying_headers_are_skipped
    results_arrive_whole_and_in_order
    unknown_outcomes_are_skipped
    health_reaches_its_readers
    a_stranger_joins_whatever_the_limits_are
    observers_are_told_of_another_version
    domains_do_not_meet
    readers_wake_up
}
