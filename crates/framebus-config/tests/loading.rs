//! What a valid configuration becomes, what the disk says, and that nothing makes it panic.

use framebus_config::*;
use std::path::{Path, PathBuf};

fn env(name: &str) -> Option<String> {
    match name {
        "PASSWORD" => Some("p@ss:w/rd%40".to_owned()),
        "LOGIN" => Some("admin:p@ss".to_owned()),
        "URL" => Some("rtsp://admin:p%40ss@camera/stream?token=abc".to_owned()),
        "TOKEN" => Some("hunter2".to_owned()),
        "HOST" => Some("inference".to_owned()),
        _ => None,
    }
}

fn camera(lines: &str) -> Camera {
    let text = format!("[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"front\"\n{lines}\n");
    match parse(&text, Path::new("/etc/framebus/x.toml"), &env) {
        Ok(mut config) => config.cameras.remove(0),
        Err(errors) => panic!("{errors}"),
    }
}

fn login(camera: &Camera) -> (Option<&str>, Option<&str>) {
    (camera.user.as_deref(), camera.password.as_ref().map(Secret::expose))
}

fn rtsp(camera: &Camera) -> &str {
    match &camera.source {
        Source::Rtsp(url) => url.as_str(),
        other => panic!("{other}"),
    }
}

#[test]
fn logins_are_taken_out_of_urls() {
    for (source, url, user, password) in [
        ("rtsp://h/s", "rtsp://h/s", None, None),
        ("rtsps://u@h:322/s", "rtsps://h:322/s", Some("u"), None),
        ("rtsp://u:a%40b:c@h/s?x=1", "rtsp://h/s?x=1", Some("u"), Some("a@b:c")),
        ("rtsp://u:p@ss@h/s@2", "rtsp://h/s@2", Some("u"), Some("p@ss")),
        ("rtsp://u:${PASSWORD}@h/s", "rtsp://h/s", Some("u"), Some("p@ss:w/rd%40")),
        ("rtsp://${LOGIN}@h/s", "rtsp://h/s", Some("admin"), Some("p@ss")),
        ("${URL}", "rtsp://camera/stream?token=abc", Some("admin"), Some("p@ss")),
        ("rtsp://[fd00::1]:554/s", "rtsp://[fd00::1]:554/s", None, None),
        ("rtsp://u:$${x}@h/s", "rtsp://h/s", Some("u"), Some("${x}")),
    ] {
        let camera = camera(&format!("source = \"{source}\""));
        assert_eq!((rtsp(&camera), login(&camera)), (url, (user, password)), "{source}");
        let shown = format!("{camera:?} {}", camera.source);
        assert!(password.is_none_or(|p| !shown.contains(p)), "{shown}");
    }
    let separate = camera("source = \"rtsp://h/s\"\nuser = \"u\"\npassword = \"${PASSWORD}\"");
    assert_eq!(login(&separate), (Some("u"), Some("p@ss:w/rd%40")));
    let mixed = camera("source = \"rtsp://u@h/s\"\npassword = \"x\"");
    assert_eq!(login(&mixed), (Some("u"), Some("x")));
}

#[test]
fn variables_stay_variables_where_sources_are_printed() {
    let gst = camera("source = \"gst:souphttpsrc location=http://h/?key=${TOKEN} ! jpegdec\"");
    let Source::Gst(pipeline) = &gst.source else { panic!("{}", gst.source) };
    assert!(pipeline.as_str().contains("key=hunter2"));
    let rtsp_token = camera("source = \"rtsp://h/s?key=${TOKEN}\"");
    assert_eq!(rtsp(&rtsp_token), "rtsp://h/s?key=hunter2");
    assert_eq!(rtsp_token.source.to_string(), "rtsp://h/s?key=${TOKEN}");
    for camera in [gst, rtsp_token, camera("source = \"rtsp://h/s?password=hunter2\"")] {
        assert!(!format!("{camera:?} {}", camera.source).contains("hunter2"));
    }
}

#[test]
fn sources_of_each_kind() {
    let file = |path: &str| Source::File(PathBuf::from(path));
    for (text, source) in [
        ("file:a b.mp4", file("/etc/framebus/a b.mp4")),
        ("file:/abs.mp4", file("/abs.mp4")),
        ("file:///abs%20x.mp4", file("/abs x.mp4")),
        ("v4l2:/dev/v4l/by-id/x", Source::V4l2(PathBuf::from("/dev/v4l/by-id/x"))),
        ("gst:videotestsrc", Source::Gst("videotestsrc".into())),
        (
            "test:snow?width=1921&height=31&fps=0.5&frames=9",
            Source::Test(TestPattern {
                pattern: "snow".to_owned(),
                width: 1921,
                height: 31,
                fps: 0.5,
                frames: Some(9),
            }),
        ),
    ] {
        assert_eq!(camera(&format!("source = \"{text}\"")).source, source);
    }
    assert_eq!(
        camera("source = \"test:ball\"").source.to_string(),
        "test:ball?width=640&height=480&fps=30"
    );
}

