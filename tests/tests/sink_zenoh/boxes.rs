//! Two boxes, each with a bus and a sink behind a cable of its own, and a program that hears
//! both.

use crate::listener::{Heard, Listener, Message};
use crate::{TWO, config, end};
use framebus_service::clock;
use framebus_tests::{
    Boxes, HealthWatch, Process, Script, StandIn, World, binary, free_port, wait_until,
};
use framebus_types::{Counter, Health, Role, State, text};
use std::path::Path;

/// A box with a bus of its own and a sink.
struct Site {
    world: World,
    health: HealthWatch,
    stand_in: StandIn,
    sink: Process,
}

impl Site {
    fn start(boxes: &Boxes, number: usize, port: u16, results_per_s: u64) -> Self {
        let world = World::new();
        let config = config(
            &world,
            &TWO,
            &format!(
                "[[sink]]\nname = \"out\"\nkind = \"zenoh\"\nurl = \"tcp://{}:{port}\"\n\
                 deliver = \"results\"\nprefix = \"framebus/box{number}\"\n",
                boxes.here(number)
            ),
        );
        let domain = world.domain();
        let health = HealthWatch::start(&domain);
        let script = Script { events_per_s: 0, results_per_s, ..Script::default() };
        let stand_in = StandIn::start(&domain, script);
        let program = binary("framebus-sink");
        let mut args = boxes.inside(number, &program);
        args.extend(["--sink", "out", "--config", &config]);
        let sink = world.start("out", Path::new("ip"), &args);
        Self { world, health, stand_in, sink }
    }

    fn wait(&self, state: State, word: &str) -> Health {
        self.health.wait(Role::Sink, "out", 40, |record| {
            record.state == u32::from(state) && text::unpack(&record.reason).contains(word)
        })
    }
}

#[test]
fn two_boxes_are_heard_in_one_place_and_a_pulled_cable_loses_nothing() {
    let Some(boxes) = Boxes::start(2) else { return };
    let set = std::env::var("FRAMEBUS_ZENOH_CUT_S").ok().and_then(|text| text.parse().ok());
    let (cut_s, is_long): (u64, bool) = (set.unwrap_or(4), set.is_some());
    let port = free_port();
    let heard = Heard::default();
    let endpoints = [0, 1].map(|number| format!("tcp/{}:{port}", boxes.here(number)));
    let mut listener = Listener::start(&endpoints, &[], &heard);
    listener.subscribe("framebus/*/*/result");
    let per_s = if is_long { 1000 } else { 150 };
    let sites = [0, 1].map(|number| Site::start(&boxes, number, port, per_s));
    for site in &sites {
        site.wait(State::Live, "");
        site.stand_in.resume();
    }
    let passed = |seconds: u64| {
        let begin_ns = clock::monotonic_ns();
        let is_over = || clock::monotonic_ns() > begin_ns + seconds * 1_000_000_000;
        wait_until("some time", seconds + 5, || is_over().then_some(()));
    };
    passed(if is_long { 20 } else { 1 });
    let (calm, calm_ns) = (heard.all(), clock::wall_ns());
    boxes.pull(0);
    sites[0].wait(State::Degraded, "messages wait on disk");
    passed(cut_s);
    boxes.plug(0);
    let plugged_ns = clock::wall_ns();
    sites[0].wait(State::Live, "");
    let back_ns = clock::wall_ns() - plugged_ns;
    let sent = sites.iter().map(|site| {
        site.stand_in.pause();
        site.stand_in.sent().1
    });
    let sent: u64 = sent.sum();
    let repeats = heard.assert_whole(sent, 4);
    for site in &sites {
        let record = site.health.newest(Role::Sink, "out").expect("it reports");
        assert_eq!(record.counter(Counter::Lost), 0);
    }
    // The other box noticed nothing.
    let states = sites[1].health.states(Role::Sink, "out");
    let live = states.iter().skip_while(|(state, _)| *state != State::Live);
    assert!(live.clone().all(|(state, _)| *state == State::Live), "{states:?}");
    if is_long {
        show(&calm, calm_ns, cut_s, back_ns, repeats, sent);
    }
    for Site { world, health, stand_in, sink } in sites {
        end(sink);
        drop((health, stand_in, world));
    }
    listener.end();
}

#[allow(clippy::print_stderr, reason = "figures of the long version")]
fn show(calm: &[Message], calm_ns: u64, cut_s: u64, back_ns: u64, repeats: usize, sent: u64) {
    let newest = calm.iter().filter(|message| message.at_ns + 10_000_000_000 > calm_ns);
    let late = |message: &Message| {
        message.at_ns.saturating_sub(message.payload["wall_ns"].as_u64().expect("a time"))
    };
    let mut late: Vec<u64> = newest.map(late).collect();
    late.sort_unstable();
    let at = |share: usize| late[(late.len() - 1) * share / 100] as f64 / 1e6;
    eprintln!(
        "two boxes: {} results/s, published to subscriber p50 {:.2} ms, p99 {:.2} ms; cable pulled \
         for {cut_s} s: live {} ms after it was plugged in, {sent} results, 0 lost, 0 out of \
         order, {repeats} repeated",
        late.len() / 10,
        at(50),
        at(99),
        back_ns / 1_000_000,
    );
}
