//! Batches through the pipeline against what the CPU makes of them.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::{
    Copies, Place, Random, Segment, Shape, assert_close, clock, memory, over_double_or_gpu,
    resampled,
};
use framebus_cuda::{
    BufferSet, Device, Element, Frame, HostAccess, Lane, Outputs, RawCandidate, Scale, Spec,
};
use framebus_vision::{HeadOutput, HeadScale, Letterbox, Postprocess, Thresholds};

const ACCESSES: [HostAccess; 3] = [HostAccess::Mapped, HostAccess::Registered, HostAccess::Staged];
const SIZE: [usize; 2] = [64, 48];
const VALUES: usize = 3 * SIZE[0] * SIZE[1];
const MAX_BATCH: usize = 8;

/// A network whose output is its input.
fn echo(element: Element, graphs: bool) -> Spec {
    let outputs = Outputs::Whole { values: vec![VALUES], element };
    let [width, height] = SIZE;
    Spec { height, width, input: element, max_batch: MAX_BATCH, outputs, graphs }
}

fn echo_set(device: &Device, element: Element, graphs: bool) -> BufferSet<Copies> {
    let lane = Lane::new(device, Copies::input(device, VALUES * element.bytes())).unwrap();
    BufferSet::new(device, &lane, echo(element, graphs)).unwrap()
}

/// Random pictures, in shared memory of eight publishers, each with a place there.
struct Pictures {
    place: Place,
    shapes: Vec<Shape>,
    _segments: Vec<Segment>,
}

const ROOM: usize = 1 << 18;

impl Pictures {
    fn new(random: &mut Random) -> Self {
        let mut place = Place::new(MAX_BATCH * ROOM);
        let shapes: Vec<Shape> = (0..MAX_BATCH).map(|_| Shape::random(random)).collect();
        let mut segments = Vec::new();
        for (index, shape) in shapes.iter().enumerate() {
            let segment = Segment::new(ROOM);
            segment.write(77, &random.bytes(shape.len()));
            place.show(&segment, index * ROOM);
            segments.push(segment);
        }
        Self { place, shapes, _segments: segments }
    }

    fn frames(&self, round: u64, count: usize) -> Vec<Frame<'_>> {
        (0..count)
            .map(|index| {
                let shape = self.shapes[index];
                Frame {
                    view: shape.view(self.place.bytes(index * ROOM + 77, shape.len())),
                    letterbox: shape.letterbox(SIZE),
                    confidence: 0.5,
                    memory: memory(100 * round + index as u64, 1),
                }
            })
            .collect()
    }
}

#[test]
fn letterboxed_batches_equal_those_of_the_cpu() {
    over_double_or_gpu("letterboxed_batches_equal_those_of_the_cpu", "integrated=1", || {
        for access in ACCESSES {
            for element in [Element::F32, Element::F16] {
                let device = Device::open_with(0, Some(access)).unwrap();
                let mut set = echo_set(&device, element, true);
                let mut random = Random(0x9e37_79b9_7f4a_7c15);
                let codes = if element == Element::F16 { 0.3 } else { 0.15 };
                for round in 0..3 {
                    let pictures = Pictures::new(&mut random);
                    for batch in 1..=MAX_BATCH {
                        let frames = pictures.frames(round, batch);
                        let times = set.run(&frames, clock).unwrap();
                        assert!(times.uploaded_ns < times.done_ns);
                        for (index, frame) in frames.iter().enumerate() {
                            let what =
                                format!("{access:?} {element:?} {:?}", pictures.shapes[index]);
                            let want = resampled(&frame.view, SIZE);
                            assert_close(set.output(0, index), &want, codes, &what);
                        }
                        assert!(set.output(0, batch).is_empty() && set.output(1, 0).is_empty());
                        assert!(set.candidates(0).is_empty());
                    }
                }
            }
        }
    });
}

