//! Frames of one camera: loan, fill, publish; receive, check, read.

#![allow(unsafe_code)]

use crate::bus::{full, port, transport};
use crate::header::{BadHeaders, SKIPS_MAX, reject};
use crate::readers::{self, Readers, WaitedFor};
use crate::segments::Segments;
use crate::services::{self, Delivery, ServiceSpec};
use crate::{Bus, BusError, FrameSample, Ipc, memory, wake::Waker};
use framebus_types::FrameHeader;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::port_name::PortName;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::port::{LoanError, ReceiveError};
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::sample_mut_uninit::SampleMutUninit;
use iceoryx2::service::Service;
use iceoryx2::service::port_factory::PortFactory as _;
use iceoryx2::service::port_factory::event::PortFactory as EventFactory;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time between two attempts to reach a reader that has yet to look.
const RESEND: Duration = Duration::from_millis(2);
/// Attempts before a reader that never looks is given up: 5 s.
const RESENDS_MAX: usize = 2500;

/// Publishes the frames of one camera.
///
/// The segment is sized for the first frame and populated before it is used; a
/// larger frame later makes a new one. Usable from several threads.
#[derive(Debug)]
pub struct FramePublisher<S: Service = Ipc> {
    publisher: Publisher<S, [u8], FrameHeader>,
    notifier: Notifier<S>,
    service: PortFactory<S, [u8], FrameHeader>,
    /// The service of the observers' places: it is there as long as the frames are.
    _observers: EventFactory<S>,
    spec: ServiceSpec,
    delivery: Delivery,
    segments: Mutex<Segments>,
    stop: Arc<AtomicBool>,
    contact: Mutex<Contact>,
    waited_for: WaitedFor,
}

/// Who reads, and for how many frames in a row each of them got every one.
#[derive(Debug, Default)]
struct Contact {
    readers: Readers,
    now: Readers,
    delivered: usize,
}

/// A sample on loan: memory in the segment that nobody else writes. Dropping it
/// unsent gives it back.
pub struct FrameLoan<S: Service = Ipc> {
    sample: SampleMutUninit<S, [MaybeUninit<u8>], FrameHeader>,
    /// Number of the segment that it lies in: it stays there when a larger one is made.
    segment: u32,
}

impl<S: Service> std::fmt::Debug for FrameLoan<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameLoan").field("len", &self.sample.payload().len()).finish()
    }
}

impl<S: Service> FrameLoan<S> {
    /// The payload, to be filled. It holds zeros or an older frame.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let payload = self.sample.payload_mut();
        // SAFETY: same address and length; shared memory is always initialised
        // (tmpfs pages are zero or hold an older frame), and u8 has no invalid
        // value.
        unsafe { std::slice::from_raw_parts_mut(payload.as_mut_ptr().cast::<u8>(), payload.len()) }
    }
}

impl<S: Service> Bus<S> {
    /// Opens the frame service of `camera` for frames of `payload` bytes.
    /// With [`Delivery::EveryFrame`] a publisher waits for full readers until
    /// `stop` is set.
    ///
    /// # Errors
    /// [`BusError::Memory`] when /dev/shm cannot hold the samples.
    pub fn frame_publisher(
        &self,
        camera: &str,
        payload: usize,
        delivery: Delivery,
        stop: Arc<AtomicBool>,
    ) -> Result<FramePublisher<S>, BusError> {
        let spec = self.frames_spec(camera, delivery);
        let observers = self.event_service(&services::observers(&spec))?;
        let service = self.service(&spec)?;
        let waited_for = WaitedFor::default();
        // One process at a time: what was found free is still free when it is
        // taken.
        let _turn = memory::turn();
        memory::check(&spec.name, memory::frames(&spec, payload))?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(payload)
            .max_loaned_samples(spec.loans)
            .allocation_strategy(AllocationStrategy::PowerOfTwo)
            .set_backpressure_handler(waited_for.handler(stop.clone()))
            .create()
            .map_err(|error| port(&spec, "publisher", error))?;
        let publisher = FramePublisher {
            publisher,
            notifier: self.notifier(&spec)?,
            _observers: observers,
            service,
            spec,
            delivery,
            segments: Mutex::new(Segments::new(payload)),
            stop,
            contact: Mutex::default(),
            waited_for,
        };
        // The first loan populates the segment: a full /dev/shm is an error now
        // and not a SIGBUS later.
        drop(publisher.loan(payload)?);
        Ok(publisher)
    }

