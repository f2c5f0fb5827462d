use super::*;

const FRAME_NS: u64 = 40_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const SIZE: (u32, u32) = (1000, 1000);

fn zone(points: &[[f32; 2]]) -> Zone {
    Zone { points: points.to_vec(), classes: vec![], dwell_ns: 0, anchor: Anchor::Bottom }
}

/// The right half of the picture.
fn right_half() -> Zone {
    zone(&[[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]])
}

/// Through the middle from the top to the bottom: forward is to the left.
fn middle() -> Line {
    Line { from: [0.5, 0.0], to: [0.5, 1.0], classes: vec![], anchor: Anchor::Bottom }
}

/// 40 x 90, a size of 60 and so a margin of 6, with its feet at that place.
fn person(track: u64, x: f32, y: f32) -> Object {
    Object { track, bbox: [x - 20.0, y - 90.0, x + 20.0, y], class: 0, score: 0.9 }
}

struct Run {
    places: Places,
    time_ns: u64,
    bits: Vec<u64>,
    happened: Vec<Happening>,
}

impl Run {
    fn new(zones: Vec<Zone>, lines: Vec<Line>) -> Self {
        let places = Places::new(zones, lines).expect("sound places");
        Self { places, time_ns: 0, bits: Vec::new(), happened: Vec::new() }
    }

    /// What happens in the next frame.
    fn frame(&mut self, objects: &[Object]) -> Vec<What> {
        self.update(FRAME_NS, SIZE, objects, &[])
    }

    fn update(
        &mut self,
        elapsed_ns: u64,
        size: (u32, u32),
        objects: &[Object],
        ended: &[u64],
    ) -> Vec<What> {
        self.time_ns += elapsed_ns;
        self.happened.clear();
        let ended: Vec<Ended> = ended
            .iter()
            .map(|&track| Ended {
                track,
                class: 0,
                bbox: [0.0; 4],
                score: 0.9,
                seen_ns: 0,
                unseen_ns: 0,
            })
            .collect();
        let Self { places, time_ns, bits, happened } = self;
        places.update(*time_ns, size, objects, &ended, bits, happened);
        assert_eq!(bits.len(), objects.len());
        happened.iter().map(|happening| happening.what).collect()
    }

    fn still(&mut self, elapsed_ns: u64) -> Vec<What> {
        self.time_ns += elapsed_ns;
        self.happened.clear();
        self.places.still(self.time_ns, &mut self.happened);
        self.happened.iter().map(|happening| happening.what).collect()
    }

    /// Walks through these x, a frame each, without `Appear`.
    fn walk(&mut self, xs: &[f32]) -> Vec<What> {
        let mut all = Vec::new();
        for &x in xs {
            all.extend(self.frame(&[person(1, x, 500.0)]));
        }
        all.retain(|what| *what != What::Appear);
        all
    }
}

/// Noise of a detector: about normal, standard deviation 1.
fn noise(seed: &mut u64) -> f32 {
    let mut sum = 0.0;
    for _ in 0..12 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        sum += (*seed >> 40) as f32 / (1_u64 << 24) as f32;
    }
    sum - 6.0
}

