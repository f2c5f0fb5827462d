//! What happens to a batch between its frames and its candidates.
//!
//! One [`BufferSet`] per worker, one [`Lane`] per execution context. The set copies
//! frames on a stream of its own while the lane still computes for another set; then
//! letterbox, network and decode are enqueued on the lane's stream. Everything that
//! touches the network runs on that one stream, in order, so the network's scratch
//! memory is never used by two batches at a time, however many sets feed the lane.
//!
//! Locks: a lane's network, held while work is enqueued (never while it is waited for,
//! but after an error); a device's segments, held for a look-up. Neither is taken under
//! the other.

mod lane;
mod upload;
mod work;

pub use lane::{Buffers, Lane, Network};

use crate::device::Device;
use crate::entry::{FrameEntry, RawCandidate};
use crate::error::{CudaError, RunError};
use crate::memory::{Pinned, Registered};
use crate::probe::HostAccess;
use crate::segments::MemoryId;
use crate::stream::{Event, Stream};
use framebus_vision::{FrameView, Letterbox, Planes};
use std::sync::Arc;
use upload::Slot;
use work::Work;

/// Longest side of a picture: what the kernels' fixed point holds.
const SIDE_MAX: usize = 1 << 16;

/// What a network's input or output consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary32.
    F32,
}

impl Element {
    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// One scale of a cut head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Rows of cells.
    pub height: usize,
    /// Cells of a row.
    pub width: usize,
    /// Network pixels from one cell to the next.
    pub stride: usize,
}

/// What becomes of the network's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// A cut head, decoded on the device. Outputs in the order boxes, classes of each
    /// scale: `[batch, 4 * bins, height, width]` and `[batch, classes, height, width]`.
    Heads {
        /// Finest first.
        scales: Vec<Scale>,
        /// Distances that a side is distributed over; 1: the distance itself.
        bins: usize,
        /// Classes.
        classes: usize,
        /// Of all outputs.
        element: Element,
    },
    /// Copied back as they are.
    Whole {
        /// Values of one frame, for each output.
        values: Vec<usize>,
        /// Of all outputs; 16 bits are made 32 on the CPU.
        element: Element,
    },
}

/// What a buffer set is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Height of the network's input `[batch, 3, height, width]`.
    pub height: usize,
    /// Its width.
    pub width: usize,
    /// Its element.
    pub input: Element,
    /// Largest batch.
    pub max_batch: usize,
    /// The outputs.
    pub outputs: Outputs,
    /// Whether the work of a batch size is recorded once and launched as a graph.
    pub graphs: bool,
}

/// One frame of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its pixels.
    pub view: FrameView<'a>,
    /// From its size to the network's input.
    pub letterbox: Letterbox,
    /// Cells with a score below this are no candidates; those within a few ulp of it
    /// are, and are the caller's to compare.
    pub confidence: f32,
    /// The shared memory that the pixels lie in; `None`: some other memory.
    pub memory: Option<MemoryId>,
}

/// When a batch reached its stages, by the clock that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Pixels and geometry are in the device's memory.
    pub uploaded_ns: u64,
    /// The answers are in the host's.
    pub done_ns: u64,
}

/// One worker's buffers, copy stream and graphs.
pub struct BufferSet<N> {
    max_batch: usize,
    size: [usize; 2],
    slots: Vec<Slot>,
    /// The geometry table on the host's side.
    table: Pinned,
    /// Mappings that the batch in flight uses.
    held: Vec<Arc<Registered>>,
    work: Work,
    uploaded: Event,
    done: Event,
    copy: Stream,
    lane: Arc<Lane<N>>,
    device: Device,
}

impl<N: Network> BufferSet<N> {
    /// Allocates everything but room for frames, which grows with them.
    ///
    /// # Errors
    /// [`CudaError::Spec`] for a spec that cannot be, [`CudaError::Call`] when the
    /// device has no memory left.
    pub fn new(device: &Device, lane: &Arc<Lane<N>>, spec: Spec) -> Result<Self, CudaError> {
        check_spec(&spec)?;
        let context = device.context();
        let max_batch = spec.max_batch;
        Ok(Self {
            max_batch,
            size: [spec.width, spec.height],
            slots: (0..max_batch).map(|_| Slot::default()).collect(),
            table: Pinned::new(context, max_batch * size_of::<FrameEntry>())?,
            held: Vec::with_capacity(max_batch),
            work: Work::new(context, spec)?,
            uploaded: Event::new(context)?,
            done: Event::new(context)?,
            copy: Stream::new(context)?,
            lane: Arc::clone(lane),
            device: device.clone(),
        })
    }

