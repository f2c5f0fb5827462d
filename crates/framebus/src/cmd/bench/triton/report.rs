//! The figures of a run, as tables or as JSON.

use super::super::bare;
use super::super::numbers::{Summary, maybe, median, round, spread};
use super::super::{print_json, say};
use super::Args;
use super::agree::Agreement;
use super::measure::{BLOCK_CALLS, Cost, Series};
use super::server::Server;
use super::ways::{OWN, Ran, Runner, Way};
use crate::table::{NONE, figure, table};
use framebus_engine::{EngineInfo, Head};
use framebus_service::Failure;
use serde_json::{Value, json};

/// What was measured, in the order of the ways.
pub(super) struct Report<'a> {
    pub(super) args: &'a Args,
    pub(super) model: &'a str,
    pub(super) ran: Ran,
    pub(super) server: Option<&'a Server>,
    /// Different frames.
    pub(super) frames: usize,
    pub(super) ways: &'a [Way],
    pub(super) agreements: Vec<Option<Agreement>>,
    pub(super) turns: Vec<Series>,
    pub(super) costs: Vec<Cost>,
}

/// A way with its figures.
struct Row<'a> {
    way: &'a Way,
    info: Option<&'a EngineInfo>,
    frame: Option<Summary>,
    network: Option<Summary>,
    /// Medians over those in process.
    frame_ratio: Option<f64>,
    network_ratio: Option<f64>,
    cost: Cost,
    bytes: (Option<f64>, Option<f64>),
    agreement: Option<Agreement>,
}

/// framebus over another client, over the same transport.
struct Against<'a> {
    client: &'a str,
    transport: &'a str,
    ratios: Vec<f64>,
    p99: Option<f64>,
    cpu: Option<f64>,
}

fn over(value: Option<f64>, base: Option<f64>) -> Option<f64> {
    Some(value? / base?).filter(|ratio| ratio.is_finite())
}

fn head(head: Head) -> &'static str {
    match head {
        Head::Whole => "whole",
        Head::Cut => "cut",
        Head::Suppressed => "suppressed",
    }
}

impl Report<'_> {
    pub(super) fn print(&self) -> Result<(), Failure> {
        let (rows, against) = (self.rows(), self.against());
        if self.args.common.json {
            return print_json("triton", self.json(&rows, &against));
        }
        self.people(&rows, &against)
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let p50 = |summary: Option<Summary>| summary.map(|summary| summary.p50);
        let base = self.ways.iter().position(Way::in_process);
        let base = |of: fn(&Series) -> Option<Summary>| p50(of(&self.turns[base?]));
        let (frame_base, network_base) = (base(Series::frame), base(Series::network));
        let row = |number: usize| {
            let way = &self.ways[number];
            let (frame, network) = (self.turns[number].frame(), self.turns[number].network());
            Row {
                way,
                info: match &way.runner {
                    Ok(Runner::Own(own)) => Some(&own.info),
                    _ => None,
                },
                frame,
                network,
                frame_ratio: over(p50(frame), frame_base),
                network_ratio: over(p50(network), network_base),
                cost: self.costs[number],
                bytes: self.turns[number].bytes(),
                agreement: self.agreements[number].filter(|_| way.client == OWN),
            }
        };
        (0..self.ways.len()).map(row).collect()
    }

    fn against(&self) -> Vec<Against<'_>> {
        let others = self.ways.iter().enumerate().filter(|(_, way)| way.client != OWN);
        others
            .filter_map(|(other, way)| {
                let same = |own: &Way| own.client == OWN && own.transport == way.transport;
                let own = self.ways.iter().position(same)?;
                let p99 = |number: usize| self.turns[number].network().map(|network| network.p99);
                Some(Against {
                    client: &way.client,
                    transport: &way.transport,
                    ratios: within(&self.turns[own].network_ms, &self.turns[other].network_ms),
                    p99: over(p99(own), p99(other)),
                    cpu: over(self.costs[own].total_ms(false), self.costs[other].total_ms(false)),
                })
            })
            .collect()
    }

    fn json(&self, rows: &[Row<'_>], against: &[Against<'_>]) -> Value {
        let most = |of: fn(&Series) -> usize| self.turns.iter().map(of).max().unwrap_or(0);
        let against: Vec<Value> = against
            .iter()
            .map(|against| {
                json!({
                    "client": against.client, "transport": against.transport,
                    "network_ratios": spread(&against.ratios),
                    "network_p99_ratio": maybe(against.p99), "cpu_ratio": maybe(against.cpu),
                })
            })
            .collect();
        json!({
            "url": self.args.url.to_string(),
            "triton_model": self.triton_model(rows),
            "server_pid": self.server.map(|server| server.pid),
            "server_program": self.server.map(|server| server.program.as_str()),
            "model": self.model,
            "input": self.ran.input.to_string(),
            "head": head(self.ran.head),
            "size": format!("{}x{}", self.args.size.0, self.args.size.1),
            "frames": self.frames,
            "turns": most(|series| series.network_ms.len()),
            "block_calls": BLOCK_CALLS,
            "blocks": self.costs.iter().map(|cost| cost.blocks).max(),
            "ways": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "beside": against,
        })
    }

    fn triton_model<'a>(&self, rows: &'a [Row<'_>]) -> Option<&'a str> {
        let mut infos = rows.iter().filter(|row| !row.way.in_process()).filter_map(|row| row.info);
        infos.next().map(|info| info.model.as_str())
    }

    fn people(&self, rows: &[Row<'_>], against: &[Against<'_>]) -> Result<(), Failure> {
        say(&format!(
            "{} {}, {}; {} calls each, in turns, of {} frames {}x{}",
            self.model,
            self.ran.input,
            match self.ran.head {
                Head::Whole => "as exported",
                Head::Cut => "head cut off",
                Head::Suppressed => "as exported (the server drops overlapping boxes too)",
            },
            self.turns.iter().map(|series| series.network_ms.len()).max().unwrap_or(0),
            self.frames,
            self.args.size.0,
            self.args.size.1,
        ))?;
        let models = rows.iter().filter_map(|row| Some((row, row.info?)));
        let models = models.map(|(row, info)| {
            let precision = match row.way.in_process() {
                true => bare::precision(info.precision),
                false => "its precision is the server's own",
            };
            let server = if row.way.in_process() { String::new() } else { self.server_text() };
            let ran = format!("{} at {}", info.model, info.device);
            vec![
                row.way.title(),
                format!("{ran} ({} {}{server}), {precision}", info.backend, info.version),
            ]
        });
        say(&untitled(models.collect()))?;
        say("")?;
        say(&table(
            &[
                "ms",
                ">frame p50",
                ">p99",
                ">x in process",
                ">network p50",
                ">p99",
                ">x in process",
                ">frames/s",
                "",
            ],
            rows.iter().map(Row::times).collect(),
        ))?;
        say("")?;
        say(&table(
            &[
                "a frame",
                ">CPU-ms client",
                ">server",
                ">total",
                ">bytes sent",
                ">received",
                ">boxes",
                ">missing",
                ">px apart",
                ">score apart",
            ],
            rows.iter().map(Row::costs).collect(),
        ))?;
        for against in against {
            say(&format!(
                "\nnetwork by {}, framebus over {}: {} within a turn (median of {}), p99 {}, CPU {}",
                against.transport,
                against.client,
                figure(median(&against.ratios)),
                against.ratios.len(),
                figure(against.p99),
                figure(against.cpu),
            ))?;
        }
        Ok(())
    }

    fn server_text(&self) -> String {
        match self.server {
            Some(server) => format!(", process {} {}", server.pid, server.program),
            None => ", its processes were not found".to_owned(),
        }
    }
}

