//! Baseline JPEG out of YCbCr with half chroma, as a frame of the bus has it.

use jpeg_encoder::{ImageBuffer, JpegColorType, SamplingFactor};

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
    quality: u8,
}

impl Encoder {
    /// `quality` from 1 to 100, as libjpeg counts it.
    pub(crate) fn new(quality: u8) -> Self {
        Self { quality }
    }

    /// Appends the picture to `out`.
    pub(crate) fn encode(&self, picture: &Picture, out: &mut Vec<u8>) {
        let mut encoder = jpeg_encoder::Encoder::new(out, self.quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        let done = encoder.encode_image(Rows(picture));
        // A vector takes everything, and sizes are what `Picture` says.
        debug_assert!(done.is_ok(), "{done:?}");
    }
}

/// A picture as the library asks for it: row by row, chroma as wide as luma. It takes
/// every other sample of every other row back out: those that went in.
struct Rows<'a>(&'a Picture);

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        u16::try_from(self.0.width).unwrap_or_default()
    }

    fn height(&self) -> u16 {
        u16::try_from(self.0.height).unwrap_or_default()
    }

    fn fill_buffers(&self, y: u16, [luma, cb, cr, _]: &mut [Vec<u8>; 4]) {
        let (y, width) = (usize::from(y), self.0.width);
        luma.extend_from_slice(&self.0.luma[y * width..][..width]);
        let chroma = &self.0.chroma[y / 2 * width..][..width];
        cb.extend(chroma.chunks_exact(2).flat_map(|pair| [pair[0]; 2]));
        cr.extend(chroma.chunks_exact(2).flat_map(|pair| [pair[1]; 2]));
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
