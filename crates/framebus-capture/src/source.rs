//! What stands in front of the converter: one constructor per kind of source.

use crate::decoder;
use crate::device;
use crate::error::CaptureError;
use crate::explain;
use crate::inflow::Inflow;
use crate::threads;
use framebus_config::{Camera, Delivery, GstPipeline, RtspTransport, Source, TestPattern};
use gst::{glib, prelude::*};
use std::path::Path;
use std::sync::Arc;

/// Reply time of an RTSP server over TCP, µs; then the camera counts as away.
const RTSP_TCP_TIMEOUT_US: u64 = 5_000_000;
/// Silence after which `transport = "auto"` changes from UDP to TCP, µs.
const RTSP_UDP_TIMEOUT_US: u64 = 2_000_000;

/// Makes an element, or says which package has it.
pub(crate) fn make(name: &str) -> Result<gst::Element, CaptureError> {
    gst::ElementFactory::make(name).build().map_err(|_| CaptureError::Element {
        element: name.to_owned(),
        package: match name {
            "rtspsrc" | "v4l2src" => "gstreamer1.0-plugins-good",
            "identity" | "fakesink" | "capsfilter" | "filesrc" => "libgstreamer1.0-0",
            _ => "gstreamer1.0-plugins-base",
        },
    })
}

/// Builds the camera's source into the pipeline and links it to `head`, now or
/// when its video appears.
pub(crate) fn attach(
    pipeline: &gst::Pipeline,
    head: &gst::Element,
    camera: &Camera,
    inflow: &Arc<Inflow>,
) -> Result<(), CaptureError> {
    let broken = |error: glib::BoolError| explain::broken(&camera.source, &error.message);
    let max_width = camera.max_width;
    // A test pattern has no decoder; a user's own pipeline says itself where frames go.
    if !matches!(camera.source, Source::Test(_)) {
        decoder::choose(camera.decoder)?;
    }
    if !matches!(camera.source, Source::Test(_) | Source::Gst(_)) {
        pipeline.connect_deep_element_added(move |_, _, element| {
            if threads::is_video_decoder(element) {
                device::prefer(element, max_width);
            }
        });
    }
    match &camera.source {
        Source::Rtsp(url) => {
            let rtsp = rtsp(url.as_str(), camera)?;
            pipeline.add(&rtsp).map_err(broken)?;
            decode_each_pad(&rtsp, pipeline, head, max_width, inflow);
        }
        Source::File(path) => {
            check_file(&camera.source, path)?;
            let file = make("filesrc")?;
            file.set_property("location", path);
            decoded(pipeline, &file, head, max_width).map_err(broken)?;
        }
        Source::V4l2(device) => {
            if !device.exists() {
                return Err(explain::reason(&camera.source, "no such device"));
            }
            let v4l2 = make("v4l2src")?;
            v4l2.set_property("device", device.to_string_lossy().as_ref());
            decoded(pipeline, &v4l2, head, max_width).map_err(broken)?;
        }
        Source::Test(test) => {
            let live = camera.delivery == Delivery::Latest;
            let (pattern, caps) = (make("videotestsrc")?, make("capsfilter")?);
            set_test(&pattern, test, live);
            caps.set_property("caps", test_caps(test));
            pipeline.add_many([&pattern, &caps]).map_err(broken)?;
            gst::Element::link_many([&pattern, &caps, head]).map_err(broken)?;
        }
        Source::Gst(text) => {
            let bin = described(&camera.source, text)?;
            pipeline.add(&bin).map_err(broken)?;
            bin.link(head).map_err(|_| {
                explain::pipeline(
                    &camera.source,
                    "it does not end in raw video; end it with a decoder, such as \"… ! decodebin\"",
                )
            })?;
        }
    }
    Ok(())
}

/// Login and address travel as properties: the log of GStreamer prints URLs.
fn rtsp(url: &str, camera: &Camera) -> Result<gst::Element, CaptureError> {
    let rtsp = make("rtspsrc")?;
    rtsp.set_property("location", url);
    if let Some(user) = &camera.user {
        rtsp.set_property("user-id", user);
    }
    if let Some(password) = &camera.password {
        rtsp.set_property("user-pw", password.expose());
    }
    rtsp.set_property("latency", camera.latency_ms);
    match camera.transport {
        RtspTransport::Tcp => rtsp.set_property_from_str("protocols", "tcp"),
        RtspTransport::Udp => rtsp.set_property_from_str("protocols", "udp"),
        RtspTransport::Auto => {
            rtsp.set_property_from_str("protocols", "tcp+udp");
            rtsp.set_property("timeout", RTSP_UDP_TIMEOUT_US);
        }
    }
    rtsp.set_property("tcp-timeout", RTSP_TCP_TIMEOUT_US);
    // Sound is not even asked for.
    rtsp.connect("select-stream", false, |arguments| {
        let video =
            arguments.get(2).and_then(|caps| caps.get::<gst::Caps>().ok()).is_none_or(|caps| {
                caps.structure(0).is_none_or(|s| s.get::<&str>("media").is_ok_and(|m| m == "video"))
            });
        Some(video.to_value())
    });
    Ok(rtsp)
}

