//! Requests to a server on the other side of a connection, as their client saw them.
//!
//! Inside `inference` there is `serialise`, `request` (from the first byte that could go
//! to the last one that came) and `receive`. What went on inside `request` is drawn from
//! the server's averages, unless its own trace, which is read at the end, speaks of it.

use super::events::{Arg, Events, Track};
use framebus_types::{ResultHeader, ServerTimes};
use std::collections::VecDeque;
use std::io::{self, Write};

/// Requests kept for the server's trace; of older ones the averages are drawn.
const KEPT: usize = 200_000;
/// Results of a batch come together: it is among the last so many requests.
const RECENT: usize = 64;

/// Where the time of a request went, in the order of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Serialise,
    /// Send, server and answer, where nothing says more.
    Request,
    Send,
    ServerQueue,
    ServerInput,
    ServerCompute,
    ServerOutput,
    /// Reading, parsing and handing on, which the server's stamps leave over.
    ServerOther,
    Answer,
    Receive,
}

impl Part {
    /// In the order of a request's way.
    pub(super) const ALL: [Self; PARTS] = [
        Self::Serialise,
        Self::Request,
        Self::Send,
        Self::ServerQueue,
        Self::ServerInput,
        Self::ServerCompute,
        Self::ServerOutput,
        Self::ServerOther,
        Self::Answer,
        Self::Receive,
    ];

    /// As in tables and on slices.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Serialise => "serialise",
            Self::Request => "request",
            Self::Send => "send",
            Self::ServerQueue => "server queue",
            Self::ServerInput => "server input",
            Self::ServerCompute => "server compute",
            Self::ServerOutput => "server output",
            Self::ServerOther => "server, other",
            Self::Answer => "answer",
            Self::Receive => "receive",
        }
    }

    /// With what an estimate has to say of itself.
    pub(super) fn estimated(self) -> &'static str {
        match self {
            Self::Send => "send (estimated)",
            Self::ServerQueue => "server queue (average)",
            Self::ServerInput => "server input (average)",
            Self::ServerCompute => "server compute (average)",
            Self::ServerOutput => "server output (average)",
            Self::Answer => "answer (estimated)",
            exact => exact.as_str(),
        }
    }
}

/// Number of parts.
pub(super) const PARTS: usize = 10;

/// How long each of [`Part::ALL`] took, ns; `None` for what is not known.
pub(super) type Parts = [Option<u64>; PARTS];

/// A request whose answer has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The row of its execution context.
    pub(super) track: Track,
    pub(super) server: ServerTimes,
    /// The engine began to serialise it.
    from_ns: u64,
    /// It could be sent.
    pub(super) send_ns: u64,
    /// Its answer was there.
    pub(super) answered_ns: u64,
    /// The answer was decoded.
    to_ns: u64,
    /// Frames in it.
    pub(super) frames: u32,
}

impl Request {
    /// The request of an answered frame; `None` where no server was asked. What does not
    /// fit into the time that the network took is cut to it.
    pub(super) fn of(header: &ResultHeader, track: Track) -> Option<Self> {
        let ResultHeader { server, times, .. } = *header;
        let (from_ns, to_ns) = (times.inference_start_ns, times.inference_end_ns);
        let send_ns = from_ns.saturating_add(ns(server.serialise_us)).min(to_ns);
        let answered_ns = to_ns.saturating_sub(ns(server.receive_us)).max(send_ns);
        let request = Self { track, server, from_ns, send_ns, answered_ns, to_ns, frames: 1 };
        (server.request != 0).then_some(request)
    }

    /// From the first byte that could go to the last one that came, ns.
    pub(super) fn span_ns(&self) -> u64 {
        self.answered_ns - self.send_ns
    }

