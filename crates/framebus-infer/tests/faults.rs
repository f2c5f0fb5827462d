//! What happens to frames when the engine hangs, when their process dies, and when the
//! cameras change while it runs: each has exactly one result.

mod common;

use common::{CLIP, LIVE, Played, World, number, source, until};
use framebus_bus::Limits;
use framebus_infer::End;
use framebus_infer::ledger::Ledger;
use framebus_service::{Failure, Kind, Shutdown};
use framebus_types::{Counter, FrameHeader, Outcome, State, text};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// An engine that takes longer hangs.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Calls that hang until the test lets them go.
#[derive(Clone, Default)]
struct Trap(Arc<(Mutex<bool>, Condvar)>);

impl Trap {
    fn hang(&self) {
        let open = self.0.0.lock().expect("lock");
        drop(self.0.1.wait_while(open, |open| !*open).expect("lock"));
    }

    fn open(&self) {
        *self.0.0.lock().expect("lock") = true;
        self.0.1.notify_all();
    }
}

#[test]
fn a_batch_in_an_engine_that_hangs_fails_once_and_the_process_ends() {
    let world = World::new(Limits { in_flight: 2, ..Limits::default() });
    let (trap, hangs) = (Trap::default(), Arc::new(AtomicBool::new(false)));
    let (caught, on) = (trap.clone(), hangs.clone());
    let mut engine = Played::new(move |_, _, batch| {
        // One camera's frame hangs; the other's goes through another worker.
        if on.load(Ordering::Relaxed) && batch[0].view.width() == 64 {
            caught.hang();
        }
        Ok(())
    });
    (engine.contexts, engine.timeout) = (2, TIMEOUT);
    let pipeline = world.start(engine, &[("a", CLIP), ("b", CLIP)]);
    let mut a = world.camera("a", CLIP, 64, 36);
    let mut b = world.camera("b", CLIP, 128, 72);
    // The usual time of the input is known from now on.
    (0..5).for_each(|sequence| {
        a.send();
        assert_eq!(pipeline.next().to_string(), format!("a{sequence} ok"));
    });
    hangs.store(true, Ordering::Relaxed);
    a.send();
    b.send();
    assert_eq!(pipeline.next().to_string(), "b0 ok");
    // One that waits behind it, for its worker is the other one's.
    a.send();
    let mut got = pipeline.next();
    assert_eq!((got.sequence, got.outcome), (5, Outcome::Failed));
    let words = "played did not answer within 0.";
    assert!(got.message.starts_with(words), "{}", got.message);
    assert!(pipeline.ends_within(Duration::from_secs(5)), "a thread in the engine holds it up");
    assert_eq!(pipeline.process.state(), State::Stalled);
    let mut rest: Vec<_> = std::iter::from_fn(|| pipeline.poll()).collect();
    trap.open();
    // The worker comes back, and must not answer again.
    let _ = Shutdown::new().wait(Duration::from_millis(200));
    rest.extend(std::iter::from_fn(|| pipeline.poll()));
    assert_eq!(rest.len(), 1, "{rest:?}");
    got = rest.remove(0);
    assert_eq!(got.sequence, 6);
    until(|| (0..2).all(|camera| pipeline.reconciles(camera)));
    let (ended, last) = pipeline.stop();
    let End::Hung(reason) = ended.expect("no failure of its own") else { panic!("not hung") };
    assert!(reason.starts_with(words), "{reason}");
    assert!(last.is_empty(), "{last:?}");
}

#[test]
fn a_process_that_stops_does_not_wait_for_an_engine_that_hangs() {
    let world = World::new(Limits::default());
    let (trap, calls) = (Trap::default(), Arc::new(AtomicUsize::new(0)));
    let (caught, counted) = (trap.clone(), calls.clone());
    let mut engine = Played::new(move |_, _, _| {
        if counted.fetch_add(1, Ordering::Relaxed) > 0 {
            caught.hang();
        }
        Ok(())
    });
    engine.timeout = TIMEOUT;
    let pipeline = world.start(engine, &[("a", LIVE)]);
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    a.send();
    until(|| calls.load(Ordering::Relaxed) == 2);
    let (ended, last) = pipeline.stop();
    assert!(matches!(ended, Ok(End::Hung(_))), "{ended:?}");
    assert_eq!(last.len(), 1);
    assert_eq!((last[0].sequence, last[0].outcome), (1, Outcome::Failed));
    trap.open();
}

