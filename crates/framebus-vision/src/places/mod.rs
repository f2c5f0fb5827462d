//! Zones and lines in a picture, and what tracked objects do there: appear, enter, dwell,
//! cross, leave, disappear.
//!
//! An object is where its anchor is, one point of its box. Boxes jitter, so that an object
//! which stands on an edge is now on this side of it and now on that. Two rules keep that
//! from becoming a storm: an object has changed sides when its anchor was clear of the edge
//! by a *margin* (a tenth of the object's size) in two frames in a row, or, nearer to the
//! edge, when it has been on the other side for a second and ten frames without a break.
//!
//! ```
//! use framebus_vision::places::{Anchor, Direction, Line, Object, Places, What};
//!
//! # fn main() -> Result<(), framebus_vision::places::PlaceError> {
//! // Across the picture from left to right: forward is from top to bottom.
//! let door = Line { from: [0.0, 0.5], to: [1.0, 0.5], classes: vec![], anchor: Anchor::Bottom };
//! let mut places = Places::new(vec![], vec![door])?;
//! let (mut bits, mut happened) = (Vec::new(), Vec::new());
//! for frame in 0..10_u64 {
//!     let y = 200.0 + 40.0 * frame as f32;
//!     let person = Object { track: 1, bbox: [300.0, y, 340.0, y + 100.0], class: 0, score: 0.9 };
//!     places.update(frame * 40_000_000, (1280, 720), &[person], &[], &mut bits, &mut happened);
//! }
//! let what: Vec<What> = happened.iter().map(|happening| happening.what).collect();
//! assert_eq!(what, [What::Appear, What::Cross(0, Direction::Forward)]);
//! # Ok(())
//! # }
//! ```

mod geometry;
mod kinds;
mod side;

use crate::track::Ended;
use geometry::{Point, contains, distance, edge_distance, passes};
pub use kinds::{
    Anchor, Direction, Happening, Line, MAX_LINES, MAX_ZONES, Object, PlaceError, What, Zone,
};
use side::{Settle, margin};

/// A zone, and its ring in pixels of the frame in work.
#[derive(Debug, Clone)]
struct Area {
    zone: Zone,
    ring: Vec<Point>,
    /// Left, top, right, bottom of the ring.
    bounds: [f32; 4],
}

/// What is known of a track, beside what is in [`Places::zones`] and [`Places::lines`].
#[derive(Debug, Clone, Copy)]
struct Member {
    object: Object,
    /// The picture that the box is of.
    size: (u32, u32),
    age_ns: u64,
    /// Age when it was last seen.
    seen_ns: u64,
    /// Seen in the last frame that was looked at.
    present: bool,
}

/// A track and a zone.
#[derive(Debug, Clone, Copy, Default)]
struct Stay {
    inside: bool,
    /// Age of the track when it entered.
    entered_ns: u64,
    dwelt: bool,
    settle: Settle,
}

/// A track and a line.
#[derive(Debug, Clone, Copy, Default)]
struct Passage {
    /// Ways through the line that have not been told, forward ones less backward ones.
    net: i32,
    settle: Settle,
}

/// The zones and lines of one camera, and who is where.
#[derive(Debug, Clone)]
pub struct Places {
    areas: Vec<Area>,
    /// Lines, and their ends in pixels of the frame in work.
    lines: Vec<(Line, [Point; 2])>,
    time_ns: Option<u64>,
    size: (u32, u32),
    members: Vec<Member>,
    /// As many for each member as there are zones, in the members' order ...
    stays: Vec<Stay>,
    /// ... and lines.
    passages: Vec<Passage>,
}

impl Places {
    /// # Errors
    /// Too many of them, or one that is none: see [`PlaceError`].
    pub fn new(zones: Vec<Zone>, lines: Vec<Line>) -> Result<Self, PlaceError> {
        if zones.len() > MAX_ZONES {
            return Err(PlaceError::TooManyZones(zones.len()));
        }
        if lines.len() > MAX_LINES {
            return Err(PlaceError::TooManyLines(lines.len()));
        }
        for (index, zone) in zones.iter().enumerate() {
            if zone.points.len() < 3 {
                return Err(PlaceError::FewPoints(index));
            }
            if !zone.points.iter().flatten().all(|value| value.is_finite()) {
                return Err(PlaceError::ZoneNotFinite(index));
            }
        }
        for (index, line) in lines.iter().enumerate() {
            if !line.from.iter().chain(&line.to).all(|value| value.is_finite()) {
                return Err(PlaceError::LineNotFinite(index));
            }
            if line.from == line.to {
                return Err(PlaceError::NoLength(index));
            }
        }
        let area = |zone| Area { zone, ring: Vec::new(), bounds: [0.0; 4] };
        Ok(Self {
            areas: zones.into_iter().map(area).collect(),
            lines: lines.into_iter().map(|line| (line, [[0.0; 2]; 2])).collect(),
            time_ns: None,
            size: (0, 0),
            members: Vec::new(),
            stays: Vec::new(),
            passages: Vec::new(),
        })
    }

