//! The resampler against its definition, computed in f64 pixel by pixel.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use framebus_vision::{
    ChromaSite, Colour, FrameError, FrameView, Matrix, Planes, Range, Region, ResampleError,
    Resampler,
};

/// Row weights of 15 bits, mixed samples of 1/64 of a code, column weights of 14
/// bits, times the 2.1 that a code of chroma comes to at most.
const TOLERANCE: f64 = 0.1 / 255.0;

/// SplitMix64: noise is the hardest picture for a resampler.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 56) as u8
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// A picture that owns its planes; rows are `extra` bytes longer than needed and
/// the last row ends with its last pixel.
struct Picture {
    width: usize,
    height: usize,
    colour: Colour,
    rgb: bool,
    first: Vec<u8>,
    first_stride: usize,
    second: Vec<u8>,
    second_stride: usize,
}

impl Picture {
    fn new(size: [usize; 2], extra: usize, rgb: bool, colour: Colour) -> Self {
        let [width, height] = size;
        let mut noise = Noise((width * 31 + height) as u64);
        let row = if rgb { 3 * width } else { width };
        let chroma_row = 2 * width.div_ceil(2);
        let chroma_rows = height.div_ceil(2);
        let (first_stride, second_stride) = (row + extra, chroma_row + extra);
        Self {
            width,
            height,
            colour,
            rgb,
            first: noise.bytes(first_stride * (height - 1) + row),
            first_stride,
            second: noise.bytes(second_stride * (chroma_rows - 1) + chroma_row),
            second_stride,
        }
    }

    fn view(&self) -> FrameView<'_> {
        let planes = if self.rgb {
            Planes::Rgb24 { data: &self.first, stride: self.first_stride }
        } else {
            Planes::Nv12 {
                y: &self.first,
                y_stride: self.first_stride,
                uv: &self.second,
                uv_stride: self.second_stride,
            }
        };
        FrameView::new(self.width, self.height, planes, self.colour).unwrap()
    }

    fn rgb_at(&self, x: f64, y: f64) -> [f64; 3] {
        let (w, h) = (self.width, self.height);
        if self.rgb {
            return [0, 1, 2].map(|channel| {
                let at = |i: usize, j: usize| self.first[j * self.first_stride + 3 * i + channel];
                bilinear(w, h, x, y, at) / 255.0
            });
        }
        let luma = bilinear(w, h, x, y, |i, j| self.first[j * self.first_stride + i]);
        let chroma_x = match self.colour.site {
            ChromaSite::Left => x / 2.0,
            ChromaSite::Center => (x - 0.5) / 2.0,
        };
        let chroma_y = (y - 0.5) / 2.0;
        let [cb, cr] = [0, 1].map(|which| {
            let at = |i: usize, j: usize| self.second[j * self.second_stride + 2 * i + which];
            bilinear(w.div_ceil(2), h.div_ceil(2), chroma_x, chroma_y, at)
        });
        to_rgb(self.colour, luma, cb, cr)
    }
}

fn bilinear(w: usize, h: usize, x: f64, y: f64, at: impl Fn(usize, usize) -> u8) -> f64 {
    let x = x.max(0.0).min(w as f64 - 1.0);
    let y = y.max(0.0).min(h as f64 - 1.0);
    let (i, j) = (x.floor() as usize, y.floor() as usize);
    let (u, v) = (x - x.floor(), y - y.floor());
    let mut sum = 0.0;
    for (i, weight_x) in [(i, 1.0 - u), (i + 1, u)] {
        for (j, weight_y) in [(j, 1.0 - v), (j + 1, v)] {
            if weight_x * weight_y > 0.0 {
                sum += weight_x * weight_y * f64::from(at(i, j));
            }
        }
    }
    sum
}

