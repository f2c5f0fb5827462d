//! What systemd makes of framebus: units, generator, readiness, watchdog, journal.
//!
//! Nothing here needs systemd to run; `scripts/deb_test.sh` boots one and starts the units.

use framebus_service::clock;
use framebus_tests::{Process, World, binary, openvino, repository, skip, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SERVICES: [&str; 4] = [
    "framebus-config.service",
    "framebus-capture@.service",
    "framebus-infer.service",
    "framebus-sink@.service",
];

fn units() -> PathBuf {
    repository().join("deploy/systemd")
}

/// `systemd-analyze` with these arguments; `None`, after saying SKIPPED, where it is not.
fn analyze(args: &[&str], folder: &Path) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    // Units are looked for in the folder, then among the system's own.
    let output = command
        .args(args)
        .arg("--no-pager")
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()))
        .output();
    let Ok(output) = output else {
        skip("systemd-analyze is missing; the package systemd has it");
        return None;
    };
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success(), "{args:?}: {}{}", text[0], text[1]);
    Some(text.concat())
}

#[test]
fn units_are_right() {
    let world = World::new();
    // Programs are where they were built, not in /usr/bin.
    let built = binary("framebus");
    let built = built.parent().expect("in a folder").display().to_string();
    let names = SERVICES.into_iter().chain(["framebus.target"]);
    let files: Vec<String> = names
        .map(|name| {
            let text = std::fs::read_to_string(units().join(name)).expect("readable");
            let text = text.replace("=/usr/bin/framebus", &format!("={built}/framebus"));
            // An instance of it, where it is a template.
            let file = world.write(name, text);
            file.display().to_string().replace("@.", "@front-door.")
        })
        .collect();
    let mut args = vec!["verify", "--man=no", "--recursive-errors=no"];
    args.extend(files.iter().map(String::as_str));
    if let Some(said) = analyze(&args, world.folder()) {
        assert_eq!(said, "", "verify has something to say");
    }
}

#[test]
fn units_are_confined() {
    for name in SERVICES {
        let file = units().join(name).display().to_string();
        let args = ["security", "--offline=yes", "--threshold=40", &file];
        if analyze(&args, &units()).is_none() {
            return;
        }
    }
}

/// Each unit sees the same bus, the same copy of the configuration and the same folders.
#[test]
fn units_agree_with_each_other() {
    let shared = [
        "User=framebus",
        "Environment=FRAMEBUS_CONFIG=/etc/framebus/framebus.toml",
        "Environment=FRAMEBUS_APPLIED=/var/lib/framebus/applied.toml",
        "RuntimeDirectory=framebus",
        "RuntimeDirectoryPreserve=yes",
        "StateDirectory=framebus",
        "PartOf=framebus.target",
        "RemoveIPC=no",
        "LimitCORE=0",
    ];
    let roles = [
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=10s",
        "Restart=on-failure",
        "RestartForceExitStatus=75",
        "RestartPreventExitStatus=64 78",
        "StartLimitIntervalSec=0",
        "After=framebus-config.service",
    ];
    for name in SERVICES {
        let text = std::fs::read_to_string(units().join(name)).expect("readable");
        let lines: BTreeSet<&str> = text.lines().collect();
        for line in shared {
            assert!(lines.contains(line), "{name} lacks {line}");
        }
        for line in roles.iter().filter(|_| name != "framebus-config.service") {
            assert!(lines.contains(line), "{name} lacks {line}");
        }
        assert!(!text.contains("Requires="), "{name}: no role may need another one");
    }
}

/// What the generator makes of `text` as framebus.toml and `applied` as the copy: links
/// with their targets, and what was said.
fn generate(text: Option<&str>, applied: Option<&str>, environment: &str) -> (Vec<String>, String) {
    let world = World::new();
    let folder = world.path("normal");
    std::fs::create_dir(&folder).expect("made");
    let paths = ["framebus.toml", "applied.toml", "framebus.env"].map(|name| world.path(name));
    for (path, text) in paths.iter().zip([text, applied, Some(environment)]) {
        if let Some(text) = text {
            std::fs::write(path, text).expect("written");
        }
    }
    let [config, applied, environment] = paths.map(|path| path.display().to_string());
    let folder = folder.display().to_string();
    let args = [
        "systemd",
        "generate",
        "--config",
        &config,
        "--applied",
        &applied,
        "--environment",
        &environment,
        &folder,
        "/nonexistent/early",
        "/nonexistent/late",
    ];
    let exit = world.framebus("generate", &args).wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let wants = Path::new(&folder).join("framebus.target.wants");
    let mut links: Vec<String> = std::fs::read_dir(wants)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).expect("a link");
            format!("{} -> {}", entry.file_name().to_string_lossy(), target.display())
        })
        .collect();
    links.sort();
    let only: Vec<_> = std::fs::read_dir(&folder).expect("there").flatten().collect();
    assert!(only.len() <= 1, "nothing else is written: {only:?}");
    (links, exit.stderr)
}

