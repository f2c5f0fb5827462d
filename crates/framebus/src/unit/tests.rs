//! Tests of `unit`, with shell scripts as children.

use super::*;
use framebus_service::Shutdown;
use framebus_types::{Health, text};
use std::time::Duration;

const UP: Up =
    Up { restart_min_ms: 10, restart_max_ms: 10, breaker_s: 60.0, hang_s: 0.0, drain_s: 1.0 };

fn unit(duty: Duty, script: &str) -> Unit {
    Unit::new(duty, "/bin/sh".into(), vec!["-c".into(), script.into()], &UP)
}

fn sink(prints: bool) -> Duty {
    Duty::Sink { name: "a".to_owned(), prints }
}

/// Ticks until `done`, for 20 s at most.
fn tick_until(
    unit: &mut Unit,
    collector: &Collector,
    up: &Up,
    done: impl Fn(&Unit) -> bool,
) -> Result<(), Failure> {
    let (screen, on_line) = (Screen::new(true), Arc::new(|_: &str, _: &str| {}) as OnLine);
    for _ in 0..4000 {
        let now_ns = clock::monotonic_ns();
        let around =
            Around { collector, screen: &screen, on_line: &on_line, up, now_ns, awake_ns: 0 };
        unit.tick(&around)?;
        if done(unit) {
            return Ok(());
        }
        let _ = Shutdown::new().wait(Duration::from_millis(5));
    }
    panic!("{}: not within 20 s; it was said: {:?}", unit.name, said(unit));
}

fn said(unit: &Unit) -> (State, String) {
    let record = unit.vitals.snapshot();
    let state = State::try_from(record.state).expect("known");
    (state, text::unpack(&record.reason).to_owned())
}

fn live(role: Role, name: &str, pid: u32) -> Health {
    Health {
        role: role.into(),
        name: text::pack(name),
        pid,
        state: State::Live.into(),
        updated_ns: clock::monotonic_ns(),
        ..Health::default()
    }
}

fn pid(unit: &Unit) -> u32 {
    unit.vitals.snapshot().pid
}

#[test]
fn only_a_sink_that_prints_and_ends_well_says_that_its_reader_has_gone() {
    let over = |prints, script| {
        let mut unit = unit(sink(prints), script);
        let done = |unit: &Unit| unit.failures > 0 || matches!(unit.phase, Phase::Ended);
        tick_until(&mut unit, &Collector::default(), &UP, done).expect("goes on");
        matches!(unit.phase, Phase::Ended)
    };
    assert!(over(true, "exit 0"));
    assert!(!over(true, "exit 69"));
    assert!(!over(true, "kill -9 $$"));
    assert!(!over(false, "exit 0"));
}

#[test]
fn what_fails_eight_times_in_a_row_is_left_alone_for_longer() {
    let mut unit = unit(sink(false), "echo 'ERROR sink: no room' >&2; exit 69");
    let broken = |unit: &Unit| unit.failures == BREAKER_FAILURES;
    tick_until(&mut unit, &Collector::default(), &UP, broken).expect("goes on");
    let (state, reason) = said(&unit);
    assert_eq!(state, State::Offline);
    assert!(
        reason.starts_with("no room; failed 8 times in ") && reason.ends_with(" s"),
        "{reason}"
    );
    assert!(reason.contains("next try in 60 s"), "{reason}");
    assert_eq!(unit.vitals.get(Counter::Restarts), 8);
    // A changed configuration is a reason to try at once.
    unit.renew(&UP);
    let started = |unit: &Unit| matches!(unit.phase, Phase::Running(_));
    tick_until(&mut unit, &Collector::default(), &UP, started).expect("goes on");
}

#[test]
fn a_wrong_configuration_is_not_tried_again_and_ends_all_only_at_the_very_start() {
    let failed = |unit: &Unit| matches!(unit.phase, Phase::Failed(Kind::Config));
    let mut infer = unit(Duty::Infer, "echo 'ERROR infer: no such file' >&2; exit 78");
    let fatal = tick_until(&mut infer, &Collector::default(), &UP, |_| false);
    assert_eq!(fatal.expect_err("nothing can go on").to_string(), "no such file");
    infer.renew(&UP);
    tick_until(&mut infer, &Collector::default(), &UP, failed).expect("cameras go on");
    assert_eq!(said(&infer), (State::Offline, "no such file".to_owned()));
    let mut sink = unit(sink(false), "exit 64");
    let failed = |unit: &Unit| matches!(unit.phase, Phase::Failed(Kind::Usage));
    tick_until(&mut sink, &Collector::default(), &UP, failed).expect("the others go on");
}

