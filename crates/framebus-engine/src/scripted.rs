//! A fake engine for tests of what drives engines.
//!
//! It answers what a script says: boxes, failures, values that are no numbers,
//! death, a panic, each after a delay or when a [`Gate`] opens. No name in a
//! configuration selects it; real binaries never load it.
//!
//! ```
//! use framebus_engine::scripted::{Action, Script, ScriptedBackend};
//!
//! let script = Script { max_batch: 4, ..Script::default() }
//!     .then(Action::Answer(vec![]))
//!     .then(Action::Fail("out of memory".into()));
//! let backend = ScriptedBackend::new(script);
//! assert_eq!(backend.calls().len(), 0);
//! ```

use crate::api::{
    Backend, BatchOutput, ClockNs, Context, Engine, EngineError, EngineInfo, FrameOutput,
    FrameRequest, Head, LoadOptions, Mode, Precision, Shape, ShapePolicy, StageTimes,
};
use framebus_model::Model;
use framebus_vision::Detection;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Name in [`EngineInfo`] and errors.
pub const NAME: &str = "scripted";

/// What one call of `run` does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// These boxes for each frame of the batch.
    Answer(Vec<Detection>),
    /// [`EngineError::Run`] with this reason.
    Fail(String),
    /// [`EngineError::Gone`] with this reason.
    Leave(String),
    /// The error of a backend whose network answered NaN.
    NotFinite,
    /// Fails now and at every later call of every context.
    Die,
    /// Panics, as a bug in a backend would.
    Panic,
}

/// What a scripted engine is and does.
#[derive(Debug, Clone)]
pub struct Script {
    /// Largest batch.
    pub max_batch: usize,
    /// Contexts when the options ask for none.
    pub contexts: usize,
    /// Which input serves which frame; `None`: the model's own for every frame.
    pub shapes: Option<ShapePolicy>,
    /// How long each call takes.
    pub delay: Duration,
    /// When given, each call waits here for one permit, after `delay`.
    pub gate: Option<Gate>,
    /// What the first calls do, in the order in which they start.
    pub steps: VecDeque<Action>,
    /// What calls do after the steps.
    pub rest: Action,
    /// When given, `load` fails with this reason.
    pub load_failure: Option<String>,
    /// [`EngineInfo::returns`].
    pub returns: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            max_batch: 1,
            contexts: 1,
            shapes: None,
            delay: Duration::ZERO,
            gate: None,
            steps: VecDeque::new(),
            rest: Action::Answer(Vec::new()),
            load_failure: None,
            returns: false,
        }
    }
}

impl Script {
    /// Adds a step.
    #[must_use]
    pub fn then(mut self, action: Action) -> Self {
        self.steps.push_back(action);
        self
    }
}

/// Lets calls through one by one, so that a test decides when each one ends.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    shared: Arc<(Mutex<Permits>, Condvar)>,
}

#[derive(Debug, Default)]
struct Permits {
    free: usize,
    waiting: usize,
    open: bool,
}

impl Gate {
    /// Lets `count` more calls through.
    pub fn release(&self, count: usize) {
        self.permits().free += count;
        self.shared.1.notify_all();
    }

    /// Lets every call through from now on; for the end of a test.
    pub fn open(&self) {
        self.permits().open = true;
        self.shared.1.notify_all();
    }

    /// Waits until `count` calls stand at the gate; `false` after `limit`.
    #[must_use]
    pub fn wait_for_waiting(&self, count: usize, limit: Duration) -> bool {
        let permits = self.permits();
        let waited =
            self.shared.1.wait_timeout_while(permits, limit, |permits| permits.waiting < count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn pass(&self) {
        let mut permits = self.permits();
        permits.waiting += 1;
        self.shared.1.notify_all();
        let mut permits = self
            .shared
            .1
            .wait_while(permits, |permits| permits.free == 0 && !permits.open)
            .unwrap_or_else(PoisonError::into_inner);
        permits.waiting -= 1;
        permits.free = permits.free.saturating_sub(1);
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of `run`, as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which context, from 0.
    pub context: usize,
    /// The context's input.
    pub shape: Shape,
    /// Width and height of each frame, in order.
    pub sizes: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct State {
    script: Script,
    dead: bool,
    calls: Vec<Call>,
}

/// Loads scripted engines; clones and engines share one script and one record.
#[derive(Debug, Clone)]
pub struct ScriptedBackend {
    state: Arc<Mutex<State>>,
}

impl ScriptedBackend {
    /// A backend that plays `script`.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { state: Arc::new(Mutex::new(State { script, dead: false, calls: Vec::new() })) }
    }

    /// What was asked so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// An engine without a model, whose classes are `labels`.
    #[must_use]
    pub fn engine(&self, labels: &[&str], clock: ClockNs) -> Box<dyn Engine> {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        Box::new(self.build("scripted", labels, (640, 640), 0, clock))
    }

    fn build(
        &self,
        model: &str,
        labels: Vec<String>,
        (height, width): (usize, usize),
        contexts: usize,
        clock: ClockNs,
    ) -> ScriptedEngine {
        let base = Shape { height, width };
        let state = lock(&self.state);
        let count = if contexts == 0 { state.script.contexts } else { contexts };
        let info = EngineInfo {
            backend: NAME,
            device: "none".to_owned(),
            version: "0".to_owned(),
            model: model.to_owned(),
            precision: Precision::F32,
            head: Head::Whole,
            shapes: state.script.shapes.unwrap_or(ShapePolicy::Fixed(base)),
            base,
            mode: Mode::Latency,
            contexts: count.max(1),
            max_batch: state.script.max_batch,
            labels,
            returns: state.script.returns,
        };
        ScriptedEngine { info, clock, state: Arc::clone(&self.state), handed_out: Vec::new() }
    }
}

impl Backend for ScriptedBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, _: &LoadOptions) -> Result<String, EngineError> {
        match &lock(&self.state).script.load_failure {
            Some(reason) => Err(EngineError::Unavailable { backend: NAME, reason: reason.clone() }),
            None => Ok("a script".to_owned()),
        }
    }

    fn load(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
        self.probe(options)?;
        let size = model.size().or(model.image_size()).unwrap_or((640, 640));
        let labels = model.labels().to_vec();
        Ok(Box::new(self.build(model.name(), labels, size, options.contexts, options.clock)))
    }
}

struct ScriptedEngine {
    info: EngineInfo,
    clock: ClockNs,
    state: Arc<Mutex<State>>,
    handed_out: Vec<Shape>,
}

impl Engine for ScriptedEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn contexts(&mut self, shape: Shape) -> Result<Vec<Box<dyn Context>>, EngineError> {
        if self.handed_out.contains(&shape) {
            return Ok(Vec::new());
        }
        self.handed_out.push(shape);
        let context = |number| -> Box<dyn Context> {
            Box::new(ScriptedContext {
                number,
                shape,
                clock: self.clock,
                state: Arc::clone(&self.state),
            })
        };
        Ok((0..self.info.contexts).map(context).collect())
    }
}

