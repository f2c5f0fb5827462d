//! The `triton` backend against a real Triton server: the same boxes through every
//! transport and from every kind of model, and refusals that say what to do.

use framebus_config::{Endpoint, Secret, Triton as Settings, TritonTransport as Transport};
use framebus_engine::triton::Server;
use framebus_engine::{
    BatchOutput, Engine, EngineError, FrameRequest, InputShape, LoadOptions, Precision, Shape,
    Thresholds, backend,
};
use framebus_model::Model;
use framebus_tests::{
    Expected, Found, Picture, TritonServer, World, asset, expected, found, free_port, matches,
    openvino, reference, regions, repository, triton,
};
use std::path::{Path, PathBuf};
use std::process::Command;

const PICTURES: [&str; 2] = ["bus", "giraffe"];
const SQUARE: InputShape = InputShape::Fixed(Shape { height: 640, width: 640 });
const BOTH: [Transport; 2] = [Transport::SystemSharedMemory, Transport::Grpc];

fn thresholds() -> Thresholds {
    Thresholds { confidence: 0.25, iou: 0.45, max_detections: 300, classes: None }
}

/// How to ask model `name` of the server at `url`.
fn options(url: &str, name: &str, transport: Transport) -> LoadOptions {
    let url: Endpoint = url.parse().expect("an address");
    // The network of four requests at once on a busy machine takes its time.
    let timeout_ms = 10_000;
    let settings = Settings { url, transport, timeout_ms, ..Settings::default() };
    LoadOptions {
        precision: Precision::F32,
        triton: Some(Server { settings, model: name.to_owned() }),
        ..LoadOptions::new(framebus_service::clock::monotonic_ns)
    }
}

fn load(model: &Path, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
    backend("triton")?.load(&Model::open(model).expect("a model"), options)
}

/// The error of a load that must fail.
fn refusal(model: &Path, options: &LoadOptions) -> String {
    load(model, options).err().expect("it is refused").to_string()
}

/// Boxes of both pictures, one by one.
fn detect(engine: &mut dyn Engine) -> Vec<Vec<Found>> {
    let (labels, base) = (engine.info().labels.clone(), engine.info().base);
    let mut contexts = engine.contexts(base).expect("contexts");
    let (thresholds, mut output) = (thresholds(), BatchOutput::default());
    let each = PICTURES.map(|name| {
        let picture = Picture::open(name).expect("it was there before");
        let request = FrameRequest { view: picture.view(), thresholds: &thresholds, memory: None };
        contexts[0].run(&[request], &mut output).expect("runs");
        found(&labels, &output, 0)
    });
    each.to_vec()
}

/// The file of `model` with its head cut off, in the world's folder.
fn cut(world: &World, model: &Path) -> PathBuf {
    let cut = Model::open(model).expect("a model").cut().expect("its head can be cut");
    let bytes = cut.bytes().expect("in memory").clone();
    world.write("cut.onnx", bytes)
}

fn assets() -> Option<PathBuf> {
    let model = asset("models/yolov8n.onnx")?;
    (openvino() && triton() && PICTURES.iter().all(|name| Picture::open(name).is_some()))
        .then_some(model)
}

