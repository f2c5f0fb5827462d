//! The Zenoh sink with a real Zenoh session at the other end: keys and contents, pictures
//! on request, nothing lost while nobody listens, while the sink is killed and while a
//! cable is pulled, certificates that are refused.
//!
//! `FRAMEBUS_ZENOH_CUT_S=30 cargo test -p framebus-tests --test sink_zenoh -- --nocapture
//! two_boxes` is the long version of the one with the cable, which prints figures.

mod boxes;
mod listener;

use framebus_client::json;
use framebus_service::clock;
use framebus_tests::{
    HealthWatch, Process, Script, StandIn, World, binary, certificates, free_port, repository,
    skip, wait_until,
};
use framebus_types::{Counter, Health, Role, State, text};
use listener::{Heard, Listener};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use zenoh::bytes::Encoding;

fn config(world: &World, cameras: &[(&str, &str)], sinks: &str) -> String {
    let cameras: String = cameras
        .iter()
        .map(|(name, source)| format!("[[camera]]\nname = {name:?}\nsource = {source:?}\n"))
        .collect();
    let path = world.config(&format!("[model]\npath = \"m.onnx\"\n{cameras}{sinks}"));
    path.display().to_string()
}

const TWO: [(&str, &str); 2] = [("a", "test:red"), ("b", "test:red")];

fn start(world: &World, config: &str, name: &str, times: u32) -> Process {
    let args = ["--sink", name, "--config", config];
    world.start(&format!("{name}{times}"), &binary("framebus-sink"), &args)
}

fn end(mut process: Process) {
    process.signal(Signal::TERM);
    let exit = process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

fn says(health: &HealthWatch, process: &Process, name: &str, state: State, word: &str) -> Health {
    let pid = process.pid();
    health.wait(Role::Sink, name, 20, |record| {
        record.pid == pid
            && record.state == u32::from(state)
            && text::unpack(&record.reason).contains(word)
    })
}

fn detail(health: &HealthWatch) -> String {
    let record = health.newest(Role::Sink, "out").expect("it reports");
    text::unpack(&record.detail).to_owned()
}

#[test]
fn messages_have_their_keys_and_pictures_come_when_they_are_asked_for() {
    let world = World::new();
    let port = free_port();
    let cameras = [("a", "test:ball?width=320&height=240&fps=15"), ("b", "test:red")];
    let config = config(
        &world,
        &cameras,
        &format!(
            "[[sink]]\nname = \"out\"\nkind = \"zenoh\"\nurl = \"tcp://127.0.0.1:{port}\"\n\
             prefix = \"site/1\"\ndeliver = \"both\"\nframes = true\nwidth = 160\n"
        ),
    );
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let script = Script { results_per_s: 30, ..Script::default() };
    let event = script.event;
    let stand_in = StandIn::start(&domain, script);
    let heard = Heard::default();
    let mut listener = Listener::at(port, &heard);
    let capture = world.start(
        "capture",
        &binary("framebus-capture"),
        &["--camera", "a", "--config", &config],
    );
    let sink = start(&world, &config, "out", 1);
    says(&health, &sink, "out", State::Degraded, "nobody subscribes");
    listener.subscribe("site/1/**");
    says(&health, &sink, "out", State::Live, "");
    stand_in.resume();
    wait_until("messages", 20, || (heard.count() > 100).then_some(()));
    stand_in.pause();
    let (events, results) = stand_in.sent();
    assert_eq!(heard.assert_whole(events + results, 4), 0, "repeated without a reason");
    let keys: BTreeSet<String> = heard.all().into_iter().map(|message| message.key).collect();
    let expected = ["a/event", "a/result", "b/event", "b/result"];
    assert!(keys.iter().eq(expected.map(|key| format!("site/1/{key}")).iter()), "{keys:?}");
    // What is delivered is what the client library prints.
    let first = |key: &str| {
        let found = heard.all().into_iter().find(|message| message.key == key);
        found.expect("it was sent").payload
    };
    let payload = first("site/1/a/event");
    assert_eq!((&payload["event"], &payload["camera"]), (&"enter".into(), &"a".into()));
    let names = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(names(&payload), names(&json::event(&event)));

    // The camera runs, and nobody has asked for it.
    health.wait_state(Role::Capture, "a", State::Live, 20);
    assert!(!detail(&health).contains("pictures"), "{}", detail(&health));
    let picture = |question: &str| {
        let replies = listener.ask(question);
        let mut samples = replies.iter().filter_map(|reply| reply.result().ok());
        let sample = samples.next().unwrap_or_else(|| panic!("{question}: no picture"));
        assert!(samples.next().is_none(), "{question}: the other camera does not run");
        assert_eq!(*sample.encoding(), Encoding::IMAGE_JPEG);
        let jpeg = sample.payload().to_bytes();
        let picture = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg);
        let picture = picture.expect("a JPEG").to_rgb8();
        let about = sample.attachment().expect("which frame it is").to_bytes();
        let about: Value = serde_json::from_slice(&about).expect("JSON");
        (sample.key_expr().to_string(), picture, about)
    };
    let (key, shown, about) = picture("site/1/*/frame?width=9999");
    assert_eq!((key.as_str(), shown.dimensions()), ("site/1/a/frame", (160, 120)));
    // A white ball on black.
    let bright = shown.pixels().filter(|pixel| pixel.0[0] > 200).count();
    assert!(bright > 20 && bright < 160 * 120 / 2, "{bright} bright pixels");
    assert_eq!((&about["camera"], &about["width"]), (&"a".into(), &320.into()));
    assert!(about["epoch_ns"].as_u64().is_some_and(|epoch| epoch > 0), "{about}");
    let newer = wait_until("a newer one", 5, || {
        let (_, shown, newer) = picture("site/1/a/frame?width=64;quality=20");
        (shown.dimensions() == (64, 48)).then_some(newer)
    });
    assert!(newer["sequence"].as_u64() > about["sequence"].as_u64(), "{newer} {about}");
    // Who asks too often gets what there is.
    let begin_ns = clock::monotonic_ns();
    let mut differ = BTreeSet::new();
    for _ in 0..60 {
        differ.insert(picture("site/1/a/frame").2["sequence"].as_u64());
    }
    let tenths = (clock::monotonic_ns() - begin_ns) / 100_000_000;
    assert!(differ.len() as u64 <= tenths + 2, "{differ:?} in {tenths} tenths of a second");
    health.wait(Role::Sink, "out", 5, |record| {
        text::unpack(&record.detail).contains(" pictures made")
    });
    let refused = |question: &str| {
        let replies = listener.ask(question);
        let error = replies[0].result().expect_err("no picture");
        String::from_utf8_lossy(&error.payload().to_bytes()).into_owned()
    };
    assert_eq!(refused("site/1/b/frame"), "b: does not run now");
    assert!(refused("site/1/a/frame?width=wide").contains("width must be a whole number"));
    end(capture);
    end(sink);
    listener.end();
    let spool = world.root().join(format!("{}.spool", world.instance()));
    assert!(!spool.exists(), "{} is left", spool.display());
}

