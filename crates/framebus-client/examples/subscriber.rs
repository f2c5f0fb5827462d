//! Prints every detection of an instance: `cargo run --example subscriber -- demo`.
#![allow(clippy::print_stdout)] // it is what the example is for

use framebus_client::{BusError, Client};

fn main() -> Result<(), BusError> {
    let instance = std::env::args().nth(1).unwrap_or_else(|| "default".to_owned());
    let client = Client::connect(&instance)?;
    let mut results = client.results()?;
    loop {
        let result = results.wait()?;
        for found in result.detections() {
            println!("{} {} {:.2} {:?}", result.camera(), found.label(), found.score, found.bbox);
        }
    }
}
