//! Programs: found beside the tests, started, waited for, ended.

use crate::skip;
use framebus_service::clock;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Time between two looks of a wait.
const LOOK: Duration = Duration::from_millis(20);

/// Calls `look` until it answers, `deadline_s` at most.
///
/// # Panics
/// When the deadline has passed; `what` says what was waited for.
#[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
pub fn wait_until<T>(what: &str, deadline_s: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let end_ns = clock::monotonic_ns() + deadline_s * 1_000_000_000;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::monotonic_ns() < end_ns, "not within {deadline_s} s: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Where the programs of the profile lie that this test was built with.
pub(crate) fn target_folder() -> PathBuf {
    // target/<profile>/deps/<test>
    let own = std::env::current_exe().expect("the test knows its own file");
    let deps = own.parent().expect("a file lies in a folder");
    if deps.ends_with("deps") || deps.ends_with("examples") {
        deps.parent().expect("deps lies in the profile's folder").to_owned()
    } else {
        deps.to_owned()
    }
}

fn built(file: PathBuf) -> PathBuf {
    assert!(
        file.is_file(),
        "{} is missing; build first: cargo build --workspace --bins --examples (`make test` does)",
        file.display()
    );
    file
}

/// A program of the workspace, in the folder that this test was built into.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    built(target_folder().join(name))
}

/// An example of the workspace.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built(target_folder().join("examples").join(name))
}

/// Begin of a command that runs in a mount namespace of its own, whose
/// /dev/shm has `kib` KiB; program and arguments are to be added. `None`, after
/// saying SKIPPED, where that is not allowed.
///
/// # Panics
/// When it is not allowed and `FRAMEBUS_REQUIRE_ASSETS=1`.
#[must_use]
pub fn with_shm(kib: u64) -> Option<Command> {
    with_tmpfs(Path::new("/dev/shm"), kib)
}

/// As [`with_shm`], for a small disk of the command's own at `folder`.
///
/// # Panics
/// When it is not allowed and `FRAMEBUS_REQUIRE_ASSETS=1`.
#[must_use]
pub fn with_tmpfs(folder: &Path, kib: u64) -> Option<Command> {
    let can = || {
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none"]);
        probe.arg(folder).output()
    };
    match can() {
        Ok(output) if output.status.success() => {}
        other => {
            skip(&format!("a mount namespace needs root and `unshare`: {other:?}"));
            return None;
        }
    }
    let mut command = Command::new("unshare");
    let script =
        format!(r#"mount -t tmpfs -o size={kib}k none '{}' && exec "$0" "$@""#, folder.display());
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    Some(command)
}

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Exit {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

/// A running program whose output goes to files; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    exit: Option<(Option<i32>, Option<i32>)>,
}

impl Process {
    /// Starts `command`; output goes to `folder/<name>.out` and `.err`.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Self {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        let create = |path: &Path| File::create(path).expect("output file can be made");
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { name: name.to_owned(), child, stdout, stderr, exit: None }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the kernel does not know the child, which would be a fault here.
    pub fn is_running(&mut self) -> bool {
        if self.exit.is_none() {
            let status = self.child.try_wait().expect("own child can be waited for");
            self.exit = status.map(|status| (status.code(), status.signal()));
        }
        self.exit.is_none()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has ended already.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{} has ended: {}", self.name, self.stderr());
        kill(self.pid(), signal);
    }

    /// Waits for the end, `deadline_s` at most.
    ///
    /// # Panics
    /// When it still runs then.
    pub fn wait(&mut self, deadline_s: u64) -> Exit {
        let name = self.name.clone();
        let (code, signal) = wait_until(&format!("the end of {name}"), deadline_s, || {
            if self.is_running() { None } else { self.exit }
        });
        Exit { code, signal, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Waits until standard output contains `text` and returns the output.
    ///
    /// # Panics
    /// When the text does not come, or the process ends without it.
    pub fn wait_for_stdout(&mut self, text: &str, deadline_s: u64) -> String {
        let what = format!("{text:?} from {}", self.name);
        wait_until(&what, deadline_s, || {
            let running = self.is_running();
            let output = self.stdout();
            if output.contains(text) {
                return Some(output);
            }
            assert!(running, "{} ended without {text:?}:\n{output}{}", self.name, self.stderr());
            None
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end between the look and the kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Signals a process by its number; one that is gone is no fault.
pub(crate) fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
