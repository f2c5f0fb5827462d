//! The OpenTelemetry sink: what it sends is what OpenTelemetry's own types read, spans say
//! what the results say, chance is the same for everybody, and a collector that is away or
//! refuses costs what it costs and is said. The collector is a stand-in in this file.

use framebus_bus::Bus;
use framebus_service::clock;
use framebus_tests::{Collector, HealthWatch, Process, Row, World, binary, openvino, wait_until};
use framebus_types::{Counter, Health, Outcome, Reason, ResultHeader, Role, StageTimes};
use framebus_types::{Stage, State, text};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

const TOKEN: &str = "short";

/// Stands in for a collector: keeps what it reads, and answers as it is told.
#[derive(Debug)]
struct StandInCollector {
    /// Status line with headers, and body, of the next answers.
    answer: Arc<Mutex<(String, String)>>,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

const TAKES: (&str, &str) = ("200 OK", "{}");

impl StandInCollector {
    fn start(listener: TcpListener) -> Self {
        let answer = Arc::new(Mutex::new((TAKES.0.to_owned(), TAKES.1.to_owned())));
        let collector = Self { answer, taken: Arc::default() };
        let (answer, taken) = (collector.answer.clone(), collector.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, taken) = (answer.clone(), taken.clone());
                std::thread::spawn(move || serve(&stream, &answer, &taken));
            }
        });
        collector
    }

    fn answers(&self, (status, body): (&str, &str)) {
        *self.answer.lock().expect("no panic inside") = (status.to_owned(), body.to_owned());
    }

    /// Spans of each trace in the requests that were answered with 200, the root first.
    fn traces(&self) -> BTreeMap<String, Vec<Span>> {
        let mut traces: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for body in self.taken.lock().expect("no panic inside").iter() {
            for span in read(body) {
                traces.entry(hex(&span.trace_id)).or_default().push(span);
            }
        }
        for spans in traces.values_mut() {
            spans.sort_by_key(|span| !span.parent_span_id.is_empty());
        }
        traces
    }

    fn wait(&self, traces: usize) -> BTreeMap<String, Vec<Span>> {
        wait_until(&format!("{traces} traces"), 20, || {
            Some(self.traces()).filter(|found| found.len() >= traces)
        })
    }
}

/// One connection, which may carry several requests.
fn serve(mut stream: &TcpStream, answer: &Mutex<(String, String)>, taken: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(line.trim_end(), "POST /base/v1/traces HTTP/1.1");
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).expect("headers");
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
        let mut body = vec![0; headers["content-length"].parse().expect("a length")];
        reader.read_exact(&mut body).expect("a body");
        let (status, said) = answer.lock().expect("no panic inside").clone();
        if status == TAKES.0 {
            taken.lock().expect("no panic inside").push(body);
        }
        let length = said.len();
        let sent = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{said}");
        if sent.is_err() {
            return;
        }
    }
}

/// The spans of a request, read by OpenTelemetry's own types.
fn read(body: &[u8]) -> Vec<Span> {
    let sent: Value = serde_json::from_slice(body).expect("JSON");
    let request: ExportTraceServiceRequest = serde_json::from_slice(body).expect("OTLP");
    let known = serde_json::to_value(&request).expect("JSON");
    assert!(holds(&known, &sent), "a name that OTLP does not have: {sent} became {known}");
    let [resource] = request.resource_spans.as_slice() else { panic!("one resource") };
    let about = resource.resource.as_ref().expect("a resource");
    let named = about.attributes.iter().find(|attribute| attribute.key == "service.name");
    let name = named.and_then(|named| named.value.as_ref()?.value.clone());
    assert_eq!(name, Some(Attribute::StringValue("framebus".to_owned())));
    let [scope] = resource.scope_spans.as_slice() else { panic!("one scope") };
    assert!(scope.spans.len() <= 8 * 100, "{} spans at once", scope.spans.len());
    scope.spans.clone()
}

/// Whether all of `part` stands in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| holds(w, p))
        }
        _ => whole == part,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Trace ids of frames, as the documentation says how to compute them.
