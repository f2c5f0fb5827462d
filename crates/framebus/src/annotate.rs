//! A frame with its boxes and labels drawn, as JPEG or PNG.

use framebus_bus::FrameSample;
use framebus_types::{self as types, Detection, Fourcc};
use framebus_vision::{ChromaSite, Colour, FrameView, Matrix, Planes, Range, Resampler};
use image::{Rgb, RgbImage};
use std::io::Write;
use std::path::Path;

/// Enough hues that neighbours in a class list differ.
const COLOURS: [[u8; 3]; 10] = [
    [255, 64, 64],
    [64, 200, 64],
    [80, 140, 255],
    [255, 176, 32],
    [200, 80, 255],
    [32, 200, 200],
    [255, 112, 176],
    [168, 216, 48],
    [255, 224, 64],
    [160, 160, 255],
];

/// Side of a glyph in font pixels.
const GLYPH: i64 = 8;

/// A frame as RGB, converted as the inference process converts it: by its own
/// matrix, range and chroma position.
pub(crate) fn rgb(frame: &FrameSample) -> Result<RgbImage, String> {
    let header = frame.header();
    let (width, height) = (header.width as usize, header.height as usize);
    let (first, first_stride) = frame.plane(0);
    let planes = match frame.fourcc() {
        Fourcc::Nv12 => {
            let (uv, uv_stride) = frame.plane(1);
            Planes::Nv12 { y: first, y_stride: first_stride, uv, uv_stride }
        }
        Fourcc::Rgb24 => Planes::Rgb24 { data: first, stride: first_stride },
    };
    let colour = Colour {
        matrix: match frame.matrix() {
            types::ColourMatrix::Bt601 => Matrix::Bt601,
            types::ColourMatrix::Bt709 => Matrix::Bt709,
            types::ColourMatrix::Bt2020 => Matrix::Bt2020,
        },
        range: match frame.range() {
            types::ColourRange::Limited => Range::Limited,
            types::ColourRange::Full => Range::Full,
        },
        site: match frame.chroma_site() {
            types::ChromaSite::Left => ChromaSite::Left,
            types::ChromaSite::Center => ChromaSite::Center,
        },
    };
    let view = FrameView::new(width, height, planes, colour).map_err(|error| error.to_string())?;
    // A letterbox of the picture's own size is the bare colour conversion.
    let mut resampler = Resampler::new(&view, width, height).map_err(|error| error.to_string())?;
    let mut planar = vec![0.0_f32; resampler.output_len()];
    resampler.run(&view, &mut planar).map_err(|error| error.to_string())?;
    let plane = width * height;
    let byte = |value: f32| (value * 255.0).round().clamp(0.0, 255.0) as u8;
    Ok(RgbImage::from_fn(header.width, header.height, |x, y| {
        let i = y as usize * width + x as usize;
        Rgb([byte(planar[i]), byte(planar[plane + i]), byte(planar[2 * plane + i])])
    }))
}

/// Draws boxes and labels.
pub(crate) fn draw(picture: &mut RgbImage, detections: &[Detection]) {
    // Lines and letters grow with the picture.
    let scale = (i64::from(picture.width().max(picture.height())) / 640).clamp(1, 8);
    for found in detections {
        let colour = Rgb(COLOURS[found.class as usize % COLOURS.len()]);
        let [left, top, right, bottom] = found.bbox.map(|edge| edge.round() as i64);
        for line in 0..scale + 1 {
            fill(picture, left, top + line, right - left, 1, colour);
            fill(picture, left, bottom - line, right - left + 1, 1, colour);
            fill(picture, left + line, top, 1, bottom - top, colour);
            fill(picture, right - line, top, 1, bottom - top, colour);
        }
        let text = format!("{} {:.2}", found.label(), found.score);
        let (width, height) = (text.chars().count() as i64 * GLYPH * scale, GLYPH * scale);
        let x = left.clamp(0, (i64::from(picture.width()) - width - 2 * scale).max(0));
        let y = if top >= height + 2 * scale { top - height - 2 * scale } else { top.max(0) };
        fill(picture, x, y, width + 2 * scale, height + 2 * scale, colour);
        write(picture, x + scale, y + scale, scale, &text);
    }
}

