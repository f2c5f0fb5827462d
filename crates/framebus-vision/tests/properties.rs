//! What must hold for any geometry and any set of boxes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use framebus_vision::{
    Candidate, Decoder, DenseOutput, FrameView, Layout, Letterbox, Nms, Planes, Postprocess,
    Resampler, Thresholds, iou,
};
use proptest::prelude::*;

fn candidates(max: usize) -> impl Strategy<Value = Vec<Candidate>> {
    // Few scores and a small field, so that ties and overlaps are common.
    let one = (0.0..60f32, 0.0..60f32, 1.0..30f32, 1.0..30f32, 1..20u32, 0..3u32);
    prop::collection::vec(one, 0..max).prop_map(|all| {
        all.into_iter()
            .map(|(x, y, w, h, score, class)| Candidate {
                bbox: [x, y, x + w, y + h],
                score: score as f32 / 20.0,
                class,
            })
            .collect()
    })
}

/// NMS as its definition reads: walk by score, keep what no kept one beats.
fn plain_nms(all: &[Candidate], threshold: f32) -> Vec<u32> {
    let mut left: Vec<usize> = (0..all.len()).collect();
    left.sort_by(|&a, &b| all[b].score.partial_cmp(&all[a].score).unwrap());
    let mut kept: Vec<usize> = vec![];
    for i in left {
        let beaten = kept
            .iter()
            .any(|&k| all[k].class == all[i].class && iou(all[k].bbox, all[i].bbox) > threshold);
        if !beaten {
            kept.push(i);
        }
    }
    kept.into_iter().map(|i| i as u32).collect()
}

/// One dense output, anchor by anchor: 4 box values, then `classes` scores.
fn anchors() -> impl Strategy<Value = (usize, Vec<Vec<f32>>)> {
    (1..6usize, 0..700usize).prop_flat_map(|(classes, count)| {
        let anchor =
            (prop::collection::vec(1.0..600f32, 4), prop::collection::vec(0.0..1f32, classes))
                .prop_map(|(bbox, scores)| [bbox, scores].concat());
        (Just(classes), prop::collection::vec(anchor, count))
    })
}

fn decode(data: &[f32], layout: Layout, classes: usize, anchors: usize) -> Vec<Candidate> {
    let mut out = vec![];
    let output = DenseOutput::new(data, layout, classes, anchors).unwrap();
    Decoder::default().run(output, 0.5, None, &mut out);
    out
}

