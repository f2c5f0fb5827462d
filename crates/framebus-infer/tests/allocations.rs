//! In steady state a frame costs no allocation on its way through the pipeline.

#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

mod common;

use common::{CLIP, LIVE, Pipeline, Played, WIDE, World, source, until};
use framebus_bus::Limits;
use framebus_infer::{Scenery, Source};
use framebus_types::Counter;
use framebus_vision::{Anchor, Line, TrackSettings, Zone};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Clone, Copy)]
enum Role {
    Other = 0,
    Taker = 1,
    Worker = 2,
}

/// Allocations by the role of the thread that made them.
static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Other) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches an
// atomic and a thread-local cell without a destructor, neither of which allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as this function's own contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as this function's own contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn count() {
    COUNTS[ROLE.get() as usize].fetch_add(1, Relaxed);
}

fn counted() -> (u64, u64) {
    (COUNTS[Role::Taker as usize].load(Relaxed), COUNTS[Role::Worker as usize].load(Relaxed))
}

/// In the left half of the picture a zone, in the right one a line.
fn scenery() -> Scenery {
    let points = vec![[0.0, 0.0], [0.3, 0.0], [0.3, 1.0], [0.0, 1.0]];
    let zone = Zone { points, classes: vec![], dwell_ns: 0, anchor: Anchor::Center };
    let (from, to, anchor) = ([0.9, 0.0], [0.9, 1.0], Anchor::Center);
    let line = Line { from, to, classes: vec![], anchor };
    Scenery {
        tracking: TrackSettings { lost_ns: 60_000_000_000, ..TrackSettings::default() },
        zones: vec![("zone".to_owned(), zone)],
        lines: vec![("line".to_owned(), line)],
    }
}

/// Three objects are followed in every frame, in a zone and over a line. What is left is
/// iceoryx2's own (0.10.0): its wait set collects the descriptors of
/// each wake-up in two vectors, and each loan of a result is behind an `Arc`.
#[test]
fn a_frame_costs_no_allocation_but_those_of_iceoryx2() {
    const ROUNDS: u64 = 300;
    let world = World::new(Limits { in_flight: 2, ..Limits::default() });
    let mut engine = Played::new(|_, _, _| {
        ROLE.set(Role::Worker);
        Ok(())
    });
    (engine.contexts, engine.max_batch) = (2, 4);
    engine.load = Arc::new(|shape| {
        // The base shape is loaded by the thread that becomes the taker.
        if shape == WIDE {
            ROLE.set(Role::Taker);
        }
        Ok(())
    });
    engine.find = Arc::new(|number, found| {
        let x = f32::from(number % 16);
        found.extend([10.0, 20.0, 40.0].map(|left| {
            let bbox = [left + x / 4.0, 4.0, left + 8.0 + x / 4.0, 30.0];
            framebus_vision::Detection { bbox, score: 0.9, class: 0 }
        }));
    });
    let cameras = [("a", LIVE), ("b", LIVE), ("c", CLIP)];
    let sources =
        cameras.map(|(name, policy)| Source { scenery: Some(scenery()), ..source(name, policy) });
    let mut pipeline = world.start_with(engine, sources.into());
    let mut feeders = cameras.map(|(name, policy)| world.camera(name, policy, 64, 36));
    let mut play = |pipeline: &Pipeline, rounds: u64| {
        let before = counted();
        for _ in 0..rounds {
            // One by one: each frame wakes the taker once.
            for feeder in &mut feeders {
                feeder.send();
                drop(pipeline.next());
            }
        }
        until(|| (0..3).all(|camera| pipeline.reconciles(camera)));
        let after = counted();
        (after.0 - before.0, after.1 - before.1)
    };
    // Buffers grow to their size, connections are made.
    play(&pipeline, 100);
    let (taker, worker) = play(&pipeline, ROUNDS);
    let frames = 3 * ROUNDS;
    // Of each camera: three objects appear, one of them enters; then nothing happens.
    assert_eq!(pipeline.next_events(12).len(), 12);
    assert_eq!(worker, frames, "one loan of a result per frame");
    // Half a wake-up more per frame, for those on which there was nothing; one
    // allocation of ours per frame would be 3. Less than 2 where frames came together.
    assert!(taker >= frames && 2 * taker <= 5 * frames, "{taker} for {frames} frames");
    let ok: u64 = pipeline.vitals.iter().map(|vitals| vitals.get(Counter::Ok)).sum();
    assert_eq!(ok, frames + 300);
}
