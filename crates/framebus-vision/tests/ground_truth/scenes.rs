//! Objects that move, hide each other and are sometimes missed.

use super::Random;
use framebus_vision::{Observation, iou};

pub(crate) const WIDTH: f32 = 1280.0;
pub(crate) const HEIGHT: f32 = 720.0;

/// What the detector sees of a scene.
#[derive(Clone, Copy)]
pub(crate) struct Detector {
    /// Standard deviation of each edge of a box, as a share of its width or height.
    pub jitter: f32,
    /// Share of visible objects that are missed.
    pub missed: f32,
    /// False boxes in a frame, on average.
    pub false_boxes: f32,
}

pub(crate) const PERFECT: Detector = Detector { jitter: 0.0, missed: 0.0, false_boxes: 0.0 };
pub(crate) const USUAL: Detector = Detector { jitter: 0.02, missed: 0.03, false_boxes: 0.5 };

/// How objects move.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Motion {
    /// One lane each, constant speed, nobody meets anybody.
    Lanes,
    /// Straight through each other in all directions.
    Crossing,
    /// Speeding up, braking, turning, stopping; through each other.
    Lively,
    /// As `Lively`, behind pillars that hide most of what passes for less than a second.
    Pillars,
}

pub(crate) struct Setup {
    pub motion: Motion,
    pub objects: usize,
    pub fps: f32,
    pub seconds: f32,
    pub detector: Detector,
    pub seed: u64,
}

/// A frame: what is there, `(id, box)`, and what was detected.
pub(crate) struct Frame {
    pub time_ns: u64,
    pub truth: Vec<(u64, [f32; 4])>,
    pub seen: Vec<Observation>,
}

struct Mover {
    id: u64,
    centre: [f32; 2],
    velocity: [f32; 2],
    size: [f32; 2],
    /// Of the lively ones: how often the course changes, and its phase.
    swing: [f32; 3],
    starts_s: f32,
}

impl Mover {
    fn new(id: u64, setup: &Setup, random: &mut Random) -> Self {
        let height = random.between(60.0, 150.0);
        let size = [height * random.between(0.35, 0.6), height];
        let speed = random.between(0.5, 2.0) * size[0];
        if setup.motion == Motion::Lanes {
            let lane = HEIGHT / setup.objects as f32;
            let size = [lane * 0.6, lane * 0.8];
            let speed = random.between(0.5, 2.0) * size[0];
            let y = (id as f32 - 0.5) * lane;
            let right = random.unit() < 0.5;
            return Self {
                id,
                centre: [if right { 0.0 } else { WIDTH }, y],
                velocity: [if right { speed } else { -speed }, 0.0],
                size,
                swing: [0.0; 3],
                starts_s: 0.0,
            };
        }
        let angle = random.between(0.0, std::f32::consts::TAU);
        Self {
            id,
            centre: [random.between(0.1, 0.9) * WIDTH, random.between(0.2, 0.8) * HEIGHT],
            velocity: [speed * angle.cos(), 0.5 * speed * angle.sin()],
            size,
            swing: [random.between(0.3, 1.2), random.between(0.0, 6.0), random.between(0.3, 1.0)],
            starts_s: random.between(-0.6, 0.6) * setup.seconds,
        }
    }

    fn step(&mut self, motion: Motion, time_s: f32, seconds: f32) {
        let [often, phase, depth] = self.swing;
        let (pace, turn) = if matches!(motion, Motion::Lively | Motion::Pillars) {
            let swing = (often * time_s * std::f32::consts::TAU / 2.0 + phase).sin();
            // Some brake to a stop; all turn a little.
            (1.0 + depth * swing, 0.6 * swing * seconds)
        } else {
            (1.0, 0.0)
        };
        let [vx, vy] = self.velocity;
        self.velocity = [vx * turn.cos() - vy * turn.sin(), vx * turn.sin() + vy * turn.cos()];
        for axis in 0..2 {
            self.centre[axis] += self.velocity[axis] * pace * seconds;
        }
        if motion != Motion::Lanes {
            // Turns back at the edges, so that scenes stay full.
            for (axis, length) in [(0, WIDTH), (1, HEIGHT)] {
                let half = self.size[axis] / 2.0;
                if self.centre[axis] < half || self.centre[axis] > length - half {
                    self.velocity[axis] = -self.velocity[axis];
                    self.centre[axis] = self.centre[axis].clamp(half, length - half);
                }
            }
        }
    }

    fn bbox(&self) -> [f32; 4] {
        let [x, y] = self.centre;
        let [width, height] = self.size.map(|side| side / 2.0);
        [x - width, y - height, x + width, y + height]
    }
}