    /// Runs one batch and waits for it. Allocates nothing once frames have had their
    /// size and candidates their number before.
    ///
    /// When it returns, with or without an answer, the device is done with the frames
    /// and with this set's buffers.
    ///
    /// # Errors
    /// [`RunError`]; the batch then has no answer. The set can be used again unless
    /// [`RunError::is_lost`].
    pub fn run(&mut self, frames: &[Frame<'_>], clock: fn() -> u64) -> Result<Times, RunError> {
        self.work.forget();
        self.check(frames)?;
        self.device.bind()?;
        let flight =
            InFlight { copy: &self.copy, lane: &self.lane, held: &mut self.held, landed: false };
        let times = flight.until_done(|held| {
            let (slots, work) = (&mut self.slots, &mut self.work);
            let access = self.device.info().host_access;
            let context = self.device.context();
            for ((slot, frame), entry) in slots.iter_mut().zip(frames).zip(self.table.values_mut())
            {
                *entry = FrameEntry::new(&frame.letterbox, frame.view.colour(), frame.confidence);
                let planes = upload::planes(&frame.view);
                let located = frame.memory.and_then(|id| {
                    let (bytes, first) = planes.span();
                    self.device.locate(id, &bytes, first)
                });
                let Some(at) = located else {
                    slot.stage(context, &self.copy, &planes, entry)?;
                    continue;
                };
                // Before anything is enqueued that may fail half-way.
                held.push(Arc::clone(&at.memory));
                if access != HostAccess::Mapped || !planes.in_place(&at, entry) {
                    slot.copy_from(context, &self.copy, &planes, &at, entry)?;
                }
            }
            work.upload_table(&self.copy, &self.table, frames.len())?;
            self.uploaded.record(&self.copy)?;
            let kernels = self.device.kernels();
            work.enqueue(kernels, &self.lane, frames.len(), &self.uploaded, &self.done)?;
            self.uploaded.synchronize()?;
            let uploaded_ns = clock();
            self.done.synchronize()?;
            Ok(Times { uploaded_ns, done_ns: clock() })
        })?;
        self.work.collect(self.device.context(), &self.copy, frames.len())?;
        Ok(times)
    }

    /// Runs the network alone on whatever lies in its input, with the size of the last
    /// batch: what a benchmark sets against [`Self::run`]. Answers stay those of `run`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn infer_only(&mut self) -> Result<(), RunError> {
        self.device.bind()?;
        let flight =
            InFlight { copy: &self.copy, lane: &self.lane, held: &mut self.held, landed: false };
        flight.until_done(|_| {
            self.work.enqueue_network(&self.lane, &self.done)?;
            Ok(self.done.synchronize()?)
        })
    }

    /// Candidates of a frame of the last batch, by cell, finest scale first. Empty for
    /// whole outputs and frames that there were not.
    pub fn candidates(&mut self, frame: usize) -> &[RawCandidate] {
        self.work.candidates(frame)
    }

    /// Values of a frame that the decode kernel found not to be finite.
    #[must_use]
    pub fn non_finite(&self, frame: usize) -> u32 {
        self.work.non_finite(frame)
    }

    /// Values of a frame in output `index`. Empty for cut heads and frames and outputs
    /// that there were not.
    #[must_use]
    pub fn output(&self, index: usize, frame: usize) -> &[f32] {
        self.work.output(index, frame)
    }

