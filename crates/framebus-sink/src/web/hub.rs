//! Between those who have something to show and those who look.
//!
//! Each viewer has an outbox: one picture a camera, the newest, and a bounded queue of
//! texts. Whoever does not keep up loses its own oldest and nobody waits for it. Two
//! pictures of a camera may be on their way to a viewer; the next one is sent when it has
//! said that it has drawn one, so that no socket's buffer holds pictures of long ago.

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Viewers at a time.
const VIEWERS: usize = 16;
/// Texts that wait for a viewer: seconds of results of many cameras.
const TEXTS: usize = 512;
/// Pictures of one camera on their way to one viewer.
const ON_THE_WAY: u8 = 2;
/// Events that a page sees when it is opened.
const EVENTS: usize = 100;

/// A camera as the page knows it.
#[derive(Debug)]
pub(crate) struct Camera {
    pub(crate) name: String,
    /// Viewers that look at it.
    pub(crate) watched: AtomicUsize,
    /// Whether a thread makes pictures of it.
    pub(crate) filmed: AtomicBool,
}

/// What all pages together did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Pictures encoded.
    pub(crate) encoded: AtomicU64,
    /// Messages sent to viewers.
    pub(crate) sent: AtomicU64,
    /// Bytes of them.
    pub(crate) sent_bytes: AtomicU64,
    /// Pictures and texts that a viewer was too slow for.
    pub(crate) dropped: AtomicU64,
    /// Time that pictures took to be made, ns, all together.
    pub(crate) encoding_ns: AtomicU64,
    /// Age of sent pictures since the decoder had them, ns: all together, and how many.
    pub(crate) age_ns: AtomicU64,
    pub(crate) aged: AtomicU64,
}

/// Shared by all threads of the sink.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) cameras: Vec<Camera>,
    pub(crate) counts: Counts,
    viewers: Mutex<Vec<Arc<Viewer>>>,
    events: Mutex<VecDeque<Utf8Bytes>>,
    state: Mutex<Utf8Bytes>,
}

/// What goes to a viewer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Text(Utf8Bytes),
    /// A picture with its header, and when its frame was captured, CLOCK_MONOTONIC ns.
    Picture(Bytes, u64),
}

#[derive(Debug)]
pub(crate) struct Viewer {
    outbox: Mutex<Outbox>,
    pub(crate) wake: Notify,
}

#[derive(Debug)]
struct Outbox {
    texts: VecDeque<Utf8Bytes>,
    /// By camera.
    lanes: Vec<Lane>,
    /// The camera whose turn it is.
    turn: usize,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    watched: bool,
    picture: Option<(Bytes, u64)>,
    on_the_way: u8,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(cameras: impl Iterator<Item = String>) -> Self {
        let camera =
            |name| Camera { name, watched: AtomicUsize::new(0), filmed: AtomicBool::new(false) };
        Self {
            cameras: cameras.map(camera).collect(),
            counts: Counts::default(),
            viewers: Mutex::default(),
            events: Mutex::default(),
            state: Mutex::new(Utf8Bytes::from_static("{}")),
        }
    }

    pub(crate) fn number(&self, camera: &str) -> Option<usize> {
        self.cameras.iter().position(|known| known.name == camera)
    }

    pub(crate) fn is_watched(&self, camera: usize) -> bool {
        self.cameras.get(camera).is_some_and(|camera| camera.watched.load(Relaxed) > 0)
    }

    pub(crate) fn viewers(&self) -> usize {
        locked(&self.viewers).len()
    }

    /// Lets one more look; `None` when there are enough. It is given what is known: `first`,
    /// the state, the last events.
    pub(crate) fn join(&self, first: &[Utf8Bytes]) -> Option<Arc<Viewer>> {
        let mut viewers = locked(&self.viewers);
        if viewers.len() >= VIEWERS {
            return None;
        }
        let mut texts: VecDeque<Utf8Bytes> = first.iter().cloned().collect();
        texts.push_back(locked(&self.state).clone());
        texts.extend(locked(&self.events).iter().cloned());
        let lanes = vec![Lane::default(); self.cameras.len()];
        let viewer = Arc::new(Viewer {
            outbox: Mutex::new(Outbox { texts, lanes, turn: 0 }),
            wake: Notify::new(),
        });
        viewers.push(viewer.clone());
        Some(viewer)
    }

    pub(crate) fn leave(&self, viewer: &Arc<Viewer>) {
        self.watch(viewer, |_| false);
        locked(&self.viewers).retain(|other| !Arc::ptr_eq(other, viewer));
    }

    /// Looks at those cameras from now on, and at no others.
    pub(crate) fn watch(&self, viewer: &Viewer, wanted: impl Fn(&str) -> bool) {
        let mut outbox = locked(&viewer.outbox);
        for (lane, camera) in outbox.lanes.iter_mut().zip(&self.cameras) {
            let watched = wanted(&camera.name);
            match (lane.watched, watched) {
                (false, true) => _ = camera.watched.fetch_add(1, Relaxed),
                (true, false) => _ = camera.watched.fetch_sub(1, Relaxed),
                _ => {}
            }
            lane.watched = watched;
            if !watched {
                lane.picture = None;
            }
        }
    }

    /// A picture of `camera` for all who look at it.
    pub(crate) fn picture(&self, camera: usize, picture: &Bytes, capture_ns: u64) {
        for viewer in locked(&self.viewers).iter() {
            let mut outbox = locked(&viewer.outbox);
            let Some(lane) = outbox.lanes.get_mut(camera).filter(|lane| lane.watched) else {
                continue;
            };
            if lane.picture.replace((picture.clone(), capture_ns)).is_some() {
                self.counts.dropped.fetch_add(1, Relaxed);
            }
            drop(outbox);
            viewer.wake.notify_one();
        }
    }

