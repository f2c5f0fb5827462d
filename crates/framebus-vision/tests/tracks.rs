//! Tracks, zones and lines through generated detections whose truth is known.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod ground_truth;

use framebus_vision::{
    Anchor, Direction, Happening, Line, Object, Observation, Places, TrackSettings, Tracker, What,
    Zone,
};
use ground_truth::Random;
use ground_truth::metrics::{Boxes, score};
use ground_truth::scenes::{
    Detector, Frame, HEIGHT, Motion, PERFECT, Setup, USUAL, WIDTH, detect, ghost, play,
};
use proptest::prelude::*;

const SIZE: (u32, u32) = (WIDTH as u32, HEIGHT as u32);

fn setup(motion: Motion, fps: f32, detector: Detector) -> Setup {
    let objects = if motion == Motion::Lanes { 8 } else { 15 };
    Setup { motion, objects, fps, seconds: 20.0, detector, seed: 3 }
}

fn answers(frames: &[Frame]) -> Vec<Boxes> {
    let mut tracker = Tracker::new(TrackSettings::default());
    let mut ids = Vec::new();
    let answer = frames.iter().map(|frame| {
        tracker.update(frame.time_ns, &frame.seen, &mut ids);
        let tracked = ids.iter().zip(&frame.seen).filter(|(id, _)| **id != 0);
        tracked.map(|(&id, seen)| (id, seen.bbox)).collect()
    });
    answer.collect()
}

fn truth(frames: &[Frame]) -> Vec<Boxes> {
    frames.iter().map(|frame| frame.truth.clone()).collect()
}

#[test]
fn who_meets_nobody_keeps_his_id_whatever_is_missed() {
    for fps in [30.0, 25.0, 12.5, 5.0] {
        let frames = play(&setup(Motion::Lanes, fps, USUAL));
        let score = score(&truth(&frames), &answers(&frames));
        assert!(score.truth > 500, "{score:?}");
        assert_eq!(score.switches, 0, "{fps} fps: {score:?}");
        assert!(score.mota() > 0.93 && score.idf1() > 0.95, "{fps} fps: {score:?}");
    }
}

#[test]
fn what_a_perfect_detector_sees_is_tracked_perfectly() {
    let frames = play(&setup(Motion::Lanes, 25.0, PERFECT));
    let score = score(&truth(&frames), &answers(&frames));
    // Eight objects wait one frame each for their id.
    assert_eq!((score.missed, score.false_boxes, score.switches), (8, 0, 0), "{score:?}");
}

/// Not as good as the table of docs/tracking.md, but nowhere near broken.
#[test]
fn crowds_are_tracked() {
    for motion in [Motion::Crossing, Motion::Lively, Motion::Pillars] {
        for fps in [25.0, 10.0] {
            let frames = play(&setup(motion, fps, USUAL));
            let score = score(&truth(&frames), &answers(&frames));
            let hidden = motion == Motion::Pillars;
            assert!(score.mota() > 0.9, "{fps} fps: {score:?}");
            assert!(score.idf1() > if hidden { 0.65 } else { 0.85 }, "{fps} fps: {score:?}");
        }
    }
}

#[test]
fn the_metrics_count_what_they_should() {
    let at = |x: f32| [x, 0.0, x + 10.0, 10.0];
    let truth = vec![vec![(1, at(0.0)), (2, at(100.0))]; 4];
    // Two found well, then the ids are exchanged; one false box; one missed.
    let answer = vec![
        vec![(7, at(0.0)), (8, at(100.0))],
        vec![(7, at(1.0)), (8, at(100.0)), (9, at(500.0))],
        vec![(8, at(0.0)), (7, at(100.0))],
        vec![(8, at(0.0))],
    ];
    let score = score(&truth, &answer);
    assert_eq!((score.truth, score.answers), (8, 8));
    assert_eq!((score.missed, score.false_boxes, score.switches), (1, 1, 2));
    // 7 is 1 twice, 8 is 2 twice; or 7 is 2 once, 8 is 1 twice.
    assert_eq!(score.identity_hits, 4);
    assert!((score.mota() - 0.5).abs() < 1e-9 && (score.idf1() - 0.5).abs() < 1e-9);
}

/// Somebody who walks straight down or up a lane, in pixels and seconds.
struct Walker {
    x: f32,
    down: bool,
    starts_s: f32,
    speed: f32,
}

const WALKER: [f32; 2] = [44.0, 90.0];

