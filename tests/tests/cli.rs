//! The command as people and scripts use it.

use framebus_tests::{Collector, Exit, HealthWatch, World, asset, example, openvino, repository};
use framebus_types::{Role, State};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SUBCOMMANDS: [&str; 16] = [
    "up",
    "check",
    "doctor",
    "bundle",
    "detect",
    "tap",
    "status",
    "top",
    "reload",
    "trace",
    "record",
    "replay",
    "models",
    "bench",
    "completions",
    "man",
];

fn framebus(world: &World, args: &[&str]) -> Exit {
    let name = format!("framebus-{}", args.first().unwrap_or(&"none"));
    let exit = world.framebus(&name, args).wait(60);
    assert!(!exit.stderr.contains("panicked"), "{args:?}: {}", exit.stderr);
    exit
}

fn json(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:#?}"))
}

#[test]
fn help_is_there_for_everything_and_mistakes_are_64() {
    let world = World::new();
    let help = framebus(&world, &["--help"]);
    assert_eq!(help.code, Some(0));
    for subcommand in SUBCOMMANDS {
        assert!(help.stdout.contains(subcommand), "{subcommand} is not in --help");
        let exit = framebus(&world, &[subcommand, "--help"]);
        assert_eq!(exit.code, Some(0), "{subcommand}");
        assert!(exit.stdout.contains("Usage: framebus"), "{}", exit.stdout);
        assert!(exit.stdout.len() > 200, "{subcommand}: too short to help");
    }
    for wrong in [
        &["up", "--no-such-flag"][..],
        &["no-such-command"],
        &["detect"],
        &["detect", "a.jpg", "--input", "ten"],
        &["detect", "a.jpg", "--confidence", "2"],
        &["tap", "--count", "x"],
        &["completions", "no-such-shell"],
    ] {
        let exit = framebus(&world, wrong);
        assert_eq!(exit.code, Some(64), "{wrong:?}: {exit:#?}");
        assert!(exit.stderr.starts_with("error:"), "{wrong:?}: {}", exit.stderr);
    }
    assert_eq!(framebus(&world, &["--version"]).stdout.trim(), "framebus 0.1.0");
}

#[test]
fn completions_and_manual_pages_are_generated() {
    let world = World::new();
    let bash = framebus(&world, &["completions", "bash"]);
    assert_eq!(bash.code, Some(0));
    for subcommand in SUBCOMMANDS {
        assert!(
            bash.stdout.contains(&format!("framebus__subcmd__{subcommand}"))
                || bash.stdout.contains(&format!("framebus__{subcommand}")),
            "{subcommand}"
        );
    }
    let syntax = std::process::Command::new("bash")
        .arg("-n")
        .arg(world.write("completions.bash", &bash.stdout))
        .status();
    assert!(syntax.is_ok_and(|status| status.success()), "bash does not read it");
    let page = framebus(&world, &["man"]);
    assert!(page.stdout.contains(".TH framebus 1"), "{}", page.stdout);
    let folder = world.path("man").display().to_string();
    assert_eq!(framebus(&world, &["man", &folder]).code, Some(0));
    assert!(world.path("man/framebus-detect.1").is_file());
}

