//! What can go wrong between a camera and the bus.

use framebus_bus::BusError;
use framebus_service::Kind;
use std::error::Error;
use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The source does not deliver; the reason is one sentence without
    /// credentials.
    #[error("{source_name}: {reason}")]
    Source {
        /// The source as the configuration prints it.
        source_name: String,
        /// Why, and what to do where that is known.
        reason: String,
    },
    /// The camera refuses the login; some lock an account that is tried again soon.
    #[error("{source_name}: {reason}")]
    Login {
        /// The source as the configuration prints it.
        source_name: String,
        /// What the camera answered.
        reason: String,
    },
    /// The text of a `gst:` source makes no pipeline. Trying again does not help.
    #[error("{source_name}: {reason}")]
    Pipeline {
        /// The source as the configuration prints it.
        source_name: String,
        /// GStreamer's word.
        reason: String,
    },
    /// A part of GStreamer is not installed.
    #[error("GStreamer has no element {element}; install {package}")]
    Element {
        /// Which element.
        element: String,
        /// Debian package that has it.
        package: &'static str,
    },
    /// The decoder that the camera is to have is not there.
    #[error("decoder = \"{choice}\": GStreamer has no such decoder; {needs}")]
    Decoder {
        /// The word in the configuration.
        choice: &'static str,
        /// What has to be installed.
        needs: &'static str,
    },
    /// GStreamer itself does not start.
    #[error("GStreamer cannot be initialised; is it installed completely?")]
    Init(#[source] gst::glib::Error),
    /// A folder of pictures cannot be listed.
    #[error("cannot list the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder without pictures, or with none that can be decoded.
    #[error("{}: {reason}", path.display())]
    NoPicture {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A picture cannot be decoded.
    #[error("cannot decode the picture {}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// Pipelines that were given up hang in GStreamer or a driver, with their
    /// memory and threads.
    #[error(
        "{count} pipelines of the camera hang while they are stopped; the process ends so that a new one can start clean"
    )]
    Stuck {
        /// How many.
        count: usize,
    },
    /// The bus refused, most often for want of memory.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl CaptureError {
    /// What kind of end this makes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pipeline { .. } => Kind::Config,
            _ => Kind::Unavailable,
        }
    }

    /// The whole chain as one sentence, for the state's reason.
    #[must_use]
    pub fn sentence(&self) -> String {
        // A state stands beside its camera: the source need not be repeated.
        let mut text = match self {
            Self::Source { reason, .. }
            | Self::Login { reason, .. }
            | Self::Pipeline { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