#[test]
fn nothing_is_lost_while_nobody_listens_or_the_sink_is_killed() {
    let world = World::new();
    let port = free_port();
    let config = config(
        &world,
        &TWO,
        &format!(
            "[[sink]]\nname = \"out\"\nkind = \"zenoh\"\nurl = \"tcp://127.0.0.1:{port}\"\n\
             deliver = \"both\"\n"
        ),
    );
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let script = Script { events_per_s: 200, results_per_s: 100, ..Script::default() };
    let stand_in = StandIn::start(&domain, script);
    let heard = Heard::default();
    let keys = format!("framebus/*/{}/**", world.instance());
    let more = |count: u64| {
        let known = heard.count();
        wait_until("more messages", 20, || (heard.count() > known + count).then_some(()));
    };

    // Nobody is there from the start.
    let mut first = start(&world, &config, "out", 1);
    says(&health, &first, "out", State::Degraded, "connection refused");
    stand_in.resume();
    says(&health, &first, "out", State::Degraded, "messages wait on disk");
    let mut listener = Listener::at(port, &heard);
    listener.subscribe(&keys);
    says(&health, &first, "out", State::Live, "");
    more(100);

    // The program stays and does not listen for a while.
    listener.unsubscribe();
    says(&health, &first, "out", State::Degraded, "nobody subscribes; ");
    listener.subscribe(&keys);
    says(&health, &first, "out", State::Live, "");
    more(100);

    // It goes away, and so does the sink, in the middle.
    listener.end();
    says(&health, &first, "out", State::Degraded, "messages wait on disk");
    // What is on the bus while the sink is not there, it does not get.
    stand_in.pause();
    let (events, results) = stand_in.sent();
    let taken = health.wait(Role::Sink, "out", 20, |record| {
        record.counter(Counter::Received) == events + results
    });
    assert_eq!(taken.counter(Counter::Lost), 0);
    first.signal(Signal::KILL);
    first.wait(10);
    let mut listener = Listener::at(port, &heard);
    listener.subscribe(&keys);
    let mut second = start(&world, &config, "out", 2);
    says(&health, &second, "out", State::Live, "");
    stand_in.resume();
    more(100);
    // And once more while messages flow: only what was on the bus may miss.
    stand_in.pause();
    let (events, results) = stand_in.sent();
    let before = events + results;
    wait_until("all before", 20, || (heard.count() >= before).then_some(()));
    second.signal(Signal::KILL);
    second.wait(10);
    let third = start(&world, &config, "out", 3);
    says(&health, &third, "out", State::Live, "");
    stand_in.resume();
    more(50);
    stand_in.pause();
    let (events, results) = stand_in.sent();
    let repeats = heard.assert_whole(events + results, 4);
    // What was on its way each of the four times.
    assert!(repeats <= 4 * 512, "{repeats} repeated");
    end(third);
    listener.end();
}

