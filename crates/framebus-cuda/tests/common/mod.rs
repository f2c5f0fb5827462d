//! Tests over a double of the driver: each runs in a process of its own, whose loader
//! finds the double under the driver's name.
//!
//! `FRAMEBUS_TEST_GPU=1` runs what can be run on this machine's own GPU instead.

#![allow(unsafe_code, reason = "networks and mappings of the tests' own")]
#![allow(clippy::print_stdout, reason = "what is skipped is said")]
#![allow(dead_code, reason = "no test file needs everything")]

use cudarc::driver::{result, sys};
use framebus_cuda::{Buffers, Device, MemoryId, Network};
use framebus_vision::{ChromaSite, Colour, FrameView, Letterbox, Matrix, Planes, Range, Resampler};
use std::ffi::{CString, c_char, c_void};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

const CHILD: &str = "FRAMEBUS_CUDA_TEST_CHILD";

/// The double, beside this test's binary or where the workspace builds it.
fn double() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test knows its file");
    let mut folders = test.ancestors().skip(1).take(2);
    folders.find_map(|folder| {
        let file = folder.join("libframebus_gpu_double.so");
        file.exists().then_some(file)
    })
}

/// Runs `body` in a process of its own over the double of a device described by
/// `device` (the words of `GPU_DOUBLE_DEVICE`), and checks at its end that nothing is
/// left and nothing wrong was touched. `test` is the test's own name.
pub(crate) fn over_double(test: &str, device: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        body();
        check_nothing_is_left();
        return;
    }
    let Some(library) = double() else {
        let required = std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_some_and(|v| v == "1");
        let reason = "libframebus_gpu_double.so is not built: cargo build --workspace --lib --bins";
        assert!(!required, "FRAMEBUS_REQUIRE_ASSETS=1, but {reason}");
        println!("SKIPPED {test}: {reason}");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).expect("a link");
    }
    child(test, folder.path(), device);
}

/// Runs this test again where the loader looks into `folder` first.
pub(crate) fn child(test: &str, folder: &Path, device: &str) {
    let output = Command::new(std::env::current_exe().expect("a test knows its file"))
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", folder)
        .env("GPU_DOUBLE_DEVICE", device)
        .output()
        .expect("a test can be run again");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "over the double:\n{text}");
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// As [`over_double`], or on this machine's GPU when that is asked for.
pub(crate) fn over_double_or_gpu(test: &str, device: &str, body: impl FnOnce()) {
    if std::env::var_os("FRAMEBUS_TEST_GPU").is_some_and(|v| v == "1") {
        body();
    } else {
        over_double(test, device, body);
    }
}

fn library() -> libloading::Library {
    // SAFETY: the double is loaded already; its initialisers have run.
    unsafe { libloading::Library::new("libcuda.so.1") }.expect("the double is loaded")
}

/// A number of the double's report.
pub(crate) fn number(name: &str) -> u64 {
    report()[name].as_u64().unwrap_or_else(|| panic!("{name} is in {}", report()))
}

pub(crate) fn report() -> serde_json::Value {
    type Report = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let library = library();
    // SAFETY: the double declares it so.
    let get = unsafe { library.get::<Report>(b"gpu_double_report") }.expect("it reports");
    let mut text = vec![0_u8; 1 << 16];
    // SAFETY: as many bytes can be written.
    let len = unsafe { get(text.as_mut_ptr().cast(), text.len()) };
    serde_json::from_slice(&text[..len]).expect("the report is JSON")
}

/// Gives the double its faults.
pub(crate) fn fault(words: &str) {
    type Fault = unsafe extern "C" fn(*const c_char);
    let library = library();
    // SAFETY: the double declares it so.
    let give = unsafe { library.get::<Fault>(b"gpu_double_fault") }.expect("it takes faults");
    let words = CString::new(words).expect("words");
    // SAFETY: a C string.
    unsafe { give(words.as_ptr()) };
}

fn check_nothing_is_left() {
    let report = report();
    for name in ["allocations", "pinned", "registered", "streams", "events", "graphs", "modules"] {
        assert_eq!(report[name], 0, "{name} are left: {report}");
    }
    assert_eq!(report["violations_count"], 0, "{report}");
}

/// Ticks at every look.
pub(crate) fn clock() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1, Ordering::Relaxed)
}

