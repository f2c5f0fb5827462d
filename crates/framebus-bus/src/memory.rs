//! How much shared memory the bus takes, before it takes it: exact for the
//! samples, an upper bound for the bookkeeping beside them.

use crate::BusError;
use crate::services::ServiceSpec;
use framebus_types::{FrameHeader, PacketHeader, ResultHeader};
use rustix::fs::{FlockOperation, flock, statvfs};
use std::path::Path;

/// iceoryx2's own header in front of each sample, bytes (0.10.0).
const SAMPLE_HEADER: usize = 48;
/// Bookkeeping beside the data: connections, free lists, service files. Measured
/// 10-16 KiB per connection; this covers a full set of subscribers.
const BOOKKEEPING_PER_CONNECTION: u64 = 24 * 1024;
/// What is left free for whoever else uses /dev/shm.
pub const MARGIN: u64 = 1024 * 1024;

const MIB: f64 = 1024.0 * 1024.0;

/// Memory of one publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Samples in the data segment.
    pub samples: usize,
    /// Bytes of one sample with its headers.
    pub sample_bytes: u64,
    /// Data segment plus bookkeeping.
    pub total_bytes: u64,
}

impl Need {
    /// `total_bytes` in MiB.
    #[must_use]
    pub fn total_mib(&self) -> f64 {
        self.total_bytes as f64 / MIB
    }
}

/// Bytes that a frame of this size takes: NV12, rows as GStreamer lays them out
/// (4-byte aligned strides).
#[must_use]
pub fn nv12_bytes(width: usize, height: usize) -> usize {
    let stride = width.next_multiple_of(4);
    stride * height.next_multiple_of(2) + stride * height.div_ceil(2)
}

/// Memory for frames of `payload` bytes.
#[must_use]
pub fn frames(spec: &ServiceSpec, payload: usize) -> Need {
    need(spec, payload, size_of::<FrameHeader>(), align_of::<FrameHeader>())
}

/// Memory for packets.
#[must_use]
pub fn packets(spec: &ServiceSpec) -> Need {
    let (header, align) = (size_of::<PacketHeader>(), align_of::<PacketHeader>());
    need(spec, crate::services::PACKET_PART, header, align)
}

/// Memory for results of at most `max_detections`.
#[must_use]
pub fn results(spec: &ServiceSpec, max_detections: usize) -> Need {
    let payload = max_detections.max(1) * size_of::<framebus_types::Detection>();
    need(spec, payload, size_of::<ResultHeader>(), align_of::<ResultHeader>())
}

/// Memory for events.
#[must_use]
pub fn events(spec: &ServiceSpec) -> Need {
    let payload = crate::services::EVENTS_OF_SAMPLE * size_of::<framebus_types::Event>();
    need(spec, payload, 0, align_of::<framebus_types::Event>())
}

/// Memory for one health publisher with `records` records.
#[must_use]
pub fn health(spec: &ServiceSpec, records: usize) -> Need {
    need(spec, records.max(1) * size_of::<framebus_types::Health>(), 0, 8)
}

/// samples = subscribers x (buffer + borrowed) + loans; each one holds
/// iceoryx2's header, ours and the payload, aligned to ours.
fn need(spec: &ServiceSpec, payload: usize, header: usize, align: usize) -> Need {
    let samples = spec.max_subscribers * (spec.buffer + spec.borrowed) + spec.loans;
    let bytes = (SAMPLE_HEADER.next_multiple_of(align) + header + payload).next_multiple_of(align);
    let bookkeeping = BOOKKEEPING_PER_CONNECTION * (spec.max_subscribers as u64 + 1);
    Need {
        samples,
        sample_bytes: bytes as u64,
        total_bytes: samples as u64 * bytes as u64 + bookkeeping,
    }
}

/// Memory of the segment that a grown payload gets: iceoryx2's `PowerOfTwo`
/// strategy rounds the sample up. (It would raise their number too if all were
/// in use, which a loan never sees: they are as many as can ever be in use.)
#[must_use]
pub fn grown(need: Need) -> Need {
    let sample_bytes = need.sample_bytes.next_power_of_two();
    Need { sample_bytes, total_bytes: sample_bytes * need.samples as u64, ..need }
}

