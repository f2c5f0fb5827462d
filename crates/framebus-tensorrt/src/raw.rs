//! Raw level: how TensorRT's C++ objects lie in memory, and calling a method by its
//! slot.
//!
//! An object begins with a pointer to its virtual table (Itanium C++ ABI, as on
//! x86-64 and aarch64 Linux). The classes that a program sees hold a second pointer,
//! `mImpl`, to the object that does the work; their own table holds the destructors
//! alone. What a slot's function takes and returns stands in [`crate::abi`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A C++ object with virtual functions.
#[repr(C)]
pub(crate) struct Object {
    table: *const *const c_void,
    /// `mImpl`; only public classes have it.
    implementation: *mut Object,
}

/// Pointers below this are no objects: without a working driver TensorRT answers with
/// small numbers (0x228) where its documentation promises null.
const LOWEST: usize = 0x1_0000;

/// The pointer, where it can be one to an object.
pub(crate) fn plausible<T>(pointer: *mut T) -> Option<NonNull<T>> {
    if pointer.addr() < LOWEST { None } else { NonNull::new(pointer) }
}

/// `nvinfer1::Dims`: at most eight dimensions; -1 is a free one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dims {
    count: i32,
    sizes: [i64; Self::MAX],
}

impl Dims {
    pub(crate) const MAX: usize = 8;

    /// `None`: more dimensions than TensorRT has.
    pub(crate) fn new(shape: &[i64]) -> Option<Self> {
        let mut dims = Self { count: i32::try_from(shape.len()).ok()?, ..Self::default() };
        dims.sizes.get_mut(..shape.len())?.copy_from_slice(shape);
        Some(dims)
    }

    /// `None` for what TensorRT answers where there is no such tensor (a count of -1).
    pub(crate) fn shape(&self) -> Option<Vec<i64>> {
        let count = usize::try_from(self.count).ok()?;
        Some(self.sizes.get(..count)?.to_vec())
    }
}

/// A virtual function: its place in the table and, as `F`, what it takes (without
/// `this`) and returns.
pub(crate) struct Slot<F> {
    index: usize,
    signature: PhantomData<F>,
}

/// Where an ABI lacks a method.
pub(crate) const ABSENT: usize = usize::MAX;

impl<F> Slot<F> {
    pub(crate) const fn at(index: usize) -> Self {
        Self { index, signature: PhantomData }
    }

    /// Its number, where this ABI has the method.
    pub(crate) const fn index(&self) -> Option<usize> {
        if self.index == ABSENT { None } else { Some(self.index) }
    }
}

macro_rules! arity {
    ($($argument:ident: $type:ident),*) => {
        impl<R $(, $type)*> Slot<fn($($type),*) -> R> {
            /// Calls the method on `this`.
            ///
            /// # Safety
            /// `this` is a live object of the class and ABI that the slot belongs to
            /// and nobody else uses it in a way that the class forbids; the ABI has
            /// the method; the arguments are what the method may get.
            pub(crate) unsafe fn call(&self, this: NonNull<Object> $(, $argument: $type)*) -> R {
                // SAFETY: a live object begins with the pointer to its table.
                let table = unsafe { (*this.as_ptr()).table };
                // SAFETY: the class has the slot, so the table is at least that long.
                let entry = unsafe { table.add(self.index) };
                // SAFETY: as above; tables are constant and initialised.
                let function = unsafe { entry.read() };
                // SAFETY: the slot's signature is the method's: the table in `abi`
                // promises it. A method is a C function with `this` first.
                let function = unsafe {
                    std::mem::transmute::<
                        *const c_void,
                        unsafe extern "C" fn(NonNull<Object> $(, $type)*) -> R,
                    >(function)
                };
                // SAFETY: the caller's promise.
                unsafe { function(this $(, $argument)*) }
            }
        }
    };
}

arity!();
arity!(a: A);
arity!(a: A, b: B);
arity!(a: A, b: B, c: C);

/// An object that is ours to release, with everything that must outlive it as `'k`.
pub(crate) struct Owned<'k> {
    object: NonNull<Object>,
    deleting_destructor: Slot<fn()>,
    keeper: PhantomData<&'k ()>,
}

/// Deleting destructor of every public class: its table holds the two destructors.
const DELETING_DESTRUCTOR: usize = 1;

