//! What the server's model takes and answers, checked before the first frame.

use super::NAME;
use super::proto::{ModelConfig, ModelMetadata, TensorMetadata};
use crate::answer::{MAX_SCALES, whole};
use crate::api::{EngineError, Head, Shape};
use crate::sides::{DEFAULT_SIDE, Sides};
use framebus_model::{Model, OutputLayout};
use framebus_vision::Layout;

/// Strides of every YOLO with three scales; only for the room that boxes need where the
/// model file does not tell its own.
const STRIDES: [usize; 3] = [8, 16, 32];
/// Rows that are made room for where the server does not say how many boxes its own
/// suppression answers.
const ROWS_MAX: usize = 1000;

/// Values of one frame's output above which it is no detector's.
const VALUES_MAX: usize = 1 << 28;
/// Frames that a request ever holds.
const BATCH_MAX: usize = 64;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// 32-bit float; pixels 0..=1.
    F32,
    /// 16-bit float; pixels 0..=1.
    F16,
    /// 8 bits; pixels 0..=255.
    U8,
    /// 32-bit integer.
    I32,
}

impl Element {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "FP32" => Some(Self::F32),
            "FP16" => Some(Self::F16),
            "UINT8" => Some(Self::U8),
            "INT32" => Some(Self::I32),
            _ => None,
        }
    }

    /// The protocol's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::F32 => "FP32",
            Self::F16 => "FP16",
            Self::U8 => "UINT8",
            Self::I32 => "INT32",
        }
    }

    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// An output that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) element: Element,
    /// Dimensions without the batch; `None` is free.
    dims: Vec<Option<usize>>,
}

/// Scale of a head whose outputs are [`Contract::outputs`] `2 * index` and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) stride: usize,
}

/// How the outputs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Boxes and scores in one tensor.
    Whole(Layout),
    /// Raw maps, boxes and classes of every scale in turn.
    Heads { scales: Vec<Scale>, bins: usize },
    /// Suppressed by the server: outputs are counts, boxes, scores, classes, as TensorRT's
    /// `EfficientNMS` has them.
    Suppressed,
}

impl Reading {
    /// What of the detector runs on the server.
    pub(crate) fn head(&self) -> Head {
        match self {
            Self::Heads { .. } => Head::Cut,
            Self::Suppressed => Head::Suppressed,
            Self::Whole(_) => Head::Whole,
        }
    }
}

/// What a request looks like.
#[derive(Debug, Clone)]
pub(crate) struct Contract {
    /// Name of the input.
    pub(crate) input: String,
    /// Its element type.
    pub(crate) element: Element,
    pub(crate) outputs: Vec<Output>,
    pub(crate) reading: Reading,
    pub(crate) classes: usize,
    /// Which input sizes it takes.
    pub(crate) sides: Sides,
    /// Height and width that the model names.
    pub(crate) own: (usize, usize),
    /// Most frames of a request.
    pub(crate) max_batch: usize,
    /// The server gathers single requests into batches itself.
    pub(crate) gathers: bool,
    strides: Vec<usize>,
}

