//! Engines that take minutes to build.
//!
//! A better backend may have to build an engine for this machine before it can be loaded.
//! Meanwhile the next one serves, and the build runs on a thread of its own. When all
//! inputs that cameras use are built, the process restarts and loads the better one.

use crate::backends::Returning;
use framebus_engine::{Build, EngineError, LoadOptions, Progress, Report, Shape};
use framebus_model::Model;
use framebus_service::{Shutdown, Vitals, clock};
use framebus_types::State;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Steps of progress between two lines of the log, as a fraction of the whole.
const LOGGED: f32 = 0.1;

/// How long a build has to end when the process does.
const END: Duration = Duration::from_secs(3);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the end of a build that was told to stop; false when it does not come soon,
/// because the library is in the middle of something.
pub(crate) fn ended(build: &JoinHandle<()>, mut alive: impl FnMut()) -> bool {
    let begin_ns = clock::monotonic_ns();
    while !build.is_finished() {
        if clock::monotonic_ns().saturating_sub(begin_ns) > END.as_nanos() as u64 {
            return false;
        }
        std::thread::park_timeout(LOOK);
        alive();
    }
    true
}

/// What a build tells others.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    pub(crate) process: Arc<Vitals>,
    pub(crate) shutdown: Shutdown,
    /// Counted up by two at each step: whoever waits sees that it goes on.
    pub(crate) turns: Arc<AtomicU64>,
}

impl Telling {
    /// Puts a build into the words of the process's state, as long as that is a good one,
    /// and into the log now and then; stops it when the process stops.
    pub(crate) fn report(&self) -> Report {
        let Self { process, shutdown, turns } = self.clone();
        let (begun, logged) = (Mutex::new(None::<(Shape, u64)>), Mutex::new(0.0));
        Report::new(move |progress| {
            turns.fetch_add(2, Ordering::Relaxed);
            let now_ns = clock::monotonic_ns();
            let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
            let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
            let begin_ns = match *begun {
                Some((shape, begin_ns)) if shape == progress.shape && progress.fraction > 0.0 => {
                    begin_ns
                }
                _ => {
                    (*begun, *logged) = (Some((progress.shape, now_ns)), 0.0);
                    now_ns
                }
            };
            let text = words(progress, now_ns.saturating_sub(begin_ns));
            let state = process.state();
            if matches!(state, State::Starting | State::Live) {
                process.set_state(state, if progress.fraction < 1.0 { &text } else { "" });
            }
            if progress.fraction >= *logged + LOGGED {
                *logged = progress.fraction;
                tracing::info!(phase = progress.phase, "{text}");
            }
            !shutdown.requested()
        })
    }
}

/// `building the tensorrt engine for 384x640: 43 %, about 40 s left`.
fn words(progress: &Progress, since_ns: u64) -> String {
    let done = f64::from(progress.fraction);
    let mut text = format!(
        "building the {} engine for {}: {:.0} %",
        progress.backend,
        progress.shape,
        (done * 100.0).floor()
    );
    // Before that it would be a guess.
    if done > 0.05 {
        let left_s = since_ns as f64 / 1e9 * (1.0 - done) / done;
        text.push_str(&format!(", about {left_s:.0} s left"));
    }
    text
}

/// What is built in the background.
pub(crate) struct Background {
    /// Whose engine.
    pub(crate) backend: &'static str,
    pub(crate) model: PathBuf,
    pub(crate) options: LoadOptions,
    /// The inputs that cameras use now.
    pub(crate) shapes: Arc<Mutex<Vec<Shape>>>,
    pub(crate) telling: Telling,
    /// Where to say that the backend can be taken.
    pub(crate) returning: Returning,
}

impl Background {
    /// Builds on a thread of its own.
    pub(crate) fn start(self) -> Option<JoinHandle<()>> {
        let backend = self.backend;
        let spawned = std::thread::Builder::new().name("build".to_owned()).spawn(|| self.run());
        spawned
            .inspect_err(
                |error| tracing::warn!(backend, %error, "the engine is not built: no thread"),
            )
            .ok()
    }

    fn run(self) {
        let Self { backend, model, options, shapes, telling, returning } = self;
        let report = telling.report();
        let options = LoadOptions { build: Build::Now, report: Some(report), ..options };
        let build = || -> Result<(), String> {
            let text = |error: &dyn std::error::Error| error.to_string();
            let model = Model::open(&model).map_err(|error| text(&error))?;
            let found = framebus_engine::backend(backend).map_err(|error| text(&error))?;
            // First the one that it begins with, which need not be the serving backend's.
            let (mut done, mut wanted) = (Vec::new(), None);
            loop {
                match found.build(&model, &options, wanted.as_slice(), false) {
                    Ok(built) => {
                        let kept = built.iter().try_for_each(|built| match &built.file {
                            Ok(_) => Ok(()),
                            Err(reason) => Err(format!("it cannot be kept: {reason}")),
                        });
                        kept?;
                        done.extend(built.iter().map(|built| built.shape));
                    }
                    // An input of the serving backend that this one will not be asked for.
                    Err(EngineError::Unsupported { .. }) if wanted.is_some() => {}
                    Err(error) => return Err(text(&error)),
                }
                done.extend(wanted);
                let in_use = shapes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                wanted = in_use.into_iter().find(|shape| !done.contains(shape));
                if wanted.is_none() {
                    break;
                }
            }
            // The process restarts for it: so it must be sure to load.
            let options = LoadOptions { build: Build::Later, contexts: 1, ..options.clone() };
            found.load(&model, &options).map(drop).map_err(|error| text(&error))
        };
        let result = build();
        let process = &telling.process;
        if process.state() == State::Live {
            process.set_state(State::Live, "");
        }
        match result {
            Ok(()) => {
                tracing::info!(backend, "the engine is built");
                returning.say(format!("the engine of {backend} is built"));
            }
            Err(_) if telling.shutdown.requested() => {}
            Err(reason) => tracing::warn!(
                backend,
                reason,
                "the engine cannot be built; the backend is not used until the next start"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_words() {
        let shape = Shape { height: 384, width: 640 };
        let at =
            |fraction| Progress { backend: "tensorrt", shape, phase: "x".to_owned(), fraction };
        assert_eq!(words(&at(0.0), 5_000_000_000), "building the tensorrt engine for 384x640: 0 %");
        assert_eq!(
            words(&at(0.25), 10_000_000_000),
            "building the tensorrt engine for 384x640: 25 %, about 30 s left"
        );
    }
}
