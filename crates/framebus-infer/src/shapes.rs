//! Which network input serves which frame, and whether it is there yet.

use framebus_engine::{Shape, ShapePolicy};

/// Inputs that are loaded at most: each costs the memory of a network. Cameras have
/// few aspect ratios; a folder of pictures may have many.
pub const MAX_SHAPES: usize = 8;
/// A failed input is tried again after this, ns.
const RETRY_NS: u64 = 10_000_000_000;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Loading,
    Ready,
    Failed { reason: String, since_ns: u64 },
}

#[derive(Debug)]
struct Lane {
    shape: Shape,
    state: State,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its lane is ready.
    Ready(usize),
    /// Its lane is being loaded; the frame waits.
    Loading(usize),
    /// Its lane must be loaded, and counts as being loaded from now on.
    Load(usize, Shape),
    /// Its lane cannot be loaded; see [`Shapes::reason`].
    Failed(usize),
}

/// The lanes: inputs with their numbers, which never change.
#[derive(Debug)]
pub struct Shapes {
    policy: ShapePolicy,
    lanes: Vec<Lane>,
}

impl Shapes {
    /// Lane 0 is `base`, which is ready.
    #[must_use]
    pub fn new(policy: ShapePolicy, base: Shape) -> Self {
        Self { policy, lanes: vec![Lane { shape: base, state: State::Ready }] }
    }

    /// The lane of a frame of `width` x `height` pixels. A new shape gets a lane while
    /// there is room; after that the square input, which holds every frame at the
    /// same scale, serves. One source always gets the same lanes; of several that
    /// have more than [`MAX_SHAPES`] between them, the first come keep theirs.
    pub fn place(&mut self, width: usize, height: usize, now_ns: u64) -> Place {
        let shape = self.policy.shape_for(width, height);
        let known = |shape| self.lanes.iter().position(|lane| lane.shape == shape);
        let (lane, shape) = match (known(shape), self.policy) {
            (Some(lane), _) => (lane, shape),
            (None, ShapePolicy::CameraShaped { side, .. }) => {
                let square = Shape { height: side, width: side };
                let room = MAX_SHAPES - usize::from(known(square).is_none());
                let shape = if self.lanes.len() < room { shape } else { square };
                (known(shape).unwrap_or(self.lanes.len()), shape)
            }
            (None, ShapePolicy::Fixed(_)) => (self.lanes.len(), shape),
        };
        if lane == self.lanes.len() {
            self.lanes.push(Lane { shape, state: State::Loading });
            return Place::Load(lane, shape);
        }
        let state = &mut self.lanes[lane].state;
        match state {
            State::Ready => Place::Ready(lane),
            State::Loading => Place::Loading(lane),
            State::Failed { since_ns, .. } if now_ns.saturating_sub(*since_ns) < RETRY_NS => {
                Place::Failed(lane)
            }
            State::Failed { .. } => {
                *state = State::Loading;
                Place::Load(lane, shape)
            }
        }
    }

    /// The input of a lane.
    #[must_use]
    pub fn shape(&self, lane: usize) -> Shape {
        self.lanes[lane].shape
    }

    /// Loading came to its end.
    pub fn loaded(&mut self, lane: usize, result: Result<(), String>, now_ns: u64) {
        self.lanes[lane].state = match result {
            Ok(()) => State::Ready,
            Err(reason) => State::Failed { reason, since_ns: now_ns },
        };
    }

    /// Why a lane cannot be loaded; empty when it can.
    #[must_use]
    pub fn reason(&self, lane: usize) -> &str {
        match &self.lanes[lane].state {
            State::Failed { reason, .. } => reason,
            _ => "",
        }
    }

    /// The inputs that are ready, in the order of their numbers.
    pub fn ready(&self) -> impl Iterator<Item = Shape> {
        let ready = |lane: &&Lane| lane.state == State::Ready;
        self.lanes.iter().filter(ready).map(|lane| lane.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Shape = Shape { height: 384, width: 640 };
    const SQUARE: Shape = Shape { height: 640, width: 640 };

    fn shapes() -> Shapes {
        Shapes::new(ShapePolicy::CameraShaped { side: 640, stride: 32 }, WIDE)
    }

    #[test]
    fn one_lane_per_shape() {
        let mut shapes = shapes();
        assert_eq!(shapes.place(1920, 1080, 0), Place::Ready(0));
        let four_thirds = Shape { height: 480, width: 640 };
        assert_eq!(shapes.place(640, 480, 0), Place::Load(1, four_thirds));
        assert_eq!(shapes.place(1600, 1200, 0), Place::Loading(1));
        shapes.loaded(1, Ok(()), 0);
        assert_eq!(shapes.place(640, 480, 0), Place::Ready(1));
        assert_eq!(shapes.ready().collect::<Vec<_>>(), [WIDE, four_thirds]);
    }

    #[test]
    fn a_fixed_input_serves_all() {
        let mut shapes = Shapes::new(ShapePolicy::Fixed(SQUARE), SQUARE);
        for (width, height) in [(1920, 1080), (1080, 1920), (1, 1)] {
            assert_eq!(shapes.place(width, height, 0), Place::Ready(0));
        }
    }

    #[test]
    fn a_failed_shape_is_tried_again_after_a_while() {
        let mut shapes = shapes();
        assert_eq!(shapes.place(1080, 1920, 0), Place::Load(1, Shape { height: 640, width: 384 }));
        shapes.loaded(1, Err("no memory".to_owned()), 5);
        assert_eq!(shapes.place(1080, 1920, RETRY_NS + 4), Place::Failed(1));
        assert_eq!(shapes.reason(1), "no memory");
        assert_eq!(shapes.place(1080, 1920, RETRY_NS + 5), Place::Load(1, shapes.shape(1)));
        assert_eq!(shapes.place(1080, 1920, RETRY_NS + 6), Place::Loading(1));
    }

    #[test]
    fn the_square_input_serves_what_finds_no_room() {
        let mut shapes = shapes();
        // 640 x 32, 64, ..: 6 lanes beside the base; the last place is the square's.
        for (lane, short) in (1..7).zip((32..).step_by(32)) {
            let shape = Shape { height: short, width: 640 };
            assert_eq!(shapes.place(640, short, 0), Place::Load(lane, shape));
        }
        assert_eq!(shapes.place(640, 512, 0), Place::Load(7, SQUARE));
        assert_eq!(shapes.place(640, 544, 0), Place::Loading(7));
        assert_eq!(shapes.place(640, 32, 0), Place::Loading(1));
        assert_eq!(shapes.place(640, 640, 0), Place::Loading(7));
    }

    #[test]
    fn a_square_camera_takes_the_place_kept_for_the_square() {
        let mut shapes = shapes();
        assert_eq!(shapes.place(64, 64, 0), Place::Load(1, SQUARE));
        for (lane, short) in (2..8).zip((32..).step_by(32)) {
            assert!(matches!(shapes.place(640, short, 0), Place::Load(l, _) if l == lane));
        }
        assert_eq!(shapes.place(640, 512, 0), Place::Loading(1));
    }
}
