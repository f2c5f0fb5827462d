//! The server's own trace on the time line of its clients.
//!
//! A server on this machine stamps with the clock that all processes share: its stamps lie
//! inside the requests of its clients. One on another machine has a clock of its own; there
//! each of its spans is laid into the middle of the request, as if the ways there and back
//! took equally long, and says so.

use super::events::{Arg, Events, Flow};
use super::lanes::{Lanes, Numbers};
use super::requests::{Part, Parts, Request};
use super::server_trace::{Served, Stamps};
use crate::out::plain;
use std::collections::HashMap;
use std::io::{self, Write};

/// Stamps are cut to whole us on one side: so much may be missing.
const SLACK_NS: u64 = 10_000;
/// With another clock, how far the distance between the clocks may be from that of most
/// requests: ids are used again when an inference process starts anew.
const APART_NS: u64 = 1_000_000_000;
/// What is said of everything whose place is not measured.
const ALIGNED: &str = " (clock aligned)";
/// The server stands between the inference process and this reader.
const ORDER: u32 = 1500;

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) requests: usize,
    /// Requests that the server's trace speaks of: what their time went into, and for how
    /// many frames.
    pub(super) exact: Vec<(Parts, u32)>,
    /// The server's clock is not that of its clients.
    pub(super) is_aligned: bool,
}

impl Merged {
    /// One line for a person.
    pub(super) fn text(&self, skipped: u64) -> String {
        let Self { requests, exact, is_aligned } = self;
        if *requests == 0 {
            return "server trace: no frame was answered by a server".to_owned();
        }
        let mut text = format!("server trace: {} of {requests} requests", exact.len());
        if exact.is_empty() {
            text += "; what is said of the server is its averages";
        } else {
            text += if *is_aligned { ", another clock (aligned)" } else { ", same clock" };
        }
        if skipped > 0 {
            text += &format!("; {skipped} damaged pieces skipped");
        }
        text
    }
}

/// The server's span of a request, and how far its clock is moved, ns.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    served: &'a Served,
    shift_ns: i128,
}

/// Draws what the server says of each request; of the others, its averages.
pub(super) fn write<W: Write>(
    requests: &[Request],
    served: &[Served],
    pid: u32,
    numbers: &mut Numbers,
    events: &mut Events<W>,
) -> io::Result<Merged> {
    let (found, is_aligned) = find(requests, served);
    let mut merged = Merged { requests: requests.len(), exact: Vec::new(), is_aligned };
    let mut pairs: Vec<(&Request, Drawn)> = Vec::new();
    for (request, found) in requests.iter().zip(found) {
        match found {
            Some(found) => pairs.push((request, Drawn::new(request, found))),
            None => request.write_estimate(events)?,
        }
    }
    if pairs.is_empty() {
        return Ok(merged);
    }
    // Rows remember the newest slices only.
    pairs.sort_by_key(|(_, drawn)| drawn.span.0);
    let suffix = if is_aligned { ALIGNED } else { "" };
    events.process(pid, &format!("triton server{suffix}"), ORDER)?;
    let mut models: HashMap<&str, Lanes> = HashMap::new();
    for (arrow, (request, drawn)) in (1..).zip(&pairs) {
        let model = &*drawn.served.model;
        let order = 100 * models.len() as u32;
        let lanes = models.entry(model).or_insert_with(|| Lanes::new(pid, &plain(model), order));
        drawn.write(request, suffix, arrow, lanes, numbers, events)?;
        merged.exact.push((drawn.parts(request), request.frames));
    }
    Ok(merged)
}

/// For each request its span in the server's trace; whether the clocks differ.
fn find<'a>(requests: &[Request], served: &'a [Served]) -> (Vec<Option<Found<'a>>>, bool) {
    let mut by_id: HashMap<u64, Vec<&Served>> = HashMap::new();
    for served in served {
        by_id.entry(served.request).or_default().push(served);
    }
    let known = |request: &Request| by_id.get(&request.server.request).map_or(&[][..], |s| s);
    let within = |request: &Request, served: &Served| {
        let early = request.send_ns.saturating_sub(SLACK_NS);
        let late = request.answered_ns.saturating_add(SLACK_NS);
        served.stamps.span().is_some_and(|(from, to)| early <= from && to <= late)
    };
    let same: Vec<Option<Found<'a>>> = requests
        .iter()
        .map(|request| {
            let served = known(request).iter().find(|served| within(request, served))?;
            Some(Found { served, shift_ns: 0 })
        })
        .collect();
    if same.iter().any(Option::is_some) {
        return (same, false);
    }
    // The newest one of an id is the likeliest.
    let fitting = |request: &Request| -> Vec<Found<'a>> {
        let fits = known(request).iter().filter_map(|served| {
            let (from_ns, to_ns) = served.stamps.span()?;
            let is_possible = to_ns - from_ns <= request.span_ns().saturating_add(SLACK_NS);
            let shift_ns = centre(request.send_ns, request.answered_ns) - centre(from_ns, to_ns);
            is_possible.then_some(Found { served, shift_ns })
        });
        fits.collect()
    };
    let newest = |request: &Request| fitting(request).iter().map(|found| found.shift_ns).min();
    let mut shifts: Vec<i128> = requests.iter().filter_map(newest).collect();
    shifts.sort_unstable();
    let Some(usual_ns) = shifts.get(shifts.len() / 2).copied() else {
        return (same, false);
    };
    let apart = |found: &Found<'_>| found.shift_ns.abs_diff(usual_ns);
    let nearest = |request: &Request| {
        let found = fitting(request).into_iter().min_by_key(apart)?;
        (apart(&found) <= u128::from(APART_NS)).then_some(found)
    };
    (requests.iter().map(nearest).collect(), true)
}

