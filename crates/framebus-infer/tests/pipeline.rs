//! The pipeline over the real bus, with engines that the test plays.

mod common;

use common::{CLIP, LIVE, PATIENCE, Played, WIDE, World, number, said, source, until};
use framebus_bus::Limits;
use framebus_engine::Shape;
use framebus_infer::End;
use framebus_infer::scheduler::Policy;
use framebus_service::{Shutdown, clock};
use framebus_types::{Counter, FLAG_MOTION, FLAG_MOTION_MEASURED, Outcome, Reason, State};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A door that the test opens; what stands before it waits.
fn door() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (open, wait) = channel();
    (open, Mutex::new(wait))
}

fn pass(door: &Mutex<Receiver<()>>) {
    let _ = door.lock().expect("lock").recv_timeout(PATIENCE);
}

#[test]
fn a_clip_uses_every_worker_and_its_answers_keep_their_order() {
    const FRAMES: u64 = 400;
    let world = World::new(Limits { in_flight: 4, offline: true, ..Limits::default() });
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (running.clone(), most.clone());
    let engine = Played::new(move |_, _, batch| {
        peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Every fifth takes far longer than its successors.
        let memory = batch[0].memory.expect("the segment that the frame lies in");
        assert!(memory.publisher != 0 && memory.segment == 1, "{memory:?}");
        let slow = number(&batch[0]).is_multiple_of(5);
        let _ = Shutdown::new().wait(Duration::from_micros(if slow { 4000 } else { 300 }));
        now.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    });
    let pipeline = world.start(Played { contexts: 4, ..engine }, &[("a", CLIP)]);
    let mut clip = world.camera("a", CLIP, 64, 36);
    let feeder = std::thread::spawn(move || (0..FRAMES).for_each(|_| clip.send()));
    let mut contexts = [0; 4];
    for sequence in 0..FRAMES {
        let got = pipeline.next();
        assert_eq!((got.sequence, got.outcome), (sequence, Outcome::Ok));
        contexts[got.context as usize] += 1;
        let request = said(sequence as u8).request;
        let expected = framebus_types::ServerTimes {
            request,
            serialise_us: 1,
            receive_us: 2,
            queue_us: 3,
            compute_input_us: 4,
            compute_us: 5,
            compute_output_us: 6,
            sent_bytes: 7,
            received_bytes: 8,
        };
        assert_eq!(got.server, expected);
    }
    feeder.join().expect("all sent");
    assert_eq!(most.load(Ordering::Relaxed), 4, "all workers at once");
    assert!(contexts.iter().all(|&frames| frames > 0), "{contexts:?}");
    until(|| pipeline.reconciles(0));
    pipeline.stop().0.expect("stops well");
}

#[test]
fn a_new_shape_is_prepared_while_others_go_on() {
    let world = World::new(Limits::default());
    let (open, closed) = door();
    let mut engine = Played::new(|_, shape, batch| {
        let view = batch[0].view;
        let wanted = if view.width() > view.height() { WIDE } else { portrait() };
        if shape == wanted { Ok(()) } else { Err(format!("{shape} for {view:?}")) }
    });
    engine.load = Arc::new(move |shape| {
        if shape != WIDE {
            pass(&closed);
        }
        Ok(())
    });
    let pipeline = world.start(engine, &[("wide", LIVE), ("tall", LIVE), ("clip", CLIP)]);
    let mut wide = world.camera("wide", LIVE, 64, 36);
    let mut tall = world.camera("tall", LIVE, 36, 64);
    let mut clip = world.camera("clip", CLIP, 36, 64);
    tall.send();
    until(|| pipeline.vitals[1].get(Counter::Taken) == 1);
    assert_eq!(pipeline.vitals[1].state(), State::Starting);
    let reason = framebus_types::text::unpack(&pipeline.vitals[1].snapshot().reason).to_owned();
    assert_eq!(reason, "preparing the model for 640x384");
    clip.send();
    until(|| pipeline.vitals[2].get(Counter::Taken) == 1);
    for sequence in 0..20 {
        wide.send();
        assert_eq!(pipeline.next().to_string(), format!("wide{sequence} ok"));
    }
    tall.send();
    assert_eq!(pipeline.next().to_string(), "tall0 dropped superseded");
    open.send(()).expect("the loader waits");
    let mut two = pipeline.texts(2);
    two.sort();
    assert_eq!(two, ["clip0 ok", "tall1 ok"]);
    tall.send();
    assert_eq!(pipeline.next().to_string(), "tall2 ok");
    assert_eq!(pipeline.vitals[1].state(), State::Live);
    let detail = framebus_types::text::unpack(&pipeline.process.snapshot().detail).to_owned();
    assert_eq!(detail, "played, throughput, 1 context, f32, 384x640 640x384, played 0 on none");
    until(|| (0..3).all(|camera| pipeline.reconciles(camera)));
}

