//! A bounded queue of messages on disk: what was accepted survives the process.
//!
//! ```text
//! FOLDER/lock              locked by the one process that uses it
//! FOLDER/00000000000000000042.seg    records from number 42 on, in order
//! FOLDER/cursor            number of the first record that is not acknowledged yet, and how
//!                          many behind it were counted as lost; CRC-32
//! record: length (u32), CRC-32 of number and payload (u32), payload; little endian
//! ```
//!
//! A record is in the page cache when [`Spool::push`] returns: SIGKILL or a panic of this
//! process loses nothing. Against loss of power, [`Spool::sync`] is for once a second, by
//! another thread: a disk may take longer for it than the bus can keep results. An
//! acknowledgement that is lost in a crash repeats a message, it never loses one.
//!
//! Memory does not depend on how much waits: a segment takes a few words.

mod segment;
#[cfg(test)]
mod tests;

use rustix::fs::{FlockOperation, flock};
use segment::{HEADER_BYTES, Segment, read_record, record};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest message. A result of a thousand detections has some 150 kB.
const RECORD_MAX: usize = 4 << 20;
const CURSOR_BYTES: usize = 20;
/// Most files that wait for [`Spool::sync`]: a bound, for a disk that does not keep up.
const ENDED_MAX: usize = 16;

/// Files that wait for the disk, with the first number of their segment; `u64::MAX` for
/// others.
pub(crate) type Unsynced = Vec<(u64, File)>;

/// The queue. Records are numbered from 0 on, without gaps.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    _lock: File,
    cursor: File,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    writer: Option<File>,
    /// Segments that were ended since the last [`sync`](Self::sync), by their first number.
    ended: Unsynced,
    /// The segment that is read, by its first number, and the byte that comes next.
    reader: Option<(u64, File, u64)>,
    max_bytes: u64,
    segment_bytes: u64,
    /// Of all segments.
    bytes: u64,
    /// Number of the next record that is written.
    end: u64,
    /// Number of the next record that is read.
    next: u64,
    /// Every record before this one has been acknowledged or given up.
    acknowledged: u64,
    /// Records that were given up and have not been asked about yet.
    lost: u64,
    /// Those of them behind `acknowledged`: begin and end of each range.
    gaps: Vec<(u64, u64)>,
    buffer: Vec<u8>,
}

impl Spool {
    /// Opens the queue in `folder`, which is made for this user alone; `max_bytes` bounds
    /// its segments.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it; others of the file system.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let meta = fs::metadata(folder)?;
        if meta.uid() != rustix::process::getuid().as_raw() || meta.mode() & 0o022 != 0 {
            let reason = "the folder must be this user's own, and writable by nobody else";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let path = folder.join("lock");
        let lock = open(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let (own, there) = (lock.metadata()?, fs::metadata(&path));
        if !there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            // The process before has just removed it.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let cursor = open(&folder.join("cursor"))?;
        let segments = segment::list(folder)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            _lock: lock,
            cursor,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments: segments.into(),
            writer: None,
            ended: Vec::new(),
            reader: None,
            max_bytes,
            // So that giving up the oldest gives up little, and small bounds hold too.
            segment_bytes: (max_bytes / 32).clamp(16 << 10, 16 << 20),
            end: 0,
            next: 0,
            acknowledged: 0,
            lost: 0,
            gaps: Vec::new(),
            buffer: Vec::new(),
        };
        spool.recover()?;
        // Its bytes are there when the disk is full: it is what makes room.
        let _ = spool.write_cursor();
        Ok(spool)
    }

    /// Cuts off what a crash left half written, and finds the place to go on from.
    fn recover(&mut self) -> io::Result<()> {
        let mut cursor = [0; CURSOR_BYTES];
        let written = self.cursor.read_exact_at(&mut cursor, 0).is_ok();
        let cursor = written.then(|| parse_cursor(cursor)).flatten();
        let Some(last) = self.segments.back_mut() else {
            // Numbers go on where they were, though nothing is left.
            self.end = cursor.map_or(0, |(number, _)| number);
            (self.next, self.acknowledged) = (self.end, self.end);
            return Ok(());
        };
        let path = last.path(&self.folder);
        let (count, whole) = segment::scan(&path, last.first)?;
        if whole < last.bytes {
            OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
            self.bytes -= last.bytes - whole;
            last.bytes = whole;
        }
        self.end = last.first + count;
        let base = self.base();
        let (cursor, counted) = cursor.unwrap_or((base, 0));
        // Records that the end of the machine took with it were numbered already.
        if cursor > self.end {
            self.start_segment(cursor)?;
        }
        self.acknowledged = cursor.max(base);
        self.lost += base.saturating_sub(cursor).saturating_sub(counted);
        self.next = self.acknowledged;
        self.remove_acknowledged()
    }

