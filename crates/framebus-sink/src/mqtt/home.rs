//! Home Assistant: what is announced, and the figures of zones and lines that it shows.
//!
//! <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>: a message that the
//! broker keeps, at `PREFIX/COMPONENT/OBJECT/config`, makes an entity.

use crate::feed::Message;
use framebus_config::{CameraName, Config, Mqtt, Sink};
use framebus_types::{Direction, EventKind, Outcome, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Counts of a camera's zones and lines.
#[derive(Debug)]
struct Camera {
    name: CameraName,
    zones: Vec<Zone>,
    lines: BTreeMap<String, [u64; 2]>,
    lines_changed: bool,
}

/// Most objects within the last second: one frame that misses an object is no news.
#[derive(Debug)]
struct Zone {
    name: String,
    most: Option<u32>,
    published: Option<u32>,
}

/// The zones and lines of a sink's cameras.
#[derive(Debug)]
pub(super) struct Home {
    cameras: Vec<Camera>,
}

impl Home {
    pub(super) fn new(config: &Config, sink: &Sink) -> Self {
        let camera = |name: &CameraName| {
            let zone = |zone: &framebus_config::Zone| Zone {
                name: zone.name.clone(),
                most: None,
                published: None,
            };
            Camera {
                name: name.clone(),
                zones: config.zones_of(name.as_str()).map(zone).collect(),
                lines: lines(config, name).map(|line| (line.to_owned(), [0; 2])).collect(),
                lines_changed: true,
            }
        };
        Self { cameras: super::cameras::names(config, sink).map(camera).collect() }
    }

    /// Whether results and events are needed for it.
    pub(super) fn needs(&self) -> (bool, bool) {
        let any = |has: fn(&Camera) -> bool| self.cameras.iter().any(has);
        (any(|camera| !camera.zones.is_empty()), any(|camera| !camera.lines.is_empty()))
    }

    /// Counts.
    pub(super) fn note(&mut self, message: &Message<'_>) {
        match message {
            Message::Result(result) if result.outcome() == Outcome::Ok => {
                let Some(camera) = self.camera(result.camera()) else { return };
                for (bit, zone) in camera.zones.iter_mut().enumerate().take(64) {
                    let inside = result.detections().iter();
                    let count = inside.filter(|found| found.zones >> bit & 1 == 1).count() as u32;
                    zone.most = Some(zone.most.unwrap_or(0).max(count));
                }
            }
            Message::Event(event) if event.kind == u32::from(EventKind::Cross) => {
                let Some(camera) = self.camera(event.camera()) else { return };
                let Some(counts) = camera.lines.get_mut(event.place()) else { return };
                let back = event.direction == u32::from(Direction::Backward);
                counts[usize::from(back)] += 1;
                camera.lines_changed = true;
            }
            _ => {}
        }
    }

    fn camera(&mut self, name: &str) -> Option<&mut Camera> {
        self.cameras.iter_mut().find(|camera| camera.name.as_str() == name)
    }

    /// Calls `publish` with topic (behind the first part) and payload of each figure that
    /// has changed. To be called once a second. Where nobody looks (`is_seen`), nothing
    /// is known to be: an occupied room would stay so.
    pub(super) fn changes(
        &mut self,
        is_seen: impl Fn(&str) -> bool,
        mut publish: impl FnMut(String, String),
    ) {
        for camera in &mut self.cameras {
            let unseen = (!is_seen(camera.name.as_str())).then_some(0);
            for zone in &mut camera.zones {
                let most = zone.most.take().or(unseen);
                if most.is_some() && most != zone.published {
                    zone.published = most;
                    let count = most.unwrap_or(0).to_string();
                    publish(format!("{}/zone/{}", camera.name, zone.name), count);
                }
            }
            if std::mem::take(&mut camera.lines_changed) {
                for (line, [forward, backward]) in &camera.lines {
                    let payload = json!({ "forward": forward, "backward": backward });
                    publish(format!("{}/line/{line}", camera.name), payload.to_string());
                }
            }
        }
    }
}

fn lines<'a>(config: &'a Config, camera: &'a CameraName) -> impl Iterator<Item = &'a str> {
    config.lines_of(camera.as_str()).map(|line| line.name.as_str())
}

/// Cameras, with zones in the order of their bits and lines where those matter.
pub(super) type Told = Vec<(String, Vec<String>, Vec<String>)>;

/// What a broker is told of a configuration.
pub(super) fn told(config: &Config, sink: &Sink, mqtt: &Mqtt) -> Told {
    let camera = |name: &CameraName| {
        let zones = config.zones_of(name.as_str()).map(|zone| zone.name.clone());
        let lines = lines(config, name).map(str::to_owned);
        let shown = mqtt.home_assistant;
        (name.to_string(), zones.filter(|_| shown).collect(), lines.filter(|_| shown).collect())
    };
    super::cameras::names(config, sink).map(camera).collect()
}

/// Topics of all that is announced, by whomever.
pub(super) fn announced(mqtt: &Mqtt) -> String {
    format!("{}/+/+/config", mqtt.discovery_prefix)
}

/// Whether `payload` announces something of this instance (see `super::own_names`) and of
/// the sink whose status is at the topic `status`.
pub(super) fn is_own(payload: &[u8], names: &str, status: &str) -> bool {
    let Ok(entity) = serde_json::from_slice::<Value>(payload) else { return false };
    entity["unique_id"].as_str().is_some_and(|id| id.starts_with(names))
        && entity["availability_topic"] == status
}

/// What is announced: whole topics and payloads. `names`: how the names of this instance
/// begin.
pub(super) fn announcements(
    config: &Config,
    sink: &Sink,
    mqtt: &Mqtt,
    names: &str,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for camera in super::cameras::names(config, sink) {
        let base = format!("{}/{camera}", mqtt.topic);
        let device = json!({
            "identifiers": [format!("{names}{camera}")],
            "name": camera.as_str(),
            "manufacturer": "framebus",
        });
        let mut announce = |component: &str, object: &str, own: Value| {
            let object = format!("{names}{camera}-{object}");
            let mut entity = json!({
                "unique_id": object,
                "device": device,
                "availability_topic": format!("{}/status", mqtt.topic),
                "origin": { "name": "framebus", "sw_version": env!("CARGO_PKG_VERSION") },
            });
            if let (Some(entity), Value::Object(own)) = (entity.as_object_mut(), own) {
                entity.extend(own);
            }
            let topic = format!("{}/{component}/{object}/config", mqtt.discovery_prefix);
            found.push((topic, entity.to_string()));
        };
        let states: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
        announce(
            "sensor",
            "state",
            json!({
                "name": "State",
                "state_topic": format!("{base}/state"),
                "value_template": "{{ value_json.state }}",
                "json_attributes_topic": format!("{base}/state"),
                "device_class": "enum",
                "options": states,
                "entity_category": "diagnostic",
            }),
        );
        for zone in config.zones_of(camera.as_str()) {
            let topic = format!("{base}/zone/{}", zone.name);
            announce(
                "sensor",
                &format!("zone-{}", zone.name),
                json!({
                    "name": format!("{} objects", zone.name),
                    "state_topic": topic,
                    "state_class": "measurement",
                }),
            );
            announce(
                "binary_sensor",
                &format!("zone-{}", zone.name),
                json!({
                    "name": zone.name,
                    "state_topic": topic,
                    "value_template": "{{ 'ON' if value | int(0) > 0 else 'OFF' }}",
                    "device_class": "occupancy",
                }),
            );
        }
        for line in lines(config, camera) {
            for direction in ["forward", "backward"] {
                announce(
                    "sensor",
                    &format!("line-{line}-{direction}"),
                    json!({
                        "name": format!("{line} {direction}"),
                        "state_topic": format!("{base}/line/{line}"),
                        "value_template": format!("{{{{ value_json.{direction} }}}}"),
                        "state_class": "total_increasing",
                    }),
                );
            }
        }
    }
    found
}
