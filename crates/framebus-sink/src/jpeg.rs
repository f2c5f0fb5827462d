//! Baseline JPEG out of YCbCr with half chroma, as a frame of the bus has it.
//!
//! A frame is NV12 and so is a JPEG, but for the order of its parts: libraries that take
//! RGB, or chroma in full, would convert there and back. Method: ITU T.81 with the tables
//! of its annex K; the transform is that of Arai, Agui and Nakajima (1988), on eight
//! columns at a time so that the compiler makes vectors of them.

mod tables;

use tables::{AC_CHROMA, AC_LUMA, DC_CHROMA, DC_LUMA, Huffman, QUANT_CHROMA, QUANT_LUMA, ZIGZAG};

/// A picture: full range, BT.601, chroma halved both ways.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// Pixels; even, at least 2 and at most 65534.
    pub(crate) width: usize,
    /// As `width`.
    pub(crate) height: usize,
    /// `width * height` bytes.
    pub(crate) luma: Vec<u8>,
    /// Cb and Cr in turn, `width * height / 2` bytes.
    pub(crate) chroma: Vec<u8>,
}

/// An encoder for one quality.
#[derive(Debug)]
pub(crate) struct Encoder {
    quant: [[u8; 64]; 2],
    /// Reciprocals of the quantisers times the scale that the transform leaves out, by
    /// column and row.
    scale: [[f32; 64]; 2],
    dc: [Box<[(u16, u8)]>; 2],
    ac: [Box<[(u16, u8)]>; 2],
}

/// Eight values that go through the same steps.
type Lane = [f32; 8];
type Block = [Lane; 8];

impl Encoder {
    /// `quality` from 1 to 100, as libjpeg counts it.
    pub(crate) fn new(quality: u8) -> Self {
        let quant = [scaled(&QUANT_LUMA, quality), scaled(&QUANT_CHROMA, quality)];
        let codes = |table: &Huffman| table.codes().into_boxed_slice();
        Self {
            scale: [reciprocals(&quant[0]), reciprocals(&quant[1])],
            quant,
            dc: [codes(&DC_LUMA), codes(&DC_CHROMA)],
            ac: [codes(&AC_LUMA), codes(&AC_CHROMA)],
        }
    }

    /// Appends the picture to `out`.
    pub(crate) fn encode(&self, picture: &Picture, out: &mut Vec<u8>) {
        self.headers(picture, out);
        let mut bits = Bits { out, held: 0, count: 0 };
        let mut before = [0; 3];
        for y in (0..picture.height).step_by(16) {
            for x in (0..picture.width).step_by(16) {
                for (dx, dy) in [(0, 0), (8, 0), (0, 8), (8, 8)] {
                    let block = plane(&picture.luma, picture.width, 1, 0, (x + dx, y + dy));
                    self.block(block, 0, &mut before[0], &mut bits);
                }
                for part in 0..2 {
                    let at = (x / 2, y / 2);
                    let block = plane(&picture.chroma, picture.width / 2, 2, part, at);
                    self.block(block, 1, &mut before[1 + part], &mut bits);
                }
            }
        }
        bits.finish();
        out.extend_from_slice(&[0xff, 0xd9]);
    }

