//! NV12 pictures to publish: real ones, or noise.

use framebus_service::{Failure, Kind};
use image::imageops::FilterType;
use std::path::{Path, PathBuf};

/// Pictures that are kept.
const PICTURES_MAX: usize = 8;

/// Bytes of an NV12 picture without padding.
pub(super) fn bytes(width: usize, height: usize) -> usize {
    width * height * 3 / 2
}

/// A picture without objects: a gradient under noise, so that no two neighbours are
/// equal. The same `seed` gives the same picture.
pub(super) fn noise(width: usize, height: usize, seed: u64) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = || {
        // Xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 58) as usize
    };
    let luma = (0..width * height).map(|i| (i % width) * 150 / width);
    let luma: Vec<u8> = luma.map(|ramp| (16 + ramp + random()) as u8).collect();
    let chroma = (0..width * height / 2).map(|_| (96 + random()) as u8);
    luma.iter().copied().chain(chroma).collect()
}

/// Up to eight pictures as NV12 of this size: those of a file or folder, cropped to the
/// shape, or noise where none is named.
pub(super) fn load(
    path: Option<&Path>,
    width: usize,
    height: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(path) = path else {
        return Ok((0..2).map(|seed| noise(width, height, seed)).collect());
    };
    let files = files(path)?;
    let mut pictures = Vec::with_capacity(files.len());
    for file in &files {
        let picture = image::open(file).map_err(|error| {
            Failure::message(Kind::Unavailable, format_args!("{}: {error}", file.display()))
        })?;
        let fitted = picture.resize_to_fill(width as u32, height as u32, FilterType::Triangle);
        pictures.push(nv12(&fitted.to_rgb8()));
    }
    Ok(pictures)
}

/// The pictures that [`load`] would take.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |reason: String| {
        Failure::message(Kind::Usage, format_args!("--pictures {}: {reason}", path.display()))
    };
    let mut files = if path.is_dir() {
        crate::cmd::detect::pictures(path).map_err(fail)?
    } else {
        vec![path.to_owned()]
    };
    files.truncate(PICTURES_MAX);
    match files.iter().find(|file| !file.is_file()) {
        Some(missing) => Err(fail(format!("there is no file {}", missing.display()))),
        None if files.is_empty() => Err(fail("the folder has no pictures".to_owned())),
        None => Ok(files),
    }
}

/// BT.709, limited range, chroma as the mean of four pixels (ITU-R BT.709-6, 8 bit).
/// Both sides are even.
fn nv12(picture: &image::RgbImage) -> Vec<u8> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let rgb = |x: usize, y: usize| picture.get_pixel(x as u32, y as u32).0.map(f32::from);
    let mut out = Vec::with_capacity(bytes(width, height));
    for y in 0..height {
        for x in 0..width {
            let [r, g, b] = rgb(x, y);
            let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            out.push((16.5 + luma * 219.0 / 255.0) as u8);
        }
    }
    for y in (0..height).step_by(2) {
        for x in (0..width).step_by(2) {
            let four = [rgb(x, y), rgb(x + 1, y), rgb(x, y + 1), rgb(x + 1, y + 1)];
            let [r, g, b] = [0, 1, 2].map(|c| four.iter().map(|p| p[c]).sum::<f32>() / 4.0);
            let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            let scale = 224.0 / 255.0;
            out.push((128.5 + (b - luma) / 1.8556 * scale) as u8);
            out.push((128.5 + (r - luma) / 1.5748 * scale) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_have_the_values_of_the_standard() {
        for (rgb, [y, cb, cr]) in [
            ([0, 0, 0], [16, 128, 128]),
            ([255, 255, 255], [235, 128, 128]),
            ([255, 0, 0], [63, 102, 240]),
            ([0, 0, 255], [32, 240, 118]),
        ] {
            let picture = image::RgbImage::from_pixel(4, 2, image::Rgb(rgb));
            let nv12 = nv12(&picture);
            assert_eq!(nv12, [[y; 8].as_slice(), &[cb, cr, cb, cr]].concat(), "{rgb:?}");
        }
    }

    #[test]
    fn noise_fills_the_picture_and_repeats() {
        let picture = noise(64, 32, 3);
        assert_eq!(picture.len(), bytes(64, 32));
        assert_eq!(picture, noise(64, 32, 3));
        assert_ne!(picture, noise(64, 32, 4));
    }
}
