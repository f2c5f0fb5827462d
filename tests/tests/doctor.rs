//! `framebus doctor` finds what is wrong and says what to do; `framebus bundle` packs
//! everything but secrets.
//!
//! There is no GPU and no camera device where these run: the NVIDIA lines are tried
//! with what they say without one.

use framebus_tests::{Exit, HealthWatch, Process, World, binary, example, openvino, wait_until};
use framebus_types::{Role, State};
use rustix::process::Signal;
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn doctor(world: &World, args: &[&str]) -> (Exit, Value) {
    let args = [&["doctor", "--json"], args].concat();
    let exit = world.framebus("doctor", &args).wait(90);
    let said = serde_json::from_str(&exit.stdout).unwrap_or_else(|_| panic!("{exit:#?}"));
    (exit, said)
}

fn findings<'a>(said: &'a Value, what: &str) -> Vec<&'a Value> {
    let all = said["findings"].as_array().expect("a list");
    all.iter().filter(|finding| finding["what"] == what).collect()
}

fn finding<'a>(said: &'a Value, what: &str) -> &'a Value {
    let found = findings(said, what);
    assert_eq!(found.len(), 1, "{what}: {said:#}");
    found[0]
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// An RTSP camera that sends a moving ball, with a login if there is one.
fn rtsp_server(world: &World, login: &[&str]) -> (Process, String) {
    let args = [&["--port", "0", "--mount", "/cam", "--fps", "20", "test"], login].concat();
    let mut server = world.start("rtsp", &example("rtsp_server"), &args);
    let said = server.wait_for_stdout("listening", 20);
    let address = said.trim().rsplit("//").next().expect("an address").to_owned();
    (server, address)
}

fn closed_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a port").port()
}

#[test]
fn a_machine_without_camera_and_gpu_is_described() {
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        "[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = \"test:ball?fps=20\"\n"
    ));
    let (exit, said) = doctor(&world, &["--config", &config.display().to_string()]);
    // The schema is an interface: a key keeps its name.
    assert_eq!(keys(&said), ["ok", "exit_code", "instance", "findings", "cameras"]);
    for finding in said["findings"].as_array().expect("a list") {
        assert_eq!(keys(finding), ["area", "what", "level", "text", "next"]);
        let level = finding["level"].as_str().expect("a word");
        assert!(["ok", "skipped", "warning", "problem"].contains(&level), "{finding}");
        let wrong = level == "warning" || level == "problem";
        assert!(!wrong || finding["next"].is_string(), "no next step: {finding}");
    }
    let camera = [
        "camera",
        "source",
        "ok",
        "reason",
        "codec",
        "profile",
        "width",
        "height",
        "fps_announced",
        "fps_measured",
        "frames",
        "key_frames",
        "key_frame_s",
        "key_frame_frames",
        "jitter_p95_ms",
        "jitter_max_ms",
        "bit_rate_kbps",
        "decoder",
        "latency_ms",
    ];
    assert_eq!(keys(&said["cameras"][0]), camera);
    assert_eq!(said["cameras"][0]["fps_announced"], 20.0, "{said:#}");
    if !Path::new("/proc/driver/nvidia").exists() {
        assert_ne!(findings(&said, "gpu").len() + findings(&said, "driver").len(), 0);
    }
    for what in ["system", "processor", "/dev/shm", "user", "files", "ports", "model", "H.264"] {
        assert_ne!(finding(&said, what)["text"], "", "{what}");
    }
    assert_eq!(finding(&said, "a")["level"], "ok", "{said:#}");
    if openvino() {
        assert_eq!(exit.code, Some(0), "{exit:#?}");
        assert_eq!(finding(&said, "trial run")["level"], "ok", "{said:#}");
    }
    // The same for people, and without a configuration the machine alone.
    let exit = world.framebus("alone", &["doctor"]).wait(60);
    assert!(exit.stdout.contains("/dev/shm") && exit.stdout.contains("--config FILE"), "{exit:#?}");
    world.assert_gone();
}

#[test]
fn what_is_missing_is_a_problem_with_a_next_step() {
    let mut world = World::new();
    world.environment.push(("FRAMEBUS_OPENVINO_LIB".to_owned(), "/nonexistent".to_owned()));
    let model = world.tiny_model(2, Some((96, 160)));
    let camera = "[[camera]]\nname = \"a\"\nsource = \"v4l2:/dev/video97\"\n";
    let config = world.config(&format!("[model]\npath = {model:?}\n{camera}"));
    let file = config.display().to_string();
    let (exit, said) = doctor(&world, &["--config", &file]);
    assert_eq!((exit.code, &said["ok"], &said["exit_code"]), (Some(69), &false.into(), &69.into()));
    let engine = finding(&said, "openvino");
    assert_eq!(engine["level"], "problem");
    assert!(engine["text"].as_str().is_some_and(|text| text.contains("/nonexistent")), "{engine}");
    assert!(engine["next"].as_str().is_some_and(|next| next.contains("pip install")), "{engine}");
    let camera = finding(&said, "a");
    assert!(
        camera["text"].as_str().is_some_and(|text| text.contains("no such device")),
        "{camera}"
    );
    assert!(camera["next"].as_str().is_some_and(|next| next.contains("plug")), "{camera}");
    // A file that is wrong is worse: no waiting mends it.
    world.config("[model]\npath = \"/nonexistent.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:ball?frames=5\"\n");
    let (exit, said) = doctor(&world, &["--config", &file]);
    assert_eq!(exit.code, Some(78), "{said:#}");
    assert_eq!(finding(&said, "model")["level"], "problem");
    let exit = world.framebus("typo", &["doctor", "--config", &file, "--camera", "b"]).wait(20);
    assert_eq!(exit.code, Some(64), "{exit:#?}");
}

