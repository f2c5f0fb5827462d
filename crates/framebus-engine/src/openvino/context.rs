//! One infer request with its input memory, letterboxes and decoder.

use super::outputs::Outputs;
use super::{NAME, message};
use crate::answer::{account, with_check_picture};
use crate::api::{
    BatchOutput, ClockNs, Context, EngineError, FrameOutput, FrameRequest, Mode, Shape, StageTimes,
};
use crate::letterboxes::Letterboxes;
use framebus_model::Model;
use framebus_vision::Postprocess;
use openvino::{ElementType, InferRequest, InferenceError, InferenceErrorKind, Tensor};
use std::time::Duration;

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
    letterboxes: Letterboxes,
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
            letterboxes: Letterboxes::default(),
            postprocess: Postprocess::default(),
        })
    }

    /// One picture through the whole path: memory is touched, kernels are built, and
    /// an engine that answers NaN, nothing or another shape is refused before it goes
    /// live.
    pub(super) fn self_check(&mut self) -> Result<(), EngineError> {
        with_check_picture(self.shape, |view, thresholds| {
            self.run(
                &[FrameRequest { view, thresholds, memory: None }],
                &mut BatchOutput::default(),
            )
        })
        .map_err(|error| run_error("self-check", error.to_string()))??;
        self.outputs.check(&self.request).map_err(|reason| run_error("self-check", reason))?;
        // A picture of this size is no camera's.
        self.letterboxes.clear();
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &FrameRequest<'_>,
        output: &mut FrameOutput,
    ) -> Result<StageTimes, EngineError> {
        let mut times = StageTimes::default();
        let resampler = self
            .letterboxes
            .prepare(&frame.view, self.shape)
            .map_err(|error| run_error("letterbox", error.to_string()))?;
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

        let (counts, values) = self
            .outputs
            .decode(
                &self.request,
                &mut self.postprocess,
                &frame.thresholds.borrow(),
                resampler.letterbox(),
                &mut output.detections,
            )
            .map_err(|reason| run_error("decode", reason))?;
        account(counts, values, output).map_err(|reason| run_error("decode", reason))?;
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
