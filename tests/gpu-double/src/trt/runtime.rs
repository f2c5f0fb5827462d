//! A TEST's double of TensorRT: `IRuntime` and `ICudaEngine`.
#![allow(unsafe_code)] // Functions exported under TensorRT's names; nothing unsafe in them.

use super::execution::Execution;
use super::logger::{Logger, WARNING};
use super::object::{Class, Dims, Method, bytes, make, text, this};
use super::onnx::{self, Graph, Tensor};
use super::openvino::{Compiled, Shapes};
use super::plan::{self, Plan};
use crate::table::lock;
use crate::{context, count, device, fault};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, Mutex};

/// What NVIDIA's library answers where CUDA does not work.
const BOGUS: usize = 0x228;

/// A factory's answer where CUDA was never started or has no device.
pub(super) fn without_cuda(logger: Logger, call: &str) -> *mut c_void {
    logger.error(&format!(
        "{call}: Error Code 6: API Usage Error (CUDA initialization failure with error: 35)"
    ));
    BOGUS as *mut c_void
}

#[unsafe(no_mangle)]
extern "C" fn getInferLibVersion() -> i32 {
    device::get().tensorrt
}

pub(super) struct Runtime {
    logger: Logger,
    /// Held by its engines.
    life: Arc<()>,
}

#[unsafe(no_mangle)]
extern "C" fn createInferRuntime_INTERNAL(logger: *const c_void, _version: i32) -> *mut c_void {
    let Some(logger) = Logger::new(logger) else {
        return std::ptr::null_mut();
    };
    if !context::started() {
        return without_cuda(logger, "createInferRuntime");
    }
    make(Runtime { logger, life: Arc::default() })
}

impl Class for Runtime {
    const NAME: &'static str = "IRuntime";

    fn methods() -> Vec<Method> {
        vec![(3, deserialize as *const () as usize)]
    }

    fn deleting(&self) -> Option<String> {
        (Arc::strong_count(&self.life) > 1).then(|| "an engine of it lives".to_owned())
    }
}

extern "C" fn deserialize(runtime: *const c_void, blob: *const c_void, len: usize) -> *mut c_void {
    let runtime = this::<Runtime>(runtime);
    let refuse = |why: &str| {
        runtime.logger.error(&format!("IRuntime::deserializeCudaEngine: {why}"));
        std::ptr::null_mut()
    };
    if let Err(code) = fault::alive() {
        return refuse(&format!("Error Code 1: Cuda Runtime (In allocator, error {code})"));
    }
    if fault::now().oom {
        return refuse(&format!("Error Code 2: OutOfMemory (Requested size was {len} bytes.)"));
    }
    let plan = match plan::read(&bytes(blob, len), device::get()) {
        Ok(plan) => plan,
        Err(why) => return refuse(&why),
    };
    let Some(graph) = onnx::read(&plan.onnx) else {
        return refuse("Error Code 4: Internal Error (Engine deserialization failed.)");
    };
    count::ENGINES.add(1);
    let names = graph.tensors.iter().map(|t| CString::new(t.name.as_str()).unwrap_or_default());
    make(Engine {
        network: Arc::new(Network {
            logger: runtime.logger,
            names: names.collect(),
            plan,
            graph,
            compiled: Mutex::default(),
        }),
        life: Arc::default(),
        _runtime: runtime.life.clone(),
    })
}

/// What an engine and its contexts share.
pub(super) struct Network {
    pub(super) logger: Logger,
    pub(super) plan: Plan,
    graph: Graph,
    names: Vec<CString>,
    compiled: Mutex<BTreeMap<Shapes, Arc<Compiled>>>,
}

impl Network {
    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.graph.tensors
    }

    /// Number of a tensor, or an error in the log.
    pub(super) fn index(&self, name: *const c_char, call: &str) -> Option<usize> {
        let name = text(name);
        let found = self.tensors().iter().position(|tensor| tensor.name == name);
        if found.is_none() {
            self.logger.error(&format!(
                "{call}: Error Code 3: Internal Error (Given invalid tensor name: {name}. Get \
                 valid tensor names with getIOTensorName())"
            ));
        }
        found
    }

    /// Compiles for these shapes, once.
    pub(super) fn compile(&self, shapes: &Shapes) -> Result<Arc<Compiled>, String> {
        let mut compiled = lock(&self.compiled);
        if let Some(found) = compiled.get(shapes) {
            return Ok(found.clone());
        }
        let new = Arc::new(Compiled::new(&self.plan.onnx, shapes)?);
        compiled.insert(shapes.clone(), new.clone());
        Ok(new)
    }
}

