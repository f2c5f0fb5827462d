//! Decode of a cut head against the tail of the whole network, computed in f64
//! for every cell and read as a dense output.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use framebus_vision::{
    Counts, DecodeError, DenseOutput, Detection, HeadOutput, HeadScale, Layout, Letterbox,
    Postprocess, Thresholds,
};
use proptest::prelude::*;

const DEFAULT: Thresholds<'_> =
    Thresholds { confidence: 0.25, iou: 0.5, max_detections: 300, classes: None };

/// Scales of one output, finest first.
#[derive(Debug, Clone)]
struct Head {
    classes: usize,
    bins: usize,
    maps: Vec<Map>,
}

#[derive(Debug, Clone)]
struct Map {
    boxes: Vec<f32>,
    classes: Vec<f32>,
    size: [usize; 2],
    stride: usize,
}

impl Head {
    /// For a network input of `columns` · 32 by `rows` · 32 pixels, filled by
    /// `value(is a box value)`.
    fn new(
        [columns, rows]: [usize; 2],
        classes: usize,
        bins: usize,
        mut value: impl FnMut(bool) -> f32,
    ) -> Self {
        let maps = [8, 16, 32].map(|stride| {
            let size = [columns * 32 / stride, rows * 32 / stride];
            let cells = size[0] * size[1];
            Map {
                boxes: (0..4 * bins * cells).map(|_| value(true)).collect(),
                classes: (0..classes * cells).map(|_| value(false)).collect(),
                size,
                stride,
            }
        });
        Self { classes, bins, maps: maps.into() }
    }

    fn scales(&self) -> Vec<HeadScale<'_>> {
        self.maps
            .iter()
            .map(|map| HeadScale {
                boxes: &map.boxes,
                classes: &map.classes,
                width: map.size[0],
                height: map.size[1],
                stride: map.stride,
            })
            .collect()
    }

    /// What the exported graph answers: `[anchors, 4 + classes]`.
    fn tail(&self) -> Vec<f32> {
        let mut out = vec![];
        for map in &self.maps {
            let cells = map.size[0] * map.size[1];
            for cell in 0..cells {
                let distance = |side: usize| {
                    let at = |bin| f64::from(map.boxes[(side * self.bins + bin) * cells + cell]);
                    if self.bins == 1 {
                        return at(0);
                    }
                    let weights = || (0..self.bins).map(|bin| at(bin).exp());
                    let moment: f64 = weights().enumerate().map(|(bin, w)| w * bin as f64).sum();
                    moment / weights().sum::<f64>()
                };
                let x = (cell % map.size[0]) as f64 + 0.5;
                let y = (cell / map.size[0]) as f64 + 0.5;
                let [left, top, right, bottom] = [0, 1, 2, 3].map(distance);
                let stride = map.stride as f64;
                let bbox = [
                    (x + (right - left) / 2.0) * stride,
                    (y + (bottom - top) / 2.0) * stride,
                    (left + right) * stride,
                    (top + bottom) * stride,
                ];
                out.extend(bbox.map(|v| v as f32));
                out.extend((0..self.classes).map(|class| {
                    let logit = f64::from(map.classes[class * cells + cell]);
                    (1.0 / (1.0 + (-logit).exp())) as f32
                }));
            }
        }
        out
    }

    fn decode(
        &self,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
    ) -> (Vec<Detection>, Counts) {
        let scales = self.scales();
        let output = HeadOutput::new(&scales, self.classes, self.bins).unwrap();
        let mut found = vec![Detection::default()];
        let counts =
            Postprocess::default().run_heads(output, thresholds, letterbox, &mut found).unwrap();
        (found, counts)
    }

    fn decode_whole(
        &self,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
    ) -> (Vec<Detection>, Counts) {
        let tail = self.tail();
        let anchors = tail.len() / (4 + self.classes);
        let output = DenseOutput::new(&tail, Layout::AnchorsFirst, self.classes, anchors).unwrap();
        let mut found = vec![];
        let counts = Postprocess::default().run(output, thresholds, letterbox, &mut found).unwrap();
        (found, counts)
    }
}

/// A head whose cells all say "nothing": 1 class, 2 bins, 84 cells.
fn silent(classes: usize, bins: usize) -> Head {
    Head::new([2, 2], classes, bins, |is_box| if is_box { 1.0 } else { -9.0 })
}

fn letterbox() -> Letterbox {
    Letterbox::new(64, 64, 64, 64)
}

#[test]
fn one_cell_by_hand() {
    let mut head = silent(2, 4);
    // The middle scale: 4x4 cells of 16 pixels; cell 6 is column 2, row 1.
    let map = &mut head.maps[1];
    map.classes[16 + 6] = 0.0;
    for (side, bin) in [1, 0, 1, 2].into_iter().enumerate() {
        map.boxes[(side * 4 + bin) * 16 + 6] = 60.0;
    }
    let (found, counts) = head.decode(&DEFAULT, &letterbox());
    // Centre (40, 24), distances 16, 0, 16, 32.
    assert_eq!(found, [Detection { bbox: [24.0, 24.0, 56.0, 56.0], score: 0.5, class: 1 }]);
    assert_eq!(counts, Counts { candidates: 1, ..Counts::default() });
}

