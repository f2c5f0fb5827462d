//! What lies in shared memory, and nothing else.
//!
//! Every type here is `repr(C)`, made of fixed-width integers and `f32` only,
//! with its reserved bytes spelled out, so that a Python or C reader can
//! describe it field by field. Enumerations travel as `u32` and are read with a
//! checked `TryFrom`. iceoryx2 compares only name, size and alignment when two
//! processes connect; therefore each type carries a versioned name of its own,
//! and **any change of a layout is a new version**, from the first release on (until
//! then version 1 may still change, and all processes come from one build). Reserved
//! bytes are zero; where some get a meaning in which zero says "nothing", readers and
//! writers of either age understand each other, and the version stays.
//! `tests/layout.golden` holds the offsets of every field.
//!
//! ```
//! use framebus_types::{FrameHeader, Outcome, ResultHeader};
//! let result = ResultHeader { outcome: Outcome::Ok as u32, ..ResultHeader::default() };
//! assert_eq!(Outcome::try_from(result.outcome), Ok(Outcome::Ok));
//! assert_eq!(size_of::<FrameHeader>() % 64, 0);
//! ```

mod code;
mod event;
mod frame;
mod health;
pub mod histogram;
mod packet;
mod result;
pub mod text;

pub use code::{
    ChromaSite, Codec, ColourMatrix, ColourRange, Direction, EventKind, Fourcc, Outcome, Reason,
    Role, State, UnknownCode,
};
pub use event::Event;
pub use frame::{
    FLAG_BLURRED, FLAG_CORRUPT, FLAG_DISCONTINUITY, FLAG_FROZEN, FLAG_LATE, FLAG_MOTION,
    FLAG_MOTION_MEASURED, FLAG_PICTURE_FAULT, FLAG_TIME_JUMP, FLAG_UNIFORM, FrameHeader,
    MAX_PLANES, PICTURE_FAULTS,
};
pub use health::{COUNTERS, Counter, Health, Histogram, STAGES, Stage};
pub use packet::{PACKET_DISCONTINUITY, PACKET_KEY, PacketHeader};
pub use result::{Detection, ResultHeader, ServerTimes, StageTimes};

/// Value of the `version` field of every header of this crate's layouts.
pub const VERSION: u32 = 1;
