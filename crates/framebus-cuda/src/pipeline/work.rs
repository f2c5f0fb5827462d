//! What is enqueued on a lane's stream for a batch, plainly or as a graph, and what
//! comes back of it.

#![allow(unsafe_code)]

use super::lane::{Buffers, Lane, Network};
use super::{Element, Outputs, Scale, Spec};
use crate::context::{Context, Kernels};
use crate::entry::{FrameEntry, RawCandidate};
use crate::error::{CudaError, RunError};
use crate::memory::{DeviceBuffer, Pinned};
use crate::stream::{Event, Graph, Rows, Stream};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ffi::c_void;
use std::sync::Arc;

/// Candidates of a frame that are copied back with every batch. There are a few dozen
/// at a usual threshold; the rest of a frame that has more takes a second copy.
const KEPT: usize = 512;

/// A set's device memory, the host's copies of answers, and recorded work.
pub(super) struct Work {
    buffers: Buffers,
    table: DeviceBuffer,
    answers: Answers,
    /// For each batch size, from 1.
    launches: Vec<Launch>,
    size: [usize; 2],
    input: Element,
    /// Frames that have answers.
    batch: usize,
    /// Size of the last batch that was enqueued.
    enqueued: usize,
    /// The network's input and outputs, by address in `buffers`.
    _memory: Vec<DeviceBuffer>,
}

/// How the work of a batch size is launched.
enum Launch {
    /// Plainly, for the first time, and then recorded.
    Cold,
    /// Piece by piece: graphs are not wanted, or could not be made.
    Plain,
    Graph(Graph),
}

enum Answers {
    Heads(Head),
    Whole(Vec<Output>),
}

/// Candidates of a cut head.
struct Head {
    scales: Vec<Scale>,
    bins: u32,
    classes: u32,
    element: Element,
    /// Cells of all scales: a frame cannot have more candidates.
    capacity: usize,
    /// Two for each frame: candidates, values that are not finite.
    counts: DeviceBuffer,
    candidates: DeviceBuffer,
    counts_host: Pinned,
    /// The first [`KEPT`] of each frame.
    kept: usize,
    kept_host: Pinned,
    /// All of one frame, once a frame had more.
    all_host: Option<Pinned>,
    found: Vec<Vec<RawCandidate>>,
}

/// One output that is copied back as it is.
struct Output {
    address: u64,
    values: usize,
    element: Element,
    host: Pinned,
    /// What 16 bits became.
    floats: Vec<f32>,
}

fn product(factors: &[usize]) -> Result<usize, CudaError> {
    factors.iter().try_fold(1_usize, |bytes, &factor| bytes.checked_mul(factor)).ok_or_else(|| {
        CudaError::Spec { reason: format!("{factors:?} bytes are more than there can be") }
    })
}

impl Work {
    pub(super) fn new(context: &Arc<Context>, spec: Spec) -> Result<Self, CudaError> {
        let Spec { height, width, input, max_batch, outputs, graphs } = spec;
        let memory = |bytes| DeviceBuffer::new(context, bytes);
        let mut all = vec![memory(product(&[max_batch, 3, height, width, input.bytes()])?)?];
        let answers = match outputs {
            Outputs::Heads { scales, bins, classes, element } => {
                for Scale { height, width, .. } in &scales {
                    for channels in [4 * bins, classes] {
                        let factors = [max_batch, channels, *height, *width, element.bytes()];
                        all.push(memory(product(&factors)?)?);
                    }
                }
                let head = Head::new(context, max_batch, scales, [bins, classes], element)?;
                Answers::Heads(head)
            }
            Outputs::Whole { values, element } => {
                let mut outputs = Vec::with_capacity(values.len());
                for values in values {
                    let device = memory(product(&[max_batch, values, element.bytes()])?)?;
                    let floats = match element {
                        Element::F16 => vec![0.0; max_batch * values],
                        Element::F32 => Vec::new(),
                    };
                    let host = Pinned::new(context, device.bytes())?;
                    outputs.push(Output {
                        address: device.address(),
                        values,
                        element,
                        host,
                        floats,
                    });
                    all.push(device);
                }
                Answers::Whole(outputs)
            }
        };
        let launch = || if graphs { Launch::Cold } else { Launch::Plain };
        let mut addresses = all.iter().map(DeviceBuffer::address);
        Ok(Self {
            buffers: Buffers {
                input: addresses.next().unwrap_or_default(),
                outputs: addresses.collect(),
            },
            table: memory(product(&[max_batch, size_of::<FrameEntry>()])?)?,
            answers,
            launches: (0..max_batch).map(|_| launch()).collect(),
            size: [width, height],
            input,
            batch: 0,
            enqueued: max_batch,
            _memory: all,
        })
    }

