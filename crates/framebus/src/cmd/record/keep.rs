//! Between the bus and the disk: a bounded queue and the thread that writes.

use crate::recording::{Recording, WriteError, Written};
use framebus_bus::FrameSample;
use framebus_types::{Detection, FrameHeader, ResultHeader, text};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Frames and results that can wait; frames are bounded by their bytes besides.
const ITEMS_MAX: usize = 4096;
/// Buffers that are kept to be used again.
const SPARE_MAX: usize = 64;
/// How often the disk is asked what is free: after so many bytes.
const LOOK_BYTES: u64 = 4 << 20;

#[allow(clippy::large_enum_variant, reason = "a box would be an allocation per result")]
enum Item {
    Frame { header: FrameHeader, image: Vec<u8> },
    Result { header: ResultHeader, detections: Vec<Detection> },
}

/// Buffers on their way back from the writer.
#[derive(Debug, Default)]
struct Spare {
    images: Mutex<Vec<Vec<u8>>>,
    detections: Mutex<Vec<Vec<Detection>>>,
}

fn take<T>(spare: &Mutex<Vec<Vec<T>>>) -> Vec<T> {
    let buffer = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = buffer.unwrap_or_default();
    buffer.clear();
    buffer
}

fn give<T>(spare: &Mutex<Vec<Vec<T>>>, buffer: Vec<T>) {
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < SPARE_MAX {
        spare.push(buffer);
    }
}

/// What the two sides share.
#[derive(Debug, Default)]
struct Shared {
    spare: Spare,
    /// Bytes of the frames that wait.
    waiting: AtomicU64,
    /// Frames and bytes in the file, for whoever watches.
    frames: AtomicU64,
    bytes: AtomicU64,
    /// The writer has ended before it was asked to.
    ended: AtomicBool,
}

/// The queue's near end.
pub(super) struct Keeper {
    items: SyncSender<Item>,
    shared: Arc<Shared>,
    limit: u64,
    frames_lost: AtomicU64,
    results_lost: AtomicU64,
    thread: JoinHandle<(Written, Option<String>)>,
}

/// What came of a recording.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) written: Written,
    /// Those that found no room in the queue.
    pub(super) frames_lost: u64,
    pub(super) results_lost: u64,
    /// Why it ended before its time.
    pub(super) trouble: Option<String>,
}

impl Keeper {
    /// Starts the writer. Frames in the queue take at most `limit` bytes; `keep_free` bytes
    /// are left on the disk.
    pub(super) fn start(
        recording: Recording,
        limit: u64,
        keep_free: u64,
    ) -> Result<Self, WriteError> {
        let (items, queue) = sync_channel(ITEMS_MAX);
        let shared = Arc::new(Shared::default());
        let writer = Writer { recording, shared: shared.clone(), keep_free, looked_at: 0 };
        let thread = std::thread::Builder::new().name("writer".to_owned());
        let thread = thread.spawn(move || writer.run(&queue))?;
        let (frames_lost, results_lost) = Default::default();
        Ok(Self { items, shared, limit, frames_lost, results_lost, thread })
    }

    /// Copies a frame into the queue, or counts it as lost.
    pub(super) fn frame(&self, frame: &FrameSample) {
        let room = self.shared.waiting.load(Relaxed) < self.limit && !self.has_ended();
        if !room {
            self.frames_lost.fetch_add(1, Relaxed);
            return;
        }
        let mut image = take(&self.shared.spare.images);
        crate::recording::raw(frame, &mut image);
        let bytes = image.len() as u64;
        self.shared.waiting.fetch_add(bytes, Relaxed);
        let item = Item::Frame { header: *frame.header(), image };
        if self.items.try_send(item).is_err() {
            self.shared.waiting.fetch_sub(bytes, Relaxed);
            self.frames_lost.fetch_add(1, Relaxed);
        }
    }

    /// A buffer for a result's detections.
    pub(super) fn detections(&self) -> Vec<Detection> {
        take(&self.shared.spare.detections)
    }

    /// Puts a result into the queue, or counts it as lost.
    pub(super) fn result(&self, header: ResultHeader, detections: Vec<Detection>) {
        match self.items.try_send(Item::Result { header, detections }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.results_lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether the writer has given up.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.ended.load(Relaxed)
    }

    /// Frames and bytes in the file.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.shared.frames.load(Relaxed), self.shared.bytes.load(Relaxed))
    }

    /// Frames and results that found no room.
    pub(super) fn lost(&self) -> u64 {
        self.frames_lost.load(Relaxed) + self.results_lost.load(Relaxed)
    }

    /// Waits until everything is written and the file is closed.
    pub(super) fn finish(self) -> Kept {
        drop(self.items);
        let (written, trouble) = self.thread.join().unwrap_or_else(|_| {
            (Written::default(), Some("the writer panicked; its words are above".to_owned()))
        });
        Kept {
            written,
            frames_lost: self.frames_lost.into_inner(),
            results_lost: self.results_lost.into_inner(),
            trouble,
        }
    }
}

/// The queue's far end.
struct Writer {
    recording: Recording,
    shared: Arc<Shared>,
    keep_free: u64,
    /// Bytes in the file when the disk was last looked at.
    looked_at: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Item>) -> (Written, Option<String>) {
        let trouble = match self.write(queue) {
            Ok(trouble) => trouble,
            Err(error) => return self.salvage(&error),
        };
        self.shared.ended.store(true, Relaxed);
        match self.recording.finish() {
            Ok(written) => (written, trouble),
            Err(error) => self.salvage(&error),
        }
    }

    /// Until the end of the queue, or of the room on the disk, which is the answer.
    fn write(&mut self, queue: &Receiver<Item>) -> Result<Option<String>, WriteError> {
        let mut full = self.is_full();
        while full.is_none()
            && let Ok(item) = queue.recv()
        {
            match item {
                Item::Frame { header, image } => {
                    let camera = self.recording.camera(text::unpack(&header.camera))?;
                    self.recording.frame(camera, &header, &image)?;
                    self.shared.waiting.fetch_sub(image.len() as u64, Relaxed);
                    give(&self.shared.spare.images, image);
                }
                Item::Result { header, detections } => {
                    let camera = self.recording.camera(text::unpack(&header.camera))?;
                    self.recording.result(camera, &header, &detections)?;
                    give(&self.shared.spare.detections, detections);
                }
            }
            let Written { frames, bytes, .. } = self.recording.written();
            self.shared.frames.store(frames, Relaxed);
            self.shared.bytes.store(bytes, Relaxed);
            if bytes >= self.looked_at + LOOK_BYTES {
                self.looked_at = bytes;
                full = self.is_full();
            }
        }
        Ok(full)
    }

    fn is_full(&self) -> Option<String> {
        let free = self.recording.free().filter(|free| *free < self.keep_free)?;
        Some(format!(
            "only {} MiB are free on its disk, and --keep-free-mib keeps {}; the recording \
             ends here",
            free >> 20,
            self.keep_free >> 20
        ))
    }

    fn salvage(self, error: &WriteError) -> (Written, Option<String>) {
        self.shared.ended.store(true, Relaxed);
        let error = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
        let error: Vec<String> = error.map(ToString::to_string).collect();
        let error = error.join(": ");
        let written = self.recording.written();
        match self.recording.salvage() {
            Ok(bytes) => {
                let what = "what was written before is in the file, which has no index";
                (Written { bytes, ..written }, Some(format!("{error}; {what}")))
            }
            Err(second) => (written, Some(format!("{error}; and it cannot be closed: {second}"))),
        }
    }
}
