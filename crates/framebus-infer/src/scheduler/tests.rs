use super::*;

const LIVE: Policy = Policy { weight: 1, max_age_ns: 0, every_frame: false };
const CLIP: Policy = Policy { every_frame: true, ..LIVE };
const ONE: Bounds = Bounds { workers: 1, max_batch: 1, in_flight: 1, unanswered: 2 };
const FOUR: Bounds = Bounds { workers: 4, max_batch: 1, in_flight: 4, unanswered: 8 };

/// A scheduler with two lanes that are ready, played by hand.
struct Play {
    scheduler: Scheduler<u32>,
    now_ns: u64,
}

impl Play {
    fn new(policies: &[Policy], bounds: Bounds) -> Self {
        let mut scheduler = Scheduler::new(bounds);
        for (number, &policy) in policies.iter().enumerate() {
            assert_eq!(scheduler.add(policy), number);
        }
        scheduler.lane_ready(0);
        scheduler.lane_ready(1);
        Self { scheduler, now_ns: 1 }
    }

    fn offer(&mut self, camera: usize, frame: u32) -> Option<u32> {
        self.offer_to(0, camera, frame)
    }

    fn offer_to(&mut self, lane: usize, camera: usize, frame: u32) -> Option<u32> {
        self.scheduler.offer(camera, lane, frame, self.now_ns, self.now_ns)
    }

    fn next(&mut self) -> (Vec<Job<u32>>, Vec<Left<u32>>) {
        let (mut batch, mut stale) = (Vec::new(), Vec::new());
        let lane = self.scheduler.next(self.now_ns, &mut batch, &mut stale);
        assert_eq!(lane.is_some(), !batch.is_empty());
        (batch, stale)
    }

    /// Frames of the next batch; `None` when there is none.
    fn frames(&mut self) -> Option<Vec<u32>> {
        let batch = self.next().0;
        (!batch.is_empty()).then(|| batch.into_iter().map(|job| job.frame).collect())
    }

    fn done(&mut self, camera: usize) {
        self.finished(camera, None);
        self.scheduler.answered(camera, 1);
    }

    fn finished(&mut self, camera: usize, took_ns: Option<u64>) {
        self.scheduler.finished(0, took_ns, std::iter::once(camera));
    }
}

#[test]
fn the_newest_frame_wins_and_the_older_one_is_handed_back() {
    let mut play = Play::new(&[LIVE], FOUR);
    assert_eq!(play.offer(0, 1), None);
    assert_eq!(play.offer(0, 2), Some(1));
    assert_eq!(play.frames(), Some(vec![2]));
    assert_eq!(play.frames(), None);
}

#[test]
fn a_camera_has_no_more_frames_in_inference_than_the_bus_lends() {
    let mut play = Play::new(&[LIVE], Bounds { in_flight: 2, ..FOUR });
    for frame in 0..2 {
        play.offer(0, frame);
        assert_eq!(play.frames(), Some(vec![frame]));
    }
    play.offer(0, 2);
    assert_eq!(play.frames(), None);
    play.done(0);
    assert_eq!(play.frames(), Some(vec![2]));
}

#[test]
fn answers_that_wait_for_their_turn_are_bounded_too() {
    let mut play = Play::new(&[CLIP], Bounds { workers: 2, in_flight: 2, unanswered: 3, ..FOUR });
    let mut tickets = Vec::new();
    // The first frame stays in inference; the later ones are done but wait for it.
    for frame in 0..3 {
        play.offer(0, frame);
        tickets.extend(play.next().0.iter().map(|job| job.ticket));
        if frame > 0 {
            play.finished(0, None);
        }
    }
    assert_eq!(tickets, [0, 1, 2]);
    play.offer(0, 3);
    assert_eq!(play.frames(), None);
    play.finished(0, None);
    play.scheduler.answered(0, 3);
    assert_eq!(play.next().0[0].ticket, 3);
}

#[test]
fn a_camera_in_inference_gives_way_to_those_that_wait() {
    let mut play = Play::new(&[LIVE; 3], FOUR);
    play.offer(0, 1);
    assert_eq!(play.frames(), Some(vec![1]));
    for (camera, frame) in [(0, 2), (1, 3), (2, 4)] {
        play.offer(camera, frame);
    }
    assert_eq!(play.frames(), Some(vec![3]));
    assert_eq!(play.frames(), Some(vec![4]));
    // One worker is left, and it is kept for the others.
    assert!(!play.scheduler.has_more(play.now_ns));
    assert_eq!(play.frames(), None);
    play.done(1);
    assert!(play.scheduler.has_more(play.now_ns));
    assert_eq!(play.frames(), Some(vec![2]));
}

