//! Blocks of the pipeline, taking turns with what it is compared with.

use super::super::bare::Bare;
use super::super::meters::{self, Memory};
use super::super::numbers::median;
use super::super::{BLOCK, interrupted, unmeasured};
use super::Plan;
use super::record::{Outcomes, Recorder};
use crate::rig::Rig;
use framebus_service::{Failure, Shutdown, clock};
use framebus_types::{Counter, Role};
use std::path::PathBuf;
use std::time::Duration;

/// Longest start: the model is compiled, segments are populated, pictures written.
const START: Duration = Duration::from_secs(180);
/// Every camera has had its first result within this, or something is wrong.
const FIRST: Duration = Duration::from_secs(120);
/// After the first results: what is still being written for the first time.
const WARM_NS: u64 = 1_000_000_000;
/// At the start of a block, not counted: queues fill.
const SETTLE_NS: u64 = 250_000_000;
/// No result for so long after a pause means that nothing is on its way, ns.
const QUIET_NS: u64 = 250_000_000;
/// Longest drain, ns.
const DRAIN_NS: u64 = 5_000_000_000;
/// Time between two looks at the memory of a run without pauses, blocks.
const MEMORY_BLOCKS: usize = 5;

/// What takes turns with the pipeline.
pub(super) enum Compare {
    Nothing,
    /// The engine alone, while the sources pause.
    Bare(Box<Bare>),
    /// The pipeline while the first camera pauses.
    WithoutFirst,
}

/// CPU time of the processes within the windows, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    pub(super) infer: f64,
    pub(super) sources: f64,
}

/// Everything that a run gave.
pub(super) struct Measured {
    pub(super) recorder: Recorder,
    /// Median latency of each block and camera, ms; and of each block without the first
    /// camera, the one after the block of the same number.
    pub(super) by_camera: Vec<Vec<f64>>,
    pub(super) by_camera_without: Vec<Vec<f64>>,
    /// Frames a second of each block; NaN where there were none.
    pub(super) rates: Vec<f64>,
    /// Median latency of each block, ms; NaN where there was none.
    pub(super) latencies: Vec<f64>,
    /// The bare engine's, each after the block of the same number.
    pub(super) bare_rates: Vec<f64>,
    pub(super) bare_latencies: Vec<f64>,
    /// Results and time within all windows.
    pub(super) frames: usize,
    pub(super) window_s: f64,
    pub(super) cpu: Cpu,
    /// Sum over the processes, each time it was looked at.
    pub(super) memory: Vec<Memory>,
    /// Frames published and what became of them, over the whole run.
    pub(super) published: u64,
    pub(super) totals: Outcomes,
    /// Results that this process did not get.
    pub(super) lost: u64,
    pub(super) engine: String,
}

impl Measured {
    /// Whether every published frame is accounted for.
    pub(super) fn reconciled(&self) -> bool {
        self.published == self.totals.sum()
    }
}

/// An instance whose sources wait.
pub(super) struct Running<'a> {
    pub(super) rig: Rig,
    plan: &'a Plan,
    file: PathBuf,
    /// Cameras that have a source.
    sources: usize,
}

impl<'a> Running<'a> {
    /// Starts inference, and the sources of the first `sources` cameras.
    pub(super) fn start(
        plan: &'a Plan,
        sources: usize,
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let (rig, file) = plan.rig(shutdown)?;
        let mut running = Self { rig, plan, file, sources: 0 };
        let program = crate::children::find("framebus-infer")?;
        running.rig.start("infer", &program, &["--config".into(), (&running.file).into()])?;
        running.start_sources(sources)?;
        Ok(running)
    }

    /// Starts sources until the first `sources` cameras have one.
    pub(super) fn start_sources(&mut self, sources: usize) -> Result<(), Failure> {
        for number in self.sources..sources {
            let args = self.plan.source_args(number, &self.file);
            self.rig.start_own(&self.plan.cameras[number], &args)?;
        }
        let names = &self.plan.cameras[..sources];
        self.sources = self.sources.max(sources);
        self.rig.pump_until_done("inference and sources ready", START, &mut |_, _| {}, |rig| {
            rig.is_live(Role::Infer, "infer")
                && names.iter().all(|name| rig.is_live(Role::Capture, name))
        })
    }

    /// Tells the sources of these cameras something.
    pub(super) fn say(&mut self, cameras: &[String], line: &str) {
        cameras.iter().for_each(|name| self.rig.say(name, line));
    }