impl Walker {
    fn feet(&self, time_s: f32) -> Option<f32> {
        let way = (time_s - self.starts_s) * self.speed;
        let y = if self.down { 100.0 + way } else { HEIGHT - 10.0 - way };
        (way >= 0.0 && (100.0..=HEIGHT - 10.0).contains(&y)).then_some(y)
    }
}

/// Ten lanes with 25 walkers each, down and up in turns; the two lanes outside of the line
/// are as busy as the others.
fn walkers() -> Vec<Walker> {
    let mut random = Random::new(11);
    let mut all = Vec::new();
    for lane in 0..10_u8 {
        let mut starts_s = random.between(0.0, 3.0);
        for number in 0..25_u8 {
            let speed = random.between(150.0, 600.0);
            let x = (f32::from(lane) + 0.5) * WIDTH / 10.0;
            all.push(Walker { x, down: number % 2 == u8::from(lane % 2 == 0), starts_s, speed });
            // The next one starts when this one is gone, sometimes at once.
            starts_s += (HEIGHT - 110.0) / speed + random.between(0.05, 1.0);
        }
    }
    all
}

struct Counted {
    forward: usize,
    backward: usize,
    entered: usize,
    left: usize,
    happened: Vec<Happening>,
    checked: usize,
}

/// Plays the walkers through a detector, tracker and places, and compares the zone of each
/// box with the truth once the walker was seen twice in a row clear of the edges.
fn count(fps: f32, detector: Detector) -> (Counted, usize) {
    let walkers = walkers();
    // From lane 1 to lane 8.
    let line = Line { from: [0.1, 0.55], to: [0.9, 0.55], classes: vec![], anchor: Anchor::Bottom };
    let zone = Zone {
        points: vec![[0.1, 0.4], [0.9, 0.4], [0.9, 0.8], [0.1, 0.8]],
        classes: vec![],
        dwell_ns: 0,
        anchor: Anchor::Bottom,
    };
    let mut random = Random::new(5);
    let mut tracker = Tracker::new(TrackSettings::default());
    let mut places = Places::new(vec![zone], vec![line]).unwrap();
    let (mut ids, mut bits, mut happened) = (Vec::new(), Vec::new(), Vec::new());
    let mut checked = 0;
    // Of each walker: the side of the last looks, and how many were clear.
    let mut calm = vec![(false, 0); walkers.len()];
    let end_s = walkers.iter().map(|walker| walker.starts_s + 6.0).fold(0.0, f32::max);
    for frame in 0..(end_s * fps) as u64 {
        let time_s = frame as f32 / fps;
        let (mut seen, mut feet) = (Vec::new(), Vec::new());
        for (number, walker) in walkers.iter().enumerate() {
            let Some(y) = walker.feet(time_s) else { continue };
            let [width, height] = WALKER;
            let bbox = [walker.x - width / 2.0, y - height, walker.x + width / 2.0, y];
            if let Some(found) = detect(detector, 1.0, bbox, &mut random) {
                seen.push(found);
                feet.push(Some((number, [walker.x, y])));
            }
        }
        if random.unit() < detector.false_boxes {
            seen.push(ghost(&mut random));
            feet.push(None);
        }
        let time_ns = (f64::from(time_s) * 1e9) as u64;
        tracker.update(time_ns, &seen, &mut ids);
        let objects: Vec<Object> = ids
            .iter()
            .zip(&seen)
            .map(|(&track, &Observation { bbox, score, class })| Object {
                track,
                bbox,
                class,
                score,
            })
            .collect();
        places.update(time_ns, SIZE, &objects, tracker.ended(), &mut bits, &mut happened);
        for (feet, bits) in feet.iter().zip(&bits) {
            let Some((number, [x, y])) = *feet else { continue };
            let inside = (0.1..0.9).contains(&(x / WIDTH)) && (0.4..0.8).contains(&(y / HEIGHT));
            let edge = (y - 0.4 * HEIGHT).abs().min((y - 0.8 * HEIGHT).abs());
            let (side, looks) = &mut calm[number];
            *looks = match (edge < 0.15 * WALKER[1], *side == inside) {
                (true, _) => 0,
                (false, true) => *looks + 1,
                (false, false) => 1,
            };
            *side = inside;
            if *looks >= 2 {
                assert_eq!(*bits, u64::from(inside), "{x} {y} at {time_s} s");
                checked += 1;
            }
        }
    }
    let number = |wanted: &dyn Fn(&What) -> bool| {
        happened.iter().filter(|happening| wanted(&happening.what)).count()
    };
    let counted = Counted {
        forward: number(&|what| *what == What::Cross(0, Direction::Forward)),
        backward: number(&|what| *what == What::Cross(0, Direction::Backward)),
        entered: number(&|what| matches!(what, What::Enter(0))),
        left: number(&|what| matches!(what, What::Leave(0))),
        happened,
        checked,
    };
    (counted, walkers.len())
}

