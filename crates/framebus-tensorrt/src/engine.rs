//! Running plans: runtime, engine, execution context.
//!
//! Each keeps what it was made from: a context its engine, an engine its runtime, a
//! runtime its library. TensorRT wants one caller at a time per object, so runtime
//! and engine are behind a lock and a context is not `Sync`; contexts of one engine
//! run side by side.
#![allow(unsafe_code)]

use crate::abi::{DEVICE_MEMORY_SINCE, Table};
use crate::error::Error;
use crate::library::Library;
use crate::raw::{Dims, Object, Owned};
use crate::record;
use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Loads plans. Clones share it.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<RuntimeShared>,
}

struct RuntimeShared {
    // Released before the library, as fields are dropped in this order.
    object: Mutex<Owned<'static>>,
    library: Library,
}

/// A loaded plan. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<EngineShared>,
}

struct EngineShared {
    object: Mutex<Owned<'static>>,
    runtime: Runtime,
}

/// What an engine is run with: shapes, addresses and scratch memory of one run at a
/// time.
pub struct ExecutionContext {
    /// `None` only while it is dropped.
    object: Option<Owned<'static>>,
    /// Of `object`, which outlives every use.
    implementation: NonNull<Object>,
    engine: Engine,
}

// SAFETY: a context belongs to no thread; `implementation` is part of the object that
// is owned beside it. Nothing is reachable through a shared reference from two
// threads, as the type is not `Sync`.
unsafe impl Send for ExecutionContext {}

/// Whether a tensor is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// Read by the network.
    Input,
    /// Written by the network.
    Output,
}

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// 8-bit integer.
    I8,
    /// 32-bit integer.
    I32,
    /// A byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// 8-bit floating point.
    F8,
    /// The upper half of a 32-bit floating point number.
    Bf16,
    /// 64-bit integer.
    I64,
    /// One of TensorRT's newer types, by its number.
    Other(i32),
}

impl DataType {
    fn from_number(number: i32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::I8,
            3 => Self::I32,
            4 => Self::Bool,
            5 => Self::U8,
            6 => Self::F8,
            7 => Self::Bf16,
            8 => Self::I64,
            other => Self::Other(other),
        }
    }
}

/// An input or output of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the model.
    pub name: CString,
    /// Direction.
    pub io: Io,
    /// Element type.
    pub data_type: DataType,
    /// Sizes; -1 is free within the profile.
    pub shape: Vec<i64>,
}

/// A bound of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The smallest shape.
    Min,
    /// The shape that is tuned for.
    Opt,
    /// The largest shape.
    Max,
}

impl Selector {
    /// `OptProfileSelector`.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Min => 0,
            Self::Opt => 1,
            Self::Max => 2,
        }
    }
}

/// `ExecutionContextAllocationStrategy::kSTATIC`: scratch memory for the largest
/// shape, allocated once; nothing is allocated while frames run.
const STATIC: i32 = 0;

fn locked<'a>(object: &'a Mutex<Owned<'static>>) -> MutexGuard<'a, Owned<'static>> {
    object.lock().unwrap_or_else(PoisonError::into_inner)
}

fn done(ok: bool, call: &'static str, mark: record::Mark) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::Refused { call, log: record::since(mark) }) }
}

impl Runtime {
    pub(crate) fn new(library: &Library) -> Result<Self, Error> {
        let object = Mutex::new(library.opened().runtime()?);
        Ok(Self { shared: Arc::new(RuntimeShared { object, library: library.clone() }) })
    }

    /// The library it belongs to.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.shared.library
    }

    fn table(&self) -> &'static Table {
        self.library().abi().table()
    }

    /// Loads a plan onto the current CUDA device.
    ///
    /// A plan holds code: load what [`Library::build`] made, on this machine or for
    /// it, and nothing else.
    ///
    /// # Errors
    /// [`Error::Refused`] with TensorRT's words: no plan, another version's, another
    /// GPU's, or no memory.
    pub fn deserialize(&self, plan: &[u8]) -> Result<Engine, Error> {
        let mark = record::mark();
        let runtime = locked(&self.shared.object);
        let (data, size) = (plan.as_ptr().cast::<c_void>(), plan.len());
        // SAFETY: the runtime is live, the bytes live during the call.
        let engine = unsafe { self.table().deserialize.call(runtime.implementation(), data, size) };
        drop(runtime);
        // SAFETY: the call hands an `ICudaEngine` over; its runtime is kept beside it.
        let object = unsafe { Owned::public(engine) }.ok_or_else(|| Error::Refused {
            call: "IRuntime::deserializeCudaEngine",
            log: record::since(mark),
        })?;
        let shared = EngineShared { object: Mutex::new(object), runtime: self.clone() };
        Ok(Engine { shared: Arc::new(shared) })
    }
}

