//! Everything that can die, dies; the rest goes on and nothing stays behind.

use framebus_tests::{Collector, HealthWatch, Process, World, example, openvino, wait_until};
use framebus_types::{Counter, Role, State};
use rustix::process::Signal;
use std::net::TcpListener;
use std::path::PathBuf;

fn two_cameras(world: &World) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    let lines = world.path("results.jsonl");
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "a"
        source = "test:red?width=320&height=192&fps=20"
        [[camera]]
        name = "b"
        source = "test:green?width=640&height=360&fps=20"
        [[sink]]
        name = "lines"
        kind = "jsonl"
        path = {lines:?}
        "#
    ))
}

fn stop(up: &mut Process) {
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for word in ["panicked", "ERROR"] {
        assert!(!exit.stderr.contains(word), "{}", exit.stderr);
    }
}

#[test]
fn every_process_that_is_killed_comes_back_and_the_others_go_on() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = two_cameras(&world);
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("a", 10, 60);
    results.wait_more("b", 10, 30);
    let targets = [
        (Role::Capture, "a", "capture:a", &["framebus-capture", "--camera a"][..]),
        (Role::Infer, "infer", "infer", &["framebus-infer"]),
        (Role::Sink, "lines", "sink:lines", &["framebus-sink"]),
        // A second time: the restart must leave everything as it was.
        (Role::Capture, "b", "capture:b", &["framebus-capture", "--camera b"]),
        (Role::Infer, "infer", "infer", &["framebus-infer"]),
    ];
    let mut kills = std::collections::BTreeMap::new();
    for (role, name, child, words) in targets {
        let old = world.pid_of(words).unwrap_or_else(|| panic!("{child} does not run"));
        let restarts =
            health.newest(Role::Child, child).map_or(0, |record| record.counter(Counter::Restarts));
        world.kill(old);
        if role == Role::Capture {
            let other = if name == "a" { "b" } else { "a" };
            results.wait_more(other, 5, 20);
        }
        let back = health.wait(role, name, 30, |record| {
            record.pid != old && record.state == u32::from(State::Live)
        });
        assert_ne!(back.pid, old);
        let record = health.wait(Role::Child, child, 20, |record| {
            record.counter(Counter::Restarts) == restarts + 1 && record.pid == back.pid
        });
        *kills.entry(child).or_insert(0) += 1;
        assert_eq!(record.counter(Counter::Restarts), kills[child], "{child}");
        let detail = framebus_types::text::unpack(&record.detail);
        assert!(detail.contains("killed by SIGKILL"), "{child} does not say why: {detail}");
        let said = up.stderr();
        let died = format!("{} died (killed by SIGKILL", child.replace(':', " "));
        assert!(said.contains(&died), "no word of why {child} was restarted in {said}");
        results.wait_more("a", 5, 30);
        results.wait_more("b", 5, 30);
    }
    assert!(up.is_running(), "{}", up.stderr());
    // The sink that came back goes on writing whole lines.
    let lines = std::fs::read_to_string(world.path("results.jsonl")).expect("written");
    for line in lines.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    drop((health, results));
    stop(&mut up);
    world.assert_gone();
}

#[test]
fn a_killed_supervisor_takes_its_children_along_and_the_next_one_starts_cleanly() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = two_cameras(&world);
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("a", 5, 60);

    // A second supervisor of the same instance is refused meanwhile.
    let args = ["up", "--config", &config.display().to_string()];
    let second = world.framebus("second", &args).wait(20);
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    assert!(second.stderr.contains("another `framebus up`"), "{}", second.stderr);
    results.wait_more("a", 5, 10);
    drop(results);

    up.signal(Signal::KILL);
    assert_eq!(up.wait(10).signal, Some(9));
    wait_until("the children to end by themselves", 20, || {
        world.processes().is_empty().then_some(())
    });

    // Whatever was left behind is no obstacle; nobody cleaned up by hand.
    let results = Collector::start(&world.domain());
    let mut up = world.framebus("up2", &args);
    results.wait_more("a", 10, 60);
    results.wait_more("b", 10, 30);
    drop(results);
    stop(&mut up);
    world.assert_gone();
}

