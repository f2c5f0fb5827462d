//! Which object is which from frame to frame: ByteTrack with steps of time.
//!
//! Each object is a *track*: a Kalman filter that says where its box will be. In
//! every frame that was looked at, observed boxes continue the tracks that they overlap
//! best, first those with high scores, then, for the objects still missing, those with
//! low ones (ByteTrack, Zhang et al. 2022, arXiv:2110.06864). A track that nothing
//! continues is *lost* and kept for a time; an observation that continues nothing starts
//! a track, which gets its id once it was seen often enough in a row.
//!
//! Time is given with each frame, so frames that were dropped and cameras with uneven
//! rates need no care: what was not looked at is simply not passed. The same frames give
//! the same ids on any machine.
//!
//! ```
//! use framebus_vision::{Observation, TrackSettings, Tracker};
//!
//! let mut tracker = Tracker::new(TrackSettings::default());
//! let (mut ids, mut seen) = (Vec::new(), Vec::new());
//! for frame in 0..3_u64 {
//!     let x = 100.0 + 4.0 * frame as f32;
//!     let person = Observation { bbox: [x, 50.0, x + 40.0, 150.0], score: 0.9, class: 0 };
//!     tracker.update(frame * 40_000_000, &[person], &mut ids);
//!     seen.push(ids[0]);
//! }
//! assert_eq!(seen, [0, 1, 1], "confirmed in the second frame");
//! tracker.update(5_000_000_000, &[], &mut ids);
//! assert_eq!(tracker.ended()[0].track, 1);
//! ```

mod assign;
mod kalman;

use assign::{Item, Matcher};
use kalman::BoxFilter;

/// Observations of one frame that are looked at; those behind get no id. As many as
/// `model.max_detections` can be.
pub const MAX_OBSERVATIONS: usize = 1000;
/// Tracks that are kept at once. Where more are lost, those that have been so for
/// longest end early.
pub const MAX_TRACKS: usize = 2000;
/// Coordinates beyond this many pixels are no picture's.
const FARTHEST: f32 = 1e6;
/// Least overlap with a predicted box: of a high score times the score, of a low score,
/// of a high score with a track that has no id yet times the score. ByteTrack's
/// `match_thresh` 0.8, 0.5 and 0.7, which are distances.
const LEAST: [f32; 3] = [0.2, 0.5, 0.3];

/// One found object of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Left, top, right, bottom in pixels of the source picture.
    pub bbox: [f32; 4],
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Class number. Only observations of one class continue a track.
    pub class: u32,
}

impl Observation {
    /// A box with an area, in numbers that one can calculate with.
    fn is_sound(&self) -> bool {
        let [left, top, right, bottom] = self.bbox;
        self.bbox.iter().all(|value| value.abs() <= FARTHEST)
            && right - left > 0.0
            && bottom - top > 0.0
            && self.score > 0.0
            && self.score <= 1.0
    }
}

/// What makes a track. The default is ByteTrack's for a video of 30 frames a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackSettings {
    /// Observations with at least this score are matched first, and with any track.
    pub high: f32,
    /// Observations below `high` with at least this score continue tracks of the frame
    /// before, but neither lost ones nor new ones.
    pub low: f32,
    /// Least score of an observation that starts a track; not below `high`.
    pub new: f32,
    /// Frames in a row in which an object must be seen before it has an id; at least 1.
    pub min_frames: u32,
    /// How long a track without observations is kept, in nanoseconds.
    pub lost_ns: u64,
}

impl Default for TrackSettings {
    fn default() -> Self {
        Self { high: 0.5, low: 0.1, new: 0.6, min_frames: 2, lost_ns: 1_000_000_000 }
    }
}

/// A track that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended {
    /// Its id; never given again.
    pub track: u64,
    /// Class of all its observations.
    pub class: u32,
    /// Where it was last seen, in pixels.
    pub bbox: [f32; 4],
    /// Score of that observation.
    pub score: f32,
    /// From its first to its last observation, in nanoseconds.
    pub seen_ns: u64,
    /// Since its last observation, in nanoseconds, without the time in which nothing moved.
    pub unseen_ns: u64,
}

