//! Where a camera's frames come from: the `source` key.

use crate::secret::mask_credentials;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

/// A camera's source. `Display` and `Debug` never print credentials.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A network camera.
    Rtsp(RtspUrl),
    /// A video, a picture or a folder of pictures.
    File(PathBuf),
    /// A local camera, by its device node.
    V4l2(PathBuf),
    /// A generated picture.
    Test(TestPattern),
    /// A GStreamer pipeline without its sink.
    Gst(GstPipeline),
}

impl Source {
    /// Whether frames come in real time whether or not somebody takes them.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Rtsp(_) | Self::V4l2(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rtsp(url) => url.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::V4l2(path) => write!(f, "v4l2:{}", path.display()),
            Self::Test(test) => test.fmt(f),
            Self::Gst(pipeline) => write!(f, "gst:{pipeline}"),
        }
    }
}

/// An `rtsp://` or `rtsps://` URL without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RtspUrl {
    url: String,
    shown: String,
}

/// Why a text is no [`RtspUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(pub(crate) String);

impl RtspUrl {
    pub(crate) fn new(url: String, shown: &str) -> Self {
        Self { url, shown: mask_credentials(shown) }
    }

    /// The URL to connect to. Query parameters may hold credentials that `Display` masks, so
    /// print the value itself instead of this.
    pub fn as_str(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for RtspUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RtspUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

/// A GStreamer pipeline description. Dereferences to the text for GStreamer; `Display` masks
/// what looks like a password and leaves `${VARIABLES}` unexpanded.
#[derive(Clone, PartialEq, Eq)]
pub struct GstPipeline {
    text: String,
    shown: String,
}

impl GstPipeline {
    pub(crate) fn new(text: String, shown: &str) -> Self {
        Self { text, shown: mask_credentials(shown) }
    }

    /// The text for GStreamer. It may hold credentials: print the value itself instead.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for GstPipeline {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned(), text)
    }
}

impl Deref for GstPipeline {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for GstPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for GstPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

/// A generated picture (GStreamer's `videotestsrc`).
#[derive(Debug, Clone, PartialEq)]
pub struct TestPattern {
    /// A pattern name of `videotestsrc`, such as `smpte` or `ball`.
    pub pattern: String,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames per second.
    pub fps: f64,
    /// Ends after so many frames; `None` = never.
    pub frames: Option<u64>,
}

impl fmt::Display for TestPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, width, height, fps, frames } = self;
        write!(f, "test:{pattern}?width={width}&height={height}&fps={fps}")?;
        frames.map_or(Ok(()), |frames| write!(f, "&frames={frames}"))
    }
}
