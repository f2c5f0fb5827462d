//! What GStreamer can decode; `framebus-capture`, which links it, is asked.

use super::bounded;
use super::finding::{Finding, Level};
use crate::children;
use framebus_service::Kind;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const AREA: &str = "decoding";
/// The first use of GStreamer after an installation reads all of its plugins.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) fn look() -> Vec<Finding> {
    let broken = |text: String| {
        let text = text.lines().last().unwrap_or_default().to_owned();
        vec![
            Finding::new(AREA, "framebus-capture", Level::Problem(Kind::Unavailable), text)
                .next("install GStreamer 1.22 or later: `apt-get install gstreamer1.0-plugins-good gstreamer1.0-libav`"),
        ]
    };
    let answer = match capture().and_then(|capture| bounded::run(capture, &["--decoders"], BOUND)) {
        Ok(answer) => answer,
        Err(error) => return broken(error),
    };
    match serde_json::from_str::<Value>(&answer.stdout) {
        Ok(said) => findings(&said),
        Err(_) => broken(answer.stderr),
    }
}

/// The capture program, beside this one or in PATH.
pub(crate) fn capture() -> Result<PathBuf, String> {
    children::find("framebus-capture").map_err(|failure| failure.to_string())
}

fn findings(said: &Value) -> Vec<Finding> {
    let version = said["version"].as_str().unwrap_or("of an unknown version");
    let mut findings = vec![Finding::ok(AREA, "version", version)];
    for format in said["formats"].as_array().into_iter().flatten() {
        let name = format["format"].as_str().unwrap_or_default();
        let decoders = format["decoders"].as_array().map_or(&[][..], Vec::as_slice);
        findings.push(decoder(name, decoders));
    }
    findings
}

fn decoder(format: &str, decoders: &[Value]) -> Finding {
    let name = |decoder: &Value| decoder["name"].as_str().unwrap_or_default().to_owned();
    let Some(first) = decoders.first() else {
        return Finding::new(AREA, format, Level::Warning, "no decoder")
            .next("`apt-get install gstreamer1.0-libav`, if a camera sends it");
    };
    let kind = |hardware: bool| {
        let of_kind = decoders.iter().filter(|decoder| decoder["hardware"] == hardware);
        of_kind.map(name).collect::<Vec<_>>().join(" ")
    };
    let (hardware, software) = (kind(true), kind(false));
    let or_none = |names: String| if names.is_empty() { "none".to_owned() } else { names };
    let text = format!(
        "{} is taken; hardware {}, software {}",
        name(first),
        or_none(hardware),
        or_none(software)
    );
    Finding::ok(AREA, format, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_taken_and_what_is_missing() {
        let said = json!({"version": "GStreamer 1.22.0", "formats": [
            {"format": "H.264", "decoders": [
                {"name": "nvh264dec", "plugin": "nvcodec", "hardware": true},
                {"name": "avdec_h264", "plugin": "libav", "hardware": false},
            ]},
            {"format": "H.265", "decoders": []},
        ]});
        let found = findings(&said);
        assert_eq!(found[1].text, "nvh264dec is taken; hardware nvh264dec, software avdec_h264");
        assert_eq!(found[2].level, Level::Warning);
    }
}
