//! A TEST's double of TensorRT: how its objects look to a caller (Itanium C++ ABI).
//!
//! A public object is `[table][implementation]`; its table has the two destructors. The
//! implementation is `[table]…`, and its table has two destructors and then the methods.
//! A *plain* object (parser, parser error) is `[table]…` alone. All that live are listed
//! here, so a call on one that does not is found out before anything is read.
#![allow(unsafe_code)]

use crate::count;
use crate::table::lock;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;

/// Slots of a table; more than any class has.
const SLOTS: usize = 64;

/// A method: its slot and its address.
pub(super) type Method = (usize, usize);

/// A class of TensorRT.
pub(super) trait Class: 'static {
    const NAME: &'static str;
    /// Slots of the implementation's table, or of a plain object's.
    fn methods() -> Vec<Method>;
    /// The caller deletes it, whose slots these are in the table of the public object.
    const DELETED_BY_CALLER: bool = true;
    /// Called before it goes: what is wrong with that now.
    fn deleting(&self) -> Option<String> {
        None
    }
}

#[repr(C)]
struct Public<T> {
    table: *const usize,
    implementation: *const Plain<T>,
    inner: Plain<T>,
}

#[repr(C)]
struct Plain<T> {
    table: *const usize,
    data: T,
}

/// Address and class of everything that lives, implementations included.
static LIVING: Mutex<BTreeMap<usize, &'static str>> = Mutex::new(BTreeMap::new());

/// Ends the process: what follows would be undefined behaviour in TensorRT.
pub(super) fn fatal(text: &str) -> ! {
    #[allow(clippy::print_stderr)] // The last words of a process.
    {
        eprintln!("gpu-double: {text}");
    }
    std::process::abort()
}

extern "C" fn unused<const SLOT: usize>(this: *const c_void) {
    let class =
        lock(&LIVING).get(&(this as usize)).copied().unwrap_or("something that is no object");
    fatal(&format!("{class}: slot {SLOT} of TensorRT 10's table is not doubled"));
}

macro_rules! unused {
    ($($slot:literal)*) => { [$(unused::<$slot> as *const () as usize),*] };
}

/// A table, made once per object and never freed: they are few and small.
fn table(methods: &[Method]) -> *const usize {
    let mut slots: [usize; SLOTS] = unused!(
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
        32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
    );
    for (slot, method) in methods {
        if let Some(place) = slots.get_mut(*slot) {
            *place = *method;
        }
    }
    Box::leak(Box::new(slots)).as_ptr()
}

