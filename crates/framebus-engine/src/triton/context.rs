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
const FIRST: Duration = Duration::from_secs(60);
/// A request may take so many times as long as they usually do, whatever the limit, so that
/// slow models live.
const TIMES_USUAL: u64 = 4;
/// Requests of a context that the server can have at once: one that is answered and one
/// that was given up. A third one waits for neither, it gets new memory.
const SLOTS: usize = 2;

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
    slots: [Option<Slot>; SLOTS],
    turn: usize,
    marks: Arc<Marks>,
    /// How long answers take, smoothed; 0 before the first.
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
            slots: Default::default(),
            turn: 0,
            usual_ns: 0,
            letterboxes: Letterboxes::default(),
            geometry: Vec::new(),
            postprocess: Postprocess::default(),
        }
    }

    /// One picture through the whole path, twice: the first time a server may compile.
    pub(super) fn self_check(&mut self) -> Result<(), EngineError> {
        with_check_picture(self.shape, |view, thresholds| {
            let request = FrameRequest { view, thresholds };
            self.run(&[request], &mut BatchOutput::default())?;
            self.run(&[request], &mut BatchOutput::default())
        })
        .map_err(|error| run_error("self-check", error.to_string()))??;
        if let Some(slot) = &self.slots[self.turn] {
            let checked = self.answer.check(&self.common.contract, slot);
            checked.map_err(|reason| run_error("self-check", reason))?;
        }
        self.letterboxes.clear();
        Ok(())
    }

    /// The memory for the next request, known to the server.
    fn slot(&mut self) -> Result<Slot, EngineError> {
        // First: nothing is made or written for a server that is away.
        let epoch = self.common.link.epoch()?;
        self.turn = (self.turn + 1) % SLOTS;
        let Common { link, contract, shared, .. } = &self.common;
        let mut slot = match self.slots[self.turn].take() {
            Some(slot) => slot,
            None => Slot::new(contract, &link.model, self.shape, contract.max_batch, *shared)
                .map_err(|error| {
                    let reason = format!("no memory for a request in /dev/shm: {error}");
                    run_error("letterbox", reason)
                })?,
        };
        match self.register(&mut slot, epoch) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.slots[self.turn] = Some(slot);
                Err(error)
            }
        }
    }

    fn register(&self, slot: &mut Slot, epoch: u64) -> Result<(), EngineError> {
        let Some(region) = slot.region().filter(|_| slot.registered != Some(epoch)) else {
            return Ok(());
        };
        match self.client.register(region.name(), region.len(), SHORT) {
            Ok(()) => {
                slot.registered = Some(epoch);
                Ok(())
            }
            Err(Fault::Refused(_, message)) => Err(run_error(
                "register",
                format!(
                    "the server refuses our shared memory: {}",
                    cure::refused(&message, self.common.link.address.port)
                ),
            )),
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
    fn limit(&self) -> Duration {
        match self.usual_ns {
            0 => FIRST.max(self.common.timeout),
            usual_ns => self.common.timeout.max(Duration::from_nanos(usual_ns * TIMES_USUAL)),
        }
    }

    /// Sends what lies in `slot`, and leaves the answer in `self.answer`.
    fn ask(&mut self, mut slot: Slot, batch: usize) -> Result<(u64, Slot), EngineError> {
        let id = self.common.link.next_request();
        let begin_ns = (self.common.clock)();
        let mut forgotten = false;
        loop {
            let request = slot.request(id, batch);
            let answered = self.client.infer(&request, self.limit(), &self.marks);
            drop(request);
            match answered {
                Ok(response) => {
                    let took_ns = (self.common.clock)().saturating_sub(begin_ns).max(1);
                    self.usual_ns = match self.usual_ns {
                        0 => took_ns,
                        // The first one may have compiled the network.
                        usual_ns if took_ns < usual_ns / 2 => took_ns,
                        usual_ns => usual_ns - usual_ns / 8 + took_ns / 8,
                    };
                    slot.answered();
                    self.answer
                        .take(response, &self.common.contract, batch, self.common.shared)
                        .map_err(|reason| run_error("receive", reason))?;
                    return Ok((id, slot));
                }
                // Started again between two requests; it has not seen this one.
                Err(Fault::Refused(_, message)) if !forgotten && cure::is_forgotten(&message) => {
                    forgotten = true;
                    let known = slot.registered.take().unwrap_or_default();
                    let epoch = self.common.link.forgot(known);
                    self.register(&mut slot, epoch)?;
                }
                Err(fault) => {
                    let error = self.common.link.fault("inference", &fault);
                    match (fault, slot.region()) {
                        // Answered, if with an error: the server is done with the memory.
                        (Fault::Refused(..), _) => self.slots[self.turn] = Some(slot),
                        (_, Some(region)) => self.common.link.retire(region.name()),
                        (_, None) => {}
                    }
                    return Err(error);
                }
            }
        }
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
        let mut slot = self.slot()?;
        if let Err(error) = self.letterbox(batch, &mut slot) {
            self.slots[self.turn] = Some(slot);
            return Err(error);
        }
        let clock = self.common.clock;
        output.times.preprocessed_ns = clock();
        output.times.inference_start_ns = output.times.preprocessed_ns;
        let (request, slot) = self.ask(slot, batch.len())?;
        output.times.inference_end_ns = clock();
        output.times.server = ServerTimes {
            request,
            ..server_times(&self.marks, output.times.inference_end_ns, self.common.link.averages())
        };
        let decoded = self.answer.decode(
            &self.common.contract,
            self.shape,
            &slot,
            batch,
            &self.geometry,
            &mut self.postprocess,
            &mut output.frames,
        );
        self.slots[self.turn] = Some(slot);
        decoded.map_err(|reason| run_error("decode", reason))?;
        output.times.decoded_ns = clock();
        Ok(())
    }

    fn infer_only(&mut self) -> Result<(), EngineError> {
        let mut slot = self.slot()?;
        // Memory that was never written has its size only then.
        let _ = slot.input(0, 1);
        let (_, slot) = self.ask(slot, 1)?;
        self.slots[self.turn] = Some(slot);
        Ok(())
    }
}

impl Drop for TritonContext {
    fn drop(&mut self) {
        // Nothing is in flight: the server can forget them. One that was away has done so.
        let Some(epoch) = self.common.link.known_epoch() else { return };
        for slot in self.slots.iter().flatten() {
            if let Some(region) = slot.region().filter(|_| slot.registered == Some(epoch)) {
                let _ = self.client.unregister(region.name(), SHORT);
            }
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