const MODEL: &str = "[model]\npath = \"/m.onnx\"\n";

fn camera(name: &str, more: &str) -> String {
    format!("[[camera]]\nname = {name:?}\nsource = \"test:red\"\n{more}\n")
}

fn sink(name: &str, more: &str) -> String {
    format!("[[sink]]\nname = {name:?}\nkind = \"jsonl\"\n{more}\n")
}

#[test]
fn the_generator_makes_a_unit_for_everything_that_is_enabled() {
    let off = "enabled = false";
    let cameras = [camera("front", ""), camera("back-door_2", ""), camera("attic", off)].concat();
    let sinks = [sink("results", ""), sink("archive", off)].concat();
    let (links, said) = generate(Some(&format!("{MODEL}{cameras}{sinks}")), None, "");
    let unit = "/usr/lib/systemd/system";
    assert_eq!(
        links,
        [
            format!("framebus-capture@back-door_2.service -> {unit}/framebus-capture@.service"),
            format!("framebus-capture@front.service -> {unit}/framebus-capture@.service"),
            format!("framebus-infer.service -> {unit}/framebus-infer.service"),
            format!("framebus-sink@results.service -> {unit}/framebus-sink@.service"),
        ]
    );
    assert_eq!(said, "");
}

#[test]
fn inference_gets_a_network_only_for_a_server_and_time_only_for_a_gpu() {
    let drop_in = "framebus-infer.service.d";
    let cases = [
        ("\"auto\"", [false, false]),
        ("[\"triton\", \"openvino\"]", [true, false]),
        ("[\"tensorrt\", \"openvino\"]", [false, true]),
    ];
    for (backend, wanted) in cases {
        let text = config_of(backend);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("framebus.toml");
        std::fs::write(&file, text).expect("written");
        let made = Command::new(binary("framebus"))
            .args(["systemd", "generate", "--config"])
            .arg(&file)
            .arg(folder.path())
            .status();
        assert!(made.expect("runs").success());
        let has = |name: &str, line: &str| {
            let text = std::fs::read_to_string(folder.path().join(drop_in).join(name));
            text.is_ok_and(|text| text.contains(line))
        };
        let found = [
            has("triton.conf", "PrivateNetwork=no"),
            has("tensorrt.conf", "TimeoutStartSec=60min"),
        ];
        assert_eq!(found, wanted, "{backend}");
    }
}

fn config_of(backend: &str) -> String {
    format!("[model]\npath = \"m.onnx\"\nbackend = {backend}\n{}", camera("a", ""))
}

#[test]
fn the_generator_makes_nothing_of_nothing() {
    assert_eq!(generate(None, None, ""), (vec![], String::new()));
    // What was applied once does not bring a removed configuration back.
    let once = format!("{MODEL}{}", camera("front", ""));
    assert_eq!(generate(None, Some(&once), ""), (vec![], String::new()));
    let off = format!("{MODEL}{}{}", camera("front", "enabled = false"), sink("results", ""));
    assert_eq!(generate(Some(&off), None, ""), (vec![], String::new()));
}

#[test]
fn the_generator_falls_back_to_what_was_applied_last() {
    let wrong = format!("{MODEL}{}", camera("new", "fps = \"many\""));
    let applied = format!("{MODEL}{}", camera("old", ""));
    let (links, said) = generate(Some(&wrong), Some(&applied), "");
    assert!(links.iter().any(|link| link.starts_with("framebus-capture@old.service")), "{links:?}");
    assert!(!links.iter().any(|link| link.contains("@new")), "{links:?}");
    assert!(said.contains("framebus.toml:6:7: camera[new].fps"), "{said}");
    assert!(said.contains("applied last stay"), "{said}");
    let (links, said) = generate(Some(&wrong), None, "");
    assert!(links.is_empty() && said.contains("no camera and no sink"), "{links:?} {said}");
}

/// Where generators run, the variables of the units are not set.
#[test]
fn the_generator_knows_the_variables_of_the_units() {
    let text = "[[camera]]\nname = \"a\"\nsource = \"${A}\"\n[[camera]]\nname = \"b\"\n\
                source = \"rtsp://b/\"\nuser = \"u\"\npassword = \"${FROM_A_DROP_IN}\"\n";
    let (links, said) = generate(Some(&format!("{MODEL}{text}")), None, "A='rtsp://u:secret@a/'\n");
    assert_eq!((links.len(), said.as_str()), (3, ""), "{links:?}");
}