    /// A text for all who look at `camera`.
    pub(crate) fn text(&self, camera: usize, text: &Utf8Bytes) {
        self.tell(text, |outbox| outbox.lanes.get(camera).is_some_and(|lane| lane.watched));
    }

    /// What happened: for all, and for who comes later.
    pub(crate) fn event(&self, text: Utf8Bytes) {
        self.tell(&text, |_| true);
        let mut events = locked(&self.events);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(text);
    }

    /// How all are.
    pub(crate) fn state(&self, text: Utf8Bytes) {
        self.tell(&text, |_| true);
        *locked(&self.state) = text;
    }

    /// The last state that was told.
    pub(crate) fn last_state(&self) -> Utf8Bytes {
        locked(&self.state).clone()
    }

    fn tell(&self, text: &Utf8Bytes, wants: impl Fn(&Outbox) -> bool) {
        for viewer in locked(&self.viewers).iter() {
            let mut outbox = locked(&viewer.outbox);
            if !wants(&outbox) {
                continue;
            }
            if outbox.texts.len() >= TEXTS {
                outbox.texts.pop_front();
                self.counts.dropped.fetch_add(1, Relaxed);
            }
            outbox.texts.push_back(text.clone());
            drop(outbox);
            viewer.wake.notify_one();
        }
    }
}

impl Viewer {
    /// The next message, texts first: results are there when their picture is.
    pub(crate) fn next(&self) -> Option<Outgoing> {
        let mut outbox = locked(&self.outbox);
        if let Some(text) = outbox.texts.pop_front() {
            return Some(Outgoing::Text(text));
        }
        let (lanes, turn) = (outbox.lanes.len(), outbox.turn);
        for camera in (turn..turn + lanes).map(|number| number % lanes) {
            let lane = &mut outbox.lanes[camera];
            if lane.on_the_way >= ON_THE_WAY {
                continue;
            }
            if let Some((picture, capture_ns)) = lane.picture.take() {
                lane.on_the_way += 1;
                outbox.turn = camera + 1;
                return Some(Outgoing::Picture(picture, capture_ns));
            }
        }
        None
    }

    /// A picture of `camera` has been drawn.
    pub(crate) fn drawn(&self, camera: usize) {
        if let Some(lane) = locked(&self.outbox).lanes.get_mut(camera) {
            lane.on_the_way = lane.on_the_way.saturating_sub(1);
        }
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(viewer: &Viewer) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = viewer.next() {
            all.push(match message {
                Outgoing::Text(text) => text.to_string(),
                Outgoing::Picture(picture, _) => format!("picture {}", picture[0]),
            });
        }
        all
    }

    fn hub() -> Hub {
        Hub::new(["a", "b"].into_iter().map(str::to_owned))
    }

    #[test]
    fn a_slow_viewer_gets_the_newest_picture_and_holds_nobody_up() {
        let hub = hub();
        let slow = hub.join(&[]).expect("room");
        let quick = hub.join(&[]).expect("room");
        hub.watch(&slow, |camera| camera == "a");
        hub.watch(&quick, |_| true);
        taken(&slow);
        taken(&quick);
        for number in 0..5 {
            hub.picture(0, &Bytes::from(vec![number]), 0);
            quick.drawn(0);
            assert_eq!(taken(&quick), [format!("picture {number}")]);
        }
        hub.leave(&quick);
        hub.picture(1, &Bytes::from(vec![9]), 0);
        assert_eq!(taken(&slow), ["picture 4"], "one waits, of what it looks at");
        hub.picture(0, &Bytes::from(vec![5]), 0);
        assert_eq!(taken(&slow), ["picture 5"], "two are on their way");
        hub.picture(0, &Bytes::from(vec![6]), 0);
        assert!(taken(&slow).is_empty(), "until one is drawn");
        slow.drawn(0);
        assert_eq!(taken(&slow), ["picture 6"]);
        assert_eq!(hub.counts.dropped.load(Relaxed), 4);
    }

    #[test]
    fn who_looks_is_counted_and_who_comes_late_is_told() {
        let hub = hub();
        hub.event("happened".into());
        hub.state("fine".into());
        let viewer = hub.join(&["hello".into()]).expect("room");
        assert_eq!(taken(&viewer), ["hello", "fine", "happened"]);
        assert!(!hub.is_watched(1));
        hub.watch(&viewer, |camera| camera == "b");
        hub.watch(&viewer, |camera| camera == "b");
        assert!(hub.is_watched(1) && !hub.is_watched(0));
        hub.text(0, &"of a".into());
        hub.text(1, &"of b".into());
        assert_eq!(taken(&viewer), ["of b"]);
        hub.leave(&viewer);
        assert!(!hub.is_watched(1));
        assert_eq!(hub.viewers(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let hub = hub();
        let viewer = hub.join(&[]).expect("room");
        hub.watch(&viewer, |_| true);
        for number in 0..2 * TEXTS {
            hub.text(0, &number.to_string().into());
        }
        let all = taken(&viewer);
        assert_eq!((all.len(), all[TEXTS - 1].as_str()), (TEXTS, "1023"));
        let more: Vec<_> = std::iter::from_fn(|| hub.join(&[])).collect();
        assert_eq!(more.len(), VIEWERS - 1);
    }
}
