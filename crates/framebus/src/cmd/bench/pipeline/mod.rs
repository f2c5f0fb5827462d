//! `framebus bench pipeline`: frames in shared memory through the real processes.

mod measure;
mod rate;
mod record;
mod report;
mod search;

use super::bare::{Bare, ModelArgs};
use super::numbers::median;
use super::{BLOCK, Common, picture};
use crate::private::{Private, quote_path};
use crate::rig::Rig;
use framebus_engine::Mode;
use framebus_service::{Failure, Kind, Shutdown};
use measure::{Compare, Running};
use rate::{CAMERAS_MAX, Rate};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Results that this reader may be behind: the most that a configuration allows.
const RESULT_BUFFER: usize = 1024;

/// The whole pipeline: frames on the bus, inference, results on the bus
///
/// Real processes in an instance of their own. The cameras' frames lie in shared memory
/// already: decoding is not measured here (see `framebus bench clip`). With --fps max, or
/// with one camera, the bare engine takes turns with it in blocks of a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bench pipeline                                      one camera, live: latency
  framebus bench pipeline --cameras 8 --fps max                throughput
  framebus bench pipeline --fps 120,10x7 --without-first       is one camera unfair?
  framebus bench pipeline --cameras 8 --fps 150% --max-age-ms 500 --seconds 600
  framebus bench pipeline --cameras auto --latency 100ms --fps 15

JSON keys, beside those of every benchmark:
  cameras, size, fps (list, or \"max\"), mode, engine, blocks, seconds (within windows)
  frames_per_s                results `ok` a second within the windows
  throughput_ratio            over the bare engine's frames/s: median of neighbouring
                              blocks; throughput_ratios {p50,min,max,pairs}
  bare_frames_per_s           the bare engine's median
  latency_ms {…}              frame published to result published, of `ok` results;
                              {…} is {min,p50,p90,p99,max}
  latency_ratio_p50, _p90     the same over the network's own time in that frame
  latency_vs_bare_ratio       over the bare engine called at the same rate, neighbouring
                              blocks; bare_latency_ms (median)
  age_ms {…}                  camera to this reader
  stages_ms {stage: {…}}      capture, wake, queue, preprocess, inference, decode,
                              publish, total
  frames {published,ok,skipped,superseded,stale,failed,missed,reconciled,
          results_lost_here}  of the whole run, warm-up included
  drop_share                  superseded, stale, failed and missed of all frames of the
                              windows
  cpu_ms_per_frame {infer,sources,total}
  memory_mib {pss,rss,pss_growth}   sum over the processes; growth from the first to the
                              last quarter of the run
  per_camera [{name,fps_offered,fps,latency_ms,age_ms,drop_share}]
  fairness {worst_ratio,cameras:[{name,latency_ratio}]}   with --without-first: latency
                              with the first camera over the one without it, medians of
                              neighbouring blocks

With --cameras auto: cameras (that it holds), latency_limit_ms, limited_by, fps, size,
engine, probes [{cameras,holds,age_p99_ms,drop_share,frames_per_s}].")]
pub(super) struct Args {
    /// Number of cameras, or auto: how many this machine holds.
    #[arg(long, value_name = "N|auto", value_parser = cameras)]
    cameras: Option<Cameras>,
    /// Size of the frames.
    #[arg(long, value_name = "WxH", default_value = "1920x1080", value_parser = super::size)]
    size: (usize, usize),
    /// Frames a second: of each camera (30), a list (120,10x7), max (nothing is dropped,
    /// sources wait), or a share of the bare engine's throughput (150%).
    #[arg(long, default_value = "30", value_parser = rate::parse)]
    fps: Rate,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    common: Common,
    /// What the engine is tuned for; auto is latency for one live camera.
    #[arg(long, value_parser = ["auto", "latency", "throughput"], default_value = "auto")]
    mode: String,
    /// Frames older than this are dropped before inference, ms; 0 = no limit.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    max_age_ms: u32,
    /// With --cameras auto: the 99th percentile of the age of results.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    latency: Duration,
    /// Picture, or folder of pictures, to publish instead of noise.
    #[arg(long, value_name = "PATH")]
    pictures: Option<PathBuf>,
    /// Take turns with the bare engine; auto: for --fps max and for one camera.
    #[arg(long, value_parser = ["auto", "always", "never"], default_value = "auto")]
    compare: String,
    /// Take turns with the same cameras without the first: what does it cost the others?
    #[arg(long)]
    without_first: bool,
}

/// `--cameras`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cameras {
    Auto,
    Count(usize),
}

