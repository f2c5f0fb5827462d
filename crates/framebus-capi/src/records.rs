//! What C reads: records of this library's own memory, with texts that end in a zero.
//!
//! The library allocates them, so that later versions may add fields at their end.

use framebus_client::{FrameSample, ResultSample};
use framebus_types::{Fourcc, MAX_PLANES, Outcome, StageTimes, text};
use std::ffi::c_char;

/// Outcome: inferred; the detections are the answer, also when there are none.
pub const FRAMEBUS_OUTCOME_OK: u32 = 1;
/// Outcome: not inferred, by policy; the reason says which.
pub const FRAMEBUS_OUTCOME_SKIPPED: u32 = 2;
/// Outcome: not inferred because it came too late or a newer one was there.
pub const FRAMEBUS_OUTCOME_DROPPED: u32 = 3;
/// Outcome: inference failed; the message says why. Never "nothing was seen".
pub const FRAMEBUS_OUTCOME_FAILED: u32 = 4;

/// Format: 8-bit luma plane, then interleaved Cb, Cr at half resolution.
pub const FRAMEBUS_FORMAT_NV12: u32 = 0x3231_564e;
/// Format: one plane of interleaved 8-bit R, G, B.
pub const FRAMEBUS_FORMAT_RGB24: u32 = 0x3342_4752;

/// Flag of frames and results: frames before this one are missing.
pub const FRAMEBUS_FLAG_DISCONTINUITY: u32 = 1;
/// Flag: something moves. Says something only with FRAMEBUS_FLAG_MOTION_MEASURED.
pub const FRAMEBUS_FLAG_MOTION: u32 = 2;
/// Flag: the picture is suspect.
pub const FRAMEBUS_FLAG_PICTURE_FAULT: u32 = 4;
/// Flag: the frame was compared with the scene before it.
pub const FRAMEBUS_FLAG_MOTION_MEASURED: u32 = 8;

// Written out for the header; the values are those of the layouts.
const _: () = {
    use framebus_types as types;
    assert!(FRAMEBUS_OUTCOME_OK == Outcome::Ok as u32);
    assert!(FRAMEBUS_OUTCOME_SKIPPED == Outcome::Skipped as u32);
    assert!(FRAMEBUS_OUTCOME_DROPPED == Outcome::Dropped as u32);
    assert!(FRAMEBUS_OUTCOME_FAILED == Outcome::Failed as u32);
    assert!(FRAMEBUS_FORMAT_NV12 == Fourcc::Nv12 as u32);
    assert!(FRAMEBUS_FORMAT_RGB24 == Fourcc::Rgb24 as u32);
    assert!(FRAMEBUS_FLAG_DISCONTINUITY == types::FLAG_DISCONTINUITY);
    assert!(FRAMEBUS_FLAG_MOTION == types::FLAG_MOTION);
    assert!(FRAMEBUS_FLAG_PICTURE_FAULT == types::FLAG_PICTURE_FAULT);
    assert!(FRAMEBUS_FLAG_MOTION_MEASURED == types::FLAG_MOTION_MEASURED);
    assert!(MAX_PLANES == 4);
};

/// One object in a frame.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Detection {
    /// Left, top, right, bottom in pixels of the frame.
    pub bbox: [f32; 4],
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Class number of the model.
    pub class_id: u32,
    /// Track number of the camera; 0 when not tracked.
    pub track: u64,
    /// One bit per zone of the camera that the object is in.
    pub zones: u64,
    /// Rotation in radians, clockwise; 0 for axis-aligned boxes.
    pub angle: f32,
    /// Class name.
    pub label: [c_char; 44],
}

