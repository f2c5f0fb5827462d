//! A frame of the bus, made small and into what a JPEG holds.

use crate::jpeg::Picture;
use framebus_client::{Fourcc, FrameSample};
use framebus_types::{ColourMatrix, ColourRange};

/// A whole, in weights of samples.
const WHOLE: usize = 256;

/// Shrinks frames; keeps its memory and its tables.
#[derive(Debug, Default)]
pub(crate) struct Shrinker {
    /// Of the last size: columns and rows of luma, then of chroma.
    spans: [Spans; 4],
    sums: Vec<u16>,
    rgb: Vec<u8>,
}

impl Shrinker {
    /// Writes the frame into `picture`, at most `width` wide.
    pub(crate) fn shrink(&mut self, frame: &FrameSample, width: usize, picture: &mut Picture) {
        let header = frame.header();
        let source = (header.width as usize, header.height as usize);
        let (width, height) = size(source, width);
        (picture.width, picture.height) = (width, height);
        let half = (source.0.div_ceil(2), source.1.div_ceil(2));
        let sizes =
            [(source.0, width), (source.1, height), (half.0, width / 2), (half.1, height / 2)];
        for (spans, (from, to)) in self.spans.iter_mut().zip(sizes) {
            spans.set(from, to);
        }
        let [columns, rows, half_columns, half_rows] = &self.spans;
        let sums = &mut self.sums;
        match frame.fourcc() {
            Fourcc::Nv12 => {
                average::<1>(frame.plane(0), (columns, rows), sums, &mut picture.luma);
                let chroma = &mut picture.chroma;
                average::<2>(frame.plane(1), (half_columns, half_rows), sums, chroma);
                let colours = (frame.matrix(), frame.range());
                if let Some(change) = Change::from(colours.0, colours.1) {
                    change.apply(picture);
                }
            }
            Fourcc::Rgb24 => {
                average::<3>(frame.plane(0), (columns, rows), sums, &mut self.rgb);
                from_rgb(&self.rgb, picture);
            }
        }
    }
}

/// Even, never larger than the source, of the same shape.
fn size((width, height): (usize, usize), most: usize) -> (usize, usize) {
    let even = |length: usize| (length & !1).clamp(2, 65534);
    let small = width.min(most);
    (even(small), even((height * small + width / 2) / width.max(1)))
}

/// Which samples along one edge become one, and by how much each counts.
#[derive(Debug, Default)]
struct Spans {
    from: usize,
    /// First sample and number of weights of each sample to be.
    spans: Vec<(usize, usize)>,
    weights: Vec<u16>,
}

