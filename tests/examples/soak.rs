//! Runs four cameras for a while and looks whether anything grows:
//! `make soak MINUTES=30`.
//!
//! Every few seconds: memory, descriptors and threads of each process, bytes and files
//! of the instance in /dev/shm, as CSV. At the end a line through each curve after the
//! warm-up, and exit code 1 when something grew, was restarted or ended.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use clap::Parser;
use framebus_bus::Domain;
use framebus_service::{Shutdown, clock};
use framebus_tests::{
    Collector, Process, Usage, World, asset, example, openvino, shm_files, status,
};
use framebus_types::Outcome;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Start of the run that is left out, as a share of it: caches and pools fill.
const WARM_UP: f64 = 0.2;
/// Samples are averaged into so many values before a line is drawn: neighbours are not
/// independent, and the confidence would be too good.
const MEANS: usize = 20;
/// Descriptors and threads may come and go by so many: a connection, a log that is
/// being set aside.
const COMES_AND_GOES: f64 = 2.0;
/// Growth over the whole run that is not worth a word, KiB; and as a share of the memory.
const SMALL_KIB: f64 = 1024.0;
const SMALL_SHARE: f64 = 0.02;

/// Run four cameras and look whether anything grows.
#[derive(Debug, Parser)]
struct Args {
    /// Length of the run.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Time between two looks, s.
    #[arg(long, default_value_t = 5.0)]
    every_s: f64,
    /// Where the samples go.
    #[arg(long, default_value = "soak.csv")]
    csv: PathBuf,
}

/// Figures of one look at one process, or at /dev/shm.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    pid: u32,
    /// In the order of [`FIGURES`]; for /dev/shm its KiB and files, see [`SHM`].
    figures: [f64; 5],
}

/// `own_kib` is resident memory without shared memory: how much of that a process has
/// touched grows to the size of its files, which are judged by themselves.
const FIGURES: [&str; 5] = ["rss_kib", "pss_kib", "own_kib", "fds", "threads"];
/// Name of the rows about the instance's shared memory: KiB as `rss_kib`, files as `fds`.
const SHM: &str = "/dev/shm";

/// A line through a curve.
struct Slope {
    per_hour: f64,
    /// Half the width of the 95 % confidence interval, per hour.
    confidence: f64,
    mean: f64,
    least: f64,
    most: f64,
}

/// Least squares over the means of equal stretches.
fn slope(points: &[(f64, f64)]) -> Slope {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let size = points.len().div_ceil(MEANS).max(1);
    let (hours, values): (Vec<f64>, Vec<f64>) = points
        .chunks(size)
        .map(|chunk| {
            let (at, values): (Vec<f64>, Vec<f64>) = chunk.iter().copied().unzip();
            (mean(&at) / 3600.0, mean(&values))
        })
        .unzip();
    let (mid, level) = (mean(&hours), mean(&values));
    let spread: f64 = hours.iter().map(|hour| (hour - mid).powi(2)).sum();
    let joint: f64 = hours.iter().zip(&values).map(|(h, v)| (h - mid) * (v - level)).sum();
    let per_hour = if spread > 0.0 { joint / spread } else { 0.0 };
    let rest: f64 =
        hours.iter().zip(&values).map(|(h, v)| (v - level - per_hour * (h - mid)).powi(2)).sum();
    let freedom = hours.len().saturating_sub(2).max(1) as f64;
    // 2.1: Student's t for 95 % and the 18 degrees of freedom of twenty means.
    let confidence = 2.1 * (rest / freedom / spread.max(f64::MIN_POSITIVE)).sqrt();
    let all = points.iter().map(|(_, value)| *value);
    Slope {
        per_hour,
        confidence,
        mean: level,
        least: all.clone().fold(f64::INFINITY, f64::min),
        most: all.fold(f64::NEG_INFINITY, f64::max),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let model = asset("models/yolov8n.onnx");
    let clips = (asset("media/street720.mp4"), asset("media/bikes.mp4"));
    let (Some(model), (Some(street), Some(bikes)), true) = (model, clips, openvino()) else {
        return ExitCode::SUCCESS;
    };
    let world = World::new();
    let mut server = world.start(
        "rtsp",
        &example("rtsp_server"),
        &["--port", "0", "--mount", "/cam", &bikes.display().to_string()],
    );
    let said = server.wait_for_stdout("listening ", 20);
    let url = said.trim().trim_start_matches("listening ").to_owned();
    let records = world.path("records.jsonl");
    // Small files, so that the log is set aside many times in half an hour.
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "file"
        source = "file:{}"
        loop = true
        pace = "realtime"
        fps = 5
        [[camera]]
        name = "rtsp"
        source = "{url}"
        fps = 5
        [[camera]]
        name = "ball"
        source = "test:ball?width=1280&height=720&fps=5"
        [[camera]]
        name = "small"
        source = "test:smpte?width=320&height=240&fps=10"
        [[sink]]
        name = "records"
        kind = "jsonl"
        path = {records:?}
        rotate_mib = 1
        "#,
        street.display()
    ));
    let domain = world.domain();
    let up = world.up(&config);
    soak(&args, &world, &domain, up)
}

