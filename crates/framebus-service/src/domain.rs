//! The bus domain that a configuration describes.

use framebus_bus::{BusError, Domain, Limits};
use framebus_config::{Config, Delivery};

/// Whether every enabled camera is every-frame: results then wait for their
/// readers too, and nothing at all is lost.
#[must_use]
pub fn is_offline(config: &Config) -> bool {
    config.enabled_cameras().all(|camera| camera.delivery == Delivery::EveryFrame)
}

/// How the bus delivers the frames of a camera that is configured so.
#[must_use]
pub fn delivery(configured: Delivery) -> framebus_bus::Delivery {
    match configured {
        Delivery::Latest => framebus_bus::Delivery::Latest,
        Delivery::EveryFrame => framebus_bus::Delivery::EveryFrame,
    }
}

/// Names the domain; touches nothing.
///
/// # Errors
/// [`BusError::Domain`] when the instance or its folder cannot be used.
pub fn domain(config: &Config) -> Result<Domain, BusError> {
    let limits = Limits {
        frame_subscribers: config.bus.frame_subscribers,
        result_subscribers: config.bus.result_subscribers,
        result_buffer: config.bus.result_buffer,
        max_detections: config.model.max_detections,
        offline: is_offline(config),
    };
    Domain::new(config.instance.as_str(), &config.bus.root, limits)
}
