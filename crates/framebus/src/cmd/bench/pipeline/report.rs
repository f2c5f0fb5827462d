//! The figures of a run, as a table or as JSON.

use super::super::numbers::{Summary, adjacent_ratios, maybe, median, round, spread};
use super::super::{print_json, say};
use super::Plan;
use super::measure::Measured;
use super::record::summary;
use crate::table::{NONE, figure, table};
use framebus_service::Failure;
use framebus_types::Stage;
use serde_json::{Map, Value, json};

const MIB: f64 = 1024.0 * 1024.0;

/// Figures that take more than one step to get.
struct Figures {
    latency: Option<Summary>,
    ratio: Option<Summary>,
    age: Option<Summary>,
    throughput_ratios: Vec<f64>,
    latency_vs_bare: Option<f64>,
    frames_per_s: f64,
    /// MiB: median of all looks, RSS likewise, growth.
    pss: Option<f64>,
    rss: Option<f64>,
    growth: Option<f64>,
    fairness: Vec<(String, f64)>,
}

impl Figures {
    fn new(plan: &Plan, measured: &Measured) -> Self {
        let tracks = &measured.recorder.tracks;
        let pss: Vec<f64> = measured.memory.iter().map(|m| m.pss as f64 / MIB).collect();
        let rss: Vec<f64> = measured.memory.iter().map(|m| m.rss as f64 / MIB).collect();
        let quarter = pss.len().div_ceil(4);
        let growth = (pss.len() > 1)
            .then(|| Some(median(&pss[pss.len() - quarter..])? - median(&pss[..quarter])?));
        let with = measured.by_camera.iter().zip(&measured.by_camera_without);
        let fairness = plan
            .cameras
            .iter()
            .zip(with)
            .skip(1)
            .filter_map(|(name, (a, b))| Some((name.clone(), median(&adjacent_ratios(a, b))?)));
        Self {
            latency: summary(tracks, |s| s.latency),
            ratio: summary(tracks, |s| s.ratio),
            age: summary(tracks, |s| s.age),
            throughput_ratios: adjacent_ratios(&measured.rates, &measured.bare_rates),
            latency_vs_bare: median(&adjacent_ratios(
                &measured.latencies,
                &measured.bare_latencies,
            )),
            frames_per_s: measured.frames as f64 / measured.window_s,
            pss: median(&pss),
            rss: median(&rss),
            growth: growth.flatten(),
            fairness: fairness.collect(),
        }
    }

    fn worst(&self) -> Option<f64> {
        self.fairness.iter().map(|(_, ratio)| *ratio).max_by(f64::total_cmp)
    }
}

fn object(summary: Option<Summary>) -> Value {
    summary.map_or(Value::Null, Summary::json)
}

/// Prints what was measured.
pub(super) fn report(as_json: bool, plan: &Plan, measured: &Measured) -> Result<(), Failure> {
    let figures = Figures::new(plan, measured);
    if as_json {
        return print_json("pipeline", json(plan, measured, &figures));
    }
    people(plan, measured, &figures)
}

fn json(plan: &Plan, measured: &Measured, figures: &Figures) -> Value {
    let tracks = &measured.recorder.tracks;
    let stages: Map<String, Value> = Stage::ALL
        .into_iter()
        .map(|stage| {
            let of = summary(tracks, |sample| sample.stages[stage as usize]);
            (stage.as_str().to_owned(), object(of))
        })
        .collect();
    let fps = match plan.fps[0] > 0.0 {
        true => json!(plan.fps.iter().map(|fps| round(*fps)).collect::<Vec<_>>()),
        false => json!("max"),
    };
    let per_camera: Vec<Value> = plan
        .cameras
        .iter()
        .zip(tracks)
        .zip(&plan.fps)
        .map(|((name, track), fps)| {
            json!({
                "name": name,
                "fps_offered": maybe(Some(*fps).filter(|fps| *fps > 0.0)),
                "fps": round(track.outcomes.ok as f64 / measured.window_s),
                "latency_ms": object(track.summary(|s| s.latency)),
                "age_ms": object(track.summary(|s| s.age)),
                "drop_share": round(track.outcomes.drop_share()),
            })
        })
        .collect();
    let per_frame = |seconds: f64| round(seconds * 1e3 / measured.frames as f64);
    let totals = measured.totals;
    let fairness = figures.worst().map(|worst| {
        let cameras = figures.fairness.iter();
        let cameras: Vec<Value> = cameras
            .map(|(name, ratio)| json!({"name": name, "latency_ratio": round(*ratio)}))
            .collect();
        json!({"worst_ratio": round(worst), "cameras": cameras})
    });
    json!({
        "cameras": plan.cameras.len(),
        "size": format!("{}x{}", plan.size.0, plan.size.1),
        "fps": fps,
        "mode": super::super::bare::mode(plan.mode()),
        "engine": measured.engine,
        "blocks": measured.rates.len(),
        "seconds": round(measured.window_s),
        "frames_per_s": round(figures.frames_per_s),
        "throughput_ratio": maybe(median(&figures.throughput_ratios)),
        "throughput_ratios": spread(&figures.throughput_ratios),
        "bare_frames_per_s": maybe(median(&measured.bare_rates)),
        "latency_ms": object(figures.latency),
        "latency_ratio_p50": maybe(figures.ratio.map(|s| s.p50)),
        "latency_ratio_p90": maybe(figures.ratio.map(|s| s.p90)),
        "latency_vs_bare_ratio": maybe(figures.latency_vs_bare),
        "bare_latency_ms": maybe(median(&measured.bare_latencies)),
        "age_ms": object(figures.age),
        "stages_ms": stages,
        "frames": {
            "published": measured.published, "ok": totals.ok, "skipped": totals.skipped,
            "superseded": totals.superseded, "stale": totals.stale, "failed": totals.failed,
            "missed": totals.missed, "reconciled": measured.reconciled(),
            "results_lost_here": measured.lost,
        },
        "drop_share": round(measured.recorder.outcomes().drop_share()),
        "cpu_ms_per_frame": {
            "infer": per_frame(measured.cpu.infer),
            "sources": per_frame(measured.cpu.sources),
            "total": per_frame(measured.cpu.infer + measured.cpu.sources),
        },
        "memory_mib": {
            "pss": maybe(figures.pss), "rss": maybe(figures.rss),
            "pss_growth": maybe(figures.growth),
        },
        "per_camera": per_camera,
        "fairness": fairness,
    })
}

