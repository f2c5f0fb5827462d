use super::*;
use framebus_config::{CameraName, Source};
use framebus_types::PICTURE_FAULTS;

const WIDTH: usize = 640;
const SECOND: u64 = 1_000_000_000;

/// Frames of a camera at 10 fps, and what is said of them.
struct Rig {
    faults: Faults,
    layout: Layout,
    random: u64,
    frame: u64,
    /// Added to the time stamps and to the arrival, ns.
    pts_shift: i64,
    delay_ns: u64,
}

impl Rig {
    fn new() -> Self {
        gst::init().expect("GStreamer");
        let caps = "video/x-raw,format=NV12,width=640,height=360,framerate=10/1";
        let caps: gst::Caps = caps.parse().expect("caps");
        let info = gst_video::VideoInfo::from_caps(&caps).expect("info");
        let layout = Layout::nv12(&info, &caps).expect("NV12");
        let url = framebus_config::RtspUrl::try_from("rtsp://127.0.0.1:9/cam").expect("url");
        let camera = Camera::new(CameraName::try_from("a").expect("name"), Source::Rtsp(url));
        let faults = Faults::new(&camera).expect("live sources are checked");
        Self { faults, layout, random: 7, frame: 100, pts_shift: 0, delay_ns: 0 }
    }

    /// A noisy picture with texture.
    fn picture(&mut self) -> Vec<u8> {
        let mut payload = vec![128; self.layout.bytes];
        for (i, pixel) in payload[..WIDTH * 360].iter_mut().enumerate() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let (x, y) = (i % WIDTH, i / WIDTH);
            *pixel = (60 + 40 * ((x / 6 + y / 20) % 3) + (self.random >> 33) as usize % 5) as u8;
        }
        payload
    }

    /// Names of the flags of the next frame.
    fn send(&mut self, payload: &[u8], flags: u32) -> Vec<&'static str> {
        self.frame += 1;
        let time_ns = self.frame * SECOND / 10;
        let mut moment = Moment::now(time_ns.saturating_add_signed(self.pts_shift), flags);
        moment.capture_ns = time_ns + self.delay_ns;
        self.faults.look(payload, &self.layout, &mut moment);
        let names: Vec<_> = PICTURE_FAULTS
            .iter()
            .filter(|(flag, _)| moment.flags & flag != 0)
            .map(|(_, name)| *name)
            .collect();
        assert_eq!(moment.flags & FLAG_PICTURE_FAULT != 0, !names.is_empty());
        names
    }

    fn said(&self) -> String {
        self.faults.sentence().unwrap_or_default()
    }

    /// Seconds of frames until `flag` is on one and the state says `words`; then until it is
    /// over, with good frames. Tenths of seconds.
    fn fault(
        &mut self,
        flag: &str,
        words: &str,
        mut next: impl FnMut(&mut Self) -> Vec<u8>,
    ) -> u64 {
        let begin = self.frame;
        loop {
            let payload = next(self);
            let flags = self.send(&payload, 0);
            assert!(self.frame - begin < 300, "no {flag}: {}", self.said());
            if !flags.is_empty() {
                assert_eq!(flags, [flag]);
                break;
            }
            assert_eq!(self.said(), "");
        }
        assert!(self.said().contains(words), "{}", self.said());
        self.frame - begin
    }

    /// Good frames: no flags at once, and live after the hold time.
    fn recover(&mut self) {
        for tenth in 0..60 {
            let payload = self.picture();
            let flags = self.send(&payload, 0);
            // Luma is looked at in steps.
            assert!(flags.is_empty() || tenth < 3, "after {tenth}: {flags:?}");
            let said = self.said();
            assert!(said.is_empty() || tenth < 25, "after {tenth}: {said}");
        }
        assert_eq!(self.said(), "");
    }
}

#[test]
fn good_frames_are_no_fault() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        rig.recover();
    }
}

#[test]
fn frozen_after_its_time_and_not_before() {
    let mut rig = Rig::new();
    rig.recover();
    let still = rig.picture();
    let tenths = rig.fault("frozen", "frozen: the same picture for 10 s", |_| still.clone());
    assert!((100..106).contains(&tenths), "{tenths}");
    for _ in 0..130 {
        rig.send(&still, 0);
    }
    assert_eq!(rig.said(), "frozen: the same picture for 20 s");
    // What ended is told as it was, until it is over.
    let picture = rig.picture();
    rig.send(&picture, 0);
    rig.frame += 1;
    rig.send(&picture, 0);
    assert_eq!(rig.said(), "frozen: the same picture for 20 s");
    rig.recover();
}

