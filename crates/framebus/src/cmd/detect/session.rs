//! One run over at most as many inputs as a configuration holds.

use super::inputs::{self, Input};
use super::output::Printer;
use super::{Args, trouble};
use crate::children::{Child, Exit, quiet, stop_all};
use crate::private::Private;
use crate::stats::Collector;
use framebus_bus::{
    Bus, Delivery, FrameSample, FrameSubscriber, HealthSubscriber, ResultSample, ResultSubscriber,
};
use framebus_service::{Failure, Shutdown, clock};
use framebus_types::{Counter, Health, Outcome, Role, State};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Captures at once: one decodes while another starts.
const CAPTURES: usize = 2;
/// Longest wait for a result before looking at the children.
const LOOK: Duration = Duration::from_millis(20);
/// Time that children have to stop.
const STOP: Duration = Duration::from_secs(5);
/// A source that delivers nothing and says that it is not connected for so long
/// is given up, ns.
const GIVE_UP_NS: u64 = 15_000_000_000;
/// RTSP status codes with which a reason begins when the camera has answered: it will
/// say the same again, and some lock an account that is tried too often.
const REFUSALS: [&str; 3] = ["401 ", "403 ", "404 "];
/// After a live source has ended: so long without a result is the end, ns.
const QUIET_NS: u64 = 2_000_000_000;
/// A file's results are all waited for, while inference lives; but not for
/// ever, ns.
const MISSING_NS: u64 = 60_000_000_000;
/// Frames that a reader may hold.
const HELD_MAX: usize = 3;

/// Children.
pub(super) struct Programs {
    pub(super) capture: PathBuf,
    pub(super) infer: PathBuf,
}

/// What is the same for every run.
pub(super) struct Settings<'a> {
    pub(super) args: &'a Args,
    pub(super) model: &'a Path,
    pub(super) programs: &'a Programs,
}

/// Runs some inputs; returns how many of them could not be read.
pub(super) fn run(
    settings: &Settings<'_>,
    inputs: &[Input],
    printer: &mut Printer,
    shutdown: &Shutdown,
) -> Result<usize, Failure> {
    if inputs.is_empty() {
        return Ok(0);
    }
    let mut private = Private::new("detect")?;
    let text = inputs::config(settings.args, settings.model, private.folder(), inputs)?;
    let (file, config, domain) = private.configure(&text)?;
    let inputs: Vec<Input> = inputs
        .iter()
        .zip(&config.cameras)
        .map(|(input, camera)| {
            let mut input = input.clone();
            // Addresses and pipelines may hold a login.
            if matches!(
                camera.source,
                framebus_config::Source::Rtsp(_) | framebus_config::Source::Gst(_)
            ) {
                input.given = camera.source.to_string();
            }
            input
        })
        .collect();
    let bus = Bus::open(&domain, "detect")?;
    let mut session = Session::start(settings, &inputs, &bus, &file, printer)?;
    let result = session.run(shutdown);
    session.stop();
    result
}

enum Phase {
    Waiting,
    Running(Box<Child>),
    /// The source is over; results of its last frames may be on their way.
    Draining {
        since_ns: u64,
    },
    Over,
}

struct Source<'a> {
    input: &'a Input,
    name: String,
    phase: Phase,
    received: u64,
    /// Asked to stop, since everything has come.
    dismissed: bool,
    frames: Option<FrameSubscriber>,
    held: VecDeque<FrameSample>,
    /// Pictures of a folder that gave a result, by their number.
    seen: BTreeSet<usize>,
    /// Has ended with an error, which was said.
    failed: bool,
    /// When it was first seen not connected.
    away_ns: Option<u64>,
}

struct Session<'a> {
    settings: &'a Settings<'a>,
    file: &'a Path,
    printer: &'a mut Printer,
    results: ResultSubscriber,
    health: HealthSubscriber,
    collector: Collector,
    records: Vec<Health>,
    infer: Child,
    sources: Vec<Source<'a>>,
    troubles: usize,
    result_ns: u64,
}

