//! What the programs that crash on purpose have in common.

use framebus_bus::{Bus, BusError, Domain, FramePublisher, Limits};
use framebus_types::{Fourcc, FrameHeader, text};
use std::path::Path;
use std::process::ExitCode;

/// Camera of the crash tests.
pub const CAMERA: &str = "cam";

/// Limits of the crash tests: few places, so that one that is not given back
/// is missed.
#[must_use]
pub fn limits() -> Limits {
    Limits { frame_subscribers: 2, ..Limits::default() }
}

/// Joins the instance that the first two arguments name: folder and instance.
///
/// # Errors
/// As the bus says; also for missing arguments.
pub fn join(process: &str) -> anyhow::Result<Bus> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(instance)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: {process} ROOT INSTANCE …");
    };
    Ok(Bus::open(&Domain::new(&instance, Path::new(&root), limits())?, process)?)
}

/// Header and payload size of an NV12 frame.
#[must_use]
pub fn header(width: u32, height: u32, sequence: u64) -> (FrameHeader, usize) {
    let header = FrameHeader {
        camera: text::pack(CAMERA),
        sequence,
        width,
        height,
        fourcc: Fourcc::Nv12.into(),
        strides: [width, width, 0, 0],
        offsets: [0, width * height, 0, 0],
        ..FrameHeader::default()
    };
    (header, (width * height * 3 / 2) as usize)
}

/// Publishes a frame whose every byte is the low byte of its sequence number.
///
/// # Errors
/// As the bus says.
pub fn publish(
    publisher: &FramePublisher,
    width: u32,
    height: u32,
    sequence: u64,
) -> Result<usize, BusError> {
    let (header, bytes) = header(width, height, sequence);
    let mut loan = publisher.loan(bytes)?;
    loan.payload_mut().fill(sequence as u8);
    publisher.publish(loan, &header)
}

/// Says what the parent waits for, and stays until killed.
#[allow(clippy::print_stdout, reason = "the parent reads it")]
pub fn say_and_stay(word: &str) -> ! {
    println!("{word}");
    loop {
        std::thread::park();
    }
}

/// 0, or 69 with the error on standard error: 69 alone means a clean refusal.
#[allow(clippy::print_stderr, reason = "the parent reads it")]
#[must_use]
pub fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            let refused = matches!(
                error.downcast_ref(),
                Some(BusError::Memory { .. } | BusError::NoRoom { .. })
            );
            ExitCode::from(if refused { 69 } else { 70 })
        }
    }
}