#[test]
fn a_second_reload_does_not_abort_a_child_that_finishes() {
    let script = "trap 'n=$((n+1)); sleep 0.5; exit $((70+n))' TERM; echo ready >&2; \
                  while :; do sleep 0.02; done";
    let (screen, up) = (Screen::new(true), Up { drain_s: 20.0, ..UP });
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heard = ready.clone();
    let on_line: OnLine =
        Arc::new(move |_, _| heard.store(true, std::sync::atomic::Ordering::Relaxed));
    let collector = Collector::default();
    let mut unit = unit(sink(false), script);
    let tick = |unit: &mut Unit| {
        let now_ns = clock::monotonic_ns();
        let (collector, screen, on_line) = (&collector, &screen, &on_line);
        let around = Around { collector, screen, on_line, up: &up, now_ns, awake_ns: 0 };
        unit.tick(&around).expect("goes on");
    };
    tick(&mut unit);
    while !ready.load(std::sync::atomic::Ordering::Relaxed) {
        let _ = Shutdown::new().wait(Duration::from_millis(5));
    }
    unit.hung = Some("hung: silent".to_owned());
    unit.renew(&up);
    let Phase::Leaving { until_ns, .. } = unit.phase else { panic!("it runs no more") };
    unit.retire(&up);
    assert!(matches!(unit.phase, Phase::Leaving { again: false, .. }));
    unit.renew(&up);
    let Phase::Leaving { child, until_ns: after_ns, again: true } = &mut unit.phase else {
        panic!("it is wanted again")
    };
    assert_eq!(*after_ns, until_ns, "the time to finish begins once");
    let (exit, killed) = child.finish(Duration::from_secs(20), || {});
    assert_eq!((exit.code(), killed), (Some(71), false), "asked once");
    tick(&mut unit);
    tick(&mut unit);
    assert!(matches!(unit.phase, Phase::Running(_)) && unit.hung.is_none(), "watched anew");
}

#[test]
fn a_changed_configuration_is_no_failure() {
    let mut unit = unit(sink(false), "sleep 0.5; exit 75");
    let mut collector = Collector::default();
    let running = |unit: &Unit| matches!(unit.phase, Phase::Running(_));
    tick_until(&mut unit, &collector, &UP, running).expect("goes on");
    collector.add(&live(Role::Sink, "a", pid(&unit)));
    let again = |unit: &Unit| unit.starts == 2;
    tick_until(&mut unit, &collector, &UP, again).expect("goes on");
    assert_eq!((unit.failures, unit.vitals.get(Counter::Restarts)), (0, 0));
}

#[test]
fn who_is_silent_or_does_nothing_is_killed() {
    let up = Up { hang_s: 0.3, restart_min_ms: 60_000, restart_max_ms: 60_000, ..UP };
    for (idle, words) in [(false, "hung: silent for"), (true, "hung: no progress for")] {
        let mut unit = unit(sink(false), "exec sleep 60");
        let mut collector = Collector::default();
        let running = |unit: &Unit| matches!(unit.phase, Phase::Running(_));
        tick_until(&mut unit, &collector, &up, running).expect("goes on");
        let mut record = live(Role::Sink, "a", pid(&unit));
        if idle {
            record.progress_ns = record.updated_ns;
            record.updated_ns += 60 * SECOND_NS;
        }
        collector.add(&record);
        tick_until(&mut unit, &collector, &up, |unit| unit.failures > 0).expect("goes on");
        let (state, reason) = said(&unit);
        assert!(state == State::Offline && reason.starts_with(words), "{reason}");
    }
}

#[test]
fn a_supervisor_that_slept_blames_nobody() {
    let up = Up { hang_s: 1.0, ..UP };
    let (screen, on_line) = (Screen::new(true), Arc::new(|_: &str, _: &str| {}) as OnLine);
    let collector = Collector::default();
    let hung = |now_ns, awake_ns| {
        let around = Around {
            collector: &collector,
            screen: &screen,
            on_line: &on_line,
            up: &up,
            now_ns,
            awake_ns,
        };
        hangs(None, SECOND_NS, &around)
    };
    assert!(hung(100 * SECOND_NS, 0).is_some());
    assert!(hung(100 * SECOND_NS, 100 * SECOND_NS).is_none());
}

#[test]
fn a_capture_that_only_stops_is_started_again_and_one_at_its_end_is_not() {
    let duty = || Duty::Capture { camera: "a".to_owned(), from_file: true };
    let mut unit_ = unit(duty(), "exit 0");
    let again = |unit: &Unit| unit.failures > 0;
    tick_until(&mut unit_, &Collector::default(), &UP, again).expect("goes on");
    assert!(said(&unit_).1.starts_with("stopped, and not by framebus up"));

    let mut unit = unit(duty(), "sleep 0.2; exit 0");
    let mut collector = Collector::default();
    let running = |unit: &Unit| matches!(unit.phase, Phase::Running(_));
    tick_until(&mut unit, &collector, &UP, running).expect("goes on");
    let ended = Health { state: State::Ended.into(), ..live(Role::Capture, "a", pid(&unit)) };
    collector.add(&ended);
    let over = |unit: &Unit| matches!(unit.phase, Phase::Ended);
    tick_until(&mut unit, &collector, &UP, over).expect("goes on");
}

#[test]
fn reasons_leave_room_for_what_becomes_of_it() {
    assert_eq!(clipped("a\nb"), "a");
    assert_eq!(clipped(&"é".repeat(100)).len(), REASON_MAX);
    assert_eq!(clipped(""), "");
}
