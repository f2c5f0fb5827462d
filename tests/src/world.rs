//! One test's own instance: folder, configuration, processes, and their end.

use crate::faults::shm_files;
use crate::process::{Process, binary, kill, target_folder, wait_until};
use framebus_bus::Domain;
use framebus_model::testing::TinyDetector;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tempfile::TempDir;

/// Environment variable by which every process of a world, grandchildren
/// included, is known in /proc.
const MARK: &str = "FRAMEBUS_TEST_WORLD";

/// Variables set for the processes of a world.
pub type Environment = Vec<(String, String)>;

/// A temporary folder with an instance of its own.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    root: PathBuf,
    instance: String,
    /// Lines for the configuration's `[bus]` table beside `root`.
    pub bus: String,
    /// Set for every process that is started.
    pub environment: Environment,
    domains: Mutex<Vec<Domain>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Makes an empty world. Its folder's path is short, because Unix sockets
    /// lie below it.
    ///
    /// # Panics
    /// When /tmp cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("a folder in /tmp");
        let name = folder.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        // Letter case is the only thing that could make two of them equal.
        let instance = format!("{}{}", name.replace('.', ""), std::process::id() % 1000);
        Self {
            root: folder.path().join("b"),
            folder,
            instance,
            bus: String::new(),
            environment: Vec::new(),
            domains: Mutex::new(Vec::new()),
        }
    }

    /// Makes an empty world whose bus folder is the user's default one, for
    /// programs that know no other.
    ///
    /// # Panics
    /// When /tmp cannot be written.
    #[must_use]
    pub fn in_default_root() -> Self {
        let mut world = Self::new();
        world.root = Domain::default_root();
        world
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `bus.root` of the world.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Instance name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("the world's folder is writable");
        path
    }

    /// Writes a tiny detector of coloured cells, see
    /// [`framebus_model::testing`].
    pub fn tiny_model(&self, classes: usize, size: Option<(usize, usize)>) -> PathBuf {
        let side = size.map_or_else(|| "free".to_owned(), |(h, w)| format!("{h}x{w}"));
        self.write(&format!("tiny{classes}-{side}.onnx"), TinyDetector::new(classes, size).build())
    }

    /// Writes `framebus.toml` with the world's instance and bus folder in front
    /// of `body`.
    pub fn config(&self, body: &str) -> PathBuf {
        let text = format!(
            "instance = {:?}\n[bus]\nroot = {:?}\n{}\n{body}",
            self.instance,
            self.root(),
            self.bus
        );
        self.write("framebus.toml", text)
    }

    /// The domain that the configuration describes; before one is written, the
    /// instance with default limits.
    ///
    /// # Panics
    /// When the configuration is wrong.
    #[must_use]
    pub fn domain(&self) -> Domain {
        let path = self.path("framebus.toml");
        let domain = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let lookup = |name: &str| {
                    let set = self.environment.iter().find(|(key, _)| key == name);
                    set.map(|(_, value)| value.clone())
                };
                let config = framebus_config::parse(&text, &path, &lookup)
                    .unwrap_or_else(|errors| panic!("{errors}"));
                framebus_service::domain(&config)
            }
            Err(_) => Domain::new(&self.instance, &self.root(), framebus_bus::Limits::default()),
        };
        let domain = domain.expect("short names make a domain");
        self.domains.lock().expect("no panic inside").push(domain.clone());
        domain
    }

    /// A command with the world's environment.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, program: &Path, args: &[S]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.folder())
            .env(MARK, self.folder())
            .env("TMPDIR", self.folder())
            // Models are prepared once for all tests, and nothing of the user's is
            // touched.
            .env("XDG_CACHE_HOME", target_folder().join("test-cache"))
            .env_remove("CACHE_DIRECTORY")
            .env_remove("FRAMEBUS_CONFIG")
            .env_remove("FRAMEBUS_LOG")
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Starts a program; `name` names its output files.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(&self, name: &str, program: &Path, args: &[S]) -> Process {
        Process::start(name, self.folder(), self.command(program, args))
    }

    /// Starts `framebus` with these arguments.
    #[must_use]
    pub fn framebus<S: AsRef<OsStr>>(&self, name: &str, args: &[S]) -> Process {
        self.start(name, &binary("framebus"), args)
    }

    /// Starts `framebus up`.
    #[must_use]
    pub fn up(&self, config: &Path) -> Process {
        self.framebus("up", &[OsStr::new("up"), OsStr::new("--config"), config.as_os_str()])
    }

    /// Processes of the world: number and command line.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.folder().display());
        let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| {
            let pid: u32 = e.file_name().to_str()?.parse().ok()?;
            let environ = std::fs::read(e.path().join("environ")).ok()?;
            let marked = environ.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes());
            marked.then_some((pid, e.path()))
        });
        numbers
            .filter_map(|(pid, path)| {
                let line = std::fs::read(path.join("cmdline")).ok()?;
                Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
            })
            .collect()
    }

    /// The process whose command line contains all of `words`.
    #[must_use]
    pub fn pid_of(&self, words: &[&str]) -> Option<u32> {
        self.processes()
            .into_iter()
            .find(|(_, line)| words.iter().all(|word| line.contains(word)))
            .map(|(pid, _)| pid)
    }

    /// Sends SIGKILL to a process of this world.
    ///
    /// # Panics
    /// When it is none of this world's.
    pub fn kill(&self, pid: u32) {
        assert!(self.signal(pid, Signal::KILL), "{pid} is no process of this test");
    }

    /// Sends a signal to a process of this world; false when it is none (any more).
    pub fn signal(&self, pid: u32, signal: Signal) -> bool {
        let own = self.processes().into_iter().any(|(found, _)| found == pid);
        if own {
            kill(pid, signal);
        }
        own
    }

    /// What the instance has in /dev/shm and in its bus folder.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut found: Vec<String> =
            shm_files(&self.domain()).keys().map(|name| format!("/dev/shm/{name}")).collect();
        if self.root().join(&self.instance).exists() {
            found.push(self.root().join(&self.instance).display().to_string());
        }
        found
    }

    /// Asserts that no process of the world runs.
    ///
    /// # Panics
    /// When one does, 10 s after the call.
    pub fn assert_ended(&self) {
        wait_until(&format!("the end of {:?}", self.processes()), 10, || {
            self.processes().is_empty().then_some(())
        });
    }

    /// Asserts that nothing of the instance runs or lies about. For tests whose
    /// own readers ended before the instance did: while a reader lives, nothing
    /// is removed.
    ///
    /// # Panics
    /// When something is left.
    pub fn assert_gone(&self) {
        self.assert_ended();
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    #[allow(clippy::print_stderr, reason = "the output of a test that fails")]
    fn show_logs(&self) {
        for entry in std::fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_log = path.extension().is_some_and(|end| end == "err" || end == "out");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if !is_log || text.is_empty() {
                continue;
            }
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(40);
            eprintln!("--- {} (last {} lines)", path.display(), lines.len() - from);
            for line in &lines[from..] {
                eprintln!("{}", line.chars().take(400).collect::<String>());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        // Until nothing is left: a supervisor may just be starting another one.
        for _ in 0..100 {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            for (pid, _) in processes {
                kill(pid, Signal::KILL);
            }
            #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        // A killed process is no longer in the list while the kernel still takes its
        // memory down, and holds its locks until that is done.
        let mut domains = self.domains.get_mut().map(std::mem::take).unwrap_or_default();
        domains.extend(Domain::new(&self.instance, &self.root(), framebus_bus::Limits::default()));
        for _ in 0..100 {
            for domain in &domains {
                let _ = domain.remove_leftovers();
            }
            if domains.iter().all(|domain| shm_files(domain).is_empty()) {
                break;
            }
            #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let left: Vec<String> =
            domains.iter().flat_map(|domain| shm_files(domain).into_keys()).collect();
        assert!(
            std::thread::panicking() || left.is_empty(),
            "a reader of the test's own outlives its world: {left:?}"
        );
    }
}