    /// There are no answers until the next batch is done.
    pub(super) fn forget(&mut self) {
        self.batch = 0;
    }

    /// Enqueues the copy of the geometry table, which stays until the stream has passed.
    pub(super) fn upload_table(
        &self,
        copy: &Stream,
        table: &Pinned,
        batch: usize,
    ) -> Result<(), CudaError> {
        // SAFETY: both hold an entry for every frame of the largest batch; the run
        // waits for the stream.
        unsafe {
            copy.copy_to_device(
                self.table.address(),
                table.as_ptr(),
                batch * size_of::<FrameEntry>(),
            )
        }
    }

    /// Enqueues everything after the upload on the lane's stream.
    pub(super) fn enqueue<N: Network>(
        &mut self,
        kernels: &Kernels,
        lane: &Lane<N>,
        batch: usize,
        uploaded: &Event,
        done: &Event,
    ) -> Result<(), RunError> {
        self.enqueued = batch;
        let mut network = lane.lock();
        let stream = lane.stream();
        stream.wait(uploaded)?;
        if let Launch::Graph(graph) = &self.launches[batch - 1] {
            // SAFETY: what was captured are buffers of this set, for which the run
            // waits; the set's graphs are launched by its one owner.
            unsafe { stream.launch_graph(graph) }?;
            return Ok(done.record(stream)?);
        }
        self.enqueue_plain(kernels, &mut *network, batch, stream)?;
        done.record(stream)?;
        if matches!(self.launches[batch - 1], Launch::Cold) {
            // Now, under the same lock: the network has just run this size, and another
            // size in between would set it up anew, which cannot be recorded.
            self.launches[batch - 1] = match self.record(kernels, &mut *network, batch, stream) {
                Ok(graph) => Launch::Graph(graph),
                Err(error) => {
                    tracing::warn!(
                        batch,
                        %error,
                        "no CUDA graph can be made; batches of this size are launched piece by \
                         piece"
                    );
                    Launch::Plain
                }
            };
        }
        Ok(())
    }

    /// Records what [`Self::enqueue_plain`] enqueues; nothing runs.
    fn record<N: Network>(
        &mut self,
        kernels: &Kernels,
        network: &mut N,
        batch: usize,
        stream: &Stream,
    ) -> Result<Graph, RunError> {
        let capture = stream.begin_capture()?;
        self.enqueue_plain(kernels, network, batch, stream)?;
        Ok(capture.finish()?)
    }

    /// The network alone; its outputs are not copied back.
    pub(super) fn enqueue_network<N: Network>(
        &mut self,
        lane: &Lane<N>,
        done: &Event,
    ) -> Result<(), RunError> {
        let mut network = lane.lock();
        let stream = lane.stream();
        network
            .enqueue(self.enqueued, &self.buffers, stream.as_raw())
            .map_err(RunError::Network)?;
        Ok(done.record(stream)?)
    }

    fn enqueue_plain<N: Network>(
        &mut self,
        kernels: &Kernels,
        network: &mut N,
        batch: usize,
        stream: &Stream,
    ) -> Result<(), RunError> {
        self.letterbox(kernels, batch, stream)?;
        network.enqueue(batch, &self.buffers, stream.as_raw()).map_err(RunError::Network)?;
        match &mut self.answers {
            Answers::Heads(head) => {
                head.decode(kernels, &self.table, &self.buffers.outputs, batch, stream)?;
                head.copy_back(batch, stream)?;
            }
            Answers::Whole(outputs) => {
                for Output { address, values, element, host, .. } in outputs {
                    let bytes = batch * *values * element.bytes();
                    // SAFETY: both have room for the largest batch; the run waits for
                    // the stream before it reads `host`.
                    unsafe { stream.copy_to_host(host.as_mut_ptr(), *address, bytes) }?;
                }
            }
        }
        Ok(())
    }

