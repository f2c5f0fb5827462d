//! A real Triton server on loopback, or somewhere else, as long as a test needs it.

use crate::process::kill;
use crate::{Process, World, asset, repository, skip, wait_until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seconds that a server has to load its models, on a busy machine too.
const START_S: u64 = 90;
/// What the server prints once it listens.
const STARTED: &str = "Started GRPCInferenceService";

/// A Triton server with models of its own; killed when dropped.
#[derive(Debug)]
pub struct TritonServer<'a> {
    world: &'a World,
    address: String,
    port: u16,
    command: Vec<String>,
    process: Process,
    starts: u32,
    pids: Vec<u32>,
}

impl<'a> TritonServer<'a> {
    /// Starts one that serves `models`, each `NAME=ONNX[,KEY=VALUE…]` as
    /// `deploy/triton/make_repository.py` wants them; each can be made to misbehave, see
    /// [`fault`](Self::fault). `None`, after saying SKIPPED, where the server is not set up.
    ///
    /// # Panics
    /// When it does not come up, or it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
    #[must_use]
    pub fn start(world: &'a World, models: &[String]) -> Option<Self> {
        Self::start_as(world, models, &[], &[])
    }

    /// The same below `wrapper`, a command that ends in `exec`, with more arguments for
    /// `serve.sh`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_as(
        world: &'a World,
        models: &[String],
        wrapper: &[&str],
        arguments: &[&str],
    ) -> Option<Self> {
        if !triton() {
            return None;
        }
        let models: Vec<String> = models
            .iter()
            .map(|model| format!("{model},fault={}", fault_file(world, model)))
            .collect();
        make_repository(world, &models);
        let port = free_port();
        let script = repository().join("deploy/triton/serve.sh").display().to_string();
        let (folder, number) = (world.path("models").display().to_string(), port.to_string());
        let mut command: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        command.extend([script, "--repository".to_owned(), folder]);
        command.extend(["--grpc-port".to_owned(), number]);
        command.extend(arguments.iter().map(|&word| word.to_owned()));
        let given = arguments.iter().position(|word| *word == "--address");
        let address = given.and_then(|at| arguments.get(at + 1)).unwrap_or(&"127.0.0.1");
        let address = (*address).to_owned();
        let process = launch(world, &command, 0);
        let pids = vec![process.pid()];
        let mut server = Self { world, address, port, command, process, starts: 1, pids };
        server.wait();
        Some(server)
    }

    /// `127.0.0.1:port`, or with the `--address` that was given.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its processes that serve models.
    #[must_use]
    pub fn stubs(&self) -> Vec<u32> {
        let all = self.world.processes().into_iter();
        all.filter(|(_, line)| line.contains("triton_python_backend_stub"))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Sends a signal to what was started: the wrapper, where there is one.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(10);
    }

    /// Starts it again on the same port, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn restart(&mut self) {
        self.process = launch(self.world, &self.command, self.starts);
        self.starts += 1;
        self.pids.push(self.process.pid());
        self.wait();
    }

    /// Makes model `name` misbehave: `hang`, `slow MS`, `error`; `None` ends it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn fault(&self, name: &str, word: Option<&str>) {
        let file = fault_file(self.world, name);
        match word {
            Some(word) => std::fs::write(file, word).expect("written"),
            None => std::fs::remove_file(file).expect("it was misbehaving"),
        }
    }

    /// Regions for this server in /dev/shm, of whichever process.
    #[must_use]
    pub fn regions(&self) -> Vec<String> {
        let end = format!("-{}_{}", self.address, self.port);
        shm(REGIONS).into_iter().filter(|name| name.ends_with(&end)).collect()
    }

    /// Names of regions that the server has mapped, by its memory map.
    #[must_use]
    pub fn mapped_regions(&self) -> Vec<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()));
        let maps = maps.unwrap_or_default();
        let names = maps.lines().filter_map(|line| line.split("/dev/shm/").nth(1));
        names.filter(|name| name.starts_with(REGIONS)).map(str::to_owned).collect()
    }

    fn wait(&mut self) {
        let Self { process, .. } = self;
        wait_until("the Triton server", START_S, || {
            assert!(process.is_running(), "Triton ended: {}", process.stderr());
            process.stderr().contains(STARTED).then_some(())
        });
    }
}

impl Drop for TritonServer<'_> {
    fn drop(&mut self) {
        if self.process.is_running() {
            // A wrapper has to clean up after itself; a server has nothing to.
            let bare = self.command[0].ends_with("serve.sh");
            kill(self.process.pid(), if bare { Signal::KILL } else { Signal::TERM });
            self.process.wait(60);
        }
        for pid in self.stubs() {
            self.world.signal(pid, Signal::KILL);
        }
        // What a client that was killed leaves, and nobody came after.
        for file in self.regions() {
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(file));
        }
        // What a server that was killed with a request in work leaves.
        for pid in &self.pids {
            let prefix = format!("framebus_triton_{pid}_");
            for file in shm(&prefix) {
                let _ = std::fs::remove_file(Path::new("/dev/shm").join(file));
            }
        }
    }
}

/// Begin of the names of the `triton` backend's regions.
const REGIONS: &str = "framebus-triton-";

/// Regions of the `triton` backend that process `pid` made.
#[must_use]
pub fn regions(pid: u32) -> Vec<String> {
    shm(&format!("{REGIONS}{pid}-"))
}

fn shm(prefix: &str) -> Vec<String> {
    let files = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Whether the Triton server is set up; says SKIPPED when it is not.
#[must_use]
pub fn triton() -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        skip("there is no wheel of the Triton server for this machine");
        return false;
    }
    asset("triton/.stamp").is_some()
}

/// A port of loopback on which nobody listens.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn fault_file(world: &World, model: &str) -> String {
    let name = model.split('=').next().unwrap_or(model);
    world.path(&format!("{name}.fault")).display().to_string()
}

fn make_repository(world: &World, models: &[String]) {
    let script: PathBuf = repository().join("deploy/triton/make_repository.py");
    let mut command = Command::new(script);
    command.arg(world.path("models")).args(models);
    let output = command.output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

fn launch(world: &World, command: &[String], number: u32) -> Process {
    world.start(&format!("triton{number}"), Path::new(&command[0]), &command[1..])
}