#[test]
fn one_bin_is_the_distance_itself() {
    let mut head = silent(1, 1);
    head.maps[2].classes[3] = 2.0;
    for (side, distance) in [0.5, 0.25, 0.125, 0.5].into_iter().enumerate() {
        head.maps[2].boxes[side * 4 + 3] = distance;
    }
    let (found, _) = head.decode(&DEFAULT, &letterbox());
    // Centre (48, 48), cells of 32 pixels.
    assert_eq!(found[0].bbox, [32.0, 40.0, 52.0, 64.0]);
    assert!((found[0].score - 0.880_797).abs() < 1e-6);
}

#[test]
fn the_lowest_class_wins_among_equals_and_the_filter_looks_at_it_alone() {
    let mut head = silent(7, 16);
    for class in [2, 5] {
        head.maps[0].classes[class * 64 + 9] = 3.0;
    }
    let classes = |filter| {
        let thresholds = Thresholds { classes: filter, ..DEFAULT };
        head.decode(&thresholds, &letterbox()).0.iter().map(|d| d.class).collect::<Vec<_>>()
    };
    assert_eq!(classes(None), [2]);
    assert_eq!(classes(Some(&[1, 2])), [2]);
    assert_eq!(classes(Some(&[5])), []);
}

#[test]
fn scores_must_be_over_the_threshold() {
    // 0.5 is sigmoid(0) exactly.
    for (logit, confidence, expected) in [
        (0.0, 0.5, 0),
        (1e-6, 0.5, 1),
        (0.0, 0.499_999_97, 1),
        (40.0, 1.0, 0),
        (f32::MAX, 1.0, 0),
        (f32::MAX, 0.999_999_94, 1),
        (-8.0, 0.0, 1),
        // Its sigmoid is 0 in f32.
        (-200.0, 0.0, 0),
    ] {
        let mut head = Head::new([1, 1], 1, 16, |is_box| if is_box { 1.0 } else { -300.0 });
        head.maps[0].classes[5] = logit;
        let thresholds = Thresholds { confidence, ..DEFAULT };
        let (_, counts) = head.decode(&thresholds, &Letterbox::new(32, 32, 32, 32));
        assert_eq!(counts.candidates, expected, "logit {logit}, threshold {confidence}");
    }
}

#[test]
fn what_is_no_number_is_counted_and_never_emitted() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for class in 0..5 {
            let mut head = silent(5, 16);
            head.maps[0].classes[3 * 64 + 7] = 2.0;
            head.maps[1].classes[3 * 16 + 7] = 2.0;
            head.maps[0].classes[class * 64 + 7] = bad;
            let (found, counts) = head.decode(&DEFAULT, &letterbox());
            assert_eq!((found.len(), counts.non_finite), (1, 1), "{bad} in class {class}");
        }
        for channel in 0..64 {
            let mut head = silent(1, 16);
            head.maps[0].classes[7] = 2.0;
            head.maps[0].classes[40] = 2.0;
            head.maps[0].boxes[channel * 64 + 7] = bad;
            let (found, counts) = head.decode(&DEFAULT, &letterbox());
            assert_eq!((found.len(), counts.non_finite), (1, 1), "{bad} in channel {channel}");
            // Nobody reads the box of a cell under the threshold.
            head.maps[0].classes[7] = -9.0;
            assert_eq!(head.decode(&DEFAULT, &letterbox()).1.non_finite, 0);
        }
    }
}

#[test]
fn huge_numbers_are_numbers() {
    let mut head = silent(4, 16);
    for class in 0..4 {
        head.maps[0].classes[class * 64 + 7] = f32::MAX;
    }
    for channel in 0..64 {
        head.maps[0].boxes[channel * 64 + 7] = f32::MAX;
    }
    let (found, counts) = head.decode(&DEFAULT, &letterbox());
    assert_eq!((found.len(), counts.non_finite), (1, 0));
    // Equal logits: the middle of 0..=15. Centre (60, 4).
    assert_eq!(found[0].bbox, [0.0, 0.0, 64.0, 64.0]);
    assert_eq!((found[0].score, found[0].class), (1.0, 0));
}

#[test]
fn more_cells_than_a_block_and_a_group() {
    // 96x64 cells of 8 pixels: 12 blocks; every 37th cell answers.
    let mut head = Head::new([24, 16], 3, 16, |is_box| if is_box { 0.0 } else { -9.0 });
    for cell in (0..6144).step_by(37) {
        head.maps[0].classes[cell % 3 * 6144 + cell] = 1.0 + cell as f32 * 1e-4;
    }
    let letterbox = Letterbox::new(768, 512, 768, 512);
    let thresholds = Thresholds { iou: 1.0, ..DEFAULT };
    let (found, counts) = head.decode(&thresholds, &letterbox);
    assert_eq!(counts.candidates, 167);
    assert_eq!(found.len(), 167);
    assert_same(&found, &head.decode_whole(&thresholds, &letterbox).0);
}

