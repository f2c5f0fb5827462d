//! Each fuzz target for a fixed number of inputs, the same ones every time. `make fuzz`
//! looks for more.

use framebus_tests::fuzz::{TARGETS, Target, mutate};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let Target { run, bounded, .. } = *target;
    let seeds = (target.seeds)();
    assert!(seeds.len() > 1, "{name} has no seeds");
    seeds.iter().for_each(|seed| run(seed));
    for number in 0..bounded {
        let data = mutate(&seeds, number);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&data)));
        assert!(ran.is_ok(), "{name}, input {number}: {}", data.escape_ascii());
    }
}

#[test]
fn config() {
    run("config");
}

#[test]
fn headers() {
    run("headers");
}

#[test]
fn ledger() {
    run("ledger");
}

#[test]
fn onnx() {
    run("onnx");
}

#[test]
fn url() {
    run("url");
}

/// A target that cannot fail finds nothing.
#[test]
fn mutations_reach_what_the_targets_check() {
    let headers = TARGETS.iter().find(|target| target.name == "headers").expect("a target");
    let seeds = (headers.seeds)();
    let inputs: Vec<Vec<u8>> = (0..1000).map(|number| mutate(&seeds, number)).collect();
    assert!(inputs.iter().any(|data| data.len() > seeds[0].len()));
    assert!(inputs.iter().any(|data| data.len() < seeds[0].len()));
    assert_eq!(inputs[7], mutate(&seeds, 7), "the same one every time");
    let distinct: std::collections::HashSet<&Vec<u8>> = inputs.iter().collect();
    assert!(distinct.len() > 600, "{} of 1000", distinct.len());
}
