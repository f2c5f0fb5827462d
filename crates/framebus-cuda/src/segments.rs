//! Shared-memory segments that frames lie in, registered with the device.
//!
//! The slices of a frame point into a mapping that somebody else made, who may unmap
//! it and map another segment at the same address. So nothing is remembered by
//! address alone: a segment has an identity ([`MemoryId`]), and what is registered is
//! a second, read-only mapping of the same file, which is ours for as long as we need
//! it. A file is the same when device and inode agree with the line of
//! `/proc/self/maps` that the frame's address lies in; while the frame is borrowed,
//! that line stays true.
//!
//! A run holds a reference to each mapping that it copies from or reads, until the
//! device is done with it: a mapping that is dropped here is unregistered when the
//! last run is over, not before.

use crate::context::Context;
use crate::memory::{Registered, Registration};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Registered segments at most; the least recently used one goes.
const SEGMENTS_MAX: usize = 64;

/// Places at most where one segment is known to be mapped: a process maps it once for
/// every subscriber.
const PLACES_MAX: usize = 8;

/// Look-ups between two searches for segments that are gone: at 30 frames a second of one
/// camera some ten seconds.
const SWEEP: u64 = 256;

/// Names the shared-memory segment that a frame lies in.
///
/// The same id and the same mapping range (start and end) mean the same memory; an
/// address alone does not, because a mapping may go and another come in its place, nor
/// does an id alone, because a segment may be mapped again elsewhere. Different ids do
/// not promise different memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryId {
    /// Who owns the segment: an id that is not given again while the machine runs.
    pub publisher: u128,
    /// Number among the owner's segments, from 1; each has its own.
    pub segment: u32,
}

/// Where bytes of a frame lie in memory of ours.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) memory: Arc<Registered>,
    pub(crate) offset: usize,
}

impl Located {
    /// Whether the same bytes are seen here, at a few places of the plane. Identities
    /// and addresses say that already; this keeps a wrong picture out when a segment
    /// was mapped anew a few pages away.
    fn shows(&self, plane: &[u8]) -> bool {
        const SAMPLE: usize = 64;
        let last = plane.len().saturating_sub(SAMPLE);
        [0, last / 2, last].into_iter().all(|at| {
            let sample = &plane[at..plane.len().min(at + SAMPLE)];
            self.memory.holds(self.offset + at, sample)
        })
    }
}

/// Everything registered with one device.
#[derive(Debug)]
pub(crate) struct Segments {
    context: Arc<Context>,
    how: Registration,
    entries: Vec<Entry>,
    /// Counts look-ups, as a clock of who was used last.
    now: u64,
}

#[derive(Debug)]
struct Entry {
    id: MemoryId,
    used: u64,
    /// `None`: it could not be registered, which was said once.
    segment: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    memory: Arc<Registered>,
    /// Open, so that it can be asked whether its name is gone.
    open: File,
    /// Device and inode.
    file: (u64, u64),
    /// Offset in the file of the first byte registered.
    start: u64,
    places: Vec<Place>,
}

/// Addresses that are known to be the segment, and the file's offset there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    addresses: Range<usize>,
    offset: u64,
}

impl Segments {
    pub(crate) fn new(context: &Arc<Context>, how: Registration) -> Self {
        let entries = Vec::with_capacity(SEGMENTS_MAX);
        Self { context: Arc::clone(context), how, entries, now: 0 }
    }

