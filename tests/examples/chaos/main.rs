//! Kills and stops random processes of an instance under load and counts what that
//! costs: `make chaos MINUTES=10`.
//!
//! Four cameras whose pictures prove themselves, inference, a sink, readers from
//! outside and one more that is never killed and sees everything. Ends with a table of
//! recovery times and with exit code 1 when an aim was missed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod inject;
mod pattern;
mod reconcile;
mod report;
mod survey;
mod watch;

use clap::Parser;
use framebus_bus::{Bus, Domain, Limits};
use framebus_service::{Shutdown, clock};
use framebus_tests::{World, openvino, wait_until};
use inject::{Injector, NEVER_NS, SECOND_NS};
use pattern::CAMERAS;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use survey::{Shm, Survey};
use watch::Watch;

/// Time between two looks at what is back.
const TICK: Duration = Duration::from_millis(10);
/// Nothing happens for so long before the first and after the last fault: dead
/// processes are cleaned up after once a second.
const REST: Duration = Duration::from_secs(4);

/// Kill and stop random processes of an instance of its own, and report.
#[derive(Debug, Parser)]
struct Args {
    /// Kills at least; stops come on top.
    #[arg(long, default_value_t = 320)]
    kills: usize,
    /// Time over which they are spread, s.
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// The same number chooses the same victims; by default the time.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program also is.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// A reader from outside, to be killed.
    #[command(hide = true)]
    Reader { root: PathBuf, instance: String },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.part {
        Some(Part::Reader { root, instance }) => read(root, instance),
        None => chaos(&args),
    }
}

/// Holds frames and reads results for ever; says when it began to see them.
fn read(root: &Path, instance: &str) -> ExitCode {
    let shutdown = Shutdown::new();
    let domain = Domain::new(instance, root, Limits::default()).expect("a short name");
    let bus: Bus = Bus::open(&domain, "reader").expect("the bus can be joined");
    let frames = CAMERAS
        .map(|camera| wait_until(camera.name, 20, || bus.join_frames(camera.name, "reader").ok()));
    let results = wait_until("results", 20, || bus.join_results("reader").ok());
    let (mut held, mut said) = (CAMERAS.map(|_| None), false);
    loop {
        for (reader, held) in frames.iter().zip(&mut held) {
            if let Some(frame) = reader.receive().expect("the bus works") {
                // The one before goes back only now.
                *held = Some(frame);
            }
        }
        while results.receive().expect("the bus works").is_some() {}
        if !said && held.iter().any(Option::is_some) {
            said = true;
            println!("{}", clock::monotonic_ns());
        }
        let _ = shutdown.wait(TICK);
    }
}

fn configure(world: &World, records: &Path) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    let cameras: String = CAMERAS.iter().map(|camera| camera.prepare(world)).collect();
    // Waits that grow with every failure would measure themselves: here a process
    // fails far more often than anything that could be mended.
    world.config(&format!(
        "frame_subscribers = 6\nresult_subscribers = 16\n[up]\nrestart_min_ms = 100\n\
         restart_max_ms = 500\nbreaker_s = 1.0\n[model]\npath = {model:?}\n[[sink]]\nname = \"records\"\n\
         kind = \"jsonl\"\npath = {records:?}\nrotate_mib = 1024\n{cameras}"
    ))
}

fn chaos(args: &Args) -> ExitCode {
    if !openvino() {
        return ExitCode::SUCCESS;
    }
    let shutdown = Shutdown::on_signals().expect("signals can be listened to");
    let seed = args.seed.unwrap_or_else(|| clock::wall_ns() / 1000 % 1_000_000);
    CAMERAS.iter().for_each(pattern::Camera::check);
    eprintln!("seed {seed}: {} kills in {} s", args.kills, args.seconds);
    let world = World::new();
    let records = world.path("records.jsonl");
    let config = configure(&world, &records);
    let domain = world.domain();
    let mut injector = Injector::start(&world, &config, &records, seed);
    let watch = Watch::start(&domain, records.clone());
    wait_until("everything to run", 60, || {
        let log = watch.log();
        let cameras = (0..CAMERAS.len()).all(|c| log.answers.iter().any(|a| a.camera == c));
        (cameras && !log.written.is_empty()).then_some(())
    });
    let _ = shutdown.wait(REST);
    let mut survey = Survey::default();
    let shm_before = Shm::of(&domain);

    let start_ns = clock::monotonic_ns();
    // Kills that are due after it still come, one upon the other.
    let end_ns = start_ns + (args.seconds * SECOND_NS as f64) as u64;
    let never_ns = end_ns + NEVER_NS;
    let (mut next_ns, mut survey_ns, mut word_ns) = (start_ns, 0, start_ns);
    while !shutdown.wait(TICK) {
        let now_ns = clock::monotonic_ns();
        injector.tick(&watch);
        if now_ns >= survey_ns {
            survey_ns = now_ns + SECOND_NS;
            survey.look(&world, &domain);
        }
        if now_ns >= word_ns {
            word_ns = now_ns + 10 * SECOND_NS;
            let seconds = (now_ns - start_ns) / SECOND_NS;
            eprintln!("{seconds} s: {} kills", injector.kills());
        }
        let left = args.kills.saturating_sub(injector.kills());
        if left == 0 || now_ns >= never_ns {
            if injector.is_quiet() {
                break;
            }
        } else if now_ns >= next_ns && injector.inject(&watch) {
            // Every fifth fault is no kill.
            let left_ns = (end_ns - SECOND_NS).saturating_sub(now_ns);
            let mean_ns = left_ns as f64 / (left as f64 * 1.25);
            let wait_ns = mean_ns * (0.2 + 1.4 * injector.random().share());
            next_ns = now_ns + wait_ns as u64;
        }
    }
    let seconds = (clock::monotonic_ns() - start_ns) as f64 / SECOND_NS as f64;
    let _ = shutdown.wait(REST);
    survey.look(&world, &domain);
    let shm_after = Shm::of(&domain);
    let log = watch.finish();
    let ups = injector.ups();
    let (faults, wrong_end) = injector.finish();
    let outcome = report::Outcome {
        seed,
        seconds,
        kills_wanted: args.kills,
        ups,
        account: reconcile::account(&log, &faults, &records),
        faults,
        log,
        growth: survey.growth(),
        shm_before,
        shm_most: survey.most,
        shm_after,
        leftovers: world.leftovers(),
        wrong_end,
    };
    if args.json {
        println!("{}", outcome.json());
    } else {
        println!("{}", outcome.table());
    }
    ExitCode::from(u8::from(!outcome.reached()))
}
