//! The MQTT sink with a real Mosquitto: nothing lost while the broker or the sink is away,
//! faults named, states kept by the broker.

use framebus_client::json;
use framebus_service::{Reporter, Vitals, clock};
use framebus_tests::{
    Collector, HealthWatch, Mosquitto, Process, Script, StandIn, Usage, World, binary,
    certificates, wait_until,
};
use framebus_types::{Counter, Detection, Direction, EventKind, Role, State, text};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Seconds that the broker is away; FRAMEBUS_MQTT_DOWN_S=300 is the long version, which
/// prints figures.
fn down_s() -> (u64, bool) {
    let set = std::env::var("FRAMEBUS_MQTT_DOWN_S").ok().and_then(|text| text.parse().ok());
    (set.unwrap_or(4), set.is_some())
}

const ANONYMOUS: &str = "allow_anonymous true";

fn config(world: &World, sinks: &str) -> String {
    let cameras = ["a", "b"]
        .map(|name| format!("[[camera]]\nname = {name:?}\nsource = \"test:red\"\n"))
        .concat();
    let path = world.config(&format!("[model]\npath = \"m.onnx\"\n{cameras}{sinks}"));
    path.display().to_string()
}

fn sink(world: &World, config: &str, name: &str, start: u32) -> Process {
    let args = ["--sink", name, "--config", config];
    world.start(&format!("{name}{start}"), &binary("framebus-sink"), &args)
}

/// First occurrences of the numbers of each `CAMERA/KIND` topic, and how many were repeats.
fn received(subscriber: &Process) -> (BTreeMap<String, Vec<u64>>, usize) {
    let (mut found, mut seen, mut repeats) = (BTreeMap::new(), BTreeSet::new(), 0);
    for line in subscriber.stdout().lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(topic), Some(_), Some(payload)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !topic.ends_with("/event") && !topic.ends_with("/result") {
            continue;
        }
        let Ok(payload) = serde_json::from_str::<Value>(payload) else { continue };
        let id = payload["id"].as_str().expect("an id").to_owned();
        if seen.insert((topic.to_owned(), id)) {
            let numbers: &mut Vec<u64> = found.entry(topic.to_owned()).or_default();
            numbers.push(payload["sequence"].as_u64().expect("a number"));
        } else {
            repeats += 1;
        }
    }
    (found, repeats)
}

fn count(found: &BTreeMap<String, Vec<u64>>) -> u64 {
    found.values().map(|numbers| numbers.len() as u64).sum()
}