    fn letterbox(&self, kernels: &Kernels, batch: usize, stream: &Stream) -> Result<(), CudaError> {
        let (mut table, mut out) = (self.table.address(), self.buffers.input);
        let [mut width, mut height] = self.size.map(|side| side as u32);
        let mut half = is_half(self.input);
        let mut arguments: [*mut c_void; 5] = [
            (&raw mut table).cast(),
            (&raw mut out).cast(),
            (&raw mut width).cast(),
            (&raw mut height).cast(),
            (&raw mut half).cast(),
        ];
        // A thread writes two pixels of a row.
        let grid = [width.div_ceil(64), height.div_ceil(8), batch as u32];
        // SAFETY: the arguments are those of framebus_letterbox; the table has `batch`
        // entries, whose planes the upload put into the device's reach, and the input
        // room for as many frames. The run waits for the stream.
        unsafe { stream.launch(kernels.letterbox, grid, [32, 8], &mut arguments) }
    }

    /// Brings the answers of a batch that is done into order.
    pub(super) fn collect(
        &mut self,
        context: &Arc<Context>,
        copy: &Stream,
        batch: usize,
    ) -> Result<(), CudaError> {
        match &mut self.answers {
            Answers::Heads(head) => {
                for frame in 0..batch {
                    head.collect(context, copy, frame)?;
                }
            }
            Answers::Whole(outputs) => {
                for output in outputs.iter_mut().filter(|output| output.element == Element::F16) {
                    let count = batch * output.values;
                    let halves = &output.host.values::<f16>()[..count];
                    halves.convert_to_f32_slice(&mut output.floats[..count]);
                }
            }
        }
        self.batch = batch;
        Ok(())
    }

    pub(super) fn candidates(&self, frame: usize) -> &[RawCandidate] {
        match &self.answers {
            Answers::Heads(head) if frame < self.batch => &head.found[frame],
            Answers::Heads(_) | Answers::Whole(_) => &[],
        }
    }

    pub(super) fn non_finite(&self, frame: usize) -> u32 {
        match &self.answers {
            Answers::Heads(head) if frame < self.batch => {
                head.counts_host.values::<u32>()[2 * frame + 1]
            }
            Answers::Heads(_) | Answers::Whole(_) => 0,
        }
    }

    pub(super) fn output(&self, index: usize, frame: usize) -> &[f32] {
        match &self.answers {
            Answers::Whole(outputs) if frame < self.batch && index < outputs.len() => {
                let Output { values, element, host, floats, .. } = &outputs[index];
                let all = match element {
                    Element::F16 => floats.as_slice(),
                    Element::F32 => host.values::<f32>(),
                };
                &all[frame * values..(frame + 1) * values]
            }
            Answers::Whole(_) | Answers::Heads(_) => &[],
        }
    }
}

/// The kernels' word for an element.
fn is_half(element: Element) -> u32 {
    match element {
        Element::F16 => 1,
        Element::F32 => 0,
    }
}

impl Head {
    fn new(
        context: &Arc<Context>,
        max_batch: usize,
        scales: Vec<Scale>,
        [bins, classes]: [usize; 2],
        element: Element,
    ) -> Result<Self, CudaError> {
        let capacity = scales.iter().map(|scale| scale.height * scale.width).sum::<usize>();
        let kept = capacity.min(KEPT);
        let (count, entry) = (2 * size_of::<u32>(), size_of::<RawCandidate>());
        Ok(Self {
            scales,
            bins: bins as u32,
            classes: classes as u32,
            element,
            capacity,
            counts: DeviceBuffer::new(context, product(&[max_batch, count])?)?,
            candidates: DeviceBuffer::new(context, product(&[max_batch, capacity, entry])?)?,
            counts_host: Pinned::new(context, product(&[max_batch, count])?)?,
            kept,
            kept_host: Pinned::new(context, product(&[max_batch, kept, entry])?)?,
            all_host: None,
            found: (0..max_batch).map(|_| Vec::with_capacity(kept)).collect(),
        })
    }