impl Contract {
    /// What the server says of its model, against the model file, which knows classes and
    /// head. `wanted_batch` 0 leaves the batch to the server's configuration.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] says what does not fit, and what would.
    pub(crate) fn new(
        model: &Model,
        metadata: &ModelMetadata,
        config: &ModelConfig,
        wanted_batch: usize,
    ) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::Unsupported {
            backend: NAME,
            model: metadata.name.clone(),
            reason,
        };
        let (input, element) = input(&metadata.inputs).map_err(refuse)?;
        if config.sequence_batching.is_some() {
            return Err(refuse(
                "it keeps state between requests (sequence_batching); a detector must not".into(),
            ));
        }
        let [batch, _, height, width] = input.shape[..] else {
            return Err(refuse(format!("its input has shape {:?}", input.shape)));
        };
        let side = |dim: i64| usize::try_from(dim).ok();
        let max_batch = batch_limit(batch, config, wanted_batch).map_err(refuse)?;
        let cut = match model.layout() {
            OutputLayout::Heads => Some(model.clone()),
            _ => model.cut().ok(),
        };
        let (outputs, reading) = outputs(model, cut.as_ref(), &metadata.outputs).map_err(refuse)?;
        let heads = cut.as_ref().map_or(&[][..], Model::heads);
        let strides = match heads.is_empty() {
            true => STRIDES.to_vec(),
            false => heads.iter().map(|head| head.stride).collect(),
        };
        Ok(Self {
            input: input.name.clone(),
            element,
            outputs,
            reading,
            classes: model.classes(),
            sides: Sides {
                backend: NAME,
                model: metadata.name.clone(),
                height: side(height),
                width: side(width),
                stride: model.stride(),
            },
            own: model.size().or(model.image_size()).unwrap_or((DEFAULT_SIDE, DEFAULT_SIDE)),
            max_batch,
            gathers: config.dynamic_batching.is_some(),
            strides,
        })
    }

    /// Bytes of the input of `batch` frames.
    pub(crate) fn input_bytes(&self, shape: Shape, batch: usize) -> usize {
        batch * 3 * shape.height * shape.width * self.element.size()
    }

    /// Most bytes of an output for `batch` frames.
    pub(crate) fn output_bytes(&self, index: usize, shape: Shape, batch: usize) -> usize {
        let output = &self.outputs[index];
        let cells = |stride: usize| (shape.height / stride) * (shape.width / stride);
        let free = match &self.reading {
            Reading::Whole(Layout::EndToEnd) | Reading::Suppressed => ROWS_MAX,
            Reading::Whole(_) => self.strides.iter().map(|&stride| cells(stride)).sum(),
            Reading::Heads { scales, .. } => {
                let [channels, rows, columns] = output.dims[..] else { return 0 };
                let stride = scales[index / 2].stride;
                let rows = rows.unwrap_or(shape.height / stride);
                let columns = columns.unwrap_or(shape.width / stride);
                return batch * channels.unwrap_or(0) * rows * columns * output.element.size();
            }
        };
        let channels = 4 + self.classes;
        let free = match (&self.reading, &output.dims[..]) {
            // Of a raw output only the boxes are free: the other side is known.
            (Reading::Whole(layout), &[first, second]) => {
                let channels = if *layout == Layout::EndToEnd { 6 } else { channels };
                let (boxes, known) = match layout {
                    Layout::ChannelsFirst => (second, first),
                    Layout::AnchorsFirst | Layout::EndToEnd => (first, second),
                };
                return batch
                    * boxes.unwrap_or(free)
                    * known.unwrap_or(channels)
                    * output.element.size();
            }
            _ => free,
        };
        let values: usize = output.dims.iter().map(|dim| dim.unwrap_or(free)).product();
        batch * values * output.element.size()
    }

    /// Bytes that the memory of a request takes, about.
    pub(crate) fn request_bytes(&self, shape: Shape, batch: usize) -> usize {
        let outputs = 0..self.outputs.len();
        let outputs: usize = outputs.map(|index| self.output_bytes(index, shape, batch)).sum();
        self.input_bytes(shape, batch) + outputs
    }

    /// Whether an output of this shape is what was asked for.
    pub(crate) fn fits(&self, index: usize, shape: &[i64], batch: usize) -> bool {
        let dims = &self.outputs[index].dims;
        let batch = usize::try_from(*shape.first().unwrap_or(&0)) == Ok(batch);
        batch
            && shape.len() == dims.len() + 1
            && shape[1..].iter().zip(dims).all(|(&side, dim)| {
                usize::try_from(side).is_ok_and(|side| dim.is_none_or(|dim| dim == side))
            })
    }
}

