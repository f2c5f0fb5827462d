//! Packets are put together again, whole or not at all.

use framebus_bus::services::{PACKET_MAX, PACKET_PART};
use framebus_bus::{Bus, BusError, Domain, Ipc, Limits, Local, Packet, PacketSubscriber};
use framebus_types::{Codec, PACKET_KEY, PacketHeader, text};
use iceoryx2::service::Service;

fn header(sequence: u64) -> PacketHeader {
    PacketHeader {
        camera: text::pack("a"),
        codec: Codec::H264.into(),
        epoch_ns: 1,
        sequence,
        ..PacketHeader::default()
    }
}

/// Bytes that differ from place to place and packet to packet.
fn bytes(len: usize, sequence: u64) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at * 3) as u8 ^ sequence as u8).collect()
}

fn received<S: Service>(packets: &mut PacketSubscriber<S>) -> Vec<Packet> {
    std::iter::from_fn(|| packets.receive().expect("the bus works")).collect()
}

fn whole_or_not_at_all<S: Service>(name: &str) {
    let root = tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("temp dir");
    let name = format!("{name}{}", std::process::id());
    let domain = Domain::new(&name, root.path(), Limits::default()).expect("valid");
    let bus: Bus<S> = Bus::open(&domain, "packets").expect("opens");
    let mut first = bus.packet_subscriber("a", "first").expect("a reader");
    let publisher = bus.packet_publisher("a").expect("a publisher");
    let mut observer = bus.join_packets("a", "observer").expect("another one");
    let full = bus.packet_subscriber("a", "third").expect_err("no room for a third");
    assert!(matches!(full, BusError::Full { key: "frame_subscribers", .. }), "{full}");

    // Shorter and longer than a part, and just as long; a configuration across two parts.
    let lengths = [1, PACKET_PART - 1, PACKET_PART, PACKET_PART + 1, 5 * PACKET_PART + 9];
    for (sequence, len) in (0..).zip(lengths) {
        publisher.publish(&header(sequence), &[], &bytes(len, sequence)).expect("sent");
    }
    let key = PacketHeader { flags: PACKET_KEY, ..header(5) };
    let config = bytes(PACKET_PART + 100, 99);
    publisher.publish(&key, &config, &bytes(300_000, 5)).expect("sent");
    for reader in [&mut first, &mut observer] {
        let got = received(reader);
        let sequences: Vec<u64> = got.iter().map(|packet| packet.header.sequence).collect();
        assert_eq!(sequences, [0, 1, 2, 3, 4, 5]);
        for (packet, len) in got.iter().zip(lengths) {
            assert_eq!(packet.data(), bytes(len, packet.header.sequence));
            assert!(packet.config().is_empty());
        }
        assert_eq!(got[5].config(), config);
        assert_eq!(got[5].data(), bytes(300_000, 5));
        assert_eq!(reader.lost(), 0);
    }

    // More than fits: the oldest go, and none of which a part is missing comes.
    for sequence in 6..106 {
        publisher.publish(&header(sequence), &[], &bytes(3 * PACKET_PART, sequence)).expect("sent");
    }
    let got = received(&mut first);
    assert!((80..86).contains(&got.len()), "{} packets of 256 parts", got.len());
    for packet in &got {
        assert_eq!(packet.data(), bytes(3 * PACKET_PART, packet.header.sequence));
    }
    assert_eq!(first.lost(), 100 - got.len() as u64);
    assert_eq!(got.last().map(|packet| packet.header.sequence), Some(105));

    let error = publisher.publish(&header(106), &[], &vec![0; PACKET_MAX + 1]).expect_err("large");
    assert!(matches!(error, BusError::Header { .. }), "{error}");
    publisher.publish(&header(106), &[], &[]).expect_err("empty");
    publisher.publish(&PacketHeader { version: 9, ..header(107) }, &[], &[1]).expect("sent");
    publisher.publish(&PacketHeader { flags: PACKET_KEY, ..header(108) }, &[], &[1]).expect("sent");
    publisher.publish(&header(109), &[], &[1]).expect("sent");
    assert_eq!(received(&mut first).len(), 1);
    assert_eq!(first.bad_headers(), 2);
    drop((first, observer, publisher, bus));
    let left = domain.remove_leftovers().expect("removable");
    assert!(left.iter().all(|name| name.to_string_lossy().contains("_node.")), "{left:?}");
}

#[test]
fn between_processes() {
    whole_or_not_at_all::<Ipc>("packetsipc");
}

#[test]
fn inside_one_process() {
    whole_or_not_at_all::<Local>("packetslocal");
}