impl<'a> Session<'a> {
    /// Subscribes to everything, then starts inference; captures start later.
    fn start(
        settings: &'a Settings<'a>,
        inputs: &'a [Input],
        bus: &Bus,
        file: &'a Path,
        printer: &'a mut Printer,
    ) -> Result<Self, Failure> {
        printer.begin();
        let results = bus.result_subscriber("detect")?;
        let health = bus.health_subscriber()?;
        let mut sources = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let name = inputs::camera(index);
            let delivery = if input.live { Delivery::Latest } else { Delivery::EveryFrame };
            let frames = match settings.args.annotate {
                Some(_) => Some(bus.frame_subscriber(&name, delivery, "detect")?),
                None => None,
            };
            sources.push(Source {
                input,
                name,
                phase: Phase::Waiting,
                received: 0,
                dismissed: false,
                frames,
                held: VecDeque::new(),
                seen: BTreeSet::new(),
                failed: false,
                away_ns: None,
            });
        }
        let args = ["--config".into(), file.into()];
        let infer = Child::start("infer", &settings.programs.infer, &args, Stdio::null(), quiet())?;
        Ok(Self {
            settings,
            file,
            printer,
            results,
            health,
            collector: Collector::default(),
            records: Vec::new(),
            infer,
            sources,
            troubles: 0,
            result_ns: clock::monotonic_ns(),
        })
    }

    fn run(&mut self, shutdown: &Shutdown) -> Result<usize, Failure> {
        loop {
            self.take_results()?;
            self.take_health()?;
            if let Some(exit) = self.infer.exited() {
                self.take_results()?;
                self.printer.flush_all()?;
                let reason = match exit.success() {
                    true => "inference ended by itself".to_owned(),
                    false => exit.reason(),
                };
                return Err(Failure::message(exit.kind(), reason));
            }
            for index in 0..self.sources.len() {
                self.step(index)?;
            }
            if self.sources.iter().all(|source| matches!(source.phase, Phase::Over)) {
                return Ok(self.troubles);
            }
            if shutdown.requested() {
                self.printer.flush_all()?;
                return Ok(self.troubles);
            }
            if self.results.waker().wait(LOOK).is_err() {
                let _ = shutdown.wait(LOOK);
            }
        }
    }

    fn stop(&mut self) {
        let captures = self.sources.iter_mut().filter_map(|source| match &mut source.phase {
            Phase::Running(child) => Some((source.name.as_str(), &mut **child)),
            _ => None,
        });
        let mut records = Vec::new();
        stop_all(captures, STOP, || {
            // An every-frame source may be waiting for this reader.
            while let Ok(Some(_)) = self.results.receive() {}
            let _ = self.health.receive_into(&mut records);
        });
        stop_all([("infer", &mut self.infer)].into_iter(), STOP, || {
            while let Ok(Some(_)) = self.results.receive() {}
        });
    }

    fn take_health(&mut self) -> Result<(), Failure> {
        self.records.clear();
        self.health.receive_into(&mut self.records)?;
        self.records.iter().for_each(|record| self.collector.add(record));
        Ok(())
    }

    fn take_results(&mut self) -> Result<(), Failure> {
        for source in &mut self.sources {
            source.hold()?;
        }
        while let Some(result) = self.results.receive()? {
            self.result_ns = clock::monotonic_ns();
            let found = self.sources.iter_mut().enumerate();
            let Some((index, source)) =
                found.into_iter().find(|(_, source)| source.name == result.camera())
            else {
                continue;
            };
            source.received += 1;
            let picture = picture_number(result.header().pts_ns, source.input.files.len());
            source.seen.extend(picture);
            let file = picture.map(|number| source.input.files[number].as_path());
            let frame = source.frame_of(&result)?;
            self.printer.result(index, source.input, file, &result, frame.as_ref())?;
        }
        Ok(())
    }

    /// Moves one source on.
    fn step(&mut self, index: usize) -> Result<(), Failure> {
        let running =
            self.sources.iter().filter(|source| matches!(source.phase, Phase::Running(_))).count();
        let source = &mut self.sources[index];
        let now_ns = clock::monotonic_ns();
        let track = self.collector.track(Role::Capture, &source.name);
        let published = track.map(|track| track.total(Counter::Published));
        match &mut source.phase {
            Phase::Waiting if running < CAPTURES => {
                let args: [OsString; 4] =
                    ["--config".into(), self.file.into(), "--camera".into(), (&source.name).into()];
                let program = &self.settings.programs.capture;
                let child = Child::start(&source.name, program, &args, Stdio::null(), quiet())?;
                source.phase = Phase::Running(Box::new(child));
            }
            Phase::Running(child) => {
                let exit = child.exited();
                // It stays for readers that are slower than this one.
                let ended = track.is_some_and(|track| track.latest().state == State::Ended as u32);
                if ended
                    && exit.is_none()
                    && !source.dismissed
                    && Some(source.received) == published
                {
                    source.dismissed = true;
                    child.terminate();
                }
                let away = track.map(|track| track.state(now_ns)).filter(|(state, _)| {
                    matches!(state, State::Offline | State::Stalled) && published == Some(0)
                });
                if let Some(exit) = exit {
                    self.ended(index, &exit);
                } else if let Some((_, reason)) = away {
                    let away_ns = now_ns.saturating_sub(*source.away_ns.get_or_insert(now_ns));
                    let refused = REFUSALS.iter().any(|code| reason.starts_with(code));
                    if refused || away_ns >= GIVE_UP_NS {
                        child.terminate();
                        let _ = child.finish(STOP, || {});
                        self.fail(index, &reason);
                        self.sources[index].phase = Phase::Draining { since_ns: now_ns };
                    }
                } else {
                    source.away_ns = None;
                }
            }
            Phase::Draining { since_ns } => {
                let quiet_ns = now_ns.saturating_sub((*since_ns).max(self.result_ns));
                // Without a word from capture there is nothing to count.
                let missing = published.map(|n| n.saturating_sub(source.received));
                match missing {
                    Some(0) => self.over(index)?,
                    Some(missing) if !source.input.live && quiet_ns >= MISSING_NS => {
                        self.fail(index, &format!("{missing} results never came"));
                        self.over(index)?;
                    }
                    Some(_) if !source.input.live => {}
                    _ if quiet_ns >= QUIET_NS => self.over(index)?,
                    _ => {}
                }
            }
            Phase::Waiting | Phase::Over => {}
        }
        Ok(())
    }

    fn ended(&mut self, index: usize, exit: &Exit) {
        let _ = self.take_health();
        if !exit.success() {
            self.fail(index, &exit.reason());
        }
        self.sources[index].phase = Phase::Draining { since_ns: clock::monotonic_ns() };
    }

    fn over(&mut self, index: usize) -> Result<(), Failure> {
        let source = &mut self.sources[index];
        source.phase = Phase::Over;
        source.held.clear();
        source.frames = None;
        // Every frame of a file has its result here: what has none was no frame.
        // A source that failed as a whole has said so.
        let numbered = source.input.files.iter().enumerate();
        for (_, file) in
            numbered.filter(|(number, _)| !source.failed && !source.seen.contains(number))
        {
            let file = file.display().to_string();
            self.printer.aside(|| trouble(&file, "cannot be decoded"));
            self.troubles += 1;
        }
        self.printer.over(index)
    }

    fn fail(&mut self, index: usize, reason: &str) {
        let source = &mut self.sources[index];
        source.failed = true;
        // The camera's name is ours, not the user's.
        let prefix = format!("camera {}: ", source.name);
        let reason = reason.strip_prefix("capture: ").unwrap_or(reason);
        let reason = reason.strip_prefix(&prefix).unwrap_or(reason);
        // Nor need the source be said twice.
        let own = format!("{}: ", source.input.source);
        let reason = reason.strip_prefix(&own).unwrap_or(reason);
        self.printer.aside(|| trouble(&source.input.given, reason));
        self.troubles += 1;
    }
}

