//! Which shared-memory segment a frame lies in.
//!
//! A publisher has one data segment at a time and makes another one when a frame
//! outgrows it. iceoryx2 does not tell which one a sample lies in, so publishers
//! number them.
//!
//! # When iceoryx2 0.10.0 makes a segment
//!
//! Only `loan` does (`iceoryx2-cal`, `resizable_shared_memory/dynamic.rs`,
//! `allocate`): where the newest segment has no room, one more is created, and from
//! then on all loans come from that one. No room is a sample that is larger than the
//! newest segment's, or no free sample. With `AllocationStrategy::PowerOfTwo` the new
//! samples (headers included) are rounded up to a power of two, or keep their size
//! when it was only their number; the loan fits into the new segment, so that one loan
//! makes one segment at most. Segments never shrink, and after 255 iceoryx2 makes none.
//!
//! # Why a number never stays the same across it
//!
//! The new segment is mapped *before* the one before it can be unmapped. So its
//! addresses differ from those of the segment that the last loan came from, whatever
//! else has been unmapped meanwhile: a loan from outside the newest known mapping, and
//! only that, lies in a new segment. Older mappings are forgotten, because their
//! addresses may be given to later segments. In-process "shared" memory is the heap,
//! where two segments can lie in one mapping; therefore a loan that was known to
//! outgrow its segment counts as well, wherever it lies.

use crate::populate::populate;
use std::ops::Range;

/// Names the shared-memory segment that a frame lies in.
///
/// For readers that keep something about a mapping from frame to frame, such as a GPU
/// backend that pins its pages once. Addresses are not enough for that: iceoryx2 unmaps
/// a segment when its publisher is gone or has made a larger one, and may map another
/// one at the same address; what was pinned would then show the old pages.
///
/// The same id and the same mapping range (start and end) mean the same memory: a
/// number is never given to two segments of a publisher, and no two publishers on a
/// machine have the same id until it is started anew. The id without the range is not
/// enough: a reader's mapping of a segment may go and come back elsewhere, and
/// overlap its former place. Different ids do not promise different memory; whoever
/// registers a range gives up those that overlap it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentId {
    /// iceoryx2's id of the publisher, from the reader's connection and not from the
    /// header: when it was made (CLOCK_MONOTONIC, 64 bits), the process (32) and a
    /// counter within it (32). No half is unique without the other.
    pub publisher: u128,
    /// [`FrameHeader::segment`](framebus_types::FrameHeader::segment), from 1.
    pub segment: u32,
}

/// What a publisher knows of its segments.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Largest payload that fits into the newest one.
    payload: usize,
    /// How many there have been.
    count: u64,
    /// Where the newest one is mapped: its pages are there. `None` before the first
    /// loan, and where they could not be had.
    mapping: Option<Range<usize>>,
}

impl Segments {
    /// Nothing has been loaned yet; the first segment is for `payload` bytes.
    pub(crate) fn new(payload: usize) -> Self {
        Self { payload, count: 0, mapping: None }
    }

    /// Whether a frame of `len` bytes fits into the newest segment.
    pub(crate) fn fit(&self, len: usize) -> bool {
        len <= self.payload
    }

    /// A larger one was made.
    pub(crate) fn grown(&mut self, payload: usize) {
        self.payload = payload;
    }

    /// The number of the segment that a new loan at `address` lies in; 0 when there are
    /// no numbers left. Populates the segment when it is new. `outgrown`: the loan did
    /// not fit into the segment before.
    ///
    /// # Errors
    /// There is no memory for the pages.
    pub(crate) fn locate(&mut self, address: usize, outgrown: bool) -> Result<u32, String> {
        let known = self.mapping.as_ref().is_some_and(|mapping| mapping.contains(&address));
        if outgrown || !known {
            // Forgotten first: where populating fails, the next loan counts as new.
            self.mapping = None;
            self.mapping = Some(populate(address)?);
            self.count += 1;
        }
        Ok(u32::try_from(self.count).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_has_a_number_of_its_own() {
        let (one, two) = (vec![0_u8; 1 << 20], 0_u8);
        let (heap, stack) = (one.as_ptr() as usize, &raw const two as usize);
        let mut segments = Segments::new(1 << 20);
        assert!(segments.fit(1 << 20) && !segments.fit((1 << 20) + 1));
        assert_eq!(segments.locate(heap, false), Ok(1));
        assert_eq!(segments.locate(heap + 5000, false), Ok(1), "the same mapping");
        assert_eq!(segments.locate(stack, false), Ok(2), "elsewhere, unasked");
        assert_eq!(segments.locate(heap, false), Ok(3), "an address that was in use before");
        assert_eq!(segments.locate(heap, true), Ok(4), "outgrown, in the same mapping");
        segments.locate(0, false).expect_err("nothing is mapped there");
        assert_eq!(segments.locate(heap, false), Ok(5), "after one that had no pages");
    }

    #[test]
    fn numbers_end_and_do_not_begin_again() {
        let one = vec![0_u8; 1 << 20];
        let mut segments = Segments { count: u64::from(u32::MAX) - 1, ..Segments::new(0) };
        let numbers = [true; 3].map(|new| segments.locate(one.as_ptr() as usize, new));
        assert_eq!(numbers, [Ok(u32::MAX), Ok(0), Ok(0)]);
    }
}
