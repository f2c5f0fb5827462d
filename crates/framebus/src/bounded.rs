//! Programs that are asked something and answer within a bound.

use framebus_service::{Shutdown, clock};
use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Time between two looks at a program.
const LOOK: Duration = Duration::from_millis(20);
/// Longer output is cut.
const OUTPUT_MAX: u64 = 16 * 1024 * 1024;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end, kills it after `bound`. The error is one sentence.
pub(crate) fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    bound: Duration,
) -> Result<Answer, String> {
    run_with(program, args, &[], bound)
}

/// As [`run`], with more in its environment.
pub(crate) fn run_with<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    environment: &[(String, String)],
    bound: Duration,
) -> Result<Answer, String> {
    let program = program.as_ref();
    let name = program.to_string_lossy().into_owned();
    let mut child = Command::new(program)
        .args(args)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name} cannot be started: {error}"))?;
    let (stdout, stderr) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let deadline_ns = clock::monotonic_ns() + bound.as_nanos() as u64;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if clock::monotonic_ns() < deadline_ns => {}
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} did not answer within {} s", bound.as_secs()));
            }
        }
        let _ = Shutdown::new().wait(LOOK);
    }
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Answer { stdout: text(stdout), stderr: text(stderr) })
}

fn listen(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(OUTPUT_MAX).read_to_end(&mut bytes);
            // The rest is thrown away: a full pipe would keep the program from ending.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_their_absence() {
        let bound = Duration::from_secs(20);
        let answer = run("sh", &["-c", "echo a; echo b >&2; exit 3"], bound).expect("sh");
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("a\n", "b\n"));
        let error = run("no-such-program", &["x"], bound).expect_err("not there");
        assert!(error.starts_with("no-such-program cannot be started"), "{error}");
        let error = run("sleep", &["30"], Duration::from_millis(50)).expect_err("too slow");
        assert_eq!(error, "sleep did not answer within 0 s");
    }
}