    /// Takes the objects of a frame of `size` (width, height in pixels) and the tracks that
    /// ended since the one before ([`Tracker::ended`](crate::Tracker::ended)).
    ///
    /// Bit z of `zone_bits[i]` says whether `objects[i]` is in zone z; what happened is
    /// appended to `happened`, for each object in the order zones, lines, and last what the
    /// ended tracks leave. `time_ns` is as for [`Tracker::update`](crate::Tracker::update).
    pub fn update(
        &mut self,
        time_ns: u64,
        size: (u32, u32),
        objects: &[Object],
        ended: &[Ended],
        zone_bits: &mut Vec<u64>,
        happened: &mut Vec<Happening>,
    ) {
        let elapsed_ns = self.advance(time_ns);
        self.measure(size);
        for member in &mut self.members {
            member.present = false;
        }
        zone_bits.clear();
        for object in objects {
            zone_bits.push(self.place(object, elapsed_ns, happened));
        }
        for ended in ended {
            self.end(ended.track, happened);
        }
    }

    /// Passes a frame that was not looked at because nothing moved: who is there stays, and
    /// may come to dwell.
    pub fn still(&mut self, time_ns: u64, happened: &mut Vec<Happening>) {
        self.advance(time_ns);
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if !member.present {
                continue;
            }
            member.seen_ns = member.age_ns;
            for zone in 0..self.areas.len() {
                self.dwell(at, zone, happened);
            }
        }
    }

    /// How many tracks are in that zone, lost ones included; 0 for a zone that is none.
    #[must_use]
    pub fn occupancy(&self, zone: usize) -> usize {
        let count = self.areas.len();
        if zone >= count {
            return 0;
        }
        self.stays.iter().skip(zone).step_by(count).filter(|stay| stay.inside).count()
    }

    fn advance(&mut self, time_ns: u64) -> u64 {
        let before = self.time_ns.replace(time_ns);
        let elapsed_ns = before.map_or(0, |before| time_ns.saturating_sub(before));
        for member in &mut self.members {
            member.age_ns = member.age_ns.saturating_add(elapsed_ns);
        }
        elapsed_ns
    }

    /// Zones and lines in pixels.
    fn measure(&mut self, size: (u32, u32)) {
        if size == self.size {
            return;
        }
        self.size = size;
        let pixels = |point: Point| [point[0] * size.0 as f32, point[1] * size.1 as f32];
        for Area { zone, ring, bounds } in &mut self.areas {
            ring.clear();
            ring.extend(zone.points.iter().map(|&point| pixels(point)));
            let start = [f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY];
            *bounds = ring
                .iter()
                .fold(start, |b, &[x, y]| [b[0].min(x), b[1].min(y), b[2].max(x), b[3].max(y)]);
        }
        for (line, ends) in &mut self.lines {
            *ends = [pixels(line.from), pixels(line.to)];
        }
    }

    fn anchor(&self, anchor: Anchor, bbox: [f32; 4], size: (u32, u32)) -> Point {
        let [x, y] = anchor.of(bbox, size);
        [x * self.size.0 as f32, y * self.size.1 as f32]
    }

    /// The zones of an object; tells what it did.
    fn place(&mut self, object: &Object, elapsed_ns: u64, happened: &mut Vec<Happening>) -> u64 {
        let sound = object.bbox.iter().all(|value| value.is_finite());
        if object.track == 0 || !sound || self.size.0 == 0 || self.size.1 == 0 {
            let inside = |area: &Area| {
                let anchor = area.zone.anchor.of(object.bbox, self.size);
                counts(&area.zone.classes, object.class) && contains(&area.zone.points, anchor)
            };
            return (0..).zip(&self.areas).map(|(z, a)| u64::from(inside(a)) << z).sum();
        }
        let known = self.members.iter().position(|member| member.object.track == object.track);
        let (at, before) = match known {
            Some(at) => (at, Some(self.members[at])),
            None => (self.admit(object, happened), None),
        };
        let member = &mut self.members[at];
        (member.object, member.size, member.present) = (*object, self.size, true);
        member.seen_ns = member.age_ns;
        let mut bits = 0;
        for zone in 0..self.areas.len() {
            self.stay(at, zone, before.is_none(), elapsed_ns, happened);
            bits |= u64::from(self.stays[at * self.areas.len() + zone].inside) << zone;
        }
        if let Some(before) = before {
            for line in 0..self.lines.len() {
                self.pass(at, line, &before, elapsed_ns, happened);
            }
        }
        bits
    }

    fn admit(&mut self, object: &Object, happened: &mut Vec<Happening>) -> usize {
        let member =
            Member { object: *object, size: self.size, age_ns: 0, seen_ns: 0, present: true };
        self.members.push(member);
        let members = self.members.len();
        self.stays.resize(members * self.areas.len(), Stay::default());
        self.passages.resize(members * self.lines.len(), Passage::default());
        happened.push(tell(&member, What::Appear, 0));
        members - 1
    }

    fn stay(
        &mut self,
        at: usize,
        zone: usize,
        first: bool,
        elapsed_ns: u64,
        happened: &mut Vec<Happening>,
    ) {
        let area = &self.areas[zone];
        let member = self.members[at];
        if !counts(&area.zone.classes, member.object.class) {
            return;
        }
        let anchor = self.anchor(area.zone.anchor, member.object.bbox, self.size);
        let [left, top, right, bottom] = area.bounds;
        let near =
            anchor[0] >= left && anchor[0] <= right && anchor[1] >= top && anchor[1] <= bottom;
        let inside = near && contains(&area.ring, anchor);
        let stay = &mut self.stays[at * self.areas.len() + zone];
        if inside == stay.inside {
            stay.settle = Settle::default();
        } else {
            // In a small zone nobody is clear of the edge by a tenth of their own size.
            let margin = margin(member.object.bbox).min((right - left).min(bottom - top) / 8.0);
            let size = [self.size.0 as f32, self.size.1 as f32];
            let clear = edge_distance(&area.ring, anchor, size) >= margin;
            if stay.settle.look(elapsed_ns, clear) || first {
                if inside {
                    *stay = Stay { inside, entered_ns: member.age_ns, ..Stay::default() };
                    happened.push(tell(&member, What::Enter(zone), member.age_ns));
                } else {
                    let age_ns = member.age_ns - stay.entered_ns;
                    *stay = Stay::default();
                    happened.push(tell(&member, What::Leave(zone), age_ns));
                }
            }
        }
        self.dwell(at, zone, happened);
    }

    fn dwell(&mut self, at: usize, zone: usize, happened: &mut Vec<Happening>) {
        let dwell_ns = self.areas[zone].zone.dwell_ns;
        let stay = &mut self.stays[at * self.areas.len() + zone];
        let age_ns = self.members[at].age_ns - stay.entered_ns;
        if dwell_ns > 0 && stay.inside && !stay.dwelt && age_ns >= dwell_ns {
            stay.dwelt = true;
            happened.push(tell(&self.members[at], What::Dwell(zone), age_ns));
        }
    }

    fn pass(
        &mut self,
        at: usize,
        line: usize,
        before: &Member,
        elapsed_ns: u64,
        happened: &mut Vec<Happening>,
    ) {
        let (Line { classes, anchor, .. }, [from, to]) = &self.lines[line];
        let member = self.members[at];
        if !counts(classes, member.object.class) {
            return;
        }
        let was = self.anchor(*anchor, before.object.bbox, before.size);
        let is = self.anchor(*anchor, member.object.bbox, member.size);
        let step = passes(was, is, *from, *to);
        let passage = &mut self.passages[at * self.lines.len() + line];
        passage.net += step;
        if step != 0 {
            passage.settle = Settle::default();
        }
        if passage.net == 0 {
            return;
        }
        let clear = distance(is, *from, *to) >= margin(member.object.bbox);
        if passage.settle.look(elapsed_ns, clear) {
            let net = passage.net;
            *passage = Passage::default();
            happened.push(tell(&member, crossed(line, net), member.age_ns));
        }
    }

    /// What a track leaves behind.
    fn end(&mut self, track: u64, happened: &mut Vec<Happening>) {
        let found = self.members.iter().position(|member| member.object.track == track);
        let Some(at) = found else { return };
        let member = self.members[at];
        let (zones, lines) = (self.areas.len(), self.lines.len());
        for (line, passage) in self.passages[at * lines..][..lines].iter().enumerate() {
            // It ended close behind the line.
            if passage.net != 0 {
                happened.push(tell(&member, crossed(line, passage.net), member.seen_ns));
            }
        }
        for (zone, stay) in self.stays[at * zones..][..zones].iter().enumerate() {
            if stay.inside {
                let age_ns = member.seen_ns.saturating_sub(stay.entered_ns);
                happened.push(tell(&member, What::Leave(zone), age_ns));
            }
        }
        happened.push(tell(&member, What::Disappear, member.seen_ns));
        self.members.remove(at);
        self.stays.drain(at * zones..(at + 1) * zones);
        self.passages.drain(at * lines..(at + 1) * lines);
    }
}

fn counts(classes: &[u32], class: u32) -> bool {
    classes.is_empty() || classes.contains(&class)
}

fn crossed(line: usize, net: i32) -> What {
    What::Cross(line, if net > 0 { Direction::Forward } else { Direction::Backward })
}

fn tell(member: &Member, what: What, age_ns: u64) -> Happening {
    let Object { track, bbox, class, score } = member.object;
    Happening { what, track, class, bbox, score, age_ns }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