#[test]
fn applying_keeps_the_last_valid_copy() {
    let world = World::new();
    let applied = world.path("applied.toml");
    let apply = |body: &str| {
        let config = world.config(body).display().to_string();
        let copy = applied.display().to_string();
        world
            .framebus("apply", &["systemd", "apply", "--config", &config, "--applied", &copy])
            .wait(20)
    };
    let (good, fast) = (camera("a", ""), camera("a", "fps = 5"));
    // Services do not share /tmp, where the world lies.
    let refused = apply(&format!("{MODEL}{good}"));
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("root = \"/run/framebus\""), "{}", refused.stderr);
    assert!(!applied.exists());

    let text = |camera: &str| format!("[bus]\nroot = \"/run/framebus\"\n{MODEL}{camera}");
    let apply = |body: &str| {
        world.write("framebus.toml", body);
        let config = world.path("framebus.toml").display().to_string();
        let copy = applied.display().to_string();
        world
            .framebus("apply", &["systemd", "apply", "--config", &config, "--applied", &copy])
            .wait(20)
    };
    let exit = apply(&text(&good));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("/m.onnx"), "what is missing is named: {}", exit.stderr);
    let exit = apply(&text(&camera("a", "fps = \"many\"")));
    assert_eq!(exit.code, Some(78));
    assert!(exit.stderr.contains("applied last stays in use"), "{}", exit.stderr);
    assert_eq!(std::fs::read_to_string(&applied).expect("kept"), text(&good));
    assert_eq!(apply(&text(&fast)).code, Some(0));
    assert_eq!(std::fs::read_to_string(&applied).expect("there"), text(&fast));
}

#[test]
fn what_left_the_configuration_is_not_started() {
    let world = World::new();
    let off = camera("off", "enabled = false");
    let config = world.config(&format!("{MODEL}{}{off}{}", camera("a", ""), sink("s", "")));
    let config = config.display().to_string();
    let wants = |what: &str, name: &str| {
        let args = ["systemd", "wants", "--config", &config, what, name];
        world.framebus("wants", &args).wait(20).code
    };
    assert_eq!((wants("--camera", "a"), wants("--sink", "s")), (Some(0), Some(0)));
    for (what, name) in [("--camera", "off"), ("--camera", "s"), ("--camera", "b"), ("--sink", "a")]
    {
        assert_eq!(wants(what, name), Some(1), "{what} {name}");
    }
}

/// The other end of NOTIFY_SOCKET: words with the time at which they came.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<(u64, String)>,
}

impl Manager {
    fn new(world: &World, name: &str) -> (Self, PathBuf) {
        let path = world.path(name);
        // Of the process before.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket in the world's folder");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        (Self { socket, heard: Vec::new() }, path)
    }

    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let now_ns = clock::monotonic_ns();
            self.heard.extend(text.lines().map(|line| (now_ns, line.to_owned())));
        }
    }

    fn count(&self, word: &str) -> usize {
        self.heard.iter().filter(|(_, heard)| heard == word).count()
    }

    fn wait_for(&mut self, word: &str, more_than: usize, deadline_s: u64) {
        wait_until(&format!("{word} after {more_than}"), deadline_s, || {
            self.listen();
            (self.count(word) > more_than).then_some(())
        });
    }

    /// What is heard in `seconds`.
    fn listen_for(&mut self, seconds: u64) {
        let end_ns = clock::monotonic_ns() + seconds * 1_000_000_000;
        while clock::monotonic_ns() < end_ns {
            self.listen();
        }
    }
}

/// A process as systemd starts it.
fn service(world: &World, program: &str, args: &[&str]) -> (Manager, Process) {
    let (manager, socket) = Manager::new(world, &format!("{program}.notify"));
    let config = world.path("framebus.toml").display().to_string();
    let mut command = world.command(&binary(program), &["--config", &config]);
    command.args(args).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "10000000");
    (manager, Process::start(program, world.folder(), command))
}

