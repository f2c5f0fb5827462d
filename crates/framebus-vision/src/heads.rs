//! Decode of a YOLO head that was cut before its tail.
//!
//! Each scale answers two raw maps: four distributions over `bins` distances per
//! cell, and one logit per class and cell. What the exported graph's tail would do
//! for every cell happens here for the few cells that pass the threshold:
//! - score = sigmoid(largest class logit); the scan compares logits with
//!   logit(confidence) first;
//! - distance of a side = Σ softmax(bins)ᵢ · i, in cells (Distribution Focal Loss,
//!   Li et al. 2020, arXiv:2006.04388); with one bin, the value itself;
//! - box = (cell index + 0.5 ∓ distance) · stride, sides left, top, right, bottom.
//!
//! The threshold is decided on the score, the sigmoid in f64 rounded to f32: a score
//! equal to the confidence is not over it. The best class is the one of the largest
//! logit, the lowest number among equals; a whole network's output can differ only
//! where two logits round to one score.
//!
//! ```
//! use framebus_vision::{HeadOutput, HeadScale, Letterbox, Postprocess, Thresholds};
//!
//! # fn main() -> Result<(), framebus_vision::DecodeError> {
//! // One scale of one cell, two classes, distances of 0.5 cells.
//! let (boxes, classes) = ([0.5; 4], [-9.0, 3.0]);
//! let scale = HeadScale { boxes: &boxes, classes: &classes, width: 1, height: 1, stride: 32 };
//! let scales = [scale];
//! let output = HeadOutput::new(&scales, 2, 1)?;
//! let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
//! let letterbox = Letterbox::new(32, 32, 32, 32);
//! let mut detections = Vec::new();
//! Postprocess::default().run_heads(output, &thresholds, &letterbox, &mut detections)?;
//! assert_eq!((detections[0].class, detections[0].bbox), (1, [0.0, 0.0, 32.0, 32.0]));
//! # Ok(())
//! # }
//! ```

use crate::dfl::Group;
use crate::scan::{BLOCK, Running};
use crate::yolo::{Candidate, DecodeCounts, DecodeError, Sieve};
use pulp::{Arch, Simd, WithSimd};

/// One scale of a cut head: the raw values of one frame.
#[derive(Debug, Clone, Copy)]
pub struct HeadScale<'a> {
    /// `[4 * bins, height, width]`: logits of the distances left, top, right,
    /// bottom.
    pub boxes: &'a [f32],
    /// `[classes, height, width]`: logits.
    pub classes: &'a [f32],
    /// Cells of a row.
    pub width: usize,
    /// Rows of cells.
    pub height: usize,
    /// Network pixels from one cell to the next: 8, 16, 32.
    pub stride: usize,
}

/// The scales of one frame, known to have the lengths that their shapes say.
#[derive(Debug, Clone, Copy)]
pub struct HeadOutput<'a> {
    scales: &'a [HeadScale<'a>],
    bins: usize,
}

impl<'a> HeadOutput<'a> {
    /// Binds the scales to their shapes, in the order of the network's anchors
    /// (finest first). `bins` is 16 in YOLOv8 and its successors; 1 stands for
    /// heads that answer distances themselves.
    ///
    /// # Errors
    /// [`DecodeError::NoClasses`], [`DecodeError::NoBins`],
    /// [`DecodeError::NoScales`], [`DecodeError::ScaleLength`].
    pub fn new(
        scales: &'a [HeadScale<'a>],
        classes: usize,
        bins: usize,
    ) -> Result<Self, DecodeError> {
        if classes == 0 {
            return Err(DecodeError::NoClasses);
        }
        if bins == 0 {
            return Err(DecodeError::NoBins);
        }
        if scales.is_empty() {
            return Err(DecodeError::NoScales);
        }
        for (scale, map) in scales.iter().enumerate() {
            let &HeadScale { width, height, .. } = map;
            let box_channels = bins.saturating_mul(4);
            for (what, values, channels) in
                [("box", map.boxes, box_channels), ("class", map.classes, classes)]
            {
                let need = width.checked_mul(height).and_then(|cells| cells.checked_mul(channels));
                if need != Some(values.len()) {
                    let have = values.len();
                    return Err(DecodeError::ScaleLength {
                        scale,
                        what,
                        channels,
                        width,
                        height,
                        have,
                    });
                }
            }
        }
        Ok(Self { scales, bins })
    }
}

/// Decodes cut heads; keeps its scratch memory from frame to frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadDecoder {
    running: Box<Running>,
    group: Group,
}