/// The decimal coefficients as the Recommendations' users print them, not derived
/// from Kr and Kb.
fn to_rgb(colour: Colour, y: f64, cb: f64, cr: f64) -> [f64; 3] {
    let (y, cb, cr) = match colour.range {
        Range::Limited => ((y - 16.0) / 219.0, (cb - 128.0) / 224.0, (cr - 128.0) / 224.0),
        Range::Full => (y / 255.0, (cb - 128.0) / 255.0, (cr - 128.0) / 255.0),
    };
    let (r_cr, g_cb, g_cr, b_cb) = match colour.matrix {
        Matrix::Bt601 => (1.402, 0.344_136, 0.714_136, 1.772),
        Matrix::Bt709 => (1.5748, 0.187_324, 0.468_124, 1.8556),
        Matrix::Bt2020 => (1.4746, 0.164_553, 0.571_353, 1.8814),
    };
    [y + r_cr * cr, y - g_cb * cb - g_cr * cr, y + b_cb * cb].map(|v| v.clamp(0.0, 1.0))
}

/// Largest difference between the resampler and the definition; asserts that the
/// padding is exact.
fn worst(picture: &Picture, dst: [usize; 2]) -> f64 {
    let view = picture.view();
    let [dst_w, dst_h] = dst;
    let mut resampler = Resampler::new(&view, dst_w, dst_h).unwrap();
    let mut out = vec![f32::NAN; resampler.output_len()];
    resampler.run(&view, &mut out).unwrap();

    let (w, h) = (picture.width as f64, picture.height as f64);
    let scale = (dst_w as f64 / w).min(dst_h as f64 / h);
    let (resized_w, resized_h) = ((w * scale).round().max(1.0), (h * scale).round().max(1.0));
    let left = ((dst_w as f64 - resized_w) / 2.0 - 0.1).round().abs();
    let top = ((dst_h as f64 - resized_h) / 2.0 - 0.1).round().abs();

    let mut worst = 0.0_f64;
    for row in 0..dst_h {
        for column in 0..dst_w {
            let (x, y) = (column as f64 - left, row as f64 - top);
            let inside = (0.0..resized_w).contains(&x) && (0.0..resized_h).contains(&y);
            let want = if inside {
                let x = (x + 0.5) * w / resized_w - 0.5;
                let y = (y + 0.5) * h / resized_h - 0.5;
                picture.rgb_at(x, y)
            } else {
                [114.0 / 255.0; 3]
            };
            for (channel, want) in want.into_iter().enumerate() {
                let have = out[(channel * dst_h + row) * dst_w + column];
                assert!(have.is_finite(), "unwritten value at {column},{row}");
                let difference = (f64::from(have) - want).abs();
                assert!(inside || difference < 1e-7, "padding at {column},{row} is {have}");
                worst = worst.max(difference);
            }
        }
    }
    worst
}

const SOURCES: [[usize; 2]; 11] = [
    [641, 359],
    [640, 360],
    [35, 17],
    [16, 48],
    [1, 1],
    [2, 3],
    [3, 2],
    [1, 9],
    [9, 1],
    [2, 2],
    [200, 3],
];
/// Smaller and larger than the sources, square and not, odd.
const DESTINATIONS: [[usize; 2]; 3] = [[64, 64], [160, 96], [33, 71]];

fn colours() -> impl Iterator<Item = Colour> {
    [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020].into_iter().flat_map(|matrix| {
        [Range::Limited, Range::Full].into_iter().flat_map(move |range| {
            [ChromaSite::Left, ChromaSite::Center].into_iter().map(move |site| Colour {
                matrix,
                range,
                site,
            })
        })
    })
}

#[test]
fn nv12_of_every_colour_and_size() {
    for colour in colours() {
        for size in SOURCES {
            for extra in [0, 1, 61] {
                let picture = Picture::new(size, extra, false, colour);
                for dst in DESTINATIONS {
                    let worst = worst(&picture, dst);
                    assert!(
                        worst <= TOLERANCE,
                        "{size:?} stride +{extra} to {dst:?}, {colour:?}: off by {worst}"
                    );
                }
            }
        }
    }
}