/// What became of one frame, a copy. Camera, epoch_ns and sequence name the frame.
#[repr(C)]
#[derive(Debug)]
pub struct ResultRecord {
    /// `count` objects; empty unless the outcome is FRAMEBUS_OUTCOME_OK.
    pub detections: *const Detection,
    /// Number of detections.
    pub count: usize,
    /// Camera name.
    pub camera: [c_char; 36],
    /// FRAMEBUS_OUTCOME_*.
    pub outcome: u32,
    /// Why the frame was not inferred, such as "motion"; empty when it was. Never freed.
    pub reason: *const c_char,
    /// Start of the frame's capture process, ns since 1970.
    pub epoch_ns: u64,
    /// Number of the frame within its epoch, without gaps at the camera.
    pub sequence: u64,
    /// Start of the publisher of results, ns since 1970.
    pub result_epoch_ns: u64,
    /// Number of the result within the publisher's epoch, without gaps.
    pub result_sequence: u64,
    /// Capture time by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Presentation time in the stream, ns; UINT64_MAX when it has none.
    pub pts_ns: u64,
    /// When each stage of the frame ended.
    pub times: StageTimes,
    /// Frame width in pixels.
    pub width: u32,
    /// Frame height in pixels.
    pub height: u32,
    /// FRAMEBUS_FLAG_* bits.
    pub flags: u32,
    /// Detections that passed the thresholds but not max_detections.
    pub truncated: u32,
    /// Model name.
    pub model: [c_char; 52],
    /// Backend that answered.
    pub backend: [c_char; 20],
    /// Why inference failed; empty otherwise.
    pub message: [c_char; 132],
}

/// A frame where its camera's process put it: the planes are mapped read-only, and a
/// write ends your process. They are valid until framebus_frame_free.
#[repr(C)]
#[derive(Debug)]
pub struct FrameRecord {
    /// First byte of each plane; NULL for one that the format does not have. NV12: luma,
    /// then Cb and Cr. RGB24: one plane.
    pub planes: [*const u8; 4],
    /// Bytes from one row of a plane to the next.
    pub strides: [usize; 4],
    /// Bytes of a plane, from its first row to the end of its last.
    pub sizes: [usize; 4],
    /// FRAMEBUS_FORMAT_*.
    pub format: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// YCbCr matrix: 0 BT.601, 1 BT.709, 2 BT.2020.
    pub matrix: u32,
    /// Sample range: 0 limited (Y in 16 to 235), 1 full.
    pub range: u32,
    /// Horizontal position of chroma samples: 0 left, 1 centre.
    pub chroma_site: u32,
    /// FRAMEBUS_FLAG_* bits.
    pub flags: u32,
    /// Share of the picture that moved, 0 to 1; 0 when not measured.
    pub motion: f32,
    /// Camera name.
    pub camera: [c_char; 36],
    /// Start of the capture process, ns since 1970.
    pub epoch_ns: u64,
    /// Number within the epoch, without gaps at the camera.
    pub sequence: u64,
    /// When the buffer left the decoder, CLOCK_MONOTONIC ns.
    pub capture_ns: u64,
    /// When it was sent, CLOCK_MONOTONIC ns.
    pub publish_ns: u64,
    /// Capture time by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// Presentation time in the stream, ns; UINT64_MAX when it has none.
    pub pts_ns: u64,
}

/// What a reader counts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Samples that were overwritten before this reader took them.
    pub lost: u64,
    /// Samples that were skipped because their header contradicted their payload.
    pub bad_headers: u64,
    /// How long the sample taken last had waited for this reader, ns.
    pub lag_ns: u64,
    /// Results of a joined camera whose frame was not there (any more).
    pub unmatched: u64,
    /// Zero; for counters to come.
    pub reserved: [u64; 4],
}

/// A result with the memory that it refers to. C sees the record, which comes first.
#[repr(C)]
pub(crate) struct OwnedResult {
    pub(crate) record: ResultRecord,
    _detections: Vec<Detection>,
}

/// A frame with its sample. C sees the record, which comes first.
#[repr(C)]
pub(crate) struct OwnedFrame {
    pub(crate) record: FrameRecord,
    _sample: FrameSample,
}

