//! `framebus trace` with a Triton server: where the time went before, in and after it.

use framebus_tests::{Collector, TritonServer, World};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

/// Slices of a time line by name: how many, and microseconds in all.
fn slices(text: &str) -> BTreeMap<String, (u64, f64)> {
    let value: Value = serde_json::from_str(text).expect("a time line is JSON");
    let mut found = BTreeMap::new();
    for event in value["traceEvents"].as_array().expect("events") {
        if event["ph"] == "X" {
            let name = event["name"].as_str().expect("a name").to_owned();
            let entry: &mut (u64, f64) = found.entry(name).or_default();
            entry.0 += 1;
            entry.1 += event["dur"].as_f64().expect("a duration");
        }
    }
    found
}

#[test]
fn a_time_line_holds_the_servers_own_stages() {
    let world = World::new();
    let model = world.tiny_model(2, Some((96, 160)));
    let models = [format!("tiny={}", model.display())];
    let trace = world.path("server.json");
    let file = format!("triton,file={}", trace.display());
    let arguments = [
        "--",
        "--trace-config",
        &file,
        "--trace-config",
        "triton,log-frequency=10",
        "--trace-config",
        "rate=1",
        "--trace-config",
        "level=TIMESTAMPS",
    ];
    let Some(server) = TritonServer::start_as(&world, &models, &[], &arguments) else { return };
    for transport in ["grpc", "system-shared-memory"] {
        let config = world.config(&format!(
            r#"
            [model]
            path = {model:?}
            backend = ["triton"]
            [triton]
            url = "{}"
            model = "tiny"
            transport = "{transport}"
            [[camera]]
            name = "a"
            source = "test:red?width=320&height=192&fps=20"
            "#,
            server.url()
        ));
        let results = Collector::start(&world.domain());
        let mut up = world.up(&config);
        results.wait_more("a", 50, 60);
        let (config, trace) = (config.display().to_string(), trace.display().to_string());
        let record = |more: &[&str]| {
            let mut args = vec!["trace", "--seconds", "3", "-o", "t.json", "--config", &config];
            args.extend(more);
            let exit = world.framebus("trace", &args).wait(30);
            assert_eq!(exit.code, Some(0), "{}", exit.stderr);
            let text = std::fs::read_to_string(world.path("t.json")).expect("written");
            (slices(&text), exit.stdout)
        };
        // What the client and the server's statistics know.
        let (alone, table) = record(&[]);
        for name in ["serialise", "request", "receive", "server compute (average)"] {
            assert!(alone.contains_key(name), "{name}: {:?}\n{table}", alone.keys());
        }
        // What the server's own trace knows.
        let (both, table) = record(&["--server-trace", &trace]);
        for name in ["serialise", "send", "accept", "queue", "input", "compute", "output", "answer"]
        {
            let count = both.get(name).map_or(0, |slice| slice.0);
            assert!(count > 20, "{name}: {count} of {:?}\n{table}", both.keys());
        }
        // All of it lies inside the client's request.
        let us = |name: &str| both[name].1 / both[name].0 as f64;
        let inside = us("queue") + us("input") + us("compute") + us("output");
        assert!(inside > 0.0 && inside < us("request"), "{inside} of {}", us("request"));
        let header = results.finish();
        assert!(!header.is_empty());
        up.signal(Signal::TERM);
        assert_eq!(up.wait(30).code, Some(0));
    }
    drop(server);
    world.assert_gone();
}
