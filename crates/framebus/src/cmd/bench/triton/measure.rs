//! Calls in turns, and blocks of calls in turns.

use super::super::numbers::{Summary, median};
use super::agree::Agreement;
use super::server::Server;
use super::ways::{Call, Runner, Way};
use framebus_service::{Failure, Shutdown, clock};
use framebus_vision::{Detection, FrameView};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Calls of each way that are not counted, at least, and for how long, ns.
const WARM_CALLS: usize = 5;
const WARM_NS: u64 = 500_000_000;
/// Counted calls of a block: CPU time of other processes is told in steps of 10 ms.
pub(super) const BLOCK_CALLS: u32 = 20;
/// Calls at the start of a block that are not counted: threads of the way before it go
/// to sleep.
const LEAD_CALLS: usize = 2;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Seconds(f64),
    Calls(u32),
}

impl Length {
    /// Whether `done` turns of `calls` calls since `begin_ns` suffice.
    fn reached(self, done: u32, calls: u32, begin_ns: u64) -> bool {
        match self {
            _ if done == 0 => false,
            Self::Calls(wanted) => done * calls >= wanted,
            Self::Seconds(wanted) => (clock::monotonic_ns() - begin_ns) as f64 / 1e9 >= wanted,
        }
    }
}

/// The calls of a way, in their order.
#[derive(Debug, Default)]
pub(super) struct Series {
    frame_ms: Vec<f64>,
    pub(super) network_ms: Vec<f64>,
    bytes: Vec<(f64, f64)>,
}

impl Series {
    fn add(&mut self, call: Call) {
        self.frame_ms.extend(call.frame_ms);
        self.network_ms.push(call.network_ms);
        if call.sent > 0 {
            self.bytes.push((call.sent.into(), call.received.into()));
        }
    }

    pub(super) fn frame(&self) -> Option<Summary> {
        Summary::of(&mut self.frame_ms.clone())
    }

    pub(super) fn network(&self) -> Option<Summary> {
        Summary::of(&mut self.network_ms.clone())
    }

    /// Medians, sent and received.
    pub(super) fn bytes(&self) -> (Option<f64>, Option<f64>) {
        let (sent, received): (Vec<f64>, Vec<f64>) = self.bytes.iter().copied().unzip();
        (median(&sent), median(&received))
    }
}

/// What the blocks of a way took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) blocks: u32,
    took_s: f64,
    client_s: Option<f64>,
    server_s: Option<f64>,
}

impl Cost {
    fn calls(&self) -> Option<f64> {
        (self.blocks > 0).then(|| f64::from(self.blocks * BLOCK_CALLS))
    }

    pub(super) fn frames_per_s(&self) -> Option<f64> {
        Some(self.calls()? / self.took_s)
    }

    /// CPU-ms a frame of the client.
    pub(super) fn client_ms(&self) -> Option<f64> {
        Some(self.client_s? * 1e3 / self.calls()?)
    }

    /// CPU-ms a frame of the server and its children.
    pub(super) fn server_ms(&self) -> Option<f64> {
        Some(self.server_s? * 1e3 / self.calls()?)
    }

    /// Of both; the client's alone where no server takes part.
    pub(super) fn total_ms(&self, in_process: bool) -> Option<f64> {
        if in_process { self.client_ms() } else { Some(self.client_ms()? + self.server_ms()?) }
    }
}