fn cameras(text: &str) -> Result<Cameras, String> {
    if text == "auto" {
        return Ok(Cameras::Auto);
    }
    let count = text.parse().ok().filter(|n| (1..=CAMERAS_MAX).contains(n));
    count.map(Cameras::Count).ok_or_else(|| format!("must be auto, or 1 to {CAMERAS_MAX}"))
}

/// `100ms`, `1.5s`.
fn time(text: &str) -> Result<Duration, String> {
    let number = |text: &str, scale: f64| {
        let value = text.parse::<f64>().ok().map(|n| n * scale);
        value.filter(|s| (0.001..=60.0).contains(s)).map(Duration::from_secs_f64)
    };
    let found = match text.strip_suffix("ms") {
        Some(ms) => number(ms, 0.001),
        None => text.strip_suffix('s').and_then(|s| number(s, 1.0)),
    };
    found.ok_or_else(|| "must be a time such as 100ms or 1.5s, from 1ms to 60s".to_owned())
}

/// Everything that is fixed before a run.
struct Plan {
    cameras: Vec<String>,
    /// Frames a second of each camera; 0 = as many as are taken.
    fps: Vec<f64>,
    size: (usize, usize),
    model: PathBuf,
    settings: ModelArgs,
    throughput: bool,
    max_age_ms: u32,
    pictures: Option<PathBuf>,
}

impl Plan {
    /// `fps` has one entry per camera.
    fn new(args: &Args, fps: Vec<f64>) -> Result<Self, Failure> {
        if let Some(pictures) = &args.pictures {
            picture::files(pictures)?;
        }
        let live_alone = fps.len() == 1 && fps[0] > 0.0;
        Ok(Self {
            cameras: (0..fps.len()).map(|number| format!("c{number:02}")).collect(),
            throughput: match args.mode.as_str() {
                "latency" => false,
                "throughput" => true,
                _ => !live_alone,
            },
            fps,
            size: args.size,
            model: args.model.path()?,
            settings: args.model.clone(),
            max_age_ms: args.max_age_ms,
            pictures: args.pictures.clone(),
        })
    }

    fn mode(&self) -> Mode {
        if self.throughput { Mode::Throughput } else { Mode::Latency }
    }

    /// Time between two frames of the first camera.
    fn period(&self) -> Option<Duration> {
        (self.fps[0] > 0.0).then(|| Duration::from_secs_f64(1.0 / self.fps[0]))
    }

    fn bare(&self) -> Result<Bare, Failure> {
        Bare::load(&self.model, &self.settings, (self.mode(), false), self.size)
    }

    /// The instance without processes, and its configuration file.
    fn rig(&self, shutdown: &Shutdown) -> Result<(Rig, PathBuf), Failure> {
        let mut private = Private::new("bench")?;
        let text = self.config(private.folder())?;
        let (file, _, domain) = private.configure(&text)?;
        Ok((Rig::new(private, &domain, shutdown, "bench")?, file))
    }

    fn config(&self, root: &Path) -> Result<String, Failure> {
        let mut text = format!(
            "\n[bus]\nroot = {}\nframe_subscribers = 1\nresult_subscribers = 1\n\
             result_buffer = {RESULT_BUFFER}\n\n[log]\nlevel = \"warn\"\nformat = \"text\"\n\n\
             [model]\npath = {}\nbackend = {}\ninput = \"{}\"\nprecision = \"{}\"\nmode = \"{}\"\n\
             contexts = {}\nthreads = {}\n",
            quote_path(root)?,
            quote_path(&self.model)?,
            self.settings.backend_toml(),
            self.settings.input,
            self.settings.precision,
            super::bare::mode(self.mode()),
            self.settings.contexts,
            self.settings.threads,
        );
        for (name, fps) in self.cameras.iter().zip(&self.fps) {
            let delivery = if *fps > 0.0 { "latest" } else { "every-frame" };
            let _ = write!(
                text,
                "\n[[camera]]\nname = \"{name}\"\nsource = \"test:black\"\n\
                 delivery = \"{delivery}\"\nmax_age_ms = {}\n",
                self.max_age_ms
            );
        }
        Ok(text)
    }

