//! The way of a stream through hardware, with doubles of the elements
//! ([`crate::doubles`]): decoder, memory, size, and the pixels on the bus.

use crate::decoder::Family;
use crate::doubles::{self, BROKEN, JETSON};
use crate::pipeline::Session;
use crate::publish::Output;
use crate::watch::Watch;
use framebus_bus::{Bus, Delivery};
use framebus_service::{INFER_READER, Shutdown, Vitals, clock};
use framebus_types::{ColourMatrix, Counter, Role, text};
use gst::prelude::*;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Ranks are the process's own: one camera at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Longest time for a clip of 20 frames.
const PATIENCE: Duration = Duration::from_secs(60);

/// Other hardware of the machine that runs the test is not taken.
fn hide_hardware() {
    let kind = gst::ElementFactoryType::DECODER;
    for factory in gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL) {
        if !matches!(Family::of_factory(&factory), Family::Software | Family::Nvidia) {
            factory.set_rank(gst::Rank::NONE);
        }
    }
}

/// What came of a camera.
#[derive(Debug)]
struct Seen {
    /// As the status shows it.
    detail: String,
    error: Option<String>,
    frames: usize,
    zero_copy: u64,
    copied: u64,
    matrix: Option<ColourMatrix>,
    /// Mean luma of the upper left quarter of the last frame.
    bright: u64,
}

fn clip(path: &Path, frames: u32) {
    let text = format!(
        "videotestsrc num-buffers={frames} pattern=white ! \
         video/x-raw,format=I420,width=1280,height=720,framerate=30/1,colorimetry=bt709 ! \
         x264enc speed-preset=ultrafast key-int-max=10 ! h264parse ! mp4mux ! \
         filesink location={}",
        path.display()
    );
    let pipeline = gst::parse::launch(&text).expect("a pipeline");
    pipeline.set_state(gst::State::Playing).expect("plays");
    let bus = pipeline.bus().expect("bus");
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends).expect("an end");
    assert_eq!(end.type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).expect("stops");
}

/// Runs a clip of 20 frames, 1280x720, through a camera with these lines.
fn run(lines: &str) -> Seen {
    let dir = tempfile::Builder::new().prefix("fbhw").tempdir_in("/tmp").expect("temp dir");
    let name = dir.path().file_name().and_then(|name| name.to_str()).expect("name");
    let text = format!(
        "instance = \"{}\"\n[bus]\nroot = \"{}\"\n[model]\npath = \"m.onnx\"\n[[camera]]\n\
         name = \"cam\"\nsource = \"file:{}/a.mp4\"\npace = \"fast\"\n{lines}\n",
        name.to_lowercase().replace('.', "-"),
        dir.path().join("b").display(),
        dir.path().display(),
    );
    clip(&dir.path().join("a.mp4"), 20);
    let config = framebus_config::parse(&text, "x.toml".as_ref(), &|_| None).expect("valid");
    let camera = &config.cameras[0];
    let domain = framebus_service::domain(&config).expect("domain");
    let bus = Arc::new(Bus::open(&domain, "test").expect("bus"));
    let reader = bus.frame_subscriber("cam", Delivery::Latest, INFER_READER).expect("reader");
    let vitals = Vitals::new(Role::Capture, "cam");
    let output = Arc::new(Output::over(bus.clone(), Shutdown::new(), camera, vitals.clone()));
    let mut seen = Seen {
        detail: String::new(),
        error: None,
        frames: 0,
        zero_copy: 0,
        copied: 0,
        matrix: None,
        bright: 0,
    };
    let mut watch = Watch::new(0);
    match Session::build(camera, &output) {
        Ok(mut session) => {
            session.play();
            let begin_ns = clock::monotonic_ns();
            while seen.error.is_none() {
                let since_ns = clock::monotonic_ns() - begin_ns;
                assert!(since_ns < PATIENCE.as_nanos() as u64, "no end: {seen:?}");
                let message = session.message(Duration::from_millis(20));
                while let Some(frame) = reader.receive().expect("received") {
                    let (luma, stride) = frame.plane(0);
                    let (width, height) =
                        (frame.header().width as usize / 2, frame.header().height as usize / 2);
                    let rows = (0..height).flat_map(|row| &luma[row * stride..][..width]);
                    seen.bright =
                        rows.map(|y| u64::from(*y)).sum::<u64>() / (width * height) as u64;
                    seen.matrix = Some(frame.matrix());
                    seen.frames += 1;
                }
                match message.as_ref().map(|message| message.view()) {
                    Some(gst::MessageView::Eos(_)) => break,
                    Some(gst::MessageView::Error(error)) => {
                        seen.error = Some(crate::explain::error(
                            &camera.source,
                            camera.decoder,
                            &error.error(),
                            &error.debug().unwrap_or_default(),
                            watch.missing(),
                        ));
                    }
                    Some(gst::MessageView::Element(message)) => watch.element(message),
                    _ => {}
                }
            }
            watch.describe(camera, &output, &session);
            session.end();
        }
        Err(error) => seen.error = Some(error.to_string()),
    }
    seen.detail = text::unpack(&vitals.snapshot().detail).to_owned();
    (seen.zero_copy, seen.copied) = (vitals.get(Counter::ZeroCopy), vitals.get(Counter::Copied));
    drop((reader, output, bus));
    domain.remove_leftovers().expect("tidied");
    seen
}

