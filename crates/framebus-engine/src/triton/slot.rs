//! The memory of one request: input and outputs, in a region that the server maps or in
//! the messages themselves.

use super::contract::{Contract, Element};
use super::link::Link;
use super::proto::{
    InferParameter, InferTensor, ModelInferRequest, ModelRequest, ParameterChoice, RequestedOutput,
};
use super::region::Region;
use crate::api::{EngineError, Shape};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Tensors begin at multiples of this, bytes: what vector instructions and servers like.
const ALIGN: usize = 64;

/// Pixels of a request that go in its message. Floats, so that they are aligned for all.
#[derive(Debug, Clone, Default)]
struct Pixels(Arc<Vec<f32>>);

impl AsRef<[u8]> for Pixels {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[derive(Debug)]
enum Memory {
    Region(Region),
    Message(Pixels),
}

/// A request that can be filled and sent again and again, one at a time.
#[derive(Debug)]
pub(super) struct Slot {
    memory: Memory,
    /// Most frames that it has room for.
    pub(super) capacity: usize,
    /// Bytes of the input of one frame.
    frame: usize,
    /// Where the outputs of the largest batch lie in the region.
    outputs: Vec<Range<usize>>,
    request: Arc<ModelInferRequest>,
    /// The epoch in which the server was told of the region.
    pub(super) registered: Option<u64>,
}

impl Slot {
    /// For batches of up to `batch` frames of `shape`; in a region where `link` is given.
    ///
    /// # Errors
    /// No room in /dev/shm.
    pub(super) fn new(
        contract: &Contract,
        model: &ModelRequest,
        shape: Shape,
        batch: usize,
        link: Option<&Link>,
    ) -> Result<Self, EngineError> {
        let frame = contract.input_bytes(shape, 1);
        let mut end = (batch * frame).next_multiple_of(ALIGN);
        let mut place = |bytes: usize| {
            let begin = end;
            end = (end + bytes).next_multiple_of(ALIGN);
            begin..begin + bytes
        };
        let bytes = |index| contract.output_bytes(index, shape, batch);
        let outputs: Vec<Range<usize>> =
            (0..contract.outputs.len()).map(|index| place(bytes(index))).collect();
        let memory = match link {
            Some(link) => Memory::Region(link.region(end)?),
            None => Memory::Message(Pixels::default()),
        };
        let (request, registered) = (Arc::default(), None);
        let mut slot = Self { memory, capacity: batch, frame, outputs, request, registered };
        slot.request = Arc::new(slot.template(contract, model, shape));
        Ok(slot)
    }

    fn template(
        &self,
        contract: &Contract,
        model: &ModelRequest,
        shape: Shape,
    ) -> ModelInferRequest {
        let place = |range: &Range<usize>| match &self.memory {
            Memory::Region(region) => shared_parameters(region.name(), range),
            Memory::Message(_) => HashMap::new(),
        };
        let outputs = contract.outputs.iter().zip(&self.outputs).map(|(output, range)| {
            RequestedOutput { name: output.name.clone(), parameters: place(range) }
        });
        ModelInferRequest {
            model_name: model.name.clone(),
            model_version: model.version.clone(),
            id: String::new(),
            inputs: vec![InferTensor {
                name: contract.input.clone(),
                datatype: contract.element.word().to_owned(),
                shape: vec![1, 3, shape.height as i64, shape.width as i64],
                parameters: place(&(0..self.frame)),
            }],
            outputs: outputs.collect(),
            raw_input_contents: Vec::new(),
        }
    }

    /// The region, where there is one.
    pub(super) fn region(&self) -> Option<&Region> {
        match &self.memory {
            Memory::Region(region) => Some(region),
            Memory::Message(_) => None,
        }
    }

    /// The same to be changed, or taken.
    pub(super) fn region_mut(&mut self) -> Option<&mut Region> {
        match &mut self.memory {
            Memory::Region(region) => Some(region),
            Memory::Message(_) => None,
        }
    }