#[test]
fn every_value_arrives_where_it_belongs() {
    let text = r#"
        instance = "two"
        [model]
        path = "/m.onnx"
        backend = ["triton", "openvino"]
        input = "384x640"
        precision = "bf16"
        mode = "throughput"
        contexts = 2
        threads = 3
        cores = [0, 7]
        nice = 19
        confidence = 0
        iou = 0.45
        max_detections = 0x64
        classes = ["person", 7]
        [triton]
        url = "grpcs://${HOST}:9001"
        model = "yolo-${HOST}"
        version = "3"
        transport = "cuda-shared-memory"
        timeout_ms = 50
        max_batch = 64
        token = "${TOKEN}"
        ca = "/ca.pem"
        cert = "c.pem"
        key = "k.pem"
        [tensorrt]
        library = "lib"
        device = 1
        max_batch = 8
        workspace_mib = 512
        optimization_level = 5
        graphs = true
        [[camera]]
        name = "a"
        source = "file:x.mp4"
        enabled = false
        pace = "fast"
        loop = true
        delivery = "every-frame"
        fps = 12
        max_width = 1_280
        transport = "udp"
        latency_ms = 200
        stall_s = 9
        reconnect_min_ms = 100
        reconnect_max_ms = 200
        max_age_ms = 0
        weight = 7
        decoder = "nvidia"
        decoder_threads = 3
        cores = [1]
        nice = 4
        motion_gate = true
        motion_threshold = 0.25
        motion_step = 9
        motion_ignore = [[0, 0.5, 1, 0.5], [0.9, 0.0, 0.1, 0.25]]
        motion_hold_s = 0
        motion_force_s = 30
        idle_gate = true
        idle_max_s = 2.5
        picture_checks = "on"
        frozen_s = 20
        uniform_contrast = 1.5
        corrupt_area = 0.125
        blur_drop = 0.75
        time_jump_s = 4
        late_s = 0
        fault_hold_s = 0.5
        [[sink]]
        name = "s"
        kind = "jsonl"
        enabled = false
        path = "out.jsonl"
        rotate_mib = 11
        keep = 12
        cameras = ["a"]
        [bus]
        root = "bus"
        frame_subscribers = 5
        result_subscribers = 6
        result_buffer = 7
        [log]
        level = "debug"
        format = "json"
        [up]
        restart_min_ms = 20
        restart_max_ms = 30
        drain_s = 0.5
    "#;
    let config = parse(text, Path::new("/etc/x.toml"), &env).expect("a valid configuration");
    let name = |name: &str| CameraName::try_from(name).expect("a valid name");
    assert_eq!(config.instance.as_str(), "two");
    let model = Model {
        path: "/m.onnx".into(),
        backend: Backends::Ordered(vec![BackendName::Triton, BackendName::OpenVino]),
        input: InputShape::Fixed { height: 384, width: 640 },
        precision: Precision::Bf16,
        mode: Mode::Throughput,
        contexts: 2,
        threads: 3,
        cores: vec![0, 7],
        nice: 19,
        timeout_ms: 2000,
        confidence: 0.0,
        iou: 0.45,
        max_detections: 100,
        classes: vec![ClassFilter::Name("person".to_owned()), ClassFilter::Number(7)],
    };
    assert_eq!(config.model, model);
    let triton = Triton {
        url: Endpoint { host: "inference".to_owned(), port: 9001, tls: true },
        model: Some("yolo-inference".to_owned()),
        version: Some("3".to_owned()),
        transport: TritonTransport::CudaSharedMemory,
        timeout_ms: 50,
        max_batch: 64,
        token: Some(Secret::new("hunter2")),
        token_header: "authorization".to_owned(),
        ca: Some("/ca.pem".into()),
        cert: Some("/etc/c.pem".into()),
        key: Some("/etc/k.pem".into()),
    };
    assert_eq!(config.triton, triton);
    let tensorrt = TensorRt {
        library: Some("/etc/lib".into()),
        device: 1,
        max_batch: 8,
        workspace_mib: Some(512),
        optimization_level: 5,
        graphs: true,
    };
    assert_eq!(config.tensorrt, tensorrt);
    assert!(!format!("{config:?}").contains("hunter2"));
    let camera = Camera {
        name: name("a"),
        enabled: false,
        source: Source::File("/etc/x.mp4".into()),
        pace: Pace::Fast,
        repeat: true,
        delivery: Delivery::EveryFrame,
        fps: Some(12.0),
        max_width: Some(1280),
        user: None,
        password: None,
        transport: RtspTransport::Udp,
        latency_ms: 200,
        stall_s: 9.0,
        reconnect_min_ms: 100,
        reconnect_max_ms: 200,
        max_age_ms: 0,
        weight: 7,
        decoder: Decoder::Nvidia,
        decoder_threads: 3,
        cores: vec![1],
        nice: 4,
        motion_gate: true,
        motion_threshold: 0.25,
        motion_step: 9,
        motion_ignore: vec![
            Area { x: 0.0, y: 0.5, width: 1.0, height: 0.5 },
            Area { x: 0.9, y: 0.0, width: 0.1, height: 0.25 },
        ],
        motion_hold_s: 0.0,
        motion_force_s: 30.0,
        idle_gate: true,
        idle_max_s: 2.5,
        checks: Some(PictureChecks {
            frozen_s: 20.0,
            uniform_contrast: 1.5,
            corrupt_area: 0.125,
            blur_drop: 0.75,
            time_jump_s: 4.0,
            late_s: 0.0,
            fault_hold_s: 0.5,
        }),
    };
    assert_eq!(config.cameras, [camera]);
    let path = JsonlPath::File("/etc/out.jsonl".into());
    let sink = Sink {
        name: SinkName::try_from("s").expect("a valid name"),
        enabled: false,
        kind: SinkKind::Jsonl(Jsonl { path, rotate_mib: 11, keep: 12 }),
        cameras: vec![name("a")],
    };
    assert_eq!(config.sinks, [sink]);
    let bus = Bus {
        root: "/etc/bus".into(),
        frame_subscribers: 5,
        result_subscribers: 6,
        result_buffer: 7,
    };
    assert_eq!(config.bus, bus);
    assert_eq!(config.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(
        config.up,
        Up { restart_min_ms: 20, restart_max_ms: 30, drain_s: 0.5, ..Up::default() }
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    let errors = load(&path).expect_err("no file");
    let shown = path.display();
    assert_eq!(
        errors.to_string(),
        format!("{shown}: there is no such configuration file\n1 error")
    );
    assert!(std::error::Error::source(&errors).is_some(), "the reason is kept");

    std::fs::write(&path, b"[model]\npath = \"\xff\"").expect("a writable folder");
    let errors = load(&path).expect_err("not UTF-8");
    assert_eq!(
        errors.to_string(),
        format!("{shown}:2:9: not UTF-8 text; save the file as UTF-8\n1 error")
    );
    let errors = load(folder.path()).expect_err("a folder");
    assert!(errors.to_string().contains("is a folder, not a configuration file"), "{errors}");
}

#[test]
fn byte_order_mark_and_windows_line_ends_are_fine() {
    let text = "\u{feff}[model]\r\npath = \"m.onnx\"\r\n[[camera]]\r\nname = \"a\"\r\n\
                source = \"test:ball\"\r\nfps = 999\r\n";
    let errors = parse(text, Path::new("x.toml"), &env).expect_err("fps is out of range");
    assert_eq!(
        errors.to_string(),
        "x.toml:6:7: camera[a].fps = 999: must be between 0.1 and 240 frames per second\n1 error"
    );
}

#[test]
fn files_that_are_named_but_missing_are_reported_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    let text = "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"off\"\nenabled = false\n\
                source = \"file:no.mp4\"\n[[camera]]\nname = \"a\"\nsource = \"file:no.mp4\"\n\
                [[sink]]\nname = \"s\"\nkind = \"jsonl\"\npath = \"no/out.jsonl\"\n";
    std::fs::write(&path, text).expect("a writable folder");
    let config = load(&path).expect("a valid configuration");
    let at = |rest: &str| format!("{}{rest}", path.display());
    let folder_shown = folder.path().display();
    let messages: Vec<String> = check_files(&config).iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            at(&format!(
                ":2:8: model.path = \"{folder_shown}/m.onnx\": there is no such file; \
                 framebus models fetch brings one"
            )),
            at(&format!(
                ":9:10: camera[a].source = \"{folder_shown}/no.mp4\": there is no such file or \
                 folder"
            )),
            at(&format!(
                ":13:8: sink[s].path = \"{folder_shown}/no/out.jsonl\": there is no such folder \
                 to write into"
            )),
        ]
    );
    for name in ["m.onnx", "no.mp4"] {
        std::fs::write(folder.path().join(name), "x").expect("a writable folder");
    }
    std::fs::create_dir(folder.path().join("no")).expect("a writable folder");
    assert!(check_files(&config).is_empty());
}

