//! What every backend asks of a network's answer.

use crate::api::{FrameOutput, Shape, Thresholds};
use framebus_model::OutputLayout;
use framebus_vision::{Colour, Counts, FrameError, FrameView, Layout, Planes};

/// Scales of a head; YOLO has three, with a P2 or P6 head four.
pub(crate) const MAX_SCALES: usize = 5;

/// The layout of a network that answers boxes and scores in one tensor.
pub(crate) fn whole(layout: OutputLayout) -> Option<Layout> {
    match layout {
        OutputLayout::Dense { channels_first: true } => Some(Layout::ChannelsFirst),
        OutputLayout::Dense { channels_first: false } => Some(Layout::AnchorsFirst),
        OutputLayout::EndToEnd => Some(Layout::EndToEnd),
        OutputLayout::Heads => None,
    }
}

/// Number of boxes of a frame in an output of this shape, batch first.
pub(crate) fn anchors(
    layout: Layout,
    classes: usize,
    batch: usize,
    shape: &[i64],
) -> Result<usize, String> {
    let channels = match layout {
        Layout::EndToEnd => 6,
        Layout::ChannelsFirst | Layout::AnchorsFirst => 4 + classes as i64,
    };
    let batch = batch as i64;
    let anchors = match (layout, shape) {
        (Layout::ChannelsFirst, &[b, c, n]) if (b, c) == (batch, channels) => n,
        (Layout::AnchorsFirst | Layout::EndToEnd, &[b, n, c]) if (b, c) == (batch, channels) => n,
        _ => {
            return Err(format!(
                "the output has shape {shape:?}, which is not {layout:?} with {channels} channels"
            ));
        }
    };
    usize::try_from(anchors).map_err(|_| format!("the output has shape {shape:?}"))
}

/// Takes over what became of a frame's boxes besides its detections; of `values` output
/// values, some may be broken.
pub(crate) fn account(
    counts: Counts,
    values: usize,
    output: &mut FrameOutput,
) -> Result<(), String> {
    if counts.non_finite > 0 {
        output.detections.clear();
        return Err(format!(
            "{} of {values} output values are not finite numbers; try precision f32, else the \
             model is damaged",
            counts.non_finite
        ));
    }
    output.truncated = counts.truncated.saturating_add(counts.over_cap);
    Ok(())
}

/// The largest absolute value; not finite where one is not.
pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, value| match value.is_finite() {
        true => value.abs().max(max),
        false => f32::INFINITY,
    })
}

/// Whether outputs with this [`largest`] value may go live; `suppresses`: by itself, so
/// that nothing found is zeros.
pub(crate) fn judge(largest: f32, suppresses: bool) -> Result<(), String> {
    match largest {
        0.0 if suppresses => Ok(()),
        0.0 => Err("its outputs are all zero; the model is damaged, export it again".to_owned()),
        largest if largest.is_finite() => Ok(()),
        _ => Err("its outputs hold values that are not finite numbers".to_owned()),
    }
}

/// Calls `look` with a picture of an input's size. Not one colour: such a picture says
/// little about a network.
pub(crate) fn with_check_picture<T>(
    Shape { height, width }: Shape,
    look: impl FnOnce(FrameView<'_>, &Thresholds) -> T,
) -> Result<T, FrameError> {
    let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i % 251) as u8).collect();
    let planes = Planes::Rgb24 { data: &pixels, stride: 3 * width };
    let view = FrameView::new(width, height, planes, Colour::default())?;
    let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
    Ok(look(view, &thresholds))
}

impl Thresholds {
    /// The same for the decoders.
    pub(crate) fn borrow(&self) -> framebus_vision::Thresholds<'_> {
        framebus_vision::Thresholds {
            confidence: self.confidence,
            iou: self.iou,
            max_detections: self.max_detections,
            classes: self.classes.as_deref(),
        }
    }
}
