//! Who is waited for where nothing may be lost.
//!
//! *Members* are readers that belong to the instance and know its configuration
//! (inference, sinks). *Observers* have joined from outside (`tap`, users' own
//! subscribers): nobody ever waits for one, so a hung one stops nothing.

use iceoryx2::port::port_name::PortName;
use iceoryx2::port::{BackpressureAction, BackpressureInfo};
use iceoryx2::prelude::CallbackProgression;
use iceoryx2::service::Service;
use iceoryx2::service::dynamic_config::publish_subscribe::DynamicConfig;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What an observer's port name starts with.
const OBSERVER: &str = "observer:";

/// A publisher that waits for room sleeps so long at least before it looks again: room
/// comes when an inference ends, and the readers' buffers last until it has looked.
const SHORTEST_NAP: Duration = Duration::from_micros(250);
/// Longest sleep between two looks.
const LONGEST_NAP: Duration = Duration::from_millis(8);
/// Longest first sleep, see [`WaitedFor::nap`].
const LONGEST_FIRST_NAP: Duration = Duration::from_millis(50);

/// Port name of a reader; `None` when iceoryx2 takes no such name.
pub(crate) fn port_name(reader: &str, observer: bool) -> Option<PortName> {
    let prefix = if observer { OBSERVER } else { "" };
    PortName::new(&format!("{prefix}{reader}")).ok()
}

/// Readers of a service as they are now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Readers {
    /// Members and observers.
    pub(crate) total: usize,
    /// Port ids of the members, in the order of the service's list.
    pub(crate) members: Vec<u128>,
}

impl Readers {
    /// Reads the list again, into the same memory.
    pub(crate) fn refresh<S: Service>(&mut self, service: &DynamicConfig<S::Bag>) {
        self.total = 0;
        self.members.clear();
        service.list_subscribers(|details| {
            self.total += 1;
            if !details.subscriber_name.as_str().starts_with(OBSERVER) {
                self.members.push(details.subscriber_id.value());
            }
            CallbackProgression::Continue
        });
    }
}

/// The readers that a publisher waits for, shared with its backpressure handler.
#[derive(Debug, Default, Clone)]
pub(crate) struct WaitedFor {
    ids: Arc<Mutex<Vec<u128>>>,
    /// Full observers that a sample was not kept for.
    passed_over: Arc<AtomicUsize>,
    /// How long the last sample had to wait, ns.
    last_wait_ns: Arc<AtomicU64>,
}

impl WaitedFor {
    pub(crate) fn set(&self, members: &[u128]) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if *ids != members {
            ids.clear();
            ids.extend_from_slice(members);
        }
    }

    /// What to do with a reader whose buffer is full: wait for a member until
    /// `stop` is set. One that died counts as connected until its node is
    /// cleaned, a second at most. Only asked where overflow is off.
    pub(crate) fn handler(
        &self,
        stop: Arc<AtomicBool>,
    ) -> impl Fn(&BackpressureInfo) -> BackpressureAction + Send + 'static {
        let (ids, passed_over) = (self.ids.clone(), self.passed_over.clone());
        let last_wait_ns = self.last_wait_ns.clone();
        move |info| {
            let member =
                ids.lock().unwrap_or_else(PoisonError::into_inner).contains(&info.receiver_port_id);
            if member && !stop.load(Ordering::Relaxed) {
                // Left to itself, iceoryx2 yields ten thousand times before it first
                // sleeps, and takes that time from the engine that would make room.
                let nap = Self::nap(info.elapsed_time, &last_wait_ns);
                std::thread::park_timeout(nap);
                return BackpressureAction::Retry;
            }
            passed_over.fetch_add(1, Ordering::Relaxed);
            BackpressureAction::DiscardData
        }
    }

    /// How long to sleep before looking again. Samples of one source wait about as
    /// long as the one before: three quarters of that pass in one sleep, so that a
    /// wait costs a few wake-ups and not twenty.
    fn nap(elapsed: Duration, last_wait_ns: &AtomicU64) -> Duration {
        let nap = if elapsed < SHORTEST_NAP {
            let last = Duration::from_nanos(last_wait_ns.load(Ordering::Relaxed));
            (last / 4 * 3).clamp(SHORTEST_NAP, LONGEST_FIRST_NAP)
        } else {
            (elapsed / 8).clamp(SHORTEST_NAP, LONGEST_NAP)
        };
        let waited = (elapsed + nap).min(LONGEST_FIRST_NAP * 2);
        last_wait_ns.store(waited.as_nanos() as u64, Ordering::Relaxed);
        nap
    }

    /// Readers that were full and not waited for, since the last call.
    pub(crate) fn take_passed_over(&self) -> usize {
        self.passed_over.swap(0, Ordering::Relaxed)
    }
}

/// Whether a reader of this name is subscribed.
pub(crate) fn has<S: Service>(service: &DynamicConfig<S::Bag>, reader: &str) -> bool {
    let mut found = false;
    service.list_subscribers(|details| {
        found = details.subscriber_name.as_str() == reader;
        if found { CallbackProgression::Stop } else { CallbackProgression::Continue }
    });
    found
}
