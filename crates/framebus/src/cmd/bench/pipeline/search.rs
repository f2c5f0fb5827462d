//! `--cameras auto`: how many cameras does this machine hold?

use super::super::numbers::round;
use super::super::{BLOCK, print_json, say};
use super::measure::{Running, Sums};
use super::rate::{CAMERAS_MAX, Rate};
use super::record::{Recorder, summary};
use super::{Args, Plan};
use crate::table::{figure, table};
use framebus_service::{Failure, Kind, Shutdown, clock};
use serde_json::{Value, json};

/// Largest share of frames that may be dropped.
const DROPS_MAX: f64 = 0.01;
/// Sources that publish less than this of what they should are the bottleneck
/// themselves.
const OFFERED_MIN: f64 = 0.97;
/// Between a change of the number and the window, ns.
const SETTLE_NS: u64 = 1_000_000_000;

/// One number of cameras, tried.
struct Probe {
    cameras: usize,
    age_p99_ms: f64,
    drop_share: f64,
    frames_per_s: f64,
    /// What was too much; `None` when they fit.
    limit: Option<&'static str>,
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let fps = match &args.fps {
        Rate::Fps(list) if list.len() == 1 => list[0],
        _ => {
            return Err(Failure::message(
                Kind::Usage,
                "--cameras auto needs the frames a second of one camera, such as --fps 15",
            ));
        }
    };
    let plan = Plan::new(args, vec![fps; CAMERAS_MAX])?;
    let blocks = args.common.blocks();
    let mut running = Running::start(&plan, 1, shutdown)?;
    let engine = running.engine();
    let limit_ms = args.latency.as_secs_f64() * 1e3;
    let mut search = Search { plan: &plan, running: &mut running, limit_ms, probes: Vec::new() };

    // Doubled until it is too much, then the gap halved.
    let (mut holds, mut fails) = (0, CAMERAS_MAX + 1);
    let mut next = 1;
    while holds + 1 < fails {
        match search.probe(next, blocks)? {
            true => holds = next,
            false => fails = next,
        }
        next = if fails > CAMERAS_MAX { (2 * next).min(CAMERAS_MAX) } else { (holds + fails) / 2 };
    }
    // A machine that was fast for a moment does not count: the answer must hold for
    // twice as long.
    while holds > 0 && !search.probe(holds, 2 * blocks)? {
        holds -= 1;
    }
    let probes = search.probes;
    running.rig.stop(|_| true, &mut |_, _| {});
    // The smallest number that was too much names the bottleneck.
    let over = probes.iter().filter(|probe| probe.cameras > holds);
    let limited_by = over.min_by_key(|probe| probe.cameras).and_then(|probe| probe.limit);
    report(args, (holds, fps, limit_ms, limited_by), &engine, &probes)
}

struct Search<'a, 'b> {
    plan: &'a Plan,
    running: &'b mut Running<'a>,
    limit_ms: f64,
    probes: Vec<Probe>,
}

impl Search<'_, '_> {
    /// Whether so many cameras fit.
    fn probe(&mut self, count: usize, blocks: usize) -> Result<bool, Failure> {
        self.running.start_sources(count)?;
        let cameras = &self.plan.cameras[..count];
        let mut recorder = Recorder::new(cameras);
        self.running.warm_up(cameras, &mut recorder)?;
        let end_ns = clock::monotonic_ns() + SETTLE_NS;
        let mut sums = Sums::default();
        self.running.rig.pump_until(end_ns, &mut |result, ns| recorder.take(result, ns))?;
        self.running.window(&mut recorder, &mut sums, blocks)?;
        self.running.pause(cameras, &mut recorder)?;
        recorder.settle();
        if self.running.rig.stopping() {
            return Err(super::super::interrupted());
        }
        let outcomes = recorder.outcomes();
        let age = summary(&recorder.tracks, |sample| sample.age);
        let published = outcomes.ok
            + outcomes.skipped
            + outcomes.superseded
            + outcomes.stale
            + outcomes.failed
            + outcomes.missed;
        let wanted = self.plan.fps[0] * count as f64 * sums.window_s;
        let probe = Probe {
            cameras: count,
            age_p99_ms: age.map_or(f64::INFINITY, |age| age.p99),
            drop_share: outcomes.drop_share(),
            frames_per_s: outcomes.ok as f64 / sums.window_s,
            limit: match age {
                _ if outcomes.drop_share() >= DROPS_MAX => Some("dropped frames"),
                Some(age) if age.p99 > self.limit_ms => Some("age of results"),
                None => Some("no results"),
                _ if (published as f64) < OFFERED_MIN * wanted => Some("sources"),
                _ => None,
            },
        };
        let holds = probe.limit.is_none();
        self.probes.push(probe);
        Ok(holds)
    }
}

fn report(
    args: &Args,
    (cameras, fps, limit_ms, limited_by): (usize, f64, f64, Option<&str>),
    engine: &str,
    probes: &[Probe],
) -> Result<(), Failure> {
    let (width, height) = args.size;
    let seconds = args.common.blocks() as f64 * BLOCK.as_secs_f64();
    if args.common.json {
        let probes: Vec<Value> = probes
            .iter()
            .map(|probe| {
                json!({
                    "cameras": probe.cameras, "holds": probe.limit.is_none(),
                    "age_p99_ms": round(probe.age_p99_ms),
                    "drop_share": round(probe.drop_share),
                    "frames_per_s": round(probe.frames_per_s),
                })
            })
            .collect();
        return print_json(
            "cameras",
            json!({
                "cameras": cameras, "latency_limit_ms": round(limit_ms), "limited_by": limited_by,
                "fps": round(fps), "size": format!("{width}x{height}"), "engine": engine,
                "seconds": round(seconds), "probes": probes,
            }),
        );
    }
    say(engine)?;
    let rows = probes.iter().map(|probe| {
        vec![
            probe.cameras.to_string(),
            figure(Some(probe.frames_per_s)),
            figure(Some(probe.age_p99_ms).filter(|ms| ms.is_finite())),
            format!("{:.1} %", probe.drop_share * 100.0),
            probe.limit.map_or_else(|| "fits".to_owned(), |limit| format!("too much: {limit}")),
        ]
    });
    say(&table(&[">cameras", ">frames/s", ">age p99 ms", ">dropped", ""], rows.collect()))?;
    let why = match (cameras, limited_by) {
        (CAMERAS_MAX, _) => "; more than an instance can have were not tried".to_owned(),
        (_, Some(limit)) => format!("; one more is too much for: {limit}"),
        _ => String::new(),
    };
    say(&format!(
        "\nthis machine holds {cameras} cameras of {width}x{height} at {fps} frames/s with 99 % of \
         the results within {} ms{why}",
        figure(Some(limit_ms)),
    ))
}
