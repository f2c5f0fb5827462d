//! Tracks, zones and events of a pipeline over the real bus.

mod common;

use common::{CLIP, Feeder, LIVE, Pipeline, Played, World, source, until};
use framebus_bus::Limits;
use framebus_infer::{Scenery, Source};
use framebus_types::{Counter, Event, EventKind, FLAG_MOTION_MEASURED, Outcome};
use framebus_vision::{Anchor, Detection, Line, TrackSettings, Zone};
use std::sync::Arc;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Time between two frames, ns.
const STEP: u64 = 40_000_000;
const SECOND: u64 = 1_000_000_000;

/// A zone in the middle third, a line in the middle of the picture.
fn scenery() -> Scenery {
    let (left, right) = (1.0 / 3.0, 2.0 / 3.0);
    let points = vec![[left, 0.0], [right, 0.0], [right, 1.0], [left, 1.0]];
    let anchor = Anchor::Center;
    let zone = Zone { points, classes: vec![], dwell_ns: SECOND / 2, anchor };
    let line = Line { from: [0.5, 0.0], to: [0.5, 1.0], classes: vec![0], anchor };
    Scenery {
        tracking: TrackSettings { lost_ns: SECOND / 5, ..TrackSettings::default() },
        zones: vec![("middle".to_owned(), zone)],
        lines: vec![("half".to_owned(), line)],
    }
}

/// One object: at frame n its centre is 6 n pixels from the left; none from frame 100 on.
fn passing(number: u8, found: &mut Vec<Detection>) {
    if number < 100 {
        let x = 6.0 * f32::from(number);
        let bbox = [x - 20.0, 100.0, x + 20.0, 200.0];
        found.push(Detection { bbox, score: 0.9, class: 0 });
    }
}

/// One object that stays in the middle.
fn staying(_: u8, found: &mut Vec<Detection>) {
    found.push(Detection { bbox: [310.0, 100.0, 330.0, 200.0], score: 0.9, class: 0 });
}

fn engine(find: fn(u8, &mut Vec<Detection>)) -> Played {
    Played { find: Arc::new(find), ..Played::new(|_, _, _| Ok(())) }
}

fn followed(name: &str, policy: framebus_infer::scheduler::Policy) -> Source {
    Source { scenery: Some(scenery()), ..source(name, policy) }
}

/// Frame `n` of a recording; capture times lie, presentation times do not.
fn send_recorded(feeder: &mut Feeder, n: u64) {
    feeder.send_with(|header| {
        header.pts_ns = n * STEP;
        header.wall_ns = 1_000 + n;
    });
}

/// `sequence kind place direction` of events.
fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| {
        let kind = EventKind::try_from(event.kind).expect("known").as_str();
        let way = ["", " forward", " backward"][event.direction as usize];
        format!("{} {kind} {}{way}", event.sequence, event.place()).trim_end().to_owned()
    };
    events.iter().map(text).collect()
}

/// Plays the recording of 110 frames and answers its events, those after the stop included.
fn play(contexts: usize) -> Vec<Event> {
    let world = World::new(Limits { in_flight: 2, ..Limits::default() });
    let engine = Played { contexts, ..engine(passing) };
    let mut pipeline = world.start_with(engine, vec![followed("door", CLIP)]);
    let mut feeder = world.camera("door", CLIP, WIDTH, HEIGHT);
    let mut events = Vec::new();
    for n in 0..110 {
        send_recorded(&mut feeder, n);
        let got = pipeline.next();
        assert_eq!((got.sequence, got.outcome), (n, Outcome::Ok));
        if n < 100 {
            let [found] = got.detections[..] else { panic!("one object: {got:?}") };
            assert_eq!(found.track, u64::from(n > 0), "one track, from the second frame on");
            let x = 6 * n;
            // Clear of the zone's edges.
            if !(200..=225).contains(&x) && !(415..=440).contains(&x) {
                assert_eq!(found.zones, u64::from(x > 213 && x < 427), "frame {n}");
            }
        }
        events.extend(pipeline.events());
    }
    let published = pipeline.vitals[0].get(Counter::Events);
    assert_eq!(published, events.len() as u64);
    events
}

#[test]
fn an_object_that_passes_is_told_of_step_by_step() {
    let events = play(1);
    let texts = texts(&events);
    let kinds: Vec<&str> =
        texts.iter().map(|text| text.split_once(' ').expect("a number").1).collect();
    // Walking down along the line, the left hand is on the right of the picture.
    assert_eq!(
        kinds,
        [
            "appear",
            "enter middle",
            "dwell middle",
            "cross half backward",
            "leave middle",
            "disappear"
        ],
        "{texts:?}"
    );
    assert_eq!(texts[0], "1 appear");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.camera(), "door");
        assert_eq!((event.label(), event.class, event.track), ("thing", 0, 1));
        assert_eq!(event.event_sequence, number as u64);
        assert_eq!((event.width, event.height), (WIDTH, HEIGHT));
        assert_eq!(event.wall_ns, 1_000 + event.sequence, "the frame's");
        assert_eq!(event.id(), format!("door-1-{}-0", event.sequence));
    }
    // Dwells by the recording's own time, which was played much faster.
    let (enter, dwell) = (&events[1], &events[2]);
    let waited = (dwell.sequence - enter.sequence) * STEP;
    assert!((SECOND / 2..SECOND / 2 + 2 * STEP).contains(&waited), "{waited} ns");
    // Not seen since frame 99: gone after 0.2 s, at the place where it was last.
    let gone = &events[5];
    assert_eq!((gone.sequence, gone.bbox[2]), (105, 6.0 * 99.0 + 20.0));
    assert_eq!(gone.age_ns, 98 * STEP, "from its second frame to its last");
}

