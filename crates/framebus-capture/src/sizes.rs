//! What the sizes of compressed frames say about the scene.
//!
//! A delta frame holds what differs from the frames before it: while nothing moves, noise
//! and what the encoder makes up for after a key frame. That part depends on the encoder,
//! the scene and the place in the group of pictures, and is learned; a frame that is much
//! larger means that something happens. An encoder that is held to a fixed rate fills
//! quiet frames with noise, and then the sizes say little: what moves is seen at the next
//! key frame.

/// Places that are told apart: each of the first eight, then two to an octave.
const PLACES: usize = 32;
/// A frame counts when it is larger than usual by this part, or by so many times the
/// usual excess, whichever is more, ...
const SINGLE: (f32, f32) = (0.5, 6.0);
/// ... and so does a run of frames, which need not stand out as much.
const RUN: (f32, f32) = (0.3, 2.0);
/// Weight of a frame in the mean of a run.
const RUN_WEIGHT: f32 = 1.0 / 8.0;
/// A difference below this many bytes never counts: an empty frame has some 70.
const SLACK_BYTES: f32 = 64.0;
/// Weight of a group of pictures in what is usual: of the second one, of later ones, and
/// of one that is larger because the scene was busy.
const LEARN_SECOND: f32 = 1.0 / 2.0;
const LEARN: f32 = 1.0 / 4.0;
const LEARN_BUSY: f32 = 1.0 / 32.0;
/// Weight of a frame in the usual excess: small, or a run would hide behind itself.
const LEARN_EXCESS: f32 = 1.0 / 256.0;
/// What is held for the usual excess before anything is known.
const FIRST_EXCESS: f32 = 0.25;

/// What a frame's size says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Too few frames have been seen at this place.
    Unknown,
    Quiet,
    Busy,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// What is usual, in bytes.
    bytes: f32,
    /// Groups of pictures that it was learned from.
    groups: u32,
}

/// The frames at one place of the group in work. They are learned together once the place
/// is over: a change within it must not become usual before it has been noticed.
#[derive(Debug, Clone, Copy, Default)]
struct Here {
    place: usize,
    bytes: f32,
    frames: u32,
    busy: bool,
}

/// The sizes of one stream.
#[derive(Debug)]
pub(crate) struct Sizes {
    places: [Place; PLACES],
    here: Here,
    /// Frames since the key frame.
    position: u32,
    /// How far frames of a quiet scene exceed what is usual, as a part of it: twice the
    /// mean, since half of them do not.
    excess: f32,
    /// Mean of the last sizes, as parts of what is usual.
    run: f32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            places: [Place::default(); PLACES],
            here: Here::default(),
            position: 0,
            excess: FIRST_EXCESS,
            run: 1.0,
        }
    }
}

impl Sizes {
    /// A key frame: a new group of pictures.
    pub(crate) fn key(&mut self) {
        self.learn();
        self.position = 0;
        self.run = 1.0;
    }

    /// A frame that is no key frame; `busy` says that the scene is known to be.
    pub(crate) fn delta(&mut self, bytes: usize, busy: bool) -> Hint {
        self.position = self.position.saturating_add(1);
        let place = place(self.position);
        if place != self.here.place {
            self.learn();
            self.here.place = place;
        }
        let bytes = bytes as f32;
        let hint = self.judge(bytes, self.places[place]);
        let is_busy = busy || hint == Hint::Busy;
        self.here.bytes += bytes;
        self.here.frames += 1;
        self.here.busy |= is_busy;
        if hint == Hint::Quiet && !is_busy {
            let above = (bytes / self.places[place].bytes.max(1.0) - 1.0).max(0.0);
            self.excess += LEARN_EXCESS * (2.0 * above - self.excess);
        }
        hint
    }

    fn judge(&mut self, bytes: f32, place: Place) -> Hint {
        if place.groups == 0 {
            return Hint::Unknown;
        }
        let usual = place.bytes.max(1.0);
        let part = bytes / usual;
        self.run += RUN_WEIGHT * (part.min(8.0) - self.run);
        let limit =
            |(least, times): (f32, f32)| 1.0 + least.max(times * self.excess) + SLACK_BYTES / usual;
        if part > limit(SINGLE) || self.run > limit(RUN) { Hint::Busy } else { Hint::Quiet }
    }