    /// Our view of the bytes at the addresses `bytes`, which begin with `plane` and
    /// which the caller has borrowed. `None`: they have to be copied by the CPU.
    pub(crate) fn locate(
        &mut self,
        id: MemoryId,
        bytes: &Range<usize>,
        plane: &[u8],
    ) -> Option<Located> {
        self.now += 1;
        if self.now.is_multiple_of(SWEEP) {
            self.sweep();
        }
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.used = self.now;
            let segment = entry.segment.as_mut()?;
            if let Some(located) = segment.locate(bytes)
                && located.shows(plane)
            {
                return Some(located);
            }
            // Mapped once more, at another address, which may overlap the old one.
            return match segment.learn(bytes.start) {
                Ok(()) => segment.locate(bytes).filter(|located| located.shows(plane)),
                Err(reason) => {
                    warn(id, &reason);
                    entry.segment = None;
                    None
                }
            };
        }
        self.add(id, bytes)
    }

    /// Gives up segments whose owner is gone: their pages would count as used shared memory
    /// for as long as they are mapped here.
    fn sweep(&mut self) {
        self.entries
            .retain(|entry| entry.segment.as_ref().is_none_or(|segment| !segment.is_gone()));
    }

    fn add(&mut self, id: MemoryId, bytes: &Range<usize>) -> Option<Located> {
        self.sweep();
        let others = |entry: &Entry| entry.id.publisher == id.publisher;
        if self.entries.iter().any(|entry| others(entry) && entry.id.segment > id.segment) {
            // Left over from before the publisher's memory grew: there will be few.
            return None;
        }
        self.entries.retain(|entry| !others(entry));
        if self.entries.len() >= SEGMENTS_MAX {
            let oldest = (0..self.entries.len()).min_by_key(|&index| self.entries[index].used);
            oldest.map(|index| self.entries.swap_remove(index));
        }
        let segment = match Segment::register(&self.context, self.how, bytes.start) {
            Ok(segment) => Some(segment),
            Err(reason) => {
                warn(id, &reason);
                None
            }
        };
        let located = segment.as_ref().and_then(|segment| segment.locate(bytes));
        self.entries.push(Entry { id, used: self.now, segment });
        located
    }
}

fn warn(id: MemoryId, reason: &str) {
    let MemoryId { publisher, segment } = id;
    tracing::warn!(
        publisher = format_args!("{publisher:#x}"),
        segment,
        reason,
        "shared memory cannot be registered with the GPU; its frames are copied by the CPU"
    );
}

impl Segment {
    fn register(context: &Arc<Context>, how: Registration, address: usize) -> Result<Self, String> {
        let mapping = Mapping::of(address)?;
        let file = File::open(&mapping.path)
            .map_err(|error| format!("{} cannot be opened: {error}", mapping.path))?;
        let metadata = file.metadata().map_err(|error| format!("{}: {error}", mapping.path))?;
        if (metadata.dev(), metadata.ino()) != mapping.file {
            return Err(format!("{} is another file by now", mapping.path));
        }
        let start = mapping.offset;
        // A mapping may reach beyond the end of its file, where nothing can be read.
        let page = rustix::param::page_size() as u64;
        let end = metadata
            .len()
            .checked_next_multiple_of(page)
            .unwrap_or(u64::MAX)
            .min(start + mapping.addresses.len() as u64);
        if end <= start {
            return Err(format!("{} ends before the frame", mapping.path));
        }
        let memory = Registered::new(context, &file, &(start..end), how)
            .map_err(|error| format!("{}: {error}", mapping.path))?;
        tracing::debug!(path = mapping.path, bytes = memory.bytes(), "registered with the GPU");
        let place = Place { addresses: mapping.addresses, offset: start };
        let places = vec![place];
        let memory = Arc::new(memory);
        Ok(Self { memory, open: file, file: mapping.file, start, places })
    }

