//! From a network's output to candidate boxes.
//!
//! Covers the dense outputs of YOLOv8-like exports, in which scores are
//! probabilities and boxes are in network pixels already: four box rows, then one
//! row per class, for every anchor, in either order; and end-to-end outputs whose
//! graph has chosen the boxes itself.

use crate::scan::{BLOCK, Running};
use pulp::{Arch, Simd, WithSimd};
use std::fmt;

/// Order of the values in a network's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[4 + classes, anchors]`: rows cx, cy, w, h, then one per class.
    /// What Ultralytics exports by default.
    ChannelsFirst,
    /// `[anchors, 4 + classes]`: the same, transposed.
    AnchorsFirst,
    /// `[anchors, 6]`: x1, y1, x2, y2, score, class, suppressed by the graph.
    EndToEnd,
}

/// The output of one frame, known to have the length that its shape says.
#[derive(Debug, Clone, Copy)]
pub struct DenseOutput<'a> {
    data: &'a [f32],
    layout: Layout,
    classes: usize,
    anchors: usize,
}

/// Why an output cannot be decoded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A model needs one class at least.
    NoClasses,
    /// The values do not fill the shape.
    Length {
        /// Layout of the shape.
        layout: Layout,
        /// Classes of the shape.
        classes: usize,
        /// Anchors of the shape.
        anchors: usize,
        /// Values there are.
        have: usize,
    },
    /// A cut head without any scale.
    NoScales,
    /// A cut head needs one bin for each side's distance at least.
    NoBins,
    /// The values of one scale of a cut head do not fill its shape.
    ScaleLength {
        /// Which scale, from 0.
        scale: usize,
        /// `"box"` or `"class"`.
        what: &'static str,
        /// Channels of the shape: 4 · bins, or the classes.
        channels: usize,
        /// Width of the shape in cells.
        width: usize,
        /// Height of the shape in cells.
        height: usize,
        /// Values there are.
        have: usize,
    },
    /// A threshold is not a number, or outside 0..=1.
    Threshold {
        /// Which one.
        name: &'static str,
        /// What it was.
        value: f32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoClasses => f.write_str(
                "network output has no class rows: it needs 4 box rows and one row per class",
            ),
            Self::Length { layout, classes, anchors, have } => write!(
                f,
                "network output has {have} values, which do not fill a {layout:?} output of \
                 {anchors} anchors and {classes} classes: check the model's output shape"
            ),
            Self::NoScales => f.write_str(
                "cut head has no scales: it needs one pair of box and class outputs at least",
            ),
            Self::NoBins => f.write_str(
                "cut head has box outputs without channels: they need 4 times as many as a \
                 distance has bins",
            ),
            Self::ScaleLength { scale, what, channels, width, height, have } => write!(
                f,
                "{what} output of scale {scale} has {have} values, which do not fill \
                 {channels}x{height}x{width}: check the model's output shapes"
            ),
            Self::Threshold { name, value } => {
                write!(f, "threshold `{name}` is {value}, it must lie between 0 and 1")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl<'a> DenseOutput<'a> {
    /// Binds values to a shape. `anchors` is the number of boxes that the network
    /// answers (8400 for 640x640; the rows of an end-to-end output).
    ///
    /// # Errors
    /// [`DecodeError::NoClasses`], [`DecodeError::Length`].
    pub fn new(
        data: &'a [f32],
        layout: Layout,
        classes: usize,
        anchors: usize,
    ) -> Result<Self, DecodeError> {
        if classes == 0 {
            return Err(DecodeError::NoClasses);
        }
        let channels = match layout {
            Layout::ChannelsFirst | Layout::AnchorsFirst => classes.checked_add(4),
            Layout::EndToEnd => Some(6),
        };
        if channels.and_then(|n| n.checked_mul(anchors)) != Some(data.len()) {
            return Err(DecodeError::Length { layout, classes, anchors, have: data.len() });
        }
        Ok(Self { data, layout, classes, anchors })
    }

    /// Order of the values.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }
}

/// A box over the confidence threshold, in network pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Left, top, right, bottom.
    pub bbox: [f32; 4],
    /// Score of the best class.
    pub score: f32,
    /// The best class; the lowest number among equals.
    pub class: u32,
}

/// Values that made no candidate although they should have been one or were no
/// numbers at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeCounts {
    /// NaN and infinite values anywhere in the output. An anchor with one of
    /// them is never a candidate. A sound model has none: fail the frame.
    pub non_finite: u32,
    /// Boxes over the threshold without an area, or of a class that the model
    /// does not have.
    pub invalid: u32,
}

