//! CUDA: kernels, memory and pipeline of the GPU path, opened at run time.
//!
//! Nothing of CUDA is linked: [`devices`] says whether there is a driver, and a
//! [`Device`] opens one. Two kernels stand around the network: one letterboxes the
//! frames of a batch into its input, the other one makes candidate boxes of a cut
//! head's maps. What runs between them is a [`Network`], enqueued on the stream of a
//! [`Lane`]; a [`BufferSet`] is what one worker needs to feed it.
//!
//! ```no_run
//! use framebus_cuda::{BufferSet, Buffers, Device, Element, Frame, Lane, Network, Outputs, Spec};
//! use framebus_vision::{Colour, FrameView, Letterbox, Planes};
//! use std::ffi::c_void;
//!
//! struct Nothing;
//! impl Network for Nothing {
//!     fn enqueue(&mut self, _: usize, _: &Buffers, _: *mut c_void) -> Result<(), String> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::open(0)?;
//! let lane = Lane::new(&device, Nothing)?;
//! let outputs = Outputs::Whole { values: vec![84 * 8400], element: Element::F32 };
//! let (height, width, input) = (640, 640, Element::F16);
//! let spec = Spec { height, width, input, max_batch: 8, outputs, graphs: true };
//! let mut set = BufferSet::new(&device, &lane, spec)?;
//!
//! let data = vec![0; 3 * 1920 * 1080];
//! let planes = Planes::Rgb24 { data: &data, stride: 3 * 1920 };
//! let view = FrameView::new(1920, 1080, planes, Colour::default())?;
//! let letterbox = Letterbox::new(1920, 1080, width, height);
//! let frame = Frame { view, letterbox, confidence: 0.25, memory: None };
//! set.run(&[frame], || 0)?;
//! let first = set.output(0, 0)[0];
//! # let _ = first;
//! # Ok(())
//! # }
//! ```
//!
//! Three levels, each in modules of its own: the driver's functions (`driver`), objects
//! that give themselves back (`context`, `stream`, `memory`), and the pipeline on top.

mod context;
mod device;
mod driver;
mod entry;
mod error;
mod memory;
mod pipeline;
mod probe;
mod segments;
mod stream;

pub use device::Device;
pub use entry::RawCandidate;
pub use error::{CudaError, RunError};
pub use pipeline::{
    BufferSet, Buffers, Element, Frame, Lane, Network, Outputs, Scale, Spec, Times,
};
pub use probe::{DeviceInfo, HostAccess, devices};
pub use segments::MemoryId;
