//! Publishes frames, results and health as one camera's processes do, in
//! whatever /dev/shm it finds; frames grow once. Ends with 69 when the memory
//! is refused.

use framebus_bus::{Bus, Delivery};
use framebus_tests::crash::{CAMERA, end, header, join, publish};
use framebus_types::{Health, Outcome, ResultHeader, Role, State, text};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    end(fill())
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn fill() -> anyhow::Result<()> {
    let bus: Bus = join("full_shm")?;
    let health = bus.health_publisher(3)?;
    let results = bus.result_publisher(Arc::default())?;
    let (_, bytes) = header(320, 180, 0);
    let frames = bus.frame_publisher(CAMERA, bytes, Delivery::Latest, Arc::default())?;
    let subscriber = bus.join_frames(CAMERA, "reader")?;
    println!("started");
    let record = Health {
        role: Role::Capture.into(),
        state: State::Live.into(),
        name: text::pack(CAMERA),
        ..Health::default()
    };
    for sequence in 0..100 {
        // Half-way the camera changes to nine times the pixels.
        let (width, height) = if sequence < 50 { (320, 180) } else { (960, 540) };
        publish(&frames, width, height, sequence)?;
        let frame = subscriber.receive()?;
        let frame = frame.ok_or_else(|| anyhow::anyhow!("frame {sequence} did not come"))?;
        anyhow::ensure!(frame.plane(1).0.iter().all(|&b| b == sequence as u8), "torn {sequence}");
        let header = ResultHeader {
            outcome: Outcome::Ok.into(),
            camera: text::pack(CAMERA),
            sequence,
            ..ResultHeader::default()
        };
        results.publish(&header, &[])?;
        health.publish(&[record; 3])?;
    }
    println!("done");
    Ok(())
}
