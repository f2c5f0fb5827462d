//! Opening TensorRT's libraries and looking their few C functions up.
//!
//! Nothing but `getInferLibVersion` is called before the version is known: with the
//! wrong tables the next call would be a jump to the wrong function.
#![allow(unsafe_code)]

use crate::abi::{Abi, Version};
use crate::error::Error;
use crate::logger;
use crate::raw::{Object, Owned};
use crate::record;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// `createInferRuntime_INTERNAL` and `createInferBuilder_INTERNAL`: logger, version.
type Create = unsafe extern "C" fn(*const c_void, i32) -> *mut Object;
/// `createNvOnnxParser_INTERNAL`: network, logger, version.
type CreateParser = unsafe extern "C" fn(NonNull<Object>, *const c_void, i32) -> *mut Object;

const GET_VERSION: &str = "getInferLibVersion";
const CREATE_RUNTIME: &str = "createInferRuntime_INTERNAL";
const CREATE_BUILDER: &str = "createInferBuilder_INTERNAL";
const CREATE_PARSER: &str = "createNvOnnxParser_INTERNAL";

/// An open library of a known version.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    pub(crate) abi: Abi,
    number: i32,
    create_runtime: Create,
    /// Absent in the lean and dispatch libraries, which only run plans.
    create_builder: Option<Create>,
}

/// An open parser.
pub(crate) struct Parser {
    create: CreateParser,
}

/// Opens a library; `path` is a file or a name for the loader.
pub(crate) fn open(path: &Path) -> Result<Opened, Error> {
    let library = load(path)?;
    // SAFETY: TensorRT declares `int32_t getInferLibVersion()`, in every version.
    let get_version = unsafe { symbol::<unsafe extern "C" fn() -> i32>(&library, GET_VERSION) }
        .ok_or_else(|| no_function(path, GET_VERSION))?;
    // SAFETY: as above; a function of this name is nobody else's.
    let number = unsafe { get_version() };
    // A bare name says nothing about where the loader found it.
    let path = if path.components().count() > 1 {
        path.to_owned()
    } else {
        mapped_file(get_version as usize).unwrap_or_else(|| path.to_owned())
    };
    let version = Version::from_number(number);
    let abi = Abi::of(version).ok_or_else(|| Error::Version { path: path.clone(), version })?;
    // SAFETY: in the known versions the function is as `Create` has it.
    let create_runtime = unsafe { symbol::<Create>(&library, CREATE_RUNTIME) }
        .ok_or_else(|| no_function(&path, CREATE_RUNTIME))?;
    // SAFETY: as above.
    let create_builder = unsafe { symbol::<Create>(&library, CREATE_BUILDER) };
    keep(library);
    Ok(Opened { path, version, abi, number, create_runtime, create_builder })
}

/// Opens the parser; `path` is a file or a name for the loader.
pub(crate) fn open_parser(path: &Path) -> Result<Parser, Error> {
    let library = load(path)?;
    // SAFETY: the function is as `CreateParser` has it in every version.
    let create = unsafe { symbol::<CreateParser>(&library, CREATE_PARSER) }.ok_or_else(|| {
        let hint = "it is not TensorRT's ONNX parser";
        Error::Symbol { path: path.to_owned(), symbol: CREATE_PARSER, hint }
    })?;
    keep(library);
    Ok(Parser { create })
}

impl Opened {
    /// A library that is not there, of TensorRT 10.3.
    #[cfg(test)]
    pub(crate) fn fake(create_runtime: Create) -> Self {
        let (path, number) = (PathBuf::from("fake"), 100_300);
        let version = Version::from_number(number);
        Self { path, version, abi: Abi::V10, number, create_runtime, create_builder: None }
    }

    pub(crate) fn runtime(&self) -> Result<Owned<'static>, Error> {
        let mark = record::mark();
        // SAFETY: the function is TensorRT's, declared as `Create`; the logger is of
        // this ABI and lives for the whole process.
        let runtime = unsafe { (self.create_runtime)(logger::pointer(self.abi), self.number) };
        // SAFETY: the call hands an `IRuntime` over, whose code is never unloaded.
        unsafe { Owned::public(runtime) }
            .ok_or_else(|| Error::Refused { call: "createInferRuntime", log: record::since(mark) })
    }

    pub(crate) fn builder(&self) -> Result<Owned<'static>, Error> {
        let create = self.create_builder.ok_or_else(|| Error::Symbol {
            path: self.path.clone(),
            symbol: CREATE_BUILDER,
            hint: "this part of TensorRT only runs plans; install the full library to build them",
        })?;
        let mark = record::mark();
        // SAFETY: as for the runtime.
        let builder = unsafe { create(logger::pointer(self.abi), self.number) };
        // SAFETY: the call hands an `IBuilder` over, whose code is never unloaded.
        unsafe { Owned::public(builder) }
            .ok_or_else(|| Error::Refused { call: "createInferBuilder", log: record::since(mark) })
    }
}

