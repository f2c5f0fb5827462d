//! Clips and snapshots of real instances. The events are this test's: a publisher at the
//! place of the inference process, with the names and times of frames that were inferred.
//! What the clips hold is judged by GStreamer.

use framebus_bus::{Bus, EventPublisher};
use framebus_client::{Client, FrameSample, ResultHeader, Results, picture};
use framebus_tests::{Process, RtspCamera, World, asset, openvino, wait_row, wait_until};
use framebus_types::{Event, EventKind, text};
use rustix::process::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The words of gst-launch that lead from an MP4 file to something.
fn gst(file: &Path, rest: &str) -> String {
    let line = format!("filesrc location={} ! qtdemux ! {rest}", file.display());
    let output = Command::new("gst-launch-1.0")
        .arg("-v")
        .args(line.split(' '))
        .output()
        .expect("gst-launch-1.0 is part of gstreamer1.0-tools");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}{errors}");
    said
}

/// Times in seconds that gst-launch prints behind `what`, one a buffer.
fn times(said: &str, what: &str) -> Vec<f64> {
    let chains = said.lines().filter(|line| line.contains("last-message = chain"));
    chains
        .filter_map(|line| {
            let mut clock = line.split(what).nth(1)?.split([',', ' ']).next()?.split(':');
            let mut number = || clock.next()?.parse::<f64>().ok();
            Some(number()? * 3600.0 + number()? * 60.0 + number()?)
        })
        .collect()
}

/// When the decoded pictures of a clip are shown, s.
fn shown(clip: &Path, decoder: &str) -> Vec<f64> {
    let parser = if decoder == "avdec_h265" { "h265parse" } else { "h264parse" };
    let rest = format!("{parser} ! {decoder} ! fakesink silent=false sync=false");
    times(&gst(clip, &rest), "pts: ")
}

/// All compressed frames of a file, each NAL unit behind its length, without parameter sets.
fn compressed(file: &Path, world: &World) -> Vec<u8> {
    let out = world.path("frames.bin");
    gst(file, &format!("video/x-h264,stream-format=avc ! filesink location={}", out.display()));
    let (bytes, mut kept) = (std::fs::read(out).expect("written"), Vec::new());
    let mut left = &bytes[..];
    while let Some((len, rest)) = left.split_first_chunk() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        // The parser repeats the parameter sets in front of the first key frame.
        if !matches!(unit[0] & 31, 7 | 8) {
            kept.extend_from_slice(len);
            kept.extend_from_slice(unit);
        }
        left = rest;
    }
    kept
}

/// An instance, its results, and a place to put events.
struct Scene {
    up: Process,
    results: Results,
    events: EventPublisher,
    sent: u64,
    _bus: Bus,
    world: World,
}

impl Scene {
    fn start(mut world: World, body: &str) -> Self {
        world.bus = "frame_subscribers = 6".to_owned();
        let model = world.tiny_model(2, Some((96, 160)));
        let config = world.config(&format!("[model]\npath = {model:?}\n{body}"));
        let up = world.up(&config);
        let results = wait_until("the instance", 30, || {
            Client::connect_in(world.instance(), &world.root()).ok()?.results().ok()
        });
        let bus: Bus = Bus::open(&world.domain(), "fake").expect("the bus");
        let events = bus.event_publisher().expect("an event publisher");
        Self { up, results, events, sent: 0, _bus: bus, world }
    }

    /// The next result of a camera, `s` seconds from now.
    fn result_after(&mut self, camera: &str, s: f64) -> ResultHeader {
        let from = framebus_service::clock::monotonic_ns() + (s * 1e9) as u64;
        wait_until(&format!("a result of {camera}"), 30, || {
            let result = self.results.wait_for(Duration::from_millis(500)).expect("the bus")?;
            let header = *result.header();
            let is_it = result.camera() == camera && header.times.capture_ns >= from;
            is_it.then_some(header)
        })
    }

    /// Publishes an event of the frame of this result, as tracking would.
    fn event(&mut self, of: &ResultHeader, kind: EventKind, track: u64) -> String {
        let event = Event {
            kind: kind.into(),
            camera: of.camera,
            label: text::pack("red"),
            event_sequence: self.sent,
            event_epoch_ns: 1,
            epoch_ns: of.epoch_ns,
            sequence: of.sequence,
            capture_ns: of.times.capture_ns,
            wall_ns: of.wall_ns,
            track,
            bbox: [100.0, 60.0, 180.0, 130.0],
            score: 0.75,
            width: of.width,
            height: of.height,
            ..Event::default()
        };
        self.sent += 1;
        self.events.publish(&[event]).expect("sent");
        event.id()
    }