#[test]
fn a_recording_gives_the_same_events_however_it_is_worked_on() {
    let name = |event: &Event| (event.id(), event.kind, event.direction, event.track, event.age_ns);
    let of = |events: &[Event]| events.iter().map(name).collect::<Vec<_>>();
    assert_eq!(of(&play(1)), of(&play(2)));
}

/// Sends a live frame and waits for its result.
fn send(feeder: &mut Feeder, pipeline: &Pipeline) {
    feeder.send();
    assert_eq!(pipeline.next().outcome, Outcome::Ok);
}

#[test]
fn what_was_there_disappears_when_the_camera_falls_silent_and_at_the_stop() {
    let world = World::new(Limits::default());
    let mut silent = followed("silent", LIVE);
    silent.stall_ns = SECOND / 10;
    let mut pipeline = world.start_with(engine(staying), vec![silent, followed("open", LIVE)]);
    let mut feeders = ["silent", "open"].map(|name| world.camera(name, LIVE, WIDTH, HEIGHT));
    for _ in 0..2 {
        feeders.iter_mut().for_each(|feeder| send(feeder, &pipeline));
    }
    let begun = ["1 appear", "1 enter middle"];
    let ended = ["1 leave middle", "1 disappear"];
    let of = |events: &[Event], camera: &str| {
        let own: Vec<Event> =
            events.iter().filter(|event| event.camera() == camera).copied().collect();
        let named = own.iter().enumerate().all(|(index, event)| event.index == index as u32);
        assert!(named, "events of one frame have numbers: {own:?}");
        texts(&own)
    };
    until(|| pipeline.vitals[0].get(Counter::Events) == 4);
    let mut events = pipeline.next_events(6);
    assert_eq!(of(&events, "silent"), [begun, ended].concat(), "no frame came since");
    assert_eq!(of(&events, "open"), begun);

    // It comes back: another object, as far as anybody knows.
    (0..2).for_each(|_| send(&mut feeders[0], &pipeline));
    let back = pipeline.next_events(2);
    assert_eq!(texts(&back), ["3 appear", "3 enter middle"]);
    assert!(back.iter().all(|event| event.track == 2));

    pipeline.shutdown.request();
    let last = pipeline.next_events(4);
    assert_eq!(last.len(), 4, "{:?}", texts(&last));
    events.extend(last);
    assert_eq!(of(&events, "open"), [begun, ended].concat());
}

#[test]
fn nothing_is_lost_while_nothing_moves() {
    let world = World::new(Limits::default());
    let gated = Source { motion_force_ns: Some(3600 * SECOND), ..followed("gated", LIVE) };
    let mut pipeline = world.start_with(engine(staying), vec![gated]);
    let mut feeder = world.camera("gated", LIVE, WIDTH, HEIGHT);
    let start = 100 * SECOND;
    let mut frame = |at_ns: u64, moves: bool| {
        feeder.send_with(|header| {
            header.capture_ns = start + at_ns;
            header.flags = if moves { 0 } else { FLAG_MOTION_MEASURED };
        });
        pipeline.next()
    };
    frame(0, true);
    frame(STEP, true);
    // Far longer than an object may be lost for.
    for second in 1..=5 {
        assert_eq!(frame(second * SECOND, false).outcome, Outcome::Skipped);
    }
    let again = frame(5 * SECOND + STEP, true);
    assert_eq!(again.detections[0].track, 1, "the same one");
    let events = pipeline.next_events(3);
    assert_eq!(texts(&events), ["1 appear", "1 enter middle", "7 dwell middle"]);
    assert_eq!(events[2].age_ns, 5 * SECOND - STEP, "while nothing moved");
}

#[test]
fn a_camera_that_is_taken_away_leaves_nothing_behind() {
    let world = World::new(Limits::default());
    let mut pipeline = world.start_with(engine(staying), vec![followed("gone", LIVE)]);
    let mut feeder = world.camera("gone", LIVE, WIDTH, HEIGHT);
    (0..2).for_each(|_| send(&mut feeder, &pipeline));
    assert_eq!(pipeline.next_events(2).len(), 2);
    pipeline.change.send(Ok(vec![])).expect("runs");
    assert_eq!(texts(&pipeline.next_events(2)), ["1 leave middle", "1 disappear"]);
}

#[test]
fn frames_that_fail_are_no_looks() {
    let world = World::new(Limits::default());
    // Between frames 2 and 4 the engine fails.
    let engine = Played {
        find: Arc::new(staying),
        ..Played::new(|_, _, batch| match common::number(&batch[0]) {
            2 | 3 => Err("as told".to_owned()),
            _ => Ok(()),
        })
    };
    let mut pipeline = world.start_with(engine, vec![followed("a", LIVE)]);
    let mut feeder = world.camera("a", LIVE, WIDTH, HEIGHT);
    let tracks: Vec<Option<u64>> = (0..6)
        .map(|n| {
            feeder.send_with(|header| header.capture_ns = SECOND + n * STEP);
            pipeline.next().detections.first().map(|found| found.track)
        })
        .collect();
    assert_eq!(tracks, [Some(0), Some(1), None, None, Some(1), Some(1)]);
    assert_eq!(texts(&pipeline.next_events(2)), ["1 appear", "1 enter middle"]);
}
