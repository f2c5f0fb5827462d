//! What can go wrong on the bus.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The instance name or its folder cannot be used.
    #[error("instance {instance:?} cannot use folder {}: {reason}", root.display())]
    Domain {
        /// Instance name.
        instance: String,
        /// Folder of the instances.
        root: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A service could not be opened.
    #[error("cannot open bus service {service}: {reason}")]
    Service {
        /// Service name.
        service: String,
        /// iceoryx2's word.
        reason: String,
    },
    /// The service is not there (yet): no process of the instance has created it.
    #[error(
        "nothing publishes {service} in this instance yet; is `framebus up` running with the same instance and user?"
    )]
    Absent {
        /// Service name.
        service: String,
    },
    /// A publisher or subscriber could not be created.
    #[error("cannot join bus service {service}: {reason}")]
    Port {
        /// Service name.
        service: String,
        /// iceoryx2's word.
        reason: String,
    },
    /// `/dev/shm` cannot hold what is needed.
    #[error(
        "/dev/shm has {available_mib:.1} MiB free, {what} needs {needed_mib:.1} MiB ({samples} x \
         {sample_mib:.2} MiB): mount it larger (Docker: --shm-size) or lower bus.frame_subscribers"
    )]
    Memory {
        /// Which service.
        what: String,
        /// Needed MiB.
        needed_mib: f64,
        /// Samples in it.
        samples: usize,
        /// MiB of one sample.
        sample_mib: f64,
        /// Free MiB.
        available_mib: f64,
    },
    /// All samples are on loan; the frame cannot be taken now.
    #[error("no free sample in {service}: all {limit} loans are in use")]
    NoLoan {
        /// Service name.
        service: String,
        /// How many can be on loan.
        limit: usize,
    },
    /// Sending or receiving failed.
    #[error("bus service {service} failed: {reason}")]
    Transport {
        /// Service name.
        service: String,
        /// iceoryx2's word.
        reason: String,
    },
    /// A header contradicts its payload.
    #[error("bus service {service}: {header}")]
    Header {
        /// Service name.
        service: String,
        /// What was wrong.
        header: BadHeader,
    },
}

/// Why a header from shared memory is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHeader {
    /// Written by another version.
    #[error("header version {found}, this program reads version {expected}")]
    Version {
        /// Version in the header.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// An enumeration has a value this version does not know.
    #[error(transparent)]
    Code(#[from] framebus_types::UnknownCode),
    /// A plane does not lie inside the payload.
    #[error("plane {plane} of a {width}x{height} frame ends at byte {end}, the payload has {len}")]
    Plane {
        /// Plane number.
        plane: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// One past the plane's last byte.
        end: u64,
        /// Bytes in the payload.
        len: usize,
    },
    /// A row does not fit into its stride, or the frame has no pixels.
    #[error("{width}x{height} frame with a stride of {stride} bytes in plane {plane}")]
    Stride {
        /// Plane number.
        plane: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Stride in bytes.
        stride: u32,
    },
    /// More detections than the payload holds.
    #[error("{count} detections and {extra} extra bytes announced, the payload has {len} bytes")]
    Count {
        /// Detections announced.
        count: u32,
        /// Extra bytes announced.
        extra: u32,
        /// Bytes in the payload.
        len: usize,
    },
    /// Camera name missing or of another camera.
    #[error("camera name {found:?} where {expected:?} was expected")]
    Camera {
        /// Name in the header.
        found: String,
        /// Name of the service's camera.
        expected: String,
    },
}
