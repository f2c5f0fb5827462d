//! What the contexts of an engine share: whether the server is there, which of our memory
//! it knows, and its statistics.

use super::client::{Client, Fault};
use super::proto::{ModelRequest, ModelStatistics};
use super::region::{self, Region};
use super::{NAME, cure};
use crate::api::{ClockNs, EngineError, ServerTimes};
use framebus_config::Endpoint;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Wait before a server that went away is asked again, ns; doubles each time.
const AWAY_MIN_NS: u64 = 100_000_000;
/// Longest such wait, ns: asking costs little, and cameras wait.
const AWAY_MAX_NS: u64 = 1_000_000_000;
/// Bound on calls that take the server no time.
pub(super) const SHORT: Duration = Duration::from_millis(1000);
/// Every so many readings of the statistics the regions that nobody uses are looked for.
const SWEEP_TURNS: u32 = 10;
/// Regions that the server may hold for requests that it never answered; then it gets no
/// more of our memory.
const HELD_MAX: usize = 8;
/// How often, and how long after it refused, a server is asked to forget a region.
const FORGET_TRIES: u32 = 5;
const FORGET_AGAIN: Duration = Duration::from_millis(10);
/// How often the server's statistics are read.
const STATISTICS: Duration = Duration::from_secs(1);

/// The server, as the contexts see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) client: Client,
    pub(super) model: ModelRequest,
    /// For messages.
    pub(super) address: Endpoint,
    clock: ClockNs,
    state: Mutex<State>,
    /// Regions that were given up and that the server may have mapped.
    held: AtomicUsize,
    averages: Mutex<ServerTimes>,
    requests: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Counts how often the server went away: what it was told before is told again.
    epoch: u64,
    away: Option<Away>,
}

#[derive(Debug)]
struct Away {
    reason: String,
    /// When it is asked again.
    again_ns: u64,
    wait_ns: u64,
    /// It only left a request unanswered; it may be there.
    doubtful: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(super) fn new(
        client: Client,
        model: ModelRequest,
        address: Endpoint,
        clock: ClockNs,
    ) -> Self {
        Self {
            client,
            model,
            address,
            clock,
            state: Mutex::default(),
            held: AtomicUsize::new(0),
            averages: Mutex::default(),
            // Numbers of two processes, or of one that was restarted, shall differ in the
            // server's trace.
            requests: AtomicU64::new((u64::from(std::process::id()) << 32) | 1),
        }
    }

    /// The number of the next request.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// The present epoch, or why no request can be made. Of the threads that ask while the
    /// server is away, one at a time looks whether it is there again.
    pub(super) fn epoch(&self) -> Result<u64, EngineError> {
        let now_ns = (self.clock)();
        {
            let mut state = lock(&self.state);
            let State { epoch, away } = &mut *state;
            let Some(away) = away else { return Ok(*epoch) };
            if now_ns < away.again_ns {
                return Err(self.gone(&away.reason));
            }
            away.wait_ns = (2 * away.wait_ns).min(AWAY_MAX_NS);
            away.again_ns = now_ns + SHORT.as_nanos() as u64 + away.wait_ns;
        }
        let asked = self.client.is_ready(&self.model, SHORT);
        let mut state = lock(&self.state);
        let Err(fault) = asked else {
            if state.away.take().is_some_and(|away| !away.doubtful) {
                tracing::info!(server = %self.address, "the Triton server is there again");
            }
            return Ok(state.epoch);
        };
        let reason = fault.to_string();
        if state.away.as_ref().is_none_or(|away| away.doubtful) {
            self.went(&mut state, &reason);
        }
        if let Some(away) = &mut state.away {
            away.again_ns = (self.clock)() + away.wait_ns;
            away.reason.clone_from(&reason);
        }
        Err(self.gone(&reason))
    }

    /// Notes that it is away, from now on.
    fn went(&self, state: &mut State, reason: &str) {
        tracing::warn!(server = %self.address, reason, "the Triton server went away");
        state.epoch += 1;
        state.away = Some(Away {
            reason: reason.to_owned(),
            again_ns: (self.clock)() + AWAY_MIN_NS,
            wait_ns: AWAY_MIN_NS,
            doubtful: false,
        });
    }

    /// The server went away.
    fn lost(&self, reason: &str) -> EngineError {
        let mut state = lock(&self.state);
        if state.away.as_ref().is_none_or(|away| away.doubtful) {
            self.went(&mut state, reason);
        }
        self.gone(reason)
    }

    /// It left a request unanswered: before the next one it is asked whether it is there.
    fn doubted(&self, reason: &str) -> EngineError {
        let mut state = lock(&self.state);
        state.away.get_or_insert(Away {
            reason: reason.to_owned(),
            again_ns: 0,
            wait_ns: AWAY_MIN_NS,
            doubtful: true,
        });
        self.gone(reason)
    }

    /// It does not know what it was told: it was started again between two requests.
    pub(super) fn forgot(&self, epoch: u64) -> u64 {
        let mut state = lock(&self.state);
        // Another context may have found out before.
        if state.epoch == epoch {
            state.epoch += 1;
        }
        state.epoch
    }

    fn gone(&self, reason: &str) -> EngineError {
        EngineError::Gone { backend: NAME, reason: format!("{}: {reason}", self.address) }
    }

    /// A region whose request was given up is not used again: the server may still have it
    /// mapped, and write to it.
    pub(super) fn retire(&self, region: Region) {
        self.held.fetch_add(1, Ordering::Relaxed);
        drop(region);
    }

