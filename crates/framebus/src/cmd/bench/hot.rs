//! `framebus bench letterbox` and `decode`: the hot functions, one core.

use super::numbers::{Summary, adjacent_ratios, median, round};
use super::{Common, picture, say};
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_vision::heads::{HeadOutput, HeadScale};
use framebus_vision::{Colour, FrameView, Letterbox, Planes, Postprocess, Resampler, Thresholds};
use serde_json::json;
use std::hint::black_box;
use std::time::Duration;

/// Calls of a block: some ten milliseconds.
const CALLS: usize = 32;
/// Frames that take turns, so that they do not all come out of the nearest cache.
const FRAMES: usize = 4;
/// Classes and distance bins of YOLOv8 trained on COCO.
const CLASSES: usize = 80;
const BINS: usize = 16;
const STRIDES: [usize; 3] = [8, 16, 32];

/// Letterbox of one frame into the network's input, one core
///
/// A copy of the same bytes takes turns with it: what memory alone costs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON keys, beside those of every benchmark: size, input, ns {min,p50,p90,p99,max} of one
call, gb_per_s (bytes read and written, over the median), copy_ns {…} for copying as many
bytes, over_copy (median ratio of neighbouring blocks), bytes, calls.")]
pub(super) struct LetterboxArgs {
    #[command(flatten)]
    common: Common,
    /// Size of the frames.
    #[arg(long, value_name = "WxH", default_value = "1920x1080", value_parser = super::size)]
    size: (usize, usize),
    /// Size of the network's input.
    #[arg(long, value_name = "HxW", default_value = "384x640", value_parser = input)]
    input: (usize, usize),
}

/// Boxes out of the network's output, one core
///
/// The raw heads of one frame (80 classes, 16 bins) with so many objects on them, each
/// seen by nine cells; decoding and non-maximum suppression.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON keys, beside those of every benchmark: input, objects, candidates (cells over the
threshold), detections, ns {min,p50,p90,p99,max} of one call, gb_per_s (class logits read,
over the median), bytes, calls.")]
pub(super) struct DecodeArgs {
    #[command(flatten)]
    common: Common,
    /// Objects on the frame.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=100))]
    objects: u16,
    /// Size of the network's input.
    #[arg(long, value_name = "HxW", default_value = "384x640", value_parser = input)]
    input: (usize, usize),
}

fn input(text: &str) -> Result<(usize, usize), String> {
    let found = text.split_once('x').filter(|_| text != "auto");
    crate::cmd::detect::shape(text)?;
    let sides = found.and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
    sides.ok_or_else(|| "must be HEIGHTxWIDTH such as 384x640".to_owned())
}

/// Mean time of one of [`CALLS`] calls, ns.
fn block(mut call: impl FnMut(usize) -> Result<(), Failure>) -> Result<f64, Failure> {
    let start_ns = clock::monotonic_ns();
    for number in 0..CALLS {
        call(number)?;
    }
    Ok((clock::monotonic_ns() - start_ns) as f64 / CALLS as f64)
}

pub(super) fn letterbox(args: &LetterboxArgs, shutdown: &Shutdown) -> Result<(), Failure> {
    let ((width, height), (input_h, input_w)) = (args.size, args.input);
    let pictures: Vec<Vec<u8>> =
        (0..FRAMES).map(|seed| picture::noise(width, height, seed as u64)).collect();
    let view = |picture| {
        let (y, uv) = <[u8]>::split_at(picture, width * height);
        let planes = Planes::Nv12 { y, y_stride: width, uv, uv_stride: width };
        FrameView::new(width, height, planes, Colour::default()).or_fail(Kind::Bug)
    };
    let views: Vec<FrameView<'_>> =
        pictures.iter().map(|picture| view(picture)).collect::<Result<_, _>>()?;
    let mut resampler = Resampler::new(&views[0], input_w, input_h).or_fail(Kind::Usage)?;
    let mut output = vec![0.0_f32; resampler.output_len()];
    let bytes = picture::bytes(width, height) + output.len() * size_of::<f32>();
    // Reads and writes `bytes` together.
    let mut copy = vec![0_u8; bytes / 2];
    let from: Vec<Vec<u8>> = (0..FRAMES).map(|n| vec![n as u8; bytes / 2]).collect();
    let mut run = |number: usize| {
        resampler.run(black_box(&views[number % FRAMES]), black_box(&mut output)).or_fail(Kind::Bug)
    };
    block(&mut run)?;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    let end_ns = clock::monotonic_ns() + (args.common.seconds * 1e9) as u64;
    while ours.is_empty() || (clock::monotonic_ns() < end_ns && !shutdown.wait(Duration::ZERO)) {
        ours.push(block(&mut run)?);
        copies.push(block(|number| {
            black_box(&mut copy).copy_from_slice(black_box(&from[number % FRAMES]));
            Ok(())
        })?);
    }
    let over_copy = median(&adjacent_ratios(&ours, &copies));
    let calls = ours.len() * CALLS;
    let (Some(ns), Some(copy_ns)) = (Summary::of(&mut ours), Summary::of(&mut copies)) else {
        return Err(super::interrupted());
    };
    let speed = bytes as f64 / ns.p50;
    if args.common.json {
        return super::print_json(
            "letterbox",
            json!({
                "size": format!("{width}x{height}"), "input": format!("{input_h}x{input_w}"),
                "ns": ns.json(), "gb_per_s": round(speed), "copy_ns": copy_ns.json(),
                "over_copy": super::numbers::maybe(over_copy), "bytes": bytes, "calls": calls,
            }),
        );
    }
    say(&format!(
        "letterbox {width}x{height} NV12 -> {input_h}x{input_w}: p50 {} ms, min {} ms, {} GB/s; {} times a copy of as many bytes ({} ms)",
        round(ns.p50 / 1e6),
        round(ns.min / 1e6),
        round(speed),
        super::numbers::maybe(over_copy),
        round(copy_ns.p50 / 1e6),
    ))
}

