//! No memory is taken per frame once the buffers have their size.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "../benches/data/mod.rs"]
mod data;

use data::{BINS, CLASSES, Heads, Picture, THRESHOLDS};
use framebus_vision::{DenseOutput, HeadOutput, Layout, Letterbox, Postprocess, Resampler};

/// Allocations of one call after two that warm up; of the very first one too, so
/// that a counter that counts nothing is noticed.
fn allocations(mut call: impl FnMut()) -> [u64; 2] {
    let first = allocation_counter::measure(&mut call).count_total;
    call();
    [first, allocation_counter::measure(&mut call).count_total]
}

#[test]
fn letterbox_never_allocates() {
    for rgb in [false, true] {
        let picture = Picture::new(320, 180, rgb);
        let view = picture.view().unwrap();
        let mut resampler = None;
        let build = allocation_counter::measure(|| {
            resampler = Some(Resampler::new(&view, 160, 96).unwrap());
        });
        assert!(build.count_total > 0, "tables are allocated");
        let mut resampler = resampler.unwrap();
        let mut out = vec![0.0; resampler.output_len()];
        assert_eq!(allocations(|| resampler.run(&view, &mut out).unwrap()), [0, 0]);
    }
}

#[test]
fn decode_allocates_at_first_only() {
    let letterbox = Letterbox::new(1920, 1080, 640, 384);
    let heads = Heads::new(640, 384);
    let scales = heads.scales();
    let (mut post, mut found) = (Postprocess::default(), Vec::new());
    let [first, later] = allocations(|| {
        let output = HeadOutput::new(&scales, CLASSES, BINS).unwrap();
        post.run_heads(output, &THRESHOLDS, &letterbox, &mut found).unwrap();
    });
    assert_eq!(found.len(), data::OBJECTS);
    assert!(first > 0 && later == 0, "{first} allocations at first, then {later}");

    let dense = data::dense(5040);
    let mut post = Postprocess::default();
    let [first, later] = allocations(|| {
        let output = DenseOutput::new(&dense, Layout::ChannelsFirst, CLASSES, 5040).unwrap();
        post.run(output, &THRESHOLDS, &letterbox, &mut found).unwrap();
    });
    assert_eq!(found.len(), data::OBJECTS);
    assert!(first > 0 && later == 0, "{first} allocations at first, then {later}");
}