#[test]
fn rgb24_of_every_size() {
    for size in SOURCES {
        for extra in [0, 1, 61] {
            let picture = Picture::new(size, extra, true, Colour::default());
            for dst in DESTINATIONS {
                let worst = worst(&picture, dst);
                assert!(worst <= TOLERANCE, "{size:?} stride +{extra} to {dst:?}: off by {worst}");
            }
        }
    }
}

#[test]
fn full_hd_to_the_usual_inputs() {
    for (rgb, dst) in [(false, [640, 640]), (false, [640, 384]), (true, [640, 640])] {
        let colour = Colour { matrix: Matrix::Bt709, ..Colour::default() };
        let picture = Picture::new([1920, 1080], 128, rgb, colour);
        let worst = worst(&picture, dst);
        assert!(worst <= TOLERANCE, "rgb {rgb} to {dst:?}: off by {worst}");
    }
}

/// The reference would notice each of the things that the colour describes.
#[test]
fn matrix_range_and_site_are_visible_in_noise() {
    let base = Colour::default();
    for other in [
        Colour { matrix: Matrix::Bt709, ..base },
        Colour { range: Range::Full, ..base },
        Colour { site: ChromaSite::Center, ..base },
    ] {
        let mut picture = Picture::new([35, 17], 0, false, base);
        let mut resampler = Resampler::new(&picture.view(), 64, 64).unwrap();
        let mut a = vec![0.0; resampler.output_len()];
        resampler.run(&picture.view(), &mut a).unwrap();
        picture.colour = other;
        let mut resampler = Resampler::new(&picture.view(), 64, 64).unwrap();
        let mut b = a.clone();
        resampler.run(&picture.view(), &mut b).unwrap();
        let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(f64::from(difference) > 40.0 * TOLERANCE, "{other:?} differs by {difference}");
    }
}

/// 100 % bars, BT.709 limited range, codes rounded from BT.709-6.
#[test]
fn known_colours() {
    let colour = Colour { matrix: Matrix::Bt709, ..Colour::default() };
    for (codes, want) in [
        ([16, 128, 128], [0.0, 0.0, 0.0]),
        ([235, 128, 128], [1.0, 1.0, 1.0]),
        ([63, 102, 240], [1.0, 0.0, 0.0]),
        ([173, 42, 26], [0.0, 1.0, 0.0]),
        ([32, 240, 118], [0.0, 0.0, 1.0]),
    ] {
        let (luma, chroma) = ([codes[0]; 4], [codes[1], codes[2]]);
        let planes = Planes::Nv12 { y: &luma, y_stride: 2, uv: &chroma, uv_stride: 2 };
        let view = FrameView::new(2, 2, planes, colour).unwrap();
        let mut out = [0.0; 3];
        Resampler::new(&view, 1, 1).unwrap().run(&view, &mut out).unwrap();
        for (have, want) in out.into_iter().zip(want) {
            assert!((have - want).abs() < 0.005, "{codes:?} gives {out:?}");
        }
    }
}

#[test]
fn tables_are_reused_for_frames_of_one_kind_only() {
    let colour = Colour::default();
    let picture = Picture::new([64, 36], 0, false, colour);
    let mut resampler = Resampler::new(&picture.view(), 32, 32).unwrap();
    let len = resampler.output_len();
    assert_eq!(len, 3 * 32 * 32);

    assert!(resampler.matches(&Picture::new([64, 36], 13, false, colour).view()));
    let full = Colour { range: Range::Full, ..colour };
    for other in [
        Picture::new([64, 35], 0, false, colour),
        Picture::new([63, 36], 0, false, colour),
        Picture::new([64, 36], 0, true, colour),
        Picture::new([64, 36], 0, false, full),
    ] {
        assert!(!resampler.matches(&other.view()));
        let mut out = vec![7.0; len];
        let answer = resampler.run(&other.view(), &mut out);
        assert_eq!(answer, Err(ResampleError::Mismatch));
        assert!(out.iter().all(|&v| v == 7.0));
    }
    for wrong in [0, len - 1, len + 1] {
        assert_eq!(
            resampler.run(&picture.view(), &mut vec![0.0; wrong]),
            Err(ResampleError::OutputLength { need: len, have: wrong })
        );
    }
    // Colour means nothing to RGB.
    let rgb = Picture::new([8, 8], 0, true, colour);
    let rgb_full = Picture::new([8, 8], 0, true, full);
    assert!(Resampler::new(&rgb.view(), 8, 8).unwrap().matches(&rgb_full.view()));
}