fn trace_ids(world: &World, frames: &[(String, u64, u64)]) -> Vec<String> {
    let files: Vec<_> = (0..)
        .zip(frames)
        .map(|(number, (camera, epoch_ns, sequence))| {
            world.write(&format!("id{number}"), format!("{camera}-{epoch_ns:x}-{sequence}"))
        })
        .collect();
    let output = Command::new("sha256sum").args(&files).output().expect("sha256sum runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let ids: Vec<String> = text.lines().map(|line| line[..32].to_owned()).collect();
    assert_eq!(ids.len(), frames.len());
    ids
}

fn attribute(span: &Span, key: &str) -> Option<Attribute> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.clone()
}

fn int(span: &Span, key: &str) -> u64 {
    match attribute(span, key) {
        Some(Attribute::IntValue(value)) => value as u64,
        other => panic!("{key}: {other:?}"),
    }
}

fn word(span: &Span, key: &str) -> String {
    match attribute(span, key) {
        Some(Attribute::StringValue(value)) => value,
        other => panic!("{key}: {other:?}"),
    }
}

/// A root and the stages of `times`, which begin with the root, lie in it and follow each
/// other.
fn check_spans(spans: &[Span], times: &StageTimes) {
    let (root, stages) = spans.split_first().expect("a root");
    assert_eq!((root.name.as_str(), root.parent_span_id.len()), ("frame", 0));
    assert_eq!(
        root.end_time_unix_nano - root.start_time_unix_nano,
        times.result_ns - times.capture_ns
    );
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), spans.len(), "ids of spans are their own");
    let mut last_ns = root.start_time_unix_nano;
    for stage in stages {
        assert_eq!(stage.parent_span_id, root.span_id, "{}", stage.name);
        assert!(last_ns <= stage.start_time_unix_nano, "{}", stage.name);
        assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano, "{}", stage.name);
        last_ns = stage.end_time_unix_nano;
    }
    assert!(last_ns <= root.end_time_unix_nano);
    for (stage, duration_ns) in Stage::ALL.iter().zip(times.durations_ns()) {
        let found = stages.iter().find(|span| span.name == stage.as_str());
        if let (Some(span), Some(duration_ns)) = (found, duration_ns) {
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, duration_ns);
        }
    }
}

/// A world with a port that nobody listens at yet.
fn world(body: impl Fn(&World, &str) -> String) -> (World, TcpListener) {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    world.environment.push(("OTLP_TOKEN".to_owned(), TOKEN.to_owned()));
    let sink = format!(
        "[[sink]]\nname = \"traces\"\nkind = \"otlp\"\ntoken = \"${{OTLP_TOKEN}}\"\n\
         url = \"http://127.0.0.1:{port}/base/\"\n"
    );
    let text = body(&world, &sink);
    world.config(&text);
    (world, listener)
}

#[test]
fn each_frame_of_a_pipeline_becomes_a_trace_of_its_stages() {
    if !openvino() {
        return;
    }
    let (world, listener) = world(|world, sink| {
        let model = world.tiny_model(2, Some((96, 160)));
        format!(
            "[model]\npath = {model:?}\n[[camera]]\nname = \"gate\"\ndelivery = \"every-frame\"\n\
             source = \"test:red?width=320&height=192&frames=12\"\n{sink}sample = 1.0\n"
        )
    });
    let collector = StandInCollector::start(listener);
    let results = Collector::start(&world.domain());
    let mut up = world.up(&world.path("framebus.toml"));
    let exit = up.wait(60);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = results.finish();
    let traces = collector.wait(12);
    assert_eq!((rows.len(), traces.len()), (12, 12));
    let name = |row: &Row| (row.camera.clone(), row.epoch_ns, row.sequence);
    let ids = trace_ids(&world, &rows.iter().map(name).collect::<Vec<_>>());
    let now_ns = clock::wall_ns();
    for (row, id) in rows.iter().zip(&ids) {
        let spans = &traces[id];
        check_spans(spans, &row.times);
        let names: Vec<&str> = spans[1..].iter().map(|span| span.name.as_str()).collect();
        let all = ["capture", "wake", "queue", "preprocess", "inference", "decode", "publish"];
        assert_eq!(names, all);
        let root = &spans[0];
        assert_eq!(word(root, "framebus.camera"), "gate");
        assert_eq!(int(root, "framebus.epoch_ns"), row.epoch_ns);
        assert_eq!(int(root, "framebus.sequence"), row.sequence);
        assert_eq!(int(root, "framebus.detections"), row.detections.len() as u64);
        assert_eq!(word(root, "framebus.outcome"), "ok");
        assert_eq!(attribute(root, "framebus.reason"), None);
        assert_eq!(word(&spans[5], "framebus.backend"), row.backend);
        let age_ns = now_ns - root.start_time_unix_nano;
        assert!(age_ns < 120_000_000_000, "a start by the wall clock: {age_ns} ns ago");
    }
    assert!(!exit.stderr.contains(&format!("Bearer {TOKEN}")), "{}", exit.stderr);
}