/// Copies a text into a field that is longer than any that the layouts have.
fn chars<const N: usize>(value: &str) -> [c_char; N] {
    let mut field = [0; N];
    let text = value.as_bytes().iter().take(N.saturating_sub(1));
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from as c_char;
    }
    field
}

/// Reasons as C reads them.
fn reason(reason: framebus_client::Reason) -> *const c_char {
    use framebus_client::Reason;
    let text = match reason {
        Reason::None => c"",
        Reason::Superseded => c"superseded",
        Reason::Stale => c"stale",
        Reason::Stopping => c"stopping",
        Reason::BadFrame => c"bad frame",
        Reason::Engine => c"engine",
        Reason::Motion => c"motion",
    };
    text.as_ptr()
}

impl OwnedResult {
    /// Copies a result out of shared memory.
    pub(crate) fn new(sample: &ResultSample) -> Box<Self> {
        let header = sample.header();
        let one = |found: &framebus_types::Detection| Detection {
            bbox: found.bbox,
            score: found.score,
            class_id: found.class,
            track: found.track,
            zones: found.zones,
            angle: found.angle,
            label: chars(found.label()),
        };
        let detections: Vec<Detection> = sample.detections().iter().map(one).collect();
        let record = ResultRecord {
            // The vector's memory does not move with it.
            detections: detections.as_ptr(),
            count: detections.len(),
            camera: chars(sample.camera()),
            outcome: sample.outcome().into(),
            reason: reason(sample.reason()),
            epoch_ns: header.epoch_ns,
            sequence: header.sequence,
            result_epoch_ns: header.result_epoch_ns,
            result_sequence: header.result_sequence,
            wall_ns: header.wall_ns,
            pts_ns: header.pts_ns,
            times: header.times,
            width: header.width,
            height: header.height,
            flags: header.flags,
            truncated: header.truncated,
            model: chars(header.model()),
            backend: chars(header.backend()),
            message: chars(sample.message()),
        };
        Box::new(Self { record, _detections: detections })
    }
}

impl OwnedFrame {
    /// Takes a frame, whose pixels stay where they are.
    pub(crate) fn new(sample: FrameSample) -> Box<Self> {
        let header = *sample.header();
        let planes: [(&[u8], usize); 4] = [0, 1, 2, 3].map(|plane| sample.plane(plane));
        let address = |plane: &[u8]| {
            if plane.is_empty() { std::ptr::null() } else { plane.as_ptr() }
        };
        let record = FrameRecord {
            planes: planes.map(|(plane, _)| address(plane)),
            strides: planes.map(|(_, stride)| stride),
            sizes: planes.map(|(plane, _)| plane.len()),
            format: sample.fourcc().into(),
            width: header.width,
            height: header.height,
            matrix: sample.matrix().into(),
            range: sample.range().into(),
            chroma_site: sample.chroma_site().into(),
            flags: header.flags,
            motion: header.motion,
            camera: chars(text::unpack(&header.camera)),
            epoch_ns: header.epoch_ns,
            sequence: header.sequence,
            capture_ns: header.capture_ns,
            publish_ns: header.publish_ns,
            wall_ns: header.wall_ns,
            pts_ns: header.pts_ns,
        };
        Box::new(Self { record, _sample: sample })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn texts_end_in_a_zero_however_long_they_are() {
        for (text, expected) in [("a", "a"), ("abc", "abc"), ("abcd", "abc")] {
            let field: [c_char; 4] = chars(text);
            let bytes = field.map(|one| one as u8);
            let read = CStr::from_bytes_until_nul(&bytes).expect("a zero");
            assert_eq!(read.to_str(), Ok(expected));
        }
    }

    #[test]
    fn reasons_have_the_names_of_the_layouts() {
        for one in framebus_client::Reason::ALL {
            assert!(!reason(*one).is_null());
        }
        assert_eq!(framebus_client::Reason::ALL.len(), 7, "a new reason needs a line above");
    }
}