#[test]
fn only_what_is_needed_is_copied() {
    common::over_double("only_what_is_needed_is_copied", "integrated=1", || {
        let shape = Shape {
            width: 100,
            height: 50,
            stride: 128,
            uv_at: Some(128 * 50),
            colour: framebus_vision::Colour::default(),
        };
        let mut place = Place::new(ROOM);
        let segment = Segment::new(ROOM);
        place.show(&segment, 0);
        let bytes = place.bytes(0, shape.len());
        let frame = Frame {
            view: shape.view(bytes),
            letterbox: shape.letterbox(SIZE),
            confidence: 0.5,
            memory: memory(1, 1),
        };
        let table = 128;
        // Rows a quarter longer than the picture is wide go one by one.
        let pixels = 100 * 75;
        for (access, copies, bytes) in [
            (HostAccess::Mapped, 1, table),
            (HostAccess::Registered, 3, table + pixels),
            // Through a buffer with rows and planes at multiples of 256.
            (
                HostAccess::Staged,
                2,
                table + (256_u64 * 49 + 100).next_multiple_of(256) + 256 * 24 + 100,
            ),
        ] {
            let device = Device::open_with(0, Some(access)).unwrap();
            let mut set = echo_set(&device, Element::F32, true);
            for _ in 0..3 {
                let before = [common::number("copies_h2d"), common::number("copies_h2d_bytes")];
                set.run(&[frame], clock).unwrap();
                let after = [common::number("copies_h2d"), common::number("copies_h2d_bytes")];
                assert_eq!(
                    [after[0] - before[0], after[1] - before[1]],
                    [copies, bytes],
                    "{access:?}"
                );
            }
            assert_eq!(common::number("registered"), u64::from(access != HostAccess::Staged));
        }
        assert_eq!(common::number("copies_pageable"), 0);
    });
}

/// The maps of a cut head for [`MAX_BATCH`] frames: boxes, classes of two scales.
struct Maps {
    scales: Vec<Scale>,
    values: Vec<Vec<f32>>,
}

const BINS: usize = 16;
const CLASSES: usize = 7;

impl Maps {
    /// Of the class logits about `share` in 1000 pass a confidence of 0.5.
    fn new(random: &mut Random, share: usize) -> Self {
        let scales = vec![
            Scale { height: 45, width: 37, stride: 8 },
            Scale { height: 11, width: 9, stride: 16 },
        ];
        let mut values = Vec::new();
        for Scale { height, width, .. } in &scales {
            let cells = height * width;
            values.push((0..MAX_BATCH * 4 * BINS * cells).map(|_| 4.0 * random.float()).collect());
            let logit = |_| {
                let logit = 3.0 * random.float().abs();
                if random.below(1000) < share { logit } else { -logit }
            };
            values.push((0..MAX_BATCH * CLASSES * cells).map(logit).collect());
        }
        // Exact in 16 bits, so that both elements have one answer.
        for value in values.iter_mut().flat_map(|values: &mut Vec<f32>| values) {
            *value = half::f16::from_f32(*value).to_f32();
        }
        Self { scales, values }
    }

    fn set(&self, device: &Device, element: Element, graphs: bool) -> BufferSet<Copies> {
        let bytes: Vec<Vec<u8>> = self
            .values
            .iter()
            .map(|values| match element {
                Element::F32 => bytemuck::cast_slice(values).to_vec(),
                Element::F16 => {
                    values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
                }
            })
            .collect();
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let lane = Lane::new(device, Copies::constant(device, &bytes, MAX_BATCH)).unwrap();
        let scales = self.scales.clone();
        let outputs = Outputs::Heads { scales, bins: BINS, classes: CLASSES, element };
        let (width, height) = (37 * 8, 45 * 8);
        let spec =
            Spec { height, width, input: Element::F16, max_batch: MAX_BATCH, outputs, graphs };
        BufferSet::new(device, &lane, spec).unwrap()
    }

