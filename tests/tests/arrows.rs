//! The house's rules that no compiler checks: which crate may know which, where
//! `unsafe` may be, how long a file may get.

use framebus_tests::repository;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every crate of the workspace and the ones of the workspace that it may use.
/// Arrows point down the list of ARCHITECTURE.md only; a new arrow is a decision
/// and is made here.
const ARROWS: [(&str, &[&str]); 15] = [
    ("framebus-types", &[]),
    ("framebus-bus", &["framebus-types"]),
    ("framebus-config", &[]),
    ("framebus-service", &["framebus-types", "framebus-bus", "framebus-config"]),
    ("framebus-vision", &[]),
    ("framebus-model", &[]),
    ("framebus-cuda", &["framebus-vision"]),
    ("framebus-tensorrt", &[]),
    (
        "framebus-engine",
        &[
            "framebus-config",
            "framebus-cuda",
            "framebus-model",
            "framebus-tensorrt",
            "framebus-vision",
        ],
    ),
    (
        "framebus-capture",
        &[
            "framebus-types",
            "framebus-bus",
            "framebus-config",
            "framebus-service",
            "framebus-vision",
        ],
    ),
    (
        "framebus-infer",
        &[
            "framebus-types",
            "framebus-bus",
            "framebus-config",
            "framebus-service",
            "framebus-engine",
            "framebus-model",
            "framebus-vision",
        ],
    ),
    (
        "framebus-sink",
        &["framebus-types", "framebus-config", "framebus-service", "framebus-client"],
    ),
    ("framebus-client", &["framebus-types", "framebus-bus", "framebus-vision"]),
    ("framebus-capi", &["framebus-types", "framebus-client"]),
    (
        "framebus",
        &[
            "framebus-types",
            "framebus-bus",
            "framebus-config",
            "framebus-service",
            "framebus-client",
            "framebus-model",
            "framebus-engine",
            "framebus-vision",
        ],
    ),
];

/// Whole-system tests may use everything; the double is a library of its own.
const TESTS: [&str; 2] = ["framebus-tests", "framebus-gpu-double"];

/// Foreign families of crates and who alone may use them, dev-dependencies
/// included.
const FENCED: [(&str, &[&str]); 14] = [
    ("gstreamer", &["framebus-capture"]),
    ("iceoryx2-bb-", &["framebus-types"]),
    ("iceoryx2", &["framebus-bus"]),
    ("openvino", &["framebus-engine", "framebus-gpu-double"]),
    ("cudarc", &["framebus-cuda"]),
    ("tonic", &["framebus-engine"]),
    // Sinks that are asked serve HTTP; those that only send need no runtime.
    ("axum", &["framebus-sink"]),
    ("hyper", &["framebus-sink"]),
    ("tokio", &["framebus-engine", "framebus-sink"]),
    // Its synchronous half runs a tokio of its own on one thread.
    ("rumqttc", &["framebus-sink"]),
    ("ureq", &["framebus-sink"]),
    ("rusqlite", &["framebus-sink"]),
    // What is sent is made without it, and checked with it.
    ("opentelemetry", &["framebus-tests"]),
    // Brings a runtime and a protocol of its own; tests are the other end.
    ("zenoh", &["framebus-sink", "framebus-tests"]),
];

/// Where it is the rule: a library that stands in for C ones, for tests.
const UNSAFE_FOLDER: &str = "tests/gpu-double/";

/// Files that may contain `unsafe`.
const UNSAFE: [&str; 24] = [
    "crates/framebus-bus/src/descriptor.rs",
    "crates/framebus-bus/src/frames.rs",
    "crates/framebus-bus/src/populate.rs",
    "crates/framebus-capi/src/exports.rs",
    "crates/framebus-cuda/src/context.rs",
    "crates/framebus-cuda/src/driver.rs",
    "crates/framebus-cuda/src/memory.rs",
    "crates/framebus-cuda/src/pipeline/upload.rs",
    "crates/framebus-cuda/src/pipeline/work.rs",
    "crates/framebus-cuda/src/stream.rs",
    "crates/framebus-cuda/tests/common/mod.rs",
    "crates/framebus-cuda/tests/kernels_cpu/cpu.rs",
    "crates/framebus-engine/src/openvino/probe.rs",
    "crates/framebus-engine/src/tensorrt/network.rs",
    "crates/framebus-engine/src/triton/region.rs",
    "crates/framebus-infer/tests/allocations.rs",
    "crates/framebus-tensorrt/src/builder.rs",
    "crates/framebus-tensorrt/src/engine.rs",
    "crates/framebus-tensorrt/src/engine/tests.rs",
    "crates/framebus-tensorrt/src/logger.rs",
    "crates/framebus-tensorrt/src/monitor.rs",
    "crates/framebus-tensorrt/src/open.rs",
    "crates/framebus-tensorrt/src/raw.rs",
    "tests/src/gpu.rs",
];