/// Publishes results of frames in the place of the inference process.
struct Frames {
    publisher: framebus_bus::ResultPublisher,
    _bus: Bus,
    epoch_ns: u64,
    sent: u64,
}

impl Frames {
    fn new(world: &World) -> Self {
        let bus = Bus::open(&world.domain(), "stand-in").expect("the bus can be joined");
        let publisher = bus.result_publisher(Arc::default()).expect("results can be published");
        Self { publisher, _bus: bus, epoch_ns: clock::wall_ns(), sent: 0 }
    }

    fn header(&self) -> ResultHeader {
        let ns = clock::monotonic_ns();
        ResultHeader {
            camera: text::pack("a"),
            outcome: Outcome::Ok.into(),
            epoch_ns: self.epoch_ns,
            result_epoch_ns: self.epoch_ns,
            wall_ns: clock::wall_ns(),
            times: StageTimes {
                capture_ns: ns,
                publish_ns: ns + 1_000_000,
                taken_ns: ns + 1_200_000,
                batched_ns: ns + 5_000_000,
                preprocessed_ns: ns + 7_000_000,
                inference_start_ns: ns + 7_100_000,
                inference_end_ns: ns + 30_000_000,
                decoded_ns: ns + 31_000_000,
                result_ns: ns + 31_100_000,
            },
            ..ResultHeader::default()
        }
    }

    /// Names of the frames.
    #[allow(clippy::disallowed_methods, reason = "tests have no signals to answer")]
    fn send(&mut self, count: u64, change: impl Fn(&mut ResultHeader)) -> Vec<(String, u64, u64)> {
        let names = (0..count).map(|number| {
            let mut header = self.header();
            (header.sequence, header.result_sequence) = (self.sent, self.sent);
            change(&mut header);
            self.publisher.publish(&header, &[]).expect("the bus works");
            self.sent += 1;
            // A sink takes at least so many a second.
            if number % 32 == 31 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            ("a".to_owned(), header.epoch_ns, header.sequence)
        });
        names.collect()
    }
}

struct Sink {
    process: Process,
    health: HealthWatch,
}

impl Sink {
    fn start(world: &World) -> Self {
        let health = HealthWatch::start(&world.domain());
        let config = world.path("framebus.toml").display().to_string();
        let args = ["--sink", "traces", "--config", &config];
        let process = world.start("traces", &binary("framebus-sink"), &args);
        health.wait_state(Role::Sink, "traces", State::Live, 20);
        Self { process, health }
    }

    fn says(&self, what: &str) -> Health {
        self.health.wait(Role::Sink, "traces", 20, |record| {
            record.state == u32::from(State::Degraded)
                && text::unpack(&record.reason).contains(what)
        })
    }

    fn counts(&self, counter: Counter, value: u64) -> Health {
        self.health.wait(Role::Sink, "traces", 20, |record| record.counter(counter) == value)
    }
}

const CAMERA: &str =
    "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n";

