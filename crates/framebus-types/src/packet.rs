//! The header in front of every part of a compressed frame.

use crate::VERSION;
use bytemuck::{Pod, Zeroable};
use iceoryx2_bb_derive_macros::ZeroCopySend;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

/// Flag: decoding can begin here; the codec's configuration stands in front.
pub const PACKET_KEY: u32 = 1;
/// Flag: packets before this one are missing, or time stamps begin anew (reconnect).
pub const PACKET_DISCONTINUITY: u32 = 1 << 1;

/// User header of a camera's `[u8]` packet service.
///
/// A packet is one compressed frame as the camera sent it. Samples have one small size, so
/// that a large key frame does not decide what all of them take: a packet travels in one
/// or more *parts*, in order, each with this header and with `part_offset` of its own.
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.PacketHeader.v1")]
pub struct PacketHeader {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// [`Codec`](crate::Codec) code.
    pub codec: u32,
    /// Camera name, UTF-8, zero padded.
    pub camera: [u8; 32],
    /// Start of the capture process, wall clock, ns since 1970; equals that of its frames.
    pub epoch_ns: u64,
    /// Counts packets from 0 within an epoch without gaps at the publisher.
    pub sequence: u64,
    /// When the packet came out of the parser, in front of the decoder, CLOCK_MONOTONIC ns.
    pub capture_ns: u64,
    /// The same moment by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Presentation time in the stream, ns, equal to `pts_ns` of the frame that is decoded
    /// from it; `u64::MAX` when it has none.
    pub pts_ns: u64,
    /// Decoding time in the stream, ns; `u64::MAX` when it has none.
    pub dts_ns: u64,
    /// How long it is shown, ns; 0 = not known.
    pub duration_ns: u64,
    /// `PACKET_*` bits.
    pub flags: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes of configuration in front of a key frame: the payload of the `avcC` or `hvcC`
    /// box (ISO/IEC 14496-15).
    pub config_len: u32,
    /// Bytes of the whole packet: configuration, then NAL units, each behind its length.
    pub total_len: u32,
    /// Where this part lies in the packet.
    pub part_offset: u32,
    /// Zero.
    pub reserved: [u8; 72],
}

const _: () = assert!(size_of::<PacketHeader>() == 192 && align_of::<PacketHeader>() == 64);

impl Default for PacketHeader {
    fn default() -> Self {
        Self { version: VERSION, pts_ns: u64::MAX, dts_ns: u64::MAX, ..Self::zeroed() }
    }
}

impl PacketHeader {
    /// Whether decoding can begin here.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.flags & PACKET_KEY != 0
    }
}