/// Decodes outputs; keeps the scratch memory from frame to frame.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    running: Box<Running>,
}

impl Decoder {
    /// Writes all candidates with a score strictly over `confidence` to `out`, in
    /// the order of the anchors. `classes` keeps those class numbers only; an
    /// anchor whose best class is another one is no candidate.
    pub fn run(
        &mut self,
        output: DenseOutput<'_>,
        confidence: f32,
        classes: Option<&[u32]>,
        out: &mut Vec<Candidate>,
    ) -> DecodeCounts {
        out.clear();
        let mut sieve = Sieve { confidence, classes, out, counts: DecodeCounts::default() };
        match output.layout {
            Layout::ChannelsFirst => {
                let running = &mut self.running;
                Arch::new().dispatch(ChannelsFirst { running, output, sieve: &mut sieve });
            }
            Layout::AnchorsFirst => anchors_first(output, &mut sieve),
            Layout::EndToEnd => end_to_end(output, &mut sieve),
        }
        sieve.counts
    }
}

/// Decode of such an output, compiled once per level of vector instructions.
struct ChannelsFirst<'a, 'b> {
    running: &'a mut Running,
    output: DenseOutput<'a>,
    sieve: &'a mut Sieve<'b>,
}

impl WithSimd for ChannelsFirst<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { running, output: DenseOutput { data, anchors, .. }, sieve } = self;
        // Over the threshold, not on it.
        let limit = sieve.confidence.next_up();
        let mut start = 0;
        while start < anchors {
            let len = BLOCK.min(anchors - start);
            running.clear();
            let (boxes, scores) = data.split_at(4 * anchors);
            let block = start..start + len;
            for row in boxes.chunks_exact(anchors) {
                running.add(&row[block.clone()]);
            }
            running.add_rows(scores.chunks_exact(anchors).map(|row| &row[block.clone()]));
            // The slow path finds nothing wrong where only the sum overflowed, and
            // treats the anchor as any other.
            running.hits(len, limit, |i, _, _| {
                sieve.anchor(data[start + i..].iter().step_by(anchors).copied());
            });
            start += len;
        }
    }
}

fn anchors_first(output: DenseOutput<'_>, sieve: &mut Sieve<'_>) {
    for row in output.data.chunks_exact(4 + output.classes) {
        let mut sum = 0.0;
        let mut best = f32::NEG_INFINITY;
        for &v in &row[..4] {
            sum += v;
        }
        for &v in &row[4..] {
            sum += v;
            best = if v > best { v } else { best };
        }
        if best > sieve.confidence || !sum.is_finite() {
            sieve.anchor(row.iter().copied());
        }
    }
}

fn end_to_end(output: DenseOutput<'_>, sieve: &mut Sieve<'_>) {
    for row in output.data.as_chunks::<6>().0 {
        let bad = row.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            sieve.counts.non_finite += bad as u32;
            continue;
        }
        let [x1, y1, x2, y2, score, class] = *row;
        if score > sieve.confidence {
            // A float class is exact up to 2^24; anything else is no class.
            let known = class >= 0.0 && class.fract() == 0.0 && (class as usize) < output.classes;
            if known {
                sieve.push([x1, y1, x2, y2], score, class as u32);
            } else {
                sieve.counts.invalid += 1;
            }
        }
    }
}

/// The rules that every layout shares.
pub(crate) struct Sieve<'a> {
    pub(crate) confidence: f32,
    pub(crate) classes: Option<&'a [u32]>,
    pub(crate) out: &'a mut Vec<Candidate>,
    pub(crate) counts: DecodeCounts,
}

