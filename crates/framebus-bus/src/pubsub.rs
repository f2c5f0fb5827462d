//! Publish/subscribe services, made or opened as [`services`] says.

use crate::bus::service_name;
use crate::services::{self, ServiceSpec};
use crate::{Bus, BusError};
use iceoryx2::prelude::ZeroCopySend;
use iceoryx2::service::Service;
use iceoryx2::service::builder::publish_subscribe::{
    PublishSubscribeOpenError, PublishSubscribeOpenOrCreateError,
};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use std::fmt::Debug;

impl<S: Service> Bus<S> {
    /// The service with the settings of its specification, made where there is none.
    ///
    /// # Errors
    /// [`BusError::Service`], above all when it exists with other settings.
    pub(crate) fn service<P, H>(
        &self,
        spec: &ServiceSpec,
    ) -> Result<PortFactory<S, [P], H>, BusError>
    where
        P: Debug + ZeroCopySend,
        H: Debug + ZeroCopySend,
    {
        self.node
            .service_builder(&service_name(spec)?)
            .publish_subscribe::<[P]>()
            .user_header::<H>()
            .max_publishers(spec.max_publishers)
            .max_subscribers(spec.max_subscribers)
            .max_nodes(services::MAX_NODES)
            .subscriber_max_buffer_size(spec.buffer)
            .subscriber_max_borrowed_samples(spec.borrowed)
            .history_size(0)
            .enable_safe_overflow(spec.overflow)
            .open_or_create()
            .map_err(|error| service_error(spec, error))
    }

    /// The service with whatever settings its creator gave it.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created it.
    pub(crate) fn existing_service<P, H>(
        &self,
        spec: &ServiceSpec,
    ) -> Result<PortFactory<S, [P], H>, BusError>
    where
        P: Debug + ZeroCopySend,
        H: Debug + ZeroCopySend,
    {
        self.node
            .service_builder(&service_name(spec)?)
            .publish_subscribe::<[P]>()
            .user_header::<H>()
            .open()
            .map_err(|error| open_error(spec, error))
    }
}

fn open_error(spec: &ServiceSpec, error: PublishSubscribeOpenError) -> BusError {
    match error {
        PublishSubscribeOpenError::DoesNotExist => BusError::Absent { service: spec.name.clone() },
        other => {
            service_error(spec, PublishSubscribeOpenOrCreateError::PublishSubscribeOpenError(other))
        }
    }
}

fn service_error(spec: &ServiceSpec, error: impl Debug) -> BusError {
    let mut reason = format!("{error:?}");
    if reason.contains("Incompatible") || reason.contains("DoesNotSupport") {
        reason.push_str(
            "; processes of one instance must run the same framebus version and the same [bus] settings: stop them all and start again",
        );
    }
    BusError::Service { service: spec.name.clone(), reason }
}
