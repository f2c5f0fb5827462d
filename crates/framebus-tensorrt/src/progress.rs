//! How far a build is.

use std::collections::BTreeMap;

/// A step of a build. Phases nest, and which there are differs between versions: the
/// names are for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// TensorRT's name for the innermost phase at work.
    pub phase: String,
    /// Steps of it that are done.
    pub step: u32,
    /// Steps that it has, at least one.
    pub steps: u32,
    /// Estimate over the whole build, 0 to 1: it never falls, and is 1 only when the
    /// plan is there.
    pub fraction: f32,
}

/// Name of the phase before TensorRT builds.
pub(crate) const PARSING: &str = "Parsing ONNX";
/// Name of the step after which the plan is there.
pub(crate) const BUILT: &str = "Plan built";

/// Share of what is left that the first phase gets that TensorRT starts by itself; the
/// rest is for those that may follow.
const BUILDING_SHARE: f32 = 0.9;
/// The same for phases that follow each other within one step of another: how many
/// will come is not told.
const NESTED_SHARE: f32 = 0.5;
/// Reading the model takes a moment of a build.
const PARSING_SHARE: f32 = 0.02;

struct Phase {
    parent: Option<String>,
    steps: u32,
    done: u32,
    /// Share of the step at work that nested phases have filled, 0 to 1.
    within: f32,
}

/// Makes fractions out of phases.
///
/// TensorRT does not tell which phases will come, nor how long a step takes: every
/// step of a phase counts alike, and the phases nested in a step fill it. Real builds
/// spend most of their time in few of the steps, so the fraction shows that something
/// goes on, and no remaining time.
#[derive(Default)]
pub(crate) struct Estimate {
    phases: BTreeMap<String, Phase>,
    /// Share of the build that phases without a parent have filled.
    past: f32,
    best: f32,
}

impl Estimate {
    pub(crate) fn start(&mut self, name: &str, parent: Option<&str>, steps: u32) -> Progress {
        let parent = parent.map(str::to_owned);
        let phase = Phase { parent, steps: steps.max(1), done: 0, within: 0.0 };
        self.phases.insert(name.to_owned(), phase);
        self.progress(name)
    }

    /// `step` counts from 0 and is over.
    pub(crate) fn step(&mut self, name: &str, step: u32) -> Progress {
        if let Some(phase) = self.phases.get_mut(name) {
            phase.done = phase.done.max(step.saturating_add(1)).min(phase.steps);
            phase.within = 0.0;
        }
        self.progress(name)
    }

    pub(crate) fn finish(&mut self, name: &str) -> Progress {
        if let Some(phase) = self.phases.get_mut(name) {
            phase.done = phase.steps;
        }
        let progress = self.progress(name);
        match self.phases.remove(name).map(|phase| phase.parent) {
            Some(None) => self.past += (1.0 - self.past) * share_of_root(name),
            Some(Some(parent)) => {
                if let Some(parent) = self.phases.get_mut(&parent) {
                    parent.within += (1.0 - parent.within) * NESTED_SHARE;
                }
            }
            None => {}
        }
        // What was nested in it is over too, whether or not that was told.
        self.phases.retain(|_, phase| phase.parent.as_deref() != Some(name));
        progress
    }

    /// The end of the build.
    pub(crate) fn built() -> Progress {
        Progress { phase: BUILT.to_owned(), step: 1, steps: 1, fraction: 1.0 }
    }

    fn progress(&mut self, name: &str) -> Progress {
        let roots = self.phases.iter().filter(|(_, phase)| phase.parent.is_none());
        let at_work =
            roots.map(|(root, _)| self.share(root, 0) * share_of_root(root)).fold(0.0, f32::max);
        let now = self.past + (1.0 - self.past) * at_work;
        // Below 1, which is said by `built` alone.
        self.best = self.best.max(now).min(0.999);
        let (step, steps) = self.phases.get(name).map_or((0, 1), |phase| (phase.done, phase.steps));
        Progress { phase: name.to_owned(), step, steps, fraction: self.best }
    }

    /// How much of a phase is done, 0 to 1.
    fn share(&self, name: &str, depth: usize) -> f32 {
        let Some(phase) = self.phases.get(name) else { return 0.0 };
        // Names come from outside: a circle of parents must not be followed for ever.
        let nested = if depth > 16 {
            0.0
        } else {
            self.phases
                .iter()
                .filter(|(_, nested)| nested.parent.as_deref() == Some(name))
                .map(|(nested, _)| self.share(nested, depth + 1))
                .fold(0.0, f32::max)
        };
        let within = phase.within + (1.0 - phase.within) * NESTED_SHARE * nested;
        ((phase.done as f32 + within) / phase.steps as f32).min(1.0)
    }
}

fn share_of_root(name: &str) -> f32 {
    if name == PARSING { PARSING_SHARE } else { BUILDING_SHARE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(progress: &Progress, fraction: f32) {
        assert!((progress.fraction - fraction).abs() < 1e-3, "{progress:?}, not {fraction}");
    }

    #[test]
    fn nested_phases_fill_the_steps_of_the_outer_one() {
        let mut estimate = Estimate::default();
        near(&estimate.start("Building", None, 2), 0.0);
        near(&estimate.start("Timing", Some("Building"), 4), 0.0);
        // Half of the first of two steps, of nine tenths of the build.
        near(&estimate.step("Timing", 1), 0.9 * 0.5 * 0.25);
        let timed = estimate.step("Timing", 3);
        assert_eq!((timed.phase.as_str(), timed.step, timed.steps), ("Timing", 4, 4));
        near(&timed, 0.9 * 0.5 * 0.5);
        near(&estimate.finish("Timing"), 0.9 * 0.5 * 0.5);
        near(&estimate.start("Choosing", Some("Building"), 1), 0.9 * 0.5 * 0.5);
        near(&estimate.step("Choosing", 0), 0.9 * 0.5 * 0.75);
        estimate.finish("Choosing");
        near(&estimate.step("Building", 0), 0.9 * 0.5);
        near(&estimate.finish("Building"), 0.9);
        near(&estimate.start("Another", None, 1), 0.9);
        near(&estimate.step("Another", 0), 0.99);
        assert!((Estimate::built().fraction - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn whatever_comes_the_fraction_never_falls_and_stays_below_one() {
        let mut estimate = Estimate::default();
        let mut last = 0.0;
        let mut check = |progress: Progress| {
            assert!(progress.fraction >= last && progress.fraction < 1.0, "{progress:?}");
            assert!(progress.step <= progress.steps && progress.steps > 0, "{progress:?}");
            last = progress.fraction;
        };
        check(estimate.step("unknown", u32::MAX));
        check(estimate.finish("unknown"));
        // A circle of parents, no steps, names used twice.
        check(estimate.start("a", Some("b"), 0));
        check(estimate.start("b", Some("a"), 3));
        check(estimate.start("self", Some("self"), 3));
        check(estimate.step("self", 1));
        for _ in 0..50 {
            check(estimate.start("root", None, 2));
            check(estimate.start("root", None, 1));
            check(estimate.step("root", 7));
            check(estimate.step("a", 0));
            check(estimate.finish("root"));
        }
    }
}