#[test]
fn frames_of_a_pcs_gpu_come_down_once_in_the_size_that_is_published() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    doubles::register();
    hide_hardware();

    // Into the loan: the decoder fills a buffer of our pool.
    let seen = run("decoder = \"auto\"");
    assert_eq!(seen.detail, "nvh264dec → NV12 1280x720, zero-copy", "{seen:?}");
    assert_eq!((seen.zero_copy, seen.copied, seen.error.as_ref()), (20, 0, None), "{seen:?}");
    assert!(seen.frames > 0 && seen.bright > 200, "{seen:?}");
    assert_eq!(seen.matrix, Some(ColourMatrix::Bt709));

    let seen = run("decoder = \"nvidia\"\nmax_width = 640");
    let detail = &seen.detail;
    assert!(detail.starts_with("nvh264dec, cudaconvertscale → NV12 640x360"), "{seen:?}");
    assert_eq!((seen.zero_copy + seen.copied, seen.error.as_ref()), (20, None), "{seen:?}");
    assert!(seen.frames > 0 && seen.bright > 200, "{seen:?}");
    assert_eq!(seen.matrix, Some(ColourMatrix::Bt709), "HD colours at an SD size");

    // A limit that nothing reaches.
    let seen = run("max_width = 1920");
    let detail = &seen.detail;
    assert!(detail.starts_with("nvh264dec, cudaconvertscale → NV12 1280x720"), "{seen:?}");

    let seen = run("decoder = \"software\"\nmax_width = 640");
    assert_eq!(seen.detail, "avdec_h264 → NV12 640x360, zero-copy", "{seen:?}");
    assert_eq!(seen.matrix, Some(ColourMatrix::Bt709));
}

#[test]
fn a_decoder_that_does_not_start_gives_way_or_is_an_error() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    doubles::register();
    hide_hardware();
    BROKEN.store(true, Relaxed);
    let (auto, nvidia) = (run("decoder = \"auto\""), run("decoder = \"nvidia\""));
    BROKEN.store(false, Relaxed);
    assert_eq!(auto.detail, "avdec_h264 → NV12 1280x720, zero-copy", "{auto:?}");
    assert_eq!((auto.zero_copy, auto.error.as_ref()), (20, None), "{auto:?}");
    let error = nvidia.error.as_deref().unwrap_or_default();
    assert!(error.starts_with("no nvidia decoder takes video/x-h264 ("), "{nvidia:?}");
    assert_eq!(nvidia.frames, 0, "{nvidia:?}");
}

#[test]
fn frames_of_a_jetson_are_converted_out_of_its_memory() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    doubles::register_jetson();
    JETSON.store(true, Relaxed);
    let (small, full) = (run("decoder = \"nvidia\"\nmax_width = 320"), run(""));
    JETSON.store(false, Relaxed);
    for (seen, expected) in [(small, "320x180"), (full, "1280x720")] {
        let expected = format!("nvv4l2decoder, nvvidconv → NV12 {expected}");
        assert!(seen.detail.starts_with(&expected), "{seen:?}");
        assert_eq!((seen.zero_copy + seen.copied, seen.error.as_ref()), (20, None), "{seen:?}");
        assert_eq!(seen.matrix, Some(ColourMatrix::Bt709), "HD colours at an SD size");
        assert!(seen.bright > 200, "{seen:?}");
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn what_this_machine_does_not_have_is_refused() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    gst::init().expect("GStreamer");
    if gst::ElementFactory::find("vah264dec").is_some() {
        eprintln!("SKIPPED: this machine has VA's decoders");
        return;
    }
    let seen = run("decoder = \"va\"");
    let error = seen.error.as_deref().unwrap_or_default();
    assert!(
        error.starts_with("decoder = \"va\": GStreamer has no such decoder; it needs"),
        "{error}"
    );
}
