//! What every process says of itself once a second.

use crate::{VERSION, histogram::BUCKETS};
use bytemuck::{Pod, Zeroable};
use iceoryx2_bb_derive_macros::ZeroCopySend;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

/// Counters of a health record: index into [`Health::counters`].
///
/// They reconcile. Capture: `Captured = Published + LostRate + LostMemory +
/// LostBad`, and `Published = ZeroCopy + Copied`. Inference, per camera: the
/// frames published up to the last one seen = `Taken + Missed`, and `Taken =
/// Ok + Skipped + Superseded + Stale + Failed + frames still waiting`; a result that the
/// bus did not take is missing there and one of `Errors`.
#[repr(usize)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Frames that left the decoder.
    Captured = 0,
    /// Frames sent.
    Published = 1,
    /// Frames whose conversion to NV12 was written straight into shared memory.
    ZeroCopy = 2,
    /// Frames copied into shared memory.
    Copied = 3,
    /// Frames left out by the frame-rate limit.
    LostRate = 4,
    /// Frames lost because no sample could be had.
    LostMemory = 5,
    /// Frames whose layout could not be published.
    LostBad = 6,
    /// Connections after the first.
    Reconnects = 7,
    /// Frames taken from the bus by the inference process.
    Taken = 8,
    /// Frames overwritten on the bus before they were taken.
    Missed = 9,
    /// Results with outcome `ok`.
    Ok = 10,
    /// Results with outcome `skipped`.
    Skipped = 11,
    /// Results `dropped(superseded)` or `dropped(stopping)`.
    Superseded = 12,
    /// Results `dropped(stale)`.
    Stale = 13,
    /// Results with outcome `failed`.
    Failed = 14,
    /// Detections in all results.
    Detections = 15,
    /// Results a sink received.
    Received = 16,
    /// Results a sink lost: on the bus, or because its target could not be written.
    Lost = 17,
    /// Records a sink wrote.
    Written = 18,
    /// Bytes a sink wrote.
    WrittenBytes = 19,
    /// Errors of any kind, each of them logged.
    Errors = 20,
    /// Headers that contradicted their payload.
    BadHeaders = 21,
    /// Restarts of a child process.
    Restarts = 22,
    /// Compressed frames that the idle gate kept from the decoder; not part of
    /// `Captured`.
    Undecoded = 23,
    /// Frames sent with [`FLAG_PICTURE_FAULT`](crate::FLAG_PICTURE_FAULT); part of
    /// `Published`.
    Suspect = 24,
    /// Frames that an inference process had when it died or hung, answered `failed` by
    /// its successor; part of `Failed`.
    Orphaned = 25,
    /// Events that were published.
    Events = 26,
    /// Batches that the engine answered.
    Batches = 27,
}

/// Number of counters in a record, with room for more.
pub const COUNTERS: usize = 32;

/// Stages of a frame: index into [`Health::stages`].
#[repr(usize)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Decoder → sent.
    Capture = 0,
    /// Sent → taken by the inference process.
    Wake = 1,
    /// Taken → in a batch.
    Queue = 2,
    /// In a batch → in the network's input.
    Preprocess = 3,
    /// Network.
    Inference = 4,
    /// Boxes.
    Decode = 5,
    /// Boxes → result sent.
    Publish = 6,
    /// Decoder → result sent.
    Total = 7,
}

impl Stage {
    /// Every stage, in the order of a frame's life.
    pub const ALL: [Self; STAGES] = [
        Self::Capture,
        Self::Wake,
        Self::Queue,
        Self::Preprocess,
        Self::Inference,
        Self::Decode,
        Self::Publish,
        Self::Total,
    ];

    /// Name as printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Wake => "wake",
            Self::Queue => "queue",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
            Self::Decode => "decode",
            Self::Publish => "publish",
            Self::Total => "total",
        }
    }
}

/// Number of stages in a record.
pub const STAGES: usize = 8;

/// Latency histogram of one stage; buckets as in [`histogram`](crate::histogram).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.Histogram.v1")]
pub struct Histogram {
    /// Cumulative counts, wrapping.
    pub counts: [u32; BUCKETS],
    /// Sum of all durations, ns.
    pub sum_ns: u64,
    /// Longest duration since the process started, ns.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// One record of the health service; a sample holds one or more.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.Health.v1")]
pub struct Health {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// [`Role`](crate::Role) code.
    pub role: u32,
    /// Camera, sink or child name, UTF-8, zero padded.
    pub name: [u8; 32],
    /// Process id.
    pub pid: u32,
    /// [`State`](crate::State) code.
    pub state: u32,
    /// Why the state is what it is, UTF-8, zero padded.
    pub reason: [u8; 192],
    /// When the process started, ns since 1970.
    pub started_wall_ns: u64,
    /// When the state was entered, CLOCK_MONOTONIC ns.
    pub state_since_ns: u64,
    /// When this record was written, CLOCK_MONOTONIC ns.
    pub updated_ns: u64,
    /// Capture: size of the last frame; inference: input size of the network.
    pub width: u32,
    /// See `width`.
    pub height: u32,
    /// What does the work, UTF-8, zero padded: decoder, backend and device, sink kind.
    pub detail: [u8; 96],
    /// See [`Counter`].
    pub counters: [u64; COUNTERS],
    /// See [`Stage`].
    pub stages: [Histogram; STAGES],
    /// When the process last did a piece of work, or looked and found none,
    /// CLOCK_MONOTONIC ns; 0 = not yet. A record that is fresh while this grows old
    /// comes from a process that hangs.
    pub progress_ns: u64,
    /// Zero.
    pub reserved: [u8; 56],
}

const _: () = assert!(size_of::<Health>() == 6960 && align_of::<Health>() == 8);

impl Default for Health {
    fn default() -> Self {
        Self { version: VERSION, ..Self::zeroed() }
    }
}

impl Health {
    /// Reads a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}
