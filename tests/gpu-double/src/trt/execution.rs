//! A TEST's double of TensorRT: `IExecutionContext`. Shapes are compiled for when they
//! are set, so that nothing of it happens in a stream.

use super::object::{Class, Dims, Method, this, written};
use super::openvino::{Request, Shapes};
use super::runtime::{Engine, Network};
use crate::code;
use crate::memory::{Access, hold};
use crate::stream;
use crate::table::lock;
use crate::{count, fault, time};
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// What TensorRT asks of an address.
const ALIGNMENT: usize = 256;

pub(super) struct Execution {
    network: Arc<Network>,
    state: Mutex<State>,
    shared: Arc<Shared>,
    _engine: Arc<()>,
}

struct State {
    profile: usize,
    /// Of each tensor: the input's shape that was set, and the address.
    shapes: Vec<Option<Vec<i64>>>,
    addresses: Vec<usize>,
    /// For the shapes, once all are set.
    request: Option<Arc<Request>>,
    /// Whether the shapes have been enqueued outside a capture: TensorRT asks for it.
    warm: bool,
}

/// What operations in streams know of their context.
#[derive(Default)]
struct Shared {
    deleted: AtomicBool,
    running: AtomicBool,
}

impl Execution {
    pub(super) fn new(engine: &Engine) -> Self {
        count::CONTEXTS.add(1);
        let tensors = engine.network.tensors();
        let mut state = State {
            profile: 0,
            shapes: tensors.iter().map(|_| None).collect(),
            addresses: vec![0; tensors.len()],
            request: None,
            warm: false,
        };
        // What cannot change need not be set.
        for (shape, tensor) in state.shapes.iter_mut().zip(tensors) {
            if tensor.input && tensor.shape.iter().all(|size| *size > 0) {
                *shape = Some(tensor.shape.clone());
            }
        }
        let new = Self {
            network: engine.network.clone(),
            state: Mutex::new(state),
            shared: Arc::default(),
            _engine: engine.life.clone(),
        };
        let mut state = new.state("createExecutionContext");
        new.compile(&mut state, "createExecutionContext");
        drop(state);
        new
    }

    /// A context is one thread's at a time.
    fn state(&self, call: &str) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                count::violation(format!("IExecutionContext::{call}: two threads at once"));
                lock(&self.state)
            }
        }
    }

    fn refuse(&self, call: &str, why: &str) -> bool {
        self.network.logger.error(&format!("IExecutionContext::{call}: {why}"));
        false
    }

    /// Makes the request when all inputs have a shape.
    fn compile(&self, state: &mut State, call: &str) -> bool {
        let mut shapes = Shapes::new();
        for (tensor, shape) in self.network.tensors().iter().zip(&state.shapes) {
            match shape {
                Some(shape) if tensor.input => shapes.push((tensor.name.clone(), shape.clone())),
                None if tensor.input => return true,
                _ => {}
            }
        }
        let made =
            self.network.compile(&shapes).and_then(|model| model.request(self.network.tensors()));
        match made {
            Ok(request) => {
                state.request = Some(Arc::new(request));
                true
            }
            Err(why) => self.refuse(call, &format!("Error Code 4: Internal Error ({why})")),
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        count::CONTEXTS.sub(1);
        self.shared.deleted.store(true, Ordering::SeqCst);
    }
}

impl Class for Execution {
    const NAME: &'static str = "IExecutionContext";

    fn methods() -> Vec<Method> {
        vec![
            (11, profile as *const () as usize),
            (12, all_specified as *const () as usize),
            (17, set_profile as *const () as usize),
            (21, set_shape as *const () as usize),
            (22, shape as *const () as usize),
            (24, set_address as *const () as usize),
            (25, address as *const () as usize),
            (28, infer_shapes as *const () as usize),
            (37, enqueue as *const () as usize),
        ]
    }

    fn deleting(&self) -> Option<String> {
        self.shared
            .running
            .load(Ordering::SeqCst)
            .then(|| "its network runs in a stream".to_owned())
    }
}

extern "C" fn profile(context: *const c_void) -> i32 {
    let context = this::<Execution>(context);
    i32::try_from(context.state("getOptimizationProfile").profile).unwrap_or(-1)
}

