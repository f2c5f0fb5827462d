use super::*;

const FRAME_NS: u64 = 40_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn seen(x: f32, score: f32) -> Observation {
    Observation { bbox: [x, 100.0, x + 40.0, 200.0], score, class: 0 }
}

/// Runs frames one after the other and gives the ids.
struct Run {
    tracker: Tracker,
    time_ns: u64,
    ids: Vec<u64>,
}

impl Run {
    fn new(settings: TrackSettings) -> Self {
        Self { tracker: Tracker::new(settings), time_ns: 0, ids: Vec::new() }
    }

    fn frame(&mut self, observations: &[Observation]) -> &[u64] {
        self.after(FRAME_NS, observations)
    }

    fn after(&mut self, elapsed_ns: u64, observations: &[Observation]) -> &[u64] {
        self.time_ns += elapsed_ns;
        self.tracker.update(self.time_ns, observations, &mut self.ids);
        &self.ids
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new(TrackSettings::default())
    }
}

#[test]
fn an_id_needs_frames_in_a_row() {
    for min_frames in [0, 1, 2, 4] {
        let mut run = Run::new(TrackSettings { min_frames, ..TrackSettings::default() });
        for frame in 1..=6 {
            let id = u64::from(frame >= min_frames);
            assert_eq!(run.frame(&[seen(100.0, 0.9)]), [id], "frame {frame} of {min_frames}");
        }
    }
    let mut run = Run::new(TrackSettings { min_frames: 3, ..TrackSettings::default() });
    for _ in 0..5 {
        assert_eq!(run.frame(&[seen(100.0, 0.9)]), [0]);
        assert_eq!(run.frame(&[seen(100.0, 0.9)]), [0]);
        run.frame(&[]);
        assert!(run.tracker.is_empty() && run.tracker.ended().is_empty());
    }
}

#[test]
fn who_is_gone_for_less_than_lost_ns_comes_back_as_himself() {
    for (gap, same) in [(1, true), (10, true), (24, true), (26, false)] {
        let mut run = Run::default();
        // 50 pixels a second.
        let mut x = 100.0;
        for _ in 0..20 {
            x += 2.0;
            run.frame(&[seen(x, 0.9)]);
        }
        let mut ended = 0;
        for _ in 0..gap {
            x += 2.0;
            run.frame(&[]);
            ended += run.tracker.ended().len();
        }
        x += 2.0;
        run.frame(&[seen(x, 0.9)]);
        x += 2.0;
        assert_eq!(run.frame(&[seen(x, 0.9)]), [if same { 1 } else { 2 }], "gap of {gap}");
        assert_eq!(ended, usize::from(!same), "gap of {gap}");
    }
}

#[test]
fn frames_that_are_missing_are_a_longer_step() {
    let mut run = Run::default();
    for frame in 0..20_u64 {
        let steps = if frame % 3 == 0 { 5 } else { 1 };
        let time = |run: &Run| (run.time_ns / FRAME_NS + steps) as f32;
        let x = 100.0 + 4.0 * time(&run);
        let ids = run.after(steps * FRAME_NS, &[seen(x, 0.9)]);
        assert_eq!(ids, [u64::from(frame > 0)], "frame {frame}");
    }
}

#[test]
fn a_camera_slower_than_lost_ns_keeps_what_stands_still() {
    let mut run = Run::default();
    for frame in 0..10 {
        let ids = run.after(5 * SECOND_NS, &[seen(100.0, 0.9)]);
        assert_eq!(ids, [u64::from(frame > 0)]);
    }
    run.after(5 * SECOND_NS, &[]);
    let ended = run.tracker.ended();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].seen_ns, ended[0].unseen_ns), (45 * SECOND_NS, 5 * SECOND_NS));
    assert_eq!((ended[0].bbox, ended[0].class), (seen(100.0, 0.9).bbox, 0));
}

#[test]
fn what_is_still_neither_ends_nor_drifts() {
    let mut run = Run::default();
    for frame in 0..20_u16 {
        let x = 100.0 + 3.0 * f32::from(frame);
        run.frame(&[seen(x, 0.9), seen(600.0, 0.9)]);
    }
    // The second one is missed in the last frame before nothing moves.
    run.frame(&[seen(160.0, 0.9)]);
    for _ in 0..3600 {
        run.time_ns += SECOND_NS;
        run.tracker.still(run.time_ns);
        assert!(run.tracker.ended().is_empty());
    }
    assert_eq!(run.frame(&[seen(160.0, 0.9), seen(600.0, 0.9)]), [1, 2]);
    run.after(2 * SECOND_NS, &[]);
    let ended = run.tracker.ended();
    assert_eq!(ended.len(), 2);
    // Of the one that was there all the time: 20 steps of 40 ms, the hour, one more step.
    assert_eq!(ended[0].seen_ns, 3600 * SECOND_NS + 21 * FRAME_NS);
}

