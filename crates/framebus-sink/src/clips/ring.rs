//! The last seconds of one camera's video, in memory.

use framebus_client::Packet;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most memory for one camera: a minute of 8 Mbit/s. Beyond it the oldest group of pictures
/// goes, whatever `before_s` says.
pub(crate) const RING_BYTES: usize = 64 << 20;
/// Kept beyond `before_s`: an event comes later than its frame. ns.
const SLACK_NS: u64 = 3_000_000_000;

/// When a packet is shown, on the stream's clock; by its arrival where the stream has none.
pub(crate) fn shown_ns(packet: &Packet) -> u64 {
    let header = &packet.header;
    if header.pts_ns == u64::MAX { header.capture_ns } else { header.pts_ns }
}

/// Whether `next` goes on where `last` ended: nothing is missing between them, and they
/// belong into one file.
pub(crate) fn goes_on(last: &Packet, next: &Packet) -> bool {
    let (one, other) = (&last.header, &next.header);
    let decoded = |packet: &Packet| match packet.header.dts_ns {
        u64::MAX => None,
        dts_ns => Some(dts_ns),
    };
    let ahead = match (decoded(last), decoded(next)) {
        (Some(before), Some(after)) => before <= after,
        _ => true,
    };
    other.epoch_ns == one.epoch_ns
        && other.sequence == one.sequence + 1
        && other.flags & framebus_types::PACKET_DISCONTINUITY == 0
        && ahead
}

/// Packets from a key frame on, without gaps.
#[derive(Debug)]
pub(crate) struct Ring {
    packets: VecDeque<Arc<Packet>>,
    bytes: usize,
    before_ns: u64,
    max_bytes: usize,
    /// The bound in bytes has taken something that `before_s` would have kept.
    pub(crate) too_small: bool,
}

impl Ring {
    pub(crate) fn new(before_ns: u64) -> Self {
        Self::with_bound(before_ns, RING_BYTES)
    }

    fn with_bound(before_ns: u64, max_bytes: usize) -> Self {
        Self { packets: VecDeque::new(), bytes: 0, before_ns, max_bytes, too_small: false }
    }

    /// Forgets everything: what comes does not go on from it.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.bytes = 0;
    }

    /// Takes a packet that goes on from the last one. Whether it was kept: nothing is before
    /// the first key frame.
    pub(crate) fn push(&mut self, packet: &Arc<Packet>) -> bool {
        if self.packets.is_empty() && !packet.header.is_key() {
            return false;
        }
        self.bytes += packet.bytes.len();
        self.packets.push_back(packet.clone());
        let newest_ns = shown_ns(packet);
        loop {
            // The first group goes when the second one reaches back far enough.
            let next = self.packets.iter().skip(1).position(|packet| packet.header.is_key());
            let Some(next) = next.map(|index| index + 1) else { break };
            let reach_ns = newest_ns.saturating_sub(shown_ns(&self.packets[next]));
            let enough = reach_ns >= self.before_ns + SLACK_NS;
            if !enough && self.bytes <= self.max_bytes {
                break;
            }
            self.too_small |= reach_ns < self.before_ns;
            let gone: usize = self.packets.drain(..next).map(|packet| packet.bytes.len()).sum();
            self.bytes -= gone;
        }
        if self.bytes > self.max_bytes && self.packets.len() > 1 {
            // One group of pictures alone is too large; nothing in it can be left out.
            self.too_small = true;
            self.clear();
            return false;
        }
        true
    }

    /// Packets from the last key frame on that is not shown after `from_ns`, or else from
    /// the first one.
    pub(crate) fn from(&self, from_ns: u64) -> impl Iterator<Item = &Arc<Packet>> {
        let start = self
            .packets
            .iter()
            .rposition(|packet| packet.header.is_key() && shown_ns(packet) <= from_ns);
        self.packets.iter().skip(start.unwrap_or(0))
    }

    /// When on the stream's clock something was captured at `capture_ns`: with the newest
    /// packet that had come by then.
    pub(crate) fn shown_at(&self, capture_ns: u64) -> Option<u64> {
        let come = self.packets.iter().rev().find(|packet| packet.header.capture_ns <= capture_ns);
        come.or_else(|| self.packets.front()).map(|packet| shown_ns(packet))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use framebus_client::{Codec, PacketHeader};
    use framebus_types::PACKET_KEY;

    const MS: u64 = 1_000_000;

    /// A packet of 100 bytes, 10 a second, every fifth one a key frame.
    pub(crate) fn packet(number: u64) -> Arc<Packet> {
        let key = number.is_multiple_of(5);
        Arc::new(Packet {
            header: PacketHeader {
                sequence: number,
                pts_ns: number * 100 * MS,
                dts_ns: number * 100 * MS,
                capture_ns: (number + 7) * 100 * MS,
                flags: if key { PACKET_KEY } else { 0 },
                config_len: if key { 4 } else { 0 },
                width: 64,
                height: 48,
                ..PacketHeader::default()
            },
            codec: Codec::H264,
            bytes: vec![number as u8; 100],
        })
    }

    fn numbers<'a>(packets: impl Iterator<Item = &'a Arc<Packet>>) -> Vec<u64> {
        packets.map(|packet| packet.header.sequence).collect()
    }

    #[test]
    fn it_begins_with_a_key_frame_and_reaches_back_far_enough() {
        let mut ring = Ring::new(1000 * MS);
        assert!(!ring.push(&packet(3)), "nothing before a key frame");
        (5..100).for_each(|number| assert!(ring.push(&packet(number))));
        // 9.9 s less one second and the slack is 5.9 s; the key frame before is 5.5 s.
        assert_eq!(numbers(ring.from(0)).first(), Some(&55));
        assert_eq!(numbers(ring.from(8720 * MS)), (85..100).collect::<Vec<_>>());
        assert_eq!(ring.shown_at(9_250 * MS), Some(8_500 * MS));
        assert_eq!(ring.shown_at(0), Some(5_500 * MS), "before all of it");
        assert!(!ring.too_small);
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut ring = Ring::with_bound(60_000 * MS, 1250);
        for number in 0..40 {
            ring.push(&packet(number));
        }
        assert_eq!(numbers(ring.from(0)), (30..40).collect::<Vec<_>>());
        assert!(ring.too_small && ring.bytes == 1000);
        let mut tiny = Ring::with_bound(0, 250);
        assert!(tiny.push(&packet(0)) && tiny.push(&packet(1)));
        assert!(!tiny.push(&packet(2)), "a group that alone is too large");
        assert_eq!((tiny.bytes, tiny.packets.len()), (0, 0));
    }

    #[test]
    fn gaps_and_new_beginnings_do_not_go_on() {
        let changed = |change: fn(&mut PacketHeader)| {
            let mut next = (*packet(8)).clone();
            change(&mut next.header);
            goes_on(&packet(7), &next)
        };
        assert!(changed(|_| {}));
        assert!(!changed(|h| h.sequence = 9));
        assert!(!changed(|h| h.epoch_ns = 1));
        assert!(!changed(|h| h.dts_ns = 0));
        assert!(!changed(|h| h.flags |= framebus_types::PACKET_DISCONTINUITY));
        // A B frame is shown before the one that came before it.
        assert!(changed(|h| h.pts_ns -= 200 * MS));
    }
}
