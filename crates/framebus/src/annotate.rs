//! A frame with its boxes and labels drawn, as JPEG or PNG.

use framebus_client::picture::Labelled;
pub(crate) use framebus_client::picture::{COLOURS, rgb, rgb_of};
use framebus_types::Detection;
use image::RgbImage;
use std::io::Write;
use std::path::Path;

/// Draws boxes and labels.
pub(crate) fn draw(picture: &mut RgbImage, detections: &[Detection]) {
    framebus_client::picture::draw(picture, detections.iter().map(Labelled::from));
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
    if !png {
        return jpeg(picture, 92);
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// As JPEG of a quality from 1 to 100.
pub(crate) fn jpeg(picture: &RgbImage, quality: u8) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    picture.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(
        &mut bytes, quality,
    ))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

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