#[test]
fn low_scores_continue_a_track_but_start_none() {
    let mut run = Run::default();
    for _ in 0..10 {
        assert_eq!(run.frame(&[seen(300.0, 0.4)]), [0], "not even one of 0.4");
        assert_eq!(run.frame(&[seen(300.0, 0.55)]), [0], "high, but not enough for a new one");
    }
    run.frame(&[seen(100.0, 0.9)]);
    assert_eq!(run.frame(&[seen(100.0, 0.9)]), [1]);
    for _ in 0..50 {
        assert_eq!(run.frame(&[seen(100.0, 0.15)]), [1]);
    }
    assert_eq!(run.frame(&[seen(100.0, 0.05)]), [0], "below `low`");
    assert_eq!(run.frame(&[seen(100.0, 0.15)]), [0], "a lost one needs a high score");
    assert_eq!(run.frame(&[seen(100.0, 0.9)]), [1]);
}

#[test]
fn classes_do_not_mix() {
    let other = Observation { class: 1, ..seen(100.0, 0.9) };
    let mut run = Run::default();
    run.frame(&[seen(100.0, 0.9)]);
    run.frame(&[seen(100.0, 0.9)]);
    assert_eq!(run.frame(&[other]), [0]);
    assert_eq!(run.frame(&[other, seen(100.0, 0.9)]), [2, 1]);
}

#[test]
fn time_may_stand_still_or_go_back() {
    let mut tracker = Tracker::new(TrackSettings::default());
    let mut ids = Vec::new();
    for (frame, time) in [5, 5, 5, 4, 1, 9, 0, u64::MAX, 0, u64::MAX - 1].into_iter().enumerate() {
        tracker.update(time, &[seen(100.0, 0.9)], &mut ids);
        assert_eq!(ids, [u64::from(frame > 0)], "frame {frame}");
    }
}

#[test]
fn what_is_no_box_is_left_out() {
    let mut run = Run::default();
    let with = |bbox: [f32; 4], score: f32| Observation { bbox, score, class: 0 };
    let good = seen(100.0, 0.9);
    let odd = [
        with([f32::NAN, 0.0, 10.0, 10.0], 0.9),
        with([0.0, 0.0, f32::INFINITY, 10.0], 0.9),
        with([0.0, 0.0, 1e30, 1e30], 0.9),
        with([10.0, 10.0, 10.0, 20.0], 0.9),
        with([20.0, 20.0, 10.0, 10.0], 0.9),
        with(good.bbox, f32::NAN),
        with(good.bbox, -1.0),
        with(good.bbox, 7.0),
        good,
    ];
    run.frame(&odd);
    assert_eq!(run.frame(&odd), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(run.tracker.len(), 1);
}

#[test]
fn tracks_are_bounded_and_the_longest_lost_give_way() {
    let settings = TrackSettings { min_frames: 1, lost_ns: u64::MAX, ..TrackSettings::default() };
    let mut run = Run::new(settings);
    let row = |y: f32, count: u16| -> Vec<Observation> {
        let at = |x: f32| Observation { bbox: [x, y, x + 5.0, y + 5.0], score: 0.9, class: 0 };
        (0..count).map(|column| at(10.0 * f32::from(column))).collect()
    };
    let mut ended = Vec::new();
    for y in [0.0, 100.0, 200.0, 300.0, 400.0] {
        run.frame(&row(y, 600));
        ended.extend(run.tracker.ended().iter().map(|track| track.track));
        assert!(run.tracker.len() <= MAX_TRACKS);
    }
    let expected: Vec<u64> = (1..=1000).collect();
    assert_eq!(ended, expected);
    let ids = run.frame(&row(500.0, 1200));
    assert!(ids[..MAX_OBSERVATIONS].iter().all(|&id| id != 0));
    assert!(ids[MAX_OBSERVATIONS..].iter().all(|&id| id == 0));
}