fn soak(args: &Args, world: &World, domain: &Domain, mut up: Process) -> ExitCode {
    let shutdown = Shutdown::on_signals().expect("signals can be listened to");
    let mut csv = File::create(&args.csv).expect("the file for the samples can be made");
    writeln!(csv, "seconds,process,pid,{}", FIGURES.join(",")).expect("the disk has room");
    let (start_ns, every) = (clock::monotonic_ns(), Duration::from_secs_f64(args.every_s));
    let end_s = args.minutes * 60.0;
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let mut next_word_s = 60.0;
    while !shutdown.wait(every) && up.is_running() {
        let seconds = (clock::monotonic_ns() - start_ns) as f64 / 1e9;
        for (name, pid, figures) in look(world, domain) {
            let list = figures.map(|figure| figure.to_string()).join(",");
            writeln!(csv, "{seconds:.1},{name},{pid},{list}").expect("the disk has room");
            samples.entry(name).or_default().push(Sample { seconds, pid, figures });
        }
        if seconds >= next_word_s {
            next_word_s += 60.0;
            eprintln!("{:.0} of {:.0} minutes", seconds / 60.0, args.minutes);
        }
        if seconds >= end_s {
            break;
        }
    }
    let mut wrong = Vec::new();
    let seconds = (clock::monotonic_ns() - start_ns) as f64 / 1e9;
    if up.is_running() {
        wrong.extend(at_the_end(world, domain));
        up.signal(Signal::TERM);
        let exit = up.wait(30);
        wrong.extend((exit.code != Some(0)).then(|| format!("up ended so: {}", exit.stderr)));
    } else {
        wrong.push(format!("up ended by itself: {}", up.stderr()));
    }
    wrong.extend(world.leftovers().iter().map(|left| format!("left behind: {left}")));
    println!("{seconds:.0} s, the first {:.0} s left out as warm-up", seconds * WARM_UP);
    wrong.extend(table(&samples, seconds));
    match wrong.is_empty() {
        true => println!("ok: nothing grew, nothing was restarted"),
        false => wrong.iter().for_each(|wrong| println!("FAILED: {wrong}")),
    }
    ExitCode::from(u8::from(!wrong.is_empty()))
}

/// States and counters when all is over; what is wrong with them.
fn at_the_end(world: &World, domain: &Domain) -> Vec<String> {
    let mut wrong = Vec::new();
    let results = Collector::start(domain);
    let rows = status(world);
    let results = results.finish();
    for row in &rows {
        let count = |name: &str| row.counters.get(name).copied().unwrap_or(0);
        if row.state != "live" {
            wrong.push(format!("{} {}: {} ({})", row.kind, row.name, row.state, row.reason));
        }
        for counter in ["restarts", "errors", "failed", "lost_memory", "lost_bad", "bad_headers"] {
            if count(counter) > 0 {
                wrong.push(format!("{} {}: {counter} {}", row.kind, row.name, count(counter)));
            }
        }
        if row.kind == "capture" {
            let ok = results.iter().any(|r| r.camera == row.name && r.outcome == Outcome::Ok);
            println!("{}: {} frames published", row.name, count("published"));
            wrong.extend((!ok).then(|| format!("camera {}: no results at the end", row.name)));
        }
    }
    wrong.extend(rows.is_empty().then(|| "status found nothing".to_owned()));
    wrong
}

