//! Names: they become parts of bus service names, file names and metric labels, hence the small
//! alphabet and the byte limits.

use std::fmt;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{allowed}")]
pub struct NameError {
    allowed: String,
}

/// What a name may look like, in words: a part of error messages.
pub(crate) fn allowed(max_bytes: usize) -> String {
    format!(
        "must be 1 to {max_bytes} characters: lowercase letters, digits, \"-\" and \"_\", \
         beginning with a letter or digit"
    )
}

pub(crate) fn is_valid(text: &str, max_bytes: usize) -> bool {
    let head = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= max_bytes
        && text.bytes().next().is_some_and(head)
        && text.bytes().all(|b| head(b) || b == b'-' || b == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The longest name in bytes.
            pub const MAX_BYTES: usize = $max;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                if is_valid(text, Self::MAX_BYTES) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { allowed: allowed(Self::MAX_BYTES) })
                }
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name!(
    /// Separates installations on one machine: `[a-z0-9][a-z0-9_-]*`, at most 24 bytes.
    InstanceName,
    24
);
name!(
    /// A camera: `[a-z0-9][a-z0-9_-]*`, at most 31 bytes (it travels in shared memory).
    CameraName,
    31
);
name!(
    /// A sink: `[a-z0-9][a-z0-9_-]*`, at most 31 bytes.
    SinkName,
    31
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_small_alphabet_and_a_length() {
        for good in ["a", "0", "front-door_2", &"a".repeat(31)] {
            assert_eq!(CameraName::try_from(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "_a", "A", "a b", "a/b", "ä", "a.b", &"a".repeat(32)] {
            assert!(CameraName::try_from(bad).is_err(), "{bad}");
        }
        assert!(InstanceName::try_from("a".repeat(24).as_str()).is_ok());
        assert!(InstanceName::try_from("a".repeat(25).as_str()).is_err());
    }
}
