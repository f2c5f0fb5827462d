//! The shared-memory bus: the only crate that knows iceoryx2.
//!
//! A [`Bus`] is one process's view of an instance (its [`Domain`]). It hands out
//! publishers and subscribers for the services of [`services`]: frames and compressed
//! packets (one service per camera), results, events and health (one each per instance).
//! Beside each lies an event service, so that readers sleep until something is
//! there.
//!
//! ```no_run
//! use framebus_bus::{Bus, Domain, Limits};
//! # fn main() -> Result<(), framebus_bus::BusError> {
//! let domain = Domain::new("default", &Domain::default_root(), Limits::default())?;
//! let bus: Bus = Bus::open(&domain, "example")?;
//! let results = bus.result_subscriber("example")?;
//! while let Some(result) = results.receive()? {
//!     println!("{} {}", result.camera(), result.detections().len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What a reader gets from shared memory is validated before it is handed out:
//! headers are copied once, checked against their payload and only then trusted.
//! One that lies is counted and skipped.

mod bus;
mod descriptor;
mod domain;
mod error;
mod events;
mod files;
mod frames;
pub mod header;
mod health;
pub mod memory;
mod packets;
mod populate;
mod pubsub;
mod readers;
mod results;
mod sample;
mod segments;
pub mod services;
pub mod wake;

pub use bus::{Bus, Cleaned};
pub use domain::Domain;
pub use error::{BadHeader, BusError};
pub use events::{EventPublisher, EventSubscriber};
pub use frames::{FrameLoan, FramePublisher, FrameSubscriber};
pub use health::{HealthPublisher, HealthSubscriber};
pub use packets::{Packet, PacketPublisher, PacketSubscriber};
pub use results::{ResultPublisher, ResultSample, ResultSubscriber};
pub use sample::FrameSample;
pub use segments::SegmentId;
pub use services::{Delivery, Limits};
pub use wake::Waker;

/// The transport between processes. `Send` ports, unlike `ipc::Service`.
pub type Ipc = iceoryx2::prelude::ipc_threadsafe::Service;
/// The same API inside one process, for conformance tests.
pub type Local = iceoryx2::prelude::local_threadsafe::Service;
