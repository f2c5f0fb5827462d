//! One request after the other: letterbox, ask, read.

use super::client::{Fault, Marks};
use super::contract::{Contract, Element};
use super::link::{Link, SHORT};
use super::outputs::Answer;
use super::slot::{Slot, store};
use super::{NAME, cure};
use crate::answer::with_check_picture;
use crate::api::{
    BatchOutput, ClockNs, Context, EngineError, FrameOutput, FrameRequest, ServerTimes, Shape,
};
use crate::letterboxes::Letterboxes;
use framebus_vision::{Letterbox, Postprocess};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The first request of an input shape may compile the network on the server.
const FIRST: Duration = Duration::from_secs(20);
/// A request may take so many times as long as they usually do, whatever the limit, so that
/// slow models live.
const TIMES_USUAL: u32 = 4;

/// What the contexts of an engine have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) link: Arc<Link>,
    pub(super) contract: Arc<Contract>,
    /// Tensors in regions.
    pub(super) shared: bool,
    pub(super) timeout: Duration,
    pub(super) clock: ClockNs,
}

/// An execution context for one input shape.
#[derive(Debug)]
pub(super) struct TritonContext {
    common: Common,
    client: super::client::Client,
    shape: Shape,
    /// Its memory, as long as no request without an answer may use it.
    slot: Option<Slot>,
    marks: Arc<Marks>,
    /// How long answers take for each frame of a batch, smoothed; 0 before the first.
    usual_ns: u64,
    letterboxes: Letterboxes,
    geometry: Vec<Letterbox>,
    /// Pixels as floats, where the server wants others.
    scratch: Vec<f32>,
    answer: Answer,
    postprocess: Postprocess,
}

impl TritonContext {
    pub(super) fn new(common: Common, client: super::client::Client, shape: Shape) -> Self {
        let scratch = match common.contract.element {
            Element::F32 => 0,
            _ => 3 * shape.height * shape.width,
        };
        Self {
            marks: Arc::new(Marks::new(common.clock)),
            answer: Answer::default(),
            scratch: vec![0.0; scratch],
            common,
            client,
            shape,
            slot: None,
            usual_ns: 0,
            letterboxes: Letterboxes::default(),
            geometry: Vec::new(),
            postprocess: Postprocess::default(),
        }
    }

    /// One picture through the whole path, twice, and the largest batch once: the first
    /// time a server may compile.
    pub(super) fn self_check(&mut self) -> Result<(), EngineError> {
        let most = self.common.contract.max_batch;
        with_check_picture(self.shape, |view, thresholds| {
            let request = FrameRequest { view, thresholds, memory: None };
            let mut output = BatchOutput::default();
            self.run(&[request], &mut output)?;
            if most > 1 {
                self.usual_ns = 0;
                self.run(&vec![request; most], &mut output)?;
                self.usual_ns = 0;
            }
            self.run(&[request], &mut output)
        })
        .map_err(|error| run_error("self-check", error.to_string()))??;
        if let Some(slot) = &self.slot {
            let checked = self.answer.check(&self.common.contract, slot);
            checked.map_err(|reason| run_error("self-check", reason))?;
        }
        self.letterboxes.clear();
        Ok(())
    }

