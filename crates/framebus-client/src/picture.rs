//! A frame as an RGB picture, with boxes and labels drawn into it (feature `picture`).

use crate::{Detection, Event, FrameSample};
use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Fourcc, FrameHeader, UnknownCode};
use framebus_vision::{self as vision, FrameView, Planes, Resampler};
use image::{Rgb, RgbImage};

/// Enough hues that neighbours in a class list differ.
pub const COLOURS: [[u8; 3]; 10] = [
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
///
/// # Errors
/// A sentence, for a frame that is too small or too large to be converted.
pub fn rgb(frame: &FrameSample) -> Result<RgbImage, String> {
    let (first, first_stride) = frame.plane(0);
    let planes = match frame.fourcc() {
        Fourcc::Nv12 => {
            let (uv, uv_stride) = frame.plane(1);
            Planes::Nv12 { y: first, y_stride: first_stride, uv, uv_stride }
        }
        Fourcc::Rgb24 => Planes::Rgb24 { data: first, stride: first_stride },
    };
    rgb_of(frame.header(), planes)
}

/// As [`rgb`], of pixels that lie elsewhere.
///
/// # Errors
/// As [`rgb`], and for colours that this version does not know.
pub fn rgb_of(header: &FrameHeader, planes: Planes<'_>) -> Result<RgbImage, String> {
    let (width, height) = (header.width as usize, header.height as usize);
    let unknown = |error: UnknownCode| error.to_string();
    let colour = vision::Colour {
        matrix: match ColourMatrix::try_from(header.matrix).map_err(unknown)? {
            ColourMatrix::Bt601 => vision::Matrix::Bt601,
            ColourMatrix::Bt709 => vision::Matrix::Bt709,
            ColourMatrix::Bt2020 => vision::Matrix::Bt2020,
        },
        range: match ColourRange::try_from(header.range).map_err(unknown)? {
            ColourRange::Limited => vision::Range::Limited,
            ColourRange::Full => vision::Range::Full,
        },
        site: match ChromaSite::try_from(header.chroma_site).map_err(unknown)? {
            ChromaSite::Left => vision::ChromaSite::Left,
            ChromaSite::Center => vision::ChromaSite::Center,
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

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// Left, top, right, bottom in pixels of the picture.
    pub bbox: [f32; 4],
    /// Class number: chooses the colour.
    pub class: u32,
    /// What stands at the box; other letters than ASCII become question marks.
    pub text: String,
}

impl From<&Detection> for Labelled {
    fn from(found: &Detection) -> Self {
        let text = format!("{} {:.2}", found.label(), found.score);
        Self { bbox: found.bbox, class: found.class, text }
    }
}

impl From<&Event> for Labelled {
    fn from(event: &Event) -> Self {
        let text = format!("{} #{} {:.2}", event.label(), event.track, event.score);
        Self { bbox: event.bbox, class: event.class, text }
    }
}

/// Draws boxes and labels.
pub fn draw(picture: &mut RgbImage, boxes: impl IntoIterator<Item = Labelled>) {
    // Lines and letters grow with the picture.
    let scale = (i64::from(picture.width().max(picture.height())) / 640).clamp(1, 8);
    for Labelled { bbox, class, text } in boxes {
        let colour = Rgb(COLOURS[class as usize % COLOURS.len()]);
        let [left, top, right, bottom] = bbox.map(|edge| edge.round() as i64);
        for line in 0..scale + 1 {
            fill(picture, left, top + line, right - left, 1, colour);
            fill(picture, left, bottom - line, right - left + 1, 1, colour);
            fill(picture, left + line, top, 1, bottom - top, colour);
            fill(picture, right - line, top, 1, bottom - top, colour);
        }
        let (width, height) = (text.chars().count() as i64 * GLYPH * scale, GLYPH * scale);
        let x = left.clamp(0, (i64::from(picture.width()) - width - 2 * scale).max(0));
        let y = if top >= height + 2 * scale { top - height - 2 * scale } else { top.max(0) };
        fill(picture, x, y, width + 2 * scale, height + 2 * scale, colour);
        write(picture, x + scale, y + scale, scale, &text);
    }
}

/// Fills a rectangle, cut to the picture.
fn fill(picture: &mut RgbImage, x: i64, y: i64, width: i64, height: i64, colour: Rgb<u8>) {
    let (across, down) = (i64::from(picture.width()), i64::from(picture.height()));
    for row in y.max(0)..y.saturating_add(height).min(down) {
        for column in x.max(0)..x.saturating_add(width).min(across) {
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
        draw(&mut picture, [Labelled::from(&found)]);
        let colour = Rgb(COLOURS[0]);
        assert_eq!(*picture.get_pixel(20, 30), colour, "top edge");
        assert_eq!(*picture.get_pixel(50, 60), colour, "right edge");
        assert_eq!(*picture.get_pixel(20, 60), Rgb([0, 0, 0]), "inside");
        assert_eq!(*picture.get_pixel(90, 60), Rgb([0, 0, 0]), "outside");
        assert_eq!(*picture.get_pixel(0, 20), colour, "label background");
    }
}
