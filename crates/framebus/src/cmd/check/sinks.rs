//! What `check` says of sinks.

use super::pictures;
use framebus_config::{Config, JsonlPath, SinkKind, Source};

/// Cameras of which clips are wanted and that have no compressed video.
pub(super) fn without_packets(config: &Config) -> Vec<String> {
    let wanted =
        config.enabled_cameras().filter(|camera| config.wants_packets(camera.name.as_str()));
    wanted
        .filter(|camera| match &camera.source {
            Source::Test(_) => true,
            Source::File(path) => pictures(path).is_some(),
            _ => false,
        })
        .map(|camera| {
            let (name, source) = (&camera.name, &camera.source);
            format!(
                "warning: camera[{name}]: {source} has no compressed video, so no clips; \
                 leave it out of the sink's cameras"
            )
        })
        .collect()
}

/// Kind and target, as printed.
pub(super) fn target(kind: &SinkKind) -> (&'static str, String) {
    let target = match kind {
        SinkKind::Jsonl(jsonl) => match &jsonl.path {
            JsonlPath::Stdout => "standard output".to_owned(),
            JsonlPath::File(path) => path.display().to_string(),
        },
        SinkKind::Mqtt(mqtt) => mqtt.url.origin(),
        SinkKind::Webhook(webhook) => webhook.url.origin(),
        SinkKind::Zenoh(zenoh) => zenoh.url.origin(),
        SinkKind::Prometheus(prometheus) => format!("http://{}/metrics", prometheus.listen),
        SinkKind::Web(web) => format!("http://{}", web.listen),
        SinkKind::Clips(clips) => clips.folder.display().to_string(),
        SinkKind::History(history) => history.path.display().to_string(),
        SinkKind::Otlp(otlp) => otlp.url.origin(),
        SinkKind::Snapshots(snapshots) => snapshots.folder.display().to_string(),
    };
    (kind.as_str(), target)
}
