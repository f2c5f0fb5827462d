//! The webhook sink with a server that refuses, hangs, answers nonsense and comes back:
//! nothing lost, order kept, signatures that openssl agrees with.

use framebus_tests::{
    HealthWatch, Process, Script, StandIn, World, binary, wait_until, with_tmpfs,
};
use framebus_types::{Counter, Health, Role, State, text};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What the server does with the next requests.
#[derive(Debug, Clone, PartialEq)]
enum Mood {
    /// 204.
    Takes,
    /// This answer: status line and headers.
    Answers(&'static str),
    /// Reads the request and answers nothing.
    Hangs,
    /// 422 to a body that holds this, 204 to others.
    Dislikes(String),
}

#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    taken: bool,
}

#[derive(Debug)]
struct Server {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let (mood, requests) = (Arc::new(Mutex::new(Mood::Takes)), Arc::default());
        let server = Self { port, mood, requests };
        let (mood, requests) = (server.mood.clone(), server.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mood, requests) = (mood.clone(), requests.clone());
                std::thread::spawn(move || serve(&stream, &mood, &requests));
            }
        });
        server
    }

    fn feels(&self, mood: Mood) {
        *self.mood.lock().expect("no panic inside") = mood;
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic inside").clone()
    }

    /// Messages of the requests that were taken.
    fn messages(&self) -> Vec<Value> {
        let taken = self.requests().into_iter().filter(|request| request.taken);
        taken
            .flat_map(|request| match serde_json::from_slice(&request.body).expect("JSON") {
                Value::Array(list) => {
                    assert!(list.len() > 1, "one message is an object");
                    list
                }
                one => vec![one],
            })
            .collect()
    }
}

/// One connection, which may carry several requests.
fn serve(mut stream: &TcpStream, mood: &Mutex<Mood>, requests: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).expect("headers");
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers["content-length"].parse().expect("a length");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let mood = mood.lock().expect("no panic inside").clone();
        let answer = match &mood {
            Mood::Takes => Some("204 No Content\r\n"),
            Mood::Answers(answer) => Some(*answer),
            Mood::Hangs => None,
            Mood::Dislikes(word) => {
                let has = String::from_utf8_lossy(&body).contains(word.as_str());
                Some(if has { "422 No\r\n" } else { "204 No Content\r\n" })
            }
        };
        let taken = answer.is_some_and(|answer| answer.starts_with("2"));
        let request = Request { line: line.trim_end().to_owned(), headers, body, taken };
        requests.lock().expect("no panic inside").push(request);
        match answer {
            Some(answer) => {
                let length = if answer.starts_with("204") { "" } else { "content-length: 0\r\n" };
                let sent = write!(stream, "HTTP/1.1 {answer}{length}\r\n");
                if sent.is_err() {
                    return;
                }
            }
            None => {
                // Until the sink gives up.
                let _ = reader.read_line(&mut String::new());
                return;
            }
        }
    }
}

fn start(world: &World, name: &str) -> Process {
    let config = world.path("framebus.toml").display().to_string();
    world.start(name, &binary("framebus-sink"), &["--sink", "hook", "--config", &config])
}

const SECRET: &str = "a key of the webhook";

#[test]
fn messages_arrive_signed_and_in_order_whatever_the_server_does() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    world.environment.push(("WEBHOOK_SECRET".to_owned(), SECRET.to_owned()));
    world.config(&format!(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
         [[camera]]\nname = \"b\"\nsource = \"test:red\"\n\
         [[sink]]\nname = \"hook\"\nkind = \"webhook\"\ntimeout_ms = 1000\n\
         url = \"http://127.0.0.1:{port}/in?key=hidden-in-the-path\"\nsecret = \"${{WEBHOOK_SECRET}}\"\n"
    ));
    // Nobody listens.
    drop(listener);
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let stand_in = StandIn::start(&domain, Script::default());
    let mut process = start(&world, "hook1");
    health.wait_state(Role::Sink, "hook", State::Live, 20);
    stand_in.resume();
    let said = |what: &str| {
        health.wait(Role::Sink, "hook", 20, |record| {
            record.state == u32::from(State::Degraded)
                && text::unpack(&record.reason).contains(what)
        })
    };
    said("connection refused");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let server = Server::start(listener);
    assert_eq!(server.port, port);
    let live = || health.wait_state(Role::Sink, "hook", State::Live, 20);
    live();
    for (mood, reason) in [
        (Mood::Answers("500 Oh\r\n"), "answers 500"),
        (Mood::Answers("429 Slow\r\nretry-after: 1\r\n"), "answers 429"),
        (Mood::Answers("307 There\r\nlocation: /elsewhere\r\n"), "not followed"),
        (Mood::Hangs, "no answer in time"),
    ] {
        server.feels(mood);
        said(reason);
        server.feels(Mood::Takes);
        live();
    }

    // Killed while nobody takes anything: what it has taken from the bus is there again.
    server.feels(Mood::Answers("503 Oh\r\n"));
    said("answers 503");
    stand_in.pause();
    let sent = stand_in.sent().0;
    health.wait(Role::Sink, "hook", 20, |record| record.counter(Counter::Received) == sent);
    process.signal(Signal::KILL);
    process.wait(10);
    let mut process = start(&world, "hook2");
    server.feels(Mood::Takes);
    let pid = process.pid();
    health.wait(Role::Sink, "hook", 20, |record| {
        record.pid == pid && record.state == u32::from(State::Live)
    });
    stand_in.resume();
    let all = |sent: u64| {
        wait_until("all messages", 20, || {
            let found = distinct(&server.messages());
            (found.values().map(Vec::len).sum::<usize>() as u64 >= sent).then_some(found)
        })
    };
    stand_in.pause();
    let sent = stand_in.sent().0;
    let found = all(sent);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    for (camera, numbers) in &found {
        assert_eq!(*numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "{camera}");
    }

    // One that is refused is given up alone, and said.
    server.feels(Mood::Dislikes(format!("\"sequence\":{}", sent / 2 + 5)));
    stand_in.resume();
    let lost = health.wait(Role::Sink, "hook", 20, |record| record.counter(Counter::Lost) == 2);
    let reason = said("refuses messages: answer 422").reason;
    assert!(text::unpack(&reason).contains("(2 lost)"), "{}", text::unpack(&reason));
    assert_eq!(lost.counter(Counter::Lost), 2, "one of each camera");
    stand_in.pause();
    let sent = stand_in.sent().0;
    let found = all(sent - 2);
    assert_eq!(found.values().map(Vec::len).sum::<usize>() as u64, sent - 2);

    process.signal(Signal::TERM);
    let exit = process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    check_signatures(&world, &server.requests());
    for word in ["hidden-in-the-path", SECRET] {
        assert!(!exit.stderr.contains(word), "{}", exit.stderr);
        assert!(!health.states(Role::Sink, "hook").iter().any(|(_, why)| why.contains(word)));
    }
}

