//! Standard output and standard error that may be pipes whose readers have gone.

use framebus_service::{Failure, Kind};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The reader of standard output has gone: no error, there is just nobody left
/// to talk to.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct ReaderGone;

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failure)
}

/// Prints one line.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failure)
}

/// Says something beside the output, on standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The failure that a write to standard output is.
pub(crate) fn failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Kind::Unavailable, ReaderGone);
    }
    let error = anyhow::Error::new(error).context("cannot write to standard output");
    Failure { kind: Kind::Unavailable, error }
}

/// Says why a command failed and makes its exit code.
pub(crate) fn exit_code(result: Result<ExitCode, Failure>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(failure) if failure.error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(failure) => {
            note(format_args!("framebus: {failure}"));
            failure.exit_code()
        }
    }
}

pub(crate) use framebus_types::text::plain;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_is_no_error() {
        let gone = failure(io::ErrorKind::BrokenPipe.into());
        assert!(gone.error.is::<ReaderGone>());
        let full = failure(io::ErrorKind::StorageFull.into());
        assert!(!full.error.is::<ReaderGone>());
        assert!(full.to_string().starts_with("cannot write to standard output: "));
    }
}