#[test]
fn shapes_must_fit() {
    let values = [0.0; 64];
    let scale =
        HeadScale { boxes: &values[..32], classes: &values[..8], width: 2, height: 2, stride: 8 };
    let head = [scale];
    assert!(HeadOutput::new(&head, 2, 2).is_ok());
    assert_eq!(HeadOutput::new(&head, 0, 2).unwrap_err(), DecodeError::NoClasses);
    assert_eq!(HeadOutput::new(&head, 2, 0).unwrap_err(), DecodeError::NoBins);
    assert_eq!(HeadOutput::new(&[], 2, 2).unwrap_err(), DecodeError::NoScales);
    let error = HeadOutput::new(&head, 2, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "box output of scale 0 has 32 values, which do not fill 12x2x2: check the model's output \
         shapes"
    );
    let two = [scale, HeadScale { width: 4, ..scale }];
    assert!(matches!(
        HeadOutput::new(&two, 2, 2),
        Err(DecodeError::ScaleLength { scale: 1, what: "box", have: 32, .. })
    ));
    assert!(matches!(
        HeadOutput::new(&head, 3, 2),
        Err(DecodeError::ScaleLength { scale: 0, what: "class", channels: 3, .. })
    ));
    let absurd = [HeadScale { width: usize::MAX, height: usize::MAX, ..scale }];
    assert!(HeadOutput::new(&absurd, usize::MAX, usize::MAX).is_err());
    let empty = [HeadScale { boxes: &[], classes: &[], width: 0, height: 7, stride: 8 }];
    let output = HeadOutput::new(&empty, 2, 16).unwrap();
    let mut found = vec![Detection::default()];
    let counts = Postprocess::default().run_heads(output, &DEFAULT, &letterbox(), &mut found);
    assert_eq!((found.len(), counts.unwrap()), (0, Counts::default()));

    let wrong = Thresholds { confidence: f32::NAN, ..DEFAULT };
    let answer = Postprocess::default().run_heads(output, &wrong, &letterbox(), &mut found);
    assert!(matches!(answer, Err(DecodeError::Threshold { name: "confidence", .. })));
}

fn assert_same(have: &[Detection], want: &[Detection]) {
    assert_eq!(have.len(), want.len());
    for (have, want) in have.iter().zip(want) {
        assert_eq!(have.class, want.class);
        assert!((have.score - want.score).abs() < 1e-6, "{have:?}, not {want:?}");
        for (a, b) in have.bbox.iter().zip(want.bbox) {
            assert!((a - b).abs() < 2e-3, "{have:?}, not {want:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn equals_the_whole_network(
        size in [1..9usize, 1..5usize], classes in 1..12usize, bins in 1..20usize,
        seed in any::<u64>(), confidence in 0.0..1.0f32, keep in 0..4u32,
    ) {
        let mut state = seed;
        let mut unit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        // Distances themselves must leave a box; logits may be anything. Few steps
        // of the class logits: ties between classes are common.
        let head = Head::new(size, classes, bins, |is_box| match (is_box, bins) {
            (true, 1) => 0.1 + 4.0 * unit(),
            (true, _) => 12.0 * unit() - 6.0,
            (false, _) => (60.0 * unit()).round() / 8.0 - 5.0,
        });
        let filter = [0, 1, 2];
        let classes = (keep > 0).then(|| &filter[..keep as usize]);
        // No suppression: a rounding of its threshold may turn on the last bit.
        let thresholds = Thresholds { confidence, iou: 1.0, max_detections: 100_000, classes };
        let letterbox = Letterbox::new(size[0] * 32, size[1] * 32, size[0] * 32, size[1] * 32);
        let (have, have_counts) = head.decode(&thresholds, &letterbox);
        let (want, want_counts) = head.decode_whole(&thresholds, &letterbox);
        prop_assert_eq!(have_counts, want_counts);
        assert_same(&have, &want);
    }

    #[test]
    fn any_bits_are_decoded_without_panic_into_finite_boxes(
        bits in prop::collection::vec(any::<u32>(), 21 * 11), confidence in 0.0..=1.0f32,
    ) {
        let mut values = bits.into_iter().map(f32::from_bits);
        let head = Head::new([1, 1], 3, 2, |_| values.next().unwrap());
        let thresholds = Thresholds { confidence, ..DEFAULT };
        let (found, counts) = head.decode(&thresholds, &Letterbox::new(32, 32, 32, 32));
        let broken = |values: &[f32]| values.iter().filter(|v| !v.is_finite()).count();
        let (mut least, mut most) = (0, 0);
        for map in &head.maps {
            least += broken(&map.classes);
            most += broken(&map.classes) + broken(&map.boxes);
        }
        prop_assert!((least..=most).contains(&(counts.non_finite as usize)));
        for d in found {
            prop_assert!(d.score > confidence && d.score <= 1.0 && d.class < 3);
            prop_assert!(d.bbox[0] < d.bbox[2] && d.bbox[1] < d.bbox[3]);
            prop_assert!(d.bbox.iter().all(|v| (0.0..=32.0).contains(v)));
        }
    }
}
