//! Counts results per camera while a timer ticks in the same thread, as programs with an
//! asynchronous runtime do: `cargo run --example asynchronous -- demo`. This one is smol's.
#![allow(clippy::print_stdout)] // it is what the example is for

use async_io::{Async, Timer, block_on};
use framebus_client::Client;
use futures_lite::{StreamExt, future};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let instance = std::env::args().nth(1).unwrap_or_else(|| "default".to_owned());
    let client = Client::connect(&instance)?;
    let mut results = client.results()?;
    let descriptor = Async::new_nonblocking(results.as_fd().try_clone_to_owned()?)?;
    let mut ticks = Timer::interval(Duration::from_secs(1));
    let mut counts = BTreeMap::<String, u64>::new();
    block_on(async {
        loop {
            let result =
                async { results.wait_async(async || descriptor.readable().await).await.map(Some) };
            let tick = async { Ok(ticks.next().await.and(None)) };
            match future::or(result, tick).await? {
                Some(result) => *counts.entry(result.camera().to_owned()).or_default() += 1,
                None => {
                    println!("{counts:?}, {} lost, {:?} behind", results.lost(), results.lag());
                }
            }
        }
    })
}
