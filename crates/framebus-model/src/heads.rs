//! The outputs of a model whose head was cut off, and how the file says so.
//!
//! The metadata entry [`KEY`] holds `bins=16 strides=8,16,32`; the graph's outputs
//! are then boxes and classes of every scale in turn, in the order of the strides.
//! Any tool can read such a file; framebus knows by the entry how to read its answers.

use crate::model::{Dim, TensorInfo};
use crate::onnx;

/// Metadata key of a cut model.
pub(crate) const KEY: &str = "framebus.heads";
/// No YOLO looks at more scales; four with a P6 or P2 head.
pub(crate) const MAX_SCALES: usize = 5;
/// More bins a side are a damaged file; Ultralytics uses 16.
pub(crate) const MAX_BINS: usize = 64;

/// The outputs of one scale of a model whose head was cut off. For an input of
/// `height` x `width` both have `h = height / stride` rows of `w = width / stride`
/// cells; the centre of cell `(x, y)` is `(x + 0.5, y + 0.5)` strides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadScale {
    /// Name of the output `[batch, 4 * bins, h, w]`: distances from the cell's
    /// centre to left, top, right and bottom in strides, each as a distribution.
    pub boxes: String,
    /// Name of the output `[batch, classes, h, w]`: logits, to go through a sigmoid.
    pub classes: String,
    /// Pixels of the input a cell, in both directions.
    pub stride: usize,
}

/// What the metadata and the outputs of a cut model say together.
pub(crate) struct Heads {
    pub(crate) scales: Vec<HeadScale>,
    pub(crate) bins: usize,
    pub(crate) classes: usize,
}

/// The entry's value.
pub(crate) fn write(scales: &[HeadScale], bins: usize) -> String {
    let strides: Vec<String> = scales.iter().map(|scale| scale.stride.to_string()).collect();
    format!("bins={bins} strides={}", strides.join(","))
}

/// Pairs the outputs by the entry's value, or the sentence that says why they do
/// not fit.
pub(crate) fn read(
    text: &str,
    outputs: &[TensorInfo],
    named: Option<usize>,
) -> Result<Heads, String> {
    let (bins, strides) = parse(text).ok_or_else(|| {
        format!("its metadata `{KEY}` is not of the form `bins=16 strides=8,16,32`")
    })?;
    if outputs.len() != 2 * strides.len() {
        return Err(format!(
            "its metadata `{KEY}` names {} scales, which need {} outputs",
            strides.len(),
            2 * strides.len()
        ));
    }
    let mut classes = None;
    let mut scales = Vec::with_capacity(strides.len());
    for (pair, &stride) in outputs.chunks_exact(2).zip(&strides) {
        let [boxes, logits] = pair else { continue };
        if channels(boxes)? != 4 * bins {
            return Err(format!("its output '{}' has not {} channels", boxes.name, 4 * bins));
        }
        let count = channels(logits)?;
        if count != named.or(classes).unwrap_or(count) {
            return Err(format!(
                "its output '{}' has {count} channels, not one a class",
                logits.name
            ));
        }
        classes = Some(count);
        scales.push(HeadScale { boxes: boxes.name.clone(), classes: logits.name.clone(), stride });
    }
    let classes = classes.ok_or_else(|| format!("its metadata `{KEY}` names no scale"))?;
    Ok(Heads { scales, bins, classes })
}

fn parse(text: &str) -> Option<(usize, Vec<usize>)> {
    let (bins, strides) = text.strip_prefix("bins=")?.split_once(" strides=")?;
    let bins = bins.parse().ok().filter(|bins| (1..=MAX_BINS).contains(bins))?;
    let strides: Option<Vec<usize>> = strides.split(',').map(|n| n.parse().ok()).collect();
    let strides = strides.filter(|strides| {
        strides.len() <= MAX_SCALES
            && strides.iter().all(|stride| (1..=4096).contains(stride))
            && strides.windows(2).all(|pair| pair[0] < pair[1])
    })?;
    Some((bins, strides))
}

/// Channels of a float32 output `[batch, channels, h, w]`.
fn channels(output: &TensorInfo) -> Result<usize, String> {
    match output.shape.as_slice() {
        [_, Dim::Fixed(channels), _, _] if output.element_type == onnx::FLOAT => Ok(*channels),
        _ => Err(format!("its output '{}' is not float32 [batch,channels,h,w]", output.name)),
    }
}