/// The part of a picture, copied out: what a decoder of that part would deliver.
fn cut(picture: &Picture, region: Region) -> Picture {
    let rows = |plane: &[u8], stride: usize, at: usize, row: usize, first: usize, count: usize| {
        (first..first + count).flat_map(|j| plane[j * stride + at..][..row].to_vec()).collect()
    };
    let Region { x, y, width, height } = region;
    let samples = if picture.rgb { 3 } else { 1 };
    let (chroma_row, chroma_rows) = (2 * width.div_ceil(2), height.div_ceil(2));
    Picture {
        width,
        height,
        colour: picture.colour,
        rgb: picture.rgb,
        first: rows(&picture.first, picture.first_stride, x * samples, width * samples, y, height),
        first_stride: width * samples,
        second: rows(&picture.second, picture.second_stride, x, chroma_row, y / 2, chroma_rows),
        second_stride: chroma_row,
    }
}

#[test]
fn a_region_is_letterboxed_as_if_it_were_the_picture() {
    let region = |x, y, width, height| Region { x, y, width, height };
    for rgb in [false, true] {
        let picture = Picture::new([131, 77], 5, rgb, Colour::default());
        let view = picture.view();
        for region in [
            region(0, 0, 131, 77),
            region(2, 4, 64, 36),
            region(130, 76, 1, 1),
            region(30, 0, 101, 77),
            region(64, 18, 21, 59),
        ] {
            let part = cut(&picture, region);
            let mut plain = Resampler::new(&part.view(), 64, 48).unwrap();
            let mut want = vec![0.0; plain.output_len()];
            plain.run(&part.view(), &mut want).unwrap();

            let mut resampler = Resampler::for_region(&view, region, 64, 48).unwrap();
            assert!(resampler.matches(&view) && resampler.region() == region);
            let mut have = vec![f32::NAN; want.len()];
            resampler.run(&view, &mut have).unwrap();
            assert!(have == want, "rgb {rgb}, {region:?}");

            // Boxes come back in pixels of the whole picture.
            let [x, y] = [region.x as f32, region.y as f32];
            let of_part = plain.letterbox().to_source([10.0, 20.0, 30.0, 40.0]);
            let of_whole = [of_part[0] + x, of_part[1] + y, of_part[2] + x, of_part[3] + y];
            let mapped = resampler.letterbox().to_source([10.0, 20.0, 30.0, 40.0]);
            for (have, want) in mapped.into_iter().zip(of_whole) {
                assert!((have - want).abs() < 1e-4, "{mapped:?}, not {of_whole:?}");
            }
        }
        for wrong in [
            region(1, 0, 10, 10),
            region(0, 1, 10, 10),
            region(0, 0, 0, 10),
            region(0, 0, 132, 10),
            region(64, 0, 68, 10),
            region(0, 76, 10, 2),
            region(usize::MAX - 1, 0, 10, 10),
        ] {
            let error = FrameError::Region { region: wrong, width: 131, height: 77 };
            let answer = Resampler::for_region(&view, wrong, 64, 48);
            assert_eq!(answer.unwrap_err(), ResampleError::Region(error));
        }
    }
}

#[test]
fn absurd_sizes_are_refused() {
    let picture = Picture::new([4, 4], 0, false, Colour::default());
    for [w, h] in [[0, 64], [64, 0], [usize::MAX, 64], [64, 1 << 20]] {
        let error = Resampler::new(&picture.view(), w, h).unwrap_err();
        assert_eq!(error, ResampleError::Size { what: "network input", width: w, height: h });
    }
}
