//! How good the tracker is on generated scenes, and the same scenes as files for others:
//! `cargo run --release -p framebus-vision --example track_eval [-- FOLDER]`.
//!
//! With a folder, each scene leaves `NAME.gt.txt`, `NAME.det.txt` and `NAME.framebus.txt`
//! in it: `frame,id,left,top,width,height,score`, frames and ids from 1 as in MOT
//! Challenge, detections with id -1; the rate is in the name. `tests/peers/track_compare.py`
//! runs other trackers on them.
#![allow(clippy::print_stdout, reason = "it prints a table")]

#[path = "../tests/ground_truth/mod.rs"]
mod ground_truth;

use framebus_vision::{TrackSettings, Tracker};
use ground_truth::metrics::{Boxes, Score, score};
use ground_truth::scenes::{Frame, Motion, Setup, USUAL, play};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const SEEDS: u64 = 5;

fn track(frames: &[Frame]) -> Vec<Boxes> {
    let mut tracker = Tracker::new(TrackSettings::default());
    let mut ids = Vec::new();
    let answer = frames.iter().map(|frame| {
        tracker.update(frame.time_ns, &frame.seen, &mut ids);
        let tracked = ids.iter().zip(&frame.seen).filter(|(id, _)| **id != 0);
        tracked.map(|(&id, seen)| (id, seen.bbox)).collect()
    });
    answer.collect()
}

fn write(path: &Path, frames: &[Vec<(i64, [f32; 4], f32)>]) -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    for (number, frame) in (1..).zip(frames) {
        for (id, [left, top, right, bottom], score) in frame {
            let (width, height) = (right - left, bottom - top);
            writeln!(text, "{number},{id},{left:.3},{top:.3},{width:.3},{height:.3},{score:.4}")?;
        }
    }
    Ok(fs::write(path, text)?)
}

fn with_score(boxes: &[(u64, [f32; 4])]) -> Vec<(i64, [f32; 4], f32)> {
    boxes.iter().map(|&(id, bbox)| (id.cast_signed(), bbox, 1.0)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1);
    if let Some(folder) = &folder {
        fs::create_dir_all(folder)?;
    }
    let scenes = [
        ("lanes", Motion::Lanes, 8),
        ("crossing", Motion::Crossing, 15),
        ("lively", Motion::Lively, 15),
        ("pillars", Motion::Pillars, 15),
    ];
    println!("scene       fps     MOTA     IDF1  switches  missed  false");
    for (name, motion, objects) in scenes {
        for fps in [25.0, 10.0, 5.0] {
            let mut total = Score::default();
            for seed in 1..=SEEDS {
                let setup = Setup { motion, objects, fps, seconds: 40.0, detector: USUAL, seed };
                let frames = play(&setup);
                let answer = track(&frames);
                let truth: Vec<Boxes> = frames.iter().map(|frame| frame.truth.clone()).collect();
                total.add(&score(&truth, &answer));
                let Some(folder) = &folder else { continue };
                let path =
                    |kind: &str| Path::new(folder).join(format!("{name}-{fps}-{seed}.{kind}.txt"));
                let listed = |all: &[Boxes]| all.iter().map(|frame| with_score(frame)).collect();
                let (truth, answer): (Vec<_>, Vec<_>) = (listed(&truth), listed(&answer));
                write(&path("gt"), &truth)?;
                write(&path("framebus"), &answer)?;
                let seen: Vec<_> = frames
                    .iter()
                    .map(|frame| {
                        frame.seen.iter().map(|seen| (-1, seen.bbox, seen.score)).collect()
                    })
                    .collect();
                write(&path("det"), &seen)?;
            }
            println!(
                "{name:<10} {fps:>4} {:>8.1} {:>8.1} {:>9} {:>7} {:>6}",
                100.0 * total.mota(),
                100.0 * total.idf1(),
                total.switches,
                total.missed,
                total.false_boxes,
            );
        }
    }
    Ok(())
}
