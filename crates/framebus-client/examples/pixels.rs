//! Touches the pixels, in place: prints the mean brightness of one camera's frames, and
//! what was found in them. `cargo run --example pixels -- demo street`
#![allow(clippy::print_stdout)] // it is what the example is for

use framebus_client::{BusError, Client, Fourcc};

fn main() -> Result<(), BusError> {
    let mut args = std::env::args().skip(1);
    let instance = args.next().unwrap_or_else(|| "default".to_owned());
    let camera = args.next().unwrap_or_else(|| "front".to_owned());
    let client = Client::connect(&instance)?;
    let mut pairs = client.joined(&camera)?;
    loop {
        let (frame, result) = pairs.wait()?;
        let (samples, stride) = frame.plane(0); // luma of NV12, or RGB triples
        let bytes = if frame.fourcc() == Fourcc::Nv12 { 1 } else { 3 };
        let row = frame.header().width as usize * bytes;
        let sum: u64 = samples.chunks(stride).flat_map(|r| &r[..row]).map(|&v| u64::from(v)).sum();
        let mean = sum as f64 / (row as f64 * f64::from(frame.header().height));
        let labels: Vec<&str> = result.detections().iter().map(|found| found.label()).collect();
        let (number, lost) = (frame.header().sequence, pairs.frames().lost());
        println!("{camera} #{number} mean {mean:.1} [{}], {lost} lost", labels.join(","));
    }
}
