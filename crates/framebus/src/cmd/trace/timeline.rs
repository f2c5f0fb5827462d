//! From results to rows, slices and arrows.
//!
//! A frame is a slice in its capture process, a wait beside the inference
//! process, slices on the execution context that answered, and a slice in this
//! process, which received its result; an arrow goes through all of them.

use super::events::{Arg, Events, Flow, Track};
use super::lanes::{Lanes, Numbers};
use super::merge::{self, Merged};
use super::requests::{Request, Requests};
use super::server_trace::Served;
use crate::out::plain;
use crate::stats::Collector;
use framebus_types::{Outcome, Reason, ResultHeader, Role, StageTimes, text};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Write};

/// Numbers of processes that nobody has told us: above any that Linux gives
/// (2^22 at most).
const UNKNOWN_PID: u32 = 1 << 23;
/// Batches remembered per execution context: the results of one come together,
/// or nearly so.
const RECENT: usize = 16;
/// Execution contexts with rows of their own; the number comes from outside.
const CONTEXTS_MAX: u32 = 256;
/// Rows between two execution contexts, for slices that overlap.
const CONTEXT_ORDER: u32 = 100;
/// Where the rows of cameras begin below those of execution contexts.
const CAMERA_ORDER: u32 = CONTEXTS_MAX * CONTEXT_ORDER;

/// A result as the time line needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) camera: &'a str,
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) header: &'a ResultHeader,
    pub(super) received_ns: u64,
}

impl Frame<'_> {
    /// Whether the times are in the order of a frame's life; what another
    /// process wrote is not trusted.
    pub(super) fn is_in_order(&self) -> bool {
        let times = &self.header.times;
        let StageTimes { capture_ns, publish_ns, taken_ns, result_ns, .. } = *times;
        let reached = [capture_ns, publish_ns, taken_ns, result_ns].iter().all(|ns| *ns > 0);
        let inferred = [
            times.batched_ns,
            times.preprocessed_ns,
            times.inference_start_ns,
            times.inference_end_ns,
            times.decoded_ns,
        ];
        let complete = self.outcome != Outcome::Ok || inferred.iter().all(|ns| *ns > 0);
        let mut last_ns = 0;
        let sorted = [capture_ns, publish_ns, taken_ns]
            .into_iter()
            .chain(inferred)
            .chain([result_ns, self.received_ns])
            .filter(|ns| *ns > 0)
            .all(|ns| std::mem::replace(&mut last_ns, ns) <= ns);
        reached && complete && sorted
    }

    /// `dropped (stale)`.
    fn outcome(&self) -> String {
        match self.reason {
            Reason::None => self.outcome.to_string(),
            reason => format!("{} ({reason})", self.outcome),
        }
    }
}

/// Writes results as they come.
#[derive(Debug)]
pub(super) struct Timeline<W> {
    events: Events<W>,
    numbers: Numbers,
    captures: BTreeMap<String, Capture>,
    infer: Option<Infer>,
    receivers: BTreeMap<String, Lanes>,
    requests: Requests,
    /// Frames so far: the number of an arrow.
    frames: u64,
    processes: u32,
}

/// A camera's process, as long as it lives.
#[derive(Debug)]
struct Capture {
    epoch_ns: u64,
    lanes: Lanes,
}

/// The inference process, as long as it lives.
#[derive(Debug)]
struct Infer {
    epoch_ns: u64,
    pid: u32,
    contexts: BTreeMap<u32, Context>,
    /// A row per camera for what was not inferred.
    outcomes: BTreeMap<String, Lanes>,
}

#[derive(Debug)]
struct Context {
    lanes: Lanes,
    batches: VecDeque<Batch>,
}

/// A batch that is on the time line; its frames share it.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// When the network started; of a batch that failed before, when it was taken.
    start_ns: u64,
    track: Track,
    /// When the last of its results was sent: they are sent one by one.
    sent_ns: u64,
}

impl<W: Write> Timeline<W> {
    /// An empty time line that begins at `origin_ns`. `traced`: what a server says of
    /// its requests is going to be [merged](Self::merge).
    pub(super) fn new(out: W, origin_ns: u64, traced: bool) -> io::Result<Self> {
        let mut events = Events::new(out, origin_ns)?;
        events.process(std::process::id(), "trace (this reader)", 2000)?;
        Ok(Self {
            events,
            numbers: Numbers::default(),
            captures: BTreeMap::new(),
            infer: None,
            receivers: BTreeMap::new(),
            requests: Requests::new(traced),
            frames: 0,
            processes: 0,
        })
    }

    /// Writes a frame whose times are [in order](Frame::is_in_order); `health`
    /// says which processes there are.
    pub(super) fn add(&mut self, frame: &Frame<'_>, health: &Collector) -> io::Result<()> {
        self.frames += 1;
        let id = self.frames;
        self.capture(frame, health, id)?;
        let infer = self.infer_pid(frame, health)?;
        self.wait(frame, infer, id)?;
        if frame.header.times.batched_ns > 0 {
            self.context(frame, id)?;
        }
        if frame.outcome != Outcome::Ok {
            self.outcome(frame)?;
        }
        self.receive(frame, id)
    }