/// A decoder behind each pad of `source` that brings video.
fn decode_each_pad(
    source: &gst::Element,
    pipeline: &gst::Pipeline,
    head: &gst::Element,
    max_width: Option<u32>,
    inflow: &Arc<Inflow>,
) {
    let (pipeline, head, inflow) = (pipeline.downgrade(), head.downgrade(), inflow.clone());
    source.connect_pad_added(move |source, pad| {
        let (Some(pipeline), Some(head)) = (pipeline.upgrade(), head.upgrade()) else { return };
        let taken = head.static_pad("sink").is_none_or(|sink| sink.is_linked());
        if taken || pad.direction() != gst::PadDirection::Src {
            return;
        }
        inflow.watch(pad);
        let linked = decodebin(&head, max_width).and_then(|decoder| {
            pipeline.add(&decoder)?;
            decoder.sync_state_with_parent()?;
            let sink = decoder
                .static_pad("sink")
                .ok_or_else(|| glib::bool_error!("a decoder without a sink pad"))?;
            pad.link(&sink).map_err(|error| glib::bool_error!("{error}"))?;
            Ok(())
        });
        if let Err(error) = linked {
            gst::element_error!(source, gst::CoreError::Pad, ("{}", error.message));
        }
    });
}

/// `source ! decodebin`, linked to `head` when the video appears.
fn decoded(
    pipeline: &gst::Pipeline,
    source: &gst::Element,
    head: &gst::Element,
    max_width: Option<u32>,
) -> Result<(), glib::BoolError> {
    let decoder = decodebin(head, max_width)?;
    let weak = head.downgrade();
    decoder.connect_no_more_pads(move |decoder| {
        let linked = weak
            .upgrade()
            .and_then(|head| head.static_pad("sink"))
            .is_none_or(|sink| sink.is_linked());
        if !linked {
            gst::element_error!(decoder, gst::StreamError::WrongType, ("no video stream in it"));
        }
    });
    pipeline.add_many([source, &decoder])?;
    source.link(&decoder)
}

/// A `decodebin` for video alone: other streams get no decoder and no pad.
/// Which decoder it takes has been chosen by [`decoder::choose`].
fn decodebin(head: &gst::Element, max_width: Option<u32>) -> Result<gst::Element, glib::BoolError> {
    let any_memory = gst::Caps::builder("video/x-raw").any_features().build();
    let decoder = gst::ElementFactory::make("decodebin")
        .property("caps", any_memory)
        .property("expose-all-streams", false)
        .build()?;
    let head = head.downgrade();
    decoder.connect_pad_added(move |decoder, pad| {
        let Some(head) = head.upgrade() else { return };
        if let Err(error) = link_video(pad, &head, max_width) {
            gst::element_error!(decoder, gst::StreamError::WrongType, ("{}", error.message));
        }
    });
    Ok(decoder)
}

/// Links the first video pad.
fn link_video(
    pad: &gst::Pad,
    head: &gst::Element,
    max_width: Option<u32>,
) -> Result<(), glib::BoolError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let is_video = caps.structure(0).is_some_and(|s| s.name() == "video/x-raw");
    if !is_video || head.static_pad("sink").is_none_or(|sink| sink.is_linked()) {
        return Ok(());
    }
    device::link(pad, &caps, head, max_width)
}

fn set_test(element: &gst::Element, test: &TestPattern, live: bool) {
    element.set_property_from_str("pattern", &test.pattern);
    element.set_property("is-live", live);
    let frames = test.frames.map_or(-1, |frames| i32::try_from(frames).unwrap_or(i32::MAX));
    element.set_property("num-buffers", frames);
}

/// I420, not NV12: the converter then really converts, and so writes the loan.
fn test_caps(test: &TestPattern) -> gst::Caps {
    // Frame rates travel as fractions; thousandths are exact for every value
    // that the configuration accepts in practice (29.97 included).
    let rate = gst::Fraction::new((test.fps * 1000.0).round() as i32, 1000);
    gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", i32::try_from(test.width).unwrap_or(i32::MAX))
        .field("height", i32::try_from(test.height).unwrap_or(i32::MAX))
        .field("framerate", rate)
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build()
}

