//! Read framebus results, and frames if you want them, from your own process.
//!
//! ```no_run
//! use framebus_client::Client;
//! # fn main() -> Result<(), framebus_client::BusError> {
//! let client = Client::connect("default")?;
//! let mut results = client.results()?;
//! loop {
//!     let result = results.wait()?;
//!     for found in result.detections() {
//!         println!("{} {} {:.2} {:?}", result.camera(), found.label(), found.score, found.bbox);
//!     }
//! }
//! # }
//! ```
//!
//! A reader runs as the same user as the instance and never holds anyone up: a
//! slow one loses its own oldest results ([`Results::lost`] counts them). What
//! it receives is a sample in shared memory, mapped read-only, that is given
//! back when it is dropped; a reader may hold two results and four frames of a
//! camera at a time.
//!
//! Three ways to wait: blocking (`wait`, `wait_for`), never (`poll`), and in any
//! asynchronous runtime ([`Results::wait_async`], or [`Results::as_fd`] for a loop of
//! your own).
//!
//! [`Results::as_fd`]: std::os::fd::AsFd::as_fd

mod events;
mod frames;
pub mod health;
mod joined;
pub mod json;
mod lag;
#[cfg(feature = "picture")]
pub mod picture;
mod results;
mod wait;

pub use events::Events;
pub use framebus_bus::{BusError, FrameSample, Packet, PacketSubscriber, ResultSample};
pub use framebus_types::{
    Codec, Detection, Direction, Event, EventKind, Fourcc, FrameHeader, Outcome, PacketHeader,
    Reason, ResultHeader, Stage,
};
pub use frames::Frames;
pub use joined::Joined;
pub use results::Results;

use framebus_bus::{Bus, Domain, Limits};
use std::path::Path;

/// A connection to an instance.
#[derive(Debug)]
pub struct Client {
    bus: Bus,
}

impl Client {
    /// Connects to an instance of this user in the default folder.
    ///
    /// # Errors
    /// [`BusError::Absent`] when the instance does not run, [`BusError::Domain`]
    /// for a name that is none, [`BusError::Port`] when the bus cannot be joined.
    pub fn connect(instance: &str) -> Result<Self, BusError> {
        Self::connect_in(instance, &Domain::default_root())
    }

    /// Connects to an instance whose configuration sets `bus.root`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_in(instance: &str, root: &Path) -> Result<Self, BusError> {
        let domain = Domain::new(instance, root, Limits::default())?;
        // Joining would make the folder, and nobody would remove it.
        if !domain.folder().is_dir() {
            return Err(BusError::Absent { service: format!("instance {instance}") });
        }
        Ok(Self { bus: Bus::open(&domain, "client")? })
    }

    /// Subscribes to the results of all cameras, from now on.
    ///
    /// # Errors
    /// [`BusError::Absent`] while the instance does not run.
    pub fn results(&self) -> Result<Results, BusError> {
        Ok(Results::new(self.bus.join_results("client")?))
    }

    /// Subscribes to the events of all cameras, from now on.
    ///
    /// # Errors
    /// [`BusError::Absent`] while the instance does not run.
    pub fn events(&self) -> Result<Events, BusError> {
        Ok(Events::new(self.bus.join_events("client")?))
    }

    /// Subscribes to the frames of one camera, from now on.
    ///
    /// # Errors
    /// [`BusError::Absent`] while the instance does not run or has no such camera.
    pub fn frames(&self, camera: &str) -> Result<Frames, BusError> {
        Ok(Frames::new(self.bus.join_frames(camera, "client")?))
    }

    /// Subscribes to one camera's frames together with their results.
    ///
    /// # Errors
    /// As [`frames`](Self::frames) and [`results`](Self::results).
    pub fn joined(&self, camera: &str) -> Result<Joined, BusError> {
        Ok(Joined::new(self.frames(camera)?, self.results()?))
    }

    /// Subscribes to the compressed video of one camera, from now on. It is there while a
    /// `clips` sink wants it.
    ///
    /// # Errors
    /// [`BusError::Absent`] while nothing wants it, or the instance does not run.
    pub fn packets(&self, camera: &str) -> Result<PacketSubscriber, BusError> {
        self.bus.join_packets(camera, "client")
    }
}
