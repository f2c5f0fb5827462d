//! What a GPU of this machine takes for the work around the network: to be run where
//! there is an NVIDIA GPU, because none of it can be guessed elsewhere.
//!
//! ```text
//! cargo run --release -p framebus-cuda --example gpu_speed -- [--rounds N] [--device N] [--json]
//! ```
//!
//! - **copy**: from pinned memory to the device, a large piece and one frame. The large
//!   one is the most that the bus carries, and the floor of everything that uploads.
//! - **upload + letterbox**: batches of 1080p NV12 in `/dev/shm` to 384x640 FP16, without
//!   a network, each way of reaching the device in turn.
//! - **launches**: a batch of one tiny frame, launched piece by piece and as a graph,
//!   with the pipeline's own work alone (letterbox, one copy back) and with a network of
//!   many copies of 4 bytes, in the place of a network's many small kernels.
//!
//! All cases take turns in every round, so that a clock that changes hits all of them.
//! Successive batches are of other frames, so that a cache does not hold them.
//!
//! The test's double of the driver runs it as well: `LD_LIBRARY_PATH` names a folder with
//! links `libcuda.so` and `libcuda.so.1` to `libframebus_gpu_double.so`. That shows that
//! the program works. **Figures of the double mean nothing**: its device is this
//! machine's processor and its copies are `memcpy`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Copies, PinnedCopy, Place, Segment, Shape, memory};
use framebus_cuda::{
    BufferSet, Buffers, Device, Element, Frame, HostAccess, Lane, Network, Outputs, Spec,
};
use framebus_vision::{ChromaSite, Colour, Matrix, Range};
use serde_json::{Value, json};
use std::error::Error;
use std::ffi::c_void;
use std::fmt::{Debug, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const LARGE: usize = 256 << 20;
const BATCHES: [usize; 3] = [1, 8, 32];
/// Frames that there are: as many as the largest batch.
const FRAMES: usize = 32;
const FRAME: Shape = Shape {
    width: 1920,
    height: 1080,
    stride: 1920,
    uv_at: Some(1920 * 1080),
    colour: Colour { matrix: Matrix::Bt709, range: Range::Limited, site: ChromaSite::Left },
};
/// The network's input.
const SIZE: [usize; 2] = [640, 384];
/// About as many as a detector has layers.
const OPERATIONS: usize = 300;
/// Runs before anything counts: the first is plain, the second a graph's first.
const WARM_UP: usize = 3;

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn ms(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

/// Warnings of the library so far.
static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Shows the library's warnings: frames that are copied in another way than asked for,
/// graphs that cannot be made.
struct Warnings;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        WARNINGS.fetch_add(1, Ordering::Relaxed);
        let mut text = Text(String::new());
        event.record(&mut text);
        eprintln!("warning:{}", text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A network of tiny operations, or of none.
struct Tiny {
    copies: Option<Copies>,
    buffers: Buffers,
}

impl Tiny {
    fn new(device: &Device, operations: usize) -> Self {
        let sources = vec![&[0_u8; 4][..]; operations];
        let copies = (operations > 0).then(|| Copies::constant(device, &sources, 1));
        Self { copies, buffers: Buffers { input: 0, outputs: vec![0; operations] } }
    }
}

impl Network for Tiny {
    fn enqueue(
        &mut self,
        batch: usize,
        buffers: &Buffers,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let Some(copies) = &mut self.copies else { return Ok(()) };
        // All of them to one place, one after the other.
        self.buffers.outputs.fill(buffers.outputs[0]);
        copies.enqueue(batch, &self.buffers, stream)
    }
}

/// Milliseconds of each round.
#[derive(Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// 10⁹ bytes a second.
    fn gb_s(&self, bytes: usize) -> f64 {
        bytes as f64 / self.median() / 1e6
    }
}

struct Copy {
    bytes: usize,
    run: Samples,
}

/// Frames to the device and into the network's input, in one way.
struct Upload {
    access: HostAccess,
    set: BufferSet<Tiny>,
    /// The library warned: it is not this way.
    other: bool,
    batches: [Batch; BATCHES.len()],
}

#[derive(Default)]
struct Batch {
    run: Samples,
    /// Until the pixels are in the device's memory.
    upload: Samples,
}

struct Launch {
    operations: usize,
    graphs: bool,
    set: BufferSet<Tiny>,
    run: Samples,
}

fn set(
    device: &Device,
    [width, height]: [usize; 2],
    max_batch: usize,
    operations: usize,
    graphs: bool,
) -> Result<BufferSet<Tiny>, Box<dyn Error>> {
    let lane = Lane::new(device, Tiny::new(device, operations))?;
    let outputs = Outputs::Whole { values: vec![1], element: Element::F32 };
    let spec = Spec { height, width, input: Element::F16, max_batch, outputs, graphs };
    Ok(BufferSet::new(device, &lane, spec)?)
}

/// All cases of a device.
struct Cases {
    copy: PinnedCopy,
    copies: [Copy; 2],
    uploads: Vec<Upload>,
    launches: Vec<Launch>,
}

impl Cases {
    fn new(device: &Device) -> Result<Self, Box<dyn Error>> {
        let ordinal = device.info().ordinal;
        let ways = [HostAccess::Registered, HostAccess::Staged, HostAccess::Mapped];
        let uploads = ways.map(|access| {
            let device = Device::open_with(ordinal, Some(access))?;
            let set = set(&device, SIZE, FRAMES, 0, true)?;
            Ok(Upload { access, set, other: false, batches: Default::default() })
        });
        let kinds = [(0, false), (0, true), (OPERATIONS, false), (OPERATIONS, true)];
        let launches = kinds.map(|(operations, graphs)| {
            let set = set(device, [64, 64], 1, operations, graphs)?;
            Ok(Launch { operations, graphs, set, run: Samples::default() })
        });
        let copy = PinnedCopy::new(device, LARGE).map_err(|error| {
            format!("{LARGE} bytes of pinned memory and of the device's for the copy: {error}")
        })?;
        Ok(Self {
            copy,
            copies: [LARGE, FRAME.len()].map(|bytes| Copy { bytes, run: Samples::default() }),
            uploads: uploads.into_iter().collect::<Result<_, Box<dyn Error>>>()?,
            launches: launches.into_iter().collect::<Result<_, Box<dyn Error>>>()?,
        })
    }

    /// Runs everything once.
    fn round(&mut self, round: usize, pool: &[Frame<'_>]) -> Result<(), Box<dyn Error>> {
        let counts = round >= WARM_UP;
        for Copy { bytes, run } in &mut self.copies {
            let start = now_ns();
            self.copy.run(*bytes)?;
            if counts {
                run.0.push(ms(start, now_ns()));
            }
        }
        for Upload { set, other, batches, .. } in &mut self.uploads {
            let warnings = WARNINGS.load(Ordering::Relaxed);
            for (size, batch) in BATCHES.into_iter().zip(batches) {
                let first = round * size % FRAMES;
                let frames = &pool[first..first + size];
                let start = now_ns();
                let times = set.run(frames, now_ns)?;
                if counts {
                    batch.run.0.push(ms(start, times.done_ns));
                    batch.upload.0.push(ms(start, times.uploaded_ns));
                }
            }
            *other |= WARNINGS.load(Ordering::Relaxed) > warnings;
        }
        let tiny = Shape { width: 64, height: 64, stride: 3 * 64, uv_at: None, ..FRAME };
        let pixels = [0; 3 * 64 * 64];
        let view = tiny.view(&pixels);
        let frame =
            Frame { view, letterbox: tiny.letterbox([64, 64]), confidence: 0.5, memory: None };
        for Launch { set, run, .. } in &mut self.launches {
            let start = now_ns();
            let times = set.run(&[frame], now_ns)?;
            if counts {
                run.0.push(ms(start, times.done_ns));
            }
        }
        Ok(())
    }

    /// 10⁹ bytes a second of the large copy.
    fn floor(&self) -> f64 {
        self.copies[0].run.gb_s(self.copies[0].bytes)
    }

    fn json(&self, device: &Device, rounds: usize) -> Value {
        let info = device.info();
        let copies = self.copies.iter().map(|Copy { bytes, run }| {
            json!({ "bytes": bytes, "ms": run.median(), "least_ms": run.least(),
                    "gb_s": run.gb_s(*bytes) })
        });
        let uploads = self.uploads.iter().flat_map(|Upload { access, other, batches, .. }| {
            BATCHES.into_iter().zip(batches).map(move |(size, Batch { run, upload })| {
                let gb_s = run.gb_s(size * FRAME.len());
                json!({ "access": format!("{access:?}"), "own": *access == info.host_access,
                        "fell_back": other, "batch": size, "ms": run.median(),
                        "least_ms": run.least(), "upload_ms": upload.median(),
                        "gb_s": gb_s, "of_copy": gb_s / self.floor() })
            })
        });
        let launches = self.launches.iter().map(|Launch { operations, graphs, run, .. }| {
            json!({ "operations": operations, "graph": graphs, "ms": run.median(),
                    "least_ms": run.least() })
        });
        json!({
            "device": {
                "name": info.name, "capability": [info.capability.0, info.capability.1],
                "cuda": [info.driver.0, info.driver.1], "memory_bytes": info.memory_bytes,
                "integrated": info.integrated, "host_access": format!("{:?}", info.host_access),
                "read_only_registration": info.read_only_registration,
            },
            "rounds": rounds,
            "frame_bytes": FRAME.len(),
            "copy": copies.collect::<Vec<_>>(),
            "upload": uploads.collect::<Vec<_>>(),
            "launch": launches.collect::<Vec<_>>(),
        })
    }

    fn print(&self, device: &Device, rounds: usize) {
        let info = device.info();
        println!(
            "{}, compute capability {}.{}, CUDA {}.{}; {rounds} rounds\nframes: {:?}; registers \
             memory that cannot be written: {}\n",
            info.name,
            info.capability.0,
            info.capability.1,
            info.driver.0,
            info.driver.1,
            info.host_access,
            if info.read_only_registration { "yes" } else { "no" },
        );
        println!("{:28} {:>9} {:>9} {:>9}", "copy", "median ms", "least ms", "GB/s");
        for Copy { bytes, run } in &self.copies {
            let name = format!("{:.1} MB, pinned", *bytes as f64 / 1e6);
            let (median, least) = (run.median(), run.least());
            println!("{name:28} {median:9.3} {least:9.3} {:9.2}", run.gb_s(*bytes));
        }
        println!(
            "\n{:28} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "upload + letterbox", "median ms", "least ms", "GB/s", "of copy", "upload ms"
        );
        for Upload { access, other, batches, .. } in &self.uploads {
            for (size, Batch { run, upload }) in BATCHES.into_iter().zip(batches) {
                let own = if *access == info.host_access { " *" } else { "" };
                let note = if *other { "  not this way: see the warnings" } else { "" };
                let gb_s = run.gb_s(size * FRAME.len());
                println!(
                    "{:28} {:9.3} {:9.3} {gb_s:9.2} {:7.0} % {:9.3}{note}",
                    format!("{access:?}{own}, {size}"),
                    run.median(),
                    run.least(),
                    100.0 * gb_s / self.floor(),
                    upload.median(),
                );
            }
        }
        println!("\n{:28} {:>9} {:>9}", "launches", "median ms", "least ms");
        for Launch { operations, graphs, run, .. } in &self.launches {
            let how = if *graphs { "graph" } else { "plain" };
            let name = format!("{operations} operations, {how}");
            println!("{name:28} {:9.3} {:9.3}", run.median(), run.least());
        }
        println!(
            "\n*: what the device gets by itself. GB/s: frames over the whole run, {:.1} MB each; \
             of copy: over those of the large copy.\nupload ms: until pixels are in the device's \
             memory (Mapped: its kernels read them where they are).",
            FRAME.len() as f64 / 1e6
        );
    }
}

/// Frames in shared memory, each on pages of its own.
fn segment() -> Result<(Segment, usize), Box<dyn Error>> {
    let apart = FRAME.len().next_multiple_of(rustix::param::page_size());
    let len = FRAMES * apart;
    let room = rustix::fs::statvfs("/dev/shm")?;
    let room = room.f_bavail.saturating_mul(room.f_frsize);
    if room < len as u64 {
        let reason = format!(
            "/dev/shm has room for {room} bytes, {len} are needed; in a container: --shm-size=256m"
        );
        return Err(reason.into());
    }
    let segment = Segment::new(len);
    let mut random = common::Random(1);
    for frame in 0..FRAMES {
        segment.write(frame * apart, &random.bytes(FRAME.len()));
    }
    Ok((segment, apart))
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut rounds, mut ordinal, mut json) = (50_usize, 0_usize, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize, Box<dyn Error>> {
            let text = arguments.next().ok_or_else(|| format!("{argument} needs a number"))?;
            text.parse().map_err(|_| format!("{argument} needs a number, not {text:?}").into())
        };
        match argument.as_str() {
            "--rounds" => rounds = number()?.max(1),
            "--device" => ordinal = number()?,
            "--json" => json = true,
            other => {
                let usage = "usage: gpu_speed [--rounds N] [--device N] [--json]";
                return Err(format!("unknown argument {other:?}; {usage}").into());
            }
        }
    }
    tracing::subscriber::set_global_default(Warnings)?;
    let device = Device::open(ordinal)?;
    let (segment, apart) = segment()?;
    let mut place = Place::new(FRAMES * apart);
    place.show(&segment, 0);
    let frames = (0..FRAMES).map(|frame| Frame {
        view: FRAME.view(place.bytes(frame * apart, FRAME.len())),
        letterbox: FRAME.letterbox(SIZE),
        confidence: 0.5,
        memory: memory(1, 1),
    });
    let pool: Vec<_> = frames.collect();
    let mut cases = Cases::new(&device)?;
    for round in 0..WARM_UP + rounds {
        cases.round(round, &pool)?;
    }
    if json {
        println!("{:#}", cases.json(&device, rounds));
    } else {
        cases.print(&device, rounds);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
