//! The Prometheus sink: figures that agree with what `framebus status` says, in a format
//! that strict parsers read, for those who have the token and for nobody else.

use framebus_service::clock;
use framebus_tests::{
    Metrics, Process, World, binary, free_port, openvino, repository, skip, wait_until,
};
use framebus_types::{Direction, Event, EventKind, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TOKEN: &str = "a-token-of-some-length";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// An answer: status, head, body.
type Answer = (u16, String, String);

/// Sends a request as it is and reads to the end of the connection.
fn exchange(port: u16, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    // A server that refuses a long request may reset the connection behind its answer.
    let _ = stream.read_to_end(&mut bytes);
    let answer = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_lowercase(), body.to_owned()))
}

fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    exchange(port, &(request + "\r\n"))
}

fn scrape(port: u16, accept: &str) -> Option<String> {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", token.as_str()), ("Accept", accept)];
    let (status, _, body) = get(port, "/metrics", &headers)?;
    (status == 200).then_some(body)
}

fn page(port: u16) -> Metrics {
    Metrics::parse(&scrape(port, "").expect("the sink answers"))
}

/// Two live cameras, one of them with an end, a sink that writes and the one that is asked.
fn world(port: u16) -> (World, Process) {
    let mut world = World::new();
    world.environment.push(("METRICS_TOKEN".to_owned(), TOKEN.to_owned()));
    let model = world.tiny_model(2, Some((96, 160)));
    let config = world.config(&format!(
        r#"
        [up]
        restart_min_ms = 2000
        [model]
        path = {model:?}
        [[camera]]
        name = "short"
        source = "test:red?width=320&height=192&fps=20&frames=40"
        [[camera]]
        name = "long"
        source = "test:green?width=320&height=192&fps=20"
        [[camera]]
        name = "off"
        enabled = false
        source = "test:green"
        [[sink]]
        name = "lines"
        kind = "jsonl"
        path = "lines.jsonl"
        [[sink]]
        name = "figures"
        kind = "prometheus"
        listen = "127.0.0.1:{port}"
        token = "${{METRICS_TOKEN}}"
        "#
    ));
    let up = world.up(&config);
    wait_until("the end of one camera and results of the other", 60, || {
        let page = Metrics::parse(&scrape(port, "")?);
        let is = |series: &str| page.series.get(series).is_some_and(|value| *value > 0.0);
        (is("framebus_camera_state{camera=\"short\",state=\"ended\"}")
            && is("framebus_camera_results_total{camera=\"long\",outcome=\"ok\"}")
            && is("framebus_stage_seconds_count{camera=\"long\",stage=\"capture\"}")
            && is("framebus_process_cpu_seconds_total{role=\"infer\",name=\"infer\"}"))
        .then_some(())
    });
    (world, up)
}

fn status(world: &World) -> Value {
    let config = world.path("framebus.toml").display().to_string();
    let exit = world.framebus("status", &["status", "--json", "--config", &config]).wait(30);
    assert!(!exit.stdout.contains(TOKEN), "{}", exit.stdout);
    serde_json::from_str(&exit.stdout).expect("JSON")
}

fn record<'a>(status: &'a Value, role: &str, name: &str) -> &'a Value {
    let all = status["processes"].as_array().expect("a list");
    let found = all.iter().find(|process| process["role"] == role && process["name"] == name);
    found.unwrap_or_else(|| panic!("no {role} {name} in {status}"))
}

fn count(record: &Value, counter: &str) -> f64 {
    record["counters"][counter].as_f64().unwrap_or(0.0)
}

fn refuses_who_has_no_token(port: u16) {
    for headers in [
        &[][..],
        &[("Authorization", "Bearer a-token-of-some-lengtH")],
        &[("Authorization", "Basic a-token-of-some-length")],
        &[("X-Token", TOKEN)],
    ] {
        for path in ["/metrics", "/", &format!("/metrics?token={TOKEN}")] {
            let (status, head, body) = get(port, path, headers).expect("an answer");
            assert_eq!(status, 401, "{headers:?} {path}");
            assert!(head.contains("www-authenticate: bearer"), "{head}");
            assert!(body.len() < 200 && !body.contains("framebus_"), "{body}");
        }
    }
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", token.as_str())];
    assert_eq!(get(port, "/else", &headers).expect("an answer").0, 404);
    let post = format!(
        "POST /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 0\r\n\r\n"
    );
    let (status, head, _) = exchange(port, &post).expect("an answer");
    assert!(status == 405 && head.contains("allow: get"), "{status} {head}");
}

