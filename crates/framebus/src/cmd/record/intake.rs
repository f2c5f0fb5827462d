//! From the bus into the queue.

use super::keep::Keeper;
use crate::cmd::status::{join, receive};
use crate::instance::Attached;
use crate::out;
use crate::stats::Collector;
use framebus_bus::{BusError, FrameSubscriber, HealthSubscriber, ResultSubscriber, wake};
use framebus_config::CameraName;
use framebus_service::{Failure, Shutdown, clock};
use framebus_types::{Detection, Health, ResultHeader, text};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

/// Longest sleep, and time between two looks of the progress bar.
const LOOK: Duration = Duration::from_millis(100);
/// How often cameras that are not there yet are looked for, ns.
const CAMERAS_NS: u64 = 500_000_000;
/// Time that a signal takes from the kernel to the wish to stop.
const SIGNAL: Duration = Duration::from_millis(50);
/// Results that are taken before frames are looked at again.
const RESULTS_MAX: usize = 256;
/// Results of the last frames are waited for so long, ns.
const LAST_RESULTS_NS: u64 = 1_000_000_000;

/// What was taken from the bus.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) cameras: Vec<String>,
    pub(super) seconds: f64,
    /// Overwritten before they were taken.
    pub(super) frames_lost: u64,
    pub(super) results_lost: u64,
}

/// A stream of numbers that has no gaps at its publisher.
#[derive(Debug, Default)]
struct Numbers {
    /// Epoch and number of the last one.
    last: Option<(u64, u64)>,
    lost: u64,
}

impl Numbers {
    fn add(&mut self, epoch_ns: u64, number: u64) {
        let expected = match self.last {
            Some((epoch, last)) if epoch == epoch_ns => last.saturating_add(1),
            // A publisher that was started again counts from 0.
            Some(_) => 0,
            // What came before the first one was not ours to lose.
            None => number,
        };
        self.lost = self.lost.saturating_add(number.saturating_sub(expected));
        self.last = Some((epoch_ns, number));
    }
}

/// What this process reads; not touched while something waits for it.
struct Ports {
    results: ResultSubscriber,
    /// In the order of [`Tally::cameras`].
    frames: Vec<FrameSubscriber>,
}

struct Camera {
    name: String,
    numbers: Numbers,
    /// The last frame, while its result has not come.
    unanswered: Option<(u64, u64)>,
}

/// What was read.
#[derive(Default)]
struct Tally {
    /// Results of frames that were captured before this are of nothing that is recorded.
    start_ns: u64,
    /// Cameras to record; empty: all that there are.
    wanted: Vec<String>,
    results: Numbers,
    cameras: Vec<Camera>,
    /// In hand until the frames before them are in the queue.
    held: Vec<(ResultHeader, Vec<Detection>)>,
    seen: BTreeSet<String>,
}

impl Tally {
    fn wants(&self, camera: &str) -> bool {
        match &self.wanted[..] {
            // A name from shared memory becomes the name of a topic.
            [] => CameraName::try_from(camera).is_ok(),
            wanted => wanted.iter().any(|name| name == camera),
        }
    }

    /// Everything that is there, so that a frame comes before its result: the results are
    /// read first, and each frame that has one by then was sent before it.
    fn take(&mut self, ports: &Ports, keeper: &Keeper) -> Result<(), BusError> {
        self.take_results(ports, keeper)?;
        for (camera, frames) in self.cameras.iter_mut().zip(&ports.frames) {
            while let Some(frame) = frames.receive()? {
                let header = frame.header();
                camera.numbers.add(header.epoch_ns, header.sequence);
                if header.capture_ns < self.start_ns {
                    continue;
                }
                camera.unanswered = Some((header.epoch_ns, header.sequence));
                if !self.seen.contains(&camera.name) {
                    self.seen.insert(camera.name.clone());
                }
                keeper.frame(&frame);
            }
        }
        self.pass_on(keeper);
        Ok(())
    }

