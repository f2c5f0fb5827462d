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
    /// The folder could not be made or read.
    #[error("cannot make or read {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody removed files of the running instance.
    #[error(
        "{} was removed while the instance ran (by a cleaner of temporary files, or by logind \
         at the end of a session: RemoveIPC=no); the instance must start again", path.display()
    )]
    Vanished {
        /// The file or folder that is gone.
        path: PathBuf,
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
    /// The place where bus files lie is full.
    #[error(
        "{} has {free_kib} KiB and {files} files free, joining the bus needs {needed_kib} KiB: \
         make room there or mount it larger", path.display()
    )]
    NoRoom {
        /// Which one.
        path: PathBuf,
        /// Free KiB.
        free_kib: u64,
        /// Files that can still be made.
        files: u64,
        /// Needed KiB.
        needed_kib: u64,
    },
    /// All places for readers are taken.
    #[error(
        "{service} has as many readers as it has room for: end one (a `framebus tap`, a \
         subscriber), or raise bus.{key} and restart the instance"
    )]
    Full {
        /// Service name.
        service: String,
        /// Key of `[bus]` that gives the number.
        key: &'static str,
    },
    /// All samples are on loan; the frame cannot be taken now.
    #[error(
        "{service}: all {limit} samples that this process may have at a time are in use; give one back first"
    )]
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
    /// The instance's processes are of another version than this reader.
    #[error(
        "{service} carries header version {found}, this program reads version {expected}: build \
         it with the framebus of the instance's own version"
    )]
    Version {
        /// Service name.
        service: String,
        /// Version in the header.
        found: u32,
        /// Version of this program.
        expected: u32,
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
    /// A part of a packet contradicts its header.
    #[error(
        "part at byte {offset} of a {total} byte packet with {config} bytes of configuration, \
         the payload has {len}"
    )]
    Packet {
        /// Where the part begins.
        offset: u32,
        /// Bytes of the packet.
        total: u32,
        /// Bytes of configuration in front.
        config: u32,
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