#[test]
fn the_time_without_a_connection_is_none_with_the_same_picture() {
    let mut rig = Rig::new();
    rig.recover();
    let first = rig.picture();
    for _ in 0..20 {
        rig.faults.reconnected();
        for _ in 0..10 {
            assert!(rig.send(&first, 0).is_empty());
        }
        rig.frame += 600;
    }
    assert_eq!(rig.said(), "");
}

#[test]
fn black_white_and_one_colour() {
    let mut rig = Rig::new();
    rig.recover();
    for (luma, word) in [(16, "black"), (235, "white"), (90, "one colour")] {
        let words = format!("uniform: the picture shows nothing but {word}");
        let mut picture = vec![128; rig.layout.bytes];
        picture[..WIDTH * 360].fill(luma);
        let tenths = rig.fault("uniform", &words, |_| picture.clone());
        assert!((20..26).contains(&tenths), "{word}: {tenths}");
        rig.recover();
    }
}

#[test]
fn green_areas_and_what_the_decoder_says() {
    let mut rig = Rig::new();
    rig.recover();
    let tenths = rig.fault("corrupt", "green areas", |rig| {
        let mut picture = rig.picture();
        let (from, end) = (WIDTH * 360, picture.len());
        picture[from + (end - from) * 9 / 10..].fill(0);
        picture
    });
    assert_eq!(tenths, 1);
    rig.recover();

    let picture = rig.picture();
    assert_eq!(rig.send(&picture, FLAG_PICTURE_FAULT | FLAG_CORRUPT), ["corrupt"]);
    assert_eq!(rig.said(), "corrupt: the decoder reports broken pictures");
    rig.recover();

    rig.faults.decoder_error(rig.frame * SECOND / 10);
    let picture = rig.picture();
    assert_eq!(rig.send(&picture, 0), ["corrupt"]);
}

#[test]
fn covered_with_something_bright() {
    let mut rig = Rig::new();
    rig.recover();
    let tenths = rig.fault("blurred", "blurred: most of the picture", |rig| {
        let mut picture = rig.picture();
        for (i, pixel) in picture[..WIDTH * 360].iter_mut().enumerate() {
            *pixel = (120 + i % WIDTH / 10) as u8 + *pixel % 2;
        }
        picture
    });
    assert!((20..26).contains(&tenths), "{tenths}");
    rig.recover();
}

#[test]
fn time_stamps_that_jump_and_frames_that_come_late() {
    let mut rig = Rig::new();
    rig.recover();
    rig.pts_shift = -(5 * SECOND as i64);
    let tenths =
        rig.fault("time jump", "time jump: the time stamps went back by 5 s", Rig::picture);
    assert_eq!(tenths, 1);
    rig.recover();
    rig.pts_shift = SECOND as i64 * 7;
    rig.fault("time jump", "time jump: the time stamps leapt ahead by 12 s", Rig::picture);
    rig.recover();

    // Every frame 0.1 s later than the one before.
    let tenths = rig.fault("late", "late: frames come up to 5 s after their time stamps", |rig| {
        rig.delay_ns += SECOND / 10;
        rig.picture()
    });
    // 3 s of lag, which take 30 frames, and 2 s of patience, which take 10.
    assert!((35..55).contains(&tenths), "{tenths}");
    // That goes on for 30 s.
    let has_backlog = |rig: &Rig| rig.faults.has_backlog(rig.frame * SECOND / 10 + rig.delay_ns);
    let begin_ns = rig.frame * SECOND / 10 + rig.delay_ns;
    while !has_backlog(&rig) {
        let picture = rig.picture();
        assert_eq!(rig.send(&picture, 0), ["late"]);
    }
    let lasted_s = (rig.frame * SECOND / 10 + rig.delay_ns - begin_ns) / SECOND;
    assert!((26..30).contains(&lasted_s), "{lasted_s}");
    rig.delay_ns = 0;
    rig.frame += 60;
    rig.recover();
    // What is behind a new connection has nothing to do with the old times.
    rig.delay_ns = 9 * SECOND;
    for _ in 0..330 {
        let picture = rig.picture();
        rig.send(&picture, 0);
    }
    assert!(has_backlog(&rig) && rig.said().starts_with("late: "), "{}", rig.said());
    rig.faults.reconnected();
    assert!(!has_backlog(&rig));
    assert_eq!(rig.said(), "");
    rig.pts_shift = 0;
    rig.recover();
}
