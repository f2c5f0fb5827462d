//! Results of the instance.

use crate::bus::{port, transport};
use crate::header::{BadHeaders, SKIPS_MAX, check_result, reject};
use crate::readers::{self, Readers, WaitedFor};
use crate::services::{self, ServiceSpec};
use crate::{BadHeader, Bus, BusError, Ipc, memory, populate::populate, wake::Waker};
use framebus_types::{Detection, Outcome, Reason, ResultHeader, text};
use iceoryx2::port::ReceiveError;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::port_name::PortName;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::sample::Sample;
use iceoryx2::service::Service;
use iceoryx2::service::port_factory::PortFactory as _;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use std::fmt::Debug;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// Publishes results.
#[derive(Debug)]
pub struct ResultPublisher<S: Service = Ipc> {
    publisher: Publisher<S, [u8], ResultHeader>,
    notifier: Notifier<S>,
    service: PortFactory<S, [u8], ResultHeader>,
    spec: ServiceSpec,
    waited_for: WaitedFor,
    readers: Mutex<Readers>,
}

impl<S: Service> Bus<S> {
    /// Opens the results service for publishing. In an offline instance a
    /// publisher waits for full readers until `stop` is set.
    ///
    /// # Errors
    /// [`BusError::Memory`] when /dev/shm cannot hold the samples.
    pub fn result_publisher(&self, stop: Arc<AtomicBool>) -> Result<ResultPublisher<S>, BusError> {
        let limits = *self.domain.limits();
        let spec = services::results(&limits);
        let need = memory::results(&spec, limits.max_detections);
        let service = self.service(&spec)?;
        let waited_for = WaitedFor::default();
        let _turn = memory::turn();
        memory::check(&spec.name, need)?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(limits.max_detections.max(1) * size_of::<Detection>())
            .max_loaned_samples(spec.loans)
            .allocation_strategy(AllocationStrategy::Static)
            .set_backpressure_handler(waited_for.handler(stop))
            .create()
            .map_err(|error| port(&spec, "publisher", error))?;
        let mut first = publisher.loan_slice_uninit(1).map_err(|error| transport(&spec, error))?;
        populate(first.payload_mut().as_ptr() as usize)
            .map_err(|reason| memory::not_populated(&spec, need, &reason))?;
        drop(first);
        let notifier = self.notifier(&spec)?;
        let readers = Mutex::default();
        Ok(ResultPublisher { publisher, notifier, service, spec, waited_for, readers })
    }

    /// Opens the results service for reading, creating it when this reader is
    /// the first of the instance.
    ///
    /// # Errors
    /// [`BusError::Service`], [`BusError::Port`].
    pub fn result_subscriber(&self, reader: &str) -> Result<ResultSubscriber<S>, BusError> {
        let spec = services::results(self.domain.limits());
        let service = self.service(&spec)?;
        let name = readers::port_name(reader, false);
        let listener = self.listener(&spec, false)?;
        Self::subscribe_results(&service, spec, name, listener, false)
    }

    /// Opens the results service with whatever settings its creator gave it;
    /// for readers that do not know the configuration.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created the service.
    pub fn join_results(&self, reader: &str) -> Result<ResultSubscriber<S>, BusError> {
        let spec = services::results(self.domain.limits());
        let service = self.existing_service(&spec)?;
        let name = readers::port_name(reader, true);
        let listener = self.listener(&spec, true)?;
        Self::subscribe_results(&service, spec, name, listener, true)
    }

    fn subscribe_results(
        service: &PortFactory<S, [u8], ResultHeader>,
        mut spec: ServiceSpec,
        name: Option<PortName>,
        listener: Listener<S>,
        observer: bool,
    ) -> Result<ResultSubscriber<S>, BusError> {
        // The creator's word, which an observer does not know.
        spec.borrowed = service.static_config().subscriber_max_borrowed_samples();
        let mut builder = service.subscriber_builder();
        if let Some(name) = &name {
            builder = builder.name(name);
        }
        let subscriber = builder.create().map_err(|error| port(&spec, "subscriber", error))?;
        // As for frames: be known before the first result is sent.
        let _ = subscriber.update_connections();
        let (waker, bad_headers) = (Waker::new(listener), BadHeaders::default());
        Ok(ResultSubscriber { subscriber, waker, spec, observer, bad_headers })
    }
}

impl<S: Service> ResultPublisher<S> {
    /// Whether a reader of this name is subscribed. Where nothing may be lost,
    /// the first result waits for the sinks this way.
    #[must_use]
    pub fn has_reader(&self, reader: &str) -> bool {
        let found = readers::has::<S>(self.service.dynamic_config(), reader);
        if found {
            let _ = self.publisher.update_connections();
        }
        found
    }

