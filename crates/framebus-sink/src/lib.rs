//! Sink process: results go out to the world.
//!
//! One process has one duty. A slow or dead sink costs nobody else anything: it
//! loses its own oldest results, counts them and says so in its state.

mod clips;
mod deliver;
mod feed;
mod files;
mod history;
mod http;
mod jpeg;
mod jsonl;
mod mqtt;
mod otlp;
mod post;
mod prometheus;
mod rotated;
mod snapshots;
mod spool;
mod tls;
mod web;
mod webhook;
mod zenoh;

use framebus_config::{Sink, SinkKind};
use framebus_service::{Failure, Kind, Reporter, Service, Vitals};
use framebus_types::Role;

/// Runs the sink called `name` until the process is asked to stop.
///
/// # Errors
/// [`Failure`] when there is no such sink or its target cannot be used.
pub fn serve(service: &Service, name: &str) -> Result<(), Failure> {
    let config = service.config();
    let sink: &Sink =
        config.sinks.iter().find(|sink| sink.name.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
            Failure::message(
                Kind::Usage,
                format!(
                    "{} has no sink {name:?}; it has: {}",
                    config.file.display(),
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                ),
            )
        })?;
    let vitals = Vitals::new(Role::Sink, name);
    let _reporter =
        Reporter::start(service.bus(), vec![vitals.clone()], service.progress_flag(), false)?;
    match &sink.kind {
        SinkKind::Jsonl(jsonl) => jsonl::serve(service, sink, jsonl, &vitals),
        SinkKind::Mqtt(mqtt) => mqtt::serve(service, sink, mqtt, &vitals),
        SinkKind::Webhook(webhook) => webhook::serve(service, sink, webhook, &vitals),
        SinkKind::Zenoh(settings) => zenoh::serve(service, sink, settings, &vitals),
        SinkKind::Prometheus(settings) => prometheus::serve(service, sink, settings, &vitals),
        SinkKind::Clips(clips) => clips::serve(service, sink, clips, &vitals),
        SinkKind::Snapshots(snapshots) => snapshots::serve(service, sink, snapshots, &vitals),
        SinkKind::Otlp(otlp) => otlp::serve(service, sink, otlp, &vitals),
        SinkKind::History(history) => history::serve(service, sink, history, &vitals),
        SinkKind::Web(web) => web::serve(service, sink, web, &vitals),
    }
}