/// Tables by class: public and implementation, or plain.
static TABLES: Mutex<BTreeMap<(&'static str, bool), usize>> = Mutex::new(BTreeMap::new());

fn table_of(
    class: &'static str,
    public: bool,
    methods: impl FnOnce() -> Vec<Method>,
) -> *const usize {
    let mut tables = lock(&TABLES);
    *tables.entry((class, public)).or_insert_with(|| table(&methods()) as usize) as *const usize
}

/// A new public object.
pub(super) fn make<T: Class>(data: T) -> *mut c_void {
    let destructors = || {
        if T::DELETED_BY_CALLER { vec![(1, delete::<T> as *const () as usize)] } else { vec![] }
    };
    let object = Box::into_raw(Box::new(Public {
        table: table_of(T::NAME, true, destructors),
        implementation: std::ptr::null(),
        inner: Plain { table: table_of(T::NAME, false, T::methods), data },
    }));
    // SAFETY: the object was just made.
    let inner = unsafe { &raw const (*object).inner };
    // SAFETY: as above; nobody else knows it yet.
    unsafe { (*object).implementation = inner }
    let mut living = lock(&LIVING);
    living.insert(object as usize, T::NAME);
    living.insert(inner as usize, T::NAME);
    drop(living);
    if T::DELETED_BY_CALLER {
        count::OBJECTS.add(1);
    }
    object.cast()
}

/// A new object without an implementation.
pub(super) fn make_plain<T: Class>(data: T) -> *mut c_void {
    let table = table_of(T::NAME, false, T::methods);
    let object = Box::into_raw(Box::new(Plain { table, data }));
    lock(&LIVING).insert(object as usize, T::NAME);
    if T::DELETED_BY_CALLER {
        count::OBJECTS.add(1);
    }
    object.cast()
}

fn expect<T: Class>(this: *const c_void, call: &str) {
    let found = lock(&LIVING).get(&(this as usize)).copied();
    if found != Some(T::NAME) {
        fatal(&format!(
            "{call}: {this:?} is {}, not a living {}",
            found.unwrap_or("nothing that lives"),
            T::NAME
        ));
    }
}

/// What a method's `this` belongs to: an implementation or a plain object.
pub(super) fn this<'a, T: Class>(this: *const c_void) -> &'a T {
    expect::<T>(this, "a method");
    // SAFETY: it lives, is of this class, and methods are called on implementations and
    // plain objects alone. Deleting it meanwhile is the caller's undefined behaviour.
    unsafe { &(*this.cast::<Plain<T>>()).data }
}

/// What a public object that is given as a parameter holds.
pub(super) fn public<'a, T: Class>(object: *const c_void) -> &'a T {
    expect::<T>(object, "a parameter");
    // SAFETY: as for `this`, with a public object.
    unsafe { &(*object.cast::<Public<T>>()).inner.data }
}

fn leave<T: Class>(data: &T, addresses: &[usize]) {
    if let Some(wrong) = data.deleting() {
        count::violation(format!("{} is deleted: {wrong}", T::NAME));
    }
    let mut living = lock(&LIVING);
    for address in addresses {
        living.remove(address);
    }
    count::OBJECTS.sub(1);
}

/// The deleting destructor of a public object.
pub(super) extern "C" fn delete<T: Class>(object: *mut c_void) {
    expect::<T>(object, "delete");
    let object = object.cast::<Public<T>>();
    // SAFETY: it lives, and was made by `make`.
    let object = unsafe { Box::from_raw(object) };
    leave(&object.inner.data, &[&raw const *object as usize, &raw const object.inner as usize]);
}

/// The deleting destructor of a plain object.
pub(super) extern "C" fn delete_plain<T: Class>(object: *mut c_void) {
    expect::<T>(object, "delete");
    // SAFETY: it lives, and was made by `make_plain`.
    let object = unsafe { Box::from_raw(object.cast::<Plain<T>>()) };
    leave(&object.data, &[&raw const *object as usize]);
}

/// Frees a plain object that the double itself owns.
pub(super) fn free_plain<T: Class>(object: *mut c_void) {
    expect::<T>(object, "free");
    lock(&LIVING).remove(&(object as usize));
    // SAFETY: as for `delete_plain`.
    drop(unsafe { Box::from_raw(object.cast::<Plain<T>>()) });
}

/// A name that a caller gives; null is no name.
pub(super) fn text(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: TensorRT takes C strings.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Bytes that a caller gives.
pub(super) fn bytes(data: *const c_void, len: usize) -> Vec<u8> {
    if data.is_null() { Vec::new() } else { crate::memory::snapshot(data as usize, len) }
}

/// Sizes of a tensor, as TensorRT hands them around.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dims {
    count: i32,
    sizes: [i64; 8],
}

impl Dims {
    /// What TensorRT answers where there is no tensor of the name.
    pub(super) const NONE: Self = Self { count: -1, sizes: [0; 8] };

    pub(super) fn new(shape: &[i64]) -> Self {
        let mut sizes = [0; 8];
        for (size, value) in sizes.iter_mut().zip(shape) {
            *size = *value;
        }
        Self { count: i32::try_from(shape.len().min(8)).unwrap_or(0), sizes }
    }

    pub(super) fn shape(&self) -> Vec<i64> {
        let count = usize::try_from(self.count).unwrap_or(0).min(8);
        self.sizes[..count].to_vec()
    }
}

/// `[1,3,640,640]`, as TensorRT writes it.
pub(super) fn written(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", sizes.join(","))
}
