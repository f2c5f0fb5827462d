//! From a network's output to detections in source pixels, in one call.

use crate::detection::Detection;
use crate::heads::{HeadDecoder, HeadOutput, sigmoid};
use crate::letterbox::Letterbox;
use crate::nms::{Nms, NmsCounts};
use crate::yolo::{Candidate, DecodeCounts, DecodeError, Decoder, DenseOutput, Layout, Sieve};

/// Which boxes to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds<'a> {
    /// Scores must be over this, 0..=1.
    pub confidence: f32,
    /// Overlap over which the weaker of two boxes of one class goes, 0..=1.
    /// Without effect on end-to-end outputs.
    pub iou: f32,
    /// Boxes kept, strongest first.
    pub max_detections: usize,
    /// Class numbers to keep; `None` keeps all.
    pub classes: Option<&'a [u32]>,
}

/// What became of an output besides its detections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Boxes over the confidence threshold, before suppression.
    pub candidates: u32,
    /// Boxes that survived suppression but not `max_detections`.
    pub truncated: u32,
    /// NaN and infinite values in the output; more than none means that the
    /// network's answer is broken and the frame should fail.
    pub non_finite: u32,
    /// Boxes over the threshold without an area, outside the picture, or of a
    /// class that the model does not have.
    pub invalid: u32,
    /// Candidates beyond [`crate::nms::MAX_CANDIDATES`], dropped unseen.
    pub over_cap: u32,
}

/// Decode, suppression and mapping to the source, with their scratch memory.
/// One per worker.
#[derive(Debug, Clone, Default)]
pub struct Postprocess {
    decoder: Decoder,
    heads: HeadDecoder,
    candidates: Vec<Candidate>,
    nms: Nms,
}

impl Postprocess {
    /// Replaces the contents of `out` by the detections of `output`, strongest
    /// first, in pixels of the letterbox's source.
    ///
    /// # Errors
    /// [`DecodeError::Threshold`] when a threshold is no number in 0..=1; `out`
    /// is then empty.
    pub fn run(
        &mut self,
        output: DenseOutput<'_>,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
        out: &mut Vec<Detection>,
    ) -> Result<Counts, DecodeError> {
        out.clear();
        thresholds.check()?;
        let decoded = self.decoder.run(
            output,
            thresholds.confidence,
            thresholds.classes,
            &mut self.candidates,
        );
        let kept = match output.layout() {
            Layout::EndToEnd => self.nms.strongest(&self.candidates, thresholds.max_detections),
            Layout::ChannelsFirst | Layout::AnchorsFirst => {
                self.nms.run(&self.candidates, thresholds.iou, thresholds.max_detections)
            }
        };
        Ok(finish(&self.candidates, decoded, kept, letterbox, out))
    }

    /// As [`Self::run`] for a network whose head was cut before its tail: the same
    /// detections as the whole network's dense output gives.
    ///
    /// A head that was trained to answer once per object (YOLOv10's one-to-one head)
    /// wants an `iou` of 1, which suppresses nothing.
    ///
    /// [`Counts::non_finite`] counts what was read: all class logits, and the box
    /// values of cells over the confidence threshold.
    ///
    /// # Errors
    /// [`DecodeError::Threshold`]; `out` is then empty.
    pub fn run_heads(
        &mut self,
        output: HeadOutput<'_>,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
        out: &mut Vec<Detection>,
    ) -> Result<Counts, DecodeError> {
        out.clear();
        thresholds.check()?;
        let decoded =
            self.heads.run(output, thresholds.confidence, thresholds.classes, &mut self.candidates);
        Ok(self.suppressed(decoded, thresholds, letterbox, out))
    }

    /// As [`Self::run_heads`] where a GPU has read the maps: `cells` are those that
    /// reach [`heads::logit_below`](crate::heads::logit_below) of the confidence, in the
    /// order of the maps, and `non_finite` the broken values that it met.
    ///
    /// # Errors
    /// [`DecodeError::Threshold`]; `out` is then empty.
    pub fn run_cells(
        &mut self,
        cells: impl IntoIterator<Item = Cell>,
        non_finite: u32,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
        out: &mut Vec<Detection>,
    ) -> Result<Counts, DecodeError> {
        out.clear();
        thresholds.check()?;
        self.candidates.clear();
        let mut sieve = Sieve {
            confidence: thresholds.confidence,
            classes: thresholds.classes,
            out: &mut self.candidates,
            counts: DecodeCounts { non_finite, ..DecodeCounts::default() },
        };
        for Cell { bbox, logit, class } in cells {
            let score = sigmoid(logit);
            if score > thresholds.confidence {
                sieve.push(bbox, score, class);
            }
        }
        let decoded = sieve.counts;
        Ok(self.suppressed(decoded, thresholds, letterbox, out))
    }