/// SplitMix64 (public domain, Sebastiano Vigna): enough to choose mutations.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as usize
}

#[test]
fn mutated_files_never_panic() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let read = |name: &str| std::fs::read_to_string(base.join(name)).expect("an example");
    // Without its comments, so that mutations hit keys and values.
    let bare: String = read("framebus.toml")
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter(|line| line.contains(" = ") || line.starts_with('['))
        .map(|line| format!("{line}\n"))
        .collect();
    let seeds = [bare, read("rtsp-two-cameras.toml"), read("one-file.toml")];
    let bits = [
        "[",
        "]",
        "\"",
        "=",
        "{",
        "}",
        "\n",
        "#",
        "'",
        "\\",
        "${",
        "@",
        "://",
        "ü",
        "\u{0}",
        "-1",
        "1e999",
        "nan",
        "[[camera]]",
        "camera",
        "9999999999999999999999",
        "\"\"\"",
        ":",
        "?",
        "\r",
    ];
    let (mut ok, mut broken) = (0, 0);
    for round in 0..6000_u64 {
        let mut state = round;
        let mut text: Vec<char> = seeds[next(&mut state) % seeds.len()].chars().collect();
        for _ in 0..=next(&mut state) % 4 {
            let from = next(&mut state) % (text.len() + 1);
            let to = (from + next(&mut state) % 12).min(text.len());
            let bit = match next(&mut state) % 3 {
                0 => "",
                _ => bits[next(&mut state) % bits.len()],
            };
            text.splice(from..to, bit.chars());
        }
        let text: String = text.into_iter().collect();
        match parse(&text, Path::new("x.toml"), &env) {
            Ok(_) => ok += 1,
            Err(errors) => {
                broken += 1;
                assert!(errors.iter().all(|error| error.position.is_some()), "{text}");
                assert!(!errors.to_string().contains('\u{0}'), "{errors}");
            }
        }
    }
    // Both outcomes occur, or the mutations test nothing.
    assert!(ok > 10 && broken > 1000, "{ok} {broken}");
}