/// A disk that is full while nobody takes anything loses what does not fit, says so, and
/// frees itself when somebody takes what waits.
#[test]
fn a_full_disk_is_said_and_over_when_it_is_over() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let disk = world.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    world.config(&format!(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
         [[camera]]\nname = \"b\"\nsource = \"test:red\"\n\
         [[sink]]\nname = \"hook\"\nkind = \"webhook\"\nspool = \"disk/spool\"\nspool_mib = 1\n\
         url = \"http://127.0.0.1:{port}/\"\n"
    ));
    drop(listener);
    let Some(mut command) = with_tmpfs(&disk, 64) else { return };
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let script = Script { events_per_s: 400, ..Script::default() };
    let stand_in = StandIn::start(&domain, script);
    let config = world.path("framebus.toml");
    command.arg(binary("framebus-sink")).args(["--sink", "hook", "--config"]).arg(config);
    let mut process = Process::start("hook", world.folder(), command);
    health.wait_state(Role::Sink, "hook", State::Live, 20);
    stand_in.resume();
    health.wait(Role::Sink, "hook", 20, |record| {
        let reason = text::unpack(&record.reason);
        reason.contains("cannot write the spool: No space left")
            && record.counter(Counter::Lost) > 0
    });
    let server = Server::start(TcpListener::bind(("127.0.0.1", port)).expect("still free"));
    health.wait_state(Role::Sink, "hook", State::Live, 20);
    let lost = |record: &Health| record.counter(Counter::Lost);
    let before = lost(&health.newest(Role::Sink, "hook").expect("reports"));
    let taken = server.messages().len();
    wait_until("much more than the disk holds", 20, || {
        (server.messages().len() > taken + 600).then_some(())
    });
    stand_in.pause();
    let sent = stand_in.sent().0;
    let record = health.wait(Role::Sink, "hook", 20, |record| {
        record.counter(Counter::Written) + record.counter(Counter::Lost) == sent
    });
    assert_eq!(lost(&record), before, "nothing is lost once somebody takes it");
    assert_eq!(record.state, u32::from(State::Live), "{}", text::unpack(&record.reason));
    process.signal(Signal::TERM);
    assert_eq!(process.wait(20).code, Some(0), "{}", process.stderr());
}

/// First occurrences of the numbers of each camera.
fn distinct(messages: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in messages {
        let camera = message["camera"].as_str().expect("a camera").to_owned();
        let number = message["sequence"].as_u64().expect("a number");
        assert!(message["id"].as_str().is_some_and(|id| id.starts_with(&camera)));
        let numbers = found.entry(camera).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    found
}

fn check_signatures(world: &World, requests: &[Request]) {
    assert!(requests.len() > 10, "{}", requests.len());
    assert!(requests.iter().any(|request| request.body.starts_with(b"[")), "no list");
    assert!(requests.iter().any(|request| request.body.starts_with(b"{")), "no single one");
    let every = requests.len() / 8 + 1;
    for request in requests.iter().step_by(every) {
        assert_eq!(request.line, "POST /in?key=hidden-in-the-path HTTP/1.1");
        assert_eq!(request.headers["content-type"], "application/json");
        let time = &request.headers["x-framebus-timestamp"];
        let mut signed = format!("{time}.").into_bytes();
        signed.extend(&request.body);
        let file = world.write("signed", signed);
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-hmac", SECRET])
            .arg(file)
            .output()
            .expect("openssl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let sum = text.trim().rsplit(' ').next().expect("a sum");
        assert_eq!(request.headers["x-framebus-signature"], format!("sha256={sum}"));
    }
}
