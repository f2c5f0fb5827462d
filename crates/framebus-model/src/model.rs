//! Opening a model file and answering what it is.

use crate::cut::{self, NotCut};
use crate::heads::HeadScale;
use crate::layout::OutputLayout;
use crate::typed::{self, Element, NotTyped, Typed};
use crate::{ModelError, inspect};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Baked into the model.
    Fixed(usize),
    /// Free; the name is the exporter's and may be empty.
    Symbolic(String),
}

impl Dim {
    /// The number, where it is fixed.
    #[must_use]
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(*n),
            Self::Symbolic(_) => None,
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the graph.
    pub name: String,
    /// ONNX `TensorProto.DataType`; 1 is float32.
    pub element_type: i32,
    /// Dimensions, batch first; empty when the model does not say.
    pub shape: Vec<Dim>,
}

impl TensorInfo {
    /// Height and width of a picture `[batch, channels, height, width]` where both
    /// are fixed.
    pub(crate) fn size(&self) -> Option<(usize, usize)> {
        match self.shape.as_slice() {
            [_, _, Dim::Fixed(height), Dim::Fixed(width)] => Some((*height, *width)),
            _ => None,
        }
    }
}

/// What a detection model is, read from its file.
#[derive(Clone)]
pub struct Model {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) producer: String,
    pub(crate) input: TensorInfo,
    pub(crate) outputs: Vec<TensorInfo>,
    pub(crate) layout: OutputLayout,
    pub(crate) heads: Vec<HeadScale>,
    pub(crate) bins: usize,
    pub(crate) labels: Vec<String>,
    pub(crate) stride: usize,
    pub(crate) image_size: Option<(usize, usize)>,
    pub(crate) bytes: Option<Bytes>,
}

/// Without the file's content, which may be large.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("path", &self.path)
            .field("name", &self.name)
            .field("layout", &self.layout)
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Reads `path` and checks that it is a YOLO detector.
    ///
    /// # Errors
    /// [`ModelError`] names the file, what was found there and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let bytes = inspect::read(path)?;
        inspect::model(path, bytes.into())
    }

    /// As [`Model::open`] for bytes that exist only in memory; `path` names them.
    /// The model keeps them: see [`Model::bytes`].
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(path: &Path, bytes: impl Into<Bytes>) -> Result<Self, ModelError> {
        let bytes = bytes.into();
        let model = inspect::model(path, bytes.clone())?;
        Ok(Self { bytes: Some(bytes), ..model })
    }

    /// The same model with the head cut off and batch, height and width free: its
    /// layout is [`OutputLayout::Heads`], its file's content is [`Model::bytes`], and
    /// name and path stay those of the original. Reads the file again, so that no
    /// model keeps its weights in memory.
    ///
    /// What is needed for it, and which exports have it: see [`crate::cut`].
    ///
    /// # Errors
    /// [`NotCut`] says why the model can only be run as it is.
    pub fn cut(&self) -> Result<Self, NotCut> {
        cut::cut(self)
    }

    /// The ONNX text in which every tensor has the type that it is computed in, as
    /// strongly typed networks want it. Reads the file again where the model does not
    /// hold it.
    ///
    /// What becomes 16 bits and what does not: see [`crate::typed`].
    ///
    /// # Errors
    /// [`NotTyped`] says why; with [`Element::F32`] only a file that cannot be read or
    /// keeps its weights elsewhere.
    pub fn typed(&self, element: Element) -> Result<Typed, NotTyped> {
        typed::typed(self, element)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's stem.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Program and version that wrote the file; may be empty.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The picture input: float32 `[batch, 3, height, width]`, RGB, 0..=1.
    #[must_use]
    pub fn input(&self) -> &TensorInfo {
        &self.input
    }

    /// The outputs, at least one: for [`OutputLayout::Heads`] boxes and classes of
    /// every scale in turn, else the one that holds boxes and scores.
    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The scales of a model whose head was cut off, finest stride first; empty
    /// unless the layout is [`OutputLayout::Heads`].
    #[must_use]
    pub fn heads(&self) -> &[HeadScale] {
        &self.heads
    }

    /// Bins of the distribution that each side's distance is read from, with
    /// [`OutputLayout::Heads`]: the distance is the sum of softmax(bins) x 0, 1, 2, …
    /// in units of the scale's stride. 1: the output is the distance itself. For
    /// other layouts 1, as boxes are plain there.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// The ONNX file's content where it exists only in memory; `None` where
    /// [`Model::path`] holds it.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        self.bytes.as_ref()
    }

    /// How the output is to be read.
    #[must_use]
    pub fn layout(&self) -> OutputLayout {
        self.layout
    }

    /// Class names by class number; at least one.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Number of classes, at least one.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Height and width must be multiples of this many pixels.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Height and width baked into the model; `None` when either is free.
    #[must_use]
    pub fn size(&self) -> Option<(usize, usize)> {
        self.input.size()
    }

    /// Height and width that the metadata names (`imgsz`).
    #[must_use]
    pub fn image_size(&self) -> Option<(usize, usize)> {
        self.image_size
    }

    /// Batch baked into the model; `None` when it is free.
    #[must_use]
    pub fn batch(&self) -> Option<usize> {
        self.input.shape.first().and_then(Dim::fixed)
    }
}