fn portrait() -> Shape {
    Shape { height: 640, width: 384 }
}

#[test]
fn a_shape_that_cannot_be_loaded_fails_its_frames_and_nobody_elses() {
    let world = World::new(Limits::default());
    let mut engine = Played::new(|_, _, _| Ok(()));
    engine.load = Arc::new(|shape| match shape == WIDE {
        true => Ok(()),
        false => Err("no memory".to_owned()),
    });
    let pipeline = world.start(engine, &[("wide", LIVE), ("tall", LIVE)]);
    let mut wide = world.camera("wide", LIVE, 64, 36);
    let mut tall = world.camera("tall", LIVE, 36, 64);
    for sequence in 0..3 {
        tall.send();
        let got = pipeline.next();
        assert_eq!((got.outcome, got.reason), (Outcome::Failed, Reason::Engine));
        let why = "no model for 640x384: played failed in loading: no memory";
        assert_eq!((got.sequence, got.message.as_str()), (sequence, why));
        wide.send();
        assert_eq!(pipeline.next().to_string(), format!("wide{sequence} ok"));
    }
    assert_eq!(pipeline.vitals[1].state(), State::Degraded);
    assert_eq!(pipeline.vitals[0].state(), State::Live);
    assert_eq!(pipeline.vitals[1].get(Counter::Failed), 3);
}

#[test]
fn a_batch_is_what_waits_of_one_shape() {
    let world = World::new(Limits::default());
    let (open, closed) = door();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let record = calls.clone();
    let mut engine = Played::new(move |_, shape, batch| {
        let widths: Vec<usize> = batch.iter().map(|request| request.view.width()).collect();
        record.lock().expect("lock").push((shape, widths));
        pass(&closed);
        Ok(())
    });
    engine.max_batch = 8;
    let names = ["a", "b", "c", "d", "e"];
    let cameras = names.map(|name| (name, LIVE));
    let pipeline = world.start(engine, &cameras);
    let feeder = |(index, name)| match index % 2 {
        0 => world.camera(name, LIVE, 64, 36),
        _ => world.camera(name, LIVE, 36, 64),
    };
    let mut feeders: Vec<_> = names.into_iter().enumerate().map(feeder).collect();
    // Both shapes are there before the part that is measured.
    for feeder in &mut feeders[..2] {
        open.send(()).expect("the worker waits");
        feeder.send();
        pipeline.next();
    }
    feeders[0].send();
    until(|| calls.lock().expect("lock").len() == 3);
    for feeder in &mut feeders[1..] {
        feeder.send();
    }
    let taken = || pipeline.vitals.iter().map(|vitals| vitals.get(Counter::Taken));
    until(|| taken().eq([2, 2, 1, 1, 1]));
    (0..3).for_each(|_| open.send(()).expect("the worker waits"));
    let texts = pipeline.texts(5);
    assert!(texts.iter().all(|text| text.ends_with(" ok")), "{texts:?}");
    let calls = calls.lock().expect("lock");
    let mut last: Vec<_> = calls[3..].to_vec();
    last.sort_by_key(|(shape, _)| shape.height);
    assert_eq!(last, [(WIDE, vec![64, 64]), (portrait(), vec![36, 36])]);
}

#[test]
fn a_frame_that_would_be_answered_too_late_is_dropped_before_inference() {
    let world = World::new(Limits::default());
    let engine = Played::new(|_, _, _| {
        let _ = Shutdown::new().wait(Duration::from_millis(40));
        Ok(())
    });
    let aged = Policy { max_age_ns: 60_000_000_000, ..LIVE };
    let pipeline = world.start(engine, &[("a", aged)]);
    let mut camera = world.camera("a", aged, 64, 36);
    camera.send();
    assert_eq!(pipeline.next().to_string(), "a0 ok");
    // Too old already; then fresh enough now but not after 40 ms more.
    for age_ns in [aged.max_age_ns + 1, aged.max_age_ns - 20_000_000] {
        camera.send_with(|header| header.capture_ns = clock::monotonic_ns() - age_ns);
        assert!(pipeline.next().to_string().ends_with(" dropped stale"));
    }
    camera.send();
    assert_eq!(pipeline.next().to_string(), "a3 ok");
    assert_eq!(pipeline.vitals[0].get(Counter::Stale), 2);
}

