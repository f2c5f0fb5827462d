//! `framebus status`: how is everything, now?

use crate::instance::{Attached, Where, applied_copy, describe, is_supervised};
use crate::latency::{self, Latency};
use crate::screen::Screen;
use crate::stats::{Collector, Track};
use crate::table::{Column, figure, fitted};
use crate::{out, report};
use framebus_bus::{BusError, Domain, HealthSubscriber};
use framebus_config::Config;
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_types::{COUNTERS, Counter, Health, Role, Stage, State, text};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Two reports of every process, which come once a second: rates need both.
const COLLECT_NS: u64 = 2_300_000_000;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Show the state of every camera and process of a running instance
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes a little over two seconds: rates need two reports of every process. On a
terminal, columns that do not fit are left out, the least important first.

With --json, one object; a key keeps its name and meaning:
  instance, healthy, engine {state, detail, width, height},
  cameras [{name, state, reason, width, height, fps_in, fps_out, age_ms,
            stages_ms, drops}],
  processes [{role, name, pid, state, reason, detail, started_wall_ns, counters}]
age_ms is from the decoder to the published result; stages_ms has capture, wake,
queue, preprocess, inference, decode, publish and total (the age again). Each is
{p50, p90, p99, max} in ms: quantiles of the last seconds, the longest since the
process started. drops counts frames by cause since their process started; see
`framebus top --help`. A figure that is not known yet is null.

A camera's state is the worse one of what capture and inference say of it. Changes
show within five seconds of their cause.

Exit codes: 0 everything is live, has ended or is disabled, 1 something is not
well, 69 nothing runs.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Where,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "stages")]
    json: bool,
    /// Show how long each stage of each camera takes: p50, p90, p99 of the last
    /// seconds and the longest since the process started, in ms.
    #[arg(long)]
    stages: bool,
}

/// Counters by name, in the order of their numbers.
const COUNTER_NAMES: [(Counter, &str); 28] = [
    (Counter::Captured, "captured"),
    (Counter::Published, "published"),
    (Counter::ZeroCopy, "zero_copy"),
    (Counter::Copied, "copied"),
    (Counter::LostRate, "lost_rate"),
    (Counter::LostMemory, "lost_memory"),
    (Counter::LostBad, "lost_bad"),
    (Counter::Reconnects, "reconnects"),
    (Counter::Taken, "taken"),
    (Counter::Missed, "missed"),
    (Counter::Ok, "ok"),
    (Counter::Skipped, "skipped"),
    (Counter::Superseded, "superseded"),
    (Counter::Stale, "stale"),
    (Counter::Failed, "failed"),
    (Counter::Detections, "detections"),
    (Counter::Received, "received"),
    (Counter::Lost, "lost"),
    (Counter::Written, "written"),
    (Counter::WrittenBytes, "written_bytes"),
    (Counter::Errors, "errors"),
    (Counter::BadHeaders, "bad_headers"),
    (Counter::Restarts, "restarts"),
    (Counter::Undecoded, "undecoded"),
    (Counter::Suspect, "suspect"),
    (Counter::Orphaned, "orphaned"),
    (Counter::Events, "events"),
    (Counter::Batches, "batches"),
];

const _: () = assert!(COUNTER_NAMES.len() <= COUNTERS);

