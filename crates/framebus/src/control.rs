//! How `framebus reload` speaks with `framebus up`: over a socket in the instance's
//! folder, which only the instance's user can enter. Connecting is the question; the
//! answer is one JSON object.

use framebus_bus::Domain;
use framebus_service::{Failure, Kind};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// Reading a model and checking files takes well under a second; a machine that pages
/// takes longer.
const ANSWER: Duration = Duration::from_secs(30);
/// An answer is short, and a client that does not read it is not waited for.
const SEND: Duration = Duration::from_millis(200);
/// No answer is longer.
const ANSWER_MAX: u64 = 1 << 20;

fn socket(domain: &Domain) -> PathBuf {
    domain.folder().join("up.sock")
}

/// Takes questions.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
}

impl Control {
    /// Listens; to be called by the one supervisor of the instance, as what is left of
    /// the one before is removed.
    pub(crate) fn listen(domain: &Domain) -> io::Result<Self> {
        let path = socket(domain);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Somebody who waits for an answer.
    pub(crate) fn asked(&self) -> Option<UnixStream> {
        self.listener.accept().ok().map(|(stream, _)| stream)
    }
}

/// Answers; one who does not wait for it misses it.
pub(crate) fn answer(mut stream: UnixStream, value: &Value) {
    let sent = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(SEND)))
        .and_then(|()| stream.write_all(value.to_string().as_bytes()));
    if let Err(error) = sent {
        tracing::warn!(%error, "the answer to a reload was not taken");
    }
}

/// Asks the supervisor of an instance to reload; `None` when there is none.
pub(crate) fn ask(domain: &Domain) -> Result<Option<Value>, Failure> {
    let path = socket(domain);
    let unanswered = |error: io::Error| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error).context(format!(
            "framebus up did not answer on {}; what it says stands where it runs",
            path.display()
        )),
    };
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unanswered(error)),
    };
    stream.set_read_timeout(Some(ANSWER)).map_err(unanswered)?;
    let mut text = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut text).map_err(unanswered)?;
    serde_json::from_str(&text).map(Some).map_err(|error| unanswered(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_bus::Limits;
    use serde_json::json;

    #[test]
    fn a_question_is_answered_and_a_dead_supervisor_is_none() {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let domain = Domain::new("a", root.path(), Limits::default()).expect("valid");
        std::fs::create_dir(domain.folder()).expect("folder");
        assert!(ask(&domain).expect("no error").is_none(), "never ran");
        let control = Control::listen(&domain).expect("listens");
        assert!(control.asked().is_none());
        let asking = domain.clone();
        let client = std::thread::spawn(move || ask(&asking));
        let stream = loop {
            if let Some(stream) = control.asked() {
                break stream;
            }
            let _ = framebus_service::Shutdown::new().wait(Duration::from_millis(5));
        };
        answer(stream, &json!({"ok": true}));
        let said = client.join().expect("no panic").expect("answered");
        assert_eq!(said, Some(json!({"ok": true})));
        drop(control);
        assert!(ask(&domain).expect("no error").is_none(), "the socket alone is nobody");
        Control::listen(&domain).expect("what is left is no obstacle");
    }
}
