//! What the results of a camera say together: tracks, zones, and the events of its objects.
//!
//! Results go through here in the order of their frames, under the camera's own
//! [`order`](crate::order). Only frames that were looked at count: a dropped or failed one
//! is time in which nobody looked. Time is that of the frames, the capture time of a
//! live camera and the stream's own of a recording (`delivery = "every-frame"`), so that a
//! recording gives the same events however fast it is played.
//!
//! What comes due while nothing moves and the motion gate keeps frames back, a dwell, is
//! told with the next frame that is looked at. A camera that falls silent has nothing to
//! look at any more: when it counts as stalled, and its objects as gone, they disappear, by
//! the name of the last frame. So they do when the process stops or the camera is taken
//! away: every `appear` has its `disappear`, every `enter` its `leave`, unless the process
//! was killed.

use crate::camera::Camera;
use crate::pool::Shared;
use crate::publish::Answer;
use framebus_config::{Anchor as ConfigAnchor, Config};
use framebus_types::{Counter, Detection, Direction, Event, EventKind, ResultHeader, text};
use framebus_vision::{
    Anchor, Direction as Way, Happening, Line, Object, Observation, Places, TrackSettings, Tracker,
    What, Zone,
};

/// What is followed in a camera's picture.
#[derive(Debug, Clone, Default)]
pub struct Scenery {
    /// What makes a track.
    pub tracking: TrackSettings,
    /// Zones with their names; the n-th is bit n of a detection's zones.
    pub zones: Vec<(String, Zone)>,
    /// Lines with their names.
    pub lines: Vec<(String, Line)>,
}

impl Scenery {
    /// What the configuration says of a camera; `None` when nothing is tracked. `labels`
    /// are the model's class names.
    ///
    /// # Errors
    /// A sentence that names the class that the model does not have.
    pub fn of(config: &Config, camera: &str, labels: &[String]) -> Result<Option<Self>, String> {
        let tracking = &config.tracking;
        if !tracking.enabled {
            return Ok(None);
        }
        let zone = |zone: &framebus_config::Zone| -> Result<_, String> {
            let classes = zone.class_numbers(labels)?;
            let (points, anchor) = (zone.points.clone(), anchor(zone.anchor));
            let zone_of = Zone { points, classes, dwell_ns: ns(zone.dwell_s), anchor };
            Ok((zone.name.clone(), zone_of))
        };
        let line = |line: &framebus_config::Line| -> Result<_, String> {
            let classes = line.class_numbers(labels)?;
            let anchor = anchor(line.anchor);
            Ok((line.name.clone(), Line { from: line.from, to: line.to, classes, anchor }))
        };
        Ok(Some(Self {
            tracking: TrackSettings {
                high: tracking.high,
                // The model's threshold is the least there is.
                low: config.model.confidence,
                new: tracking.new,
                min_frames: tracking.min_frames,
                lost_ns: ns(tracking.lost_s),
            },
            zones: config.zones_of(camera).map(zone).collect::<Result<_, _>>()?,
            lines: config.lines_of(camera).map(line).collect::<Result<_, _>>()?,
        }))
    }
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn anchor(anchor: ConfigAnchor) -> Anchor {
    match anchor {
        ConfigAnchor::Bottom => Anchor::Bottom,
        ConfigAnchor::Center => Anchor::Center,
    }
}

/// The state of one camera; its memory is reused from frame to frame.
#[derive(Debug)]
pub(crate) struct Analytics {
    tracker: Tracker,
    places: Places,
    lost_ns: u64,
    zone_names: Vec<[u8; 32]>,
    line_names: Vec<[u8; 32]>,
    /// Time of the last frame, or of a still one after it; `None` before the first.
    time_ns: Option<u64>,
    /// What events of the frame looked at last have in common; `index` is the next one's.
    frame: Event,
    observations: Vec<Observation>,
    ids: Vec<u64>,
    objects: Vec<Object>,
    zones: Vec<u64>,
    happened: Vec<Happening>,
    events: Vec<Event>,
}

impl Analytics {
    /// # Errors
    /// A sentence about zones or lines that are none.
    pub(crate) fn new(scenery: &Scenery) -> Result<Self, String> {
        let Scenery { tracking, zones, lines } = scenery;
        let places = Places::new(
            zones.iter().map(|(_, zone)| zone.clone()).collect(),
            lines.iter().map(|(_, line)| line.clone()).collect(),
        );
        Ok(Self {
            tracker: Tracker::new(*tracking),
            places: places.map_err(|error| error.to_string())?,
            lost_ns: tracking.lost_ns,
            zone_names: zones.iter().map(|(name, _)| text::pack(name)).collect(),
            line_names: lines.iter().map(|(name, _)| text::pack(name)).collect(),
            time_ns: None,
            frame: Event::default(),
            observations: Vec::new(),
            ids: Vec::new(),
            objects: Vec::new(),
            zones: Vec::new(),
            happened: Vec::new(),
            events: Vec::new(),
        })
    }

    /// Not seen for so long, objects are gone, ns.
    pub(crate) fn lost_ns(&self) -> u64 {
        self.lost_ns
    }

