//! What this machine's GStreamer can decode.

use crate::decoder::{self, Family};
use crate::error::CaptureError;
use framebus_config::Decoder;
use gst::prelude::*;
use serde_json::{Value, json};

/// Formats that cameras send.
const FORMATS: [(&str, &str); 3] =
    [("H.264", "video/x-h264"), ("H.265", "video/x-h265"), ("MJPEG", "image/jpeg")];

/// GStreamer's version and the decoders of each format that cameras send, in the order
/// in which `decoder = "auto"` tries them: `{version, formats: [{format, decoders: [{name, plugin,
/// hardware}]}]}`.
///
/// # Errors
/// [`CaptureError::Init`] when GStreamer does not start.
pub fn decoders() -> Result<Value, CaptureError> {
    gst::init().map_err(CaptureError::Init)?;
    decoder::choose(Decoder::Auto)?;
    let kind = gst::ElementFactoryType::DECODER;
    let all = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    let formats = FORMATS.map(|(format, media)| {
        let caps = gst::Caps::new_empty_simple(media);
        let mut found: Vec<_> =
            all.iter().filter(|factory| factory.can_sink_any_caps(&caps)).collect();
        found.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
        let found: Vec<Value> = found
            .into_iter()
            .map(|factory| {
                json!({
                    "name": factory.name().as_str(),
                    "plugin": factory.plugin_name().as_deref().unwrap_or_default(),
                    "hardware": Family::of_factory(factory) != Family::Software,
                })
            })
            .collect();
        json!({ "format": format, "decoders": found })
    });
    Ok(json!({ "version": gst::version_string().as_str(), "formats": formats }))
}