extern "C" fn all_specified(context: *const c_void) -> bool {
    this::<Execution>(context).state("allInputDimensionsSpecified").request.is_some()
}

extern "C" fn set_profile(context: *const c_void, profile: i32, stream: *mut c_void) -> bool {
    const CALL: &str = "setOptimizationProfileAsync";
    let context = this::<Execution>(context);
    let mut state = context.state(CALL);
    if stream::get(stream as usize).is_err() {
        return context.refuse(CALL, "Error Code 1: Cuda Runtime (invalid resource handle)");
    }
    let profiles = context.network.plan.profiles.len();
    match usize::try_from(profile).ok().filter(|profile| *profile < profiles) {
        Some(profile) => {
            if profile != state.profile {
                state.profile = profile;
                state.warm = false;
                for (shape, tensor) in state.shapes.iter_mut().zip(context.network.tensors()) {
                    if tensor.shape.contains(&-1) {
                        *shape = None;
                    }
                }
                state.request = None;
                context.compile(&mut state, CALL);
            }
            true
        }
        None => context.refuse(
            CALL,
            &format!(
                "Error Code 3: API Usage Error (Parameter check failed, condition: profileIndex \
                 >= 0 && profileIndex < mEngine.getNbOptimizationProfiles(). {profile} of {profiles})"
            ),
        ),
    }
}

extern "C" fn set_shape(context: *const c_void, name: *const c_char, dims: Option<&Dims>) -> bool {
    const CALL: &str = "setInputShape";
    let context = this::<Execution>(context);
    let mut state = context.state(CALL);
    let network = &context.network;
    let Some(i) = network.index(name, "IExecutionContext::setInputShape") else {
        return false;
    };
    let tensor = &network.tensors()[i];
    let shape = dims.map(Dims::shape).unwrap_or_default();
    if !tensor.input {
        let why = format!("Error Code 3: API Usage Error ({} is not an input)", tensor.name);
        return context.refuse(CALL, &why);
    }
    let fits = shape.len() == tensor.shape.len()
        && shape.iter().zip(&tensor.shape).all(|(size, free)| *free == -1 || size == free);
    if !fits {
        return context.refuse(
            CALL,
            &format!(
                "Error Code 3: API Usage Error (Parameter check failed, condition: \
                 engineDims.d[i] == dims.d[i]. Static dimension mismatch while setting input \
                 shape for {}. Set dimensions are {}. Expected dimensions are {}.)",
                tensor.name,
                written(&shape),
                written(&tensor.shape)
            ),
        );
    }
    let profile = network.plan.profiles.get(state.profile);
    let range = profile.and_then(|profile| profile.iter().find(|(name, _)| *name == tensor.name));
    if let Some((_, [least, _, most])) = range {
        let inside = |((size, least), most): ((&i64, &i64), &i64)| (least..=most).contains(&size);
        if !shape.iter().zip(least).zip(most).all(inside) {
            return context.refuse(
                CALL,
                &format!(
                    "Error Code 3: API Usage Error (Parameter check failed, condition: Set \
                     dimension {} for tensor {} does not satisfy any optimization profiles. \
                     Valid range for profile {}: {}..{}.)",
                    written(&shape),
                    tensor.name,
                    state.profile,
                    written(least),
                    written(most)
                ),
            );
        }
    }
    if state.shapes[i].as_ref() == Some(&shape) && state.request.is_some() {
        return true;
    }
    state.shapes[i] = Some(shape);
    state.request = None;
    state.warm = false;
    context.compile(&mut state, CALL)
}

extern "C" fn shape(context: *const c_void, name: *const c_char) -> Dims {
    let context = this::<Execution>(context);
    let state = context.state("getTensorShape");
    let Some(i) = context.network.index(name, "IExecutionContext::getTensorShape") else {
        return Dims::NONE;
    };
    let set = state.shapes[i].as_deref();
    let inferred = state.request.as_ref().map(|request| request.tensors[i].0.as_slice());
    Dims::new(set.or(inferred).unwrap_or(&context.network.tensors()[i].shape))
}

