//! Prints what the pixel and box work of one frame costs on this machine:
//! `cargo run --release -p framebus-vision --example letterbox_ms`.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures without a process clock"
)]

use framebus_vision::{
    Colour, DenseOutput, FrameView, Layout, Planes, Postprocess, Resampler, Thresholds,
};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 200;

/// Minimum and median of `ROUNDS` calls, in milliseconds.
fn measure(
    what: &str,
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{what:<44} min {:.3} ms, median {:.3} ms", times[0], times[ROUNDS / 2]);
    Ok(())
}

fn letterbox(rgb: bool, dst_w: usize, dst_h: usize) -> Result<(), Box<dyn Error>> {
    let (width, height) = (1920, 1080);
    let bytes: Vec<u8> = (0..width * height * 3).map(|i| ((i * 167) >> 3) as u8).collect();
    let (y, uv) = bytes.split_at(width * height);
    let planes = if rgb {
        Planes::Rgb24 { data: &bytes, stride: 3 * width }
    } else {
        Planes::Nv12 { y, y_stride: width, uv, uv_stride: width }
    };
    let frame = FrameView::new(width, height, planes, Colour::default())?;
    let mut resampler = Resampler::new(&frame, dst_w, dst_h)?;
    let mut out = vec![0.0; resampler.output_len()];
    let format = if rgb { "RGB24" } else { "NV12" };
    measure(&format!("letterbox {width}x{height} {format} -> {dst_w}x{dst_h}"), || {
        resampler.run(black_box(&frame), black_box(&mut out))?;
        Ok(())
    })
}

/// 8400 anchors of 80 classes, of which 500 on 50 objects pass the threshold.
fn boxes() -> Result<(), Box<dyn Error>> {
    let (classes, anchors) = (80, 8400);
    let mut data = vec![0.01; (4 + classes) * anchors];
    for candidate in 0..500 {
        let (anchor, object) = (candidate * 16, candidate % 50);
        let jitter = (candidate / 50) as f32;
        let values = [
            60.0 * (object % 10) as f32 + 30.0 + jitter,
            100.0 * (object / 10) as f32 + 50.0,
            40.0,
            80.0,
        ];
        for (channel, value) in values.into_iter().enumerate() {
            data[channel * anchors + anchor] = value;
        }
        data[(4 + object) * anchors + anchor] = 0.9 - 0.01 * jitter;
    }
    let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
    let letterbox = framebus_vision::Letterbox::new(1920, 1080, 640, 640);
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    measure("decode + NMS, 8400 anchors, 80 classes", || {
        let output = DenseOutput::new(black_box(&data), Layout::ChannelsFirst, classes, anchors)?;
        post.run(output, &thresholds, &letterbox, &mut found)?;
        Ok(())
    })?;
    println!("{:<44} {}", "objects found", found.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    letterbox(false, 640, 640)?;
    letterbox(false, 640, 384)?;
    letterbox(true, 640, 640)?;
    boxes()
}
