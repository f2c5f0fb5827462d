//! GStreamer's errors as one clear sentence, without credentials.

use crate::error::CaptureError;
use framebus_config::{Decoder, Source};
use framebus_service::Shutdown;
use gst::glib;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

/// Longest wait for an answer when asking why a camera cannot be reached.
const ASK: Duration = Duration::from_secs(3);

/// A source that does not deliver.
pub(crate) fn reason(source: &Source, reason: &str) -> CaptureError {
    CaptureError::Source { source_name: source.to_string(), reason: reason.to_owned() }
}

/// What an ERROR message came to, see [`error`].
pub(crate) fn failure(source: &Source, text: &str) -> CaptureError {
    if text.starts_with("401 ") {
        return CaptureError::Login { source_name: source.to_string(), reason: text.to_owned() };
    }
    reason(source, text)
}

/// A pipeline text that will never work.
pub(crate) fn pipeline(source: &Source, reason: &str) -> CaptureError {
    CaptureError::Pipeline { source_name: source.to_string(), reason: reason.to_owned() }
}

/// Elements that do not fit together: not the user's fault.
pub(crate) fn broken(source: &Source, what: &str) -> CaptureError {
    reason(source, &format!("the pipeline cannot be built: {what}"))
}

/// Error of a pipeline's text without the value of a property, which may be a
/// password.
pub(crate) fn parse_error(message: &str) -> String {
    let message = match message.strip_prefix("could not set property ") {
        Some(_) => message.split_once(" to \"").map_or(message, |(head, _)| head),
        None => message,
    };
    without_urls(message)
}

/// What an ERROR message means. `debug` is only read: it repeats addresses.
/// `choice` is the camera's decoder, `missing` the one that GStreamer has announced as missing.
pub(crate) fn error(
    source: &Source,
    choice: Decoder,
    error: &glib::Error,
    debug: &str,
    missing: Option<&str>,
) -> String {
    if error.matches(gst::CoreError::MissingPlugin)
        || error.matches(gst::StreamError::CodecNotFound)
    {
        // Streams that are no video count as missing too, without being announced.
        return match missing {
            Some(format) if !matches!(choice, Decoder::Auto | Decoder::Software) => format!(
                "no {choice} decoder takes {format}, or it does not start: is its driver loaded? \
                 decoder = \"auto\" falls back to software"
            ),
            Some(format) => format!(
                "no decoder for {format}; install the GStreamer plugin that has it, most likely gstreamer1.0-libav"
            ),
            None => "no video stream in it".to_owned(),
        };
    }
    if let Source::Rtsp(_) = source
        && let Some(reason) = rtsp(error, debug)
    {
        return reason.to_owned();
    }
    let device = matches!(source, Source::V4l2(_));
    if device && error.matches(gst::ResourceError::Read) {
        return "the device stopped delivering; is it still plugged in?".to_owned();
    }
    let says = |words: &str| error.message().contains(words);
    if device && (says("isn't a v4l2 driver") || says("not a capture device")) {
        return "not a camera; `v4l2-ctl --list-devices` shows which devices are".to_owned();
    }
    if error.matches(gst::ResourceError::NotFound) {
        return "not found".to_owned();
    }
    if error.matches(gst::ResourceError::Busy) {
        return "in use by another program".to_owned();
    }
    let text_file = error.message().contains("text file");
    if error.matches(gst::StreamError::TypeNotFound) || text_file {
        return "neither a video nor a picture that GStreamer knows".to_owned();
    }
    if error.matches(gst::StreamError::WrongType) && error.message().contains("no video stream") {
        return "no video stream in it".to_owned();
    }
    if debug.contains("not-negotiated") {
        return "its format cannot be converted to NV12 (not negotiated)".to_owned();
    }
    without_urls(error.message().trim_end_matches('.'))
}

fn rtsp(error: &glib::Error, debug: &str) -> Option<&'static str> {
    let says = |word: &str| debug.contains(word) || error.message().contains(word);
    if error.matches(gst::ResourceError::NotAuthorized) || says("Unauthorized") || says("(401)") {
        return Some("401 Unauthorized: check user and password");
    }
    if says("Forbidden") || says("(403)") {
        return Some("403 Forbidden: this user may not see the stream");
    }
    if error.matches(gst::ResourceError::NotFound) || says("Not Found") || says("(404)") {
        return Some("404 Not Found: check the path of the URL");
    }
    if says("(503)") || says("Service Unavailable") {
        return Some("503 Service Unavailable: the camera has too many viewers or is starting");
    }
    if error.matches(gst::ResourceError::Read) || error.matches(gst::ResourceError::Write) {
        return Some("the connection broke, or the camera stopped answering");
    }
    if says("TLS") || says("certificate") {
        return Some("the TLS certificate of the camera is not trusted");
    }
    None
}

/// Whether a rtspsrc error says only that no connection could be made.
pub(crate) fn is_connect_error(error: &glib::Error, debug: &str) -> bool {
    rtsp(error, debug).is_none()
        && (error.matches(gst::ResourceError::OpenReadWrite)
            || error.matches(gst::ResourceError::OpenRead)
            || error.matches(gst::ResourceError::Failed))
}

/// rtspsrc does not say why it could not connect; a connection of our own does.
/// `None` when that one succeeds. Bounded, also when the name server is silent.
pub(crate) fn unreachable(url: &str, shutdown: &Shutdown) -> Option<String> {
    let (host, port) = host_and_port(url)?;
    let (answer, answered) = mpsc::channel();
    let asked = host.clone();
    std::thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || {
            let _ = answer.send(connect(&asked, port));
        })
        .ok()?;
    let step = Duration::from_millis(50);
    for _ in 0..ASK.as_millis() / step.as_millis() {
        match answered.recv_timeout(step) {
            Ok(reason) => return reason,
            Err(_) if shutdown.requested() => return None,
            Err(_) => {}
        }
    }
    Some(format!("{host}:{port} does not answer"))
}

