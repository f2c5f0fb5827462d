//! OpenTelemetry: a trace of some frames, posted to a collector by OTLP over HTTP.
//!
//! Nothing waits on disk: traces say where the time goes, and a gap in them does no harm.
//! What the collector does not take waits in bounded memory; the oldest go and are counted.

mod sender;
mod trace;

use crate::deliver::DRAIN;
use crate::feed::{Feed, Message};
use framebus_client::ResultSample;
use framebus_config::{Otlp, Sink};
use framebus_service::{Failure, Kind, Service, Vitals, clock};
use framebus_types::{Counter, Outcome, State};
use sender::{Queue, Sender};
use std::sync::Arc;
use trace::TraceId;

/// Frames that failed and would have no trace by chance, a second: enough to see what is
/// wrong, and no flood from an instance in which everything is.
const FAILURES_PER_S: u32 = 10;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    otlp: &Otlp,
    vitals: &Arc<Vitals>,
) -> Result<(), Failure> {
    vitals.set_detail(&format!("otlp to {}", otlp.url.origin()));
    let queue = Arc::new(Queue::new(vitals.clone()));
    let sender = Sender::new(otlp, service.config().instance.as_str(), &queue);
    let worker = std::thread::Builder::new()
        .name("otlp".to_owned())
        .spawn(move || sender.run())
        .map_err(|error| Failure::message(Kind::Unavailable, format_args!("thread: {error}")))?;
    let mut sampler = Sampler::new(otlp.sample);
    let mut feed = Feed::open(service, sink, vitals, (true, false))?;
    // Nothing is known to be wrong before the first trace.
    vitals.set_state(State::Live, "");
    service.ready();
    let result = loop {
        let turn = feed.turn(|message| {
            if let Message::Result(result) = message {
                take(result, &mut sampler, &queue, vitals);
            }
        });
        match turn {
            Ok(true) => queue.tell(),
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    queue.finish(&worker, DRAIN);
    result
}

fn take(result: &ResultSample, sampler: &mut Sampler, queue: &Queue, vitals: &Vitals) {
    let header = result.header();
    let id = TraceId::of(result.camera(), header.epoch_ns, header.sequence);
    if !sampler.wants(id, result.outcome() == Outcome::Failed, clock::monotonic_ns()) {
        return;
    }
    match trace::spans(id, result) {
        Some(spans) => queue.push(spans),
        None => vitals.add(Counter::BadHeaders, 1),
    }
}

/// Which frames have a trace: by the id, so that who samples the same frame elsewhere, or
/// this one once more, decides alike.
#[derive(Debug)]
struct Sampler {
    /// What [`TraceId::randomness`] must reach.
    threshold: u64,
    /// The second, and the failures that had a trace in it for being one.
    failures: (u64, u32),
}

impl Sampler {
    fn new(sample: f64) -> Self {
        // At most 2^56, which a float holds exactly.
        let threshold = ((1.0 - sample) * (1_u64 << 56) as f64) as u64;
        Self { threshold, failures: (0, 0) }
    }

    fn wants(&mut self, id: TraceId, failed: bool, now_ns: u64) -> bool {
        if id.randomness() >= self.threshold {
            return true;
        }
        let second = now_ns / 1_000_000_000;
        if self.failures.0 != second {
            self.failures = (second, 0);
        }
        let wanted = failed && self.failures.1 < FAILURES_PER_S;
        self.failures.1 += u32::from(wanted);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_even_and_the_same_each_time_and_failures_come_in_bounds() {
        let id = |sequence| TraceId::of("a", 1, sequence);
        let count = |sample| {
            let mut sampler = Sampler::new(sample);
            (0..10_000).filter(|sequence| sampler.wants(id(*sequence), false, 0)).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        // Five standard deviations to either side, and the ids are always these.
        assert!((850..1150).contains(&count(0.1)), "{}", count(0.1));
        assert_eq!(count(0.1), count(0.1));
        let (mut few, mut many) = (Sampler::new(0.1), Sampler::new(0.3));
        for sequence in 0..1000 {
            let wanted = few.wants(id(sequence), false, 0);
            assert!(!wanted || many.wants(id(sequence), false, 0), "{sequence}");
        }
        let mut none = Sampler::new(0.0);
        let mut failed = |now_ns| (0..100).filter(|n| none.wants(id(*n), true, now_ns)).count();
        assert_eq!((failed(0), failed(999_999_999), failed(1_000_000_000)), (10, 0, 10));
    }
}
