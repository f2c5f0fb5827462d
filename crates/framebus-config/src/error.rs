//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One thing that is wrong. `Display` is one line:
/// `file:line:column: key = value: what is allowed; did you mean "…"?`
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConfigError {
    /// The configuration file, as it was named.
    pub file: PathBuf,
    /// Line and column, both from 1, the column in characters; `None` when the file could not be read.
    pub position: Option<(usize, usize)>,
    /// Key path such as `camera[front].fps`; empty when the file as a whole is meant.
    pub key: String,
    /// The value as written, credentials masked.
    pub value: Option<String>,
    /// What is allowed, or what to do.
    pub message: String,
    /// The nearest key or word that would have been right.
    pub suggestion: Option<String>,
    /// The error of the operating system, if one is behind it.
    pub source: Option<Arc<io::Error>>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Never empty.
#[derive(Debug, Clone)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `errors` in the order of the file, the same error only once; `None` if there is none.
    pub fn new(mut errors: Vec<ConfigError>) -> Option<Self> {
        // Stable: at one place, the order in which they were found.
        errors.sort_by_key(|error| error.position);
        errors.dedup_by_key(|error| error.to_string());
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            writeln!(f, "{error}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl std::error::Error for ConfigErrors {
    /// The operating system's reason when the file could not be read; the single errors are
    /// part of `Display`.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.first().and_then(std::error::Error::source)
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