    fn frame<'a>(&self, bytes: &'a [u8], confidence: f32) -> Frame<'a> {
        let planes = framebus_vision::Planes::Rgb24 { data: bytes, stride: 90 };
        let colour = framebus_vision::Colour::default();
        let view = framebus_vision::FrameView::new(30, 20, planes, colour).unwrap();
        let letterbox = Letterbox::new(30, 20, 37 * 8, 45 * 8);
        Frame { view, letterbox, confidence, memory: None }
    }

    /// What the CPU finds: score bits, class, box in source pixels; and broken values.
    fn cpu(&self, index: usize, frame: &Frame<'_>) -> (Vec<(u32, u32, [f32; 4])>, u32) {
        let part = |values: &'_ [f32]| -> std::ops::Range<usize> {
            let len = values.len() / MAX_BATCH;
            index * len..(index + 1) * len
        };
        let scales: Vec<HeadScale<'_>> = self
            .scales
            .iter()
            .zip(self.values.chunks(2))
            .map(|(scale, maps)| HeadScale {
                boxes: &maps[0][part(&maps[0])],
                classes: &maps[1][part(&maps[1])],
                width: scale.width,
                height: scale.height,
                stride: scale.stride,
            })
            .collect();
        let output = HeadOutput::new(&scales, CLASSES, BINS).unwrap();
        let thresholds = Thresholds {
            confidence: frame.confidence,
            iou: 1.0,
            max_detections: 100_000,
            classes: None,
        };
        let mut found = Vec::new();
        let counts = Postprocess::default()
            .run_heads(output, &thresholds, &frame.letterbox, &mut found)
            .unwrap();
        let found = found.iter().map(|d| (d.score.to_bits(), d.class, d.bbox));
        (found.collect(), counts.non_finite)
    }
}

/// Candidates as the caller takes them: the exact threshold, boxes inside the picture.
fn taken(candidates: &[RawCandidate], frame: &Frame<'_>) -> Vec<(u32, u32, [f32; 4])> {
    let scored = candidates.iter().filter_map(|candidate| {
        let score = (1.0 / (1.0 + (-f64::from(candidate.logit)).exp())) as f32;
        let bbox = frame.letterbox.to_source(candidate.bbox);
        let area = bbox[2] > bbox[0] && bbox[3] > bbox[1];
        (score > frame.confidence && area).then_some((score.to_bits(), candidate.class, bbox))
    });
    scored.collect()
}

fn assert_same(mut have: Vec<(u32, u32, [f32; 4])>, mut want: Vec<(u32, u32, [f32; 4])>) {
    assert_eq!(have.len(), want.len());
    // Positive floats are ordered as their bits are.
    let key = |(score, class, bbox): &(u32, u32, [f32; 4])| {
        (*score, *class, bbox.map(|v| (v * 8.0).round() as i32))
    };
    have.sort_by_key(key);
    want.sort_by_key(key);
    for (have, want) in have.iter().zip(&want) {
        assert_eq!((have.0, have.1), (want.0, want.1));
        for (have, want) in have.2.iter().zip(want.2) {
            assert!((have - want).abs() < 1e-2, "{have} is not {want}");
        }
    }
}

#[test]
fn candidates_equal_those_of_the_cpu_with_and_without_graphs() {
    let name = "candidates_equal_those_of_the_cpu_with_and_without_graphs";
    over_double_or_gpu(name, "", || {
        let device = Device::open(0).unwrap();
        let mut random = Random(7);
        let mut maps = Maps::new(&mut random, 30);
        maps.values[1][40] = f32::NAN;
        maps.values[1][41] = f32::INFINITY;
        maps.values[3][8] = f32::NEG_INFINITY;
        let bytes = random.bytes(1800);
        for element in [Element::F32, Element::F16] {
            let mut plain = maps.set(&device, element, false);
            let mut graphs = maps.set(&device, element, true);
            for _ in 0..3 {
                for batch in 1..=MAX_BATCH {
                    let frames: Vec<_> = (0..batch)
                        .map(|index| maps.frame(&bytes, 0.5 + 0.05 * index as f32))
                        .collect();
                    plain.run(&frames, clock).unwrap();
                    graphs.run(&frames, clock).unwrap();
                    for (index, frame) in frames.iter().enumerate() {
                        let (want, broken) = maps.cpu(index, frame);
                        assert!(!want.is_empty() && want.len() < 512, "{}", want.len());
                        let have = plain.candidates(index).to_vec();
                        assert!(have.is_sorted_by_key(|candidate| candidate.cell));
                        assert_eq!(graphs.candidates(index), have);
                        assert_same(taken(&have, frame), want);
                        assert_eq!(plain.non_finite(index), broken);
                        assert_eq!(graphs.non_finite(index), broken);
                    }
                    assert!(plain.candidates(batch).is_empty());
                    assert!(plain.output(0, 0).is_empty());
                }
                graphs.infer_only().unwrap();
            }
        }
    });
}

