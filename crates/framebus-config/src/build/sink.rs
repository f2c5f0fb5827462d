//! `[[sink]]`.

use super::name;
use crate::model::{
    Clips, Deliver, EVENT_KINDS, History, Jsonl, Mqtt, MqttProtocol, Otlp, Prometheus, Sink,
    SinkKind, SnapshotStyle, Snapshots, Spool, Web, Webhook, Zenoh,
};
use crate::parse::Entry;
use crate::value::Value;
use crate::{CameraName, SinkName};

pub(super) fn sink(entry: &Entry) -> Sink {
    let cameras = get!(entry, "cameras", Names)
        .iter()
        .filter_map(|(name, _)| CameraName::try_from(name.as_str()).ok())
        .collect();
    Sink {
        name: name::<SinkName>(entry, "name"),
        enabled: get!(entry, "enabled", Bool),
        kind: kind(entry),
        cameras,
    }
}

fn kind(entry: &Entry) -> SinkKind {
    match get!(entry, "kind", Text).as_str() {
        "jsonl" => SinkKind::Jsonl(Jsonl {
            path: get!(entry, "path", Jsonl),
            rotate_mib: int!(entry, "rotate_mib"),
            keep: int!(entry, "keep"),
        }),
        "mqtt" => SinkKind::Mqtt(mqtt(entry)),
        "webhook" => SinkKind::Webhook(Webhook {
            url: get!(entry, "url", Url),
            deliver: word!(entry, "deliver", Deliver),
            secret: get_option!(entry, "secret", Secret),
            timeout_ms: int!(entry, "timeout_ms"),
            ca: get_option!(entry, "ca", Path),
            spool: spool(entry),
        }),
        "zenoh" => SinkKind::Zenoh(Zenoh {
            url: get!(entry, "url", Url),
            deliver: word!(entry, "deliver", Deliver),
            prefix: get_option!(entry, "prefix", Text),
            ca: get_option!(entry, "ca", Path),
            cert: get_option!(entry, "cert", Path),
            key: get_option!(entry, "key", Path),
            frames: get!(entry, "frames", Bool),
            width: int!(entry, "width"),
            quality: int!(entry, "quality"),
            spool: spool(entry),
        }),
        "prometheus" => SinkKind::Prometheus(Prometheus {
            listen: get!(entry, "listen", Listen),
            token: get!(entry, "token", Secret),
        }),
        "web" => SinkKind::Web(Web {
            listen: get!(entry, "listen", Listen),
            token: get!(entry, "token", Secret),
            fps: int!(entry, "fps"),
            width: int!(entry, "width"),
            quality: int!(entry, "quality"),
        }),
        "clips" => SinkKind::Clips(Clips {
            folder: get!(entry, "folder", Path),
            events: events(entry),
            before_s: get!(entry, "before_s", Float),
            after_s: get!(entry, "after_s", Float),
            longest_s: get!(entry, "longest_s", Float),
            keep_mib: int!(entry, "keep_mib"),
        }),
        "snapshots" => SinkKind::Snapshots(Snapshots {
            folder: get!(entry, "folder", Path),
            events: events(entry),
            style: word!(entry, "style", SnapshotStyle),
            quality: int!(entry, "quality"),
            keep_mib: int!(entry, "keep_mib"),
        }),
        "otlp" => SinkKind::Otlp(Otlp {
            url: get!(entry, "url", Url),
            sample: get!(entry, "sample", Float),
            token: get_option!(entry, "token", Secret),
            ca: get_option!(entry, "ca", Path),
        }),
        "history" => SinkKind::History(History {
            path: get!(entry, "path", Path),
            deliver: word!(entry, "deliver", Deliver),
            keep_days: int!(entry, "keep_days"),
            keep_mib: int!(entry, "keep_mib"),
        }),
        other => unreachable!("the table of keys has a sink kind {other} without a model"),
    }
}

fn mqtt(entry: &Entry) -> Mqtt {
    Mqtt {
        url: get!(entry, "url", Url),
        protocol: word!(entry, "protocol", MqttProtocol),
        deliver: word!(entry, "deliver", Deliver),
        topic: get!(entry, "topic", Text),
        client_id: get_option!(entry, "client_id", Text),
        user: get_option!(entry, "user", Text),
        password: get_option!(entry, "password", Secret),
        ca: get_option!(entry, "ca", Path),
        cert: get_option!(entry, "cert", Path),
        key: get_option!(entry, "key", Path),
        keep_alive_s: int!(entry, "keep_alive_s"),
        in_flight: int!(entry, "in_flight"),
        home_assistant: get!(entry, "home_assistant", Bool),
        discovery_prefix: get!(entry, "discovery_prefix", Text),
        spool: spool(entry),
    }
}

fn spool(entry: &Entry) -> Spool {
    Spool { folder: get_option!(entry, "spool", Path), max_mib: int!(entry, "spool_mib") }
}

fn events(entry: &Entry) -> Vec<&'static str> {
    let named = get!(entry, "events", Words);
    EVENT_KINDS.iter().copied().filter(|kind| named.iter().any(|name| name == kind)).collect()
}