    fn take_results(&mut self, ports: &Ports, keeper: &Keeper) -> Result<(), BusError> {
        for _ in 0..RESULTS_MAX {
            let Some(result) = ports.results.receive()? else { break };
            let header = result.header();
            self.results.add(header.result_epoch_ns, header.result_sequence);
            if header.times.capture_ns >= self.start_ns && self.wants(result.camera()) {
                let mut detections = keeper.detections();
                detections.extend_from_slice(result.detections());
                self.held.push((*header, detections));
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, keeper: &Keeper) {
        for (header, detections) in self.held.drain(..) {
            let name = text::unpack(&header.camera);
            let frame = Some((header.epoch_ns, header.sequence));
            for camera in self.cameras.iter_mut().filter(|camera| camera.name == name) {
                camera.unanswered.take_if(|last| Some(*last) == frame);
            }
            if !self.seen.contains(name) {
                self.seen.insert(name.to_owned());
            }
            keeper.result(header, detections);
        }
    }
}

/// The readers of one instance.
pub(super) struct Intake {
    ports: Ports,
    tally: Tally,
    pictures: bool,
    health: Option<HealthSubscriber>,
    collector: Collector,
    records: Vec<Health>,
    /// Behind its readers: dropped after them.
    attached: Attached,
}

impl Intake {
    /// Reads the cameras `wanted`, or all when there are none; their pictures where
    /// `pictures` says so.
    pub(super) fn new(
        attached: Attached,
        results: ResultSubscriber,
        wanted: Vec<String>,
        pictures: bool,
    ) -> Self {
        Self {
            ports: Ports { results, frames: Vec::new() },
            tally: Tally { wanted, ..Tally::default() },
            pictures,
            health: None,
            collector: Collector::default(),
            records: Vec::new(),
            attached,
        }
    }

    /// Takes what comes until the time is over, the wish to stop, the end of the instance
    /// or of the writer.
    pub(super) fn run(
        &mut self,
        keeper: &Keeper,
        seconds: Option<Duration>,
        shutdown: &Shutdown,
    ) -> Result<Taken, Failure> {
        let bar = bar(seconds);
        let mut clock = Clock::new(seconds);
        self.tally.start_ns = clock.start_ns;
        while !clock.is_over && !shutdown.requested() && !keeper.has_ended() {
            let searches = self.find_cameras()?;
            let (ports, tally, attached) = (&self.ports, &mut self.tally, &self.attached);
            let wakers: Vec<_> = std::iter::once(ports.results.waker())
                .chain(ports.frames.iter().map(FrameSubscriber::waker))
                .collect();
            let searched_ns = clock::monotonic_ns();
            let mut failed = None;
            let waited = wake::run(&wakers, LOOK, |_| {
                failed = tally.take(ports, keeper).err();
                let now_ns = clock.look(attached, &bar, keeper);
                let again = searches && now_ns >= searched_ns + CAMERAS_NS;
                let over = clock.is_over || shutdown.requested() || keeper.has_ended();
                match failed.is_some() || over || again {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            match waited {
                // The signal that asks to stop interrupts the wait.
                Err(_) if shutdown.wait(SIGNAL) => break,
                waited => waited?,
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        let seconds = (clock::monotonic_ns() - clock.start_ns) as f64 / 1e9;
        if !clock.is_gone && !keeper.has_ended() {
            self.last_results(keeper)?;
        }
        bar.finish_and_clear();
        let tally = &self.tally;
        Ok(Taken {
            cameras: tally.seen.iter().cloned().collect(),
            seconds,
            frames_lost: tally.cameras.iter().map(|camera| camera.numbers.lost).sum(),
            results_lost: tally.results.lost,
        })
    }

    /// The results of frames that are recorded, for a while.
    fn last_results(&mut self, keeper: &Keeper) -> Result<(), Failure> {
        let end_ns = clock::monotonic_ns() + LAST_RESULTS_NS;
        while self.tally.cameras.iter().any(|camera| camera.unanswered.is_some())
            && clock::monotonic_ns() < end_ns
        {
            // Interrupted by a signal: looks again.
            let _ = self.ports.results.waker().wait(LOOK);
            self.tally.take_results(&self.ports, keeper)?;
            self.tally.pass_on(keeper);
        }
        Ok(())
    }

    /// Joins the frames of cameras that have come; answers whether more may come.
    fn find_cameras(&mut self) -> Result<bool, Failure> {
        if !self.pictures {
            return Ok(false);
        }
        let mut names = self.tally.wanted.clone();
        if names.is_empty() {
            if self.health.is_none() {
                self.health = join(&self.attached)?;
            }
            if let Some(health) = &self.health {
                receive(health, &mut self.records, &mut self.collector)?;
            }
            names = self.collector.cameras();
        }
        let mut missing = self.tally.wanted.is_empty();
        for name in names {
            if self.tally.cameras.iter().any(|camera| camera.name == name)
                || !self.tally.wants(&name)
            {
                continue;
            }
            match self.attached.bus.join_frames(&name, "record") {
                Ok(frames) => {
                    self.ports.frames.push(frames);
                    let numbers = Numbers::default();
                    self.tally.cameras.push(Camera { name, numbers, unanswered: None });
                }
                Err(BusError::Absent { .. }) => missing = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(missing)
    }
}

/// When it ends.
struct Clock {
    start_ns: u64,
    end_ns: u64,
    shown_ns: u64,
    looked_ns: u64,
    is_over: bool,
    /// The instance has stopped.
    is_gone: bool,
}

impl Clock {
    fn new(seconds: Option<Duration>) -> Self {
        let start_ns = clock::monotonic_ns();
        let span = seconds.map_or(u64::MAX, |seconds| seconds.as_nanos() as u64);
        let end_ns = start_ns.saturating_add(span);
        Self { start_ns, end_ns, shown_ns: 0, looked_ns: start_ns, is_over: false, is_gone: false }
    }

    /// Looks whether it is over, and shows how it goes; answers what time it is.
    fn look(&mut self, attached: &Attached, bar: &ProgressBar, keeper: &Keeper) -> u64 {
        let now_ns = clock::monotonic_ns();
        self.is_over |= now_ns >= self.end_ns;
        if now_ns >= self.looked_ns + CAMERAS_NS {
            self.looked_ns = now_ns;
            if attached.is_gone() {
                out::note("the instance has stopped");
                (self.is_over, self.is_gone) = (true, true);
            }
        }
        if now_ns >= self.shown_ns + LOOK.as_nanos() as u64 {
            self.shown_ns = now_ns;
            let (frames, bytes) = keeper.progress();
            let lost = keeper.lost();
            bar.set_position((now_ns - self.start_ns) / 1_000_000);
            bar.set_message(format!(
                "{:.0} s, {frames} frames, {:.0} MB, {lost} lost",
                (now_ns - self.start_ns) as f64 / 1e9,
                bytes as f64 / 1e6
            ));
        }
        now_ns
    }
}

/// Shown on standard error, where that is a terminal.
fn bar(span: Option<Duration>) -> ProgressBar {
    let (bar, template) = match span {
        Some(span) => (
            ProgressBar::new(span.as_millis() as u64),
            "recording [{bar:30}] {percent:>3} %, {msg}",
        ),
        None => (ProgressBar::new_spinner(), "recording {spinner} {msg}, Ctrl-C ends it"),
    };
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message("0 frames")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_within_an_epoch_and_at_the_start_of_one() {
        let mut numbers = Numbers::default();
        for (epoch, number) in [(1, 7), (1, 8), (1, 11), (1, 11), (2, 0), (3, 2)] {
            numbers.add(epoch, number);
        }
        assert_eq!(numbers.lost, 2 + 2);
        numbers.add(3, u64::MAX);
        numbers.add(3, 0);
        assert_eq!(numbers.lost, u64::MAX, "a jump overflows nothing");
    }
}
