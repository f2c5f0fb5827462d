//! A TEST's double of CUDA: the product's kernels. The code is the CPU build of the
//! product's own source; here are the launch, and what each kernel touches.
#![allow(unsafe_code)]

use crate::code::{self, Code};
use crate::memory::{self, Access, Block, Kind, hold};
use crate::{count, fault, time};
use std::ffi::c_void;
use std::sync::Arc;

/// Runs a kernel: three sizes of the grid, three of the block, the parameters.
type Run = unsafe extern "C" fn(u32, u32, u32, u32, u32, u32, *const *const c_void);

// From `crates/framebus-cuda/kernels/cpu.cpp`.
unsafe extern "C" {
    fn framebus_letterbox_cpu(
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        p: *const *const c_void,
    );
    fn framebus_decode_cpu(
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        p: *const *const c_void,
    );
}

struct Kernel {
    name: &'static str,
    run: Run,
    /// Bytes of each parameter.
    parameters: &'static [usize],
    /// Everything that the launch touches, held.
    touches: fn(&Launch, &mut Touched) -> Result<(), Code>,
}

static KERNELS: [Kernel; 2] = [
    Kernel {
        name: "framebus_letterbox",
        run: framebus_letterbox_cpu,
        parameters: &[8, 8, 4, 4, 4],
        touches: letterbox,
    },
    Kernel {
        name: "framebus_decode",
        run: framebus_decode_cpu,
        parameters: &[8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4, 8, 8],
        touches: decode,
    },
];

/// Bytes of a `FrameEntry` and of a `RawCandidate` (`kernels/framebus.h`).
const ENTRY: usize = 128;
const CANDIDATE: usize = 32;

pub(crate) fn parameters(name: &str) -> Option<&'static [usize]> {
    KERNELS.iter().find(|kernel| kernel.name == name).map(|kernel| kernel.parameters)
}

#[derive(Default)]
struct Touched(Vec<Arc<Block>>);

impl Touched {
    fn add(&mut self, address: usize, len: usize, access: Access, what: &str) -> Result<(), Code> {
        let block = hold(address, len, access, what)?;
        if block.as_ref().is_some_and(|block| block.kind != Kind::Device) {
            count::MAPPED_BYTES.add(len as u64);
        }
        self.0.extend(block);
        Ok(())
    }
}

/// A kernel with its sizes and parameters, as often as it is to run.
pub(crate) struct Launch {
    kernel: &'static Kernel,
    grid: [u32; 3],
    block: [u32; 3],
    values: Vec<Vec<u8>>,
}

impl Launch {
    pub(crate) fn new(
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        values: Vec<Vec<u8>>,
    ) -> Option<Self> {
        let kernel = KERNELS.iter().find(|kernel| kernel.name == name)?;
        Some(Self { kernel, grid, block, values })
    }

    /// Parameter `i` as a number: an address or a `uint32_t`.
    fn value(&self, i: usize) -> usize {
        let mut bytes = [0; 8];
        if let Some(value) = self.values.get(i) {
            let len = value.len().min(8);
            bytes[..len].copy_from_slice(&value[..len]);
        }
        usize::from_le_bytes(bytes)
    }

    pub(crate) fn run(&self) -> Result<(), Code> {
        let faults = fault::now();
        if faults.launch {
            return Err(code::LAUNCH_FAILED);
        }
        let mut touched = Touched::default();
        (self.kernel.touches)(self, &mut touched)?;
        time::pause(faults.slow_kernel);
        let pointers: Vec<*const c_void> =
            self.values.iter().map(|value| value.as_ptr().cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        // SAFETY: the parameters have the kernel's sizes, and what they lead to is held.
        unsafe { (self.kernel.run)(gx, gy, gz, bx, by, bz, pointers.as_ptr()) }
        count::LAUNCHES.add(1);
        Ok(())
    }
}

fn half(value: usize) -> usize {
    if value == 0 { 4 } else { 2 }
}

/// `frames, out, width, height, half`; the grid's z is the batch.
fn letterbox(launch: &Launch, touched: &mut Touched) -> Result<(), Code> {
    let batch = launch.grid[2] as usize;
    let pixels = launch.value(2) * launch.value(3);
    let table = launch.value(0);
    touched.add(table, batch * ENTRY, Access::Read, "letterbox: table of frames")?;
    touched.add(
        launch.value(1),
        batch * 3 * pixels * half(launch.value(4)),
        Access::Write,
        "letterbox: network's input",
    )?;
    let entries = memory::snapshot(table, batch * ENTRY);
    for (i, entry) in entries.chunks_exact(ENTRY).enumerate() {
        let address = |at: usize| {
            entry[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let number = |at: usize| address(at) & 0xFFFF_FFFF;
        let (width, height) = (number(24), number(28));
        let plane = |rows: usize, stride: usize, row: usize| match rows {
            0 => 0,
            rows => (rows - 1) * stride + row,
        };
        let rgb = number(32) == 1;
        let luma = plane(height, number(16), if rgb { 3 * width } else { width });
        let what = format!("letterbox: frame {i} of {width}x{height}");
        touched.add(address(0), luma, Access::Read, &what)?;
        if !rgb {
            let chroma = plane(height.div_ceil(2), number(20), 2 * width.div_ceil(2));
            touched.add(address(8), chroma, Access::Read, &format!("{what}, chroma"))?;
        }
    }
    Ok(())
}

/// `frames, boxes, classes, half, bins, nclasses, width, height, stride, first_cell,
/// capacity, counts, candidates`; the grid's y is the batch.
fn decode(launch: &Launch, touched: &mut Touched) -> Result<(), Code> {
    let batch = launch.grid[1] as usize;
    let cells = launch.value(6) * launch.value(7);
    let bytes = batch * cells * half(launch.value(3));
    let read = Access::Read;
    touched.add(launch.value(0), batch * ENTRY, read, "decode: table of frames")?;
    touched.add(launch.value(1), bytes * 4 * launch.value(4), read, "decode: boxes")?;
    touched.add(launch.value(2), bytes * launch.value(5), read, "decode: classes")?;
    touched.add(launch.value(11), batch * 8, Access::Write, "decode: counts")?;
    let room = batch * launch.value(10) * CANDIDATE;
    touched.add(launch.value(12), room, Access::Write, "decode: candidates")
}
