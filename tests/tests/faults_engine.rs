//! An engine that hangs, fails or takes its process with it, under `framebus up` with the
//! real OpenVINO: a small library in front of it does to one call what a file says.
//!
//! A GPU driver that hangs cannot be produced here; to the process it is the same as a
//! call that does not return.

use framebus_service::clock;
use framebus_tests::{
    Bystander, Collector, HealthWatch, Process, Row, StatusRow, World, openvino, print_fault,
    repository, skip, wait_row, wait_until,
};
use framebus_types::{Counter, Outcome, Role, State};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the library in front of OpenVINO, which the engine finds instead of it.
fn shim(world: &mut World) -> Option<PathBuf> {
    if !openvino() {
        return None;
    }
    let probed = framebus_engine::backend("openvino")
        .and_then(|backend| backend.probe(&framebus_engine::LoadOptions::new(|| 0)));
    let text = probed.expect("probed a moment ago");
    // `OpenVINO 2026.4.1-… in /path/libopenvino_c.so.2641; devices …`
    let real = text.split(" in ").nth(1).and_then(|rest| rest.split("; devices").next());
    let real = Path::new(real.expect("the probe names the library"));
    let folder = real.parent().expect("a file lies in a folder");
    let shim = world.path("libopenvino_c.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wl,--no-as-needed", "-o"])
        .arg(&shim)
        .arg(repository().join("tests/fixtures/openvino_shim/shim.c"))
        .arg(real)
        .arg(format!("-Wl,-rpath,{}", folder.display()))
        .output();
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            skip(&format!("no C compiler (`cc`) for the library in front of OpenVINO: {error}"));
            return None;
        }
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let trigger = world.path("trigger");
    for (key, value) in [("FRAMEBUS_OPENVINO_LIB", &shim), ("SHIM_TRIGGER", &trigger)] {
        world.environment.push((key.to_owned(), value.display().to_string()));
    }
    Some(trigger)
}

fn config(world: &World, timeout_ms: u64) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        timeout_ms = {timeout_ms}
        [[camera]]
        name = "a"
        source = "test:red?width=320&height=192&fps=15"
        [[camera]]
        name = "b"
        source = "test:green?width=320&height=192&fps=15"
        "#
    ))
}

fn stop(world: &World, mut up: Process) {
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    world.assert_gone();
}

/// How long after `since_ns` the next `ok` result of each camera was sent, s.
fn recovered_s(results: &Collector, since_ns: u64) -> f64 {
    wait_until("ok results of both cameras", 20, || {
        let rows = results.rows();
        let first = |camera: &str| {
            let ok = rows.iter().filter(|row| {
                row.camera == camera && row.outcome == Outcome::Ok && row.times.result_ns > since_ns
            });
            ok.map(|row| row.times.result_ns).min()
        };
        let last = first("a")?.max(first("b")?);
        Some(last.saturating_sub(since_ns) as f64 / 1e9)
    })
}

/// Each frame has one result: none comes twice, none of those taken is missing.
fn assert_one_result_each(rows: &[Row], missed: u64) {
    let mut count = BTreeMap::new();
    for row in rows {
        *count.entry((&row.camera, row.epoch_ns, row.sequence)).or_insert(0) += 1;
        let empty = row.detections.is_empty();
        assert!(row.outcome != Outcome::Ok || !empty, "an empty answer: {row:?}");
    }
    let twice: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for camera in ["a", "b"] {
        let mut numbers: Vec<u64> =
            rows.iter().filter(|row| row.camera == camera).map(|row| row.sequence).collect();
        numbers.sort_unstable();
        let all = numbers[numbers.len() - 1] - numbers[0] + 1;
        let gaps = all - numbers.len() as u64;
        assert!(gaps <= missed, "{camera}: {gaps} of {all} frames have no result");
    }
}

