//! `framebus_decode` against [`Postprocess::run_heads`], box by box.

use crate::Noise;
use crate::cpu::{self, Element, FrameEntry, Maps, RawCandidate};
use framebus_vision::heads::logit_below;
use framebus_vision::{
    Counts, Detection, HeadOutput, HeadScale, Letterbox, Postprocess, Thresholds,
};
use half::f16;

/// One scale of a batch, in f32.
struct Map {
    size: [usize; 2],
    stride: usize,
    boxes: Vec<f32>,
    classes: Vec<f32>,
}

/// Raw maps of a batch, finest scale first; what both sides decode.
struct Head {
    batch: usize,
    classes: usize,
    bins: usize,
    maps: Vec<Map>,
}

impl Head {
    fn new(
        [batch, classes, bins]: [usize; 3],
        sizes: &[[usize; 2]],
        mut class: impl FnMut() -> f32,
        mut value: impl FnMut() -> f32,
    ) -> Self {
        let mut stride = 4;
        let maps = sizes.iter().map(|&size| {
            stride *= 2;
            let cells = batch * size[0] * size[1];
            // Values that an f16 has, so that both element types are the same head.
            let f16s = |v: f32| f16::from_f32(v).to_f32();
            Map {
                size,
                stride,
                boxes: (0..4 * bins * cells).map(|_| f16s(value())).collect(),
                classes: (0..classes * cells).map(|_| f16s(class())).collect(),
            }
        });
        Self { batch, classes, bins, maps: maps.collect() }
    }

    /// Sorted by cell, and the count of values that are not finite, per frame.
    fn run<T: Element>(
        &self,
        confidence: &[f32],
        capacity: usize,
        convert: impl Fn(f32) -> T,
    ) -> Vec<Answer> {
        let entry =
            |&confidence| FrameEntry { logit: logit_below(confidence), ..FrameEntry::empty() };
        let frames: Vec<FrameEntry> = confidence.iter().map(entry).collect();
        let untouched =
            RawCandidate { bbox: [f32::NAN; 4], logit: 0.0, class: 7, cell: 7, reserved: 7 };
        let mut candidates = vec![untouched; self.batch * capacity];
        let mut counts = vec![0; 2 * self.batch];
        let mut first_cell = 0;
        for map in &self.maps {
            let convert = |values: &[f32]| values.iter().map(|&v| convert(v)).collect::<Vec<_>>();
            let (boxes, classes) = (convert(&map.boxes), convert(&map.classes));
            let maps = Maps {
                boxes: &boxes,
                classes: &classes,
                bins: self.bins as u32,
                nclasses: self.classes as u32,
                width: map.size[0] as u32,
                height: map.size[1] as u32,
                stride: map.stride as u32,
                first_cell,
            };
            cpu::decode(&frames, &maps, &mut counts, &mut candidates);
            first_cell += (map.size[0] * map.size[1]) as u32;
        }
        candidates
            .chunks_exact(capacity)
            .zip(counts.chunks_exact(2))
            .map(|(candidates, counts)| {
                let stored = capacity.min(counts[0] as usize);
                assert!(candidates[stored..].iter().all(|c| c.reserved == 7), "written beyond");
                let mut found = candidates[..stored].to_vec();
                found.sort_by_key(|c| c.cell);
                Answer { found, counted: counts[0], non_finite: counts[1] }
            })
            .collect()
    }

    /// All candidates of a frame, by `framebus-vision`; they come strongest first.
    fn expected(
        &self,
        frame: usize,
        confidence: f32,
        letterbox: &Letterbox,
    ) -> (Vec<Detection>, Counts) {
        let scales: Vec<HeadScale<'_>> = self
            .maps
            .iter()
            .map(|map| {
                let part = |values| {
                    let values: &[f32] = values;
                    let len = values.len() / self.batch;
                    &values[frame * len..][..len]
                };
                HeadScale {
                    boxes: part(&map.boxes),
                    classes: part(&map.classes),
                    width: map.size[0],
                    height: map.size[1],
                    stride: map.stride,
                }
            })
            .collect();
        let output = HeadOutput::new(&scales, self.classes, self.bins).unwrap();
        // Nothing is suppressed.
        let thresholds =
            Thresholds { confidence, iou: 1.0, max_detections: usize::MAX, classes: None };
        let mut detections = vec![];
        let counts = Postprocess::default()
            .run_heads(output, &thresholds, letterbox, &mut detections)
            .unwrap();
        (detections, counts)
    }