    fn stop(mut self) {
        self.up.signal(Signal::TERM);
        assert_eq!(self.up.wait(30).code, Some(0), "{}", self.up.stderr());
        drop((self.results, self.events, self._bus));
        self.world.assert_ended();
    }
}

/// Files below `folder` with this ending, oldest first.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == ending) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    found
}

fn told(clip: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(clip.with_extension("json")).ok()?;
    Some(serde_json::from_str(&text).expect("JSON that is whole"))
}

/// Waits for the `count`th clip below `folder` to have ended.
fn ended_clip(folder: &Path, count: usize) -> (PathBuf, Value) {
    wait_until(&format!("clip {count} in {}", folder.display()), 20, || {
        let clip = files(folder, "mp4").into_iter().nth(count - 1)?;
        let told = told(&clip)?;
        (!told["end"].is_null()).then_some((clip, told))
    })
}

#[test]
fn a_clip_holds_the_cameras_own_video_around_its_events() {
    let Some(clip) = asset("media/bikes.mp4") else { return };
    if !openvino() {
        return;
    }
    let world = World::new();
    let folder = world.path("clips");
    let mut scene = Scene::start(
        world,
        &format!(
            r#"
            [[camera]]
            name = "bikes"
            source = "file:{}"
            loop = true
            idle_gate = true
            [[sink]]
            name = "clips"
            kind = "clips"
            folder = {folder:?}
            events = ["enter", "leave"]
            before_s = 1.0
            after_s = 1.0
            "#,
            clip.display()
        ),
    );
    let first = wait_until("a frame 2.4 s into the file", 30, || {
        let header = scene.result_after("bikes", 0.0);
        (header.pts_ns > 2_400_000_000).then_some(header)
    });
    let none = scene.event(&first, EventKind::Appear, 3);
    let one = scene.event(&first, EventKind::Enter, 7);
    let second = scene.result_after("bikes", 0.3);
    let other = scene.event(&second, EventKind::Leave, 8);
    let (made, told) = ended_clip(&folder, 1);
    let name = made.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.ends_with("Z-enter-7.mp4"), "{name}");
    assert!(made.parent().is_some_and(|day| day.starts_with(folder.join("bikes"))));
    let ids: Vec<&str> =
        told["events"].as_array().into_iter().flatten().filter_map(|e| e["id"].as_str()).collect();
    assert_eq!(ids, [&one, &other], "two events are one clip; {none} was not asked for");
    assert_eq!(told["end"], "after_s", "{told}");

    // Where the events are in it, and that there is enough around them.
    let at = |n: usize| told["events"][n]["at_s"].as_f64().expect("a number");
    let start_s = told["pts_ns"].as_u64().expect("a number") as f64 / 1e9;
    let expected = first.pts_ns as f64 / 1e9 - start_s;
    assert!((at(0) - expected).abs() < 1e-6, "{} {expected}", at(0));
    assert!(at(0) >= 1.0 && at(1) > at(0), "{told}");
    // The file's second key frame, the last one that is more than a second before.
    assert_eq!(told["pts_ns"], 1_280_000_000, "{told}");
    let shown = shown(&made, "avdec_h264");
    assert_eq!(Some(shown.len() as u64), told["frames"].as_u64(), "every frame is decoded");
    assert!(shown.windows(2).all(|pair| (pair[1] - pair[0] - 0.04).abs() < 1e-3), "{shown:?}");
    // Times as they are stored: the movie begins with its first frame, whatever its time.
    let end = shown[shown.len() - 1] - shown[0];
    assert!((end - (at(1) + 1.0)).abs() < 0.2, "ends at {end}, its last event was at {}", at(1));

    // Nothing was encoded: the same bytes as in the file, from a key frame on.
    let (whole, part) = (compressed(&clip, &scene.world), compressed(&made, &scene.world));
    assert!(part.len() > 20_000, "{} B", part.len());
    let found = whole.windows(part.len()).filter(|window| *window == part).count();
    assert_eq!(found, 1, "{} B of the clip are not in the file", part.len());

    // The file begins anew: the clip ends there, and its rest is another one.
    let late = wait_until("the end of the file", 30, || {
        let header = scene.result_after("bikes", 0.0);
        (header.pts_ns > 9_400_000_000).then_some(header)
    });
    scene.event(&late, EventKind::Enter, 9);
    let (cut, told) = ended_clip(&folder, 2);
    assert_eq!(told["end"], "interrupted", "{told}");
    let (rest, told) = ended_clip(&folder, 3);
    assert_eq!(
        (&told["end"], told["pts_ns"].as_u64() < Some(100_000_000)),
        (&"after_s".into(), true)
    );
    assert!([&cut, &rest].iter().all(|clip| !self::shown(clip, "avdec_h264").is_empty()));
    scene.stop();
}