#[test]
fn still_frames_are_skipped_but_for_the_forced_look() {
    const FORCE_NS: u64 = 1_000_000_000;
    let world = World::new(Limits::default());
    let engine = Played::new(|_, _, _| Ok(()));
    let mut gated = source("gated", CLIP);
    gated.motion_force_ns = Some(FORCE_NS);
    let pipeline = world.start_with(engine, vec![gated, source("open", CLIP)]);
    let mut gated = world.camera("gated", CLIP, 64, 36);
    let mut open = world.camera("open", CLIP, 64, 36);
    let still = FLAG_MOTION_MEASURED;
    let moved = FLAG_MOTION_MEASURED | FLAG_MOTION;
    let begin = clock::monotonic_ns() - 10 * FORCE_NS;
    for (flags, at_ns, want) in [
        (still, 0, "gated0 ok"),
        (still, FORCE_NS / 2, "gated1 skipped motion"),
        (moved, FORCE_NS / 2 + 1, "gated2 ok"),
        (still, FORCE_NS, "gated3 skipped motion"),
        // Not measured: nobody knows that nothing moved.
        (0, FORCE_NS + 1, "gated4 ok"),
        (still, 2 * FORCE_NS, "gated5 skipped motion"),
        (still, 2 * FORCE_NS + 1, "gated6 ok"),
        // Times that lie do not shut the gate for good.
        (moved, 1 << 62, "gated7 ok"),
        (still, 2 * FORCE_NS + 2, "gated8 ok"),
        (still, 2 * FORCE_NS + 3, "gated9 skipped motion"),
    ] {
        gated.send_with(|header| {
            (header.flags, header.capture_ns) = (flags, begin + at_ns);
        });
        assert_eq!(pipeline.next().to_string(), want);
    }
    for sequence in 0..2 {
        open.send_with(|header| header.flags = still);
        assert_eq!(pipeline.next().to_string(), format!("open{sequence} ok"));
    }
    // The last of all numbers, and one after it.
    for sequence in [u64::MAX, 3] {
        open.send_with(|header| header.sequence = sequence);
        assert_eq!(pipeline.next().to_string(), format!("open{sequence} ok"));
    }
    assert_eq!(pipeline.vitals[0].get(Counter::Skipped), 4);
    until(|| pipeline.reconciles(0));
}

#[test]
fn whatever_happens_every_frame_has_one_result() {
    // Room for all results, and small ones: memory is taken for each reader.
    let world = World::new(Limits { result_buffer: 4096, max_detections: 1, ..Limits::default() });
    let calls = AtomicUsize::new(0);
    let (open, closed) = door();
    let shut = Arc::new(AtomicBool::new(false));
    let standing = Arc::new(AtomicUsize::new(0));
    let (stuck, stand) = (shut.clone(), standing.clone());
    let mut engine = Played::new(move |_, _, _| {
        if stuck.load(Ordering::Relaxed) {
            stand.fetch_add(1, Ordering::Relaxed);
            pass(&closed);
        }
        match calls.fetch_add(1, Ordering::Relaxed) % 3 {
            2 => Err("scripted".to_owned()),
            _ => Ok(()),
        }
    });
    engine.contexts = 2;
    let aged = Policy { max_age_ns: 10_000_000_000, ..LIVE };
    let pipeline = world.start(engine, &[("a", aged), ("b", LIVE)]);
    let mut a = world.camera("a", aged, 64, 36);
    let mut b = world.camera("b", LIVE, 36, 64);
    let mut sent = 0;
    let mut got = Vec::new();
    for frame in 0..300 {
        let age_ns = if frame % 7 == 0 { 20_000_000_000 } else { 0 };
        a.send_with(|header| header.capture_ns -= age_ns);
        b.send();
        sent += 2;
        // Now and then the other side keeps up.
        if frame % 3 == 0 {
            let _ = Shutdown::new().wait(Duration::from_millis(1));
        }
        got.extend(std::iter::from_fn(|| pipeline.poll()));
    }
    until(|| (0..2).all(|camera| pipeline.reconciles(camera)));
    got.extend(std::iter::from_fn(|| pipeline.poll()));
    // Both workers are held up, and one frame of each camera waits.
    shut.store(true, Ordering::Relaxed);
    let taken = || pipeline.vitals.iter().map(|v| v.get(Counter::Taken)).sum::<u64>();
    let before = taken();
    for round in 1..=2 {
        [&mut a, &mut b].into_iter().for_each(|feeder| feeder.send());
        until(|| taken() == before + 2 * round && standing.load(Ordering::Relaxed) == 2);
    }
    sent += 4;
    let (vitals, process) = (pipeline.vitals.clone(), pipeline.process.clone());
    pipeline.shutdown.request();
    for _ in 0..2 {
        got.push(pipeline.next());
        assert_eq!(got.last().map(|got| got.reason), Some(Reason::Stopping));
    }
    (0..2).for_each(|_| open.send(()).expect("the workers wait"));
    let (ended, last) = pipeline.stop();
    ended.expect("stops well");
    got.extend(last);
    let get = |counter| vitals.iter().map(|v| v.get(counter)).sum::<u64>();
    let results = [Counter::Ok, Counter::Superseded, Counter::Stale, Counter::Failed];
    let answered: u64 = results.into_iter().map(get).sum();
    assert_eq!(get(Counter::Taken), answered);
    assert_eq!(got.len() as u64, answered);
    assert!(get(Counter::Taken) + get(Counter::Missed) <= sent);
    for counter in [Counter::Ok, Counter::Stale, Counter::Failed] {
        assert!(get(counter) > 0, "{counter:?}");
    }
    assert_eq!(get(Counter::Errors), 0, "no frame was refused by the bus");
    assert!(process.get(Counter::Errors) > 0);
    for camera in ["a", "b"] {
        let ok = got.iter().filter(|got| got.camera == camera && got.outcome == Outcome::Ok);
        let sequences: Vec<u64> = ok.map(|got| got.sequence).collect();
        assert!(sequences.is_sorted(), "{camera}: {sequences:?}");
    }
}

