//! Pure maths on pixels and boxes: letterbox, YOLO decode, NMS, motion, picture faults,
//! tracks, zones and lines.
//!
//! No I/O, no engine, no bus, no allocation on the per-frame path once the
//! buffers that callers hand in have grown to their size.
//!
//! A frame goes in through [`Resampler`] and comes out through [`Postprocess`]:
//!
//! ```
//! use framebus_vision::{
//!     Colour, DenseOutput, FrameView, Layout, Planes, Postprocess, Resampler, Thresholds,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (y, uv) = (vec![128; 64 * 36], vec![128; 64 * 18]);
//! let planes = Planes::Nv12 { y: &y, y_stride: 64, uv: &uv, uv_stride: 64 };
//! let frame = FrameView::new(64, 36, planes, Colour::default())?;
//!
//! let mut resampler = Resampler::new(&frame, 32, 32)?;
//! let mut input = vec![0.0; resampler.output_len()];
//! resampler.run(&frame, &mut input)?;
//!
//! // One anchor, two classes: cx, cy, w, h, two scores.
//! let answer = [16.0, 16.0, 8.0, 8.0, 0.1, 0.9];
//! let output = DenseOutput::new(&answer, Layout::ChannelsFirst, 2, 1)?;
//! let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
//! let mut detections = Vec::new();
//! Postprocess::default().run(output, &thresholds, resampler.letterbox(), &mut detections)?;
//! assert_eq!((detections[0].class, detections[0].bbox), (1, [24.0, 10.0, 40.0, 26.0]));
//! # Ok(())
//! # }
//! ```

pub mod detection;
mod dfl;
pub mod frame;
pub mod heads;
pub mod letterbox;
#[cfg(test)]
mod levels;
pub mod motion;
pub mod nms;
pub mod places;
pub mod postprocess;
pub mod resample;
mod scan;
pub mod scene;
pub mod track;
pub mod yolo;

pub use detection::Detection;
pub use frame::{ChromaSite, Colour, FrameError, FrameView, Matrix, Planes, Range, Region};
pub use heads::{HeadOutput, HeadScale};
pub use letterbox::Letterbox;
pub use motion::{Motion, MotionSettings};
pub use nms::{Nms, NmsCounts, iou};
pub use places::{Anchor, Direction, Happening, Line, Object, PlaceError, Places, What, Zone};
pub use postprocess::{Cell, Counts, Postprocess, Thresholds};
pub use resample::{ResampleError, Resampler};
pub use scene::{Scene, Sight};
pub use track::{Ended, Observation, TrackSettings, Tracker};
pub use yolo::{Candidate, DecodeCounts, DecodeError, Decoder, DenseOutput, Layout};
