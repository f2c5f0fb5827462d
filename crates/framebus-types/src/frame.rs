//! The header in front of every frame.

use crate::VERSION;
use bytemuck::{Pod, Zeroable};
use iceoryx2_bb_derive_macros::ZeroCopySend;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

/// Planes a frame can have at most.
pub const MAX_PLANES: usize = 4;

/// Flag: frames before this one are missing (reconnect, seek, lost packets).
pub const FLAG_DISCONTINUITY: u32 = 1;
/// Flag: something moves, or moved within the camera's hold time.
pub const FLAG_MOTION: u32 = 1 << 1;
/// Flag: the picture is suspect; set together with one or more of the flags that say why.
pub const FLAG_PICTURE_FAULT: u32 = 1 << 2;
/// Flag: the frame was compared with the scene before it. Without this flag a missing
/// [`FLAG_MOTION`] says nothing.
pub const FLAG_MOTION_MEASURED: u32 = 1 << 3;
/// Picture fault: the same picture comes again and again.
pub const FLAG_FROZEN: u32 = 1 << 4;
/// Picture fault: black, white or of one colour.
pub const FLAG_UNIFORM: u32 = 1 << 5;
/// Picture fault: the decoder reported errors, or the picture has the green areas that
/// missing data leave.
pub const FLAG_CORRUPT: u32 = 1 << 6;
/// Picture fault: much less detail than the camera used to show (covered, fogged, out
/// of focus).
pub const FLAG_BLURRED: u32 = 1 << 7;
/// Picture fault: the stream's time stamps jumped.
pub const FLAG_TIME_JUMP: u32 = 1 << 8;
/// Picture fault: frames arrive later than their time stamps say, and ever more so.
pub const FLAG_LATE: u32 = 1 << 9;

/// All flags that say why a picture is suspect, with the word for each.
pub const PICTURE_FAULTS: [(u32, &str); 6] = [
    (FLAG_FROZEN, "frozen"),
    (FLAG_UNIFORM, "uniform"),
    (FLAG_CORRUPT, "corrupt"),
    (FLAG_BLURRED, "blurred"),
    (FLAG_TIME_JUMP, "time jump"),
    (FLAG_LATE, "late"),
];

/// User header of a camera's `[u8]` frame service.
///
/// Aligned to 64 bytes with a size that is a multiple of 64, so that the pixels
/// behind it are 64-byte aligned too without iceoryx2 padding each element.
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.FrameHeader.v1")]
pub struct FrameHeader {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// `FLAG_*` bits.
    pub flags: u32,
    /// Camera name, UTF-8, zero padded.
    pub camera: [u8; 32],
    /// Start of the capture process, wall clock, ns since 1970. `(camera, epoch, sequence)` is unique.
    pub epoch_ns: u64,
    /// Counts from 0 within an epoch without gaps at the publisher: a reader sees what it lost.
    pub sequence: u64,
    /// When the buffer left the decoder, CLOCK_MONOTONIC ns.
    pub capture_ns: u64,
    /// The same moment by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Presentation time in the stream, ns; `u64::MAX` when it has none.
    pub pts_ns: u64,
    /// Just before the sample was sent, CLOCK_MONOTONIC ns.
    pub publish_ns: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// [`Fourcc`](crate::Fourcc) code.
    pub fourcc: u32,
    /// [`ColourMatrix`](crate::ColourMatrix) code.
    pub matrix: u32,
    /// [`ColourRange`](crate::ColourRange) code.
    pub range: u32,
    /// [`ChromaSite`](crate::ChromaSite) code.
    pub chroma_site: u32,
    /// Bytes from one row to the next, per plane.
    pub strides: [u32; MAX_PLANES],
    /// First byte of each plane in the payload.
    pub offsets: [u32; MAX_PLANES],
    /// Share of the picture that moved, 0..=1; 0 when not measured.
    pub motion: f32,
    /// Number of the publisher's shared-memory segment that the sample lies in, from 1;
    /// 0: the publisher does not say. It counts up whenever the publisher may have made
    /// another segment, and is never used twice. These bytes were reserved once: an older
    /// publisher writes 0.
    pub segment: u32,
    /// Zero.
    pub reserved: [u8; 40],
}

const _: () = assert!(size_of::<FrameHeader>() == 192 && align_of::<FrameHeader>() == 64);

impl Default for FrameHeader {
    fn default() -> Self {
        Self { version: VERSION, pts_ns: u64::MAX, ..Self::zeroed() }
    }
}