#[test]
fn check_passes_every_example_and_its_schema_is_json() {
    let Some(media) = asset("media") else { return };
    if asset("models/yolov8n.onnx").is_none() {
        return;
    }
    let mut world = World::new();
    for name in [
        "GATE_PASSWORD",
        "YARD_PASSWORD",
        "CAMERA_PASSWORD",
        "MQTT_PASSWORD",
        "TRITON_TOKEN",
        "METRICS_TOKEN",
        "PAGE_TOKEN",
        "WEBHOOK_SECRET",
    ] {
        world.environment.push((name.to_owned(), "s3cret-value-of-16".to_owned()));
    }
    let fetched = media.parent().expect("it lies in a folder").display().to_string();
    let authority = world.write("ca.pem", "only looked for").display().to_string();
    let mut checked = 0;
    let configs = std::fs::read_dir(repository().join("configs")).expect("configs").flatten();
    let compose = repository().join("deploy/compose/framebus.toml");
    for path in configs.map(|entry| entry.path()).chain([compose]) {
        let text = std::fs::read_to_string(&path).expect("readable");
        // The folders that the examples name are a package's, not a checkout's.
        let text = text
            .replace("../.framebus", &fetched)
            .replace("/var/lib/framebus/models", &format!("{fetched}/models"))
            .replace("/var/lib/framebus", &world.folder().display().to_string())
            .replace("/etc/framebus/ca.pem", &authority);
        let file = world.write("example.toml", text).display().to_string();
        let exit = framebus(&world, &["check", "--config", &file]);
        assert_eq!(exit.code, Some(0), "{}: {exit:#?}", path.display());
        assert!(exit.stdout.contains("MiB"), "{}", exit.stdout);
        assert!(!exit.stdout.contains("s3cret-value-of-16"), "{}", exit.stdout);
        let exit = framebus(&world, &["check", "--json", "--config", &file]);
        assert!(
            json(&exit).is_object() && !exit.stdout.contains("s3cret-value-of-16"),
            "{exit:#?}"
        );
        checked += 1;
    }
    assert!(checked >= 4, "{checked} examples");
    let schema = json(&framebus(&world, &["check", "--schema"]));
    for key in ["instance", "camera", "model", "bus", "sink", "log", "up"] {
        assert!(schema["properties"][key].is_object(), "{key} is not in the schema");
    }
    world.assert_gone();
}

#[test]
fn a_broken_configuration_is_78_with_all_its_errors() {
    let world = World::new();
    let body = "[model]\npath = 7\nconfidance = 0.3\n[[camera]]\nname = \"A B\"\n\
                source = \"ftp://x\"\nfps = 9999.0\n";
    let file = world.write("broken.toml", body).display().to_string();
    for command in ["check", "up"] {
        let exit = framebus(&world, &[command, "--config", &file]);
        assert_eq!(exit.code, Some(78), "{exit:#?}");
        for words in [
            "broken.toml:2:8",
            "broken.toml:3:1",
            "confidence",
            "broken.toml:5:8",
            "broken.toml:6:10",
            "broken.toml:7:7",
        ] {
            assert!(exit.stderr.contains(words), "{command}: no {words} in {}", exit.stderr);
        }
    }
    let exit = framebus(&world, &["check", "--config", "/nonexistent/framebus.toml"]);
    assert_eq!(exit.code, Some(78), "{exit:#?}");
    assert!(exit.stderr.contains("/nonexistent/framebus.toml"), "{}", exit.stderr);
    world.assert_gone();
}