/// Injects `word`, waits for what status says of it, and for the recovery.
fn strike(word: &str, fault: &str, told: impl Fn(&StatusRow) -> bool) {
    let mut world = World::new();
    let Some(trigger) = shim(&mut world) else { return };
    let config = config(&world, 1000);
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    results.wait_more("b", 20, 30);
    let near = Bystander::start(&world.domain(), "b");
    let first = health.newest(Role::Infer, "infer").expect("inference reports").pid;
    let begin_ns = clock::monotonic_ns();
    std::fs::write(&trigger, word).expect("written");
    if word == "fail" {
        wait_until("the end of the process", 10, || {
            up.stderr().contains("giving up").then_some(())
        });
        std::fs::remove_file(&trigger).expect("still there");
    }
    // Beside status, whose own time is none of the recovery.
    let rows = results.wait("ok results after failed ones", 20, |rows| {
        let failed = |row: &&Row| row.outcome == Outcome::Failed;
        let last = rows.iter().filter(failed).map(|row| row.times.result_ns).max();
        last.is_some_and(|last_ns| {
            let again = |camera: &str| {
                let ok = |row: &&Row| row.camera == camera && row.outcome == Outcome::Ok;
                rows.iter().filter(ok).any(|row| row.times.result_ns > last_ns)
            };
            again("a") && again("b")
        })
    });
    let (row, after) = wait_row(&world, fault, 10, told);
    print_fault(fault, &row, after);
    let said_s = (clock::monotonic_ns() - begin_ns) as f64 / 1e9;
    // The engine has a second to answer, and a look at status takes 2.3 s.
    assert!(said_s < 5.0 + 1.0 + 2.3, "said after {said_s:.1} s");
    let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed);
    let failed_ns = failed.map(|row| row.times.result_ns).min().expect("one failed");
    let seconds = recovered_s(&results, failed_ns);
    #[allow(clippy::print_stdout, reason = "a figure of the test's own")]
    {
        println!("{fault}: ok results of all cameras {seconds:.2} s after the first failed one");
    }
    let back = health.wait(Role::Infer, "infer", 20, |record| {
        record.pid != first && record.state == u32::from(State::Live)
    });
    assert_ne!(back.pid, first, "inference was started again");
    assert!(near.finish() > 0);
    results.wait_more("a", 10, 20);
    // 15 frames a second while inference was away, and two lost by readers at each start.
    let away = (seconds * 15.0) as u64 + 30;
    assert_one_result_each(&results.finish(), away);
    drop(health);
    stop(&world, up);
}

#[test]
fn an_engine_that_hangs_fails_its_batch_and_is_started_again() {
    strike("hang", "engine hangs", |row| {
        row.kind == "infer" && row.reason.contains("did not answer within")
    });
}

#[test]
fn an_engine_that_fails_is_started_again() {
    strike("fail", "engine fails", |row| {
        row.kind == "infer" && row.reason.contains("openvino failed in inference")
    });
}

#[test]
fn frames_in_an_engine_that_takes_the_process_along_are_failed_by_the_next() {
    strike("abort", "engine aborts", |row| {
        row.kind == "infer-camera" && row.counters.get("orphaned").is_some_and(|&n| n > 0)
    });
}

#[test]
fn inference_that_is_stopped_and_continued_goes_on_and_calls_no_engine_hung() {
    let mut world = World::new();
    if shim(&mut world).is_none() {
        return;
    }
    let config = config(&world, 500);
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    let near = Bystander::start(&world.domain(), "b");
    let pid = world.pid_of(&["framebus-infer"]).expect("inference runs");
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
        rustix::process::kill_process(pid, signal).expect("it lives");
    };
    signal(Signal::STOP);
    let (row, after) = wait_row(&world, "inference silent", 8, |row| {
        row.kind == "camera" && row.name == "a" && row.reason.contains("silent")
    });
    print_fault("inference stopped (SIGSTOP)", &row, after);
    signal(Signal::CONT);
    results.wait_more("a", 20, 10);
    results.wait_more("b", 20, 10);
    let record = health.wait(Role::Infer, "infer", 10, |r| r.state == u32::from(State::Live));
    assert_eq!((record.pid, record.counter(Counter::Errors)), (pid, 0), "{}", up.stderr());
    assert!(near.finish() > 0);
    assert_one_result_each(&results.finish(), u64::MAX);
    drop(health);
    stop(&world, up);
}
