//! What the pixel and box work of one frame costs on this machine:
//! `cargo bench -p framebus-vision`.
#![allow(clippy::unwrap_used, reason = "a failed step ends the benchmark")]

mod data;

use data::{BINS, CLASSES, Heads, Picture, THRESHOLDS};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use framebus_vision::{
    Anchor, DenseOutput, HeadOutput, Layout, Letterbox, Line, Nms, Object, Observation, Places,
    Postprocess, Region, Resampler, Scene, TrackSettings, Tracker, Zone, scene,
};

fn main() {
    divan::main();
}

/// Width, height of the source and of the network's input.
type Sizes = [usize; 4];

const SIZES: [Sizes; 6] = [
    [1920, 1080, 640, 384],
    [1280, 720, 640, 384],
    [2688, 1520, 640, 384],
    [3840, 2160, 640, 384],
    [1920, 1080, 640, 640],
    [640, 480, 640, 640],
];

fn letterbox(bencher: Bencher<'_, '_>, picture: &Picture, region: Region, dst: [usize; 2]) {
    let view = picture.view().unwrap();
    let mut resampler = Resampler::for_region(&view, region, dst[0], dst[1]).unwrap();
    let mut out = vec![0.0; resampler.output_len()];
    let bytes = BytesCount::of_many::<f32>(out.len());
    bencher
        .counter(bytes)
        .bench_local(|| resampler.run(black_box(&view), black_box(&mut out)).unwrap());
}

#[divan::bench(args = SIZES)]
fn letterbox_nv12(bencher: Bencher<'_, '_>, [w, h, dst_w, dst_h]: Sizes) {
    let whole = Region { x: 0, y: 0, width: w, height: h };
    letterbox(bencher, &Picture::new(w, h, false), whole, [dst_w, dst_h]);
}

#[divan::bench]
fn letterbox_nv12_region(bencher: Bencher<'_, '_>) {
    let region = Region { x: 400, y: 200, width: 960, height: 540 };
    letterbox(bencher, &Picture::new(1920, 1080, false), region, [640, 384]);
}

#[divan::bench]
fn letterbox_rgb24(bencher: Bencher<'_, '_>) {
    let whole = Region { x: 0, y: 0, width: 1920, height: 1080 };
    letterbox(bencher, &Picture::new(1920, 1080, true), whole, [640, 384]);
}

/// The floor: as many bytes as a 1080p letterbox to 640x384 reads and writes.
#[divan::bench]
fn letterbox_floor_memcpy(bencher: Bencher<'_, '_>) {
    let from = vec![1_u8; (1920 * (360 + 540) + 4 * 3 * 640 * 384) / 2];
    let mut to = vec![0_u8; from.len()];
    bencher.bench_local(|| black_box(&mut to).copy_from_slice(black_box(&from)));
}

#[divan::bench]
fn decode_heads(bencher: Bencher<'_, '_>) {
    let heads = Heads::new(640, 384);
    let scales = heads.scales();
    let letterbox = Letterbox::new(1920, 1080, 640, 384);
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    bencher.bench_local(|| {
        let output = HeadOutput::new(black_box(&scales), CLASSES, BINS).unwrap();
        post.run_heads(output, &THRESHOLDS, &letterbox, &mut found).unwrap()
    });
}

#[divan::bench]
fn decode_dense(bencher: Bencher<'_, '_>) {
    let data = data::dense(5040);
    let letterbox = Letterbox::new(1920, 1080, 640, 384);
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    bencher.bench_local(|| {
        let output = DenseOutput::new(black_box(&data), Layout::ChannelsFirst, CLASSES, 5040);
        post.run(output.unwrap(), &THRESHOLDS, &letterbox, &mut found).unwrap()
    });
}

#[divan::bench]
fn nms(bencher: Bencher<'_, '_>) {
    let candidates = data::candidates();
    let mut nms = Nms::default();
    bencher.bench_local(|| nms.run(black_box(&candidates), 0.7, 300).0.len());
}