#[test]
fn a_clip_survives_its_sink_and_the_cameras_absence() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let folder = world.path("clips");
    let mut camera = RtspCamera::start(&world, &[]);
    let newer = RtspCamera::start(&world, &["--codec", "h265"]);
    let mut scene = Scene::start(
        world,
        &format!(
            r#"
            [[camera]]
            name = "net"
            source = "rtsp://127.0.0.1:{}/cam"
            transport = "tcp"
            reconnect_min_ms = 200
            [[camera]]
            name = "newer"
            source = "rtsp://127.0.0.1:{}/cam"
            transport = "tcp"
            [[sink]]
            name = "clips"
            kind = "clips"
            folder = {folder:?}
            before_s = 0.5
            after_s = 3.0
            "#,
            camera.port, newer.port
        ),
    );
    let first = scene.result_after("net", 2.0);
    scene.event(&first, EventKind::Appear, 1);
    let also = scene.result_after("newer", 0.0);
    scene.event(&also, EventKind::Appear, 5);
    let net = folder.join("net");
    let clip = wait_until("a clip that grows", 20, || {
        let clip = files(&net, "mp4").into_iter().next()?;
        (std::fs::metadata(&clip).ok()?.len() > 3000).then_some(clip)
    });
    // H.265 meanwhile.
    let (newest, told) = ended_clip(&folder.join("newer"), 1);
    assert_eq!((&told["codec"], &told["width"]), (&"h265".into(), &320.into()));
    assert_eq!(Some(shown(&newest, "avdec_h265").len() as u64), told["frames"].as_u64());

    let second = scene.result_after("net", 0.0);
    scene.event(&second, EventKind::Appear, 2);
    let victim = wait_until("a clip of the second event", 20, || {
        let clip = files(&net, "mp4").into_iter().find(|clip| clip.ends_with_name("appear-2"))?;
        (std::fs::metadata(&clip).ok()?.len() > 3000).then_some(clip)
    });
    let sink = scene.world.pid_of(&["framebus-sink", "clips"]).expect("the sink runs");
    scene.world.kill(sink);
    let left = wait_until("the killed process to be gone", 10, || {
        (scene.world.pid_of(&["framebus-sink", "clips"]) != Some(sink))
            .then(|| shown(&victim, "avdec_h264"))
    });
    assert!(left.len() >= 10, "{} frames of the clip of a killed sink", left.len());
    assert!(left.windows(2).all(|pair| pair[1] > pair[0]), "{left:?}");
    assert!(told_end(&victim).is_none() && told_end(&clip).is_some());

    // The next process goes on; the camera goes away in the middle of a clip.
    wait_row(&scene.world, "the sink is live again", 20, |row| {
        row.kind == "sink" && row.state == "live" && row.pid != sink && row.pid != 0
    });
    let third = scene.result_after("net", 2.0);
    scene.event(&third, EventKind::Appear, 3);
    wait_until("a clip of the third event", 20, || {
        files(&net, "mp4").into_iter().find(|clip| clip.ends_with_name("appear-3"))
    });
    camera.order("end");
    let clips = wait_until("the clip and its rest", 20, || {
        let mut clips = files(&net, "mp4");
        clips.retain(|clip| clip.ends_with_name("appear-3") && told_end(clip).is_some());
        (clips.len() == 2).then_some(clips)
    });
    assert_eq!(told_end(&clips[0]).as_deref(), Some("interrupted"));
    assert_eq!(told_end(&clips[1]).as_deref(), Some("after_s"));
    for clip in &clips {
        let frames = shown(clip, "avdec_h264").len() as u64;
        assert_eq!(Some(frames), self::told(clip).and_then(|told| told["frames"].as_u64()));
    }
    // They are processes of this world too.
    drop((camera, newer));
    scene.stop();
}