/// One process's turn to find out what is free in /dev/shm and to take it.
/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Option<std::fs::File>);

/// Waits for the turn, for some seconds at most: a lock is advice, and somebody
/// who holds it for ever must not keep cameras from starting.
pub(crate) fn turn() -> Turn {
    const STEP: std::time::Duration = std::time::Duration::from_millis(10);
    const STEPS: usize = 500;
    let Ok(folder) = std::fs::File::open("/dev/shm") else { return Turn(None) };
    for _ in 0..STEPS {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Turn(Some(folder)),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::park_timeout(STEP),
            Err(_) => break,
        }
    }
    Turn(None)
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = flock(folder, FlockOperation::Unlock);
        }
    }
}

/// What joining takes: service files and sockets in the one place, bookkeeping in the
/// other.
const ROOM: u64 = 64 * 1024;

/// Refuses a place that is full, before iceoryx2 fails there in its own words.
pub(crate) fn check_room(path: &Path) -> Result<(), BusError> {
    // A place that cannot be asked will say itself what is wrong with it.
    let Ok(stat) = statvfs(path) else { return Ok(()) };
    let free = stat.f_bavail * stat.f_frsize;
    // Some file systems do not count files and say 0 of 0.
    let no_files = stat.f_files > 0 && stat.f_favail == 0;
    if free >= ROOM && !no_files {
        return Ok(());
    }
    Err(BusError::NoRoom {
        path: path.to_owned(),
        free_kib: free / 1024,
        files: stat.f_favail,
        needed_kib: ROOM / 1024,
    })
}

/// Free bytes in /dev/shm.
///
/// # Errors
/// [`BusError::Transport`] when /dev/shm cannot be asked.
pub fn available() -> Result<u64, BusError> {
    let stat = statvfs("/dev/shm").map_err(|error| BusError::Transport {
        service: "/dev/shm".to_owned(),
        reason: format!("statvfs: {error}"),
    })?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Refuses what does not fit into /dev/shm.
///
/// # Errors
/// [`BusError::Memory`] names needed, available and what to change.
pub fn check(what: &str, need: Need) -> Result<(), BusError> {
    check_against(what, need, available()?)
}

pub(crate) fn check_against(what: &str, need: Need, available: u64) -> Result<(), BusError> {
    if need.total_bytes + MARGIN <= available {
        return Ok(());
    }
    Err(refusal(what, need, available))
}

/// The segment is there, but its pages are not.
pub(crate) fn not_populated(spec: &ServiceSpec, need: Need, reason: &str) -> BusError {
    tracing::debug!(service = spec.name, reason, "MADV_POPULATE_WRITE");
    refusal(&spec.name, need, available().unwrap_or(0))
}

fn refusal(what: &str, need: Need, available: u64) -> BusError {
    BusError::Memory {
        what: what.to_owned(),
        needed_mib: (need.total_bytes + MARGIN) as f64 / MIB,
        samples: need.samples,
        sample_mib: need.sample_bytes as f64 / MIB,
        available_mib: available as f64 / MIB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{self, Delivery, Limits};

    #[test]
    fn a_1080p_camera_with_the_default_limits() {
        let spec = services::frames(&Limits::default(), "a", Delivery::Latest);
        let need = frames(&spec, nv12_bytes(1920, 1080));
        assert_eq!(need.samples, 2 * 5 + 4);
        assert_eq!(need.sample_bytes, 64 + 192 + 3_110_400);
        assert!((41.0..42.5).contains(&need.total_mib()), "{}", need.total_mib());
    }

    #[test]
    fn refusal_names_both_sides() {
        let need = Need { samples: 2, sample_bytes: 1 << 20, total_bytes: 2 << 20 };
        assert!(check_against("frames/a", need, 3 << 20).is_ok());
        let error = check_against("frames/a", need, (3 << 20) - 1).expect_err("one byte short");
        assert_eq!(
            error.to_string(),
            "/dev/shm has 3.0 MiB free, frames/a needs 3.0 MiB (2 x 1.00 MiB): mount it larger (Docker: --shm-size) or lower bus.frame_subscribers"
        );
    }
}