/// A parser that is not ours: the one of Prometheus' client for Python.
fn read_by_prometheus_client(world: &World, port: u16) {
    let python = repository().join(".framebus/python-client/bin/python");
    let has = |module: &str| {
        let import = format!("import {module}");
        python.exists() && world.start("import", &python, &["-c", &import]).wait(30).code == Some(0)
    };
    if !has("prometheus_client") {
        skip("prometheus_client is missing; `scripts/setup.sh --python-client` installs it");
        return;
    }
    let script = "import sys\n\
                  from prometheus_client import parser\n\
                  from prometheus_client.openmetrics import parser as openmetrics\n\
                  reader = openmetrics if sys.argv[1] == 'openmetrics' else parser\n\
                  families = list(reader.text_string_to_metric_families(open(sys.argv[2]).read()))\n\
                  print(len(families), sum(len(f.samples) for f in families), \
                  sum(bool(f.unit) for f in families))\n";
    let mut read = BTreeMap::new();
    for (format, accept) in [("text", "text/plain"), ("openmetrics", OPENMETRICS)] {
        let text = scrape(port, accept).expect("an answer");
        assert_eq!(format == "openmetrics", text.ends_with("# EOF\n"));
        let file = world.write(format, &text).display().to_string();
        let exit = world.start("parse", &python, &["-c", script, format, &file]).wait(30);
        assert_eq!(exit.code, Some(0), "{format}: {}", exit.stderr);
        let figures: Vec<usize> =
            exit.stdout.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        assert!(figures[0] > 30 && figures[1] > 300, "{format}: {figures:?}");
        assert_eq!(figures[2] > 5, format == "openmetrics", "{format}: units {figures:?}");
        read.insert(format, figures[0]);
    }
    assert_eq!(read["text"], read["openmetrics"], "families");
}

fn agrees_with_status(world: &World, port: u16) {
    // Inference may count the last frames of the ended camera in its next report.
    let ended_taken = || page(port).get("framebus_camera_frames_taken_total{camera=\"short\"}");
    let mut last = (ended_taken(), clock::monotonic_ns());
    wait_until("the last report of the ended camera", 20, || {
        let (taken, now_ns) = (ended_taken(), clock::monotonic_ns());
        if taken > last.0 {
            last = (taken, now_ns);
        }
        (now_ns - last.1 > 2_000_000_000).then_some(())
    });
    let before = page(port);
    let status = status(world);
    let after = page(port);
    // A camera that has ended counts no more: nothing may be off by one.
    let ended = record(&status, "infer-camera", "short");
    for (series, counter) in [
        ("framebus_camera_frames_taken_total{camera=\"short\"}", "taken"),
        ("framebus_camera_results_total{camera=\"short\",outcome=\"ok\"}", "ok"),
        ("framebus_camera_results_total{camera=\"short\",outcome=\"failed\"}", "failed"),
        ("framebus_camera_detections_total{camera=\"short\"}", "detections"),
    ] {
        assert_eq!(before.get(series), count(ended, counter), "{series}");
        assert_eq!(after.get(series), count(ended, counter), "{series}");
    }
    assert!(count(ended, "ok") > 0.0, "{ended}");
    let cameras = status["cameras"].as_array().expect("a list");
    let short = cameras.iter().find(|camera| camera["name"] == "short").expect("known");
    for reason in ["missed", "superseded", "stale", "skipped", "failed"] {
        let series =
            format!("framebus_camera_frames_dropped_total{{camera=\"short\",reason=\"{reason}\"}}");
        assert_eq!(after.get(&series), short["drops"][reason].as_f64().unwrap_or(0.0), "{series}");
    }
    // One that goes on lies between the two readings.
    for (role, series, counter) in [
        ("capture", "framebus_camera_frames_published_total{camera=\"long\"}", "published"),
        ("infer-camera", "framebus_camera_results_total{camera=\"long\",outcome=\"ok\"}", "ok"),
        ("infer-camera", "framebus_camera_detections_total{camera=\"long\"}", "detections"),
    ] {
        let said = count(record(&status, role, "long"), counter);
        assert!(before.get(series) < said && said <= after.get(series) + 0.5, "{series} {said}");
    }
    let batches = count(record(&status, "infer", "infer"), "batches");
    let series = "framebus_inference_batches_total";
    assert!(before.get(series) < batches && batches <= after.get(series), "{batches}");
    for (camera, state) in [("short", "ended"), ("long", "live"), ("off", "disabled")] {
        let series = format!("framebus_camera_state{{camera=\"{camera}\",state=\"{state}\"}}");
        assert_eq!(after.get(&series), 1.0, "{series}");
        let start = format!("framebus_camera_state{{camera=\"{camera}\",");
        let all = after.series.iter().filter(|(series, _)| series.starts_with(&start));
        assert_eq!(all.map(|(_, value)| value).sum::<f64>(), 1.0, "{camera} has one state");
    }
    for (series, value) in &after.series {
        let name = series.split('{').next().expect("a name");
        let grows =
            name.ends_with("_total") || name.ends_with("_bucket") || name.ends_with("_count");
        if let Some(earlier) = before.series.get(series).filter(|_| grows) {
            assert!(value >= earlier, "{series} went from {earlier} to {value}");
        }
    }
    assert!(after.get("framebus_sink_written_total{sink=\"lines\"}") > 0.0);
    assert!(after.get("framebus_sink_written_total{sink=\"figures\"}") >= 2.0);
}

