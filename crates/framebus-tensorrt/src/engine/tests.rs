//! The running half over objects that are made here, with the tables of TensorRT 10.
#![allow(unsafe_code)]

use super::*;
use crate::open::Opened;
use std::cell::RefCell;
use std::ffi::c_char;

thread_local! {
    /// What happened to the objects, in order.
    static EVENTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn event(text: &str) {
    EVENTS.with_borrow_mut(|events| events.push(text.to_owned()));
}

fn events() -> Vec<String> {
    EVENTS.take()
}

type Pointer = *const c_void;
type This = *mut Object;

extern "C" fn never() {
    std::process::abort();
}

/// A public object with its destructor and the given methods, leaked.
fn object(release: extern "C" fn(This), methods: &[(usize, Pointer)]) -> This {
    let mut table = vec![never as Pointer; 64];
    for &(slot, method) in methods {
        table[slot] = method;
    }
    let words = |words: [Pointer; 2]| Box::leak(Box::new(words)).as_mut_ptr();
    let implementation = words([table.leak().as_ptr().cast::<c_void>(), std::ptr::null()]);
    let own = words([never as Pointer, release as Pointer]);
    words([own.cast::<c_void>(), implementation.cast::<c_void>()]).cast::<Object>()
}

extern "C" fn release_runtime(_: This) {
    event("runtime released");
}
extern "C" fn release_engine(_: This) {
    event("engine released");
}
extern "C" fn release_context(_: This) {
    event("context released");
}

unsafe extern "C" fn create_runtime(logger: Pointer, _: i32) -> This {
    assert_eq!(logger, crate::logger::pointer(crate::Abi::V10));
    object(release_runtime, &[(3, deserialize as Pointer)])
}

extern "C" fn deserialize(_: This, plan: *const u8, size: usize) -> This {
    if size != 4 {
        record::push(record::Severity::Error, "IRuntime::deserializeCudaEngine: magic\ntag");
        return std::ptr::without_provenance_mut(0x228);
    }
    // SAFETY: the caller passes that many bytes.
    assert_eq!(unsafe { std::slice::from_raw_parts(plan, size) }, b"plan");
    let methods = [
        (5, create_context as Pointer),
        (10, profile_count as Pointer),
        (19, shape as Pointer),
        (20, data_type as Pointer),
        (23, io_mode as Pointer),
        (29, profile_shape as Pointer),
        (30, tensor_count as Pointer),
        (31, tensor_name as Pointer),
        (52, device_memory as Pointer),
    ];
    object(release_engine, &methods)
}

extern "C" fn create_context(_: This, strategy: i32) -> This {
    assert_eq!(strategy, 0);
    let methods = [
        (17, set_profile as Pointer),
        (21, set_input_shape as Pointer),
        (22, shape as Pointer),
        (24, set_address as Pointer),
        (37, enqueue as Pointer),
    ];
    object(release_context, &methods)
}

extern "C" fn profile_count(_: This) -> i32 {
    1
}
extern "C" fn tensor_count(_: This) -> i32 {
    2
}
extern "C" fn device_memory(_: This) -> i64 {
    5 << 30
}
extern "C" fn tensor_name(_: This, index: i32) -> *const c_char {
    if index == 0 { c"images".as_ptr() } else { c"boxes".as_ptr() }
}
fn is(name: *const c_char, wanted: &CStr) -> bool {
    // SAFETY: the binding passes C strings.
    let name = unsafe { CStr::from_ptr(name) };
    name == wanted
}
extern "C" fn io_mode(_: This, name: *const c_char) -> i32 {
    if is(name, c"images") { 1 } else { 2 }
}
extern "C" fn data_type(_: This, name: *const c_char) -> i32 {
    i32::from(is(name, c"images"))
}
extern "C" fn shape(_: This, name: *const c_char) -> Dims {
    Dims::new(if is(name, c"images") { &[-1, 3, 384, 640] } else { &[-1, 64] }).unwrap()
}
extern "C" fn profile_shape(_: This, name: *const c_char, profile: i32, which: i32) -> Dims {
    assert!(is(name, c"images") && profile == 0);
    Dims::new(&[[1, 4, 8][which as usize], 3, 384, 640]).unwrap()
}
extern "C" fn set_profile(_: This, profile: i32, stream: *mut c_void) -> bool {
    event(&format!("profile {profile} on {}", stream.addr()));
    true
}
unsafe extern "C" fn set_input_shape(_: This, name: *const c_char, dims: *const Dims) -> bool {
    // SAFETY: the binding passes sizes that live during the call.
    let shape = unsafe { *dims }.shape().unwrap();
    event(&format!("{shape:?}"));
    is(name, c"images")
}
extern "C" fn set_address(_: This, _: *const c_char, address: *mut c_void) -> bool {
    event(&format!("address {}", address.addr()));
    true
}
extern "C" fn enqueue(_: This, stream: *mut c_void) -> bool {
    event(&format!("run on {}", stream.addr()));
    stream.addr() == 7
}

#[test]
fn a_context_keeps_everything_it_came_from_and_is_released_first() {
    let library = Library::of(Opened::fake(create_runtime));
    let runtime = library.runtime().unwrap();
    let engine = runtime.deserialize(b"plan").unwrap();
    let mut context = engine.context().unwrap();
    drop((library, runtime, engine));
    assert_eq!(events(), [""; 0], "nothing is released under a context");

    let stream = std::ptr::without_provenance_mut(7);
    context.set_input_shape(c"images", &[4, 3, 384, 640]).unwrap();
    assert_eq!(context.tensor_shape(c"boxes").unwrap(), [-1, 64]);
    // SAFETY: the objects of this test touch neither stream nor memory.
    unsafe { context.set_profile(0, stream) }.unwrap();
    // SAFETY: as above.
    unsafe { context.set_tensor_address(c"images", 4096) }.unwrap();
    // SAFETY: as above.
    unsafe { context.enqueue(stream) }.unwrap();
    let other = std::ptr::without_provenance_mut(8);
    // SAFETY: as above.
    let error = unsafe { context.enqueue(other) }.unwrap_err();
    assert!(error.to_string().starts_with("IExecutionContext::enqueueV3 failed: "), "{error}");
    assert!(matches!(context.set_input_shape(c"images", &[1; 9]), Err(Error::Argument { .. })));
    let expected = ["[4, 3, 384, 640]", "profile 0 on 7", "address 4096", "run on 7", "run on 8"];
    assert_eq!(events(), expected);

    // Also from another thread, where it may have been sent.
    let released = std::thread::spawn(move || {
        drop(context);
        events()
    });
    let expected = ["context released", "engine released", "runtime released"];
    assert_eq!(released.join().unwrap(), expected);
}

#[test]
fn an_engine_describes_itself() {
    let library = Library::of(Opened::fake(create_runtime));
    let engine = library.runtime().unwrap().deserialize(b"plan").unwrap();
    let tensors = engine.tensors().unwrap();
    let images = Tensor {
        name: c"images".into(),
        io: Io::Input,
        data_type: DataType::F16,
        shape: vec![-1, 3, 384, 640],
    };
    assert_eq!(tensors[0], images);
    assert_eq!((tensors[1].io, tensors[1].data_type), (Io::Output, DataType::F32));
    assert_eq!(engine.profiles(), 1);
    assert_eq!(engine.profile_shape(c"images", 0, Selector::Opt).unwrap()[0], 4);
    assert_eq!(engine.profile_shape(c"images", 0, Selector::Max).unwrap()[0], 8);
    assert_eq!(engine.device_memory_bytes(), Some(5 << 30));
}

#[test]
fn no_engine_is_an_error_with_the_words_of_the_log() {
    let library = Library::of(Opened::fake(create_runtime));
    let runtime = library.runtime().unwrap();
    let error = runtime.deserialize(b"garbage").err().unwrap();
    assert_eq!(error.to_string(), "IRuntime::deserializeCudaEngine failed: magic tag");
    drop((runtime, library));
    assert_eq!(events(), ["runtime released"]);
}

#[test]
fn a_runtime_that_is_a_small_number_is_none() {
    unsafe extern "C" fn bogus(_: Pointer, _: i32) -> This {
        std::ptr::without_provenance_mut(0x228)
    }
    let error = Library::of(Opened::fake(bogus)).runtime().err().unwrap();
    assert!(matches!(error, Error::Refused { call: "createInferRuntime", .. }), "{error}");
}

fn shared_between_threads<T: Send + Sync>() {}
fn sent_to_a_thread<T: Send>() {}

#[test]
fn what_may_go_to_other_threads() {
    shared_between_threads::<Library>();
    shared_between_threads::<Runtime>();
    shared_between_threads::<Engine>();
    sent_to_a_thread::<ExecutionContext>();
    sent_to_a_thread::<crate::Built>();
}

#[test]
fn unknown_types_keep_their_number() {
    assert_eq!(DataType::from_number(1), DataType::F16);
    assert_eq!(DataType::from_number(9), DataType::Other(9));
}
