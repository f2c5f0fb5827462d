//! Triton servers that die, hang, answer errors and come back under load, and clients that
//! are killed: who answers meanwhile, and that nothing is left.

use framebus_service::clock;
use framebus_tests::{
    Collector, HealthWatch, Process, Row, TritonServer, World, asset, openvino, regions, wait_until,
};
use framebus_types::{Outcome, Role, State, text};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const CAMERAS: [&str; 2] = ["a", "b"];

/// Two cameras that always show something, on the tiny model.
fn config(world: &World, server: &TritonServer<'_>, backend: &str, transport: &str) -> PathBuf {
    let model = world.tiny_model(2, Some((96, 160)));
    world.config(&format!(
        r#"
        [model]
        path = {model:?}
        backend = {backend}
        [triton]
        url = "{}"
        model = "tiny"
        transport = "{transport}"
        [[camera]]
        name = "a"
        source = "test:red?width=320&height=192&fps=15"
        [[camera]]
        name = "b"
        source = "test:green?width=320&height=192&fps=15"
        "#,
        server.url()
    ))
}

fn serve(world: &World) -> Option<TritonServer<'_>> {
    let model = world.tiny_model(2, Some((96, 160)));
    let server = TritonServer::start(world, &[format!("tiny={}", model.display())]);
    openvino().then_some(server?)
}

/// Ends the instance, the readers first, and answers what they have seen.
fn stop(mut up: Process, results: Collector) -> Vec<Row> {
    let rows = results.finish();
    up.signal(Signal::TERM);
    let exit = up.wait(30);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_honest(&rows);
    rows
}

