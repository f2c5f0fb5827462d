//! Class-wise greedy non-maximum suppression.

use crate::yolo::Candidate;

/// Candidates that enter suppression, strongest first. Its cost grows with the
/// square of this number; the same bound as in other YOLO tools.
pub const MAX_CANDIDATES: usize = 30_000;

/// Intersection over union of two boxes `[x1, y1, x2, y2]`: areas without the
/// "+ 1" of integer pixels, as Ultralytics and torchvision have it.
///
/// NaN where neither box has an area.
#[must_use]
pub fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    overlap(a, area(a), b, area(b))
}

fn area(b: [f32; 4]) -> f32 {
    (b[2] - b[0]) * (b[3] - b[1])
}

#[inline]
fn overlap(a: [f32; 4], area_a: f32, b: [f32; 4], area_b: f32) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let inter = width * height;
    inter / (area_a + area_b - inter)
}

/// What suppression left out for other reasons than overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NmsCounts {
    /// Survivors beyond `max_detections`.
    pub truncated: u32,
    /// Candidates beyond [`MAX_CANDIDATES`], which were never compared.
    pub over_cap: u32,
}

/// Suppresses; keeps its scratch memory from frame to frame.
#[derive(Debug, Clone, Default)]
pub struct Nms {
    order: Vec<u32>,
    /// Survivors of the class at work: box and area.
    boxes: Vec<([f32; 4], f32)>,
    survivors: Vec<u32>,
}

impl Nms {
    /// Index numbers of the candidates to keep, strongest first, the earlier one
    /// first among equals; at most `max_detections`.
    ///
    /// A candidate goes when a kept one of the same class overlaps it by more
    /// than `iou_threshold`.
    pub fn run(
        &mut self,
        candidates: &[Candidate],
        iou_threshold: f32,
        max_detections: usize,
    ) -> (&[u32], NmsCounts) {
        let over_cap = self.rank(candidates);
        // Class by class: a class is compared with itself only, and its
        // survivors lie together in memory.
        self.order.sort_unstable_by(|&a, &b| {
            let classes = candidates[a as usize].class.cmp(&candidates[b as usize].class);
            classes.then_with(|| by_score(candidates, a, b))
        });
        self.survivors.clear();
        for class in self
            .order
            .chunk_by(|&a, &b| candidates[a as usize].class == candidates[b as usize].class)
        {
            self.boxes.clear();
            for &index in class {
                let bbox = candidates[index as usize].bbox;
                let size = area(bbox);
                let beaten = |&(kept, kept_size): &([f32; 4], f32)| {
                    overlap(kept, kept_size, bbox, size) > iou_threshold
                };
                if !self.boxes.iter().any(beaten) {
                    self.boxes.push((bbox, size));
                    self.survivors.push(index);
                }
            }
        }
        let truncated = self.finish(candidates, max_detections);
        (&self.survivors, NmsCounts { truncated, over_cap })
    }

    /// The strongest candidates without any suppression, for outputs whose graph
    /// has done it.
    pub fn strongest(
        &mut self,
        candidates: &[Candidate],
        max_detections: usize,
    ) -> (&[u32], NmsCounts) {
        self.survivors.clear();
        self.survivors.extend(0..candidates.len() as u32);
        let truncated = self.finish(candidates, max_detections);
        (&self.survivors, NmsCounts { truncated, over_cap: 0 })
    }

    /// Fills `order` with the candidates that take part; returns how many do not.
    fn rank(&mut self, candidates: &[Candidate]) -> u32 {
        self.order.clear();
        self.order.extend(0..candidates.len() as u32);
        if self.order.len() <= MAX_CANDIDATES {
            return 0;
        }
        self.order.select_nth_unstable_by(MAX_CANDIDATES, |&a, &b| by_score(candidates, a, b));
        let over_cap = self.order.len() - MAX_CANDIDATES;
        self.order.truncate(MAX_CANDIDATES);
        over_cap as u32
    }

