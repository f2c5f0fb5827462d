//! Which frames are inferred next.
//!
//! Pure bookkeeping over an opaque frame type: no bus, no engine, no clock of
//! its own, so that tests can play every order of events.
//!
//! Each camera has one waiting frame at most. A newer one takes its place
//! (live) or is not taken from the bus before the place is free (every-frame).
//! Workers ask for a batch when they are idle and get what waits at that moment,
//! of one input shape (*lane*), one frame per camera: a batch never waits for a
//! silent camera. Cameras take turns by start-time fair queueing (Goyal, Vin, Cheng:
//! SIGCOMM 1996): each gets its weight's share where they compete, and one that
//! wanted less than its share until now goes first. A camera that has a frame in
//! inference gives way to all that have none, and leaves one worker free for them;
//! so a fast one gets more than one worker only where it would idle.

use crate::service_time::ServiceTime;
use crate::shapes::MAX_SHAPES;

/// A live camera is counted with for so long after its last frame, ns.
const ACTIVE_NS: u64 = 1_000_000_000;

/// Frames in a row that an estimate may keep from a camera.
const TRUST: u64 = 32;
/// Virtual time that a frame of weight 1 costs.
const FRAME_COST: u64 = 1 << 20;

/// What the scheduler must know of a camera.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Share of the engine when cameras compete.
    pub weight: u32,
    /// Oldest result worth delivering, ns; 0 takes any.
    pub max_age_ns: u64,
    /// Never replace a waiting frame.
    pub every_frame: bool,
}

/// What bounds the work at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Workers that ask for batches.
    pub workers: usize,
    /// Frames in one batch.
    pub max_batch: usize,
    /// Frames of one camera in inference.
    pub in_flight: usize,
    /// Frames of one camera in inference or answered out of turn, see
    /// [`Order`](crate::order::Order).
    pub unanswered: usize,
}

/// Small, because all of them are looked at for every batch; the frames lie apart.
#[derive(Debug)]
struct Camera {
    /// Still there; a removed one keeps its number while it has frames in inference.
    here: bool,
    policy: Policy,
    waiting: Option<Waiting>,
    /// When it last offered a frame, ns.
    offered_ns: u64,
    in_flight: usize,
    unanswered: usize,
    next_ticket: u64,
    /// Frames given up in a row because their results would probably be too late.
    refused: u64,
    /// Virtual time at which its share is used up.
    paid_until: u64,
}

#[derive(Debug)]
struct Waiting {
    capture_ns: u64,
    lane: usize,
    /// Virtual time at which it may start by its camera's share.
    start: u64,
}

/// A frame that goes to a worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Job<F> {
    /// Camera number.
    pub camera: usize,
    /// Counts the camera's frames in the order in which their answers go out, from 0.
    pub ticket: u64,
    /// The frame.
    pub frame: F,
}

/// A frame that leaves without inference.
#[derive(Debug, PartialEq, Eq)]
pub struct Left<F> {
    /// Camera number.
    pub camera: usize,
    /// The frame.
    pub frame: F,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    ready: bool,
    service: ServiceTime,
}

/// Which cameras may have the next place in a batch.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// Those without a frame in inference.
    Free,
    /// Those with some, too.
    All,
}

/// The waiting frames of all cameras.
#[derive(Debug)]
pub struct Scheduler<F> {
    bounds: Bounds,
    cameras: Vec<Camera>,
    /// The waiting frame of each camera.
    frames: Vec<Option<F>>,
    lanes: [Lane; MAX_SHAPES],
    busy: usize,
    /// Start of the frame that went last.
    virtual_time: u64,
}