#[test]
fn cameras_are_measured_and_a_wrong_password_is_named() {
    const RIGHT: &str = "right-5512";
    const WRONG: &str = "wrong-8830";
    let mut world = World::new();
    world.environment.push(("CAMERA_PASSWORD".to_owned(), RIGHT.to_owned()));
    let (server, address) = rtsp_server(&world, &["--user", "u", "--password", RIGHT]);
    let closed = closed_port();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "right"
        source = "rtsp://u:${{CAMERA_PASSWORD}}@{address}"
        [[camera]]
        name = "wrong"
        source = "rtsp://{address}"
        user = "u"
        password = "{WRONG}"
        [[camera]]
        name = "closed"
        source = "rtsp://127.0.0.1:{closed}/x"
        "#
    ));
    let file = config.display().to_string();
    let mut running = world.framebus("doctor", &["doctor", "--json", "--config", &file]);
    // The looks at the cameras are processes of their own: nothing on their command lines.
    let lines = wait_until("a look at a camera", 60, || {
        let lines: Vec<_> = world.processes().into_iter().map(|(_, line)| line).collect();
        lines.iter().any(|line| line.contains("--probe-s")).then_some(lines)
    });
    let exit = running.wait(90);
    let said: Value = serde_json::from_str(&exit.stdout).expect("JSON");
    assert_eq!(exit.code, Some(69), "{said:#}");
    let camera = &said["cameras"][0];
    assert_eq!(camera["codec"], "H.264");
    // Which one depends on the machine's plugins and GPU.
    assert!(camera["decoder"].as_str().is_some_and(|name| name.contains("264")), "{camera}");
    assert_eq!((&camera["width"], &camera["height"]), (&640.into(), &480.into()));
    assert_eq!(camera["fps_announced"], 20.0);
    // Of 20; a busy machine sends fewer, but never twice as many.
    let fps = camera["fps_measured"].as_f64().expect("a rate");
    assert!((10.0..26.0).contains(&fps), "{camera}");
    // The server's encoder makes one every 30 frames.
    assert_eq!(camera["key_frame_frames"], 30, "{camera}");
    assert!(camera["bit_rate_kbps"].as_f64().is_some_and(|rate| rate > 0.0), "{camera}");
    let wrong = finding(&said, "wrong");
    assert!(wrong["text"].as_str().is_some_and(|text| text.contains("401")), "{wrong}");
    assert!(wrong["next"].as_str().is_some_and(|next| next.contains("password")), "{wrong}");
    let refused = finding(&said, "closed");
    assert!(refused["text"].as_str().is_some_and(|text| text.contains("refused")), "{refused}");
    assert!(refused["next"].as_str().is_some_and(|next| next.contains("554")), "{refused}");
    let own = lines.into_iter().filter(|line| !line.contains("rtsp_server"));
    for text in own.chain([exit.stdout, exit.stderr]) {
        assert!(!text.contains(RIGHT) && !text.contains(WRONG), "a password is shown: {text}");
    }
    drop(server);
    world.assert_ended();
}

/// Unpacks an archive beside it; every file with its text.
fn unpack(world: &World, archive: &Path) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, files),
                path => {
                    let bytes = std::fs::read(&path).expect("readable");
                    files.push((path, String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
        }
    }
    let status = Command::new("tar").arg("-xzf").arg(archive).current_dir(world.folder()).status();
    assert!(status.expect("tar").success());
    let mut files = Vec::new();
    walk(&world.path("framebus-bundle"), &mut files);
    files
}

