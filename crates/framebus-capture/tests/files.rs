//! Clips, pictures and pipelines that come to an end: complete, in order, once.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a reader that is slow on purpose; what is skipped is said"
)]

mod common;

use common::{Rig, decode, pixels, receive};
use framebus_bus::Delivery;
use framebus_types::{
    ChromaSite, ColourMatrix, ColourRange, Counter, FLAG_DISCONTINUITY, Fourcc, Health, Stage,
    State,
};
use std::time::Duration;

const CLIP: &str = "videotestsrc num-buffers=90 pattern=ball ! \
     video/x-raw,format=I420,width=320,height=240,framerate=30/1,chroma-site=mpeg2,colorimetry=bt601 ! \
     x264enc speed-preset=ultrafast bframes=2 key-int-max=30 ! h264parse ! mp4mux";

/// A frame that a reader could not take yet is kept and sent again as a copy;
/// that happens once, before the reader first looks, or not at all.
fn all_zero_copy(record: &Health) {
    assert!(record.counter(Counter::Copied) <= 1, "{} copied", record.counter(Counter::Copied));
}

#[test]
fn every_frame_of_a_clip_arrives_once_and_unchanged() {
    let mut rig =
        Rig::new("", "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"");
    let clip = rig.clip("a.mp4", CLIP);
    let expected = decode(&clip);
    assert_eq!(expected.len(), 90);
    rig.start();
    let waiting = rig.wait_for_state(State::Starting, "waiting for the inference process");
    assert_eq!(waiting.counter(Counter::Published), 0);

    let reader = rig.reader(Delivery::EveryFrame);
    let (mut next, mut last_pts) = (0, None);
    let count = receive(
        &mut rig,
        &reader,
        |frame| {
            let header = frame.header();
            assert_eq!(header.sequence, next);
            assert_eq!((header.width, header.height, frame.fourcc()), (320, 240, Fourcc::Nv12));
            assert_eq!(frame.matrix(), ColourMatrix::Bt601);
            assert_eq!(frame.range(), ColourRange::Limited);
            assert_eq!(frame.chroma_site(), ChromaSite::Left);
            assert_eq!(header.flags, 0);
            assert!(header.capture_ns > 0 && header.capture_ns <= header.publish_ns);
            assert!(header.epoch_ns <= header.wall_ns);
            assert!(Some(header.pts_ns) > last_pts, "presentation times rise");
            last_pts = Some(header.pts_ns);
            assert!(pixels(frame) == expected[next as usize], "pixels of frame {next}");
            next += 1;
        },
        90,
    );
    assert_eq!(count, 90);
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    assert_eq!(last.counter(Counter::Captured), 90);
    all_zero_copy(&last);
    assert_eq!(last.counter(Counter::Errors), 0);
    assert_eq!((last.width, last.height), (320, 240));
    let counted: u32 = last.stages[Stage::Capture as usize].counts.iter().sum();
    assert_eq!(counted, 90);
    let detail = framebus_types::text::unpack(&last.detail);
    assert!(detail.ends_with("→ NV12 320x240, zero-copy"), "{detail}");
}

#[test]
fn frames_wait_for_a_reader_that_looks_late() {
    let mut rig = Rig::new(
        "",
        "source = \"test:ball?width=64&height=48&frames=2\"\ndelivery = \"every-frame\"",
    );
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    // Both frames are queued and the source has ended before the first look.
    rig.wait_for_state(State::Ended, "");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(receive(&mut rig, &reader, |_| {}, 2), 2);
    assert_eq!(rig.exit(), 0);
}

#[test]
fn a_clip_that_loops_goes_on_counting() {
    let mut rig = Rig::new(
        "",
        "source = \"file:a.mp4\"\npace = \"fast\"\nloop = true\ndelivery = \"every-frame\"",
    );
    rig.clip("a.mp4", &CLIP.replace("num-buffers=90", "num-buffers=10"));
    rig.start();
    let reader = rig.reader(Delivery::EveryFrame);
    let mut flagged = Vec::new();
    let mut next = 0;
    receive(
        &mut rig,
        &reader,
        |frame| {
            assert_eq!(frame.header().sequence, next);
            next += 1;
            if frame.header().flags & FLAG_DISCONTINUITY != 0 {
                flagged.push(frame.header().sequence);
            }
        },
        25,
    );
    assert_eq!(flagged.get(..2), Some([10, 20].as_slice()));
    assert_eq!(rig.terminate(), 0);
    assert_eq!(rig.last().counter(Counter::Reconnects), 0);
}

#[test]
fn the_size_may_change_in_mid_stream() {
    let part = |width: u32, height: u32| {
        format!(
            "videotestsrc num-buffers=15 ! \
             video/x-raw,format=I420,width={width},height={height},framerate=30/1 ! c. "
        )
    };
    let source =
        format!("concat name=c ! identity {}{}{}", part(320, 240), part(1280, 720), part(160, 120));
    let mut rig = Rig::new("", &format!("source = \"gst:{source}\"\ndelivery = \"every-frame\""));
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let mut sizes = Vec::new();
    let mut matrices = Vec::new();
    let count = receive(
        &mut rig,
        &reader,
        |frame| {
            sizes.push((frame.header().width, frame.header().height));
            matrices.push(frame.matrix());
        },
        45,
    );
    assert_eq!(count, 45, "{}", rig.log());
    let expected = [vec![(320, 240); 15], vec![(1280, 720); 15], vec![(160, 120); 15]].concat();
    assert_eq!(sizes, expected);
    assert_eq!((matrices[0], matrices[20]), (ColourMatrix::Bt601, ColourMatrix::Bt709));
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    all_zero_copy(&last);
    assert_eq!((last.width, last.height), (160, 120));
}

#[test]
fn a_rate_limit_and_a_smaller_size() {
    let mut rig = Rig::new(
        "",
        "source = \"test:ball?width=640&height=360&fps=30&frames=60\"\n\
         delivery = \"every-frame\"\nfps = 10.0\nmax_width = 320",
    );
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let count = receive(
        &mut rig,
        &reader,
        |frame| assert_eq!((frame.header().width, frame.header().height), (320, 180)),
        20,
    );
    assert_eq!(count, 20);
    // The last two frames are over the limit and arrive after what is read.
    rig.wait_for_state(State::Ended, "");
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    assert_eq!(last.counter(Counter::Captured), 60);
    assert_eq!(last.counter(Counter::LostRate), 40);
    all_zero_copy(&last);
}

#[test]
fn a_folder_of_pictures_with_one_that_is_broken() {
    let mut rig = Rig::new("", "source = \"file:p\"\ndelivery = \"every-frame\"");
    let folder = rig.dir.path().join("p");
    std::fs::create_dir(&folder).expect("folder");
    let picture = |r| image::RgbImage::from_pixel(33, 21, image::Rgb([r, 2, 3]));
    picture(30).save(folder.join("c.bmp")).expect("saved");
    picture(10).save(folder.join("a.png")).expect("saved");
    std::fs::write(folder.join("b.jpg"), "no picture").expect("written");
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let (mut first_bytes, mut pts_ns) = (Vec::new(), Vec::new());
    let count = receive(
        &mut rig,
        &reader,
        |frame| {
            assert_eq!((frame.fourcc(), frame.range()), (Fourcc::Rgb24, ColourRange::Full));
            assert_eq!((frame.header().width, frame.header().height), (33, 21));
            first_bytes.push(frame.plane(0).0[..3].to_vec());
            pts_ns.push(frame.header().pts_ns);
        },
        2,
    );
    assert_eq!(count, 2, "{}", rig.log());
    assert_eq!(first_bytes, [[10, 2, 3], [30, 2, 3]]);
    // Which file each is, the broken one counted.
    assert_eq!(pts_ns, [0, 2_000_000_000]);
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    assert_eq!(last.counter(Counter::Captured), 3);
    assert_eq!(last.counter(Counter::LostBad), 1);
    assert_eq!(last.counter(Counter::Errors), 1);
    assert!(rig.log().contains("cannot decode the picture"), "{}", rig.log());
}

#[test]
fn a_picture_that_plays_camera_repeats() {
    let mut rig = Rig::new("", "source = \"file:a.png\"\nloop = true\nfps = 20.0");
    image::RgbImage::new(16, 16).save(rig.dir.path().join("a.png")).expect("saved");
    let reader = rig.reader(Delivery::Latest);
    rig.start();
    assert_eq!(receive(&mut rig, &reader, |frame| assert_eq!(frame.header().pts_ns, 0), 5), 5);
    assert_eq!(rig.terminate(), 0);
}

#[test]
fn what_cannot_be_shown_ends_with_one_clear_message() {
    let audio = "audiotestsrc num-buffers=20 ! wavenc";
    for (source, code, message) in [
        ("file:none.mp4", 69, "none.mp4: no such file"),
        ("file:none.png", 69, "none.png: no such file"),
        ("file:text.mp4", 69, "neither a video nor a picture that GStreamer knows"),
        ("file:empty.mp4", 69, "the file is empty"),
        ("file:bad.jpg", 69, "cannot decode the picture"),
        ("file:folder", 69, "the folder has no pictures (jpg, jpeg, png, bmp, webp)"),
        ("file:sound.wav", 69, "no video stream in it"),
        ("gst:nosuchelement ! identity", 78, "no element \"nosuchelement\""),
        ("gst:audiotestsrc", 78, "it does not end in raw video"),
    ] {
        let mut rig = Rig::new("", &format!("source = '{source}'"));
        let dir = rig.dir.path().to_owned();
        std::fs::write(dir.join("text.mp4"), "Plain words.\n".repeat(100)).expect("written");
        std::fs::write(dir.join("empty.mp4"), "").expect("written");
        std::fs::write(dir.join("bad.jpg"), "no picture").expect("written");
        std::fs::create_dir(dir.join("folder")).expect("folder");
        if source.contains("sound") {
            rig.clip("sound.wav", audio);
        }
        rig.start();
        assert_eq!(rig.exit(), code, "{source}:\n{}", rig.log());
        let log = rig.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert!(errors[0].contains(message), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn the_decoder_is_the_one_that_was_asked_for() {
    let source = "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"";
    for decoder in ["software", "nvidia"] {
        let mut rig = Rig::new("", &format!("{source}\ndecoder = \"{decoder}\""));
        rig.clip("a.mp4", &CLIP.replace("num-buffers=90", "num-buffers=10"));
        if decoder == "software" {
            let reader = rig.reader(Delivery::EveryFrame);
            rig.start();
            assert_eq!(receive(&mut rig, &reader, |_| {}, 10), 10);
            assert_eq!(rig.exit(), 0);
            let detail = framebus_types::text::unpack(&rig.last().detail).to_owned();
            assert_eq!(detail, "avdec_h264 → NV12 320x240, zero-copy");
            let log = rig.log();
            assert!(log.contains("decoding") && log.contains("avdec_h264"), "{log}");
            continue;
        }
        let there = ["nvh264dec", "nvv4l2decoder", "nvh265dec"];
        if there.iter().any(|name| gst::ElementFactory::find(name).is_some()) {
            eprintln!("SKIPPED: this machine has NVIDIA's decoders");
            continue;
        }
        rig.start();
        assert_eq!(rig.exit(), 69, "{}", rig.log());
        let log = rig.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert!(errors[0].contains("GStreamer has no such decoder; it needs"), "{log}");
        assert!(errors[0].contains("libnvcuvid.so.1"), "{log}");
    }
}

#[test]
fn readers_that_take_nothing_hold_the_source_but_not_the_stop() {
    let mut rig = Rig::new(
        "",
        "source = \"test:ball?width=64&height=48\"\ndelivery = \"every-frame\"\nstall_s = 0.5",
    );
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let held = rig.wait_for_state(State::Stalled, "the readers take no frames");
    assert_eq!(held.counter(Counter::Published), 2, "what the reader's buffer holds");
    // Once they take frames again, it goes on where it was.
    let mut next = 0;
    let each = |frame: &framebus_bus::FrameSample| {
        assert_eq!(frame.header().sequence, next);
        next += 1;
    };
    assert!(receive(&mut rig, &reader, each, 20) >= 20);
    rig.forget();
    rig.wait_for_state(State::Stalled, "the readers take no frames");
    assert_eq!(rig.terminate(), 0);
    assert_eq!(rig.last().counter(Counter::Reconnects), 0);
}

#[test]
fn the_source_waits_for_a_reader_that_comes_back() {
    let mut rig =
        Rig::new("", "source = \"test:ball?width=64&height=48\"\ndelivery = \"every-frame\"");
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let mut last = 0;
    assert!(receive(&mut rig, &reader, |frame| last = frame.header().sequence, 10) >= 10);
    drop(reader);
    rig.forget();
    rig.wait_for_state(State::Stalled, "waiting for the inference process");
    let reader = rig.reader(Delivery::EveryFrame);
    let mut sequences = Vec::new();
    assert!(receive(&mut rig, &reader, |frame| sequences.push(frame.header().sequence), 20) >= 20);
    // What lay in the first reader's buffer, and the frame on its way, went with it.
    assert!(sequences[0] > last && sequences[0] <= last + 4, "{last} then {sequences:?}");
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    assert_eq!(rig.terminate(), 0);
    assert!(rig.last().counter(Counter::LostBad) <= 1);
}