/// A request in the server, by the clock of its client.
#[derive(Debug)]
struct Drawn<'a> {
    served: &'a Served,
    /// Inside the client's request.
    span: (u64, u64),
    /// Stages with their names, one behind the other; what is not stamped is left out.
    stages: Vec<(&'static str, Option<Part>, (u64, u64))>,
}

impl<'a> Drawn<'a> {
    fn new(request: &Request, found: Found<'a>) -> Self {
        let Found { served, shift_ns } = found;
        let (from_ns, to_ns) = (request.send_ns, request.answered_ns);
        let moved = |ns: u64| {
            let ns = i128::from(ns) + shift_ns;
            u64::try_from(ns.max(0)).unwrap_or(u64::MAX).clamp(from_ns, to_ns)
        };
        let span = served.stamps.span().unwrap_or_default();
        let span = (moved(span.0), moved(span.1));
        let Stamps { queue_start, compute_start, input_end, output_start, compute_end, .. } =
            served.stamps;
        let ends = [
            ("accept", None, queue_start),
            ("queue", Some(Part::ServerQueue), compute_start),
            ("input", Some(Part::ServerInput), input_end),
            ("compute", Some(Part::ServerCompute), output_start),
            ("output", Some(Part::ServerOutput), compute_end),
        ];
        let (mut stages, mut last_ns, mut is_known) = (Vec::new(), span.0, true);
        for (name, part, stamp) in ends {
            // Stamps that contradict each other give stages without length.
            let end_ns = if stamp == 0 { last_ns } else { moved(stamp).clamp(last_ns, span.1) };
            if stamp > 0 && is_known {
                stages.push((name, part, (last_ns, end_ns)));
            }
            (last_ns, is_known) = (end_ns, stamp > 0);
        }
        if is_known {
            stages.push(("respond", None, (last_ns, span.1)));
        }
        Self { served, span, stages }
    }

    /// Where the time of the request went.
    fn parts(&self, request: &Request) -> Parts {
        let mut parts = request.parts();
        let mut other_ns = self.span.1 - self.span.0;
        for (_, part, (from_ns, to_ns)) in &self.stages {
            if let Some(part) = part {
                parts[*part as usize] = Some(to_ns - from_ns);
                other_ns -= to_ns - from_ns;
            }
        }
        parts[Part::ServerOther as usize] = Some(other_ns);
        parts[Part::Send as usize] = Some(self.span.0 - request.send_ns);
        parts[Part::Answer as usize] = Some(request.answered_ns - self.span.1);
        parts
    }

    /// Slices on both sides, and the arrow there and back.
    fn write<W: Write>(
        &self,
        request: &Request,
        suffix: &str,
        arrow: u64,
        lanes: &mut Lanes,
        numbers: &mut Numbers,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        let id = [("request", Arg::Count(request.server.request))];
        let (sent, served) = ((request.send_ns, self.span.0), self.span);
        let answer = (self.span.1, request.answered_ns);
        for (name, span) in [("send", sent), ("server", served), ("answer", answer)] {
            events.slice(request.track, &format!("{name}{suffix}"), span, &id)?;
        }
        let track = lanes.place(self.span, numbers, events)?;
        let (model, version) = (plain(&self.served.model), plain(&self.served.version));
        let args = [
            ("request", Arg::Count(request.server.request)),
            ("version", Arg::Text(&version)),
            ("frames", Arg::Count(request.frames.into())),
        ];
        events.slice(track, &format!("{model}{suffix}"), self.span, &args)?;
        for (name, _, span) in self.stages.iter().filter(|(.., span)| span.0 < span.1) {
            events.slice(track, &format!("{name}{suffix}"), *span, &[])?;
        }
        let middle = |(from_ns, to_ns): (u64, u64)| from_ns + (to_ns - from_ns) / 2;
        events.flow(request.track, "request", arrow, Flow::Start, middle(sent))?;
        events.flow(track, "request", arrow, Flow::Step, middle(served))?;
        events.flow(request.track, "request", arrow, Flow::End, middle(answer))
    }
}

fn centre(from_ns: u64, to_ns: u64) -> i128 {
    (i128::from(from_ns) + i128::from(to_ns)) / 2
}
