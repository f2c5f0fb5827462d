//! Picture faults: what is wrong with the pictures of a camera that delivers them.
//!
//! Flags tell of single frames; the state has some inertia, so that it does not flicker:
//! a fault may have to last before it counts, and ends only once it has been gone for a
//! while. What is known of the scene lives across reconnects, or a covered camera that
//! reboots would be taken for one that has always looked like that.

use crate::layout::Layout;
use crate::publish::Moment;
use crate::timing::Timing;
use framebus_config::{Camera, Delivery, PictureChecks};
use framebus_types::{
    FLAG_BLURRED, FLAG_CORRUPT, FLAG_FROZEN, FLAG_LATE, FLAG_PICTURE_FAULT, FLAG_TIME_JUMP,
    FLAG_UNIFORM, Fourcc,
};
use framebus_vision::{Scene, Sight, scene};

/// Slow faults need no look at every frame. ns.
const LOOK_NS: u64 = 190_000_000;
/// So many looks must show the same picture, however much time passes between them.
const LEAST_LOOKS: u32 = 4;
/// After an error of the decoder, frames are suspect for so long, ns.
const DECODER_NS: u64 = 1_000_000_000;
/// Late for so many times the limit, and what waits is given up.
const BACKLOG: f64 = 10.0;
/// Mean luma of pictures that are called black and white.
const BLACK: f32 = 40.0;
const WHITE: f32 = 215.0;

/// Watches the frames of one camera.
pub(crate) struct Faults {
    checks: PictureChecks,
    /// The scene, and the size of frame that it is for.
    scene: Option<(Scene, u32, u32)>,
    looked_ns: Option<u64>,
    sight: Option<Sight>,
    /// When the picture last changed, and looks that showed the same since.
    changed_ns: u64,
    same_looks: u32,
    decoder_ns: Option<u64>,
    timing: Timing,
    /// What a sentence needs of the fault that was last there.
    frozen_ns: u64,
    light: f32,
    is_green: bool,
    jump_ns: i64,
    lag_ns: u64,
    frozen: Held,
    uniform: Held,
    corrupt: Held,
    blurred: Held,
    jump: Held,
    late: Held,
}

/// One fault with its inertia.
#[derive(Debug, Default)]
struct Held {
    /// When it began and was last seen, CLOCK_MONOTONIC ns.
    seen_ns: Option<(u64, u64)>,
    /// It has lasted long enough.
    counts: bool,
}

impl Held {
    /// Notes whether it is there; returns whether it is and counts.
    fn see(&mut self, is_there: bool, now_ns: u64, after_ns: u64, hold_ns: u64) -> bool {
        if is_there {
            let since_ns = self.seen_ns.map_or(now_ns, |(since_ns, _)| since_ns);
            self.seen_ns = Some((since_ns, now_ns));
            self.counts |= now_ns.saturating_sub(since_ns) >= after_ns;
            return self.counts;
        }
        let gone = |(_, last_ns): (u64, u64)| now_ns.saturating_sub(last_ns) >= hold_ns;
        if !self.counts || self.seen_ns.is_none_or(gone) {
            *self = Self::default();
        }
        false
    }
}

impl Faults {
    /// `None` where nothing is checked.
    pub(crate) fn new(camera: &Camera) -> Option<Self> {
        let mut checks = camera.checks?;
        // Whatever waits for readers, and what the idle gate keeps, is late on purpose.
        if camera.idle_gate || camera.delivery == Delivery::EveryFrame {
            checks.late_s = 0.0;
        }
        Some(Self {
            checks,
            scene: None,
            looked_ns: None,
            sight: None,
            changed_ns: 0,
            same_looks: 0,
            decoder_ns: None,
            timing: Timing::default(),
            frozen_ns: 0,
            light: 0.0,
            is_green: false,
            jump_ns: 0,
            lag_ns: 0,
            frozen: Held::default(),
            uniform: Held::default(),
            corrupt: Held::default(),
            blurred: Held::default(),
            jump: Held::default(),
            late: Held::default(),
        })
    }

    /// A new connection has times of its own, nothing waits in it, and the time without one
    /// was not spent with the same picture.
    pub(crate) fn reconnected(&mut self) {
        self.timing = Timing::default();
        self.late = Held::default();
        self.looked_ns = None;
    }

    /// Whether frames have been late for so long that they will not catch up.
    pub(crate) fn has_backlog(&self, now_ns: u64) -> bool {
        let since_ns = self.late.seen_ns.map_or(now_ns, |(since_ns, _)| since_ns);
        self.late.counts && now_ns.saturating_sub(since_ns) >= ns(BACKLOG * self.checks.late_s)
    }

    /// The decoder said that something is broken.
    pub(crate) fn decoder_error(&mut self, now_ns: u64) {
        self.decoder_ns = Some(now_ns);
    }

