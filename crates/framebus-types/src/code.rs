//! Enumerations as they travel: `u32`, read with a checked conversion.

use std::fmt;

/// A code that this version does not know: from a newer process, or garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} code {code}")]
pub struct UnknownCode {
    /// Which enumeration.
    pub what: &'static str,
    /// The number that was read.
    pub code: u32,
}

/// Declares an enumeration with its wire codes and its lower-case names.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$vmeta:meta])* $variant:ident = $code:expr => $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)+ }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name as printed in logs, tables and JSON.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self { value as Self }
        }

        impl TryFrom<u32> for $name {
            type Error = UnknownCode;
            fn try_from(code: u32) -> Result<Self, UnknownCode> {
                match code { $(x if x == Self::$variant as u32 => Ok(Self::$variant),)+ _ => Err(UnknownCode { what: $what, code }) }
            }
        }
    };
}

codes! {
    /// Pixel format; the code is the FourCC, little endian.
    Fourcc, "pixel format" {
        /// 8-bit luma plane, then interleaved Cb, Cr at half resolution.
        Nv12 = u32::from_le_bytes(*b"NV12") => "NV12",
        /// Interleaved 8-bit R, G, B.
        Rgb24 = u32::from_le_bytes(*b"RGB3") => "RGB24",
    }
}

codes! {
    /// YCbCr matrix (ITU-T H.273).
    ColourMatrix, "colour matrix" {
        /// ITU-R BT.601.
        Bt601 = 0 => "bt601",
        /// ITU-R BT.709.
        Bt709 = 1 => "bt709",
        /// ITU-R BT.2020, non-constant luminance.
        Bt2020 = 2 => "bt2020",
    }
}

codes! {
    /// Sample range.
    ColourRange, "colour range" {
        /// Y in 16..=235.
        Limited = 0 => "limited",
        /// Y in 0..=255.
        Full = 1 => "full",
    }
}

codes! {
    /// Horizontal position of 4:2:0 chroma samples.
    ChromaSite, "chroma site" {
        /// With the left luma sample (MPEG-2, H.264).
        Left = 0 => "left",
        /// Between two luma samples (JPEG).
        Center = 1 => "center",
    }
}

codes! {
    /// What became of a frame that reached the inference process.
    Outcome, "outcome" {
        /// Inferred; the detections are the answer, also when there are none.
        Ok = 1 => "ok",
        /// Not inferred, by policy; [`Reason`] says which.
        Skipped = 2 => "skipped",
        /// Not inferred because it came too late or a newer one was there.
        Dropped = 3 => "dropped",
        /// Inference failed; the message says why. Never "nothing was seen".
        Failed = 4 => "failed",
    }
}

codes! {
    /// Why a frame was not inferred.
    Reason, "reason" {
        /// It was.
        None = 0 => "",
        /// A newer frame of the camera replaced it before an engine was free.
        Superseded = 1 => "superseded",
        /// Older than the camera's `max_age_ms`.
        Stale = 2 => "stale",
        /// The process is stopping.
        Stopping = 3 => "stopping",
        /// The frame's header contradicts its payload.
        BadFrame = 4 => "bad frame",
        /// The engine failed.
        Engine = 5 => "engine",
        /// Nothing moved (motion gate).
        Motion = 6 => "motion",
    }
}

codes! {
    /// What an event says.
    EventKind, "event" {
        /// An object has been found often enough to be one.
        Appear = 1 => "appear",
        /// It has not been found for so long that it is gone.
        Disappear = 2 => "disappear",
        /// It came into a zone.
        Enter = 3 => "enter",
        /// It left a zone, or disappeared in it.
        Leave = 4 => "leave",
        /// It has been in a zone for the zone's `dwell_s`.
        Dwell = 5 => "dwell",
        /// It crossed a line.
        Cross = 6 => "cross",
    }
}

codes! {
    /// Which way a line was crossed, as seen by who looks from its first end to its second.
    Direction, "direction" {
        /// Does not apply.
        None = 0 => "",
        /// From left to right.
        Forward = 1 => "forward",
        /// From right to left.
        Backward = 2 => "backward",
    }
}

codes! {
    /// How a packet is compressed.
    Codec, "codec" {
        /// H.264 (ISO/IEC 14496-10).
        H264 = 1 => "h264",
        /// H.265 (ISO/IEC 23008-2).
        H265 = 2 => "h265",
    }
}

codes! {
    /// Which kind of process a health record speaks of.
    Role, "role" {
        /// A capture process; the name is the camera's.
        Capture = 1 => "capture",
        /// The inference process as a whole.
        Infer = 2 => "infer",
        /// One camera as the inference process sees it.
        InferCamera = 3 => "infer-camera",
        /// A sink process; the name is the sink's.
        Sink = 4 => "sink",
        /// The supervisor `framebus up`; one record per child.
        Child = 5 => "child",
    }
}

codes! {
    /// State of a camera or process.
    State, "state" {
        /// Not yet delivering.
        Starting = 1 => "starting",
        /// Delivering.
        Live = 2 => "live",
        /// Delivering, with a fault.
        Degraded = 3 => "degraded",
        /// Connected, but nothing comes.
        Stalled = 4 => "stalled",
        /// Not connected.
        Offline = 5 => "offline",
        /// Switched off in the configuration.
        Disabled = 6 => "disabled",
        /// The file or pipeline came to its end.
        Ended = 7 => "ended",
        /// Asked to stop, finishing.
        Stopping = 8 => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_are_errors() {
        assert_eq!(Outcome::try_from(0), Err(UnknownCode { what: "outcome", code: 0 }));
        assert_eq!(Fourcc::try_from(u32::from_le_bytes(*b"NV12")), Ok(Fourcc::Nv12));
        for state in State::ALL {
            assert_eq!(State::try_from(u32::from(*state)), Ok(*state));
        }
    }
}