#[test]
fn one_stay_has_one_of_each() {
    let mut run = Run::new(vec![Zone { dwell_ns: SECOND_NS, ..right_half() }], vec![]);
    assert_eq!(run.frame(&[person(7, 300.0, 500.0)]), [What::Appear]);
    assert_eq!(run.bits, [0]);
    assert_eq!(run.frame(&[person(7, 700.0, 500.0)]), [], "one box may be wrong");
    assert_eq!(run.bits, [0]);
    assert_eq!(run.frame(&[person(7, 700.0, 500.0)]), [What::Enter(0)]);
    assert_eq!((run.bits[0], run.places.occupancy(0), run.places.occupancy(1)), (1, 1, 0));
    assert_eq!(run.happened[0].age_ns, 2 * FRAME_NS);
    let mut dwelt = Vec::new();
    for _ in 0..100 {
        dwelt.extend(run.frame(&[person(7, 700.0, 500.0)]));
        if run.happened.len() == 1 {
            assert_eq!(run.happened[0].age_ns, SECOND_NS);
        }
    }
    assert_eq!(dwelt, [What::Dwell(0)]);
    assert_eq!(run.frame(&[person(7, 300.0, 500.0)]), []);
    assert_eq!(run.frame(&[person(7, 300.0, 500.0)]), [What::Leave(0)]);
    assert_eq!((run.bits[0], run.places.occupancy(0)), (0, 0));
    assert_eq!(run.happened[0].age_ns, 102 * FRAME_NS);
    // A second stay is one of its own.
    run.frame(&[person(7, 700.0, 500.0)]);
    assert_eq!(run.frame(&[person(7, 700.0, 500.0)]), [What::Enter(0)]);
    assert_eq!(run.update(SECOND_NS, SIZE, &[person(7, 700.0, 500.0)], &[]), [What::Dwell(0)]);
    // It ends inside, three frames after it was last seen.
    for _ in 0..2 {
        assert!(run.frame(&[]).is_empty());
        assert_eq!(run.places.occupancy(0), 1, "lost, not gone");
    }
    assert_eq!(run.update(FRAME_NS, SIZE, &[], &[7]), [What::Leave(0), What::Disappear]);
    assert_eq!(run.happened[0].age_ns, SECOND_NS, "up to when it was seen");
    assert_eq!(run.happened[0].bbox, person(7, 700.0, 500.0).bbox);
    assert_eq!(run.places.occupancy(0), 0);
    assert!(run.update(FRAME_NS, SIZE, &[], &[7, 8]).is_empty(), "unknown tracks are nobody's");
}

#[test]
fn who_appears_inside_enters_at_once() {
    let mut run = Run::new(vec![right_half()], vec![]);
    assert_eq!(run.frame(&[person(1, 502.0, 500.0)]), [What::Appear, What::Enter(0)]);
    assert_eq!(run.happened[1].age_ns, 0);
}

#[test]
fn who_stands_on_an_edge_raises_no_storm() {
    let mut seed = 1;
    let mut run = Run::new(vec![right_half()], vec![middle()]);
    let mut counts = [0; 2];
    let mut flips = 0;
    let mut before = false;
    // Ten minutes at 25 frames a second on the very edge, jitter of 3 pixels a frame.
    for _ in 0..15_000 {
        let x = 500.0 + 2.0 * noise(&mut seed);
        flips += usize::from((x > 500.0) != before);
        before = x > 500.0;
        for what in run.frame(&[person(1, x, 500.0)]) {
            match what {
                What::Enter(_) | What::Leave(_) => counts[0] += 1,
                What::Cross(..) => counts[1] += 1,
                _ => {}
            }
        }
    }
    assert!(flips > 5000, "{flips}: the anchor jumps over the edge all the time");
    assert!(counts[0] <= 40 && counts[1] <= 40, "{counts:?} in ten minutes");
}

#[test]
fn who_stops_close_behind_an_edge_is_inside_after_a_second() {
    let mut run = Run::new(vec![right_half()], vec![middle()]);
    assert!(run.walk(&[400.0, 450.0, 498.0]).is_empty());
    let mut frames = 0;
    let what = loop {
        let what = run.walk(&[503.0]);
        frames += 1;
        if !what.is_empty() {
            break what;
        }
    };
    assert_eq!(what, [What::Enter(0), What::Cross(0, Direction::Backward)]);
    assert_eq!(frames, 26, "a second after the first of them");
    // One frame beyond the edge breaks it off.
    let mut run = Run::new(vec![right_half()], vec![middle()]);
    run.walk(&[400.0, 498.0]);
    for _ in 0..10 {
        assert!(run.walk(&[503.0; 20]).is_empty());
        assert!(run.walk(&[499.0]).is_empty());
    }
}

#[test]
fn crossings_count_once_each_way_at_any_speed() {
    use Direction::{Backward, Forward};
    for step in [1.0, 7.0, 40.0, 299.0] {
        let mut run = Run::new(vec![], vec![middle()]);
        let count = (900.0 / step) as usize;
        let mut way: Vec<f32> = (0..=count).map(|at| 50.0 + at as f32 * step).collect();
        assert_eq!(run.walk(&way), [What::Cross(0, Backward)], "steps of {step}");
        way.reverse();
        assert_eq!(run.walk(&way), [What::Cross(0, Forward)], "steps of {step}");
    }
    // Exactly onto the line and on, and onto it and back.
    let mut run = Run::new(vec![], vec![middle()]);
    assert_eq!(run.walk(&[400.0, 500.0, 600.0, 600.0]), [What::Cross(0, Backward)]);
    assert_eq!(run.walk(&[500.0, 600.0, 500.0, 600.0]), []);
}