/// A result that says ok found the one thing that there is to see, and no frame has two.
fn assert_honest(rows: &[Row]) {
    let mut seen = BTreeMap::new();
    for row in rows {
        *seen.entry((&row.camera, row.epoch_ns, row.sequence)).or_insert(0) += 1;
        let ok = row.outcome == Outcome::Ok;
        assert!(!ok || !row.detections.is_empty(), "an empty answer: {row:?}");
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// When the first ok result of each camera by `backend` after `since_ns` was sent, and of
/// those the last, in seconds after `since_ns`.
fn first_ok_s(results: &Collector, backend: &str, since_ns: u64, deadline_s: u64) -> f64 {
    wait_until(&format!("ok results by {backend}"), deadline_s, || {
        let rows = results.rows();
        let first = |camera: &str| {
            let ok = rows.iter().filter(|row| {
                row.camera == camera
                    && row.outcome == Outcome::Ok
                    && row.backend == backend
                    && row.times.result_ns > since_ns
            });
            ok.map(|row| row.times.result_ns).min()
        };
        let last = first("a")?.max(first("b")?);
        Some((last - since_ns) as f64 / 1e9)
    })
}

fn infer_pid(health: &HealthWatch) -> u32 {
    health.newest(Role::Infer, "infer").expect("inference reports").pid
}

/// The server is killed and started again under load, with nobody else to answer: the
/// process stays, says what is missing, and goes on by itself.
#[allow(clippy::print_stdout, reason = "the figure is for whoever reads the test's output")]
fn server_is_killed_and_comes_back(transport: &str) {
    let world = World::new();
    let Some(mut server) = serve(&world) else { return };
    let config = config(&world, &server, "[\"triton\"]", transport);
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    results.wait_more("b", 20, 30);
    let pid = infer_pid(&health);
    for round in 0..2 {
        server.kill();
        let begin_ns = clock::monotonic_ns();
        let rows = results.wait("failed results of both cameras", 10, |rows| {
            CAMERAS.iter().all(|camera| {
                rows.iter().any(|row| {
                    row.camera == *camera
                        && row.outcome == Outcome::Failed
                        && row.times.result_ns > begin_ns
                })
            })
        });
        let failed = rows.iter().filter(|r| r.outcome == Outcome::Failed);
        let failed_ns = failed.map(|row| row.times.result_ns).filter(|ns| *ns > begin_ns).min();
        let told = health.wait_state(Role::Infer, "infer", State::Offline, 10);
        let reason = text::unpack(&told.reason);
        assert!(reason.starts_with("triton is gone: grpc://127.0.0.1:"), "{reason}");
        server.restart();
        let up_ns = clock::monotonic_ns();
        let after_s = first_ok_s(&results, "triton", up_ns, 30);
        println!(
            "{transport}, round {round}: failed results {:.2} s after SIGKILL, ok ones {after_s:.2} s after it listens again",
            failed_ns.map_or(0.0, |ns| (ns - begin_ns) as f64 / 1e9),
        );
        health.wait_state(Role::Infer, "infer", State::Live, 10);
        assert_eq!(infer_pid(&health), pid, "the process stayed");
    }
    let shared = transport != "grpc";
    assert_eq!(!regions(pid).is_empty(), shared);
    assert_eq!(!server.mapped_regions().is_empty(), shared);
    drop(health);
    stop(up, results);
    assert!(regions(pid).is_empty(), "a region is left");
    // The server unmaps in its own time.
    wait_until("no region in the server", 5, || server.mapped_regions().is_empty().then_some(()));
    drop(server);
    world.assert_gone();
}

#[test]
fn a_server_that_is_killed_comes_back_over_shared_memory() {
    server_is_killed_and_comes_back("system-shared-memory");
}

#[test]
fn a_server_that_is_killed_comes_back_over_grpc() {
    server_is_killed_and_comes_back("grpc");
}

/// The next backend answers, names itself, and gives way again.
#[allow(clippy::print_stdout, reason = "the figures are for whoever reads the test's output")]
fn fails_over(transport: &str, what: &str) {
    let world = World::new();
    let Some(mut server) = serve(&world) else { return };
    let config = config(&world, &server, "[\"triton\", \"openvino\"]", transport);
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    results.wait_more("b", 20, 30);
    assert!(results.rows().iter().all(|row| row.outcome != Outcome::Ok || row.backend == "triton"));
    let begin_ns = clock::monotonic_ns();
    match what {
        "kill" => server.kill(),
        word => server.fault("tiny", Some(word)),
    }
    let left_s = first_ok_s(&results, "openvino", begin_ns, 20);
    // A model that hangs is no server that is there again, though it says that it is ready.
    let until_s = if what == "hang" { 20 } else { 0 };
    let so_long = || clock::monotonic_ns() - begin_ns > until_s * 1_000_000_000;
    wait_until("the server to be asked once", 30, || so_long().then_some(()));
    results.wait_more("a", 20, 20);
    match what {
        "kill" => server.restart(),
        _ => server.fault("tiny", None),
    }
    let back_ns = clock::monotonic_ns();
    let back_s = first_ok_s(&results, "triton", back_ns, 60);
    println!(
        "{what} over {transport}: openvino answers {left_s:.2} s after it, triton {back_s:.1} s after its end"
    );
    let rows = stop(up, results);
    let who: BTreeSet<&str> =
        rows.iter().filter(|row| row.outcome == Outcome::Ok).map(|row| &*row.backend).collect();
    assert_eq!(who, BTreeSet::from(["openvino", "triton"]));
    assert_eq!((server.regions(), server.mapped_regions()), (vec![], vec![]), "a region is left");
    drop(server);
    world.assert_gone();
}

#[test]
fn a_server_that_dies_is_left_and_taken_again() {
    fails_over("grpc", "kill");
}

#[test]
fn a_server_that_hangs_is_left_and_taken_again() {
    fails_over("system-shared-memory", "hang");
}

/// Nobody else could answer: what the server holds of our memory stays bounded.
#[test]
fn a_model_that_hangs_does_not_eat_the_memory() {
    let world = World::new();
    let Some(server) = serve(&world) else { return };
    let config = config(&world, &server, "[\"triton\"]", "system-shared-memory");
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    server.fault("tiny", Some("hang"));
    let mut most = 0;
    let begin_ns = clock::monotonic_ns();
    wait_until("15 s of hanging", 20, || {
        most = most.max(server.regions().len());
        (clock::monotonic_ns() - begin_ns > 15_000_000_000).then_some(())
    });
    assert!((3..=12).contains(&most), "{most} regions");
    server.fault("tiny", None);
    first_ok_s(&results, "triton", clock::monotonic_ns(), 40);
    let few = || (server.regions().len() <= 2 && server.mapped_regions().len() <= 2).then_some(());
    wait_until("the server to have forgotten them", 40, few);
    drop(health);
    stop(up, results);
    assert_eq!((server.regions(), server.mapped_regions()), (vec![], vec![]), "a region is left");
    drop(server);
    world.assert_gone();
}

#[test]
fn a_server_that_answers_errors_is_left_and_taken_again() {
    fails_over("auto", "error");
}

#[test]
fn a_server_that_starts_later_than_we_do_is_taken_then() {
    let world = World::new();
    let Some(mut server) = serve(&world) else { return };
    server.kill();
    let config = config(&world, &server, "[\"triton\", \"openvino\"]", "auto");
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    first_ok_s(&results, "openvino", 0, 60);
    server.restart();
    let begin_ns = clock::monotonic_ns();
    first_ok_s(&results, "triton", begin_ns, 60);
    stop(up, results);
    // Alone, it is waited for.
    server.kill();
    let alone = std::fs::read_to_string(&config).expect("written").replace(", \"openvino\"", "");
    std::fs::write(&config, alone).expect("written");
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    let told = health.wait_state(Role::Infer, "infer", State::Offline, 30);
    let reason = text::unpack(&told.reason);
    assert!(reason.starts_with("waiting for the server: triton"), "{reason}");
    server.restart();
    let begin_ns = clock::monotonic_ns();
    first_ok_s(&results, "triton", begin_ns, 60);
    drop(health);
    stop(up, results);
    drop(server);
    world.assert_gone();
}

#[test]
fn regions_of_a_process_that_was_killed_go_with_the_next_one() {
    let world = World::new();
    let Some(server) = serve(&world) else { return };
    let config = config(&world, &server, "[\"triton\"]", "system-shared-memory");
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("a", 20, 60);
    let first = infer_pid(&health);
    let before = regions(first);
    assert!(!before.is_empty());
    let begin_ns = clock::monotonic_ns();
    world.kill(first);
    first_ok_s(&results, "triton", begin_ns, 30);
    assert!(regions(first).is_empty(), "files of the process that was killed");
    let second = infer_pid(&health);
    let mapped = server.mapped_regions();
    assert!(!mapped.is_empty() && mapped.iter().all(|name| !before.contains(name)), "{mapped:?}");
    drop(health);
    stop(up, results);
    assert!(regions(second).is_empty() && server.mapped_regions().is_empty());
    drop(server);
    world.assert_gone();
}

/// The real model, real footage, a server that batches.
#[test]
#[allow(clippy::print_stdout, reason = "the figures are for whoever reads the test's output")]
fn four_cameras_for_a_while() {
    let (Some(model), Some(clip)) = (asset("models/yolov8n.onnx"), asset("media/street720.mp4"))
    else {
        return;
    };
    let world = World::new();
    let cut = framebus_model::Model::open(&model).expect("a model").cut().expect("it can be cut");
    let cut = world.write("cut.onnx", cut.bytes().expect("in memory"));
    let models = [format!("yolov8n={},batch=4,dynamic=1", cut.display())];
    let Some(server) = TritonServer::start(&world, &models) else { return };
    let camera = |name: &str| {
        format!(
            "[[camera]]\nname = \"{name}\"\nsource = \"file:{}\"\npace = \"realtime\"\nloop = true\nfps = 3.0\n",
            clip.display()
        )
    };
    let cameras = ["a", "b", "c", "d"].map(camera).concat();
    let config = world.config(&format!(
        "[model]\npath = {model:?}\nbackend = [\"triton\"]\n[triton]\nurl = \"{}\"\n{cameras}",
        server.url()
    ));
    let health = HealthWatch::start(&world.domain());
    let results = Collector::start(&world.domain());
    let up = world.up(&config);
    results.wait_more("d", 5, 90);
    let pid = infer_pid(&health);
    let begin_ns = clock::monotonic_ns();
    wait_until("the while", 40, || {
        (clock::monotonic_ns() - begin_ns > 20_000_000_000).then_some(())
    });
    let during = |row: &&Row| row.times.result_ns > begin_ns;
    assert_eq!(infer_pid(&health), pid, "nothing was started again");
    drop(health);
    let rows = stop(up, results);
    for name in ["a", "b", "c", "d"] {
        let of = rows.iter().filter(during).filter(|row| row.camera == name);
        let count = |outcome| of.clone().filter(|row| row.outcome == outcome).count();
        let (ok, failed) = (count(Outcome::Ok), count(Outcome::Failed));
        println!("{name}: {ok} ok, {} dropped, {failed} failed", count(Outcome::Dropped));
        assert!(failed == 0 && ok > 20, "{name}: {ok} ok, {failed} failed");
        let by = of.clone().filter(|row| row.outcome == Outcome::Ok);
        assert!(by.clone().all(|row| row.backend == "triton"));
        assert!(by.map(|row| row.detections.len()).sum::<usize>() > ok, "it sees the street");
        let numbers: BTreeSet<u64> = of.clone().map(|row| row.sequence).collect();
        assert_eq!(numbers.len(), of.count(), "one result a frame");
    }
    assert!(regions(pid).is_empty() && server.mapped_regions().is_empty());
    drop(server);
    world.assert_gone();
}