    /// The frames at a place are over.
    fn learn(&mut self) {
        let here = std::mem::take(&mut self.here);
        if here.frames == 0 {
            return;
        }
        let place = &mut self.places[here.place];
        let bytes = here.bytes / here.frames as f32;
        let pace = match place.groups {
            0 => 1.0,
            1 => LEARN_SECOND,
            _ if here.busy && bytes > place.bytes => LEARN_BUSY,
            _ => LEARN,
        };
        place.bytes += pace * (bytes - place.bytes);
        place.groups = place.groups.saturating_add(1);
    }
}

/// Index of the place of the n-th frame behind a key frame, from 1.
fn place(position: u32) -> usize {
    if position <= 8 {
        return position.saturating_sub(1) as usize;
    }
    let octave = position.ilog2();
    let upper_half = position >> (octave - 1) & 1;
    (8 + 2 * (octave - 3) + upper_half).min(PLACES as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes as an encoder makes them: larger behind a key frame, ±20 % of noise.
    fn usual(position: u32, group: u32) -> usize {
        let noise = (position * 7919 + group * 104_729) % 401;
        let refresh = if position < 12 { 900 } else { 300 };
        refresh * (800 + noise as usize) / 1000
    }

    fn learn(sizes: &mut Sizes, groups: std::ops::Range<u32>) -> Vec<Hint> {
        let mut hints = Vec::new();
        for group in groups {
            sizes.key();
            hints.extend((1..30).map(|position| sizes.delta(usual(position, group), false)));
        }
        hints
    }

    #[test]
    fn a_quiet_scene_stays_quiet_once_it_is_known() {
        let mut sizes = Sizes::default();
        let first = learn(&mut sizes, 0..2);
        assert_eq!(first[0], Hint::Unknown);
        assert!(!first.contains(&Hint::Busy));
        assert!(learn(&mut sizes, 2..100).iter().all(|hint| *hint == Hint::Quiet));
    }

    #[test]
    fn what_is_large_for_its_place_is_busy_at_once() {
        let mut sizes = Sizes::default();
        learn(&mut sizes, 0..20);
        sizes.key();
        let hints: Vec<_> = (1..30)
            .map(|position| {
                let extra = if position == 20 { 600 } else { 0 };
                sizes.delta(usual(position, 20) + extra, false)
            })
            .collect();
        assert_eq!(hints[19], Hint::Busy, "{hints:?}");
        assert!(hints[..19].iter().all(|hint| *hint == Hint::Quiet));
        // The same size right behind the key frame would be nothing special.
        sizes.key();
        assert_eq!(sizes.delta(900, false), Hint::Quiet);
    }

    #[test]
    fn a_run_of_frames_counts_that_are_somewhat_larger() {
        let mut sizes = Sizes::default();
        learn(&mut sizes, 0..20);
        sizes.key();
        let busy = (1..30).position(|position| {
            let extra = if position >= 12 { 260 } else { 0 };
            sizes.delta(usual(position, 20) + extra, false) == Hint::Busy
        });
        assert!(busy.is_some_and(|frame| (13..28).contains(&frame)), "{busy:?}");
    }

    #[test]
    fn another_scene_is_learned() {
        let mut sizes = Sizes::default();
        learn(&mut sizes, 0..20);
        let mut busy = 0;
        for group in 0..200 {
            sizes.key();
            for position in 1..30 {
                let hint = sizes.delta(3 * usual(position, group), false);
                busy = if group < 100 { 0 } else { busy + u32::from(hint == Hint::Busy) };
            }
        }
        assert_eq!(busy, 0);
    }

    #[test]
    fn empty_frames_do_not_make_noise_of_bytes_busy() {
        let mut sizes = Sizes::default();
        for group in 0..50 {
            sizes.key();
            for position in 1..30 {
                let hint = sizes.delta(70 + (group + position) as usize % 60, false);
                assert_ne!(hint, Hint::Busy, "group {group}, frame {position}");
            }
        }
    }

    #[test]
    fn every_position_has_a_place() {
        let mut last = 0;
        for position in 1..100_000 {
            let place = place(position);
            assert!(place == last || place == last + 1, "{position}: {place} after {last}");
            last = place;
        }
        assert_eq!(place(u32::MAX), PLACES - 1);
    }
}