fn people(plan: &Plan, measured: &Measured, figures: &Figures) -> Result<(), Failure> {
    let tracks = &measured.recorder.tracks;
    say(&measured.engine)?;
    let cells = |summary: Option<Summary>| {
        [|s: Summary| s.p50, |s: Summary| s.p90, |s: Summary| s.p99, |s: Summary| s.max]
            .map(|get| figure(summary.map(get)))
    };
    let row = |name: &str, summary| {
        std::iter::once(name.to_owned()).chain(cells(summary)).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> = Stage::ALL
        .into_iter()
        .map(|stage| row(stage.as_str(), summary(tracks, |s| s.stages[stage as usize])))
        .collect();
    rows.push(row("published to result", figures.latency));
    rows.push(row("  over the network", figures.ratio));
    rows.push(row("age when received", figures.age));
    say(&table(&["ms", ">p50", ">p90", ">p99", ">max"], rows))?;
    let per_camera = plan.cameras.iter().zip(tracks).zip(&plan.fps).map(|((name, track), fps)| {
        let latency = track.summary(|s| s.latency);
        vec![
            name.clone(),
            figure(Some(*fps).filter(|fps| *fps > 0.0)),
            figure(Some(track.outcomes.ok as f64 / measured.window_s)),
            figure(latency.map(|s| s.p50)),
            figure(latency.map(|s| s.p99)),
            figure(track.summary(|s| s.age).map(|s| s.p99)),
            format!("{:.1} %", track.outcomes.drop_share() * 100.0),
            figures
                .fairness
                .iter()
                .find(|(known, _)| known == name)
                .map_or_else(|| NONE.to_owned(), |(_, ratio)| format!("{ratio:.2}")),
        ]
    });
    say(&format!(
        "\n{}",
        table(
            &[
                "camera",
                ">offered/s",
                ">ok/s",
                ">p50 ms",
                ">p99 ms",
                ">age p99",
                ">dropped",
                ">with/without first"
            ],
            per_camera.collect()
        )
    ))?;
    let totals = measured.totals;
    say(&format!(
        "\n{} frames/s; {} published = {} ok + {} skipped + {} superseded + {} stale + {} failed + {} missed{}",
        figure(Some(figures.frames_per_s)),
        measured.published,
        totals.ok,
        totals.skipped,
        totals.superseded,
        totals.stale,
        totals.failed,
        totals.missed,
        if measured.reconciled() { "" } else { ": DOES NOT ADD UP" },
    ))?;
    let per_frame = |seconds: f64| figure(Some(seconds * 1e3 / measured.frames as f64));
    say(&format!(
        "CPU ms a frame: inference process {}, sources {}; memory {} MiB (PSS of all processes)",
        per_frame(measured.cpu.infer),
        per_frame(measured.cpu.sources),
        figure(figures.pss),
    ))?;
    if let Some(ratio) = median(&figures.throughput_ratios) {
        say(&format!(
            "throughput over the bare engine ({} frames/s): {ratio:.3}",
            figure(median(&measured.bare_rates))
        ))?;
    }
    if let Some(ratio) = figures.latency_vs_bare {
        say(&format!(
            "latency over the bare engine called at the same rate ({} ms): {ratio:.3}",
            figure(median(&measured.bare_latencies))
        ))?;
    }
    Ok(())
}