#[test]
fn a_camera_whose_neighbours_have_gone_silent_gets_every_worker() {
    let mut play = Play::new(&[LIVE; 2], Bounds { workers: 2, ..FOUR });
    play.offer(1, 9);
    assert_eq!(play.frames(), Some(vec![9]));
    play.done(1);
    play.offer(0, 1);
    assert_eq!(play.frames(), Some(vec![1]));
    play.offer(0, 2);
    assert_eq!(play.frames(), None);
    play.now_ns += ACTIVE_NS;
    assert_eq!(play.offer(0, 3), Some(2));
    assert_eq!(play.frames(), Some(vec![3]));
}

#[test]
fn clips_take_all_workers_among_themselves_but_leave_one_to_a_live_camera() {
    let mut clips = Play::new(&[CLIP; 2], FOUR);
    let mut mixed = Play::new(&[CLIP, LIVE], FOUR);
    mixed.offer(1, 100);
    assert_eq!(mixed.frames(), Some(vec![100]));
    mixed.done(1);
    for frame in 0..3 {
        for play in [&mut clips, &mut mixed] {
            play.offer(0, frame);
            assert_eq!(play.frames(), Some(vec![frame]));
        }
    }
    for play in [&mut clips, &mut mixed] {
        play.offer(0, 3);
    }
    assert_eq!(clips.frames(), Some(vec![3]));
    assert_eq!(mixed.frames(), None);
}

#[test]
fn a_batch_takes_one_frame_of_each_camera_that_waits_and_waits_for_nobody() {
    let mut play = Play::new(&[LIVE; 4], Bounds { max_batch: 8, ..ONE });
    for camera in 0..3 {
        play.offer(camera, camera as u32);
    }
    let mut batch = play.frames().expect("a batch");
    batch.sort_unstable();
    assert_eq!(batch, [0, 1, 2]);
}

#[test]
fn a_batch_has_one_shape() {
    let mut play = Play::new(&[LIVE; 4], Bounds { max_batch: 8, ..FOUR });
    for camera in 0..4 {
        play.offer_to(camera % 2, camera, camera as u32);
    }
    assert_eq!(play.frames(), Some(vec![0, 2]));
    assert_eq!(play.frames(), Some(vec![1, 3]));
}

#[test]
fn frames_wait_for_their_shape_and_disturb_nobody() {
    let mut play = Play::new(&[LIVE, CLIP, CLIP], Bounds { max_batch: 8, ..FOUR });
    play.offer_to(2, 0, 1);
    play.offer_to(2, 1, 2);
    play.offer(2, 3);
    assert_eq!(play.frames(), Some(vec![3]));
    assert!(!play.scheduler.has_more(play.now_ns));
    assert_eq!(play.offer_to(2, 0, 4), Some(1));
    play.scheduler.lane_ready(2);
    assert!(play.scheduler.has_more(play.now_ns));
    assert_eq!(play.frames(), Some(vec![4, 2]));
}

#[test]
fn what_waits_for_a_shape_that_never_comes_is_taken_out() {
    let mut play = Play::new(&[LIVE, CLIP], ONE);
    play.offer_to(2, 0, 1);
    play.offer_to(0, 1, 2);
    assert_eq!(play.scheduler.take_waiting_for(2), [Left { camera: 0, frame: 1 }]);
    assert_eq!(play.frames(), Some(vec![2]));
}

