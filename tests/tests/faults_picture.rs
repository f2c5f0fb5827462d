//! Cameras that deliver, and whose pictures are none.
//!
//! Each camera is a named pipe into which the test writes raw video, so that it decides
//! what comes and when. Broken references of a real decoder and time stamps that jump are
//! covered by the unit tests of `framebus-capture`; a lens is covered in pixels only.

use framebus_bus::{Bus, Delivery};
use framebus_service::{INFER_READER, clock};
use framebus_tests::{
    Bystander, HealthWatch, World, asset, binary, openvino, print_fault, status, wait_until,
};
use framebus_types::{Counter, FLAG_PICTURE_FAULT, Role, State, text};
use framebus_vision::{Scene, scene::missing};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const WIDTH: usize = 320;
const HEIGHT: usize = 192;
const FPS: u64 = 20;

/// What a camera shows while its fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Frozen,
    Black,
    Green,
    Covered,
    Late,
}

/// Camera, what goes wrong with it, the words of its state, the name in results, and when
/// the threshold is passed after the beginning of the fault, s.
const FAULTS: [(&str, Fault, &str, &str, f64); 5] = [
    ("frozen", Fault::Frozen, "frozen: the same picture for", "frozen", 3.0),
    ("black", Fault::Black, "uniform: the picture shows nothing but black", "uniform", 1.0),
    ("green", Fault::Green, "corrupt: the picture has green areas", "corrupt", 0.0),
    ("covered", Fault::Covered, "blurred: most of the picture", "blurred", 1.0),
    // At three quarters of its speed a camera is a second late after four.
    ("late", Fault::Late, "late: frames come up to", "late", 5.0),
];

/// A camera that writes NV12 into a pipe until dropped.
struct Feeder {
    stop: Arc<AtomicBool>,
    path: PathBuf,
}

impl Feeder {
    fn start(path: &Path, fault: Fault, broken: &Arc<AtomicBool>) -> Self {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        let stop = Arc::new(AtomicBool::new(false));
        let (wish, broken, pipe) = (stop.clone(), broken.clone(), path.to_owned());
        // Not waited for at the end: it may be blocked by a reader that outlives the test.
        std::thread::spawn(move || {
            while !wish.load(Relaxed) {
                feed(&pipe, fault, &broken, &wish);
            }
        });
        Self { stop, path: path.to_owned() }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes a feeder whose reader has never come.
        let _ = OpenOptions::new().read(true).write(true).open(&self.path);
    }
}

/// Textured, with the noise of a sensor.
fn good(random: &mut u64) -> Vec<u8> {
    let mut frame = vec![128; WIDTH * HEIGHT * 3 / 2];
    for (i, pixel) in frame[..WIDTH * HEIGHT].iter_mut().enumerate() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let (x, y) = (i % WIDTH, i / WIDTH);
        *pixel = (60 + 40 * ((x / 4 + y / 16) % 3) + (*random >> 33) as usize % 5) as u8;
    }
    frame
}

/// Until the reader goes, which it does when the machine is too busy for its first frame.
fn feed(path: &Path, fault: Fault, broken: &AtomicBool, stop: &AtomicBool) {
    let Ok(mut pipe) = OpenOptions::new().write(true).open(path) else { return };
    let mut random = 7;
    let mut last = good(&mut random);
    let mut next_ns = clock::monotonic_ns();
    let mut behind_ns = 0;
    let period_ns = 1_000_000_000 / FPS;
    while !stop.load(Relaxed) {
        let is_broken = broken.load(Relaxed);
        let mut frame = good(&mut random);
        if is_broken {
            match fault {
                Fault::Frozen => frame.clone_from(&last),
                Fault::Black => frame[..WIDTH * HEIGHT].fill(16),
                Fault::Green => frame[WIDTH * HEIGHT * 4 / 3..].fill(0),
                Fault::Covered => {
                    for (i, pixel) in frame[..WIDTH * HEIGHT].iter_mut().enumerate() {
                        *pixel = (120 + i % WIDTH / 5) as u8 + *pixel % 2;
                    }
                }
                Fault::Late => {
                    next_ns += period_ns / 3;
                    behind_ns += period_ns / 3;
                }
            }
        } else {
            // Catches up at once.
            next_ns -= std::mem::take(&mut behind_ns);
        }
        if pipe.write_all(&frame).is_err() {
            return;
        }
        last = frame;
        next_ns += period_ns;
        let wait_ns = next_ns.saturating_sub(clock::monotonic_ns());
        #[allow(clippy::disallowed_methods, reason = "a camera has no signals to answer")]
        std::thread::sleep(Duration::from_nanos(wait_ns));
    }
}

fn config(world: &World) -> PathBuf {
    let model = world.tiny_model(1, Some((96, 160)));
    let lines = world.path("results.jsonl");
    let mut text = format!(
        "[model]\npath = {model:?}\n[[sink]]\nname = \"lines\"\nkind = \"jsonl\"\npath = {lines:?}\n\
         [[camera]]\nname = \"near\"\nsource = \"test:ball?width=320&height=192&fps=15\"\n"
    );
    for (name, ..) in FAULTS {
        let pipe = world.path(&format!("{name}.pipe"));
        text += &format!(
            "[[camera]]\nname = \"{name}\"\nsource = \"gst:filesrc location={} blocksize=92160 ! \
             rawvideoparse format=nv12 width={WIDTH} height={HEIGHT} framerate={FPS}/1\"\n\
             stall_s = 20.0\nfrozen_s = 3.0\nlate_s = 1.0\nfault_hold_s = 1.0\n",
            pipe.display()
        );
    }
    world.config(&text)
}