/// One camera's frames hang, from the second on, while the other's go wrong.
#[test]
fn an_engine_that_fails_and_hangs_holds_up_nobody() {
    let world = World::new(Limits::default());
    let trap = Trap::default();
    let caught = trap.clone();
    let mut engine = Played::new(move |_, _, batch| match batch[0].view.width() {
        64 if number(&batch[0]) > 0 => {
            caught.hang();
            Ok(())
        }
        64 => Ok(()),
        _ => Err("broken".to_owned()),
    });
    (engine.contexts, engine.timeout) = (2, TIMEOUT);
    let pipeline = world.start(engine, &[("a", CLIP), ("b", CLIP)]);
    let (mut a, mut b) = (world.camera("a", CLIP, 64, 36), world.camera("b", CLIP, 128, 72));
    a.send();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    a.send();
    (0..10).for_each(|_| b.send());
    assert!(pipeline.ends_within(Duration::from_secs(10)), "it waits for the thread that hangs");
    let (ended, last) = pipeline.stop();
    assert!(matches!(ended, Ok(End::Hung(_))), "{ended:?}");
    let mut count = [0, 0];
    last.iter().for_each(|got| count[usize::from(got.camera == "b")] += 1);
    assert_eq!(count, [1, 10], "{last:?}");
    trap.open();
}

#[test]
fn a_process_that_must_end_does_not_wait_for_an_engine_that_hangs() {
    let world = World::new(Limits::default());
    let (trap, entered) = (Trap::default(), Arc::new(AtomicBool::new(false)));
    let (caught, seen) = (trap.clone(), entered.clone());
    let mut engine = Played::new(move |_, _, _| {
        seen.store(true, Ordering::Relaxed);
        caught.hang();
        Ok(())
    });
    engine.timeout = TIMEOUT / 3;
    let pipeline = world.start(engine, &[("a", LIVE)]);
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    until(|| entered.load(Ordering::Relaxed));
    let refused = Failure::message(Kind::Changed, "[model] changed");
    pipeline.change.send(Err(refused)).expect("it runs");
    assert!(pipeline.ends_within(Duration::from_secs(10)));
    // In order it could end only when the thread does.
    let (ended, last) = pipeline.stop();
    assert!(matches!(ended, Ok(End::Hung(_))), "{ended:?}");
    assert_eq!(last.len(), 1, "{last:?}");
    trap.open();
}

#[test]
fn a_first_batch_that_takes_long_is_told_of() {
    let world = World::new(Limits::default());
    let trap = Trap::default();
    let caught = trap.clone();
    let pipeline = world.start(
        Played::new(move |_, _, _| {
            caught.hang();
            Ok(())
        }),
        &[("a", LIVE)],
    );
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    until(|| pipeline.process.state() == State::Stalled);
    trap.open();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    until(|| pipeline.process.state() == State::Live);
    pipeline.stop().0.expect("stops well");
}

#[test]
fn a_camera_whose_frames_fail_is_not_live_beside_one_whose_do_not() {
    let world = World::new(Limits::default());
    let broken = Arc::new(AtomicBool::new(true));
    let fails = broken.clone();
    let pipeline = world.start(
        Played::new(move |_, _, batch| match batch[0].view.width() {
            128 if fails.load(Ordering::Relaxed) => Err("broken".to_owned()),
            _ => Ok(()),
        }),
        &[("good", LIVE), ("bad", LIVE)],
    );
    let mut good = world.camera("good", LIVE, 64, 36);
    let mut bad = world.camera("bad", LIVE, 128, 72);
    let state = |camera: usize| pipeline.vitals[camera].state();
    for sequence in 0..5 {
        bad.send();
        assert_eq!(pipeline.next().to_string(), format!("bad{sequence} failed engine"));
        good.send();
        assert_eq!(pipeline.next().to_string(), format!("good{sequence} ok"));
        assert_eq!((state(0), state(1)), (State::Live, State::Degraded));
    }
    broken.store(false, Ordering::Relaxed);
    bad.send();
    assert_eq!(pipeline.next().to_string(), "bad5 ok");
    assert_eq!(state(1), State::Live);
    pipeline.stop().0.expect("stops well");
}

#[test]
fn a_panic_in_the_engine_fails_its_batch() {
    let world = World::new(Limits::default());
    let engine = Played::new(|_, _, batch| {
        assert!(number(&batch[0]) == 0, "a bug in a backend");
        Ok(())
    });
    let pipeline = world.start(engine, &[("a", LIVE)]);
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    a.send();
    until(|| pipeline.vitals[0].get(Counter::Taken) == 2);
    // What the process's panic hook does.
    let (ended, last) = pipeline.stop();
    assert_eq!(ended.expect_err("a bug").kind, Kind::Bug);
    let texts: Vec<String> = last.iter().map(ToString::to_string).collect();
    assert!(texts == ["a1 failed engine"] || texts == ["a1 dropped stopping"], "{texts:?}");
}