    /// Opens the frame service of `camera` for reading; `reader` names this
    /// reader, see [`FramePublisher::has_reader`].
    ///
    /// # Errors
    /// [`BusError::Service`], [`BusError::Port`].
    pub fn frame_subscriber(
        &self,
        camera: &str,
        delivery: Delivery,
        reader: &str,
    ) -> Result<FrameSubscriber<S>, BusError> {
        let spec = self.frames_spec(camera, delivery);
        let place = Place::Member { _places: self.event_service(&services::observers(&spec))? };
        let service = self.service(&spec)?;
        let name = readers::port_name(reader, false);
        let listener = self.listener(&spec, false)?;
        Self::subscribe(camera, &service, spec, name, listener, place)
    }

    /// Opens the frame service of `camera` with whatever settings its creator
    /// gave it; for readers that do not know the configuration.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created the service, [`BusError::Full`]
    /// when only the place of the inference process is left.
    pub fn join_frames(&self, camera: &str, reader: &str) -> Result<FrameSubscriber<S>, BusError> {
        let spec = self.frames_spec(camera, Delivery::Latest);
        let service = self.existing_service(&spec)?;
        if service.static_config().max_subscribers() < 2 {
            return Err(full(&spec.name));
        }
        let taken = self.listener(&services::observers(&spec), true).map_err(|error| {
            let BusError::Absent { .. } = error else { return error };
            // Made before the frames' service by every version that knows of it.
            let reason = "the instance is of an older framebus version; build this program \
                          with the instance's own";
            BusError::Service { service: spec.name.clone(), reason: reason.to_owned() }
        });
        let place = Place::Observer { _taken: taken? };
        let name = readers::port_name(reader, true);
        let listener = self.listener(&spec, true)?;
        Self::subscribe(camera, &service, spec, name, listener, place)
    }

    fn subscribe(
        camera: &str,
        service: &PortFactory<S, [u8], FrameHeader>,
        mut spec: ServiceSpec,
        name: Option<PortName>,
        listener: Listener<S>,
        place: Place<S>,
    ) -> Result<FrameSubscriber<S>, BusError> {
        // The creator's word, which an observer does not know.
        spec.borrowed = service.static_config().subscriber_max_borrowed_samples();
        let mut builder = service.subscriber_builder();
        if let Some(name) = &name {
            builder = builder.name(name);
        }
        if service.static_config().has_safe_overflow() {
            // Newest only: whatever is older would be dropped by its reader.
            builder = builder.buffer_size(1);
        }
        let subscriber = builder.create().map_err(|error| port(&spec, "subscriber", error))?;
        // A publisher knows only of readers that have looked for it once; what
        // it sends to the others it forgets when their buffer is full.
        let _ = subscriber.update_connections();
        Ok(FrameSubscriber {
            subscriber,
            waker: Waker::new(listener),
            spec,
            camera: camera.to_owned(),
            place,
            bad_headers: BadHeaders::default(),
            last: Mutex::default(),
        })
    }
}