impl HeadDecoder {
    /// Writes all candidates with a score strictly over `confidence` to `out`:
    /// scale by scale, row by row. `classes` as in [`crate::Decoder::run`].
    pub(crate) fn run(
        &mut self,
        output: HeadOutput<'_>,
        confidence: f32,
        classes: Option<&[u32]>,
        out: &mut Vec<Candidate>,
    ) -> DecodeCounts {
        out.clear();
        let sieve = Sieve { confidence, classes, out, counts: DecodeCounts::default() };
        self.run_on(Arch::new(), output, sieve)
    }

    fn run_on(&mut self, arch: Arch, output: HeadOutput<'_>, sieve: Sieve<'_>) -> DecodeCounts {
        self.group.start(output.bins);
        arch.dispatch(Pass { decoder: self, output, sieve })
    }
}

/// One call of [`HeadDecoder::run`], compiled once per level of vector
/// instructions.
struct Pass<'a> {
    decoder: &'a mut HeadDecoder,
    output: HeadOutput<'a>,
    sieve: Sieve<'a>,
}

impl WithSimd for Pass<'_> {
    type Output = DecodeCounts;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> DecodeCounts {
        let Self { decoder: HeadDecoder { running, group }, output, mut sieve } = self;
        let limit = logit_below(sieve.confidence);
        for scale in output.scales {
            let cells = scale.width * scale.height;
            let mut start = 0;
            while start < cells {
                let len = BLOCK.min(cells - start);
                running.clear();
                let rows = scale.classes.chunks_exact(cells).map(|row| &row[start..start + len]);
                running.add_rows(rows);
                running.hits(len, limit, |i, best, finite| {
                    look(scale, start + i, best, finite, group, &mut sieve);
                });
                start += len;
            }
            group.finish(scale, &mut sieve);
        }
        sieve.counts
    }
}

/// A logit that no score over `confidence` lies below: the scan lets a few ulp too
/// much through, and the score itself is compared afterwards. −∞ for 0, the
/// largest number for 1.
#[must_use]
pub fn logit_below(confidence: f32) -> f32 {
    let confidence = f64::from(confidence);
    ((confidence / (1.0 - confidence)).ln() as f32).next_down()
}

pub(crate) fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Looks closely at one cell, whose largest logit is `best`.
#[inline(always)]
fn look(
    scale: &HeadScale<'_>,
    cell: usize,
    best: f32,
    finite: bool,
    group: &mut Group,
    sieve: &mut Sieve<'_>,
) {
    let cells = scale.width * scale.height;
    let mut logits = scale.classes[cell..].iter().step_by(cells);
    if !finite {
        let broken = logits.clone().filter(|v| !v.is_finite()).count();
        sieve.counts.non_finite += broken as u32;
        if broken > 0 {
            return;
        }
    }
    let score = sigmoid(best);
    if score <= sieve.confidence {
        return;
    }
    // The maximum is one of the logits, and the first one of its value counts.
    let Some(class) = logits.position(|&v| v == best) else { return };
    let class = class as u32;
    if sieve.wants(class) {
        group.push(scale, cell, score, class, sieve);
    }
}

#[cfg(test)]
mod tests {
    use super::{HeadDecoder, HeadOutput, HeadScale};
    use crate::levels::levels;
    use crate::yolo::{DecodeCounts, Sieve};

    #[test]
    fn all_levels_of_vector_instructions_agree_to_the_bit() {
        let (width, height) = (37, 19);
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8 as f32 / 32.0 - 4.0;
        let boxes: Vec<f32> = (0..64 * width * height).map(value).collect();
        let classes: Vec<f32> = (1..=7 * width * height).map(value).collect();
        let scales = [HeadScale { boxes: &boxes, classes: &classes, width, height, stride: 8 }];
        let output = HeadOutput::new(&scales, 7, 16).unwrap();
        let [plain, others @ ..] = &levels()
            .into_iter()
            .map(|level| {
                let mut out = vec![];
                let counts = DecodeCounts::default();
                let sieve = Sieve { confidence: 0.95, classes: None, out: &mut out, counts };
                let counts = HeadDecoder::default().run_on(level, output, sieve);
                (out, counts)
            })
            .collect::<Vec<_>>()[..]
        else {
            panic!("no level at all");
        };
        assert!(plain.0.len() > 100, "{} candidates", plain.0.len());
        for other in others {
            assert_eq!(other, plain);
        }
    }
}
