//! Runs one hot function a fixed number of times, for `scripts/instructions.sh`:
//! `hot_path` alone lists the names, `hot_path NAME ROUNDS` runs one.
#![allow(clippy::print_stdout, reason = "it prints the names")]

#[path = "../benches/data/mod.rs"]
mod data;

use data::{BINS, CLASSES, Heads, Picture, THRESHOLDS};
use framebus_vision::{
    DenseOutput, HeadOutput, Layout, Letterbox, Nms, Postprocess, Region, Resampler,
};
use std::error::Error;
use std::hint::black_box;

/// A function to run: its set-up is done when it is called.
type Hot = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

/// The name that the counter of instructions is switched by: what happens outside
/// of it, the set-up and the first call, does not count.
#[inline(never)]
fn hot_path_measured(hot: &mut Hot) -> Result<(), Box<dyn Error>> {
    hot()
}

fn letterbox(
    [width, height]: [usize; 2],
    rgb: bool,
    region: Option<Region>,
    [dst_w, dst_h]: [usize; 2],
) -> Result<Hot, Box<dyn Error>> {
    let picture = Picture::new(width, height, rgb);
    let region = region.unwrap_or(Region { x: 0, y: 0, width, height });
    let mut resampler = Resampler::for_region(&picture.view()?, region, dst_w, dst_h)?;
    let mut out = vec![0.0; resampler.output_len()];
    Ok(Box::new(move || {
        resampler.run(black_box(&picture.view()?), black_box(&mut out))?;
        Ok(())
    }))
}

fn decode_heads() -> Hot {
    let heads = Heads::new(640, 384);
    let letterbox = Letterbox::new(1920, 1080, 640, 384);
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    Box::new(move || {
        let scales = heads.scales();
        let output = HeadOutput::new(black_box(&scales), CLASSES, BINS)?;
        black_box(post.run_heads(output, &THRESHOLDS, &letterbox, &mut found)?);
        Ok(())
    })
}

fn decode_dense() -> Hot {
    let anchors = 5040;
    let data = data::dense(anchors);
    let letterbox = Letterbox::new(1920, 1080, 640, 384);
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    Box::new(move || {
        let output = DenseOutput::new(black_box(&data), Layout::ChannelsFirst, CLASSES, anchors)?;
        black_box(post.run(output, &THRESHOLDS, &letterbox, &mut found)?);
        Ok(())
    })
}

fn nms() -> Hot {
    let candidates = data::candidates();
    let mut nms = Nms::default();
    Box::new(move || {
        black_box(nms.run(black_box(&candidates), 0.7, 300).0.len());
        Ok(())
    })
}

const NAMES: [&str; 8] = [
    "letterbox_1080p_640x384",
    "letterbox_720p_640x384",
    "letterbox_2160p_640x384",
    "letterbox_1080p_region_640x384",
    "letterbox_rgb_1080p_640x384",
    "decode_heads_640x384",
    "decode_dense_640x384",
    "nms_500_candidates",
];

fn hot(name: &str) -> Result<Hot, Box<dyn Error>> {
    let region = Region { x: 400, y: 200, width: 960, height: 540 };
    let dst = [640, 384];
    Ok(match name {
        "letterbox_1080p_640x384" => letterbox([1920, 1080], false, None, dst)?,
        "letterbox_720p_640x384" => letterbox([1280, 720], false, None, dst)?,
        "letterbox_2160p_640x384" => letterbox([3840, 2160], false, None, dst)?,
        "letterbox_1080p_region_640x384" => letterbox([1920, 1080], false, Some(region), dst)?,
        "letterbox_rgb_1080p_640x384" => letterbox([1920, 1080], true, None, dst)?,
        "decode_heads_640x384" => decode_heads(),
        "decode_dense_640x384" => decode_dense(),
        "nms_500_candidates" => nms(),
        _ => return Err(format!("`{name}` is none of {NAMES:?}").into()),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        for name in NAMES {
            println!("{name}");
        }
        return Ok(());
    };
    let rounds: usize = arguments.next().unwrap_or_else(|| "1".to_owned()).parse()?;
    let mut hot = hot(&name)?;
    // Buffers grow to their size.
    hot()?;
    for _ in 0..rounds {
        hot_path_measured(&mut hot)?;
    }
    Ok(())
}