    /// Number of the oldest record that is still there.
    fn base(&self) -> u64 {
        self.segments.front().map_or(self.end, |segment| segment.first)
    }

    /// Appends a message; beyond the bound the oldest segment goes, see
    /// [`take_lost`](Self::take_lost).
    ///
    /// # Errors
    /// As the file system says; the message is not kept then, and nothing else is lost.
    pub(crate) fn push(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let full = self.segments.back().is_none_or(|last| last.bytes >= self.segment_bytes);
        if full || self.writer.is_none() {
            self.start_segment(self.end)?;
        }
        record(self.end, payload, &mut self.buffer);
        let (Some(writer), Some(last)) = (&mut self.writer, self.segments.back_mut()) else {
            return Err(io::Error::other("there is no segment"));
        };
        if let Err(error) = writer.write_all(&self.buffer) {
            let written = last.bytes;
            // Half a record must not stay in front of a whole one. Where even that fails,
            // the next record goes into a new segment.
            if writer.set_len(written).is_err() {
                self.writer = None;
            }
            // Disk that is full of what has arrived is ours to free.
            if self.acknowledged < self.end || written == 0 {
                return Err(error);
            }
            self.start_segment(self.end)?;
            self.remove_acknowledged()?;
            return self.push(payload);
        }
        let bytes = self.buffer.len() as u64;
        last.bytes += bytes;
        self.bytes += bytes;
        self.end += 1;
        while self.bytes > self.max_bytes && self.segments.len() > 1 {
            // The message is kept, whatever becomes of the oldest ones' file.
            let _ = self.drop_oldest();
        }
        Ok(())
    }

    fn start_segment(&mut self, first: u64) -> io::Result<()> {
        // An empty one would have the name of its successor.
        if self.segments.back().is_some_and(|last| last.first == first) {
            let last = self.segments.pop_back();
            self.bytes -= last.map_or(0, |last| last.bytes);
        }
        let segment = Segment { first, bytes: 0 };
        let path = segment.path(&self.folder);
        let file = private().append(true).create(true).open(path)?;
        file.set_len(0)?;
        let ended = self.segments.back().map(|last| last.first).zip(self.writer.replace(file));
        self.ended.extend(ended.filter(|_| self.ended.len() < ENDED_MAX));
        self.segments.push_back(segment);
        self.end = first;
        Ok(())
    }

    /// Gives up the oldest segment. Records that are on their way may still arrive, and
    /// are counted when it is known that they do not.
    fn drop_oldest(&mut self) -> io::Result<()> {
        let Some(segment) = self.segments.pop_front() else { return Ok(()) };
        self.bytes -= segment.bytes;
        let base = self.base();
        if self.next < base {
            self.skip_to(base);
        }
        let written = self.write_cursor();
        self.remove(&segment)?;
        written
    }

    /// Removes a segment, with what would keep its disk.
    fn remove(&mut self, segment: &Segment) -> io::Result<()> {
        self.ended.retain(|(first, _)| *first != segment.first);
        self.reader.take_if(|(first, ..)| *first == segment.first);
        fs::remove_file(segment.path(&self.folder))
    }

    /// Reads no record before `to`, and counts each of them once.
    fn skip_to(&mut self, to: u64) {
        let from = std::mem::replace(&mut self.next, to);
        self.lost += to - from - self.counted(from, to);
        if from == self.acknowledged {
            self.acknowledged = to;
            self.gaps.retain(|gap| gap.1 > to);
            return;
        }
        let mut gap = (from, to);
        // One that touches it becomes part of it.
        self.gaps.retain(|&(begin, end)| {
            let apart = end < gap.0 || gap.1 < begin;
            if !apart {
                gap = (gap.0.min(begin), gap.1.max(end));
            }
            apart
        });
        self.gaps.push(gap);
    }

    /// How many of these were counted as lost.
    fn counted(&self, from: u64, to: u64) -> u64 {
        let inside = |&(begin, end): &(u64, u64)| end.min(to).saturating_sub(begin.max(from));
        self.gaps.iter().map(inside).sum()
    }