impl Parser {
    /// A parser that fills `network`.
    ///
    /// # Safety
    /// `network` is a live network of the library `opened`, and outlives the parser.
    pub(crate) unsafe fn create<'n>(
        &self,
        opened: &Opened,
        network: NonNull<Object>,
    ) -> Result<Owned<'n>, Error> {
        let mark = record::mark();
        // SAFETY: the function is TensorRT's, declared as `CreateParser`; the network
        // is live, the logger as for the runtime.
        let parser = unsafe { (self.create)(network, logger::pointer(opened.abi), opened.number) };
        let slot = &opened.abi.table().parser_destructor;
        let index = slot.index().unwrap_or_default();
        // SAFETY: the call hands an `IParser` over, whose destructor is at that slot.
        unsafe { Owned::interface(parser, index) }
            .ok_or_else(|| Error::Refused { call: "createNvOnnxParser", log: record::since(mark) })
    }
}

fn load(path: &Path) -> Result<libloading::Library, Error> {
    // SAFETY: opening runs the initialisers of a library that the user installed under
    // TensorRT's own name or named explicitly; they have no preconditions.
    unsafe { libloading::Library::new(path) }.map_err(|error| Error::Load {
        path: path.to_owned(),
        reason: record::one_line(&error.to_string(), 400),
    })
}

/// A function of the library.
///
/// # Safety
/// `F` is a function pointer of the type that the function has.
unsafe fn symbol<F: Copy>(library: &libloading::Library, name: &str) -> Option<F> {
    // SAFETY: the caller's promise.
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    found.ok().map(|symbol| *symbol)
}

/// A library in use stays open for the rest of the process: TensorRT's threads and
/// its global objects do not survive unloading.
fn keep(library: libloading::Library) {
    std::mem::forget(library);
}

fn no_function(path: &Path, symbol: &'static str) -> Error {
    Error::Symbol {
        path: path.to_owned(),
        symbol,
        hint: "it is not TensorRT; give the path of libnvinfer.so or its folder",
    }
}

/// The file whose code lies at `address` in this process.
fn mapped_file(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    file_at(&maps, address)
}

/// `maps` has lines such as `7f0a-7f0b r-xp 00001000 08:01 1234    /usr/lib/libc.so.6`.
fn file_at(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let bound = |text| usize::from_str_radix(text, 16).ok();
        let inside = (bound(from)?..bound(to)?).contains(&address);
        let start = rest.find('/').filter(|_| inside)?;
        Some(PathBuf::from(&rest[start..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C library of this process: a real library without TensorRT in it.
    fn libc() -> PathBuf {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|l| l.contains("libc.so") || l.contains("libc-")).unwrap();
        line[line.find('/').unwrap()..].into()
    }

    #[test]
    fn files_that_are_no_library_are_refused_with_the_loaders_words() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libnvinfer.so.10");
        std::fs::write(&text, "no library").unwrap();
        let error = open(&text).err().unwrap();
        assert!(matches!(error, Error::Load { .. }), "{error}");
        assert!(error.to_string().contains("cannot be loaded: "), "{error}");
    }

    #[test]
    fn another_library_is_refused_before_anything_is_called() {
        let error = open(&libc()).err().unwrap();
        assert!(matches!(error, Error::Symbol { symbol: GET_VERSION, .. }), "{error}");
        let error = open_parser(&libc()).err().unwrap();
        assert!(error.to_string().ends_with("it is not TensorRT's ONNX parser"), "{error}");
    }

    #[test]
    fn the_file_of_an_address() {
        let maps = "1000-2000 r--p 00000000 08:01 7                  /a/first.so\n\
                    2000-3000 r-xp 00001000 08:01 8                  /a/with space.so\n\
                    4000-5000 rw-p 00000000 00:00 0 \n";
        assert_eq!(file_at(maps, 0x1fff), Some("/a/first.so".into()));
        assert_eq!(file_at(maps, 0x2000), Some("/a/with space.so".into()));
        assert_eq!(file_at(maps, 0x3000), None);
        assert_eq!(file_at(maps, 0x4000), None);
        assert_eq!(file_at("nonsense", 1), None);
    }
}