impl Engine {
    /// The library it belongs to.
    #[must_use]
    pub fn library(&self) -> &Library {
        self.shared.runtime.library()
    }

    fn table(&self) -> &'static Table {
        self.shared.runtime.table()
    }

    /// Inputs and outputs in the engine's order.
    ///
    /// # Errors
    /// [`Error::Refused`] where the engine does not describe itself.
    pub fn tensors(&self) -> Result<Vec<Tensor>, Error> {
        let engine = locked(&self.shared.object);
        // SAFETY: the engine is live.
        let count = unsafe { self.table().tensor_count.call(engine.implementation()) };
        (0..count).map(|index| self.tensor(engine.implementation(), index)).collect()
    }

    /// `engine` is the locked engine's implementation.
    fn tensor(&self, engine: NonNull<Object>, index: i32) -> Result<Tensor, Error> {
        let mark = record::mark();
        let refused = |call| Error::Refused { call, log: record::since(mark) };
        // SAFETY: the engine is live.
        let name = unsafe { self.table().tensor_name.call(engine, index) };
        if name.is_null() {
            return Err(refused("ICudaEngine::getIOTensorName"));
        }
        // SAFETY: the engine keeps the name, a C string, as long as it lives.
        let name = unsafe { CStr::from_ptr(name) }.to_owned();
        // SAFETY: the engine is live, the name a C string.
        let io = match unsafe { self.table().io_mode.call(engine, name.as_ptr()) } {
            1 => Io::Input,
            2 => Io::Output,
            _ => return Err(refused("ICudaEngine::getTensorIOMode")),
        };
        // SAFETY: as above.
        let data_type = unsafe { self.table().data_type.call(engine, name.as_ptr()) };
        // SAFETY: as above.
        let dims: Dims = unsafe { self.table().engine_shape.call(engine, name.as_ptr()) };
        let shape = dims.shape().ok_or_else(|| refused("ICudaEngine::getTensorShape"))?;
        Ok(Tensor { name, io, data_type: DataType::from_number(data_type), shape })
    }

    /// Number of profiles, at least one for a plan with free sizes.
    #[must_use]
    pub fn profiles(&self) -> usize {
        let engine = locked(&self.shared.object);
        // SAFETY: the engine is live.
        let count = unsafe { self.table().profile_count.call(engine.implementation()) };
        usize::try_from(count).unwrap_or(0)
    }

    /// A bound of the input `name` in a profile.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such input or profile.
    pub fn profile_shape(
        &self,
        name: &CStr,
        profile: usize,
        which: Selector,
    ) -> Result<Vec<i64>, Error> {
        let mark = record::mark();
        let profile = index(profile)?;
        let engine = locked(&self.shared.object);
        let this = engine.implementation();
        let slot = &self.table().profile_shape;
        // SAFETY: the engine is live, the name a C string.
        let dims = unsafe { slot.call(this, name.as_ptr(), profile, which.number()) };
        dims.shape().ok_or_else(|| Error::Refused {
            call: "ICudaEngine::getProfileShape",
            log: record::since(mark),
        })
    }

    /// Scratch memory of a context in bytes, over all profiles; `None` before 10.3,
    /// which cannot tell.
    #[must_use]
    pub fn device_memory_bytes(&self) -> Option<u64> {
        let library = self.library();
        if library.abi() == crate::Abi::V10 && library.version() < DEVICE_MEMORY_SINCE {
            return None;
        }
        let engine = locked(&self.shared.object);
        // SAFETY: the engine is live, and this version has the method.
        let bytes = unsafe { self.table().device_memory.call(engine.implementation()) };
        u64::try_from(bytes).ok()
    }

    /// A context with its own scratch memory on the current device.
    ///
    /// # Errors
    /// [`Error::Refused`] with TensorRT's words, mostly about memory.
    pub fn context(&self) -> Result<ExecutionContext, Error> {
        let mark = record::mark();
        let engine = locked(&self.shared.object);
        // SAFETY: the engine is live.
        let context = unsafe { self.table().create_context.call(engine.implementation(), STATIC) };
        drop(engine);
        // SAFETY: the call hands an `IExecutionContext` over; its engine is kept.
        let object = unsafe { Owned::public(context) }.ok_or_else(|| Error::Refused {
            call: "ICudaEngine::createExecutionContext",
            log: record::since(mark),
        })?;
        let implementation = object.implementation();
        Ok(ExecutionContext { object: Some(object), implementation, engine: self.clone() })
    }
}