extern "C" fn set_address(context: *const c_void, name: *const c_char, address: usize) -> bool {
    const CALL: &str = "setTensorAddress";
    let context = this::<Execution>(context);
    let mut state = context.state(CALL);
    let Some(i) = context.network.index(name, "IExecutionContext::setTensorAddress") else {
        return false;
    };
    if !address.is_multiple_of(ALIGNMENT) {
        return context.refuse(
            CALL,
            &format!(
                "Error Code 3: API Usage Error (Parameter check failed, condition: data is \
                 aligned to {ALIGNMENT} bytes. {address:#x} is not)"
            ),
        );
    }
    state.addresses[i] = address;
    true
}

extern "C" fn address(context: *const c_void, name: *const c_char) -> usize {
    let context = this::<Execution>(context);
    let state = context.state("getTensorAddress");
    let i = context.network.index(name, "IExecutionContext::getTensorAddress");
    i.map_or(0, |i| state.addresses[i])
}

extern "C" fn infer_shapes(context: *const c_void, _max: i32, _names: *mut c_void) -> i32 {
    i32::from(this::<Execution>(context).state("inferShapes").request.is_none())
}

extern "C" fn enqueue(context: *const c_void, handle: *mut c_void) -> bool {
    const CALL: &str = "enqueueV3";
    let context = this::<Execution>(context);
    let mut state = context.state(CALL);
    let usage = |why: &str| context.refuse(CALL, &format!("Error Code 3: API Usage Error ({why})"));
    let cuda = |code| context.refuse(CALL, &format!("Error Code 1: Cuda Runtime (error {code})"));
    let target = match fault::alive().and_then(|()| stream::get(handle as usize)) {
        Ok(target) => target,
        Err(code) => return cuda(code),
    };
    let capturing = target.capture().is_some();
    let faults = fault::now();
    if faults.enqueue || (faults.capture_enqueue && capturing) {
        return context.refuse(CALL, "Error Code 1: Myelin (No results returned from graph)");
    }
    let tensors = context.network.tensors();
    let Some(request) = state.request.clone() else {
        return usage(
            "Parameter check failed, condition: allInputDimensionsSpecified(). Not all input \
             dimensions are specified",
        );
    };
    if let Some(i) = state.addresses.iter().position(|address| *address == 0) {
        let name = &tensors[i].name;
        return usage(&format!(
            "Parameter check failed, condition: mContext.getTensorAddress(name) != nullptr. \
             Neither address or allocator is set for tensor {name}"
        ));
    }
    if capturing && !state.warm {
        count::violation(
            "enqueueV3 is captured before these shapes were enqueued once without".to_owned(),
        );
        return cuda(code::CAPTURE_UNSUPPORTED);
    }
    let (network, shared) = (context.network.clone(), context.shared.clone());
    let addresses = state.addresses.clone();
    let op = move || run(&network, &request, &addresses, &shared);
    match stream::enqueue(handle, Arc::new(op)) {
        0 => {
            state.warm = true;
            true
        }
        code => cuda(code),
    }
}

/// In the stream.
fn run(
    network: &Network,
    request: &Request,
    addresses: &[usize],
    shared: &Shared,
) -> Result<(), code::Code> {
    let faults = fault::now();
    if faults.launch {
        return Err(code::LAUNCH_FAILED);
    }
    if shared.deleted.load(Ordering::SeqCst) {
        count::violation("a network runs whose IExecutionContext was deleted".to_owned());
        return Err(code::ILLEGAL_ADDRESS);
    }
    let mut held = Vec::new();
    for ((tensor, address), (_, bytes)) in
        network.tensors().iter().zip(addresses).zip(&request.tensors)
    {
        let access = if tensor.input { Access::Read } else { Access::Write };
        held.push(hold(*address, *bytes, access, &format!("network's {}", tensor.name))?);
    }
    if shared.running.swap(true, Ordering::SeqCst) {
        count::violation("an IExecutionContext runs twice at once".to_owned());
    }
    time::pause(faults.slow_network);
    let done = request.run(network.tensors(), addresses);
    shared.running.store(false, Ordering::SeqCst);
    count::ENQUEUES.add(1);
    done.map_err(|why| {
        count::violation(format!("OpenVINO: {why}"));
        code::LAUNCH_FAILED
    })
}
