//! Every family of series, in the order of the page; `docs/metrics.md` has them for people.

use super::figures::Figures;
use super::text::{Format, Kind, Page};
use super::usage::{Usage, usage};
use framebus_client::health::{
    CAPTURE_DROPS, Counter, Health, INFER_DROPS, Role, Stage, State, Track,
};
use framebus_types::{histogram, text};

/// Upper bounds of the histograms, µs. Each one is an edge of the buckets that are counted
/// (`framebus_types::histogram`), so that nothing is guessed: powers of two, and halfway
/// between them where latencies usually lie.
const BOUNDS_US: [u64; 24] = [
    128, 256, 512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304,
    131_072, 196_608, 262_144, 393_216, 524_288, 1_048_576, 2_097_152, 4_194_304, 8_388_608,
];

/// Memory that a camera's series take, and all others, bytes: roughly, to begin with.
const CAMERA_BYTES: usize = 20 << 10;
const OTHER_BYTES: usize = 16 << 10;

/// A camera with what its two processes say of it.
struct Camera<'a> {
    name: &'a str,
    state: State,
    capture: Option<&'a Track>,
    infer: Option<&'a Track>,
}

/// One process.
struct Process<'a> {
    role: Role,
    name: &'a str,
    state: State,
    own: Option<&'a Track>,
    child: Option<&'a Track>,
    silent: bool,
    usage: Option<Usage>,
}

/// The page of this moment.
pub(super) fn page(figures: &Figures, format: Format, now_ns: u64) -> String {
    let collector = &figures.collector;
    let names = figures.cameras();
    let cameras: Vec<Camera<'_>> = names
        .iter()
        .map(|name| Camera {
            name,
            state: figures.camera_state(name, now_ns),
            capture: collector.track(Role::Capture, name),
            infer: collector.track(Role::InferCamera, name),
        })
        .collect();
    let found = figures.processes();
    let processes: Vec<Process<'_>> = found
        .iter()
        .map(|(role, name)| {
            let own = collector.track(*role, name);
            let child = framebus_client::health::child_name(role.as_str(), name);
            let silent = own.is_none_or(|track| track.is_silent(now_ns));
            let state = collector.process_state(*role, name, now_ns);
            Process {
                role: *role,
                name,
                state: state.map_or(State::Starting, |(state, _)| state),
                own,
                child: collector.track(Role::Child, &child),
                silent,
                // The number of a process that is gone may be somebody else's by now.
                usage: own.filter(|_| !silent).and_then(|track| usage(track.latest().pid)),
            }
        })
        .collect();
    let mut page = Page::new(format, OTHER_BYTES + cameras.len() * CAMERA_BYTES);
    instance(&mut page, figures);
    camera_states(&mut page, &cameras);
    camera_counters(&mut page, &cameras);
    events(&mut page, figures);
    stages(&mut page, &cameras);
    process_states(&mut page, &processes, now_ns);
    process_counters(&mut page, &processes);
    sinks(&mut page, &processes);
    page.finish()
}

fn instance(page: &mut Page, figures: &Figures) {
    page.family("framebus_build_info", Kind::Gauge, "", "Version of the sink; always 1.");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("domain", &figures.instance)];
    page.sample(&labels, 1);
    let infer = figures.collector.track(Role::Infer, "infer");
    page.family("framebus_engine_info", Kind::Gauge, "", "What runs the network; always 1.");
    let detail = infer.map(|track| text::plain(text::unpack(&track.latest().detail)));
    if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
        page.sample(&[("engine", &detail)], 1);
    }
    let help = "Batches that the engine answered.";
    page.family("framebus_inference_batches", Kind::Counter, "", help);
    if let Some(track) = infer {
        page.sample(&[], track.latest().counter(Counter::Batches));
    }
    let help = "Answers of this endpoint, by HTTP status.";
    page.family("framebus_http_requests", Kind::Counter, "", help);
    for (status, count) in &figures.requests.by_status {
        page.sample(&[("code", &status.to_string())], count);
    }
}

