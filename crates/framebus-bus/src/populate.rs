//! Touches every page of a shared-memory segment before it is used.
//!
//! tmpfs gives out pages on first touch, and when it is full the toucher dies of
//! SIGBUS. `MADV_POPULATE_WRITE` touches them inside the kernel and answers an
//! error instead.

#![allow(unsafe_code)]

use std::ops::Range;

/// Populates the whole mapping that `address` lies in and returns its range.
pub(crate) fn populate(address: usize) -> Result<Range<usize>, String> {
    let maps = std::fs::read_to_string("/proc/self/maps")
        .map_err(|error| format!("/proc/self/maps: {error}"))?;
    let range = find_mapping(&maps, address)
        .ok_or_else(|| format!("no mapping at {address:#x} in /proc/self/maps"))?;
    // SAFETY: the range is one mapping of this process, as the kernel just
    // listed it, and a live loan keeps it mapped. MADV_POPULATE_WRITE faults
    // pages in without changing what they hold.
    let result = unsafe {
        rustix::mm::madvise(
            range.start as *mut std::ffi::c_void,
            range.len(),
            rustix::mm::Advice::LinuxPopulateWrite,
        )
    };
    match result {
        Ok(()) => Ok(range),
        // Kernels before 5.14 do not know the advice; the check of free space
        // before creation is all there is then.
        Err(rustix::io::Errno::INVAL) => {
            tracing::warn!("this kernel cannot populate shared memory (needs Linux 5.14)");
            Ok(range)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn find_mapping(maps: &str, address: usize) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        range.contains(&address).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mapping_of_an_address() {
        let maps = "1000-3000 rw-s 0 00:01 5 /dev/shm/a\n3000-4000 r--p 0 00:00 0\n";
        assert_eq!(find_mapping(maps, 0x2fff), Some(0x1000..0x3000));
        assert_eq!(find_mapping(maps, 0x4000), None);
    }

    #[test]
    fn populates_a_mapping_of_this_process() {
        let heap = vec![7_u8; 1 << 20];
        let range = populate(heap.as_ptr() as usize).expect("the heap can be populated");
        assert!(range.contains(&(heap.as_ptr() as usize)));
        assert_eq!(heap[4096], 7);
    }
}
