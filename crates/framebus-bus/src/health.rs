//! What processes say of themselves.

use crate::bus::{port, transport};
use crate::header::check_health;
use crate::services::{self, ServiceSpec};
use crate::{Bus, BusError, Ipc, memory, populate::populate, wake::Waker};
use framebus_types::Health;
use iceoryx2::port::ReceiveError;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::service::Service;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

/// Publishes health records of one process.
#[derive(Debug)]
pub struct HealthPublisher<S: Service = Ipc> {
    publisher: Publisher<S, [Health], ()>,
    notifier: Notifier<S>,
    spec: ServiceSpec,
    records: usize,
}

impl<S: Service> Bus<S> {
    /// Opens the health service for samples of at most `records` records.
    ///
    /// # Errors
    /// [`BusError::Memory`] when /dev/shm cannot hold the samples.
    pub fn health_publisher(&self, records: usize) -> Result<HealthPublisher<S>, BusError> {
        let records = records.max(1);
        let spec = services::health(self.domain.limits());
        let need = memory::health(&spec, records);
        let service = self.service(&spec)?;
        let _turn = memory::turn();
        memory::check(&spec.name, need)?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(records)
            .max_loaned_samples(spec.loans)
            .allocation_strategy(AllocationStrategy::Static)
            .create()
            .map_err(|error| port(&spec, "publisher", error))?;
        let mut first = publisher.loan_slice_uninit(1).map_err(|error| transport(&spec, error))?;
        populate(first.payload_mut().as_ptr() as usize)
            .map_err(|reason| memory::not_populated(&spec, need, &reason))?;
        drop(first);
        Ok(HealthPublisher { publisher, notifier: self.notifier(&spec)?, spec, records })
    }

    /// Opens the health service for reading.
    ///
    /// # Errors
    /// [`BusError::Service`], [`BusError::Port`].
    pub fn health_subscriber(&self) -> Result<HealthSubscriber<S>, BusError> {
        let spec = services::health(self.domain.limits());
        let service = self.service(&spec)?;
        let listener = self.listener(&spec, false)?;
        Self::subscribe_health(&service, spec, listener)
    }

    /// Opens the health service with whatever settings its creator gave it.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created the service.
    pub fn join_health(&self) -> Result<HealthSubscriber<S>, BusError> {
        let spec = services::health(self.domain.limits());
        let service = self.existing_service(&spec)?;
        let listener = self.listener(&spec, true)?;
        Self::subscribe_health(&service, spec, listener)
    }

    fn subscribe_health(
        service: &PortFactory<S, [Health], ()>,
        spec: ServiceSpec,
        listener: Listener<S>,
    ) -> Result<HealthSubscriber<S>, BusError> {
        let subscriber = service
            .subscriber_builder()
            .create()
            .map_err(|error| port(&spec, "subscriber", error))?;
        Ok(HealthSubscriber { subscriber, waker: Waker::new(listener), spec })
    }
}

impl<S: Service> HealthPublisher<S> {
    /// Sends the records of this process; those beyond the announced number
    /// are left out.
    ///
    /// # Errors
    /// [`BusError::Transport`].
    pub fn publish(&self, records: &[Health]) -> Result<(), BusError> {
        let records = &records[..records.len().min(self.records)];
        if records.is_empty() {
            return Ok(());
        }
        let sample = self
            .publisher
            .loan_slice_uninit(records.len())
            .map_err(|error| transport(&self.spec, error))?;
        sample.write_from_slice(records).send().map_err(|error| transport(&self.spec, error))?;
        let _ = self.notifier.notify();
        Ok(())
    }
}

/// Receives health records of all processes.
#[derive(Debug)]
pub struct HealthSubscriber<S: Service = Ipc> {
    subscriber: Subscriber<S, [Health], ()>,
    waker: Waker<S>,
    spec: ServiceSpec,
}

impl<S: Service> HealthSubscriber<S> {
    /// Appends all waiting records that make sense to `records`; returns how
    /// many did not.
    ///
    /// # Errors
    /// [`BusError::Transport`].
    pub fn receive_into(&self, records: &mut Vec<Health>) -> Result<usize, BusError> {
        let mut bad = 0;
        // What is there when it looks: one sample of each publisher and more. Who
        // sends faster than is read must not keep the reader here.
        for _ in 0..self.spec.max_publishers * self.spec.buffer {
            let sample = self.subscriber.receive().map_err(|error| match error {
                ReceiveError::ExceedsMaxBorrows => {
                    BusError::NoLoan { service: self.spec.name.clone(), limit: self.spec.borrowed }
                }
                other @ ReceiveError::ConnectionFailure(_) => transport(&self.spec, other),
            })?;
            let Some(sample) = sample else { break };
            for record in sample.payload() {
                let record = *record;
                if check_health(&record) {
                    records.push(record);
                } else {
                    bad += 1;
                }
            }
        }
        Ok(bad)
    }

    /// Sleeps until a record is there.
    #[must_use]
    pub fn waker(&self) -> &Waker<S> {
        &self.waker
    }
}