    /// The memory for a request of `batch` frames, known to the server.
    fn prepare(&mut self, batch: usize) -> Result<Slot, EngineError> {
        let Common { link, contract, shared, .. } = &self.common;
        // First: nothing is made or written for a server that is away.
        let epoch = link.epoch()?;
        let mut slot = match self.slot.take() {
            Some(slot) if slot.capacity >= batch => slot,
            small => {
                if let Some(region) = small.and_then(Slot::into_region) {
                    link.forget(region);
                }
                let room = batch.next_power_of_two().min(contract.max_batch);
                let link = shared.then_some(&**link);
                Slot::new(contract, &self.common.link.model, self.shape, room, link)?
            }
        };
        match self.register(&mut slot, epoch) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.slot = Some(slot);
                Err(error)
            }
        }
    }

    fn register(&self, slot: &mut Slot, epoch: u64) -> Result<(), EngineError> {
        if slot.registered == Some(epoch) {
            return Ok(());
        }
        let Some(region) = slot.region_mut() else { return Ok(()) };
        // Before it is asked: an answer may be lost.
        region.set_known(true);
        match self.client.register(region.name(), region.len(), SHORT) {
            Ok(()) => {
                slot.registered = Some(epoch);
                Ok(())
            }
            Err(Fault::Refused(_, message)) => {
                region.set_known(false);
                Err(run_error(
                    "register",
                    format!(
                        "the server refuses our shared memory: {}",
                        cure::refused(&message, self.common.link.address.port)
                    ),
                ))
            }
            Err(fault) => Err(self.common.link.fault("register", &fault)),
        }
    }

    fn letterbox(
        &mut self,
        batch: &[FrameRequest<'_>],
        slot: &mut Slot,
    ) -> Result<(), EngineError> {
        let failed =
            |error: framebus_vision::ResampleError| run_error("letterbox", error.to_string());
        self.geometry.clear();
        for (index, frame) in batch.iter().enumerate() {
            let resampler = self.letterboxes.prepare(&frame.view, self.shape).map_err(failed)?;
            let out = slot.input(index, batch.len());
            match self.common.contract.element {
                Element::F32 => {
                    let out = bytemuck::try_cast_slice_mut(out)
                        .map_err(|error| run_error("letterbox", error.to_string()))?;
                    resampler.run(&frame.view, out).map_err(failed)?;
                }
                element => {
                    resampler.run(&frame.view, &mut self.scratch).map_err(failed)?;
                    store(&self.scratch, element, out);
                }
            }
            self.geometry.push(*resampler.letterbox());
        }
        Ok(())
    }

    /// How long the next request may take.
    fn limit(&self, batch: usize) -> Duration {
        let usual = Duration::from_nanos(self.usual_ns) * (batch as u32 * TIMES_USUAL);
        match self.usual_ns {
            0 => FIRST.max(self.common.timeout),
            _ => self.common.timeout.max(usual),
        }
    }

    /// Sends what lies in `slot`, keeps the slot, and leaves the answer in `self.answer`.
    fn ask(&mut self, mut slot: Slot, batch: usize) -> Result<u64, EngineError> {
        let id = self.common.link.next_request();
        let begin_ns = (self.common.clock)();
        let mut answered =
            self.client.infer(&slot.request(id, batch), self.limit(batch), &self.marks);
        if let Err(Fault::Refused(_, message)) = &answered
            && cure::is_forgotten(message)
        {
            // Started again between two requests; it has not seen this one.
            let epoch = self.common.link.forgot(slot.registered.take().unwrap_or_default());
            if let Err(error) = self.register(&mut slot, epoch) {
                self.slot = Some(slot);
                return Err(error);
            }
            answered = self.client.infer(&slot.request(id, batch), self.limit(batch), &self.marks);
        }
        let response = match answered {
            Ok(response) => response,
            Err(fault) => {
                let error = self.common.link.fault("inference", &fault);
                match (fault, slot.region().is_some()) {
                    // Answered, if with an error: the server is done with the memory.
                    (Fault::Refused(..), _) => self.slot = Some(slot),
                    (_, true) => slot.into_region().into_iter().for_each(|region| {
                        self.common.link.retire(region);
                    }),
                    (_, false) => {}
                }
                return Err(error);
            }
        };
        let took_ns = (self.common.clock)().saturating_sub(begin_ns) / batch.max(1) as u64;
        self.usual_ns = match self.usual_ns {
            0 => took_ns.max(1),
            usual_ns => usual_ns - usual_ns / 8 + took_ns / 8,
        };
        slot.answered();
        let Common { contract, shared, .. } = &self.common;
        let taken = self.answer.take(response, contract, batch, *shared);
        self.slot = Some(slot);
        taken.map_err(|reason| run_error("receive", reason))?;
        Ok(id)
    }
}

impl Context for TritonContext {
    fn run(
        &mut self,
        batch: &[FrameRequest<'_>],
        output: &mut BatchOutput,
    ) -> Result<(), EngineError> {
        let most = self.common.contract.max_batch;
        if batch.is_empty() || batch.len() > most {
            return Err(run_error(
                "batch",
                format!("{} frames were given, a request takes {most} at most", batch.len()),
            ));
        }
        if output.frames.len() < batch.len() {
            output.frames.resize_with(batch.len(), FrameOutput::default);
        }
        let mut slot = self.prepare(batch.len())?;
        if let Err(error) = self.letterbox(batch, &mut slot) {
            self.slot = Some(slot);
            return Err(error);
        }
        let clock = self.common.clock;
        output.times.preprocessed_ns = clock();
        output.times.inference_start_ns = output.times.preprocessed_ns;
        let request = self.ask(slot, batch.len())?;
        output.times.inference_end_ns = clock();
        output.times.server = ServerTimes {
            request,
            ..server_times(&self.marks, output.times.inference_end_ns, self.common.link.averages())
        };
        let Some(slot) = &self.slot else {
            return Err(run_error("decode", "the answer's memory is gone".to_owned()));
        };
        self.answer
            .decode(
                &self.common.contract,
                self.shape,
                slot,
                batch,
                &self.geometry,
                &mut self.postprocess,
                &mut output.frames,
            )
            .map_err(|reason| run_error("decode", reason))?;
        output.times.decoded_ns = clock();
        Ok(())
    }

    fn infer_only(&mut self) -> Result<(), EngineError> {
        let mut slot = self.prepare(1)?;
        // Memory that was never written has its size only then.
        let _ = slot.input(0, 1);
        self.ask(slot, 1).map(|_| ())
    }
}

impl Drop for TritonContext {
    fn drop(&mut self) {
        // Nothing of it is in flight.
        if let Some(region) = self.slot.take().and_then(Slot::into_region) {
            self.common.link.forget(region);
        }
    }
}

/// The codec's marks and the server's averages.
fn server_times(marks: &Marks, end_ns: u64, averages: ServerTimes) -> ServerTimes {
    let us = |from_ns: u64, to_ns: u64| {
        u32::try_from(to_ns.saturating_sub(from_ns) / 1000).unwrap_or(u32::MAX)
    };
    let load = |mark: &std::sync::atomic::AtomicU64| mark.load(Ordering::Relaxed);
    let bytes = |mark| u32::try_from(load(mark)).unwrap_or(u32::MAX);
    ServerTimes {
        serialise_us: us(load(&marks.encoding_ns), load(&marks.encoded_ns)),
        receive_us: us(load(&marks.received_ns), end_ns),
        sent_bytes: bytes(&marks.sent),
        received_bytes: bytes(&marks.received),
        ..averages
    }
}

pub(super) fn run_error(stage: &'static str, reason: String) -> EngineError {
    EngineError::Run { backend: NAME, stage, reason }
}