    /// The class logits of a cell, which counts over all scales.
    fn logits(&self, frame: usize, mut cell: usize) -> Vec<f32> {
        for map in &self.maps {
            let cells = map.size[0] * map.size[1];
            if cell < cells {
                let start = frame * self.classes * cells + cell;
                return map.classes[start..]
                    .iter()
                    .step_by(cells)
                    .take(self.classes)
                    .copied()
                    .collect();
            }
            cell -= cells;
        }
        panic!("there is no cell {cell}");
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    found: Vec<RawCandidate>,
    counted: u32,
    non_finite: u32,
}

/// As the host computes it for a candidate.
fn score(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Both element types against `framebus-vision`; answers how many candidates.
fn check(head: &Head, confidence: &[f32], side: usize) -> usize {
    let full = head.run(confidence, 9000, |v| v);
    assert_eq!(head.run(confidence, 9000, f16::from_f32), full, "f16 and f32 differ");
    let letterbox = Letterbox::new(side, side, side, side);
    let mut total = 0;
    for (frame, answer) in full.iter().enumerate() {
        let confidence = confidence[frame];
        let (want, counts) = head.expected(frame, confidence, &letterbox);
        assert_eq!(answer.non_finite, counts.non_finite, "frame {frame}");
        assert_eq!(answer.counted as usize, answer.found.len(), "frame {frame}");
        for c in &answer.found {
            let logits = head.logits(frame, c.cell as usize);
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = logits.iter().position(|&v| v == best).unwrap();
            assert_eq!((c.logit, c.class as usize), (best, first), "cell {}", c.cell);
        }
        // What the host does with candidates.
        let mut have: Vec<(f32, u32, [f32; 4])> = answer
            .found
            .iter()
            .map(|c| (score(c.logit), c.class, letterbox.to_source(c.bbox)))
            .filter(|&(score, _, b)| score > confidence && b[2] > b[0] && b[3] > b[1])
            .collect();
        // Strongest first, and among equals by cell: a stable sort, as in NMS.
        have.sort_by(|a, b| b.0.total_cmp(&a.0));
        assert_eq!(have.len(), want.len(), "frame {frame}: {counts:?}");
        for ((score, class, bbox), want) in have.iter().zip(&want) {
            assert_eq!((*score, *class), (want.score, want.class), "frame {frame}");
            for (have, want) in bbox.iter().zip(want.bbox) {
                let error = (have - want).abs();
                assert!(error <= 1e-3 * want.abs().max(1.0), "{bbox:?} instead of {want:?}");
            }
        }
        total += want.len();
    }
    total
}

const SIZES: [[usize; 2]; 3] = [[80, 80], [40, 40], [20, 20]];

#[test]
fn heads_of_noise_with_few_and_many_candidates() {
    if cpu::library().is_none() {
        return;
    }
    let odd = [[37, 19], [5, 1], [1, 1]];
    let (mut few, mut many) = (0, 0);
    for (i, bins) in [16, 1, 3].into_iter().enumerate() {
        for (sizes, classes) in [(SIZES, 80), (odd, 7), (odd, 1)] {
            let (mut a, mut b) = (Noise(i as u64), Noise(99 + i as u64));
            let class = || a.fraction() * 24.0 - 18.0;
            let head = Head::new([2, classes, bins], &sizes, class, || b.fraction() * 9.0 - 1.5);
            few += check(&head, &[0.9967, 0.9974], 640);
            many += check(&head, &[0.25, 0.5], 640);
        }
    }
    assert!(few > 100 && many > 20_000, "{few} and {many} candidates");
}

#[test]
fn equal_logits_give_the_first_class() {
    if cpu::library().is_none() {
        return;
    }
    let (mut a, mut b) = (Noise(5), Noise(6));
    let class = || (a.next() % 4) as f32 - 1.0;
    let head = Head::new([3, 12, 16], &[[33, 21], [17, 11]], class, || b.fraction() * 8.0);
    // 2 is the largest of nearly every cell, and a score on the threshold is not over it.
    assert!(check(&head, &[score(1.0), score(2.0), 0.0], 272) > 1000);
}

/// The host compares scores afterwards: nothing may be lost before.
#[test]
fn a_logit_on_the_limit_passes() {
    if cpu::library().is_none() {
        return;
    }
    for (confidence, below) in
        [(0.5, false), (0.25, false), (0.0, false), (1.0, false), (0.25, true)]
    {
        let limit = logit_below(confidence);
        let logit = if below { limit.next_down() } else { limit.max(f32::MIN) };
        let mut head = Head::new([1, 2, 1], &[[3, 2]], || 0.0, || 1.0);
        head.maps[0].classes.fill(logit);
        let [answer] = &head.run(&[confidence], 9, |v| v)[..] else { panic!("one frame") };
        assert_eq!(answer.counted, if below { 0 } else { 6 }, "{logit} at {confidence}");
    }
}

#[test]
fn values_that_are_not_finite_are_counted() {
    if cpu::library().is_none() {
        return;
    }
    for bins in [1, 16] {
        for (every, boxes_too) in [(50, false), (3000, true), (11, true)] {
            let (mut a, mut b) = (Noise(7), Noise(8));
            let broken = |noise: &mut Noise, value: f32| match noise.next() % every {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                _ => value,
            };
            let class = || {
                let value = a.fraction() * 12.0 - 8.0;
                broken(&mut a, value)
            };
            let value = || {
                let value = b.fraction() * 6.0;
                if boxes_too { broken(&mut b, value) } else { value }
            };
            let head = Head::new([2, 5, bins], &[[40, 24], [20, 12]], class, value);
            check(&head, &[0.6, 0.01], 320);
        }
    }
}

#[test]
fn extreme_values_are_finite() {
    if cpu::library().is_none() {
        return;
    }
    let (mut a, mut b) = (Noise(17), Noise(18));
    let class = || [65_504.0, -65_504.0, 3.0][(a.next() % 3) as usize];
    let value = || [65_504.0, -65_504.0, 0.0, -0.0, 6e-8][(b.next() % 5) as usize];
    let head = Head::new([1, 2, 16], &[[40, 24]], class, value);
    assert!(check(&head, &[0.25], 320) > 100);
    // In f32 alone: sums overflow, values do not. Boxes do with one bin.
    for bins in [16, 1] {
        let (mut a, mut b) = (Noise(17), Noise(18));
        let mut head = Head::new([1, 2, bins], &[[40, 24]], || 0.0, || 0.0);
        for v in &mut head.maps[0].classes {
            *v = [f32::MAX, f32::MIN, 1.0][(a.next() % 3) as usize];
        }
        for v in &mut head.maps[0].boxes {
            *v = [f32::MAX, f32::MIN, 1.0][(b.next() % 3) as usize];
        }
        let [answer] = &head.run(&[0.25], 9000, |v| v)[..] else { panic!("one frame") };
        let (want, counts) = head.expected(0, 0.25, &Letterbox::new(320, 320, 320, 320));
        assert_eq!((answer.non_finite, counts.non_finite), (0, 0));
        assert_eq!(answer.found.len(), want.len() + counts.invalid as usize);
        assert!(bins == 16 || counts.invalid > 100, "{counts:?}");
    }
}

#[test]
fn what_finds_no_room_is_counted_and_not_stored() {
    if cpu::library().is_none() {
        return;
    }
    let head = Head::new([3, 2, 1], &[[20, 12], [10, 6]], || 3.0, || 1.5);
    for capacity in [1, 7, 239, 299, 300, 301] {
        for answer in head.run(&[0.5, 0.5, 0.5], capacity, f16::from_f32) {
            assert_eq!((answer.counted, answer.non_finite), (300, 0));
            assert_eq!(answer.found.len(), capacity.min(300));
            let cells: Vec<u32> = answer.found.iter().map(|c| c.cell).collect();
            assert!(cells.windows(2).all(|pair| pair[0] < pair[1]), "a cell came twice");
        }
    }
    let [answer, ..] = &head.run(&[0.5, 0.5, 0.5], 300, |v| v)[..] else { panic!("three frames") };
    // Cell 21 of the finer scale: column 1, row 1; the coarser one begins at 240.
    assert_eq!(answer.found[21].bbox, [0.0, 0.0, 24.0, 24.0]);
    assert_eq!(answer.found[241].bbox, [0.0, -16.0, 48.0, 32.0]);
    assert_eq!(answer.found[241].reserved, 0);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "nobody compares this with the time of a frame")]
fn time_of_a_head() {
    if cpu::library().is_none() {
        return;
    }
    let (mut a, mut b) = (Noise(1), Noise(2));
    let class = || a.fraction() * 10.0 - 11.0;
    let head = Head::new([1, 80, 16], &SIZES, class, || b.fraction() * 8.0);
    let start = std::time::Instant::now();
    let [answer] = &head.run(&[0.25], 9000, f16::from_f32)[..] else { panic!("one frame") };
    let ms = start.elapsed().as_secs_f64() * 1e3;
    println!("{ms:.1} ms for 8400 cells (conversion to f16 included), {} found", answer.counted);
}