trait EndsWithName {
    fn ends_with_name(&self, end: &str) -> bool;
}

impl EndsWithName for PathBuf {
    fn ends_with_name(&self, end: &str) -> bool {
        self.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(end))
    }
}

fn told_end(clip: &Path) -> Option<String> {
    told(clip)?["end"].as_str().map(str::to_owned)
}

/// Mean difference of two pictures, 0 to 255.
fn difference(one: &image::RgbImage, other: &image::RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let sum: u64 = one.iter().zip(other.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / one.len() as f64
}

#[test]
fn a_snapshot_shows_the_frame_of_its_event() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let folder = |style: &str| world.path(style);
    let folders = ["plain", "annotated", "crop"].map(folder);
    let sinks: String = ["plain", "annotated", "crop"]
        .iter()
        .zip(&folders)
        .map(|(style, folder)| {
            format!(
                "[[sink]]\nname = \"{style}\"\nkind = \"snapshots\"\nfolder = {folder:?}\n\
                 style = \"{style}\"\nquality = 95\n"
            )
        })
        .collect();
    let clips = world.path("clips");
    let mut scene = Scene::start(
        world,
        &format!(
            "[[camera]]\nname = \"ball\"\nsource = \"test:ball?width=320&height=192&fps=10\"\n\
             {sinks}[[sink]]\nname = \"none\"\nkind = \"clips\"\nfolder = {clips:?}\n"
        ),
    );
    let client = Client::connect_in(scene.world.instance(), &scene.world.root()).expect("joins");
    let mut frames = wait_until("the camera", 20, || client.frames("ball").ok());
    scene.result_after("ball", 1.0);
    // The frame, and then its result.
    let mut held: Vec<FrameSample> = Vec::new();
    let (frame, result) = wait_until("a frame with its result", 20, || {
        held.extend(frames.wait_for(Duration::from_millis(200)).expect("the bus"));
        if held.len() > 2 {
            held.remove(0);
        }
        let result = scene.results.wait_for(Duration::from_millis(90)).expect("the bus")?;
        let sequence = result.header().sequence;
        let at = held.iter().position(|frame| frame.header().sequence == sequence)?;
        Some((held.remove(at), *result.header()))
    });
    scene.event(&result, EventKind::Enter, 42);
    let next = wait_until("the next frame", 5, || {
        frames.wait_for(Duration::from_millis(200)).expect("the bus")
    });
    let this = picture::rgb(&frame).expect("RGB");
    let next = {
        // Not held any longer: what is held keeps the bus of a world that is over.
        let sample = next;
        picture::rgb(&sample).expect("RGB")
    };
    let [plain, annotated, crop] = folders.map(|folder| {
        let file = wait_until(&format!("a picture in {}", folder.display()), 10, || {
            files(&folder, "jpg").into_iter().next()
        });
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.ends_with("Z-enter-42.jpg"), "{name}");
        image::open(&file).expect("a JPEG").to_rgb8()
    });
    let (same, other) = (difference(&plain, &this), difference(&plain, &next));
    assert!(same < 1.5 && other > same + 0.5, "{same} from its frame, {other} from the next");
    let corner = |picture: &image::RgbImage| picture.get_pixel(100, 100).0;
    let colour = corner(&annotated).map(f64::from);
    let wanted = picture::COLOURS[0].map(f64::from);
    let far: f64 = colour.iter().zip(wanted).map(|(a, b)| (a - b).abs()).sum();
    assert!(far < 90.0, "{colour:?} at the edge of the box, {:?} in the plain one", corner(&plain));
    assert_eq!(crop.dimensions(), (104, 92));
    let inside = image::imageops::crop_imm(&this, 88, 49, 104, 92).to_image();
    assert!(difference(&crop, &inside) < 2.0, "{}", difference(&crop, &inside));

    // The other sink says why it makes nothing.
    let checked = scene.world.framebus("check", &["check", "-c", "framebus.toml"]).wait(20);
    let warning = "camera[ball]: test:ball";
    assert!(
        checked.stderr.contains(warning) && checked.stderr.contains("no clips"),
        "{}",
        checked.stderr
    );
    let (row, _) = wait_row(&scene.world, "no compressed video", 20, |row| {
        row.kind == "sink" && row.name == "none" && row.state == "degraded"
    });
    assert!(row.reason.starts_with("camera ball has no compressed video"), "{}", row.reason);
    drop((frame, held, frames, client));
    scene.stop();
}