fn index(profile: usize) -> Result<i32, Error> {
    i32::try_from(profile)
        .map_err(|_| Error::Argument { what: format!("there is no profile {profile}") })
}

impl ExecutionContext {
    /// The engine it runs.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn table(&self) -> &'static Table {
        self.engine.table()
    }

    /// Sizes of the input `name` for the next runs.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such input or the profile excludes the
    /// shape; [`Error::Argument`] for more than eight dimensions.
    pub fn set_input_shape(&mut self, name: &CStr, shape: &[i64]) -> Result<(), Error> {
        let mark = record::mark();
        let dims = Dims::new(shape).ok_or_else(|| Error::Argument {
            what: format!("a shape of {} dimensions; TensorRT has at most 8", shape.len()),
        })?;
        let slot = &self.table().set_input_shape;
        // SAFETY: the context is live and only used here; name and sizes live during
        // the call.
        let ok = unsafe { slot.call(self.implementation, name.as_ptr(), &raw const dims) };
        done(ok, "IExecutionContext::setInputShape", mark)
    }

    /// Sizes of a tensor as far as the inputs' shapes tell; -1 is still free.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such tensor.
    pub fn tensor_shape(&self, name: &CStr) -> Result<Vec<i64>, Error> {
        let mark = record::mark();
        // SAFETY: the context is live and only used here, the name is a C string.
        let dims = unsafe { self.table().context_shape.call(self.implementation, name.as_ptr()) };
        dims.shape().ok_or_else(|| Error::Refused {
            call: "IExecutionContext::getTensorShape",
            log: record::since(mark),
        })
    }

    /// Chooses a profile for the next runs; contexts may share one.
    ///
    /// # Safety
    /// `stream` is a live stream (`CUstream`) of the current CUDA context.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such profile.
    pub unsafe fn set_profile(&mut self, profile: usize, stream: *mut c_void) -> Result<(), Error> {
        let mark = record::mark();
        let profile = index(profile)?;
        // SAFETY: the context is live and only used here; the stream is the caller's
        // promise.
        let ok = unsafe { self.table().set_profile.call(self.implementation, profile, stream) };
        done(ok, "IExecutionContext::setOptimizationProfileAsync", mark)
    }

    /// Where the tensor `name` lies in device memory, for the next runs.
    ///
    /// # Safety
    /// At `address` is device memory large enough for the tensor, aligned to 256
    /// bytes, which lives until everything is done that was enqueued with it.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such tensor.
    pub unsafe fn set_tensor_address(&mut self, name: &CStr, address: u64) -> Result<(), Error> {
        let mark = record::mark();
        let address = usize::try_from(address)
            .map_err(|_| Error::Argument { what: format!("no address here: {address:#x}") })?;
        let pointer = std::ptr::with_exposed_provenance_mut::<c_void>(address);
        // SAFETY: the context is live and only used here; the memory is the caller's
        // promise.
        let ok =
            unsafe { self.table().set_address.call(self.implementation, name.as_ptr(), pointer) };
        done(ok, "IExecutionContext::setTensorAddress", mark)
    }

    /// Enqueues one run on `stream` and returns at once.
    ///
    /// # Safety
    /// `stream` is a live stream (`CUstream`) of the current CUDA context; every
    /// tensor has an address as [`ExecutionContext::set_tensor_address`] wants it; the
    /// context lives, and is enqueued on no other stream, until the run is done.
    ///
    /// # Errors
    /// [`Error::Refused`] with TensorRT's words.
    pub unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), Error> {
        let mark = record::mark();
        // SAFETY: the context is live and only used here; the rest is the caller's
        // promise.
        let ok = unsafe { self.table().enqueue.call(self.implementation, stream) };
        done(ok, "IExecutionContext::enqueueV3", mark)
    }
}

impl Drop for ExecutionContext {
    fn drop(&mut self) {
        // The engine keeps count of its contexts.
        let _engine = locked(&self.engine.shared.object);
        self.object = None;
    }
}

#[cfg(test)]
mod tests;