#[test]
fn classes_are_looked_up_by_name_and_number() {
    let labels: Vec<String> = ["person", "car"].map(str::to_owned).into();
    let mut model = Model::new("m.onnx");
    assert_eq!(model.class_numbers(&labels), Ok(vec![]));
    model.classes = vec![ClassFilter::Name("car".to_owned()), ClassFilter::Number(0)];
    assert_eq!(model.class_numbers(&labels), Ok(vec![1, 0]));
    for wrong in [ClassFilter::Name("cra".to_owned()), ClassFilter::Number(2)] {
        model.classes = vec![wrong.clone()];
        assert_eq!(
            model.class_numbers(&labels),
            Err(format!("model.classes: the model has no class {wrong}; it has 2: person, car"))
        );
    }
}

#[test]
fn pictures_of_live_sources_are_checked_unless_told_otherwise() {
    for (camera, checked) in [
        ("source = \"rtsp://10.0.0.9/x\"", true),
        ("source = \"v4l2:/dev/video0\"", true),
        ("source = \"gst:libcamerasrc\"", true),
        ("source = \"gst:videotestsrc\"\ndelivery = \"every-frame\"", false),
        ("source = \"test:ball\"", false),
        ("source = \"file:x.mp4\"", false),
        ("source = \"file:x.mp4\"\npicture_checks = \"on\"", true),
        ("source = \"rtsp://10.0.0.9/x\"\npicture_checks = \"off\"", false),
    ] {
        let text = format!("[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\n{camera}\n");
        let config = parse(&text, Path::new("/etc/x.toml"), &env).expect("a valid configuration");
        assert_eq!(config.cameras[0].checks.is_some(), checked, "{camera}");
    }
}

#[test]
fn a_file_with_errors_still_says_which_instance_it_speaks_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    let found = |text: &str| {
        std::fs::write(&path, text).expect("a writable folder");
        whereabouts(&path).map(|(name, root)| (name.to_string(), root))
    };
    let at = |name: &str, root: Option<&str>| {
        Some((name.to_owned(), root.map(|r| folder.path().join(r))))
    };
    assert_eq!(
        found("instance = \"a\"\n[bus]\nroot = \"b\"\n[[camera]]\nfps = ["),
        at("a", Some("b"))
    );
    assert_eq!(found("fps = what"), at("default", None));
    assert_eq!(found("instance = \"not a name\""), None);
    assert_eq!(found("[bus]\nroot = 5"), None);
}
