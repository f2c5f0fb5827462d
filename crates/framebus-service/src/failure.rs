//! Errors at the boundary of a process: what kind decides what happens.

use std::fmt;
use std::process::ExitCode;

/// What kind of error ended a process; the exit code says it to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong arguments: 64 (EX_USAGE).
    Usage,
    /// Something that is needed is not there, now: 69 (EX_UNAVAILABLE). Trying
    /// again may help.
    Unavailable,
    /// A bug of ours: 70 (EX_SOFTWARE).
    Bug,
    /// Nothing is wrong: what this process does has changed in the configuration, and
    /// it is to be started again at once: 75 (EX_TEMPFAIL).
    Changed,
    /// The configuration, or a file that it names, is wrong: 78 (EX_CONFIG).
    /// Trying again does not help.
    Config,
}

impl Kind {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Changed => 75,
            Self::Config => 78,
        }
    }
}

/// An error with its kind.
#[derive(Debug)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// What happened, with its causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// Wraps an error.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into() }
    }

    /// Makes an error of a sentence.
    pub fn message(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, error: anyhow::anyhow!("{message}") }
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    /// The whole chain in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<framebus_bus::BusError> for Failure {
    fn from(error: framebus_bus::BusError) -> Self {
        let kind = match error {
            framebus_bus::BusError::Domain { .. } => Kind::Config,
            _ => Kind::Unavailable,
        };
        Self::new(kind, error)
    }
}

/// Gives an error its kind.
pub trait OrFail<T> {
    /// Marks the error.
    ///
    /// # Errors
    /// The same error, as a [`Failure`].
    fn or_fail(self, kind: Kind) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, kind: Kind) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(kind, error))
    }
}
