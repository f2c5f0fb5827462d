//! Which frame is inferred next.
//!
//! Pure bookkeeping over an opaque frame type: no bus, no engine, no clock of
//! its own, so that tests can play every order of events.
//!
//! Each camera has one waiting frame at most. A newer one takes its place
//! (live) or is not taken from the bus before the place is free (every-frame).
//! A camera has one frame in inference at most, so its `ok` results come in
//! order and a slow engine cannot be filled by one camera. Workers ask for a
//! batch when they are idle; cameras take turns by smooth weighted round robin,
//! so a fast camera gets no more than its share while others wait.

/// What the scheduler must know of a camera.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Share of the engine when cameras compete.
    pub weight: u32,
    /// Oldest frame worth inferring, ns; 0 takes any.
    pub max_age_ns: u64,
    /// Never replace a waiting frame.
    pub every_frame: bool,
}

#[derive(Debug)]
struct Camera<F> {
    policy: Policy,
    waiting: Option<Waiting<F>>,
    busy: bool,
    credit: i64,
}

#[derive(Debug)]
struct Waiting<F> {
    frame: F,
    capture_ns: u64,
}

/// A frame that goes to a worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Job<F> {
    /// Camera number.
    pub camera: usize,
    /// The frame.
    pub frame: F,
}

/// The waiting frames of all cameras.
#[derive(Debug)]
pub struct Scheduler<F> {
    cameras: Vec<Camera<F>>,
}

impl<F> Scheduler<F> {
    /// One entry per camera, in the order of their numbers.
    #[must_use]
    pub fn new(policies: &[Policy]) -> Self {
        let cameras = policies
            .iter()
            .map(|&policy| Camera { policy, waiting: None, busy: false, credit: 0 })
            .collect();
        Self { cameras }
    }

    /// Whether the next frame of `camera` may be taken from the bus.
    #[must_use]
    pub fn wants(&self, camera: usize) -> bool {
        let camera = &self.cameras[camera];
        !camera.policy.every_frame || camera.waiting.is_none()
    }

    /// Puts a frame into its camera's place; returns the one it supersedes.
    pub fn offer(&mut self, camera: usize, frame: F, capture_ns: u64) -> Option<F> {
        let place = &mut self.cameras[camera].waiting;
        place.replace(Waiting { frame, capture_ns }).map(|old| old.frame)
    }

    /// Moves up to `max_batch` frames into `batch`, at most one per camera, and
    /// frames that have become too old into `stale`.
    pub fn next(
        &mut self,
        now_ns: u64,
        max_batch: usize,
        batch: &mut Vec<Job<F>>,
        stale: &mut Vec<Job<F>>,
    ) {
        for (number, camera) in self.cameras.iter_mut().enumerate() {
            let limit = camera.policy.max_age_ns;
            let too_old = |waiting: &mut Waiting<F>| {
                limit > 0 && now_ns.saturating_sub(waiting.capture_ns) > limit
            };
            if !camera.policy.every_frame
                && let Some(old) = camera.waiting.take_if(too_old)
            {
                stale.push(Job { camera: number, frame: old.frame });
            }
        }
        while batch.len() < max_batch {
            let Some(number) = self.turn() else { return };
            let camera = &mut self.cameras[number];
            if let Some(waiting) = camera.waiting.take() {
                camera.busy = true;
                batch.push(Job { camera: number, frame: waiting.frame });
            }
        }
    }

