//! Reads frames until it holds as many as it may, and stays: killed with
//! SIGKILL, it leaves them behind.

use framebus_bus::BusError;
use framebus_tests::crash::{CAMERA, end, join, say_and_stay};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    end(hold())
}

fn hold() -> anyhow::Result<()> {
    let bus = join("hold_sample")?;
    let subscriber = bus.join_frames(CAMERA, "holder")?;
    let mut held = Vec::new();
    loop {
        let _woken = subscriber.waker().wait(Duration::from_secs(1))?;
        match subscriber.receive() {
            Ok(Some(frame)) => held.push(frame),
            Ok(None) => {}
            Err(BusError::NoLoan { .. }) => say_and_stay(&format!("holding {}", held.len())),
            Err(error) => return Err(error.into()),
        }
    }
}