/// Capture looks at luma five times a second.
#[divan::bench(args = [[1920, 1080], [3840, 2160]])]
fn picture_faults(bencher: Bencher<'_, '_>, [w, h]: [usize; 2]) {
    let luma: Vec<u8> = (0..w * h).map(|i| (i * i / 977) as u8).collect();
    let mut scene = Scene::new(w, h, 0.6);
    bencher.bench_local(|| scene.look(black_box(&luma), w, 0.2).unwrap());
}

/// ... and at chroma in every frame.
#[divan::bench]
fn missing_data(bencher: Bencher<'_, '_>) {
    let chroma = vec![128; 1920 * 540];
    bencher.bench_local(|| scene::missing(black_box(&chroma), 1920, 1920, 1080).unwrap());
}

/// One frame of a crowd that walks on.
#[divan::bench(args = [1, 10, 50, 300])]
fn track(bencher: Bencher<'_, '_>, count: usize) {
    let crowds: Vec<_> = (0..25).map(|step| data::crowd(count, step)).collect();
    let (mut tracker, mut ids) = (Tracker::new(TrackSettings::default()), Vec::new());
    let mut frame = 0_usize;
    bencher.bench_local(|| {
        frame += 1;
        tracker.update(frame as u64 * 40_000_000, black_box(&crowds[frame % 25]), &mut ids);
        ids.len()
    });
}

/// The worst case: all boxes overlap all others, so that pairs are searched among all.
#[divan::bench(args = [10, 50, 300])]
fn track_heap(bencher: Bencher<'_, '_>, count: usize) {
    let heap: Vec<Observation> = data::crowd(count, 0)
        .into_iter()
        .zip(0_u16..)
        .map(|(seen, index)| {
            let x = 0.2 * f32::from(index);
            Observation { bbox: [x, x, x + 300.0, x + 300.0], ..seen }
        })
        .collect();
    let (mut tracker, mut ids) = (Tracker::new(TrackSettings::default()), Vec::new());
    let mut frame = 0_u64;
    bencher.bench_local(|| {
        frame += 1;
        tracker.update(frame * 40_000_000, black_box(&heap), &mut ids);
        ids.len()
    });
}

/// So many objects among 16 zones of eight corners and four lines.
#[divan::bench(args = [1, 10, 50, 300])]
fn places(bencher: Bencher<'_, '_>, count: usize) {
    let zone = |index: u16| {
        let (x, y) = (f32::from(index % 4) / 4.0, f32::from(index / 4) / 4.0);
        let corner = |turn: u16| {
            let angle = f32::from(turn) * std::f32::consts::TAU / 8.0;
            [x + 0.125 + 0.2 * angle.cos(), y + 0.125 + 0.2 * angle.sin()]
        };
        let points = (0..8).map(corner).collect();
        Zone { points, classes: vec![], dwell_ns: 1_000_000_000, anchor: Anchor::Bottom }
    };
    let line = |index: u16| {
        let x = f32::from(index + 1) / 5.0;
        Line { from: [x, 0.0], to: [x, 1.0], classes: vec![], anchor: Anchor::Bottom }
    };
    let (zones, lines) = ((0..16).map(zone).collect(), (0..4).map(line).collect());
    let mut places = Places::new(zones, lines).unwrap();
    let crowds: Vec<Vec<Object>> = (0..25)
        .map(|step| {
            let crowd = data::crowd(count, step).into_iter().zip(1..);
            crowd
                .map(|(Observation { bbox, score, class }, track)| Object {
                    track,
                    bbox,
                    class,
                    score,
                })
                .collect()
        })
        .collect();
    let (mut bits, mut happened, mut frame) = (Vec::new(), Vec::new(), 0_usize);
    bencher.bench_local(|| {
        frame += 1;
        happened.clear();
        let (time_ns, objects) = (frame as u64 * 40_000_000, &crowds[frame % 25]);
        let size = (1920, 1080);
        places.update(time_ns, size, black_box(objects), &[], &mut bits, &mut happened);
        bits.len()
    });
}