#[test]
fn a_bundle_holds_no_secret_in_any_form() {
    // Each with what has to be escaped somewhere: URL, JSON, shell.
    const KEY: &str = r#"k3y"pa\ss/1"#;
    const ENVIRONMENT: &str = "env@pa ss#2";
    const URL: &str = "url-pass-3";
    const TOKEN: &str = "token-value-4";
    const PIPELINE: &str = "pipe-pass-5";
    const LOGGED: &str = "only-in-the-log-6";
    const VARIABLE: &str = "DOCTOR_TEST_DOOR_PASSWORD";
    let mut world = World::new();
    let closed = closed_port();
    let model = world.tiny_model(1, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "live"
        source = "test:red?fps=10"
        [[camera]]
        name = "key"
        source = "rtsp://127.0.0.1:{closed}/x"
        user = "keyuser"
        password = '{KEY}'
        [[camera]]
        name = "environment"
        source = "rtsp://admin:${{{VARIABLE}}}@127.0.0.1:{closed}/x"
        [[camera]]
        name = "url"
        source = "rtsp://admin:{URL}@127.0.0.1:{closed}/x?token={TOKEN}&user=root"
        [[camera]]
        name = "pipeline"
        enabled = false
        source = "gst:rtspsrc location=rtsp://127.0.0.1:{closed}/x user-pw={PIPELINE} ! decodebin"
        "#
    ));
    // base64 of "keyuser:…" and "admin:…", as RTSP sends logins.
    let basic = "a2V5dXNlcjprM3kicGFcc3MvMQ";
    let forms = [
        KEY,
        r#"k3y\"pa\\ss/1"#,
        "k3y%22pa%5Css%2F1",
        "k3y%22pa%5css%2f1",
        basic,
        ENVIRONMENT,
        "env%40pa%20ss%232",
        "ZW52QHBhIHNzIzI",
        URL,
        "YWRtaW46dXJsLXBhc3MtMw",
        TOKEN,
        PIPELINE,
        LOGGED,
    ];
    // A journal that has logged every one of them.
    let journal = world.write(
        "journalctl",
        format!(
            "#!/bin/sh\ncat <<'END'\nNov 22 framebus-capture@key[7]: INFO live\n{}\n\
             rtsp://someone:{LOGGED}@10.0.0.1/x\nAuthorization: Basic {basic}==\nEND\n",
            forms
                .iter()
                .filter(|form| **form != LOGGED)
                .map(|f| format!("said {f} twice: {f}"))
                .collect::<Vec<_>>()
                .join("\n")
        ),
    );
    std::fs::set_permissions(&journal, PermissionsExt::from_mode(0o755)).expect("executable");
    let path =
        format!("{}:{}", world.folder().display(), std::env::var("PATH").unwrap_or_default());
    world.environment.push((VARIABLE.to_owned(), ENVIRONMENT.to_owned()));
    let health = HealthWatch::start(&world.domain());
    let mut up = world.up(&config);
    health.wait_state(Role::Capture, "live", State::Live, 30);
    drop(health);
    // What the processes of the instance show to everybody, and to their own user.
    for (pid, line) in world.processes() {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environ =
            String::from_utf8_lossy(&environ).replace(&format!("{VARIABLE}={ENVIRONMENT}"), "");
        for form in forms {
            assert!(!line.contains(form), "{form} in a command line: {line}");
            assert!(!environ.contains(form), "{form} in the environment of {line}");
        }
    }
    // Where the bundle is made, the variable is not set: only the instance has it.
    let archive = world.path("help.tar.gz");
    let file = config.display().to_string();
    let output = archive.display().to_string();
    let args = ["bundle", "--config", &file, "--output", &output];
    let mut command = world.command(&binary("framebus"), &args);
    command.env_remove(VARIABLE).env("PATH", path);
    let exit = Process::start("bundle", world.folder(), command).wait(120);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    up.signal(Signal::TERM);
    let ended = up.wait(30);
    let mode = std::fs::metadata(&archive).expect("an archive").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut files = unpack(&world, &archive);
    let text = |name: &str| {
        let found = files.iter().find(|(path, _)| path.ends_with(name));
        found.map(|(_, text)| text.clone()).unwrap_or_else(|| panic!("no {name}: {}", exit.stdout))
    };
    let manifest = text("MANIFEST");
    assert!(exit.stdout.contains(&manifest), "it is shown before it is sent");
    for name in ["framebus.toml", "doctor.json", "status-3.json", "journal.txt", "shm.txt"] {
        assert!(manifest.contains(name), "{manifest}");
    }
    // It is still of use.
    let config_text = text("framebus.toml");
    assert!(config_text.contains("name = \"url\"") && config_text.contains("***"), "{config_text}");
    assert!(config_text.contains(&format!("${{{VARIABLE}}}")), "{config_text}");
    let status: Value = serde_json::from_str(text("status-1.json").trim()).expect("a status");
    assert_eq!(status["instance"], world.instance());
    let doctor: Value = serde_json::from_str(text("doctor.json").trim()).expect("a report");
    assert_eq!(finding(&doctor, "live")["level"], "ok", "{doctor:#}");
    let journal = text("journal.txt");
    assert!(journal.contains("framebus-capture@key[7]: INFO live"), "{journal}");
    assert!(
        journal.contains("said *** twice: ***") && journal.contains("@10.0.0.1/x"),
        "{journal}"
    );
    assert!(
        files.iter().any(|(path, text)| path.starts_with(world.path("framebus-bundle/processes"))
            && text.contains("VmRSS"))
    );
    files.push(("standard output".into(), exit.stdout));
    files.push(("standard error".into(), exit.stderr));
    files.push(("log".into(), ended.stderr));
    for (path, text) in files {
        for form in forms {
            let line = text.lines().find(|line| line.contains(form));
            assert_eq!(line, None, "{form} in {}", path.display());
        }
    }
    world.assert_gone();
}
