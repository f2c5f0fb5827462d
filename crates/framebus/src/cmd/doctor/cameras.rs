//! Each camera, watched for some seconds by a `framebus-capture` of its own.

use super::finding::{Finding, Level};
use super::{bounded, media};
use crate::table::{self, NONE};
use framebus_config::{Camera, Config, Source};
use framebus_service::Kind;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::sync::Mutex;
use std::time::Duration;

const AREA: &str = "cameras";
/// What a look takes beyond its limit: starting, stopping, asking why.
const SLACK_S: u64 = 10;
/// So many are looked at side by side: more would disturb each other's figures.
const AT_ONCE: usize = 8;
/// Seconds between key frames above which a reconnect is felt.
const KEY_FRAME_S: f64 = 4.0;
/// Part of the announced frame rate that is to arrive.
const RATE: f64 = 0.8;

/// Looks at the enabled cameras, or at those that are named.
pub(crate) fn look(
    config: &Config,
    running: bool,
    names: &[String],
    limit_s: u16,
) -> Vec<(Finding, Option<Value>)> {
    let chosen: Vec<&Camera> = config
        .cameras
        .iter()
        .filter(|camera| match names {
            [] => camera.enabled,
            names => names.iter().any(|name| name == camera.name.as_str()),
        })
        .collect();
    let bar = ProgressBar::new(chosen.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("cameras {pos}/{len} [{bar:20}] {elapsed}") {
        bar.set_style(style);
    }
    // Shows nothing where standard error is no terminal.
    bar.enable_steady_tick(Duration::from_millis(250));
    let queue = Mutex::new(chosen.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(chosen.len()) {
            scope.spawn(|| {
                loop {
                    let Ok(Some((index, camera))) = queue.lock().map(|mut queue| queue.next())
                    else {
                        return;
                    };
                    let looked = one(config, camera, running, limit_s);
                    bar.inc(1);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, looked));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, looked)| looked).collect()
}

fn one(config: &Config, camera: &Camera, running: bool, limit_s: u16) -> (Finding, Option<Value>) {
    let name = camera.name.as_str();
    if running && camera.enabled && matches!(camera.source, Source::V4l2(_)) {
        let text = format!("{} is in use by the instance that runs", camera.source);
        let finding = Finding::new(AREA, name, Level::Skipped, text)
            .next("`framebus status` tells how it is");
        return (finding, None);
    }
    let file = config.file.as_os_str().to_owned();
    let args = [
        "--camera".into(),
        name.into(),
        "--probe-s".into(),
        limit_s.to_string().into(),
        "--config".into(),
        file,
    ];
    let bound = Duration::from_secs(u64::from(limit_s) + SLACK_S);
    let answer = media::capture().and_then(|capture| bounded::run(capture, &args, bound));
    let said = answer.and_then(|answer| {
        serde_json::from_str::<Value>(&answer.stdout)
            .map_err(|_| answer.stderr.lines().last().unwrap_or("no answer").to_owned())
    });
    match said {
        Ok(probe) => (judge(camera, &probe), Some(probe)),
        Err(error) => {
            let finding = Finding::new(AREA, name, Level::Problem(Kind::Unavailable), error)
                .next("`framebus up` logs why the camera's process ends");
            (finding, None)
        }
    }
}

/// What the figures of a camera mean.
fn judge(camera: &Camera, probe: &Value) -> Finding {
    let name = camera.name.as_str();
    if let Some(reason) = probe["reason"].as_str() {
        let text = format!("{}: {reason}", camera.source);
        let level = Level::Problem(Kind::Unavailable);
        return Finding::new(AREA, name, level, text).next(next_step(&camera.source, reason));
    }
    let word = |key: &str| probe[key].as_str().unwrap_or(NONE);
    let number = |key: &str| probe[key].as_f64();
    let size = table::size(side(probe, "width"), side(probe, "height"));
    let text = format!("{} {size} from {}", word("codec"), camera.source);
    let warn = |what: String, next: &str| {
        Finding::new(AREA, name, Level::Warning, format!("{text}; {what}")).next(next)
    };
    if let (Some(announced), Some(measured)) = (number("fps_announced"), number("fps_measured"))
        && measured < announced * RATE
    {
        return warn(
            format!("{measured} of the announced {announced} frames/s arrive"),
            "look at the camera's exposure time (long in the dark) and at the network between",
        );
    }
    match (number("key_frames"), number("key_frame_s")) {
        (Some(1.0), _) if camera.source.is_live() => {
            return warn(
                "one key frame in all of the look".to_owned(),
                "set the camera's key-frame (I-frame) interval to 1 or 2 s: no picture comes before the next one",
            );
        }
        (_, Some(distance)) if distance > KEY_FRAME_S && camera.source.is_live() => {
            return warn(
                format!("{distance} s between key frames"),
                "set the camera's key-frame (I-frame) interval to 1 or 2 s: a reconnect waits for the next one",
            );
        }
        _ => {}
    }
    if let (Some(jitter), Some(latency)) = (number("jitter_p95_ms"), number("latency_ms"))
        && jitter > latency
    {
        return warn(
            format!("frames come {jitter} ms off their time (p95), latency_ms is {latency}"),
            "raise latency_ms of this camera, or connect it by cable",
        );
    }
    Finding::ok(AREA, name, text)
}

fn side(probe: &Value, key: &str) -> u32 {
    probe[key].as_u64().and_then(|side| u32::try_from(side).ok()).unwrap_or(0)
}

/// What to do about a reason that capture gave.
fn next_step(source: &Source, reason: &str) -> &'static str {
    const STEPS: [(&str, &str); 12] = [
        // Before the numbers: it begins with how many frames came.
        (
            "none could be decoded",
            "set the camera's key-frame interval to 1 or 2 s, or its codec to H.264",
        ),
        (
            "401",
            "put the right login into the camera's user and password keys, best as ${CAMERA_PASSWORD}; some cameras lock an account for minutes",
        ),
        ("403", "give this user the right to see live video on the camera's own page"),
        ("404", "take the stream's path from the camera's own page or manual"),
        ("503", "close other viewers of the camera, or raise its limit of connections"),
        (
            "connection refused",
            "switch RTSP on in the camera's settings, and compare the port with the URL (usually 554)",
        ),
        (
            "does not answer",
            "is the camera on, is its address right, does a firewall stand between? `ping` it",
        ),
        ("cannot resolve", "write the camera's IP address into the URL, or mend the name server"),
        ("no decoder", "`apt-get install gstreamer1.0-libav`"),
        ("no such device", "plug the camera in; `ls /dev/video*` lists those that are here"),
        ("in use by another", "end the program that uses it; `fuser -v /dev/video*` names it"),
        (
            "TLS",
            "use rtsp:// in a network of your own, or install the camera's certificate authority",
        ),
    ];
    if let Some((_, step)) = STEPS.into_iter().find(|(words, _)| reason.contains(words)) {
        return step;
    }
    match source {
        Source::Rtsp(_) => "open the same URL in another player, from this machine",
        Source::V4l2(_) => "`v4l2-ctl --all -d DEVICE` shows what the driver says",
        Source::File(_) => "open the file in a player, or name another one",
        Source::Gst(_) => "run the pipeline by `gst-launch-1.0 … ! fakesink`",
        Source::Test(_) => "reinstall gstreamer1.0-plugins-base",
    }
}

/// The figures of all cameras.
pub(crate) fn table(probes: &[Value]) -> String {
    let rows = probes.iter().map(|probe| {
        let text = |key: &str| probe[key].as_str().unwrap_or(NONE).to_owned();
        let number =
            |key: &str| probe[key].as_f64().map_or_else(|| NONE.to_owned(), |n| n.to_string());
        vec![
            text("camera"),
            text("codec"),
            text("profile"),
            table::size(side(probe, "width"), side(probe, "height")),
            number("fps_announced"),
            number("fps_measured"),
            number("key_frame_s"),
            number("jitter_p95_ms"),
            number("bit_rate_kbps"),
            text("decoder"),
        ]
    });
    let header = [
        "camera",
        "codec",
        "profile",
        "size",
        ">fps said",
        ">measured",
        ">key frame s",
        ">jitter ms",
        ">kbit/s",
        "decoder",
    ];
    table::table(&header, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::{CameraName, RtspUrl};
    use serde_json::json;

    fn judged(change: &Value) -> Finding {
        let url = RtspUrl::try_from("rtsp://10.0.0.1/x").expect("url");
        let name = CameraName::try_from("a").expect("name");
        let mut probe = json!({
            "reason": null, "codec": "H.264", "width": 640, "height": 480, "fps_announced": 25.0,
            "fps_measured": 24.9, "key_frames": 3, "key_frame_s": 1.0, "jitter_p95_ms": 4.0,
            "latency_ms": 100,
        });
        for (key, value) in change.as_object().expect("an object") {
            probe[key] = value.clone();
        }
        judge(&Camera::new(name, Source::Rtsp(url)), &probe)
    }

    #[test]
    fn what_is_wrong_has_a_next_step() {
        let fine = judged(&json!({}));
        assert_eq!((fine.level, fine.next.as_deref()), (Level::Ok, None), "{fine:?}");
        assert_eq!(fine.text, "H.264 640x480 from rtsp://10.0.0.1/x");
        for (change, words) in [
            (json!({"fps_measured": 12.0}), "12 of the announced 25"),
            (json!({"key_frame_s": 8.0}), "8 s between key frames"),
            (json!({"key_frames": 1, "key_frame_s": null}), "one key frame"),
            (json!({"jitter_p95_ms": 140.0}), "140 ms off"),
        ] {
            let finding = judged(&change);
            assert_eq!(finding.level, Level::Warning, "{change}");
            assert!(finding.text.contains(words) && finding.next.is_some(), "{finding:?}");
        }
        let away = judged(&json!({"reason": "401 Unauthorized: check user and password"}));
        assert_eq!(away.level, Level::Problem(Kind::Unavailable));
        assert!(away.next.is_some_and(|next| next.contains("password keys")));
        let black =
            judged(&json!({"reason": "404 frames arrived within 10 s, none could be decoded"}));
        assert!(black.next.is_some_and(|next| next.contains("key-frame interval")));
    }
}
