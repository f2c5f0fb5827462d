//! The double of an NVIDIA GPU: `tests/gpu-double`, in the place of the CUDA driver and of
//! TensorRT.
#![allow(unsafe_code)]

use crate::assets::skip;
use crate::process::target_folder;
use crate::world::World;
use serde_json::Value;
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};

/// Names under which programs look for the libraries that the double stands for.
const NAMES: [&str; 4] =
    ["libcuda.so", "libcuda.so.1", "libnvinfer.so.10", "libnvonnxparser.so.10"];

/// A folder that looks like an installed driver and TensorRT 10.
#[derive(Debug)]
pub struct GpuDouble {
    folder: PathBuf,
    faults: PathBuf,
}

impl GpuDouble {
    /// Puts the double into the world's folder, and the processes that the world starts
    /// find it; `None`, after saying SKIPPED, where it was not built. `device` says what
    /// it is: see `tests/gpu-double/src/device.rs`.
    ///
    /// # Panics
    /// When it was not built and `FRAMEBUS_REQUIRE_ASSETS=1`, or the world's folder
    /// cannot be written.
    #[must_use]
    pub fn install(world: &mut World, device: &str) -> Option<Self> {
        let library = library()?;
        let folder = world.path("gpu");
        std::fs::create_dir_all(&folder).expect("the world's folder is writable");
        for name in NAMES {
            let link = folder.join(name);
            if !link.exists() {
                std::os::unix::fs::symlink(&library, link).expect("a link");
            }
        }
        let faults = world.write("gpu-faults", "");
        let environment = &mut world.environment;
        environment.push(("LD_LIBRARY_PATH".to_owned(), folder.display().to_string()));
        environment.push(("GPU_DOUBLE_FAULTS".to_owned(), faults.display().to_string()));
        environment.push(("GPU_DOUBLE_DEVICE".to_owned(), device.to_owned()));
        Some(Self { folder, faults })
    }

    /// The folder that holds it, as for `tensorrt.library`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets something go wrong in all processes of the world from now on; empty: nothing.
    ///
    /// # Panics
    /// When the world's folder cannot be written.
    pub fn fault(&self, words: &str) {
        // In one step: whoever reads sees the old or the new words.
        let new = self.faults.with_extension("new");
        std::fs::write(&new, words).expect("the world's folder is writable");
        std::fs::rename(new, &self.faults).expect("the world's folder is writable");
    }

    /// The double in this process.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn load(&self) -> Loaded {
        // By its path first: whoever asks for `libcuda.so.1` then gets this one, whose
        // name that is.
        // SAFETY: the double's initialisers do nothing.
        let library = unsafe { libloading::Library::new(self.folder.join("libcuda.so.1")) };
        Loaded { library: library.expect("the double opens") }
    }
}

/// The double in this process, to be asked and told.
#[derive(Debug)]
pub struct Loaded {
    library: libloading::Library,
}

impl Loaded {
    /// What it counted: see `tests/gpu-double/src/report.rs`.
    ///
    /// # Panics
    /// When the double does not answer JSON.
    #[must_use]
    pub fn report(&self) -> Value {
        type Report = unsafe extern "C" fn(*mut c_char, usize) -> usize;
        // SAFETY: the double exports it with this type.
        let report = unsafe { self.library.get::<Report>(b"gpu_double_report\0") }.expect("there");
        let mut text = vec![0_u8; 1 << 20];
        // SAFETY: the buffer has the length that is said.
        let length = unsafe { report(text.as_mut_ptr().cast(), text.len()) };
        assert!(length < text.len(), "a report of {length} bytes");
        serde_json::from_slice(&text[..length]).expect("JSON")
    }

    /// A number of the report.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.report()[name].as_u64().unwrap_or_else(|| panic!("no {name} in the report"))
    }

    /// Lets something go wrong in this process: see `tests/gpu-double/src/fault.rs`.
    ///
    /// # Panics
    /// When the words hold a NUL.
    pub fn fault(&self, words: &str) {
        type Fault = unsafe extern "C" fn(*const c_char);
        let words = CString::new(words).expect("no NUL");
        // SAFETY: the double exports it with this type.
        let fault = unsafe { self.library.get::<Fault>(b"gpu_double_fault\0") }.expect("there");
        // SAFETY: a C string that lives through the call.
        unsafe { fault(words.as_ptr()) };
    }
}

fn library() -> Option<PathBuf> {
    let file = target_folder().join("libframebus_gpu_double.so");
    if file.exists() {
        return Some(file);
    }
    skip(&format!(
        "{} is missing; `cargo build --workspace --lib --bins` builds it",
        file.display()
    ));
    None
}
