//! `framebus_letterbox` against [`Resampler`], pixel by pixel.

use crate::Noise;
use crate::cpu::{self, FrameEntry};
use framebus_vision::{
    ChromaSite, Colour, FrameView, Letterbox, Matrix, Planes, Range, Region, Resampler,
};
use half::f16;

/// The kernel is exact to a few ulp of f32, the Resampler to 0.1/255 of the
/// definition.
const TOLERANCE: f32 = 0.1 / 255.0 + 1e-5;
/// Half a unit of the last place of f16 in 0.5..1.
const HALF_ULP: f32 = 1.0 / 4096.0;

/// A picture of noise that owns its planes; rows are `extra` bytes longer than
/// needed, and planes begin `shift` bytes into their memory.
struct Picture {
    size: [usize; 2],
    colour: Colour,
    rgb: bool,
    extra: usize,
    shift: usize,
    planes: [Vec<u8>; 2],
}

impl Picture {
    fn new(size: [usize; 2], extra: usize, shift: usize, rgb: bool, colour: Colour) -> Self {
        let mut picture = Self { size, colour, rgb, extra, shift, planes: [vec![], vec![]] };
        let ([first, second], mut noise) =
            (picture.strides(), Noise((size[0] * 31 + shift) as u64));
        // The last row ends with its last pixel: one byte more would be a fault.
        let len = |stride: usize, rows: usize| shift + stride * rows - extra;
        picture.planes =
            [len(first, size[1]), len(second, size[1].div_ceil(2))].map(|n| noise.bytes(n));
        picture
    }

    fn strides(&self) -> [usize; 2] {
        let width = self.size[0];
        let row = if self.rgb { 3 * width } else { width };
        [row + self.extra, 2 * width.div_ceil(2) + self.extra]
    }

    fn view(&self) -> FrameView<'_> {
        let [first, second] = &self.planes;
        let (first, second) = (&first[self.shift..], &second[self.shift..]);
        let [first_stride, second_stride] = self.strides();
        let planes = if self.rgb {
            Planes::Rgb24 { data: first, stride: first_stride }
        } else {
            Planes::Nv12 { y: first, y_stride: first_stride, uv: second, uv_stride: second_stride }
        };
        FrameView::new(self.size[0], self.size[1], planes, self.colour).unwrap()
    }
}

fn entry(view: &FrameView<'_>, letterbox: &Letterbox) -> FrameEntry {
    let step = |source: usize, resized: usize| ((source as u64) << 32) / resized as u64;
    let rgb = view.colour().to_rgb();
    let mut entry = FrameEntry {
        width: view.width() as u32,
        height: view.height() as u32,
        left: letterbox.left() as u32,
        top: letterbox.top() as u32,
        resized_width: letterbox.resized_width() as u32,
        resized_height: letterbox.resized_height() as u32,
        site: match view.colour().site {
            ChromaSite::Left => 0,
            ChromaSite::Center => 1 << 31,
        },
        luma: rgb.luma,
        red_cr: rgb.red_cr,
        green_cb: rgb.green_cb,
        green_cr: rgb.green_cr,
        blue_cb: rgb.blue_cb,
        constant: rgb.constant,
        step_x: step(view.width(), letterbox.resized_width()),
        step_y: step(view.height(), letterbox.resized_height()),
        ..FrameEntry::empty()
    };
    match view.planes() {
        Planes::Nv12 { y, y_stride, uv, uv_stride } => {
            (entry.y, entry.y_stride) = (y.as_ptr(), y_stride as u32);
            (entry.uv, entry.uv_stride) = (uv.as_ptr(), uv_stride as u32);
        }
        Planes::Rgb24 { data, stride } => {
            (entry.y, entry.y_stride, entry.format) = (data.as_ptr(), stride as u32, 1);
        }
    }
    entry
}