    fn headers(&self, picture: &Picture, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0xff, 0xd8]);
        // JFIF: without it some readers take the colours for RGB.
        out.extend_from_slice(b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00");
        for (number, quant) in self.quant.iter().enumerate() {
            out.extend_from_slice(&[0xff, 0xdb, 0, 67, number as u8]);
            out.extend(ZIGZAG.iter().map(|&at| quant[usize::from(at)]));
        }
        let [h1, h0] = (picture.height as u16).to_be_bytes();
        let [w1, w0] = (picture.width as u16).to_be_bytes();
        out.extend_from_slice(&[0xff, 0xc0, 0, 17, 8, h1, h0, w1, w0, 3]);
        out.extend_from_slice(&[1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        let tables = [(0, &DC_LUMA), (0x10, &AC_LUMA), (1, &DC_CHROMA), (0x11, &AC_CHROMA)];
        for (class, table) in tables {
            let [l1, l0] = (19 + table.values.len() as u16).to_be_bytes();
            out.extend_from_slice(&[0xff, 0xc4, l1, l0, class]);
            out.extend_from_slice(&table.lengths);
            out.extend_from_slice(table.values);
        }
        out.extend_from_slice(&[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]);
    }

    fn block(&self, mut block: Block, table: usize, before: &mut i32, bits: &mut Bits<'_>) {
        transform(&mut block);
        let mut block = transposed(&block);
        transform(&mut block);
        let mut coefficients = [0_i32; 64];
        let values = block.as_flattened().iter().zip(&self.scale[table]);
        for (coefficient, (value, scale)) in coefficients.iter_mut().zip(values) {
            // Rounds to the nearest: the sum has no room for a fraction.
            const ROUND: f32 = 12_582_912.0;
            *coefficient = (value * scale + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        }
        let mut ordered = [0_i32; 64];
        let mut set = 0_u64;
        for (k, &at) in ZIGZAG.iter().enumerate() {
            // The block is still transposed.
            let value = coefficients[usize::from(at % 8 * 8 + at / 8)];
            ordered[k] = value;
            set |= u64::from(value != 0) << k;
        }
        let step = ordered[0] - *before;
        *before = ordered[0];
        bits.value(&self.dc[table], 0, step);
        set &= !1;
        let mut last = 0;
        while set != 0 {
            let k = set.trailing_zeros();
            let mut zeros = k - last - 1;
            while zeros > 15 {
                bits.code(self.ac[table][0xf0]);
                zeros -= 16;
            }
            bits.value(&self.ac[table], zeros << 4, ordered[k as usize]);
            last = k;
            set &= set - 1;
        }
        if last != 63 {
            bits.code(self.ac[table][0]);
        }
    }
}

/// Annex K's table for a quality, as everybody scales it since libjpeg.
fn scaled(table: &[u8; 64], quality: u8) -> [u8; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    table.map(|step| ((u32::from(step) * percent + 50) / 100).clamp(1, 255) as u8)
}

fn reciprocals(quant: &[u8; 64]) -> [f32; 64] {
    // cos(k pi / 16) sqrt 2, and 1 for k = 0.
    let factor = |k: usize| match k {
        0 => 1.0,
        k => (k as f64 * std::f64::consts::PI / 16.0).cos() * std::f64::consts::SQRT_2,
    };
    std::array::from_fn(|at| {
        let (column, row) = (at / 8, at % 8);
        let step = f64::from(quant[row * 8 + column]);
        (1.0 / (step * factor(row) * factor(column) * 8.0)) as f32
    })
}

/// Eight by eight samples around zero; what lies beyond the edge repeats it.
fn plane(samples: &[u8], width: usize, step: usize, part: usize, (x, y): (usize, usize)) -> Block {
    let stride = width * step;
    let last = samples.len() / stride - 1;
    let mut block = [[0.0; 8]; 8];
    for (dy, lane) in block.iter_mut().enumerate() {
        let row = &samples[(y + dy).min(last) * stride..][..stride];
        if x + 8 <= width {
            let row = &row[x * step..][..8 * step];
            for (value, sample) in lane.iter_mut().zip(row.chunks_exact(step)) {
                *value = f32::from(sample[part]) - 128.0;
            }
        } else {
            for (dx, value) in lane.iter_mut().enumerate() {
                *value = f32::from(row[(x + dx).min(width - 1) * step + part]) - 128.0;
            }
        }
    }
    block
}

fn add(a: &Lane, b: &Lane) -> Lane {
    std::array::from_fn(|i| a[i] + b[i])
}

fn sub(a: &Lane, b: &Lane) -> Lane {
    std::array::from_fn(|i| a[i] - b[i])
}

fn mul(a: &Lane, by: f32) -> Lane {
    std::array::from_fn(|i| a[i] * by)
}

/// The transform of all columns, unscaled.
fn transform(block: &mut Block) {
    let [d0, d1, d2, d3, d4, d5, d6, d7] = *block;
    let (sum0, dif0) = (add(&d0, &d7), sub(&d0, &d7));
    let (sum1, dif1) = (add(&d1, &d6), sub(&d1, &d6));
    let (sum2, dif2) = (add(&d2, &d5), sub(&d2, &d5));
    let (sum3, dif3) = (add(&d3, &d4), sub(&d3, &d4));
    let (a, d) = (add(&sum0, &sum3), sub(&sum0, &sum3));
    let (b, c) = (add(&sum1, &sum2), sub(&sum1, &sum2));
    block[0] = add(&a, &b);
    block[4] = sub(&a, &b);
    let z1 = mul(&add(&c, &d), std::f32::consts::FRAC_1_SQRT_2);
    block[2] = add(&d, &z1);
    block[6] = sub(&d, &z1);
    let (a, b, c) = (add(&dif3, &dif2), add(&dif2, &dif1), add(&dif1, &dif0));
    let z5 = mul(&sub(&a, &c), 0.382_683_43);
    let z2 = add(&mul(&a, 0.541_196_1), &z5);
    let z4 = add(&mul(&c, 1.306_563), &z5);
    let z3 = mul(&b, std::f32::consts::FRAC_1_SQRT_2);
    let (z11, z13) = (add(&dif0, &z3), sub(&dif0, &z3));
    block[5] = add(&z13, &z2);
    block[3] = sub(&z13, &z2);
    block[1] = add(&z11, &z4);
    block[7] = sub(&z11, &z4);
}

fn transposed(block: &Block) -> Block {
    std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]))
}