/// Fills a rectangle, cut to the picture.
fn fill(picture: &mut RgbImage, x: i64, y: i64, width: i64, height: i64, colour: Rgb<u8>) {
    let (right, bottom) = (i64::from(picture.width()), i64::from(picture.height()));
    for row in y.max(0)..(y + height).min(bottom) {
        for column in x.max(0)..(x + width).min(right) {
            picture.put_pixel(column as u32, row as u32, colour);
        }
    }
}

fn write(picture: &mut RgbImage, x: i64, y: i64, scale: i64, text: &str) {
    for (index, letter) in text.chars().enumerate() {
        // The font is ASCII; other alphabets get a placeholder.
        let glyph = font8x8::legacy::BASIC_LEGACY
            .get(letter as usize)
            .unwrap_or(&font8x8::legacy::BASIC_LEGACY['?' as usize]);
        for (row, bits) in glyph.iter().enumerate() {
            for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                let left = x + (index as i64 * GLYPH + column) * scale;
                fill(picture, left, y + row as i64 * scale, scale, scale, Rgb([0, 0, 0]));
            }
        }
    }
}

/// Saves as the name's ending says, `.png` or otherwise JPEG; the file appears
/// whole or not at all.
pub(crate) fn save(picture: &RgbImage, file: &Path) -> Result<(), String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(".framebus-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(|error| failed(&error))?;
    let bytes = encode(picture, is_png(file)).map_err(|error| failed(&error))?;
    temporary.write_all(&bytes).map_err(|error| failed(&error))?;
    readable(temporary.path());
    temporary.persist(file).map_err(|error| failed(&error.error))?;
    Ok(())
}

/// Temporary files are for their owner alone; a result is an ordinary file.
pub(crate) fn readable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644));
}

fn is_png(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

fn encode(picture: &RgbImage, png: bool) -> image::ImageResult<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    if png {
        picture.write_to(&mut bytes, image::ImageFormat::Png)?;
    } else {
        picture.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(
            &mut bytes, 92,
        ))?;
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::text;

    #[test]
    fn boxes_are_drawn_where_they_are_and_cut_at_the_edge() {
        let mut picture = RgbImage::new(100, 80);
        let found = Detection {
            bbox: [-10.0, 30.0, 50.0, 200.0],
            score: 0.5,
            label: text::pack("cat"),
            ..Detection::default()
        };
        draw(&mut picture, &[found]);
        let colour = Rgb(COLOURS[0]);
        assert_eq!(*picture.get_pixel(20, 30), colour, "top edge");
        assert_eq!(*picture.get_pixel(50, 60), colour, "right edge");
        assert_eq!(*picture.get_pixel(20, 60), Rgb([0, 0, 0]), "inside");
        assert_eq!(*picture.get_pixel(90, 60), Rgb([0, 0, 0]), "outside");
        assert_eq!(*picture.get_pixel(0, 20), colour, "label background");
    }

    #[test]
    fn a_saved_picture_can_be_read_again() {
        let folder = tempfile::tempdir().expect("temp dir");
        for name in ["a.png", "a.jpg"] {
            let file = folder.path().join(name);
            save(&RgbImage::from_pixel(20, 10, Rgb([9, 200, 30])), &file).expect("saved");
            let bytes = std::fs::read(&file).expect("read");
            let read = image::load_from_memory(&bytes).expect("decoded").to_rgb8();
            assert_eq!(read.dimensions(), (20, 10));
            assert!(read.get_pixel(5, 5)[1].abs_diff(200) < 4);
        }
        let missing = folder.path().join("no/a.png");
        assert!(save(&RgbImage::new(1, 1), &missing).is_err_and(|e| e.contains("cannot write")));
    }
}