#[test]
fn a_collector_that_is_away_or_refuses_is_said_and_counted() {
    let (world, listener) = world(|_, sink| format!("{CAMERA}{sink}sample = 1\n"));
    let address = listener.local_addr().expect("bound");
    // Nobody listens.
    drop(listener);
    let mut sink = Sink::start(&world);
    let mut frames = Frames::new(&world);
    let mut names = frames.send(150, |_| ());
    sink.says("connection refused");
    sink.counts(Counter::Received, 150);
    let collector =
        StandInCollector::start(TcpListener::bind(address).expect("the port is still free"));
    collector.wait(150);
    let written = sink.counts(Counter::Written, 150);
    assert_eq!(written.counter(Counter::Lost), 0, "they waited in memory");
    let bytes = written.counter(Counter::WrittenBytes) / 150;
    assert!((2000..4000).contains(&bytes), "the documentation says 3 kB: {bytes}");
    sink.health.wait_state(Role::Sink, "traces", State::Live, 20);

    // Tried again.
    collector.answers(("503 Oh\r\nretry-after: 1", ""));
    names.extend(frames.send(1, |header| header.count = 0));
    sink.says("answers 503");
    collector.answers(TAKES);
    collector.wait(151);

    // Given up, and the next ones taken.
    collector.answers(("400 No", r#"{"code":3,"message":"bad span"}"#));
    frames.send(2, |_| ());
    // Times that cannot be are not believed.
    frames.send(1, |header| header.times.taken_ns = header.times.result_ns + 1);
    sink.says("refuses traces: answer 400, bad span; 2 traces lost");
    sink.counts(Counter::BadHeaders, 1);
    collector
        .answers(("200 OK", r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"old"}}"#));
    names.extend(frames.send(3, |_| ()));
    sink.says("refuses 1 spans: old; 3 traces lost");
    sink.counts(Counter::Lost, 3);
    collector.answers(TAKES);

    let (dropped_ns, mut dropped) = (
        clock::wall_ns(),
        frames.send(1, |header| {
            (header.outcome, header.reason) = (Outcome::Dropped.into(), Reason::Stale.into());
            let StageTimes { capture_ns, publish_ns, taken_ns, result_ns, .. } = header.times;
            header.times =
                StageTimes { capture_ns, publish_ns, taken_ns, result_ns, ..StageTimes::default() };
        }),
    );
    names.append(&mut dropped);
    let traces = collector.wait(155);
    let ids = trace_ids(&world, &names);
    assert_eq!(traces.keys().collect::<BTreeSet<_>>(), ids.iter().collect());
    let last = &traces[ids.last().expect("an id")];
    let stages: Vec<&str> = last.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(stages, ["frame", "capture", "wake", "queue"]);
    assert_eq!(word(&last[0], "framebus.outcome"), "dropped");
    assert_eq!(word(&last[0], "framebus.reason"), "stale");
    assert_eq!(last[3].end_time_unix_nano, last[0].end_time_unix_nano);
    assert!(last[0].start_time_unix_nano >= dropped_ns);

    // What has come together is sent at the end.
    frames.send(2, |_| ());
    sink.process.signal(Signal::TERM);
    let exit = sink.process.wait(20);
    assert_eq!((exit.code, collector.traces().len()), (Some(0), 157), "{}", exit.stderr);
}

#[test]
fn chance_is_decided_by_the_id_and_failures_are_always_told() {
    let (world, listener) = world(|_, sink| format!("{CAMERA}{sink}sample = 0.1\n"));
    let collector = StandInCollector::start(listener);
    let mut sink = Sink::start(&world);
    let mut frames = Frames::new(&world);
    let names = frames.send(400, |_| ());
    let failed = frames.send(3, |header| {
        header.outcome = Outcome::Failed.into();
        header.message = text::pack("out of \"memory\"");
        (header.times.inference_end_ns, header.times.decoded_ns) = (0, 0);
    });
    sink.counts(Counter::Received, 403);
    sink.process.signal(Signal::TERM);
    let exit = sink.process.wait(20);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    // As OpenTelemetry's samplers: the last 56 bits of the id against a threshold.
    let is_chosen = |id: &String| {
        let bits = u64::from_str_radix(&id[18..], 16).expect("hexadecimal");
        bits >= (0.9 * (1_u64 << 56) as f64) as u64
    };
    let chosen: BTreeSet<String> =
        trace_ids(&world, &names).into_iter().filter(is_chosen).collect();
    let failed: BTreeSet<String> = trace_ids(&world, &failed).into_iter().collect();
    let traces = collector.traces();
    let found: BTreeSet<String> = traces.keys().cloned().collect();
    assert_eq!(found, &chosen | &failed, "{} by chance", chosen.len());
    for id in &failed {
        let root = &traces[id][0];
        let status = root.status.as_ref().expect("a status");
        assert_eq!((status.code, status.message.as_str()), (2, "out of \"memory\""));
        assert_eq!(traces[id].len(), 5, "to the network's input and no further");
    }
}
