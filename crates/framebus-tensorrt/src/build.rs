//! Building a plan from an ONNX model.

use crate::abi::Abi;
use crate::builder::{Builder, Config, HostMemory};
use crate::engine::Selector;
use crate::error::Error;
use crate::library::Library;
use crate::monitor::Monitor;
use crate::progress::{Estimate, PARSING, Progress};
use std::ffi::CString;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildRequest<'a> {
    /// The ONNX file's content, weights included. Its types are the plan's types.
    pub onnx: &'a [u8],
    /// Bounds of the free sizes; at least one for a model that has any.
    pub profiles: &'a [Profile],
    /// Scratch memory in bytes that a layer may use at most; `None`: all there is.
    pub workspace_bytes: Option<usize>,
    /// How long to search for fast kernels, 0 to 5; `None`: TensorRT's default (3).
    pub optimization_level: Option<u32>,
    /// [`Built::timing_cache`] of an earlier build, which shortens this one. Content
    /// that does not fit this library or GPU is left aside; `None` starts a new one.
    pub timing_cache: Option<&'a [u8]>,
    /// Compute capabilities to build for, by TensorRT-RTX only; empty: its default.
    /// TensorRT 10 and 11 always build for the current GPU.
    pub capabilities: &'a [(u32, u32)],
}

/// Bounds of all free inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// One per input with free sizes.
    pub inputs: Vec<ProfileInput>,
}

/// Bounds of an input's shape, batch first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileInput {
    /// Name in the model.
    pub name: CString,
    /// Smallest shape.
    pub min: Vec<i64>,
    /// The shape to be fastest at.
    pub opt: Vec<i64>,
    /// Largest shape.
    pub max: Vec<i64>,
}

/// A plan, in memory that TensorRT allocated.
pub struct Built {
    // Released before the library, as fields are dropped in this order.
    memory: HostMemory,
    timing_cache: Option<Vec<u8>>,
    _library: Library,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("plan_bytes", &self.plan().len())
            .field("timing_cache_bytes", &self.timing_cache.as_ref().map(Vec::len))
            .finish()
    }
}

impl Built {
    /// The plan, for [`crate::Runtime::deserialize`] of the same library version.
    #[must_use]
    pub fn plan(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// What was measured, for the next build; `None` where the library keeps none.
    #[must_use]
    pub fn timing_cache(&self) -> Option<Vec<u8>> {
        self.timing_cache.clone()
    }
}

/// One build at a time in a process: builds measure kernels, which others would
/// disturb, and two at once in TensorRT-RTX 1.7 fail now and then ("Target SM 80 is
/// not found in the accelerator list").
static BUILDING: Mutex<()> = Mutex::new(());

/// Highest builder optimisation level.
const LEVEL_MAX: u32 = 5;

pub(crate) fn build(
    library: &Library,
    request: &BuildRequest<'_>,
    progress: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<Built, Error> {
    check(library, request)?;
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::new(progress);
    let result = with_monitor(library, request, &monitor);
    let outcome = monitor.outcome();
    if let Some(panic) = outcome.panic {
        std::panic::resume_unwind(panic);
    }
    // TensorRT then fails with words of its own, or is done before it notices.
    if outcome.cancelled { Err(Error::Cancelled) } else { result }
}

/// What TensorRT would complain about late or not at all.
fn check(library: &Library, request: &BuildRequest<'_>) -> Result<(), Error> {
    if let Some(level) = request.optimization_level.filter(|&level| level > LEVEL_MAX) {
        let what = format!("optimisation level {level}; TensorRT has 0 to {LEVEL_MAX}");
        return Err(Error::Argument { what });
    }
    for input in request.profiles.iter().flat_map(|profile| &profile.inputs) {
        let ordered = |low: &[i64], high: &[i64]| {
            low.len() == high.len() && low.iter().zip(high).all(|(low, high)| low <= high)
        };
        if !ordered(&input.min, &input.opt) || !ordered(&input.opt, &input.max) {
            let name = input.name.to_string_lossy();
            let (min, opt, max) = (&input.min, &input.opt, &input.max);
            let what =
                format!("profile of input '{name}': not min {min:?} <= opt {opt:?} <= max {max:?}");
            return Err(Error::Argument { what });
        }
    }
    if library.abi() == Abi::Rtx1 {
        request.capabilities.iter().try_for_each(|&one| library.check_capability(one))?;
    }
    Ok(())
}

/// Everything is released in the reverse order of its making, on every path.
fn with_monitor(
    library: &Library,
    request: &BuildRequest<'_>,
    monitor: &Monitor<'_>,
) -> Result<Built, Error> {
    // A library without a builder says so before a parser is missed.
    let builder = Builder::new(library)?;
    let parser_library = library.parser()?;
    if !monitor.tell(|estimate| estimate.start(PARSING, None, 1)) {
        return Err(Error::Cancelled);
    }
    let network = builder.network()?;
    // Kept until the plan is there: it holds weights of the network.
    let _parser = network.parse(library, &parser_library, request.onnx)?;
    if !monitor.tell(|estimate| estimate.finish(PARSING)) {
        return Err(Error::Cancelled);
    }
    let config = configure(&builder, request)?;
    config.set_monitor(monitor);
    let cache = request
        .timing_cache
        .and_then(|content| {
            let cache = config.timing_cache(content);
            if cache.is_none() {
                tracing::debug!(target: "tensorrt", "the timing cache is of no use here");
            }
            cache
        })
        .or_else(|| config.timing_cache(&[]));
    let memory = builder.build(&network, &config)?;
    let timing_cache = cache.and_then(|cache| cache.content());
    monitor.tell(|_| Estimate::built());
    Ok(Built { memory, timing_cache, _library: library.clone() })
}

fn configure<'b>(builder: &'b Builder, request: &BuildRequest<'_>) -> Result<Config<'b>, Error> {
    let config = builder.config()?;
    if let Some(bytes) = request.workspace_bytes {
        config.set_workspace(bytes);
    }
    if let Some(level) = request.optimization_level {
        config.set_level(level.min(LEVEL_MAX) as i32);
    }
    config.set_capabilities(request.capabilities)?;
    for wanted in request.profiles {
        let profile = builder.profile()?;
        for input in &wanted.inputs {
            profile.set(&input.name, Selector::Min, &input.min)?;
            profile.set(&input.name, Selector::Opt, &input.opt)?;
            profile.set(&input.name, Selector::Max, &input.max)?;
        }
        config.add_profile(&profile)?;
    }
    Ok(config)
}