fn camera_states(page: &mut Page, cameras: &[Camera<'_>]) {
    let help = "1 for the state that the camera is in, 0 for the others.";
    page.family("framebus_camera_state", Kind::Gauge, "", help);
    for camera in cameras {
        for state in State::ALL {
            let labels = [("camera", camera.name), ("state", state.as_str())];
            page.sample(&labels, u8::from(camera.state == *state));
        }
    }
    let help = "1 while the camera is live or degraded: its frames come and are answered.";
    page.family("framebus_camera_up", Kind::Gauge, "", help);
    for camera in cameras {
        page.sample(&[("camera", camera.name)], u8::from(is_up(camera.state)));
    }
    type Side = fn(&Health) -> u32;
    let sides: [(&str, &str, Side); 2] = [
        ("framebus_camera_width_pixels", "Width of the frames.", |record| record.width),
        ("framebus_camera_height_pixels", "Height of the frames.", |record| record.height),
    ];
    for (name, help, side) in sides {
        page.family(name, Kind::Gauge, "pixels", help);
        for camera in cameras {
            let record = camera.capture.map(Track::latest).filter(|record| side(record) > 0);
            if let Some(record) = record {
                page.sample(&[("camera", camera.name)], side(record));
            }
        }
    }
}

fn is_up(state: State) -> bool {
    matches!(state, State::Live | State::Degraded)
}

/// Counters of the capture process.
const CAPTURED: [(&str, Counter, &str); 5] = [
    ("framebus_camera_frames_captured", Counter::Captured, "Frames that left the decoder."),
    ("framebus_camera_frames_published", Counter::Published, "Frames put on the bus."),
    (
        "framebus_camera_frames_copied",
        Counter::Copied,
        "Frames that were copied into shared memory; part of those published.",
    ),
    (
        "framebus_camera_frames_suspect",
        Counter::Suspect,
        "Frames sent although their picture may be damaged; part of those published.",
    ),
    ("framebus_camera_reconnects", Counter::Reconnects, "Connections after the first."),
];

/// Counters of a camera in the inference process.
const INFERRED: [(&str, Counter, &str); 4] = [
    ("framebus_camera_frames_taken", Counter::Taken, "Frames that inference took from the bus."),
    (
        "framebus_camera_results_orphaned",
        Counter::Orphaned,
        "Frames that an inference process had when it died; part of the failed ones.",
    ),
    ("framebus_camera_detections", Counter::Detections, "Detections in all results."),
    (
        "framebus_camera_inference_errors",
        Counter::Errors,
        "Errors of inference with this camera, each of them logged.",
    ),
];

/// Outcomes and the counters that add up to them.
const OUTCOMES: [(&str, &[Counter]); 4] = [
    ("ok", &[Counter::Ok]),
    ("skipped", &[Counter::Skipped]),
    ("dropped", &[Counter::Superseded, Counter::Stale]),
    ("failed", &[Counter::Failed]),
];

fn camera_counters(page: &mut Page, cameras: &[Camera<'_>]) {
    type Of = for<'a> fn(&Camera<'a>) -> Option<&'a Track>;
    let capture: Of = |camera| camera.capture;
    let infer: Of = |camera| camera.infer;
    let all = CAPTURED.iter().map(|row| (row, capture)).chain(INFERRED.iter().map(|r| (r, infer)));
    for ((name, counter, help), of) in all {
        page.family(name, Kind::Counter, "", help);
        for camera in cameras {
            if let Some(track) = of(camera) {
                page.sample(&[("camera", camera.name)], track.latest().counter(*counter));
            }
        }
    }
    let help = "Frames that got no detections, by reason; the words are those of `framebus top`.";
    page.family("framebus_camera_frames_dropped", Kind::Counter, "", help);
    for camera in cameras {
        let drops = [(camera.capture, &CAPTURE_DROPS[..]), (camera.infer, &INFER_DROPS[..])];
        for (track, reasons) in drops {
            let Some(track) = track else { continue };
            for (counter, reason) in reasons {
                let labels = [("camera", camera.name), ("reason", *reason)];
                page.sample(&labels, track.latest().counter(*counter));
            }
        }
    }
    let help = "Results, by what became of the frame.";
    page.family("framebus_camera_results", Kind::Counter, "", help);
    for camera in cameras {
        let Some(track) = camera.infer else { continue };
        for (outcome, counters) in OUTCOMES {
            let count: u64 = counters.iter().map(|c| track.latest().counter(*c)).sum();
            page.sample(&[("camera", camera.name), ("outcome", outcome)], count);
        }
    }
}

fn events(page: &mut Page, figures: &Figures) {
    let help = "Events since this sink started.";
    page.family("framebus_camera_events", Kind::Counter, "", help);
    for (series, count) in &figures.events {
        let labels = [
            ("camera", series.camera.as_str()),
            ("event", series.kind),
            ("place", &series.place),
            ("direction", series.direction),
            ("label", &series.label),
        ];
        page.sample(&labels, count);
    }
    let help = "Events beyond the series that are kept apart.";
    page.family("framebus_events_unlisted", Kind::Counter, "", help);
    page.sample(&[], figures.unlisted);
}

/// Capture counts its own stage of every frame, inference all stages of answered ones. Each
/// stage is taken from one of them: two that take turns would look like a restart.
fn counted(stage: Stage, of: &Camera<'_>) -> Option<Health> {
    let track = if stage == Stage::Capture { of.capture } else { of.infer };
    track.map(|track| *track.latest())
}

fn stages(page: &mut Page, cameras: &[Camera<'_>]) {
    let bounds: Vec<String> = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).collect();
    let help = "How long the stages of a frame take; total is from decoder to result.";
    page.family("framebus_stage_seconds", Kind::Histogram, "seconds", help);
    for camera in cameras {
        for stage in Stage::ALL {
            let Some(record) = counted(stage, camera) else { continue };
            let durations = &record.stages[stage as usize];
            let (name, word) = (camera.name, stage.as_str());
            let (mut bucket, mut count) = (0, 0_u64);
            for (bound_us, bound) in BOUNDS_US.iter().zip(&bounds) {
                while bucket < histogram::BUCKETS && histogram::upper_us(bucket) <= *bound_us {
                    count += u64::from(durations.counts[bucket]);
                    bucket += 1;
                }
                page.line("_bucket", &[("camera", name), ("stage", word), ("le", bound)], count);
            }
            count += durations.counts[bucket..].iter().map(|n| u64::from(*n)).sum::<u64>();
            page.line("_bucket", &[("camera", name), ("stage", word), ("le", "+Inf")], count);
            let labels = [("camera", name), ("stage", word)];
            page.line("_sum", &labels, durations.sum_ns as f64 / 1e9);
            page.line("_count", &labels, count);
        }
    }
    let help = "The longest that a stage took since its process started.";
    page.family("framebus_stage_longest_seconds", Kind::Gauge, "seconds", help);
    for camera in cameras {
        for stage in Stage::ALL {
            let Some(record) = counted(stage, camera) else { continue };
            let longest_s = record.stages[stage as usize].max_ns as f64 / 1e9;
            page.sample(&[("camera", camera.name), ("stage", stage.as_str())], longest_s);
        }
    }
}

impl Process<'_> {
    fn labels(&self) -> [(&'static str, &str); 2] {
        [("role", self.role.as_str()), ("name", self.name)]
    }
}

fn process_states(page: &mut Page, processes: &[Process<'_>], now_ns: u64) {
    let help = "1 for the state that the process is in, 0 for the others.";
    page.family("framebus_process_state", Kind::Gauge, "", help);
    for process in processes {
        let [role, name] = process.labels();
        for state in State::ALL {
            let value = u8::from(process.state == *state);
            page.sample(&[role, name, ("state", state.as_str())], value);
        }
    }
    let help = "1 while the process is live or degraded.";
    page.family("framebus_process_up", Kind::Gauge, "", help);
    for process in processes {
        page.sample(&process.labels(), u8::from(is_up(process.state)));
    }
    let help = "1 while no reports of the process come; it reports once a second.";
    page.family("framebus_process_silent", Kind::Gauge, "", help);
    for process in processes {
        page.sample(&process.labels(), u8::from(process.silent));
    }
    let help = "Age of the last report of the process.";
    page.family("framebus_process_report_age_seconds", Kind::Gauge, "seconds", help);
    for process in processes {
        if let Some(track) = process.own {
            let age_ns = now_ns.saturating_sub(track.latest().updated_ns);
            page.sample(&process.labels(), age_ns as f64 / 1e9);
        }
    }
    let help = "When the process started, since 1970.";
    page.family("framebus_process_start_time_seconds", Kind::Gauge, "seconds", help);
    for process in processes {
        if let Some(track) = process.own {
            page.sample(&process.labels(), track.latest().started_wall_ns as f64 / 1e9);
        }
    }
}

fn process_counters(page: &mut Page, processes: &[Process<'_>]) {
    let help = "Restarts by `framebus up`; absent where systemd restarts.";
    page.family("framebus_process_restarts", Kind::Counter, "", help);
    for process in processes {
        if let Some(track) = process.child {
            page.sample(&process.labels(), track.latest().counter(Counter::Restarts));
        }
    }
    let counters = [
        ("framebus_process_errors", Counter::Errors, "Errors, each of them logged."),
        (
            "framebus_process_bad_headers",
            Counter::BadHeaders,
            "Samples that were skipped because their header lies.",
        ),
    ];
    for (name, counter, help) in counters {
        page.family(name, Kind::Counter, "", help);
        for process in processes {
            if let Some(track) = process.own {
                page.sample(&process.labels(), track.latest().counter(counter));
            }
        }
    }
    let used = || processes.iter().filter_map(|process| Some((process, process.usage?)));
    let help = "Processor time, user and system.";
    page.family("framebus_process_cpu_seconds", Kind::Counter, "seconds", help);
    used().for_each(|(process, usage)| page.sample(&process.labels(), usage.cpu_s));
    let help = "Memory of the process in RAM, the shared memory that it has touched included.";
    page.family("framebus_process_resident_memory_bytes", Kind::Gauge, "bytes", help);
    used().for_each(|(process, usage)| page.sample(&process.labels(), usage.resident_bytes));
    page.family("framebus_process_threads", Kind::Gauge, "", "Threads of the process.");
    used().for_each(|(process, usage)| page.sample(&process.labels(), usage.threads));
}

fn sinks(page: &mut Page, processes: &[Process<'_>]) {
    let families = [
        ("framebus_sink_received", Counter::Received, "", "Results and events the sink took."),
        (
            "framebus_sink_lost",
            Counter::Lost,
            "",
            "Those it lost: on the bus, or because its target could not be written.",
        ),
        ("framebus_sink_written", Counter::Written, "", "Records it delivered."),
        ("framebus_sink_written_bytes", Counter::WrittenBytes, "bytes", "Bytes it delivered."),
    ];
    for (name, counter, unit, help) in families {
        page.family(name, Kind::Counter, unit, help);
        for process in processes.iter().filter(|process| process.role == Role::Sink) {
            if let Some(track) = process.own {
                page.sample(&[("sink", process.name)], track.latest().counter(counter));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_edges_of_the_buckets_that_are_counted() {
        for bound_us in BOUNDS_US {
            let edge =
                (0..histogram::BUCKETS).any(|bucket| histogram::upper_us(bucket) == bound_us);
            assert!(edge, "{bound_us}");
        }
        assert!(BOUNDS_US.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_was_recorded_is_below_the_next_bound() {
        let text = "[model]\npath = \"x\"\n[[camera]]\nname = \"a\"\nsource = \"test:red\"\n";
        let config = framebus_config::parse(text, "x".as_ref(), &|_| None).expect("valid");
        let vitals = framebus_service::Vitals::new(Role::InferCamera, "a");
        vitals.set_state(State::Live, "");
        // 1 ms, 5 ms and far beyond the last bound.
        for ns in [1_000_000, 5_000_000, 100_000_000_000] {
            vitals.record(Stage::Total, ns);
        }
        vitals.add(Counter::Ok, 3);
        let mut figures = Figures::new(&config, &[], 1);
        figures.collector.add(&vitals.snapshot());
        let page = page(&figures, Format::Text, framebus_service::clock::monotonic_ns());
        let labels = "camera=\"a\",stage=\"total\"";
        for (series, value) in [
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"0.000512\"}}"), "0"),
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"0.001024\"}}"), "1"),
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"0.004096\"}}"), "1"),
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"0.006144\"}}"), "2"),
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"8.388608\"}}"), "2"),
            (format!("framebus_stage_seconds_bucket{{{labels},le=\"+Inf\"}}"), "3"),
            (format!("framebus_stage_seconds_count{{{labels}}}"), "3"),
            (format!("framebus_stage_seconds_sum{{{labels}}}"), "100.006"),
            (format!("framebus_stage_longest_seconds{{{labels}}}"), "100"),
            ("framebus_camera_results_total{camera=\"a\",outcome=\"ok\"}".to_owned(), "3"),
            // Its capture never came; nothing is said in its place.
            ("framebus_camera_up{camera=\"a\"}".to_owned(), "0"),
        ] {
            let line = format!("\n{series} {value}\n");
            assert!(page.contains(&line), "no {line} in {page}");
        }
        assert!(!page.contains("stage=\"capture\"") && !page.contains("frames_captured_total{"));
    }
}