#[test]
fn a_way_round_the_end_of_a_line_is_no_crossing() {
    let short = Line { from: [0.5, 0.4], to: [0.5, 0.6], ..middle() };
    let mut run = Run::new(vec![], vec![short]);
    let mut all = Vec::new();
    for (x, y) in [(400.0, 500.0), (400.0, 700.0), (600.0, 700.0), (600.0, 500.0)] {
        all.extend(run.frame(&[person(1, x, y)]));
    }
    assert_eq!(all, [What::Appear]);
    assert_eq!(run.frame(&[person(1, 400.0, 500.0)]), []);
    assert_eq!(run.frame(&[person(1, 300.0, 500.0)]), [What::Cross(0, Direction::Forward)]);
}

#[test]
fn a_single_wrong_box_moves_nobody() {
    let mut run = Run::new(vec![right_half()], vec![middle()]);
    assert_eq!(run.walk(&[400.0, 700.0, 400.0, 400.0, 400.0, 700.0, 400.0]), []);
    assert_eq!(run.update(FRAME_NS, SIZE, &[], &[1]), [What::Disappear]);
}

#[test]
fn who_ends_close_behind_a_line_has_crossed_it() {
    let mut run = Run::new(vec![], vec![middle()]);
    assert!(run.walk(&[480.0, 497.0, 503.0]).is_empty());
    let what = run.update(FRAME_NS, SIZE, &[], &[1]);
    assert_eq!(what, [What::Cross(0, Direction::Backward), What::Disappear]);
    // ... unless it turned back.
    let mut run = Run::new(vec![], vec![middle()]);
    assert!(run.walk(&[480.0, 497.0, 503.0, 498.0]).is_empty());
    assert_eq!(run.update(FRAME_NS, SIZE, &[], &[1]), [What::Disappear]);
}

#[test]
fn dwelling_goes_on_while_nothing_moves() {
    let mut run = Run::new(vec![Zone { dwell_ns: 60 * SECOND_NS, ..right_half() }], vec![]);
    run.frame(&[person(1, 700.0, 500.0), person(2, 800.0, 500.0)]);
    // The second one is lost before the picture comes to rest.
    run.frame(&[person(1, 700.0, 500.0)]);
    let mut dwelt = Vec::new();
    for _ in 0..100 {
        dwelt.extend(run.still(SECOND_NS));
    }
    assert_eq!(dwelt, [What::Dwell(0)]);
    assert_eq!(run.places.occupancy(0), 2);
    assert_eq!(run.frame(&[person(1, 700.0, 500.0), person(2, 800.0, 500.0)]), [What::Dwell(0)]);
}

#[test]
fn a_zone_smaller_than_the_margin_can_be_entered() {
    let small = zone(&[[0.5, 0.49], [0.508, 0.49], [0.508, 0.51], [0.5, 0.51]]);
    let mut run = Run::new(vec![small], vec![]);
    assert_eq!(run.walk(&[400.0, 503.0, 505.0, 600.0, 700.0]), [What::Enter(0), What::Leave(0)]);
}

