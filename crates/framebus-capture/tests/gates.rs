//! Frames that need not be decoded, and frames that need not be looked at.

mod common;

use common::{Rig, receive, run};
use framebus_bus::Delivery;
use framebus_types::{Counter, FLAG_MOTION, FLAG_MOTION_MEASURED, FrameHeader, State};
use std::io::Write;
use std::ops::Range;

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const FPS: u64 = 30;
const GROUP: u64 = 30;
/// A key frame after 30 frames: what is not decoded before is decoded there.
const BOUND: u64 = GROUP;

/// An idle scene with a sensor's noise, and a chequered square of 32 pixels that
/// crosses it in the given frames.
fn idle_clip(rig: &Rig, frames: u64, crossings: &[(u64, u64)], encoder: &str) {
    let raw = rig.dir.path().join("raw");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&raw).expect("raw video"));
    let mut random = 1_u64;
    for frame in 0..frames {
        let mut luma = Vec::with_capacity(WIDTH * HEIGHT);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let scene = 60 + x * 80 / WIDTH + 30 * ((x / 40 + y / 30) % 2);
                luma.push((scene as u64 + (random >> 40) % 3) as u8);
            }
        }
        if let Some(crossing) = crossings.iter().find(|(from, to)| (*from..*to).contains(&frame)) {
            let left = 8 + 4 * (frame - crossing.0) as usize;
            for row in 100..132 {
                for (column, pixel) in luma[row * WIDTH + left..][..32].iter_mut().enumerate() {
                    *pixel = 150 + 100 * ((column / 5 + row / 6) % 2) as u8;
                }
            }
        }
        file.write_all(&luma).expect("written");
        file.write_all(&[128; WIDTH * HEIGHT / 2]).expect("written");
    }
    drop(file);
    let clip = rig.dir.path().join("a.mp4");
    run(&format!(
        "filesrc location={} blocksize={} ! rawvideoparse format=i420 width={WIDTH} \
         height={HEIGHT} framerate={FPS}/1 ! {encoder} ! mp4mux ! filesink location={}",
        raw.display(),
        WIDTH * HEIGHT * 3 / 2,
        clip.display()
    ));
    std::fs::remove_file(raw).expect("removed");
}

const H264: &str = "x264enc threads=1 tune=zerolatency speed-preset=ultrafast pass=quant \
     quantizer=28 key-int-max=30 option-string=scenecut=0 ! h264parse";

/// Headers of all frames that arrive, by their number in the clip.
fn watch(rig: &mut Rig) -> Vec<(u64, FrameHeader)> {
    let reader = rig.reader(Delivery::EveryFrame);
    rig.start();
    let mut headers = Vec::new();
    let each = |frame: &framebus_bus::FrameSample| {
        let header = *frame.header();
        let number = (header.pts_ns as f64 * FPS as f64 / 1e9).round() as u64;
        headers.push((number, header));
    };
    receive(rig, &reader, each, usize::MAX);
    drop(reader);
    assert_eq!(rig.exit(), 0, "{}", rig.log());
    headers
}

fn moving(header: &FrameHeader) -> bool {
    header.flags & FLAG_MOTION != 0
}

#[test]
fn motion_is_measured_and_marked() {
    let mut rig = Rig::new(
        "",
        "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"\n\
         motion_gate = true\nmotion_hold_s = 0.5",
    );
    idle_clip(&rig, 240, &[(120, 160)], H264);
    let frames = watch(&mut rig);
    assert_eq!(frames.len(), 240);
    assert_eq!(frames[0].1.flags & FLAG_MOTION_MEASURED, 0, "nothing to compare with");
    assert!(frames[1..].iter().all(|(_, header)| header.flags & FLAG_MOTION_MEASURED != 0));
    let seen = |range: Range<usize>| frames[range].iter().filter(|(_, h)| moving(h)).count();
    assert_eq!(seen(30..120), 0, "noise is no motion");
    assert_eq!(seen(120..160), 40, "every frame of the crossing");
    assert!(frames[120..160].iter().all(|(_, header)| header.motion > 0.005));
    // Half a second of hold.
    assert_eq!(seen(160..174), 14);
    assert_eq!(seen(180..240), 0);
}

#[test]
fn nobody_asked_for_motion() {
    let mut rig =
        Rig::new("", "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"");
    idle_clip(&rig, 20, &[], H264);
    assert!(watch(&mut rig).iter().all(|(_, header)| header.flags == 0 && header.motion == 0.0));
}

#[test]
fn an_idle_camera_is_decoded_by_its_key_frames_and_nothing_that_moves_is_missed() {
    let mut rig = Rig::new(
        "",
        "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"\n\
         idle_gate = true\nmotion_hold_s = 0.5",
    );
    let crossings = [(200, 240), (310, 330), (428, 436)];
    idle_clip(&rig, 600, &crossings, H264);
    let frames = watch(&mut rig);
    let numbers: Vec<u64> = frames.iter().map(|(number, _)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert!((0..600).step_by(GROUP as usize).all(|key| numbers.contains(&key)), "{numbers:?}");
    for (from, to) in crossings {
        let first = numbers.iter().find(|number| (from..to).contains(*number));
        let late = first.map(|first| first - from);
        assert!(late.is_some_and(|late| late <= BOUND), "{from} to {to}: {numbers:?}");
    }
    // An idle second is one key frame.
    let idle = numbers.iter().filter(|number| (480..600).contains(*number)).count();
    assert_eq!(idle, 4, "{numbers:?}");
    let last = rig.last();
    let undecoded = last.counter(Counter::Undecoded);
    assert!(undecoded > 250, "{undecoded}");
    assert_eq!(undecoded + last.counter(Counter::Captured), 600);
    assert_eq!(last.counter(Counter::Errors), 0, "{}", rig.log());
}

#[test]
fn a_camera_whose_frames_are_left_out_is_live() {
    // Key frames are five seconds apart, a stall is half of that.
    let mut rig = Rig::new(
        "",
        "source = \"file:a.mp4\"\nloop = true\nidle_gate = true\nmotion_hold_s = 0.1\n\
         stall_s = 2.5",
    );
    idle_clip(&rig, 450, &[], &H264.replace("key-int-max=30", "key-int-max=150"));
    rig.start();
    rig.wait_for("frames left out", |record| record.counter(Counter::Undecoded) >= 145);
    assert_eq!(rig.terminate(), 0);
    let stalled = rig.records().iter().any(|record| record.state == u32::from(State::Stalled));
    assert!(!stalled, "{}", rig.log());
}

#[test]
fn frames_that_depend_on_both_sides_survive_the_gate() {
    let mut rig = Rig::new(
        "",
        "source = \"file:a.mp4\"\npace = \"fast\"\ndelivery = \"every-frame\"\nidle_gate = true",
    );
    let encoder = "x264enc threads=1 speed-preset=ultrafast bframes=3 b-adapt=false pass=quant \
         quantizer=28 key-int-max=30 option-string=scenecut=0 ! h264parse";
    idle_clip(&rig, 300, &[(200, 240)], encoder);
    let frames = watch(&mut rig);
    let numbers: Vec<u64> = frames.iter().map(|(number, _)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(numbers.iter().any(|number| (200..200 + BOUND).contains(number)), "{numbers:?}");
    let last = rig.last();
    assert!(last.counter(Counter::Undecoded) > 60, "{numbers:?}");
    assert_eq!(last.counter(Counter::Undecoded) + last.counter(Counter::Captured), 300);
}