impl Spans {
    /// Samples share themselves out by the area that they have in common.
    fn set(&mut self, from: usize, to: usize) {
        if self.from == from && self.spans.len() == to {
            return;
        }
        self.from = from;
        self.spans.clear();
        self.weights.clear();
        for at in 0..to {
            // In parts of a sample: `to` parts each.
            let (start, end) = (at * from, (at + 1) * from);
            let (first, last) = (start / to, (end - 1) / to);
            let mut left = WHOLE;
            for sample in first..=last {
                let until = end.min((sample + 1) * to);
                // What is left is shared by what is to come: rounding never adds up.
                let weight =
                    left * (until - start.max(sample * to)) / (end - start.max(sample * to));
                self.weights.push(weight as u16);
                left -= weight;
            }
            self.spans.push((first, last - first + 1));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[u16])> {
        let mut weights = self.weights.as_slice();
        self.spans.iter().map(move |&(first, count)| {
            let (own, others) = weights.split_at(count);
            weights = others;
            (first, own)
        })
    }
}

/// Averages `N` interleaved channels: rows first, which the compiler makes vectors of.
fn average<const N: usize>(
    (plane, stride): (&[u8], usize),
    (columns, rows): (&Spans, &Spans),
    sums: &mut Vec<u16>,
    out: &mut Vec<u8>,
) {
    let bytes = columns.from * N;
    out.clear();
    out.reserve(columns.spans.len() * rows.spans.len() * N);
    if (columns.from, rows.from) == (columns.spans.len(), rows.spans.len()) {
        (0..rows.from).for_each(|y| out.extend_from_slice(&plane[y * stride..][..bytes]));
        return;
    }
    sums.resize(bytes, 0);
    for (first, weights) in rows.iter() {
        sums.fill(0);
        for (y, &weight) in (first..).zip(weights) {
            let row = &plane[y * stride..][..bytes];
            for (sum, &sample) in sums.iter_mut().zip(row) {
                // Weights of a row add up to 256: 255 * 256 fits.
                *sum += weight * u16::from(sample);
            }
        }
        for (first, weights) in columns.iter() {
            let mut sample = [0_u32; N];
            let near = sums[first * N..].chunks_exact(N);
            for (values, &weight) in near.zip(weights) {
                for (sum, &value) in sample.iter_mut().zip(values) {
                    *sum += u32::from(weight) * u32::from(value);
                }
            }
            out.extend(sample.map(|sum| ((sum + (1 << 15)) >> 16).min(255) as u8));
        }
    }
}

/// From a video's colours to a JPEG's: full range, BT.601.
struct Change {
    luma_zero: i32,
    /// Parts of 65536: luma's own, and how much of Cb and Cr is added.
    luma: [i32; 3],
    /// As `luma`, for Cb and Cr: of Cb, of Cr.
    chroma: [[i32; 2]; 2],
}

impl Change {
    /// `None` where there is nothing to do.
    fn from(matrix: ColourMatrix, range: ColourRange) -> Option<Self> {
        let (full, same) = (range == ColourRange::Full, matrix == ColourMatrix::Bt601);
        if full && same {
            return None;
        }
        let (luma, chroma) = if full { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        // BT.709 (BT.2020 comes close enough to look at) to R'G'B' and on to BT.601, multiplied out.
        let [add, [cb_cb, cb_cr], [cr_cb, cr_cr]] = if same {
            [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        } else {
            [[0.101_579, 0.196_076], [0.989_854, -0.110_653], [-0.072_453, 0.983_398]]
        };
        let parts = |value: f64| (value * 65536.0).round() as i32;
        Some(Self {
            luma_zero: if full { 0 } else { 16 },
            luma: [parts(luma), parts(add[0] * chroma), parts(add[1] * chroma)],
            chroma: [[cb_cb, cb_cr], [cr_cb, cr_cr]].map(|row| row.map(|of| parts(of * chroma))),
        })
    }

    fn apply(&self, picture: &mut Picture) {
        let round = |value: i32| ((value + (1 << 15)) >> 16).clamp(0, 255) as u8;
        let width = picture.width;
        let rows = picture.luma.chunks_exact_mut(2 * width);
        for (rows, chroma) in rows.zip(picture.chroma.chunks_exact_mut(width)) {
            let (upper, lower) = rows.split_at_mut(width);
            let pairs = upper.chunks_exact_mut(2).zip(lower.chunks_exact_mut(2));
            for ((upper, lower), pair) in pairs.zip(chroma.chunks_exact_mut(2)) {
                let (cb, cr) = (i32::from(pair[0]) - 128, i32::from(pair[1]) - 128);
                let add = self.luma[1] * cb + self.luma[2] * cr;
                for sample in upper.iter_mut().chain(lower) {
                    *sample = round(self.luma[0] * (i32::from(*sample) - self.luma_zero) + add);
                }
                for (sample, of) in pair.iter_mut().zip(self.chroma) {
                    *sample = round(of[0] * cb + of[1] * cr + (128 << 16));
                }
            }
        }
    }
}

fn from_rgb(rgb: &[u8], picture: &mut Picture) {
    let width = picture.width;
    picture.luma.clear();
    picture.luma.extend(rgb.chunks_exact(3).map(|pixel| {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        ((19595 * r + 38470 * g + 7471 * b + (1 << 15)) >> 16) as u8
    }));
    picture.chroma.clear();
    for rows in rgb.chunks_exact(6 * width) {
        let (upper, lower) = rows.split_at(3 * width);
        for (upper, lower) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            let sum = |at: usize| {
                [upper[at], upper[at + 3], lower[at], lower[at + 3]].map(i32::from).iter().sum()
            };
            let [r, g, b]: [i32; 3] = [sum(0), sum(1), sum(2)];
            // Of four pixels: two bits more to shift.
            let round = |value: i32| (((value + (1 << 17)) >> 18) + 128).clamp(0, 255) as u8;
            picture.chroma.push(round(-11059 * r - 21709 * g + 32768 * b));
            picture.chroma.push(round(32768 * r - 27439 * g - 5329 * b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_keep_the_shape() {
        assert_eq!(size((1920, 1080), 640), (640, 360));
        assert_eq!(size((320, 240), 640), (320, 240));
        assert_eq!(size((1023, 681), 640), (640, 426));
        assert_eq!(size((1080, 1920), 640), (640, 1138));
        assert_eq!(size((3, 900), 640), (2, 900));
    }

    #[test]
    fn an_average_is_that_of_the_area() {
        let mut spans = [Spans::default(), Spans::default()];
        for (from, to) in [(1920, 640), (1080, 360), (1023, 640), (7, 2), (5, 5)] {
            spans[0].set(from, to);
            assert_eq!(spans[0].spans.len(), to);
            let mut covered = vec![0_u32; from];
            for (first, weights) in spans[0].iter() {
                assert_eq!(weights.iter().map(|&w| usize::from(w)).sum::<usize>(), WHOLE);
                for (sample, &weight) in covered[first..].iter_mut().zip(weights) {
                    *sample += u32::from(weight);
                }
            }
            let share = (WHOLE * to / from) as u32;
            assert!(covered.iter().all(|&sum| sum.abs_diff(share) <= 2), "{from} {to}");
        }
        // Two channels, 4 x 2 with a stride of 10, to 2 x 1.
        let plane = [0, 9, 10, 9, 20, 9, 30, 9, 99, 99, 40, 9, 50, 9, 60, 9, 70, 9];
        spans[0].set(4, 2);
        spans[1].set(2, 1);
        let (mut sums, mut out) = (Vec::new(), Vec::new());
        average::<2>((&plane, 10), (&spans[0], &spans[1]), &mut sums, &mut out);
        assert_eq!(out, [25, 9, 45, 9]);
    }

    #[test]
    fn colours_of_a_video_become_those_of_a_jpeg() {
        let seen = |matrix, range, luma: u8, chroma: [u8; 2]| {
            let mut picture =
                Picture { width: 2, height: 2, luma: vec![luma; 4], chroma: chroma.to_vec() };
            if let Some(change) = Change::from(matrix, range) {
                change.apply(&mut picture);
            }
            (picture.luma[3], [picture.chroma[0], picture.chroma[1]])
        };
        let near = |a: (u8, [u8; 2]), b: (u8, [u8; 2])| {
            let close = |a: u8, b: u8| a.abs_diff(b) <= 1;
            assert!(
                close(a.0, b.0) && close(a.1[0], b.1[0]) && close(a.1[1], b.1[1]),
                "{a:?} {b:?}"
            );
        };
        let (limited, full) = (ColourRange::Limited, ColourRange::Full);
        near(seen(ColourMatrix::Bt601, limited, 16, [128, 128]), (0, [128, 128]));
        near(seen(ColourMatrix::Bt601, limited, 235, [128, 128]), (255, [128, 128]));
        // Red: in BT.709 limited, and as every JPEG has it.
        near(seen(ColourMatrix::Bt709, limited, 63, [102, 240]), (76, [85, 255]));
        near(seen(ColourMatrix::Bt601, full, 76, [85, 255]), (76, [85, 255]));
        let mut picture = Picture { width: 2, height: 2, ..Picture::default() };
        from_rgb(&[255, 0, 0].repeat(4), &mut picture);
        near((picture.luma[0], [picture.chroma[0], picture.chroma[1]]), (76, [85, 255]));
    }
}
