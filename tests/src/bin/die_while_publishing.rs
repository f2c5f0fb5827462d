//! Publishes as fast as it can until killed; with a fourth argument it stays
//! with a half-written loan instead.

use framebus_bus::Delivery;
use framebus_tests::crash::{CAMERA, end, header, join, publish, say_and_stay};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    end(die())
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn die() -> anyhow::Result<()> {
    let bus = join("die_while_publishing")?;
    let (_, bytes) = header(320, 180, 0);
    let publisher = bus.frame_publisher(CAMERA, bytes, Delivery::Latest, Arc::default())?;
    if std::env::args().nth(3).is_some() {
        let mut loan = publisher.loan(bytes)?;
        loan.payload_mut()[..bytes / 2].fill(1);
        say_and_stay("loaned");
    }
    println!("publishing");
    for sequence in 0.. {
        publish(&publisher, 320, 180, sequence)?;
    }
    Ok(())
}
