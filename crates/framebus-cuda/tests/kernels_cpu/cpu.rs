//! The CPU build of the kernels: compiled by the system's C++ compiler, opened, and
//! launched as the driver would launch the real ones.
#![allow(unsafe_code)]

use libloading::{Library, Symbol};
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// `FrameEntry` of kernels/framebus.h.
#[repr(C, align(16))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameEntry {
    pub(crate) y: *const u8,
    pub(crate) uv: *const u8,
    pub(crate) y_stride: u32,
    pub(crate) uv_stride: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: u32,
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) resized_width: u32,
    pub(crate) resized_height: u32,
    pub(crate) site: u32,
    pub(crate) luma: f32,
    pub(crate) red_cr: f32,
    pub(crate) green_cb: f32,
    pub(crate) green_cr: f32,
    pub(crate) blue_cb: f32,
    pub(crate) constant: [f32; 3],
    pub(crate) logit: f32,
    pub(crate) reserved0: u32,
    pub(crate) step_x: u64,
    pub(crate) step_y: u64,
    pub(crate) reserved1: [u64; 2],
}

impl FrameEntry {
    /// Neither pixels nor a size; for launches that only decode.
    pub(crate) fn empty() -> Self {
        Self {
            y: std::ptr::null(),
            uv: std::ptr::null(),
            y_stride: 0,
            uv_stride: 0,
            width: 0,
            height: 0,
            format: 0,
            left: 0,
            top: 0,
            resized_width: 0,
            resized_height: 0,
            site: 0,
            luma: 0.0,
            red_cr: 0.0,
            green_cb: 0.0,
            green_cr: 0.0,
            blue_cb: 0.0,
            constant: [0.0; 3],
            logit: 0.0,
            reserved0: 0,
            step_x: 0,
            step_y: 0,
            reserved1: [0; 2],
        }
    }
}

/// `RawCandidate` of kernels/framebus.h.
#[repr(C, align(16))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RawCandidate {
    pub(crate) bbox: [f32; 4],
    pub(crate) logit: f32,
    pub(crate) class: u32,
    pub(crate) cell: u32,
    pub(crate) reserved: u32,
}

const _: () = assert!(size_of::<FrameEntry>() == 128 && size_of::<RawCandidate>() == 32);

type Launcher = unsafe extern "C" fn(u32, u32, u32, u32, u32, u32, *mut *mut c_void);

/// The library, compiled once per test run; `None` where there is no compiler and
/// nobody insists.
pub(crate) fn library() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY.get_or_init(compile).as_ref()
}

fn compile() -> Option<Library> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/cpu.cpp");
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("libkernels.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
        .args(["-Wno-unknown-pragmas", "-o"])
        .args([&built, &source])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            let insisted = std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_some_and(|v| v == "1");
            assert!(!insisted, "{compiler}: {error}: install a C++ compiler");
            println!("SKIPPED: there is no C++ compiler ({compiler}: {error})");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: it is the file just compiled, which runs nothing when it is opened.
    Some(unsafe { Library::new(&built) }.unwrap())
}

/// Launches the kernel `name`; `parameters` point to its arguments.
fn launch(name: &str, grid: [u32; 3], block: [u32; 3], parameters: &mut [*mut c_void]) {
    let symbol = format!("{name}_cpu");
    // SAFETY: cpu.cpp defines all its launchers with this type.
    let launcher: Symbol<'_, Launcher> =
        unsafe { library().unwrap().get(symbol.as_bytes()) }.unwrap();
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    // SAFETY: the callers below pass as many arguments as the kernel has, of its
    // types, and slices as large as it accesses.
    unsafe { launcher(gx, gy, gz, bx, by, bz, parameters.as_mut_ptr()) };
}

/// Where an argument lies.
fn at<T>(argument: &mut T) -> *mut c_void {
    std::ptr::from_mut(argument).cast()
}

/// Values of the network's element type.
pub(crate) trait Element: Copy {
    const HALF: u32;
}
impl Element for f32 {
    const HALF: u32 = 0;
}
impl Element for half::f16 {
    const HALF: u32 = 1;
}

/// Whose planes the entries point to is up to the caller; `columns` are the output
/// columns that the grid gives to one block: 64, or 32 for a grid that is too large.
pub(crate) fn letterbox<T: Element>(
    frames: &[FrameEntry],
    out: &mut [T],
    [mut width, mut height]: [u32; 2],
    columns: u32,
) {
    assert_eq!(out.len(), frames.len() * 3 * (width * height) as usize);
    let (mut table, mut out, mut half) = (frames.as_ptr(), out.as_mut_ptr(), T::HALF);
    launch(
        "framebus_letterbox",
        [width.div_ceil(columns), height.div_ceil(8), frames.len() as u32],
        [32, 8, 1],
        &mut [at(&mut table), at(&mut out), at(&mut width), at(&mut height), at(&mut half)],
    );
}

/// One scale of a head: raw maps of a batch.
pub(crate) struct Maps<'a, T> {
    pub(crate) boxes: &'a [T],
    pub(crate) classes: &'a [T],
    pub(crate) bins: u32,
    pub(crate) nclasses: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) stride: u32,
    pub(crate) first_cell: u32,
}

/// Adds a scale's candidates and counts.
pub(crate) fn decode<T: Element>(
    frames: &[FrameEntry],
    maps: &Maps<'_, T>,
    counts: &mut [u32],
    candidates: &mut [RawCandidate],
) {
    let &Maps { mut bins, mut nclasses, mut width, mut height, .. } = maps;
    let &Maps { mut stride, mut first_cell, .. } = maps;
    let cells = width * height;
    assert_eq!(maps.boxes.len(), frames.len() * (4 * bins * cells) as usize);
    assert_eq!(maps.classes.len(), frames.len() * (nclasses * cells) as usize);
    assert_eq!(counts.len(), 2 * frames.len());
    let mut capacity = (candidates.len() / frames.len()) as u32;
    let (mut table, mut half) = (frames.as_ptr(), T::HALF);
    let (mut boxes, mut classes) = (maps.boxes.as_ptr(), maps.classes.as_ptr());
    let (mut counts, mut candidates) = (counts.as_mut_ptr(), candidates.as_mut_ptr());
    launch(
        "framebus_decode",
        [cells.div_ceil(128), frames.len() as u32, 1],
        [128, 1, 1],
        &mut [
            at(&mut table),
            at(&mut boxes),
            at(&mut classes),
            at(&mut half),
            at(&mut bins),
            at(&mut nclasses),
            at(&mut width),
            at(&mut height),
            at(&mut stride),
            at(&mut first_cell),
            at(&mut capacity),
            at(&mut counts),
            at(&mut candidates),
        ],
    );
}