/// Every frame once through every way, and then more until threads and caches have come
/// to life. Answers the boxes of each way beside those of the first that has any.
pub(super) fn warm_up(
    ways: &mut [Way],
    frames: &[FrameView<'_>],
    shutdown: &Shutdown,
) -> Result<Vec<Option<Agreement>>, Failure> {
    let begin_ns = clock::monotonic_ns();
    let mut found: Vec<Vec<Vec<Detection>>> = ways.iter().map(|_| Vec::new()).collect();
    let least = frames.len().max(WARM_CALLS);
    for (number, frame) in frames.iter().cycle().enumerate() {
        if number >= least && clock::monotonic_ns() - begin_ns >= WARM_NS {
            break;
        }
        if shutdown.wait(Duration::ZERO) {
            return Err(super::super::interrupted());
        }
        for (way, found) in ways.iter_mut().zip(&mut found) {
            way.call(frame)?;
            if let (true, Some(boxes)) = (number < frames.len(), way.boxes()) {
                found.push(boxes.to_vec());
            }
        }
    }
    let reference = found.iter().find(|found| !found.is_empty()).cloned().unwrap_or_default();
    let agreement = |found: &Vec<_>| (!found.is_empty()).then(|| Agreement::of(found, &reference));
    Ok(found.iter().map(agreement).collect())
}

/// One call of each way after the other.
pub(super) fn turns(
    ways: &mut [Way],
    frames: &[FrameView<'_>],
    length: Length,
    shutdown: &Shutdown,
) -> Result<Vec<Series>, Failure> {
    let begin_ns = clock::monotonic_ns();
    let mut all: Vec<Series> = ways.iter().map(|_| Series::default()).collect();
    let mut done = 0;
    while !length.reached(done, 1, begin_ns) {
        if shutdown.wait(Duration::ZERO) {
            break;
        }
        let frame = &frames[done as usize % frames.len()];
        for (way, series) in ways.iter_mut().zip(&mut all) {
            if let Some(call) = way.call(frame)? {
                series.add(call);
            }
        }
        done += 1;
    }
    if done == 0 { Err(super::super::interrupted()) } else { Ok(all) }
}

/// A block of calls of each way after the other, for what the processes cost.
pub(super) fn blocks(
    ways: &mut [Way],
    frames: &[FrameView<'_>],
    length: Length,
    server: Option<&Server>,
    shutdown: &Shutdown,
) -> Result<Vec<Cost>, Failure> {
    let begin_ns = clock::monotonic_ns();
    let mut all = vec![Cost::default(); ways.len()];
    let mut done = 0;
    while !length.reached(done, BLOCK_CALLS, begin_ns) {
        for (way, cost) in ways.iter_mut().zip(&mut all) {
            // What a part of a round would say, another part would not.
            if shutdown.wait(Duration::ZERO) {
                return Ok(all);
            }
            if way.runner.is_ok() {
                block(way, cost, frames, server)?;
            }
        }
        done += 1;
    }
    Ok(all)
}

fn block(
    way: &mut Way,
    cost: &mut Cost,
    frames: &[FrameView<'_>],
    server: Option<&Server>,
) -> Result<(), Failure> {
    let mut frames = frames.iter().cycle();
    for frame in frames.by_ref().take(LEAD_CALLS) {
        way.call(frame)?;
    }
    // In process it has no part.
    let server = server.filter(|_| !way.in_process());
    let server_before_s = server.and_then(Server::cpu_s);
    let client_before_s = client_s(way);
    let begin_ns = clock::monotonic_ns();
    for frame in frames.take(BLOCK_CALLS as usize) {
        way.call(frame)?;
    }
    cost.took_s += (clock::monotonic_ns() - begin_ns) as f64 / 1e9;
    add(&mut cost.client_s, client_before_s, client_s(way));
    add(&mut cost.server_s, server_before_s, server.and_then(Server::cpu_s));
    cost.blocks += 1;
    Ok(())
}

fn add(sum: &mut Option<f64>, before: Option<f64>, after: Option<f64>) {
    if let (Some(before), Some(after)) = (before, after) {
        *sum = Some(sum.unwrap_or(0.0) + (after - before).max(0.0));
    }
}

/// CPU time so far of the process that asks, seconds.
fn client_s(way: &Way) -> Option<f64> {
    match way.runner.as_ref().ok()? {
        Runner::Own(_) => {
            let now = clock_gettime(ClockId::ProcessCPUTime);
            Some(now.tv_sec as f64 + now.tv_nsec as f64 / 1e9)
        }
        Runner::Other(other) => other.cpu_s(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_seconds_end_after_one_turn_at_the_earliest() {
        let now_ns = clock::monotonic_ns();
        assert!(!Length::Calls(1).reached(0, 20, now_ns));
        assert!(Length::Calls(1).reached(1, 20, now_ns));
        assert!(!Length::Calls(21).reached(1, 20, now_ns));
        assert!(!Length::Seconds(0.0).reached(0, 1, now_ns));
        assert!(Length::Seconds(0.0).reached(1, 1, now_ns));
        assert!(!Length::Seconds(1000.0).reached(5, 1, now_ns));
    }

    #[test]
    fn costs_are_a_frame_and_unknown_without_their_process() {
        let cost = Cost { blocks: 2, took_s: 4.0, client_s: Some(0.4), server_s: Some(1.2) };
        assert_eq!(cost.frames_per_s(), Some(10.0));
        assert_eq!((cost.client_ms(), cost.server_ms()), (Some(10.0), Some(30.0)));
        assert_eq!((cost.total_ms(false), cost.total_ms(true)), (Some(40.0), Some(10.0)));
        let far = Cost { server_s: None, ..cost };
        assert_eq!((far.client_ms(), far.total_ms(false)), (Some(10.0), None));
        assert_eq!(Cost::default().frames_per_s(), None);
    }

    #[test]
    fn bytes_are_told_of_messages_only() {
        let mut series = Series::default();
        series.add(Call { network_ms: 1.0, ..Call::default() });
        assert_eq!(series.bytes(), (None, None));
        series.add(Call { frame_ms: Some(2.0), network_ms: 1.5, sent: 300, received: 40 });
        assert_eq!(series.bytes(), (Some(300.0), Some(40.0)));
        assert_eq!(series.frame().map(|s| s.p50), Some(2.0));
        assert_eq!(series.network().map(|s| s.max), Some(1.5));
    }
}
