//! Frames that arrive and never get onto the bus: the state may not be `live`.

use framebus_service::Vitals;
use framebus_types::Counter;

/// Causes of a loss, and what a state's reason says of them.
const CAUSES: [(Counter, &str); 3] = [
    (Counter::LostMemory, "no shared memory is free for them; do readers hold too many frames?"),
    (Counter::LostBad, "they cannot be converted or sent"),
    (
        Counter::LostRate,
        "the frame-rate limit lets none pass; do the camera's time stamps advance?",
    ),
];

/// Watches what became of the frames since the last one that was published.
#[derive(Debug, Default)]
pub(crate) struct Drought {
    published: u64,
    /// Losses by cause when the last frame was published.
    lost: [u64; CAUSES.len()],
    /// When the first loss after it was seen, CLOCK_MONOTONIC ns.
    since_ns: Option<u64>,
}

impl Drought {
    /// Why nothing was published, once frames have only been lost for that long.
    pub(crate) fn look(&mut self, vitals: &Vitals, now_ns: u64, limit_ns: u64) -> Option<String> {
        if vitals.get(Counter::Published) != self.published {
            self.forget(vitals);
            return None;
        }
        let (lost, cause) = CAUSES
            .iter()
            .zip(self.lost)
            .map(|((counter, cause), before)| (vitals.get(*counter).saturating_sub(before), cause))
            .max_by_key(|(lost, _)| *lost)?;
        if lost == 0 {
            return None;
        }
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        (now_ns.saturating_sub(since_ns) > limit_ns).then(|| {
            let limit_s = limit_ns as f64 / 1e9;
            format!("frames arrive, none was published for {limit_s:.0} s: {cause}")
        })
    }

    /// Starts anew: a frame was published, or the source waits for its readers.
    pub(crate) fn forget(&mut self, vitals: &Vitals) {
        self.published = vitals.get(Counter::Published);
        self.lost = CAUSES.map(|(counter, _)| vitals.get(counter));
        self.since_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_types::Role;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn losses_alone_are_said_with_their_cause() {
        let vitals = Vitals::new(Role::Capture, "a");
        let mut drought = Drought::default();
        let mut look = |second: u64| drought.look(&vitals, second * SECOND, 5 * SECOND);
        assert_eq!(look(100), None);
        // Silence is a stall, not this.
        assert_eq!(look(200), None);
        vitals.add(Counter::LostRate, 3);
        assert_eq!(look(201), None);
        vitals.add(Counter::LostMemory, 7);
        assert_eq!(look(206), None);
        let said = look(207).expect("a drought");
        assert!(
            said.starts_with("frames arrive, none was published for 5 s: no shared memory"),
            "{said}"
        );
        // One frame that gets through ends it, and what was lost before counts no more.
        vitals.add(Counter::Published, 1);
        assert_eq!(look(208), None);
        assert_eq!(look(300), None);
        vitals.add(Counter::LostBad, 1);
        assert_eq!(look(301), None);
        assert!(look(307).is_some_and(|said| said.ends_with("converted or sent")));
    }

    #[test]
    fn waiting_for_readers_is_no_drought() {
        let vitals = Vitals::new(Role::Capture, "a");
        let mut drought = Drought::default();
        vitals.add(Counter::LostBad, 1);
        assert_eq!(drought.look(&vitals, SECOND, SECOND), None);
        drought.forget(&vitals);
        assert_eq!(drought.look(&vitals, 10 * SECOND, SECOND), None);
    }
}