#[test]
fn every_transport_and_kind_of_model_answers_what_the_backend_in_process_does() {
    let Some(model) = assets() else { return };
    let world = World::new();
    let (whole, cut) = (model.display().to_string(), cut(&world, &model).display().to_string());
    let models = [
        format!("whole={whole},precision=f32"),
        format!("cut={cut},precision=f32,batch=4"),
        format!("half={cut},precision=f32,batch=4,fp16=1"),
        format!("bytes={cut},precision=f32,batch=4,uint8=1"),
        format!("plugin={whole},precision=f32,nms=efficient,nms_labels=best"),
        format!("rows={whole},precision=f32,nms=end2end,nms_labels=best"),
    ];
    let Some(server) = TritonServer::start(&world, &models) else { return };
    let in_process = LoadOptions { input: SQUARE, ..options(&server.url(), "", Transport::Auto) };
    let own = Model::open(&model).expect("a model");
    let mut engine =
        backend("openvino").and_then(|openvino| openvino.load(&own, &in_process)).expect("loads");
    let want: Vec<Vec<Expected>> =
        detect(engine.as_mut()).iter().map(|found| expected(found)).collect();
    // Scores and boxes: FP16 has 11 bits, pixels of 8 bits are rounded by 1/510.
    let kinds = [
        ("whole", 0.001, 0.999),
        ("cut", 0.001, 0.999),
        ("half", 0.01, 0.98),
        ("bytes", 0.02, 0.98),
        ("plugin", 0.001, 0.999),
        ("rows", 0.001, 0.999),
    ];
    for (name, score, overlap) in kinds {
        for transport in BOTH {
            let options = LoadOptions { input: SQUARE, ..options(&server.url(), name, transport) };
            let mut engine = load(&model, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            let info = engine.info().clone();
            assert_eq!((info.backend, info.version.as_str()), ("triton", "2.51.0"));
            let shared = transport == Transport::SystemSharedMemory;
            let way = if shared { "shared memory" } else { "gRPC" };
            assert!(info.device.ends_with(way), "{}", info.device);
            let have = detect(engine.as_mut());
            for ((picture, want), have) in PICTURES.iter().zip(&want).zip(&have) {
                matches(want, have, 0.27, overlap, score, 0.27)
                    .unwrap_or_else(|e| panic!("{name} by {way}, {picture}: {e}"));
                let (_, reference) = reference(picture);
                matches(&reference, have, 0.3, 0.95, 0.025, 0.35)
                    .unwrap_or_else(|e| panic!("{name} by {way}, reference {picture}: {e}"));
            }
        }
        assert_eq!(server.mapped_regions(), Vec::<String>::new(), "{name}: the server forgot them");
    }
    assert!(regions(std::process::id()).is_empty(), "no region is left");
}

#[test]
fn inputs_are_shaped_like_the_camera_and_batches_answer_each_frame() {
    let Some(model) = assets() else { return };
    let world = World::new();
    let cut = cut(&world, &model).display().to_string();
    let models = [
        format!("cut={cut},precision=f32,batch=4"),
        format!("gathers={cut},precision=f32,batch=4,dynamic=1,delay_us=2000"),
    ];
    let Some(server) = TritonServer::start(&world, &models) else { return };
    let pictures = PICTURES.map(|name| Picture::open(name).expect("it was there before"));
    let thresholds = thresholds();
    for transport in BOTH {
        let mut engine = load(&model, &options(&server.url(), "cut", transport)).expect("loads");
        let (labels, base) = (engine.info().labels.clone(), engine.info().base);
        assert_eq!((engine.info().max_batch, base), (4, Shape { height: 384, width: 640 }));
        let mut context = engine.contexts(base).expect("contexts").pop().expect("one");
        let request = |index: usize| FrameRequest {
            view: pictures[index].view(),
            thresholds: &thresholds,
            memory: None,
        };
        let (mut single, mut batch) = (BatchOutput::default(), BatchOutput::default());
        context.run(&[request(1), request(0), request(1)], &mut batch).expect("runs");
        let server_times = batch.times.server;
        assert!(server_times.request != 0 && server_times.sent_bytes > 0, "{server_times:?}");
        let in_message = server_times.sent_bytes as usize >= 3 * 3 * 384 * 640 * 4;
        assert_eq!(in_message, transport == Transport::Grpc, "{server_times:?}");
        for (place, picture) in [(0, 1), (1, 0), (2, 1)] {
            context.run(&[request(picture)], &mut single).expect("runs");
            let want = expected(&found(&labels, &single, 0));
            assert!(!want.is_empty());
            matches(&want, &found(&labels, &batch, place), 0.26, 0.999, 0.001, 0.26)
                .unwrap_or_else(|e| panic!("{place}: {e}"));
        }
        let five = [0; 5].map(request);
        let error = context.run(&five, &mut batch).expect_err("too many").to_string();
        assert!(error.contains("5 frames were given, a request takes 4 at most"), "{error}");
        // Another input is another network; the server compiles it when it is asked.
        let tall = Shape { height: 640, width: 480 };
        let mut other = engine.contexts(tall).expect("contexts").pop().expect("one");
        other.run(&[request(0)], &mut single).expect("runs");
        assert!(!single.frames[0].detections.is_empty());
    }
    // The server's own batcher: single requests from several threads at once.
    let options = LoadOptions {
        mode: framebus_engine::Mode::Throughput,
        ..options(&server.url(), "gathers", Transport::Auto)
    };
    let mut engine = load(&model, &options).expect("loads");
    assert_eq!((engine.info().max_batch, engine.info().contexts), (1, 4));
    let contexts = engine.contexts(engine.info().base).expect("contexts");
    let (pictures, thresholds) = (&pictures, &thresholds);
    std::thread::scope(|scope| {
        for mut context in contexts {
            scope.spawn(move || {
                let mut output = BatchOutput::default();
                for round in 0..5 {
                    let view = pictures[round % 2].view();
                    context
                        .run(&[FrameRequest { view, thresholds, memory: None }], &mut output)
                        .expect("runs");
                    assert!(!output.frames[0].detections.is_empty());
                }
            });
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_frame() {
    let world = World::new();
    let tiny = world.tiny_model(2, Some((96, 160)));
    let other = world.tiny_model(3, Some((96, 160)));
    let Some(server) = TritonServer::start(&world, &[format!("tiny={}", tiny.display())]) else {
        return;
    };
    let url = server.url();
    let with = |change: &dyn Fn(&mut LoadOptions, &mut Settings)| {
        let mut options = options(&url, "tiny", Transport::Auto);
        let mut settings = options.triton.take().expect("set").settings;
        change(&mut options, &mut settings);
        options.triton = Some(Server { settings, model: "tiny".to_owned() });
        options
    };
    assert!(load(&tiny, &with(&|_, _| ())).is_ok());
    let cases: Vec<(String, &str)> = vec![
        (
            refusal(&tiny, &options(&url, "nope", Transport::Auto)),
            "model 'nope' is not there or not ready; see the server's model repository",
        ),
        (
            refusal(&tiny, &with(&|_, settings| settings.version = Some("7".to_owned()))),
            "model 'tiny' version 7 is not there or not ready",
        ),
        (
            refusal(&other, &with(&|_, _| ())),
            "its outputs 'output0' FP32 [1, 6, 15] are none of what is read for the 3 classes",
        ),
        (
            refusal(
                &tiny,
                &with(&|options, _| {
                    options.input = InputShape::Fixed(Shape { height: 192, width: 320 });
                }),
            ),
            "it was exported for 96x160 (height x width), 192x320 is wanted",
        ),
        (
            refusal(&tiny, &with(&|_, settings| settings.max_batch = 8)),
            "triton.max_batch = 8, but the server's model takes 1 at most",
        ),
        (
            refusal(&tiny, &options(&url, "tiny", Transport::CudaSharedMemory)),
            "\"cuda-shared-memory\" needs the CUDA backend, which is not part of this version",
        ),
        (
            refusal(
                &tiny,
                &options(&format!("127.0.0.1:{}", free_port()), "tiny", Transport::Auto),
            ),
            "refused (os error 111); start the server, or correct triton.url",
        ),
        (
            refusal(&tiny, &with(&|_, settings| settings.url.tls = true)),
            "it seems not to speak TLS: write grpc:// instead of grpcs://",
        ),
    ];
    for (text, part) in cases {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Runs the server so that it cannot share our memory, and asks for it.
fn not_shared(wrapper: &[&str], cure: &str) {
    let world = World::new();
    let tiny = world.tiny_model(2, Some((96, 160)));
    // The other user shall read it.
    let open = Command::new("chmod").args(["-R", "a+rX"]).arg(world.folder()).status();
    assert!(open.expect("chmod runs").success());
    let models = [format!("tiny={}", tiny.display())];
    let Some(server) = TritonServer::start_as(&world, &models, wrapper, &[]) else { return };
    let text = refusal(&tiny, &options(&server.url(), "tiny", Transport::SystemSharedMemory));
    assert!(text.contains("Unable to open shared memory region"), "{text}");
    assert!(text.contains(cure), "{text}");
    let mut engine =
        load(&tiny, &options(&server.url(), "tiny", Transport::Auto)).expect("goes over gRPC");
    assert!(engine.info().device.ends_with("gRPC"), "{}", engine.info().device);
    assert!(engine.contexts(engine.info().base).expect("contexts").len() == 1);
    assert!(regions(std::process::id()).is_empty(), "no region is left");
}

#[test]
fn a_server_that_does_not_see_our_memory_is_asked_over_grpc() {
    let script = "mount -t tmpfs -o mode=1777,size=256m tmpfs /dev/shm && exec \"$@\"";
    let wrapper =
        ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"];
    not_shared(&wrapper, "a container needs --ipc=host");
}

#[test]
#[allow(clippy::print_stderr, reason = "the test's own output")]
fn a_server_of_another_user_is_asked_over_grpc() {
    let wrapper = [
        "/usr/bin/setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "/usr/bin/env",
        "HOME=/tmp",
    ];
    // A checkout below a private folder is nothing that others can run.
    let mut probe = Command::new(wrapper[0]);
    probe
        .args(&wrapper[1..])
        .arg("test")
        .arg("-r")
        .arg(repository().join("deploy/triton/serve.sh"));
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: nobody cannot read this checkout, or we are not root");
        return;
    }
    not_shared(&wrapper, "run both as one user");
}

#[test]
fn a_token_goes_into_the_header_that_the_server_wants() {
    let world = World::new();
    let tiny = world.tiny_model(2, Some((96, 160)));
    let restricted = "--grpc-restricted-protocol=health,metadata,model-config,inference,\
                      shared-memory,statistics:entry=hunter2";
    let models = [format!("tiny={}", tiny.display())];
    let started = TritonServer::start_as(&world, &models, &[], &["--", restricted]);
    let Some(server) = started else { return };
    let with = |token: Option<&str>, header: &str| {
        let mut options = options(&server.url(), "tiny", Transport::Auto);
        let server = options.triton.as_mut().expect("set");
        server.settings.token = token.map(Secret::new);
        server.settings.token_header = header.to_owned();
        options
    };
    let header = "triton-grpc-protocol-entry";
    assert!(load(&tiny, &with(Some("hunter2"), header)).is_ok());
    for options in
        [with(None, header), with(Some("hunter3"), header), with(Some("hunter2"), "authorization")]
    {
        let text = refusal(&tiny, &options);
        assert!(text.contains("the server says: This protocol is restricted"), "{text}");
        assert!(!text.contains("hunter"), "{text}");
        assert!(!format!("{options:?}").contains("hunter"), "{options:?}");
    }
}

#[test]
fn tls_is_spoken_with_the_right_authority_and_with_no_other() {
    let world = World::new();
    let tiny = world.tiny_model(2, Some((96, 160)));
    if !triton() {
        return;
    }
    let run = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(world.folder());
        let output = command.output().expect("openssl runs");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for name in ["ca", "other"] {
        run(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
    }
    world.write("names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    for name in ["server", "client"] {
        run(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
        ));
    }
    let path = |name: &str| world.path(name);
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let arguments = [
        "--".to_owned(),
        "--grpc-use-ssl=1".to_owned(),
        "--grpc-use-ssl-mutual=1".to_owned(),
        format!("--grpc-server-cert={}", cert.display()),
        format!("--grpc-server-key={}", key.display()),
        format!("--grpc-root-cert={}", ca.display()),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let models = [format!("tiny={}", tiny.display())];
    let Some(server) = TritonServer::start_as(&world, &models, &[], &arguments) else { return };
    let url = format!("grpcs://{}", server.url());
    let with = |ca: Option<&str>, client: Option<&str>| {
        let mut options = options(&url, "tiny", Transport::Auto);
        let server = options.triton.as_mut().expect("set");
        server.settings.ca = ca.map(path);
        server.settings.cert = client.map(|name| path(&format!("{name}.pem")));
        server.settings.key = client.map(|name| path(&format!("{name}.key")));
        options
    };
    let good = load(&tiny, &with(Some("ca.pem"), Some("client"))).expect("it is the right one");
    assert!(good.info().device.starts_with("grpcs://127.0.0.1:"), "{}", good.info().device);
    let wrong = [
        (with(Some("other.pem"), Some("client")), "certificate"),
        (with(None, Some("client")), "certificate"),
        (with(Some("ca.pem"), None), ""),
        (with(Some("missing.pem"), None), "triton.ca: cannot read"),
        (with(Some("names"), None), ""),
    ];
    for (options, part) in wrong {
        let text = refusal(&tiny, &options);
        assert!(text.starts_with("triton is not available: "), "{text}");
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let plain = format!("grpc://{}", server.url());
    assert!(load(&tiny, &options(&plain, "tiny", Transport::Auto)).is_err(), "it speaks TLS only");
}