    /// Looks at a frame and adds to its flags what is wrong with it.
    pub(crate) fn look(&mut self, payload: &[u8], layout: &Layout, moment: &mut Moment) {
        if layout.fourcc != Fourcc::Nv12 {
            return;
        }
        let Moment { capture_ns: now_ns, pts_ns, .. } = *moment;
        let hold_ns = ns(self.checks.fault_hold_s);
        let told = moment.flags & FLAG_CORRUPT != 0
            || self.decoder_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < DECODER_NS);
        let mut add = |flag: u32, is_there: bool| {
            if is_there {
                moment.flags |= FLAG_PICTURE_FAULT | flag;
            }
        };
        self.look_at_luma(payload, layout, now_ns);
        let uniform = self.sight.is_some_and(|sight| sight.contrast < self.checks.uniform_contrast);
        if let Some(sight) = self.sight.filter(|_| uniform) {
            self.light = sight.light;
        }
        add(FLAG_UNIFORM, self.uniform.see(uniform, now_ns, hold_ns, hold_ns));
        let same_ns = now_ns.saturating_sub(self.changed_ns);
        let frozen = self.checks.frozen_s > 0.0
            && self.same_looks >= LEAST_LOOKS
            && same_ns >= ns(self.checks.frozen_s);
        if frozen {
            self.frozen_ns = same_ns;
        }
        add(FLAG_FROZEN, self.frozen.see(frozen, now_ns, 0, hold_ns));
        let blurred = !uniform && self.sight.is_some_and(|sight| sight.blurred);
        add(FLAG_BLURRED, self.blurred.see(blurred, now_ns, hold_ns, hold_ns));

        let green = is_green(payload, layout, self.checks.corrupt_area);
        if green || told {
            self.is_green = green;
        }
        add(FLAG_CORRUPT, self.corrupt.see(green || told, now_ns, 0, hold_ns));

        let pts_ns = (pts_ns != u64::MAX).then_some(pts_ns);
        let time = self.timing.see(pts_ns, now_ns, ns(self.checks.time_jump_s));
        self.jump_ns = time.jump_ns.unwrap_or(self.jump_ns);
        add(FLAG_TIME_JUMP, self.jump.see(time.jump_ns.is_some(), now_ns, 0, hold_ns));
        let is_late = self.checks.late_s > 0.0 && time.lag_ns > ns(self.checks.late_s);
        self.lag_ns =
            if self.late.seen_ns.is_some() { self.lag_ns.max(time.lag_ns) } else { time.lag_ns };
        add(FLAG_LATE, self.late.see(is_late, now_ns, hold_ns, hold_ns));
    }

    fn look_at_luma(&mut self, payload: &[u8], layout: &Layout, now_ns: u64) {
        let elapsed_ns = self.looked_ns.map_or(0, |looked_ns| now_ns.saturating_sub(looked_ns));
        if self.looked_ns.is_some() && elapsed_ns < LOOK_NS {
            return;
        }
        let is_first = self.looked_ns.replace(now_ns).is_none();
        let Layout { width, height, .. } = *layout;
        let scene = match &mut self.scene {
            Some((scene, w, h)) if (*w, *h) == (width, height) => scene,
            other => {
                let scene = Scene::new(width as usize, height as usize, self.checks.blur_drop);
                &mut other.insert((scene, width, height)).0
            }
        };
        let luma = payload.get(layout.offsets[0] as usize..).unwrap_or_default();
        // After a pause no more is learned from one picture than after a second.
        let elapsed_s = (elapsed_ns as f32 * 1e-9).min(1.0);
        self.sight = scene.look(luma, layout.strides[0] as usize, elapsed_s);
        if !is_first && self.sight.is_some_and(|sight| sight.change == 0.0) {
            self.same_looks = self.same_looks.saturating_add(1);
        } else {
            (self.changed_ns, self.same_looks) = (now_ns, 0);
        }
    }

    /// The fault that matters most, as a sentence; none when all is well.
    pub(crate) fn sentence(&self) -> Option<String> {
        // A black picture is also frozen and without detail: the cause comes first.
        if self.corrupt.counts {
            let what = if self.is_green {
                "the picture has green areas where data is missing"
            } else {
                "the decoder reports broken pictures"
            };
            return Some(format!("corrupt: {what}"));
        }
        if self.uniform.counts {
            let what = match self.light {
                light if light < BLACK => "black",
                light if light > WHITE => "white",
                _ => "one colour",
            };
            return Some(format!("uniform: the picture shows nothing but {what}"));
        }
        if self.frozen.counts {
            return Some(format!("frozen: the same picture for {}", about(self.frozen_ns)));
        }
        if self.blurred.counts {
            return Some(
                "blurred: most of the picture has lost its detail; is the lens covered, fogged or \
                 out of focus?"
                    .to_owned(),
            );
        }
        if self.late.counts {
            let lag_s = self.lag_ns.div_ceil(1_000_000_000);
            return Some(format!("late: frames come up to {lag_s} s after their time stamps"));
        }
        self.jump.counts.then(|| {
            let jump_s = self.jump_ns as f64 / 1e9;
            let how = if jump_s < 0.0 { "went back" } else { "leapt ahead" };
            format!("time jump: the time stamps {how} by {:.0} s", jump_s.abs())
        })
    }
}

fn is_green(payload: &[u8], layout: &Layout, area: f32) -> bool {
    let chroma = payload.get(layout.offsets[1] as usize..).unwrap_or_default();
    let (width, height) = (layout.width as usize, layout.height as usize);
    area > 0.0
        && scene::missing(chroma, layout.strides[1] as usize, width, height)
            .is_some_and(|share| share >= area)
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// A duration in coarse steps: each of them is a line in the log.
fn about(duration_ns: u64) -> String {
    match duration_ns / 1_000_000_000 {
        seconds @ 0..10 => format!("{seconds} s"),
        seconds @ 10..60 => format!("{} s", seconds / 5 * 5),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