    /// Lets the sources run until every camera has had results for a while.
    pub(super) fn warm_up(
        &mut self,
        cameras: &[String],
        recorder: &mut Recorder,
    ) -> Result<(), Failure> {
        self.say(cameras, "run");
        let end_ns = clock::monotonic_ns() + FIRST.as_nanos() as u64;
        while recorder.seen[..cameras.len()].contains(&0) {
            if self.rig.stopping() {
                return Err(interrupted());
            }
            let now_ns = clock::monotonic_ns();
            if now_ns >= end_ns {
                let silent = recorder.seen.iter().position(|seen| *seen == 0).unwrap_or_default();
                return Err(Failure::message(
                    framebus_service::Kind::Unavailable,
                    format_args!("camera {} had no result within {FIRST:?}", cameras[silent]),
                ));
            }
            self.rig.pump(&mut |result, ns| recorder.take(result, ns))?;
            self.rig.check()?;
        }
        let end_ns = clock::monotonic_ns() + WARM_NS;
        self.rig.pump_until(end_ns, &mut |result, ns| recorder.take(result, ns))
    }

    /// Pauses all sources and waits until nothing is on its way.
    pub(super) fn pause(
        &mut self,
        cameras: &[String],
        recorder: &mut Recorder,
    ) -> Result<(), Failure> {
        self.say(cameras, "pause");
        let paused_ns = clock::monotonic_ns();
        loop {
            self.rig.pump(&mut |result, ns| recorder.take(result, ns))?;
            let now_ns = clock::monotonic_ns();
            let moved_ns = recorder.last_ns.max(paused_ns);
            if now_ns >= moved_ns + QUIET_NS || now_ns >= paused_ns + DRAIN_NS {
                return Ok(());
            }
        }
    }

    /// CPU time of the processes so far.
    fn cpu(&self) -> Cpu {
        let of = |name: &str| self.rig.pid(name).and_then(meters::cpu_s).unwrap_or_default();
        Cpu { infer: of("infer"), sources: self.plan.cameras.iter().map(|name| of(name)).sum() }
    }

    /// Memory of the processes now.
    fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        let names = self.plan.cameras.iter().map(String::as_str).chain(["infer"]);
        for pid in names.filter_map(|name| self.rig.pid(name)) {
            sum.add(meters::memory(pid).unwrap_or_default());
        }
        sum
    }

    /// One block of running sources.
    fn block(&mut self, recorder: &mut Recorder, sums: &mut Sums) -> Result<(), Failure> {
        let settled_ns = clock::monotonic_ns() + SETTLE_NS;
        self.rig.pump_until(settled_ns, &mut |result, ns| recorder.take(result, ns))?;
        self.window(recorder, sums, 1).map(|_| ())
    }

    /// A window of so many blocks without a pause; the memory in between.
    pub(super) fn window(
        &mut self,
        recorder: &mut Recorder,
        sums: &mut Sums,
        blocks: usize,
    ) -> Result<Vec<Memory>, Failure> {
        let mut memory = Vec::new();
        let (start_ns, before) = (clock::monotonic_ns(), self.cpu());
        recorder.open(start_ns);
        for block in 1..=blocks {
            let end_ns = start_ns + (BLOCK * block as u32).as_nanos() as u64;
            self.rig.pump_until(end_ns, &mut |result, ns| recorder.take(result, ns))?;
            if blocks > 1 && block % MEMORY_BLOCKS == 1 {
                memory.push(self.memory());
            }
        }
        let after = self.cpu();
        let end_ns = clock::monotonic_ns();
        recorder.close(end_ns);
        sums.cpu.infer += after.infer - before.infer;
        sums.cpu.sources += after.sources - before.sources;
        sums.window_s += (end_ns - start_ns) as f64 / 1e9;
        Ok(memory)
    }

    /// Runs all blocks, stops everything and adds up.
    pub(super) fn measure(
        mut self,
        blocks: usize,
        mut compare: Compare,
    ) -> Result<Measured, Failure> {
        let plan = self.plan;
        let cameras = &plan.cameras[..];
        let mut recorder = Recorder::new(cameras);
        let mut without = Recorder::new(cameras);
        let mut sums = Sums::default();
        self.warm_up(cameras, &mut recorder)?;
        let (mut taken, mut taken_without) = (Taken::default(), Taken::default());
        let turns = if matches!(compare, Compare::Nothing) { 1 } else { blocks };
        for _ in 0..turns {
            match &mut compare {
                Compare::Nothing => {
                    taken.memory.extend(self.window(&mut recorder, &mut sums, blocks)?);
                    taken.memory.push(self.memory());
                    self.pause(cameras, &mut recorder)?;
                    taken.block(&mut recorder);
                }
                Compare::Bare(bare) => {
                    self.block(&mut recorder, &mut sums)?;
                    taken.memory.push(self.memory());
                    self.pause(cameras, &mut recorder)?;
                    taken.block(&mut recorder);
                    if plan.throughput {
                        taken.bare_rates.push(bare.throughput(BLOCK)?);
                    } else {
                        let calls = bare.latency(BLOCK, plan.period())?;
                        taken.bare_latencies.extend(median(&calls));
                    }
                    self.say(cameras, "run");
                }
                Compare::WithoutFirst => {
                    self.block(&mut recorder, &mut sums)?;
                    taken.memory.push(self.memory());
                    self.say(&cameras[..1], "pause");
                    // Frames of the window are still on their way.
                    let quiet_ns = clock::monotonic_ns() + QUIET_NS;
                    self.rig.pump_until(quiet_ns, &mut |result, ns| recorder.take(result, ns))?;
                    taken.block(&mut recorder);
                    // Its share of the time is no part of the sums.
                    self.block(&mut without, &mut Sums::default())?;
                    taken_without.block(&mut without);
                    self.say(&cameras[..1], "run");
                }
            }
            if self.rig.stopping() {
                break;
            }
        }
        self.pause(cameras, &mut recorder)?;
        recorder.settle();
        if taken.frames == 0 {
            return Err(unmeasured(self.rig.stopping()));
        }
        Ok(self.finish(recorder, taken, taken_without.by_camera, sums))
    }

    /// What the inference process says of its engine.
    pub(super) fn engine(&self) -> String {
        let track = self.rig.collector().track(Role::Infer, "infer");
        let detail = track.map(|track| framebus_types::text::unpack(&track.latest().detail));
        detail.map(crate::out::plain).unwrap_or_default()
    }

    /// Frames published and what became of them, as last heard.
    fn totals(&self) -> (u64, Outcomes) {
        let (mut published, mut totals) = (0, Outcomes::default());
        for name in &self.plan.cameras {
            published += self.rig.count(Role::Capture, name, Counter::Published);
            let count = |counter| self.rig.count(Role::InferCamera, name, counter);
            totals.add(Outcomes {
                ok: count(Counter::Ok),
                skipped: count(Counter::Skipped),
                superseded: count(Counter::Superseded),
                stale: count(Counter::Stale),
                failed: count(Counter::Failed),
                missed: count(Counter::Missed),
            });
        }
        (published, totals)
    }

    /// Stops everything and hears the last counts.
    fn finish(
        mut self,
        recorder: Recorder,
        taken: Taken,
        by_camera_without: Vec<Vec<f64>>,
        sums: Sums,
    ) -> Measured {
        self.rig.stop(|name| name != "infer", &mut |_, _| {});
        // A source may send a last frame when it stops: inference shall take it first, and
        // say so.
        let end_ns = clock::monotonic_ns() + DRAIN_NS;
        let on_its_way = |running: &Self| {
            let (published, totals) = running.totals();
            published != totals.sum() && clock::monotonic_ns() < end_ns
        };
        while on_its_way(&self) && self.rig.pump(&mut |_, _| {}).is_ok() {}
        let engine = self.engine();
        self.rig.stop(|_| true, &mut |_, _| {});
        let (published, totals) = self.totals();
        Measured {
            recorder,
            by_camera: taken.by_camera,
            by_camera_without,
            rates: taken.rates,
            latencies: taken.latencies,
            bare_rates: taken.bare_rates,
            bare_latencies: taken.bare_latencies,
            frames: taken.frames,
            window_s: sums.window_s,
            cpu: sums.cpu,
            memory: taken.memory,
            published,
            totals,
            lost: self.rig.lost(),
            engine,
        }
    }
}

