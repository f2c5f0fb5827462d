//! Pictures and folders of pictures as cameras: decoded here, published as RGB.
//!
//! RGB24 and not NV12: a trip through NV12 alone moves the scores of a network
//! that was trained on RGB.

use crate::drought::Drought;
use crate::error::CaptureError;
use crate::explain;
use crate::host::Host;
use crate::layout::{Layout, scaled};
use crate::publish::{Moment, Output};
use crate::supervise::Ended;
use crate::watch;
use framebus_bus::BusError;
use framebus_config::{Camera, Delivery, Pace, Source};
use framebus_service::{Service, clock};
use framebus_types::{Counter, State};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Endings of the pictures that can be decoded.
const ENDINGS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];
/// Rate of a picture that plays camera.
const DEFAULT_FPS: f64 = 1.0;
/// Presentation times of two neighbours in a folder are so far apart, ns.
const PTS_STEP_NS: u64 = 1_000_000_000;
/// How often the thread that decodes is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Whether the source is a picture or a folder of pictures.
pub(crate) fn is_picture(source: &Source) -> bool {
    match source {
        Source::File(path) => has_ending(path) || path.is_dir(),
        _ => false,
    }
}

fn has_ending(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The picture, or the folder's pictures in the order of their names.
fn list(source: &Source, path: &Path) -> Result<Vec<PathBuf>, CaptureError> {
    if !path.is_dir() {
        return match std::fs::metadata(path) {
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(explain::reason(source, "no such file"))
            }
            Err(error) => Err(explain::reason(source, &format!("cannot be read: {error}"))),
        };
    }
    let failed = |error| CaptureError::Folder { path: path.to_owned(), source: error };
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let picture = entry.map_err(failed)?.path();
        if has_ending(&picture) && picture.is_file() {
            pictures.push(picture);
        }
    }
    if pictures.is_empty() {
        let reason = format!("the folder has no pictures ({})", ENDINGS.join(", "));
        return Err(CaptureError::NoPicture { path: path.to_owned(), reason });
    }
    pictures.sort();
    Ok(pictures)
}

/// Decodes a picture the way up it is meant to be seen.
fn decode(path: &Path, max_width: Option<u32>) -> Result<RgbImage, CaptureError> {
    let failed = |error| CaptureError::Picture { path: path.to_owned(), source: error };
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|error| failed(image::ImageError::IoError(error)))?;
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let (width, height) = scaled(picture.width(), picture.height(), max_width);
    if (width, height) == picture.dimensions() {
        return Ok(picture);
    }
    let filter = image::imageops::FilterType::Triangle;
    Ok(image::imageops::resize(&picture, width, height, filter))
}

/// Size of the first picture that can be decoded, as it would be published.
pub(crate) fn probe(camera: &Camera) -> Result<(u32, u32), CaptureError> {
    let Source::File(path) = &camera.source else {
        return Err(explain::reason(&camera.source, "no picture"));
    };
    let mut first_error = None;
    for file in list(&camera.source, path)? {
        match decode(&file, camera.max_width) {
            Ok(picture) => return Ok(picture.dimensions()),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| explain::reason(&camera.source, "no picture")))
}

/// Time between two pictures; an every-frame source without a rate has none.
fn period(camera: &Camera) -> Duration {
    match (camera.pace, camera.fps, camera.delivery) {
        (Pace::Fast, _, _) | (_, None, Delivery::EveryFrame) => Duration::ZERO,
        (_, fps, _) => Duration::from_secs_f64(1.0 / fps.unwrap_or(DEFAULT_FPS)),
    }
}

pub(crate) fn run(host: &Host<'_>, output: &Arc<Output>) -> Result<Ended, CaptureError> {
    let (camera, service) = (host.camera, host.service);
    let Source::File(path) = &camera.source else {
        return Err(explain::broken(&camera.source, "not a picture"));
    };
    let pictures = list(&camera.source, path)?;
    service.ready();
    // Why the bus takes no picture at the moment.
    let fault = Mutex::new(None);
    // Publishing may wait for readers; this thread says so meanwhile.
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("pictures".to_owned())
            .spawn_scoped(scope, || show_all(host, path, &pictures, output, &fault))
            .map_err(|error| explain::broken(&camera.source, &format!("no thread: {error}")))?;
        let stall_ns = (camera.stall_s * 1e9) as u64;
        let drought_ns = stall_ns + 3 * period(camera).as_nanos() as u64;
        let mut drought = Drought::default();
        while !worker.is_finished() {
            host.progress();
            let seen = output.vitals().get(Counter::Published) > 0;
            let offline = fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(reason) = offline {
                drought.forget(output.vitals());
                output.vitals().set_state(State::Offline, &reason);
            } else if watch::say_waiting(output, stall_ns, seen) {
                drought.forget(output.vitals());
            } else if let Some(cause) =
                drought.look(output.vitals(), clock::monotonic_ns(), drought_ns)
            {
                output.vitals().set_state(State::Degraded, &cause);
            } else if seen {
                output.vitals().set_state(State::Live, "");
            }
            std::thread::park_timeout(STEP);
        }
        // A panic has been logged by the hook, which also asks to stop.
        worker.join().unwrap_or(Ok(Ended::Stopped))
    })
}

