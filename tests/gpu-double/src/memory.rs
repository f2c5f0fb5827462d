//! A TEST's double of CUDA: memory. Device memory and pinned memory are the heap's,
//! registered memory is the caller's; each live range is a [`Block`].
//!
//! An operation *holds* the blocks that it touches while it runs, so freeing one under
//! it is seen instead of crashing. CUDA waits for the device in most of its freeing
//! calls; it promises that nowhere, and here none does.
#![allow(unsafe_code)]

use crate::code::{self, Code};
use crate::table::lock;
use crate::{count, device, fault};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Device,
    Pinned,
    /// By `cuMemHostRegister`; the flag: for reading only.
    Registered(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// One live range of memory that the device may touch.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) address: usize,
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    /// The heap's memory behind it, given back when nobody holds the block any more.
    owned: Option<Layout>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(layout) = self.owned {
            // SAFETY: `alloc` made this address with this layout and nobody else frees it.
            unsafe { std::alloc::dealloc(self.address as *mut u8, layout) }
        }
    }
}

static BLOCKS: Mutex<BTreeMap<usize, Arc<Block>>> = Mutex::new(BTreeMap::new());

/// New device or pinned memory of `len` bytes.
pub(crate) fn allocate(len: usize, kind: Kind) -> Result<usize, Code> {
    if len == 0 {
        return Err(code::INVALID_VALUE);
    }
    let (_, bytes) = live(|kind| kind == Kind::Device);
    if fault::now().oom || (kind == Kind::Device && (bytes + len) as u64 > device::get().memory) {
        return Err(code::OUT_OF_MEMORY);
    }
    let layout = Layout::from_size_align(len, 4096).map_err(|_| code::INVALID_VALUE)?;
    // SAFETY: the layout's size is not 0.
    let memory = unsafe { std::alloc::alloc(layout) };
    if memory.is_null() {
        return Err(code::OUT_OF_MEMORY);
    }
    // What is read before it was written shall be noticed.
    // SAFETY: `len` bytes that were just made.
    unsafe { memory.write_bytes(0xCD, len) };
    let address = memory as usize;
    let block = Block { address, len, kind, owned: Some(layout) };
    lock(&BLOCKS).insert(address, Arc::new(block));
    Ok(address)
}

/// Host memory of the caller's.
pub(crate) fn register(address: usize, len: usize, read_only: bool) -> Result<(), Code> {
    let mut blocks = lock(&BLOCKS);
    let end = address.checked_add(len).ok_or(code::INVALID_VALUE)?;
    let overlaps =
        blocks.range(..end).next_back().is_some_and(|(_, b)| b.address + b.len > address);
    if overlaps {
        return Err(code::ALREADY_REGISTERED);
    }
    let kind = Kind::Registered(read_only);
    blocks.insert(address, Arc::new(Block { address, len, kind, owned: None }));
    Ok(())
}

/// Ends the block that begins at `address`; `wrong` where there is none of these kinds.
pub(crate) fn free(
    address: usize,
    call: &str,
    kind: fn(Kind) -> bool,
    wrong: Code,
) -> Result<(), Code> {
    let remove = || {
        let mut blocks = lock(&BLOCKS);
        blocks.get(&address).filter(|block| kind(block.kind))?;
        blocks.remove(&address)
    };
    let Some(block) = remove() else {
        count::violation(format!("{call}: {address:#x} begins no live memory of its kind"));
        return Err(wrong);
    };
    // This one is held here.
    if Arc::strong_count(&block) > 1 {
        count::violation(format!(
            "{call}: {address:#x} ({} bytes) is freed under an operation that uses it",
            block.len
        ));
    }
    Ok(())
}

/// The block that `address` lies in.
pub(crate) fn find(address: usize) -> Option<Arc<Block>> {
    let blocks = lock(&BLOCKS);
    let (_, block) = blocks.range(..=address).next_back()?;
    (address < block.address + block.len).then(|| block.clone())
}

/// Blocks of some kinds and their bytes.
pub(crate) fn live(kind: impl Fn(Kind) -> bool) -> (usize, usize) {
    let blocks = lock(&BLOCKS);
    let bytes: Vec<usize> = blocks.values().filter(|b| kind(b.kind)).map(|b| b.len).collect();
    (bytes.len(), bytes.iter().sum())
}

/// The block that all of `address..address + len` lies in, for as long as an operation
/// runs. Otherwise a violation, which names `what`.
pub(crate) fn hold(
    address: usize,
    len: usize,
    access: Access,
    what: &str,
) -> Result<Option<Arc<Block>>, Code> {
    if len == 0 {
        return Ok(None);
    }
    let wrong = |why: &str| {
        count::violation(format!("{what}: {len} bytes at {address:#x} {why}"));
        Err(code::ILLEGAL_ADDRESS)
    };
    let Some(block) = find(address) else {
        return wrong("are in no live memory");
    };
    let left = block.address + block.len - address;
    if left < len {
        return wrong(&format!("end {} bytes behind their memory", len - left));
    }
    if access == Access::Write && block.kind == Kind::Registered(true) {
        return wrong("are written, but registered for reading only");
    }
    Ok(Some(block))
}

/// Copies bytes whose places have been looked up, or are the caller's.
pub(crate) fn copy(to: usize, from: usize, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: both ranges are held, or the caller of the exported function vouches for
    // the host's one; `ptr::copy` minds no overlap.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, len) }
}

/// Fills memory that is held with `pattern`, over and over.
pub(crate) fn fill(to: usize, pattern: &[u8], times: usize) {
    for i in 0..times {
        copy(to + i * pattern.len(), pattern.as_ptr() as usize, pattern.len());
    }
}

/// A copy of bytes that are held, or are the caller's.
pub(crate) fn snapshot(from: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    copy(bytes.as_mut_ptr() as usize, from, len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_and_ends_are_held() {
        let address = allocate(100, Kind::Device).unwrap();
        assert!(hold(address + 10, 90, Access::Write, "test").unwrap().is_some());
        assert_eq!(hold(address + 10, 91, Access::Write, "test").unwrap_err(), 700);
        assert_eq!(hold(address - 1, 1, Access::Read, "test").unwrap_err(), 700);
        assert_eq!(snapshot(address, 2), [0xCD; 2]);
        fill(address, &[1, 2], 3);
        assert_eq!(snapshot(address, 7), [1, 2, 1, 2, 1, 2, 0xCD]);
        free(address, "test", |kind| kind == Kind::Device, 1).unwrap();
        assert_eq!(free(address, "test", |kind| kind == Kind::Device, 1), Err(1));
        assert_eq!(hold(address, 1, Access::Read, "test").unwrap_err(), 700);
        assert!(count::violations().1 >= 4);
    }

    #[test]
    fn registered_memory_is_not_written_and_not_registered_twice() {
        let page = [0_u8; 64];
        let address = page.as_ptr() as usize;
        register(address, 64, true).unwrap();
        assert_eq!(register(address + 8, 8, true), Err(code::ALREADY_REGISTERED));
        assert_eq!(register(address - 8, 9, true), Err(code::ALREADY_REGISTERED));
        assert!(hold(address, 64, Access::Read, "test").is_ok());
        assert_eq!(hold(address, 1, Access::Write, "test").unwrap_err(), 700);
        free(address, "test", |kind| kind == Kind::Registered(true), 713).unwrap();
    }
}