#[test]
fn nothing_is_lost_while_the_broker_or_the_sink_is_away() {
    let world = World::new();
    let Some(mut broker) = Mosquitto::start(&world, &[ANONYMOUS.to_owned()]) else { return };
    let port = broker.port(0);
    let subscriber = broker.subscribe("sub", "fb/#", &[]);
    broker.stop();
    let config = config(
        &world,
        &format!(
            "[[sink]]\nname = \"broker\"\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
             topic = \"fb\"\ndeliver = \"both\"\n"
        ),
    );
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let results = Collector::start(&domain);
    let script = Script { results_per_s: 30, ..Script::default() };
    let stand_in = StandIn::start(&domain, script);
    let waits = |process: &Process, word: &str| {
        let pid = process.pid();
        health.wait(Role::Sink, "broker", 20, |record| {
            record.pid == pid && text::unpack(&record.reason).contains(word)
        })
    };

    // The broker is away from the start.
    let mut first = sink(&world, &config, "broker", 1);
    waits(&first, "connection refused");
    stand_in.resume();
    waits(&first, "messages wait on disk");
    broker.restart();
    health.wait_state(Role::Sink, "broker", State::Live, 20);
    wait_until("messages", 20, || (count(&received(&subscriber).0) > 100).then_some(()));

    // It goes away, and so does the sink, in the middle.
    let (seconds, shown) = down_s();
    let idle = Usage::of(&[first.pid()]);
    broker.stop();
    let down_ns = clock::monotonic_ns();
    waits(&first, "broker mqtt://127.0.0.1");
    let passed = |s: u64| (clock::monotonic_ns() > down_ns + s * 1_000_000_000).then_some(());
    wait_until("half of the time", seconds + 10, || passed(seconds / 2));
    Usage::assert_flat(idle, Usage::of(&[first.pid()]));
    // What is on the bus while the sink is not there, it does not get.
    stand_in.pause();
    let (events, others) = stand_in.sent();
    let taken = health.wait(Role::Sink, "broker", 20, |record| {
        record.counter(Counter::Received) == events + others
    });
    assert_eq!(taken.counter(Counter::Lost), 0);
    first.signal(Signal::KILL);
    first.wait(10);
    let mut second = sink(&world, &config, "broker", 2);
    waits(&second, "connection refused");
    stand_in.resume();
    let early = Usage::of(&[second.pid()]);
    wait_until("the whole time", seconds + 10, || passed(seconds));
    let late = Usage::of(&[second.pid()]);
    Usage::assert_flat(early, late);
    let backlog = text::unpack(&waits(&second, "messages wait on disk").reason).to_owned();
    broker.restart();
    let back_ns = clock::monotonic_ns();
    health.wait(Role::Sink, "broker", 60, |record| {
        record.pid == second.pid() && record.state == u32::from(State::Live)
    });
    stand_in.pause();
    let (events, others) = stand_in.sent();
    let found = wait_until("all of them", 60, || {
        let found = received(&subscriber);
        (count(&found.0) >= events + others).then_some(found)
    });
    let drained_ms = (clock::monotonic_ns() - back_ns) / 1_000_000;
    for (topic, numbers) in &found.0 {
        let all: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(*numbers, all, "{topic}: lost or out of order");
    }
    assert_eq!((found.0.len(), count(&found.0)), (4, events + others));
    // What was on its way when the connection or the sink ended.
    assert!(found.1 <= 3 * 32, "{} repeated", found.1);
    let counters =
        health.wait(Role::Sink, "broker", 10, |record| record.counter(Counter::Received) > 0);
    assert_eq!(counters.counter(Counter::Lost), 0);
    // Somebody else noticed nothing.
    let rows = results.finish();
    let numbers: Vec<u64> = rows.iter().map(|row| row.result_sequence).collect();
    assert_eq!(numbers, (0..others).collect::<Vec<_>>(), "another reader lost some");
    if shown {
        show(seconds, events, others, found.1, drained_ms, &backlog, idle, late);
    }
    // An orderly end with nothing waiting leaves nothing behind.
    second.signal(Signal::TERM);
    assert_eq!(second.wait(20).code, Some(0), "{}", second.stderr());
    let spool = world.root().join(format!("{}.spool", world.instance()));
    assert!(!spool.exists(), "{} is left", spool.display());
}

#[allow(clippy::print_stderr, clippy::too_many_arguments, reason = "figures of the long version")]
fn show(
    seconds: u64,
    events: u64,
    results: u64,
    repeats: usize,
    drained_ms: u64,
    backlog: &str,
    before: Usage,
    after: Usage,
) {
    eprintln!(
        "broker away for {seconds} s: {events} events and {results} results, 0 lost, 0 out of \
         order, {repeats} repeated; all there {drained_ms} ms after its return; sink {} KiB \
         before, {} KiB at the end; said: {backlog}",
        before.rss_kib, after.rss_kib
    );
}

/// The newest message of each topic.
fn newest(subscriber: &Process) -> BTreeMap<String, String> {
    let output = subscriber.stdout();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let words = whole.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
    words.map(|words| (words[0].to_owned(), words[2].to_owned())).collect()
}

/// What the broker keeps.
fn retained(broker: &Mosquitto<'_>, world: &World) -> BTreeMap<String, String> {
    let port = broker.port(0).to_string();
    let args = ["-h", "127.0.0.1", "-p", &port, "-t", "#", "--retained-only", "-W", "1", "-F"];
    let args = [&args[..], &["%t %p"]].concat();
    let exit = world.start("retained", std::path::Path::new("mosquitto_sub"), &args).wait(20);
    let lines = exit.stdout.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())).collect()
}