struct ScriptedContext {
    number: usize,
    shape: Shape,
    clock: ClockNs,
    state: Arc<Mutex<State>>,
}

impl Context for ScriptedContext {
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError> {
        let preprocessed_ns = (self.clock)();
        let (action, delay, gate) = {
            let mut state = lock(&self.state);
            let sizes = batch.iter().map(|r| (r.view.width(), r.view.height())).collect();
            state.calls.push(Call { context: self.number, shape: self.shape, sizes });
            if batch.is_empty() || batch.len() > state.script.max_batch {
                return Err(run_error("the batch has no frame or more than max_batch"));
            }
            let next = state.script.steps.pop_front();
            let action = next.unwrap_or_else(|| state.script.rest.clone());
            state.dead |= action == Action::Die;
            let action = if state.dead { Action::Die } else { action };
            (action, state.script.delay, state.script.gate.clone())
        };
        wait(delay);
        if let Some(gate) = gate {
            gate.pass();
        }
        let detections = match action {
            Action::Answer(detections) => detections,
            Action::Fail(reason) => return Err(run_error(&reason)),
            Action::Leave(reason) => {
                return Err(EngineError::Gone { backend: NAME, reason });
            }
            Action::NotFinite => return Err(run_error("output values are not finite numbers")),
            Action::Die => return Err(run_error("the engine is dead")),
            Action::Panic => panic!("scripted panic"),
        };
        if output.frames.len() < batch.len() {
            output.frames.resize_with(batch.len(), FrameOutput::default);
        }
        for (frame, request) in output.frames.iter_mut().zip(batch) {
            answer(frame, &detections, request);
        }
        let end = (self.clock)();
        output.times = StageTimes {
            preprocessed_ns,
            inference_start_ns: preprocessed_ns,
            inference_end_ns: end,
            decoded_ns: end,
            ..StageTimes::default()
        };
        Ok(())
    }

    /// The delay and the gate; takes no step of the script and is not recorded.
    fn infer_only(&mut self) -> Result<(), EngineError> {
        let (delay, gate, dead) = {
            let state = lock(&self.state);
            (state.script.delay, state.script.gate.clone(), state.dead)
        };
        wait(delay);
        if let Some(gate) = gate {
            gate.pass();
        }
        if dead { Err(run_error("the engine is dead")) } else { Ok(()) }
    }
}

fn run_error(reason: &str) -> EngineError {
    EngineError::Run { backend: NAME, stage: "inference", reason: reason.to_owned() }
}

/// The thresholds hold for scripted boxes as for real ones.
fn answer(frame: &mut FrameOutput, detections: &[Detection], request: &FrameRequest<'_>) {
    let thresholds = request.thresholds;
    let wanted = |d: &&Detection| {
        d.score > thresholds.confidence
            && thresholds.classes.as_ref().is_none_or(|classes| classes.contains(&d.class))
    };
    frame.detections.clear();
    frame.detections.extend(detections.iter().filter(wanted));
    let extra = frame.detections.len().saturating_sub(thresholds.max_detections);
    frame.truncated = u32::try_from(extra).unwrap_or(u32::MAX);
    frame.detections.truncate(thresholds.max_detections);
}

/// Waits without sleeping calls, which are reserved to the service crate.
fn wait(delay: Duration) {
    if delay.is_zero() {
        return;
    }
    let never = Mutex::new(());
    let guard = never.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = Condvar::new().wait_timeout_while(guard, delay, |()| true);
    drop(waited);
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