fn histograms_add_up(port: u16) {
    let page = page(port);
    for (camera, stage) in [("short", "total"), ("long", "total"), ("long", "capture")] {
        let buckets = page.buckets(camera, stage);
        assert_eq!(buckets.len(), 25, "{camera} {stage}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let labels = format!("{{camera=\"{camera}\",stage=\"{stage}\"}}");
        let (bound, all) = buckets[buckets.len() - 1];
        assert_eq!(
            (bound, all),
            (f64::INFINITY, page.get(&format!("framebus_stage_seconds_count{labels}")))
        );
        // Between the bounds of its buckets, the sum cannot be anything.
        let sum = page.get(&format!("framebus_stage_seconds_sum{labels}"));
        let longest = page.get(&format!("framebus_stage_longest_seconds{labels}"));
        assert!(all > 0.0 && sum > 0.0 && sum <= all * longest + 1e-9, "{sum} {all} {longest}");
        let mut least = 0.0;
        for pair in buckets.windows(2) {
            least += (pair[1].1 - pair[0].1) * pair[0].0;
        }
        assert!(sum >= least, "{camera} {stage}: {sum} < {least}");
    }
    // Every answer has its total, and no other frame.
    let ok = page.get("framebus_camera_results_total{camera=\"short\",outcome=\"ok\"}");
    let total = "framebus_stage_seconds_count{camera=\"short\",stage=\"total\"}";
    assert_eq!(page.get(total), ok);
}

fn events_are_counted(world: &World, port: u16) {
    let bus: framebus_bus::Bus =
        framebus_bus::Bus::open(&world.domain(), "test").expect("the bus can be joined");
    let publisher = bus.event_publisher().expect("events can be published");
    let event = |index, direction: Direction| Event {
        kind: EventKind::Cross.into(),
        direction: direction.into(),
        camera: text::pack("long"),
        place: text::pack("door"),
        label: text::pack("person"),
        index,
        event_epoch_ns: 1,
        event_sequence: u64::from(index),
        ..Event::default()
    };
    let events =
        [event(0, Direction::Forward), event(1, Direction::Forward), event(2, Direction::Backward)];
    publisher.publish(&events).expect("sent");
    let series = |direction: &str| {
        format!(
            "framebus_camera_events_total{{camera=\"long\",event=\"cross\",place=\"door\",\
             direction=\"{direction}\",label=\"person\"}}"
        )
    };
    wait_until("the events to be counted", 10, || {
        let page = page(port);
        let count = |direction| page.series.get(&series(direction)).copied();
        (count("forward") == Some(2.0) && count("backward") == Some(1.0)).then_some(())
    });
}

/// Names and types of the families that docs/metrics.md lists.
fn documented() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("readable");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let kind = cells.next()?.to_owned();
        name.starts_with("framebus_").then_some((name, kind))
    });
    rows.collect()
}

/// Names of our metrics in a text.
fn mentioned(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words.filter(|word| word.starts_with("framebus_")).map(str::to_owned).collect()
}

