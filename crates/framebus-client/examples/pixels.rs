//! Touches the pixels, in place: prints the mean brightness of one camera's
//! frames. `cargo run --example pixels -- demo street`
#![allow(clippy::print_stdout)] // it is what the example is for

use framebus_client::{BusError, Client, Fourcc};
use std::time::Duration;

fn main() -> Result<(), BusError> {
    let mut args = std::env::args().skip(1);
    let instance = args.next().unwrap_or_else(|| "default".to_owned());
    let camera = args.next().unwrap_or_else(|| "front".to_owned());
    let client = Client::connect(&instance)?;
    let mut frames = client.frames(&camera)?;
    loop {
        let Some(frame) = frames.wait_for(Duration::from_secs(1))? else {
            continue;
        };
        let header = frame.header();
        let (samples, stride) = frame.plane(0); // luma of NV12, or RGB triples
        let row = header.width as usize * if frame.fourcc() == Fourcc::Nv12 { 1 } else { 3 };
        let sum: u64 = samples.chunks(stride).flat_map(|r| &r[..row]).map(|&v| u64::from(v)).sum();
        let mean = sum as f64 / (row as f64 * f64::from(header.height));
        println!("{camera} #{} mean {mean:.1}, {} lost", header.sequence, frames.lost());
    }
}