impl<F> Scheduler<F> {
    /// Without cameras; no lane is ready.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (cameras, frames) = (Vec::new(), Vec::new());
        Self { bounds, cameras, frames, lanes: Default::default(), busy: 0, virtual_time: 0 }
    }

    /// Adds a camera; answers its number, which may be that of a camera that was removed
    /// and has all its answers. Its tickets count from 0.
    pub fn add(&mut self, policy: Policy) -> usize {
        let camera = Camera {
            here: true,
            policy,
            waiting: None,
            offered_ns: 0,
            in_flight: 0,
            unanswered: 0,
            next_ticket: 0,
            refused: 0,
            paid_until: 0,
        };
        let free = |camera: &Camera| !camera.here && camera.unanswered == 0;
        if let Some(number) = self.cameras.iter().position(free) {
            self.cameras[number] = camera;
            return number;
        }
        self.cameras.push(camera);
        self.frames.push(None);
        self.cameras.len() - 1
    }

    /// The camera's policy from now on; whether it is every-frame stays.
    pub fn set(&mut self, camera: usize, policy: Policy) {
        self.cameras[camera].policy = policy;
    }

    /// Removes a camera; answers the frame that waits. What is in inference is
    /// [`answered`](Self::answered) as ever.
    pub fn remove(&mut self, number: usize) -> Option<Left<F>> {
        let camera = &mut self.cameras[number];
        (camera.here, camera.waiting) = (false, None);
        self.frames[number].take().map(|frame| Left { camera: number, frame })
    }

    /// How long a batch of this lane will probably take, ns; 0 before the first one.
    #[must_use]
    pub fn expected_ns(&self, lane: usize) -> u64 {
        self.lanes[lane].service.expected_ns()
    }

    /// Whether the next frame of `camera` may be taken from the bus.
    #[must_use]
    pub fn wants(&self, camera: usize) -> bool {
        let camera = &self.cameras[camera];
        camera.here && (!camera.policy.every_frame || camera.waiting.is_none())
    }

    /// Puts a frame into its camera's place; returns the one it supersedes.
    pub fn offer(
        &mut self,
        camera: usize,
        lane: usize,
        frame: F,
        capture_ns: u64,
        now_ns: u64,
    ) -> Option<F> {
        let old = self.frames[camera].replace(frame);
        let camera = &mut self.cameras[camera];
        camera.offered_ns = now_ns;
        // A frame that takes the place of another takes its turn, too.
        let start = match &camera.waiting {
            Some(waiting) => waiting.start,
            None => camera.paid_until.max(self.virtual_time),
        };
        camera.waiting = Some(Waiting { capture_ns, lane, start });
        old
    }

    /// Frames of this lane may go to workers from now on.
    pub fn lane_ready(&mut self, lane: usize) {
        self.lanes[lane].ready = true;
    }

    /// Takes out what waits for a lane that cannot be made ready.
    pub fn take_waiting_for(&mut self, lane: usize) -> Vec<Left<F>> {
        self.take_waiting(|waiting| waiting.lane == lane)
    }

    /// Takes all waiting frames out: the process is stopping.
    pub fn drain(&mut self) -> Vec<Left<F>> {
        self.take_waiting(|_| true)
    }

    fn take_waiting(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Left<F>> {
        let cameras = self.cameras.iter_mut().zip(&mut self.frames).enumerate();
        let take = |(camera, (entry, frame)): (usize, (&mut Camera, &mut Option<F>))| {
            entry.waiting.take_if(|waiting| which(waiting))?;
            Some(Left { camera, frame: frame.take()? })
        };
        cameras.filter_map(take).collect()
    }

    /// For an idle worker: fills `batch` (empty before) and answers its lane, or
    /// `None` when nothing can start. Frames whose result would come too late go
    /// into `stale`, also then.
    pub fn next(
        &mut self,
        now_ns: u64,
        batch: &mut Vec<Job<F>>,
        stale: &mut Vec<Left<F>>,
    ) -> Option<usize> {
        self.drop_stale(now_ns, stale);
        let leader =
            self.turn(None, Who::Free).or_else(|| match self.may_add_to_one_camera(now_ns) {
                true => self.turn(None, Who::All),
                false => None,
            })?;
        let lane = self.start(leader, batch)?;
        while batch.len() < self.bounds.max_batch
            && let Some(camera) = self.turn(Some(lane), Who::Free)
        {
            self.start(camera, batch);
        }
        self.busy += 1;
        Some(lane)
    }

    /// Whether another worker would find something to start.
    #[must_use]
    pub fn has_more(&self, now_ns: u64) -> bool {
        if self.busy >= self.bounds.workers {
            return false;
        }
        let who = if self.may_add_to_one_camera(now_ns) { Who::All } else { Who::Free };
        self.cameras.iter().any(|camera| self.can_start(camera, None, who))
    }

    /// Whether a worker is idle.
    #[must_use]
    pub fn has_idle_worker(&self) -> bool {
        self.busy < self.bounds.workers
    }

    /// A worker's batch is out of the engine and its frames are given back;
    /// `took_ns` from start to last answer, `None` when it failed.
    pub fn finished(
        &mut self,
        lane: usize,
        took_ns: Option<u64>,
        cameras: impl Iterator<Item = usize>,
    ) {
        self.busy -= 1;
        for camera in cameras {
            self.cameras[camera].in_flight -= 1;
        }
        if let Some(took_ns) = took_ns {
            self.lanes[lane].service.observe(took_ns);
        }
    }

    /// So many answers of `camera` have gone out.
    pub fn answered(&mut self, camera: usize, answers: usize) {
        self.cameras[camera].unanswered -= answers;
    }

    /// Whether a frame of `camera` waits or is in inference.
    #[must_use]
    pub fn is_working_on(&self, camera: usize) -> bool {
        let camera = &self.cameras[camera];
        camera.waiting.is_some() || camera.unanswered > 0
    }

    fn drop_stale(&mut self, now_ns: u64, stale: &mut Vec<Left<F>>) {
        for (number, camera) in self.cameras.iter_mut().enumerate() {
            let limit_ns = camera.policy.max_age_ns;
            let Some(waiting) = &camera.waiting else { continue };
            if limit_ns == 0 || camera.policy.every_frame {
                continue;
            }
            // With each frame given up the estimate counts for less: one that is
            // spoilt, or a limit that is close to what inference takes, costs a
            // camera frames but never all of them.
            let trust = TRUST.saturating_sub(camera.refused);
            let expected_ns = self.lanes[waiting.lane].service.expected_ns() * trust / TRUST;
            let age_ns = now_ns.saturating_sub(waiting.capture_ns);
            if age_ns + expected_ns <= limit_ns {
                continue;
            }
            camera.refused += u64::from(age_ns <= limit_ns);
            camera.waiting = None;
            stale.extend(self.frames[number].take().map(|frame| Left { camera: number, frame }));
        }
    }

    /// Whether a camera may have a further frame in inference: beside live cameras
    /// only while one worker stays free for them.
    fn may_add_to_one_camera(&self, now_ns: u64) -> bool {
        let active = |camera: &&Camera| {
            camera.offered_ns != 0
                && !camera.policy.every_frame
                && now_ns.saturating_sub(camera.offered_ns) < ACTIVE_NS
        };
        let live = self.cameras.iter().filter(active).take(2).count();
        let clips = self.cameras.iter().any(|c| c.policy.every_frame && c.waiting.is_some());
        let reserve = usize::from(live > 1 || live == 1 && clips);
        self.busy + 1 + reserve <= self.bounds.workers
    }

    fn can_start(&self, camera: &Camera, lane: Option<usize>, who: Who) -> bool {
        let limit = match who {
            Who::Free => 1,
            Who::All => self.bounds.in_flight,
        };
        camera.in_flight < limit
            && camera.unanswered < self.bounds.unanswered
            && camera.waiting.as_ref().is_some_and(|waiting| {
                self.lanes[waiting.lane].ready && lane.is_none_or(|lane| lane == waiting.lane)
            })
    }

    /// The camera whose turn it is: the earliest start, then the oldest frame.
    fn turn(&self, lane: Option<usize>, who: Who) -> Option<usize> {
        let candidate = |(number, camera): (usize, &Camera)| {
            let waiting = camera.waiting.as_ref()?;
            self.can_start(camera, lane, who).then_some((waiting.start, waiting.capture_ns, number))
        };
        self.cameras.iter().enumerate().filter_map(candidate).min().map(|(.., number)| number)
    }

    /// Moves the waiting frame into the batch; answers its lane.
    fn start(&mut self, number: usize, batch: &mut Vec<Job<F>>) -> Option<usize> {
        let camera = &mut self.cameras[number];
        let (waiting, frame) = (camera.waiting.take()?, self.frames[number].take()?);
        self.virtual_time = self.virtual_time.max(waiting.start);
        camera.paid_until = waiting.start + FRAME_COST / u64::from(camera.policy.weight.max(1));
        camera.refused = 0;
        camera.in_flight += 1;
        camera.unanswered += 1;
        batch.push(Job { camera: number, ticket: camera.next_ticket, frame });
        camera.next_ticket += 1;
        Some(waiting.lane)
    }
}

#[cfg(test)]
mod tests;