/// A table whose first row is no title.
fn untitled(mut rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let first = rows.remove(0);
    table(&first.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

/// Ratios of calls of the same turn.
fn within(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a / b).filter(|ratio| ratio.is_finite()).collect()
}

impl Row<'_> {
    fn json(&self) -> Value {
        let object = |summary: Option<Summary>| summary.map(Summary::json);
        let engine = self.info.map(|info| {
            json!({
                "backend": info.backend, "device": info.device, "version": info.version,
                // A server does not tell.
                "precision":
                    self.way.in_process().then(|| bare::precision(info.precision)),
            })
        });
        let agreement = self.agreement.map(|agreement| {
            json!({
                "boxes": agreement.boxes, "missing": agreement.missing,
                "box_px": round(agreement.box_px.into()), "score": round(agreement.score.into()),
            })
        });
        let total = self.cost.total_ms(self.way.in_process());
        json!({
            "client": self.way.client, "transport": self.way.transport,
            "refused": self.way.runner.as_ref().err(),
            "engine": engine,
            "frame_ms": object(self.frame), "network_ms": object(self.network),
            "frame_ratio": maybe(self.frame_ratio), "network_ratio": maybe(self.network_ratio),
            "frames_per_s": maybe(self.cost.frames_per_s()),
            "cpu_ms_per_frame": {
                "client": maybe(self.cost.client_ms()), "server": maybe(self.cost.server_ms()),
                "total": maybe(total),
            },
            "bytes_per_frame": {"sent": self.bytes.0, "received": self.bytes.1},
            "agreement": agreement,
        })
    }

    fn times(&self) -> Vec<String> {
        let p50 = |summary: Option<Summary>| figure(summary.map(|summary| summary.p50));
        let p99 = |summary: Option<Summary>| figure(summary.map(|summary| summary.p99));
        vec![
            self.way.title(),
            p50(self.frame),
            p99(self.frame),
            figure(self.frame_ratio),
            p50(self.network),
            p99(self.network),
            figure(self.network_ratio),
            figure(self.cost.frames_per_s()),
            self.way.runner.as_ref().err().cloned().unwrap_or_default(),
        ]
    }

    fn costs(&self) -> Vec<String> {
        let bytes = |bytes: Option<f64>| bytes.map_or(NONE.to_owned(), |bytes| format!("{bytes}"));
        let agreed =
            |of: &dyn Fn(Agreement) -> String| self.agreement.map_or_else(|| NONE.to_owned(), of);
        vec![
            self.way.title(),
            figure(self.cost.client_ms()),
            figure(self.cost.server_ms()),
            figure(self.cost.total_ms(self.way.in_process())),
            bytes(self.bytes.0),
            bytes(self.bytes.1),
            agreed(&|agreement| agreement.boxes.to_string()),
            agreed(&|agreement| agreement.missing.to_string()),
            agreed(&|agreement| figure(Some(agreement.box_px.into()))),
            agreed(&|agreement| format!("{:.4}", agreement.score)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_turn() {
        // A machine at half its speed in the second turn.
        assert_eq!(within(&[9.0, 18.0, 5.0], &[10.0, 20.0]), [0.9, 0.9]);
        assert_eq!(within(&[1.0], &[0.0]), [0.0; 0]);
        assert_eq!(over(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!((over(None, Some(2.0)), over(Some(1.0), Some(0.0))), (None, None));
    }

    #[test]
    fn a_list_has_no_title() {
        assert_eq!(untitled(Vec::new()), "");
        let rows =
            vec![vec!["a".to_owned(), "b".to_owned()], vec!["cc".to_owned(), "d".to_owned()]];
        let text = untitled(rows);
        assert_eq!(text.lines().map(str::trim_end).collect::<Vec<_>>(), ["a   b", "cc  d"]);
    }
}