#[test]
fn missing_files_are_78_for_check_and_up_and_a_missing_device_is_a_warning() {
    let world = World::new();
    let model = world.tiny_model(1, Some((96, 160)));
    let config = |source: &str| {
        let body =
            format!("[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = {source:?}\n");
        world.config(&body).display().to_string()
    };
    let file = config("file:/nonexistent/clip.mp4");
    for command in ["check", "up"] {
        let exit = framebus(&world, &[command, "--config", &file]);
        assert_eq!(exit.code, Some(78), "{command}: {exit:#?}");
        assert!(exit.stderr.contains("/nonexistent/clip.mp4"), "{}", exit.stderr);
    }
    let file = config("v4l2:/dev/video99");
    let exit = framebus(&world, &["check", "--config", &file]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert!(exit.stderr.contains("warning: ") && exit.stderr.contains("/dev/video99"), "{exit:#?}");
    let exit = framebus(&world, &["check", "--json", "--config", &file]);
    assert_eq!(json(&exit)["warnings"].as_array().map(Vec::len), Some(1), "{exit:#?}");
    world.assert_gone();
}

#[test]
fn commands_that_look_at_an_instance_say_when_nothing_runs() {
    let world = World::new();
    let root = world.root().display().to_string();
    let place = ["--instance", world.instance(), "--root", root.as_str()];
    let exit = framebus(&world, &[&["status"], &place[..]].concat());
    assert_eq!(exit.code, Some(69), "{exit:#?}");
    for args in [&["top", "--count", "1"][..], &["trace", "-o", "never.json"]] {
        let exit = framebus(&world, &[args, &place[..]].concat());
        assert_eq!(exit.code, Some(69), "{exit:#?}");
        assert!(exit.stderr.contains("nothing runs"), "{}", exit.stderr);
    }
    assert!(!world.path("never.json").exists());
    // `tap` waits, says so, and ends when asked to.
    let mut tap = world.framebus("tap", &[&["tap"], &place[..]].concat());
    framebus_tests::wait_until("tap to say that it waits", 20, || {
        tap.stderr().contains("waiting for").then_some(())
    });
    tap.signal(Signal::TERM);
    assert_eq!(tap.wait(10).code, Some(0));
    world.assert_gone();
}

#[test]
fn status_top_and_tap_show_a_running_instance() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let lines = world.path("lines.jsonl");
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "red"
        source = "test:red?width=320&height=192&fps=15"
        [[camera]]
        name = "green"
        source = "test:green?width=640&height=360&fps=15"
        [[camera]]
        name = "off"
        source = "v4l2:/dev/video99"
        enabled = false
        [[sink]]
        name = "lines"
        kind = "jsonl"
        path = {lines:?}
        "#
    ));
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("red", 20, 60);
    results.wait_more("green", 20, 30);
    let file = config.display().to_string();

    let exit = framebus(&world, &["status", "--json", "--config", &file]);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let status = json(&exit);
    assert_eq!(status["healthy"], true);
    assert_eq!(status["engine"]["state"], "live", "{}", status["engine"]);
    let engine = status["engine"]["detail"].as_str().expect("the engine says what it is");
    for (camera, size) in [("red", (320, 192)), ("green", (640, 360))] {
        let cameras = status["cameras"].as_array().expect("a list");
        let found = cameras.iter().find(|c| c["name"] == camera).expect("every camera");
        assert_eq!(found["state"], "live", "{found}");
        assert_eq!((&found["width"], &found["height"]), (&size.0.into(), &size.1.into()));
        let fps = found["fps_in"].as_f64().expect("a rate");
        assert!((5.0..30.0).contains(&fps), "{found}");
        for stage in [&found["age_ms"], &found["stages_ms"]["inference"]] {
            let figures = ["p50", "p90", "p99", "max"].map(|q| stage[q].as_f64().unwrap_or(0.0));
            assert!(figures[0] > 0.0 && figures.is_sorted(), "{found}");
        }
    }
    let processes = status["processes"].as_array().expect("a list");
    for (role, name) in
        [("capture", "red"), ("capture", "green"), ("infer", "infer"), ("sink", "lines")]
    {
        let found = processes.iter().find(|p| p["role"] == role && p["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {role} {name} in {status:#}"));
        assert_eq!(found["state"], "live", "{found}");
        let pid = found["pid"].as_u64().expect("a number");
        assert!(world.processes().iter().any(|(p, _)| u64::from(*p) == pid), "{found}");
    }
    let table = framebus(&world, &["status", "--stages", "--config", &file]);
    assert_eq!(table.code, Some(0));
    for word in ["red", "green", "lines", "live", "preprocess", "p90", engine] {
        assert!(table.stdout.contains(word), "no {word}: {}", table.stdout);
    }

    let top = framebus(&world, &["top", "--count", "1", "--config", &file]);
    assert_eq!(top.code, Some(0), "{top:#?}");
    for word in ["red", "green", "results/s", "p90", engine] {
        assert!(top.stdout.contains(word), "no {word}: {}", top.stdout);
    }
    assert!(!top.stdout.contains('\u{1b}'), "no terminal, no escape sequences");

    let tap = framebus(&world, &["tap", "--json", "--count", "3", "--config", &file]);
    assert_eq!((tap.code, tap.stdout.lines().count()), (Some(0), 3), "{tap:#?}");
    let root = world.root().display().to_string();
    let place = ["--instance", world.instance(), "--root", root.as_str()];
    let args = [&["tap", "--camera", "green", "--json", "--count", "4"], &place[..]].concat();
    let tap = framebus(&world, &args);
    assert_eq!((tap.code, tap.stdout.lines().count()), (Some(0), 4), "{tap:#?}");
    for line in tap.stdout.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&line["camera"], &line["outcome"]), (&"green".into(), &"ok".into()));
    }
    drop(results);
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    // The closing table names every camera that ran.
    assert!(exit.stdout.contains("red") && exit.stdout.contains("green"), "{}", exit.stdout);
    world.assert_gone();
}