/// Share of `bbox` that `other` covers.
fn covered(bbox: [f32; 4], other: [f32; 4]) -> f32 {
    let width = (bbox[2].min(other[2]) - bbox[0].max(other[0])).max(0.0);
    let height = (bbox[3].min(other[3]) - bbox[1].max(other[1])).max(0.0);
    width * height / ((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))
}

const PILLARS: [[f32; 4]; 3] =
    [[300.0, 0.0, 336.0, 720.0], [700.0, 0.0, 744.0, 720.0], [980.0, 0.0, 1020.0, 720.0]];

/// Plays a scene. An object is part of the truth while a quarter of it shows.
pub(crate) fn play(setup: &Setup) -> Vec<Frame> {
    let mut random = Random::new(setup.seed);
    let mut movers: Vec<Mover> =
        (1..=setup.objects as u64).map(|id| Mover::new(id, setup, &mut random)).collect();
    let step_s = 1.0 / setup.fps;
    let frames = (setup.seconds * setup.fps) as usize;
    let mut all = Vec::with_capacity(frames);
    for frame in 0..frames {
        let time_s = frame as f32 * step_s;
        for mover in &mut movers {
            // In small steps, so that the way is the same at any rate of frames.
            for part in 0..4 {
                let at = time_s + part as f32 * step_s / 4.0;
                mover.step(setup.motion, at, step_s / 4.0);
            }
        }
        let there = |mover: &&Mover| {
            let [x, y] = mover.centre;
            mover.starts_s <= time_s && x > 0.0 && x < WIDTH && y > 0.0 && y < HEIGHT
        };
        let present: Vec<(u64, [f32; 4])> =
            movers.iter().filter(there).map(|mover| (mover.id, mover.bbox())).collect();
        let (mut truth, mut seen) = (Vec::new(), Vec::new());
        for &(id, bbox) in &present {
            let visible = visibility(setup.motion, &present, id, bbox);
            if visible >= 0.25 {
                truth.push((id, bbox));
            }
            if let Some(found) = detect(setup.detector, visible, bbox, &mut random) {
                seen.push(found);
            }
        }
        let mut chance = setup.detector.false_boxes;
        while chance > 0.0 {
            if random.unit() < chance {
                seen.push(ghost(&mut random));
            }
            chance -= 1.0;
        }
        suppress(&mut seen);
        all.push(Frame { time_ns: (f64::from(time_s) * 1e9) as u64, truth, seen });
    }
    all
}

/// Whose feet are lower is nearer and hides the others.
fn visibility(motion: Motion, present: &[(u64, [f32; 4])], id: u64, bbox: [f32; 4]) -> f32 {
    let nearer = present.iter().filter(|(other, b)| *other != id && b[3] > bbox[3]);
    let mut hidden = nearer.map(|(_, other)| covered(bbox, *other)).fold(0.0, f32::max);
    if motion == Motion::Pillars {
        hidden = PILLARS.iter().map(|pillar| covered(bbox, *pillar)).fold(hidden, f32::max);
    }
    1.0 - hidden
}

pub(crate) fn detect(
    detector: Detector,
    visible: f32,
    bbox: [f32; 4],
    random: &mut Random,
) -> Option<Observation> {
    let (missed, score) = (random.unit() < detector.missed, random.between(0.7, 0.95));
    let noise: [f32; 4] = std::array::from_fn(|_| random.normal());
    if missed || visible < 0.2 {
        return None;
    }
    // Less of an object, less sure of it: 0.2 where a fifth shows, full from 70 %.
    let score = score * ((visible - 0.1) / 0.6).clamp(0.1, 1.0);
    let spread = |axis: usize| detector.jitter * (bbox[2 + axis] - bbox[axis]);
    let bbox = std::array::from_fn(|side| bbox[side] + noise[side] * spread(side % 2));
    Some(Observation { bbox, score, class: 0 })
}

pub(crate) fn ghost(random: &mut Random) -> Observation {
    let (x, y) = (random.between(0.0, WIDTH), random.between(0.0, HEIGHT));
    let (width, height) = (random.between(20.0, 80.0), random.between(40.0, 150.0));
    let score = random.between(0.1, 0.7);
    Observation { bbox: [x, y, x + width, y + height], score, class: 0 }
}

/// Non-maximum suppression at 0.7, as in front of any tracker.
fn suppress(seen: &mut Vec<Observation>) {
    seen.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Observation> = Vec::with_capacity(seen.len());
    for &one in &*seen {
        if kept.iter().all(|other| iou(other.bbox, one.bbox) <= 0.7) {
            kept.push(one);
        }
    }
    *seen = kept;
}
