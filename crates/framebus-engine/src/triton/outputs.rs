//! From the server's answer to boxes.

use super::contract::{Contract, Element, Reading};
use super::proto::ModelInferResponse;
use super::slot::Slot;
use crate::answer::{MAX_SCALES, account, anchors, judge, largest};
use crate::api::{FrameOutput, FrameRequest, Shape};
use bytes::Bytes;
use framebus_vision::{
    DecodeError, DenseOutput, HeadOutput, HeadScale, Layout, Letterbox, Postprocess,
};

const NO_SCALE: HeadScale<'static> =
    HeadScale { boxes: &[], classes: &[], width: 0, height: 0, stride: 1 };

/// One output of the last answer.
#[derive(Debug, Default)]
struct Tensor {
    shape: Vec<i64>,
    /// Its bytes, where they came in the message.
    content: Option<Bytes>,
    bytes: usize,
    /// Its values as aligned floats, where they are not so already.
    floats: Vec<f32>,
    converted: bool,
}

/// The last answer, in the order of the contract's outputs. Kept from request to request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    tensors: Vec<Tensor>,
    /// Rows `left, top, right, bottom, score, class` of what the server suppressed.
    rows: Vec<f32>,
}

impl Answer {
    /// Takes over a response, which is checked against what was asked.
    pub(super) fn take(
        &mut self,
        response: ModelInferResponse,
        contract: &Contract,
        batch: usize,
        shared: bool,
    ) -> Result<(), String> {
        self.tensors.resize_with(contract.outputs.len(), Tensor::default);
        // One a tensor; an empty one, or none, where it went to shared memory.
        let mut contents = response.raw_output_contents.into_iter();
        let mut found = 0_u64;
        for tensor in response.outputs {
            let content = contents.next().filter(|content| !(shared && content.is_empty()));
            if content.is_none() && !shared {
                return Err(format!("output '{}' came without content", tensor.name));
            }
            let Some(index) = contract.outputs.iter().position(|known| known.name == tensor.name)
            else {
                continue;
            };
            let output = &contract.outputs[index];
            let bit = 1_u64.checked_shl(index as u32).unwrap_or(0);
            if found & bit != 0 {
                return Err(format!("output '{}' came twice", tensor.name));
            }
            if tensor.datatype != output.element.word() {
                return Err(format!(
                    "output '{}' is {}, the model says {}",
                    tensor.name,
                    tensor.datatype,
                    output.element.word()
                ));
            }
            let values = tensor.shape.iter().try_fold(1_usize, |product, &side| {
                product.checked_mul(usize::try_from(side).ok()?)
            });
            let bytes = values
                .and_then(|values| values.checked_mul(output.element.size()))
                .filter(|_| contract.fits(index, &tensor.shape, batch))
                .filter(|&bytes| content.as_ref().is_none_or(|content| content.len() == bytes))
                .ok_or_else(|| {
                    format!(
                        "output '{}' has shape {:?} and {:?} bytes for a batch of {batch}",
                        tensor.name,
                        tensor.shape,
                        content.as_ref().map(Bytes::len)
                    )
                })?;
            let slot = &mut self.tensors[index];
            slot.shape = tensor.shape;
            slot.content = content;
            slot.bytes = bytes;
            found |= bit;
        }
        let came = found.count_ones() as usize;
        if came != contract.outputs.len() {
            return Err(format!("{came} of {} outputs came", contract.outputs.len()));
        }
        Ok(())
    }

    /// Boxes of each frame of the batch.
    #[expect(clippy::too_many_arguments, reason = "what a context has, borrowed in parts")]
    pub(super) fn decode(
        &mut self,
        contract: &Contract,
        shape: Shape,
        slot: &Slot,
        batch: &[FrameRequest<'_>],
        geometry: &[Letterbox],
        postprocess: &mut Postprocess,
        frames: &mut [FrameOutput],
    ) -> Result<(), String> {
        for (index, tensor) in self.tensors.iter_mut().enumerate() {
            tensor.convert(index, contract.outputs[index].element, slot)?;
        }
        let values = |index: usize| self.tensors[index].values(index, slot);
        for (number, ((frame, geometry), output)) in
            batch.iter().zip(geometry).zip(frames).enumerate()
        {
            // The part of an output that belongs to this frame.
            let part = |index: usize| {
                let all = values(index);
                let length = all.len() / batch.len();
                &all[number * length..(number + 1) * length]
            };
            let thresholds = frame.thresholds.borrow();
            let decoded: Result<_, DecodeError> = match &contract.reading {
                Reading::Whole(layout) => {
                    let shape = &self.tensors[0].shape;
                    let anchors = anchors(*layout, contract.classes, batch.len(), shape)?;
                    DenseOutput::new(part(0), *layout, contract.classes, anchors)
                        .and_then(|dense| {
                            postprocess.run(dense, &thresholds, geometry, &mut output.detections)
                        })
                        .map(|counts| (counts, part(0).len()))
                }
                Reading::Heads { scales, bins } => {
                    let mut views = [NO_SCALE; MAX_SCALES];
                    let mut read = 0;
                    for (index, (view, scale)) in views.iter_mut().zip(scales).enumerate() {
                        let (boxes, classes) = (part(2 * index), part(2 * index + 1));
                        read += boxes.len() + classes.len();
                        *view = HeadScale {
                            boxes,
                            classes,
                            width: shape.width / scale.stride,
                            height: shape.height / scale.stride,
                            stride: scale.stride,
                        };
                    }
                    HeadOutput::new(&views[..scales.len()], contract.classes, *bins)
                        .and_then(|heads| {
                            postprocess.run_heads(
                                heads,
                                &thresholds,
                                geometry,
                                &mut output.detections,
                            )
                        })
                        .map(|counts| (counts, read))
                }
                Reading::Suppressed => {
                    let parts = [part(0), part(1), part(2), part(3)];
                    rows(parts, &mut self.rows)?;
                    let count = self.rows.len() / 6;
                    DenseOutput::new(&self.rows, Layout::EndToEnd, contract.classes, count)
                        .and_then(|dense| {
                            postprocess.run(dense, &thresholds, geometry, &mut output.detections)
                        })
                        .map(|counts| (counts, self.rows.len()))
                }
            };
            let (counts, read) = decoded.map_err(|error| error.to_string())?;
            account(counts, read, output)?;
        }
        Ok(())
    }

    /// Whether the last answer is one of a sound model.
    pub(super) fn check(&self, contract: &Contract, slot: &Slot) -> Result<(), String> {
        let each = self.tensors.iter().enumerate();
        let all = each.map(|(index, tensor)| largest(tensor.values(index, slot)));
        let most = all.fold(0.0, |most: f32, one| largest(&[most, one]));
        let suppresses =
            matches!(contract.reading, Reading::Suppressed | Reading::Whole(Layout::EndToEnd));
        judge(most, suppresses)
    }
}

impl Tensor {
    fn raw<'a>(&'a self, index: usize, slot: &'a Slot) -> Option<&'a [u8]> {
        match &self.content {
            Some(content) => Some(content),
            None => slot.output(index, self.bytes),
        }
    }

