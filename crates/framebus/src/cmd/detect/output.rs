//! Results of `detect` as lines, in the order of the inputs where that is
//! possible, and as annotated pictures.

use super::inputs::{Input, stem};
use crate::report::{boxes, counts};
use crate::table::figure;
use crate::{annotate, out, screen};
use framebus_bus::{FrameSample, ResultSample};
use framebus_client::json;
use framebus_service::Failure;
use framebus_types::{Outcome, Stage};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of an input that wait for the inputs before it; more are printed out
/// of order: memory is bounded, and live sources have no end.
const WAITING_MAX: usize = 256;

/// Prints results.
pub(super) struct Printer {
    json: bool,
    folder: Option<PathBuf>,
    colours: bool,
    spinner: ProgressBar,
    waiting: BTreeMap<usize, Vec<String>>,
    over: BTreeSet<usize>,
    next: usize,
    frames: u64,
    failed: u64,
    first_failure: Option<String>,
    pictures: BTreeSet<PathBuf>,
    unwritten: u64,
}

impl Printer {
    pub(super) fn new(json: bool, folder: Option<PathBuf>) -> Self {
        // Hidden by itself when standard error is no terminal.
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let spinner = ProgressBar::new_spinner().with_style(style).with_message("starting");
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self {
            json,
            folder,
            colours: !json && screen::colours(),
            spinner,
            waiting: BTreeMap::new(),
            over: BTreeSet::new(),
            next: 0,
            frames: 0,
            failed: 0,
            first_failure: None,
            pictures: BTreeSet::new(),
            unwritten: 0,
        }
    }

    /// Begins with the next inputs.
    pub(super) fn begin(&mut self) {
        self.over.clear();
        self.next = 0;
    }

    /// Takes a result of input `index`; `file` is the picture where the input is
    /// a folder.
    pub(super) fn result(
        &mut self,
        index: usize,
        input: &Input,
        file: Option<&Path>,
        result: &ResultSample,
        frame: Option<&FrameSample>,
    ) -> Result<(), Failure> {
        let source = file.map_or_else(|| input.given.clone(), |file| file.display().to_string());
        self.frames += 1;
        if result.outcome() == Outcome::Failed {
            self.failed += 1;
            let message = format!("{source}: {}", out::plain(result.message()));
            self.first_failure.get_or_insert(message);
        }
        self.spinner.set_message(format!("{} frames, now {source}", self.frames));
        if let Some(frame) = frame {
            self.save(input, file, result, frame);
        }
        let line = if self.json {
            self.object(&source, result)
        } else {
            self.sentence(&source, input.picture || file.is_some(), result)
        };
        let waiting = self.waiting.entry(index).or_default();
        waiting.push(line);
        if index == self.next || waiting.len() >= WAITING_MAX {
            return self.flush(index);
        }
        Ok(())
    }

    /// Input `index` is over: those after it may speak.
    pub(super) fn over(&mut self, index: usize) -> Result<(), Failure> {
        self.over.insert(index);
        while self.over.contains(&self.next) {
            self.flush(self.next)?;
            self.next += 1;
        }
        self.flush(self.next)
    }

