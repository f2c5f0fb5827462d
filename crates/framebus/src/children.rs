//! Child processes: found, started, listened to, stopped within a bound.

use framebus_service::{Failure, Kind, SUPERVISED_ENV, Shutdown, clock};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of a child that are kept to explain its death.
const TAIL_LINES: usize = 40;
/// A longer line is cut: a child that prints without end must not fill memory.
const LINE_MAX: u64 = 16 * 1024;
/// Time between two looks at children that are being stopped.
const LOOK: Duration = Duration::from_millis(10);

/// Takes the lines that children print on standard error: name, line.
pub(crate) type OnLine = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The program `name`, beside this one or in PATH.
pub(crate) fn find(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
        .ok_or_else(|| {
            let beside = own.map_or_else(String::new, |own| format!("beside framebus in {} ", own.display()));
            Failure::message(
                Kind::Unavailable,
                format_args!("the program {name} is missing: it is neither {beside}nor in PATH; install all framebus programs into one folder"),
            )
        })
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A running child. Dropping it kills it, for the paths that end in an error;
/// [`Child::finish`] is the orderly way.
pub(crate) struct Child {
    process: std::process::Child,
    /// The child stops when this closes: so it does when this process is killed,
    /// which runs no destructor.
    stdin: Option<ChildStdin>,
    tail: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    started_ns: u64,
}

impl Child {
    /// Starts a child in a process group of its own, so that Ctrl-C on the
    /// terminal reaches only this process, which then stops its children in order.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[OsString],
        stdout: Stdio,
        on_line: OnLine,
    ) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| Failure {
            kind: Kind::Unavailable,
            error: anyhow::Error::new(error)
                .context(format!("cannot {what} {}", program.display())),
        };
        let mut process = Command::new(program)
            .args(args)
            .env(SUPERVISED_ENV, "1")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| failed("start", error))?;
        // Taken out, because waiting for a child closes the one that it holds.
        let stdin = process.stdin.take();
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let reader = match process.stderr.take() {
            Some(stderr) => {
                let (name, tail) = (name.to_owned(), tail.clone());
                let thread = std::thread::Builder::new().name(format!("log {name}"));
                Some(
                    thread
                        .spawn(move || listen(&name, stderr, &tail, &on_line))
                        .map_err(|error| failed("listen to", error))?,
                )
            }
            None => None,
        };
        Ok(Self { process, stdin, tail, reader, started_ns: clock::monotonic_ns() })
    }

    /// Its standard output, once, where it was started with a pipe.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line to its standard input; one that has ended does not hear it.
    pub(crate) fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
    }

    /// When it was started, CLOCK_MONOTONIC.
    pub(crate) fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// How it ended, once it has.
    pub(crate) fn exited(&mut self) -> Option<Exit> {
        let status = self.process.try_wait().ok().flatten()?;
        // Its last words are in the pipe; they end with the process, unless it
        // left a process of its own behind.
        if let Some(reader) = self.reader.take() {
            for _ in 0..50 {
                if reader.is_finished() {
                    break;
                }
                let _ = Shutdown::new().wait(LOOK);
            }
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Exit { status, last_error: last_error(&tail) })
    }

    /// Asks it to stop. Its standard input stays open until it is gone: the end
    /// of that is a second wish to stop, and a second wish aborts.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Tells it that the configuration has changed.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends it, also when it is stopped or hangs.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Not reaped yet, hence the number is still this child's.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }

    /// Waits until it ends; kills it after `bound`.
    pub(crate) fn finish(&mut self, bound: Duration, mut meanwhile: impl FnMut()) -> (Exit, bool) {
        let deadline = clock::monotonic_ns() + bound.as_nanos() as u64;
        let mut killed = false;
        loop {
            if let Some(exit) = self.exited() {
                return (exit, killed);
            }
            if !killed && clock::monotonic_ns() >= deadline {
                self.signal(Signal::KILL);
                killed = true;
            }
            meanwhile();
            let _ = Shutdown::new().wait(LOOK);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.process.try_wait().ok().flatten().is_none() {
            self.signal(Signal::KILL);
            let _ = self.process.wait();
        }
    }
}