    /// Makes floats of what is none, or not aligned.
    fn convert(&mut self, index: usize, element: Element, slot: &Slot) -> Result<(), String> {
        let Some(raw) = self.raw(index, slot) else {
            return Err(format!("an output of {} bytes does not fit its memory", self.bytes));
        };
        let in_place = element == Element::F32 && bytemuck::try_cast_slice::<u8, f32>(raw).is_ok();
        let mut floats = std::mem::take(&mut self.floats);
        let Some(raw) = self.raw(index, slot).filter(|_| !in_place) else {
            (self.floats, self.converted) = (floats, false);
            return Ok(());
        };
        floats.clear();
        match element {
            Element::F32 => floats
                .extend(raw.as_chunks().0.iter().map(|bytes: &[u8; 4]| f32::from_le_bytes(*bytes))),
            // Counts and class numbers: far below 2^24, from where floats leave numbers out.
            Element::I32 => floats.extend(
                raw.as_chunks().0.iter().map(|bytes: &[u8; 4]| i32::from_le_bytes(*bytes) as f32),
            ),
            Element::F16 => {
                floats.extend(
                    raw.as_chunks()
                        .0
                        .iter()
                        .map(|bytes: &[u8; 2]| half::f16::from_le_bytes(*bytes).to_f32()),
                );
            }
            Element::U8 => floats.extend(raw.iter().map(|&byte| f32::from(byte))),
        }
        (self.floats, self.converted) = (floats, true);
        Ok(())
    }

    /// Its values; after `convert`.
    fn values<'a>(&'a self, index: usize, slot: &'a Slot) -> &'a [f32] {
        if self.converted {
            return &self.floats;
        }
        let raw = self.raw(index, slot).unwrap_or_default();
        bytemuck::try_cast_slice(raw).unwrap_or_default()
    }
}

/// Counts, boxes, scores and classes of one frame as rows of an end-to-end output.
fn rows([count, boxes, scores, classes]: [&[f32]; 4], out: &mut Vec<f32>) -> Result<(), String> {
    let room = scores.len();
    if boxes.len() != 4 * room || classes.len() != room {
        return Err(format!(
            "{} box values, {room} scores and {} classes do not belong together",
            boxes.len(),
            classes.len()
        ));
    }
    let count = count.first().copied().unwrap_or(-1.0);
    if count.is_nan() || count < 0.0 || count as usize > room {
        return Err(format!("the server counts {count} boxes in an output of {room}"));
    }
    out.clear();
    let each = boxes.as_chunks::<4>().0.iter().zip(scores).zip(classes);
    for ((bbox, score), class) in each.take(count as usize) {
        out.extend_from_slice(bbox);
        out.extend([*score, *class]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_suppressed_becomes_rows() {
        let mut out = vec![9.0];
        let boxes = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        rows([&[1.0], &boxes, &[0.5, 0.0], &[7.0, 0.0]], &mut out).expect("fits");
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 0.5, 7.0]);
        assert!(rows([&[3.0], &boxes, &[0.5, 0.0], &[7.0, 0.0]], &mut out).is_err());
        assert!(rows([&[-1.0], &boxes, &[0.5, 0.0], &[7.0, 0.0]], &mut out).is_err());
        assert!(rows([&[f32::NAN], &boxes, &[0.5, 0.0], &[7.0, 0.0]], &mut out).is_err());
        assert!(rows([&[1.0], &boxes, &[0.5], &[7.0]], &mut out).is_err());
    }
}
