//! Engines that must be built for a machine before they can be loaded.

use crate::api::Shape;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whether [`Backend::load`](crate::Backend::load) may take the minutes that building an engine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Build {
    /// It builds what is not there.
    #[default]
    Now,
    /// It answers [`EngineError::NotBuilt`](crate::EngineError::NotBuilt), and somebody calls
    /// [`Backend::build`](crate::Backend::build).
    Later,
}

/// How far building an engine has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Whose engine.
    pub backend: &'static str,
    /// The input that it is built for.
    pub shape: Shape,
    /// What is done now, in the library's words.
    pub phase: String,
    /// Done so far, 0..=1, of this input's engine; an estimate that never goes back.
    pub fraction: f32,
}

/// Is told how building goes on, and answers whether it shall.
#[derive(Clone)]
pub struct Report(Arc<dyn Fn(&Progress) -> bool + Send + Sync>);

impl Report {
    /// Calls `tell` at each step, from the thread that builds.
    pub fn new(tell: impl Fn(&Progress) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, progress: &Progress) -> bool {
        (self.0)(progress)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// An engine that [`Backend::build`](crate::Backend::build) answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its input.
    pub shape: Shape,
    /// Where it is kept, or why it is not.
    pub file: Result<PathBuf, String>,
    /// Its size in bytes.
    pub bytes: usize,
    /// How long building took; `None`: it was there already.
    pub took: Option<Duration>,
}