    /// Its region alone.
    pub(super) fn into_region(self) -> Option<Region> {
        match self.memory {
            Memory::Region(region) => Some(region),
            Memory::Message(_) => None,
        }
    }

    /// Where frame `index` of a batch of `batch` is to be written.
    pub(super) fn input(&mut self, index: usize, batch: usize) -> &mut [u8] {
        let range = index * self.frame..(index + 1) * self.frame;
        match &mut self.memory {
            Memory::Region(region) => &mut region.bytes_mut()[range],
            Memory::Message(pixels) => {
                let floats = (batch * self.frame).div_ceil(size_of::<f32>());
                if Arc::get_mut(&mut pixels.0).is_none_or(|floats_now| floats_now.len() != floats) {
                    // The first time, a batch of another size, or what was given up is
                    // still being sent.
                    pixels.0 = Arc::new(vec![0.0; floats]);
                }
                match Arc::get_mut(&mut pixels.0) {
                    Some(floats) => &mut bytemuck::cast_slice_mut(floats)[range],
                    None => &mut [],
                }
            }
        }
    }

    /// The request for a batch whose frames are written.
    pub(super) fn request(&mut self, id: u64, batch: usize) -> Arc<ModelInferRequest> {
        let bytes = batch * self.frame;
        let content = match &self.memory {
            Memory::Region(_) => None,
            Memory::Message(pixels) => Some(Bytes::from_owner(pixels.clone()).slice(..bytes)),
        };
        // Copied only where the one before is still being sent.
        let request = Arc::make_mut(&mut self.request);
        request.id.clear();
        request.id.push_str(&id.to_string());
        if let Some(input) = request.inputs.first_mut() {
            input.shape[0] = batch as i64;
            if let Some(size) = input.parameters.get_mut(SIZE) {
                size.choice = Some(ParameterChoice::Int64(bytes as i64));
            }
        }
        request.raw_input_contents.clear();
        request.raw_input_contents.extend(content);
        self.request.clone()
    }

    /// Gives the message's pixels back, so that they can be written again.
    pub(super) fn answered(&mut self) {
        if let Some(request) = Arc::get_mut(&mut self.request) {
            request.raw_input_contents.clear();
        }
    }

    /// The output that the server wrote into the region.
    pub(super) fn output(&self, index: usize, bytes: usize) -> Option<&[u8]> {
        let region = self.region()?;
        let range = self.outputs.get(index).filter(|range| bytes <= range.len())?;
        region.bytes().get(range.start..range.start + bytes)
    }
}

const REGION: &str = "shared_memory_region";
const SIZE: &str = "shared_memory_byte_size";
const OFFSET: &str = "shared_memory_offset";

fn shared_parameters(region: &str, range: &Range<usize>) -> HashMap<String, InferParameter> {
    let entry = |key: &str, choice| (key.to_owned(), InferParameter { choice: Some(choice) });
    HashMap::from([
        entry(REGION, ParameterChoice::String(region.to_owned())),
        entry(SIZE, ParameterChoice::Int64(range.len() as i64)),
        entry(OFFSET, ParameterChoice::Int64(range.start as i64)),
    ])
}

/// Writes pixels 0..=1 as the server wants them.
pub(super) fn store(pixels: &[f32], element: Element, out: &mut [u8]) {
    match element {
        Element::F16 => {
            use half::slice::HalfFloatSliceExt;
            bytemuck::cast_slice_mut::<u8, half::f16>(out).convert_from_f32_slice(pixels);
        }
        // To the nearest; pixels are in 0..=1.
        Element::U8 => {
            for (out, pixel) in out.iter_mut().zip(pixels) {
                *out = (pixel * 255.0 + 0.5) as u8;
            }
        }
        Element::F32 | Element::I32 => out.copy_from_slice(bytemuck::cast_slice(pixels)),
    }
}