#[test]
fn certificates_that_are_refused_are_named() {
    let world = World::new();
    for (name, days) in [("ca", 30), ("other", 30), ("old", -1)] {
        certificates(&world, name, days);
    }
    let file = |name: &str| world.path(name).display().to_string();
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let heard = Heard::default();
    let tls = |port: u16, name: &str, mutual: bool| {
        let mut more = vec![
            ("transport/link/tls/listen_certificate", file(&format!("{name}-server.pem")).into()),
            ("transport/link/tls/listen_private_key", file(&format!("{name}-server.key")).into()),
        ];
        if mutual {
            more.push(("transport/link/tls/root_ca_certificate", file("ca.pem").into()));
            more.push(("transport/link/tls/enable_mtls", true.into()));
        }
        let mut listener = Listener::start(&[format!("tls/127.0.0.1:{port}")], &more, &heard);
        listener.subscribe("framebus/**");
        listener
    };
    let listeners =
        [tls(ports[0], "ca", false), tls(ports[1], "old", false), tls(ports[2], "ca", true)];
    let (ca, other, old) = (file("ca.pem"), file("other.pem"), file("old.pem"));
    let own = format!(
        "ca = {ca:?}\ncert = {:?}\nkey = {:?}",
        file("ca-server.pem"),
        file("ca-server.key")
    );
    let cases = [
        ("stranger", 0, format!("ca = {other:?}"), "nobody that is trusted"),
        ("expired", 1, format!("ca = {old:?}"), "its certificate has expired"),
        ("missing", 0, "ca = \"/no/such.pem\"".to_owned(), "/no/such.pem"),
        ("unknown", 2, format!("ca = {ca:?}"), "TLS: "),
        ("good", 0, format!("ca = {ca:?}"), ""),
        ("known", 2, own, ""),
    ];
    let sinks: String = cases
        .iter()
        .map(|(name, listener, keys, _)| {
            format!(
                "[[sink]]\nname = {name:?}\nkind = \"zenoh\"\nurl = \"tls://127.0.0.1:{}\"\n\
                 prefix = \"framebus/{name}\"\n{keys}\n",
                ports[*listener]
            )
        })
        .collect();
    let config = config(&world, &TWO, &sinks);
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let stand_in = StandIn::start(&domain, Script::default());
    stand_in.resume();
    let processes: Vec<Process> =
        cases.iter().map(|(name, ..)| start(&world, &config, name, 1)).collect();
    for ((name, _, _, reason), process) in cases.iter().zip(&processes) {
        let state = if reason.is_empty() { State::Live } else { State::Degraded };
        says(&health, process, name, state, reason);
    }
    drop(stand_in);
    processes.into_iter().for_each(end);
    listeners.into_iter().for_each(Listener::end);
    let from = |name: &str| {
        let begin = format!("framebus/{name}/");
        heard.all().iter().filter(|message| message.key.starts_with(&begin)).count()
    };
    let counts: Vec<usize> = cases.iter().map(|(name, ..)| from(name)).collect();
    assert!(counts[..4].iter().all(|&count| count == 0) && counts[4..].iter().all(|&n| n > 0));
}

#[test]
fn the_subscriber_of_the_documentation_runs() {
    let python = repository().join(".framebus/python-client/bin/python");
    let has = std::process::Command::new(&python).args(["-c", "import zenoh"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        skip("no Python with eclipse-zenoh; `scripts/setup.sh --python-client` makes one");
        return;
    }
    let world = World::new();
    let page = repository().join("docs/consumers.md");
    let page = std::fs::read_to_string(page).expect("readable");
    let code = page.split("```python\n").find(|part| part.contains("import json, time, zenoh"));
    let code = code.and_then(|part| part.split("```").next()).expect("it is shown");
    assert!(code.lines().count() <= 12, "ten lines and two");
    let port = free_port();
    let script =
        world.write("listen.py", code.replace("127.0.0.1:7447", &format!("127.0.0.1:{port}")));
    let mut program = world.start("listen", &python, &[script.display().to_string()]);
    let config = config(
        &world,
        &TWO,
        &format!("[[sink]]\nname = \"out\"\nkind = \"zenoh\"\nurl = \"tcp://127.0.0.1:{port}\"\n"),
    );
    let domain = world.domain();
    let stand_in = StandIn::start(&domain, Script::default());
    stand_in.resume();
    let sink = start(&world, &config, "out", 1);
    program.wait_for_stdout(&format!("/{}/a/event enter person door\n", world.instance()), 20);
    end(sink);
}
