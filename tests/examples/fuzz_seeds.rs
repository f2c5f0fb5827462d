//! Writes the seeds of a fuzz target into a folder: `fuzz_seeds TARGET FOLDER`.

use anyhow::Context;
use framebus_tests::fuzz::TARGETS;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (name, folder) = (arguments.next(), arguments.next());
    let target = TARGETS.iter().find(|target| Some(target.name) == name.as_deref());
    let target = target.context("usage: fuzz_seeds config|headers|ledger|onnx|url FOLDER")?;
    let folder = PathBuf::from(folder.context("a folder is missing")?);
    std::fs::create_dir_all(&folder)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}
