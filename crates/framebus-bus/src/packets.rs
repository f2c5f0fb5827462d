//! Compressed frames of one camera, in parts.

use crate::bus::{port, transport};
use crate::header::{BadHeaders, SKIPS_MAX, check_packet};
use crate::services::{self, PACKET_MAX, PACKET_PART, ServiceSpec};
use crate::{BadHeader, Bus, BusError, Ipc, memory, populate::populate, readers, wake::Waker};
use framebus_types::{Codec, PacketHeader};
use iceoryx2::port::ReceiveError;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::port_name::PortName;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::AllocationStrategy;
use iceoryx2::service::Service;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

/// Publishes the packets of one camera.
#[derive(Debug)]
pub struct PacketPublisher<S: Service = Ipc> {
    publisher: Publisher<S, [u8], PacketHeader>,
    notifier: Notifier<S>,
    spec: ServiceSpec,
}

impl<S: Service> Bus<S> {
    /// Opens the packet service of `camera` for publishing.
    ///
    /// # Errors
    /// [`BusError::Memory`] when /dev/shm cannot hold the samples.
    pub fn packet_publisher(&self, camera: &str) -> Result<PacketPublisher<S>, BusError> {
        let spec = services::packets(self.domain.limits(), camera);
        let need = memory::packets(&spec);
        let service = self.service(&spec)?;
        let _turn = memory::turn();
        memory::check(&spec.name, need)?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(PACKET_PART)
            .max_loaned_samples(spec.loans)
            .allocation_strategy(AllocationStrategy::Static)
            .create()
            .map_err(|error| port(&spec, "publisher", error))?;
        let mut first = publisher.loan_slice_uninit(1).map_err(|error| transport(&spec, error))?;
        populate(first.payload_mut().as_ptr() as usize)
            .map_err(|reason| memory::not_populated(&spec, need, &reason))?;
        drop(first);
        Ok(PacketPublisher { publisher, notifier: self.notifier(&spec)?, spec })
    }

    /// Opens the packet service of `camera` for reading, creating it when this reader is
    /// the first.
    ///
    /// # Errors
    /// [`BusError::Service`], [`BusError::Port`]; [`BusError::Full`] when it has as many
    /// readers as it has room for.
    pub fn packet_subscriber(
        &self,
        camera: &str,
        reader: &str,
    ) -> Result<PacketSubscriber<S>, BusError> {
        let spec = services::packets(self.domain.limits(), camera);
        let service = self.service(&spec)?;
        let listener = self.listener(&spec, false)?;
        let name = readers::port_name(reader, false);
        Self::subscribe_packets(camera, &service, spec, name, listener)
    }

    /// Opens the packet service of `camera` with whatever settings its creator gave it; for
    /// readers that do not know the configuration.
    ///
    /// # Errors
    /// [`BusError::Absent`] while no process has created the service.
    pub fn join_packets(
        &self,
        camera: &str,
        reader: &str,
    ) -> Result<PacketSubscriber<S>, BusError> {
        let spec = services::packets(self.domain.limits(), camera);
        let service = self.existing_service(&spec)?;
        let listener = self.listener(&spec, true)?;
        let name = readers::port_name(reader, true);
        Self::subscribe_packets(camera, &service, spec, name, listener)
    }

    fn subscribe_packets(
        camera: &str,
        service: &PortFactory<S, [u8], PacketHeader>,
        spec: ServiceSpec,
        name: Option<PortName>,
        listener: Listener<S>,
    ) -> Result<PacketSubscriber<S>, BusError> {
        let mut builder = service.subscriber_builder();
        if let Some(name) = &name {
            builder = builder.name(name);
        }
        let subscriber = builder.create().map_err(|error| port(&spec, "subscriber", error))?;
        // As for frames: be known before the first packet is sent.
        let _ = subscriber.update_connections();
        Ok(PacketSubscriber {
            subscriber,
            waker: Waker::new(listener),
            spec,
            camera: camera.to_owned(),
            bad_headers: BadHeaders::default(),
            unfinished: None,
            last: None,
            lost: 0,
        })
    }
}