    /// Sends one result and wakes the readers; `header.count` is set from
    /// `detections`.
    ///
    /// # Errors
    /// [`BusError::Transport`], [`BusError::NoLoan`].
    pub fn publish(
        &self,
        header: &ResultHeader,
        detections: &[Detection],
    ) -> Result<usize, BusError> {
        let recipients = self.send(header, detections)?;
        self.wake();
        Ok(recipients)
    }

    /// Wakes the readers; see [`send`](Self::send).
    pub fn wake(&self) {
        let _ = self.notifier.notify();
    }

    /// Like [`publish`](Self::publish), without waking the readers: for what has to be
    /// done right after a result is out, before they take the processor.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn send(&self, header: &ResultHeader, detections: &[Detection]) -> Result<usize, BusError> {
        if !self.spec.overflow {
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.refresh::<S>(self.service.dynamic_config());
            self.waited_for.set(&readers.members);
        }
        let bytes: &[u8] = bytemuck::cast_slice(detections);
        // iceoryx2 has no empty slices; readers go by `count`.
        let mut sample =
            self.publisher.loan_slice_uninit(bytes.len().max(1)).map_err(|error| match error {
                iceoryx2::port::LoanError::ExceedsMaxLoans
                | iceoryx2::port::LoanError::OutOfMemory => {
                    BusError::NoLoan { service: self.spec.name.clone(), limit: self.spec.loans }
                }
                other => transport(&self.spec, other),
            })?;
        *sample.user_header_mut() =
            ResultHeader { count: detections.len() as u32, extra: 0, ..*header };
        let sample = if bytes.is_empty() {
            sample.write_from_slice(&[0])
        } else {
            sample.write_from_slice(bytes)
        };
        sample.send().map_err(|error| transport(&self.spec, error))
    }
}

/// Receives results.
#[derive(Debug)]
pub struct ResultSubscriber<S: Service = Ipc> {
    subscriber: Subscriber<S, [u8], ResultHeader>,
    waker: Waker<S>,
    spec: ServiceSpec,
    /// Joined from outside, see [`reject`].
    observer: bool,
    bad_headers: BadHeaders,
}

impl<S: Service> ResultSubscriber<S> {
    /// The next result, or `None` when there is none. Results whose header
    /// lies are counted and skipped.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when this reader holds as many results as it may,
    /// [`BusError::Version`] for an observer of another version.
    pub fn receive(&self) -> Result<Option<ResultSample<S>>, BusError> {
        for _ in 0..SKIPS_MAX {
            let sample = self.subscriber.receive().map_err(|error| match error {
                ReceiveError::ExceedsMaxBorrows => {
                    BusError::NoLoan { service: self.spec.name.clone(), limit: self.spec.borrowed }
                }
                other @ ReceiveError::ConnectionFailure(_) => transport(&self.spec, other),
            })?;
            let Some(sample) = sample else {
                return Ok(None);
            };
            match ResultSample::check(sample) {
                Ok(result) => {
                    self.bad_headers.understood();
                    return Ok(Some(result));
                }
                Err(error) => {
                    reject(&self.bad_headers, &self.spec.name, self.observer, &error)?;
                }
            }
        }
        Ok(None)
    }

    /// Results skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.bad_headers.get()
    }

    /// Sleeps until a result is there.
    #[must_use]
    pub fn waker(&self) -> &Waker<S> {
        &self.waker
    }
}

/// A result in shared memory whose header has been checked.
#[derive(Debug)]
pub struct ResultSample<S: Service = Ipc> {
    sample: Sample<S, [u8], ResultHeader>,
    header: ResultHeader,
    outcome: Outcome,
    reason: Reason,
}

impl<S: Service> ResultSample<S> {
    fn check(sample: Sample<S, [u8], ResultHeader>) -> Result<Self, BadHeader> {
        let header = *sample.user_header();
        let (outcome, reason) = check_result(&header, sample.payload().len())?;
        Ok(Self { outcome, reason, header, sample })
    }

    /// The header as it was when the result was received.
    #[must_use]
    pub fn header(&self) -> &ResultHeader {
        &self.header
    }

    /// Camera name.
    #[must_use]
    pub fn camera(&self) -> &str {
        text::unpack(&self.header.camera)
    }

    /// What became of the frame.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why it was not inferred.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Why inference failed; empty otherwise.
    #[must_use]
    pub fn message(&self) -> &str {
        text::unpack(&self.header.message)
    }

    /// The boxes. Empty unless the outcome is `ok`.
    #[must_use]
    pub fn detections(&self) -> &[Detection] {
        let bytes = self.header.count as usize * size_of::<Detection>();
        // The length was checked; payloads are 64-byte aligned because the
        // header is. Should a publisher manage to misalign one, it is empty.
        self.sample
            .payload()
            .get(..bytes)
            .and_then(|bytes| bytemuck::try_cast_slice(bytes).ok())
            .unwrap_or(&[])
    }
}
