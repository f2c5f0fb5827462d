//! A changed configuration becomes that of the running instance: only what changed is
//! started anew, and a file with errors changes nothing.

use framebus_tests::{
    Bystander, Collector, Exit, HealthWatch, Process, World, free_port, openvino, status,
    wait_status, wait_until,
};
use framebus_types::{Role, State};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;

fn camera(name: &str, source: &str) -> String {
    format!("[[camera]]\nname = {name:?}\nsource = \"test:{source}?width=320&height=192&fps=10\"\n")
}

fn sink(world: &World, name: &str) -> String {
    let path = world.path(&format!("{name}.jsonl"));
    format!("[[sink]]\nname = {name:?}\nkind = \"jsonl\"\npath = {path:?}\n")
}

/// A sink that shows cameras and zones.
fn page(port: u16) -> String {
    format!(
        "[[sink]]\nname = \"page\"\nkind = \"web\"\ntoken = \"a-token-of-a-test\"\n\
         listen = \"127.0.0.1:{port}\"\n"
    )
}

/// Writes the configuration: the model, and whatever else.
fn write(world: &World, classes: usize, more: &[String]) -> String {
    let model = world.tiny_model(classes, Some((96, 160)));
    let body = format!("[model]\npath = {model:?}\n{}", more.concat());
    world.config(&body).display().to_string()
}

fn reload(world: &World, more: &[&str]) -> Exit {
    let config = world.path("framebus.toml").display().to_string();
    let args = [&["reload", "--config", config.as_str()], more].concat();
    world.framebus("reload", &args).wait(40)
}

fn reload_json(world: &World) -> Value {
    let exit = reload(world, &["--json"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"))
}

fn stop(mut up: Process, world: &World) {
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    world.assert_gone();
}

#[test]
fn only_what_changed_is_started_anew() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let (near, page) = (camera("near", "green"), page(free_port()));
    let (old, gone) = (camera("old", "red"), camera("gone", "red"));
    write(&world, 2, &[near.clone(), old, gone, sink(&world, "s"), page.clone()]);
    let results = Collector::start(&world.domain());
    let health = HealthWatch::start(&world.domain());
    let up = world.up(&world.path("framebus.toml"));
    for name in ["near", "old", "gone"] {
        results.wait_more(name, 3, 60);
    }
    let bystander = Bystander::start(&world.domain(), "near");
    let pid = |role, name: &str| health.newest(role, name).map(|record| record.pid);
    let (old, infer) = (pid(Role::Capture, "old"), pid(Role::Infer, "infer"));
    let (shown, lines) = (pid(Role::Sink, "page"), pid(Role::Sink, "s"));

    let changed = camera("old", "green") + "fps = 5.0\n";
    let sinks = [sink(&world, "s"), sink(&world, "t"), page].concat();
    let cameras = [near.clone(), changed, camera("new", "red")].concat();
    write(&world, 2, &[cameras.clone(), sinks.clone()]);
    let dry = reload(&world, &["--dry-run"]);
    assert!(dry.stdout.contains("camera new: started\n"), "{dry:?}");
    assert_eq!(pid(Role::Capture, "old"), old, "a dry run does nothing");
    let said = reload_json(&world);
    assert_eq!(said["cameras"]["added"][0], "new");
    assert_eq!(said["cameras"]["changed"][0], "old");
    assert_eq!(said["cameras"]["removed"][0], "gone");
    assert_eq!(said["sinks"]["added"][0], "t");
    assert_eq!((&said["everything"], &said["inference"]), (&false.into(), &false.into()));
    results.wait_more("new", 5, 30);
    health.wait(Role::Capture, "old", 20, |record| {
        Some(record.pid) != old && record.state == u32::from(State::Live)
    });
    wait_until("the end of camera gone", 10, || {
        world.pid_of(&["framebus-capture", "--camera gone"]).is_none().then_some(())
    });
    wait_until("lines of the new sink", 10, || {
        std::fs::metadata(world.path("t.jsonl")).is_ok_and(|meta| meta.len() > 0).then_some(())
    });
    health.wait(Role::Sink, "page", 20, |record| {
        Some(record.pid) != shown && record.state == u32::from(State::Live)
    });
    assert_eq!(pid(Role::Sink, "s"), lines, "it shows no cameras");
    assert_eq!(pid(Role::Infer, "infer"), infer, "inference takes cameras over in place");
    assert!(status(&world).iter().all(|row| row.kind != "camera" || row.name != "gone"));
    assert!(bystander.finish() > 0);

    // Once more: nothing is left to do.
    let again = reload(&world, &[]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "nothing has changed\n"));
    let zone = "[[zone]]\ncamera = \"near\"\nname = \"z\"\npoints = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]\n";
    write(&world, 2, &[cameras, sinks, zone.to_owned()]);
    assert_eq!(reload(&world, &["--dry-run"]).stdout, "inference: started anew\n");
    drop((health, results));
    stop(up, &world);
}