#[test]
fn two_hundred_crossings_are_two_hundred() {
    for fps in [25.0, 15.0] {
        let (counted, walkers) = count(fps, USUAL);
        assert_eq!(walkers, 250);
        // Eight of ten lanes, 25 each, alternating between lanes and within each.
        assert_eq!((counted.forward, counted.backward), (100, 100), "{fps} fps");
        assert_eq!((counted.entered, counted.left), (200, 200), "{fps} fps");
        assert!(counted.checked > 5000, "{} looks", counted.checked);
    }
}

#[test]
fn the_same_frames_give_the_same_happenings() {
    let (first, _) = count(15.0, USUAL);
    let (second, _) = count(15.0, USUAL);
    assert!(first.happened.len() > 1000);
    assert_eq!(first.happened, second.happened);
}

/// Any bits, with ordinary boxes in between.
fn observations() -> impl Strategy<Value = Vec<Observation>> {
    let ordinary = (0.0..90f32, 0.0..90f32, 1.0..30f32, 0.0..=1f32, 0..3u32).prop_map(
        |(x, y, side, score, class)| Observation { bbox: [x, y, x + side, y + side], score, class },
    );
    let any = (any::<[u32; 4]>(), any::<u32>(), any::<u32>()).prop_map(|(bits, score, class)| {
        Observation { bbox: bits.map(f32::from_bits), score: f32::from_bits(score), class }
    });
    prop::collection::vec(prop_oneof![4 => ordinary, 1 => any], 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_comes_ids_are_sound_and_everything_balances(
        frames in prop::collection::vec((0..u64::MAX / 40, observations(), any::<bool>()), 1..40),
        steady in any::<bool>(),
    ) {
        let mut tracker = Tracker::new(TrackSettings::default());
        let half = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]];
        let zone = Zone {
            points: half.to_vec(), classes: vec![], dwell_ns: 1000, anchor: Anchor::Center,
        };
        let line =
            Line { from: [0.5, 0.0], to: [0.5, 1.0], classes: vec![0], anchor: Anchor::Center };
        let mut places = Places::new(vec![zone], vec![line]).unwrap();
        let (mut ids, mut bits, mut happened) = (Vec::new(), Vec::new(), Vec::new());
        let mut gone = std::collections::BTreeSet::new();
        for (number, (time, seen, still)) in (0_u64..).zip(frames) {
            let time_ns = if steady { number * 40_000_000 } else { time };
            if still {
                tracker.still(time_ns);
                places.still(time_ns, &mut happened);
                continue;
            }
            tracker.update(time_ns, &seen, &mut ids);
            prop_assert_eq!(ids.len(), seen.len());
            let mut given: Vec<u64> = ids.iter().copied().filter(|&id| id != 0).collect();
            given.sort_unstable();
            let count = given.len();
            given.dedup();
            prop_assert_eq!(given.len(), count, "an id twice in a frame");
            prop_assert!(given.iter().all(|id| !gone.contains(id)), "an id came back");
            for ended in tracker.ended() {
                prop_assert!(ended.bbox.iter().all(|value| value.is_finite()));
                prop_assert!(gone.insert(ended.track), "ended twice");
            }
            let objects: Vec<Object> = ids.iter().zip(&seen).map(|(&track, seen)| Object {
                track, bbox: seen.bbox, class: seen.class, score: seen.score,
            }).collect();
            places.update(time_ns, (100, 100), &objects, tracker.ended(), &mut bits, &mut happened);
            prop_assert_eq!(bits.len(), objects.len());
            prop_assert!(bits.iter().all(|&bits| bits <= 1));
        }
        // Whoever enters leaves before he enters again, whoever is gone has left.
        let mut inside = std::collections::BTreeSet::new();
        let mut present = std::collections::BTreeSet::new();
        for Happening { what, track, .. } in happened {
            match what {
                What::Appear => prop_assert!(present.insert(track)),
                What::Disappear => {
                    prop_assert!(present.remove(&track) && !inside.contains(&track));
                }
                What::Enter(_) => prop_assert!(inside.insert(track)),
                What::Leave(_) => prop_assert!(inside.remove(&track)),
                What::Dwell(_) => prop_assert!(inside.contains(&track)),
                What::Cross(..) => prop_assert!(present.contains(&track)),
            }
        }
        prop_assert_eq!(inside.len(), places.occupancy(0));
        prop_assert_eq!(present.len(), tracker.len());
    }
}
