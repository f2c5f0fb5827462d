//! One process's view of an instance.

use crate::services::{self, EVENT_DEAD, EVENT_ID_MAX, EVENT_SENT, MAX_NODES, ServiceSpec};
use crate::{BusError, Domain, Ipc, files::Files, memory};
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::{EventId, NodeName, ServiceName, SignalHandlingMode};
use iceoryx2::service::Service;
use iceoryx2::service::builder::event::EventOpenError;
use iceoryx2::service::port_factory::event::PortFactory as EventFactory;
use std::fmt::Debug;
use std::path::Path;

/// A node in an instance's domain.
///
/// Generic over iceoryx2's transport so that the conformance tests can run over
/// the in-process one; programs use the default.
#[derive(Debug)]
pub struct Bus<S: Service = Ipc> {
    pub(crate) node: Node<S>,
    pub(crate) domain: Domain,
    files: Files,
}

/// What a clean-up of dead processes found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Dead nodes removed.
    pub removed: u64,
    /// Dead nodes that could not be removed.
    pub failed: u64,
}

impl<S: Service> Bus<S> {
    /// Joins the instance. `process` names this process in iceoryx2's lists.
    /// Signals stay with the caller.
    ///
    /// # Errors
    /// [`BusError::Domain`] and [`BusError::Folder`] when the instance's folder cannot be
    /// used, [`BusError::NoRoom`] when it or /dev/shm is full,
    /// [`BusError::Port`] when the node cannot be created.
    pub fn open(domain: &Domain, process: &str) -> Result<Self, BusError> {
        memory::check_room(Path::new("/dev/shm"))?;
        domain.create_folder()?;
        memory::check_room(&domain.folder()).inspect_err(|_| domain.remove_empty_folders())?;
        // What fails comes back to us as an error and is logged once; iceoryx2's
        // own words go through `tracing`, where FRAMEBUS_LOG can let them pass.
        iceoryx2::prelude::set_log_level(iceoryx2::prelude::LogLevel::Warn);
        let port = |reason: String| BusError::Port { service: "node".to_owned(), reason };
        let name = NodeName::new(process).map_err(|error| port(format!("{error:?}")))?;
        let node = NodeBuilder::new()
            .name(&name)
            .config(domain.config())
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<S>()
            .map_err(|error| port(format!("{error:?}")))?;
        Ok(Self { node, domain: domain.clone(), files: Files::new(domain) })
    }

    /// Whether the instance's files are those that this process joined; to be asked
    /// about once a second. When somebody has removed them, this process still reaches
    /// those who are there, but nobody who comes later.
    ///
    /// # Errors
    /// [`BusError::Vanished`]: stop, and start the instance again.
    pub fn check_files(&self) -> Result<(), BusError> {
        self.files.check()
    }

    /// The instance.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Removes what dead processes left behind. The supervisor does this every
    /// second; iceoryx2 itself only when a node or service is opened.
    #[must_use]
    pub fn clean_dead_nodes(&self) -> Cleaned {
        let state = self.node.try_cleanup_dead_nodes();
        Cleaned { removed: state.cleanups, failed: state.failed_cleanups }
    }

    pub(crate) fn notifier(&self, spec: &ServiceSpec) -> Result<Notifier<S>, BusError> {
        self.event_service(spec)?
            .notifier_builder()
            .default_event_id(EventId::new(EVENT_SENT))
            .create()
            .map_err(|error| port(spec, "notifier", error))
    }

    /// With `join`, the event service must be there and may have any settings.
    pub(crate) fn listener(&self, spec: &ServiceSpec, join: bool) -> Result<Listener<S>, BusError> {
        let service = if join {
            self.node.service_builder(&service_name(spec)?).event().open().map_err(|error| {
                match error {
                    EventOpenError::DoesNotExist => BusError::Absent { service: spec.name.clone() },
                    other => port(spec, "event service", other),
                }
            })?
        } else {
            self.event_service(spec)?
        };
        service.listener_builder().create().map_err(|error| port(spec, "listener", error))
    }

    pub(crate) fn event_service(&self, spec: &ServiceSpec) -> Result<EventFactory<S>, BusError> {
        self.node
            .service_builder(&service_name(spec)?)
            .event()
            .max_nodes(MAX_NODES)
            .max_listeners(spec.max_subscribers)
            .max_notifiers(spec.max_publishers)
            .event_id_max_value(EVENT_ID_MAX)
            .notifier_dead_event(EventId::new(EVENT_DEAD))
            .open_or_create()
            .map_err(|error| port(spec, "event service", error))
    }

    pub(crate) fn frames_spec(&self, camera: &str, delivery: crate::Delivery) -> ServiceSpec {
        services::frames(self.domain.limits(), camera, delivery)
    }
}

pub(crate) fn service_name(spec: &ServiceSpec) -> Result<ServiceName, BusError> {
    ServiceName::new(&spec.name).map_err(|error| BusError::Service {
        service: spec.name.clone(),
        reason: format!("{error:?}"),
    })
}

pub(crate) fn port(spec: &ServiceSpec, what: &str, error: impl Debug) -> BusError {
    let (service, error) = (spec.name.clone(), format!("{error:?}"));
    // Of a listener or of a subscriber: each reader has one of both.
    if error == "ExceedsMaxSupportedListeners" || error == "ExceedsMaxSupportedSubscribers" {
        return full(&service);
    }
    BusError::Port { service, reason: format!("{what}: {error}") }
}

/// All places of this service's readers are taken.
pub(crate) fn full(service: &str) -> BusError {
    let frames = service.starts_with("frames/") || service.starts_with("packets/");
    let key = if frames { "frame_subscribers" } else { "result_subscribers" };
    let service = service.strip_suffix(services::OBSERVERS).unwrap_or(service).to_owned();
    BusError::Full { service, key }
}

pub(crate) fn transport(spec: &ServiceSpec, error: impl Debug) -> BusError {
    BusError::Transport { service: spec.name.clone(), reason: format!("{error:?}") }
}
