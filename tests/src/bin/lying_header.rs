//! Publishes frames and results whose headers lie, an honest one after each.

use framebus_bus::{Delivery, FramePublisher};
use framebus_tests::crash::{CAMERA, end, header, join, publish, say_and_stay};
use framebus_types::{FrameHeader, Outcome, ResultHeader, text};
use std::process::ExitCode;
use std::sync::Arc;

type Lie = fn(&mut FrameHeader);

const LIES: [Lie; 10] = [
    |h| h.version = 0,
    |h| h.camera = text::pack("other"),
    |h| h.camera = [0xff; 32],
    |h| h.fourcc = u32::MAX,
    |h| h.width = u32::MAX,
    |h| (h.width, h.height) = (0, 0),
    |h| h.height *= 2,
    |h| h.strides = [u32::MAX; 4],
    |h| h.offsets = [u32::MAX; 4],
    |h| h.chroma_site = 77,
];

fn main() -> ExitCode {
    end(lie())
}

fn lie() -> anyhow::Result<()> {
    let bus = join("lying_header")?;
    let (_, bytes) = header(64, 32, 0);
    let frames = bus.frame_publisher(CAMERA, bytes, Delivery::EveryFrame, Arc::default())?;
    let results = bus.result_publisher(Arc::default())?;
    for (number, lie) in LIES.iter().enumerate() {
        let sequence = number as u64;
        garbage(&frames, *lie, sequence)?;
        publish(&frames, 64, 32, sequence)?;
        let honest = ResultHeader {
            outcome: Outcome::Ok.into(),
            camera: text::pack(CAMERA),
            sequence,
            ..ResultHeader::default()
        };
        results.publish(&ResultHeader { outcome: 99, ..honest }, &[])?;
        results.publish(&ResultHeader { version: 7, ..honest }, &[])?;
        results.publish(&honest, &[])?;
    }
    say_and_stay(&format!("lied {}", LIES.len()))
}

fn garbage(publisher: &FramePublisher, lie: Lie, sequence: u64) -> anyhow::Result<()> {
    let (mut header, bytes) = header(64, 32, sequence);
    lie(&mut header);
    publisher.publish(publisher.loan(bytes)?, &header)?;
    Ok(())
}
