//! Whether two ways see the same: boxes of the same frames, compared.

use framebus_vision::Detection;

/// Boxes that overlap less are not the same object.
const SAME_IOU: f32 = 0.5;

/// What the boxes of a way have in common with those of another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Agreement {
    /// Boxes of the way.
    pub(super) boxes: usize,
    /// Boxes without a counterpart, of either.
    pub(super) missing: usize,
    /// Largest difference of a side of a box, pixels of the frame.
    pub(super) box_px: f32,
    /// Largest difference of a score.
    pub(super) score: f32,
}

impl Agreement {
    /// `boxes` and `reference` are of the same frames in the same order.
    pub(super) fn of(boxes: &[Vec<Detection>], reference: &[Vec<Detection>]) -> Self {
        let mut all = Self::default();
        for (boxes, reference) in boxes.iter().zip(reference) {
            all.add(boxes, reference);
        }
        all
    }

    fn add(&mut self, boxes: &[Detection], reference: &[Detection]) {
        let mut left: Vec<&Detection> = reference.iter().collect();
        self.boxes += boxes.len();
        for found in boxes {
            let near = left
                .iter()
                .enumerate()
                .filter(|(_, other)| other.class == found.class)
                .map(|(place, other)| (place, iou(found.bbox, other.bbox)))
                .filter(|(_, iou)| *iou >= SAME_IOU)
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((place, _)) = near else {
                self.missing += 1;
                continue;
            };
            let other = left.swap_remove(place);
            let sides = found.bbox.iter().zip(&other.bbox).map(|(a, b)| (a - b).abs());
            self.box_px = sides.fold(self.box_px, f32::max);
            self.score = self.score.max((found.score - other.score).abs());
        }
        self.missing += left.len();
    }
}

fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area =
        |[left, top, right, bottom]: [f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(left: f32, score: f32, class: u32) -> Detection {
        Detection { bbox: [left, 0.0, left + 10.0, 10.0], score, class }
    }

    #[test]
    fn boxes_are_paired_by_class_and_place_whatever_their_order() {
        let reference = vec![vec![found(0.0, 0.9, 1), found(50.0, 0.5, 2)], vec![]];
        assert_eq!(
            Agreement::of(&reference, &reference),
            Agreement { boxes: 2, ..Agreement::default() }
        );
        let other = vec![vec![found(50.25, 0.375, 2), found(0.0, 0.9, 1)], vec![]];
        let agreement = Agreement::of(&other, &reference);
        assert_eq!(agreement, Agreement { boxes: 2, missing: 0, box_px: 0.25, score: 0.125 });
    }

    #[test]
    fn what_only_one_of_them_sees_is_missing() {
        // Another class in the same place, one too far away, and one too many.
        let reference = vec![vec![found(0.0, 0.9, 1), found(50.0, 0.5, 2)], vec![]];
        let other = vec![vec![found(0.0, 0.9, 7), found(58.0, 0.5, 2)], vec![found(0.0, 0.3, 1)]];
        let agreement = Agreement::of(&other, &reference);
        assert_eq!((agreement.boxes, agreement.missing), (3, 5));
        assert_eq!((agreement.box_px, agreement.score), (0.0, 0.0));
    }
}
