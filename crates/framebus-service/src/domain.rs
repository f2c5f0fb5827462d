//! The bus domain that a configuration describes.

use framebus_bus::{BusError, Domain, Limits};
use framebus_config::{Camera, Config, Delivery, Pace, SinkKind};

/// Whether every enabled camera is every-frame: results then wait for their
/// readers too, and nothing at all is lost.
#[must_use]
pub fn is_offline(config: &Config) -> bool {
    config.enabled_cameras().all(|camera| camera.delivery == Delivery::EveryFrame)
}

/// How the bus delivers the frames of a camera that is configured so.
#[must_use]
pub fn delivery(configured: Delivery) -> framebus_bus::Delivery {
    match configured {
        Delivery::Latest => framebus_bus::Delivery::Latest,
        Delivery::EveryFrame => framebus_bus::Delivery::EveryFrame,
    }
}

/// Frames of one camera that may be in inference at once; each costs a sample of
/// shared memory per reader. Two let a fast camera go on where an engine would
/// idle. Recordings that are read as fast as it goes share `model.contexts` out
/// between them, or four where the backend decides.
fn in_flight(config: &Config) -> usize {
    let contexts = match config.model.contexts {
        0 => 4,
        contexts => contexts,
    };
    let recording =
        |camera: &Camera| camera.delivery == Delivery::EveryFrame || camera.pace == Pace::Fast;
    let wanted = match config.enabled_cameras().all(recording) {
        true => contexts.div_ceil(config.enabled_cameras().count().max(1)).max(2),
        false => 2,
    };
    wanted.min(contexts)
}

/// Enabled sinks that read frames; each takes a place of its own beside those that
/// `bus.frame_subscribers` leaves to others.
fn frame_sinks(config: &Config) -> usize {
    let reads = |kind: &SinkKind| match kind {
        SinkKind::Web(_) | SinkKind::Snapshots(_) => true,
        SinkKind::Zenoh(zenoh) => zenoh.frames,
        _ => false,
    };
    config.enabled_sinks().filter(|sink| reads(&sink.kind)).count()
}

/// Names the domain; touches nothing.
///
/// # Errors
/// [`BusError::Domain`] when the instance or its folder cannot be used.
pub fn domain(config: &Config) -> Result<Domain, BusError> {
    let limits = Limits {
        frame_subscribers: config.bus.frame_subscribers + frame_sinks(config),
        result_subscribers: config.bus.result_subscribers,
        result_buffer: config.bus.result_buffer,
        max_detections: config.model.max_detections,
        in_flight: in_flight(config),
        offline: is_offline(config),
    };
    Domain::new(config.instance.as_str(), &config.bus.root, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_flight_follow_cameras_and_contexts() {
        let in_flight = |contexts: usize, cameras: &[&str]| {
            let camera = |(number, keys): (usize, &&str)| {
                format!("[[camera]]\nname = \"c{number}\"\nsource = \"file:x.mp4\"\n{keys}\n")
            };
            let cameras: String = cameras.iter().enumerate().map(camera).collect();
            let text = format!("[model]\npath = \"x.onnx\"\ncontexts = {contexts}\n{cameras}");
            let file = std::path::Path::new("x.toml");
            let config = framebus_config::parse(&text, file, &|_| None).expect("valid");
            domain(&config).expect("valid").limits().in_flight
        };
        let (live, fast, every) = ("", "pace = \"fast\"", "delivery = \"every-frame\"");
        assert_eq!(in_flight(0, &[live]), 2);
        assert_eq!(in_flight(8, &[live, fast]), 2);
        assert_eq!(in_flight(1, &[live]), 1);
        assert_eq!(in_flight(0, &[fast]), 4);
        assert_eq!(in_flight(8, &[every]), 8);
        assert_eq!(in_flight(8, &[every, fast, every]), 3);
        assert_eq!(in_flight(0, &[every, fast, every]), 2);
        assert_eq!(in_flight(1, &[every]), 1);
    }

    #[test]
    fn sinks_that_read_frames_take_no_place_of_others() {
        let places = |sinks: &str| {
            let text = format!(
                "[model]\npath = \"x.onnx\"\n[[camera]]\nname = \"c\"\nsource = \"test:ball\"\n{sinks}"
            );
            let file = std::path::Path::new("x.toml");
            let config = framebus_config::parse(&text, file, &|_| None).expect("valid");
            domain(&config).expect("valid").limits().frame_subscribers
        };
        let token = "token = \"0123456789abcdef\"\n";
        let web = format!("[[sink]]\nname = \"page\"\nkind = \"web\"\n{token}");
        assert_eq!(places(""), 2);
        assert_eq!(places("[[sink]]\nname = \"lines\"\nkind = \"jsonl\"\n"), 2);
        assert_eq!(places(&web), 3);
        assert_eq!(places(&format!("{web}enabled = false\n")), 2);
        let zenoh = "[[sink]]\nname = \"z\"\nkind = \"zenoh\"\nurl = \"tcp://127.0.0.1:7447\"\n";
        assert_eq!(places(zenoh), 2);
        assert_eq!(places(&format!("{web}{zenoh}frames = true\n")), 4);
    }
}
