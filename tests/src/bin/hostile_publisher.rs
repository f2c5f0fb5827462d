//! A process of the same user that sends garbage beside the instance's own: frames of a
//! camera, results and health, until it is killed.

use framebus_bus::{Delivery, FramePublisher};
use framebus_tests::crash::{CAMERA, end, header, join};
use framebus_types::{Detection, FrameHeader, Health, Outcome, ResultHeader, text};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

type Lie = fn(&mut FrameHeader);

/// Headers that contradict their payload, or that no camera would send.
const LIES: [Lie; 12] = [
    |h| h.version = 0,
    |h| h.camera = [0xff; 32],
    |h| h.fourcc = 1,
    |h| (h.width, h.height) = (u32::MAX, u32::MAX),
    |h| (h.width, h.height) = (0, 0),
    |h| h.strides = [u32::MAX; 4],
    |h| h.strides = [0; 4],
    |h| h.offsets = [u32::MAX; 4],
    |h| h.matrix = 99,
    |h| h.chroma_site = u32::MAX,
    // These two are pictures.
    |h| (h.width, h.height, h.motion) = (1, 1, f32::NAN),
    |h| {
        (h.sequence, h.epoch_ns, h.capture_ns) = (u64::MAX, u64::MAX, u64::MAX);
        (h.wall_ns, h.pts_ns, h.publish_ns, h.flags) = (u64::MAX, 0, 0, u32::MAX);
    },
];

fn main() -> ExitCode {
    end(lie())
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
#[allow(clippy::disallowed_methods, reason = "a flood at a known rate")]
fn lie() -> anyhow::Result<()> {
    let bus = join("hostile_publisher")?;
    let (_, bytes) = header(64, 32, 0);
    let frames = bus.frame_publisher(CAMERA, bytes, Delivery::Latest, Arc::default())?;
    let results = bus.result_publisher(Arc::default())?;
    let health = bus.health_publisher(2)?;
    println!("lying");
    for round in 0.. {
        for lie in LIES {
            garbage(&frames, lie, round)?;
        }
        let result = ResultHeader {
            outcome: Outcome::Ok.into(),
            camera: [0xff; 32],
            message: [b'x'; 128],
            sequence: u64::MAX,
            result_sequence: if round % 2 == 0 { u64::MAX } else { 0 },
            ..ResultHeader::default()
        };
        let detection = Detection {
            bbox: [f32::NAN, f32::INFINITY, -1e38, 1e38],
            score: f32::NAN,
            class: u32::MAX,
            label: *b"\x1b[2Jxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            ..Detection::default()
        };
        results.publish(&result, &[detection])?;
        results.publish(&ResultHeader { outcome: 99, ..result }, &[])?;
        results.publish(&ResultHeader { version: 7, ..result }, &[])?;
        let record = Health {
            role: 3,
            state: 4,
            name: text::pack(&format!("liar{}", round % 100)),
            reason: [b'\x1b'; 192],
            counters: [u64::MAX; framebus_types::COUNTERS],
            updated_ns: if round % 2 == 0 { u64::MAX } else { 0 },
            progress_ns: u64::MAX,
            ..Health::default()
        };
        health.publish(&[record, Health { role: 77, ..record }])?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn garbage(publisher: &FramePublisher, lie: Lie, sequence: u64) -> anyhow::Result<()> {
    let (mut header, bytes) = header(64, 32, sequence);
    lie(&mut header);
    publisher.publish(publisher.loan(bytes)?, &header)?;
    Ok(())
}