#[test]
fn an_engine_that_keeps_failing_ends_the_process() {
    let world = World::new(Limits::default());
    let engine = Played::new(|_, _, _| Err("broken".to_owned()));
    let pipeline = world.start(engine, &[("a", CLIP)]);
    let mut camera = world.camera("a", CLIP, 64, 36);
    // Ten of them at the latest; fewer where they take half a second.
    let mut failed = 0;
    while failed < 10 && !pipeline.shutdown.requested() {
        camera.send();
        let got = pipeline.next();
        if got.reason != Reason::Stopping {
            assert_eq!(got.outcome, Outcome::Failed);
            assert_eq!(got.message, "played failed in inference: broken");
            failed += 1;
        }
    }
    assert!(failed >= 3);
    let (ended, _) = pipeline.stop();
    let words = "played failed in inference: broken".to_owned();
    assert_eq!(ended.expect("no failure of its own"), End::Failing(words));
}

#[test]
fn a_batch_that_goes_well_does_not_take_the_end_back() {
    let world = World::new(Limits::default());
    let (open, closed) = door();
    let standing = Arc::new(AtomicBool::new(false));
    let stand = standing.clone();
    let mut engine = Played::new(move |_, _, batch| {
        if batch[0].view.width() == 64 {
            return Err("broken".to_owned());
        }
        stand.store(true, Ordering::Relaxed);
        pass(&closed);
        Ok(())
    });
    engine.contexts = 2;
    let pipeline = world.start(engine, &[("slow", CLIP), ("broken", CLIP)]);
    let mut slow = world.camera("slow", CLIP, 128, 72);
    let mut broken = world.camera("broken", CLIP, 64, 36);
    slow.send();
    until(|| standing.load(Ordering::Relaxed));
    while !pipeline.shutdown.requested() {
        broken.send();
        let got = pipeline.next();
        assert!(got.outcome == Outcome::Failed || got.reason == Reason::Stopping, "{got}");
    }
    open.send(()).expect("a worker waits");
    assert_eq!(pipeline.next().to_string(), "slow0 ok");
    let (ended, _) = pipeline.stop();
    assert!(matches!(ended.expect("no failure of its own"), End::Failing(_)));
}

#[test]
fn a_process_that_stops_prepares_no_further_shapes() {
    let world = World::new(Limits::default());
    let (open, closed) = door();
    let shapes = Arc::new(Mutex::new(Vec::new()));
    let record = shapes.clone();
    let mut engine = Played::new(|_, _, _| Ok(()));
    engine.load = Arc::new(move |shape| {
        record.lock().expect("lock").push(shape);
        if shape != WIDE {
            pass(&closed);
        }
        Ok(())
    });
    let pipeline = world.start(engine, &[("tall", LIVE), ("square", LIVE)]);
    let mut tall = world.camera("tall", LIVE, 36, 64);
    let mut square = world.camera("square", LIVE, 64, 64);
    tall.send();
    until(|| shapes.lock().expect("lock").len() == 2);
    square.send();
    until(|| pipeline.vitals[1].get(Counter::Taken) == 1);
    pipeline.shutdown.request();
    let mut two = pipeline.texts(2);
    two.sort();
    assert_eq!(two, ["square0 dropped stopping", "tall0 dropped stopping"]);
    open.send(()).expect("the loader waits");
    drop(open);
    pipeline.stop().0.expect("stops well");
    assert_eq!(*shapes.lock().expect("lock"), [WIDE, portrait()]);
}