fn rtsp_server(world: &World, name: &str, port: &str) -> Process {
    let args = ["--port", port, "--mount", "/cam", "test", "--size", "320x192", "--fps", "20"];
    let mut server = world.start(name, &example("rtsp_server"), &args);
    server.wait_for_stdout("listening", 20);
    server
}

#[test]
fn a_camera_that_goes_and_returns_is_seen_going_and_returning() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let port = free.port().to_string();
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "net"
        source = "rtsp://127.0.0.1:{port}/cam"
        stall_s = 2.0
        reconnect_min_ms = 200
        reconnect_max_ms = 1000
        [[camera]]
        name = "near"
        source = "test:green?width=320&height=192&fps=20"
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut server = rtsp_server(&world, "rtsp1", &port);
    let mut up = world.up(&config);
    results.wait_more("net", 20, 60);
    let epoch = results.rows().iter().find(|row| row.camera == "net").expect("results").epoch_ns;
    let capture_pid = health.wait_state(Role::Capture, "net", State::Live, 10).pid;
    for round in 0..2 {
        server.signal(Signal::KILL);
        server.wait(10);
        let record = health.wait(Role::Capture, "net", 30, |record| {
            [State::Offline, State::Stalled].map(u32::from).contains(&record.state)
        });
        let reason = framebus_types::text::unpack(&record.reason);
        assert!(!reason.is_empty(), "no reason is given");
        results.wait_more("near", 20, 20);
        server = rtsp_server(&world, &format!("rtsp{}", round + 2), &port);
        health.wait_state(Role::Capture, "net", State::Live, 30);
        results.wait_more("net", 20, 30);
    }
    let record =
        health.wait(Role::Capture, "net", 10, |record| record.counter(Counter::Reconnects) >= 2);
    assert_eq!(record.pid, capture_pid, "the process reconnects, it is not restarted");
    let n = |counter| record.counter(counter);
    assert_eq!((n(Counter::ZeroCopy), n(Counter::Copied)), (n(Counter::Published), 0));
    // One epoch and a sequence that goes on: readers see one camera.
    let rows = results.rows();
    let net: Vec<_> = rows.iter().filter(|row| row.camera == "net").collect();
    assert!(net.iter().all(|row| row.epoch_ns == epoch), "a new epoch without a new process");
    drop((health, results));
    stop(&mut up);
    drop(server);
    world.assert_gone();
}

#[test]
fn a_camera_that_is_not_there_yet_is_waited_for() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let port = free.port().to_string();
    let model = world.tiny_model(1, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "late"
        source = "rtsp://127.0.0.1:{port}/cam"
        reconnect_min_ms = 200
        reconnect_max_ms = 1000
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    let record = health.wait_state(Role::Capture, "late", State::Offline, 30);
    let reason = framebus_types::text::unpack(&record.reason).to_lowercase();
    assert!(reason.contains("refused") || reason.contains("connect"), "{reason}");
    let server = rtsp_server(&world, "rtsp", &port);
    results.wait_more("late", 10, 30);
    drop((health, results));
    stop(&mut up);
    drop(server);
    world.assert_gone();
}

#[test]
fn a_webcam_that_is_not_plugged_in_keeps_nobody_from_running() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let model = world.tiny_model(1, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        [[camera]]
        name = "webcam"
        source = "v4l2:/dev/video99"
        [[camera]]
        name = "near"
        source = "test:red?width=320&height=192&fps=20"
        "#
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let mut up = world.up(&config);
    results.wait_more("near", 20, 60);
    let record = health.wait_state(Role::Capture, "webcam", State::Offline, 30);
    let reason = framebus_types::text::unpack(&record.reason);
    assert!(reason.contains("no such device"), "{reason}");
    drop((health, results));
    stop(&mut up);
    world.assert_gone();
}