    /// What suppression leaves of the candidates.
    fn suppressed(
        &mut self,
        decoded: DecodeCounts,
        thresholds: &Thresholds<'_>,
        letterbox: &Letterbox,
        out: &mut Vec<Detection>,
    ) -> Counts {
        let kept = self.nms.run(&self.candidates, thresholds.iou, thresholds.max_detections);
        finish(&self.candidates, decoded, kept, letterbox, out)
    }
}

/// A cell of a cut head whose best class may pass, as somebody else decoded it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Left, top, right, bottom in network pixels.
    pub bbox: [f32; 4],
    /// Largest class logit.
    pub logit: f32,
    /// Its class.
    pub class: u32,
}

impl Thresholds<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        for (name, value) in [("confidence", self.confidence), ("iou", self.iou)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(DecodeError::Threshold { name, value });
            }
        }
        Ok(())
    }
}

/// Maps the kept candidates to the source.
fn finish(
    candidates: &[Candidate],
    decoded: DecodeCounts,
    (kept, nms): (&[u32], NmsCounts),
    letterbox: &Letterbox,
    out: &mut Vec<Detection>,
) -> Counts {
    let mut invalid = decoded.invalid;
    for &index in kept {
        let Candidate { bbox, score, class } = candidates[index as usize];
        let bbox = letterbox.to_source(bbox);
        // Only grey padding lies under a box that clipping made empty.
        if bbox[2] > bbox[0] && bbox[3] > bbox[1] {
            out.push(Detection { bbox, score, class });
        } else {
            invalid += 1;
        }
    }
    Counts {
        candidates: candidates.len() as u32,
        truncated: nms.truncated,
        non_finite: decoded.non_finite,
        invalid,
        over_cap: nms.over_cap,
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Postprocess, Thresholds};
    use crate::detection::Detection;
    use crate::letterbox::Letterbox;
    use crate::yolo::{DecodeError, DenseOutput, Layout};

    const THRESHOLDS: Thresholds<'_> =
        Thresholds { confidence: 0.25, iou: 0.45, max_detections: 300, classes: None };

    #[test]
    fn two_objects_of_a_wide_picture() {
        let rows = [
            [100.0, 240.0, 60.0, 80.0, 0.1, 0.6],
            [102.0, 240.0, 60.0, 80.0, 0.1, 0.9],
            [10.0, 150.0, 40.0, 40.0, 0.8, 0.1],
            // In the grey above the picture.
            [300.0, 50.0, 40.0, 40.0, 0.5, 0.1],
            [300.0, 250.0, 40.0, 40.0, 0.1, 0.2],
        ]
        .concat();
        let letterbox = Letterbox::new(1280, 720, 640, 640);
        let output = DenseOutput::new(&rows, Layout::AnchorsFirst, 2, 5).unwrap();
        let mut found = vec![Detection::default()];
        let counts =
            Postprocess::default().run(output, &THRESHOLDS, &letterbox, &mut found).unwrap();
        assert_eq!(
            found,
            [
                Detection { bbox: [144.0, 120.0, 264.0, 280.0], score: 0.9, class: 1 },
                Detection { bbox: [0.0, 0.0, 60.0, 60.0], score: 0.8, class: 0 },
            ]
        );
        assert_eq!(counts, Counts { candidates: 4, invalid: 1, ..Counts::default() });
    }

    #[test]
    fn end_to_end_outputs_are_not_suppressed_again() {
        let rows = [[0.0, 0.0, 10.0, 10.0, 0.6, 0.0], [0.0, 0.0, 10.0, 10.0, 0.9, 0.0]].concat();
        let output = DenseOutput::new(&rows, Layout::EndToEnd, 1, 2).unwrap();
        let letterbox = Letterbox::new(32, 32, 32, 32);
        let mut found = vec![];
        let thresholds = Thresholds { max_detections: 1, ..THRESHOLDS };
        let mut post = Postprocess::default();
        post.run(output, &THRESHOLDS, &letterbox, &mut found).unwrap();
        assert_eq!(found.iter().map(|d| d.score).collect::<Vec<_>>(), [0.9, 0.6]);
        let counts = post.run(output, &thresholds, &letterbox, &mut found).unwrap();
        assert_eq!((found.len(), counts.truncated), (1, 1));
    }

    #[test]
    fn thresholds_must_be_fractions() {
        let letterbox = Letterbox::new(32, 32, 32, 32);
        let output = DenseOutput::new(&[], Layout::ChannelsFirst, 1, 0).unwrap();
        for value in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            let run = |thresholds| {
                let mut found = vec![Detection::default()];
                let answer =
                    Postprocess::default().run(output, &thresholds, &letterbox, &mut found);
                assert_eq!(found, []);
                match answer {
                    Err(DecodeError::Threshold { name, .. }) => name,
                    other => panic!("{value}: {other:?}"),
                }
            };
            assert_eq!(run(Thresholds { confidence: value, ..THRESHOLDS }), "confidence");
            assert_eq!(run(Thresholds { iou: value, ..THRESHOLDS }), "iou");
        }
    }
}
