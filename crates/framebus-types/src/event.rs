//! Something that happened in a camera's picture.

use crate::{VERSION, text};
use bytemuck::{Pod, Zeroable};
use iceoryx2_bb_derive_macros::ZeroCopySend;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

/// An event: payload of the `events` service.
///
/// `camera`, `epoch_ns`, `sequence` and `index` name it; a recording that is replayed gives
/// the same ones again.
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.Event.v1")]
pub struct Event {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// [`EventKind`](crate::EventKind) code.
    pub kind: u32,
    /// Class number of the model.
    pub class: u32,
    /// Of a crossing: [`Direction`](crate::Direction) code; else 0.
    pub direction: u32,
    /// Camera name, UTF-8, zero padded.
    pub camera: [u8; 32],
    /// Name of the zone or line, UTF-8, zero padded; empty when it is about neither.
    pub place: [u8; 32],
    /// Class name, UTF-8, zero padded, cut at 40 bytes.
    pub label: [u8; 40],
    /// Counts the events of the publisher without gaps: a reader sees what it lost.
    pub event_sequence: u64,
    /// Start of the publisher, wall clock, ns since 1970: `event_sequence` counts from 0
    /// within it, and track numbers from 1.
    pub event_epoch_ns: u64,
    /// The frame's epoch.
    pub epoch_ns: u64,
    /// The frame's sequence number.
    pub sequence: u64,
    /// Capture time of the frame, CLOCK_MONOTONIC ns.
    pub capture_ns: u64,
    /// Capture time by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Track number of the camera.
    pub track: u64,
    /// How long the object has been there: in the zone for `leave` and `dwell`, in the
    /// picture otherwise, ns.
    pub age_ns: u64,
    /// Where it is, or was last: left, top, right, bottom in pixels of the frame.
    pub bbox: [f32; 4],
    /// Its last confidence, 0..=1.
    pub score: f32,
    /// Counts the events of one frame from 0.
    pub index: u32,
    /// Frame width in pixels.
    pub width: u32,
    /// Frame height in pixels.
    pub height: u32,
    /// Zero.
    pub reserved: [u8; 40],
}

const _: () = assert!(size_of::<Event>() == 256 && align_of::<Event>() == 64);

impl Default for Event {
    fn default() -> Self {
        Self { version: VERSION, ..Self::zeroed() }
    }
}

impl Event {
    /// Camera name.
    #[must_use]
    pub fn camera(&self) -> &str {
        text::unpack(&self.camera)
    }

    /// Name of the zone or line; empty when it is about neither.
    #[must_use]
    pub fn place(&self) -> &str {
        text::unpack(&self.place)
    }

    /// Class name.
    #[must_use]
    pub fn label(&self) -> &str {
        text::unpack(&self.label)
    }

    /// Its name: the same for the same event of the same frames, whoever computes it.
    #[must_use]
    pub fn id(&self) -> String {
        let Self { epoch_ns, sequence, index, .. } = self;
        format!("{}-{epoch_ns:x}-{sequence}-{index}", self.camera())
    }
}