    /// The camera whose turn it is: every ready camera gains its weight, the
    /// richest goes and pays what all gained.
    fn turn(&mut self) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for number in 0..self.cameras.len() {
            let camera = &mut self.cameras[number];
            if camera.busy || camera.waiting.is_none() {
                continue;
            }
            let weight = i64::from(camera.policy.weight);
            camera.credit += weight;
            total += weight;
            let credit = camera.credit;
            if best.is_none_or(|b| credit > self.cameras[b].credit) {
                best = Some(number);
            }
        }
        if let Some(number) = best {
            self.cameras[number].credit -= total;
        }
        best
    }

    /// The frame of `camera` that was in inference is done.
    pub fn done(&mut self, camera: usize) {
        self.cameras[camera].busy = false;
    }

    /// Frames that wait, of all cameras.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.cameras.iter().filter(|camera| camera.waiting.is_some()).count()
    }

    /// Takes all waiting frames out: the process is stopping.
    pub fn drain(&mut self) -> Vec<Job<F>> {
        let drain = |(number, camera): (usize, &mut Camera<F>)| {
            camera.waiting.take().map(|waiting| Job { camera: number, frame: waiting.frame })
        };
        self.cameras.iter_mut().enumerate().filter_map(drain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Policy = Policy { weight: 1, max_age_ns: 0, every_frame: false };

    fn next(scheduler: &mut Scheduler<u32>, now_ns: u64, max: usize) -> (Vec<u32>, Vec<u32>) {
        let (mut batch, mut stale) = (Vec::new(), Vec::new());
        scheduler.next(now_ns, max, &mut batch, &mut stale);
        let frames = |jobs: Vec<Job<u32>>| jobs.into_iter().map(|job| job.frame).collect();
        (frames(batch), frames(stale))
    }

    #[test]
    fn the_newest_frame_wins_and_the_older_one_is_handed_back() {
        let mut scheduler = Scheduler::new(&[LIVE]);
        assert_eq!(scheduler.offer(0, 1, 0), None);
        assert_eq!(scheduler.offer(0, 2, 0), Some(1));
        assert_eq!(next(&mut scheduler, 0, 4), (vec![2], vec![]));
        assert_eq!(next(&mut scheduler, 0, 4), (vec![], vec![]));
    }

    #[test]
    fn one_frame_of_a_camera_in_inference_at_a_time() {
        let mut scheduler = Scheduler::new(&[LIVE, LIVE]);
        scheduler.offer(0, 1, 0);
        assert_eq!(next(&mut scheduler, 0, 1).0, [1]);
        scheduler.offer(0, 2, 0);
        assert!(next(&mut scheduler, 0, 1).0.is_empty());
        scheduler.offer(1, 3, 0);
        assert_eq!(next(&mut scheduler, 0, 1).0, [3]);
        scheduler.done(0);
        assert_eq!(next(&mut scheduler, 0, 1).0, [2]);
    }

    #[test]
    fn a_batch_takes_one_frame_of_each_camera() {
        let mut scheduler = Scheduler::new(&[LIVE; 3]);
        for camera in 0..3 {
            scheduler.offer(camera, camera as u32, 0);
        }
        let (mut batch, _) = next(&mut scheduler, 0, 8);
        batch.sort_unstable();
        assert_eq!(batch, [0, 1, 2]);
    }

    #[test]
    fn old_frames_are_dropped_before_inference() {
        let aged = Policy { max_age_ns: 100, ..LIVE };
        let patient = Policy { every_frame: true, ..aged };
        let mut scheduler = Scheduler::new(&[aged, aged, patient]);
        scheduler.offer(0, 1, 50);
        scheduler.offer(1, 2, 51);
        scheduler.offer(2, 3, 0);
        assert_eq!(next(&mut scheduler, 151, 8), (vec![2, 3], vec![1]));
    }

    #[test]
    fn every_frame_waits_for_its_place() {
        let mut scheduler = Scheduler::new(&[Policy { every_frame: true, ..LIVE }]);
        assert!(scheduler.wants(0));
        scheduler.offer(0, 1, 0);
        assert!(!scheduler.wants(0));
        next(&mut scheduler, 0, 1);
        assert!(scheduler.wants(0));
    }

    #[test]
    fn turns_follow_the_weights() {
        let policy = |weight| Policy { weight, ..LIVE };
        let mut scheduler = Scheduler::new(&[policy(1), policy(3)]);
        let mut turns = [0, 0];
        for _ in 0..400 {
            scheduler.offer(0, 0, 0);
            scheduler.offer(1, 1, 0);
            let camera = next(&mut scheduler, 0, 1).0[0] as usize;
            turns[camera] += 1;
            scheduler.done(camera);
        }
        assert_eq!(turns, [100, 300]);
    }

    #[test]
    fn a_silent_camera_holds_nobody_up() {
        let mut scheduler = Scheduler::new(&[LIVE; 2]);
        for frame in 0..10 {
            scheduler.offer(1, frame, 0);
            assert_eq!(next(&mut scheduler, 0, 4).0, [frame]);
            scheduler.done(1);
        }
    }

    #[test]
    fn draining_leaves_nothing() {
        let mut scheduler = Scheduler::new(&[LIVE; 2]);
        scheduler.offer(1, 7, 0);
        assert_eq!(scheduler.drain(), [Job { camera: 1, frame: 7 }]);
        assert_eq!(scheduler.waiting(), 0);
    }
}