/// Raw heads of one scale.
struct Maps {
    boxes: Vec<f32>,
    classes: Vec<f32>,
    width: usize,
    height: usize,
    stride: usize,
}

impl Maps {
    /// Logits far below any threshold, and flat distances.
    fn empty((height, width): (usize, usize), stride: usize) -> Self {
        let (height, width) = (height / stride, width / stride);
        Self {
            boxes: vec![0.0; 4 * BINS * height * width],
            classes: (0..CLASSES * height * width).map(|i| -9.0 - (i % 7) as f32 * 0.1).collect(),
            width,
            height,
            stride,
        }
    }

    /// An object around a cell, seen by its neighbours too, as trained networks do.
    fn put(&mut self, column: usize, row: usize, class: usize) {
        let cells = self.width * self.height;
        for (y, x) in (0..9).map(|i| (row + i / 3, column + i % 3)) {
            if y >= self.height || x >= self.width {
                continue;
            }
            let cell = y * self.width + x;
            // The middle one is the surest.
            let step = y.abs_diff(row + 1) + x.abs_diff(column + 1);
            self.classes[class * cells + cell] = 2.0 - step as f32 * 0.3;
            // Sides left, top, right, bottom so that all nine boxes are nearly one.
            let (dx, dy) = (x as i32 - column as i32 - 1, y as i32 - row as i32 - 1);
            for (side, bin) in [2 + dx, 2 + dy, 2 - dx, 2 - dy].into_iter().enumerate() {
                self.boxes[(side * BINS + bin.max(0) as usize) * cells + cell] = 12.0;
            }
        }
    }
}

pub(super) fn decode(args: &DecodeArgs, shutdown: &Shutdown) -> Result<(), Failure> {
    let (height, width) = args.input;
    let mut maps: Vec<Maps> =
        STRIDES.iter().map(|&stride| Maps::empty(args.input, stride)).collect();
    let objects = usize::from(args.objects);
    for object in 0..objects {
        // Most objects are small: they are on the finest scale, side by side.
        let per_row = (maps[0].width / 5).max(1);
        maps[0].put(object % per_row * 5, object / per_row * 5, object % CLASSES);
    }
    let scales: Vec<HeadScale<'_>> = maps
        .iter()
        .map(|maps| HeadScale {
            boxes: &maps.boxes,
            classes: &maps.classes,
            width: maps.width,
            height: maps.height,
            stride: maps.stride,
        })
        .collect();
    let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
    let letterbox = Letterbox::new(1920, 1080, width, height);
    let (mut post, mut found, mut candidates) = (Postprocess::default(), Vec::new(), 0);
    let mut run = |_| {
        let output = HeadOutput::new(black_box(&scales), CLASSES, BINS).or_fail(Kind::Bug)?;
        let counts = post.run_heads(output, &thresholds, &letterbox, &mut found);
        candidates = counts.or_fail(Kind::Bug)?.candidates;
        Ok(())
    };
    block(&mut run)?;
    let mut times = Vec::new();
    let end_ns = clock::monotonic_ns() + (args.common.seconds * 1e9) as u64;
    while times.is_empty() || (clock::monotonic_ns() < end_ns && !shutdown.wait(Duration::ZERO)) {
        times.push(block(&mut run)?);
    }
    let calls = times.len() * CALLS;
    let ns = Summary::of(&mut times).ok_or_else(super::interrupted)?;
    let bytes: usize = maps.iter().map(|maps| maps.classes.len() * size_of::<f32>()).sum();
    let speed = bytes as f64 / ns.p50;
    if args.common.json {
        return super::print_json(
            "decode",
            json!({
                "input": format!("{height}x{width}"), "objects": objects, "candidates": candidates,
                "detections": found.len(), "ns": ns.json(), "gb_per_s": round(speed),
                "bytes": bytes, "calls": calls,
            }),
        );
    }
    say(&format!(
        "decode + NMS of {height}x{width} heads, {objects} objects, {candidates} candidates, {} detections: p50 {} ms, min {} ms, {} GB/s of class logits",
        found.len(),
        round(ns.p50 / 1e6),
        round(ns.min / 1e6),
        round(speed),
    ))
}