#[test]
fn classes_and_anchors_are_the_places_own() {
    let cars = Zone { classes: vec![2, 7], ..right_half() };
    let low = zone(&[[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]);
    let centre = Zone { anchor: Anchor::Center, ..low.clone() };
    let line = Line { classes: vec![7], ..middle() };
    let mut run = Run::new(vec![cars, low, centre], vec![line]);
    let truck = Object { class: 7, ..person(2, 700.0, 530.0) };
    run.frame(&[person(1, 700.0, 530.0), truck, person(0, 700.0, 530.0)]);
    // Feet at 530, the middle of the box at 485. Without a track the zones are the same.
    assert_eq!(run.bits, [0b010, 0b011, 0b010]);
    let truck = Object { class: 7, ..person(2, 300.0, 530.0) };
    assert_eq!(run.frame(&[person(1, 300.0, 530.0), truck]), []);
    let what = run.frame(&[person(1, 300.0, 530.0), truck]);
    assert_eq!(what, [What::Leave(0), What::Cross(0, Direction::Forward)]);
    assert_eq!(run.happened[1].track, 2);
}

#[test]
fn another_size_of_the_picture_moves_nobody() {
    let mut run = Run::new(vec![right_half()], vec![middle()]);
    assert!(run.walk(&[300.0, 400.0]).is_empty());
    let smaller = Object { bbox: [190.0, 205.0, 210.0, 250.0], ..person(1, 0.0, 0.0) };
    assert!(run.update(FRAME_NS, (500, 500), &[smaller], &[]).is_empty());
    let over = Object { bbox: [290.0, 205.0, 310.0, 250.0], ..smaller };
    assert_eq!(run.update(FRAME_NS, (500, 500), &[over], &[]), []);
    let what = run.update(FRAME_NS, (500, 500), &[over], &[]);
    assert_eq!(what, [What::Enter(0), What::Cross(0, Direction::Backward)]);
}

#[test]
fn sixty_four_zones_have_a_bit_each() {
    let strip = |index: u16| {
        let (from, to) = (f32::from(index) / 64.0, f32::from(index + 1) / 64.0);
        zone(&[[from, 0.0], [to, 0.0], [to, 1.0], [from, 1.0]])
    };
    let zones: Vec<Zone> = (0..64).map(strip).collect();
    let mut run = Run::new(zones.clone(), vec![]);
    for index in 0..64_u16 {
        let x = (f32::from(index) + 0.5) * 1000.0 / 64.0;
        run.frame(&[person(u64::from(index) + 1, x, 500.0)]);
        assert_eq!(run.bits, [1 << index]);
    }
    let more = [zones, vec![right_half()]].concat();
    assert_eq!(Places::new(more, vec![]).err(), Some(PlaceError::TooManyZones(65)));
}

#[test]
fn places_that_cannot_be_are_refused() {
    let error = |zones: Vec<Zone>, lines: Vec<Line>| {
        Places::new(zones, lines).expect_err("refused").to_string()
    };
    let odd = zone(&[[0.0, 0.0], [f32::NAN, 0.0], [1.0, 1.0]]);
    assert_eq!(error(vec![right_half(), odd], vec![]), "zone 1 has a point that is no number");
    let two = zone(&[[0.0, 0.0], [1.0, 1.0]]);
    assert_eq!(error(vec![two], vec![]), "zone 0 has fewer than three points");
    let point = Line { to: [0.5, 0.0], ..middle() };
    assert_eq!(error(vec![], vec![point]), "line 0 ends where it starts");
    let odd = Line { to: [f32::INFINITY, 0.0], ..middle() };
    assert_eq!(error(vec![], vec![middle(), odd]), "line 1 has an end that is no number");
    assert_eq!(error(vec![], vec![middle(); 65]), "65 lines; at most 64 per camera");
}

#[test]
fn who_is_cut_off_by_the_picture_stands_in_a_zone_that_reaches_its_edge() {
    let whole = zone(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
    let mut run = Run::new(vec![whole], vec![]);
    assert_eq!(run.frame(&[person(1, 500.0, 1000.0)]), [What::Appear, What::Enter(0)]);
    for y in [1000.0, 998.5, 1000.0, 999.0] {
        assert_eq!(run.frame(&[person(1, 500.0, y)]), []);
        assert_eq!(run.bits, [1]);
    }
    // Not followed, and in the corner.
    run.frame(&[person(0, 1000.0, 1000.0)]);
    assert_eq!(run.bits, [1]);
    // Who walks in from the side is in the zone at once: the picture's edge is none of it.
    let mut run = Run::new(vec![right_half()], vec![]);
    run.frame(&[person(1, 100.0, 999.0)]);
    let found: Vec<What> = (0..5).flat_map(|_| run.frame(&[person(1, 560.0, 999.0)])).collect();
    assert_eq!(found.first(), Some(&What::Enter(0)), "{found:?}");
}