#[derive(Debug, Clone)]
struct Track {
    /// 0 until it is confirmed.
    id: u64,
    class: u32,
    filter: BoxFilter,
    /// The filter's box at the time of the frame in work.
    predicted: [f32; 4],
    /// The last observation.
    bbox: [f32; 4],
    score: f32,
    frames: u32,
    /// Since its first observation, and up to its last one.
    age_ns: u64,
    seen_ns: u64,
    /// Since its last observation, without the time in which nothing moved.
    unseen_ns: u64,
    /// Nothing continued it in the frame before.
    lost: bool,
    /// Something continued it in the frame in work.
    matched: bool,
}

impl Track {
    fn ended(&self) -> Ended {
        Ended {
            track: self.id,
            class: self.class,
            bbox: self.bbox,
            score: self.score,
            seen_ns: self.seen_ns,
            unseen_ns: self.unseen_ns,
        }
    }
}

/// The tracks of one camera.
#[derive(Debug, Clone)]
pub struct Tracker {
    settings: TrackSettings,
    time_ns: Option<u64>,
    last_id: u64,
    /// Oldest first.
    tracks: Vec<Track>,
    ended: Vec<Ended>,
    matcher: Matcher,
    /// Which observations of the frame in work are still to be had.
    free: Vec<bool>,
}

impl Tracker {
    /// Without tracks; the first confirmed one gets the id 1.
    #[must_use]
    pub fn new(settings: TrackSettings) -> Self {
        Self {
            settings,
            time_ns: None,
            last_id: 0,
            tracks: Vec::new(),
            ended: Vec::new(),
            matcher: Matcher::default(),
            free: Vec::new(),
        }
    }

    /// Takes what was found in a frame. `ids[i]` becomes the track of `observations[i]`:
    /// 0 where it has none (yet), which is also the case for boxes without an area, for
    /// numbers that are not finite and for what lies beyond [`MAX_OBSERVATIONS`].
    ///
    /// `time_ns` is the frame's capture time on any clock. Frames are to come in their
    /// order; a time that is not later than the one before counts as no time at all.
    /// After a gap longer than `lost_ns` objects are looked for where they were: what
    /// they did since is not guessed.
    pub fn update(&mut self, time_ns: u64, observations: &[Observation], ids: &mut Vec<u64>) {
        let elapsed_ns = self.advance(time_ns);
        for track in &mut self.tracks {
            track.age_ns = track.age_ns.saturating_add(elapsed_ns);
            track.unseen_ns = track.unseen_ns.saturating_add(elapsed_ns);
            track.matched = false;
            if elapsed_ns > self.settings.lost_ns {
                track.filter.halt();
            } else {
                track.filter.predict(elapsed_ns as f64 / 1e9);
            }
            track.predicted = track.filter.bbox();
        }
        ids.clear();
        ids.resize(observations.len(), 0);
        let observations = &observations[..observations.len().min(MAX_OBSERVATIONS)];
        self.free.clear();
        self.free.extend(observations.iter().map(Observation::is_sound));

        let TrackSettings { high, low, .. } = self.settings;
        let (strong, weak) =
            (|score: f32| score >= high, |score: f32| score < high && score >= low);
        self.associate(observations, ids, LEAST[0], strong, true, |track| track.id != 0);
        self.associate(observations, ids, LEAST[1], weak, false, |track| {
            track.id != 0 && !track.lost
        });
        self.associate(observations, ids, LEAST[2], strong, true, |track| track.id == 0);
        self.retire();
        self.start(observations, ids);
    }

    /// Passes a frame that was not looked at because nothing moved in it: tracks grow
    /// older where they are, and the time that they may be lost for stands still.
    pub fn still(&mut self, time_ns: u64) {
        let elapsed_ns = self.advance(time_ns);
        for track in &mut self.tracks {
            track.age_ns = track.age_ns.saturating_add(elapsed_ns);
            if !track.lost {
                track.seen_ns = track.age_ns;
            }
            track.filter.halt();
        }
    }