    /// Ids of the requests that a server's trace may speak of.
    pub(super) fn requests(&self) -> HashSet<u64> {
        self.requests.ids().collect()
    }

    /// Draws what the server's trace says of them.
    pub(super) fn merge(&mut self, served: &[Served]) -> io::Result<Merged> {
        self.processes += 1;
        let pid = UNKNOWN_PID + self.processes;
        let requests = self.requests.take();
        merge::write(&requests, served, pid, &mut self.numbers, &mut self.events)
    }

    /// Ends the file.
    pub(super) fn finish(self, about: &serde_json::Value) -> io::Result<()> {
        self.events.finish(about)
    }

    /// Decoder to sent, in the camera's process.
    fn capture(&mut self, frame: &Frame<'_>, health: &Collector, id: u64) -> io::Result<()> {
        let Frame { camera, header, .. } = *frame;
        let epoch_ns = header.epoch_ns;
        if self.captures.get(camera).is_none_or(|known| known.epoch_ns != epoch_ns) {
            let pid = self.pid(health, Role::Capture, camera);
            self.processes += 1;
            self.events.process(pid, &format!("capture {camera}"), self.processes)?;
            let lanes = Lanes::new(pid, camera, 0);
            self.captures.insert(camera.to_owned(), Capture { epoch_ns, lanes });
        }
        let Some(capture) = self.captures.get_mut(camera) else { return Ok(()) };
        let span = (header.times.capture_ns, header.times.publish_ns);
        let track = capture.lanes.place(span, &mut self.numbers, &mut self.events)?;
        let size = format!("{}x{}", header.width, header.height);
        let args = [
            ("camera", Arg::Text(camera)),
            ("sequence", Arg::Count(header.sequence)),
            ("size", Arg::Text(&size)),
        ];
        self.events.slice(track, "capture", span, &args)?;
        self.events.flow(track, "frame", id, Flow::Start, middle(span))
    }

    /// The number of the inference process, named when it is seen first.
    fn infer_pid(&mut self, frame: &Frame<'_>, health: &Collector) -> io::Result<u32> {
        let epoch_ns = frame.header.result_epoch_ns;
        if let Some(infer) = self.infer.as_ref().filter(|infer| infer.epoch_ns == epoch_ns) {
            return Ok(infer.pid);
        }
        let pid = self.pid(health, Role::Infer, "infer");
        self.events.process(pid, "infer", 1000)?;
        let (contexts, outcomes) = (BTreeMap::new(), BTreeMap::new());
        self.infer = Some(Infer { epoch_ns, pid, contexts, outcomes });
        Ok(pid)
    }

    /// Sent to batched, or to the result of a frame that was not inferred.
    /// Waiting frames of a camera overlap: no slices.
    fn wait(&mut self, frame: &Frame<'_>, pid: u32, id: u64) -> io::Result<()> {
        let times = &frame.header.times;
        let end_ns = if times.batched_ns > 0 { times.batched_ns } else { times.result_ns };
        let track = Track { pid, tid: pid };
        let name = format!("{} waits", frame.camera);
        let args = [("sequence", Arg::Count(frame.header.sequence))];
        let events = &mut self.events;
        events.waiting(track, id, true, &name, times.publish_ns, &args)?;
        events.waiting(track, id, true, "wake", times.publish_ns, &[])?;
        events.waiting(track, id, false, "wake", times.taken_ns, &[])?;
        events.waiting(track, id, true, "queue", times.taken_ns, &[])?;
        events.waiting(track, id, false, "queue", end_ns, &[])?;
        events.waiting(track, id, false, &name, end_ns, &[])
    }

    /// What the engine did, in the row of its execution context.
    fn context(&mut self, frame: &Frame<'_>, id: u64) -> io::Result<()> {
        let Some(infer) = &mut self.infer else { return Ok(()) };
        let times = &frame.header.times;
        let number = frame.header.context.min(CONTEXTS_MAX - 1);
        let pid = infer.pid;
        let context = infer.contexts.entry(number).or_insert_with(|| Context {
            lanes: Lanes::new(pid, &format!("context {number}"), number * CONTEXT_ORDER),
            batches: VecDeque::with_capacity(RECENT),
        });
        let start_ns =
            if times.inference_start_ns > 0 { times.inference_start_ns } else { times.batched_ns };
        let known = |batch: &Batch| batch.start_ns == start_ns;
        let place = match context.batches.iter().position(known) {
            Some(place) => {
                self.requests.share(frame.header);
                place
            }
            None => {
                let end_ns = if times.decoded_ns > 0 { times.decoded_ns } else { times.result_ns };
                let span = (times.batched_ns, end_ns);
                let track = context.lanes.place(span, &mut self.numbers, &mut self.events)?;
                write_batch(&mut self.events, track, frame, span)?;
                if frame.outcome == Outcome::Ok
                    && let Some(request) = Request::of(frame.header, track)
                {
                    self.requests.add(request, &mut self.events)?;
                }
                if context.batches.len() == RECENT {
                    context.batches.pop_front();
                }
                context.batches.push_back(Batch { start_ns, track, sent_ns: end_ns });
                context.batches.len() - 1
            }
        };
        let batch = &mut context.batches[place];
        if frame.outcome == Outcome::Ok {
            let inferred = (times.inference_start_ns, times.inference_end_ns);
            self.events.flow(batch.track, "frame", id, Flow::Step, middle(inferred))?;
            // Results that overtake each other have rows of their own.
            let from_ns =
                if batch.sent_ns <= times.result_ns { batch.sent_ns } else { times.decoded_ns };
            batch.sent_ns = batch.sent_ns.max(times.result_ns);
            let span = (from_ns, times.result_ns);
            let track = context.lanes.place(span, &mut self.numbers, &mut self.events)?;
            let args = [
                ("camera", Arg::Text(frame.camera)),
                ("sequence", Arg::Count(frame.header.sequence)),
                ("decoded to sent ms", Arg::Ms(times.result_ns - times.decoded_ns)),
            ];
            self.events.slice(track, "publish", span, &args)?;
        }
        Ok(())
    }

