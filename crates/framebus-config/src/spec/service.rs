//! Keys of `[bus]` and `[up]`.

use super::{Default, Key, Kind, MS, S, key};

pub(super) static BUS: [Key; 4] = [
    key("root", Kind::Path, Default::BusRoot)
        .doc(
            "Folder of the bus files, the user's number in its name. The pixels themselves lie \
             in /dev/shm.",
            "All processes of one instance must agree on it; one folder for each user, because \
             the bus knows no access rights.",
        )
        .also(&["path", "dir", "folder", "root_path"]),
    key("frame_subscribers", Kind::Int { min: 1, max: 16, unit: "" }, Default::Int(2))
        .doc(
            "How many processes may read the frames of one camera at once, inference included.",
            "Inference and one of yours; each sink that reads frames (web, snapshots, zenoh with \
             `frames`) adds a place. Each costs five frames of shared memory per camera.",
        )
        .also(&["subscribers", "max_subscribers"]),
    key("result_subscribers", Kind::Int { min: 1, max: 32, unit: "" }, Default::Int(8)).doc(
        "How many processes may read results, events and states at once, sinks included.",
        "Results are small: raise it freely.",
    ),
    key("result_buffer", Kind::Int { min: 2, max: 1024, unit: "results" }, Default::Int(128))
        .doc(
            "How many results a reader may lag behind before it loses its oldest.",
            "128 is four seconds of one camera at 30 frames per second.",
        )
        .also(&["buffer", "queue", "buffer_size", "queue_size"]),
];

pub(super) static UP: [Key; 5] = [
    key("restart_min_ms", Kind::Int { min: 10, max: 60_000, unit: MS }, Default::Int(250))
        .doc(
            "Wait before a process that died is started again; it doubles with each failure.",
            "Short, since the first failure is usually the only one.",
        )
        .also(&["restart_ms", "backoff_ms", "restart_delay_ms"]),
    key("restart_max_ms", Kind::Int { min: 10, max: 600_000, unit: MS }, Default::Int(10_000))
        .doc(
            "Longest wait between restarts; not below restart_min_ms.",
            "A broken camera must not fill the log, and must come back soon once mended.",
        )
        .also(&["max_backoff_ms"]),
    key("breaker_s", Kind::Float { min: 1.0, max: 3600.0, unit: S }, Default::Float(60.0))
        .doc(
            "Time between attempts to start a process that has failed eight times in a row \
             without working for three seconds.",
            "What has failed that often needs somebody; it is tried on in case it heals.",
        )
        .also(&["breaker_ms", "circuit_breaker_s", "give_up_s"]),
    key("hang_s", Kind::Float { min: 0.0, max: 3600.0, unit: S }, Default::Float(10.0))
        .doc(
            "A process that says nothing, or makes no progress, for so long is killed and \
             started again; 0 means never.",
            "Processes report once a second; while one starts, twelve times as long.",
        )
        .also(&["watchdog_s", "hang_timeout_s", "hang_ms"]),
    key("drain_s", Kind::Float { min: 0.1, max: 60.0, unit: S }, Default::Float(5.0))
        .doc(
            "Time that processes have to finish after SIGTERM before they are killed.",
            "A batch in flight and a file being flushed need well under a second.",
        )
        .also(&["shutdown_s", "timeout_s", "drain_ms", "grace_s", "stop_timeout_s"]),
];