fn connect(host: &str, port: u16) -> Option<String> {
    let Ok(mut addresses) = (host, port).to_socket_addrs() else {
        return Some(format!("cannot resolve host {host}"));
    };
    let Some(address) = addresses.next() else {
        return Some(format!("cannot resolve host {host}"));
    };
    match TcpStream::connect_timeout(&address, ASK) {
        Ok(_) => None,
        Err(error) => Some(match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("connection refused by {host}:{port}: is the camera on, is the port right?")
            }
            std::io::ErrorKind::TimedOut => format!("{host}:{port} does not answer"),
            _ => format!("cannot connect to {host}:{port}: {error}"),
        }),
    }
}

/// Host and port of an RTSP URL without a login; 554, and 322 for rtsps.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let default = if scheme == "rtsps" { 322 } else { 554 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    Some((host.to_owned(), port))
}

/// GStreamer repeats addresses in messages, and an address may hold a login.
pub(crate) fn without_urls(text: &str) -> String {
    let words: Vec<_> =
        text.split(' ').map(|word| if word.contains("://") { "<address>" } else { word }).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtsp_source() -> Source {
        Source::Rtsp("rtsp://127.0.0.1/x?password=hunter2".try_into().expect("url"))
    }

    fn of(source: &Source, error: glib::Error, debug: &str) -> String {
        super::error(source, Decoder::Auto, &error, debug, Some("H.266 (video/x-h266)"))
    }

    #[test]
    fn answers_of_a_server_are_named() {
        let camera = rtsp_source();
        let not_authorized = glib::Error::new(gst::ResourceError::NotAuthorized, "Unauthorized");
        assert_eq!(of(&camera, not_authorized, ""), "401 Unauthorized: check user and password");
        let failed = |text: &str| glib::Error::new(gst::ResourceError::Failed, text);
        for (debug, expected) in [
            ("gst_rtspsrc_send (): Unauthorized (401)", "401"),
            ("Error: Not Found (404)", "404"),
            ("Service Unavailable (503)", "503"),
        ] {
            let text = of(&camera, failed("Could not open."), debug);
            assert!(text.starts_with(expected), "{text}");
        }
        let open = glib::Error::new(gst::ResourceError::OpenReadWrite, "Could not open resource.");
        assert!(is_connect_error(&open, "Failed to connect. (Generic error)"));
        assert!(!is_connect_error(&open, "Unauthorized (401)"));
    }

    #[test]
    fn files_and_decoders_are_named() {
        let file = Source::File("/x.mp4".into());
        let missing = glib::Error::new(gst::CoreError::MissingPlugin, "Your installation …");
        assert_eq!(
            of(&file, missing, ""),
            "no decoder for H.266 (video/x-h266); install the GStreamer plugin that has it, most likely gstreamer1.0-libav"
        );
        let missing = glib::Error::new(gst::StreamError::CodecNotFound, "Your installation …");
        let nvidia = error(&file, Decoder::Nvidia, &missing, "", Some("H.264"));
        assert!(nvidia.starts_with("no nvidia decoder takes H.264, or it does not"), "{nvidia}");
        let other = glib::Error::new(gst::StreamError::TypeNotFound, "Could not determine type.");
        assert_eq!(of(&file, other, ""), "neither a video nor a picture that GStreamer knows");
    }

    #[test]
    fn devices_that_are_unplugged_or_no_camera_are_named() {
        let device = Source::V4l2("/dev/video0".into());
        let gone = glib::Error::new(gst::ResourceError::Read, "Error reading from device.");
        assert!(of(&device, gone, "").contains("is it still plugged in?"));
        let other = glib::Error::new(
            gst::ResourceError::Settings,
            "Error getting capabilities for device '/dev/null': It isn't a v4l2 driver.",
        );
        assert!(of(&device, other, "").starts_with("not a camera"));
    }

    #[test]
    fn nothing_of_a_login_is_repeated() {
        let source = Source::Gst("rtspsrc location=rtsp://a:hunter2@b ! decodebin".into());
        let error =
            glib::Error::new(gst::ResourceError::OpenRead, "No file rtsp://a:hunter2@b here.");
        let text = of(&source, error, "rtsp://a:hunter2@b");
        assert_eq!(text, "No file <address> here");
        assert_eq!(
            parse_error("could not set property \"user-pw\" in element \"r\" to \"hunter2\""),
            "could not set property \"user-pw\" in element \"r\""
        );
    }

    #[test]
    fn hosts_and_ports() {
        for (url, expected) in [
            ("rtsp://cam/x", ("cam", 554)),
            ("rtsps://cam", ("cam", 322)),
            ("rtsp://10.0.0.1:8554/x?y=1", ("10.0.0.1", 8554)),
            ("rtsp://[fd00::1]:99/", ("fd00::1", 99)),
            ("rtsp://[fd00::1]/", ("fd00::1", 554)),
        ] {
            assert_eq!(host_and_port(url), Some((expected.0.to_owned(), expected.1)), "{url}");
        }
        assert_eq!(host_and_port("rtsp://cam:x/"), None);
    }

    #[test]
    fn a_closed_port_is_refused() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let text = unreachable(&format!("rtsp://127.0.0.1:{port}/cam"), &Shutdown::new());
        let expected = format!("connection refused by 127.0.0.1:{port}: ");
        assert!(text.as_deref().is_some_and(|text| text.starts_with(&expected)), "{text:?}");
    }
}