fn show_all(
    host: &Host<'_>,
    path: &Path,
    pictures: &[PathBuf],
    output: &Arc<Output>,
    fault: &Mutex<Option<String>>,
) -> Result<Ended, CaptureError> {
    let (camera, service) = (host.camera, host.service);
    let say = |reason| *fault.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    let mut backoff = host.backoff();
    let period = period(camera);
    // One picture that is shown again and again is decoded once.
    let mut kept = None;
    let (mut next_ns, mut shown) = (clock::monotonic_ns(), 0_u64);
    loop {
        for (index, path) in pictures.iter().enumerate() {
            if wait_until(service, next_ns) {
                return Ok(Ended::Stopped);
            }
            next_ns = clock::monotonic_ns().max(next_ns + period.as_nanos() as u64);
            let picture = match kept.take() {
                Some(picture) => Ok(picture),
                None => decode(path, camera.max_width),
            };
            match picture {
                Ok(picture) => {
                    // The index in the list of all files, so that a reader knows the
                    // file whether or not its neighbours can be decoded.
                    let pts_ns = index as u64 * PTS_STEP_NS;
                    // The bus may have room later.
                    while let Some(error) = match show(&picture, pts_ns, output) {
                        Ok(true) => None,
                        Ok(false) => return Ok(Ended::Stopped),
                        Err(error) => Some(error),
                    } {
                        output.vitals().add(Counter::Errors, 1);
                        say(Some(CaptureError::from(error).sentence()));
                        if host.wait_to_retry(backoff.fail()) {
                            return Ok(Ended::Stopped);
                        }
                    }
                    backoff.reset();
                    say(None);
                    shown += 1;
                    kept = (pictures.len() == 1).then_some(picture);
                }
                Err(error) if pictures.len() == 1 => return Err(error),
                Err(error) => {
                    output.vitals().add(Counter::Errors, 1);
                    output.lose(Counter::LostBad);
                    let reason = error.sentence();
                    tracing::error!(camera = %camera.name, reason, "picture left out");
                }
            }
        }
        if shown == 0 {
            let reason = format!("none of its {} pictures can be decoded", pictures.len());
            return Err(CaptureError::NoPicture { path: path.to_owned(), reason });
        }
        if !camera.repeat {
            return Ok(Ended::Source);
        }
        output.mark_discontinuity();
    }
}

/// Publishes one picture; returns `false` when asked to stop.
fn show(picture: &RgbImage, pts_ns: u64, output: &Arc<Output>) -> Result<bool, BusError> {
    let vitals = output.vitals();
    let moment = Moment::now(pts_ns, 0);
    let Some(layout) = Layout::rgb24(picture.width(), picture.height()) else {
        vitals.add(Counter::Errors, 1);
        output.lose(Counter::LostBad);
        return Ok(true);
    };
    let mut loan = match output.loan(layout.bytes) {
        Ok(loan) => loan,
        Err(BusError::NoLoan { .. }) => {
            output.lose(Counter::LostMemory);
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    if loan.payload_mut().len() != picture.as_raw().len() {
        output.lose(Counter::LostBad);
        return Ok(true);
    }
    loan.payload_mut().copy_from_slice(picture.as_raw());
    let (width, height) = picture.dimensions();
    vitals.set_size(width, height);
    vitals.set_detail(&format!("picture → RGB24 {width}x{height}, copied"));
    output.publish(loan, &layout, &moment, Counter::Copied)
}

/// Returns whether asked to stop.
fn wait_until(service: &Service, time_ns: u64) -> bool {
    loop {
        let left_ns = time_ns.saturating_sub(clock::monotonic_ns());
        if service.shutdown().requested() || left_ns == 0 {
            return service.shutdown().requested();
        }
        let _ = service.shutdown().wait(Duration::from_nanos(left_ns.min(1_000_000_000)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::CameraName;

    #[test]
    fn pictures_are_sorted_and_others_left_out() {
        let folder = tempfile::tempdir().expect("temp dir");
        let source = Source::File(folder.path().to_owned());
        let error = list(&source, folder.path()).expect_err("empty folder");
        assert!(
            error.to_string().ends_with("the folder has no pictures (jpg, jpeg, png, bmp, webp)")
        );
        for name in ["b.PNG", "a.jpeg", "notes.txt", "c.webp", "mp4"] {
            std::fs::write(folder.path().join(name), b"x").expect("write");
        }
        let listed = list(&source, folder.path()).expect("pictures");
        let names: Vec<_> = listed.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["a.jpeg", "b.PNG", "c.webp"]);
        assert!(is_picture(&source) && is_picture(&Source::File("/nowhere/x.JPG".into())));
        assert!(!is_picture(&Source::File("/nowhere/x.mp4".into())));
    }

    #[test]
    fn pictures_are_decoded_and_made_smaller() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("a.png");
        RgbImage::from_pixel(400, 200, image::Rgb([10, 20, 30])).save(&path).expect("save");
        let picture = decode(&path, None).expect("a picture");
        assert_eq!((picture.dimensions(), picture[(399, 199)].0), ((400, 200), [10, 20, 30]));
        assert_eq!(decode(&path, Some(100)).expect("a picture").dimensions(), (100, 50));
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nrubbish").expect("write");
        let error = decode(&path, None).expect_err("rubbish");
        assert_eq!(error.to_string(), format!("cannot decode the picture {}", path.display()));
    }

    #[test]
    fn the_rate_of_a_picture_camera() {
        let name = CameraName::try_from("a").expect("name");
        let mut camera = Camera::new(name, Source::File("a.png".into()));
        assert_eq!(period(&camera), Duration::from_secs(1));
        camera.fps = Some(4.0);
        assert_eq!(period(&camera), Duration::from_millis(250));
        camera.delivery = Delivery::EveryFrame;
        assert_eq!(period(&camera), Duration::from_millis(250));
        camera.fps = None;
        assert_eq!(period(&camera), Duration::ZERO);
    }
}
