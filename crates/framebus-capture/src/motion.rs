//! Motion of a camera: measured while the frame is still in the processor's cache.

use crate::layout::Layout;
use crate::publish::Moment;
use framebus_config::Camera;
use framebus_types::{FLAG_MOTION, FLAG_MOTION_MEASURED, Fourcc};
use framebus_vision::{Motion, MotionSettings};

/// Marks frames as moving or still.
pub(crate) struct MotionGate {
    settings: MotionSettings,
    threshold: f32,
    hold_ns: u64,
    /// The scene, and the size of frame that it is for.
    scene: Option<(Motion, u32, u32)>,
    /// Stream times of the last frame and of the last motion, ns.
    last_ns: Option<u64>,
    moved_ns: Option<u64>,
}

impl MotionGate {
    /// `None` where nobody asks for motion. The idle gate does: key frames tell it.
    pub(crate) fn new(camera: &Camera) -> Option<Self> {
        (camera.motion_gate || camera.idle_gate).then(|| Self {
            settings: MotionSettings {
                step: f32::from(camera.motion_step),
                ignore: camera
                    .motion_ignore
                    .iter()
                    .map(|area| [area.x, area.y, area.width, area.height].map(|side| side as f32))
                    .collect(),
            },
            threshold: camera.motion_threshold,
            hold_ns: (camera.motion_hold_s * 1e9) as u64,
            scene: None,
            last_ns: None,
            moved_ns: None,
        })
    }

    /// Looks at a frame and writes what it saw into its moment; returns whether something
    /// moves right now.
    pub(crate) fn look(&mut self, payload: &[u8], layout: &Layout, moment: &mut Moment) -> bool {
        if layout.fourcc != Fourcc::Nv12 {
            return false;
        }
        let Layout { width, height, .. } = *layout;
        let scene = match &mut self.scene {
            Some((scene, w, h)) if (*w, *h) == (width, height) => scene,
            other => {
                let scene = Motion::new(width as usize, height as usize, &self.settings);
                &mut other.insert((scene, width, height)).0
            }
        };
        let now_ns = moment.stream_ns;
        let elapsed_ns = now_ns.saturating_sub(self.last_ns.replace(now_ns).unwrap_or(now_ns));
        let luma = payload.get(layout.offsets[0] as usize..).unwrap_or_default();
        let Some(share) = scene.measure(luma, layout.strides[0] as usize, elapsed_ns as f32 * 1e-9)
        else {
            // Whatever this frame shows has not been seen before.
            self.moved_ns = Some(now_ns);
            return false;
        };
        moment.motion = share;
        moment.flags |= FLAG_MOTION_MEASURED;
        let moves = share > 0.0 && share >= self.threshold;
        if moves {
            self.moved_ns = Some(now_ns);
        }
        // A stream that starts anew has times before the last motion.
        let held = self.moved_ns.is_some_and(|moved_ns| now_ns.abs_diff(moved_ns) <= self.hold_ns);
        if moves || held {
            moment.flags |= FLAG_MOTION;
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::{CameraName, Source};

    const WIDTH: usize = 320;

    fn layout() -> Layout {
        gst::init().expect("GStreamer");
        let caps = "video/x-raw,format=NV12,width=320,height=240,framerate=10/1";
        let caps: gst::Caps = caps.parse().expect("caps");
        Layout::nv12(&gst_video::VideoInfo::from_caps(&caps).expect("info"), &caps).expect("NV12")
    }

    fn gate(change: impl FnOnce(&mut Camera)) -> Option<MotionGate> {
        let name = CameraName::try_from("a").expect("name");
        let url = framebus_config::RtspUrl::try_from("rtsp://127.0.0.1:9/cam").expect("url");
        let mut camera = Camera::new(name, Source::Rtsp(url));
        change(&mut camera);
        MotionGate::new(&camera)
    }

    /// Flags of frames 0.1 s apart, with a bright block in the frames of `moving`.
    fn flags(gate: &mut MotionGate, frames: u64, moving: impl Fn(u64) -> bool) -> Vec<u32> {
        let layout = layout();
        let mut seen = Vec::new();
        for frame in 0..frames {
            let mut payload = vec![60; layout.bytes];
            if moving(frame) {
                for row in 64..128 {
                    payload[row * WIDTH + 64..][..64].fill(200);
                }
            }
            let mut moment = Moment::now(0, 0);
            moment.stream_ns = frame * 100_000_000;
            let moves = gate.look(&payload, &layout, &mut moment);
            assert!(!moves || moment.motion > 0.0);
            seen.push(moment.flags);
        }
        seen
    }

    #[test]
    fn motion_is_flagged_and_held() {
        let mut gate = gate(|camera| {
            camera.motion_gate = true;
            camera.motion_hold_s = 0.5;
        })
        .expect("asked for");
        let flags = flags(&mut gate, 30, |frame| (15..17).contains(&frame));
        assert_eq!(flags[0], 0, "nothing to compare with");
        let moved: Vec<usize> = (1..30).filter(|i| flags[*i] & FLAG_MOTION != 0).collect();
        // The first frame counts as news.
        let expected: Vec<usize> = (1..=5).chain(15..=21).collect();
        assert_eq!(moved, expected);
        assert!(flags[1..].iter().all(|flags| flags & FLAG_MOTION_MEASURED != 0));
    }

    #[test]
    fn a_mask_hides_and_a_threshold_too() {
        let areas = vec![framebus_config::Area { x: 0.15, y: 0.2, width: 0.3, height: 0.4 }];
        let mut masked = gate(|camera| {
            camera.motion_gate = true;
            camera.motion_hold_s = 0.0;
            camera.motion_ignore = areas;
        })
        .expect("asked for");
        assert!(
            flags(&mut masked, 20, |frame| frame > 9)[1..].iter().all(|f| f & FLAG_MOTION == 0)
        );
        // 64 x 64 of 320 x 240 is a share of 0.053.
        let mut coarse = gate(|camera| {
            camera.motion_gate = true;
            camera.motion_hold_s = 0.0;
            camera.motion_threshold = 0.1;
        })
        .expect("asked for");
        assert!(
            flags(&mut coarse, 20, |frame| frame > 9)[1..].iter().all(|f| f & FLAG_MOTION == 0)
        );
    }

    #[test]
    fn nobody_asks_nobody_measures() {
        assert!(gate(|_| {}).is_none());
        assert!(gate(|camera| camera.idle_gate = true).is_some());
    }
}