/// What [`Resampler`] makes of the same frames, one after the other, and the table.
fn expected(
    views: &[FrameView<'_>],
    region: Option<Region>,
    dst: [u32; 2],
) -> (Vec<f32>, Vec<FrameEntry>) {
    let [width, height] = dst.map(|side| side as usize);
    let (mut want, mut table) = (vec![], vec![]);
    for view in views {
        let whole = Region { x: 0, y: 0, width: view.width(), height: view.height() };
        let region = region.unwrap_or(whole);
        let mut resampler = Resampler::for_region(view, region, width, height).unwrap();
        let mut out = vec![f32::NAN; resampler.output_len()];
        resampler.run(view, &mut out).unwrap();
        want.extend(out);
        table.push(entry(&view.crop(region).unwrap(), resampler.letterbox()));
    }
    (want, table)
}

/// Both element types; answers the largest difference of f32.
fn check(views: &[FrameView<'_>], region: Option<Region>, dst: [u32; 2]) -> f32 {
    let (want, table) = expected(views, region, dst);
    let mut full = vec![f32::NAN; want.len()];
    cpu::letterbox(&table, &mut full, dst, 64);
    let mut worst = 0.0_f32;
    for (i, (&have, &want)) in full.iter().zip(&want).enumerate() {
        let error = (have - want).abs();
        assert!(error <= TOLERANCE, "value {i} of {dst:?}: {have} instead of {want}");
        worst = worst.max(error);
    }
    // A grid that is too large, as one for one pixel per thread.
    let mut halves = vec![f16::NAN; want.len()];
    cpu::letterbox(&table, &mut halves, dst, 32);
    for (i, (&have, &full)) in halves.iter().zip(&full).enumerate() {
        // Rounding is that of the hardware, to the bit.
        assert_eq!(have, f16::from_f32(full), "value {i} of {dst:?}");
        assert!((have.to_f32() - full).abs() <= HALF_ULP);
    }
    worst
}

fn colours() -> Vec<Colour> {
    let mut all = vec![];
    for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
        for range in [Range::Limited, Range::Full] {
            for site in [ChromaSite::Left, ChromaSite::Center] {
                all.push(Colour { matrix, range, site });
            }
        }
    }
    all
}

#[test]
fn every_size_colour_and_format() {
    if cpu::library().is_none() {
        return;
    }
    let sizes = [[1, 1], [2, 2], [3, 5], [1, 9], [40, 1], [64, 36], [641, 359], [1919, 1079]];
    let mut worst = 0.0_f32;
    for size in sizes {
        // Even planes and rows, odd rows, odd planes.
        for (extra, shift) in [(0, 0), (13, 0), (6, 1)] {
            let small = size[0] * size[1] < 5000;
            let dsts: &[[u32; 2]] = if small {
                &[[33, 17], [64, 64], [1, 1], [95, 8]]
            } else {
                &[[181, 97], [320, 320]]
            };
            for &dst in dsts {
                let rgb = Picture::new(size, extra, shift, true, Colour::default());
                worst = worst.max(check(&[rgb.view()], None, dst));
                let few = if small || dst == [181, 97] { 12 } else { 1 };
                for colour in colours().into_iter().take(few) {
                    let nv12 = Picture::new(size, extra, shift, false, colour);
                    worst = worst.max(check(&[nv12.view()], None, dst));
                }
            }
        }
    }
    println!("largest difference: {:.4} of 1/255", worst * 255.0);
}

#[test]
fn enlarging_and_the_size_of_a_camera() {
    if cpu::library().is_none() {
        return;
    }
    let colour = Colour { matrix: Matrix::Bt709, ..Colour::default() };
    let full = Picture::new([1920, 1080], 0, 0, false, colour);
    check(&[full.view()], None, [640, 640]);
    let small = Picture::new([320, 180], 64, 0, false, colour);
    check(&[small.view()], None, [640, 384]);
    let tall = Picture::new([90, 1001], 0, 0, true, colour);
    check(&[tall.view()], None, [641, 333]);
}

/// At this width f32 positions would be wrong by tenths of a code.
#[test]
fn very_wide_pictures_keep_their_precision() {
    if cpu::library().is_none() {
        return;
    }
    let wide = Picture::new([65_536, 3], 0, 0, false, Colour::default());
    check(&[wide.view()], None, [7919, 16]);
    check(&[wide.view()], None, [65_536, 4]);
}

#[test]
fn frames_of_a_batch_differ_in_size_and_format() {
    if cpu::library().is_none() {
        return;
    }
    let [first, last] = [colours()[0], colours()[11]];
    let pictures = [
        Picture::new([200, 100], 8, 0, false, first),
        Picture::new([77, 301], 5, 1, true, first),
        Picture::new([1280, 720], 0, 0, false, last),
    ];
    let views: Vec<_> = pictures.iter().map(Picture::view).collect();
    check(&views, None, [160, 160]);
    check(&views, None, [161, 159]);
}

#[test]
fn a_region_of_a_frame() {
    if cpu::library().is_none() {
        return;
    }
    let region = Region { x: 40, y: 20, width: 101, height: 77 };
    for rgb in [false, true] {
        let picture = Picture::new([300, 200], 4, 0, rgb, Colour::default());
        check(&[picture.view()], Some(region), [96, 96]);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "nobody compares this with the time of a frame")]
fn time_of_a_camera_frame() {
    if cpu::library().is_none() {
        return;
    }
    let picture = Picture::new([1920, 1080], 0, 0, false, Colour::default());
    let view = picture.view();
    let letterbox = Letterbox::new(1920, 1080, 640, 640);
    let table = [entry(&view, &letterbox)];
    let mut out = vec![f16::ZERO; 3 * 640 * 640];
    let start = std::time::Instant::now();
    for _ in 0..5 {
        cpu::letterbox(&table, &mut out, [640, 640], 64);
    }
    println!("{:.1} ms per frame of 1920x1080", start.elapsed().as_secs_f64() * 200.0);
    assert!(out.iter().all(|v| (0.0..=1.0).contains(&v.to_f32())));
}