#[test]
fn pictures_that_are_none_are_said_and_flagged_until_they_are_again() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = config(&world);
    let broken = Arc::new(AtomicBool::new(false));
    let feeders: Vec<Feeder> = FAULTS
        .iter()
        .map(|(name, fault, ..)| {
            Feeder::start(&world.path(&format!("{name}.pipe")), *fault, &broken)
        })
        .collect();
    let health = HealthWatch::start(&world.domain());
    let mut up = world.up(&config);
    // The usual detail is learned in five seconds, and nothing is wrong meanwhile.
    for (name, ..) in FAULTS {
        health.wait(Role::Capture, name, 60, |record| record.counter(Counter::Published) > 7 * FPS);
        let states = health.states(Role::Capture, name);
        assert!(states.iter().all(|(state, _)| *state != State::Degraded), "{name}: {states:?}");
    }
    let near = Bystander::start(&world.domain(), "near");

    broken.store(true, Relaxed);
    let begin_ns = clock::monotonic_ns();
    let since_s = || (clock::monotonic_ns() - begin_ns) as f64 / 1e9;
    let mut seen_s = [None; FAULTS.len()];
    wait_until("every fault", 15, || {
        for ((name, _, words, ..), seen_s) in FAULTS.iter().zip(&mut seen_s) {
            let says = health.newest(Role::Capture, name).is_some_and(|record| {
                record.state == u32::from(State::Degraded)
                    && text::unpack(&record.reason).starts_with(words)
            });
            if says {
                seen_s.get_or_insert_with(since_s);
            }
        }
        seen_s.iter().all(Option::is_some).then_some(())
    });
    for ((name, _, _, _, threshold_s), seen_s) in FAULTS.iter().zip(seen_s) {
        let late_s = seen_s.unwrap_or(f64::MAX) - threshold_s;
        assert!(late_s < 5.0, "{name}: {late_s:.1} s after the threshold");
    }
    let rows = status(&world);
    for ((name, _, words, flag, _), seen_s) in FAULTS.iter().zip(seen_s) {
        let row = rows.iter().find(|row| row.kind == "camera" && row.name == *name);
        let row = row.unwrap_or_else(|| panic!("{name} is not in the status"));
        assert_eq!(row.state, "degraded", "{row:?}");
        assert!(row.reason.starts_with(words), "{row:?}");
        print_fault(
            &format!("picture {flag}"),
            row,
            Duration::from_secs_f64(seen_s.unwrap_or(0.0)),
        );
    }

    broken.store(false, Relaxed);
    for (name, ..) in FAULTS {
        let record = health.wait_state(Role::Capture, name, State::Live, 8);
        assert!(record.counter(Counter::Suspect) > FPS / 2, "{name}");
        assert_eq!(record.counter(Counter::Reconnects), 0, "{name}");
    }
    assert!(near.finish() > 50);

    // A subscriber sees it too: the name stands in the results of the frames concerned.
    let lines = std::fs::read_to_string(world.path("results.jsonl")).expect("written");
    for (name, _, _, flag, _) in FAULTS {
        let camera = format!("\"camera\":\"{name}\"");
        let faults = format!("\"faults\":[\"{flag}\"]");
        let of_camera = || lines.lines().filter(|line| line.contains(&camera));
        let flagged = of_camera().filter(|line| line.contains(&faults)).count();
        assert!(flagged > 5, "{name}: {flagged} results say {flag}");
        let clean = of_camera().filter(|line| !line.contains("\"faults\"")).count();
        assert!(clean > 40, "{name}: {clean} results without a fault");
    }
    drop(health);
    up.signal(Signal::TERM);
    assert_eq!(up.wait(30).code, Some(0));
    drop(feeders);
    world.assert_gone();
}

/// A minute of a real camera, every fifth frame as capture looks at it, without patience.
#[test]
fn a_street_by_day_has_no_fault() {
    let Some(clip) = asset("media/street720.mp4") else { return };
    let world = World::new();
    let config = world.config(&format!(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"street\"\nsource = \"file:{}\"\n\
         pace = \"fast\"\nloop = true\ndelivery = \"every-frame\"\npicture_checks = \"on\"\n",
        clip.display()
    ));
    let bus: Bus = Bus::open(&world.domain(), "street").expect("the bus can be joined");
    let frames = bus
        .frame_subscriber("street", Delivery::EveryFrame, INFER_READER)
        .expect("frames can be read");
    let args = ["--camera", "street", "--config", &config.display().to_string()];
    let mut capture = world.start("capture", &binary("framebus-capture"), &args);
    let (mut scene, mut count) = (None, 0);
    wait_until("a minute of frames", 60, || {
        while let Some(frame) = frames.receive().expect("the bus works") {
            count += 1;
            assert_eq!(frame.header().flags & FLAG_PICTURE_FAULT, 0, "frame {count}");
            if count % 5 != 0 {
                continue;
            }
            let header = frame.header();
            let (width, height) = (header.width as usize, header.height as usize);
            let ((luma, stride), (chroma, chroma_stride)) = (frame.plane(0), frame.plane(1));
            let scene = scene.get_or_insert_with(|| Scene::new(width, height, 0.6));
            let sight = scene.look(luma, stride, 0.2).expect("a picture");
            let green = missing(chroma, chroma_stride, width, height);
            let is_fine = sight.change > 0.0 && sight.contrast > 10.0 && !sight.blurred;
            assert!(is_fine && green == Some(0.0), "frame {count}: {sight:?}, {green:?}");
        }
        (count >= 1500).then_some(())
    });
    drop(frames);
    capture.signal(Signal::TERM);
    assert_eq!(capture.wait(20).code, Some(0));
}