/// Numbers that look random and are the same every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    /// -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Where the planes of a picture lie in its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) stride: usize,
    /// `None`: RGB24.
    pub(crate) uv_at: Option<usize>,
    pub(crate) colour: Colour,
}

impl Shape {
    /// Odd and even sizes, NV12 and RGB24, packed rows and rows far apart.
    pub(crate) fn random(random: &mut Random) -> Self {
        let (width, height) = (1 + random.below(150), 1 + random.below(120));
        let apart = [0, 1, 7, 64, 300][random.below(5)];
        let colour = Colour {
            matrix: [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020][random.below(3)],
            range: [Range::Limited, Range::Full][random.below(2)],
            site: [ChromaSite::Left, ChromaSite::Center][random.below(2)],
        };
        if random.below(3) == 0 {
            return Self { width, height, stride: 3 * width + apart, uv_at: None, colour };
        }
        let stride = 2 * width.div_ceil(2) + apart;
        let uv_at = Some(stride * height + [0, 5, 4096][random.below(3)]);
        Self { width, height, stride, uv_at, colour }
    }

    pub(crate) fn len(&self) -> usize {
        match self.uv_at {
            Some(at) => at + self.stride * self.height.div_ceil(2),
            None => self.stride * self.height,
        }
    }

    pub(crate) fn view<'a>(&self, bytes: &'a [u8]) -> FrameView<'a> {
        let planes = match self.uv_at {
            Some(at) => Planes::Nv12 {
                y: &bytes[..self.stride * self.height],
                y_stride: self.stride,
                uv: &bytes[at..],
                uv_stride: self.stride,
            },
            None => Planes::Rgb24 { data: bytes, stride: self.stride },
        };
        FrameView::new(self.width, self.height, planes, self.colour).expect("a picture")
    }

    pub(crate) fn letterbox(&self, [width, height]: [usize; 2]) -> Letterbox {
        Letterbox::new(self.width, self.height, width, height)
    }
}

/// What the CPU makes of a frame.
pub(crate) fn resampled(view: &FrameView<'_>, [width, height]: [usize; 2]) -> Vec<f32> {
    let mut resampler = Resampler::new(view, width, height).expect("a size");
    let mut out = vec![0.0; resampler.output_len()];
    resampler.run(view, &mut out).expect("the same frame");
    out
}

/// Whether two inputs agree to `codes` of 8 bits.
pub(crate) fn assert_close(have: &[f32], want: &[f32], codes: f32, what: &str) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (i, (have, want)) in have.iter().zip(want).enumerate() {
        let error = (have - want).abs() * 255.0;
        assert!(error <= codes, "{what}: value {i} is {have}, not {want}: {error} codes");
    }
}

/// A segment of shared memory, and where this process sees it.
pub(crate) struct Segment {
    file: tempfile::NamedTempFile,
    len: usize,
}

impl Segment {
    pub(crate) fn new(len: usize) -> Self {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        file.as_file().set_len(len as u64).expect("room");
        Self { file, len }
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        self.file.as_file().write_all_at(bytes, at as u64).expect("room");
    }

    /// Removes the name; mappings stay.
    pub(crate) fn delete(&self) {
        std::fs::remove_file(self.file.path()).expect("it is there");
    }
}

/// A range of addresses that segments come and go at.
pub(crate) struct Place {
    address: *mut c_void,
    len: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Place {}

impl Place {
    pub(crate) fn new(len: usize) -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a new mapping where the kernel finds room.
        let address = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)
        };
        Self { address: address.expect("addresses"), len }
    }

    /// Maps the segment `at` bytes from the start, in the place of what was there.
    pub(crate) fn show(&mut self, segment: &Segment, at: usize) {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        assert!(at + segment.len <= self.len);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let address = self.address.wrapping_byte_add(at);
        let file = segment.file.as_file();
        // SAFETY: inside our own range, and nothing of it is borrowed.
        unsafe { mmap(address, segment.len, ProtFlags::READ, flags, file, 0) }.expect("a mapping");
    }

    /// What a segment shown there holds.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at + len <= self.len);
        // SAFETY: a segment was mapped there; it is not written while borrowed.
        unsafe { std::slice::from_raw_parts(self.address.cast::<u8>().wrapping_add(at), len) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: our own range, of which nothing is borrowed any more.
        unsafe { rustix::mm::munmap(self.address, self.len) }.expect("it was mapped");
    }
}