impl Source<'_> {
    /// Takes waiting frames as far as they can be held.
    fn hold(&mut self) -> Result<(), Failure> {
        let Some(frames) = &self.frames else { return Ok(()) };
        while self.held.len() < HELD_MAX {
            match frames.receive()? {
                Some(frame) => self.held.push_back(frame),
                None => break,
            }
        }
        Ok(())
    }

    /// The frame of a result. Frames before it are given back: results of inferred
    /// frames come in their order. One of a dropped frame overtakes those of older
    /// frames that are in the engine.
    fn frame_of(&mut self, result: &ResultSample) -> Result<Option<FrameSample>, Failure> {
        let sequence = result.header().sequence;
        if matches!(result.outcome(), Outcome::Dropped | Outcome::Skipped) {
            let place = self.held.iter().position(|frame| frame.header().sequence == sequence);
            return Ok(place.and_then(|place| self.held.remove(place)));
        }
        loop {
            while self.held.front().is_some_and(|frame| frame.header().sequence < sequence) {
                self.held.pop_front();
            }
            if !self.held.is_empty() {
                break;
            }
            self.hold()?;
            if self.held.is_empty() {
                break;
            }
        }
        if self.held.front().is_some_and(|frame| frame.header().sequence == sequence) {
            return Ok(self.held.pop_front());
        }
        Ok(None)
    }
}

