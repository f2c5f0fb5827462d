//! Which frames this process has taken and not answered yet, in a file that outlives it.
//!
//! A process that is killed in the middle of a batch answers nothing any more. Its
//! successor finds the frames here and answers them `failed`, so that every frame has a
//! result. The file lies in the instance's folder: a head that says who wrote it, then
//! records of one size, one per frame that waits or is in the engine. A frame costs two
//! small writes to the page cache, 2 microseconds together on ext4 and 1.5 on tmpfs (one
//! core of a cloud machine that was busy otherwise), and no allocation. A disk that hangs
//! can hold such a write up: instances that must outlive their disk have `bus.root` on
//! tmpfs.
//!
//! A frame leaves the ledger after its result was sent. When a process dies between the
//! two, the successor cannot know, and the frame has two results: of those with the same
//! camera, epoch and sequence number the first one counts.

use bytemuck::{Pod, Zeroable};
use framebus_types::{FrameHeader, VERSION, text};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Name of the file in the instance's folder.
const FILE: &str = "inference.ledger";
/// Frames that it holds; more than cameras may have in one process. One that finds no
/// place is not covered.
const ENTRIES: u16 = 1024;
const MAGIC: [u8; 16] = *b"framebus.ledger1";
/// Size of the file.
pub const BYTES: usize = size_of::<Head>() + ENTRIES as usize * size_of::<Record>();

/// The place of a frame in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(u16);

impl Default for Entry {
    /// None: the frame is not in the ledger.
    fn default() -> Self {
        Self(u16::MAX)
    }
}

#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Head {
    magic: [u8; 16],
    /// Of this boot: times of another one mean nothing.
    boot: [u8; 40],
    backend: [u8; 16],
    model: [u8; 48],
    reserved: [u8; 136],
}

#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Record {
    header: FrameHeader,
    /// 0 in a free record.
    taken_ns: u64,
    check: u64,
    reserved: [u8; 48],
}

const _: () = assert!(size_of::<Head>() == size_of::<Record>());
const SIZE: u64 = size_of::<Record>() as u64;
const TAKEN_AT: u64 = size_of::<FrameHeader>() as u64;

/// A frame that a process had when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Orphan {
    /// What the frame was.
    pub header: FrameHeader,
    /// When it was taken from the bus, CLOCK_MONOTONIC ns.
    pub taken_ns: u64,
    /// Its place, until it is answered.
    pub entry: Entry,
}

/// What a process left behind.
#[derive(Debug, Default)]
pub struct Legacy {
    /// Backend that it had loaded; empty when none.
    pub backend: String,
    /// Model that it had loaded.
    pub model: String,
    /// Frames without a result, oldest first.
    pub orphans: Vec<Orphan>,
}

impl Legacy {
    /// Reads what a ledger's file holds; `None` when it is no ledger of this boot.
    #[must_use]
    pub fn parse(bytes: &[u8], boot: [u8; 40]) -> Option<Self> {
        let mut records = bytes.chunks_exact(size_of::<Record>());
        let head: Head = bytemuck::pod_read_unaligned(records.next()?);
        if bytes.len() != BYTES || head.magic != MAGIC || head.boot != boot {
            return None;
        }
        let mut orphans = Vec::new();
        for (entry, record) in (0..ENTRIES).zip(records) {
            let record: Record = bytemuck::pod_read_unaligned(record);
            if record.is_sound() {
                let Record { header, taken_ns, .. } = record;
                orphans.push(Orphan { header, taken_ns, entry: Entry(entry) });
            }
        }
        orphans.sort_by_key(|orphan| orphan.taken_ns);
        let backend = text::unpack(&head.backend).to_owned();
        let model = text::unpack(&head.model).to_owned();
        Some(Self { backend, model, orphans })
    }
}

/// The open file; without one, nothing is noted.
#[derive(Debug, Default)]
pub struct Ledger {
    file: Option<File>,
    free: Mutex<Vec<u16>>,
    warned: AtomicBool,
}

impl Ledger {
    /// Opens the ledger in `folder` and reads what the process before this one left.
    ///
    /// # Errors
    /// When the file cannot be written, or another process has it.
    pub fn open(folder: &Path) -> Result<(Self, Legacy)> {
        let path = folder.join(FILE);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        file.try_lock().map_err(|_| Error::new(ErrorKind::WouldBlock, "another process has it"))?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = text::pack(boot.trim());
        let legacy = read(&file, boot).unwrap_or_default();
        if legacy.is_none() {
            // All of it at once, so that a disk that is full later does not matter.
            let empty = vec![0; usize::from(ENTRIES) * size_of::<Record>()];
            file.set_len(0)?;
            file.write_all_at(&empty, SIZE)?;
            let head = Head { magic: MAGIC, boot, ..Head::zeroed() };
            file.write_all_at(bytemuck::bytes_of(&head), 0)?;
        }
        let legacy = legacy.unwrap_or_default();
        let held = |entry: &u16| legacy.orphans.iter().any(|orphan| orphan.entry.0 == *entry);
        let free = (0..ENTRIES).rev().filter(|entry| !held(entry)).collect();
        Ok((Self { file: Some(file), free: Mutex::new(free), ..Self::default() }, legacy))
    }