    fn check(&self, frames: &[Frame<'_>]) -> Result<(), RunError> {
        let max_batch = self.max_batch;
        if frames.is_empty() || frames.len() > max_batch {
            return Err(RunError::Batch { frames: frames.len(), max_batch });
        }
        for (index, Frame { view, letterbox, .. }) in frames.iter().enumerate() {
            let [width, height] = [view.width(), view.height()];
            let source = [letterbox.src_width(), letterbox.src_height()];
            let size = [letterbox.dst_width(), letterbox.dst_height()];
            let strides = match view.planes() {
                Planes::Nv12 { y_stride, uv_stride, .. } => [y_stride, uv_stride],
                Planes::Rgb24 { stride, .. } => [stride; 2],
            };
            let reason = if [width, height] != source || size != self.size {
                format!(
                    "{width}x{height} pixels with a letterbox from {source:?} to {size:?}; the \
                     network's input is {:?}",
                    self.size
                )
            } else if width.max(height) > SIDE_MAX {
                format!("{width}x{height} pixels; a side has {SIDE_MAX} at most")
            } else if strides.iter().any(|&stride| u32::try_from(stride).is_err()) {
                format!("rows {strides:?} bytes apart; a stride fits 32 bits")
            } else {
                continue;
            };
            return Err(RunError::Frame { index, reason });
        }
        Ok(())
    }
}

/// A batch that the device may be working on. However a run is left, by an error or a
/// panic included, the device is done with the borrowed frames, the mappings held and
/// the set's buffers before they are anybody else's: frames cannot outlive the call
/// that borrows them, and this value does not leave it.
struct InFlight<'a, N> {
    copy: &'a Stream,
    lane: &'a Lane<N>,
    held: &'a mut Vec<Arc<Registered>>,
    /// The device is known to be done.
    landed: bool,
}

impl<N> InFlight<'_, N> {
    /// `work` enqueues and waits; what it puts into the vector is held until the device
    /// is done.
    fn until_done<R>(
        mut self,
        work: impl FnOnce(&mut Vec<Arc<Registered>>) -> Result<R, RunError>,
    ) -> Result<R, RunError> {
        let result = work(self.held);
        let drained = if result.is_ok() { Ok(()) } else { self.drain() };
        self.landed = true;
        match (result, drained) {
            // A network says that it cannot be enqueued; that the device is lost is for
            // the driver to say.
            (Err(error), Err(worse)) if worse.is_lost() && !error.is_lost() => {
                tracing::warn!(%error, "a batch fails because the device is lost");
                Err(worse.into())
            }
            (result, _) => result,
        }
    }

    /// Waits for both streams. After a lost device this answers an error at once: it
    /// copies no more.
    fn drain(&mut self) -> Result<(), CudaError> {
        let copied = self.copy.synchronize();
        self.lane.drain().and(copied)
    }
}

impl<N> Drop for InFlight<'_, N> {
    fn drop(&mut self) {
        // Not landed: unwinding.
        if !self.landed
            && let Err(error) = self.drain()
        {
            tracing::debug!(%error, "waiting for a batch that failed");
        }
        self.held.clear();
    }
}

fn check_spec(spec: &Spec) -> Result<(), CudaError> {
    let Spec { height, width, max_batch, outputs, .. } = spec;
    // 65535: blocks along the axis that counts frames.
    let side = 1..=SIDE_MAX;
    let reason = if !side.contains(height) || !side.contains(width) {
        format!("an input of {width}x{height} pixels; each side has 1 to {SIDE_MAX}")
    } else if !(1..=65_535).contains(max_batch) {
        format!("a largest batch of {max_batch}; 1 to 65535 can be")
    } else {
        match outputs {
            Outputs::Heads { scales, bins, classes, .. } => {
                let whole = |scale: &Scale| {
                    let side = 1..=SIDE_MAX / 2;
                    side.contains(&scale.height)
                        && side.contains(&scale.width)
                        && (1..=SIDE_MAX).contains(&scale.stride)
                };
                if scales.is_empty() || !scales.iter().all(whole) {
                    format!("a head with the scales {scales:?}")
                } else if !(1..=SIDE_MAX).contains(bins) || !(1..=SIDE_MAX).contains(classes) {
                    format!("a head of {classes} classes and {bins} bins")
                } else {
                    return Ok(());
                }
            }
            Outputs::Whole { values, .. } => {
                if !values.is_empty() && values.iter().all(|&count| count > 0) {
                    return Ok(());
                }
                format!("outputs of {values:?} values")
            }
        }
    };
    Err(CudaError::Spec { reason })
}