#[test]
fn passwords_appear_nowhere() {
    if !openvino() {
        return;
    }
    const RIGHT: &str = "pw-right-7431";
    const WRONG: &str = "pw-wrong-9275";
    let mut world = World::new();
    world.environment.push(("CAMERA_PASSWORD".to_owned(), RIGHT.to_owned()));
    world.environment.push(("FRAMEBUS_LOG".to_owned(), "trace".to_owned()));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let port = free.port().to_string();
    let args = ["--port", &port, "--mount", "/cam", "test", "--user", "u", "--password", RIGHT];
    let mut server = world.start("rtsp", &example("rtsp_server"), &args);
    server.wait_for_stdout("listening", 20);
    let model = world.tiny_model(1, Some((96, 160)));
    let lines = world.path("lines.jsonl");
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [log]
        level = "trace"
        [[camera]]
        name = "url"
        source = "rtsp://u:${{CAMERA_PASSWORD}}@127.0.0.1:{port}/cam"
        [[camera]]
        name = "keys"
        source = "rtsp://127.0.0.1:{port}/cam"
        user = "u"
        password = "{WRONG}"
        [[sink]]
        name = "lines"
        kind = "jsonl"
        path = {lines:?}
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("url", 10, 60);
    health.wait_state(Role::Capture, "keys", State::Offline, 30);
    let file = config.display().to_string();
    let mut texts = Vec::new();
    for (_, line) in world.processes() {
        if !line.contains("rtsp_server") {
            texts.push(line);
        }
    }
    assert!(texts.len() >= 5, "up, two captures, inference, sink: {texts:?}");
    for args in [
        &["status", "--json", "--config", file.as_str()][..],
        &["status", "--config", &file],
        &["top", "--count", "1", "--config", &file],
        &["check", "--config", &file],
        &["check", "--json", "--config", &file],
        &["tap", "--json", "--count", "2", "--config", &file],
    ] {
        let exit = framebus(&world, args);
        texts.push(exit.stdout);
        texts.push(exit.stderr);
    }
    // The wrong password, on a command's own line, reaches no child's.
    let url = format!("rtsp://u:{WRONG}@127.0.0.1:{port}/cam");
    let args = ["detect", "--model", &model.display().to_string(), &url];
    let exit = framebus(&world, &args);
    assert_eq!(exit.code, Some(69), "{exit:#?}");
    texts.extend([exit.stdout, exit.stderr]);
    drop((health, results));
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("[capture url]"), "the children's log is part of this test");
    texts.extend([exit.stdout, exit.stderr]);
    texts.push(std::fs::read_to_string(&lines).expect("the sink wrote"));
    for text in texts {
        for password in [RIGHT, WRONG] {
            let place = text.lines().find(|line| line.contains(password));
            assert_eq!(place, None, "a password is shown");
        }
    }
    drop(server);
    world.assert_gone();
}

#[test]
fn a_model_is_prepared_whatever_its_name_and_never_over_a_device() {
    let Some(model) = asset("models/yolov8n.onnx") else { return };
    let mut world = World::new();
    let cache = world.path("cache");
    world.environment.push(("CACHE_DIRECTORY".to_owned(), cache.display().to_string()));
    let prepare = |model: &Path, output: Option<&Path>| {
        let mut args = ["models", "prepare", "--json"].map(OsStr::new).to_vec();
        args.push(model.as_os_str());
        args.extend(output.map(|_| OsStr::new("--output")));
        args.extend(output.map(Path::as_os_str));
        world.framebus("prepare", &args).wait(60)
    };
    // A file's name need not be text, but JSON is.
    let odd = world.folder().join(OsStr::from_bytes(b"mod\xffel.onnx"));
    std::os::unix::fs::symlink(&model, &odd).expect("a link");
    let exit = prepare(&odd, None);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let said = json(&exit);
    assert_eq!((&said["prepared"], &said["multiple_of"]), (&true.into(), &32.into()), "{said}");
    let kept = Path::new(said["file"].as_str().expect("a path"));
    assert!(kept.starts_with(&cache) && kept.is_file(), "{said}");

    let cut = world.path("cut.onnx");
    assert_eq!(prepare(&model, Some(&cut)).code, Some(0));
    let again = json(&prepare(&cut, None));
    assert_eq!((&again["prepared"], &again["classes"]), (&true.into(), &80.into()), "{again}");

    let device = world.path("null");
    std::os::unix::fs::symlink("/dev/null", &device).expect("a link");
    let exit = prepare(&model, Some(&device));
    assert_eq!(exit.code, Some(64), "{exit:#?}");
    assert!(device.is_symlink(), "it is still what it was");
}