/// Sums over the windows.
#[derive(Debug, Default)]
pub(super) struct Sums {
    cpu: Cpu,
    pub(super) window_s: f64,
}

/// What was taken block by block.
#[derive(Debug, Default)]
struct Taken {
    rates: Vec<f64>,
    latencies: Vec<f64>,
    bare_rates: Vec<f64>,
    bare_latencies: Vec<f64>,
    /// Median latency of each camera, block by block; NaN where it had no result.
    by_camera: Vec<Vec<f64>>,
    frames: usize,
    memory: Vec<Memory>,
    /// Samples of each camera up to the block before.
    known: Vec<usize>,
}

impl Taken {
    /// Figures of the block that has just ended.
    fn block(&mut self, recorder: &mut Recorder) {
        let (rate, frames) = recorder.rate();
        // A block without a figure keeps its place: its neighbours belong to others.
        self.rates.push(rate.unwrap_or(f64::NAN));
        self.frames += frames;
        self.known.resize(recorder.tracks.len(), 0);
        self.by_camera.resize(recorder.tracks.len(), Vec::new());
        let mut all = Vec::new();
        for (number, track) in recorder.tracks.iter().enumerate() {
            let new = &track.samples[self.known[number]..];
            let latencies: Vec<f64> = new.iter().map(|s| f64::from(s.latency)).collect();
            self.by_camera[number].push(median(&latencies).unwrap_or(f64::NAN));
            self.known[number] = track.samples.len();
            all.extend(latencies);
        }
        self.latencies.push(median(&all).unwrap_or(f64::NAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_results_keeps_its_place_among_the_others() {
        let mut recorder = Recorder::new(&["a".to_owned()]);
        let mut taken = Taken::default();
        for _ in 0..2 {
            taken.block(&mut recorder);
        }
        assert_eq!((taken.rates.len(), taken.latencies.len(), taken.frames), (2, 2, 0));
        assert!(taken.rates.iter().chain(&taken.latencies).all(|figure| figure.is_nan()));
        assert_eq!(taken.by_camera[0].len(), 2);
    }
}
