//! Events of the instance.

use crate::bus::{port, transport};
use crate::header::{BadHeaders, SKIPS_MAX, check_event, reject};
use crate::services::{self, ServiceSpec};
use crate::{Bus, BusError, Ipc, memory, populate::populate, readers, wake::Waker};
use framebus_types::Event;
use iceoryx2::port::ReceiveError;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::sample::Sample;
use iceoryx2::service::Service;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

/// Publishes events.
#[derive(Debug)]
pub struct EventPublisher<S: Service = Ipc> {
    publisher: Publisher<S, [Event], ()>,
    notifier: Notifier<S>,
    spec: ServiceSpec,
}

impl<S: Service> Bus<S> {
    /// Opens the events service for publishing.
    ///
    /// # Errors
    /// [`BusError::Memory`] when /dev/shm cannot hold the samples.
    pub fn event_publisher(&self) -> Result<EventPublisher<S>, BusError> {
        let spec = services::events(self.domain.limits());
        let need = memory::events(&spec);
        let service = self.service(&spec)?;
        let _turn = memory::turn();
        memory::check(&spec.name, need)?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(services::EVENTS_OF_SAMPLE)
            .max_loaned_samples(spec.loans)
            .allocation_strategy(AllocationStrategy::Static)
            .create()
            .map_err(|error| port(&spec, "publisher", error))?;
        let mut first = publisher.loan_slice_uninit(1).map_err(|error| transport(&spec, error))?;
        populate(first.payload_mut().as_ptr() as usize)
            .map_err(|reason| memory::not_populated(&spec, need, &reason))?;
        drop(first);
        Ok(EventPublisher { publisher, notifier: self.notifier(&spec)?, spec })
    }

    /// Opens the events service for reading, creating it when this reader is the first of
    /// the instance.
    ///
    /// # Errors
    /// [`BusError::Service`], [`BusError::Port`].
    pub fn event_subscriber(&self, reader: &str) -> Result<EventSubscriber<S>, BusError> {
        let spec = services::events(self.domain.limits());
        let service = self.service(&spec)?;
        let listener = self.listener(&spec, false)?;
        Self::subscribe_events(&service, spec, reader, false, listener)
    }

    /// Opens the events service with whatever settings its creator gave it; for readers
    /// that do not know the configuration.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created the service.
    pub fn join_events(&self, reader: &str) -> Result<EventSubscriber<S>, BusError> {
        let spec = services::events(self.domain.limits());
        let service = self.existing_service(&spec)?;
        let listener = self.listener(&spec, true)?;
        Self::subscribe_events(&service, spec, reader, true, listener)
    }

    fn subscribe_events(
        service: &PortFactory<S, [Event], ()>,
        spec: ServiceSpec,
        reader: &str,
        observer: bool,
        listener: Listener<S>,
    ) -> Result<EventSubscriber<S>, BusError> {
        let mut builder = service.subscriber_builder();
        if let Some(name) = &readers::port_name(reader, observer) {
            builder = builder.name(name);
        }
        let subscriber = builder.create().map_err(|error| port(&spec, "subscriber", error))?;
        // As for frames: be known before the first event is sent.
        let _ = subscriber.update_connections();
        let (waker, bad_events) = (Waker::new(listener), BadHeaders::default());
        Ok(EventSubscriber { subscriber, waker, spec, observer, sample: None, read: 0, bad_events })
    }
}

impl<S: Service> EventPublisher<S> {
    /// Sends the events of a frame and wakes the readers. An empty list is nothing to send.
    ///
    /// # Errors
    /// [`BusError::Transport`].
    pub fn publish(&self, events: &[Event]) -> Result<(), BusError> {
        for events in events.chunks(services::EVENTS_OF_SAMPLE) {
            let sample = self
                .publisher
                .loan_slice_uninit(events.len())
                .map_err(|error| transport(&self.spec, error))?;
            sample.write_from_slice(events).send().map_err(|error| transport(&self.spec, error))?;
        }
        if !events.is_empty() {
            let _ = self.notifier.notify();
        }
        Ok(())
    }
}

/// Receives events.
#[derive(Debug)]
pub struct EventSubscriber<S: Service = Ipc> {
    subscriber: Subscriber<S, [Event], ()>,
    waker: Waker<S>,
    spec: ServiceSpec,
    observer: bool,
    /// The sample that is being read.
    sample: Option<Sample<S, [Event], ()>>,
    /// How many of its events have been.
    read: usize,
    bad_events: BadHeaders,
}

impl<S: Service> EventSubscriber<S> {
    /// The next event, or `None` when there is none. Events of another version or with
    /// unknown codes are counted and skipped.
    ///
    /// # Errors
    /// [`BusError::Version`] for an observer of another version; [`BusError::Transport`].
    pub fn receive(&mut self) -> Result<Option<Event>, BusError> {
        for _ in 0..SKIPS_MAX {
            if self.sample.is_none() {
                let sample = self.subscriber.receive().map_err(|error| match error {
                    ReceiveError::ExceedsMaxBorrows => BusError::NoLoan {
                        service: self.spec.name.clone(),
                        limit: self.spec.borrowed,
                    },
                    other @ ReceiveError::ConnectionFailure(_) => transport(&self.spec, other),
                })?;
                (self.sample, self.read) = (sample, 0);
            }
            let Some(sample) = &self.sample else {
                return Ok(None);
            };
            let Some(event) = sample.payload().get(self.read).copied() else {
                self.sample = None;
                continue;
            };
            self.read += 1;
            match check_event(&event) {
                Ok(()) => {
                    self.bad_events.understood();
                    return Ok(Some(event));
                }
                Err(error) => reject(&self.bad_events, &self.spec.name, self.observer, &error)?,
            }
        }
        Ok(None)
    }

    /// Events skipped because they cannot be understood.
    #[must_use]
    pub fn bad_events(&self) -> u64 {
        self.bad_events.get()
    }

    /// Sleeps until an event is there.
    #[must_use]
    pub fn waker(&self) -> &Waker<S> {
        &self.waker
    }
}
