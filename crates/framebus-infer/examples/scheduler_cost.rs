//! What bus and scheduler cost the inference process per frame, over an engine that
//! answers at once: CPU time of the whole process over the frames that it answered.
//!
//! The total frame rate is the same for every number of cameras; cameras and a reader
//! of results run in a child process, so that their cost is apart.
//!
//! ```text
//! cargo run --release -p framebus-infer --example scheduler_cost -- --cameras 1,8,64 --rounds 5
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use clap::Parser;
use common::{LIVE, Pipeline, Played, World};
use framebus_bus::Limits;
use framebus_service::{Shutdown, clock};
use framebus_types::Counter;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

#[derive(Parser)]
struct Args {
    /// Numbers of cameras to compare.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    cameras: Vec<usize>,
    /// Frames per second of all cameras together.
    #[arg(long, default_value_t = 640)]
    rate: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measurements of each number of cameras, interleaved; the least is reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Execution contexts of the engine.
    #[arg(long, default_value_t = 2)]
    contexts: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Internal: the child that plays the cameras of this instance.
    #[arg(long, hide = true)]
    feed: Option<String>,
    /// Internal: the folder of that instance.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
}

/// One measurement.
struct Cost {
    cameras: usize,
    frames: u64,
    frames_per_s: f64,
    cpu_us_per_frame: f64,
}

#[allow(clippy::print_stdout, reason = "the table is the program's output")]
fn main() {
    let args = Args::parse();
    if let (Some(instance), Some(root)) = (&args.feed, &args.root) {
        return feed(&args, &World::join(instance, root, Limits::default()));
    }
    let mut costs: Vec<Vec<Cost>> = args.cameras.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds.max(1) {
        for (costs, &cameras) in costs.iter_mut().zip(&args.cameras) {
            costs.push(measure(&args, cameras));
        }
    }
    let least = |costs: &Vec<Cost>| {
        let all = costs.iter().map(|cost| cost.cpu_us_per_frame);
        let mut all: Vec<f64> = all.collect();
        all.sort_by(f64::total_cmp);
        (all[0], all[all.len() / 2])
    };
    if args.json {
        let row = |costs: &Vec<Cost>| {
            serde_json::json!({
                "cameras": costs[0].cameras,
                "frames": costs.iter().map(|cost| cost.frames).sum::<u64>(),
                "frames_per_s": costs[0].frames_per_s,
                "cpu_us_per_frame_min": least(costs).0,
                "cpu_us_per_frame_p50": least(costs).1,
            })
        };
        println!("{}", serde_json::json!({ "rows": costs.iter().map(row).collect::<Vec<_>>() }));
        return;
    }
    println!("cameras  frames/s  CPU us/frame (least)  (median)");
    for costs in &costs {
        let (min, median) = least(costs);
        let Cost { cameras, frames_per_s, .. } = costs[0];
        println!("{cameras:>7}  {frames_per_s:>8.0}  {min:>20.1}  {median:>8.1}");
    }
}

fn measure(args: &Args, cameras: usize) -> Cost {
    let world = World::new(Limits::default());
    let engine = Played { contexts: args.contexts, ..Played::new(|_, _, _| Ok(())) };
    let names: Vec<String> = (0..cameras).map(|number| format!("cam{number}")).collect();
    let sources: Vec<_> = names.iter().map(|name| (name.as_str(), LIVE)).collect();
    let pipeline = world.start(engine, &sources);
    let (instance, root) = world.name();
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(program)
        .args(["--feed", &instance, "--root"])
        .arg(root)
        .args(["--cameras", &cameras.to_string(), "--rate", &args.rate.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let patience = Shutdown::new();
    common::until(|| answered(&pipeline) > args.rate);
    let (frames, cpu_ns, begin_ns) = (answered(&pipeline), cpu_ns(), clock::monotonic_ns());
    let _ = patience.wait(Duration::from_secs(args.seconds));
    let frames = answered(&pipeline) - frames;
    let cpu_ns = self::cpu_ns() - cpu_ns;
    let wall_s = (clock::monotonic_ns() - begin_ns) as f64 / 1e9;
    // The child stops when its standard input closes.
    drop(child.stdin.take());
    child.wait().expect("the child ends");
    drop(pipeline);
    Cost {
        cameras,
        frames,
        frames_per_s: frames as f64 / wall_s,
        cpu_us_per_frame: cpu_ns as f64 / 1000.0 / frames.max(1) as f64,
    }
}

fn answered(pipeline: &Pipeline) -> u64 {
    pipeline.vitals.iter().map(|vitals| vitals.get(Counter::Ok)).sum()
}

fn cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Plays the cameras in turn and reads the results, until standard input closes.
fn feed(args: &Args, world: &World) {
    let stop = Shutdown::new();
    let closed = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        closed.request();
    });
    let bus = world.bus("reader");
    let results = bus.result_subscriber("reader").expect("results");
    let reader_stop = stop.clone();
    let reader = std::thread::spawn(move || {
        while !reader_stop.requested() {
            let _ = results.waker().wait(Duration::from_millis(100));
            while let Ok(Some(_)) = results.receive() {}
        }
    });
    let cameras = args.cameras.first().copied().unwrap_or(1);
    let mut feeders: Vec<_> =
        (0..cameras).map(|number| world.camera(&format!("cam{number}"), LIVE, 64, 36)).collect();
    let begin_ns = clock::monotonic_ns();
    for frame in 0.. {
        let due_ns = begin_ns + frame * 1_000_000_000 / args.rate;
        let wait_ns = due_ns.saturating_sub(clock::monotonic_ns());
        if stop.wait(Duration::from_nanos(wait_ns)) {
            break;
        }
        feeders[frame as usize % cameras].send();
    }
    reader.join().expect("the reader ends");
}