    /// Why a frame has no detections.
    fn outcome(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let Some(infer) = &mut self.infer else { return Ok(()) };
        let (pid, camera) = (infer.pid, frame.camera);
        let order = CAMERA_ORDER + infer.outcomes.len() as u32;
        let lanes = infer
            .outcomes
            .entry(camera.to_owned())
            .or_insert_with(|| Lanes::new(pid, &format!("{camera}: not inferred"), order));
        let at_ns = frame.header.times.result_ns;
        // Instants do not overlap: all on one row.
        let track = lanes.place((at_ns, at_ns), &mut self.numbers, &mut self.events)?;
        let message = plain(text::unpack(&frame.header.message));
        let args = [
            ("camera", Arg::Text(camera)),
            ("sequence", Arg::Count(frame.header.sequence)),
            ("reason", Arg::Text(frame.reason.as_str())),
            ("message", Arg::Text(&message)),
        ];
        self.events.instant(track, &frame.outcome(), at_ns, &args)
    }

    /// Result sent to result received here.
    fn receive(&mut self, frame: &Frame<'_>, id: u64) -> io::Result<()> {
        let Frame { camera, header, received_ns, .. } = *frame;
        let order = self.receivers.len() as u32;
        let lanes = self
            .receivers
            .entry(camera.to_owned())
            .or_insert_with(|| Lanes::new(std::process::id(), camera, order));
        let span = (header.times.result_ns, received_ns);
        let track = lanes.place(span, &mut self.numbers, &mut self.events)?;
        let outcome = frame.outcome();
        let args = [
            ("camera", Arg::Text(camera)),
            ("sequence", Arg::Count(header.sequence)),
            ("outcome", Arg::Text(&outcome)),
            ("detections", Arg::Count(header.count.into())),
            ("batch", Arg::Count(header.batch_size.into())),
            ("decoder to sent ms", Arg::Ms(header.times.result_ns - header.times.capture_ns)),
        ];
        self.events.slice(track, "receive", span, &args)?;
        self.events.flow(track, "frame", id, Flow::End, middle(span))
    }

    fn pid(&mut self, health: &Collector, role: Role, name: &str) -> u32 {
        let known = health.track(role, name).map(|track| track.latest().pid);
        // A process that was replaced before it said who it is has a number
        // that is taken.
        let taken = |pid: &u32| {
            self.captures.values().any(|capture| capture.lanes.pid() == *pid)
                || self.infer.as_ref().is_some_and(|infer| infer.pid == *pid)
        };
        known.filter(|pid| *pid > 0 && !taken(pid)).unwrap_or_else(|| {
            self.processes += 1;
            UNKNOWN_PID + self.processes
        })
    }
}

/// The batch from the queue to its boxes, and the stages in it.
fn write_batch<W: Write>(
    events: &mut Events<W>,
    track: Track,
    frame: &Frame<'_>,
    span: (u64, u64),
) -> io::Result<()> {
    let (header, times) = (frame.header, &frame.header.times);
    let name = if header.batch_size > 1 { "batch" } else { frame.camera };
    let outcome = frame.outcome();
    let args = [
        ("camera", Arg::Text(frame.camera)),
        ("sequence", Arg::Count(header.sequence)),
        ("outcome", Arg::Text(&outcome)),
        ("detections", Arg::Count(header.count.into())),
        ("batch", Arg::Count(header.batch_size.into())),
    ];
    events.slice(track, name, span, &args)?;
    let stages = [
        ("preprocess", times.batched_ns, times.preprocessed_ns),
        ("inference", times.inference_start_ns, times.inference_end_ns),
        ("decode", times.inference_end_ns, times.decoded_ns),
    ];
    for (stage, from_ns, to_ns) in stages {
        if from_ns > 0 && to_ns > 0 {
            events.slice(track, stage, (from_ns, to_ns), &[])?;
        }
    }
    Ok(())
}

fn middle((from_ns, to_ns): (u64, u64)) -> u64 {
    from_ns + to_ns.saturating_sub(from_ns) / 2
}