/// From READY over the watchdog to STOPPING. A process that does not go on is silent,
/// and heard again when it goes on; systemd's watchdog would have ended it.
fn tells_the_truth(manager: &mut Manager, process: &mut Process) {
    manager.wait_for("READY=1", 0, 60);
    let fed = manager.count("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1", fed + 1, 20);
    process.signal(Signal::STOP);
    manager.listen_for(1);
    let fed = manager.count("WATCHDOG=1");
    manager.listen_for(3);
    assert_eq!(manager.count("WATCHDOG=1"), fed, "a stopped process feeds no watchdog");
    process.signal(Signal::CONT);
    manager.wait_for("WATCHDOG=1", fed, 20);
    assert_eq!(manager.count("STOPPING=1"), 0);
    process.signal(Signal::TERM);
    manager.wait_for("STOPPING=1", 0, 20);
    let exit = process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

/// Units start in any order: a camera does not wait for inference.
#[test]
fn capture_is_ready_without_the_others() {
    let world = World::new();
    let camera = "[[camera]]\nname = \"a\"\nsource = \"test:red?width=64&height=64&fps=10\"\n";
    world.config(&format!("{MODEL}{camera}"));
    let (mut manager, mut process) = service(&world, "framebus-capture", &["--camera", "a"]);
    tells_the_truth(&mut manager, &mut process);
}

/// Opening a named pipe that nobody writes blocks the thread that works, while the one that
/// reports goes on: it must not speak for the other.
#[test]
fn a_process_that_hangs_is_neither_ready_nor_feeds_the_watchdog() {
    let world = World::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("a.mkv"), 0o600.into()).expect("made");
    world.config(&format!("{MODEL}[[camera]]\nname = \"a\"\nsource = \"file:a.mkv\"\n"));
    let (mut manager, mut process) = service(&world, "framebus-capture", &["--camera", "a"]);
    // What it did before.
    manager.listen_for(2);
    let fed = manager.count("WATCHDOG=1");
    manager.listen_for(3);
    assert_eq!((manager.count("WATCHDOG=1"), manager.count("READY=1")), (fed, 0));
    assert!(process.is_running(), "{}", process.stderr());
}

/// A camera that is away is a state, not a failed start.
#[test]
fn capture_is_ready_when_it_knows_that_the_camera_is_away() {
    let world = World::new();
    let camera = "[[camera]]\nname = \"a\"\nsource = \"rtsp://127.0.0.1:9/none\"\n";
    world.config(&format!("{MODEL}{camera}"));
    let (mut manager, mut process) = service(&world, "framebus-capture", &["--camera", "a"]);
    manager.wait_for("READY=1", 0, 60);
    let fed = manager.count("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1", fed + 2, 20);
    assert!(process.is_running());
    process.signal(Signal::TERM);
    assert_eq!(process.wait(20).code, Some(0));
}

#[test]
fn a_sink_is_ready_without_the_others() {
    let world = World::new();
    world.config(&format!("{MODEL}{}{}", camera("a", ""), sink("s", "path = \"r.jsonl\"")));
    let (mut manager, mut process) = service(&world, "framebus-sink", &["--sink", "s"]);
    tells_the_truth(&mut manager, &mut process);
    // A target that cannot be used never was ready.
    world.config(&format!("{MODEL}{}{}", camera("a", ""), sink("s", "path = \"/proc/r.jsonl\"")));
    let (mut manager, mut process) = service(&world, "framebus-sink", &["--sink", "s"]);
    assert_ne!(process.wait(20).code, Some(0));
    manager.listen();
    assert_eq!(manager.count("READY=1"), 0);
}

#[test]
fn inference_is_ready_once_the_model_runs() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!("[model]\npath = {model:?}\n{}", camera("a", "")));
    let (mut manager, mut process) = service(&world, "framebus-infer", &[]);
    tells_the_truth(&mut manager, &mut process);
    // Without its model it never is, and says by its exit code that trying is of no use.
    std::fs::remove_file(model).expect("there");
    let (mut manager, mut process) = service(&world, "framebus-infer", &[]);
    assert_eq!(process.wait(20).code, Some(78));
    manager.listen();
    assert_eq!(manager.count("READY=1"), 0);
}

/// Lines for journald begin with their priority; lines for anything else do not, even
/// where the variable is inherited.
#[test]
fn only_the_journal_gets_priorities() {
    let world = World::new();
    world.config(&format!("{MODEL}{}", camera("a", "")));
    let config = world.path("framebus.toml").display().to_string();
    let run = |stream: &dyn Fn(&Path) -> String| {
        let mut command =
            world.command(&binary("framebus-sink"), &["--config", &config, "--sink", "x"]);
        let errors = world.write("journal", "");
        command.env("JOURNAL_STREAM", stream(&errors));
        // The file stands for the socket to journald.
        command.stderr(std::fs::File::create(&errors).expect("writable"));
        command.status().expect("runs");
        std::fs::read_to_string(&errors).expect("readable")
    };
    let text = run(&|file| {
        let stat = std::fs::metadata(file).expect("there");
        format!("{}:{}", stat.dev(), stat.ino())
    });
    let marked = |line: &str| line.starts_with("<3>") || line.starts_with("<6>");
    assert!(text.lines().all(marked) && text.contains("<3>ERROR"), "{text}");
    let text = run(&|_| "1:1".to_owned());
    assert!(text.contains("ERROR") && !text.lines().any(marked), "{text}");
}