impl<S: Service> FramePublisher<S> {
    /// Borrows a sample of `len` bytes.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when all are in use, [`BusError::Memory`] when the
    /// frame has outgrown the segment and /dev/shm cannot hold a larger one.
    pub fn loan(&self, len: usize) -> Result<FrameLoan<S>, BusError> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.fit(len) {
            return self.loan_from(&mut segments, len, false);
        }
        let _turn = memory::turn();
        let need = memory::grown(memory::frames(&self.spec, len));
        memory::check(&self.spec.name, need)?;
        let loan = self.loan_from(&mut segments, len, true)?;
        let headers = memory::frames(&self.spec, 0).sample_bytes;
        segments.grown(len.max((need.sample_bytes - headers) as usize));
        Ok(loan)
    }

    fn loan_from(
        &self,
        segments: &mut Segments,
        len: usize,
        outgrown: bool,
    ) -> Result<FrameLoan<S>, BusError> {
        let mut sample = self.publisher.loan_slice_uninit(len).map_err(|error| match error {
            LoanError::ExceedsMaxLoans | LoanError::OutOfMemory => {
                BusError::NoLoan { service: self.spec.name.clone(), limit: self.spec.loans }
            }
            other => transport(&self.spec, other),
        })?;
        let address = sample.payload_mut().as_ptr() as usize;
        let segment = segments.locate(address, outgrown).map_err(|reason| {
            memory::not_populated(&self.spec, memory::frames(&self.spec, len), &reason)
        })?;
        Ok(FrameLoan { sample, segment })
    }

    /// Sends a filled sample and wakes the readers; returns how many got it.
    /// [`FrameHeader::segment`] is filled in, whatever `header` says of it. With
    /// [`Delivery::EveryFrame`] this waits for members of the instance whose buffers are
    /// full, and never for observers.
    ///
    /// # Errors
    /// [`BusError::Transport`]; the frame is then lost for some readers.
    pub fn publish(&self, mut loan: FrameLoan<S>, header: &FrameHeader) -> Result<usize, BusError> {
        if self.delivery == Delivery::Latest {
            return self.send(loan, header);
        }
        // A reader opens its end of a connection when it first looks. Until
        // then iceoryx2 drops what does not fit into its buffer instead of
        // waiting. More frames delivered than the buffer holds show that it has
        // looked; before that a copy is kept and sent again. Readers know a
        // repeated frame by its sequence number.
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        let Contact { readers, now, delivered } = &mut *contact;
        now.refresh::<S>(self.service.dynamic_config());
        self.waited_for.set(&now.members);
        if now != readers {
            std::mem::swap(readers, now);
            *delivered = 0;
        }
        if *delivered > self.spec.buffer {
            return self.send(loan, header);
        }
        let copy = loan.payload_mut().to_vec();
        self.waited_for.take_passed_over();
        let mut recipients = self.send(loan, header)?;
        let mut attempts = 0;
        while recipients + self.waited_for.take_passed_over() < readers.total
            && !self.stop.load(Ordering::Relaxed)
        {
            if attempts == RESENDS_MAX {
                tracing::warn!(
                    service = self.spec.name,
                    readers = readers.total,
                    reached = recipients,
                    "a reader never looks; going on without it"
                );
                break;
            }
            attempts += 1;
            std::thread::park_timeout(RESEND);
            match self.loan(copy.len()) {
                Ok(mut again) => {
                    again.payload_mut().copy_from_slice(&copy);
                    recipients = self.send(again, header)?;
                }
                Err(BusError::NoLoan { .. }) => {}
                Err(error) => return Err(error),
            }
            readers.refresh::<S>(self.service.dynamic_config());
            self.waited_for.set(&readers.members);
        }
        *delivered += 1;
        Ok(recipients)
    }

    fn send(&self, mut loan: FrameLoan<S>, header: &FrameHeader) -> Result<usize, BusError> {
        // The loan's own: a frame that is sent again may lie in another one.
        *loan.sample.user_header_mut() = FrameHeader { segment: loan.segment, ..*header };
        // SAFETY: shared memory is always initialised, see `payload_mut`.
        let sample = unsafe { loan.sample.assume_init() };
        let recipients = sample.send().map_err(|error| transport(&self.spec, error))?;
        // A listener that is gone is cleaned up with its process.
        let _ = self.notifier.notify();
        Ok(recipients)
    }

    /// Whether a reader of this name is subscribed. A source that must not lose
    /// a frame waits for the inference process this way.
    #[must_use]
    pub fn has_reader(&self, reader: &str) -> bool {
        let found = readers::has::<S>(self.service.dynamic_config(), reader);
        if found {
            // The next send must reach a reader that has just come.
            let _ = self.publisher.update_connections();
        }
        found
    }

    /// How frames are delivered.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }
}

/// What a reader of frames keeps as long as it reads, see [`services::observers`].
#[derive(Debug)]
enum Place<S: Service> {
    /// The service of the observers' places, which ends with its last owner.
    Member { _places: EventFactory<S> },
    /// The place that this observer has taken.
    Observer { _taken: Listener<S> },
}

/// Receives the frames of one camera.
#[derive(Debug)]
pub struct FrameSubscriber<S: Service = Ipc> {
    subscriber: Subscriber<S, [u8], FrameHeader>,
    waker: Waker<S>,
    spec: ServiceSpec,
    camera: String,
    place: Place<S>,
    bad_headers: BadHeaders,
    /// Epoch and sequence number of the frame before.
    last: Mutex<Option<(u64, u64)>>,
}

impl<S: Service> FrameSubscriber<S> {
    /// The next frame, or `None` when there is none. Frames whose header lies
    /// are counted and skipped.
    ///
    /// # Errors
    /// [`BusError::NoLoan`] when this reader holds as many frames as it may,
    /// [`BusError::Version`] for an observer of another version.
    pub fn receive(&self) -> Result<Option<FrameSample<S>>, BusError> {
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
            match FrameSample::check(sample, &self.camera) {
                Ok(frame) => {
                    self.bad_headers.understood();
                    let name = Some((frame.header().epoch_ns, frame.header().sequence));
                    let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    // Sent again for another reader, see `FramePublisher::publish`.
                    if std::mem::replace(&mut *last, name) != name {
                        return Ok(Some(frame));
                    }
                }
                Err(error) => {
                    let observer = matches!(self.place, Place::Observer { .. });
                    reject(&self.bad_headers, &self.spec.name, observer, &error)?;
                }
            }
        }
        Ok(None)
    }

    /// Frames skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.bad_headers.get()
    }

    /// Frames that this reader may hold at a time.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.spec.borrowed
    }

    /// Sleeps until a frame is there.
    #[must_use]
    pub fn waker(&self) -> &Waker<S> {
        &self.waker
    }

    /// The camera.
    #[must_use]
    pub fn camera(&self) -> &str {
        &self.camera
    }
}
