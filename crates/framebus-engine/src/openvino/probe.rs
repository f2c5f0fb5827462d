//! Opening the OpenVINO library, once per process.
//!
//! The `openvino` crate keeps the first file it opens for ever, whatever it is, and
//! panics at the first function that is missing. So a file is tried here first: it
//! must open, have every function that is called later and be new enough. Only then
//! is it handed over.
#![allow(unsafe_code)]

use super::library::{self, Surroundings};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Oldest version with the element type numbers that the bindings use.
const OLDEST: (u32, u32) = (2025, 1);

/// The library in use.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    /// `2026.4.1-22982-…`.
    pub(crate) version: String,
}

/// C functions behind the calls of this backend.
const FUNCTIONS: [&str; 38] = [
    "ov_get_openvino_version",
    "ov_version_free",
    "ov_get_last_err_msg",
    "ov_core_create",
    "ov_core_free",
    "ov_core_get_available_devices",
    "ov_available_devices_free",
    "ov_core_get_property",
    "ov_core_set_property",
    "ov_core_read_model",
    "ov_core_read_model_from_memory_buffer",
    "ov_core_compile_model",
    "ov_model_free",
    "ov_model_reshape_input_by_name",
    "ov_partial_shape_create_static",
    "ov_partial_shape_free",
    "ov_compiled_model_free",
    "ov_compiled_model_create_infer_request",
    "ov_compiled_model_inputs_size",
    "ov_compiled_model_outputs_size",
    "ov_compiled_model_get_property",
    "ov_infer_request_free",
    "ov_infer_request_infer",
    "ov_infer_request_start_async",
    "ov_infer_request_wait_for",
    "ov_infer_request_cancel",
    "ov_infer_request_get_input_tensor_by_index",
    "ov_infer_request_get_output_tensor_by_index",
    "ov_infer_request_get_input_tensor",
    "ov_infer_request_get_tensor",
    "ov_tensor_free",
    "ov_tensor_data",
    "ov_tensor_get_shape",
    "ov_tensor_get_size",
    "ov_tensor_get_byte_size",
    "ov_tensor_get_element_type",
    "ov_shape_create",
    "ov_shape_free",
];

/// The first success stays; a failure is tried again at the next call, because the
/// library may have been installed meanwhile.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Finds and opens the library, or says what was searched and what to do.
pub(crate) fn load() -> Result<Loaded, String> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    let surroundings = Surroundings::of_this_process();
    let found = library::search(&surroundings);
    let mut refused = found.refused.clone();
    for file in &found.files {
        match open(file) {
            Ok(version) => {
                tracing::debug!(path = %file.display(), version, "OpenVINO opened");
                let new = Loaded { path: file.clone(), version };
                *loaded = Some(new.clone());
                return Ok(new);
            }
            Err(reason) => refused.push(reason),
        }
    }
    let next = if surroundings.explicit.is_some() {
        format!("correct or unset {}", library::OVERRIDE)
    } else {
        format!(
            "run `make setup`, or `pip install --target .framebus/openvino --no-deps openvino`, or \
             set {} to the library's file or folder",
            library::OVERRIDE
        )
    };
    Err(if refused.is_empty() {
        format!("no libopenvino_c.so found; searched {}; {next}", found.searched_text())
    } else {
        format!("{}; {next}", refused.join("; "))
    })
}

/// Version of the library in `path`, which the `openvino` crate uses from now on.
fn open(path: &Path) -> Result<String, String> {
    // The message of dlopen begins with the path, except for missing files.
    if !path.exists() {
        return Err(format!("{} does not exist", path.display()));
    }
    // SAFETY: opening runs the initialisers of a library that the user installed
    // under OpenVINO's own name or named explicitly; they have no preconditions.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| format!("{} is not a usable library ({error})", path.display()))?;
    for name in FUNCTIONS {
        // SAFETY: the symbol is only looked up; its type does not matter here.
        let symbol = unsafe { library.get::<*const ()>(name.as_bytes()) };
        if symbol.is_err() {
            return Err(format!("{} is not OpenVINO's C library (no {name})", path.display()));
        }
    }
    let version = version(&library, path)?;
    let accepted = parse(&version).is_some_and(|found| found >= OLDEST);
    if !accepted {
        let (year, release) = OLDEST;
        return Err(format!(
            "{} is OpenVINO {version}; {year}.{release} or newer is needed",
            path.display()
        ));
    }
    openvino_sys::library::load_from(path)
        .map_err(|reason| format!("{} cannot be used ({reason})", path.display()))?;
    // The bindings hold the library open for the rest of the process as well:
    // OpenVINO's threads do not survive unloading.
    std::mem::forget(library);
    Ok(version)
}

fn version(library: &libloading::Library, path: &Path) -> Result<String, String> {
    use openvino_sys::ov_version_t;
    // The status as a number: an unknown one must not become a Rust enum.
    type Get = unsafe extern "C" fn(*mut ov_version_t) -> i32;
    type Free = unsafe extern "C" fn(*mut ov_version_t);
    let missing = |error: libloading::Error| format!("{}: {error}", path.display());
    // SAFETY: OpenVINO declares `ov_status_e ov_get_openvino_version(ov_version_t*)`.
    let get = unsafe { library.get::<Get>(b"ov_get_openvino_version") }.map_err(missing)?;
    // SAFETY: OpenVINO declares `void ov_version_free(ov_version_t*)`.
    let free = unsafe { library.get::<Free>(b"ov_version_free") }.map_err(missing)?;
    let null = std::ptr::null::<c_char>();
    let mut raw = ov_version_t { buildNumber: null, description: null };
    // SAFETY: `raw` is a valid ov_version_t for the call to fill.
    let status = unsafe { get(&raw mut raw) };
    if status != 0 || raw.buildNumber.is_null() {
        return Err(format!("{} does not tell its version", path.display()));
    }
    // SAFETY: the call succeeded, so the field is a C string until it is freed below.
    let text = unsafe { CStr::from_ptr(raw.buildNumber) }.to_string_lossy().into_owned();
    // SAFETY: `raw` was filled by the same library and is not used after this.
    unsafe { free(&raw mut raw) };
    Ok(text)
}

/// `2026.4.1-22982-…` → (2026, 4).
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse("2026.4.1-22982-abc"), Some((2026, 4)));
        assert!(parse("2024.6.0-1").unwrap() < OLDEST);
        assert_eq!(parse("custom_build"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn files_that_are_no_openvino_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libopenvino_c.so");
        std::fs::write(&text, "no library").unwrap();
        let reason = open(&text).unwrap_err();
        assert!(reason.contains("is not a usable library"), "{reason}");
        let reason = open(&folder.path().join("none")).unwrap_err();
        assert!(reason.ends_with("does not exist"), "{reason}");
    }

    #[test]
    fn another_library_is_refused_before_anything_is_called() {
        // The C library of this process is a real library without OpenVINO in it.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.contains("libc.so") || path.contains("libc-"))
            .expect("a C library is mapped");
        let reason = open(Path::new(libc)).unwrap_err();
        assert!(reason.contains("is not OpenVINO's C library"), "{reason}");
    }
}