pub(crate) fn memory(publisher: u64, segment: u32) -> Option<MemoryId> {
    Some(MemoryId { publisher: publisher.into(), segment })
}

/// A network that copies: its input, or what it was given, into its outputs.
pub(crate) struct Copies {
    device: Device,
    /// Bytes of one frame in each output.
    bytes: Vec<usize>,
    /// For each output, device memory for the largest batch; none: the input.
    sources: Vec<u64>,
    /// Calls so far.
    pub(crate) calls: usize,
    /// What goes wrong at which call, from 1.
    pub(crate) fails: Option<(usize, Fail)>,
}

#[derive(Clone, Copy)]
pub(crate) enum Fail {
    Error,
    Panic,
}

impl Copies {
    pub(crate) fn input(device: &Device, bytes: usize) -> Self {
        let (bytes, sources) = (vec![bytes], Vec::new());
        Self { device: device.clone(), bytes, sources, calls: 0, fails: None }
    }

    /// One slice per output, each for `max_batch` frames.
    pub(crate) fn constant(device: &Device, outputs: &[&[u8]], max_batch: usize) -> Self {
        device.bind().expect("a device");
        let bytes = outputs.iter().map(|bytes| bytes.len() / max_batch).collect();
        let sources = outputs.iter().map(|bytes| {
            // SAFETY: freed in `drop`.
            let address = unsafe { result::malloc_sync(bytes.len()) }.expect("memory");
            // SAFETY: as many bytes were just allocated.
            unsafe { result::memcpy_htod_sync(address, bytes) }.expect("a copy");
            address
        });
        let sources = sources.collect();
        Self { device: device.clone(), bytes, sources, calls: 0, fails: None }
    }
}

impl Network for Copies {
    fn enqueue(
        &mut self,
        batch: usize,
        buffers: &Buffers,
        stream: *mut c_void,
    ) -> Result<(), String> {
        self.calls += 1;
        match self.fails {
            Some((call, Fail::Error)) if call == self.calls => return Err("no words".to_owned()),
            Some((call, Fail::Panic)) if call == self.calls => panic!("a network may"),
            _ => {}
        }
        for (index, (&output, bytes)) in buffers.outputs.iter().zip(&self.bytes).enumerate() {
            let source = self.sources.get(index).copied().unwrap_or(buffers.input);
            let stream: sys::CUstream = stream.cast();
            // SAFETY: both hold the largest batch and live until the stream is done.
            unsafe { result::memcpy_dtod_async(output, source, batch * bytes, stream) }
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            for &address in &self.sources {
                // SAFETY: allocated in `constant`; no batch is in flight.
                let _ = unsafe { result::free_sync(address) };
            }
        }
    }
}

/// Pinned memory of the host, as the driver gives it out, and as much of the device.
pub(crate) struct PinnedCopy {
    device: Device,
    host: *mut c_void,
    to: u64,
    bytes: usize,
}

impl PinnedCopy {
    pub(crate) fn new(device: &Device, bytes: usize) -> Result<Self, result::DriverError> {
        device.bind().expect("a device");
        // SAFETY: freed in `drop`.
        let to = unsafe { result::malloc_sync(bytes) }?;
        let device = device.clone();
        let mut copy = Self { device, host: std::ptr::null_mut(), to, bytes };
        // SAFETY: freed in `drop`.
        copy.host = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) }?;
        // SAFETY: as many bytes were just allocated.
        unsafe { copy.host.cast::<u8>().write_bytes(0, bytes) };
        Ok(copy)
    }

    /// Copies the first `bytes`, and waits.
    pub(crate) fn run(&self, bytes: usize) -> Result<(), result::DriverError> {
        let bytes = bytes.min(self.bytes);
        // SAFETY: written in `new`, and nobody writes it now.
        let from = unsafe { std::slice::from_raw_parts(self.host.cast::<u8>(), bytes) };
        // SAFETY: both hold as many bytes; the call waits.
        unsafe { result::memcpy_htod_sync(self.to, from) }
    }
}

impl Drop for PinnedCopy {
    fn drop(&mut self) {
        if self.device.bind().is_err() {
            return;
        }
        // SAFETY: allocated in `new`; no copy is under way.
        let _ = unsafe { result::free_sync(self.to) };
        if !self.host.is_null() {
            // SAFETY: as above.
            let _ = unsafe { result::free_host(self.host) };
        }
    }
}