#[test]
fn frames_of_a_process_that_died_are_failed_by_the_next_one() {
    let world = World::new(Limits::default());
    let folder = {
        let (instance, root) = world.name();
        // Joining makes the folder.
        drop(world.bus("first"));
        root.join(instance)
    };
    let open = Ledger::open(&folder).expect("a ledger").0;
    open.loaded("openvino", "yolo");
    for (camera, sequence) in [("a", 7), ("a", 8), ("gone", 3)] {
        let camera = text::pack(camera);
        let header = FrameHeader { camera, epoch_ns: 1, sequence, ..FrameHeader::default() };
        open.enter(&header, 100 + sequence);
    }
    // As the kernel does for a killed process: the file is closed and keeps its records.
    drop(open);
    let pipeline = world.start(Played::new(|_, _, _| Ok(())), &[("a", LIVE)]);
    for want in ["gone3 failed engine", "a7 failed engine", "a8 failed engine"] {
        let got = pipeline.next();
        assert_eq!(got.to_string(), want);
        assert_eq!(got.message, "the inference process ended while it had this frame");
    }
    let vitals = &pipeline.vitals[0];
    until(|| vitals.get(Counter::Orphaned) == 2);
    assert_eq!(vitals.get(Counter::Failed), 2);
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    pipeline.stop().0.expect("stops well");
    // Nothing is left for a third one.
    let pipeline = world.start(Played::new(|_, _, _| Ok(())), &[("a", LIVE)]);
    a.send();
    assert_eq!(pipeline.next().to_string(), "a1 ok");
    pipeline.stop().0.expect("stops well");
}

#[test]
fn cameras_come_and_go_while_another_one_loses_nothing() {
    const FRAMES: u64 = 90;
    let world = World::new(Limits { result_buffer: 1024, max_detections: 1, ..Limits::default() });
    // Every-frame: a live camera may lose one on a busy machine without anybody's fault.
    let sources = vec![source("stays", CLIP), source("goes", CLIP)];
    let keep = sources[0].vitals.clone();
    let pipeline = world.start_with(Played::new(|_, _, _| Ok(())), sources);
    let again = || {
        let mut stays = source("stays", CLIP);
        stays.vitals = keep.clone();
        stays
    };
    let mut stays = world.camera("stays", CLIP, 64, 36);
    let mut goes = world.camera("goes", CLIP, 64, 36);
    goes.send();
    assert_eq!(pipeline.next().to_string(), "goes0 ok");
    let feeder = std::thread::spawn(move || {
        // 30 frames a second.
        let clock = Shutdown::new();
        (0..FRAMES).for_each(|_| {
            stays.send();
            let _ = clock.wait(Duration::from_millis(33));
        });
    });
    let come = source("comes", CLIP);
    let comes = come.vitals.clone();
    pipeline.change.send(Ok(vec![again(), come])).expect("it runs");
    until(|| comes.state() == State::Starting && pipeline.vitals[1].get(Counter::Ok) == 1);
    let mut feeder_of_comes = world.camera("comes", CLIP, 64, 36);
    until(|| feeder_of_comes.has_reader());
    feeder_of_comes.send();
    until(|| comes.get(Counter::Ok) == 1);
    for _ in 0..10 {
        pipeline.change.send(Ok(vec![again()])).expect("it runs");
        pipeline.change.send(Ok(vec![again(), source("other", LIVE)])).expect("it runs");
    }
    feeder.join().expect("all sent");
    until(|| keep.get(Counter::Taken) == FRAMES && pipeline.reconciles(0));
    assert_eq!(keep.get(Counter::Missed), 0);
    assert_eq!(keep.get(Counter::Ok), FRAMES);
    let refused = Failure::message(Kind::Changed, "[model] changed");
    pipeline.change.send(Err(refused)).expect("it runs");
    assert!(pipeline.ends_within(Duration::from_secs(5)));
    assert_eq!(pipeline.stop().0.expect_err("changed").kind, Kind::Changed);
}

#[test]
fn a_frame_in_the_engine_is_answered_when_its_camera_has_gone() {
    let world = World::new(Limits::default());
    let (trap, entered) = (Trap::default(), Arc::new(AtomicBool::new(false)));
    let (caught, seen) = (trap.clone(), entered.clone());
    let engine = Played::new(move |_, _, batch| {
        if number(&batch[0]) == 0 {
            seen.store(true, Ordering::Relaxed);
            caught.hang();
        }
        Ok(())
    });
    let pipeline = world.start(engine, &[("a", LIVE)]);
    let mut a = world.camera("a", LIVE, 64, 36);
    a.send();
    until(|| entered.load(Ordering::Relaxed));
    a.send();
    until(|| pipeline.vitals[0].get(Counter::Taken) == 2);
    pipeline.change.send(Ok(vec![source("b", LIVE)])).expect("it runs");
    assert_eq!(pipeline.next().to_string(), "a1 dropped stopping");
    trap.open();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    until(|| pipeline.reconciles(0));
    pipeline.stop().0.expect("stops well");
}
