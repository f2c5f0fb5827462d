//! Network cameras that go away, lie or come back. Each fault is seen in `framebus status`
//! with its reason, ends when its cause does, and costs another camera nothing.
//!
//! A camera that is killed and started again: `e2e_recovery`; hundreds of reconnects in a
//! row: `make reconnects`.

use framebus_tests::{
    Bystander, Collector, HealthWatch, Line, Process, Road, RtspCamera, Usage, World, openvino,
    shm_files, show_fault, wait_status, wait_until,
};
use framebus_types::{Counter, Health, Role, State, text};
use rustix::process::{Pid, Signal, kill_process};

/// `stall_s` of the camera under test, s.
const STALL_S: u64 = 2;
/// A fault is to be seen within this time, s.
const SEEN_S: u64 = 5;

/// An instance with a camera `net` behind `port`, and `near`, which must notice nothing.
struct Scene {
    up: Process,
    near: Bystander,
    health: HealthWatch,
    results: Collector,
    world: World,
}

impl Scene {
    /// `address` is the camera's; `more` are further lines of its section, and sections.
    fn start(world: World, address: &str, more: &str) -> Self {
        let model = world.tiny_model(2, Some((96, 160)));
        let config = world.config(&format!(
            r#"
            [model]
            path = {model:?}
            [up]
            hang_s = 30
            [[camera]]
            name = "near"
            source = "test:green?width=320&height=192&fps=15"
            [[camera]]
            name = "net"
            source = "rtsp://{address}"
            stall_s = {STALL_S}
            reconnect_min_ms = 200
            {more}
            "#
        ));
        let (health, results) =
            (HealthWatch::start(&world.domain()), Collector::start(&world.domain()));
        let up = world.up(&config);
        let near = Bystander::start(&world.domain(), "near");
        Self { up, near, health, results, world }
    }

    /// One whose camera `net` is on the air.
    fn live(world: World, road: &Road) -> Self {
        let address = format!("127.0.0.1:{}/cam", road.port);
        let scene = Self::start(world, &address, "reconnect_max_ms = 1000");
        scene.results.wait_more("net", 5, 30);
        scene
    }

    fn record(&self) -> Health {
        self.health.newest(Role::Capture, "net").expect("it reports")
    }

    /// The fault is seen within `within_s`.
    fn seen(&self, fault: &str, state: &str, words: &str, within_s: u64) {
        let _ = show_fault(&self.world, fault, "net", state, words, within_s);
    }

    /// The camera is back, in the same process.
    fn back(&self, within_s: u64) {
        let pid = self.record().pid;
        let _ = wait_status(&self.world, "net", "live", "", within_s);
        self.results.wait_more("net", 5, 10);
        assert_eq!(self.record().pid, pid, "the process reconnects, it is not restarted");
    }

    /// `camera` goes first, for it is a process of the test too.
    fn end(self, camera: RtspCamera) {
        drop(camera);
        let Self { mut up, near, health, results, world } = self;
        assert!(near.finish() > 30);
        drop((health, results));
        up.signal(Signal::TERM);
        let exit = up.wait(30);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        for word in ["panicked", "ERROR"] {
            assert!(!exit.stderr.contains(word), "{}", exit.stderr);
        }
        world.assert_gone();
    }
}

#[test]
fn a_connection_that_is_reset_or_ended_is_made_again_and_leaves_nothing() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let mut camera = RtspCamera::start(&world, &[]);
    let road = Road::open(Line::To(camera.port));
    let scene = Scene::live(world, &road);
    let reset = |times: usize| {
        for _ in 0..times {
            let before = scene.record().counter(Counter::Reconnects);
            road.cut(true);
            scene.health.wait(Role::Capture, "net", 20, |record| {
                record.counter(Counter::Reconnects) > before
            });
        }
    };
    // Pools fill and caches warm up with the first ones.
    reset(2);
    let look = || (Usage::of(&[scene.record().pid]), shm_files(&scene.world.domain()).len());
    let before = look();
    reset(6);
    scene.results.wait_more("net", 5, 10);
    let after = look();
    Usage::assert_flat(before.0, after.0);
    assert_eq!(before.1, after.1, "files in /dev/shm");
    road.set(Line::Closed);
    road.cut(true);
    scene.seen("RTSP: connection reset, nobody listens", "offline", "connection refused", SEEN_S);
    road.set(Line::To(camera.port));
    scene.back(8);
    // The goodbye comes through; a new connection is refused.
    let ends = || scene.up.stderr().matches("the camera ended the stream").count();
    let before = ends();
    road.set(Line::Closed);
    camera.order("end");
    // That lasts until the next attempt: too short for a report that comes once a second.
    wait_until("the end in the log", 10, || (ends() > before).then_some(()));
    scene.seen("RTSP: camera ends the stream", "offline", "connection refused", SEEN_S);
    road.set(Line::To(camera.port));
    scene.back(8);
    // Without a word: the connection is closed in order.
    let before = scene.record().counter(Counter::Reconnects);
    road.cut(false);
    scene
        .health
        .wait(Role::Capture, "net", 10, |record| record.counter(Counter::Reconnects) > before);
    scene.back(8);
    scene.end(camera);
}

