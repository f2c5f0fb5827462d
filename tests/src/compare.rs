//! Boxes against reference boxes.

use crate::{Found, assets::repository};
use serde_json::Value;

/// A reference box.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Class name.
    pub label: String,
    /// Confidence, 0..=1.
    pub score: f64,
    /// Left, top, right, bottom in source pixels.
    pub bbox: [f64; 4],
}

/// Intersection over union.
#[must_use]
pub fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let side = |low: f64, high: f64| (high - low).max(0.0);
    let common = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
    let area = |r: [f64; 4]| side(r[0], r[2]) * side(r[1], r[3]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// Size of the picture and the boxes of `fixtures/reference/<name>.json`, which
/// ONNX Runtime answered in f32 for the standard letterbox to 640x640 with
/// confidence 0.25 and IoU 0.45.
///
/// # Panics
/// When the file is damaged.
#[must_use]
pub fn reference(name: &str) -> ([u32; 2], Vec<Expected>) {
    let path = repository().join(format!("tests/fixtures/reference/{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the fixture is in the repository");
    let value: Value = serde_json::from_str(&text).expect("the fixture is JSON");
    let size = [0, 1].map(|i| value["size"][i].as_u64().expect("a size") as u32);
    let boxes = value["detections"].as_array().expect("a list").iter().map(expected);
    (size, boxes.collect())
}

fn expected(value: &Value) -> Expected {
    Expected {
        label: value["label"].as_str().expect("a label").to_owned(),
        score: value["score"].as_f64().expect("a score"),
        bbox: [0, 1, 2, 3].map(|i| value["box"][i].as_f64().expect("an edge")),
    }
}

/// Whether every `want` above `from` has its own `have` of the same label with
/// at least `min_iou` and a score within `within`, and nothing unmatched in
/// `have` scores above `extra`. The error lists both sides.
///
/// # Errors
/// What is missing, off or too much.
pub fn matches(
    want: &[Expected],
    have: &[Found],
    from: f64,
    min_iou: f64,
    within: f64,
    extra: f64,
) -> Result<(), String> {
    let mut free: Vec<&Found> = have.iter().collect();
    let fail = |what: String| Err(format!("{what}\nwant {want:#?}\nhave {have:#?}"));
    for expected in want {
        let overlap = |found: &&Found| {
            if found.label != expected.label {
                return 0.0;
            }
            iou(found.bbox.map(f64::from), expected.bbox)
        };
        let best = (0..free.len()).max_by(|&a, &b| overlap(&free[a]).total_cmp(&overlap(&free[b])));
        let good = best.filter(|&i| overlap(&free[i]) >= min_iou);
        match good {
            Some(i) => {
                let off = (f64::from(free[i].score) - expected.score).abs();
                if expected.score > from && off > within {
                    return fail(format!("score off by {off:.4}: {expected:?}"));
                }
                free.remove(i);
            }
            None if expected.score > from => {
                let iou = best.map_or(0.0, |i| overlap(&free[i]));
                return fail(format!("not found (best IoU {iou:.4}): {expected:?}"));
            }
            None => {}
        }
    }
    match free.iter().find(|found| f64::from(found.score) > extra) {
        Some(found) => fail(format!("too much: {found:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: &str, score: f32, bbox: [f32; 4]) -> Found {
        Found { label: label.to_owned(), class: 0, score, bbox }
    }

    #[test]
    fn the_comparison_finds_what_it_is_for() {
        let bbox = [0.0, 0.0, 100.0, 100.0];
        let want = [Expected { label: "cat".to_owned(), score: 0.8, bbox }];
        let judge = |have: &[Found]| matches(&want, have, 0.3, 0.95, 0.02, 0.35);
        assert_eq!(judge(&[found("cat", 0.81, [0.0, 0.0, 100.0, 99.0])]), Ok(()));
        for (have, word) in [
            (vec![], "not found"),
            (vec![found("dog", 0.8, [0.0, 0.0, 100.0, 100.0])], "not found"),
            (vec![found("cat", 0.8, [0.0, 0.0, 100.0, 90.0])], "not found (best IoU 0.9000)"),
            (vec![found("cat", 0.77, [0.0, 0.0, 100.0, 100.0])], "score off"),
            (
                vec![
                    found("cat", 0.8, [0.0, 0.0, 100.0, 100.0]),
                    found("cat", 0.4, [200.0, 0.0, 300.0, 100.0]),
                ],
                "too much",
            ),
        ] {
            assert!(judge(&have).is_err_and(|error| error.starts_with(word)), "{word}");
        }
    }
}
