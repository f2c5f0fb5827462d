//! `framebus bench clip`: a real clip through the real thing, decoding included.

use super::bare::ModelArgs;
use super::meters::{self, Memory};
use super::numbers::{Summary, maybe, round};
use super::{print_json, say};
use crate::private::{Private, quote, quote_path};
use crate::rig::Rig;
use crate::table::figure;
use framebus_bus::ResultSample;
use framebus_service::{Failure, Kind, Shutdown, clock};
use framebus_types::{Counter, Outcome, Role};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The model is compiled and the clip opened within this.
const START: Duration = Duration::from_secs(180);
/// Time between two looks at the processes, ns.
const LOOK_NS: u64 = 200_000_000;

/// A clip through `framebus up`, decoding included: what tools are compared by
///
/// By default every frame, as fast as it goes. With --realtime the clip is a camera (or
/// several): it is repeated, the newest frame wins, and what is late is dropped. Counted
/// is from the first frame on the bus to the last result; loading is left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bench clip street.mp4
  framebus bench clip street.mp4 --realtime --cameras 4 --fps 15 --seconds 20 --json

JSON keys, beside those of every benchmark: clip, cameras, realtime, engine, frames (results
`ok`), detections, loop_s, frames_per_s, cpu_s and cpu_ms_per_frame (all processes),
cpu_ms_per_frame_by {capture,infer,supervisor}, decoded_to_boxes_ms and age_ms
{min,p50,p90,p99,max} (decoder to result published, decoder to result received), dropped
(failed ones too), pss_mib and rss_mib (all processes, largest sum seen).")]
pub(super) struct Args {
    /// The clip.
    file: PathBuf,
    /// At the clip's own speed, repeated, newest frame wins.
    #[arg(long)]
    realtime: bool,
    /// Cameras that read the clip, each in a process of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    cameras: u8,
    /// Upper limit of the frames a second of each camera.
    #[arg(long, value_name = "FPS", value_parser = fps)]
    fps: Option<f64>,
    /// With --realtime: length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = super::seconds)]
    seconds: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

fn fps(text: &str) -> Result<f64, String> {
    let fps = text.parse::<f64>().ok().filter(|fps| (0.1..=240.0).contains(fps));
    fps.ok_or_else(|| "must be frames a second from 0.1 to 240".to_owned())
}

/// What the results said.
#[derive(Default)]
struct Seen {
    /// First frame on the bus, ns.
    first_ns: Option<u64>,
    last_ns: u64,
    frames: u64,
    /// Frames that were decoded before the first one was on the bus: done while the
    /// model was being loaded, hence not counted.
    early: u64,
    dropped: u64,
    detections: u64,
    latency_ms: Vec<f64>,
    age_ms: Vec<f64>,
}

impl Seen {
    fn take(&mut self, result: &ResultSample, received_ns: u64, until_ns: u64) {
        let times = &result.header().times;
        let first_ns = *self.first_ns.get_or_insert(times.publish_ns);
        if times.publish_ns > until_ns {
            return;
        }
        match result.outcome() {
            Outcome::Ok => {}
            Outcome::Skipped => return,
            Outcome::Dropped | Outcome::Failed => {
                self.dropped += 1;
                return;
            }
        }
        self.frames += 1;
        self.early += u64::from(times.capture_ns < first_ns);
        self.last_ns = self.last_ns.max(times.result_ns);
        self.detections += result.detections().len() as u64;
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        self.latency_ms.push(ms(times.capture_ns, times.result_ns));
        self.age_ms.push(ms(times.capture_ns, received_ns));
    }
}

/// CPU seconds and memory of the processes of the instance.
#[derive(Default)]
struct Cost {
    /// At the first look and at the last one, by process number.
    cpu_s: BTreeMap<u32, (&'static str, f64, f64)>,
    memory: Memory,
}

impl Cost {
    fn look(&mut self, rig: &Rig) {
        let reported = rig.collector().tracks().filter_map(|(role, _, track)| {
            let name = match role {
                Role::Capture => "capture",
                Role::Infer => "infer",
                _ => return None,
            };
            Some((track.latest().pid, name))
        });
        let own = rig.pid("up").map(|pid| (pid, "supervisor"));
        let mut memory = Memory::default();
        for (pid, name) in reported.chain(own) {
            if let Some(now_s) = meters::cpu_s(pid) {
                self.cpu_s.entry(pid).or_insert((name, now_s, now_s)).2 = now_s;
                memory.add(meters::memory(pid).unwrap_or_default());
            }
        }
        if memory.pss > self.memory.pss {
            self.memory = memory;
        }
    }