/// Bits on their way out, the first one on top.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    fn put(&mut self, bits: u32, count: u32) {
        self.held = self.held << count | u64::from(bits);
        self.count += count;
        if self.count >= 32 {
            self.count -= 32;
            let word = (self.held >> self.count) as u32;
            // A byte of ones would begin a marker. Most words have none.
            if word & 0x8080_8080 & !word.wrapping_add(0x0101_0101) == 0 {
                self.out.extend_from_slice(&word.to_be_bytes());
            } else {
                word.to_be_bytes().into_iter().for_each(|byte| self.byte(byte));
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.out.push(byte);
        if byte == 0xff {
            self.out.push(0);
        }
    }

    fn code(&mut self, (code, length): (u16, u8)) {
        self.put(u32::from(code), u32::from(length));
    }

    /// The code for zeros and size, then the value's own bits.
    fn value(&mut self, codes: &[(u16, u8)], zeros: u32, value: i32) {
        let size = u32::BITS - value.unsigned_abs().leading_zeros();
        let own = (value + (value >> 31)) as u32 & ((1 << size) - 1);
        let (code, length) = codes[(zeros | size) as usize];
        self.put(u32::from(code) << size | own, u32::from(length) + size);
    }

    fn finish(mut self) {
        // Filled up with ones.
        self.put(0x7f, 7);
        while self.count >= 8 {
            self.count -= 8;
            self.byte((self.held >> self.count) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something with edges, slopes and grain.
    fn picture(width: usize, height: usize) -> Picture {
        let mut state = 1_u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 29) as i32
        };
        let luma = (0..width * height).map(|at| {
            let (x, y) = (at % width, at / width);
            let edge = if (x / 24 + y / 24) % 2 == 0 { 60 } else { 150 };
            (edge + (x * 60 / width) as i32 + noise()).clamp(0, 255) as u8
        });
        let chroma = (0..width * height / 2).map(|at| {
            let (x, y) = (at % width / 2, at / width);
            let value = if at % 2 == 0 { 90 + x * 60 / width } else { 170 - y * 80 / height };
            value as u8
        });
        Picture { width, height, luma: luma.collect(), chroma: chroma.collect() }
    }

    #[test]
    fn others_read_the_picture_that_was_written() {
        // Whole blocks, half blocks, and less than one block.
        for (width, height) in [(64, 48), (640, 360), (70, 34), (2, 2), (16, 6)] {
            let picture = picture(width, height);
            let mut sizes = Vec::new();
            for (quality, least_db) in [(30, 29.0), (75, 33.0), (95, 39.0)] {
                let mut bytes = Vec::new();
                Encoder::new(quality).encode(&picture, &mut bytes);
                let read = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)
                    .expect("a JPEG")
                    .into_rgb8();
                assert_eq!(read.dimensions(), (width as u32, height as u32));
                // Grey is what a JPEG's luma is.
                let luma = read.pixels().map(|p| {
                    let [r, g, b] = p.0.map(f64::from);
                    0.299 * r + 0.587 * g + 0.114 * b
                });
                let error: f64 =
                    luma.zip(&picture.luma).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum();
                let psnr = 10.0 * (255.0_f64.powi(2) * (width * height) as f64 / error).log10();
                assert!(psnr > least_db, "{width}x{height} at {quality}: {psnr:.1} dB");
                sizes.push(bytes.len());
            }
            assert!(sizes.is_sorted(), "better pictures are larger: {sizes:?}");
        }
    }

    #[test]
    fn colours_stay_what_they_are() {
        // Red, BT.601 full range.
        let picture =
            Picture { width: 32, height: 32, luma: vec![76; 1024], chroma: [85, 255].repeat(256) };
        let mut bytes = Vec::new();
        Encoder::new(90).encode(&picture, &mut bytes);
        let read = image::load_from_memory(&bytes).expect("a JPEG").into_rgb8();
        let [r, g, b] = read.get_pixel(16, 16).0;
        assert!(r > 248 && g < 8 && b < 8, "{r} {g} {b}");
    }
}