#[test]
fn a_frame_may_have_more_candidates_than_are_copied_at_once() {
    let name = "a_frame_may_have_more_candidates_than_are_copied_at_once";
    over_double_or_gpu(name, "", || {
        let device = Device::open(0).unwrap();
        let mut random = Random(8);
        let maps = Maps::new(&mut random, 300);
        let bytes = random.bytes(1800);
        let mut set = maps.set(&device, Element::F32, true);
        for _ in 0..3 {
            // Every other frame has few.
            let frames: Vec<_> =
                [0.5, 0.94, 0.0, 0.94].map(|confidence| maps.frame(&bytes, confidence)).into();
            set.run(&frames, clock).unwrap();
            for (index, frame) in frames.iter().enumerate() {
                let (want, _) = maps.cpu(index, frame);
                let have = set.candidates(index).to_vec();
                assert_eq!(have.len() > 512, index % 2 == 0, "{}", have.len());
                assert!(have.is_sorted_by_key(|candidate| candidate.cell));
                assert_same(taken(&have, frame), want);
            }
        }
        assert_eq!(set.candidates(2).len(), 45 * 37 + 11 * 9);
    });
}

#[test]
fn two_sets_of_one_lane_run_from_two_threads() {
    over_double_or_gpu("two_sets_of_one_lane_run_from_two_threads", "", || {
        let device = Device::open(0).unwrap();
        let network = Copies::input(&device, VALUES * Element::F32.bytes());
        let lane = Lane::new(&device, network).unwrap();
        std::thread::scope(|scope| {
            for seed in [11, 12] {
                let (device, lane) = (&device, &lane);
                scope.spawn(move || {
                    let mut random = Random(seed);
                    let spec = echo(Element::F32, true);
                    let mut set = BufferSet::new(device, lane, spec).unwrap();
                    for round in 0..20 {
                        let pictures = Pictures::new(&mut random);
                        let batch = 1 + random.below(MAX_BATCH);
                        let frames = pictures.frames(seed * 100 + round, batch);
                        set.run(&frames, clock).unwrap();
                        for (index, frame) in frames.iter().enumerate() {
                            let want = resampled(&frame.view, SIZE);
                            assert_close(set.output(0, index), &want, 0.15, "one of two");
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_frame_costs_no_allocation_once_buffers_have_grown() {
    over_double_or_gpu("a_frame_costs_no_allocation_once_buffers_have_grown", "", || {
        for access in ACCESSES {
            let device = Device::open_with(0, Some(access)).unwrap();
            let mut random = Random(9);
            let maps = Maps::new(&mut random, 300);
            let pictures = Pictures::new(&mut random);
            let bytes = random.bytes(1800);
            // 0.0: more candidates than are copied at once.
            let heads = [0.0, 0.9].map(|confidence| maps.frame(&bytes, confidence));
            let mut decoding = maps.set(&device, Element::F16, true);
            let mut echoing = echo_set(&device, Element::F16, true);
            let frames = pictures.frames(1, MAX_BATCH);
            for _ in 0..2 {
                decoding.run(&heads, clock).unwrap();
                echoing.run(&frames, clock).unwrap();
            }
            // The double has an allocator of its own, which is not counted.
            let count = allocation_counter::measure(|| {
                decoding.run(&heads, clock).unwrap();
                echoing.run(&frames, clock).unwrap();
            });
            assert_eq!(count.count_total, 0, "{access:?}");
        }
    });
}