    /// Says what is loaded, for the successor.
    pub fn loaded(&self, backend: &str, model: &str) {
        let head =
            Head { backend: text::pack(backend), model: text::pack(model), ..Head::zeroed() };
        let from = std::mem::offset_of!(Head, backend);
        let to = std::mem::offset_of!(Head, reserved);
        self.write(&bytemuck::bytes_of(&head)[from..to], from as u64);
    }

    /// A frame was taken.
    pub fn enter(&self, header: &FrameHeader, taken_ns: u64) -> Entry {
        if self.file.is_none() {
            return Entry::default();
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(entry) = free else { return Entry::default() };
        let mut record = Record { header: *header, taken_ns, ..Record::zeroed() };
        record.check = record.checksum();
        self.write(bytemuck::bytes_of(&record), place(entry));
        Entry(entry)
    }

    /// Its result was sent.
    pub fn leave(&self, entry: Entry) {
        if entry != Entry::default() {
            self.write(&[0; 8], place(entry.0) + TAKEN_AT);
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(entry.0);
        }
    }

    fn write(&self, bytes: &[u8], at: u64) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(bytes, at)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %error,
                "the ledger of frames in work cannot be written; frames that are in work when \
                 this process is killed will have no result"
            );
        }
    }
}

impl Record {
    /// FNV-1a: finds what was half written or damaged.
    fn checksum(&self) -> u64 {
        let unchecked = Self { check: 0, ..*self };
        bytemuck::bytes_of(&unchecked).iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    fn is_sound(&self) -> bool {
        let name = text::unpack(&self.header.camera);
        self.taken_ns != 0
            && self.check == self.checksum()
            && self.header.version == VERSION
            && framebus_config::CameraName::try_from(name).is_ok()
    }
}

fn place(entry: u16) -> u64 {
    SIZE * (1 + u64::from(entry))
}

/// What an earlier process left; `None` when the file is no ledger of this boot.
fn read(file: &File, boot: [u8; 40]) -> Result<Option<Legacy>> {
    if file.metadata()?.len() != BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Legacy::parse(&bytes, boot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64) -> FrameHeader {
        FrameHeader { camera: text::pack("front"), epoch_ns: 7, sequence, ..FrameHeader::default() }
    }

    fn left(legacy: &Legacy) -> Vec<u64> {
        legacy.orphans.iter().map(|orphan| orphan.header.sequence).collect()
    }

    #[test]
    fn what_was_not_answered_is_found_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ledger, legacy) = Ledger::open(folder.path()).expect("opens");
        assert!(legacy.orphans.is_empty());
        ledger.loaded("openvino", "yolo");
        assert!(Ledger::open(folder.path()).is_err(), "one process at a time");
        let entries: Vec<Entry> = (0..4).map(|n| ledger.enter(&header(n), 100 - n)).collect();
        ledger.leave(entries[1]);
        drop(ledger);

        let (ledger, legacy) = Ledger::open(folder.path()).expect("opens");
        assert_eq!((legacy.backend.as_str(), legacy.model.as_str()), ("openvino", "yolo"));
        assert_eq!(left(&legacy), [3, 2, 0], "in the order in which they were taken");
        // New frames do not take the places of those that are not answered yet.
        let new = ledger.enter(&header(9), 200);
        legacy.orphans.iter().for_each(|orphan| ledger.leave(orphan.entry));
        drop(ledger);
        let (ledger, legacy) = Ledger::open(folder.path()).expect("opens");
        assert_eq!(left(&legacy), [9]);
        ledger.leave(new);
        drop(ledger);
        let (_, legacy) = Ledger::open(folder.path()).expect("opens");
        assert!(legacy.orphans.is_empty());
    }

    #[test]
    fn a_full_ledger_takes_no_more_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ledger, _) = Ledger::open(folder.path()).expect("opens");
        let entries: Vec<Entry> = (0..1025).map(|n| ledger.enter(&header(n), 1)).collect();
        assert_eq!(entries[1024], Entry::default());
        entries.into_iter().for_each(|entry| ledger.leave(entry));
        assert_ne!(ledger.enter(&header(0), 1), Entry::default());
    }

    #[test]
    fn bytes_that_lie_are_no_frames() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        for (at, byte) in [(300, 1), (256 + 32, 0xff), (256 + 192, 3), (256 + 200, 9), (0, b'x')] {
            let (ledger, _) = Ledger::open(folder.path()).expect("opens");
            ledger.enter(&header(1), 5);
            drop(ledger);
            let mut bytes = std::fs::read(&path).expect("read");
            bytes[at] = byte;
            std::fs::write(&path, &bytes).expect("written");
            let (_, legacy) = Ledger::open(folder.path()).expect("opens");
            assert!(legacy.orphans.is_empty(), "byte {at}");
        }
        for bytes in [&b""[..], b"short", &[0xff; 1 << 19]] {
            std::fs::write(&path, bytes).expect("written");
            let (ledger, legacy) = Ledger::open(folder.path()).expect("opens");
            assert!(legacy.orphans.is_empty());
            ledger.enter(&header(2), 5);
            drop(ledger);
            let (ledger, legacy) = Ledger::open(folder.path()).expect("opens");
            assert_eq!(left(&legacy), [2]);
            ledger.leave(legacy.orphans[0].entry);
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other");
        std::fs::write(&other, "mine").expect("written");
        std::os::unix::fs::symlink(&other, folder.path().join(FILE)).expect("linked");
        assert!(Ledger::open(folder.path()).is_err());
        assert_eq!(std::fs::read_to_string(&other).expect("read"), "mine");
    }
}