    /// New memory for a request, unless the server sits on too much of it already.
    pub(super) fn region(&self, length: usize) -> Result<Region, EngineError> {
        let held = self.held.load(Ordering::Relaxed);
        if held >= HELD_MAX {
            return Err(self.gone(&format!("it holds {held} requests without an answer")));
        }
        Region::create(Path::new(region::FOLDER), &self.tag(), length).map_err(|error| {
            let reason = format!("no memory for a request in {}: {error}", region::FOLDER);
            EngineError::Run { backend: NAME, stage: "letterbox", reason }
        })
    }

    fn tag(&self) -> String {
        region::server_tag(&self.address.host, self.address.port)
    }

    /// Lets the server forget a region that is not in use. One that it does not forget is
    /// looked for later.
    pub(super) fn forget(&self, mut region: Region) {
        let doubtful = lock(&self.state).away.as_ref().is_some_and(|away| away.doubtful);
        let tries = if doubtful { 0 } else { FORGET_TRIES };
        for _ in 0..tries {
            match self.client.unregister(region.name(), SHORT) {
                // On this machine a server that is not there has no memory of ours either.
                Ok(()) | Err(Fault::Lost(_)) => return region.set_known(false),
                Err(Fault::Late(_)) => {
                    self.doubted("it does not answer");
                    break;
                }
                // It answers a request a moment before it is done with it.
                Err(Fault::Refused(..)) => std::thread::park_timeout(FORGET_AGAIN),
            }
        }
        self.retire(region);
    }

    /// Lets the server forget the regions that nobody owns any more: of processes that have
    /// ended, and of requests that were given up.
    pub(super) fn sweep(&self) {
        let mut held = 0;
        for orphan in region::orphans(Path::new(region::FOLDER), &self.tag()) {
            match self.client.unregister(&orphan.name, SHORT) {
                Ok(()) => {
                    tracing::info!(name = orphan.name, "shared memory that nobody used removed");
                    orphan.remove();
                }
                // It is still in work, for some versions.
                Err(fault) => {
                    tracing::debug!(name = orphan.name, %fault, "region not forgotten yet");
                    held += 1;
                }
            }
        }
        self.held.store(held, Ordering::Relaxed);
    }

    /// What the server's statistics say of the requests of the last second.
    pub(super) fn averages(&self) -> ServerTimes {
        *lock(&self.averages)
    }

    /// Reads the statistics once a second as long as the engine lives, and where it shares
    /// memory looks after what was given up.
    pub(super) fn watch(link: &Arc<Self>, shared: bool) {
        let link = Arc::downgrade(link);
        let watch = move || {
            let mut last = None;
            for turn in 1.. {
                std::thread::park_timeout(STATISTICS);
                let Some(link) = Weak::upgrade(&link) else { return };
                if lock(&link.state).away.is_some() {
                    continue;
                }
                link.read_statistics(&mut last);
                if shared && turn % SWEEP_TURNS == 0 {
                    link.sweep();
                }
            }
        };
        // Without it the averages are unknown.
        let _ = std::thread::Builder::new().name("triton-stats".to_owned()).spawn(watch);
    }

    fn read_statistics(&self, last: &mut Option<[(u64, u64); 4]>) {
        let Ok(answer) = self.client.statistics(&self.model, SHORT) else {
            *lock(&self.averages) = ServerTimes::default();
            return;
        };
        let totals = sum(&answer.model_stats);
        let averages = last.replace(totals).map_or([0; 4], |before| {
            std::array::from_fn(|stage| average_us(before[stage], totals[stage]))
        });
        let [queue_us, compute_input_us, compute_us, compute_output_us] = averages;
        *lock(&self.averages) = ServerTimes {
            queue_us,
            compute_input_us,
            compute_us,
            compute_output_us,
            ..ServerTimes::default()
        };
    }

    /// What a call's fault means for the engine.
    pub(super) fn fault(&self, stage: &'static str, fault: &Fault) -> EngineError {
        match fault {
            Fault::Lost(reason) => self.lost(reason),
            Fault::Late(_) => self.doubted(&fault.to_string()),
            Fault::Refused(_, message) if cure::is_unloaded(message) => self.lost(message),
            Fault::Refused(..) => {
                EngineError::Run { backend: NAME, stage, reason: fault.to_string() }
            }
        }
    }
}

/// Count and ns of queue, input, inference and output, over all versions.
fn sum(models: &[ModelStatistics]) -> [(u64, u64); 4] {
    let mut totals = [(0, 0); 4];
    for stats in models.iter().filter_map(|model| model.inference.as_ref()) {
        let stages = [stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output];
        for (total, stage) in totals.iter_mut().zip(stages) {
            let stage = stage.unwrap_or_default();
            *total = (total.0 + stage.count, total.1 + stage.ns);
        }
    }
    totals
}

/// 0 when nothing was counted in between, or the server was started again.
fn average_us(before: (u64, u64), after: (u64, u64)) -> u32 {
    let count = after.0.saturating_sub(before.0);
    let ns = after.1.saturating_sub(before.1);
    ns.checked_div(count).map_or(0, |ns| u32::try_from(ns / 1000).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Duration as Total, InferStatistics};
    use super::*;

    #[test]
    fn averages_are_those_of_what_was_counted_in_between() {
        assert_eq!(average_us((10, 1_000_000), (14, 9_000_000)), 2000);
        assert_eq!(average_us((10, 1), (10, 1)), 0, "nothing");
        assert_eq!(average_us((10, 5_000_000), (2, 9_000)), 0, "started again");
        let stats = |count, ns| ModelStatistics {
            inference: Some(InferStatistics {
                queue: Some(Total { count, ns }),
                ..InferStatistics::default()
            }),
        };
        let none = ModelStatistics::default();
        assert_eq!(sum(&[stats(1, 5), none, stats(2, 7)]), [(3, 12), (0, 0), (0, 0), (0, 0)]);
    }
}