    /// Takes what was found in a frame, and writes tracks and zones into it. `time_ns` is
    /// the frame's, `still_ns` that of the last one before it that was not looked at
    /// because nothing moved; 0 for none.
    pub(crate) fn look(
        &mut self,
        time_ns: u64,
        still_ns: u64,
        header: &ResultHeader,
        detections: &mut [Detection],
    ) -> &[Event] {
        self.happened.clear();
        if self.time_ns.is_some_and(|before| still_ns > before) && still_ns <= time_ns {
            self.tracker.still(still_ns);
            self.places.still(still_ns, &mut self.happened);
        }
        self.time_ns = Some(time_ns);
        self.frame = Event {
            camera: header.camera,
            epoch_ns: header.epoch_ns,
            sequence: header.sequence,
            capture_ns: header.times.capture_ns,
            wall_ns: header.wall_ns,
            width: header.width,
            height: header.height,
            ..Event::default()
        };
        self.observations.clear();
        self.observations.extend(detections.iter().map(|found| Observation {
            bbox: found.bbox,
            score: found.score,
            class: found.class,
        }));
        self.update(time_ns);
        for (index, found) in detections.iter_mut().enumerate() {
            found.track = self.ids.get(index).copied().unwrap_or(0);
            found.zones = self.zones.get(index).copied().unwrap_or(0);
        }
        self.tell()
    }

    /// Nothing comes any more: whatever is there disappears.
    pub(crate) fn end(&mut self) -> &[Event] {
        self.happened.clear();
        self.observations.clear();
        if let Some(time_ns) = self.time_ns
            && !self.tracker.is_empty()
        {
            // Later than any of them may be lost for.
            self.update(time_ns.saturating_add(self.lost_ns).saturating_add(1));
            self.time_ns = None;
        }
        self.tell()
    }

    fn update(&mut self, time_ns: u64) {
        self.tracker.update(time_ns, &self.observations, &mut self.ids);
        self.objects.clear();
        self.objects.extend(self.observations.iter().zip(&self.ids).map(|(seen, &track)| Object {
            track,
            bbox: seen.bbox,
            class: seen.class,
            score: seen.score,
        }));
        self.places.update(
            time_ns,
            (self.frame.width, self.frame.height),
            &self.objects,
            self.tracker.ended(),
            &mut self.zones,
            &mut self.happened,
        );
    }

    /// What happened, as events.
    fn tell(&mut self) -> &[Event] {
        self.events.clear();
        for happening in &self.happened {
            let place =
                |names: &[[u8; 32]], index: usize| names.get(index).copied().unwrap_or([0; 32]);
            let (zone, line) =
                (|index| place(&self.zone_names, index), |index| place(&self.line_names, index));
            let (kind, place, direction) = match happening.what {
                What::Appear => (EventKind::Appear, [0; 32], None),
                What::Disappear => (EventKind::Disappear, [0; 32], None),
                What::Enter(index) => (EventKind::Enter, zone(index), None),
                What::Leave(index) => (EventKind::Leave, zone(index), None),
                What::Dwell(index) => (EventKind::Dwell, zone(index), None),
                What::Cross(index, way) => (EventKind::Cross, line(index), Some(way)),
            };
            let direction = match direction {
                None => Direction::None,
                Some(Way::Forward) => Direction::Forward,
                Some(Way::Backward) => Direction::Backward,
            };
            self.events.push(Event {
                kind: kind.into(),
                place,
                direction: direction.into(),
                class: happening.class,
                track: happening.track,
                age_ns: happening.age_ns,
                bbox: happening.bbox,
                score: happening.score,
                ..self.frame
            });
            self.frame.index += 1;
        }
        &self.events
    }
}

impl Shared {
    /// Sends an answer whose turn it is in its camera's order, and the events of its frame.
    pub(crate) fn send_in_turn(&self, camera: &Camera, answer: &mut Answer) {
        let mut analytics = camera.analytics();
        let Some(analytics) = &mut *analytics else { return self.send(camera, answer) };
        let events = answer.follow(analytics, camera.every_frame);
        // Whoever hears of an event may look for its frame's result.
        self.send(camera, answer);
        self.send_events(camera, events);
    }

    /// A camera is silent: what was there is gone, when it may not be lost for longer.
    pub(crate) fn silent(&self, camera: &Camera, silent_ns: u64) {
        // A worker that is sending is no silence.
        let Some(mut analytics) = camera.idle_analytics() else { return };
        if let Some(analytics) = &mut *analytics
            && silent_ns > analytics.lost_ns()
        {
            self.send_events(camera, analytics.end());
        }
    }

    /// Nothing of this camera is followed any more: what was there disappears.
    pub(crate) fn end_tracks(&self, camera: &Camera) {
        if let Some(mut analytics) = camera.analytics().take() {
            self.send_events(camera, analytics.end());
        }
    }

    fn send_events(&self, camera: &Camera, events: &[Event]) {
        if let Err(error) = self.results.send_events(camera.vitals(), events) {
            camera.vitals().add(Counter::Errors, 1);
            tracing::error!(camera = camera.name(), %error, "events lost");
        }
    }
}