    /// The next message that has not been read since the last
    /// [`rewind`](Self::rewind), with its number.
    ///
    /// # Errors
    /// As the file system says. Records that are damaged are skipped and counted as lost.
    pub(crate) fn read(&mut self, payload: &mut Vec<u8>) -> io::Result<Option<u64>> {
        while self.next < self.end {
            let at = self.segments.partition_point(|segment| segment.first <= self.next);
            let Some(segment) = at.checked_sub(1).and_then(|at| self.segments.get(at)) else {
                return Ok(None);
            };
            let (first, bytes) = (segment.first, segment.bytes);
            let after = self.segments.get(at).map_or(self.end, |next| next.first);
            if self.reader.as_ref().is_none_or(|(open, ..)| *open != first) {
                let file = File::open(segment.path(&self.folder))?;
                let mut offset = 0;
                // From the front: only lengths are read, once per segment and rewind.
                for _ in first..self.next {
                    offset += segment::length_at(&file, offset)?.unwrap_or(0);
                }
                self.reader = Some((first, file, offset));
            }
            let Some((_, file, offset)) = &mut self.reader else { return Ok(None) };
            if *offset + HEADER_BYTES <= bytes && read_record(file, *offset, self.next, payload)? {
                *offset += HEADER_BYTES + payload.len() as u64;
                self.next += 1;
                return Ok(Some(self.next - 1));
            }
            // Damaged, or missing after the machine lost power: the next segment goes on.
            self.skip_to(after);
        }
        Ok(None)
    }

    /// Every message before `number` has arrived.
    ///
    /// # Errors
    /// As the file system says; the messages are repeated after the next start then.
    pub(crate) fn acknowledge(&mut self, number: u64) -> io::Result<()> {
        if number <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = number;
        self.gaps.retain(|gap| gap.1 > number);
        let written = self.write_cursor();
        // Also then: it may be what a full disk waits for.
        self.remove_acknowledged()?;
        written
    }

    /// Reads again what was read and has not been acknowledged.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        let base = self.base();
        if self.acknowledged < base {
            // They were on their way when their segment was given up.
            self.lost += base - self.acknowledged - self.counted(self.acknowledged, base);
            self.acknowledged = base;
            self.gaps.retain(|gap| gap.1 > base);
            self.write_cursor()?;
        }
        self.next = self.acknowledged;
        self.reader = None;
        Ok(())
    }

    fn remove_acknowledged(&mut self) -> io::Result<()> {
        while self.segments.get(1).is_some_and(|second| second.first <= self.acknowledged) {
            let Some(segment) = self.segments.pop_front() else { break };
            self.bytes -= segment.bytes;
            self.remove(&segment)?;
        }
        Ok(())
    }

    fn write_cursor(&self) -> io::Result<()> {
        let counted = self.counted(self.acknowledged, self.base());
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..8].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes[8..16].copy_from_slice(&counted.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        self.cursor.write_all_at(&bytes, 0)
    }

    /// Messages that have not been acknowledged.
    pub(crate) fn waiting(&self) -> u64 {
        self.end - self.first_waiting()
    }

    /// Whether [`read`](Self::read) may have a message.
    pub(crate) fn has_unread(&self) -> bool {
        self.next < self.end
    }

    /// Number of the first message that has not been acknowledged.
    pub(crate) fn first_waiting(&self) -> u64 {
        self.acknowledged.max(self.base())
    }

    /// Messages that were given up since this was asked last.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Files to call `sync_data` on, so that what was pushed until now survives a loss of
    /// power too.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn sync(&mut self) -> io::Result<Unsynced> {
        let mut files = std::mem::take(&mut self.ended);
        let writer = self.writer.as_ref().map(File::try_clone).transpose()?;
        files.extend(writer.map(|file| (u64::MAX, file)));
        files.push((u64::MAX, File::open(&self.folder)?));
        Ok(files)
    }

    /// Takes back what [`sync`](Self::sync) gave and was not done: segments that were ended
    /// meanwhile would be forgotten.
    pub(crate) fn sync_later(&mut self, mut files: Unsynced) {
        // The segment in use and the folder come again by themselves.
        files.retain(|(first, _)| self.segments.iter().any(|segment| segment.first == *first));
        files.append(&mut self.ended);
        files.truncate(ENDED_MAX);
        self.ended = files;
    }

    /// Removes the folder when nothing waits in it, and the one above when that is empty.
    pub(crate) fn remove_if_empty(&mut self) {
        if self.waiting() > 0 {
            return;
        }
        let files = self.segments.iter().map(|segment| segment.path(&self.folder));
        // The lock goes last: who has waited for it finds that it is another file.
        let own = ["cursor", "lock"].map(|name| self.folder.join(name));
        for file in files.chain(own) {
            let _ = fs::remove_file(file);
        }
        for folder in std::iter::once(self.folder.as_path()).chain(self.folder.parent()) {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn open(path: &Path) -> io::Result<File> {
    private().read(true).write(true).create(true).truncate(false).open(path)
}

/// First record that is not acknowledged, and how many behind it were counted as lost.
fn parse_cursor(bytes: [u8; CURSOR_BYTES]) -> Option<(u64, u64)> {
    let (numbers, sum) = bytes.split_at(16);
    let number = |at: usize| {
        let mut parsed = [0; 8];
        parsed.copy_from_slice(&numbers[at..at + 8]);
        u64::from_le_bytes(parsed)
    };
    (crc32fast::hash(numbers).to_le_bytes() == sum).then(|| (number(0), number(8)))
}