    /// What is known without the server's trace. Averages that are longer than the
    /// request are shortened until they fit.
    pub(super) fn estimate(&self) -> Parts {
        let server = &self.server;
        let mut parts = self.parts();
        if !server.has_averages() {
            parts[Part::Request as usize] = Some(self.span_ns());
            return parts;
        }
        let averages = [
            (Part::ServerQueue, server.queue_us),
            (Part::ServerInput, server.compute_input_us),
            (Part::ServerCompute, server.compute_us),
            (Part::ServerOutput, server.compute_output_us),
        ];
        let span_ns = self.span_ns();
        let all_ns: u64 = averages.iter().map(|(_, us)| ns(*us)).sum();
        let share = if all_ns > span_ns { span_ns as f64 / all_ns as f64 } else { 1.0 };
        let mut left_ns = span_ns;
        for (part, us) in averages {
            let part_ns = ((ns(us) as f64 * share) as u64).min(left_ns);
            left_ns -= part_ns;
            parts[part as usize] = Some(part_ns);
        }
        parts[Part::Send as usize] = Some(left_ns / 2);
        parts[Part::Answer as usize] = Some(left_ns - left_ns / 2);
        parts
    }

    /// What the client itself has measured.
    pub(super) fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        parts[Part::Serialise as usize] = Some(self.send_ns - self.from_ns);
        parts[Part::Receive as usize] = Some(self.to_ns - self.answered_ns);
        parts
    }

    /// The slices that the client has measured.
    fn write<W: Write>(&self, events: &mut Events<W>) -> io::Result<()> {
        let server = &self.server;
        let serialise = [("bytes", Arg::Count(server.sent_bytes.into()))];
        let receive = [("bytes", Arg::Count(server.received_bytes.into()))];
        let request = [
            ("request", Arg::Count(server.request)),
            ("sent bytes", Arg::Count(server.sent_bytes.into())),
            ("received bytes", Arg::Count(server.received_bytes.into())),
        ];
        let track = self.track;
        events.slice(track, "serialise", (self.from_ns, self.send_ns), &serialise)?;
        events.slice(track, "request", (self.send_ns, self.answered_ns), &request)?;
        events.slice(track, "receive", (self.answered_ns, self.to_ns), &receive)
    }

    /// The server's averages, in the middle of the request.
    pub(super) fn write_estimate<W: Write>(&self, events: &mut Events<W>) -> io::Result<()> {
        let server = &self.server;
        let mut from_ns = self.send_ns;
        let parts = self.estimate();
        for part in &Part::ALL[Part::Send as usize..=Part::Answer as usize] {
            let Some(part_ns) = parts[*part as usize].filter(|ns| *ns > 0) else { continue };
            let average_us = match part {
                Part::ServerQueue => server.queue_us,
                Part::ServerInput => server.compute_input_us,
                Part::ServerCompute => server.compute_us,
                Part::ServerOutput => server.compute_output_us,
                _ => 0,
            };
            let average = [
                ("request", Arg::Count(server.request)),
                ("average ms of the server's last second", Arg::Ms(ns(average_us))),
            ];
            let args = if average_us > 0 { &average[..] } else { &average[..1] };
            let span = (from_ns, from_ns + part_ns);
            events.slice(self.track, part.estimated(), span, args)?;
            from_ns = span.1;
        }
        Ok(())
    }
}

/// The newest requests, where the server's trace will be read.
#[derive(Debug)]
pub(super) struct Requests {
    limit: usize,
    kept: VecDeque<Request>,
}

impl Requests {
    /// Draws averages at once, unless there is going to be a trace.
    pub(super) fn new(traced: bool) -> Self {
        Self { limit: if traced { KEPT } else { 0 }, kept: VecDeque::new() }
    }

    /// Draws the request of a batch that is drawn now.
    pub(super) fn add<W: Write>(
        &mut self,
        request: Request,
        events: &mut Events<W>,
    ) -> io::Result<()> {
        request.write(events)?;
        self.kept.push_back(request);
        if self.kept.len() > self.limit
            && let Some(oldest) = self.kept.pop_front()
        {
            oldest.write_estimate(events)?;
        }
        Ok(())
    }

    /// One more frame of a batch that has been drawn.
    pub(super) fn share(&mut self, header: &ResultHeader) {
        let id = header.server.request;
        let from_ns = header.times.inference_start_ns;
        let newest = self.kept.iter_mut().rev().take(RECENT);
        if let Some(request) =
            newest.into_iter().find(|r| r.server.request == id && r.from_ns == from_ns)
        {
            request.frames += 1;
        }
    }

    /// Takes them out, oldest first.
    pub(super) fn take(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.kept).into()
    }

    /// Their ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().map(|request| request.server.request)
    }
}

fn ns(us: u32) -> u64 {
    u64::from(us) * 1000
}
