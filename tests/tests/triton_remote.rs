//! A Triton server on another machine, which is a network namespace behind a slow link
//! (`scripts/triton/remote_box.py`): only gRPC is tried, and a pulled cable is found.

use framebus_config::{Endpoint, Triton as Settings, TritonTransport as Transport};
use framebus_engine::triton::Server;
use framebus_engine::{
    BatchOutput, Context, Engine, EngineError, FrameRequest, LoadOptions, Mode, Thresholds, backend,
};
use framebus_model::Model;
use framebus_service::clock;
use framebus_tests::{TritonServer, World, asset, regions, repository, triton, wait_until};
use framebus_vision::{Colour, FrameView, Planes};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The other machine's network; nobody's on a test machine.
fn subnet() -> String {
    format!("10.{}.{}", 80 + std::process::id() % 100, std::process::id() / 100 % 250)
}

fn load(
    url: &str,
    model: &str,
    transport: Transport,
    file: &Path,
) -> Result<Box<dyn Engine>, EngineError> {
    let url: Endpoint = url.parse().expect("an address");
    let options = LoadOptions {
        mode: Mode::Throughput,
        triton: Some(Server {
            settings: Settings { url, transport, ..Settings::default() },
            model: model.to_owned(),
        }),
        ..LoadOptions::new(clock::monotonic_ns)
    };
    backend("triton")?.load(&Model::open(file).expect("a model"), &options)
}

struct Picture(Vec<u8>);

impl Picture {
    fn grey() -> Self {
        Self((0..1280 * 720 * 3).map(|i| (i % 253) as u8).collect())
    }

    fn run(&self, context: &mut dyn Context) -> Result<(), EngineError> {
        let planes = Planes::Rgb24 { data: &self.0, stride: 3 * 1280 };
        let view = FrameView::new(1280, 720, planes, Colour::default()).expect("a picture");
        let thresholds =
            Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
        let request = FrameRequest { view, thresholds: &thresholds, memory: None };
        context.run(&[request], &mut BatchOutput::default())
    }
}

/// Frames a second of all contexts together, and the median of a frame's time, ms.
fn measure(contexts: &mut [Box<dyn Context>], picture: &Picture) -> (f64, f64) {
    const FOR_NS: u64 = 1_000_000_000;
    let begin_ns = clock::monotonic_ns();
    let mut took: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = contexts
            .iter_mut()
            .map(|context| {
                scope.spawn(move || {
                    let mut took = Vec::new();
                    while clock::monotonic_ns() - begin_ns < FOR_NS {
                        let start_ns = clock::monotonic_ns();
                        picture.run(context.as_mut()).expect("the server answers");
                        took.push(clock::monotonic_ns() - start_ns);
                    }
                    took
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let seconds = (clock::monotonic_ns() - begin_ns) as f64 / 1e9;
    took.sort_unstable();
    (took.len() as f64 / seconds, took[took.len() / 2] as f64 / 1e6)
}

#[allow(clippy::print_stdout, reason = "the figures are for whoever reads the test's output")]
fn far_away(rtt_ms: u32) {
    let Some(file) = asset("models/yolov8n.onnx").filter(|_| triton()) else { return };
    let world = World::new();
    let cut = Model::open(&file).expect("a model").cut().expect("its head can be cut");
    let cut = world.write("cut.onnx", cut.bytes().expect("in memory")).display().to_string();
    let models = [
        format!("floats={cut}"),
        format!("halves={cut},fp16=1"),
        format!("bytes={cut},uint8=1,fp16=1"),
        // Small: only boxes come back.
        format!("boxes={},uint8=1,nms=efficient", file.display()),
    ];
    let script: PathBuf = repository().join("scripts/triton/remote_box.py");
    let (script, subnet, rtt) = (script.display().to_string(), subnet(), rtt_ms.to_string());
    let wrapper = [&*script, "--rtt-ms", &rtt, "--mbit", "100", "--subnet", &subnet, "--"];
    let address = format!("{subnet}.2");
    let started = TritonServer::start_as(&world, &models, &wrapper, &["--address", &address]);
    let Some(mut server) = started else { return };
    let refused = load(&server.url(), "floats", Transport::SystemSharedMemory, &file);
    let text = refused.err().expect("it is far away").to_string();
    assert!(text.contains("is another machine, which cannot share memory"), "{text}");
    let picture = Picture::grey();
    let mut last = None;
    for name in ["floats", "halves", "bytes", "boxes"] {
        let mut engine = load(&server.url(), name, Transport::Auto, &file).expect("loads");
        assert!(engine.info().device.ends_with("gRPC"), "{}", engine.info().device);
        assert!(regions(std::process::id()).is_empty(), "no memory was offered");
        let mut contexts = engine.contexts(engine.info().base).expect("contexts");
        let (fps, ms) = measure(&mut contexts, &picture);
        let (alone_fps, alone_ms) = measure(&mut contexts[..1], &picture);
        println!(
            "{rtt_ms} ms, 100 Mbit/s, {name} {}: {fps:.1} frames/s, p50 {ms:.0} ms with {} requests in flight; \
             {alone_fps:.1} frames/s, p50 {alone_ms:.0} ms with one",
            engine.info().base,
            contexts.len(),
        );
        last = Some((engine, contexts));
    }
    let (_engine, mut contexts) = last.expect("four were loaded");
    let context = contexts[0].as_mut();
    // The cable is pulled: no answer, and no refusal either.
    server.signal(Signal::USR1);
    let begin_ns = clock::monotonic_ns();
    let error = picture.run(context).expect_err("nothing comes through");
    let after = Duration::from_nanos(clock::monotonic_ns() - begin_ns);
    assert!(matches!(error, EngineError::Gone { .. }), "{error}");
    println!("cable pulled: {error}, after {after:.1?}");
    server.signal(Signal::USR2);
    let begin_ns = clock::monotonic_ns();
    wait_until("answers", 60, || picture.run(context).ok());
    let after = Duration::from_nanos(clock::monotonic_ns() - begin_ns);
    println!("cable plugged in again: answers after {after:.1?}");
    drop(contexts);
    drop(server);
    world.assert_ended();
}

/// `FRAMEBUS_TRITON_RTT_MS=1` is one that stands in the same room.
#[test]
fn a_server_on_another_machine() {
    let rtt = std::env::var("FRAMEBUS_TRITON_RTT_MS");
    far_away(rtt.map_or(20, |ms| ms.parse().expect("milliseconds")));
}
