//! What the network should answer to the check picture.
//!
//! An engine that builds, loads and finds nothing is the worst of failures, because it
//! looks like an empty street. So while an engine is built, the same model answers the
//! check picture in f32 on the CPU, where OpenVINO is installed, and its strongest boxes
//! are kept with the engine. Each time the engine is loaded, it must find them too.

use crate::answer::with_check_picture;
use crate::api::{
    Backend, BatchOutput, FrameRequest, InputShape, LoadOptions, Precision, Shape, Thresholds,
};
use crate::openvino::OpenVino;
use framebus_model::Model;
use framebus_vision::{Detection, iou};
use std::fmt::Write as _;

/// Boxes that are kept.
const BOXES: usize = 32;
/// Boxes of the engine's own answer among which they are looked for: near the end of a
/// list rounding changes the order.
pub(super) const LOOKED_AT: usize = 4 * BOXES;
/// Of four boxes three must be found: the check picture shows no object, so many are
/// close to another one of the same score.
const FOUND: (usize, usize) = (3, 4);
/// Least overlap with a kept box.
const OVERLAP: f32 = 0.7;
/// Largest difference of a box's logit; 16 bits change it by some hundredths.
const LOGIT: f32 = 0.5;

/// The strongest boxes that another engine found in the check picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference(Vec<Detection>);

/// Thresholds that keep the strongest boxes, however weak they are.
pub(super) fn thresholds() -> Thresholds {
    Thresholds { confidence: 0.0, iou: 0.7, max_detections: LOOKED_AT, classes: None }
}

impl Reference {
    /// What OpenVINO answers; `None`, with a line in the log, where it cannot.
    pub(super) fn ask(model: &Model, shape: Shape, options: &LoadOptions) -> Option<Self> {
        let options = LoadOptions {
            precision: Precision::F32,
            input: InputShape::Fixed(shape),
            contexts: 1,
            // Another backend may be serving on the same cores.
            threads: 1,
            ..LoadOptions::new(options.clock)
        };
        let answer = || {
            let mut engine = OpenVino.load(model, &options)?;
            let mut contexts = engine.contexts(shape)?;
            let mut output = BatchOutput::default();
            if let Some(context) = contexts.first_mut() {
                with_check_picture(shape, |view, _| {
                    let thresholds = thresholds();
                    let request = FrameRequest { view, thresholds: &thresholds, memory: None };
                    context.run(&[request], &mut output)
                })
                .map_err(|error| super::failed(model.name(), error))??;
            }
            Ok::<_, crate::api::EngineError>(output)
        };
        match answer() {
            Ok(mut output) => {
                let mut boxes = std::mem::take(&mut output.frames.first_mut()?.detections);
                boxes.truncate(BOXES);
                (!boxes.is_empty()).then_some(Self(boxes))
            }
            Err(error) => {
                tracing::info!(
                    reason = %error,
                    "no reference answer is kept with the engine: OpenVINO cannot give one"
                );
                None
            }
        }
    }

    /// Whether `found`, the answer to the same picture, has these boxes.
    pub(super) fn judge(&self, found: &[Detection]) -> Result<(), String> {
        let alike = |known: &&Detection| {
            found.iter().any(|other| {
                iou(known.bbox, other.bbox) >= OVERLAP
                    && (logit(known.score) - logit(other.score)).abs() <= LOGIT
            })
        };
        let agreed = self.0.iter().filter(alike).count();
        if agreed * FOUND.1 >= self.0.len() * FOUND.0 {
            return Ok(());
        }
        Err(format!(
            "of the {} strongest boxes that the model has in the check picture it finds {agreed}; \
             the engine computes something else than the model",
            self.0.len()
        ))
    }

    pub(super) fn write(&self, text: &mut String) {
        // Writing to a string cannot fail; `{}` of a float reads back to the same bits.
        let _ = writeln!(text, "reference {}", self.0.len());
        for Detection { bbox: [left, top, right, bottom], score, class } in &self.0 {
            let _ = writeln!(text, "{class} {score} {left} {top} {right} {bottom}");
        }
    }

    /// Reads what [`Self::write`] wrote, where it is there, and answers the rest.
    pub(super) fn read(text: &[u8]) -> Result<(Option<Self>, &[u8]), String> {
        if !text.starts_with(b"reference ") {
            return Ok((None, text));
        }
        let wrong = || "it is damaged: its reference cannot be read".to_owned();
        let (line, mut rest) = split_line(text).ok_or_else(wrong)?;
        let count = line.strip_prefix("reference ").and_then(|count| count.parse().ok());
        let count: usize = count.filter(|&count| count <= BOXES).ok_or_else(wrong)?;
        let mut boxes = Vec::with_capacity(count);
        for _ in 0..count {
            let (line, after) = split_line(rest).ok_or_else(wrong)?;
            boxes.push(detection(line).ok_or_else(wrong)?);
            rest = after;
        }
        Ok((Some(Self(boxes)), rest))
    }
}

fn split_line(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|&byte| byte == b'\n')?;
    Some((std::str::from_utf8(&text[..end]).ok()?, &text[end + 1..]))
}

fn detection(line: &str) -> Option<Detection> {
    let mut words = line.split(' ');
    let class = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<f32>().ok();
    let score = number()?;
    let bbox = [number()?, number()?, number()?, number()?];
    Some(Detection { bbox, score, class })
}

fn logit(score: f32) -> f32 {
    let score = score.clamp(1e-7, 1.0 - 1e-7);
    (score / (1.0 - score)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes() -> Vec<Detection> {
        let at = |i: u32| {
            let x = 40.0 * i as f32;
            Detection { bbox: [x, 8.25, x + 30.0, 60.0], score: 0.01 + 0.02 * i as f32, class: i }
        };
        (0..16).map(at).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let reference = Reference(boxes());
        let mut text = String::new();
        reference.write(&mut text);
        text.push_str("engine 3\nabc");
        let (read, rest) = Reference::read(text.as_bytes()).expect("readable");
        assert_eq!((read, rest), (Some(reference), &b"engine 3\nabc"[..]));
        assert_eq!(Reference::read(b"engine 1\nx").expect("absent").0, None);
        for broken in ["reference 99\n", "reference 1\n1 2 3\n", "reference 2\n0 0 0 0 1 1\n"] {
            assert!(Reference::read(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_engine_that_computes_something_else_is_refused() {
        let reference = Reference(boxes());
        let mut close = boxes();
        for found in &mut close {
            found.bbox[0] += 1.5;
            found.score *= 1.05;
        }
        assert_eq!(reference.judge(&close), Ok(()));
        // A fifth of them may be missing, a half may not.
        assert_eq!(reference.judge(&close[3..]), Ok(()));
        assert!(reference.judge(&close[8..]).is_err());
        assert!(reference.judge(&[]).unwrap_err().contains("it finds 0"));
        for found in &mut close {
            found.score = 0.9;
        }
        assert!(reference.judge(&close).is_err(), "scores count too");
    }
}