#[test]
fn a_black_hole_is_a_stall_and_is_left_without_help() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let camera = RtspCamera::start(&world, &[]);
    let road = Road::open(Line::To(camera.port));
    let scene = Scene::live(world, &road);
    road.set(Line::Hole);
    let within_s = STALL_S + SEEN_S;
    scene.seen("RTSP: black hole mid-stream", "stalled", "no frame for 2 s", within_s);
    // New connections are taken too, and never answered.
    scene.seen("RTSP: black hole at connect", "offline", "stopped answering", 15);
    // The connection inside the hole is never ended from outside.
    road.set(Line::To(camera.port));
    scene.back(12);
    scene.end(camera);
}

#[test]
fn a_camera_that_starts_is_followed_through_each_step() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let camera = RtspCamera::start(&world, &[]);
    let road = Road::open(Line::Closed);
    let address = format!("127.0.0.1:{}/cam", road.port);
    let scene = Scene::start(world, &address, "reconnect_max_ms = 500");
    scene.seen("RTSP: camera is off", "offline", "connection refused", SEEN_S);
    road.set(Line::Answer("404 Not Found"));
    scene.seen("RTSP: 404", "offline", "404 not found: check the path", SEEN_S);
    road.cut(false);
    road.set(Line::Answer("503 Service Unavailable"));
    scene.seen("RTSP: 503", "offline", "503 service unavailable", SEEN_S);
    road.cut(false);
    road.set(Line::To(camera.port));
    scene.back(8);
    scene.end(camera);
}

#[test]
fn a_wrong_password_is_said_and_not_tried_again_soon() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let camera = RtspCamera::start(&world, &["--user", "joe", "--password", "hunter2"]);
    let address = format!("joe:letmein@127.0.0.1:{}/cam", camera.port);
    // `detect` does not wait for a camera that has answered.
    let source = format!("rtsp://{address}");
    let model = world.tiny_model(2, Some((96, 160))).display().to_string();
    let exit = world.framebus("detect", &["detect", "--model", &model, &source]).wait(12);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    assert!(exit.stderr.contains("401 Unauthorized: check user and password"), "{exit:?}");
    assert!(!exit.stderr.contains("letmein"), "{exit:?}");

    let scene = Scene::start(world, &address, "reconnect_max_ms = 60000");
    scene.seen("RTSP: wrong password", "offline", "401 unauthorized: check user", SEEN_S);
    // Some five seconds, in which the usual waits would have allowed four attempts more.
    scene.results.wait_more("near", 75, 20);
    assert_eq!(scene.record().counter(Counter::Errors), 1);
    scene.end(camera);
}

#[test]
fn a_stream_without_key_frames_says_so_and_is_waited_for() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let mut camera = RtspCamera::start(&world, &[]);
    camera.order("keys off");
    let address = format!("127.0.0.1:{}/cam", camera.port);
    let scene = Scene::start(world, &address, "reconnect_max_ms = 1000");
    let within_s = STALL_S + SEEN_S;
    scene.seen("RTSP: no key frames", "stalled", "no key frame for 2 s", within_s);
    assert_eq!(scene.record().counter(Counter::Errors), 0, "the connection is kept");
    camera.order("keys on");
    scene.back(6);
    assert_eq!(scene.record().counter(Counter::Reconnects), 0);
    scene.end(camera);
}

#[test]
fn time_stamps_size_and_codec_may_change() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let mut camera = RtspCamera::start(&world, &[]);
    let road = Road::open(Line::To(camera.port));
    let scene = Scene::live(world, &road);
    let epoch_ns =
        scene.results.rows().iter().find(|row| row.camera == "net").expect("a result").epoch_ns;
    let becomes = |width: u32, height: u32, decoder: &str| {
        scene.health.wait(Role::Capture, "net", 20, |record| {
            record.state == u32::from(State::Live)
                && (record.width, record.height) == (width, height)
                && text::unpack(&record.detail).contains(decoder)
        });
        scene.results.wait_more("net", 5, 20);
    };
    becomes(320, 192, "264");
    for seconds in [1, 30] {
        camera.order(&format!("back {seconds}"));
        // Two seconds of frames within seven: nothing waits for the old time to come again.
        scene.results.wait_more("net", 40, STALL_S + SEEN_S);
    }
    let record = scene.record();
    assert_eq!(record.counter(Counter::Published), record.counter(Counter::Captured));
    scene.back(8);
    // Larger frames need a larger segment.
    camera.order("size 640x384");
    becomes(640, 384, "264");
    camera.order("size 160x96");
    becomes(160, 96, "264");
    // Another firmware, another codec.
    for (codec, decoder) in [("h265", "265"), ("jpeg", "jpeg")] {
        let next = RtspCamera::start(&scene.world, &["--codec", codec]);
        road.set(Line::To(next.port));
        road.cut(false);
        drop(std::mem::replace(&mut camera, next));
        becomes(320, 192, decoder);
    }
    let rows = scene.results.rows();
    assert!(rows.iter().filter(|row| row.camera == "net").all(|row| row.epoch_ns == epoch_ns));
    scene.end(camera);
}

#[test]
fn a_capture_process_that_is_stopped_for_a_while_goes_on() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let camera = RtspCamera::start(&world, &[]);
    let road = Road::open(Line::To(camera.port));
    let scene = Scene::live(world, &road);
    let pid = scene.record().pid;
    let signal = |signal| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it runs");
    };
    signal(Signal::STOP);
    scene.seen("SIGSTOP of a capture process", "offline", "silent for", SEEN_S + 2);
    signal(Signal::CONT);
    scene.back(8);
    let record = scene.record();
    assert_eq!(record.pid, pid, "nobody restarted it");
    assert_eq!(record.counter(Counter::Reconnects), 0, "the camera was not to blame");
    scene.end(camera);
}
