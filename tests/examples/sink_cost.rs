//! What a sink that delivers elsewhere, or keeps a history, costs: CPU and memory at an even rate of messages.
//!
//! `cargo run --release -p framebus-tests --example sink_cost -- --kind mqtt --events 50`,
//! after `cargo build --release -p framebus-sink`. Nothing runs beside it but the other
//! side: a real Mosquitto, or a web server in Python.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use clap::Parser;
use framebus_service::clock;
use framebus_tests::{
    HealthWatch, Mosquitto, Process, Script, StandIn, Usage, World, binary, free_port, wait_until,
};
use framebus_types::{Counter, Detection, Role, StageTimes, State, text};
use std::net::TcpStream;
use std::path::Path;

/// Measure a sink.
#[derive(Debug, Parser)]
struct Args {
    /// mqtt, webhook, history, or otlp (results only; each becomes a trace).
    #[arg(long, default_value = "mqtt")]
    kind: String,
    /// Events a second.
    #[arg(long, default_value_t = 0)]
    events: u64,
    /// Results a second.
    #[arg(long, default_value_t = 0)]
    results: u64,
    /// Detections of each result.
    #[arg(long, default_value_t = 5)]
    detections: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

const SERVER: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

fn main() {
    let args = Args::parse();
    let world = World::new();
    let mut port = free_port();
    let (mut broker, mut server) = (None, None);
    let scheme = if args.kind == "mqtt" { "mqtt" } else { "http" };
    if args.kind == "mqtt" {
        broker = Mosquitto::start(&world, &["allow_anonymous true".to_owned()]);
        let Some(broker) = &broker else { return };
        port = broker.port(0);
    } else {
        let arguments = ["-c", SERVER, &port.to_string()];
        server = Some(world.start("server", Path::new("python3"), &arguments));
        wait_until("the server", 20, || TcpStream::connect(("127.0.0.1", port)).ok());
    }
    let deliver = if args.results > 0 { "both" } else { "events" };
    let keys = match args.kind.as_str() {
        "history" => format!("path = \"history.db\"\ndeliver = {deliver:?}"),
        "otlp" => format!("url = \"http://127.0.0.1:{port}\"\nsample = 1"),
        _ => format!("url = \"{scheme}://127.0.0.1:{port}\"\ndeliver = {deliver:?}"),
    };
    let config = world.config(&format!(
        "[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
         [[sink]]\nname = \"sink\"\nkind = {:?}\n{keys}\n",
        args.kind
    ));
    let domain = world.domain();
    let health = HealthWatch::start(&domain);
    let found = Detection { label: text::pack("person"), score: 0.5, ..Detection::default() };
    let script = Script {
        cameras: vec!["a"],
        events_per_s: args.events,
        results_per_s: args.results,
        detections: vec![found; args.detections],
        times: StageTimes {
            capture_ns: 1,
            publish_ns: 2,
            taken_ns: 3,
            batched_ns: 4,
            preprocessed_ns: 5,
            inference_start_ns: 6,
            inference_end_ns: 7,
            decoded_ns: 8,
            result_ns: 9,
        },
        ..Script::default()
    };
    let stand_in = StandIn::start(&domain, script);
    let arguments = ["--sink".into(), "sink".into(), "--config".into(), config.into_os_string()];
    let sink = world.start("sink", &binary("framebus-sink"), &arguments);
    health.wait_state(Role::Sink, "sink", State::Live, 30);
    stand_in.resume();
    pass(3);
    let before = (cpu_ticks(&sink), clock::monotonic_ns(), stand_in.sent());
    pass(args.seconds);
    let after = (cpu_ticks(&sink), clock::monotonic_ns(), stand_in.sent());
    let seconds = (after.1 - before.1) as f64 / 1e9;
    // USER_HZ is 100 on Linux.
    let percent = (after.0 - before.0) as f64 / seconds;
    let usage = Usage::of(&[sink.pid()]);
    stand_in.pause();
    let sent = stand_in.sent();
    let record = health
        .wait(Role::Sink, "sink", 30, |record| record.counter(Counter::Written) == sent.0 + sent.1);
    println!(
        "{}: {:.0} events/s, {:.0} results/s: {percent:.1} % of a core, {:.1} MiB resident, {} \
         threads, {} lost",
        args.kind,
        (after.2.0 - before.2.0) as f64 / seconds,
        (after.2.1 - before.2.1) as f64 / seconds,
        usage.rss_kib as f64 / 1024.0,
        usage.threads,
        record.counter(Counter::Lost),
    );
    drop((sink, server, broker));
}

fn pass(seconds: u64) {
    let end_ns = clock::monotonic_ns() + seconds * 1_000_000_000;
    wait_until("time", seconds + 5, || (clock::monotonic_ns() > end_ns).then_some(()));
}

/// User and system time of a process.
fn cpu_ticks(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it runs");
    // The name, in brackets, may hold anything; utime and stime are fields 14 and 15.
    let rest = stat.rsplit(')').next().expect("fields");
    let fields: Vec<u64> =
        rest.split_whitespace().skip(11).take(2).map(|f| f.parse().expect("a number")).collect();
    fields.iter().sum()
}
