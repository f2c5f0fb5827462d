//! What the motion gate and the idle gate save on a clip, and what they miss.
//!
//! ```text
//! make_idle_clip.py PICTURES CLIPS
//! gates CLIPS/idle.json CLIPS/idle_day_gop30.mp4 …
//! ```
//!
//! Runs `framebus-capture` over each clip, as fast as it goes, without gates, with the
//! motion gate, and with both, and prints for each: frames decoded, frames that inference
//! would look at, CPU time of the capture process for each frame of the clip, and for each
//! event of the file of truths how long after its beginning a frame first was looked at
//! ("-": never). Times are those of the stream; what decoding itself takes is not in them.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program: waits, reads its clock and speaks on standard output"
)]

use anyhow::{Context, Result, bail};
use framebus_bus::{Bus, Delivery, FrameSubscriber};
use framebus_service::INFER_READER;
use framebus_types::{Counter, FLAG_MOTION, FLAG_MOTION_MEASURED, FrameHeader, State};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

struct Event {
    name: String,
    from_s: f64,
    to_s: f64,
}

/// One frame, as inference would see it.
#[derive(Clone, Copy)]
struct Look {
    pts_s: f64,
    still: bool,
}

struct Run {
    looks: Vec<Look>,
    undecoded: u64,
    cpu_s: f64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let truth = arguments.next().context("usage: gates TRUTH.json CLIP…")?;
    let events = events(&truth)?;
    for clip in arguments {
        println!("{clip}");
        let mut baseline = None;
        for (name, keys) in [
            ("none", ""),
            ("motion_gate", "motion_gate = true"),
            ("idle_gate", "motion_gate = true\nidle_gate = true"),
        ] {
            let run = run(&clip, keys)?;
            // As the scheduler does it: a still frame is skipped unless the last look is old.
            let mut looked: Vec<f64> = Vec::new();
            for look in &run.looks {
                if !look.still || looked.last().is_none_or(|last| look.pts_s - last >= 5.0) {
                    looked.push(look.pts_s);
                }
            }
            let frames = run.looks.len() as u64 + run.undecoded;
            let cpu_ms = run.cpu_s * 1e3 / frames as f64;
            let before = *baseline.get_or_insert(cpu_ms);
            let seen: Vec<String> = events.iter().map(|event| first(event, &looked)).collect();
            println!(
                "  {name:<12} decoded {:>4} of {frames}, looked at {:>4}, {cpu_ms:.2} CPU-ms a frame ({:.0} %); {}",
                run.looks.len(),
                looked.len(),
                100.0 * cpu_ms / before,
                seen.join(", ")
            );
        }
    }
    Ok(())
}

fn first(event: &Event, looked: &[f64]) -> String {
    let inside = |pts: &&f64| (event.from_s - 1e-3..event.to_s - 1e-3).contains(*pts);
    let name = &event.name;
    match looked.iter().find(inside) {
        Some(pts) => format!("{name}: {:.2} s", (pts - event.from_s).max(0.0)),
        None => format!("{name}: -"),
    }
}

/// `[{"height": pixels, "from_s": …, "to_s": …}, …]`
fn events(path: &str) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let events = list.iter().map(|event| {
        let number = |key: &str| event[key].as_f64().with_context(|| key.to_owned());
        Ok(Event {
            name: format!("{} px", number("height")?),
            from_s: number("from_s")?,
            to_s: number("to_s")?,
        })
    });
    events.collect()
}

fn run(clip: &str, keys: &str) -> Result<Run> {
    let clip = std::fs::canonicalize(clip).with_context(|| clip.to_owned())?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("framebus.toml");
    let text = format!(
        "instance = \"gates-{}\"\n[log]\nlevel = \"warn\"\n[bus]\nroot = \"{}\"\n[model]\npath = \"m.onnx\"\n[[camera]]\n\
         name = \"cam\"\nsource = \"file:{}\"\npace = \"fast\"\ndelivery = \"every-frame\"\n{keys}\n",
        std::process::id(),
        dir.path().join("bus").display(),
        clip.display()
    );
    std::fs::write(&file, text)?;
    let config = framebus_config::load(&file)?;
    let domain = framebus_service::domain(&config)?;
    let bus = Bus::open(&domain, "gates")?;
    let reader = bus.frame_subscriber("cam", Delivery::EveryFrame, INFER_READER)?;
    let mut child = start(&file)?;
    let ended = follow(&bus, &reader, &child);
    child.kill()?;
    child.wait()?;
    drop((reader, bus));
    domain.remove_leftovers()?;
    ended
}

/// The capture process beside this program.
fn start(config: &Path) -> Result<Child> {
    let own = std::env::current_exe()?;
    let binaries = own.parent().and_then(Path::parent).context("a folder of binaries")?;
    Command::new(binaries.join("framebus-capture"))
        .args(["--camera", "cam", "--config"])
        .arg(config)
        .spawn()
        .context("framebus-capture is not built; build it with the same profile")
}

fn follow(bus: &Bus, reader: &FrameSubscriber, child: &Child) -> Result<Run> {
    let health = bus.health_subscriber()?;
    let (mut looks, mut records) = (Vec::new(), Vec::new());
    loop {
        let woken = reader.waker().wait(Duration::from_millis(100))?;
        while let Some(frame) = reader.receive()? {
            looks.push(look(frame.header()));
        }
        health.receive_into(&mut records)?;
        let Some(last) = records.last() else { continue };
        if last.state == u32::from(State::Offline) {
            bail!("the clip cannot be read");
        }
        if !woken && last.state == u32::from(State::Ended) {
            let undecoded = last.counter(Counter::Undecoded);
            return Ok(Run { looks, undecoded, cpu_s: cpu_s(child.id())? });
        }
    }
}

fn look(header: &FrameHeader) -> Look {
    let measured = header.flags & (FLAG_MOTION | FLAG_MOTION_MEASURED) == FLAG_MOTION_MEASURED;
    Look { pts_s: header.pts_ns as f64 * 1e-9, still: measured }
}

/// User and system time of a process and its ended threads, in seconds.
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
}