fn listing(tensors: &[TensorMetadata]) -> String {
    let one = |tensor: &TensorMetadata| {
        format!("'{}' {} {:?}", tensor.name, tensor.datatype, tensor.shape)
    };
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The one picture input: `[batch, 3, height, width]`.
fn input(inputs: &[TensorMetadata]) -> Result<(&TensorMetadata, Element), String> {
    let wanted = "one input [batch, 3, height, width] of FP32, FP16 or UINT8, RGB, is needed";
    let [input] = inputs else {
        return Err(format!("it has {} inputs ({}); {wanted}", inputs.len(), listing(inputs)));
    };
    let element = Element::parse(&input.datatype).filter(|element| *element != Element::I32);
    match (input.shape[..].as_ref(), element) {
        ([_, 3, _, _], Some(element)) => Ok((input, element)),
        ([_, _, _, 3], Some(_)) => Err(format!(
            "its input {} has its colours last; {wanted}: export it as ONNX has it (NCHW)",
            listing(inputs)
        )),
        _ => Err(format!("its input is {}; {wanted}", listing(inputs))),
    }
}

/// Most frames of a request, from the input's first dimension and the configuration.
fn batch_limit(batch: i64, config: &ModelConfig, wanted: usize) -> Result<usize, String> {
    let server = usize::try_from(config.max_batch_size).unwrap_or(0);
    let limit = match (batch, server) {
        (_, 1..) => server.min(BATCH_MAX),
        // Nobody says how many; one is safe, more is the user's word.
        (-1, 0) => wanted.clamp(1, BATCH_MAX),
        (1, 0) => 1,
        (fixed, 0) => {
            return Err(format!(
                "it takes exactly {fixed} frames at once; export it with batch=1 or dynamic=True, \
                 or give it a max_batch_size"
            ));
        }
    };
    match wanted {
        0 if config.dynamic_batching.is_some() => Ok(1),
        0 => Ok(limit),
        _ if wanted <= limit => Ok(wanted),
        _ => Err(format!(
            "triton.max_batch = {wanted}, but the server's model takes {limit} at most; lower it, \
             or raise max_batch_size in the model's config.pbtxt"
        )),
    }
}

/// Which outputs to ask for and how to read them.
fn outputs(
    model: &Model,
    cut: Option<&Model>,
    found: &[TensorMetadata],
) -> Result<(Vec<Output>, Reading), String> {
    let read = |tensor: &TensorMetadata| {
        Some(Output {
            name: tensor.name.clone(),
            element: Element::parse(&tensor.datatype)?,
            dims: tensor.shape.get(1..)?.iter().map(|&dim| usize::try_from(dim).ok()).collect(),
        })
    };
    let all: Option<Vec<Output>> = found.iter().map(read).collect();
    // Sizes are multiplied later on; no output of a detector is near these.
    let vast = |output: &Output| {
        let sides = output.dims.iter().map(|dim| dim.unwrap_or(1));
        sides.fold(1_usize, usize::saturating_mul) > VALUES_MAX
    };
    if all.as_ref().is_some_and(|all| all.iter().any(vast)) {
        return Err(format!("its outputs {} are too large", listing(found)));
    }
    let read = all.and_then(|all| {
        suppressed(&all).or_else(|| heads(&all, cut?, model.classes())).or_else(|| one(&all, model))
    });
    read.ok_or_else(|| {
        format!(
            "its outputs {} are none of what is read for the {} classes of {}: [batch, {}, n] or \
             [batch, n, {}] (raw), [batch, n, 6] (suppressed), the {} maps of a cut head, or \
             counts, boxes, scores and classes (EfficientNMS); is it the same model?",
            listing(found),
            model.classes(),
            model.path().display(),
            4 + model.classes(),
            4 + model.classes(),
            cut.map_or(6, |cut| 2 * cut.heads().len()),
        )
    })
}

fn float(output: &Output) -> bool {
    matches!(output.element, Element::F32 | Element::F16)
}

/// Counts, boxes, scores and classes, by their types and shapes; whatever their order.
fn suppressed(all: &[Output]) -> Option<(Vec<Output>, Reading)> {
    if all.len() != 4 {
        return None;
    }
    let find = |fits: &dyn Fn(&Output) -> bool| {
        let mut fitting = all.iter().filter(|output| fits(output));
        fitting.next().filter(|_| fitting.next().is_none()).cloned()
    };
    let integer = |output: &Output| output.element == Element::I32;
    let count = find(&|output| integer(output) && output.dims == [Some(1)])?;
    let boxes = find(&|output| float(output) && matches!(output.dims[..], [_, Some(4)]))?;
    let scores = find(&|output| float(output) && output.dims.len() == 1)?;
    let classes =
        find(&|output| integer(output) && output.dims.len() == 1 && output.name != count.name)?;
    Some((vec![count, boxes, scores, classes], Reading::Suppressed))
}

/// Raw maps of a head that was cut off: by name, else in the order that they come.
fn heads(all: &[Output], cut: &Model, classes: usize) -> Option<(Vec<Output>, Reading)> {
    let heads = cut.heads();
    if all.len() != 2 * heads.len() || heads.len() > MAX_SCALES {
        return None;
    }
    let named = |name: &str| all.iter().find(|output| output.name == name).cloned();
    let by_name: Option<Vec<Output>> =
        heads.iter().flat_map(|head| [named(&head.boxes), named(&head.classes)]).collect();
    let outputs = by_name.unwrap_or_else(|| all.to_vec());
    let fits = |pair: &[Output]| {
        let channels = |output: &Output| match output.dims[..] {
            [channels, _, _] if float(output) => channels,
            _ => None,
        };
        channels(&pair[0]) == Some(4 * cut.bins()) && channels(&pair[1]) == Some(classes)
    };
    let scales = heads.iter().map(|head| Scale { stride: head.stride }).collect();
    outputs
        .chunks_exact(2)
        .all(fits)
        .then_some((outputs, Reading::Heads { scales, bins: cut.bins() }))
}

/// Boxes and scores in one tensor.
fn one(all: &[Output], model: &Model) -> Option<(Vec<Output>, Reading)> {
    let [output] = all else { return None };
    let (&[first, second], true) = (&output.dims[..], float(output)) else { return None };
    let channels = Some(4 + model.classes());
    let known = whole(model.layout());
    let layout = match (first, second) {
        // Two classes, and [n, 6] could be both: the model file knows.
        (_, Some(6)) if known == Some(Layout::EndToEnd) => Layout::EndToEnd,
        (first, _) if first == channels => Layout::ChannelsFirst,
        (_, second) if second == channels => Layout::AnchorsFirst,
        (_, Some(6)) => Layout::EndToEnd,
        (None, None) => known?,
        _ => return None,
    };
    Some((vec![output.clone()], Reading::Whole(layout)))
}