    /// Between the looks: of all, or of one kind.
    fn seconds(&self, kind: Option<&str>) -> f64 {
        let counted = self.cpu_s.values().filter(|(name, ..)| kind.is_none_or(|k| k == *name));
        counted.map(|(_, first, last)| last - first).sum()
    }
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    if !args.file.is_file() {
        return Err(Failure::message(
            Kind::Config,
            format_args!("{}: there is no such file", args.file.display()),
        ));
    }
    let mut private = Private::new("bench")?;
    let text = config(args, private.folder())?;
    let (file, _, domain) = private.configure(&text)?;
    let mut rig = Rig::new(private, &domain, shutdown, "bench")?;
    rig.start_own("up", &["up".into(), "--config".into(), file.into()])?;

    let (mut seen, mut cost) = (Seen::default(), Cost::default());
    let start_ns = clock::monotonic_ns();
    let mut until_ns = u64::MAX;
    while clock::monotonic_ns() < until_ns && !rig.has_ended("up")? {
        if rig.stopping() {
            break;
        }
        rig.pump(&mut |result, now_ns| seen.take(result, now_ns, until_ns))?;
        let now_ns = clock::monotonic_ns();
        match seen.first_ns {
            None if now_ns > start_ns + START.as_nanos() as u64 => {
                return Err(Failure::message(
                    Kind::Unavailable,
                    format_args!("no result within {START:?}"),
                ));
            }
            None => {}
            Some(first_ns) => {
                if args.realtime {
                    until_ns = first_ns + (args.seconds * 1e9) as u64;
                }
                // The last look must not fall far behind the last result.
                cost.look(&rig);
                let all = complete(&rig, args, &seen);
                if all {
                    break;
                }
                let next_ns = (now_ns + LOOK_NS).min(until_ns);
                while clock::monotonic_ns() < next_ns
                    && !rig.stopping()
                    && !complete(&rig, args, &seen)
                {
                    rig.pump(&mut |result, now_ns| seen.take(result, now_ns, until_ns))?;
                }
            }
        }
    }
    cost.look(&rig);
    let engine = rig
        .collector()
        .track(Role::Infer, "infer")
        .map(|track| crate::out::plain(framebus_types::text::unpack(&track.latest().detail)));
    // What was sent within the time may still come.
    rig.stop(|_| true, &mut |result, now_ns| seen.take(result, now_ns, until_ns));
    let first_ns = seen.first_ns.ok_or_else(|| super::unmeasured(rig.stopping()))?;
    let end_ns = if args.realtime { until_ns.min(clock::monotonic_ns()) } else { seen.last_ns };
    let loop_s = end_ns.saturating_sub(first_ns) as f64 / 1e9;
    if seen.frames <= seen.early || loop_s <= 0.0 {
        return Err(super::unmeasured(rig.stopping()));
    }
    report(args, &mut seen, &cost, loop_s, &engine.unwrap_or_default())
}

/// Whether the clip is over and all its results are here.
fn complete(rig: &Rig, args: &Args, seen: &Seen) -> bool {
    if args.realtime {
        return false;
    }
    let mut published = 0;
    for number in 0..args.cameras {
        let name = camera(number);
        let Some(track) = rig.collector().track(Role::Capture, &name) else { return false };
        if track.latest().state != framebus_types::State::Ended as u32 {
            return false;
        }
        published += track.total(Counter::Published);
    }
    seen.frames + seen.dropped >= published
}

fn camera(number: u8) -> String {
    format!("clip{number}")
}

fn config(args: &Args, root: &Path) -> Result<String, Failure> {
    let file = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    let source = file.to_str().ok_or_else(|| {
        Failure::message(Kind::Usage, format_args!("{}: not UTF-8", file.display()))
    })?;
    // Live cameras run with the sizes that everybody gets; a clip read as fast as it
    // goes must not lose a result to a reader that was not scheduled for a moment.
    let sizes = match args.realtime {
        true => "",
        false => "frame_subscribers = 1\nresult_subscribers = 2\nresult_buffer = 1024\n",
    };
    let mut text = format!(
        "\n[bus]\nroot = {}\n{sizes}\n[log]\nlevel = \"warn\"\nformat = \"text\"\n\n[model]\npath = {}\nbackend = {}\ninput = \"{}\"\n\
         precision = \"{}\"\ncontexts = {}\nthreads = {}\n",
        quote_path(root)?,
        quote_path(&args.model.path()?)?,
        args.model.backend_toml(),
        args.model.input,
        args.model.precision,
        args.model.contexts,
        args.model.threads,
    );
    for number in 0..args.cameras {
        // Paths are no place for variables.
        let source = quote(&format!("file:{}", source.replace("${", "$${")));
        let _ = write!(text, "\n[[camera]]\nname = \"{}\"\nsource = {source}\n", camera(number));
        text.push_str(match args.realtime {
            true => "pace = \"realtime\"\nloop = true\n",
            false => "pace = \"fast\"\ndelivery = \"every-frame\"\n",
        });
        if let Some(fps) = args.fps {
            let _ = writeln!(text, "fps = {fps:?}");
        }
    }
    Ok(text)
}

fn report(
    args: &Args,
    seen: &mut Seen,
    cost: &Cost,
    loop_s: f64,
    engine: &str,
) -> Result<(), Failure> {
    let frames = seen.frames.saturating_sub(seen.early);
    let fps = frames as f64 / loop_s;
    let cpu_s = cost.seconds(None);
    let per_frame = |seconds: f64| seconds * 1e3 / frames as f64;
    let latency = Summary::of(&mut seen.latency_ms);
    let age = Summary::of(&mut seen.age_ms);
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    if args.json {
        return print_json(
            "clip",
            json!({
                "clip": args.file.display().to_string(), "cameras": args.cameras,
                "realtime": args.realtime, "engine": engine, "frames": frames,
                "detections": seen.detections, "loop_s": round(loop_s),
                "frames_per_s": round(fps), "cpu_s": round(cpu_s),
                "cpu_ms_per_frame": round(per_frame(cpu_s)),
                "cpu_ms_per_frame_by": {
                    "capture": round(per_frame(cost.seconds(Some("capture")))),
                    "infer": round(per_frame(cost.seconds(Some("infer")))),
                    "supervisor": round(per_frame(cost.seconds(Some("supervisor")))),
                },
                "decoded_to_boxes_ms": latency.map(Summary::json),
                "age_ms": age.map(Summary::json),
                "dropped": seen.dropped,
                "pss_mib": round(mib(cost.memory.pss)), "rss_mib": round(mib(cost.memory.rss)),
            }),
        );
    }
    say(engine)?;
    say(&format!(
        "{} frames/s ({frames} frames in {} s, {} dropped), {} CPU ms a frame (capture {}, inference {})",
        figure(Some(fps)),
        maybe(Some(loop_s)),
        seen.dropped,
        figure(Some(per_frame(cpu_s))),
        figure(Some(per_frame(cost.seconds(Some("capture"))))),
        figure(Some(per_frame(cost.seconds(Some("infer"))))),
    ))?;
    say(&format!(
        "decoded to boxes p50 {} ms, p99 {} ms; age when received p99 {} ms; memory {} MiB (PSS of all processes)",
        figure(latency.map(|s| s.p50)),
        figure(latency.map(|s| s.p99)),
        figure(age.map(|s| s.p99)),
        figure(Some(mib(cost.memory.pss))),
    ))
}