/// Which of a folder's `count` pictures a frame is: capture gives the picture's
/// number, in the order of names, as seconds of presentation time; pictures that
/// cannot be decoded keep theirs.
fn picture_number(pts_ns: u64, count: usize) -> Option<usize> {
    usize::try_from(pts_ns / 1_000_000_000).ok().filter(|number| *number < count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_bus::Limits;
    use framebus_types::{Fourcc, FrameHeader, ResultHeader, text};
    use std::sync::Arc;

    #[test]
    fn a_frame_of_a_folder_is_named_by_its_presentation_time() {
        assert_eq!(picture_number(0, 3), Some(0));
        assert_eq!(picture_number(2_000_000_000, 3), Some(2));
        assert_eq!(picture_number(3_000_000_000, 3), None);
        assert_eq!(picture_number(u64::MAX, 3), None, "no presentation time");
        assert_eq!(picture_number(0, 0), None, "no folder");
    }

    #[test]
    fn a_dropped_frame_does_not_take_an_older_one_away() {
        const SIDE: u32 = 32;
        const BYTES: usize = (SIDE * SIDE * 3 / 2) as usize;
        let mut private = Private::new("session").expect("a folder");
        let domain = private.domain(Limits::default()).expect("a short path");
        let bus: Bus = Bus::open(&domain, "test").expect("a bus");
        let results = bus.result_subscriber("detect").expect("a service");
        let frames = bus.frame_subscriber("a", Delivery::Latest, "detect").expect("a service");
        let (inputs, _) = inputs::plan(&["test:ball".to_owned()]);
        let mut source = Source {
            input: &inputs[0],
            name: "a".to_owned(),
            phase: Phase::Waiting,
            received: 0,
            dismissed: false,
            frames: Some(frames),
            held: VecDeque::new(),
            seen: BTreeSet::new(),
            failed: false,
            away_ns: None,
        };
        let camera = bus.frame_publisher("a", BYTES, Delivery::Latest, Arc::default());
        let camera = camera.expect("room for two pictures");
        let inference = bus.result_publisher(Arc::default()).expect("a service");
        for sequence in 0..2 {
            let header = FrameHeader {
                camera: text::pack("a"),
                sequence,
                width: SIDE,
                height: SIDE,
                fourcc: Fourcc::Nv12.into(),
                strides: [SIDE, SIDE, 0, 0],
                offsets: [0, SIDE * SIDE, 0, 0],
                ..FrameHeader::default()
            };
            camera.publish(camera.loan(BYTES).expect("a sample"), &header).expect("sent");
            source.hold().expect("read");
        }
        // The second frame is dropped while the first one is in the engine.
        for (sequence, outcome) in [(1, Outcome::Dropped), (0, Outcome::Ok)] {
            let header =
                ResultHeader { sequence, outcome: outcome.into(), ..ResultHeader::default() };
            inference.publish(&header, &[]).expect("sent");
            let result = results.receive().expect("read").expect("a result");
            let frame = source.frame_of(&result).expect("read").expect("its frame is held");
            assert_eq!(frame.header().sequence, sequence);
        }
    }
}
