//! What cutting the head off and camera-shaped inputs bring, on this machine.
//!
//! Runs the network alone, as exported and cut, in short interleaved blocks: machines
//! that share their cores with others change speed from second to second, so only the
//! columns of one run compare.
//!
//! ```text
//! cargo run --release -p framebus-engine --example engine_speed -- MODEL.onnx [ROUNDS [f32|bf16]]
//! ```
#![allow(clippy::print_stdout, reason = "a program for people")]

use framebus_engine::{Context, InputShape, LoadOptions, Mode, Precision, Shape, backend};
use framebus_model::Model;
use std::error::Error;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Long enough for some tens of inferences, short against changes of the machine.
const BLOCK_NS: u64 = 400_000_000;

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// One row of the table.
struct Case {
    name: String,
    load_ms: f64,
    contexts: Vec<Box<dyn Context>>,
    blocks: Vec<Block>,
}

#[derive(Clone, Copy)]
struct Block {
    fps: f64,
    ms: f64,
}

fn case(
    model: &Model,
    shape: Shape,
    as_is: bool,
    options: &LoadOptions,
) -> Result<Case, Box<dyn Error>> {
    let options = LoadOptions { input: InputShape::Fixed(shape), as_is, ..options.clone() };
    let start = now_ns();
    let mut engine = backend("openvino")?.load(model, &options)?;
    let load_ms = (now_ns() - start) as f64 / 1e6;
    let info = engine.info();
    let mode = if options.mode == Mode::Latency { "latency" } else { "throughput" };
    let name = format!(
        "{} {shape} {:?} {mode} x{}",
        if as_is { "as exported" } else { "cut" },
        info.precision,
        info.contexts
    );
    Ok(Case { name, load_ms, contexts: engine.contexts(shape)?, blocks: Vec::new() })
}

/// Runs every case `rounds` times in turn. Each context keeps its thread, as workers do:
/// a thread's first inference is slower.
fn measure(cases: &mut [Case], rounds: usize) {
    let gates: Vec<(Barrier, AtomicBool, AtomicU64, AtomicU64)> = cases
        .iter()
        .map(|case| {
            let gate = Barrier::new(case.contexts.len() + 1);
            (gate, AtomicBool::new(true), AtomicU64::new(0), AtomicU64::new(0))
        })
        .collect();
    std::thread::scope(|scope| {
        for (case, (gate, going, runs, busy_ns)) in cases.iter_mut().zip(&gates) {
            for mut context in case.contexts.drain(..) {
                scope.spawn(move || {
                    loop {
                        gate.wait();
                        if !going.load(Ordering::Acquire) {
                            return;
                        }
                        let end = now_ns() + BLOCK_NS;
                        loop {
                            let start = now_ns();
                            if context.infer_only().is_err() {
                                break;
                            }
                            let stop = now_ns();
                            runs.fetch_add(1, Ordering::Relaxed);
                            busy_ns.fetch_add(stop - start, Ordering::Relaxed);
                            if stop >= end {
                                break;
                            }
                        }
                        gate.wait();
                    }
                });
            }
        }
        // The first round warms the threads up.
        for round in 0..=rounds {
            for (case, (gate, _, runs, busy_ns)) in cases.iter_mut().zip(&gates) {
                let start = now_ns();
                gate.wait();
                gate.wait();
                let seconds = (now_ns() - start) as f64 / 1e9;
                let runs = runs.swap(0, Ordering::Relaxed) as f64;
                let busy_ms = busy_ns.swap(0, Ordering::Relaxed) as f64 / 1e6;
                if round > 0 {
                    case.blocks.push(Block { fps: runs / seconds, ms: busy_ms / runs });
                }
            }
        }
        for (gate, going, ..) in &gates {
            going.store(false, Ordering::Release);
            gate.wait();
        }
    });
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give the path of an ONNX model")?;
    let rounds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let precision = match arguments.next().as_deref() {
        Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        _ => Precision::Auto,
    };
    let model = Model::open(&path)?;
    let (height, width) = model.size().unwrap_or((640, 640));
    let own = Shape { height, width };
    let wide = Shape { height: 384, width: 640 };
    let mut cases = Vec::new();
    for mode in [Mode::Latency, Mode::Throughput] {
        let options = LoadOptions { precision, mode, ..LoadOptions::new(now_ns) };
        cases.push(case(&model, own, true, &options)?);
        cases.push(case(&model, own, false, &options)?);
        cases.push(case(&model, wide, false, &options)?);
    }
    measure(&mut cases, rounds);
    println!(
        "{:44} {:>8} {:>9} {:>8} {:>9} {:>8} {:>7}",
        "network alone", "load ms", "median ms", "least ms", "median /s", "most /s", "ratio"
    );
    let first: Vec<f64> =
        cases.iter().take(1).flat_map(|c| c.blocks.iter().map(|b| b.fps)).collect();
    for case in &cases {
        let (fps, ms) = (case.blocks.iter().map(|b| b.fps), case.blocks.iter().map(|b| b.ms));
        println!(
            "{:44} {:8.0} {:9.2} {:8.2} {:9.1} {:8.1} {:7.2}",
            case.name,
            case.load_ms,
            median(ms.clone()),
            ms.fold(f64::INFINITY, f64::min),
            median(fps.clone()),
            fps.clone().fold(0.0, f64::max),
            median(fps.zip(&first).map(|(fps, first)| fps / first)),
        );
    }
    println!("ratio: frames a second over the first row's, median of {rounds} rounds");
    Ok(())
}