#[test]
fn old_frames_are_dropped_before_inference() {
    let aged = Policy { max_age_ns: 100, ..LIVE };
    let patient = Policy { every_frame: true, ..aged };
    let mut play = Play::new(&[aged, aged, patient], Bounds { max_batch: 8, ..ONE });
    play.offer(0, 1);
    play.offer(2, 3);
    play.now_ns += 1;
    play.offer(1, 2);
    play.now_ns += 100;
    let (batch, stale) = play.next();
    assert_eq!(batch.iter().map(|job| job.frame).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(stale, [Left { camera: 0, frame: 1 }]);
}

#[test]
fn frames_whose_result_would_be_too_old_are_dropped_too() {
    let aged = Policy { max_age_ns: 100, ..LIVE };
    let mut play = Play::new(&[aged], ONE);
    for _ in 0..100 {
        play.offer(0, 1);
        assert_eq!(play.frames(), Some(vec![1]));
        play.finished(0, Some(60));
        play.scheduler.answered(0, 1);
    }
    play.offer(0, 2);
    play.now_ns += 50;
    let (batch, stale) = play.next();
    assert!(batch.is_empty());
    assert_eq!(stale, [Left { camera: 0, frame: 2 }]);
    play.offer(0, 3);
    play.now_ns += 20;
    assert_eq!(play.frames(), Some(vec![3]));
}

#[test]
fn one_hiccup_does_not_keep_a_camera_dark() {
    let aged = Policy { max_age_ns: 1_000, ..LIVE };
    let mut play = Play::new(&[aged], ONE);
    play.offer(0, 0);
    assert!(play.frames().is_some());
    play.finished(0, Some(100_000));
    play.scheduler.answered(0, 1);
    let dark = (0..).take_while(|&frame| {
        play.offer(0, frame);
        play.frames().is_none()
    });
    assert_eq!(dark.count(), TRUST as usize);
}

#[test]
fn a_limit_close_to_what_inference_takes_leaves_a_camera_some_frames() {
    // The other camera's frames take 100 and keep the estimate there.
    let tight = Policy { max_age_ns: 90, ..LIVE };
    let mut play = Play::new(&[tight, LIVE], ONE);
    let mut turns = [0, 0];
    for _ in 0..1000 {
        play.offer(0, 0);
        play.offer(1, 1);
        play.now_ns += 10;
        let camera = play.frames().expect("a frame")[0] as usize;
        turns[camera] += 1;
        play.finished(camera, Some(100));
        play.scheduler.answered(camera, 1);
    }
    assert!(turns[0] > 50 && turns[1] > 500, "{turns:?}");
}

#[test]
fn every_frame_waits_for_its_place() {
    let mut play = Play::new(&[CLIP], ONE);
    assert!(play.scheduler.wants(0));
    play.offer(0, 1);
    assert!(!play.scheduler.wants(0));
    assert_eq!(play.frames(), Some(vec![1]));
    assert!(play.scheduler.wants(0) && play.scheduler.is_working_on(0));
    play.done(0);
    assert!(!play.scheduler.is_working_on(0));
}

#[test]
fn turns_follow_the_weights() {
    let policy = |weight| Policy { weight, ..LIVE };
    let mut play = Play::new(&[policy(1), policy(3)], ONE);
    let mut turns = [0, 0];
    for _ in 0..400 {
        play.offer(0, 0);
        play.offer(1, 1);
        let camera = play.frames().expect("a frame")[0] as usize;
        turns[camera] += 1;
        play.done(camera);
    }
    // A share of a third is rounded.
    assert!((99..=101).contains(&turns[0]), "{turns:?}");
}

#[test]
fn a_slow_camera_waits_for_no_more_than_the_batch_at_work() {
    // The fast one always has a frame; the slow one's goes next, each time.
    let mut play = Play::new(&[LIVE; 2], ONE);
    for turn in 0..300 {
        play.offer(0, 0);
        assert_eq!(play.frames(), Some(vec![0]));
        play.offer(0, 0);
        if turn % 3 == 0 {
            play.offer(1, 1);
        }
        play.done(0);
        if turn % 3 == 0 {
            assert_eq!(play.frames(), Some(vec![1]));
            play.done(1);
        }
    }
}

#[test]
fn a_camera_that_was_silent_has_saved_nothing_up() {
    let mut play = Play::new(&[LIVE; 2], ONE);
    let mut turns = [0, 0];
    for turn in 0..300 {
        play.offer(0, 0);
        if turn >= 100 {
            play.offer(1, 1);
        }
        let camera = play.frames().expect("a frame")[0] as usize;
        turns[camera] += 1;
        play.done(camera);
    }
    assert_eq!(turns, [200, 100]);
}

#[test]
fn a_silent_camera_holds_nobody_up() {
    let mut play = Play::new(&[LIVE; 2], Bounds { max_batch: 4, ..ONE });
    for frame in 0..10 {
        play.offer(1, frame);
        assert_eq!(play.frames(), Some(vec![frame]));
        play.done(1);
    }
}

#[test]
fn draining_leaves_nothing() {
    let mut play = Play::new(&[LIVE; 2], ONE);
    play.offer(1, 7);
    assert_eq!(play.scheduler.drain(), [Left { camera: 1, frame: 7 }]);
    assert!(!play.scheduler.is_working_on(1));
    assert_eq!(play.frames(), None);
}

#[test]
fn a_camera_that_goes_keeps_its_number_until_its_last_answer() {
    let mut play = Play::new(&[LIVE; 2], FOUR);
    play.offer(0, 1);
    assert_eq!(play.frames(), Some(vec![1]));
    play.offer(0, 2);
    assert_eq!(play.scheduler.remove(0), Some(Left { camera: 0, frame: 2 }));
    assert!(!play.scheduler.wants(0) && play.scheduler.is_working_on(0));
    assert_eq!(play.scheduler.add(CLIP), 2);
    play.done(0);
    assert_eq!(play.scheduler.add(LIVE), 0);
    play.offer(0, 3);
    play.offer(1, 4);
    let tickets: Vec<u64> = (0..2).flat_map(|_| play.next().0).map(|job| job.ticket).collect();
    assert_eq!(tickets, [0, 0]);
    assert_eq!(play.scheduler.remove(1), None);
}
