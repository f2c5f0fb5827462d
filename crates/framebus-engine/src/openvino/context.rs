//! One infer request with its input memory, letterboxes and decoder.

use super::outputs::Outputs;
use super::{NAME, message};
use crate::api::{
    BatchOutput, ClockNs, Context, EngineError, FrameOutput, FrameRequest, Mode, Shape, StageTimes,
    Thresholds,
};
use framebus_model::Model;
use framebus_vision::{Colour, FrameView, Planes, Postprocess, Resampler};
use openvino::{ElementType, InferRequest, InferenceError, InferenceErrorKind, Tensor};
use std::time::Duration;

/// Letterbox tables kept, one per kind of frame; the tables of a 4K source are
/// about 100 KiB. More kinds than this on one worker build them anew each time.
const MAX_RESAMPLERS: usize = 64;

/// Much longer than any picture takes; a driver that hangs is told, not waited for. Not so
/// for latency, where this thread computes itself.
const LIMIT: Duration = Duration::from_secs(60);

/// One infer request.
pub(super) struct OpenVinoContext {
    request: InferRequest,
    /// The request's own input: what is written here is what it computes on.
    input: Tensor,
    outputs: Outputs,
    shape: Shape,
    mode: Mode,
    clock: ClockNs,
    /// Most recently used last.
    resamplers: Vec<Resampler>,
    postprocess: Postprocess,
}

impl OpenVinoContext {
    pub(super) fn new(
        model: &Model,
        request: InferRequest,
        shape: Shape,
        (mode, clock): (Mode, ClockNs),
    ) -> Result<Self, String> {
        let input = request.get_input_tensor().map_err(|error| message(&error))?;
        let element = input.get_element_type().map_err(|error| message(&error))?;
        let length = input.get_size().map_err(|error| message(&error))?;
        let expected = 3 * shape.height * shape.width;
        if element != ElementType::F32 || length != expected {
            return Err(format!(
                "the compiled input has {length} values of {element:?}, expected {expected} of F32"
            ));
        }
        Ok(Self {
            outputs: Outputs::new(model, &request, (shape.height, shape.width))?,
            request,
            input,
            shape,
            mode,
            clock,
            resamplers: Vec::new(),
            postprocess: Postprocess::default(),
        })
    }

    /// One picture through the whole path: memory is touched, kernels are built, and
    /// an engine that answers NaN, nothing or another shape is refused before it goes
    /// live.
    pub(super) fn self_check(&mut self) -> Result<(), EngineError> {
        let Shape { height, width } = self.shape;
        // Not one colour: such a picture says little about a network.
        let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i % 251) as u8).collect();
        let planes = Planes::Rgb24 { data: &pixels, stride: 3 * width };
        let view = FrameView::new(width, height, planes, Colour::default())
            .map_err(|error| run_error("self-check", error.to_string()))?;
        let thresholds =
            Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
        let request = FrameRequest { view, thresholds: &thresholds };
        self.run(&[request], &mut BatchOutput::default())?;
        self.outputs.check(&self.request).map_err(|reason| run_error("self-check", reason))?;
        // A picture of this size is no camera's.
        self.resamplers.clear();
        Ok(())
    }

    /// Moves the tables for this kind of frame to the end of the list.
    fn prepare(&mut self, view: &FrameView<'_>) -> Result<(), EngineError> {
        let known = self.resamplers.iter().rposition(|resampler| resampler.matches(view));
        if let Some(index) = known {
            self.resamplers[index..].rotate_left(1);
            return Ok(());
        }
        let new = Resampler::new(view, self.shape.width, self.shape.height)
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
        infer(&mut self.request, self.mode)?;
        times.inference_end_ns = (self.clock)();

        let thresholds = framebus_vision::Thresholds {
            confidence: frame.thresholds.confidence,
            iou: frame.thresholds.iou,
            max_detections: frame.thresholds.max_detections,
            classes: frame.thresholds.classes.as_deref(),
        };
        let (counts, values) = self
            .outputs
            .decode(
                &self.request,
                &mut self.postprocess,
                &thresholds,
                resampler.letterbox(),
                &mut output.detections,
            )
            .map_err(|reason| run_error("decode", reason))?;
        if counts.non_finite > 0 {
            output.detections.clear();
            return Err(run_error(
                "decode",
                format!(
                    "{} of {values} output values are not finite numbers; try precision f32, else \
                     the model is damaged",
                    counts.non_finite
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

    fn infer_only(&mut self) -> Result<(), EngineError> {
        infer(&mut self.request, self.mode)
    }
}

/// One inference. For latency this thread takes part; for throughput the stream's own
/// thread computes, which the library has bound to its core (measured: 2 to 5 % more
/// frames a second than from the caller's threads, which it binds anew at each call).
fn infer(request: &mut InferRequest, mode: Mode) -> Result<(), EngineError> {
    let failed = |error: InferenceError| run_error("inference", message(&error));
    if mode == Mode::Latency {
        return request.infer().map_err(failed);
    }
    request.infer_async().map_err(failed)?;
    match request.wait(LIMIT.as_millis() as i64) {
        Ok(()) => Ok(()),
        Err(error) if error.kind == InferenceErrorKind::ResultNotReady => {
            request.cancel().map_err(failed)?;
            // Ends with the layer that runs now; nothing reads the input any more then.
            let _cancelled = request.wait(LIMIT.as_millis() as i64);
            Err(EngineError::Timeout { backend: NAME, limit: LIMIT })
        }
        Err(error) => Err(failed(error)),
    }
}

fn run_error(stage: &'static str, reason: String) -> EngineError {
    EngineError::Run { backend: NAME, stage, reason }
}