#[test]
fn an_invalid_file_changes_nothing_and_says_why() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let near = camera("near", "green");
    write(&world, 2, std::slice::from_ref(&near));
    let applied = world.domain().folder().join("applied.toml");
    let results = Collector::start(&world.domain());
    let mut up = world.up(&world.path("framebus.toml"));
    results.wait_more("near", 3, 60);
    let bystander = Bystander::start(&world.domain(), "near");
    let before = std::fs::read_to_string(&applied).expect("a copy");

    let refused = |file: &str, words: &str| {
        let exit = reload(&world, &[]);
        assert_eq!(exit.code, Some(78), "{file}: {exit:?}");
        assert!(exit.stderr.contains(words), "{file}: {}", exit.stderr);
        assert_eq!(std::fs::read_to_string(&applied).expect("a copy"), before, "{file}");
    };
    write(&world, 2, &[near.clone(), "fps = \"many\"\n".to_owned()]);
    refused("wrong value", "camera[near].fps");
    write(&world, 2, &[near.clone(), "enabled = false\n".to_owned()]);
    refused("no camera", "enabled = false");
    std::fs::remove_file(world.path("tiny2-96x160.onnx")).expect("there");
    let text = std::fs::read_to_string(world.path("framebus.toml")).expect("written");
    world.write("framebus.toml", text.replace("enabled = false", "fps = 5.0"));
    refused("no model", "tiny2-96x160.onnx");
    // By signal, `up` says it; a process that dies meanwhile comes back with the old one.
    up.signal(Signal::HUP);
    wait_until("a word of up", 10, || up.stderr().contains("not reloaded").then_some(()));
    assert!(bystander.finish() > 0);
    world.kill(world.pid_of(&["framebus-capture", "--camera near"]).expect("runs"));
    results.wait_more("near", 5, 20);
    drop(results);
    stop(up, &world);
}

#[test]
fn another_model_starts_inference_anew_and_another_bus_everything() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let near = camera("near", "green");
    write(&world, 2, std::slice::from_ref(&near));
    let health = HealthWatch::start(&world.domain());
    let mut up = world.up(&world.path("framebus.toml"));
    let infer = health.wait_state(Role::Infer, "infer", State::Live, 60).pid;
    let capture = health.wait_state(Role::Capture, "near", State::Live, 30).pid;

    write(&world, 3, std::slice::from_ref(&near));
    up.signal(Signal::HUP);
    health.wait(Role::Infer, "infer", 30, |record| {
        record.pid != infer && record.state == u32::from(State::Live)
    });
    assert_eq!(health.newest(Role::Capture, "near").map(|record| record.pid), Some(capture));
    drop(health);

    // In other sizes the bus cannot be made while somebody else holds on to it.
    let config = world.path("framebus.toml").display().to_string();
    let mut tap = world.framebus("tap", &["tap", "--json", "--config", &config]);
    tap.wait_for_stdout("near", 20);
    let text = std::fs::read_to_string(world.path("framebus.toml")).expect("written");
    world.write("framebus.toml", text.replace("[bus]\n", "[bus]\nresult_buffer = 200\n"));
    let exit = reload(&world, &[]);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    assert!(exit.stderr.contains(&format!("end process {} and", tap.pid())), "{}", exit.stderr);
    assert_eq!(world.pid_of(&["framebus-capture"]), Some(capture), "what ran goes on");
    tap.signal(Signal::TERM);
    assert_eq!(tap.wait(10).code, Some(0));
    let exit = reload(&world, &[]);
    assert!(exit.code == Some(0) && exit.stdout.starts_with("all processes"), "{exit:?}");
    wait_until("another capture", 20, || {
        world.pid_of(&["framebus-capture"]).filter(|pid| *pid != capture)
    });
    wait_status(&world, "near", "live", "", 30);

    // What only a new supervisor can do is refused, by its name.
    let text = std::fs::read_to_string(world.path("framebus.toml")).expect("written");
    let renamed = text.replace(world.instance(), &format!("{}x", world.instance()));
    world.write("framebus.toml", &renamed);
    up.signal(Signal::HUP);
    wait_until("a word of up", 10, || up.stderr().contains("instance cannot change").then_some(()));
    let exit = reload(&world, &[]);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    assert!(exit.stderr.contains("start it again"), "{}", exit.stderr);
    world.write("framebus.toml", &text);
    stop(up, &world);
}

#[test]
fn without_a_running_instance_there_is_nothing_to_reload() {
    let world = World::new();
    write(&world, 1, &[camera("near", "green")]);
    let exit = reload(&world, &[]);
    assert_eq!(exit.code, Some(69), "{exit:?}");
    assert!(exit.stderr.contains("nothing runs in instance"), "{}", exit.stderr);
    assert!(!Path::new(&world.root()).exists(), "looking leaves no folder behind");
}