    fn finish(&mut self, candidates: &[Candidate], max_detections: usize) -> u32 {
        self.survivors.sort_unstable_by(|&a, &b| by_score(candidates, a, b));
        let truncated = self.survivors.len().saturating_sub(max_detections);
        self.survivors.truncate(max_detections);
        truncated as u32
    }
}

/// Higher score first, then the earlier candidate. `total_cmp`, so that the sort
/// stays sound whatever scores a caller hands in.
fn by_score(candidates: &[Candidate], a: u32, b: u32) -> std::cmp::Ordering {
    let scores = candidates[b as usize].score.total_cmp(&candidates[a as usize].score);
    scores.then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::{MAX_CANDIDATES, Nms, NmsCounts, iou};
    use crate::yolo::Candidate;

    fn candidate(x: f32, score: f32, class: u32) -> Candidate {
        Candidate { bbox: [x, 0.0, x + 10.0, 10.0], score, class }
    }

    #[test]
    fn overlap_of_known_boxes() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(iou(a, a), 1.0);
        assert_eq!(iou(a, [5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(iou(a, [10.0, 0.0, 20.0, 10.0]), 0.0);
        assert_eq!(iou(a, [20.0, 20.0, 30.0, 30.0]), 0.0);
        assert_eq!(iou(a, [2.0, 2.0, 4.0, 4.0]), 0.04);
    }

    #[test]
    fn stronger_box_wins_within_its_class_only() {
        let all = [candidate(0.0, 0.5, 0), candidate(1.0, 0.9, 0), candidate(0.0, 0.7, 1)];
        let mut nms = Nms::default();
        assert_eq!(nms.run(&all, 0.45, 300), (&[1, 2][..], NmsCounts::default()));
    }

    #[test]
    fn threshold_is_strict() {
        let half = Candidate { bbox: [0.0, 0.0, 10.0, 5.0], score: 0.5, class: 0 };
        let all = [candidate(0.0, 0.9, 0), half];
        let mut nms = Nms::default();
        assert_eq!(nms.run(&all, 0.5, 300).0, [0, 1]);
        assert_eq!(nms.run(&all, 0.499, 300).0, [0]);
    }

    #[test]
    fn suppressed_boxes_suppress_nobody() {
        // Neighbours overlap by 0.54, the outer two by 0.25.
        let all = [candidate(0.0, 0.9, 0), candidate(3.0, 0.8, 0), candidate(6.0, 0.7, 0)];
        assert_eq!(Nms::default().run(&all, 0.45, 300).0, [0, 2]);
    }

    #[test]
    fn equal_scores_keep_their_order_and_the_rest_is_counted() {
        let all: Vec<_> = (0..6u32).map(|i| candidate(20.0 * i as f32, 0.5, i % 2)).collect();
        let mut nms = Nms::default();
        let truncated = |truncated| NmsCounts { truncated, over_cap: 0 };
        assert_eq!(nms.run(&all, 0.45, 4), (&[0, 1, 2, 3][..], truncated(2)));
        assert_eq!(nms.strongest(&all, 5), (&[0, 1, 2, 3, 4][..], truncated(1)));
        assert_eq!(nms.run(&all, 0.45, 0), (&[][..], truncated(6)));
        assert_eq!(nms.run(&[], 0.45, 4), (&[][..], truncated(0)));
    }

    #[test]
    fn only_the_strongest_candidates_enter() {
        // All on one spot, a class each 1000: one survivor a class. The weakest
        // class lies wholly beyond the cap.
        let count = MAX_CANDIDATES + 1000;
        let all: Vec<_> =
            (0..count).map(|i| candidate(0.0, i as f32 / count as f32, i as u32 / 1000)).collect();
        let mut nms = Nms::default();
        let (kept, counts) = nms.run(&all, 0.45, 300);
        let classes: Vec<u32> = kept.iter().map(|&i| all[i as usize].class).collect();
        assert_eq!(classes, (1..=30).rev().collect::<Vec<u32>>());
        assert_eq!(counts, NmsCounts { truncated: 0, over_cap: 1000 });
    }
}