    /// Prints what still waits.
    pub(super) fn flush_all(&mut self) -> Result<(), Failure> {
        let indices: Vec<usize> = self.waiting.keys().copied().collect();
        indices.into_iter().try_for_each(|index| self.flush(index))
    }

    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let lines = self.waiting.remove(&index).unwrap_or_default();
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = lines.join("\n");
        text.push('\n');
        self.spinner.suspend(|| out::print(&text))
    }

    /// Takes the spinner away while something is said on standard error.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        self.spinner.suspend(say);
    }

    /// Ends; returns how many frames failed or could not be saved.
    pub(super) fn finish(&mut self) -> usize {
        self.spinner.finish_and_clear();
        if let Some(first) = &self.first_failure {
            out::note(format_args!("framebus: {} frames failed; the first: {first}", self.failed));
        }
        if let Some(folder) = &self.folder {
            let n = self.pictures.len() as u64 - self.unwritten;
            out::note(format_args!("{n} annotated pictures in {}", folder.display()));
        }
        usize::try_from(self.failed + self.unwritten).unwrap_or(usize::MAX)
    }

    fn object(&self, source: &str, result: &ResultSample) -> String {
        let header = result.header();
        let mut object = json!({
            "source": source,
            "frame": header.sequence,
            "width": header.width,
            "height": header.height,
            "outcome": result.outcome().as_str(),
            "backend": header.backend(),
            "model": header.model(),
            "detections": json::detections(result.detections()),
            "ms": json::stages(&header.times),
        });
        let message = match result.message() {
            "" => result.reason().as_str(),
            message => message,
        };
        if result.outcome() != Outcome::Ok {
            object["message"] = message.into();
        }
        object.to_string()
    }

    fn sentence(&self, source: &str, single: bool, result: &ResultSample) -> String {
        let (bold, green, red, off) = if self.colours {
            ("\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        let header = result.header();
        let number = if single { String::new() } else { format!(" #{}", header.sequence) };
        let head =
            format!("{bold}{}{number}{off} {}x{}", out::plain(source), header.width, header.height);
        let total_ns = header.times.durations_ns()[Stage::Total as usize];
        let ms = figure(total_ns.map(|ns| ns as f64 / 1e6));
        match result.outcome() {
            Outcome::Ok => {
                let found = result.detections();
                let boxes =
                    if found.is_empty() { String::new() } else { format!(": {}", boxes(found)) };
                format!("{head} {green}{}{off} ({ms} ms){boxes}", counts(found))
            }
            Outcome::Failed => format!("{head} {red}failed{off}: {}", out::plain(result.message())),
            outcome => format!("{head} {red}{outcome}{off} ({})", result.reason()),
        }
    }

    fn save(
        &mut self,
        input: &Input,
        file: Option<&Path>,
        result: &ResultSample,
        frame: &FrameSample,
    ) {
        let Some(folder) = &self.folder else { return };
        let name = match file {
            Some(file) => stem(file),
            None if input.picture => input.stem.clone(),
            None => format!("{}-{:06}", input.stem, result.header().sequence),
        };
        // Two inputs may have files of the same name.
        let names = (1..).map(|n| match n {
            1 => folder.join(format!("{name}.jpg")),
            n => folder.join(format!("{name}-{n}.jpg")),
        });
        let mut names = names.skip_while(|path| self.pictures.contains(path));
        let Some(path) = names.next() else { return };
        let saved = annotate::rgb(frame).and_then(|mut picture| {
            annotate::draw(&mut picture, result.detections());
            annotate::save(&picture, &path)
        });
        self.pictures.insert(path);
        if let Err(error) = saved {
            self.unwritten += 1;
            if self.unwritten == 1 {
                self.spinner.suspend(|| out::note(format_args!("framebus: {error}")));
            }
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_bus::{Bus, Domain, Limits};
    use framebus_types::{Detection, ResultHeader, StageTimes, text};
    use std::sync::Arc;

    /// A result that went over a real bus.
    fn received(header: &ResultHeader, detections: &[Detection]) -> String {
        let root = tempfile::tempdir_in("/tmp").expect("temp dir");
        let domain =
            Domain::new(&format!("o{}", std::process::id()), root.path(), Limits::default())
                .expect("valid");
        let bus: Bus = Bus::open(&domain, "test").expect("bus");
        let subscriber = bus.result_subscriber("test").expect("subscriber");
        let publisher = bus.result_publisher(Arc::default()).expect("publisher");
        publisher.publish(header, detections).expect("published");
        let result = subscriber.receive().expect("readable").expect("there");
        let line = Printer::new(true, None).object("a b.jpg", &result);
        drop((result, subscriber, publisher, bus));
        domain.remove_leftovers().expect("removed");
        line
    }

    #[test]
    fn json_lines_have_exactly_the_promised_keys() {
        let mut header = ResultHeader {
            outcome: Outcome::Ok.into(),
            camera: text::pack("input1"),
            sequence: 3,
            width: 810,
            height: 1080,
            backend: text::pack("openvino"),
            model: text::pack("yolov8n"),
            times: StageTimes {
                capture_ns: 1_000_000,
                publish_ns: 1_500_000,
                result_ns: 9_000_000,
                ..StageTimes::default()
            },
            ..ResultHeader::default()
        };
        let found = Detection {
            bbox: [1.0, 2.5, 30.0, 40.0],
            score: 0.9,
            class: 5,
            label: text::pack("bus"),
            ..Detection::default()
        };
        assert_eq!(
            received(&header, &[found]),
            r#"{"source":"a b.jpg","frame":3,"width":810,"height":1080,"outcome":"ok","backend":"openvino","model":"yolov8n","detections":[{"label":"bus","class":5,"score":0.9,"box":[1.0,2.5,30.0,40.0]}],"ms":{"capture":0.5,"total":8.0}}"#
        );
        header.outcome = Outcome::Failed.into();
        header.message = text::pack("out of memory");
        let line = received(&header, &[]);
        assert!(line.contains(r#""outcome":"failed""#) && line.contains(r#""detections":[]"#));
        assert!(line.ends_with(r#""message":"out of memory"}"#), "{line}");
    }
}
