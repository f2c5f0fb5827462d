//! Readers that have joined from outside.

use super::world::*;
use framebus_bus::{Bus, BusError, Delivery, Domain, Limits};
use framebus_types::{FrameHeader, Outcome, ResultHeader};
use iceoryx2::service::Service;

pub(crate) fn observers_are_never_waited_for<S: Service>() {
    let world = World::new(Limits { offline: true, result_buffer: 2, ..Limits::default() });
    let bus = world.bus::<S>("test");
    let publisher =
        bus.frame_publisher("a", BYTES, Delivery::EveryFrame, never()).expect("publisher");
    let results = bus.result_publisher(never()).expect("publisher");
    let member = bus.frame_subscriber("a", Delivery::EveryFrame, "infer").expect("subscriber");
    let hung = bus.join_frames("a", "hung").expect("observer");
    let hung_results = bus.join_results("hung").expect("observer");
    assert!(!publisher.has_reader("hung"), "an observer cannot pass for a member");
    let header = ResultHeader { outcome: Outcome::Ok.into(), ..ResultHeader::default() };
    let mut seen = Vec::new();
    for sequence in 0..50 {
        send(&publisher, sequence);
        seen.extend(sequences(&member));
        results.publish(&header, &[]).expect("sent");
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    assert_eq!(sequences(&hung), [0, 1], "it lost its own newest");
    assert!(hung_results.receive().expect("receives").is_some());
}

pub(crate) fn observers_leave_inference_its_place<S: Service>() {
    let world = World::new(Limits { frame_subscribers: 3, ..Limits::default() });
    let bus = world.bus::<S>("test");
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let infer = bus.frame_subscriber("a", Delivery::Latest, "infer").expect("subscriber");
    let join = || bus.join_frames("a", "observer");
    let mut observers = vec![join().expect("a place"), join().expect("a place")];
    drop(infer);
    let told = join().expect_err("the place left is not its own").to_string();
    let expected = "frames/a has as many readers as it has room for: end one (a `framebus tap`, a \
                    subscriber), or raise bus.frame_subscribers and restart the instance";
    assert_eq!(told, expected);
    let infer = bus.frame_subscriber("a", Delivery::Latest, "infer").expect("it is back");
    observers.pop();
    observers.push(join().expect("whoever leaves makes room"));
    assert_eq!(send(&publisher, 0), 3);
    assert_eq!(sequences(&infer), [0]);
    assert_eq!(sequences(&observers[1]), [0]);
    let alone = World::new(Limits { frame_subscribers: 1, ..Limits::default() });
    let bus = alone.bus::<S>("test");
    let _publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    assert!(matches!(bus.join_frames("a", "observer"), Err(BusError::Full { .. })));
}

pub(crate) fn a_stranger_joins_whatever_the_limits_are<S: Service>() {
    let small = Limits { frame_subscribers: 2, result_subscribers: 2, ..Limits::default() };
    let world = World::new(small);
    let bus = world.bus::<S>("test");
    let domain =
        Domain::new(world.domain.instance(), world.root.path(), Limits::default()).expect("valid");
    let stranger: Bus<S> = Bus::open(&domain, "stranger").expect("bus opens");
    assert!(matches!(stranger.join_results("stranger"), Err(BusError::Absent { .. })));
    let publisher = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let _results = bus.result_publisher(never()).expect("publisher");
    let _health = bus.health_publisher(1).expect("publisher");
    let frames = stranger.join_frames("a", "stranger").expect("frames");
    stranger.join_results("stranger").expect("results");
    stranger.join_health().expect("health");
    send(&publisher, 0);
    assert_eq!(sequences(&frames), [0]);
}

pub(crate) fn observers_are_told_of_another_version<S: Service>() {
    let world = World::new(Limits::default());
    let bus = world.bus::<S>("test");
    let publisher = bus.result_publisher(never()).expect("publisher");
    let frames = bus.frame_publisher("a", BYTES, Delivery::Latest, never()).expect("publisher");
    let member = bus.result_subscriber("member").expect("subscriber");
    let observer = bus.join_results("observer").expect("observer");
    let pixels = bus.join_frames("a", "observer").expect("observer");
    let outcome = Outcome::Ok.into();
    let newer = ResultHeader { version: 9, outcome, ..ResultHeader::default() };
    publisher.publish(&newer, &[]).expect("sent");
    publisher.publish(&ResultHeader { version: 1, ..newer }, &[]).expect("sent");
    let loan = frames.loan(BYTES).expect("a loan");
    frames.publish(loan, &FrameHeader { version: 9, ..header(0, WIDTH, HEIGHT) }).expect("sent");
    let told = [
        observer.receive().expect_err("another version").to_string(),
        pixels.receive().expect_err("another version").to_string(),
    ];
    for (error, service) in told.iter().zip(["results", "frames/a"]) {
        let expected = "carries header version 9, this program reads version 1: build it with";
        assert!(error.starts_with(&format!("{service} {expected}")), "{error}");
    }
    assert!(observer.receive().expect("receives").is_some(), "the next one is of ours");
    assert!(member.receive().expect("receives").is_some(), "a member skips");
    assert_eq!((member.bad_headers(), observer.bad_headers()), (1, 0));
}
