//! A short run of what `make chaos` does for minutes: processes are killed and stopped
//! at random, and everything must add up afterwards.

use framebus_tests::{World, example, openvino};
use serde_json::Value;

#[test]
fn random_kills_and_stops_cost_no_more_than_they_must() {
    if !openvino() {
        return;
    }
    let world = World::new();
    let args = ["--kills", "12", "--seconds", "20", "--json"];
    // It has a world of its own; this one is for its output.
    let exit = world.start("chaos", &example("chaos"), &args).wait(150);
    let report: Value = serde_json::from_str(&exit.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", exit.stdout, exit.stderr));
    let missed: Vec<&Value> = report["aims"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|aim| aim["reached"] != true)
        // How fast it was is for `make chaos` to say, on a machine that does nothing else.
        .filter(|aim| !aim["aim"].as_str().is_some_and(|aim| aim.starts_with("recovery p95")))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}\n{report:#}");
    let expected = i32::from(report["reached"] != true);
    assert_eq!(exit.code, Some(expected), "{}", exit.stderr);
    assert!(report["frames"].as_u64() > Some(500), "{report:#}");
}
