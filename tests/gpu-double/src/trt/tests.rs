//! A TEST's double of TensorRT, used as a caller does: by slots.
#![allow(unsafe_code)]

use super::object::Dims;
use super::onnx::tests::model;
use crate::table::lock;
use crate::{context, count, fault, memory, stream};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;

unsafe extern "C" {
    fn cuInit(flags: u32) -> u32;
    fn createInferRuntime_INTERNAL(logger: *const c_void, version: i32) -> *mut c_void;
    fn createInferBuilder_INTERNAL(logger: *const c_void, version: i32) -> *mut c_void;
    fn createNvOnnxParser_INTERNAL(n: *mut c_void, l: *const c_void, v: i32) -> *mut c_void;
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
static PHASES: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn log(_this: usize, severity: i32, text: *const c_char) {
    lock(&LOG).push(format!("{severity} {}", super::object::text(text)));
}

extern "C" fn start(_this: usize, phase: *const c_char, parent: *const c_char, steps: i32) {
    let (phase, parent) = (super::object::text(phase), super::object::text(parent));
    lock(&PHASES).push(format!("{phase}<{parent} {steps}"));
}

extern "C" fn step(this: usize, _phase: *const c_char, step: i32) -> bool {
    // The second word of the monitor: the step to cancel at.
    let stop = memory::snapshot(this + 8, 8);
    usize::from_ne_bytes(stop.try_into().unwrap()) != usize::try_from(step).unwrap()
}

extern "C" fn finish(_this: usize, phase: *const c_char) {
    lock(&PHASES).push(format!("{} ends", super::object::text(phase)));
}

fn object(slots: [usize; 8], word: usize) -> *const c_void {
    let table = Box::leak(Box::new(slots)).as_ptr() as usize;
    Box::leak(Box::new([table, word])).as_ptr().cast()
}

fn slot(object: *const c_void, slot: usize) -> usize {
    let table = memory::snapshot(object as usize, 8);
    let table = usize::from_ne_bytes(table.try_into().unwrap());
    usize::from_ne_bytes(memory::snapshot(table + 8 * slot, 8).try_into().unwrap())
}

/// The implementation behind a public object.
fn inner(object: *const c_void) -> *const c_void {
    usize::from_ne_bytes(memory::snapshot(object as usize + 8, 8).try_into().unwrap()) as _
}

macro_rules! call {
    ($this:expr, $slot:literal, ($($kind:ty),*) -> $answer:ty $(, $value:expr)*) => {{
        let this: *const c_void = $this;
        type Function = extern "C" fn(*const c_void $(, $kind)*) -> $answer;
        // SAFETY: the slot's type in TensorRT 10's headers.
        let function = unsafe { std::mem::transmute::<usize, Function>(slot(this, $slot)) };
        function(this $(, $value)*)
    }};
}

fn delete(object: *const c_void) {
    call!(object, 1, () -> ());
}

fn logged(what: &str) -> bool {
    lock(&LOG).iter().any(|line| line.contains(what))
}

fn openvino_is_missing() -> bool {
    match super::openvino::check(&model("Relu"), &vec![("x".to_owned(), vec![1, 4])]) {
        Ok(()) => false,
        Err(why) => {
            println!("SKIPPED: {why}");
            true
        }
    }
}

/// Builds `y = Relu(x)` for batches of 1 to 8.
fn plan(builder: *const c_void, logger: *const c_void, monitor: *const c_void) -> Option<Vec<u8>> {
    let network = call!(inner(builder), 8, (u32) -> *mut c_void, 2);
    // SAFETY: a network and a logger that live.
    let parser = unsafe { createNvOnnxParser_INTERNAL(network, logger, 0) };
    let parse = |bytes: &[u8]| call!(parser, 0, (*const u8, usize, *const c_char) -> bool, bytes.as_ptr(), bytes.len(), std::ptr::null());
    assert!(!parse(b"no model") && !parse(&model("NoSuchOperator")));
    assert_eq!(call!(parser, 5, () -> i32), 2);
    let error = call!(parser, 6, (i32) -> *const c_void, 1);
    let operator = call!(error, 7, () -> *const c_char);
    assert_eq!(super::object::text(operator), "NoSuchOperator");
    assert_eq!(super::object::text(call!(error, 6, () -> *const c_char)), "n");
    call!(parser, 7, () -> ());
    assert!(parse(&model("Relu")));
    assert_eq!(call!(inner(network), 14, () -> i32), 1);
    let config = call!(inner(builder), 7, () -> *mut c_void);
    call!(inner(config), 56, (*const c_void) -> (), monitor);
    let profile = call!(inner(builder), 9, () -> *mut c_void);
    for (selector, batch) in [(0, 1), (1, 2), (2, 8)] {
        let dims = Dims::new(&[batch, 4]);
        assert!(
            call!(inner(profile), 2, (*const c_char, i32, *const Dims) -> bool, c"x".as_ptr(), selector, &raw const dims)
        );
    }
    assert_eq!(call!(inner(config), 25, (*const c_void) -> i32, profile), 0);
    let memory =
        call!(inner(builder), 14, (*const c_void, *const c_void) -> *mut c_void, network, config);
    let bytes = (!memory.is_null()).then(|| {
        let data = call!(inner(memory), 2, () -> usize);
        let bytes = memory::snapshot(data, call!(inner(memory), 3, () -> usize));
        delete(memory);
        bytes
    });
    call!(parser, 9, () -> ());
    delete(config);
    delete(network);
    bytes
}

#[test]
fn an_engine_is_built_and_runs_in_a_stream_and_in_a_graph() {
    if openvino_is_missing() {
        return;
    }
    let logger = object([log as *const () as usize, 0, 0, 0, 0, 0, 0, 0], 0);
    let monitor = |stop| {
        let (start, step) = (start as *const () as usize, step as *const () as usize);
        object([0, 0, 0, 0, start, step, finish as *const () as usize, 0], stop)
    };
    // SAFETY: a logger that lives for ever; CUDA has not been started yet.
    let bogus = unsafe { createInferRuntime_INTERNAL(logger, 0) };
    assert!(context::started() || bogus as usize == 0x228);
    // SAFETY: no preconditions.
    assert_eq!(unsafe { cuInit(0) }, 0);
    // SAFETY: as above.
    let builder = unsafe { createInferBuilder_INTERNAL(logger, 0) };
    assert!(plan(builder, logger, monitor(3)).is_none());
    assert!(logged("Build was cancelled"));
    assert_eq!(lock(&PHASES).last().unwrap(), "Building Engine ends");
    let plan = plan(builder, logger, monitor(usize::MAX)).unwrap();
    delete(builder);
    assert!(logged("operator: NoSuchOperator"));
    assert!(lock(&PHASES).iter().any(|line| line == "Tactic Selection<Building Engine 80"));

    // SAFETY: as above.
    let runtime = unsafe { createInferRuntime_INTERNAL(logger, 0) };
    let deserialize = |bytes: &[u8]| call!(inner(runtime), 3, (*const u8, usize) -> *mut c_void, bytes.as_ptr(), bytes.len());
    assert!(deserialize(b"garbage").is_null() && logged("magicTag"));
    let engine = deserialize(&plan);
    assert_eq!(call!(inner(engine), 30, () -> i32), 2);
    let name = call!(inner(engine), 31, (i32) -> *const c_char, 1);
    assert_eq!(super::object::text(name), "y");
    let most = call!(inner(engine), 29, (*const c_char, i32, i32) -> Dims, c"x".as_ptr(), 0, 2);
    assert_eq!(most, Dims::new(&[8, 4]));
    let context = call!(inner(engine), 5, (i32) -> *mut c_void, 0);
    let this = inner(context);
    let set_shape = |shape: &[i64]| {
        let dims = Dims::new(shape);
        call!(this, 21, (*const c_char, *const Dims) -> bool, c"x".as_ptr(), &raw const dims)
    };
    assert!(!set_shape(&[9, 4]) && logged("Valid range for profile 0: [1,4]..[8,4]"));
    assert!(!set_shape(&[1, 5]) && set_shape(&[2, 4]));
    let shape = call!(this, 22, (*const c_char) -> Dims, c"y".as_ptr());
    assert_eq!(shape, Dims::new(&[2, 4]));
    let stream = stream::create(stream::NON_BLOCKING, 0).unwrap();
    let enqueue = || call!(this, 37, (usize) -> bool, stream);
    assert!(!enqueue() && logged("Neither address or allocator is set for tensor x"));
    let (x, y) = (allocate(32), allocate(32));
    let set = |name: &CStr, address: usize| call!(this, 24, (*const c_char, usize) -> bool, name.as_ptr(), address);
    assert!(!set(c"x", x + 4) && set(c"x", x) && set(c"y", y));
    let values: Vec<u8> = (-4..4).flat_map(|n: i8| f32::from(n).to_le_bytes()).collect();
    memory::copy(x, values.as_ptr() as usize, 32);
    assert!(enqueue());
    stream::synchronize(&stream::get(stream).unwrap()).unwrap();
    let result = memory::snapshot(y, 32);
    assert_eq!(result, [&[0; 20][..], &values[20..]].concat());

    // As a graph.
    memory::fill(y, &[7], 32);
    let target = stream::get(stream).unwrap();
    crate::capture::begin(&target, 1).unwrap();
    assert!(enqueue());
    let graph = crate::graph::Executable::new(crate::capture::end(&target).unwrap());
    assert_eq!(memory::snapshot(y, 32), [7; 32]);
    crate::graph::launch(&graph, stream).unwrap();
    stream::synchronize(&target).unwrap();
    assert_eq!(memory::snapshot(y, 32), result);

    fault::give("enqueue");
    assert!(!enqueue());
    fault::give("");
    delete(context);
    delete(engine);
    delete(runtime);
    assert_eq!((count::ENGINES.get(), count::CONTEXTS.get()), (0, 0));
    let (violations, _) = count::violations();
    assert!(!violations.iter().any(|text| text.contains("is deleted")), "{violations:?}");
    stream::destroy(stream).unwrap();
}

fn allocate(len: usize) -> usize {
    memory::allocate(len, memory::Kind::Device).unwrap()
}