/// Joins the health service of a running instance.
pub(crate) fn join(attached: &Attached) -> Result<Option<HealthSubscriber>, Failure> {
    match attached.bus.join_health() {
        Ok(health) => Ok(Some(health)),
        Err(BusError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there.
pub(crate) fn receive(
    health: &HealthSubscriber,
    records: &mut Vec<Health>,
    collector: &mut Collector,
) -> Result<(), Failure> {
    records.clear();
    health.receive_into(records)?;
    records.iter().for_each(|record| collector.add(record));
    Ok(())
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (domain, config) = args.place.find()?;
    super::init_log(&Screen::new(true));
    let shutdown = Shutdown::on_signals().or_fail(Kind::Bug)?;
    let mut collector = collect(&domain, &shutdown)?;
    if collector.is_empty() {
        if args.json {
            out::line(json!({
                "instance": domain.instance(), "healthy": false, "engine": null,
                "cameras": [], "processes": [],
            }))?;
        }
        return Err(Failure::message(
            Kind::Unavailable,
            format_args!("nothing runs in {}", describe(&domain)),
        ));
    }
    let now_ns = clock::monotonic_ns();
    let config = config.map(|config| applied(config, &domain));
    expect(&mut collector, config.as_ref(), is_supervised(&domain), now_ns);
    let healthy = is_healthy(&collector, now_ns);
    if args.json {
        out::line(to_json(&domain, &collector, healthy, now_ns))?;
    } else {
        let width = Screen::new(false).columns();
        if let Some(engine) = report::engine(&collector, now_ns) {
            out::line(format_args!("{engine}\n"))?;
        }
        let cameras = collector.cameras();
        if !cameras.is_empty() {
            let table = report::cameras(&collector, &cameras, now_ns, false, width);
            out::line(format_args!("{table}\n"))?;
            if args.stages {
                let stages = report::stages(&collector, &cameras, true, width);
                out::line(format_args!("{stages}\n"))?;
            }
        }
        out::line(processes(&collector, now_ns, width))?;
    }
    Ok(ExitCode::from(u8::from(!healthy)))
}

fn collect(domain: &Domain, shutdown: &Shutdown) -> Result<Collector, Failure> {
    let mut collector = Collector::default();
    let Some(attached) = Attached::new(domain, "status")? else { return Ok(collector) };
    let Some(health) = join(&attached)? else { return Ok(collector) };
    let mut records = Vec::new();
    let end_ns = clock::monotonic_ns() + COLLECT_NS;
    while clock::monotonic_ns() < end_ns && !shutdown.wait(LOOK) {
        receive(&health, &mut records, &mut collector)?;
    }
    Ok(collector)
}

/// The configuration that the instance runs from: its copy, where there is one.
fn applied(config: Config, domain: &Domain) -> Config {
    let copy = applied_copy(&config.file, domain);
    framebus_config::load_applied(&config.file, &copy).unwrap_or(config)
}

/// Speaks for those who do not: whoever looks from outside hears nothing of a process
/// that is stopped or was never there, and must not take that for well.
fn expect(collector: &mut Collector, config: Option<&Config>, supervised: bool, now_ns: u64) {
    let record = |role: Role, name: &str, state: State, reason: &str| Health {
        role: role.into(),
        name: text::pack(name),
        state: state.into(),
        reason: text::pack(reason),
        updated_ns: now_ns,
        ..Health::default()
    };
    let mut missing = Vec::new();
    let has_children = collector.tracks().any(|(role, ..)| role == Role::Child);
    if supervised && !has_children {
        let reason = "framebus up is silent: stopped, or it hangs; nobody is started again";
        missing.push(record(Role::Child, "up", State::Offline, reason));
    }
    // The supervisor knows more of its children.
    if let Some(config) = config.filter(|_| !has_children) {
        let reason = "no process reports it: not started, stopped, or it hangs";
        let cameras = config.cameras.iter().map(|c| (Role::Capture, c.name.as_str(), c.enabled));
        let sinks = config.enabled_sinks().map(|s| (Role::Sink, s.name.as_str(), true));
        for (role, name, enabled) in cameras.chain([(Role::Infer, "infer", true)]).chain(sinks) {
            if collector.track(role, name).is_none() {
                let (state, reason) =
                    if enabled { (State::Offline, reason) } else { (State::Disabled, "") };
                missing.push(record(role, name, state, reason));
            }
        }
    }
    missing.iter().for_each(|record| collector.add(record));
}

fn is_healthy(collector: &Collector, now_ns: u64) -> bool {
    collector.tracks().all(|(_, _, track)| {
        matches!(track.state(now_ns).0, State::Live | State::Ended | State::Disabled)
    })
}

/// Every process with its state and what it counted.
pub(crate) fn processes(collector: &Collector, now_ns: u64, width: usize) -> String {
    // Children that are well say it themselves.
    let rows = collector.tracks().filter(|(role, _, track)| match role {
        Role::InferCamera => false,
        Role::Child => {
            track.latest().state != State::Live as u32 || track.total(Counter::Restarts) > 0
        }
        _ => true,
    });
    let rows = rows.map(|(role, name, track)| {
        let (state, reason) = collector.state_of(role, name, track, now_ns);
        let record = track.latest();
        vec![
            role.to_string(),
            name.to_owned(),
            record.pid.to_string(),
            out::plain(text::unpack(&record.detail)),
            counted(role, track),
            report::state_text(state, &reason),
        ]
    });
    let columns = [
        Column::new("process", 0),
        Column::new("name", 0),
        Column::new(">pid", 3),
        Column::new("what", 4).least(12),
        Column::new("counted", 2).least(14),
        Column::new("state", 0).least(8),
    ];
    fitted(&columns, rows.collect(), width)
}

/// The counters that matter for a role.
fn counted(role: Role, track: &Track) -> String {
    let wanted: &[Counter] = match role {
        Role::Capture => &[Counter::Published, Counter::Reconnects, Counter::Errors],
        Role::Sink => &[Counter::Written, Counter::Lost, Counter::Errors],
        Role::Child => &[Counter::Restarts],
        Role::Infer | Role::InferCamera => {
            &[Counter::Taken, Counter::Ok, Counter::Failed, Counter::Errors]
        }
    };
    let count = |counter: &Counter| {
        let value = track.latest().counter(*counter);
        let (_, name) = COUNTER_NAMES.iter().find(|(other, _)| other == counter)?;
        (value > 0).then(|| format!("{name} {value}"))
    };
    let parts: Vec<String> = wanted.iter().filter_map(count).collect();
    if parts.is_empty() { crate::table::NONE.to_owned() } else { parts.join(", ") }
}

/// Microseconds and hundredths of frames per second are all that is known.
fn round(value: Option<f64>) -> Option<f64> {
    value.map(|value| (value * 1000.0).round() / 1000.0)
}

/// `{"p50", "p90", "p99", "max"}` in ms.
fn quantiles(latency: &Latency) -> Value {
    let figures = latency::figures(latency);
    Value::Object(
        figures.map(|(name, ms)| (name.to_owned(), json!(round(ms)))).into_iter().collect(),
    )
}

fn to_json(domain: &Domain, collector: &Collector, healthy: bool, now_ns: u64) -> Value {
    let engine = collector.track(Role::Infer, "infer").map(|track| {
        let record = track.latest();
        json!({
            "state": collector.state_of(Role::Infer, "infer", track, now_ns).0.as_str(),
            "detail": text::unpack(&record.detail),
            "width": record.width,
            "height": record.height,
        })
    });
    let cameras: Vec<Value> = collector
        .cameras()
        .iter()
        .map(|name| {
            let camera = report::Camera::new(collector, name, now_ns);
            let (width, height) =
                camera.capture.map_or((0, 0), |t| (t.latest().width, t.latest().height));
            let stages: Map<String, Value> = Stage::ALL
                .iter()
                .map(|stage| (stage.as_str().to_owned(), quantiles(&camera.latency(*stage))))
                .collect();
            let drops: Map<String, Value> =
                camera.drops().iter().map(|(cause, n)| ((*cause).to_owned(), json!(n))).collect();
            json!({
                "name": name,
                "state": camera.state.as_str(),
                "reason": camera.reason,
                "width": width,
                "height": height,
                "fps_in": round(camera.fps_in()),
                "fps_out": round(camera.fps_out()),
                "age_ms": quantiles(&camera.latency(Stage::Total)),
                "stages_ms": stages,
                "drops": drops,
            })
        })
        .collect();
    let processes: Vec<Value> = collector
        .tracks()
        .map(|(role, name, track)| {
            let (state, reason) = collector.state_of(role, name, track, now_ns);
            let record = track.latest();
            let counters: Map<String, Value> = COUNTER_NAMES
                .iter()
                .filter(|(counter, _)| record.counter(*counter) > 0)
                .map(|(counter, name)| ((*name).to_owned(), json!(record.counter(*counter))))
                .collect();
            json!({
                "role": role.as_str(),
                "name": name,
                "pid": record.pid,
                "state": state.as_str(),
                "reason": reason,
                "detail": text::unpack(&record.detail),
                "started_wall_ns": record.started_wall_ns,
                "counters": counters,
            })
        })
        .collect();
    json!({
        "instance": domain.instance(),
        "healthy": healthy,
        "engine": engine,
        "cameras": cameras,
        "processes": processes,
    })
}

/// `front: 3 processes, 40.1 results/s`: the heading of `top`.
pub(crate) fn heading(domain: &Domain, collector: &Collector) -> String {
    // Not `sum`: that of nothing is -0.
    let rate = collector
        .tracks()
        .filter(|(role, ..)| *role == Role::InferCamera)
        .filter_map(|(.., track)| track.rate(Counter::Ok))
        .fold(0.0, |sum, rate| sum + rate);
    let own = |role| matches!(role, Role::Capture | Role::Infer | Role::Sink);
    let processes = collector.tracks().filter(|(role, ..)| own(*role)).count();
    format!("{}: {processes} processes, {} results/s", domain.instance(), figure(Some(rate)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_bus::Limits;

    fn record(role: Role, name: &str, state: State) -> Health {
        let mut health = Health {
            role: role.into(),
            name: text::pack(name),
            state: state.into(),
            reason: text::pack("no signal"),
            updated_ns: 1,
            ..Health::default()
        };
        health.counters[Counter::Restarts as usize] = 2;
        health
    }

    #[test]
    fn every_counter_has_its_name_at_its_number() {
        for (index, (counter, name)) in COUNTER_NAMES.iter().enumerate() {
            assert_eq!(*counter as usize, index, "{name}");
        }
    }

    #[test]
    fn who_does_not_speak_is_spoken_for() {
        let text = "[model]\npath = \"x\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n\
                    [[camera]]\nname = \"off\"\nenabled = false\nsource = \"test:red\"\n";
        let config = framebus_config::parse(text, "x".as_ref(), &|_| None).expect("valid");
        let mut collector = Collector::default();
        collector.add(&record(Role::Infer, "infer", State::Live));
        expect(&mut collector, Some(&config), true, 1);
        let state = |role, name| collector.track(role, name).map(|track| track.state(1).0);
        assert_eq!(state(Role::Capture, "a"), Some(State::Offline));
        assert_eq!(state(Role::Capture, "off"), Some(State::Disabled));
        assert_eq!(state(Role::Infer, "infer"), Some(State::Live));
        assert_eq!(state(Role::Child, "up"), Some(State::Offline));
        let mut collector = Collector::default();
        collector.add(&record(Role::Child, "infer", State::Starting));
        expect(&mut collector, Some(&config), true, 1);
        assert_eq!(collector.tracks().count(), 1, "the supervisor speaks");
    }

    #[test]
    fn one_process_that_is_not_well_is_enough() {
        let mut collector = Collector::default();
        collector.add(&record(Role::Capture, "a", State::Live));
        collector.add(&record(Role::Capture, "b", State::Ended));
        assert!(is_healthy(&collector, 1));
        collector.add(&record(Role::Child, "capture:c", State::Offline));
        assert!(!is_healthy(&collector, 1));
        assert!(processes(&collector, 1, usize::MAX).contains("restarts 2"));
        let domain = Domain::new("x", "/tmp/fb".as_ref(), Limits::default()).expect("valid");
        let json = to_json(&domain, &collector, false, 1);
        assert_eq!(json["processes"][2]["reason"], "no signal");
        assert_eq!(json["cameras"].as_array().map(Vec::len), Some(3));
    }
}