/// The expressions of a dashboard, wherever they stand.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        found.push(text.to_owned());
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn documentation_and_dashboard_name_what_there_is(port: u16) {
    let page = page(port);
    assert_eq!(documented(), page.families, "docs/metrics.md lists other families");
    let names: BTreeSet<&str> =
        page.series.keys().filter_map(|series| series.split('{').next()).collect();
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).expect("readable");
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/framebus.json")).expect("JSON");
    let mut queries = Vec::new();
    expressions(&dashboard["panels"], &mut queries);
    expressions(&dashboard["templating"], &mut queries);
    assert!(queries.len() > 15, "{queries:?}");
    queries.push(read("deploy/grafana/alerts.yml"));
    for query in queries {
        for name in mentioned(&query) {
            assert!(names.contains(name.as_str()), "{name} is not scraped: {query}");
        }
    }
}

#[test]
fn figures_are_right_and_only_for_who_has_the_token() {
    if !openvino() {
        return;
    }
    let port = free_port();
    let (world, mut up) = world(port);
    refuses_who_has_no_token(port);
    agrees_with_status(&world, port);
    histograms_add_up(port);
    events_are_counted(&world, port);
    read_by_prometheus_client(&world, port);
    documentation_and_dashboard_name_what_there_is(port);

    let restarts = "framebus_process_restarts_total{role=\"capture\",name=\"long\"}";
    let started = "framebus_process_start_time_seconds{role=\"capture\",name=\"long\"}";
    let live = "framebus_camera_state{camera=\"long\",state=\"live\"}";
    let before = page(port);
    assert_eq!((before.get(restarts), before.get(live)), (0.0, 1.0));
    world.kill(world.pid_of(&["framebus-capture", "long"]).expect("it runs"));
    let down = wait_until("the camera to be seen down", 10, || {
        let page = page(port);
        (page.get(live) == 0.0).then_some(page)
    });
    assert_eq!(down.get("framebus_camera_up{camera=\"long\"}"), 0.0);
    assert_eq!(down.get("framebus_camera_up{camera=\"short\"}"), 0.0, "it has ended");
    let again = wait_until("the camera to be live again", 20, || {
        let page = page(port);
        (page.get(live) == 1.0 && page.get(restarts) == 1.0).then_some(page)
    });
    assert!(again.get(started) > before.get(started));
    let many = |page: &Metrics| page.series.keys().filter(|s| s.contains("long")).count();
    assert_eq!(many(&again), many(&before), "a restart makes no new series");

    up.signal(rustix::process::Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains(TOKEN), "the token was logged");
    let refused = exit.stderr.matches("without the right token").count();
    assert_eq!(refused, 1, "said once: {}", exit.stderr);
    world.assert_gone();
}

#[test]
fn a_crowd_without_the_token_keeps_nobody_out() {
    let port = free_port();
    let world = World::new();
    let config = world.config(&format!(
        "[model]\npath = \"none\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
         [[sink]]\nname = \"figures\"\nkind = \"prometheus\"\nlisten = \"127.0.0.1:{port}\"\n\
         token = \"{TOKEN}\"\n"
    ));
    let config = config.display().to_string();
    let args = ["--config", &config, "--sink", "figures"];
    let mut sink = world.start("sink", &binary("framebus-sink"), &args);
    wait_until("the sink to answer", 30, || scrape(port, ""));

    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("accepted");
    let mut crowd: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
    for stream in &mut crowd {
        // Those that had to go already are no fault.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
    }
    scrape(port, "").expect("who has the token is answered");
    let files = || {
        let folder = format!("/proc/{}/fd", sink.pid());
        std::fs::read_dir(folder).expect("it runs").count()
    };
    wait_until("places to be bounded", 10, || (files() < 100).then_some(()));
    // The newest of the crowd has a place, for as long as a head may take.
    let last = crowd.last_mut().expect("a crowd");
    last.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let mut byte = [0; 64];
    match last.read(&mut byte) {
        Ok(_) => {}
        Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "never closed"),
    }

    let long = "x".repeat(100_000);
    let header = [("X-Long", long.as_str())];
    let answer = get(port, "/metrics", &header);
    assert!(answer.is_none_or(|(status, ..)| status == 431), "a head without end");
    let many: Vec<(&str, &str)> = vec![("A", "b"); 200];
    let answer = get(port, "/metrics", &many);
    assert!(answer.is_none_or(|(status, ..)| status == 431), "lines without end");
    scrape(port, "").expect("it still answers");

    let second = world.start("second", &binary("framebus-sink"), &args).wait(30);
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    assert!(second.stderr.contains("the port is in use; `ss -ltnp"), "{}", second.stderr);
    sink.signal(rustix::process::Signal::TERM);
    assert_eq!(sink.wait(30).code, Some(0), "{}", sink.stderr());
}
