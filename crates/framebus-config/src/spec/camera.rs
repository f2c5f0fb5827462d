//! Keys of `[[camera]]`.

use super::{Default, Key, Kind, MS, S, key};
use crate::model::{Delivery, Pace, RtspTransport};

pub(super) static CAMERA: [Key; 17] = [
    key("name", Kind::Name { max_bytes: 31 }, Default::Required("name = \"front\""))
        .doc("Unique name.", "It appears in results, logs and metrics.")
        .also(&["id", "label", "title"]),
    key(
        "source",
        Kind::Source,
        Default::Required("source = \"rtsp://admin:${CAMERA_PASSWORD}@192.168.1.20:554/stream1\""),
    )
    .doc(
        "Where the frames come from: \"rtsp://HOST/PATH\", \"file:PATH\" (a video, a picture or a \
         folder of pictures), \"v4l2:/dev/video0\", \"test:PATTERN?width=640&height=480&fps=30\" \
         or \"gst:PIPELINE\". ${NAME} is replaced from the environment ($${ is a plain ${).",
        "Passwords belong in the environment; they are masked wherever something is printed.",
    )
    .also(&["url", "uri", "rtsp", "input", "device", "path", "file", "address", "src"]),
    key("enabled", Kind::Bool, Default::Bool(true))
        .doc("false keeps the entry without running it.", "Shown as disabled in the status.")
        .also(&["enable", "disabled", "active", "on"]),
    key("pace", Kind::Word(Pace::NAMES), Default::Word("realtime"))
        .doc(
            "Files only: at the file's own frame rate, or as \"fast\" as it can be read.",
            "\"realtime\" behaves like a camera; \"fast\" is for working through recordings.",
        )
        .also(&["speed", "realtime", "rate"]),
    key("loop", Kind::Bool, Default::Bool(false))
        .doc("Files only: begin again at the end.", "For demonstrations and load tests.")
        .also(&["repeat", "looping"]),
    key("delivery", Kind::Word(Delivery::NAMES), Default::Word("latest"))
        .doc(
            "\"latest\": inference takes the newest frame, older ones are dropped and counted. \
             \"every-frame\" (file, test and gst sources): nothing is dropped, the source waits.",
            "A live camera cannot wait; old frames are worth less than new ones.",
        )
        .also(&["drop", "policy", "mode", "qos"]),
    key(
        "fps",
        Kind::Float { min: 0.1, max: 240.0, unit: "frames per second" },
        Default::Absent("fps = 15.0", "as many as the source gives"),
    )
    .doc(
        "Upper limit of frames per second, 0.1 to 240; frames above it never reach the bus.",
        "The cheapest way to fit more cameras on one box.",
    )
    .also(&["frame_rate", "framerate", "max_fps", "fps_limit", "rate_limit"]),
    key(
        "max_width",
        Kind::Int { min: 32, max: 16_384, unit: "pixels" },
        Default::Absent("max_width = 1920", "never scaled down"),
    )
    .doc(
        "Wider frames are scaled down to this width, the aspect ratio kept.",
        "The model looks at some 640 columns; subscribers may want more.",
    )
    .also(&["width", "resolution", "scale", "size", "downscale", "height", "max_height"]),
    key("user", Kind::Text, Default::Absent("user = \"admin\"", "no login"))
        .doc(
            "RTSP user, where it does not stand in the URL. ${NAME} is replaced.",
            "Here it needs no percent-encoding.",
        )
        .also(&["username", "login", "user_name"]),
    key("password", Kind::Secret, Default::Absent("password = \"${CAMERA_PASSWORD}\"", "no login"))
        .doc(
            "RTSP password, where it does not stand in the URL. ${NAME} is replaced.",
            "Never shown in logs, process lists or the status.",
        )
        .also(&["pass", "passwd", "pw", "pwd", "secret"]),
    key("transport", Kind::Word(RtspTransport::NAMES), Default::Word("tcp"))
        .doc(
            "RTSP: how the stream travels.",
            "\"tcp\" loses nothing; \"udp\" does not wait for what was lost; \"auto\" tries udp \
             first.",
        )
        .also(&["protocol", "protocols", "rtsp_transport"]),
    key("latency_ms", Kind::Int { min: 0, max: 5000, unit: MS }, Default::Int(100))
        .doc(
            "RTSP: jitter buffer.",
            "Every millisecond is delay of every result; raise it where pictures tear.",
        )
        .also(&["latency", "buffer_ms", "jitter_ms", "jitterbuffer_ms"]),
    key("stall_s", Kind::Float { min: 0.5, max: 600.0, unit: S }, Default::Float(5.0))
        .doc(
            "No frame for so long is a stall: the state says so and the camera is reconnected.",
            "Above the longest pause between frames; cameras pause half a second at key frames.",
        )
        .also(&["timeout", "timeout_s", "stall_ms", "stall_timeout", "watchdog_s"]),
    key("reconnect_min_ms", Kind::Int { min: 50, max: 60_000, unit: MS }, Default::Int(500))
        .doc(
            "Wait before the first reconnect; it doubles with each failure, with jitter.",
            "Short, since most losses are brief.",
        )
        .also(&["reconnect_ms", "retry_ms", "reconnect", "backoff_ms"]),
    key("reconnect_max_ms", Kind::Int { min: 50, max: 600_000, unit: MS }, Default::Int(10_000))
        .doc(
            "Longest wait between reconnects; not below reconnect_min_ms.",
            "A camera that returns is seen within this time.",
        )
        .also(&["max_reconnect_ms", "max_retry_ms"]),
    key("max_age_ms", Kind::Int { min: 0, max: 60_000, unit: MS }, Default::Int(1000))
        .doc(
            "Frames older than this are dropped before inference and reported as dropped; 0 means \
             no limit. Not applied with delivery = \"every-frame\".",
            "A late detection can be worse than none; under overload this decides what goes.",
        )
        .also(&["max_age", "age_ms", "max_latency_ms", "deadline_ms", "stale_ms"]),
    key("weight", Kind::Int { min: 1, max: 100, unit: "" }, Default::Int(1))
        .doc(
            "Share of the inference under overload, relative to the other cameras.",
            "Equal by default, so that a fast camera cannot starve a slow one.",
        )
        .also(&["priority", "share"]),
];
