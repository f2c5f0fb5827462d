//! No memory is taken per frame once the buffers have their size.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "../benches/data/mod.rs"]
mod data;

use data::{BINS, CLASSES, Heads, Picture, THRESHOLDS};
use framebus_vision::{
    Anchor, DenseOutput, HeadOutput, Layout, Letterbox, Line, Object, Places, Postprocess,
    Resampler, TrackSettings, Tracker, Zone,
};

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

/// A crowd that moves, is hidden in turns, ends and comes anew, over two zones and a line.
#[test]
fn tracking_allocates_at_first_only() {
    let corner = |x: f32| vec![[x, 0.1], [x + 0.4, 0.1], [x + 0.4, 0.9], [x, 0.9]];
    let zone = |x: f32| Zone {
        points: corner(x),
        classes: vec![],
        dwell_ns: 1_000_000,
        anchor: Anchor::Bottom,
    };
    let line = Line { from: [0.5, 0.0], to: [0.5, 1.0], classes: vec![], anchor: Anchor::Bottom };
    let mut places = Places::new(vec![zone(0.1), zone(0.5)], vec![line]).unwrap();
    let mut tracker = Tracker::new(TrackSettings::default());
    let (mut ids, mut bits, mut happened) = (Vec::new(), Vec::new(), Vec::new());
    let (mut objects, mut frame, mut most) = (Vec::with_capacity(100), 0_u16, 0);
    let crowds: Vec<_> =
        (0..100).map(|phase| data::crowd(if phase < 60 { 100 } else { 0 }, phase)).collect();
    // Four seconds: all are there, then none; enough for tracks to end.
    let [first, later] = allocations(|| {
        for _ in 0..100 {
            frame += 1;
            let crowd = &crowds[usize::from(frame % 100)];
            let time_ns = u64::from(frame) * 40_000_000;
            tracker.update(time_ns, crowd, &mut ids);
            objects.clear();
            objects.extend(ids.iter().zip(crowd).map(|(&track, seen)| Object {
                track,
                bbox: seen.bbox,
                class: seen.class,
                score: seen.score,
            }));
            happened.clear();
            let size = (1920, 1080);
            places.update(time_ns, size, &objects, tracker.ended(), &mut bits, &mut happened);
            most = most.max(tracker.len());
        }
    });
    assert!(most >= 90, "{most} tracks");
    assert_eq!(tracker.len(), 0);
    assert!(first > 0 && later == 0, "{first} allocations at first, then {later}");
}