/// Lines above which a file is two files.
const LINES_MAX: usize = 500;

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps", "--manifest-path"])
        .arg(repository().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo answers JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("a name")
}

fn dependencies(package: &Value) -> &[Value] {
    package["dependencies"].as_array().expect("a list")
}

#[test]
fn arrows_between_crates_are_the_allowed_ones() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let packages = packages();
    let found: BTreeSet<&str> = packages.iter().map(name).filter(|n| !TESTS.contains(n)).collect();
    assert_eq!(found, allowed.keys().copied().collect(), "crates of the workspace");
    for package in packages.iter().filter(|package| !TESTS.contains(&name(package))) {
        let used: BTreeSet<&str> = dependencies(package)
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(name)
            .filter(|dependency| dependency.starts_with("framebus"))
            .collect();
        assert_eq!(used, allowed[name(package)], "dependencies of {}", name(package));
    }
}

#[test]
fn the_arrows_have_no_circle() {
    // Crates that depend only on finished ones are finished.
    let mut finished = BTreeSet::new();
    let mut left: Vec<_> = ARROWS.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(from, to)| {
            let ready = to.iter().all(|crate_name| finished.contains(crate_name));
            if ready {
                finished.insert(*from);
            }
            !ready
        });
        assert!(left.len() < before, "a circle among {left:?}");
    }
}

#[test]
fn foreign_families_stay_behind_their_crate() {
    for package in packages() {
        for dependency in dependencies(&package) {
            let dependency_name = name(dependency);
            let fence = FENCED.iter().find(|(family, _)| dependency_name.starts_with(family));
            if let Some((_, users)) = fence {
                assert!(
                    users.contains(&name(&package)),
                    "{} uses {dependency_name}; only {users:?} may",
                    name(&package)
                );
            }
            if dependency_name.starts_with("iceoryx2") {
                // Two versions cannot see each other's services.
                assert_eq!(dependency["req"], "=0.10.0", "{} {dependency_name}", name(&package));
            }
        }
    }
}

#[test]
fn every_crate_inherits_the_workspace_lints() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = std::fs::read_to_string(manifest).expect("a manifest can be read");
        let table = text.split("\n[lints]\n").nth(1).expect("a [lints] table");
        assert!(table.trim_start().starts_with("workspace = true"), "{manifest}");
    }
}

/// Every Rust file of the repository, by its path from the root.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                walk(&path, files);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    let root = repository();
    let mut files = Vec::new();
    walk(&root.join("crates"), &mut files);
    walk(&root.join("tests"), &mut files);
    assert!(files.len() > 50, "the walk went wrong: {files:?}");
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            (path.strip_prefix(&root).expect("below the root").display().to_string(), text)
        })
        .collect()
}

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    // Put together here, so that this file is not found itself.
    let attribute = format!("allow({}", "unsafe_code");
    let found: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(path, text)| text.contains(&attribute) && !path.starts_with(UNSAFE_FOLDER))
        .map(|(path, _)| path)
        .collect();
    let listed = UNSAFE.map(str::to_owned).into_iter().collect();
    assert_eq!(found, listed, "files that allow unsafe code");
    let architecture = repository().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&architecture).expect("ARCHITECTURE.md is there");
    for path in UNSAFE.map(|path| path.trim_start_matches("crates/")) {
        assert!(text.contains(path), "ARCHITECTURE.md does not name {path}");
    }
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<(String, usize)> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:?}");
}
