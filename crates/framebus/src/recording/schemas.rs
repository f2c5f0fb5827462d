//! Schemas of the messages (`ros2msg`: the fields, then the types that they name).
//!
//! The names and fields of `foxglove_msgs` are those that Foxglove shows.

/// A schema by name and text.
pub(super) type Schema = (&'static str, &'static str);

pub(super) const RAW_IMAGE: Schema = (
    "foxglove_msgs/msg/RawImage",
    "\
builtin_interfaces/Time timestamp
string frame_id
uint32 width
uint32 height
string encoding
uint32 step
uint8[] data
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
",
);

pub(super) const COMPRESSED_IMAGE: Schema = (
    "foxglove_msgs/msg/CompressedImage",
    "\
builtin_interfaces/Time timestamp
string frame_id
uint8[] data
string format
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
",
);

pub(super) const ANNOTATIONS: Schema = (
    "foxglove_msgs/msg/ImageAnnotations",
    "\
foxglove_msgs/CircleAnnotation[] circles
foxglove_msgs/PointsAnnotation[] points
foxglove_msgs/TextAnnotation[] texts
================================================================================
MSG: foxglove_msgs/CircleAnnotation
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
float64 diameter
float64 thickness
foxglove_msgs/Color fill_color
foxglove_msgs/Color outline_color
================================================================================
MSG: foxglove_msgs/PointsAnnotation
uint8 LINE_LOOP=2
builtin_interfaces/Time timestamp
uint8 type
foxglove_msgs/Point2[] points
foxglove_msgs/Color outline_color
foxglove_msgs/Color[] outline_colors
foxglove_msgs/Color fill_color
float64 thickness
================================================================================
MSG: foxglove_msgs/TextAnnotation
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
string text
float64 font_size
foxglove_msgs/Color text_color
foxglove_msgs/Color background_color
================================================================================
MSG: foxglove_msgs/Point2
float64 x
float64 y
================================================================================
MSG: foxglove_msgs/Color
float64 r
float64 g
float64 b
float64 a
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
",
);

/// `framebus_types::FrameHeader`.
pub(super) const FRAME: Schema = (
    "framebus/msg/FrameHeaderV1",
    "\
uint32 version
uint32 flags
uint8[32] camera
uint64 epoch_ns
uint64 sequence
uint64 capture_ns
uint64 wall_ns
uint64 pts_ns
uint64 publish_ns
uint32 width
uint32 height
uint32 fourcc
uint32 matrix
uint32 range
uint32 chroma_site
uint32[4] strides
uint32[4] offsets
float32 motion
uint32 segment
uint8[40] reserved
",
);

/// `framebus_types::ResultHeader`, four bytes that align what follows, and the detections.
pub(super) const RESULT: Schema = (
    "framebus/msg/ResultV1",
    "\
uint32 version
uint32 outcome
uint32 reason
uint32 count
uint32 truncated
uint32 extra
uint8[32] camera
uint64 epoch_ns
uint64 sequence
uint64 result_sequence
uint64 result_epoch_ns
uint64 wall_ns
uint64 pts_ns
uint64 capture_ns
uint64 publish_ns
uint64 taken_ns
uint64 batched_ns
uint64 preprocessed_ns
uint64 inference_start_ns
uint64 inference_end_ns
uint64 decoded_ns
uint64 result_ns
uint32 width
uint32 height
uint32 batch_size
uint32 flags
uint8[48] model
uint8[16] backend
uint8[128] message
uint32 context
uint8[4] gap
uint64 server_request
uint32 server_serialise_us
uint32 server_receive_us
uint32 server_queue_us
uint32 server_compute_input_us
uint32 server_compute_us
uint32 server_compute_output_us
uint32 server_sent_bytes
uint32 server_received_bytes
uint8[16] reserved
uint32 padding
framebus/DetectionV1[] detections
================================================================================
MSG: framebus/DetectionV1
float32[4] bbox
float32 score
uint32 class_id
uint64 track
uint64 zones
float32 angle
uint32 extra_offset
uint32 extra_len
uint32 reserved
uint8[40] label
",
);
