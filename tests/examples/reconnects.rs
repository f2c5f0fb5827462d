//! Ends and restarts an RTSP camera many times and looks at what that costs:
//! `make reconnects N=500`.
//!
//! Prints how long after the camera's return its next frame was on the bus, and exits
//! with 1 when the capture process was restarted, grew, or disturbed its neighbour.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use clap::Parser;
use framebus_bus::{Bus, FrameSubscriber};
use framebus_service::clock;
use framebus_tests::{
    Bystander, Process, Usage, World, example, openvino, shm_files, status, wait_until,
};
use rustix::process::Signal;
use std::net::TcpListener;
use std::process::ExitCode;

/// Reconnects before the first look at what the process holds on to.
const WARM_UP: usize = 5;

/// End and restart an RTSP camera many times.
#[derive(Debug, Parser)]
struct Args {
    /// How many times.
    #[arg(long, default_value_t = 500)]
    count: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !openvino() {
        return ExitCode::SUCCESS;
    }
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let port = free.port().to_string();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        frame_subscribers = 3
        [model]
        path = {model:?}
        [[camera]]
        name = "net"
        source = "rtsp://127.0.0.1:{port}/cam"
        reconnect_min_ms = 100
        reconnect_max_ms = 400
        [[camera]]
        name = "near"
        source = "test:ball?width=320&height=192&fps=20"
        "#
    ));
    let domain = world.domain();
    let mut server = serve(&world, &port);
    let mut up = world.up(&config);
    let near = Bystander::start(&domain, "near");
    let bus: Bus = Bus::open(&domain, "reconnects").expect("the bus can be joined");
    let net = wait_until("frames/net", 60, || bus.join_frames("net", "reconnects").ok());
    let (_, epoch_ns) = next_frame(&net, 0);
    let pid = world.pid_of(&["framebus-capture", "--camera net"]).expect("the camera runs");

    let (mut before, mut seconds) = (Usage::of(&[pid]), Vec::new());
    let mut shm_before = shm_files(&domain).len();
    let mut restarted = false;
    for round in 0..args.count {
        server.signal(Signal::KILL);
        server.wait(10);
        server = serve(&world, &port);
        let back_ns = clock::monotonic_ns();
        let (frame_ns, epoch_now_ns) = next_frame(&net, back_ns);
        seconds.push((frame_ns - back_ns) as f64 / 1e9);
        restarted |= epoch_now_ns != epoch_ns;
        if round + 1 == WARM_UP {
            before = Usage::of(&[pid]);
            shm_before = shm_files(&domain).len();
        }
        if (round + 1) % 50 == 0 {
            eprintln!("{} of {}: {:?}", round + 1, args.count, Usage::of(&[pid]));
        }
    }
    let after = Usage::of(&[pid]);
    let shm_after = shm_files(&domain).len();
    let counted = status(&world)
        .into_iter()
        .find(|row| row.kind == "capture" && row.name == "net")
        .and_then(|row| row.counters.get("reconnects").copied())
        .unwrap_or(0);
    // Panics when the neighbour lost a frame, which is exit code 101.
    let near_frames = near.finish();
    drop((net, bus));
    up.signal(Signal::TERM);
    let code = up.wait(30).code;
    let left = world.leftovers();

    seconds.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let rank = (share * seconds.len() as f64).ceil() as usize;
        seconds.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    println!("{} times, {counted} reconnects counted", args.count);
    println!(
        "camera back to next frame, s: p50 {:.2}, p95 {:.2}, max {:.2}",
        quantile(0.5),
        quantile(0.95),
        quantile(1.0)
    );
    println!("capture after {WARM_UP} reconnects {before:?}, at the end {after:?}");
    println!("/dev/shm: {shm_before} files, {shm_after} at the end");
    println!("the other camera: {near_frames} frames, none lost");
    let aims = [
        (!restarted, "the capture process was not restarted"),
        (counted >= args.count as u64, "every reconnect was counted"),
        (Usage::is_flat(before, after), "descriptors, threads and memory are flat"),
        (shm_before == shm_after, "no file was left in /dev/shm meanwhile"),
        (code == Some(0) && left.is_empty(), "nothing is left at the end"),
    ];
    for (reached, aim) in aims {
        println!("{} {aim}", if reached { "ok    " } else { "MISSED" });
    }
    ExitCode::from(u8::from(aims.iter().any(|(reached, _)| !reached)))
}

fn serve(world: &World, port: &str) -> Process {
    let args = ["--port", port, "--mount", "/cam", "--size", "320x192", "--fps", "20", "test"];
    let mut server = world.start("rtsp", &example("rtsp_server"), &args);
    server.wait_for_stdout("listening", 20);
    server
}

/// Time and epoch of the first frame that was published after `from_ns`.
fn next_frame(reader: &FrameSubscriber, from_ns: u64) -> (u64, u64) {
    wait_until("a frame of the camera", 30, || {
        let frame = reader.receive().expect("the bus works")?;
        let (publish_ns, epoch_ns) = (frame.header().publish_ns, frame.header().epoch_ns);
        (publish_ns > from_ns).then_some((publish_ns, epoch_ns))
    })
}