#[test]
fn the_broker_keeps_states_and_tells_of_a_sink_that_died() {
    for protocol in ["5", "3.1.1"] {
        let world = World::new();
        let Some(broker) = Mosquitto::start(&world, &[ANONYMOUS.to_owned()]) else { return };
        let port = broker.port(0);
        let zone = |name: &str| {
            let text = format!(
                "[[zone]]\ncamera = \"a\"\nname = {name:?}\npoints = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]\n\
                 [[line]]\ncamera = \"b\"\nname = \"gate\"\nfrom = [0.0, 0.5]\nto = [1.0, 0.5]\n\
                 [[sink]]\nname = \"broker\"\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
                 topic = \"fb\"\nprotocol = {protocol:?}\nhome_assistant = true\n"
            );
            config(&world, &text)
        };
        let config = zone("door");
        let domain = world.domain();
        let health = HealthWatch::start(&domain);
        let bus = Arc::new(framebus_bus::Bus::open(&domain, "states").expect("joins"));
        let camera = Vitals::new(Role::Capture, "a");
        camera.set_state(State::Live, "");
        let _reporter =
            Reporter::start(&bus, vec![camera.clone()], Arc::default(), false).expect("reports");
        let mut event = Script::default().event;
        event.kind = EventKind::Cross.into();
        event.direction = Direction::Backward.into();
        event.place = text::pack("gate");
        let inside = Detection { zones: 1, ..Detection::default() };
        let stand_in = StandIn::start(
            &domain,
            Script {
                cameras: vec!["b", "a"],
                events_per_s: 20,
                results_per_s: 20,
                detections: vec![inside, inside, Detection::default()],
                event,
                ..Script::default()
            },
        );
        let mut process = sink(&world, &config, "broker", 1);
        health.wait_state(Role::Sink, "broker", State::Live, 20);
        stand_in.resume();
        let more = ["-V", "5", "-t", "homeassistant/#"];
        let subscriber = broker.subscribe("sub", "fb/#", &more);
        let wait = |what: &str, done: &dyn Fn(&BTreeMap<String, String>) -> bool| {
            wait_until(what, 30, || {
                let found = newest(&subscriber);
                done(&found).then_some(found)
            })
        };
        let found = wait("zones and lines", &|found| {
            found.get("fb/a/zone/door").is_some_and(|count| count == "2")
                && found.get("fb/b/line/gate").is_some_and(|text| !text.contains(r#""backward":0"#))
                && found.get("fb/a/state").is_some_and(|text| text.contains("live"))
        });
        let line: Value = serde_json::from_str(&found["fb/b/line/gate"]).expect("JSON");
        assert_eq!(line["forward"], 0);
        assert_eq!(found["fb/status"], "online");
        let state: Value = serde_json::from_str(&found["fb/b/state"]).expect("JSON");
        assert_eq!(state["state"], "offline", "nothing was heard of b");
        // Between the two, the name of the machine.
        let own = format!("-{}-a-zone-door/config", world.instance());
        let begin = "homeassistant/binary_sensor/framebus-";
        let is_door = |topic: &&String| topic.starts_with(begin) && topic.ends_with(&own);
        let door = found.keys().find(is_door).expect("announced").clone();
        let object = door.split('/').nth(2).expect("a name");
        assert!(object.len() > own.len() + "framebus-".len() - "/config".len(), "{object}");
        let entity: Value = serde_json::from_str(&found[&door]).expect("JSON");
        assert_eq!(entity["state_topic"], "fb/a/zone/door");
        assert_eq!(entity["availability_topic"], "fb/status");
        assert_eq!(entity["unique_id"], object);
        assert_eq!(
            found.keys().filter(|topic| topic.starts_with("homeassistant/")).count(),
            2 + 2 + 2,
            "two states, a zone twice, a line twice: {found:?}"
        );
        // What is delivered is what the client library prints.
        let found = wait("an event", &|found| found.contains_key("fb/b/event"));
        let payload: Value = serde_json::from_str(&found["fb/b/event"]).expect("JSON");
        assert_eq!(payload["event"], "cross");
        let keys = |value: &Value| value.as_object().expect("an object").len();
        assert_eq!(keys(&payload), keys(&json::event(&event)));

        stand_in.pause();
        camera.set_state(State::Stalled, "no frame for 5 s");
        wait("a stalled camera, and nobody that it sees", &|found| {
            found["fb/a/state"].contains(r#""state":"stalled","reason":"no frame for 5 s""#)
                && found["fb/a/zone/door"] == "0"
        });
        process.signal(Signal::KILL);
        wait("the last will", &|found| found["fb/status"] == "offline");
        let mut process = sink(&world, &config, "broker", 2);
        wait("its return", &|found| found["fb/status"] == "online");
        // What is no longer in the configuration is taken away.
        assert_eq!(zone("yard"), config);
        process.signal(Signal::HUP);
        assert_eq!(process.wait(20).code, Some(75), "{}", process.stderr());
        let mut process = sink(&world, &config, "broker", 3);
        let yard = door.replace("door", "yard");
        wait("another zone", &|found| found[&door].is_empty() && found.contains_key(&yard));
        wait("its return", &|found| found["fb/status"] == "online");
        process.signal(Signal::TERM);
        assert_eq!(process.wait(20).code, Some(0), "{}", process.stderr());
        wait("its good-bye", &|found| found["fb/status"] == "offline");
        // Who comes later is told everything but the events.
        let mut kept = newest(&subscriber);
        kept.retain(|topic, payload| !topic.ends_with("/event") && !payload.is_empty());
        assert_eq!(retained(&broker, &world), kept);
    }
}

#[test]
fn refused_logins_and_certificates_are_named() {
    let mut world = World::new();
    certificates(&world, "ca", 30);
    certificates(&world, "other", 30);
    certificates(&world, "old", -1);
    let file = |name: &str| world.path(name).display().to_string();
    let tls = |name: &str| {
        let (cert, key) = (format!("{name}-server.pem"), format!("{name}-server.key"));
        format!("{ANONYMOUS}\ncertfile {}\nkeyfile {}", file(&cert), file(&key))
    };
    let listeners = [
        format!("allow_anonymous false\npassword_file {}", file("passwords")),
        tls("ca"),
        tls("old"),
        format!("{ANONYMOUS}\nacl_file {}", file("rights")),
    ];
    world.write("rights", "topic write forbidden/status\n");
    let (ca, other, old) = (file("ca.pem"), file("other.pem"), file("old.pem"));
    let passwords = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c", &file("passwords"), "framebus", "right"])
        .output();
    if passwords.is_err() {
        framebus_tests::skip("mosquitto is missing; `scripts/setup.sh --mqtt` installs it");
        return;
    }
    world.environment.push(("MQTT_PASSWORD".to_owned(), "s3cret-value".to_owned()));
    let Some(broker) = Mosquitto::start(&world, &listeners) else { return };
    let url = |scheme: &str, listener: usize| {
        format!("url = \"{scheme}://127.0.0.1:{}\"", broker.port(listener))
    };
    let login = "user = \"framebus\"\npassword = \"${MQTT_PASSWORD}\"";
    let cases = [
        ("login5", format!("{}\n{login}", url("mqtt", 0)), "user or password refused"),
        (
            "login4",
            format!("{}\n{login}\nprotocol = \"3.1.1\"", url("mqtt", 0)),
            "user or password refused",
        ),
        ("stranger", format!("{}\nca = {other:?}", url("mqtts", 1)), "nobody that is trusted"),
        ("expired", format!("{}\nca = {old:?}", url("mqtts", 2)), "its certificate has expired"),
        ("missing", format!("{}\nca = \"/no/such.pem\"", url("mqtts", 1)), "/no/such.pem"),
        ("plain", format!("{}\nca = {ca:?}", url("mqtts", 0)), "broker mqtts"),
        ("forbidden", url("mqtt", 3), "refuses messages: NotAuthorized"),
        ("good", format!("{}\nca = {ca:?}", url("mqtts", 1)), ""),
        ("good4", format!("{}\nca = {ca:?}\nprotocol = \"3.1.1\"", url("mqtts", 1)), ""),
    ];
    let sinks: String = cases
        .iter()
        .map(|(name, keys, _)| {
            format!("[[sink]]\nname = {name:?}\nkind = \"mqtt\"\ntopic = {name:?}\n{keys}\n")
        })
        .collect();
    world.bus = "result_subscribers = 32".to_owned();
    let config = config(&world, &sinks);
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let stand_in = StandIn::start(&domain, Script::default());
    stand_in.resume();
    let mut processes: Vec<Process> =
        cases.iter().map(|(name, ..)| sink(&world, &config, name, 1)).collect();
    for (name, _, reason) in &cases {
        let state = if reason.is_empty() { State::Live } else { State::Degraded };
        health.wait(Role::Sink, name, 30, |record| {
            record.state == u32::from(state) && text::unpack(&record.reason).contains(reason)
        });
    }
    // What is refused for good is counted, and the next message does not wait for it.
    health.wait(Role::Sink, "forbidden", 10, |record| record.counter(Counter::Lost) > 10);
    drop(stand_in);
    for process in &mut processes {
        process.signal(Signal::TERM);
    }
    for (process, (name, ..)) in processes.iter_mut().zip(&cases) {
        let exit = process.wait(20);
        assert_eq!(exit.code, Some(0), "{name}: {}", exit.stderr);
        assert!(!exit.stderr.contains("s3cret-value"), "{}", exit.stderr);
    }
}

#[test]
fn a_full_spool_gives_up_the_oldest_and_counts_them() {
    let world = World::new();
    let Some(mut broker) = Mosquitto::start(&world, &[ANONYMOUS.to_owned()]) else { return };
    let port = broker.port(0);
    let subscriber = broker.subscribe("sub", "fb/#", &[]);
    broker.stop();
    let config = config(
        &world,
        &format!(
            "[[sink]]\nname = \"broker\"\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
             topic = \"fb\"\ndeliver = \"results\"\nspool_mib = 1\nspool = {:?}\n",
            world.path("spool")
        ),
    );
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let found = Detection { label: text::pack("person"), score: 0.5, ..Detection::default() };
    let script = Script {
        events_per_s: 0,
        results_per_s: 150,
        detections: vec![found; 80],
        ..Script::default()
    };
    let stand_in = StandIn::start(&domain, script);
    let mut process = sink(&world, &config, "broker", 1);
    health.wait_state(Role::Sink, "broker", State::Degraded, 20);
    stand_in.resume();
    health.wait(Role::Sink, "broker", 30, |record| {
        let reason = text::unpack(&record.reason);
        reason.contains("connection refused") && reason.contains("spool full: the oldest ")
    });
    stand_in.pause();
    let (_, sent) = stand_in.sent();
    let record =
        health.wait(Role::Sink, "broker", 10, |record| record.counter(Counter::Received) == sent);
    let bytes: u64 = std::fs::read_dir(world.path("spool"))
        .expect("there")
        .flatten()
        .map(|entry| entry.metadata().map_or(0, |meta| meta.len()))
        .sum();
    assert!(bytes <= (1 << 20) + 64, "{bytes} bytes");
    broker.restart();
    health.wait_state(Role::Sink, "broker", State::Live, 30);
    let lost = record.counter(Counter::Lost);
    let numbers = wait_until("what was left", 30, || {
        let (found, _) = received(&subscriber);
        (count(&found) + lost >= sent).then_some(found)
    });
    assert_eq!(count(&numbers) + lost, sent, "each is delivered or counted");
    for (topic, numbers) in &numbers {
        assert!(numbers[0] > 0, "{topic}: the oldest went");
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{topic}: {numbers:?}");
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait(20).code, Some(0), "{}", process.stderr());
}

#[test]
fn what_is_too_long_for_the_broker_stops_nothing_else() {
    let world = World::new();
    let bound = format!("{ANONYMOUS}\nmax_packet_size 700");
    let Some(broker) = Mosquitto::start(&world, &[bound]) else { return };
    let port = broker.port(0);
    let subscriber = broker.subscribe("sub", "+/+/event", &[]);
    // With 3.1.1, a broker cannot say so and cuts the connection. One message at a time
    // spares the search for the one that is meant.
    let sinks = [("new", "protocol = \"5\""), ("old", "protocol = \"3.1.1\"\nin_flight = 1")];
    let sinks = sinks.map(|(name, keys)| {
        format!(
            "[[sink]]\nname = {name:?}\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
             topic = {name:?}\ndeliver = \"both\"\n{keys}\n"
        )
    });
    let config = config(&world, &sinks.concat());
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let script = Script {
        events_per_s: 20,
        results_per_s: 1,
        detections: vec![Detection { label: text::pack("person"), ..Detection::default() }; 30],
        ..Script::default()
    };
    let stand_in = StandIn::start(&domain, script);
    let mut processes = ["new", "old"].map(|name| sink(&world, &config, name, 1));
    for name in ["new", "old"] {
        health.wait_state(Role::Sink, name, State::Live, 20);
    }
    stand_in.resume();
    wait_until("a long one", 10, || (stand_in.sent().1 > 0).then_some(()));
    stand_in.pause();
    let (events, long) = stand_in.sent();
    let words = [("new", "refuses messages: new/a/result has"), ("old", "ends the connection at")];
    for (name, words) in words {
        health.wait(Role::Sink, name, 60, |record| {
            record.counter(Counter::Written) == events
                && record.counter(Counter::Lost) == long
                && text::unpack(&record.reason).contains(words)
        });
    }
    let found = received(&subscriber).0;
    for name in ["new", "old"] {
        let own = found.iter().filter(|(topic, _)| topic.starts_with(name));
        assert_eq!(own.map(|(_, numbers)| numbers.len() as u64).sum::<u64>(), events, "{name}");
    }
    for process in &mut processes {
        process.signal(Signal::TERM);
        assert_eq!(process.wait(20).code, Some(0), "{}", process.stderr());
    }
}
