//! Cameras that come and go.
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod common;

use common::{Rig, receive};
use framebus_bus::Delivery;
use framebus_types::{Counter, FLAG_DISCONTINUITY, State};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The example server; `cargo test` builds examples beside the binaries.
struct Server(Child);

impl Server {
    /// Returns the server and its port.
    fn start(arguments: &[&str]) -> (Self, u16) {
        let binaries = Path::new(env!("CARGO_BIN_EXE_framebus-capture")).parent().expect("folder");
        let mut child = Command::new(binaries.join("examples/rtsp_server"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example rtsp_server is built with the tests");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let server = Self(child);
        let port = line.trim().strip_prefix("listening rtsp://127.0.0.1:").expect("its address");
        (server, port.split('/').next().and_then(|port| port.parse().ok()).expect("a port"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FAST: &str = "stall_s = 1.0\nreconnect_min_ms = 100\nreconnect_max_ms = 400";

#[test]
fn a_camera_that_goes_comes_back() {
    let arguments = ["--size", "320x240", "--fps", "15", "test"];
    let (server, port) = Server::start(&[&["--port", "0"], &arguments[..]].concat());
    let mut rig = Rig::new("", &format!("source = \"rtsp://127.0.0.1:{port}/cam\"\n{FAST}"));
    let reader = rig.reader(Delivery::Latest);
    rig.start();
    let mut epoch = 0;
    assert!(receive(&mut rig, &reader, |frame| epoch = frame.header().epoch_ns, 10) >= 10);
    rig.wait_for_state(State::Live, "");

    drop(server);
    rig.forget();
    let offline = rig.wait_for_state(State::Offline, "connection refused by 127.0.0.1");
    let published = offline.counter(Counter::Published);
    while reader.receive().expect("received").is_some() {}

    let port = port.to_string();
    let (_server, _) = Server::start(&[&["--port", &port], &arguments[..]].concat());
    let mut first = None;
    receive(
        &mut rig,
        &reader,
        |frame| {
            first.get_or_insert(*frame.header());
        },
        5,
    );
    let first = first.expect("a frame");
    assert_eq!(first.epoch_ns, epoch);
    assert!(first.sequence >= published);
    assert!(first.sequence > published || first.flags & FLAG_DISCONTINUITY != 0);
    rig.forget();
    rig.wait_for_state(State::Live, "");
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    assert_eq!(last.counter(Counter::Reconnects), 1);
    assert_eq!(last.counter(Counter::Copied), 0, "{}", rig.log());
}

#[test]
fn a_wrong_password_is_said_and_never_shown() {
    let login = ["--user", "joe", "--password", "hunter2"];
    let rest = ["--port", "0", "--size", "160x120", "--fps", "10", "test"];
    let (_server, port) = Server::start(&[&login[..], &rest[..]].concat());
    let camera = |password: &str, path: &str| {
        format!("source = \"rtsp://joe:{password}@127.0.0.1:{port}/{path}\"\n{FAST}")
    };
    let mut rig = Rig::new("", &camera("letmein", "cam"));
    rig.start();
    rig.wait_for_state(State::Offline, "401 Unauthorized: check user and password");
    assert_eq!(rig.terminate(), 0);
    assert!(!rig.log().contains("letmein"), "{}", rig.log());

    let mut rig = Rig::new("", &camera("hunter2", "elsewhere"));
    rig.start();
    rig.wait_for_state(State::Offline, "404 Not Found: check the path of the URL");
    assert_eq!(rig.terminate(), 0);

    let mut rig = Rig::new("", &camera("hunter2", "cam"));
    rig.start();
    rig.wait_for_state(State::Live, "");
    assert_eq!(rig.terminate(), 0);
    assert!(!rig.log().contains("hunter2"), "{}", rig.log());
}

#[test]
fn silence_is_a_stall_and_ends_in_a_reconnect() {
    // After five frames the second part never comes.
    let caps = "video/x-raw,format=I420,width=64,height=48,framerate=30/1";
    let source = format!(
        "concat name=c ! identity videotestsrc num-buffers=5 ! {caps} ! c. \
         appsrc is-live=true format=time caps={caps} ! c. "
    );
    let mut rig = Rig::new("", &format!("source = \"gst:{source}\"\n{FAST}"));
    rig.start();
    rig.wait_for_state(State::Stalled, "no frame for 1 s");
    rig.wait_for("second connection", |record| record.counter(Counter::Reconnects) >= 1);
    assert_eq!(rig.terminate(), 0);
    let last = rig.last();
    assert_eq!(last.counter(Counter::Published) % 5, 0);
    assert!(last.counter(Counter::Published) >= 10);
}

#[test]
fn a_backlog_is_given_up_for_the_present() {
    let (_server, port) =
        Server::start(&["--port", "0", "--size", "320x240", "--fps", "20", "test"]);
    // In place of a decoder that takes twice the time that it has.
    let source = format!(
        "rtspsrc location=rtsp://127.0.0.1:{port}/cam protocols=tcp latency=0 ! decodebin ! \
         identity sleep-time=100000"
    );
    let limits = "late_s = 0.3\nfault_hold_s = 0.5";
    let mut rig = Rig::new("", &format!("source = \"gst:{source}\"\n{limits}\n{FAST}"));
    rig.start();
    rig.wait_for_state(State::Degraded, "late: frames come up to 1 s after");
    let again = rig.wait_for("new connection", |record| record.counter(Counter::Reconnects) >= 1);
    assert_eq!(again.counter(Counter::Errors), 0, "{}", rig.log());
    rig.wait_for_log("frames stay late: connecting anew");
    rig.forget();
    rig.wait_for_state(State::Live, "");
    assert_eq!(rig.terminate(), 0);
    rig.last();
}

#[test]
fn a_device_that_is_not_there_is_tried_again() {
    let mut rig = Rig::new("", &format!("source = \"v4l2:/dev/nosuchvideo\"\n{FAST}"));
    rig.start();
    rig.wait_for_state(State::Offline, "no such device");
    rig.wait_for("second attempt", |record| record.counter(Counter::Errors) >= 2);
    assert_eq!(rig.terminate(), 0);
}

/// A command whose `/dev/shm` has 16 MiB; `also` is a line of shell beside it.
fn small(also: &str, program: &str) -> Command {
    let script = format!("mount -t tmpfs -o size=16m tmpfs /dev/shm\n{also}\nexec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script, "sh", program]);
    command
}

fn can_make_small() -> bool {
    let can = small("", "true").stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !can {
        eprintln!("SKIPPED: making a small /dev/shm needs root and mount namespaces");
    }
    can
}

#[test]
fn a_picture_waits_for_memory() {
    if !can_make_small() {
        return;
    }
    let mut rig = Rig::new("", &format!("source = \"file:a.png\"\nloop = true\n{FAST}"));
    (rig.health, rig.bus) = (None, None);
    image::RgbImage::new(1920, 1080).save(rig.dir.path().join("a.png")).expect("saved");
    let more = rig.dir.path().join("more");
    let grow = format!(
        "(for i in $(seq 600); do if [ -e {} ]; then exec mount -o remount,size=1g /dev/shm; fi; \
         sleep 0.1; done) &",
        more.display()
    );
    rig.start_by(&mut small(&grow, env!("CARGO_BIN_EXE_framebus-capture")));
    rig.wait_for_log("state=offline reason=\"/dev/shm has");
    rig.wait_for_log("trying again");
    std::fs::write(more, "").expect("written");
    rig.wait_for_log("state=live");
    assert_eq!(rig.terminate(), 0);
}

#[test]
fn pipelines_that_never_stop_end_the_process() {
    // One branch fails at once, the other sleeps for minutes where nothing wakes it.
    let source = "videotestsrc ! identity sleep-time=300000000 \
                  fakesrc num-buffers=9 ! identity error-after=3 ! fakesink";
    let mut rig = Rig::new("", &format!("source = \"gst:{source}\"\n{FAST}"));
    rig.start();
    rig.wait_for_state(State::Offline, "2 pipelines of the camera hang");
    assert_eq!(rig.exit(), 69, "{}", rig.log());
    let log = rig.log();
    assert!(log.contains("ERROR capture: camera cam: 2 pipelines of the camera hang"), "{log}");
}

#[test]
fn frames_that_do_not_fit_into_shared_memory_are_refused() {
    if !can_make_small() {
        return;
    }
    let mut rig = Rig::new("", &format!("source = \"test:ball?width=1920&height=1080\"\n{FAST}"));
    // Another /dev/shm: what the test has on the bus must not be met there.
    (rig.health, rig.bus) = (None, None);
    rig.start_by(&mut small("", env!("CARGO_BIN_EXE_framebus-capture")));
    // Its health is in the small /dev/shm too: only the log comes out.
    let log = rig.wait_for_log("trying again");
    assert!(log.contains("state=offline reason=\"/dev/shm has"), "{log}");
    assert!(log.contains("frames/cam needs ") && log.contains("--shm-size"), "{log}");
    assert_eq!(rig.terminate(), 0);
    assert!(rig.log().contains(" published=0 "), "{}", rig.log());
}