    /// Arguments of `framebus` for the source of a camera.
    fn source_args(&self, number: usize, file: &Path) -> Vec<OsString> {
        let (width, height) = self.size;
        // Cameras are not in step: the golden ratio spreads any number of them.
        let phase = (number as f64 * 0.618_034).fract();
        let mut args: Vec<OsString> = ["bench", "source", "--camera"].map(OsString::from).into();
        args.push((&self.cameras[number]).into());
        args.extend(["--config".into(), file.into()]);
        args.extend(["--size".into(), format!("{width}x{height}").into()]);
        args.extend(["--fps".into(), self.fps[number].to_string().into()]);
        args.extend(["--phase".into(), phase.to_string().into()]);
        if let Some(pictures) = &self.pictures {
            args.extend(["--pictures".into(), pictures.into()]);
        }
        args
    }
}

/// Frames a second of each camera, where no engine is needed to know.
fn offered(args: &Args) -> Result<Vec<f64>, Failure> {
    let count = match args.cameras {
        Some(Cameras::Count(count)) => Some(count),
        _ => None,
    };
    match (&args.fps, count) {
        (Rate::Fps(list), count) if list.len() == 1 => Ok(vec![list[0]; count.unwrap_or(1)]),
        (Rate::Fps(list), count) if count.is_none_or(|count| count == list.len()) => {
            Ok(list.clone())
        }
        (Rate::Fps(list), _) => Err(Failure::message(
            Kind::Usage,
            format_args!("--fps speaks of {} cameras, --cameras of another number", list.len()),
        )),
        (Rate::Max | Rate::Load(_), count) => Ok(vec![0.0; count.unwrap_or(1)]),
    }
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    if args.cameras == Some(Cameras::Auto) {
        return search::run(args, shutdown);
    }
    let mut plan = Plan::new(args, offered(args)?)?;
    let mut bare = None;
    if let Rate::Load(share) = args.fps {
        plan.throughput |= args.mode == "auto";
        let mut engine = plan.bare()?;
        let rates: Result<Vec<f64>, Failure> = (0..3).map(|_| engine.throughput(BLOCK)).collect();
        let each = median(&rates?).unwrap_or_default() * share / plan.fps.len() as f64;
        plan.fps.fill(each.clamp(0.1, 1000.0));
        bare = Some(engine);
    }
    if args.without_first && (plan.cameras.len() < 2 || plan.fps[0] == 0.0) {
        return Err(Failure::message(
            Kind::Usage,
            "--without-first needs two cameras at least, and frames a second",
        ));
    }
    let alone = plan.cameras.len() == 1 || args.fps == Rate::Max;
    let compare = match args.compare.as_str() {
        _ if args.without_first => Compare::WithoutFirst,
        "always" => Compare::Bare(Box::new(bare.map_or_else(|| plan.bare(), Ok)?)),
        "auto" if alone => Compare::Bare(Box::new(bare.map_or_else(|| plan.bare(), Ok)?)),
        _ => Compare::Nothing,
    };
    let running = Running::start(&plan, plan.cameras.len(), shutdown)?;
    let measured = running.measure(args.common.blocks(), compare)?;
    report::report(args.common.json, &plan, &measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(text: &[&str]) -> Args {
        Command::parse_from(std::iter::once(&"bench").chain(text)).args
    }

    #[test]
    fn cameras_and_rates_fit_each_other() {
        assert_eq!(offered(&args(&[])).ok(), Some(vec![30.0]));
        assert_eq!(offered(&args(&["--cameras", "2"])).ok(), Some(vec![30.0, 30.0]));
        assert_eq!(offered(&args(&["--fps", "9,5x2"])).ok(), Some(vec![9.0, 5.0, 5.0]));
        assert_eq!(offered(&args(&["--fps", "max", "--cameras", "2"])).ok(), Some(vec![0.0, 0.0]));
        assert!(offered(&args(&["--fps", "9,5x2", "--cameras", "2"])).is_err());
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("20ms"), Ok(Duration::from_millis(20)));
        assert!(time("20").is_err() && time("0ms").is_err() && time("-1s").is_err());
    }

    #[test]
    fn the_written_configuration_is_valid() {
        for fps in ["max", "15x3", "30"] {
            let args = args(&["--fps", fps, "--model", "/m.onnx", "--input", "384x640"]);
            let plan = Plan::new(&args, offered(&args).expect("fits")).expect("a plan");
            let text = plan.config(Path::new("/tmp/fb")).expect("UTF-8");
            let text = format!("instance = \"b\"\n{text}");
            let config = framebus_config::parse(&text, Path::new("x.toml"), &|_| None)
                .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            assert_eq!(config.cameras.len(), plan.cameras.len());
            assert_eq!(framebus_service::is_offline(&config), fps == "max");
            assert_eq!(plan.throughput, fps != "30");
        }
    }
}