/// The user's pipeline as one element with one source pad.
fn described(source: &Source, text: &GstPipeline) -> Result<gst::Element, CaptureError> {
    let parse = |text: &str| {
        // Not every open end: a sink pad that waits for the pad of an rtspsrc has none yet.
        let bin = gst::parse::bin_from_description(text, false)
            .map_err(|error| explain::pipeline(source, &explain::parse_error(error.message())))?;
        if let Some(pad) = bin.find_unlinked_pad(gst::PadDirection::Src) {
            gst::GhostPad::with_target(&pad)
                .and_then(|end| bin.add_pad(&end))
                .map_err(|error| explain::broken(source, &error.message))?;
        }
        Ok::<_, CaptureError>(bin)
    };
    // A description may end in caps, which GStreamer wants something behind.
    let bin = parse(text.as_str())
        .or_else(|error| parse(&format!("{} ! identity", text.as_str())).map_err(|_| error))?;
    if !bin.src_pads().is_empty() {
        return Ok(bin.upcast());
    }
    // A decodebin at the end has no pad yet; behind a filter it gets linked when
    // it has one.
    match parse(&format!("{} ! capsfilter caps=\"video/x-raw(ANY)\"", text.as_str())) {
        Ok(bin) if !bin.src_pads().is_empty() => Ok(bin.upcast()),
        _ => Err(explain::pipeline(source, "it ends in a sink; leave the sink away")),
    }
}

/// Says what is wrong with a file before GStreamer says it less well.
fn check_file(source: &Source, path: &Path) -> Result<(), CaptureError> {
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_file() && meta.len() == 0 => {
            Err(explain::reason(source, "the file is empty"))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(explain::reason(source, "no such file"))
        }
        Err(error) => Err(explain::reason(source, &format!("cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(text: &str) -> Result<gst::Element, String> {
        gst::init().expect("GStreamer");
        let text = GstPipeline::from(text);
        described(&Source::Gst(text.clone()), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn pipelines_need_an_open_end() {
        assert!(bin("videotestsrc").is_ok());
        assert!(bin("videotestsrc ! x264enc ! decodebin").is_ok());
        assert!(bin("videotestsrc ! tee name=t t. ! queue ! fakesink t. ! queue").is_ok());
        for (text, message) in [
            (
                "videotestsrc ! fakesink",
                "gst:videotestsrc ! fakesink: it ends in a sink; leave the sink away",
            ),
            ("nosuchthing ! identity", "gst:nosuchthing ! identity: no element \"nosuchthing\""),
        ] {
            let error = bin(text).expect_err("no pipeline");
            assert_eq!(error, message);
        }
    }

    #[test]
    fn a_login_is_never_part_of_the_address() {
        gst::init().expect("GStreamer");
        let url = framebus_config::RtspUrl::try_from("rtsp://127.0.0.1:9/cam").expect("url");
        let name = framebus_config::CameraName::try_from("a").expect("name");
        let mut camera = Camera::new(name, Source::Rtsp(url.clone()));
        camera.user = Some("admin".to_owned());
        camera.password = Some(framebus_config::Secret::new("hunter2"));
        camera.transport = RtspTransport::Auto;
        let rtsp = rtsp(url.as_str(), &camera).expect("rtspsrc");
        assert_eq!(rtsp.property::<String>("location"), "rtsp://127.0.0.1:9/cam");
        assert_eq!(rtsp.property::<String>("user-pw"), "hunter2");
        assert_eq!(rtsp.property::<u32>("latency"), camera.latency_ms);
    }

    #[test]
    fn test_sources_have_exact_caps() {
        gst::init().expect("GStreamer");
        let test = TestPattern {
            pattern: "ball".to_owned(),
            width: 322,
            height: 240,
            fps: 29.97,
            frames: Some(7),
        };
        let caps = test_caps(&test).to_string();
        assert!(caps.contains("width=(int)322") && caps.contains("2997/100"), "{caps}");
        let element = make("videotestsrc").expect("videotestsrc");
        set_test(&element, &test, false);
        assert_eq!(element.property::<i32>("num-buffers"), 7);
    }

    #[test]
    fn a_missing_element_names_its_package() {
        gst::init().expect("GStreamer");
        let error = make("nosuchelement").expect_err("not there");
        assert_eq!(
            error.to_string(),
            "GStreamer has no element nosuchelement; install gstreamer1.0-plugins-base"
        );
    }
}
