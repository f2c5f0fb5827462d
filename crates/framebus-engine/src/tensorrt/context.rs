//! One buffer set with its decoder.

use super::NAME;
use super::network::TensorRtNetwork;
use super::reference::{self, Reference};
use crate::answer::{account, whole, with_check_picture};
use crate::api::{
    BatchOutput, ClockNs, Context, EngineError, FrameOutput, FrameRequest, Shape, StageTimes,
};
use arrayvec::ArrayVec;
use framebus_cuda::{BufferSet, Frame, RunError};
use framebus_model::Model;
use framebus_vision::{Cell, DenseOutput, Layout, Letterbox, Postprocess};

/// Largest batch, whatever the configuration says.
const MAX_BATCH: usize = 64;

/// One execution context for one input shape.
pub(super) struct TensorRtContext {
    set: BufferSet<TensorRtNetwork>,
    shape: Shape,
    max_batch: usize,
    reading: Reading,
    clock: ClockNs,
    postprocess: Postprocess,
}

/// How the answer is read.
enum Reading {
    /// Candidates that the GPU found.
    Cells { values: usize },
    /// Boxes in one tensor of so many classes.
    Whole { layout: Layout, classes: usize },
}

impl TensorRtContext {
    pub(super) fn new(
        set: BufferSet<TensorRtNetwork>,
        shape: Shape,
        max_batch: usize,
        model: &Model,
        clock: ClockNs,
    ) -> Result<Self, String> {
        if max_batch > MAX_BATCH {
            return Err(format!("batches of {max_batch} are too large, {MAX_BATCH} is the most"));
        }
        let reading = match whole(model.layout()) {
            Some(layout) => Reading::Whole { layout, classes: model.classes() },
            None => {
                let cells = |stride| (shape.height / stride) * (shape.width / stride);
                let cells: usize = model.heads().iter().map(|head| cells(head.stride)).sum();
                Reading::Cells { values: cells * (4 * model.bins() + model.classes()) }
            }
        };
        Ok(Self { set, shape, max_batch, reading, clock, postprocess: Postprocess::default() })
    }

    /// One picture through the whole path, alone and as the last of the largest batch,
    /// twice each: the second time is a graph's. An engine that answers NaN, nothing, or
    /// something else than the model is refused before it goes live.
    pub(super) fn self_check(&mut self, reference: Option<&Reference>) -> Result<(), EngineError> {
        let max_batch = self.max_batch;
        let check = |found: &FrameOutput| match reference {
            Some(reference) => reference.judge(&found.detections),
            None if found.detections.is_empty() => {
                Err("it finds nothing at all in the check picture".to_owned())
            }
            None => Ok(()),
        };
        with_check_picture(self.shape, |view, _| {
            let thresholds = reference::thresholds();
            let request = FrameRequest { view, thresholds: &thresholds, memory: None };
            let mut output = BatchOutput::default();
            for batch in [1, max_batch, 1, max_batch] {
                let requests: ArrayVec<_, MAX_BATCH> =
                    std::iter::repeat_n(request, batch).collect();
                self.run(&requests, &mut output)?;
                let last = output.frames.get(batch - 1).map_or(Ok(()), check);
                last.map_err(|reason| run_error("self-check", reason))?;
            }
            Ok(())
        })
        .map_err(|error| run_error("self-check", error.to_string()))?
    }

    fn decode(
        &mut self,
        index: usize,
        frame: &FrameRequest<'_>,
        letterbox: &Letterbox,
        output: &mut FrameOutput,
    ) -> Result<(), String> {
        let thresholds = frame.thresholds.borrow();
        let found = &mut output.detections;
        let (counts, values) = match self.reading {
            Reading::Cells { values } => {
                let non_finite = self.set.non_finite(index);
                let cells = self.set.candidates(index).iter();
                let cells =
                    cells.map(|raw| Cell { bbox: raw.bbox, logit: raw.logit, class: raw.class });
                let post = &mut self.postprocess;
                let counts = post.run_cells(cells, non_finite, &thresholds, letterbox, found);
                (counts, values)
            }
            Reading::Whole { layout, classes } => {
                let values = self.set.output(0, index);
                let channels = if layout == Layout::EndToEnd { 6 } else { 4 + classes };
                let boxes = values.len() / channels;
                let dense = DenseOutput::new(values, layout, classes, boxes)
                    .map_err(|error| error.to_string())?;
                let post = &mut self.postprocess;
                (post.run(dense, &thresholds, letterbox, found), values.len())
            }
        };
        account(counts.map_err(|error| error.to_string())?, values, output)
    }
}

impl Context for TensorRtContext {
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError> {
        if batch.is_empty() || batch.len() > self.max_batch {
            return Err(run_error(
                "batch",
                format!("{} frames were given, {} is the most", batch.len(), self.max_batch),
            ));
        }
        if output.frames.len() < batch.len() {
            output.frames.resize_with(batch.len(), FrameOutput::default);
        }
        let Shape { height, width } = self.shape;
        let frames: ArrayVec<Frame<'_>, MAX_BATCH> = batch
            .iter()
            .map(|frame| Frame {
                view: frame.view,
                letterbox: Letterbox::new(frame.view.width(), frame.view.height(), width, height),
                confidence: frame.thresholds.confidence,
                memory: frame.memory,
            })
            .collect();
        let times = self.set.run(&frames, self.clock).map_err(failed)?;
        // The letterbox is one of the GPU's kernels: between these two lies all that the GPU
        // does with the batch.
        output.times = StageTimes {
            preprocessed_ns: times.uploaded_ns,
            inference_start_ns: times.uploaded_ns,
            inference_end_ns: times.done_ns,
            ..StageTimes::default()
        };
        for (index, frame) in batch.iter().enumerate() {
            let letterbox = frames[index].letterbox;
            self.decode(index, frame, &letterbox, &mut output.frames[index])
                .map_err(|reason| run_error("decode", reason))?;
        }
        output.times.decoded_ns = (self.clock)();
        Ok(())
    }

    fn infer_only(&mut self) -> Result<(), EngineError> {
        self.set.infer_only().map_err(failed)
    }
}

/// A GPU that is lost stays lost for this process; another backend takes over.
fn failed(error: RunError) -> EngineError {
    let reason = error.to_string();
    match error.is_lost() {
        true => EngineError::Gone { backend: NAME, reason },
        false => run_error("inference", reason),
    }
}

fn run_error(stage: &'static str, reason: String) -> EngineError {
    EngineError::Run { backend: NAME, stage, reason }
}
