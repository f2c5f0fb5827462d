//! One infer request with its input memory, letterboxes and decoder.

use super::{NAME, message};
use crate::api::{
    BatchOutput, ClockNs, Context, EngineError, FrameOutput, FrameRequest, StageTimes,
};
use framebus_model::{Model, OutputLayout};
use framebus_vision::{DenseOutput, FrameView, Layout, Postprocess, Resampler};
use openvino::{ElementType, InferRequest, Tensor};

/// Letterbox tables kept, one per kind of frame; the tables of a 4K source are
/// about 100 KiB. More kinds than this on one worker build them anew each time.
const MAX_RESAMPLERS: usize = 64;

/// How the output is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decode {
    layout: Layout,
    classes: usize,
    height: usize,
    width: usize,
}

impl Decode {
    pub(super) fn new(model: &Model, height: usize, width: usize) -> Self {
        let layout = match model.layout() {
            OutputLayout::Dense { channels_first: true } => Layout::ChannelsFirst,
            OutputLayout::Dense { channels_first: false } => Layout::AnchorsFirst,
            OutputLayout::EndToEnd => Layout::EndToEnd,
        };
        Self { layout, classes: model.classes(), height, width }
    }

    /// Number of boxes in an output of this shape.
    fn anchors(&self, shape: &[i64]) -> Result<usize, String> {
        let channels = match self.layout {
            Layout::EndToEnd => 6,
            Layout::ChannelsFirst | Layout::AnchorsFirst => 4 + self.classes as i64,
        };
        let anchors = match (self.layout, shape) {
            (Layout::ChannelsFirst, &[1, c, n]) if c == channels => n,
            (Layout::AnchorsFirst | Layout::EndToEnd, &[1, n, c]) if c == channels => n,
            _ => {
                return Err(format!(
                    "the output has shape {shape:?}, which is not {:?} with {channels} channels",
                    self.layout
                ));
            }
        };
        usize::try_from(anchors).map_err(|_| format!("the output has shape {shape:?}"))
    }
}

/// One infer request.
pub(super) struct OpenVinoContext {
    request: InferRequest,
    /// The request's own input: what is written here is what it computes on.
    input: Tensor,
    decode: Decode,
    clock: ClockNs,
    /// Most recently used last.
    resamplers: Vec<Resampler>,
    postprocess: Postprocess,
}

impl OpenVinoContext {
    pub(super) fn new(
        request: InferRequest,
        decode: Decode,
        clock: ClockNs,
    ) -> Result<Self, String> {
        let input = request.get_input_tensor().map_err(|error| message(&error))?;
        let element = input.get_element_type().map_err(|error| message(&error))?;
        let length = input.get_size().map_err(|error| message(&error))?;
        if element != ElementType::F32 || length != 3 * decode.height * decode.width {
            return Err(format!(
                "the compiled input has {length} values of {element:?}, expected {} of F32",
                3 * decode.height * decode.width
            ));
        }
        Ok(Self {
            request,
            input,
            decode,
            clock,
            resamplers: Vec::new(),
            postprocess: Postprocess::default(),
        })
    }

    /// Moves the tables for this kind of frame to the end of the list.
    fn prepare(&mut self, view: &FrameView<'_>) -> Result<(), EngineError> {
        let known = self.resamplers.iter().rposition(|resampler| resampler.matches(view));
        if let Some(index) = known {
            self.resamplers[index..].rotate_left(1);
            return Ok(());
        }
        let new = Resampler::new(view, self.decode.width, self.decode.height)
            .map_err(|error| run_error("letterbox", error.to_string()))?;
        if self.resamplers.len() >= MAX_RESAMPLERS {
            self.resamplers.remove(0);
        }
        self.resamplers.push(new);
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &FrameRequest<'_>,
        output: &mut FrameOutput,
    ) -> Result<StageTimes, EngineError> {
        let mut times = StageTimes::default();
        self.prepare(&frame.view)?;
        let Some(resampler) = self.resamplers.last_mut() else {
            return Err(run_error("letterbox", "no tables for this frame".to_owned()));
        };
        let input = self
            .input
            .get_data_mut::<f32>()
            .map_err(|error| run_error("letterbox", message(&error)))?;
        resampler
            .run(&frame.view, input)
            .map_err(|error| run_error("letterbox", error.to_string()))?;
        times.preprocessed_ns = (self.clock)();

        times.inference_start_ns = times.preprocessed_ns;
        self.request.infer().map_err(|error| run_error("inference", message(&error)))?;
        times.inference_end_ns = (self.clock)();

        let failed = |error: openvino::InferenceError| run_error("decode", message(&error));
        let tensor = self.request.get_output_tensor_by_index(0).map_err(failed)?;
        let shape = tensor.get_shape().map_err(failed)?;
        let anchors = self
            .decode
            .anchors(shape.get_dimensions())
            .map_err(|reason| run_error("decode", reason))?;
        if tensor.get_element_type().map_err(failed)? != ElementType::F32 {
            return Err(run_error("decode", "the output is not float32".to_owned()));
        }
        let values = tensor.get_data::<f32>().map_err(failed)?;
        let decode = |error: framebus_vision::DecodeError| run_error("decode", error.to_string());
        let dense = DenseOutput::new(values, self.decode.layout, self.decode.classes, anchors)
            .map_err(decode)?;
        let thresholds = framebus_vision::Thresholds {
            confidence: frame.thresholds.confidence,
            iou: frame.thresholds.iou,
            max_detections: frame.thresholds.max_detections,
            classes: frame.thresholds.classes.as_deref(),
        };
        let counts = self
            .postprocess
            .run(dense, &thresholds, resampler.letterbox(), &mut output.detections)
            .map_err(decode)?;
        if counts.non_finite > 0 {
            output.detections.clear();
            return Err(run_error(
                "decode",
                format!(
                    "{} of {} output values are not finite numbers; try precision f32, else the \
                     model is damaged",
                    counts.non_finite,
                    values.len()
                ),
            ));
        }
        output.truncated = counts.truncated.saturating_add(counts.over_cap);
        times.decoded_ns = (self.clock)();
        Ok(times)
    }
}

impl Context for OpenVinoContext {
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError> {
        let [frame] = batch else {
            return Err(run_error(
                "batch",
                format!("{} frames were given, this backend takes one at a time", batch.len()),
            ));
        };
        if output.frames.is_empty() {
            output.frames.push(FrameOutput::default());
        }
        output.times = self.frame(frame, &mut output.frames[0])?;
        Ok(())
    }
}

fn run_error(stage: &'static str, reason: String) -> EngineError {
    EngineError::Run { backend: NAME, stage, reason }
}
