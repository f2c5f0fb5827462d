//! Files of records.

use super::RECORD_MAX;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(super) const HEADER_BYTES: u64 = 8;
const EXTENSION: &str = "seg";

/// A file of records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Number of its first record.
    pub(super) first: u64,
    /// Length of the file.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.{EXTENSION}", self.first))
    }
}

/// The segments of a folder, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|end| end == EXTENSION)
            && let Some(first) = stem.and_then(|stem| stem.parse().ok())
        {
            segments.push(Segment { first, bytes: entry.metadata()?.len() });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Writes record `number` into `buffer`.
pub(super) fn record(number: u64, payload: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    // Bounded by `RECORD_MAX`.
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&sum(number, payload).to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// The number is part of the sum: old bytes in the place of a record are none.
fn sum(number: u64, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

/// Reads record `number` at `offset`; `false` when there is no whole one.
pub(super) fn read_record(
    file: &File,
    offset: u64,
    number: u64,
    payload: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES as usize];
    let Some((length, expected)) = read(file, &mut header, offset)?.then(|| parse(header)) else {
        return Ok(false);
    };
    if length > RECORD_MAX {
        return Ok(false);
    }
    payload.resize(length, 0);
    Ok(read(file, payload, offset + HEADER_BYTES)? && sum(number, payload) == expected)
}

/// Length of the record at `offset`, its header included.
pub(super) fn length_at(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut header = [0; HEADER_BYTES as usize];
    Ok(read(file, &mut header, offset)?.then(|| HEADER_BYTES + parse(header).0 as u64))
}

fn parse(header: [u8; HEADER_BYTES as usize]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

/// `false` when the file ends before.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many whole records a segment has, and where they end.
pub(super) fn scan(path: &Path, first: u64) -> io::Result<(u64, u64)> {
    let file = File::open(path)?;
    let (mut count, mut offset, mut payload) = (0, 0, Vec::new());
    while read_record(&file, offset, first + count, &mut payload)? {
        count += 1;
        offset += HEADER_BYTES + payload.len() as u64;
    }
    Ok((count, offset))
}