impl<S: Service> PacketPublisher<S> {
    /// Sends one packet and wakes the readers. `config` stands in front of `data` and is
    /// empty but for key frames; lengths and offset of `header` are filled in.
    ///
    /// # Errors
    /// [`BusError::Header`] for a packet that is empty or larger than
    /// [`PACKET_MAX`], [`BusError::Transport`].
    pub fn publish(
        &self,
        header: &PacketHeader,
        config: &[u8],
        data: &[u8],
    ) -> Result<(), BusError> {
        let total = config.len() + data.len();
        let config_len = u32::try_from(config.len()).unwrap_or(u32::MAX);
        if data.is_empty() || total > PACKET_MAX {
            let total = u32::try_from(total).unwrap_or(u32::MAX);
            let header =
                BadHeader::Packet { offset: 0, total, config: config_len, len: data.len() };
            return Err(BusError::Header { service: self.spec.name.clone(), header });
        }
        let mut offset = 0;
        while offset < total {
            let len = (total - offset).min(PACKET_PART);
            let failed = |error| transport(&self.spec, error);
            let mut sample = self.publisher.loan_slice_uninit(len).map_err(failed)?;
            *sample.user_header_mut() = PacketHeader {
                config_len,
                total_len: total as u32,
                part_offset: offset as u32,
                ..*header
            };
            let byte = |at: usize| match config.get(at) {
                Some(byte) => *byte,
                None => data[at - config.len()],
            };
            let sample = if offset >= config.len() {
                let start = offset - config.len();
                sample.write_from_slice(&data[start..start + len])
            } else {
                sample.write_from_fn(|at| byte(offset + at))
            };
            sample.send().map_err(|error| transport(&self.spec, error))?;
            offset += len;
        }
        let _ = self.notifier.notify();
        Ok(())
    }
}

/// One compressed frame, put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The header of its first part.
    pub header: PacketHeader,
    /// How it is compressed.
    pub codec: Codec,
    /// Configuration, then NAL units, each behind its length.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// The codec's configuration: payload of an `avcC` or `hvcC` box. Empty but for key
    /// frames.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        // Checked when it was received.
        &self.bytes[..self.header.config_len as usize]
    }

    /// NAL units, each behind its length.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.header.config_len as usize..]
    }
}

/// Receives the packets of one camera.
#[derive(Debug)]
pub struct PacketSubscriber<S: Service = Ipc> {
    subscriber: Subscriber<S, [u8], PacketHeader>,
    waker: Waker<S>,
    spec: ServiceSpec,
    camera: String,
    bad_headers: BadHeaders,
    /// A packet of which parts are missing.
    unfinished: Option<Packet>,
    /// Epoch and sequence number of the packet before.
    last: Option<(u64, u64)>,
    lost: u64,
}

impl<S: Service> PacketSubscriber<S> {
    /// The next whole packet, or `None` when there is none. Parts whose header lies are
    /// counted and skipped; a packet that misses a part is lost, which shows in the
    /// sequence number of the next one.
    ///
    /// # Errors
    /// [`BusError::Transport`].
    pub fn receive(&mut self) -> Result<Option<Packet>, BusError> {
        let mut skips = 0;
        while skips < SKIPS_MAX {
            let sample = self.subscriber.receive().map_err(|error| match error {
                ReceiveError::ExceedsMaxBorrows => {
                    BusError::NoLoan { service: self.spec.name.clone(), limit: self.spec.borrowed }
                }
                other @ ReceiveError::ConnectionFailure(_) => transport(&self.spec, other),
            })?;
            let Some(sample) = sample else { return Ok(None) };
            let header = *sample.user_header();
            match check_packet(&header, sample.payload().len(), &self.camera) {
                Ok(codec) => {
                    if let Some(packet) = self.put_together(header, codec, sample.payload()) {
                        self.count_lost(&packet.header);
                        return Ok(Some(packet));
                    }
                }
                Err(error) => {
                    skips += 1;
                    self.bad_headers.count(&self.spec.name, &error);
                }
            }
        }
        Ok(None)
    }

    /// Adds a part; returns the packet when it was the last one.
    fn put_together(&mut self, header: PacketHeader, codec: Codec, part: &[u8]) -> Option<Packet> {
        if header.part_offset == 0 {
            let mut bytes = Vec::with_capacity(header.total_len as usize);
            bytes.extend_from_slice(part);
            self.unfinished = Some(Packet { header, codec, bytes });
        } else {
            let packet = self.unfinished.as_mut()?;
            let next = packet.bytes.len() as u32;
            // Everything else is as in the first part, or it is another packet's.
            if header != (PacketHeader { part_offset: next, ..packet.header }) {
                self.unfinished = None;
                return None;
            }
            packet.bytes.extend_from_slice(part);
        }
        self.unfinished.take_if(|p| p.bytes.len() == p.header.total_len as usize)
    }

    fn count_lost(&mut self, header: &PacketHeader) {
        if let Some((epoch, last)) = self.last
            && epoch == header.epoch_ns
        {
            let lost = header.sequence.saturating_sub(last).saturating_sub(1);
            self.lost = self.lost.saturating_add(lost);
        }
        self.last = Some((header.epoch_ns, header.sequence));
    }

    /// Packets that were overwritten before this reader took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Parts skipped because their header contradicted their payload.
    #[must_use]
    pub fn bad_headers(&self) -> u64 {
        self.bad_headers.get()
    }

    /// Sleeps until a packet is there.
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