/// Stops several children at once, within one bound. Returns those that had to
/// be killed.
pub(crate) fn stop_all<'a>(
    children: impl Iterator<Item = (&'a str, &'a mut Child)>,
    bound: Duration,
    mut meanwhile: impl FnMut(),
) -> Vec<String> {
    let mut children: Vec<_> = children.collect();
    children.iter_mut().for_each(|(_, child)| child.terminate());
    let deadline = clock::monotonic_ns() + bound.as_nanos() as u64;
    let mut late = Vec::new();
    for (name, child) in children {
        let left = Duration::from_nanos(deadline.saturating_sub(clock::monotonic_ns()));
        let (_, killed) = child.finish(left, &mut meanwhile);
        if killed {
            late.push(name.to_owned());
        }
    }
    late
}

fn listen(name: &str, stderr: impl Read, tail: &Mutex<VecDeque<String>>, on_line: &OnLine) {
    let mut stderr = BufReader::new(stderr);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut stderr).take(LINE_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let mut lines = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
        drop(lines);
        on_line(name, line);
    }
}

/// For children of a private instance: they say nothing but the reason of their end,
/// except when asked to.
pub(crate) fn quiet() -> OnLine {
    let loud = std::env::var_os("FRAMEBUS_LOG").is_some();
    Arc::new(move |name, line| {
        if loud {
            crate::out::note(format_args!("[{name}] {line}"));
        }
    })
}

const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// Level and message of the first line of a log entry. Text entries are
/// `[TIME] LEVEL message`, JSON entries are objects.
fn entry(line: &str) -> Option<(&str, String)> {
    if line.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = LEVELS.into_iter().find(|level| json["level"] == *level)?;
        return Some((level, json["message"].as_str().unwrap_or_default().to_owned()));
    }
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    let time = first.starts_with(|c: char| c.is_ascii_digit());
    let level = if time { words.next()? } else { first };
    let level = LEVELS.into_iter().find(|known| *known == level)?;
    let at = line.find(level)? + level.len();
    Some((level, line[at..].trim_start().to_owned()))
}

/// Whether a line says that all is well.
pub(crate) fn is_chatter(line: &str) -> bool {
    entry(line).is_some_and(|(level, _)| matches!(level, "INFO" | "DEBUG" | "TRACE"))
}

/// The last error in a log: what follows `ERROR`, with the lines that belong to
/// it; otherwise the last line.
fn last_error(lines: &VecDeque<String>) -> Option<String> {
    let mut found: Option<String> = None;
    let mut inside = false;
    for line in lines {
        match entry(line) {
            Some(("ERROR", message)) => {
                found = Some(message);
                inside = true;
            }
            Some(_) => inside = false,
            None if inside => {
                if let Some(found) = &mut found {
                    found.push('\n');
                    found.push_str(line);
                }
            }
            None => {}
        }
    }
    found.or_else(|| lines.back().filter(|line| entry(line).is_none()).cloned())
}

/// How a child ended.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    status: ExitStatus,
    /// The last error that it printed.
    pub(crate) last_error: Option<String>,
}

impl Exit {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }

    /// The kind that the exit code stands for.
    pub(crate) fn kind(&self) -> Kind {
        match self.code() {
            Some(78) => Kind::Config,
            Some(75) => Kind::Changed,
            Some(69) => Kind::Unavailable,
            Some(64) => Kind::Usage,
            _ => Kind::Bug,
        }
    }

    /// `exit code 69 (something needed is unavailable)`, `killed by SIGKILL`.
    pub(crate) fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => {
                let meaning = match code {
                    0 => " (ended by itself)",
                    64 => " (wrong arguments)",
                    69 => " (something needed is unavailable)",
                    70 | 101 => " (a bug)",
                    75 => " (its configuration changed)",
                    78 => " (configuration)",
                    _ => "",
                };
                format!("exit code {code}{meaning}")
            }
            (None, Some(signal)) => {
                format!("killed by {}", signal_name(signal))
            }
            (None, None) => "ended".to_owned(),
        }
    }

    /// Its own words where it had some, otherwise how it ended.
    pub(crate) fn reason(&self) -> String {
        match &self.last_error {
            Some(error) if !self.success() && self.status.signal().is_none() => error.clone(),
            _ => self.how(),
        }
    }
}

fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 10] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS (is /dev/shm full?)"),
        (8, "SIGFPE"),
        (9, "SIGKILL (out of memory?)"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
    ];
    let known = NAMES.iter().find(|(n, _)| *n == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> VecDeque<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_last_error_is_found_in_every_log_format() {
        let text = "2026-11-22T10:00:00.0Z  INFO live\n2026-11-22T10:00:01.0Z ERROR infer: no library\n\
                    searched: /a\nsearched: /b\n2026-11-22T10:00:02.0Z  INFO bye";
        assert_eq!(
            last_error(&lines(text)).as_deref(),
            Some("infer: no library\nsearched: /a\nsearched: /b")
        );
        assert_eq!(last_error(&lines("ERROR a: b\nWARN c")).as_deref(), Some("a: b"));
        let json = r#"{"timestamp":"t","level":"ERROR","message":"infer: gone"}"#;
        assert_eq!(last_error(&lines(json)).as_deref(), Some("infer: gone"));
        assert_eq!(last_error(&lines("error: bad flag")).as_deref(), Some("error: bad flag"));
        assert_eq!(last_error(&lines("INFO fine")), None);
        assert_eq!(last_error(&lines("")), None);
        assert!(is_chatter("2026-11-22T10:00:00.0Z  INFO live"));
        assert!(!is_chatter("WARN x") && !is_chatter("panicked: INFO"));
    }

    fn shell(script: &str) -> Child {
        let args = ["-c".into(), script.into()];
        Child::start("sh", Path::new("/bin/sh"), &args, Stdio::null(), Arc::new(|_, _| {}))
            .expect("sh starts")
    }

    #[test]
    fn exit_code_and_last_words_are_kept() {
        let mut child = shell("echo 'ERROR x: no such camera' >&2; exit 69");
        let (exit, killed) = child.finish(Duration::from_secs(20), || {});
        assert!(!killed);
        assert_eq!((exit.kind(), exit.code()), (Kind::Unavailable, Some(69)));
        assert_eq!(exit.reason(), "x: no such camera");
        assert_eq!(exit.how(), "exit code 69 (something needed is unavailable)");
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed() {
        let mut child = shell("trap '' TERM; echo ready >&2; while :; do sleep 0.05; done");
        for _ in 0..500 {
            if !child.tail.lock().expect("no panic").is_empty() {
                break;
            }
            let _ = Shutdown::new().wait(LOOK);
        }
        let late = stop_all([("sh", &mut child)].into_iter(), Duration::from_millis(100), || {});
        assert_eq!(late, ["sh"]);
    }

    #[test]
    fn standard_input_stays_open_while_a_child_stops() {
        let mut child =
            shell("exec 3<&0; trap 'kill $!; exit 4' TERM; cat <&3 & echo ready >&2; wait; exit 3");
        for _ in 0..500 {
            if !child.tail.lock().expect("no panic").is_empty() {
                break;
            }
            let _ = Shutdown::new().wait(LOOK);
        }
        child.terminate();
        let (exit, killed) = child.finish(Duration::from_secs(20), || {});
        assert!(!killed);
        assert_eq!(exit.code(), Some(4), "3 is the end of standard input");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = find("framebus-no-such-program").expect_err("not there");
        assert!(error.to_string().contains("framebus-no-such-program is missing"), "{error}");
    }
}
