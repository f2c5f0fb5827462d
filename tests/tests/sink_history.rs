//! The history sink: what it keeps is what was published, once, whatever is repeated, killed
//! or damaged; others read the file meanwhile, and the questions of the documentation work.

use framebus_bus::Bus;
use framebus_service::clock;
use framebus_tests::{HealthWatch, Process, World, binary, repository};
use framebus_types::{Counter, Detection, Direction, Event, EventKind, Outcome, ResultHeader};
use framebus_types::{Role, State, text};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// What another program, Python, reads from the file.
fn ask(file: &Path, question: &str) -> Value {
    let program = "import json, sqlite3, sys\n\
                   db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n\
                   print(json.dumps(db.execute(sys.argv[2]).fetchall()))";
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(file)
        .arg(question)
        .output()
        .expect("python3 runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{question}: {words}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The questions of docs/consumers.md.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs/consumers.md")).expect("docs");
    let section = text.split("\n## History\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let questions = section.split("```sql\n").skip(1);
    questions.map(|rest| rest.split("```").next().expect("an end").to_owned()).collect()
}

const HOUR_NS: u64 = 3_600_000_000_000;

/// Events of the last hours.
fn events(epoch_ns: u64) -> Vec<Event> {
    let one = |sequence: u64, kind: EventKind, place: &str, wall_ns: u64| Event {
        kind: kind.into(),
        camera: text::pack("gate"),
        place: text::pack(place),
        label: text::pack("person"),
        track: u64::MAX,
        age_ns: 1_500_000_000,
        epoch_ns,
        event_epoch_ns: epoch_ns,
        sequence,
        event_sequence: sequence,
        wall_ns,
        ..Event::default()
    };
    let hour_ns = epoch_ns / HOUR_NS * HOUR_NS;
    let mut events: Vec<Event> = (0..5)
        .map(|n| one(n, EventKind::Enter, "yard", hour_ns - if n < 2 { HOUR_NS } else { 0 }))
        .collect();
    for n in 5..9 {
        let mut cross = one(n, EventKind::Cross, "door", epoch_ns);
        let way = if n == 5 { Direction::Backward } else { Direction::Forward };
        cross.direction = way.into();
        events.push(cross);
    }
    events.push(one(9, EventKind::Leave, "yard", epoch_ns));
    events
}

fn start(world: &World, name: &str) -> Process {
    let config = world.path("framebus.toml").display().to_string();
    world.start(name, &binary("framebus-sink"), &["--sink", "past", "--config", &config])
}

#[test]
fn events_and_detections_are_kept_once_and_can_be_asked_for() {
    let world = World::new();
    world.config(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"gate\"\nsource = \"test:red\"\n\
         [[sink]]\nname = \"past\"\nkind = \"history\"\ndeliver = \"both\"\npath = \"past.db\"\n",
    );
    let file = world.path("past.db");
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let bus: Bus = Bus::open(&domain, "stand-in").expect("the bus can be joined");
    let publisher = bus.event_publisher().expect("events can be published");
    let results = bus.result_publisher(Arc::default()).expect("results can be published");
    let epoch_ns = clock::wall_ns();
    let events = events(epoch_ns);
    let mut process = start(&world, "past1");
    health.wait_state(Role::Sink, "past", State::Live, 20);
    publisher.publish(&events).expect("the bus works");
    let header = ResultHeader {
        outcome: Outcome::Ok.into(),
        count: 2,
        camera: text::pack("gate"),
        epoch_ns,
        result_epoch_ns: epoch_ns,
        sequence: 7,
        wall_ns: epoch_ns,
        ..ResultHeader::default()
    };
    let found = Detection {
        label: text::pack("car"),
        score: 0.5,
        bbox: [1.0, 2.0, 3.0, 4.5],
        zones: 5,
        ..Detection::default()
    };
    results.publish(&header, &[found; 2]).expect("the bus works");
    let count = |process: &Process, counter: Counter, value: u64| {
        let pid = process.pid();
        health.wait(Role::Sink, "past", 20, |record| {
            record.pid == pid && record.counter(counter) == value
        })
    };
    count(&process, Counter::Written, 11);

    // Read while the sink runs, and again after it was killed.
    let check = || {
        let ids: Vec<Value> = events.iter().map(|event| json!([event.id()])).collect();
        assert_eq!(ask(&file, "select id from events order by number"), Value::from(ids));
        let question = "select camera, outcome, label, score, x2, y2, zones from results \
                        join detections on result = results.number";
        let row = json!(["gate", "ok", "car", 0.5, 3.0, 4.5, 5]);
        assert_eq!(ask(&file, question), json!([row, row]));
        assert_eq!(ask(&file, "pragma integrity_check"), json!([["ok"]]));
    };
    check();
    let questions = documented();
    assert_eq!(questions.len(), 3);
    let [entered, crossed, longest] =
        [0, 1, 2].map(|number| ask(&file, &questions[number]).as_array().expect("rows").clone());
    let entered: Vec<_> = entered.iter().map(|row| (row[1].clone(), row[3].clone())).collect();
    assert_eq!(entered, [(json!("gate"), json!(2)), (json!("gate"), json!(3))]);
    assert_eq!(crossed, [json!(["gate", "door", 3, 1])]);
    assert_eq!((longest.len(), &longest[0][4]), (1, &json!(1.5)));

    process.signal(Signal::KILL);
    process.wait(10);
    let mut process = start(&world, "past2");
    let live = |process: &Process| {
        let pid = process.pid();
        health.wait(Role::Sink, "past", 20, |record| {
            record.pid == pid && record.state == u32::from(State::Live)
        })
    };
    live(&process);
    // A replay has the same names.
    publisher.publish(&events).expect("the bus works");
    results.publish(&header, &[found; 2]).expect("the bus works");
    count(&process, Counter::Written, 11);
    check();

    // Damaged under its hands: said, set aside, and begun anew.
    process.signal(Signal::TERM);
    let exit = process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let mut bytes = std::fs::read(&file).expect("the history");
    bytes[..4096].fill(0x5a);
    std::fs::write(&file, bytes).expect("written");
    let mut process = start(&world, "past3");
    let pid = process.pid();
    health.wait(Role::Sink, "past", 20, |record| {
        record.pid == pid && text::unpack(&record.reason).contains("it is now past.db.damaged")
    });
    publisher.publish(&events[..3]).expect("the bus works");
    count(&process, Counter::Written, 3);
    process.signal(Signal::TERM);
    let exit = process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("set aside, and begun anew"), "{}", exit.stderr);
    assert_eq!(ask(&file, "select count(*) from events"), json!([[3]]));
    assert!(world.path("past.db.damaged").exists());
}