/// Every process of the instance, and its shared memory.
fn look(world: &World, domain: &Domain) -> Vec<(String, u32, [f64; 5])> {
    let files = shm_files(domain);
    let kib = files.values().sum::<u64>() as f64 / 1024.0;
    let mut rows = vec![(SHM.to_owned(), 0, [kib, 0.0, 0.0, files.len() as f64, 0.0])];
    for (pid, line) in world.processes() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(program) = words.first().and_then(|path| path.rsplit('/').next()) else {
            continue;
        };
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        let name = match program {
            "framebus" if words.contains(&"up") => "up".to_owned(),
            "framebus-infer" => "infer".to_owned(),
            "framebus-capture" => format!("capture {}", after("--camera").unwrap_or("?")),
            "framebus-sink" => format!("sink {}", after("--sink").unwrap_or("?")),
            _ => continue,
        };
        let (Some(usage), Some((pss, own))) = (Usage::try_of(pid), memory(pid)) else {
            continue;
        };
        let (fds, threads) = (usage.fds as f64, usage.threads as f64);
        rows.push((name, pid, [usage.rss_kib as f64, pss, own, fds, threads]));
    }
    rows
}

/// Proportional memory, and resident memory without shared memory, KiB.
fn memory(pid: u32) -> Option<(f64, f64)> {
    let figure = |file: &str, key: &str| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let resident = figure("status", "RssAnon:")? + figure("status", "RssFile:")?;
    Some((figure("smaps_rollup", "Pss:")?, resident))
}

/// Prints a line for each process and returns what grew.
fn table(samples: &BTreeMap<String, Vec<Sample>>, seconds: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    println!(
        "{:<16}{:>10}{:>22}{:>22}{:>10}{:>10}",
        "process", "RSS MiB", "RSS KiB/h ± 95 %", "unshared KiB/h ± 95 %", "fds", "threads"
    );
    for (name, samples) in samples {
        let warm: Vec<Sample> =
            samples.iter().filter(|s| s.seconds >= seconds * WARM_UP).copied().collect();
        if warm.len() < 3 {
            wrong.push(format!("{name}: too few samples"));
            continue;
        }
        if samples.iter().any(|sample| sample.pid != samples[0].pid) {
            wrong.push(format!("{name} was restarted"));
        }
        let [rss, _, own, fds, threads] = std::array::from_fn(|figure| {
            slope(&warm.iter().map(|s| (s.seconds, s.figures[figure])).collect::<Vec<_>>())
        });
        let range = |slope: &Slope| match slope.least == slope.most {
            true => format!("{:.0}", slope.most),
            false => format!("{:.0}-{:.0}", slope.least, slope.most),
        };
        let rate = |slope: &Slope| format!("{:+.0} ± {:.0}", slope.per_hour, slope.confidence);
        println!(
            "{name:<16}{:>10.1}{:>22}{:>22}{:>10}{:>10}",
            rss.mean / 1024.0,
            rate(&rss),
            rate(&own),
            range(&fds),
            range(&threads),
        );
        // Of /dev/shm there is only the whole.
        let judged = if name == SHM { &rss } else { &own };
        let grown_kib = judged.per_hour * seconds * (1.0 - WARM_UP) / 3600.0;
        let surely = judged.per_hour > judged.confidence;
        if surely && grown_kib > SMALL_KIB.max(judged.mean * SMALL_SHARE) {
            wrong.push(format!("{name}: memory grew by {grown_kib:.0} KiB"));
        }
        for (what, slope) in [("descriptors or files", &fds), ("threads", &threads)] {
            if slope.most - slope.least > COMES_AND_GOES {
                wrong.push(format!("{name}: {what} {}", range(slope)));
            }
        }
    }
    wrong
}
