//! Recordings: frames and results in an MCAP file (<https://mcap.dev/spec>).
//!
//! Each camera has a topic for every kind of message; all messages are CDR and described
//! by `ros2msg` schemas that lie in the file:
//!
//! | topic | schema | what |
//! |---|---|---|
//! | `/front/image` | `foxglove_msgs/msg/RawImage` or `CompressedImage` | the picture |
//! | `/front/annotations` | `foxglove_msgs/msg/ImageAnnotations` | boxes and labels |
//! | `/front/frame` | `framebus/msg/FrameHeaderV1` | the frame's header, byte for byte |
//! | `/front/result` | `framebus/msg/ResultV1` | the result's header and detections, byte for byte |
//!
//! CDR lays fixed-size fields out as C does, and the structures of `framebus-types` have no
//! hidden padding: their bytes are the message, without a conversion that could lose
//! something.

mod cdr;
mod image;
mod read;
mod schemas;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use image::{Image, raw};
pub(crate) use read::{Entry, Overview, Reader};
pub(crate) use write::{Recording, Written};

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The disk, or the library that writes.
    #[error(transparent)]
    Mcap(#[from] mcap::McapError),
    /// The file itself.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A picture that cannot be encoded.
    #[error("a picture cannot be encoded: {0}")]
    Picture(String),
}

/// Kinds of pictures in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pictures {
    /// The pixels as they are: the only kind that can be replayed.
    Raw,
    /// JPEG, small, to be looked at.
    Jpeg,
    /// No pictures: results alone.
    None,
}

/// Compression of a recording's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// LZ4.
    Lz4,
    /// As they are.
    None,
}
