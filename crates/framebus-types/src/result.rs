//! One result per frame that reached the inference process.

use crate::VERSION;
use bytemuck::{Pod, Zeroable};
use iceoryx2_bb_derive_macros::ZeroCopySend;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;

/// When each stage of a frame ended, CLOCK_MONOTONIC ns; 0 for a stage that the
/// frame did not reach. With the frame's own times they say where the
/// milliseconds went.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.StageTimes.v1")]
pub struct StageTimes {
    /// The buffer left the decoder (copied from the frame).
    pub capture_ns: u64,
    /// The frame was sent (copied from the frame).
    pub publish_ns: u64,
    /// The inference process took it from the bus.
    pub taken_ns: u64,
    /// It went to a worker as part of a batch.
    pub batched_ns: u64,
    /// It lies in the network's input.
    pub preprocessed_ns: u64,
    /// The network started.
    pub inference_start_ns: u64,
    /// The network ended.
    pub inference_end_ns: u64,
    /// Boxes are decoded and suppressed.
    pub decoded_ns: u64,
    /// Just before the result was sent.
    pub result_ns: u64,
}

/// Where the time between `inference_start_ns` and `inference_end_ns` went when a server on
/// the other side of a connection ran the network; zeros where the engine is in the
/// inference process.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.ServerTimes.v1")]
pub struct ServerTimes {
    /// The request's id in the server's own trace; 0: no server was asked.
    pub request: u64,
    /// Encoding the request took, us.
    pub serialise_us: u32,
    /// Decoding the answer took, from its last byte on, us.
    pub receive_us: u32,
    /// By the server's statistics a request of the last second waited so long for an
    /// instance of the model, us; this and the next three are averages, 0 when unknown.
    pub queue_us: u32,
    /// Its inputs were prepared, us.
    pub compute_input_us: u32,
    /// The network ran, us.
    pub compute_us: u32,
    /// Its outputs were prepared, us.
    pub compute_output_us: u32,
    /// Bytes of the encoded request.
    pub sent_bytes: u32,
    /// Bytes of the encoded answer.
    pub received_bytes: u32,
}

const _: () = assert!(size_of::<ServerTimes>() == 40 && align_of::<ServerTimes>() == 8);

/// User header of the `[u8]` results service.
///
/// The payload starts with `count` [`Detection`]s; what follows them (`extra`
/// bytes) belongs to tasks with more than boxes and is pointed into by
/// [`Detection::extra_offset`].
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.ResultHeader.v1")]
pub struct ResultHeader {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// [`Outcome`](crate::Outcome) code.
    pub outcome: u32,
    /// [`Reason`](crate::Reason) code.
    pub reason: u32,
    /// Detections in the payload.
    pub count: u32,
    /// Detections that passed the thresholds but not `max_detections`.
    pub truncated: u32,
    /// Bytes behind the detections.
    pub extra: u32,
    /// Camera name, UTF-8, zero padded.
    pub camera: [u8; 32],
    /// The frame's epoch.
    pub epoch_ns: u64,
    /// The frame's sequence number.
    pub sequence: u64,
    /// Counts every result of the publisher without gaps: a reader sees what it lost.
    pub result_sequence: u64,
    /// Start of the publisher, wall clock, ns since 1970: `result_sequence` counts from 0 within it.
    pub result_epoch_ns: u64,
    /// Capture time by the wall clock, ns since 1970.
    pub wall_ns: u64,
    /// The frame's presentation time, ns; `u64::MAX` when it has none.
    pub pts_ns: u64,
    /// Stage times.
    pub times: StageTimes,
    /// Frame width in pixels.
    pub width: u32,
    /// Frame height in pixels.
    pub height: u32,
    /// Frames that shared the batch.
    pub batch_size: u32,
    /// The frame's flags.
    pub flags: u32,
    /// Model name, UTF-8, zero padded.
    pub model: [u8; 48],
    /// Backend that answered, UTF-8, zero padded.
    pub backend: [u8; 16],
    /// Why it failed, UTF-8, zero padded; empty otherwise.
    pub message: [u8; 128],
    /// Execution context of the engine that answered, from 0.
    pub context: u32,
    /// Zero.
    pub gap: [u8; 4],
    /// What a server said of the batch. These bytes were reserved once: a reader that does
    /// not know them loses nothing, and a writer that does not left zeros, no server.
    pub server: ServerTimes,
    /// Zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<ResultHeader>() == 448 && align_of::<ResultHeader>() == 64);

impl Default for ResultHeader {
    fn default() -> Self {
        Self { version: VERSION, pts_ns: u64::MAX, ..Self::zeroed() }
    }
}

/// One object in a frame.
///
/// Carries its class name so that a reader needs no second source to print it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable, ZeroCopySend)]
#[type_name("framebus.Detection.v1")]
pub struct Detection {
    /// Left, top, right, bottom in pixels of the frame.
    pub bbox: [f32; 4],
    /// Confidence, 0..=1.
    pub score: f32,
    /// Class number of the model.
    pub class: u32,
    /// Track number of the camera; 0 when not tracked.
    pub track: u64,
    /// One bit per zone of the camera that the object is in.
    pub zones: u64,
    /// Rotation in radians, clockwise; 0 for axis-aligned boxes.
    pub angle: f32,
    /// First byte of this object's key points or mask in the payload.
    pub extra_offset: u32,
    /// Bytes of key points or mask; 0 when there are none.
    pub extra_len: u32,
    /// Zero.
    pub reserved: u32,
    /// Class name, UTF-8, zero padded, cut at 40 bytes.
    pub label: [u8; 40],
}

const _: () = assert!(size_of::<Detection>() == 96 && align_of::<Detection>() == 8);

impl Default for Detection {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl Detection {
    /// Class name.
    #[must_use]
    pub fn label(&self) -> &str {
        crate::text::unpack(&self.label)
    }
}

impl ResultHeader {
    /// Model name.
    #[must_use]
    pub fn model(&self) -> &str {
        crate::text::unpack(&self.model)
    }

    /// Name of the backend that answered.
    #[must_use]
    pub fn backend(&self) -> &str {
        crate::text::unpack(&self.backend)
    }
}

impl ServerTimes {
    /// Whether the server has said its averages.
    #[must_use]
    pub fn has_averages(&self) -> bool {
        let averages =
            [self.queue_us, self.compute_input_us, self.compute_us, self.compute_output_us];
        averages.iter().any(|us| *us > 0)
    }
}

impl StageTimes {
    /// How long each stage took, ns, in the order of
    /// [`Stage::ALL`](crate::Stage::ALL); `None` for a stage that the frame did
    /// not pass. The total ends where the frame's way ended.
    #[must_use]
    pub fn durations_ns(&self) -> [Option<u64>; crate::STAGES] {
        let span = |from: u64, to: u64| (from != 0 && to != 0).then(|| to.saturating_sub(from));
        [
            span(self.capture_ns, self.publish_ns),
            span(self.publish_ns, self.taken_ns),
            span(self.taken_ns, self.batched_ns),
            span(self.batched_ns, self.preprocessed_ns),
            span(self.inference_start_ns, self.inference_end_ns),
            span(self.inference_end_ns, self.decoded_ns),
            span(self.decoded_ns, self.result_ns),
            span(self.capture_ns, self.result_ns),
        ]
    }
}
