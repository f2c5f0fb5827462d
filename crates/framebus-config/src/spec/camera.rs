//! Keys of `[[camera]]`.

use super::{Default, Key, Kind, MS, S, key};
use crate::model::{Checks, Decoder, Delivery, Pace, RtspTransport};

pub(super) static CAMERA: [Key; 37] = [
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
            "Frames whose result would be older than this are dropped before inference and \
             reported as dropped; 0 means no limit. Not applied with delivery = \
             \"every-frame\".",
            "A late detection can be worse than none; under overload this decides what goes.",
        )
        .also(&["max_age", "age_ms", "max_latency_ms", "deadline_ms", "stale_ms"]),
    key("weight", Kind::Int { min: 1, max: 100, unit: "" }, Default::Int(1))
        .doc(
            "Share of the inference under overload, relative to the other cameras.",
            "Equal by default. A camera never has a second frame in inference while another one \
             waits for its first.",
        )
        .also(&["priority", "share"]),
    key("decoder", Kind::Word(Decoder::NAMES), Default::Word("auto"))
        .doc(
            "What decodes compressed video. \"auto\": hardware that GStreamer offers (NVIDIA, then \
             VA, then V4L2), else software. Every other word takes that alone, and the camera \
             fails where it is missing. Pictures and raw video have no decoder.",
            "Hardware leaves the cores to inference; with max_width, NVIDIA's and VA's also scale \
             down before a frame leaves the device.",
        )
        .also(&["hwaccel", "hw_accel", "hardware", "decode", "codec", "nvdec"]),
    key("decoder_threads", Kind::Int { min: 0, max: 64, unit: "" }, Default::Int(0))
        .doc(
            "Threads of a libav software decoder; 0 means one for live sources and files in real time, \
             and half as many as there are cores for files read fast.",
            "More threads decode frames side by side, which delays each of them and costs an \
             eighth more; on few cores they also fight inference. Live sources with more than \
             one use slices, which delay nothing.",
        )
        .also(&["threads", "decode_threads", "max_threads"]),
    key("cores", Kind::Cores, Default::EmptyList)
        .doc(
            "CPU numbers that the capture process of this camera may use; [] means all.",
            "For machines on which cameras and inference get cores of their own.",
        )
        .also(&["cpus", "affinity", "pin"]),
    key("nice", Kind::Int { min: 0, max: 19, unit: "" }, Default::Int(0))
        .doc(
            "How far the capture process gives way to others when cores are short (nice).",
            "A frame that is not decoded in time tears the picture; one that waits for inference \
             is only dropped.",
        )
        .also(&["niceness", "renice"]),
    key("motion_gate", Kind::Bool, Default::Bool(false))
        .doc(
            "true: frames in which nothing moves get the result skipped(motion) and no inference.",
            "Off, because a scene decides whether it pays; capture compares brightness in some \
             8000 cells of the picture, which costs next to nothing.",
        )
        .also(&["motion", "motion_detection", "skip_idle"]),
    key(
        "motion_threshold",
        Kind::Float { min: 0.0, max: 1.0, unit: "" },
        Default::Float(0.0004),
    )
    .doc(
        "Share of the picture that must change to count as motion, 0 to 1.",
        "0.0004 is a square of 32 pixels in 1080p, smaller than what the network finds.",
    )
    .also(&["motion_area", "motion_share", "min_area"]),
    key("motion_step", Kind::Int { min: 1, max: 255, unit: "" }, Default::Int(6))
        .doc(
            "Change of a cell's brightness that counts, in steps of 8-bit luma; below, it is noise.",
            "Raise it where a poor picture triggers; noise that a cell always shows is learned, \
             and brightness that changes everywhere does not count.",
        )
        .also(&["motion_sensitivity", "sensitivity", "contrast_area"]),
    key("motion_ignore", Kind::Areas, Default::EmptyList)
        .doc(
            "Parts of the picture in which motion does not count: rectangles [x, y, width, height] \
             in fractions of the picture. Example: [[0.0, 0.0, 0.3, 0.06]] for a clock at the top \
             left. Motion elsewhere makes inference look at the whole picture.",
            "For clocks, trees and roads that are nobody's business.",
        )
        .also(&["motion_mask", "mask", "masks", "ignore"]),
    key("motion_hold_s", Kind::Float { min: 0.0, max: 600.0, unit: S }, Default::Float(2.0))
        .doc(
            "So long after the last motion, frames still count as moving.",
            "Somebody who stands still for a moment is not lost.",
        )
        .also(&["motion_hold", "motion_cooldown", "hold_s"]),
    key("motion_force_s", Kind::Float { min: 0.1, max: 3600.0, unit: S }, Default::Float(5.0))
        .doc(
            "With motion_gate, inference looks at a frame that often although nothing moves.",
            "What stands still is reported that often, and nothing is missed for longer.",
        )
        .also(&["motion_refresh_s", "motion_interval_s", "force_s"]),
    key("idle_gate", Kind::Bool, Default::Bool(false))
        .doc(
            "true: while nothing moves, only key frames of H.264 and H.265 streams are decoded; \
             when the size of the compressed frames, or a key frame, says that something does, \
             what was kept is decoded at once.",
            "Off: it saves half of the decoding of a quiet scene, and may see something small only \
             at the next key frame. Frames that were kept carry the time of their decoding as \
             capture time.",
        )
        .also(&["idle", "decode_gate", "keyframes_only"]),
    key("idle_max_s", Kind::Float { min: 0.5, max: 60.0, unit: S }, Default::Float(10.0))
        .doc(
            "With idle_gate, a frame is decoded that often at least; a stream whose key frames are \
             further apart is decoded as a whole.",
            "The longest time for which something that moves can go unseen.",
        )
        .also(&["idle_max", "idle_interval_s", "max_idle_s"]),
    key("picture_checks", Kind::Word(Checks::NAMES), Default::Word("auto"))
        .doc(
            "\"on\": the pictures and their time stamps are checked; while something is wrong the \
             camera is degraded, the state says why, and frames carry a flag. \"auto\": on for \
             rtsp, v4l2 and gst sources that are not delivered every-frame. Pictures (JPEG, PNG) \
             are never checked.",
            "A camera that shows the same picture for days looks alive to everything else. Files \
             and test patterns may stand still and be black on purpose.",
        )
        .also(&["checks", "picture_check", "tamper", "health_checks"]),
    key("frozen_s", Kind::Float { min: 0.0, max: 3600.0, unit: S }, Default::Float(10.0))
        .doc(
            "So long the same picture, and the camera is frozen; 0 never.",
            "A sensor always has noise, so that even a still scene never repeats exactly. Where the \
             camera's encoder goes on, it draws the picture anew at each key frame: only more \
             distant key frames let this see that the sensor behind it hangs.",
        )
        .also(&["freeze_s", "frozen", "freeze", "frozen_seconds"]),
    key(
        "uniform_contrast",
        Kind::Float { min: 0.0, max: 128.0, unit: "steps of luma" },
        Default::Float(3.0),
    )
    .doc(
        "A picture whose brightness varies less (standard deviation, in steps of 8-bit luma) is \
         black, white or of one colour; 0 never.",
        "A dim room at night is at 10 and more, a cap on the lens at 1.",
    )
    .also(&["black", "uniform", "min_contrast", "black_contrast"]),
    key("corrupt_area", Kind::Float { min: 0.0, max: 1.0, unit: "" }, Default::Float(0.01))
        .doc(
            "Share of the picture, 0 to 1, that has the green of missing data before it counts as \
             corrupt; 0 never. What the decoder reports counts in any case.",
            "Decoders leave zeros where data is missing; no camera sends that green.",
        )
        .also(&["green", "green_area", "corrupt"]),
    key("blur_drop", Kind::Float { min: 0.0, max: 0.99, unit: "" }, Default::Float(0.6))
        .doc(
            "Share of its usual detail, 0 to 0.99, that most of the picture must have lost before \
             it counts as blurred or covered; 0 never.",
            "Usual is what the camera showed in the minutes before: dusk is no fault. A scene that \
             changed for good is accepted within an hour.",
        )
        .also(&["blur", "blurred", "covered", "defocus"]),
    key("time_jump_s", Kind::Float { min: 0.0, max: 3600.0, unit: S }, Default::Float(2.0))
        .doc(
            "Time stamps that go back, or ahead of the clock, by more than this have jumped; 0 never.",
            "Recordings and whoever compares cameras by time stamps want to know.",
        )
        .also(&["jump_s", "timestamp_jump_s"]),
    key("late_s", Kind::Float { min: 0.0, max: 3600.0, unit: S }, Default::Float(3.0))
        .doc(
            "Frames that come so much later after their time stamps than at best are late; 0 never. \
             When that lasts ten times as long, a live source is connected anew. Not applied with \
             idle_gate and with delivery = \"every-frame\".",
            "A decoder that is too slow falls behind unnoticed, ever further; a new connection \
             gives up the frames that wait for it.",
        )
        .also(&["late", "lag_s", "max_lag_s"]),
    key("fault_hold_s", Kind::Float { min: 0.0, max: 60.0, unit: S }, Default::Float(2.0))
        .doc(
            "A uniform, blurred or late picture counts after so long, and every fault ends when it \
             has been gone for so long.",
            "Cameras go black for a second when they change between day and night.",
        )
        .also(&["fault_s", "uniform_s", "blur_s"]),
];