proptest! {
    #[test]
    fn picture_lies_inside_and_touches_two_sides(
        src in [1..5000usize, 1..5000usize], dst in [1..2000usize, 1..2000usize],
    ) {
        let l = Letterbox::new(src[0], src[1], dst[0], dst[1]);
        prop_assert!(l.left() + l.resized_width() <= dst[0]);
        prop_assert!(l.top() + l.resized_height() <= dst[1]);
        prop_assert!(l.resized_width() == dst[0] || l.resized_height() == dst[1]);
        // Centred: the odd pixel goes right or down.
        let right = dst[0] - l.left() - l.resized_width();
        let bottom = dst[1] - l.top() - l.resized_height();
        prop_assert!(right - l.left() <= 1 && bottom - l.top() <= 1);
    }

    #[test]
    fn boxes_survive_the_round_trip(
        src in [1..5000usize, 1..5000usize], dst in [32..2000usize, 32..2000usize],
        corners in [0.0..=1f32, 0.0..=1f32, 0.0..=1f32, 0.0..=1f32],
    ) {
        let l = Letterbox::new(src[0], src[1], dst[0], dst[1]);
        let bbox: [f32; 4] = std::array::from_fn(|i| corners[i] * src[i % 2] as f32);
        let network = l.to_network(bbox);
        for (i, &value) in network.iter().enumerate() {
            prop_assert!((0.0..=dst[i % 2] as f32 * 1.000_001).contains(&value));
        }
        for ((have, want), step) in l.to_source(network).into_iter().zip(bbox).zip([0, 1, 0, 1]) {
            // f32 in network pixels carries 1e-7 of the field, magnified by the scale.
            let resized = [l.resized_width(), l.resized_height()][step];
            let slack = 1e-3 + 1e-6 * (dst[step] * src[step]) as f32 / resized as f32;
            prop_assert!((have - want).abs() <= slack, "{have} for {want}");
        }
    }

    #[test]
    fn mapped_boxes_lie_in_the_picture(
        src in [1..5000usize, 1..5000usize], dst in [1..2000usize, 1..2000usize],
        bbox in [-1e4..1e4f32, -1e4..1e4f32, -1e4..1e4f32, -1e4..1e4f32],
    ) {
        let l = Letterbox::new(src[0], src[1], dst[0], dst[1]);
        for (i, value) in l.to_source(bbox).into_iter().enumerate() {
            prop_assert!((0.0..=src[i % 2] as f32).contains(&value));
        }
    }

    #[test]
    fn every_output_value_is_written_and_a_fraction(
        size in [1..70usize, 1..70usize], dst in [1..90usize, 1..90usize], extra in 0..9usize,
        seed in any::<u8>(),
    ) {
        let [w, h] = size;
        let stride = 2 * w.div_ceil(2) + extra;
        let byte = |i: usize| (i as u8).wrapping_mul(167).wrapping_add(seed);
        let y: Vec<u8> = (0..stride * h).map(byte).collect();
        let uv: Vec<u8> = (0..stride * h.div_ceil(2)).map(|i| byte(i + 7)).collect();
        let planes = Planes::Nv12 { y: &y, y_stride: stride, uv: &uv, uv_stride: stride };
        let view = FrameView::new(w, h, planes, Default::default()).unwrap();
        let mut resampler = Resampler::new(&view, dst[0], dst[1]).unwrap();
        let mut out = vec![f32::NAN; resampler.output_len()];
        resampler.run(&view, &mut out).unwrap();
        prop_assert!(out.iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn nms_equals_its_definition(all in candidates(80), threshold in 0.05..0.95f32) {
        let mut nms = Nms::default();
        let (kept, counts) = nms.run(&all, threshold, usize::MAX);
        prop_assert_eq!(kept, plain_nms(&all, threshold));
        prop_assert_eq!(counts.truncated, 0);
    }

    #[test]
    fn nms_leaves_no_overlap_and_loses_nobody_alone(
        all in candidates(80), threshold in 0.05..0.95f32, max in 0..40usize,
    ) {
        let mut nms = Nms::default();
        let (kept, counts) = nms.run(&all, threshold, max);
        prop_assert!(kept.len() <= max);
        let boxes: Vec<Candidate> = kept.iter().map(|&i| all[i as usize]).collect();
        prop_assert!(boxes.windows(2).all(|pair| pair[0].score >= pair[1].score));
        for (i, a) in boxes.iter().enumerate() {
            for b in &boxes[..i] {
                prop_assert!(a.class != b.class || iou(a.bbox, b.bbox) <= threshold);
            }
        }
        if counts.truncated == 0 {
            for c in &all {
                let has_rival = |k: &Candidate| {
                    k.class == c.class && k.score >= c.score && iou(k.bbox, c.bbox) > threshold
                };
                prop_assert!(boxes.contains(c) || boxes.iter().any(has_rival));
            }
        }
    }

    #[test]
    fn decode_does_not_depend_on_layout_or_order((classes, anchors) in anchors(), turn in 0..700usize) {
        let count = anchors.len();
        let rows = anchors.concat();
        let columns: Vec<f32> =
            (0..4 + classes).flat_map(|c| anchors.iter().map(move |a| a[c])).collect();
        let by_rows = decode(&rows, Layout::AnchorsFirst, classes, count);
        prop_assert_eq!(&by_rows, &decode(&columns, Layout::ChannelsFirst, classes, count));
        // Against the definition.
        let strong = anchors.iter().filter(|a| a[4..].iter().any(|&s| s > 0.5)).count();
        prop_assert_eq!(by_rows.len(), strong);

        let mut turned = anchors.clone();
        turned.rotate_left(turn % count.max(1));
        let mut turned = decode(&turned.concat(), Layout::AnchorsFirst, classes, count);
        let mut straight = by_rows;
        for list in [&mut turned, &mut straight] {
            list.sort_by(|a, b| a.bbox.partial_cmp(&b.bbox).unwrap());
        }
        prop_assert_eq!(turned, straight);
    }

    #[test]
    fn any_bits_are_decoded_without_panic_into_finite_boxes(
        bits in prop::collection::vec(any::<u32>(), 6 * 9), layout in 0..3usize,
    ) {
        let data: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let layout = [Layout::ChannelsFirst, Layout::AnchorsFirst, Layout::EndToEnd][layout];
        let output = DenseOutput::new(&data, layout, 2, 9).unwrap();
        let thresholds =
            Thresholds { confidence: 0.0, iou: 0.5, max_detections: 5, classes: None };
        let mut found = vec![];
        let counts = Postprocess::default()
            .run(output, &thresholds, &Letterbox::new(50, 40, 64, 64), &mut found)
            .unwrap();
        let broken = data.iter().filter(|v| !v.is_finite()).count();
        prop_assert_eq!(counts.non_finite as usize, broken);
        prop_assert!(found.len() <= 5);
        for d in found {
            prop_assert!(d.score.is_finite() && d.score > 0.0 && d.class < 2);
            prop_assert!(d.bbox[0] < d.bbox[2] && d.bbox[1] < d.bbox[3]);
            prop_assert!(d.bbox[0] >= 0.0 && d.bbox[2] <= 50.0);
            prop_assert!(d.bbox[1] >= 0.0 && d.bbox[3] <= 40.0);
        }
    }
}