    /// Tracks that ended in the last [`Tracker::update`]. Only those that had an id.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// Tracks with an id: seen in the last frame or lost for no longer than `lost_ns`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracks.iter().filter(|track| track.id != 0).count()
    }

    /// No track has an id.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn advance(&mut self, time_ns: u64) -> u64 {
        self.ended.clear();
        let before = self.time_ns.replace(time_ns);
        before.map_or(0, |before| time_ns.saturating_sub(before))
    }

    /// Lets observations with such scores continue such tracks.
    fn associate(
        &mut self,
        observations: &[Observation],
        ids: &mut [u64],
        least: f32,
        scored: impl Fn(f32) -> bool,
        weighted: bool,
        wanted: impl Fn(&Track) -> bool,
    ) {
        let Matcher { rows, columns, .. } = &mut self.matcher;
        rows.clear();
        rows.extend(
            (0..).zip(&self.tracks).filter(|(_, track)| !track.matched && wanted(track)).map(
                |(index, track)| Item {
                    index,
                    class: track.class,
                    bbox: track.predicted,
                    weight: 1.0,
                },
            ),
        );
        columns.clear();
        columns.extend(
            (0..)
                .zip(observations.iter().zip(&self.free))
                .filter(|(_, (seen, free))| **free && scored(seen.score))
                .map(|(index, (seen, _))| Item {
                    index,
                    class: seen.class,
                    bbox: seen.bbox,
                    weight: if weighted { seen.score } else { 1.0 },
                }),
        );
        for &(track, seen) in self.matcher.solve(least) {
            let (track, index) = (&mut self.tracks[track as usize], seen as usize);
            let seen = &observations[index];
            self.free[index] = false;
            track.filter.correct(seen.bbox);
            (track.bbox, track.score) = (seen.bbox, seen.score);
            (track.matched, track.lost) = (true, false);
            (track.seen_ns, track.unseen_ns) = (track.age_ns, 0);
            track.frames = track.frames.saturating_add(1);
            if track.id == 0 && track.frames >= self.settings.min_frames {
                self.last_id += 1;
                track.id = self.last_id;
            }
            ids[index] = track.id;
        }
    }

    /// Ends what was not seen for too long, and what was never confirmed.
    fn retire(&mut self) {
        let lost_ns = self.settings.lost_ns;
        self.tracks.retain_mut(|track| {
            if track.matched {
                return true;
            }
            track.lost = true;
            track.filter.keep_size();
            if track.id != 0 && track.unseen_ns > lost_ns {
                self.ended.push(track.ended());
            }
            track.id != 0 && track.unseen_ns <= lost_ns
        });
    }

    /// Starts tracks from what is left.
    fn start(&mut self, observations: &[Observation], ids: &mut [u64]) {
        let least = self.settings.new.max(self.settings.high);
        for (index, seen) in observations.iter().enumerate() {
            if !self.free[index] || seen.score < least {
                continue;
            }
            if self.tracks.len() == MAX_TRACKS && !self.make_room() {
                return;
            }
            let confirmed = self.settings.min_frames <= 1;
            self.last_id += u64::from(confirmed);
            let id = if confirmed { self.last_id } else { 0 };
            self.tracks.push(Track {
                id,
                class: seen.class,
                filter: BoxFilter::new(seen.bbox),
                predicted: seen.bbox,
                bbox: seen.bbox,
                score: seen.score,
                frames: 1,
                age_ns: 0,
                seen_ns: 0,
                unseen_ns: 0,
                lost: false,
                matched: true,
            });
            ids[index] = id;
        }
    }

    /// Ends the track that has been lost for longest.
    fn make_room(&mut self) -> bool {
        let lost = self.tracks.iter().enumerate().filter(|(_, track)| track.lost);
        // The first of equals: the oldest.
        let longest = lost.min_by_key(|(_, track)| std::cmp::Reverse(track.unseen_ns));
        let Some((index, _)) = longest else { return false };
        let track = self.tracks.remove(index);
        self.ended.push(track.ended());
        true
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