    /// Enqueues the decode kernel, once per scale.
    fn decode(
        &self,
        kernels: &Kernels,
        table: &DeviceBuffer,
        outputs: &[u64],
        batch: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        // SAFETY: two counts for every frame of the largest batch; the run waits for
        // the stream.
        unsafe { stream.zero(self.counts.address(), batch * 2 * size_of::<u32>()) }?;
        let (mut table, mut half) = (table.address(), is_half(self.element));
        let (mut bins, mut classes) = (self.bins, self.classes);
        let (mut counts, mut candidates) = (self.counts.address(), self.candidates.address());
        let (mut capacity, mut first_cell) = (self.capacity as u32, 0_u32);
        for (scale, maps) in self.scales.iter().zip(outputs.chunks_exact(2)) {
            let (mut boxes, mut scores) = (maps[0], maps[1]);
            let (mut width, mut height) = (scale.width as u32, scale.height as u32);
            let mut stride = scale.stride as u32;
            let mut arguments: [*mut c_void; 13] = [
                (&raw mut table).cast(),
                (&raw mut boxes).cast(),
                (&raw mut scores).cast(),
                (&raw mut half).cast(),
                (&raw mut bins).cast(),
                (&raw mut classes).cast(),
                (&raw mut width).cast(),
                (&raw mut height).cast(),
                (&raw mut stride).cast(),
                (&raw mut first_cell).cast(),
                (&raw mut capacity).cast(),
                (&raw mut counts).cast(),
                (&raw mut candidates).cast(),
            ];
            let cells = width * height;
            let grid = [cells.div_ceil(128), batch as u32, 1];
            // SAFETY: the arguments are those of framebus_decode; maps, counts and
            // candidates have room for the largest batch. The run waits for the stream.
            unsafe { stream.launch(kernels.decode, grid, [128, 1], &mut arguments) }?;
            first_cell += cells;
        }
        Ok(())
    }

    /// Enqueues the copies of counts and of every frame's first candidates.
    fn copy_back(&mut self, batch: usize, stream: &Stream) -> Result<(), CudaError> {
        let counts = self.counts_host.as_mut_ptr();
        // SAFETY: both hold two counts for every frame; the run waits for the stream
        // before it reads them.
        unsafe {
            stream.copy_to_host(counts, self.counts.address(), batch * 2 * size_of::<u32>())
        }?;
        let entry = size_of::<RawCandidate>();
        let rows = Rows {
            bytes: self.kept * entry,
            count: batch,
            from_pitch: self.capacity * entry,
            to_pitch: self.kept * entry,
        };
        let kept = self.kept_host.as_mut_ptr();
        // SAFETY: a row for every frame on both sides; the run waits as above.
        unsafe { stream.copy_rows_to_host(kept, self.candidates.address(), rows) }
    }

    /// Takes the candidates of a frame of a batch that is done, those too that were not
    /// copied with it.
    fn collect(
        &mut self,
        context: &Arc<Context>,
        copy: &Stream,
        frame: usize,
    ) -> Result<(), CudaError> {
        let count = self.counts_host.values::<u32>()[2 * frame] as usize;
        let count = count.min(self.capacity);
        let found = &mut self.found[frame];
        found.clear();
        if count <= self.kept {
            let kept = &self.kept_host.values::<RawCandidate>()[frame * self.kept..];
            found.extend_from_slice(&kept[..count]);
        } else {
            let entry = size_of::<RawCandidate>();
            let all = match &mut self.all_host {
                Some(all) => all,
                none => none.insert(Pinned::new(context, self.capacity * entry)?),
            };
            let from = self.candidates.address() + (frame * self.capacity * entry) as u64;
            // SAFETY: `count` candidates of this frame fit both; nothing else uses them,
            // the batch is done, and the stream is waited for right here.
            unsafe { copy.copy_to_host(all.as_mut_ptr(), from, count * entry) }?;
            copy.synchronize()?;
            found.extend_from_slice(&all.values::<RawCandidate>()[..count]);
        }
        // The device writes them in the order in which its threads came by.
        found.sort_unstable_by_key(|candidate| candidate.cell);
        Ok(())
    }
}