impl Owned<'_> {
    /// Takes over a public object (one with `mImpl`); `None` where TensorRT made none.
    ///
    /// # Safety
    /// `pointer` comes from a TensorRT call that hands over a public object, and stays
    /// valid until it is released here, which must happen within the lifetime.
    pub(crate) unsafe fn public(pointer: *mut Object) -> Option<Self> {
        // SAFETY: passed on.
        let owned = unsafe { Self::interface(pointer, DELETING_DESTRUCTOR) }?;
        // SAFETY: a public object has a second pointer.
        let implementation = unsafe { (*pointer).implementation };
        if plausible(implementation).is_none() {
            // Not an object at all: its destructor is no better.
            std::mem::forget(owned);
            return None;
        }
        Some(owned)
    }

    /// As [`Owned::public`] for a plain interface with its deleting destructor at
    /// `slot`.
    ///
    /// # Safety
    /// As [`Owned::public`]; `slot` is right for the object.
    pub(crate) unsafe fn interface(pointer: *mut Object, slot: usize) -> Option<Self> {
        let object = plausible(pointer)?;
        Some(Self { object, deleting_destructor: Slot::at(slot), keeper: PhantomData })
    }

    /// The object itself: what other methods take as an argument.
    pub(crate) fn object(&self) -> NonNull<Object> {
        self.object
    }

    /// What methods of a public class are called on; the object itself for a plain
    /// interface is [`Owned::object`].
    pub(crate) fn implementation(&self) -> NonNull<Object> {
        // SAFETY: the object is live, and public ones hold the pointer.
        let implementation = unsafe { (*self.object.as_ptr()).implementation };
        // It was plausible when the object was taken over and never changes.
        NonNull::new(implementation).unwrap_or(self.object)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the object is live and ours, the slot is its deleting destructor,
        // and nothing uses it after this.
        unsafe { self.deleting_destructor.call(self.object) };
    }
}

// SAFETY: TensorRT's objects belong to no thread; they only must not be used by two
// at a time, which `Send` without `Sync` says.
unsafe impl Send for Owned<'_> {}

/// The implementation of a public object that somebody else owns (a tensor, a
/// profile).
///
/// # Safety
/// `object` is a live public object.
pub(crate) unsafe fn implementation(object: NonNull<Object>) -> Option<NonNull<Object>> {
    // SAFETY: the caller's promise.
    plausible(unsafe { (*object.as_ptr()).implementation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_no_objects() {
        assert!(plausible(std::ptr::null_mut::<Object>()).is_none());
        assert!(plausible(std::ptr::without_provenance_mut::<Object>(0x228)).is_none());
        assert!(plausible(std::ptr::without_provenance_mut::<Object>(0x1_0000)).is_some());
    }

    #[test]
    fn dims_are_as_in_the_header_and_bounded() {
        assert_eq!(size_of::<Dims>(), 72);
        let dims = Dims::new(&[-1, 3, 384, 640]).unwrap();
        assert_eq!(dims.shape().unwrap(), [-1, 3, 384, 640]);
        assert_eq!(Dims::new(&[]).unwrap().shape().unwrap(), [0_i64; 0]);
        assert!(Dims::new(&[1; 9]).is_none());
        let none = Dims { count: -1, ..Dims::default() };
        assert_eq!(none.shape(), None);
        let wild = Dims { count: 100, ..Dims::default() };
        assert_eq!(wild.shape(), None);
    }

    #[repr(C)]
    struct Adder {
        table: *const *const c_void,
        implementation: *mut Object,
        value: i32,
    }

    unsafe extern "C" fn add(this: NonNull<Object>, amount: i32) -> i32 {
        // SAFETY: the test calls it on an Adder.
        unsafe { (*this.cast::<Adder>().as_ptr()).value + amount }
    }

    #[test]
    fn a_slot_calls_the_function_at_its_place() {
        let table = [std::ptr::null(), std::ptr::null(), add as *const c_void];
        let mut adder =
            Adder { table: table.as_ptr(), implementation: std::ptr::null_mut(), value: 40 };
        let this = NonNull::from(&mut adder).cast::<Object>();
        let slot: Slot<fn(i32) -> i32> = Slot::at(2);
        // SAFETY: slot 2 of this table is `add`.
        assert_eq!(unsafe { slot.call(this, 2) }, 42);
    }
}