impl Sieve<'_> {
    /// Looks closely at one anchor: cx, cy, w, h, then a score per class.
    fn anchor(&mut self, values: impl Iterator<Item = f32>) {
        let mut bbox = [0.0; 4];
        let mut best = (f32::NEG_INFINITY, 0);
        let mut non_finite = 0;
        for (channel, value) in values.enumerate() {
            if !value.is_finite() {
                non_finite += 1;
            } else if channel < 4 {
                bbox[channel] = value;
            } else if value > best.0 {
                best = (value, channel as u32 - 4);
            }
        }
        self.counts.non_finite += non_finite;
        if non_finite == 0 && best.0 > self.confidence {
            let [cx, cy, w, h] = bbox;
            let (half_w, half_h) = (w / 2.0, h / 2.0);
            self.push([cx - half_w, cy - half_h, cx + half_w, cy + half_h], best.0, best.1);
        }
    }

    pub(crate) fn wants(&self, class: u32) -> bool {
        self.classes.is_none_or(|keep| keep.contains(&class))
    }

    /// Takes a box over the threshold whose values are finite.
    pub(crate) fn push(&mut self, bbox: [f32; 4], score: f32, class: u32) {
        if !self.wants(class) {
            return;
        }
        // False for what overflowed to infinity on both sides, too.
        if bbox[2] > bbox[0] && bbox[3] > bbox[1] && bbox.iter().all(|v| v.is_finite()) {
            self.out.push(Candidate { bbox, score, class });
        } else {
            self.counts.invalid += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, DecodeCounts, DecodeError, Decoder, DenseOutput, Layout};

    /// Anchors of cx, cy, w, h, scores, laid out both ways.
    fn decode_both(
        anchors: &[Vec<f32>],
        confidence: f32,
        classes: Option<&[u32]>,
    ) -> (Vec<Candidate>, DecodeCounts) {
        let channels = anchors[0].len();
        let rows: Vec<f32> = anchors.concat();
        let columns: Vec<f32> =
            (0..channels).flat_map(|c| anchors.iter().map(move |a| a[c])).collect();
        let mut answers = [(Layout::AnchorsFirst, rows), (Layout::ChannelsFirst, columns)].map(
            |(layout, data)| {
                let output = DenseOutput::new(&data, layout, channels - 4, anchors.len()).unwrap();
                let mut out = vec![];
                let counts = Decoder::default().run(output, confidence, classes, &mut out);
                (out, counts)
            },
        );
        assert_eq!(answers[0], answers[1], "layouts disagree");
        std::mem::take(&mut answers[0])
    }

    #[test]
    fn best_class_box_and_strict_threshold() {
        let anchors = [
            vec![100.0, 50.0, 20.0, 10.0, 0.3, 0.8, 0.8],
            vec![10.0, 10.0, 4.0, 4.0, 0.5, 0.0, 0.0],
            vec![10.0, 10.0, 4.0, 4.0, 0.0, 0.0, 0.500_001],
        ];
        let (found, counts) = decode_both(&anchors, 0.5, None);
        assert_eq!(
            found,
            [
                Candidate { bbox: [90.0, 45.0, 110.0, 55.0], score: 0.8, class: 1 },
                Candidate { bbox: [8.0, 8.0, 12.0, 12.0], score: 0.500_001, class: 2 },
            ]
        );
        assert_eq!(counts, DecodeCounts::default());
    }

    #[test]
    fn one_class() {
        let (found, _) = decode_both(&[vec![5.0, 5.0, 2.0, 2.0, 0.9]], 0.25, None);
        assert_eq!(found, [Candidate { bbox: [4.0, 4.0, 6.0, 6.0], score: 0.9, class: 0 }]);
    }

    #[test]
    fn filter_looks_at_the_best_class_only() {
        let anchors = [vec![5.0, 5.0, 2.0, 2.0, 0.6, 0.9], vec![5.0, 5.0, 2.0, 2.0, 0.9, 0.6]];
        let (found, _) = decode_both(&anchors, 0.25, Some(&[0]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class, 0);
        assert_eq!(decode_both(&anchors, 0.25, Some(&[])).0, []);
    }

    #[test]
    fn more_anchors_than_a_block() {
        let mut anchors = vec![vec![5.0, 5.0, 2.0, 2.0, 0.0, 0.1]; 1301];
        for (i, class) in [(0, 0), (511, 1), (512, 0), (1023, 1), (1024, 0), (1300, 1)] {
            anchors[i] = vec![i as f32, 7.0, 2.0, 2.0, 0.2, 0.2];
            anchors[i][4 + class] = 0.9;
        }
        let (found, _) = decode_both(&anchors, 0.5, None);
        let centres: Vec<(f32, u32)> = found.iter().map(|c| (c.bbox[0] + 1.0, c.class)).collect();
        let want = [(0.0, 0), (511.0, 1), (512.0, 0), (1023.0, 1), (1024.0, 0), (1300.0, 1)];
        assert_eq!(centres, want);
    }

    #[test]
    fn non_finite_values_are_counted_and_never_emitted() {
        let good = vec![5.0, 5.0, 2.0, 2.0, 0.9, 0.1];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for channel in 0..6 {
                let mut anchor = good.clone();
                anchor[channel] = bad;
                let (found, counts) = decode_both(&[anchor, good.clone()], 0.25, None);
                assert_eq!(found.len(), 1, "{bad} in channel {channel}");
                assert_eq!(counts, DecodeCounts { non_finite: 1, invalid: 0 });
            }
        }
        let (found, counts) = decode_both(&[vec![f32::NAN; 6], vec![f32::INFINITY; 6]], 0.25, None);
        assert_eq!((found.len(), counts.non_finite), (0, 12));
    }

    #[test]
    fn huge_finite_values_are_no_non_finite_ones() {
        let huge = vec![f32::MAX, f32::MAX, 1.0, f32::MAX, 0.1, 0.1];
        let (found, counts) = decode_both(std::slice::from_ref(&huge), 0.25, None);
        assert_eq!((found.len(), counts), (0, DecodeCounts::default()));
        let strong = [huge[..4].to_vec(), vec![0.9, 0.1]].concat();
        let (found, counts) = decode_both(&[strong], 0.25, None);
        assert_eq!((found.len(), counts), (0, DecodeCounts { non_finite: 0, invalid: 1 }));
    }

    #[test]
    fn boxes_without_area_are_invalid() {
        let flat = vec![5.0, 5.0, 0.0, 2.0, 0.9];
        let turned = vec![5.0, 5.0, 2.0, -2.0, 0.9];
        let (found, counts) = decode_both(&[flat, turned], 0.25, None);
        assert_eq!((found.len(), counts), (0, DecodeCounts { non_finite: 0, invalid: 2 }));
    }

    #[test]
    fn end_to_end_rows() {
        let data = [
            [1.0, 2.0, 3.0, 4.0, 0.9, 1.0],
            [1.0, 2.0, 3.0, 4.0, 0.2, 1.0],
            [1.0, 2.0, 3.0, 4.0, 0.9, 2.0],
            [1.0, 2.0, 3.0, 4.0, 0.9, 0.5],
            [1.0, 2.0, 3.0, 4.0, 0.9, -1.0],
            [1.0, f32::NAN, 3.0, 4.0, 0.9, f32::NAN],
            [0.0; 6],
        ]
        .concat();
        let output = DenseOutput::new(&data, Layout::EndToEnd, 2, 7).unwrap();
        let mut found = vec![];
        let counts = Decoder::default().run(output, 0.25, None, &mut found);
        assert_eq!(found, [Candidate { bbox: [1.0, 2.0, 3.0, 4.0], score: 0.9, class: 1 }]);
        assert_eq!(counts, DecodeCounts { non_finite: 2, invalid: 3 });
    }

    #[test]
    fn shapes_must_fit() {
        let data = [0.0; 12];
        for layout in [Layout::ChannelsFirst, Layout::AnchorsFirst, Layout::EndToEnd] {
            assert!(DenseOutput::new(&data, layout, 2, 2).is_ok());
            assert_eq!(
                DenseOutput::new(&data, layout, 2, 3).unwrap_err(),
                DecodeError::Length { layout, classes: 2, anchors: 3, have: 12 }
            );
            assert_eq!(DenseOutput::new(&data, layout, 0, 3).unwrap_err(), DecodeError::NoClasses);
            assert!(DenseOutput::new(&data, layout, usize::MAX, usize::MAX).is_err());
            let empty = DenseOutput::new(&[], layout, 2, 0).unwrap();
            let mut out = vec![];
            Decoder::default().run(empty, 0.25, None, &mut out);
            assert_eq!(out, []);
        }
    }
}