    /// Whether the file has no name any more.
    fn is_gone(&self) -> bool {
        self.open.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    fn locate(&self, bytes: &Range<usize>) -> Option<Located> {
        let inside = |place: &&Place| {
            place.addresses.start <= bytes.start && bytes.end <= place.addresses.end
        };
        let place = self.places.iter().find(inside)?;
        let in_file = place.offset + (bytes.start - place.addresses.start) as u64;
        let offset = usize::try_from(in_file.checked_sub(self.start)?).ok()?;
        let end = offset.checked_add(bytes.len())?;
        (end <= self.memory.bytes()).then(|| Located { memory: Arc::clone(&self.memory), offset })
    }

    /// Another address of the same file.
    fn learn(&mut self, address: usize) -> Result<(), String> {
        let mapping = Mapping::of(address)?;
        if mapping.file != self.file {
            return Err(format!("{} is not the file registered before", mapping.path));
        }
        let addresses = mapping.addresses;
        let overlaps = |place: &Place| {
            place.addresses.start < addresses.end && addresses.start < place.addresses.end
        };
        // What was there before is gone.
        self.places.retain(|place| !overlaps(place));
        if self.places.len() >= PLACES_MAX {
            self.places.remove(0);
        }
        self.places.push(Place { addresses, offset: mapping.offset });
        Ok(())
    }
}

/// A line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    addresses: Range<usize>,
    offset: u64,
    /// Device and inode.
    file: (u64, u64),
    path: String,
}

impl Mapping {
    fn of(address: usize) -> Result<Self, String> {
        let maps = std::fs::read_to_string("/proc/self/maps")
            .map_err(|error| format!("/proc/self/maps: {error}"))?;
        let mapping = find(&maps, address)
            .ok_or_else(|| format!("no mapping at {address:#x} in /proc/self/maps"))?;
        if mapping.file.1 == 0 || !mapping.path.starts_with('/') {
            return Err(format!("the memory at {address:#x} is no file's"));
        }
        if mapping.path.ends_with(" (deleted)") {
            return Err(format!("{}: it can be opened no more", mapping.path));
        }
        Ok(mapping)
    }
}

/// `start-end perms offset major:minor inode   path`, all but the inode hexadecimal.
fn find(maps: &str, address: usize) -> Option<Mapping> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    maps.lines().find_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let addresses = usize::try_from(hex(start)?).ok()?..usize::try_from(hex(end)?).ok()?;
        if !addresses.contains(&address) {
            return None;
        }
        let offset = hex(fields.nth(1)?)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let device = rustix::fs::makedev(number(major)?, number(minor)?);
        let inode = fields.next()?.parse().ok()?;
        let path = fields.next().unwrap_or_default().trim_start().to_owned();
        Some(Mapping { addresses, offset, file: (device, inode), path })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
        1000-3000 r--s 00002000 00:1a 57                         /dev/shm/iox2 a\n\
        3000-4000 rw-p 00000000 00:00 0 \n\
        4000-5000 r--s 00000000 00:1a 58    /dev/shm/b (deleted)\n";

    #[test]
    fn a_line_of_maps() {
        let mapping = find(MAPS, 0x2fff).unwrap();
        assert_eq!(mapping.addresses, 0x1000..0x3000);
        assert_eq!(mapping.offset, 0x2000);
        assert_eq!(mapping.file, (rustix::fs::makedev(0, 0x1a), 57));
        assert_eq!(mapping.path, "/dev/shm/iox2 a");
        assert_eq!(find(MAPS, 0x3000).unwrap().file.1, 0);
        assert_eq!(find(MAPS, 0x4000).unwrap().path, "/dev/shm/b (deleted)");
        assert_eq!(find(MAPS, 0x5000), None);
    }

    #[test]
    fn a_file_of_this_process_has_the_inode_that_maps_says() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        std::io::Write::write_all(&mut file, &[1; 8192]).unwrap();
        let map = memmap2::MmapOptions::new().map_raw_read_only(&file).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapping = find(&maps, map.as_ptr() as usize + 5000).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(mapping.file, (metadata.dev(), metadata.ino()));
        // Without a name it cannot be opened a second time.
        let reason = Mapping::of(map.as_ptr() as usize).unwrap_err();
        assert!(reason.ends_with("(deleted): it can be opened no more"), "{reason}");
        let heap = Box::new(1_u8);
        let reason = Mapping::of(&raw const *heap as usize).unwrap_err();
        assert!(reason.ends_with("is no file's"), "{reason}");
    }
}