pub(super) struct Engine {
    pub(super) network: Arc<Network>,
    /// Held by its contexts.
    pub(super) life: Arc<()>,
    _runtime: Arc<()>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        count::ENGINES.sub(1);
    }
}

impl Class for Engine {
    const NAME: &'static str = "ICudaEngine";

    fn methods() -> Vec<Method> {
        vec![
            (5, create_context as *const () as usize),
            (7, memory_size as *const () as usize),
            (9, name as *const () as usize),
            (10, profiles as *const () as usize),
            (19, shape as *const () as usize),
            (20, data_type as *const () as usize),
            (23, io_mode as *const () as usize),
            (29, profile_shape as *const () as usize),
            (30, tensors as *const () as usize),
            (31, tensor_name as *const () as usize),
            (52, memory_size as *const () as usize),
        ]
    }

    fn deleting(&self) -> Option<String> {
        (Arc::strong_count(&self.life) > 1).then(|| "a context of it lives".to_owned())
    }
}

extern "C" fn create_context(engine: *const c_void, _strategy: i32) -> *mut c_void {
    let engine = this::<Engine>(engine);
    let refused = match fault::alive() {
        Err(code) => Some(format!("Error Code 1: Cuda Runtime (error {code})")),
        Ok(()) if fault::now().oom => Some(
            "Error Code 2: OutOfMemory (Requested size was \
                                            16777216 bytes.)"
                .to_owned(),
        ),
        Ok(()) => None,
    };
    if let Some(why) = refused {
        engine.network.logger.error(&format!("ICudaEngine::createExecutionContext: {why}"));
        return std::ptr::null_mut();
    }
    make(Execution::new(engine))
}

extern "C" fn memory_size(engine: *const c_void) -> i64 {
    this::<Engine>(engine);
    16 << 20
}

extern "C" fn name(engine: *const c_void) -> *const c_char {
    this::<Engine>(engine);
    c"Unnamed Network 0".as_ptr()
}

extern "C" fn profiles(engine: *const c_void) -> i32 {
    i32::try_from(this::<Engine>(engine).network.plan.profiles.len()).unwrap_or(0)
}

extern "C" fn shape(engine: *const c_void, name: *const c_char) -> Dims {
    let network = &this::<Engine>(engine).network;
    let tensor = network.index(name, "ICudaEngine::getTensorShape");
    tensor.map_or(Dims::NONE, |i| Dims::new(&network.tensors()[i].shape))
}

extern "C" fn data_type(engine: *const c_void, name: *const c_char) -> i32 {
    let network = &this::<Engine>(engine).network;
    let tensor = network.index(name, "ICudaEngine::getTensorDataType");
    tensor.map_or(0, |i| network.tensors()[i].data_type)
}

extern "C" fn io_mode(engine: *const c_void, name: *const c_char) -> i32 {
    let network = &this::<Engine>(engine).network;
    let tensor = network.index(name, "ICudaEngine::getTensorIOMode");
    tensor.map_or(0, |i| if network.tensors()[i].input { 1 } else { 2 })
}

extern "C" fn profile_shape(
    engine: *const c_void,
    name: *const c_char,
    profile: i32,
    selector: i32,
) -> Dims {
    let network = &this::<Engine>(engine).network;
    let name = text(name);
    let found = usize::try_from(profile)
        .ok()
        .and_then(|profile| network.plan.profiles.get(profile))
        .and_then(|profile| profile.iter().find(|(known, _)| *known == name))
        .and_then(|(_, range)| range.get(usize::try_from(selector).ok()?));
    let Some(shape) = found else {
        network.logger.log(
            WARNING,
            &format!("ICudaEngine::getProfileShape: no input {name} in profile {profile}"),
        );
        return Dims::NONE;
    };
    Dims::new(shape)
}

extern "C" fn tensors(engine: *const c_void) -> i32 {
    i32::try_from(this::<Engine>(engine).network.tensors().len()).unwrap_or(0)
}

extern "C" fn tensor_name(engine: *const c_void, i: i32) -> *const c_char {
    let names = &this::<Engine>(engine).network.names;
    let name = usize::try_from(i).ok().and_then(|i| names.get(i));
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}
